"""What an exported file says of its detector, read from the file alone: no engine is needed."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.etree.ElementTree import ParseError

import msgspec
import numpy as np
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from multibox.messages import shortened
from multibox.weights.converters.flatbuffer import Table
from multibox.weights.converters.protobuf import fields
from multibox.weights.file import Weights, load_weights, parse_header


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Returns whether the path has the suffix of an exported file."""
    return Path(path).suffix in KINDS


def read_header(path: str | os.PathLike[str]) -> Weights:
    """Returns what a weights file or an exported file says of its detector, without tensors.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not one of multibox, or is damaged.
    """
    if not is_exported(path):
        return load_weights(path)._replace(tensors={})
    return parse_header(os.fspath(path), read_metadata(path))


def read_metadata(path: str | os.PathLike[str]) -> Mapping[str, str]:
    """Returns the metadata of an exported file.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged, or not one that multibox exported.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise FileNotFoundError(f"{name}: there is no such file")
    kind, read = KINDS[Path(path).suffix]
    try:
        metadata = read(name)
    except (ValueError, ParseError, DefusedXmlException, LookupError) as error:
        raise ValueError(f"{name}: not {kind} file, or damaged ({shortened(error)})") from error
    if not metadata.get("format", "").startswith("multibox "):
        raise ValueError(
            f"{name}: {kind} file that multibox has not exported, so what its outputs mean is not known; "
            "'multibox export' writes such files, and 'multibox convert' takes some of other projects"
        )
    return metadata


def _onnx_metadata(path: str) -> dict[str, str]:
    """Returns `metadata_props` (field 14 of ModelProto in onnx.proto, entries of key 1 and value 2)."""
    message = np.memmap(path, np.uint8, "r").data
    entries = [dict(fields(value)) for number, value in fields(message) if number == 14 and not isinstance(value, int)]
    return {bytes(entry[1]).decode(): bytes(entry.get(2, b"")).decode() for entry in entries}


def _openvino_metadata(path: str) -> dict[str, str]:
    """Returns what stands in `rt_info/multibox`."""
    root = parse(path).getroot()
    found = None if root is None else root.find("rt_info/multibox")
    return {} if found is None else {entry.tag: entry.attrib["value"] for entry in found}


def _tflite_metadata(path: str) -> dict[str, str]:
    """Returns the metadata `multibox`, a JSON object of texts.

    They are a buffer (field 4 of Model in schema.fbs) that an entry of the metadata (field 6) names.
    """
    model = Table.root(Path(path).read_bytes())
    places = [entry.number(1, "<u4") for entry in model.tables(6) if entry.text(0) == "multibox"]
    return msgspec.json.decode(model.tables(4)[places[0]].text(0), type=dict[str, str]) if places else {}


EXECUTORCH_METADATA = "multibox_metadata"
"""Name of the method of an ExecuTorch file that returns the metadata, a JSON object of texts."""


def _executorch_metadata(path: str) -> dict[str, str]:
    """Returns what the method of the metadata returns.

    A method is an ExecutionPlan (field 1 of Program in program.fbs), whose fields are a name (0), values (2) and the
    numbers of those that are outputs (4). A value is a union: its table is field 1, and a String holds its text in 0.
    """
    for method in Table.root(Path(path).read_bytes()).tables(1):
        if method.text(0) == EXECUTORCH_METADATA:
            value = method.tables(2)[method.numbers(4, "<i4")[0]].table(1)
            return {} if value is None else msgspec.json.decode(value.text(0), type=dict[str, str])
    return {}


KINDS: Mapping[str, tuple[str, Callable[[str], dict[str, str]]]] = {
    ".onnx": ("an ONNX", _onnx_metadata),
    ".pte": ("an ExecuTorch", _executorch_metadata),
    ".tflite": ("a TFLite", _tflite_metadata),
    ".xml": ("an OpenVINO", _openvino_metadata),
}
"""Kinds of exported files by their suffix: the name of the kind with its article, and what reads the metadata."""
