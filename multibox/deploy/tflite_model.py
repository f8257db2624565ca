"""A TFLite model in memory, and the bytes of its file.

The classes of the schema (`tensorflow/lite/schema/schema.fbs`) come with LiteRT, which runs the file.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, Shaped

try:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema
except ImportError as error:
    raise ImportError("TFLite files need ai-edge-litert: pip install 'multibox[export]'") from error

__all__ = ["Model", "Operator", "Tensor", "read_model", "schema"]

_TYPES = {"float32": "FLOAT32", "uint8": "UINT8", "int8": "INT8", "int32": "INT32"}

_NAMES = {number: name for name, number in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
"""Names of the operators by their number."""

_INT8_VERSIONS = {"CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "RESHAPE": 1, "HARD_SWISH": 1, "QUANTIZE": 1}
"""Versions of the operators that take int8, as `tflite/tools/versioning/op_version.cc` has them; 2 of all others."""


@dataclass(eq=False)
class Tensor:
    """A tensor of the graph.

    Attributes:
        name: Name of the tensor.
        shape: Length of each axis.
        dtype: NumPy's name of the type.
        data: The values of a constant.
        scale: A stored number q stands for `scale * (q - zero_point)`: one scale, or one for each index of an axis;
            None if the numbers are the values.
        zero_point: The number that stands for 0.
        axis: The axis that several scales belong to.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    data: Shaped[np.ndarray, "..."] | None = None
    scale: Float32[np.ndarray, " scales"] | None = None
    zero_point: int = 0
    axis: int = 0


@dataclass(eq=False)
class Operator:
    """An operator of the graph.

    Attributes:
        code: Its name in the schema's `BuiltinOperator`, or the name of a custom operator.
        inputs: Tensors that it takes.
        outputs: Tensors that it makes.
        options: Its options: an object of the schema, or the bytes of a custom operator; None if it has none.
    """

    code: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    options: Any = None


@dataclass
class Model:
    """A graph: its operators in the order in which they run.

    Attributes:
        inputs: Inputs of the graph.
        outputs: Outputs of the graph.
        operators: The operators.
    """

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    operators: list[Operator] = field(default_factory=list)

    def tensors(self) -> list[Tensor]:
        """Returns all tensors, each once."""
        used = (tensor for operator in self.operators for tensor in (*operator.inputs, *operator.outputs))
        return list(dict.fromkeys([*self.inputs, *used, *self.outputs]))

    def to_bytes(self, metadata: Mapping[str, str], *, buffers: Mapping[str, bytes] | None = None) -> bytes:
        """Returns the bytes of the file.

        Args:
            metadata: Texts by name, for the metadata `multibox`, which are a JSON object.
            buffers: Further metadata by name.
        """
        tensors = self.tensors()
        number = {tensor: place for place, tensor in enumerate(tensors)}
        codes = dict.fromkeys((operator.code, _version(operator)) for operator in self.operators)
        graph = schema.SubGraphT(
            tensors=[_pack_tensor(tensor, place + 1) for place, tensor in enumerate(tensors)],
            inputs=[number[tensor] for tensor in self.inputs],
            outputs=[number[tensor] for tensor in self.outputs],
            operators=[
                _pack_operator(operator, number, list(codes).index((operator.code, _version(operator))))
                for operator in self.operators
            ],
            name="main",
        )
        signature = schema.SignatureDefT(
            inputs=_pack_names(self.inputs, number),
            outputs=_pack_names(self.outputs, number),
            signatureKey="serving_default",
        )
        notes = {"multibox": json.dumps(dict(metadata)).encode(), **(buffers or {})}
        contents = [np.zeros(0), *(tensor.data for tensor in tensors)]
        contents += [np.frombuffer(content, np.uint8) for content in notes.values()]
        model = schema.ModelT(
            version=3,
            operatorCodes=[_pack_code(name, version) for name, version in codes],
            subgraphs=[graph],
            description="multibox",
            buffers=[_Buffer(content) for content in contents],
            metadata=[schema.MetadataT(name=name, buffer=len(tensors) + 1 + place) for place, name in enumerate(notes)],
            signatureDefs=[signature],
        )
        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def read_model(data: bytes) -> Model:
    """Returns the model of a file that `Model.to_bytes` made."""
    stored = schema.ModelT.InitFromPackedBuf(data)
    (graph,) = stored.subgraphs
    tensors = [_unpack_tensor(tensor, stored.buffers[tensor.buffer].data) for tensor in graph.tensors]
    operators = []
    for each in graph.operators:
        code = stored.operatorCodes[each.opcodeIndex]
        name = code.customCode.decode() if code.customCode else _NAMES[code.builtinCode]
        options = each.builtinOptions if each.customOptions is None else bytes(each.customOptions)
        inputs, outputs = ([tensors[place] for place in places] for places in (each.inputs, each.outputs))
        operators.append(Operator(name, inputs, outputs, options))
    inputs, outputs = ([tensors[place] for place in places] for places in (graph.inputs, graph.outputs))
    return Model(inputs, outputs, operators)


