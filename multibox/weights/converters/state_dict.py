"""Reads state dicts of PyTorch without running code: `.pth`, `.pt`, `.safetensors`."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, ClassVar

import numpy as np
from safetensors import SafetensorError, safe_open

from multibox.messages import quoted, shortened
from multibox.weights.file import check_header_size

if TYPE_CHECKING:
    from torch import Tensor

_PLACES = ("state_dict", "model", "model_state_dict")
"""Keys under which checkpoints have their state dict."""

_PICKLES_BEFORE_STORAGES = 4
"""Number of pickles at the beginning of a file of torch before 1.6: magic number, protocol, machine, tensors."""

_ZIP = b"PK\x03\x04"
"""First bytes of files of torch since 1.6, which are zip files. Torch goes by the first bytes too: a zip could also be
at the end of any other file."""

_SHARED = 4
"""Largest ratio of the tensors' size to the file's. It may exceed 1: some models have a tensor under several keys."""


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a file by key. In a checkpoint, they are under `state_dict`, `model` or a similar key.

    The first bytes show which format the file has. Floating-point numbers are returned in 32 bits.

    Raises:
        ImportError: The file is not in the format of safetensors, and torch is not installed.
        ValueError: The file is damaged, or holds anything but tensors and plain values.
    """
    with path.open("rb") as file:
        begins_as_safetensors = file.read(9)[8:] == b"{"  # eight bytes with the length of the header, then the header
    if begins_as_safetensors:
        return _read_safetensors(path)
    found = _load(path)
    while isinstance(found, Mapping) and (
        inner := [found[key] for key in _PLACES if isinstance(found.get(key), Mapping)]
    ):
        found = inner[0]
    return _arrays(path, found)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        check_header_size(path)
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except PermissionError:
        raise
    except (SafetensorError, OSError, TypeError) as error:
        raise ValueError(f"{path}: not a .safetensors file, or damaged ({shortened(error)})") from error
    if header.get("format", "").startswith("multibox "):
        raise ValueError(f"{path}: is a weights file of multibox already; there is nothing to convert")
    return {key: tensor.astype(np.float32) if tensor.dtype.kind == "f" else tensor for key, tensor in tensors.items()}


def _load(path: Path) -> object:
    import torch

    _check_sizes(path)
    try:
        with path.open("rb") as file, warnings.catch_warnings():  # given a path, torch would go by its suffix
            warnings.simplefilter("ignore")  # torch warns about its own old formats
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: not a file of plain tensors: it is damaged, or holds code, which is never run"
        ) from error
    except Exception as error:  # torch lets through whatever a damaged pickle makes its parts raise
        raise _damaged(path) from error


def _check_sizes(path: Path) -> None:
    """Raises a ValueError if the tensors would be larger than the file, before memory is taken for them."""
    size = path.stat().st_size
    total = 0
    try:
        with path.open("rb") as file:
            if file.read(len(_ZIP)) == _ZIP:
                with zipfile.ZipFile(file) as archive:
                    # torch does not compress tensors, so a zip that unpacks to more than the file is an attack or
                    # damaged. Torch itself checks that each tensor fits the part from which it is read.
                    total = sum(item.file_size for item in archive.infolist())
            else:
                file.seek(0)
                for _ in range(_PICKLES_BEFORE_STORAGES):
                    reader = _Sizes(file)
                    reader.load()
                    total += sum(reader.sizes.values())
    except Exception as error:
        raise _damaged(path) from error
    if total > size:
        raise ValueError(
            f"{path}: truncated or damaged: its parts would take {total:,} bytes, but the file has {size:,}"
        )


class _StandIn(dict[object, object]):
    """Replaces every class and function of a pickle while sizes are read. It does nothing."""

    def __init__(self, *arguments: object, **values: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Ignores the state."""


class _Sizes(pickle._Unpickler):
    """Reads the storages of a file of torch before 1.6 and the count of numbers in each (at least a byte each).

    It is based on the unpickler in Python, because the one in C takes memory for the largest number that an object of
    the file has. The opcode that makes a `bytearray` of a claimed length, which torch does not use, is left out.
    """

    dispatch: ClassVar = {
        code: load for code, load in pickle._Unpickler.dispatch.items() if code != pickle.BYTEARRAY8[0]
    }

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.sizes: dict[object, int] = {}

    def find_class(self, module: str, name: str) -> object:
        return _StandIn

    def persistent_load(self, saved_id: object) -> object:
        match saved_id:
            case ("storage", _, key, _, int(numbers), *_):
                self.sizes[key] = max(numbers, self.sizes.get(key, 0))  # torch takes memory at the first reference
            case _:
                raise pickle.UnpicklingError("a reference to something else than a storage of numbers")
        return _StandIn()


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{path}: truncated, damaged, or no weights file at all; download or copy it again")


def _arrays(path: Path, found: object) -> dict[str, np.ndarray]:
    import torch

    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"{path}: holds no state dict, but a {type(found).__name__}")
    wrong = [key for key, value in found.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise ValueError(f"{path}: holds no state dict: {quoted(wrong[0])} is no tensor")
    for key, tensor in found.items():
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or tensor.is_quantized or tensor.is_complex() or tensor.is_neg():
            raise ValueError(f"{path}: {quoted(key)} is no plain tensor")
    size, total = path.stat().st_size, sum(tensor.nbytes for tensor in found.values())
    if total > _SHARED * size:  # repeated numbers: a stride of 0, or many keys for one tensor
        raise ValueError(f"{path}: damaged: its tensors would take {total:,} bytes, but the file has {size:,}")
    return {str(key).removeprefix("module."): _array(path, key, tensor) for key, tensor in found.items()}


def _array(path: Path, key: object, tensor: "Tensor") -> np.ndarray:
    plain = tensor.detach()
    try:
        return (plain.float() if plain.is_floating_point() else plain).numpy()
    except (TypeError, RuntimeError) as error:  # NumPy has no numbers of this type
        raise ValueError(f"{path}: {quoted(key)} is no plain tensor ({shortened(error)})") from error
