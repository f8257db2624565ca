"""Our weights file: one `.safetensors` whose header holds the config, class names, thresholds and provenance."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from multibox.checks import check_class_names
from multibox.config import DetectorConfig
from multibox.files import atomic_write
from multibox.messages import quoted, shortened

FORMAT = "1.3"
"""Version of the format. A later second number may bring new fields, a later first number changes the old ones."""

_LARGEST_HEADER = 16 << 20
"""Most bytes of a header. The names and shapes of all tensors of SSD512 with 1,000 classes take about 20 kB."""

_OTHER_PROJECT = "is it of another project? multibox.convert, or `multibox convert`, makes it one of ours"


_Threshold = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Weights(NamedTuple):
    """Contents of a weights file.

    Attributes:
        config: Everything about the detector but its class names and tensors.
        class_names: Names of the classes, in the order of the labels.
        tensors: Weights by state-dict key.
        provenance: Free text by name: data, recipe, version.
        score_thresholds: Score threshold with the highest F1 on the validation set, by class name. Classes for which
            none was measured are missing.
    """

    config: DetectorConfig
    class_names: tuple[str, ...]
    tensors: Mapping[str, np.ndarray]
    provenance: Mapping[str, str]
    score_thresholds: Mapping[str, float] = MappingProxyType({})


def save_weights(path: str | os.PathLike[str], weights: Weights) -> None:
    """Writes the file completely or not at all.

    Raises:
        FileNotFoundError: The folder does not exist.
        OSError: The file cannot be written there.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: there is no folder '{target.parent}' to write to")
    header = make_header(weights)
    tensors = {name: np.asarray(tensor, order="C") for name, tensor in weights.tensors.items()}
    with atomic_write(target) as part:
        part.write_bytes(save(tensors, metadata=header))


def make_header(weights: Weights) -> dict[str, str]:
    """Returns all of the weights but their tensors as texts: the header of the file, or an exported file's metadata."""
    header = {
        "format": f"multibox {FORMAT}",
        "config": weights.config.to_json(),
        "class_names": json.dumps(weights.class_names, ensure_ascii=False),
        "provenance": json.dumps({name: str(text) for name, text in weights.provenance.items()}, ensure_ascii=False),
    }
    if weights.score_thresholds:
        header["score_thresholds"] = json.dumps(dict(weights.score_thresholds), ensure_ascii=False)
    return header


def load_weights(path: str | os.PathLike[str]) -> Weights:
    """Reads the file. No code in it is ever run, and a small file cannot ask for much memory.

    Raises:
        FileNotFoundError: There is no such file.
        PermissionError: The file may not be read.
        ValueError: The file is not a weights file of multibox, is damaged, or is of a later version of the format.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise FileNotFoundError(f"{name}: there is no such weights file")
    try:
        check_header_size(name)
        with safe_open(name, framework="numpy") as file:
            header = file.metadata() or {}
            weights = parse_header(name, header)
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
            _check_heads(name, weights, shapes)
            tensors = {key: file.get_tensor(key) for key in shapes}
    except PermissionError:
        raise
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: NumPy has no numbers of this type
        raise ValueError(_not_ours(name, error)) from error
    return weights._replace(tensors=tensors)


def is_weights_file(path: str | os.PathLike[str]) -> bool:
    """Returns whether the file says in its header that it is one of multibox."""
    try:
        check_header_size(path)
        with safe_open(path, framework="numpy") as file:
            return str((file.metadata() or {}).get("format", "")).startswith("multibox ")
    except (SafetensorError, OSError):
        return False


def _not_ours(name: str, error: Exception) -> str:
    """Returns the message for a file that cannot be read, with what to do about it."""
    weights = Path(name).with_name("last.safetensors")
    if Path(name).suffix == ".pt" and weights.is_file():
        return f"{name}: a training state; the weights are {weights.name} beside it"
    advice = "download or copy it again" if Path(name).suffix == ".safetensors" else _OTHER_PROJECT
    return f"{name}: not a .safetensors file, or damaged ({shortened(error)}); {advice}"


def check_header_size(path: str | os.PathLike[str]) -> None:
    """Raises a SafetensorError if a `.safetensors` file claims a larger header than any weights file has."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if size > _LARGEST_HEADER:
        raise SafetensorError("it does not begin with the header of such a file")


def _version(name: str, header: Mapping[str, str]) -> tuple[int, int]:
    """Returns the version of the format in which the file is written.

    Raises:
        ValueError: The file is not one of multibox, or its format is one that this version does not know.
    """
    kind, _, version = header.get("format", "").partition(" ")
    if kind != "multibox":
        raise ValueError(f"{name}: a .safetensors file without multibox's config in its header; {_OTHER_PROJECT}")
    numbers = re.fullmatch(r"(\d{1,6})(?:\.(\d{1,6}))?", version, re.ASCII)
    if numbers is None:
        raise ValueError(f"{name}: its header is damaged (the format is {quoted(version)})")
    found = (int(numbers[1]), int(numbers[2] or 0))
    if found[0] > _known()[0]:
        raise ValueError(_too_new(name, found))
    return found


def _known() -> tuple[int, int]:
    major, minor = FORMAT.split(".")
    return int(major), int(minor)


def _too_new(name: str, version: tuple[int, int]) -> str:
    return (
        f"{name}: written by a later multibox, in format {version[0]}.{version[1]}; this one reads up to {FORMAT}; "
        "install a newer one"
    )


def parse_header(name: str, header: Mapping[str, str]) -> Weights:
    """Returns what `make_header` was given, without tensors.

    Args:
        name: Name of the file, for the errors.
        header: Header or metadata of the file.

    Raises:
        ValueError: The file is not one of multibox, or a value is missing, is invalid, or is new in a later version.
    """
    version = _version(name, header)
    try:
        config = DetectorConfig.from_json(header["config"])
        class_names = msgspec.json.decode(header["class_names"], type=tuple[str, ...])
        provenance = msgspec.json.decode(header["provenance"], type=dict[str, str])
        check_class_names(class_names)
        thresholds = msgspec.json.decode(header.get("score_thresholds", "{}"), type=dict[str, _Threshold])
        if unknown := sorted(thresholds.keys() - set(class_names)):
            raise ValueError(f"score_thresholds names {quoted(unknown[0])}, which is none of its classes")
    except (KeyError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        if version > _known():
            raise ValueError(f"{_too_new(name, version)} ({shortened(error)})") from error
        missing = f"it has no {error}" if isinstance(error, KeyError) else shortened(error)
        raise ValueError(f"{name}: its header is damaged ({missing})") from error
    return Weights(config, class_names, {}, provenance, thresholds)


def _check_heads(name: str, weights: Weights, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compares the shapes of the heads in the file with the config, before any tensor is read.

    Raises:
        ValueError: A head has another number of outputs.
    """
    config, num_classes = weights.config, len(weights.class_names)
    for row in config.feature_maps:
        for head, values in (("offsets", 4), ("logits", num_classes + 1)):
            key = f"{head}.{row.layer}{'.pointwise' if row.head == 'separable' else ''}.weight"
            outputs = shapes[key][:1] if key in shapes else None
            expected = len(row.box_sizes) * values
            if outputs is not None and outputs != (expected,):
                raise ValueError(
                    f"{name}: its tensors do not fit {quoted(config.name)} with {num_classes} classes; the head "
                    f"'{key}' has {outputs[0] if outputs else 'no'} outputs, expected {expected}"
                )