def _unpack_tensor(tensor: Any, content: Shaped[np.ndarray, " bytes"] | None) -> Tensor:
    dtype = next(name for name, kind in _TYPES.items() if getattr(schema.TensorType, kind) == tensor.type)
    shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
    unpacked = Tensor(tensor.name.decode(), shape, dtype)
    if content is not None:
        unpacked.data = np.frombuffer(content.tobytes(), dtype).reshape(shape)
    if tensor.quantization is not None:
        unpacked.scale = np.array(tensor.quantization.scale, np.float32)
        unpacked.zero_point = int(tensor.quantization.zeroPoint[0])
        unpacked.axis = tensor.quantization.quantizedDimension
    return unpacked


class _Buffer:
    """A buffer of the file, which begins at a multiple of 16 bytes (`force_align` in the schema)."""

    def __init__(self, content: Shaped[np.ndarray, "..."] | None) -> None:
        self.content = b"" if content is None else np.ascontiguousarray(content).tobytes()

    def Pack(self, builder: Any) -> int:
        """Adds the buffer to the file, as the method of this name of the schema's classes does."""
        place = 0
        if self.content:
            builder.StartVector(1, len(self.content), 16)
            builder.head -= len(self.content)
            builder.Bytes[builder.head : builder.head + len(self.content)] = self.content
            place = builder.EndVector()
        schema.BufferStart(builder)
        if place:
            schema.BufferAddData(builder, place)
        return int(schema.BufferEnd(builder))


def _version(operator: Operator) -> int:
    first = next((tensor for tensor in operator.inputs if tensor.data is None), None)
    if first is None or first.dtype != "int8":
        return 1
    return _INT8_VERSIONS.get(operator.code, 2)


def _pack_code(name: str, version: int) -> Any:
    code = getattr(schema.BuiltinOperator, name, schema.BuiltinOperator.CUSTOM)
    custom = name if code == schema.BuiltinOperator.CUSTOM else None
    return schema.OperatorCodeT(
        deprecatedBuiltinCode=min(code, 127), customCode=custom, version=version, builtinCode=code
    )


def _pack_operator(operator: Operator, number: Mapping[Tensor, int], code: int) -> Any:
    inputs, outputs = ([number[tensor] for tensor in group] for group in (operator.inputs, operator.outputs))
    packed = schema.OperatorT(opcodeIndex=code, inputs=inputs, outputs=outputs)
    if isinstance(operator.options, bytes):
        packed.customOptions = np.frombuffer(operator.options, np.uint8)
    elif operator.options is not None:
        packed.builtinOptionsType = getattr(schema.BuiltinOptions, type(operator.options).__name__.removesuffix("T"))
        packed.builtinOptions = operator.options
    return packed


def _pack_names(tensors: Sequence[Tensor], number: Mapping[Tensor, int]) -> list[Any]:
    return [schema.TensorMapT(name=tensor.name, tensorIndex=number[tensor]) for tensor in tensors]


def _pack_tensor(tensor: Tensor, buffer: int) -> Any:
    packed = schema.TensorT(
        shape=list(tensor.shape),
        type=getattr(schema.TensorType, _TYPES[tensor.dtype]),
        buffer=buffer,
        name=tensor.name,
        hasRank=True,
    )
    if tensor.scale is not None:
        packed.quantization = schema.QuantizationParametersT(
            scale=tensor.scale.tolist(),
            zeroPoint=[tensor.zero_point] * len(tensor.scale),
            quantizedDimension=tensor.axis,
        )
    return packed
