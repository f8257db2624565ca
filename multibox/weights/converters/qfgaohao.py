"""Converts detectors of qfgaohao/pytorch-ssd (MIT), all with an input of 300: on VGG-16, the MobileNets, SqueezeNet.

The project has rules of its own. All four numbers of a default box are clipped (generate_ssd_priors in
vision/utils/box_utils.py). The best 200 boxes of each class with a score above 0.01 enter suppression at 0.45, without
a limit over all classes (vision/ssd/predictor.py). Pixels are RGB after OpenCV's bilinear resize of 8-bit pixels: less
127 and divided by 128 (vision/ssd/config/mobilenetv1_ssd_config.py, squeezenet_ssd_config.py), or less VGG's mean
(vgg_ssd_config.py). BatchNorm replaces L2 normalization (vision/ssd/vgg_ssd.py). One thing is not carried over: its IoU
has 1e-5 of the image's area in the denominator, so that boxes, small ones most, suppress each other a little less
(docs/weights.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from multibox.config import DetectorConfig, ExtraLayer, Head, Postprocess
from multibox.presets import preset
from multibox.weights.converters.class_names import class_names
from multibox.weights.converters.layers import Tensors
from multibox.weights.converters.pytorch_ports import (
    VGG16_PLACES,
    class_count,
    extra_names,
    head_names,
    mobilenet_rows,
    renamed,
    separable_extras,
)
from multibox.weights.file import Weights

_LITE_EXTRAS = {"0": "1", "2.0": "2", "2.2": "3"}
"""Our layers of an extra block of mb1-ssd-lite and sq-ssd-lite, which have biases and no BatchNorm."""

_WIDTHS = {int(32 * width): width for width in (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125)}
"""Width multipliers of mb2-ssd-lite by the channels of its first layer. With others, its network does not run there:
the channels of its first head are no multiple of those of the layer."""


def convert(tensors: Tensors) -> Weights | None:
    """Returns the detector of a state dict, or `None` if it is not one of these.

    Raises:
        ValueError: Layers are missing or left over.
    """
    if "classification_headers.5.bias" not in tensors:
        return None
    if "source_layer_add_ons.0.running_mean" in tensors:
        return _vgg16_ssd(tensors)
    if "base_net.13.3.weight" in tensors:
        return _mb1_ssd_lite(tensors) if "extras.0.2.0.weight" in tensors else _mb1_ssd(tensors)
    if "base_net.12.squeeze.weight" in tensors:
        return _sq_ssd_lite(tensors)
    if "base_net.18.0.weight" in tensors:
        return _mb2_ssd_lite(tensors)
    if "base_net.3.conv1.weight" in tensors:
        return _mb3_ssd_lite(tensors)
    return None


def _vgg16_ssd(tensors: Tensors) -> Weights:
    """Returns the detector of vision/ssd/vgg_ssd.py, which always has VOC's default boxes."""
    config = preset("ssd300-vgg16", scales="voc")
    first, *others = config.feature_maps
    config = replace(config, feature_maps=(replace(first, norm="batch"), *others))
    names = {f"base_net.{place}": f"backbone.{layer}" for place, layer in VGG16_PLACES.items()}
    names |= _extra_names(config) | {"source_layer_add_ons.0": "norm.conv4_3"}
    return _weights(tensors, config, names, model="vgg16-ssd")


def _mb1_ssd(tensors: Tensors) -> Weights:
    """Returns the detector of vision/ssd/mobilenetv1_ssd.py on the backbone of vision/nn/mobilenet.py."""
    extras: list[ExtraLayer] = []
    for number, (inside, output) in enumerate(((256, 512), (128, 256), (128, 256), (128, 256)), start=14):
        extras.append(ExtraLayer(f"conv{number}_1", inside, 1))
        extras.append(ExtraLayer(f"conv{number}_2", output, 3, stride=2, padding=1))
    sources = ("conv11", "conv13", *(layer.name for layer in extras[1::2]))
    config = _mobile_config("ssd300-mobilenetv1", "mobilenet-v1", extras, sources, batch_norm=False, head="conv3x3")
    return _weights(tensors, config, _mobilenet_v1_names() | _extra_names(config), model="mb1-ssd")


