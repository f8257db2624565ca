"""Writes `.tflite` files of TensorFlow's SSDs, and applies the layers that it wrote in 64 bits.

The numbers of fields are those of tensorflow/lite/schema/schema.fbs. Numbers that follow from a rule stand in for
trained weights, so that TensorFlow Lite can be run once on the same file.
"""

import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FLOAT32, FLOAT16, INT32, UINT8, INT8 = 0, 1, 2, 3, 9
ADD, CONCATENATION, CONVOLUTION, DEPTHWISE, DEQUANTIZE, LOGISTIC, RESHAPE, CUSTOM = 0, 2, 3, 4, 6, 14, 22, 32

# number in the schema's BuiltinOptions
CONV_OPTIONS, DEPTHWISE_OPTIONS, CONCATENATION_OPTIONS, ADD_OPTIONS = 1, 2, 10, 11

OPTIONS = {
    "_output_quantized": 1, "detections_per_class": 100, "h_scale": 5.0, "max_classes_per_detection": 1,
    "max_detections": 10, "nms_iou_threshold": 0.6, "nms_score_threshold": 1e-8, "num_classes": 90,
    "use_regular_nms": 0, "w_scale": 5.0, "x_scale": 10.0, "y_scale": 10.0,
}  # fmt: skip
"""What export_tflite_ssd_graph.py writes."""

Fields = Mapping[int, Any]
"""Fields of a table by number: `(kind, number)`, bytes, text, an array, another table, or a list of tables."""


def flat_buffer(root: Fields) -> bytes:
    """A FlatBuffer with the identifier of TFLite: every table after the one that points to it."""
    data = bytearray(b"\0\0\0\0TFL3")
    waiting: list[tuple[int, Any]] = [(0, root)]
    while waiting:
        place, value = waiting.pop(0)
        if isinstance(value, Mapping):
            at = _table(data, value, waiting)
        elif isinstance(value, list):
            at = _aligned(data, 4)
            data += struct.pack("<I", len(value))
            waiting += [(len(data) + 4 * number, one) for number, one in enumerate(value)]
            data += bytes(4 * len(value))
        else:
            array = (
                np.frombuffer(value.encode() if isinstance(value, str) else value, np.uint8)
                if isinstance(value, (str, bytes))
                else value
            )
            at = _aligned(data, 16, before=4)
            data += struct.pack("<I", array.size) + array.tobytes() + (b"\0" if isinstance(value, str) else b"")
        struct.pack_into("<I", data, place, at - place)
    return bytes(data)


def _table(data: bytearray, fields: Fields, waiting: list[tuple[int, Any]]) -> int:
    """Each field takes four bytes in the table, after the offset of its list of fields."""
    last = max(fields, default=-1)
    places = [4 + 4 * list(fields).index(number) if number in fields else 0 for number in range(last + 1)]
    fields_at = _aligned(data, 4, before=(2 * (2 + len(places))) % 4)
    data += struct.pack(f"<{2 + len(places)}H", 4 + 2 * len(places), 4 + 4 * len(fields), *places)
    at = len(data)
    assert at % 4 == 0
    data += struct.pack("<i", at - fields_at)
    for value in fields.values():
        if isinstance(value, tuple):
            data += np.array(value[1], value[0]).tobytes().ljust(4, b"\0")
        else:
            waiting.append((len(data), value))
            data += bytes(4)
    return at


def _aligned(data: bytearray, size: int, before: int = 0) -> int:
    """Fills up so that what comes `before` bytes later is aligned."""
    data += bytes(-(len(data) + before) % size)
    return len(data)


def flex_map(values: Mapping[str, float]) -> bytes:
    """A FlexBuffer's map of numbers, all four bytes wide."""
    data, keys = bytearray(), sorted(values)
    places = []
    for key in keys:
        places.append(len(data))
        data += key.encode() + b"\0"
    data += bytes(-len(data) % 4) + struct.pack("<I", len(keys))
    keys_at = len(data)
    for place in places:
        data += struct.pack("<I", len(data) - place)
    data += struct.pack("<III", len(data) - keys_at, 4, len(keys))
    map_at = len(data)
    for key in keys:
        data += struct.pack("<f" if isinstance(values[key], float) else "<i", values[key])
    data += bytes((3 if isinstance(values[key], float) else 1) << 2 | 2 for key in keys)
    data += bytes(-len(data) % 4)
    return bytes(data + struct.pack("<I", len(data) - map_at) + bytes([9 << 2 | 2, 4]))


