"""State dicts of PyTorch, read without running code: `.pth`, `.pt`, `.safetensors`."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
from safetensors import SafetensorError, safe_open


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """The tensors of the file by key; of a checkpoint those under `state_dict`, `model` or the like.

    Raises:
        ImportError: It is not `.safetensors`, and torch is not installed.
        ValueError: It is damaged, or holds anything but tensors and plain values.
    """
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="numpy") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, TypeError) as error:
            raise ValueError(f"{path}: not a .safetensors file, or damaged ({error})") from error
    found = _load(path)
    while isinstance(found, Mapping) and (inner := [found[key] for key in ("state_dict", "model") if key in found]):
        found = inner[0]
    return _arrays(path, found)


def _load(path: Path) -> object:
    import torch

    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # torch stores its tensors as they are: what would unpack to more than the file is an attack, or damaged
            if sum(item.file_size for item in archive.infolist()) > path.stat().st_size:
                raise ValueError(f"{path}: damaged: its parts are larger than the file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ValueError(
            f"{path}: not a file of plain tensors: it is damaged, or holds code, which is never run"
        ) from error
    except (RuntimeError, EOFError, OSError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path}: the file is truncated or damaged ({f'{error}'.splitlines()[0]})") from error


def _arrays(path: Path, found: object) -> dict[str, np.ndarray]:
    import torch

    if not isinstance(found, Mapping) or not found:
        raise ValueError(f"{path}: holds no state dict, but a {type(found).__name__}")
    wrong = [key for key, value in found.items() if not isinstance(value, torch.Tensor)]
    if wrong:
        raise ValueError(f"{path}: holds no state dict: '{wrong[0]}' is no tensor")
    arrays = {str(key): tensor.detach().cpu().float().numpy() for key, tensor in found.items()}
    return {key.removeprefix("module."): array for key, array in arrays.items()}
