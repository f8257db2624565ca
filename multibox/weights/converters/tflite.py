"""Converts SSD MobileNet v1 of TensorFlow's Object Detection API from an 8-bit `.tflite` file.

The file is `coco_ssd_mobilenet_v1_..._quant`. Its 8-bit numbers become 32-bit floats. The numbers of fields come from
`tensorflow/lite/schema/schema.fbs`, the options of the last operator from
`tensorflow/lite/kernels/detection_postprocess.cc` (tensorflow/tensorflow, Apache-2.0).
"""

from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from multibox.config import DetectorConfig, Postprocess
from multibox.messages import quoted, shortened
from multibox.presets import preset
from multibox.weights.converters.class_names import COCO, COCO_BY_ID
from multibox.weights.converters.flatbuffer import Table, flex_numbers
from multibox.weights.converters.layers import join, norm_of_bias, reordered
from multibox.weights.file import Weights

_WIDTHS = {32: (1.0, "mobilenet-v1-tensorflow"), 24: (0.75, "mobilenet-v1-0.75-tensorflow")}
"""Width multiplier and name of our backbone by the channels of the first layer."""

_YXHW = (1, 0, 3, 2)
"""Positions of x, y, width and height in TensorFlow's box encoding."""

_OPTIONS = {"num_classes": max(COCO_BY_ID), "max_classes_per_detection": 1, "use_regular_nms": 0}
"""Options that the last operator must have: COCO's classes, and suppression across all of them."""

_KINDS = {2: "<i4", 3: "u1"}
"""NumPy's names of the types of tensors by their number in the schema."""

_DEPTHWISE_OPTIONS, _RELU6 = 2, 3
"""Numbers in the schema's enumerations."""


def is_tflite(path: Path) -> bool:
    """Returns whether the file has the identifier of a `.tflite` file."""
    with path.open("rb") as file:
        return file.read(8)[4:] == b"TFL3"


