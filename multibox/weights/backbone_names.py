"""Names that other projects have for the tensors of our backbones, and how tensors of other shapes become ours."""

import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np
from jaxtyping import Float

from multibox.weights.converters.layers import Tensors
from multibox.weights.converters.pytorch_ports import VGG16_PLACES

_CLASSIFIER = 31
"""Place in VGG-16 at which its classifier begins, which the PyTorch ports of SSD have as convolutions."""

_CLASSIFIER_LAYERS = re.compile(
    r"(classifier|fc|_fc|head|last_linear|_?conv_head|_bn1|bn2|norm|norm_head|fc_norm|head_fc|pre_logits|final_conv)\."
)
"""Beginnings of keys of the layers behind a backbone, by which it classifies images, in torchvision, timm and
efficientnet_lite_pytorch."""

REDUCED_TAIL = re.compile(r"features\.(13\.block\.3|14|15|16)\.")
"""Keys of the layers of MobileNetV3-Large that have half the channels if the tail is reduced."""

_TIMM_BLOCK = re.compile(r"blocks\.(\d+)\.(\d+)\.")
_LAYER_PARTS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

_LITE_PACKAGE = {"_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depthwise.0"} | {
    "_bn1": "depthwise.1", "_project_conv": "project.0", "_bn2": "project.1"
}  # fmt: skip
"""Our names of the layers of a block of EfficientNet-Lite by those of efficientnet_lite_pytorch (model.py)."""

_LITE_TIMM = {"conv_pw": "expand.0", "bn1": "expand.1", "conv_dw": "depthwise.0"} | {
    "bn2": "depthwise.1", "conv_pwl": "project.0", "bn3": "project.1"
}  # fmt: skip
"""The same by timm's names (`InvertedResidual` in timm/models/_efficientnet_blocks.py)."""

_LITE_TIMM_FIRST = {"conv_dw": "depthwise.0", "bn1": "depthwise.1", "conv_pw": "project.0", "bn2": "project.1"}
"""The same of a block without an expansion (`DepthwiseSeparableConv`)."""


def named_as_ours(backbone: str, tensors: Tensors) -> dict[str, np.ndarray]:
    """Returns the tensors of a network that classifies images as the backbone has them, without its classifier.

    VGG-16 gets `conv6` and `conv7` from its classifier by decimation. MobileNetV3-Large with the reduced tail gets the
    full network up to the depthwise convolution of block 13, where the two begin to differ.

    Args:
        backbone: Name of the backbone.
        tensors: Tensors by torchvision's names, or those of efficientnet_lite_pytorch or timm.

    Raises:
        ValueError: A tensor of VGG-16 is missing or has other axes.
    """
    if backbone == "vgg16" and "features.0.weight" in tensors:
        try:
            tensors = decimated_vgg16(tensors)
        except KeyError as error:
            raise ValueError(f"the tensor {error} of torchvision's VGG-16 is missing") from error
        except (ValueError, IndexError) as error:
            raise ValueError("the classifier has not the shapes of torchvision's VGG-16") from error
    names = our_names(backbone, tensors)
    found = {names[key]: tensor for key, tensor in tensors.items() if key in names}
    full = found.get("features.16.0.weight")
    if backbone == "mobilenet-v3-large-reduced" and full is not None and len(full) == 960:
        found = {key: tensor for key, tensor in found.items() if not REDUCED_TAIL.match(key)}
    return found


def our_names(backbone: str, keys: Collection[str]) -> dict[str, str]:
    """Returns our keys of the backbone's tensors by the keys that another project has for them.

    Those of VGG-16 may be the places of its layers, as in `vgg16_reducedfc.pth`, from which the PyTorch ports of SSD
    start. The keys of the layers by which a network classifies images are left out. Keys that are of no known project
    are returned as they are.
    """
    renames = {str(place): name for place, name in VGG16_PLACES.items()} if backbone == "vgg16" else {}
    if backbone.startswith("efficientnet-lite"):
        renames = _lite_names(keys)
    names = {}
    for key in keys:
        layer, _, part = key.rpartition(".")
        if layer in renames and part in _LAYER_PARTS:
            names[key] = f"{renames[layer]}.{part}"
        elif not is_classifier(key):
            names[key] = key
    return names


def is_classifier(key: str) -> bool:
    """Returns whether the tensor belongs to a layer behind a backbone, by which it classifies images."""
    return _CLASSIFIER_LAYERS.match(key) is not None


def _lite_names(keys: Iterable[str]) -> dict[str, str]:
    """Returns our names of the layers of EfficientNet-Lite by those of efficientnet_lite_pytorch and of timm.

    timm counts blocks within their stage. Ours are counted through, so that the keys must be those of all blocks.
    """
    layers = {key.rpartition(".")[0] for key in keys}
    names = {"_conv_stem": "stem.0", "_bn0": "stem.1"} if "_conv_stem" in layers else {}
    names |= {"conv_stem": "stem.0", "bn1": "stem.1"} if "conv_stem" in layers else {}
    blocks = sorted({(int(found[1]), int(found[2])) for layer in layers if (found := _TIMM_BLOCK.match(layer))})
    for layer in layers:
        outer, _, inner = layer.rpartition(".")
        if outer.startswith("_blocks.") and inner in _LITE_PACKAGE:
            names[layer] = f"block{outer.removeprefix('_blocks.')}.layers.{_LITE_PACKAGE[inner]}"
        elif found := _TIMM_BLOCK.match(layer):
            places = _LITE_TIMM if f"{outer}.conv_pwl" in layers else _LITE_TIMM_FIRST
            if inner in places:
                number = blocks.index((int(found[1]), int(found[2])))
                names[layer] = f"block{number}.layers.{places[inner]}"
    return names


def decimated_vgg16(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns torchvision's VGG-16 under the paper's names, with `conv6` and `conv7` decimated from its classifier.

    Every fourth of the 4,096 channels of fc6 and fc7 is kept, and every third row and column of fc6's 7x7 kernel
    (DeepLab-LargeFOV). The dilation of `conv6` brings the rows and columns back to about their places.
    """
    found = {
        f"{name}.{part}": tensors[f"features.{place}.{part}"]
        for place, name in VGG16_PLACES.items()
        if place < _CLASSIFIER
        for part in ("weight", "bias")
    }
    bias6, bias7 = tensors["classifier.0.bias"], tensors["classifier.3.bias"]
    fc6 = tensors["classifier.0.weight"].reshape(len(bias6), -1, 7, 7)
    fc7 = tensors["classifier.3.weight"][:, :, None, None]
    return found | {
        "conv6.weight": decimate(fc6, (4, None, 3, 3)),
        "conv6.bias": decimate(bias6, (4,)),
        "conv7.weight": decimate(fc7, (4, 4, None, None)),
        "conv7.bias": decimate(bias7, (4,)),
    }


def decimate(tensor: Float[np.ndarray, "..."], steps: tuple[int | None, ...]) -> Float[np.ndarray, "..."]:
    """Returns the first value of each axis and every `step`-th after it; all of them if the step is `None`."""
    return np.ascontiguousarray(tensor[tuple(slice(None, None, step) for step in steps)])
