"""Reads state dicts of PyTorch without running code: `.pth`, `.pt`, `.ckpt`, `.safetensors`."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from multibox.messages import quoted, shortened
from multibox.weights.converters.torch_file import StandIn, StoredTensor, TorchFile, read_torch_file
from multibox.weights.file import check_header_size

_SHARED = 4
"""Largest ratio of the tensors' size to the file's. It may exceed 1: some models have a tensor under several keys."""

_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of keys that wrappers of networks insert: DataParallel and AveragedModel, torch.compile, FSDP."""

_AVERAGES = ("ema", "swa", "averag", "teacher", "shadow")
"""Words in the keys of state dicts that are averages or copies of another one in the file."""

Stored = Mapping[str, StoredTensor | StandIn]


class StateDict(NamedTuple):
    """A state dict in a file.

    Attributes:
        place: Keys under which the file has it, joined by dots; empty where it is the file's whole content.
        prefix: Text at the beginning of its keys that was taken off.
        tensors: Tensors by key.
        left: Keys of tensors beside it that do not begin with the prefix.
        others: Places of the other state dicts in the file that may be those of a network.
    """

    place: str
    prefix: str
    tensors: dict[str, np.ndarray]
    left: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a file by key: the first of `read_state_dicts`."""
    return next(read_state_dicts(path)).tensors


def read_state_dicts(path: Path) -> Iterator[StateDict]:
    """Yields the state dicts that may be those of a network, the likeliest first.

    The first bytes show which format the file has. A checkpoint may have its state dict under any key, beside anything
    else, or as a whole network, whose code is not run. The largest state dicts come first, averages of another one
    after it. A prefix that most keys share, `model.`, is taken off in a second try. Floating-point numbers are
    returned in 32 bits.

    Raises:
        ValueError: The file is damaged, or holds no tensors.
    """
    with path.open("rb") as file:
        begins_as_safetensors = file.read(9)[8:] == b"{"  # eight bytes with the length of the header, then the header
    if begins_as_safetensors:
        yield from _without_prefixes(StateDict("", "", _read_safetensors(path)))
        return
    file_content = read_torch_file(path)
    found = _find(path, file_content.content)
    largest = max(map(len, found.values()))
    likely = {place: stored for place, stored in found.items() if 2 * len(stored) >= largest}
    for place in sorted(
        likely, key=lambda place: (any(word in place.lower() for word in _AVERAGES), -len(found[place]))
    ):
        tensors = _arrays(path, file_content, likely[place])
        others = tuple(other for other in likely if other != place)
        yield from _without_prefixes(StateDict(place, "", tensors, others=others))


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
    tensors = {
        key: tensor.astype(np.float32) if tensor.dtype.kind == "f" else tensor for key, tensor in tensors.items()
    }
    return _unwrapped(tensors)


def _without_prefixes(whole: StateDict) -> Iterator[StateDict]:
    """Yields the state dict, then without the first part that most of its keys begin with, then without the next."""
    while True:
        yield whole
        parts = Counter(key.partition(".")[0] for key in whole.tensors if "." in key)
        part, times = max(parts.items(), key=lambda item: item[1], default=("", 0))
        if 2 * times <= len(whole.tensors):
            return
        inside = {key.removeprefix(f"{part}."): t for key, t in whole.tensors.items() if key.startswith(f"{part}.")}
        left = tuple(key for key in whole.tensors if not key.startswith(f"{part}."))
        whole = whole._replace(prefix=f"{whole.prefix}{part}.", tensors=inside, left=(*whole.left, *left))


def _find(path: Path, content: object) -> dict[str, Stored]:
    """Returns all state dicts in the content of a file by their places.

    Raises:
        ValueError: There are none.
    """
    found: dict[str, Stored] = {}
    seen: set[int] = set()

    def visit(place: str, value: object) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        if isinstance(value, StandIn) and isinstance(value.state, Mapping):
            if tensors := dict(_tensors_of_module(value, "", set())):
                found[place] = tensors
            else:
                visit(place, value.state)
        if isinstance(value, Mapping):
            tensors = {str(key): tensor for key, tensor in value.items() if _is_tensor(tensor)}
            if tensors and all(isinstance(key, str) for key, tensor in value.items() if _is_tensor(tensor)):
                found[place] = tensors
            items = value.items()
        elif isinstance(value, list | tuple):
            items = enumerate(value)  # type: ignore[assignment]
        else:
            return
        for key, inner in items:
            visit(f"{place}.{shortened(key, 60)}" if place else shortened(key, 60), inner)

    try:
        visit("", content)
    except RecursionError as error:
        raise ValueError(f"{path}: damaged: it is nested too deeply") from error
    if found:
        return found
    if isinstance(content, StandIn):
        raise ValueError(
            f"{path}: holds no state dict, but an object of {quoted(content.name)}, whose code is never run; save the "
            "state dict of its network: torch.save(network.state_dict(), 'weights.pth')"
        )
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path}: holds no state dict, but a {type(content).__name__}")
    raise ValueError(f"{path}: holds no state dict: {quoted(next(iter(content)))} is no tensor")


def _is_tensor(value: object) -> bool:
    return isinstance(value, StoredTensor) or (isinstance(value, StandIn) and value.is_tensor)


def _tensors_of_module(module: StandIn, prefix: str, above: set[int]) -> Iterator[tuple[str, StoredTensor | StandIn]]:
    """Yields the parameters and buffers of a network that was saved whole, as its `state_dict()` has them."""
    state = module.state
    if not isinstance(state, Mapping) or id(module) in above or not isinstance(state.get("_modules"), Mapping):
        return
    for kind in ("_parameters", "_buffers"):
        tensors = state.get(kind)
        if isinstance(tensors, Mapping):
            yield from ((f"{prefix}{key}", tensor) for key, tensor in tensors.items() if _is_tensor(tensor))
    for name, inner in state["_modules"].items():
        if isinstance(inner, StandIn):
            yield from _tensors_of_module(inner, f"{prefix}{name}.", above | {id(module)})


def _arrays(path: Path, file: TorchFile, stored: Stored) -> dict[str, np.ndarray]:
    """Returns the tensors with their numbers.

    Raises:
        ValueError: One is no plain tensor, or together they are much larger than the file.
    """
    size, total = path.stat().st_size, 0
    for key, tensor in stored.items():
        if isinstance(tensor, StandIn):
            raise ValueError(f"{path}: {quoted(key)} is no plain tensor ({shortened(tensor.name)})")
        total += tensor.nbytes
    if total > _SHARED * size:  # repeated numbers: a stride of 0, or many keys for one tensor
        raise ValueError(f"{path}: damaged: its tensors would take {total:,} bytes, but the file has {size:,}")
    return _unwrapped(file.read({key: tensor for key, tensor in stored.items() if isinstance(tensor, StoredTensor)}))


def _unwrapped(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the tensors with keys without the parts that wrappers of networks insert."""
    keys = {key: ".".join(part for part in key.split(".") if part not in _WRAPPERS) for key in tensors}
    if len(set(keys.values())) < len(keys):  # two keys would become one
        return tensors
    return {keys[key]: tensor for key, tensor in tensors.items()}