class Numbers:
    """Numbers that look random, and are the same everywhere (the mixing of splitmix64)."""

    def __init__(self, seed: int) -> None:
        self.used = seed << 40

    def fractions(self, count: int) -> np.ndarray:
        """From 0 to 1."""
        mixed = np.arange(self.used + 1, self.used + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        self.used += count
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
        return (mixed ^ (mixed >> np.uint64(31))).astype(float) / 2.0**64

    def spread(self, shape: Sequence[int]) -> np.ndarray:
        """Around 0, with a standard deviation of 1."""
        return (self.fractions(int(np.prod(shape))).reshape(shape) - 0.5) * 12**0.5

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(self.fractions(1)[0])


class Step(NamedTuple):
    """A convolution, or an addition if it has no weight: in TensorFlow's layout, as real numbers."""

    inputs: tuple[int, ...]
    output: int
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    stride: int = 1
    depthwise: bool = False
    high: float | None = None


class Network:
    """A graph that is being written.

    Args:
        seed: Where the numbers of the weights begin.
        numbers: `float`, `half` (weights of 16 bits), `weights` (8-bit weights with a scale for each channel), or
            `quantized` (everything in 8 bits).
    """

    def __init__(self, height: int, width: int, *, seed: int = 0, numbers: str = "float") -> None:
        self.random = Numbers(seed)
        self.numbers = numbers
        self.tensors: list[dict[int, Any]] = []
        self.buffers: list[dict[int, Any]] = [{}]
        self.operators: list[dict[int, Any]] = []
        self.codes: list[tuple[int, str]] = []
        self.steps: list[Step] = []
        self.shapes: list[tuple[int, ...]] = []
        self.image = self.tensor("normalized_input_image_tensor", (1, height, width, 3), high=(-1.0, 0.9921875))

    def tensor(
        self, name: str, shape: tuple[int, ...], data: np.ndarray | None = None, *, kind: int | None = None,
        high: tuple[float, float] | None = None, quantization: dict[int, Any] | None = None,
    ) -> int:  # fmt: skip
        """A tensor, stored or computed; with the range of its 8 bits if everything is in 8 bits."""
        buffer = 0
        if data is not None:
            buffer = len(self.buffers)
            self.buffers.append({0: data.tobytes()})
        if kind is None:
            kind = UINT8 if self.numbers == "quantized" else FLOAT32
        if quantization is None and self.numbers == "quantized" and high is not None:
            scale = (high[1] - high[0]) / 255
            quantization = scaled([scale], [round(-high[0] / scale)])
        fields: dict[int, Any] = {0: np.array(shape, "<i4"), 1: ("i1", kind), 2: ("<u4", buffer)}
        fields[3] = name
        if quantization is not None:
            fields[4] = quantization
        self.tensors.append(fields)
        self.shapes.append(shape)
        return len(self.tensors) - 1

    def operator(
        self, code: int, inputs: Sequence[int], outputs: Sequence[int], kind: int = 0,
        options: Fields | None = None, custom: tuple[str, bytes] = ("", b""),
    ) -> None:  # fmt: skip
        if (code, custom[0]) not in self.codes:
            self.codes.append((code, custom[0]))
        fields: dict[int, Any] = {0: ("<u4", self.codes.index((code, custom[0])))}
        fields |= {1: np.array(inputs, "<i4"), 2: np.array(outputs, "<i4"), 3: ("u1", kind)}
        if options is not None:
            fields[4] = options
        if custom[1]:
            fields[5] = custom[1]
        self.operators.append(fields)

    def stored(
        self, name: str, values: np.ndarray, *, axis: int | None = None, scale: float = 0.0
    ) -> tuple[int, np.ndarray]:
        """A stored tensor, and the values that it stands for."""
        if self.numbers == "half":
            half = values.astype("<f2")
            place = self.tensor(name, values.shape, half, kind=FLOAT16)
            output = self.tensor(f"{name}_dequantize", values.shape)
            self.operator(DEQUANTIZE, [place], [output])
            return output, half.astype(float)
        if self.numbers == "weights" and axis is not None:
            others = tuple(number for number in range(values.ndim) if number != axis)
            scales = np.abs(values).max(axis=others, keepdims=True).astype(np.float32) / np.float32(127)
            whole = np.rint(values / scales).astype(np.int8)
            quantization = scaled(scales.ravel().tolist(), [0] * scales.size) | {6: ("<i4", axis)}
            place = self.tensor(name, values.shape, whole, kind=INT8, quantization=quantization)
            return place, whole.astype(float) * scales
        if self.numbers == "quantized" and axis is None:
            whole = np.rint(values / scale).astype("<i4")
            place = self.tensor(name, values.shape, whole, kind=INT32, quantization=scaled([scale], [0]))
            return place, whole * float(np.float32(scale))
        if self.numbers == "quantized":
            step, zero = float(np.float32(np.abs(values).max() / 120)), round(self.random.between(122, 134))
            whole = (np.rint(values / step) + zero).clip(0, 255).astype(np.uint8)
            place = self.tensor(name, values.shape, whole, kind=UINT8, quantization=scaled([step], [zero]))
            return place, (whole.astype(float) - zero) * step
        single = values.astype("<f4")
        return self.tensor(name, values.shape, single), single.astype(float)

    def convolution(
        self, data: int, name: str, outputs: int, kernel: int = 1, stride: int = 1, *, depthwise: bool = False,
        linear: bool = False,
    ) -> int:  # fmt: skip
        """A convolution with a bias and ReLU6, and the number of its output."""
        _, height, width, channels = self.shapes[data]
        shape = (1, kernel, kernel, channels) if depthwise else (outputs, kernel, kernel, channels)
        outputs = channels if depthwise else outputs
        fan_in = kernel * kernel * (1 if depthwise else channels)
        weight, weight_values = self.stored(
            f"{name}/weights",
            self.random.spread(shape) * ((0.5 if linear else 2) / fan_in) ** 0.5,
            axis=3 if depthwise else 0,
        )
        bias, bias_values = self.stored(f"{name}/bias", self.random.spread((outputs,)) * 0.3, scale=0.001)
        end = round(self.random.between(3, 6.5), 3) if self.numbers == "quantized" else 6.0
        high = (-512.0, 508.0) if linear else (0.0, end)
        shape = (1, -(-height // stride), -(-width // stride), outputs)
        output = self.tensor(f"{name}/BiasAdd" if linear else f"{name}/Relu6", shape, high=high)
        options = {1: ("<i4", stride), 2: ("<i4", stride)}
        # toco leaves out the activation where the range of 8 bits implies it
        activation = 0 if linear or end > 6 else 3
        if depthwise:
            options |= {3: ("<i4", 1), 4: ("i1", activation), 5: ("<i4", 1), 6: ("<i4", 1)}
        else:
            options |= {3: ("i1", activation), 4: ("<i4", 1), 5: ("<i4", 1)}
        kind = DEPTHWISE_OPTIONS if depthwise else CONV_OPTIONS
        self.operator(DEPTHWISE if depthwise else CONVOLUTION, [data, weight, bias], [output], kind, options)
        limit = None if linear else float(np.float32(end / 255)) * 255 if self.numbers == "quantized" else 6.0
        self.steps.append(Step((data,), output, weight_values, bias_values, stride, depthwise, limit))
        return output

    def add(self, first: int, second: int, name: str) -> int:
        output = self.tensor(f"{name}/add", self.shapes[first], high=(-512.0, 508.0))
        self.operator(ADD, [first, second], [output], ADD_OPTIONS, {0: ("i1", 0)})
        self.steps.append(Step((first, second), output))
        return output

    def reshape(self, data: int, name: str, shape: tuple[int, ...]) -> int:
        sizes = self.tensor(
            f"{name}/shape", (len(shape),), np.array(shape, "<i4"), kind=INT32, quantization=scaled([1.0], [0])
        )
        output = self.tensor(name, shape, high=(-512.0, 508.0))
        self.operator(RESHAPE, [data, sizes], [output])
        return output

    def concat(self, parts: Sequence[int], name: str) -> int:
        shape = self.shapes[parts[0]]
        total = sum(self.shapes[part][1] for part in parts)
        output = self.tensor(name, (shape[0], total, *shape[2:]), high=(-512.0, 508.0))
        self.operator(CONCATENATION, parts, [output], CONCATENATION_OPTIONS, {0: ("<i4", 1), 1: ("i1", 0)})
        return output

    def write(self, outputs: Sequence[int]) -> bytes:
        graph = {0: self.tensors, 1: np.array([self.image], "<i4"), 2: np.array(outputs, "<i4"), 3: self.operators}
        codes = [
            {0: ("i1", code), 2: ("<i4", 1), 3: ("<i4", code)} | ({1: custom} if custom else {})
            for code, custom in self.codes
        ]
        return flat_buffer({0: ("<u4", 3), 1: codes, 2: [graph], 4: self.buffers})


def scaled(scales: list[float], zero_points: list[int]) -> dict[int, Any]:
    """QuantizationParameters."""
    return {2: np.array(scales, "<f4"), 3: np.array(zero_points, "<i8")}


class Written(NamedTuple):
    """A file, its network, and the tensors of each feature map's offsets and logits."""

    data: bytes
    network: Network
    boxes: list[int]
    classes: list[int]

    def run(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        """Offsets (y, x, height, width) and logits, background included, of an image of (1, 3, height, width)."""
        found = {self.network.image: (torch.from_numpy(pixels).double() - self.mean) / self.scale}
        for step in self.network.steps:
            if step.weight is None:
                found[step.output] = found[step.inputs[0]] + found[step.inputs[1]]
                continue
            weight = torch.from_numpy(step.weight).permute((3, 0, 1, 2) if step.depthwise else (0, 3, 1, 2))
            features = found[step.inputs[0]]
            padding = []
            for size in (features.shape[3], features.shape[2]):
                zeros = max((-(-size // step.stride) - 1) * step.stride + weight.shape[2] - size, 0)
                padding += [zeros // 2, zeros - zeros // 2]
            groups = len(weight) if step.depthwise else 1
            values = F.conv2d(F.pad(features, padding), weight, torch.from_numpy(step.bias), step.stride, groups=groups)
            found[step.output] = values if step.high is None else values.clamp(0, step.high)
        parts = []
        for numbers, width in ((self.boxes, 4), (self.classes, self.outputs)):
            maps = [found[number].permute(0, 2, 3, 1).reshape(len(pixels), -1, width) for number in numbers]
            parts.append(torch.cat(maps, dim=1))
        return parts[0], parts[1]

    @property
    def outputs(self) -> int:
        return self.network.shapes[self.classes[1]][3] // 6

    @property
    def mean(self) -> float:
        return 128.0 if self.network.numbers == "quantized" else 127.5

    @property
    def scale(self) -> float:
        return 128.0 if self.network.numbers == "quantized" else 127.5


NETWORKS: Mapping[str, dict[str, Any]] = {
    "SSD MobileNet v1": {"version": 1},
    "SSD MobileNet v2": {"version": 2, "height": 160, "width": 160},
    "SSDLite MobileNet v2": {"version": 2, "lite": True, "height": 160, "width": 192},
    "suppression by class": {
        "version": 1,
        "height": 160,
        "width": 160,
        "options": {"use_regular_nms": 1, "nms_score_threshold": 0.6},
    },
    "weights of 16 bits": {"version": 1, "lite": True, "numbers": "half", "height": 128, "width": 128},
}
"""Arguments of `write_ssd`, by what the file is, for golden_float_tflite.json; all have three classes."""

EVERY = 37
"""One of so many default boxes is kept."""


def image(height: int = 300, width: int = 300) -> np.ndarray:
    """Pixels of (height, width, 3)."""
    return (Numbers(9).fractions(height * width * 3) * 256).astype(np.uint8).reshape(height, width, 3)


V1_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))
V2_BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def write_ssd(
    version: int, *, lite: bool = False, height: int = 300, width: int = 300, classes: int = 90, seed: int = 0,
    numbers: str = "float", options: Mapping[str, float] | None = None, kernel: int | None = None,
    softmax: bool = False,
) -> Written:  # fmt: skip
    """An SSD or SSDLite on MobileNet v1 or v2, layer after layer as the Object Detection API builds it."""
    net = Network(height, width, seed=seed, numbers=numbers)
    sources = _mobilenet_v1(net) if version == 1 else _mobilenet_v2(net)
    features = sources[-1]
    prefix = "Conv2d_13_pointwise" if version == 1 else "layer_19"
    for number, channels in enumerate((512, 256, 256, 128), start=2):
        name = f"FeatureExtractor/MobilenetV{version}/{prefix}"
        inner = net.convolution(features, f"{name}_1_Conv2d_{number}_1x1_{channels // 2}", channels // 2)
        name = f"{name}_2_Conv2d_{number}_3x3_s2_{channels}"
        if lite:
            inner = net.convolution(inner, f"{name}_depthwise", 0, 3, 2, depthwise=True)
            features = net.convolution(inner, name, channels)
        else:
            features = net.convolution(inner, name, channels, 3, 2)
        sources.append(features)
    kernel = kernel or (1 if version == 1 else 3)
    heads: dict[str, list[int]] = {"BoxEncoding": [], "Class": []}
    shaped: dict[str, list[int]] = {"BoxEncoding": [], "Class": []}
    for number, source in enumerate(sources):
        boxes = 3 if number == 0 else 6
        cells = net.shapes[source][1] * net.shapes[source][2]
        for part, each in (("BoxEncoding", 4), ("Class", classes + 1)):
            name = f"BoxPredictor_{number}/{part}Predictor"
            data = source
            if lite:
                data = net.convolution(source, f"{name}_depthwise", 0, 3, depthwise=True)
            head = net.convolution(data, name, boxes * each, 1 if lite else kernel, linear=True)
            heads[part].append(head)
            shape = (1, cells * boxes, 1, 4) if part == "BoxEncoding" else (1, cells * boxes, each)
            shaped[part].append(net.reshape(head, f"{name}/Reshape", shape))
    boxes = net.concat(shaped["BoxEncoding"], "concat")
    boxes = net.reshape(boxes, "raw_outputs/box_encodings", (1, net.shapes[boxes][1], 4))
    logits = net.concat(shaped["Class"], "concat_1")
    scores = net.tensor("raw_outputs/class_predictions", net.shapes[logits], high=(0.0, 1.0))
    if softmax:
        net.operator(25, [logits], [scores], 9, {0: ("<f4", 1.0)})
    else:
        net.operator(LOGISTIC, [logits], [scores])
    anchors, _ = _anchors(net, sources)
    outputs = [net.tensor(f"TFLite_Detection_PostProcess{end}", (), kind=FLOAT32) for end in ("", ":1", ":2", ":3")]
    chosen = OPTIONS | {"num_classes": classes} | (options or {})
    custom = ("TFLite_Detection_PostProcess", flex_map(chosen))
    net.operator(CUSTOM, [boxes, scores, anchors], outputs, custom=custom)
    data = net.write([*outputs, boxes, scores])
    return Written(data, net, heads["BoxEncoding"], heads["Class"])


def _mobilenet_v1(net: Network) -> list[int]:
    name = "FeatureExtractor/MobilenetV1/MobilenetV1"
    features = net.convolution(net.image, f"{name}/Conv2d_0", 32, 3, 2)
    sources = []
    for number, (channels, stride) in enumerate(V1_BLOCKS, start=1):
        features = net.convolution(features, f"{name}/Conv2d_{number}_depthwise", 0, 3, stride, depthwise=True)
        features = net.convolution(features, f"{name}/Conv2d_{number}_pointwise", channels)
        if number in (11, 13):
            sources.append(features)
    return sources


def _mobilenet_v2(net: Network) -> list[int]:
    name = "FeatureExtractor/MobilenetV2"
    features = net.convolution(net.image, f"{name}/Conv", 32, 3, 2)
    sources, number = [], 0
    for expansion, channels, blocks, stride in V2_BLOCKS:
        for place in range(blocks):
            block = f"{name}/expanded_conv_{number}" if number else f"{name}/expanded_conv"
            before, inner = features, features
            if expansion > 1:
                inner = net.convolution(features, f"{block}/expand", expansion * net.shapes[features][3])
            if number == 13:
                sources.append(inner)
            inner = net.convolution(inner, f"{block}/depthwise", 0, 3, stride if place == 0 else 1, depthwise=True)
            features = net.convolution(inner, f"{block}/project", channels, linear=True)
            if place > 0:
                features = net.add(before, features, block)
            number += 1
    sources.append(net.convolution(features, f"{name}/Conv_1", 1280))
    return sources


def anchor_table(grids: Sequence[tuple[int, int]]) -> np.ndarray:
    """`y, x, height, width` as multiple_grid_anchor_generator.py makes them, fractions of the image."""
    scales = [0.2 + 0.15 * place for place in range(6)] + [1.0]
    rows = []
    for place, (height, width) in enumerate(grids):
        shapes = [(scales[place], 1.0), *((scales[place], ratio) for ratio in (2.0, 0.5, 3.0, 1 / 3))]
        shapes.append(((scales[place] * scales[place + 1]) ** 0.5, 1.0))
        if place == 0:
            shapes = [(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)]
        for row in range(height):
            for column in range(width):
                center = ((row + 0.5) / height, (column + 0.5) / width)
                rows += [(*center, scale / ratio**0.5, scale * ratio**0.5) for scale, ratio in shapes]
    return np.array(rows)


def _anchors(net: Network, sources: Sequence[int]) -> tuple[int, np.ndarray]:
    table = anchor_table([net.shapes[source][1:3] for source in sources])
    return net.stored("anchors", table, axis=1 if net.numbers == "quantized" else None)
