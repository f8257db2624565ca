"""What an exported file says of its detector, read from the file alone: no engine is needed."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from multibox.messages import shortened
from multibox.weights.converters.protobuf import fields
from multibox.weights.file import Weights, load_weights, parse_header

SUFFIXES = (".onnx",)
"""Suffixes of exported files."""


def is_exported(path: str | os.PathLike[str]) -> bool:
    """Returns whether the path has the suffix of an exported file."""
    return Path(path).suffix in SUFFIXES


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
    try:
        metadata = _onnx_metadata(name)
    except (ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}: not an ONNX file, or damaged ({shortened(error)})") from error
    if not metadata.get("format", "").startswith("multibox "):
        raise ValueError(
            f"{name}: an ONNX file that multibox has not exported, so what its outputs mean is not known; "
            "'multibox export' writes such files"
        )
    return metadata


def _onnx_metadata(path: str) -> dict[str, str]:
    """Returns `metadata_props` (field 14 of ModelProto in onnx.proto, entries of key 1 and value 2)."""
    message = memoryview(np.memmap(path, np.uint8, "r"))
    entries = [dict(fields(value)) for number, value in fields(message) if number == 14]
    return {bytes(entry[1]).decode(): bytes(entry.get(2, b"")).decode() for entry in entries}
