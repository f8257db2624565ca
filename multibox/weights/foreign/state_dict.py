"""State dicts of PyTorch, read without running code: `.pth`, `.pt`, `.safetensors`."""

import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

_PLACES = ("state_dict", "model", "model_state_dict")
"""Where checkpoints have their state dict."""

_PICKLES_BEFORE_STORAGES = 4
"""A file of torch before 1.6 begins with its magic number, the protocol's version, the machine, and the tensors."""


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of the file by key; of a checkpoint those under `state_dict`, `model` or the like.

    Decimal numbers are given in 32 bits, whatever they have in the file.

    Raises:
        ImportError: It is not `.safetensors`, and torch is not installed.
        ValueError: It is damaged, or holds anything but tensors and plain values.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    found = _load(path)
    while isinstance(found, Mapping) and (
        inner := [found[key] for key in _PLACES if isinstance(found.get(key), Mapping)]
    ):
        found = inner[0]
    return _arrays(path, found)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError) as error:
        raise ValueError(f"{path}: not a .safetensors file, or damaged ({error})") from error
    if header.get("format", "").startswith("multibox "):
        raise ValueError(f"{path}: is a weights file of multibox already; there is nothing to convert")
    return {key: tensor.astype(np.float32) if tensor.dtype.kind == "f" else tensor for key, tensor in tensors.items()}


def _load(path: Path) -> object:
    import torch

    _check_sizes(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's about its own old formats
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path}: not a file of plain tensors: it is damaged, or holds code, which is never run"
        ) from error
    except Exception as error:  # torch lets through whatever a damaged pickle makes its parts raise
        raise _damaged(path, error) from error


def _check_sizes(path: Path) -> None:
    """That the tensors are no larger than the file, before memory is taken for them."""
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # torch stores its tensors as they are: what would unpack to more than the file is an attack, or damaged.
            # That each is as large as the part it is read from torch checks itself.
            total = sum(item.file_size for item in archive.infolist())
    else:
        total = 0
        try:
            with open(path, "rb") as file:
                for _ in range(_PICKLES_BEFORE_STORAGES):
                    reader = _Sizes(file)
                    reader.load()
                    total += sum(reader.sizes.values())
        except Exception as error:
            raise _damaged(path, error) from error
    if total > size:
        raise ValueError(
            f"{path}: truncated or damaged: its parts would take {total:,} bytes, and the file has {size:,}"
        )


class _StandIn(dict[object, object]):
    """What every class and function in a pickle is while only sizes are read: it does nothing."""

    def __init__(self, *arguments: object, **values: object) -> None:
        super().__init__()

    def __setstate__(self, state: object) -> None:
        """Nothing is kept."""


class _Sizes(pickle.Unpickler):
    """Reads which storages a file of torch before 1.6 has, and how many numbers they hold (at least a byte each)."""

    sizes: dict[object, int]

    def __init__(self, file: object) -> None:
        super().__init__(file)  # type: ignore[arg-type]
        self.sizes = {}

    def find_class(self, module: str, name: str) -> object:
        return _StandIn

    def persistent_load(self, saved_id: object) -> object:
        if isinstance(saved_id, tuple) and len(saved_id) > 4 and isinstance(saved_id[4], int):
            self.sizes[saved_id[2]] = saved_id[4]
        return _StandIn()


def _damaged(path: Path, error: Exception) -> ValueError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ValueError(f"{path}: truncated, damaged, or no file of tensors at all ({reason})")


def _arrays(path: Path, found: object) -> dict[str, np.ndarray]:
    import torch

    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"{path}: holds no state dict, but a {type(found).__name__}")
    wrong = [key for key, value in found.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise ValueError(f"{path}: holds no state dict: '{wrong[0]}' is no tensor")
    size = path.stat().st_size
    for key, tensor in found.items():
        if tensor.layout != torch.strided or tensor.is_quantized:
            raise ValueError(f"{path}: '{key}' is no plain tensor")
        if tensor.nbytes > size:  # the same number again and again, by a stride of 0
            raise ValueError(f"{path}: damaged: '{key}' would take {tensor.nbytes:,} bytes, and the file has {size:,}")
    plain = {str(key): tensor.detach() for key, tensor in found.items()}
    arrays = {key: (tensor.float() if tensor.is_floating_point() else tensor).numpy() for key, tensor in plain.items()}
    return {key.removeprefix("module."): array for key, array in arrays.items()}
