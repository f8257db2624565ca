"""Converts `.caffemodel` files of the paper's authors: SSD300 and SSD512 (weiliu89/caffe, branch ssd; BSD).

The numbers of fields come from src/caffe/proto/caffe.proto (NetParameter, LayerParameter, BlobProto,
PriorBoxParameter), the names of layers from python/caffe/model_libs.py and examples/ssd/*.py. The paper's conv6 to
conv12_2 are called fc6, fc7 and conv6_1 to conv10_2 there. Pixels are BGR, so the first convolution is turned to RGB.
Boxes and classes of the heads are in our order (Permute to rows, columns, channels). All rules are the paper's, which
are the defaults of our config.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import prod, sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32

from multibox.config import DetectorConfig, FeatureMap
from multibox.messages import quoted
from multibox.presets import preset
from multibox.weights.converters.class_names import class_names
from multibox.weights.converters.layers import turned_to_rgb
from multibox.weights.converters.protobuf import fields, numbers
from multibox.weights.converters.pytorch_ports import class_count
from multibox.weights.file import Weights

_LAYER = b"\xa2\x06"
"""Key of field 100 in a file. Each layer is such a field."""


class PriorBox(NamedTuple):
    """The parameters of a PriorBox layer (PriorBoxParameter), sizes and steps in pixels of the input."""

    min_sizes: tuple[float, ...]
    max_sizes: tuple[float, ...]
    aspect_ratios: tuple[float, ...]
    flip: bool
    clip: bool
    variances: tuple[float, ...]
    step: tuple[float, float] | None
    offset: float


class Layer(NamedTuple):
    """A layer of a file: its weights, and the parameters if it is a PriorBox layer."""

    blobs: tuple[Float32[np.ndarray, "..."], ...]
    prior_box: PriorBox | None


def is_caffemodel(path: Path) -> bool:
    """Returns whether a file has the suffix of a `.caffemodel`, or begins like one: a name, then a layer."""
    if path.suffix == ".caffemodel":
        return True
    with path.open("rb") as file:
        head = file.read(260)
    after_name = head[2 + head[1] :] if head[:1] == b"\n" and len(head) > 1 else head
    return after_name.startswith(_LAYER)


def convert_caffemodel(path: Path) -> Weights:
    """Returns the detector of a `.caffemodel` file.

    Raises:
        ValueError: The file is damaged, or holds no detector that can be converted.
    """
    try:
        layers = read_layers(memoryview(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path}: not a .caffemodel file, or damaged ({error})") from error
    try:
        return convert(layers)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_layers(network: memoryview) -> dict[str, Layer]:
    """Returns the layers of a NetParameter message by name. Their weights are views of its bytes.

    Raises:
        ValueError: The message is damaged, or is not a NetParameter.
    """
    layers = dict(_layer(_bytes(value)) for field, value in fields(network) if field == 100)
    if not layers:
        raise ValueError("it has no layers")
    return layers


def convert(layers: Mapping[str, Layer]) -> Weights:
    """Returns the detector that consists of the layers of a network.

    SSD512 is the one with a layer conv10_2. The default boxes are those of the PriorBox layers, so that models that
    were fine-tuned from COCO on VOC keep COCO's sizes. In a file without PriorBox layers they follow from the number
    of classes.

    Raises:
        ValueError: The network is neither SSD300 nor SSD512.
    """
    if "conv4_3_norm_mbox_conf" not in layers:
        raise ValueError(
            f"the weights of a Caffe network, but of no SSD300 or SSD512; its first layers are "
            f"{quoted(list(layers)[:3])}"
        )
    name = "ssd512-vgg16" if "conv10_2" in layers else "ssd300-vgg16"
    config = preset(name)
    names = _names(config)
    tensors: dict[str, np.ndarray] = {}
    for theirs, ours in names.items():
        wanted = 1 if ours.startswith("norm.") else 2
        blobs = layers[theirs].blobs if theirs in layers else ()
        if len(blobs) != wanted:
            raise ValueError(f"its layer '{theirs}' has {len(blobs)} tensors, expected {wanted}")
        for part, blob in zip(("weight", "bias"), blobs, strict=False):
            flat = part == "bias" or wanted == 1  # old files have four axes for every tensor
            tensors[f"{ours}.{part}"] = blob.reshape(-1) if flat else blob
    others = [layer for layer, content in layers.items() if content.blobs and layer not in names]
    if others:
        raise ValueError(f"its layer {quoted(others[0])} is not one of {name}")
    first = "backbone.conv1_1.weight"
    if tensors[first].ndim != 4:
        raise ValueError(f"its layer 'conv1_1' has a weight of {tensors[first].shape}, expected four axes")
    tensors[first] = turned_to_rgb(tensors[first])
    head, row = "conv4_3_norm_mbox_conf", _with_default_boxes(config, layers).feature_maps[0]
    classes = class_count({f"{head}.bias": tensors["logits.conv4_3.bias"]}, head, row)
    return Weights(
        _with_default_boxes(preset(name, scales="coco" if classes == 80 else "voc"), layers),
        class_names(classes),
        tensors,
        {"converted from": "weiliu89/caffe"},
    )


def _names(config: DetectorConfig) -> dict[str, str]:
    """Returns our names of the layers with weights by Caffe's names."""
    names = {f"conv{stage}_{number}": f"backbone.conv{stage}_{number}" for stage in (1, 2) for number in (1, 2)}
    names |= {f"conv{stage}_{number}": f"backbone.conv{stage}_{number}" for stage in (3, 4, 5) for number in (1, 2, 3)}
    names |= {"fc6": "backbone.conv6", "fc7": "backbone.conv7", "conv4_3_norm": "norm.conv4_3"}
    names |= {_theirs(layer.name): f"extras.{layer.name}" for layer in config.extras}
    for row in config.feature_maps:
        names[f"{_source(row)}_mbox_loc"] = f"offsets.{row.layer}"
        names[f"{_source(row)}_mbox_conf"] = f"logits.{row.layer}"
    return names