def convert_tflite(path: Path) -> Weights:
    """Returns the detector of a `.tflite` file.

    Scores are sigmoids. The default boxes are the file's own, which were rounded to 8 bits. Columns of numbers that
    COCO gives to no class are dropped, and the background's column is 0.

    Raises:
        ValueError: The file is truncated or damaged, or holds another model.
    """
    try:
        return _read(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (LookupError, ArithmeticError, TypeError) as error:
        raise ValueError(f"{path}: damaged, or another model ({shortened(repr(error))})") from error


def _read(data: bytes) -> Weights:
    graph = _Graph(data)
    last = graph.operator("TFLite_Detection_PostProcess")
    options = {"use_regular_nms": 0.0} | flex_numbers(last.table.numbers(5, "u1").tobytes())
    if not _OPTIONS.items() <= options.items():
        raise ValueError(f"another model: its last operator has the options {shortened(options)}, expected {_OPTIONS}")
    if options["y_scale"] != options["x_scale"] or options["h_scale"] != options["w_scale"]:
        raise ValueError(f"another model: in the options {shortened(options)} x and y differ, or width and height")
    channels = len(graph.layer(_feature_layer("MobilenetV1/Conv2d_0")).bias)
    if channels not in _WIDTHS:
        raise ValueError(f"another model: its first layer has {channels} channels, expected one of {list(_WIDTHS)}")
    image = graph.tensor(graph.image)
    config = _config(image, options, *_WIDTHS[channels])
    default_boxes = graph.tensor(last.inputs[-1]).values()
    if image.shape != (1, 300, 300, 3) or default_boxes.shape != (config.num_default_boxes, 4):
        raise ValueError(
            f"another model: its input is {image.shape} and its default boxes are {default_boxes.shape}, "
            f"expected (1, 300, 300, 3) and ({config.num_default_boxes}, 4)"
        )
    tensors = join([*_layers(graph, config), {"default_boxes": np.ascontiguousarray(default_boxes[:, _YXHW])}])
    source = "SSD MobileNet v1 on COCO, TensorFlow Object Detection API, 8-bit .tflite"
    return Weights(config, COCO, tensors, {"converted from": source})


def _config(image: "_Tensor", options: dict[str, float], width: float, backbone: str) -> DetectorConfig:
    """Returns the preset's config with the width, pixels and options of the file."""
    plain = preset("ssd300-mobilenetv1")
    return replace(
        plain,
        mean=(float(image.zero_point),) * 3,
        scale=(1 / image.scale,) * 3,
        resize="bilinear",
        draft_decoding=False,
        backbone=backbone,
        extras=tuple(replace(extra, channels=int(extra.channels * width)) for extra in plain.extras),
        stored_default_boxes=True,
        center_variance=1 / options["x_scale"],
        size_variance=1 / options["w_scale"],
        scoring="sigmoid",
        postprocess=Postprocess(
            score_threshold=options["nms_score_threshold"],
            iou_threshold=options["nms_iou_threshold"],
            class_agnostic=True,
            max_candidates_per_class=plain.num_default_boxes,  # no limit there
            max_detections=int(options["max_detections"]),
        ),
    )


def _layers(graph: "_Graph", config: DetectorConfig) -> Iterator[dict[str, np.ndarray]]:
    """Yields all layers under our names.

    An 8-bit activation is limited to its range, which ends at some L of at most 6, the limit of ReLU6. We scale the
    weights of the layers before and after a ReLU6 instead: `min(relu(x), L) = L/6 relu6(6/L x)`.
    """
    grown = {graph.image: 1.0}  # by tensor: factor from our features to the file's
    for name, convolution, norm in _feature_layers(config):
        layer = graph.layer(_feature_layer(name))
        if layer.low != 0:
            raise ValueError(f"another model: '{name}' goes down to {layer.low}, not to 0 as after ReLU6")
        before, after = grown[layer.input], layer.high / 6
        grown[layer.output] = after
        yield {f"{convolution}.weight": layer.weight * np.float32(before / after)}
        yield norm_of_bias(layer.bias / np.float32(after), norm)
    for number, row in enumerate(config.feature_maps):
        boxes = graph.layer(f"BoxPredictor_{number}/BoxEncodingPredictor/BiasAdd")
        yield {
            f"offsets.{row.layer}.weight": reordered(boxes.weight * np.float32(grown[boxes.input]), _YXHW),
            f"offsets.{row.layer}.bias": reordered(boxes.bias, _YXHW),
        }
        classes = graph.layer(f"BoxPredictor_{number}/ClassPredictor/BiasAdd")
        yield {
            f"logits.{row.layer}.weight": _named(classes.weight * np.float32(grown[classes.input])),
            f"logits.{row.layer}.bias": _named(classes.bias),
        }


def _feature_layers(config: DetectorConfig) -> Iterator[tuple[str, str, str]]:
    """Yields the file's name of each layer of backbone and extras, and our names of its convolution and BatchNorm."""
    names = {"MobilenetV1/Conv2d_0": "backbone.conv0"} | {
        f"MobilenetV1/Conv2d_{number}_{part}": f"backbone.conv{number}.{part}"
        for number in range(1, 14)
        for part in ("depthwise", "pointwise")
    }
    for name, target in names.items():
        yield name, f"{target}.convolution", f"{target}.norm"
    for place, extra in enumerate(config.extras):
        pair, second = divmod(place, 2)
        name = f"Conv2d_13_pointwise_{second + 1}_Conv2d_{pair + 2}_{'3x3_s2' if second else '1x1'}_{extra.channels}"
        yield name, f"extras.{extra.name}.0", f"extras.{extra.name}.1"


def _feature_layer(name: str) -> str:
    return f"FeatureExtractor/MobilenetV1/{name}/Relu6"


def _named(head: Float[np.ndarray, "outputs ..."]) -> Float[np.ndarray, "named_outputs ..."]:
    """Returns a head with outputs of 0 for the background and those of COCO's 80 classes only.

    In the file each box has outputs for the background and the numbers 1 to 90.
    """
    groups = head.reshape(-1, max(COCO_BY_ID) + 1, *head.shape[1:])[:, [0, *COCO_BY_ID]]
    groups[:, 0] = 0
    return groups.reshape(-1, *head.shape[1:])


class _Tensor(NamedTuple):
    """Whole numbers q that stand for `scale (q - zero_point)`. There are none if the file does not store the tensor."""

    shape: tuple[int, ...]
    scale: float
    zero_point: int
    numbers: np.ndarray

    def values(self) -> Float[np.ndarray, "..."]:
        """Returns the real numbers that the whole numbers stand for."""
        values = (self.numbers.astype(np.float32) - np.float32(self.zero_point)) * np.float32(self.scale)
        return values.reshape(self.shape)


class _Operator(NamedTuple):
    """One step of the graph, with the numbers of its tensors."""

    table: Table
    inputs: list[int]
    output: int


class _Layer(NamedTuple):
    """A convolution in PyTorch's layout, the numbers of its input and output tensors, and the range of its output."""

    weight: Float[np.ndarray, "outputs inputs rows columns"]
    bias: Float[np.ndarray, " outputs"]
    input: int
    output: int
    low: float
    high: float


class _Graph:
    """The graph of a file: tensors by number, operators and layers by the name of their output."""

    def __init__(self, data: bytes) -> None:
        model = Table.root(data)
        graph = model.tables(2)[0]
        self._tensors, self._buffers = graph.tables(0), model.tables(4)
        self.image: int = graph.numbers(1, "<i4")[0].item()
        self._operators = {}
        for table in graph.tables(3):
            inputs, outputs = table.numbers(1, "<i4").tolist(), table.numbers(2, "<i4").tolist()
            self._operators[self._tensors[outputs[0]].text(3)] = _Operator(table, inputs, outputs[0])

    def operator(self, name: str) -> _Operator:
        if name not in self._operators:
            raise ValueError(f"another model: it has no operator {quoted(name)}")
        return self._operators[name]

    def tensor(self, number: int) -> _Tensor:
        table = self._tensors[number]
        kind, quantization = table.number(1, "i1"), table.table(4)
        scale = [] if quantization is None else quantization.numbers(2, "<f4").tolist()
        if kind not in _KINDS or quantization is None or len(scale) != 1:
            raise ValueError(f"another model: '{table.text(3)}' is not of 8 bits with one scale")
        shape = tuple(table.numbers(0, "<i4").tolist())
        stored = self._buffers[table.number(2, "<u4")].numbers(0, "u1").tobytes()
        if len(stored) not in (0, prod(shape) * np.dtype(_KINDS[kind]).itemsize):
            raise ValueError(f"truncated or damaged: '{table.text(3)}' is {shape}, but has {len(stored)} bytes")
        zero_point = quantization.numbers(3, "<i8")[0].item()
        return _Tensor(shape, scale[0], zero_point, np.frombuffer(stored, _KINDS[kind]))

    def layer(self, name: str) -> _Layer:
        """Returns the convolution, with its activation, whose output has this name."""
        operator = self.operator(name)
        data, kernel, bias = operator.inputs
        options = operator.table.table(4)
        depthwise = operator.table.number(3, "u1") == _DEPTHWISE_OPTIONS
        order = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
        weight = np.ascontiguousarray(self.tensor(kernel).values().transpose(order))
        output = self.tensor(operator.output)
        low, high = (output.scale * (end - output.zero_point) for end in (0, 255))
        if options is not None and options.number(4 if depthwise else 3, "i1") == _RELU6:
            low, high = max(low, 0.0), min(high, 6.0)
        return _Layer(weight, self.tensor(bias).values(), data, operator.output, low, high)
