"""Reads the graph of a `.tflite` file: its tensors as floats, its convolutions, and how they follow one another.

The numbers come from `tensorflow/lite/schema/schema.fbs` (tensorflow/tensorflow, Apache-2.0).
"""

from math import inf, prod
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from multibox.messages import quoted
from multibox.weights.converters.flatbuffer import Table

_KINDS = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 9: "i1"}
"""NumPy's names of the types of tensors by their number in the schema."""

_FLOATS, _UINT8, _INT8 = (0, 1), 3, 9

_ADD, _CONCATENATION, _CONVOLUTION, _DEPTHWISE, _DEQUANTIZE, _LOGISTIC = 0, 2, 3, 4, 6, 14
_RESHAPE, _SOFTMAX, _CUSTOM, _SQUEEZE, _QUANTIZE = 22, 25, 32, 43, 114
"""Numbers of operators in the schema."""

_SAME, _NO_ACTIVATION, _RELU, _RELU6 = 0, 0, 1, 3
"""Numbers in the schema's enumerations of paddings and of activations."""


class Tensor(NamedTuple):
    """Numbers q that stand for `scale (q - zero_point)`, or floats. There are none if the file does not store it.

    Attributes:
        name: Name of the tensor.
        shape: Length of each axis.
        kind: Number of the numbers' type in the schema.
        scales: One scale for all numbers, or one for each index of an axis; none for floats.
        zero_points: As many zero points as scales.
        axis: The axis that several scales belong to.
        numbers: The numbers as stored.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    scales: list[float]
    zero_points: list[int]
    axis: int
    numbers: np.ndarray

    @property
    def is_float(self) -> bool:
        """Whether the numbers are the values themselves."""
        return self.kind in _FLOATS

    def values(self) -> Float[np.ndarray, "..."]:
        """Returns the real numbers that the stored numbers stand for."""
        numbers = self.numbers.astype(np.float32).reshape(self.shape)
        if self.is_float:
            return numbers
        axes = [1] * len(self.shape)
        if len(self.scales) > 1:
            axes[self.axis] = len(self.scales)
        scales, zero_points = (np.array(each, np.float32).reshape(axes) for each in (self.scales, self.zero_points))
        return (numbers - zero_points) * scales

    def ends(self) -> tuple[float, float]:
        """Returns the smallest and the largest value that the type can stand for."""
        if self.is_float:
            return -inf, inf
        low, high = (0, 255) if self.kind == _UINT8 else (-128, 127)
        return self.scales[0] * (low - self.zero_points[0]), self.scales[0] * (high - self.zero_points[0])

    def mean_and_scale(self) -> tuple[float, float]:
        """Returns what is subtracted from pixels of 0 to 255, and what they are divided by, to get an input's values.

        TensorFlow's detectors take floats from -1 to 1. In 8 bits with a sign, pixels have 128 subtracted.
        """
        if self.is_float:
            return 127.5, 127.5
        return float(self.zero_points[0] + (128 if self.kind == _INT8 else 0)), 1 / self.scales[0]


class Operator(NamedTuple):
    """One step of the graph, with the numbers of its tensors."""

    kind: int
    table: Table
    inputs: list[int]
    output: int


class Layer(NamedTuple):
    """A convolution in PyTorch's layout, with SAME padding and its activation.

    Attributes:
        weight: Weight, one input channel for depthwise convolutions.
        bias: Bias, zeros if the file has none.
        depthwise: Whether each channel is convolved separately.
        stride: Distance of the kernel's positions.
        input: Number of the tensor that it takes.
        output: Number of the tensor that it gives, after the shortcut if there is one.
        shortcut: Number of the tensor that is added to its output, or `None`.
        low: Smallest value of the output before a shortcut: 0 after ReLU6, below it in linear layers.
        high: Largest value of that output: 6 after ReLU6, or where its 8 bits end.
    """

    weight: Float[np.ndarray, "outputs inputs rows columns"]
    bias: Float[np.ndarray, " outputs"]
    depthwise: bool
    stride: int
    input: int
    output: int
    shortcut: int | None
    low: float
    high: float

    @property
    def linear(self) -> bool:
        """Whether it has no activation."""
        return self.low < 0


Chain = tuple[Layer, ...]
"""The layers of a head: a convolution, or a depthwise one and a 1x1 convolution."""


class Graph:
    """The graph of a file: tensors and operators by number.

    Every method raises a ValueError if the file is damaged, or has an operator that is not expected there.
    """

    def __init__(self, data: bytes) -> None:
        model = Table.root(data)
        graph = model.tables(2)[0]
        self._tensors, self._buffers = graph.tables(0), model.tables(4)
        codes = [(max(code.number(0, "i1"), code.number(3, "<i4")), code.text(1)) for code in model.tables(1)]
        self._custom: dict[str, Operator] = {}
        self._makers: dict[int, Operator] = {}
        self._users: dict[int, list[Operator]] = {}
        for table in graph.tables(3):
            kind, custom = codes[table.number(0, "<u4")]
            inputs, outputs = table.numbers(1, "<i4").tolist(), table.numbers(2, "<i4").tolist()
            operator = Operator(kind, table, inputs, outputs[0])
            if kind == _CUSTOM:
                self._custom[custom] = operator
            for output in outputs:
                self._makers[output] = operator
            for number in set(inputs):
                self._users.setdefault(number, []).append(operator)
        self.image: int = graph.numbers(1, "<i4")[0].item()

    def custom_operator(self, name: str) -> Operator:
        """Returns the operator of this name that the schema does not know."""
        if name not in self._custom:
            raise ValueError(f"another model: it has no operator {quoted(name)}")
        return self._custom[name]

    def tensor(self, number: int) -> Tensor:
        """Returns a tensor by its number."""
        table = self._tensors[number]
        kind, quantization, name = table.number(1, "i1"), table.table(4), table.text(3)
        if kind not in _KINDS:
            raise ValueError(f"another model: '{name}' is of the type {kind}, expected floats or 8-bit numbers")
        scales, zero_points, axis = [], [], 0
        if quantization is not None:
            scales, zero_points = quantization.numbers(2, "<f4").tolist(), quantization.numbers(3, "<i8").tolist()
            axis = quantization.number(6, "<i4")
        shape = tuple(table.numbers(0, "<i4").tolist())
        if kind not in _FLOATS and not (scales and len(scales) == len(zero_points)):
            raise ValueError(f"another model: '{name}' is of whole numbers, but has no scale")
        if len(scales) > 1 and (axis >= len(shape) or shape[axis] != len(scales)):
            raise ValueError(f"damaged: '{name}' is {shape}, but has {len(scales)} scales on axis {axis}")
        stored = self._buffers[table.number(2, "<u4")].numbers(0, "u1").tobytes()
        if len(stored) not in (0, prod(shape) * np.dtype(_KINDS[kind]).itemsize):
            raise ValueError(f"truncated or damaged: '{name}' is {shape}, but has {len(stored)} bytes")
        return Tensor(name, shape, kind, scales, zero_points, axis, np.frombuffer(stored, _KINDS[kind]))

    def values(self, number: int) -> Float[np.ndarray, "..."]:
        """Returns the values of a stored tensor, which may first be turned from 16 bits into 32."""
        maker = self._makers.get(number)
        tensor = self.tensor(number if maker is None else maker.inputs[0])
        if maker is not None and maker.kind != _DEQUANTIZE:
            raise ValueError(f"another model: '{self.tensor(number).name}' is computed, not stored")
        if not tensor.numbers.size:
            raise ValueError(f"truncated or damaged: '{tensor.name}' is {tensor.shape}, but has 0 bytes")
        return tensor.values()

    def heads(self, number: int) -> list[Chain]:
        """Returns the heads whose outputs make up a tensor, in their order in it."""
        maker = self._makers.get(number)
        if maker is None:
            raise ValueError(f"another model: '{self.tensor(number).name}' is not made by heads")
        if maker.kind == _CONCATENATION:
            return [head for part in maker.inputs for head in self.heads(part)]
        if maker.kind in (_RESHAPE, _SQUEEZE, _LOGISTIC, _DEQUANTIZE, _QUANTIZE):
            return self.heads(maker.inputs[0])
        if maker.kind == _SOFTMAX:
            raise ValueError("another model: its scores are a softmax, expected sigmoids")
        last = self.layer(maker)
        before = self._makers.get(last.input)
        return [(self.layer(before), last) if before is not None and before.kind == _DEPTHWISE else (last,)]

    def has_sigmoid(self) -> bool:
        """Returns whether scores are sigmoids in the graph."""
        return any(maker.kind == _LOGISTIC for maker in self._makers.values())

    def trunk(self, heads: set[int]) -> list[Layer]:
        """Returns the convolutions that follow one another from the image on, without those of the heads.

        Args:
            heads: Numbers of the tensors that layers of heads give.
        """
        layers: list[Layer] = []
        number = self.image
        following = self._users.get(number, [])
        if len(following) == 1 and following[0].kind in (_QUANTIZE, _DEQUANTIZE):
            number = following[0].output
        while True:
            following = [
                operator
                for operator in self._users.get(number, [])
                if operator.kind not in (_ADD, _RESHAPE) and operator.output not in heads
            ]
            if not following:
                return layers
            if len(following) > 1 or len(layers) > len(self._makers):
                raise ValueError(f"another model: {len(following)} layers follow '{self.tensor(number).name}'")
            layers.append(self._with_shortcut(self.layer(following[0]), {layer.output for layer in layers}))
            number = layers[-1].output

    def layer(self, operator: Operator) -> Layer:
        """Returns a convolution with its activation."""
        name = self.tensor(operator.output).name
        if operator.kind not in (_CONVOLUTION, _DEPTHWISE):
            raise ValueError(f"another model: '{name}' is made by operator {operator.kind}, expected a convolution")
        depthwise = operator.kind == _DEPTHWISE
        data, kernel, *bias = operator.inputs
        options = operator.table.table(4)
        if options is None:
            raise ValueError(f"damaged: '{name}' is made by a convolution without options")
        strides = options.number(1, "<i4"), options.number(2, "<i4")
        if options.number(0, "i1") != _SAME or strides[0] != strides[1]:
            raise ValueError(f"another model: '{name}' is not padded by SAME, or its strides differ")
        weight = np.ascontiguousarray(self.values(kernel).transpose((3, 0, 1, 2) if depthwise else (0, 3, 1, 2)))
        low, high = self.tensor(operator.output).ends()
        activation = options.number(4 if depthwise else 3, "i1")
        if activation not in (_NO_ACTIVATION, _RELU, _RELU6):
            raise ValueError(f"another model: '{name}' has the activation {activation}, expected ReLU6")
        if activation in (_RELU, _RELU6):
            low, high = max(low, 0.0), min(high, 6.0) if activation == _RELU6 else high
        return Layer(
            weight=weight,
            bias=self.values(bias[0]) if bias and bias[0] >= 0 else np.zeros(len(weight), np.float32),
            depthwise=depthwise,
            stride=strides[0],
            input=data,
            output=operator.output,
            shortcut=None,
            low=low,
            high=high,
        )

    def _with_shortcut(self, layer: Layer, before: set[int]) -> Layer:
        """Returns the layer with the addition of a tensor from before it, if there is one."""
        for operator in self._users.get(layer.output, []):
            others = [number for number in operator.inputs if number != layer.output]
            if operator.kind == _ADD and len(others) == 1 and others[0] in before:
                options = operator.table.table(4)
                if options is not None and options.number(0, "i1") != _NO_ACTIVATION:
                    raise ValueError(f"another model: '{self.tensor(operator.output).name}' has an activation")
                return layer._replace(output=operator.output, shortcut=others[0])
        return layer
