"""A TFLite model in 8 bits: whole numbers from the pixels to the heads, single precision behind them.

The rules are those of TensorFlow's "8-bit quantization specification": activations have a scale and a zero point,
weights a scale for each channel and the zero point 0, biases 32 bits.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from multibox.deploy.tflite_model import Model, Operator, Tensor, read_model, schema
from multibox.weights.exported import read_metadata

_CONVOLUTIONS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}
"""The axis of the output channels in the weights of a convolution."""

_QUANTIZED = (
    *(*_CONVOLUTIONS, "CAST", "ADD", "SUB", "MUL", "MEAN", "MAX_POOL_2D", "PAD", "PADV2", "CONCATENATION"),
    *("RELU", "RELU6", "LOGISTIC", "TRANSPOSE", "RESHAPE", "SLICE"),
)
"""Operators that compute with whole numbers if their inputs are whole numbers."""

_ONE_SCALE = ("MAX_POOL_2D", "PAD", "PADV2", "CONCATENATION", "TRANSPOSE", "RESHAPE", "SLICE")
"""Operators whose inputs and output must have the same scale."""

Range = tuple[float, float]
"""Smallest and largest value of a tensor."""

_LOGISTIC: Range = (0.0, 255 / 256)
"""The range that the output of a sigmoid must have."""


def quantize_tflite(source: Path, path: Path, inputs: Iterable[Shaped[np.ndarray, "batch 3 height width"]]) -> None:
    """Writes a TFLite file whose network computes with whole numbers.

    Args:
        source: The file in single precision.
        path: The file to write.
        inputs: Prepared images to calibrate on, each as a batch that the file takes.

    Raises:
        ValueError: There are no images.
    """
    model = read_model(source.read_bytes())
    model.operators = [part for operator in model.operators for part in _plain(operator)]
    quantized = _quantized_operators(model)
    ranges = _measure_ranges(model, quantized, inputs)
    path.write_bytes(_Quantizer(ranges).quantize(model, quantized).to_bytes(read_metadata(source)))


def _plain(operator: Operator) -> list[Operator]:
    """Returns the operators that an operator is made of. On x86, LiteRT has no fast hard-swish of whole numbers."""
    if operator.code != "HARD_SWISH":
        return [operator]
    (features,), (output,) = operator.inputs, operator.outputs
    moved, factor = (Tensor(f"{output.name}_{name}", output.shape) for name in ("moved", "factor"))
    three, sixth = (Tensor("constant", (), data=np.array(number, np.float32)) for number in (3, 1 / 6))
    relu6 = schema.AddOptionsT(fusedActivationFunction=schema.ActivationFunctionType.RELU6)
    return [
        Operator("ADD", [features, three], [moved], relu6),
        Operator("MUL", [moved, sixth], [factor], schema.MulOptionsT()),
        Operator("MUL", [features, factor], [output], schema.MulOptionsT()),
    ]


def _quantized_operators(model: Model) -> set[Operator]:
    """Returns the operators that shall compute with whole numbers.

    These are the convolutions, and what leads to them from the pixels. Behind an operator that cannot do it, like the
    square root of an L2 norm, numbers are in single precision up to the next convolution.
    """
    made_by = {tensor: operator for operator in model.operators for tensor in operator.outputs}
    waiting = [operator for operator in model.operators if operator.code in _CONVOLUTIONS]
    needed: set[Operator] = set()
    while waiting:
        operator = waiting.pop()
        if operator not in needed:
            needed.add(operator)
            waiting += [made_by[tensor] for tensor in operator.inputs if tensor in made_by]
    found: set[Operator] = set()
    whole = {tensor for tensor in model.inputs if tensor.dtype == "uint8"}
    for operator in model.operators:
        given = [tensor for tensor in operator.inputs if tensor.data is None]
        can = operator.code in _QUANTIZED and whole.issuperset(given) and len(given) == len(set(given))  # no square
        if operator in needed and (can or operator.code in _CONVOLUTIONS):
            found.add(operator)
            whole.update(operator.outputs)
    return found


def _measure_ranges(
    model: Model, quantized: set[Operator], inputs: Iterable[Shaped[np.ndarray, "batch 3 height width"]]
) -> dict[Tensor, Range]:
    """Returns the smallest and the largest value of all tensors that shall be whole numbers."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=model.to_bytes({}),
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    interpreter.allocate_tensors()
    place = {tensor: number for number, tensor in enumerate(model.tensors())}
    used = {tensor: None for operator in quantized for tensor in (*operator.inputs, *operator.outputs)}
    measured = [tensor for tensor in used if tensor.data is None and tensor.dtype == "float32"]
    ranges: dict[Tensor, Range] = dict.fromkeys(measured, (0.0, 0.0))  # 0 must be a whole number: it pads
    for batch in inputs:
        interpreter.set_tensor(place[model.inputs[0]], np.ascontiguousarray(batch.transpose(0, 2, 3, 1)))
        interpreter.invoke()
        for tensor in measured:
            values = interpreter.get_tensor(place[tensor])
            low, high = ranges[tensor]
            ranges[tensor] = min(low, float(values.min())), max(high, float(values.max()))
    if not any(high > low for low, high in ranges.values()):
        raise ValueError("there are no images to calibrate 8 bits on")
    _unite(ranges, quantized)
    return ranges


