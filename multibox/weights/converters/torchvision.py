"""Converts torchvision's `ssd300_vgg16` and `ssdlite320_mobilenet_v3_large`, with any number of classes.

Names and rules come from `models/detection` of torchvision 0.29 (BSD-3-Clause): `ssd.py`, `ssdlite.py`,
`anchor_utils.py` (default boxes), `_utils.py` (box coder), `transform.py` (resize).
"""

from dataclasses import replace
from itertools import pairwise
from math import log

from multibox.config import DetectorConfig
from multibox.messages import quoted
from multibox.presets import preset
from multibox.weights.converters.class_names import COCO_BY_ID, GuessedNames
from multibox.weights.converters.layers import Tensors, batch_norm, convolution, join
from multibox.weights.converters.pytorch_ports import VGG16_PLACES, class_count
from multibox.weights.file import Weights

_MAX_LOG_SIZE = log(1000 / 16)  # 4.135
_EPS = 1e-3
"""`eps` of all BatchNorms of SSDLite. In our network only the backbone's have it."""

_OFFSETS, _LOGITS = "head.regression_head.module_list", "head.classification_head.module_list"


def convert(tensors: Tensors) -> Weights | None:
    """Returns the detector of a state dict, or `None` if it is not one of these two.

    Raises:
        KeyError: A tensor is missing.
        ValueError: The heads are those of one of the two, but other layers differ.
    """
    if f"{_LOGITS}.0.weight" in tensors and "backbone.scale_weight" in tensors:
        return _ssd300(tensors)
    if f"{_LOGITS}.0.1.weight" in tensors and "backbone.features.0.0.0.weight" in tensors:
        return _ssdlite320(tensors)
    return None


def _ssd300(tensors: Tensors) -> Weights:
    config = replace(
        preset("ssd300-vgg16", scales="coco"),
        mean=(255 * 0.48235, 255 * 0.45882, 255 * 0.40784),
        resize="float",
        clip_default_boxes="size",
        max_log_size=_MAX_LOG_SIZE,
        clip_boxes=True,
    )
    layers = {_vgg16_key(place): f"backbone.{name}" for place, name in VGG16_PLACES.items()}
    for place, (first, second) in enumerate(_pairs(config), start=1):
        layers |= {f"backbone.extra.{place}.0": f"extras.{first}", f"backbone.extra.{place}.2": f"extras.{second}"}
    for place, row in enumerate(config.feature_maps):
        layers |= {f"{_OFFSETS}.{place}": f"offsets.{row.layer}", f"{_LOGITS}.{place}": f"logits.{row.layer}"}
    ours = join(convolution(tensors, theirs, name) for theirs, name in layers.items())
    ours["norm.conv4_3.weight"] = tensors["backbone.scale_weight"]
    _check_all_used(tensors, {*layers, "backbone"})
    return _weights(config, ours, class_count(tensors, f"{_LOGITS}.0", config.feature_maps[0]), "ssd300_vgg16")


def _vgg16_key(place: int) -> str:
    """Returns torchvision's key of a layer of VGG-16 by its index in the other ports.

    torchvision splits the list after conv4_3 and after conv5_3.
    """
    if place < 23:
        return f"backbone.features.{place}"
    return f"backbone.extra.0.{place - 23}" if place < 30 else f"backbone.extra.0.7.{place - 30}"


def _pairs(config: DetectorConfig) -> list[tuple[str, str]]:
    """Returns the names of the extra layers in pairs."""
    names = [layer.name for layer in config.extras]
    return list(pairwise(names))[::2]


def _ssdlite320(tensors: Tensors) -> Weights:
    config = replace(
        preset("ssdlite320-mobilenetv3"),
        resize="float",
        draft_decoding=False,
        max_log_size=_MAX_LOG_SIZE,
        clip_boxes=True,
    )
    # if training began with ImageNet's weights, the last blocks have all their channels
    if tensors["backbone.features.1.3.0.weight"].shape[0] == 960:
        config = replace(config, backbone="mobilenet-v3-large")
    backbone = {_mobilenet_key(key): key for key in tensors if key.startswith("backbone.features.")}
    convolutions, norms = {}, {}
    for place, layer in enumerate(config.extras):
        theirs = f"backbone.extra.{place // 3}.{place % 3}"
        convolutions[f"{theirs}.0"], norms[f"{theirs}.1"] = f"extras.{layer.name}.0", f"extras.{layer.name}.1"
    for place, row in enumerate(config.feature_maps):
        for theirs, ours in (
            (f"{_OFFSETS}.{place}", f"offsets.{row.layer}"),
            (f"{_LOGITS}.{place}", f"logits.{row.layer}"),
        ):
            convolutions |= {f"{theirs}.0.0": f"{ours}.depthwise", f"{theirs}.1": f"{ours}.pointwise"}
            norms[f"{theirs}.0.1"] = f"{ours}.norm"
    found = join(
        [
            {ours: tensors[theirs] for ours, theirs in backbone.items()},
            *(convolution(tensors, theirs, ours) for theirs, ours in convolutions.items()),
            *(batch_norm(tensors, theirs, ours, eps=_EPS) for theirs, ours in norms.items()),
        ]
    )
    _check_all_used(tensors, {*convolutions, *norms, *(key.rpartition(".")[0] for key in backbone.values())})
    return _weights(
        config, found, class_count(tensors, f"{_LOGITS}.0.1", config.feature_maps[0]), "ssdlite320_mobilenet_v3_large"
    )


def _mobilenet_key(theirs: str) -> str:
    """Returns our key of a tensor of the backbone.

    torchvision has two parts, cut after the expansion of block 13, and we have one sequence of blocks.
    """
    part, block, rest = theirs.removeprefix("backbone.features.").split(".", 2)
    if part == "0":
        inside = f"block.0.{rest}" if block == "13" else rest
        return f"backbone.features.{block}.{inside}"
    inside = f"block.{rest}" if block == "0" else rest
    return f"backbone.features.{13 + int(block)}.{inside}"


def _check_all_used(tensors: Tensors, layers: set[str]) -> None:
    """Raises a ValueError if a tensor belongs to none of the layers."""
    left = [key for key in tensors if key.rpartition(".")[0] not in layers]
    if left:
        raise ValueError(
            f"a detector made with torchvision's parts, but not one of its own two: they have no tensor "
            f"{quoted(left[0])}"
        )


def _weights(config: DetectorConfig, tensors: Tensors, classes: int, origin: str) -> Weights:
    return Weights(config, _class_names(classes), tensors, {"converted from": f"torchvision {origin}"})


def _class_names(count: int) -> GuessedNames:
    """Returns COCO's names by their numbers from 1 if there are 90 classes, else `class 1`, `class 2`, ...

    Ten of COCO's 90 numbers have no name. Their columns count in the softmax, so they are classes too: `N/A 12`.
    """
    numbers = range(1, count + 1)
    if count != max(COCO_BY_ID):
        return GuessedNames(f"class {number}" for number in numbers)
    return GuessedNames((COCO_BY_ID.get(number, f"N/A {number}") for number in numbers), "COCO")