def _mb1_ssd_lite(tensors: Tensors) -> Weights:
    """Returns the detector of vision/ssd/mobilenetv1_ssd_lite.py, which has no BatchNorm behind the backbone."""
    extras = separable_extras(((256, 512), (128, 256), (128, 256), (128, 256)))
    sources = ("conv11", "conv13", *(layer.name for layer in extras[2::3]))
    config = _mobile_config("ssdlite300-mobilenetv1", "mobilenet-v1", extras, sources, batch_norm=False)
    names = _mobilenet_v1_names() | extra_names(4, "extras.{}", _LITE_EXTRAS)
    return _weights(tensors, config, names, model="mb1-ssd-lite")


def _sq_ssd_lite(tensors: Tensors) -> Weights:
    """Returns the detector of vision/ssd/squeezenet_ssd_lite.py on the backbone of vision/nn/squeezenet.py.

    Its first extra layers have an additional row and column of padding on each side.
    """
    extras = list(separable_extras(((256, 512), (256, 512), (128, 256), (128, 256), (128, 256))))
    extras[1] = replace(extras[1], padding=2)
    sources = ("fire11", *(layer.name for layer in extras[2::3]))
    config = _mobile_config(
        "ssdlite300-squeezenet", "squeezenet1.1", extras, sources, batch_norm=False, grids=(17, 10, 5, 3, 2, 1)
    )
    names = {"base_net.0": "backbone.features.0"} | extra_names(5, "extras.{}", _LITE_EXTRAS)
    for place in (3, 4, 6, 7, 9, 10, 11, 12):
        for part in ("squeeze", "expand1x1", "expand3x3"):
            names[f"base_net.{place}.{part}"] = f"backbone.features.{place}.{part}"
    return _weights(tensors, config, names, model="sq-ssd-lite")


def _mb2_ssd_lite(tensors: Tensors) -> Weights:
    """Returns the detector of vision/ssd/mobilenet_v2_ssd_lite.py on the backbone of vision/nn/mobilenet_v2.py.

    Its first source is the expansion at the beginning of block 14 (`GraphPath(14, 'conv', 3)`).
    """
    channels = tensors["base_net.0.0.weight"].shape[0]
    if channels not in _WIDTHS:
        raise ValueError(
            f"mb2-ssd-lite with {channels} channels in its first layer; with a width multiplier of {channels / 32:g}, "
            f"the project's network does not run; it does with {', '.join(f'{width:g}' for width in _WIDTHS.values())}"
        )
    backbone = "mobilenet-v2" if channels == 32 else f"mobilenet-v2-{_WIDTHS[channels]:g}"
    extras = separable_extras()
    sources = ("expand14", "conv18", *(layer.name for layer in extras[2::3]))
    config = _mobile_config("ssdlite300-mobilenetv2", backbone, extras, sources, batch_norm=True)
    config = replace(config, activation="relu6")
    names: dict[str, str] = {}
    for place in (0, 18):
        names |= {f"base_net.{place}.{part}": f"backbone.features.{place}.{part}" for part in (0, 1)}
    places: Mapping[int, str] = {0: "0.0", 1: "0.1", 3: "1", 4: "2"}  # block 1 does not expand
    names |= {f"base_net.1.conv.{theirs}": f"backbone.features.1.conv.{ours}" for theirs, ours in places.items()}
    places = {0: "0.0", 1: "0.1", 3: "1.0", 4: "1.1", 6: "2", 7: "3"}
    for block in range(2, 18):
        names |= {
            f"base_net.{block}.conv.{theirs}": f"backbone.features.{block}.conv.{ours}"
            for theirs, ours in places.items()
        }
    inside = {"0": "1.0", "1": "1.1", "3": "2.0", "4": "2.1", "6": "3.0", "7": "3.1"}
    return _weights(tensors, config, names | extra_names(4, "extras.{}.conv", inside), model="mb2-ssd-lite")


