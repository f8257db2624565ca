"""Converts an ONNX model into a TFLite model, which LiteRT runs.

TFLite has the channels of features last, ONNX has them first. Here a value of the ONNX model is a tensor and the order
of the value's axes in it. A tensor is transposed only where an operator needs another order. That is nowhere in an SSD:
its heads put the channels last themselves.
"""

from collections.abc import Callable, Mapping
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np
import onnx
from jaxtyping import Shaped
from onnx.reference import ReferenceEvaluator

from multibox.deploy.tflite_model import Model, Operator, Tensor, schema

Order = tuple[int, ...]

_CHANNELS_LAST: Order = (0, 2, 3, 1)

_BINARY = {"Add": "ADD", "Sub": "SUB", "Mul": "MUL", "Div": "DIV"}
_UNARY = {
    "Exp": "EXP",
    "Sqrt": "SQRT",
    "Sigmoid": "LOGISTIC",
    "HardSwish": "HARD_SWISH",
    "Tanh": "TANH",
    "Neg": "NEG",
    "Abs": "ABS",
}
_FUSING = ("CONV_2D", "DEPTHWISE_CONV_2D", *_BINARY.values())
"""Operators that can end with a ReLU."""


class _Value(NamedTuple):
    """Where a value of the ONNX model is.

    Attributes:
        tensor: The tensor.
        order: The axis of the value that each axis of the tensor is.
    """

    tensor: Tensor
    order: Order


def to_tflite(model: onnx.ModelProto) -> Model:
    """Returns the TFLite model of an ONNX model with a fixed batch. An input of images has its channels last.

    Raises:
        ValueError: The ONNX model has something that cannot be converted.
    """
    return _Converter(onnx.shape_inference.infer_shapes(model)).convert()


