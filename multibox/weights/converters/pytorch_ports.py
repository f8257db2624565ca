"""Shared parts of the PyTorch ports of SSD: the numbers of their layers, and the way to our names.

The ports are ssd.pytorch (amdegroot/ssd.pytorch), lufficc/SSD and qfgaohao/pytorch-ssd, all MIT. The latter two took
VGG-16 and its extra layers from the first.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from multibox.config import DetectorConfig, ExtraLayer, FeatureMap, Head
from multibox.messages import quoted
from multibox.presets import paper_box_sizes
from multibox.weights.converters.layers import Tensors, norm_of_bias

VGG16_PLACES: Mapping[int, str] = {
    0: "conv1_1", 2: "conv1_2", 5: "conv2_1", 7: "conv2_2", 10: "conv3_1", 12: "conv3_2", 14: "conv3_3",
    17: "conv4_1", 19: "conv4_2", 21: "conv4_3", 24: "conv5_1", 26: "conv5_2", 28: "conv5_3", 31: "conv6", 33: "conv7",
}  # fmt: skip
"""Our names of the convolutions by their index in the list that `vgg` makes (ssd.py of ssd.pytorch, vision/nn/vgg.py of
qfgaohao, ssd/modeling/backbone/vgg.py of lufficc). Activations and pools have the other indices."""

_MOBILENET_SIZES = ((60, 105), (105, 150), (150, 195), (195, 240), (240, 285), (285, 330))
"""`(min_size, max_size)` in pixels of each feature map (configs/mobilenet_v2_ssd320_voc0712.yaml of lufficc,
vision/ssd/config/mobilenetv1_ssd_config.py of qfgaohao)."""

_INVERTED_RESIDUALS = ((256, 512), (128, 256), (128, 256), (64, 64))
"""Inner and output channels of the extra layers of MobileNetV2 (ssd/modeling/backbone/mobilenet.py of lufficc,
vision/ssd/mobilenet_v2_ssd_lite.py of qfgaohao) and of qfgaohao's MobileNetV3 (vision/ssd/mobilenetv3_ssd_lite.py)."""


def mobilenet_rows(
    layers: tuple[str, ...], grids: tuple[int, ...], steps: tuple[int, ...], *, head: Head, last_head: Head
) -> tuple[FeatureMap, ...]:
    """Returns the feature maps of the detectors on a MobileNet, with six default boxes in each cell."""
    heads = [head] * (len(layers) - 1) + [last_head]
    return tuple(
        FeatureMap(layer, grid, grid, (step, step), paper_box_sizes(*sizes, (2, 3)), head=kind)
        for layer, grid, step, sizes, kind in zip(layers, grids, steps, _MOBILENET_SIZES, heads, strict=True)
    )


def separable_extras(channels: Sequence[tuple[int, int]] = _INVERTED_RESIDUALS) -> tuple[ExtraLayer, ...]:
    """Returns the extra layers of the lite detectors, by default with the channels of those on MobileNet v2 and v3.

    In each block of three, the first layer changes the channels, the second halves the map, the third is linear.

    Args:
        channels: Inner and output channels of each block.
    """
    extras: list[ExtraLayer] = []
    for number, (inside, output) in enumerate(channels, start=1):
        extras += [
            ExtraLayer(f"extra{number}_1", inside, 1),
            ExtraLayer(f"extra{number}_2", inside, 3, stride=2, padding=1, depthwise=True),
            ExtraLayer(f"extra{number}_3", output, 1, linear=True),
        ]
    return tuple(extras)


def extra_names(blocks: int, theirs: str, places: Mapping[str, str]) -> dict[str, str]:
    """Returns our names of the layers in the blocks of `separable_extras` by the project's names.

    Args:
        blocks: Number of blocks.
        theirs: The project's name of a block, with `{}` in place of its index.
        places: Our names of the layers of a block, `1.0` for the first layer of `extra1_1`, by the project's names.
    """
    return {
        f"{theirs.format(block)}.{place}": f"extras.extra{block + 1}_{ours}"
        for block in range(blocks)
        for place, ours in places.items()
    }


def head_names(
    config: DetectorConfig, *, offsets: str, logits: str, inside: str = "", batch_norm: bool = True
) -> dict[str, str]:
    """Returns our names of the layers of the heads by the project's names.

    Args:
        config: Config of the detector.
        offsets: Name of the project's list of heads for the offsets.
        logits: Name of the project's list of heads for the classes.
        inside: Text between the name of a separable head and the indices of its layers.
        batch_norm: Whether the project's separable heads have BatchNorm.
    """
    parts = {0: "depthwise", 1: "norm", 3: "pointwise"} if batch_norm else {0: "depthwise", 2: "pointwise"}
    names: dict[str, str] = {}
    for place, row in enumerate(config.feature_maps):
        for theirs, ours in (
            (f"{offsets}.{place}", f"offsets.{row.layer}"),
            (f"{logits}.{place}", f"logits.{row.layer}"),
        ):
            if row.head == "separable":
                names |= {f"{theirs}{inside}.{part}": f"{ours}.{name}" for part, name in parts.items()}
            else:
                names[theirs] = ours
    return names


def class_count(source: Tensors, head: str, row: FeatureMap) -> int:
    """Returns the number of classes of a feature map's head, the background not counted.

    Raises:
        ValueError: There is no such head, or the boxes of a cell do not have equally many outputs.
    """
    if f"{head}.bias" not in source:
        raise ValueError(f"its layer '{head}' is missing")
    outputs, boxes = source[f"{head}.bias"].size, len(row.box_sizes)
    if outputs % boxes or outputs < 2 * boxes:
        raise ValueError(
            f"its layer '{head}' has {outputs} outputs, expected as many for each of the {boxes} boxes of a cell, "
            "and at least 2"
        )
    return outputs // boxes - 1


def renamed(source: Tensors, names: Mapping[str, str], *, model: str) -> dict[str, np.ndarray]:
    """Returns the state dict under our names.

    In the ports, the depthwise convolutions of separable heads have a bias. Where BatchNorm follows, the bias is
    subtracted from its mean; where none does, it becomes one.

    Args:
        source: State dict of the port.
        names: Our names of layers by the port's names.
        model: Name of the model, for messages.

    Raises:
        ValueError: A layer is missing or left over.
    """
    tensors: dict[str, np.ndarray] = {}
    for key, tensor in source.items():
        layer, _, part = key.rpartition(".")
        if layer not in names:
            raise ValueError(f"its tensor {quoted(key)} belongs to no layer of {model}")
        if part == "running_var":  # files from before PyTorch 0.4.1 have no counter
            tensors[f"{names[layer]}.num_batches_tracked"] = np.zeros((), np.int64)
        if part != "num_batches_tracked":
            tensors[f"{names[layer]}.{part}"] = tensor
    for theirs, ours in names.items():
        if f"{ours}.weight" not in tensors:
            raise ValueError(f"the layer '{theirs}' of {model} is missing")
    for key in [key for key in tensors if key.endswith(".depthwise.bias")]:
        norm, bias = f"{key.removesuffix('.depthwise.bias')}.norm", tensors.pop(key)
        if f"{norm}.running_mean" in tensors:
            tensors[f"{norm}.running_mean"] = tensors[f"{norm}.running_mean"] - bias
        else:
            tensors |= norm_of_bias(bias, norm)
    return tensors