def _mb3_ssd_lite(tensors: Tensors) -> Weights:
    """Returns a detector of vision/ssd/mobilenetv3_ssd_lite.py on a backbone of vision/nn/mobilenetv3.py."""
    size = "large" if "base_net.17.conv1.weight" in tensors else "small"
    blocks, layers = {"large": (15, ("block12", "conv16")), "small": (11, ("block8", "conv12"))}[size]
    extras = separable_extras()
    sources = (*layers, *(layer.name for layer in extras[2::3]))
    config = replace(
        _mobile_config(
            f"ssdlite300-mobilenetv3-{size}", f"mobilenet-v3-{size}-qfgaohao", extras, sources, batch_norm=True
        ),
        activation="hardswish",
        head_activation="relu6",
    )
    last = blocks + 1
    names = {"base_net.0": "backbone.conv0.0", "base_net.1": "backbone.conv0.1"}
    names |= {f"base_net.{last + 2}": f"backbone.conv{last}.0", f"base_net.{last + 3}": f"backbone.conv{last}.1"}
    parts = {"conv1": "expand.0", "bn1": "expand.1", "conv2": "depthwise.0", "bn2": "depthwise.1"}
    parts |= {"conv3": "project.0", "bn3": "project.1"}
    squeeze = {"se.se.1": "reduce", "se.se.2": "reduce_norm", "se.se.4": "expand", "se.se.5": "expand_norm"}
    for block in range(1, last):
        theirs, ours = f"base_net.{block + 2}", f"backbone.block{block}"
        names |= {f"{theirs}.{part}": f"{ours}.layers.{name}" for part, name in parts.items()}
        if f"{theirs}.se.se.1.weight" in tensors:
            names |= {f"{theirs}.{part}": f"{ours}.layers.squeeze.factors.{name}" for part, name in squeeze.items()}
        if f"{theirs}.shortcut.0.weight" in tensors:
            names |= {f"{theirs}.shortcut.{part}": f"{ours}.shortcut.{part}" for part in (0, 1)}
    inside = {"conv1": "1.0", "bn1": "1.1", "conv2": "2.0", "bn2": "2.1", "conv3": "3.0", "bn3": "3.1"}
    return _weights(tensors, config, names | extra_names(4, "extras.{}", inside), model=f"mb3-{size}-ssd-lite")


def _mobile_config(
    name: str,
    backbone: str,
    extras: Sequence[ExtraLayer],
    sources: tuple[str, ...],
    *,
    batch_norm: bool,
    head: Head = "separable",
    grids: tuple[int, ...] = (19, 10, 5, 3, 2, 1),
) -> DetectorConfig:
    """Returns the config of a detector with the pixels and default boxes of mobilenetv1_ssd_config.py.

    Args:
        name: Name of the config.
        backbone: Name of the backbone.
        extras: Extra feature layers.
        sources: Layers of the feature maps.
        batch_norm: Whether BatchNorm follows the extra layers.
        head: Layers of the heads. The last head of a detector with separable ones is a 1x1 convolution.
        grids: Rows, and columns, of the feature maps.
    """
    return DetectorConfig(
        name=name,
        height=300,
        width=300,
        mean=(127.0, 127.0, 127.0),
        scale=(128.0, 128.0, 128.0),
        resize="bilinear",
        backbone=backbone,
        extras=tuple(extras),
        extras_batch_norm=batch_norm,
        feature_maps=mobilenet_rows(
            sources,
            grids,
            (16, 32, 64, 100, 150, 300),
            head=head,
            last_head="conv1x1" if head == "separable" else head,
        ),
    )


def _mobilenet_v1_names() -> dict[str, str]:
    names = {"base_net.0.0": "backbone.conv0.convolution", "base_net.0.1": "backbone.conv0.norm"}
    for block in range(1, 14):
        for place, part in ((0, "depthwise"), (3, "pointwise")):
            names[f"base_net.{block}.{place}"] = f"backbone.conv{block}.{part}.convolution"
            names[f"base_net.{block}.{place + 1}"] = f"backbone.conv{block}.{part}.norm"
    return names


def _extra_names(config: DetectorConfig) -> dict[str, str]:
    """Returns our names of the extra layers: pairs of a 1x1 and a 3x3 convolution, each followed by its activation."""
    places = [f"extras.{pair}.{place}" for pair in range(4) for place in (0, 2)]
    return {theirs: f"extras.{layer.name}" for theirs, layer in zip(places, config.extras, strict=True)}


def _weights(tensors: Tensors, config: DetectorConfig, names: Mapping[str, str], *, model: str) -> Weights:
    classes = class_count(tensors, "classification_headers.5", config.feature_maps[5])
    own = replace(
        config,
        clip_default_boxes="all",
        postprocess=Postprocess(max_candidates_per_class=200, max_detections=200 * classes),
    )
    batch_norm = "classification_headers.0.1.running_mean" in tensors
    heads = head_names(own, offsets="regression_headers", logits="classification_headers", batch_norm=batch_norm)
    converted = renamed(tensors, {**names, **heads}, model=f"qfgaohao's {model}")
    return Weights(own, class_names(classes), converted, {"converted from": f"qfgaohao/pytorch-ssd, {model}"})
