"""Our weights file: one `.safetensors` whose header holds the config, the class names and where it comes from."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from multibox.config import DetectorConfig, ExtraLayer, FeatureMap, Postprocess
from multibox.files import atomic_write

FORMAT = 1
"""The version of the format; a file of a later one is refused."""

_FOREIGN = "is it of another project? multibox.convert, or `multibox convert`, makes it one of ours"


class Weights(NamedTuple):
    """What a weights file holds.

    Attributes:
        config: Everything about the detector but its class names and tensors.
        class_names: In the order of the labels.
        tensors: By state-dict key.
        provenance: Free text by name: which data, which recipe, which version.
    """

    config: DetectorConfig
    class_names: tuple[str, ...]
    tensors: Mapping[str, np.ndarray]
    provenance: Mapping[str, str]


def save_weights(path: str | os.PathLike[str], weights: Weights) -> None:
    """Writes the file, whole or not at all.

    Raises:
        FileNotFoundError: There is no such folder.
        OSError: It cannot be written there.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: there is no folder '{target.parent}' to write to")
    header = {
        "format": f"multibox {FORMAT}",
        "config": json.dumps(dataclasses.asdict(weights.config)),
        "class_names": json.dumps(weights.class_names, ensure_ascii=False),
        "provenance": json.dumps(dict(weights.provenance), ensure_ascii=False),
    }
    tensors = {name: np.asarray(tensor, order="C") for name, tensor in weights.tensors.items()}
    with atomic_write(target) as part:
        part.write_bytes(save(tensors, metadata=header))


def load_weights(path: str | os.PathLike[str]) -> Weights:
    """Reads the file; no code in it is ever run.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a weights file of multibox, is damaged, or of a later version of the format.
    """
    name = os.fspath(path)
    if not os.path.isfile(name):
        raise FileNotFoundError(f"{name}: there is no such weights file")
    try:
        with safe_open(name, framework="numpy") as file:
            header = file.metadata() or {}
            _check_format(name, header)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:  # TypeError: numpy has no such numbers
        raise ValueError(f"{name}: not a .safetensors file, or damaged ({error}); {_FOREIGN}") from error
    try:
        config = _config(json.loads(header["config"]))
        class_names, provenance = json.loads(header["class_names"]), json.loads(header["provenance"])
        if not (isinstance(class_names, list) and all(isinstance(name, str) for name in class_names)):
            raise TypeError("class_names must be a list of texts")
        if not isinstance(provenance, dict):
            raise TypeError("provenance must be an object")
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: its header is damaged ({error!r})") from error
    return Weights(config, tuple(class_names), tensors, provenance)


def _check_format(name: str, header: Mapping[str, str]) -> None:
    kind, _, version = header.get("format", "").partition(" ")
    if kind != "multibox":
        raise ValueError(f"{name}: a .safetensors file without multibox's config in its header; {_FOREIGN}")
    if not version.isdecimal() or int(version) > FORMAT:
        raise ValueError(
            f"{name}: written in format {version}, this multibox reads up to {FORMAT}; install a newer one"
        )


def _config(values: dict[str, Any]) -> DetectorConfig:
    """The config of its JSON form: lists become tuples and rows their types."""
    rows = [
        FeatureMap(**row | {"step": tuple(row["step"]), "box_sizes": tuple(map(tuple, row["box_sizes"]))})
        for row in values["feature_maps"]
    ]
    typed = {
        "mean": tuple(values["mean"]),
        "scale": tuple(values["scale"]),
        "extras": tuple(ExtraLayer(**row) for row in values["extras"]),
        "feature_maps": tuple(rows),
        "postprocess": Postprocess(**values["postprocess"]),
    }
    return DetectorConfig(**values | typed)
