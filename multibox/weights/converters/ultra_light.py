"""Converts the face detectors `slim` and `RFB` of Linzaer's Ultra-Light-Fast-Generic-Face-Detector-1MB (MIT).

Rules come from its `vision/ssd/{mb_tiny_fd,mb_tiny_RFB_fd,predictor}.py`, `vision/ssd/config/fd_config.py` and, for the
limits (1,500 candidates, 750 faces), `detect_imgs.py`. Default boxes are squares, several on each map, clipped to the
image. The same layers take an input of any size, and the weights do not show which one they were trained for.
"""

from collections.abc import Iterator, Mapping
from math import ceil

import numpy as np

from multibox.config import DetectorConfig, ExtraLayer, FeatureMap, Postprocess
from multibox.messages import quoted
from multibox.weights.converters.layers import batch_norm, convolution, join, norm_of_bias
from multibox.weights.file import Weights

_MAPS = (
    ("block7", 8, (10, 16, 24)),
    ("block10", 16, (32, 48)),
    ("block12", 32, (64, 96)),
    ("block13_3", 64, (128, 192, 256)),
)
"""Layer, stride, and sides of the default boxes in pixels, for each feature map. An incomplete cell counts as one."""

_EXTRAS = {"block13_1": "extras.0.0", "block13_2": "extras.0.2.0", "block13_3": "extras.0.2.2"}
"""The project's name of each of our extra layers."""

_HEADS = {"regression_headers": "offsets", "classification_headers": "logits"}

_RFB_BLOCK = {
    f"branch{branch}.{place}": f"branch{branch}.{place}"
    for branch, length in enumerate((3, 3, 4))
    for place in range(length)
} | {"ConvLinear": "join", "shortcut": "shortcut"}
"""Our names of the convolutions of the block with branches by the project's names."""


def convert(tensors: Mapping[str, np.ndarray]) -> Weights | None:
    """Returns the detector of a state dict, for an input of 320 x 240, or `None` if it is not one of these two.

    Raises:
        KeyError: A tensor is missing.
        ValueError: A tensor is left over.
    """
    first = tensors.get("base_net.0.0.weight")
    if first is None or first.shape != (16, 3, 3, 3) or "extras.0.2.2.weight" not in tensors:
        return None
    rfb = "base_net.7.ConvLinear.conv.weight" in tensors
    version = "RFB" if rfb else "slim"
    layers = list(_backbone(rfb=rfb))
    known = {*(name for pair in layers for name in pair[:2]), *_EXTRAS.values(), *_head_layers()}
    left = [key for key in tensors if key.rpartition(".")[0] not in known]
    if left:
        raise ValueError(f"its tensor {quoted(left[0])} belongs to no layer of version {version}")
    backbone = [part for layer in layers for part in _layer(tensors, *layer)]
    extras = [convolution(tensors, source, f"extras.{name}") for name, source in _EXTRAS.items()]
    ours = join([*backbone, *extras, *_heads(tensors)])
    source = f"Ultra-Light-Fast-Generic-Face-Detector-1MB, version {version}"
    config = config_for(f"ultra-light-{version.lower()}", height=240, width=320)
    return Weights(config, ("face",), ours, {"converted from": source, "license": "MIT"})


def config_for(backbone: str, *, height: int, width: int) -> DetectorConfig:
    """Returns the config of the detector with this backbone for an input of this size."""
    return DetectorConfig(
        name=f"ssd{height}x{width}-{backbone}",
        height=height,
        width=width,
        mean=(127.0, 127.0, 127.0),
        scale=(128.0, 128.0, 128.0),
        resize="bilinear",
        backbone=backbone,
        extras=(
            ExtraLayer("block13_1", 64, 1),
            ExtraLayer("block13_2", 64, 3, stride=2, padding=1, depthwise=True),
            ExtraLayer("block13_3", 256, 1),
        ),
        extras_batch_norm=False,
        feature_maps=tuple(
            FeatureMap(
                layer,
                rows := ceil(height / stride),
                columns := ceil(width / stride),
                (height / rows, width / columns),
                tuple((float(side), float(side)) for side in sides),
                head="conv3x3" if layer == "block13_3" else "separable",
            )
            for layer, stride, sides in _MAPS
        ),
        clip_default_boxes="all",
        postprocess=Postprocess(
            score_threshold=0.01, iou_threshold=0.3, max_candidates_per_class=1500, max_detections=750
        ),
    )


def _backbone(*, rfb: bool) -> Iterator[tuple[str, str, str]]:
    """Yields, for each layer, the project's names of the convolution and its BatchNorm, and our name."""
    yield "base_net.0.0", "base_net.0.1", "backbone.block0"
    for number in range(1, 13):
        if rfb and number == 7:
            for source, target in _RFB_BLOCK.items():
                layer = f"base_net.7.{source}"
                yield f"{layer}.conv", f"{layer}.bn", f"backbone.block7.{target}"
        else:
            for part, place in (("depthwise", 0), ("pointwise", 3)):
                first, second = f"base_net.{number}.{place}", f"base_net.{number}.{place + 1}"
                yield first, second, f"backbone.block{number}.{part}"


def _layer(tensors: Mapping[str, np.ndarray], weight: str, norm: str, target: str) -> Iterator[dict[str, np.ndarray]]:
    """Yields a convolution and its BatchNorm under our names."""
    yield convolution(tensors, weight, f"{target}.0")
    yield batch_norm(tensors, norm, f"{target}.1")


def _head_layers() -> Iterator[str]:
    """Yields the project's names of the convolutions of the heads."""
    for source in _HEADS:
        for number, (layer, *_) in enumerate(_MAPS):
            theirs = f"{source}.{number}"
            yield from [theirs] if layer == "block13_3" else [f"{theirs}.0", f"{theirs}.2"]


def _heads(tensors: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Yields the two heads of each map. Depthwise convolutions have a bias, which becomes a BatchNorm of ours."""
    for source, target in _HEADS.items():
        for number, (layer, *_) in enumerate(_MAPS):
            theirs, ours = f"{source}.{number}", f"{target}.{layer}"
            if layer == "block13_3":
                yield convolution(tensors, theirs, ours)
            else:
                yield {f"{ours}.depthwise.weight": tensors[f"{theirs}.0.weight"]}
                yield norm_of_bias(tensors[f"{theirs}.0.bias"], f"{ours}.norm")
                yield convolution(tensors, f"{theirs}.2", f"{ours}.pointwise")