def _unite(ranges: dict[Tensor, Range], quantized: set[Operator]) -> None:
    """Gives the inputs and the output of an operator one range where it must be the same."""
    group = {tensor: [tensor] for tensor in ranges}
    for operator in quantized:
        if operator.code == "LOGISTIC":
            ranges[operator.outputs[0]] = _LOGISTIC
        if operator.code == "CAST":
            ranges[operator.outputs[0]] = (0.0, 255.0)
        if operator.code in _ONE_SCALE:
            ranges[operator.outputs[0]] = (0.0, 0.0)  # it has the range of its inputs: padding adds nothing to it
            tensors = [tensor for tensor in (*operator.inputs, *operator.outputs) if tensor in ranges]
            union = list(dict.fromkeys(member for tensor in tensors for member in group[tensor]))
            group |= dict.fromkeys(union, union)
    for members in group.values():
        lows, highs = zip(*(ranges[member] for member in members), strict=True)
        ranges |= dict.fromkeys(members, (min(lows), max(highs)))


class _Quantizer:
    """Makes a model in 8 bits.

    Args:
        ranges: Smallest and largest value of each tensor that shall be whole numbers.
    """

    def __init__(self, ranges: Mapping[Tensor, Range]) -> None:
        self._whole = {tensor: _int8(tensor, low, high) for tensor, (low, high) in ranges.items()}
        self._operators: list[Operator] = []
        self._made: set[Tensor] = set()

    def quantize(self, model: Model, quantized: set[Operator]) -> Model:
        """Returns the model in 8 bits. The operators that are not to be quantized stay as they are."""
        self._made.update(model.inputs)
        for tensor in model.inputs:
            if tensor.dtype == "uint8":
                tensor.scale = np.ones(1, np.float32)
        for operator in model.operators:
            if operator in quantized:
                self._add(self._converted(operator))
            else:
                inputs = list(map(self._as_floats, operator.inputs))
                self._add(Operator(operator.code, inputs, operator.outputs, operator.options))
        outputs = list(map(self._as_floats, model.outputs))
        return Model(model.inputs, outputs, self._operators)

    def _add(self, operator: Operator) -> None:
        self._operators.append(operator)
        self._made.update(operator.outputs)

    def _as_floats(self, tensor: Tensor) -> Tensor:
        """Returns a tensor as it was, and makes it of the whole numbers if there are only these."""
        if tensor in self._whole and tensor not in self._made:
            self._add(Operator("DEQUANTIZE", [self._whole[tensor]], [tensor], schema.DequantizeOptionsT()))
        return tensor

    def _as_whole(self, tensor: Tensor) -> Tensor:
        """Returns a tensor as whole numbers, and makes them of the floats if there are only these."""
        if tensor not in self._whole:
            return _int8_constant(tensor)
        if self._whole[tensor] not in self._made:
            self._add(Operator("QUANTIZE", [tensor], [self._whole[tensor]], schema.QuantizeOptionsT()))
        return self._whole[tensor]

    def _converted(self, operator: Operator) -> Operator:
        """Returns the operator on whole numbers."""
        outputs = [self._whole[tensor] for tensor in operator.outputs]
        first, *others = operator.inputs
        if operator.code == "CAST":
            return Operator("QUANTIZE", [first], outputs, schema.QuantizeOptionsT())
        if operator.code in _CONVOLUTIONS:
            features, (weight, bias) = self._as_whole(first), others
            inputs = [features, *_int8_weights(features, weight, bias, _CONVOLUTIONS[operator.code])]
        elif operator.code == "PADV2":
            features = self._as_whole(first)
            lowest = Tensor("lowest", (1,), "int8", np.array([-128], np.int8), features.scale, features.zero_point)
            inputs = [features, others[0], lowest]
        else:
            inputs = list(map(self._as_whole, operator.inputs))
        return Operator(operator.code, inputs, outputs, operator.options)


def _int8(tensor: Tensor, low: float, high: float) -> Tensor:
    """Returns the tensor as whole numbers for values from `low`, at most 0, to `high`, at least 0."""
    scale = max(high - low, 1e-6) / 255
    zero_point = round(min(max(-128 - low / scale, -128), 127))
    return Tensor(f"{tensor.name}_int8", tensor.shape, "int8", None, np.array([scale], np.float32), zero_point)


def _int8_constant(tensor: Tensor) -> Tensor:
    """Returns a constant as whole numbers; numbers that are whole already, like axes, stay as they are."""
    values = tensor.data
    if values is None or tensor.dtype != "float32":
        return tensor
    whole = _int8(tensor, min(float(values.min()), 0.0), max(float(values.max()), 0.0))
    assert whole.scale is not None
    whole.data = np.clip(np.round(values / whole.scale) + whole.zero_point, -128, 127).astype(np.int8)
    return whole


def _int8_weights(features: Tensor, weight: Tensor, bias: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Returns the weights of a convolution in 8 bits and its bias in 32."""
    assert features.scale is not None and weight.data is not None and bias.data is not None
    largest = np.abs(weight.data).max(axis=tuple(each for each in range(4) if each != axis))
    least = np.abs(bias.data) / features.scale / 2**30  # so that the bias fits
    scale = np.maximum(np.maximum(largest / 127, least), 1e-12).astype(np.float32)
    shape = [-1 if each == axis else 1 for each in range(4)]
    whole = np.clip(np.round(weight.data / scale.reshape(shape)), -127, 127).astype(np.int8)
    bias_scale = features.scale * scale
    whole_bias = np.round(bias.data.astype(np.float64) / bias_scale).astype(np.int32)
    return (
        Tensor(weight.name, weight.shape, "int8", whole, scale, axis=axis),
        Tensor(bias.name, bias.shape, "int32", whole_bias, bias_scale),
    )
