"""The kinds of files that a detector is exported to, by their suffix: what writes each, and what quantizes it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from multibox.data.sample import Sample
from multibox.deploy.graph import ExportedGraph
from multibox.deploy.int8 import quantize_onnx, quantize_openvino
from multibox.deploy.onnx import to_onnx


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        title: Name of the kind.
        suppresses: Whether it has an operator for suppression. If not, it has no axes of any length either: its files
            take images of one size, in batches of one size.
        quantizes: Whether its files can be in 8 bits.
        beside: Suffixes of the files that belong to such a file.
    """

    title: str
    suppresses: bool
    quantizes: bool
    beside: tuple[str, ...] = ()


KINDS: Mapping[str, Kind] = {
    ".onnx": Kind("ONNX", suppresses=True, quantizes=True),
    ".tflite": Kind("TFLite", suppresses=False, quantizes=True),
    ".xml": Kind("OpenVINO", suppresses=True, quantizes=True, beside=(".bin",)),
    ".pte": Kind("ExecuTorch", suppresses=False, quantizes=False),
}
"""The kinds of files by their suffix."""


def files_of(path: Path) -> list[Path]:
    """Returns the path and those of the files that belong to it."""
    return [path.with_suffix(suffix) for suffix in KINDS[path.suffix].beside] + [path]


def move(source: Path, path: Path) -> None:
    """Moves a file, with those that belong to it, to a path with the same suffix, and replaces what is there."""
    for one, other in zip(files_of(source), files_of(path), strict=True):
        one.replace(other)


def write(graph: ExportedGraph, path: Path, metadata: Mapping[str, str], *, batch: int | None) -> None:
    """Writes a graph in single precision.

    Args:
        graph: The graph to export.
        path: The file to write.
        metadata: Texts by name that the file holds.
        batch: Number of images of a call; None for any number.

    Raises:
        ImportError: A package is missing that writes the file.
        ValueError: The kind of file cannot hold the graph.
    """
    if path.suffix == ".pte":
        from multibox.deploy.executorch import write_executorch

        write_executorch(graph, path, metadata, batch=batch or 1)
    else:
        write_model(to_onnx(graph, metadata, batch=batch), path, metadata)


def write_model(
    model: onnx.ModelProto, path: Path, metadata: Mapping[str, str], model_info: Mapping[str, str] | None = None
) -> None:
    """Writes an ONNX model as any kind of file but ExecuTorch's, as `write` does.

    Args:
        model: The model, whose metadata are the same.
        path: The file to write.
        metadata: Texts by name that the file holds.
        model_info: Texts by name for `rt_info/model_info` of an OpenVINO file.
    """
    match path.suffix:
        case ".onnx":
            path.write_bytes(model.SerializeToString())
        case ".tflite":
            from multibox.deploy.tflite import to_tflite

            path.write_bytes(to_tflite(model).to_bytes(metadata))
        case ".xml":
            from multibox.deploy.openvino import write_openvino

            write_openvino(model, path, metadata, model_info)


def quantize(source: Path, path: Path, samples: Sequence[Sample], as_input: Callable[[Sample], np.ndarray]) -> None:
    """Writes a file whose network computes in 8 bits. Its metadata are those of the source.

    Args:
        source: The file in single precision.
        path: The file to write, which must be another one.
        samples: Images to calibrate on.
        as_input: Makes what the file takes of an image.

    Raises:
        ImportError: A package is missing that quantizes such a file.
    """
    inputs: Iterable[np.ndarray] = map(as_input, samples)  # one at a time: whole images are large
    match source.suffix:
        case ".onnx":
            quantize_onnx(source, path, inputs)
        case ".tflite":
            from multibox.deploy.tflite_int8 import quantize_tflite

            quantize_tflite(source, path, inputs)
        case ".xml":
            quantize_openvino(source, path, samples, as_input)