class _Converter:
    """Converts the nodes of a model one after the other.

    Attributes:
        made: The TFLite model as far as it is made.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.made = Model()
        self._graph = model.graph
        self._values: dict[str, _Value] = {}
        self._constants = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
        infos = (*model.graph.input, *model.graph.value_info, *model.graph.output)
        self._shapes = {info.name: tuple(axis.dim_value for axis in info.type.tensor_type.shape.dim) for info in infos}
        self._maker = {name: node for node in model.graph.node for name in node.output}
        self._uses = [name for node in model.graph.node for name in node.input]
        self._uses += [output.name for output in model.graph.output]

    def convert(self) -> Model:
        """Returns the TFLite model."""
        for info in self._graph.input:
            shape = self._shapes[info.name]
            order = _CHANNELS_LAST if len(shape) == 4 and shape[1] == 3 else tuple(range(len(shape)))
            dtype = onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type).name
            tensor = Tensor(info.name, tuple(shape[axis] for axis in order), dtype)
            self.made.inputs.append(tensor)
            self._values[info.name] = _Value(tensor, order)
        for node in self._graph.node:
            given = [name for name in node.input if name]
            if all(name in self._constants for name in given):
                evaluated = ReferenceEvaluator(node).run(None, {name: self._constants[name] for name in given})
                self._constants |= dict(zip(node.output, map(np.asarray, evaluated), strict=True))
            else:
                self._convert_node(node)
        for info in self._graph.output:
            tensor = self._in_order(info.name).tensor
            tensor.name = info.name
            self.made.outputs.append(tensor)
        return self.made

    def _convert_node(self, node: onnx.NodeProto) -> None:
        kinds: Mapping[str, Callable[[onnx.NodeProto], None]] = {
            "Cast": self._cast,
            "Clip": self._clip,
            "Concat": self._concat,
            "Conv": self._conv,
            "Expand": self._alias,
            "Gelu": self._gelu,
            "HardSigmoid": self._hard_sigmoid,
            "Identity": self._alias,
            "MaxPool": self._max_pool,
            "Pow": self._power,
            "Reciprocal": self._reciprocal,
            "ReduceMean": self._reduce,
            "ReduceSum": self._reduce,
            "Relu": self._relu,
            "Reshape": self._reshape,
            "Slice": self._slice,
            "Softmax": self._softmax,
            "Squeeze": self._reshape,
            "Transpose": self._transpose,
            "Unsqueeze": self._reshape,
        }
        if node.op_type in _BINARY:
            self._binary(node)
        elif node.op_type in _UNARY:
            value = self._values[node.input[0]]
            self._emit(node, _UNARY[node.op_type], [value.tensor], value.order)
        elif node.op_type in kinds:
            kinds[node.op_type](node)
        else:
            raise _refusal(f"the ONNX operator '{node.op_type}'")

    def _emit(
        self, node: onnx.NodeProto, code: str, inputs: list[Tensor], order: Order, options: object = None
    ) -> Tensor:
        """Adds the operator that makes the node's output, whose axes have this order."""
        name = node.output[0]
        shape = self._shapes[name]
        tensor = self._add(code, inputs, tuple(shape[axis] for axis in order), options, name)
        self._values[name] = _Value(tensor, order)
        return tensor

    def _add(
        self, code: str, inputs: list[Tensor], shape: tuple[int, ...], options: object = None, name: str = ""
    ) -> Tensor:
        """Adds an operator, and returns its output."""
        dtype = "float32" if code == "CAST" else inputs[0].dtype
        tensor = Tensor(name or f"{code.lower()}_{len(self.made.operators)}", shape, dtype)
        self.made.operators.append(Operator(code, inputs, [tensor], options))
        return tensor

    def _in_order(self, name: str, order: Order | None = None) -> _Value:
        """Returns a value with its axes in an order, by default that of the ONNX model."""
        value = self._values[name]
        order = order or tuple(range(len(value.order)))
        if value.order == order:
            return value
        axes = tuple(value.order.index(axis) for axis in order)
        shape = tuple(value.tensor.shape[axis] for axis in axes)
        inputs = [value.tensor, _constant(np.array(axes, np.int32))]
        return _Value(self._add("TRANSPOSE", inputs, shape, schema.TransposeOptionsT()), order)

    def _operands(self, node: onnx.NodeProto) -> tuple[list[Tensor], Order]:
        """Returns the tensors of a node that broadcasts, and the order of its output."""
        rank = len(self._shapes[node.output[0]])
        orders = [self._values[name].order for name in node.input if name in self._values]
        order = orders[0] if all(len(each) == rank for each in orders) else tuple(range(rank))
        tensors = []
        for name in node.input:
            if name in self._constants:
                values = self._constants[name]
                if values.ndim:
                    values = values.reshape((1,) * (rank - values.ndim) + values.shape).transpose(order)
                tensors.append(_constant(values))
            else:
                own = order if len(self._values[name].order) == rank else None
                tensors.append(self._in_order(name, own).tensor)
        return tensors, order

    def _binary(self, node: onnx.NodeProto) -> None:
        if self._normalization(node):
            return
        tensors, order = self._operands(node)
        code = _BINARY[node.op_type]
        if code == "DIV" and (divisor := tensors[1].data) is not None:
            code, tensors[1] = "MUL", _constant(1 / divisor)
        self._emit(node, code, tensors, order, getattr(schema, f"{code.capitalize()}OptionsT")())

    def _normalization(self, node: onnx.NodeProto) -> bool:
        """Makes one convolution of pixels minus their mean, divided by their scale. In 8 bits it loses nothing."""
        before = self._maker.get(node.input[0])
        if node.op_type != "Div" or before is None or before.op_type != "Sub" or self._uses.count(node.input[0]) > 1:
            return False
        scale, mean = (self._constants.get(each.input[1]) for each in (node, before))
        if scale is None or mean is None or {scale.shape, mean.shape} != {(3, 1, 1)}:
            return False
        pixels = self._in_order(before.input[0], _CHANNELS_LAST).tensor
        self.made.operators = [
            each for each in self.made.operators if each.outputs != [self._values[node.input[0]].tensor]
        ]
        weights = (1 / scale).reshape(1, 1, 1, 3)
        bias = (-mean / scale).reshape(3)
        options = schema.DepthwiseConv2DOptionsT(padding=schema.Padding.VALID, strideW=1, strideH=1, depthMultiplier=1)
        inputs = [pixels, _constant(weights), _constant(bias)]
        self._emit(node, "DEPTHWISE_CONV_2D", inputs, _CHANNELS_LAST, options)
        return True

    def _conv(self, node: onnx.NodeProto) -> None:
        given = _attributes(node)
        weight = self._constants[node.input[1]]
        bias = self._constants[node.input[2]] if len(node.input) > 2 else np.zeros(len(weight), np.float32)
        features = self._in_order(node.input[0], _CHANNELS_LAST).tensor
        features, padding = self._padded(node, features)
        strides, dilations = given["strides"], given["dilations"]
        options: Any = {
            "padding": padding,
            "strideH": strides[0],
            "strideW": strides[1],
            "dilationHFactor": dilations[0],
            "dilationWFactor": dilations[1],
        }
        if given["group"] == features.shape[3] > 1:
            code, weight = "DEPTHWISE_CONV_2D", weight.transpose(1, 2, 3, 0)
            options = schema.DepthwiseConv2DOptionsT(**options, depthMultiplier=len(bias) // features.shape[3])
        else:
            code, weight, options = "CONV_2D", weight.transpose(0, 2, 3, 1), schema.Conv2DOptionsT(**options)
        self._emit(node, code, [features, _constant(weight), _constant(bias)], _CHANNELS_LAST, options)

    def _max_pool(self, node: onnx.NodeProto) -> None:
        given = _attributes(node)
        if set(given["dilations"]) != {1}:
            raise _refusal("a max pooling with dilation")
        features = self._in_order(node.input[0], _CHANNELS_LAST).tensor
        features, padding = self._padded(node, features)
        options = schema.Pool2DOptionsT(
            padding=padding,
            strideH=given["strides"][0],
            strideW=given["strides"][1],
            filterHeight=given["kernel_shape"][0],
            filterWidth=given["kernel_shape"][1],
        )
        self._emit(node, "MAX_POOL_2D", [features], _CHANNELS_LAST, options)

    def _padded(self, node: onnx.NodeProto, features: Tensor) -> tuple[Tensor, int]:
        """Returns the features of a window operator, padded if TFLite's two rules do not say how, and the rule."""
        given = _attributes(node)
        outputs = self._shapes[node.output[0]][2:]
        axes = zip(
            *(features.shape[1:3], outputs, given["kernel_shape"], given["strides"], given["dilations"]),
            *(given["pads"][:2], given["pads"][2:]),
            strict=True,
        )
        pads, same = [], []
        for size, output, kernel, stride, dilation, before, behind in axes:
            needed = max((output - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
            pads.append((before, max(needed - before, 0)))
            same.append(output == ceil(size / stride) and before == needed // 2 and behind in (0, needed - before))
        if all(same):
            return features, schema.Padding.SAME
        if np.any(pads):
            table = np.array([(0, 0), *pads, (0, 0)], np.int32)
            shape = tuple(size + sum(each) for size, each in zip(features.shape, table.tolist(), strict=True))
            inputs, code, options = [features, _constant(table)], "PAD", schema.PadOptionsT()
            if node.op_type == "MaxPool" and not self._is_positive(features):
                inputs.append(_constant(np.array([np.finfo(np.float32).min], np.float32)))
                code, options = "PADV2", schema.PadV2OptionsT()
            features = self._add(code, inputs, shape, options)
        return features, schema.Padding.VALID

    def _is_positive(self, features: Tensor) -> bool:
        """Returns whether the features come out of a ReLU."""
        maker = self._maker_of(features)
        activation = getattr(maker.options, "fusedActivationFunction", 0) if maker else 0
        return bool(activation) or (maker is not None and maker.code in ("RELU", "RELU6"))

    def _maker_of(self, tensor: Tensor) -> Operator | None:
        """Returns the operator that makes a tensor; None if it is an input."""
        return next((each for each in self.made.operators if tensor in each.outputs), None)

    def _relu(self, node: onnx.NodeProto) -> None:
        self._activation(node, "RELU")

    def _clip(self, node: onnx.NodeProto) -> None:
        low, high = (float(self._constants[name]) if name else None for name in [*node.input[1:], "", ""][:2])
        if (low, high) == (0, 6):
            self._activation(node, "RELU6")
            return
        value = self._values[node.input[0]]
        tensor = value.tensor
        for code, bound in (("MAXIMUM", low), ("MINIMUM", high)):
            if bound is not None:
                limit = _constant(np.array(bound, np.float32))
                tensor = self._add(code, [tensor, limit], tensor.shape, schema.MaximumMinimumOptionsT())
        self._values[node.output[0]] = _Value(tensor, value.order)

    def _activation(self, node: onnx.NodeProto, code: str) -> None:
        """Makes a ReLU a part of the operator before it, or an operator."""
        name = node.input[0]
        value = self._values[name]
        maker = self._maker_of(value.tensor)
        alone = value.tensor.name == name and self._uses.count(name) == 1  # nothing else takes the tensor
        if alone and maker is not None and maker.code in _FUSING and not maker.options.fusedActivationFunction:
            maker.options.fusedActivationFunction = getattr(schema.ActivationFunctionType, code)
            self._values[node.output[0]] = value
        else:
            self._emit(node, code, [value.tensor], value.order)

    def _gelu(self, node: onnx.NodeProto) -> None:
        value = self._values[node.input[0]]
        options = schema.GeluOptionsT(approximate=_attributes(node).get("approximate") == b"tanh")
        self._emit(node, "GELU", [value.tensor], value.order, options)

    def _hard_sigmoid(self, node: onnx.NodeProto) -> None:
        """Makes `relu6(x + 3) / 6` of it."""
        given = _attributes(node)
        if not np.allclose([given["alpha"], given["beta"]], [1 / 6, 0.5]):
            raise _refusal(f"a HardSigmoid with alpha {given['alpha']:g} and beta {given['beta']:g}")
        value = self._values[node.input[0]]
        relu6 = schema.ActivationFunctionType.RELU6
        three, sixth = (_constant(np.array(number, np.float32)) for number in (3, 1 / 6))
        moved = self._add(
            "ADD", [value.tensor, three], value.tensor.shape, schema.AddOptionsT(fusedActivationFunction=relu6)
        )
        self._emit(node, "MUL", [moved, sixth], value.order, schema.MulOptionsT())

    def _reduce(self, node: onnx.NodeProto) -> None:
        value = self._values[node.input[0]]
        axes = self._constants[node.input[1]].tolist()
        places = [value.order.index(axis % len(value.order)) for axis in axes]
        code = {"ReduceMean": "MEAN", "ReduceSum": "SUM"}[node.op_type]
        if not _attributes(node)["keepdims"]:
            raise _refusal(f"a {node.op_type} that drops axes")
        inputs = [value.tensor, _constant(np.array(places, np.int32))]
        self._emit(node, code, inputs, value.order, schema.ReducerOptionsT(keepDims=True))

    def _power(self, node: onnx.NodeProto) -> None:
        value = self._values[node.input[0]]
        power = self._constants.get(node.input[1])
        if power is None or np.any(power != 2):
            raise _refusal("a power that is not a square")
        self._emit(node, "MUL", [value.tensor, value.tensor], value.order, schema.MulOptionsT())

    def _reciprocal(self, node: onnx.NodeProto) -> None:
        value = self._values[node.input[0]]
        one = _constant(np.array(1, np.float32))
        self._emit(node, "DIV", [one, value.tensor], value.order, schema.DivOptionsT())

    def _concat(self, node: onnx.NodeProto) -> None:
        order = self._values[node.input[0]].order
        axis = order.index(_attributes(node)["axis"] % len(order))
        tensors = [self._in_order(name, order).tensor for name in node.input]
        self._emit(node, "CONCATENATION", tensors, order, schema.ConcatenationOptionsT(axis=axis))

    def _slice(self, node: onnx.NodeProto) -> None:
        value = self._values[node.input[0]]
        starts, ends, axes, steps = (self._constants[name].tolist() for name in node.input[1:5])
        if set(steps) != {1}:
            raise _refusal("a slice with steps")
        begin, size = [0] * len(value.order), list(value.tensor.shape)
        for start, end, axis in zip(starts, ends, axes, strict=True):
            place = value.order.index(axis % len(value.order))
            low, high, _ = slice(start, end).indices(value.tensor.shape[place])
            begin[place], size[place] = low, high - low
        inputs = [value.tensor, *(_constant(np.array(each, np.int32)) for each in (begin, size))]
        self._emit(node, "SLICE", inputs, value.order, schema.SliceOptionsT())

    def _softmax(self, node: onnx.NodeProto) -> None:
        value = self._in_order(node.input[0])
        if _attributes(node)["axis"] % len(value.order) != len(value.order) - 1:
            raise _refusal("a softmax over an inner axis")
        self._emit(node, "SOFTMAX", [value.tensor], value.order, schema.SoftmaxOptionsT(beta=1.0))

    def _reshape(self, node: onnx.NodeProto) -> None:
        shape = self._shapes[node.output[0]]
        tensor = self._in_order(node.input[0]).tensor
        assert prod(shape) == prod(tensor.shape), (node.name, shape, tensor.shape)
        inputs = [tensor, _constant(np.array(shape, np.int32))]
        self._emit(node, "RESHAPE", inputs, tuple(range(len(shape))), schema.ReshapeOptionsT(newShape=list(shape)))

    def _transpose(self, node: onnx.NodeProto) -> None:
        value, axes = self._values[node.input[0]], _attributes(node)["perm"]
        self._values[node.output[0]] = _Value(value.tensor, tuple(axes.index(axis) for axis in value.order))

    def _cast(self, node: onnx.NodeProto) -> None:
        value = self._values[node.input[0]]
        if _attributes(node)["to"] != onnx.TensorProto.FLOAT:
            raise _refusal("a conversion to another type than float32")
        if value.tensor.dtype == "float32":
            self._alias(node)
        else:
            self._emit(node, "CAST", [value.tensor], value.order, schema.CastOptionsT())

    def _alias(self, node: onnx.NodeProto) -> None:
        """Takes the input for the output: what follows broadcasts."""
        self._values[node.output[0]] = self._values[node.input[0]]


def _refusal(what: str) -> ValueError:
    """Returns the error for something of the network that cannot be converted."""
    return ValueError(f"the network has {what}, which is not written to TFLite files; export it as .onnx or .xml")


def _constant(values: Shaped[np.ndarray, "..."]) -> Tensor:
    if values.dtype != np.int32:
        values = values.astype(np.float32)
    return Tensor("constant", values.shape, values.dtype.name, np.ascontiguousarray(values))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