def _theirs(layer: str) -> str:
    """Returns Caffe's name of one of the paper's layers from conv7 on: `fc7`, `conv6_2`."""
    number, _, part = layer.removeprefix("conv").partition("_")
    return f"conv{int(number) - 2}_{part}" if part else f"fc{number}"


def _source(row: FeatureMap) -> str:
    """Returns the beginning of the names of a feature map's heads and PriorBox layer."""
    return "conv4_3_norm" if row.layer == "conv4_3" else _theirs(row.layer)


def _with_default_boxes(config: DetectorConfig, layers: Mapping[str, Layer]) -> DetectorConfig:
    """Returns the config with the default boxes of the PriorBox layers; unchanged if the file has none."""
    found = [layers.get(f"{_source(row)}_mbox_priorbox") for row in config.feature_maps]
    priors = [layer.prior_box for layer in found if layer is not None and layer.prior_box is not None]
    if not priors:
        return config
    if len(priors) < len(found):
        raise ValueError(f"it has {len(priors)} PriorBox layers, expected {len(found)}")
    variances = {prior.variances for prior in priors}
    center_x, center_y, width, height = variances.pop()
    if variances or center_x != center_y or width != height:
        raise ValueError("its variances differ between feature maps, or between x and y")
    rows = [_row(row, prior, config) for row, prior in zip(config.feature_maps, priors, strict=True)]
    return replace(config, feature_maps=tuple(rows), center_variance=center_x, size_variance=width)


def _row(row: FeatureMap, prior: PriorBox, config: DetectorConfig) -> FeatureMap:
    """Returns the feature map with the default boxes of its PriorBox layer.

    Sizes are cut to whole pixels, as in src/caffe/layers/prior_box_layer.cpp. This changes only those of SSD512.
    """
    sizes, ratios = (*prior.min_sizes, *prior.max_sizes), prior.aspect_ratios
    if not (prior.min_sizes and all(1 <= size < 1e6 for size in sizes) and all(1e-3 < ratio < 1e3 for ratio in ratios)):
        raise ValueError(
            f"the default boxes on '{_source(row)}' have sizes {quoted(sizes)} and aspect ratios {quoted(ratios)}"
        )
    if len(prior.max_sizes) not in (0, len(prior.min_sizes)):
        raise ValueError(f"the default boxes on '{_source(row)}' do not have as many max_size as min_size")
    if prior.clip:
        raise ValueError("it clips the corners of its default boxes, unlike the authors' models")
    boxes: list[tuple[float, float]] = []
    for place, small in enumerate(map(int, prior.min_sizes)):
        boxes.append((small, small))
        if prior.max_sizes:
            boxes.append((sqrt(small * int(prior.max_sizes[place])),) * 2)
        for ratio in ratios:
            if abs(ratio - 1) > 1e-6:
                long, short = small * sqrt(ratio), small / sqrt(ratio)
                boxes += [(long, short), (short, long)] if prior.flip else [(long, short)]
    step = prior.step or (config.height / row.rows, config.width / row.columns)
    return replace(row, box_sizes=tuple(boxes), step=step, offset=prior.offset)


def _layer(message: memoryview) -> tuple[str, Layer]:
    """Reads a LayerParameter message: the layer and its name."""
    name, prior_box = "", None
    blobs: list[memoryview] = []
    for field, value in fields(message):
        if field == 1:
            name = bytes(_bytes(value)).decode(errors="replace")
        elif field == 7:
            blobs.append(_bytes(value))
        elif field == 203:
            prior_box = _prior_box(_bytes(value))
    return name, Layer(tuple(_blob(name, blob) for blob in blobs), prior_box)


def _blob(layer: str, message: memoryview) -> Float32[np.ndarray, "..."]:
    """Reads a BlobProto message: a tensor. Its shape is a message of its own, or four numbers in old files."""
    shape: list[int] | None = None
    old = [1, 1, 1, 1]
    parts: list[memoryview] = []
    for field, value in fields(message):
        if field == 7:
            shape = [
                number
                for inner, dimensions in fields(_bytes(value))
                if inner == 1
                for number in ([dimensions] if isinstance(dimensions, int) else numbers(dimensions))
            ]
        elif field in (1, 2, 3, 4) and isinstance(value, int):
            old[field - 1] = value
        elif field == 5:
            parts.append(_bytes(value))
    data: memoryview | bytes = parts[0] if len(parts) == 1 else b"".join(parts)
    shape = old if shape is None else shape
    if len(data) != 4 * prod(shape):
        raise ValueError(
            f"a tensor of layer {quoted(layer)} is {quoted(shape)}, which does not fit its {len(data)} bytes"
        )
    return np.frombuffer(data, "<f4").reshape(shape)


def _prior_box(message: memoryview) -> PriorBox:
    """Reads a PriorBoxParameter message."""
    found: dict[int, list[float]] = {field: [] for field in range(1, 14)}
    for field, value in fields(message):
        if field in found:
            found[field] += [value] if isinstance(value, int) else _floats(value)
    step_y, step_x = (found[11] or found[10] or [0.0])[-1], (found[12] or found[10] or [0.0])[-1]
    variances = found[6] or [0.1]
    if len(variances) not in (1, 4):
        raise ValueError(f"a PriorBox layer has {len(variances)} variances, expected 1 or 4")
    return PriorBox(
        min_sizes=tuple(found[1]),
        max_sizes=tuple(found[2]),
        aspect_ratios=tuple(found[3]),
        flip=bool((found[4] or [1])[-1]),
        clip=bool((found[5] or [0])[-1]),
        variances=tuple(variances * (4 // len(variances))),
        step=(step_y, step_x) if step_y > 0 and step_x > 0 else None,
        offset=(found[13] or [0.5])[-1],
    )


def _floats(data: memoryview) -> list[float]:
    """Returns 32-bit numbers as they were written: 0.1, not 0.10000000149, which is the nearest in 32 bits."""
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes cannot be 32-bit numbers")
    return [float(str(value)) for value in np.frombuffer(data, "<f4")]


def _bytes(value: int | memoryview) -> memoryview:
    """Returns the value of a field that must not be a number."""
    if isinstance(value, int):
        raise ValueError("there is a number instead of a message, a text or a list of numbers")
    return value
