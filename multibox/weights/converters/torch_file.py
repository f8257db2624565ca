"""Reads files of PyTorch (`torch.save`) without torch, and without calling anything that they name.

Such a file has the numbers of its tensors, and a pickle: instructions that make objects by calling what they name.
Here they call nothing. Tensors become `StoredTensor`s, whose numbers are read when they are wanted; lists, dicts and
plain values are themselves; anything else becomes a `StandIn`, which has a name and does nothing.
"""

import io
import mmap
import pickle
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

_ZIP = b"PK\x03\x04"
"""First bytes of files of torch since 1.6, which are zip files. Torch goes by the first bytes too: a zip could also be
at the end of any other file."""

_MAGIC = 0x1950A86A20F9469CFC6C
"""First of the pickles in a file of torch before 1.6: this number, the protocol, the machine, the content, the keys of
the storages."""

_BFLOAT16 = "bfloat16"
_TYPES: Mapping[str, tuple[str | None, int]] = {
    "Float": ("f4", 4), "Double": ("f8", 8), "Half": ("f2", 2), "BFloat16": (_BFLOAT16, 2), "Long": ("i8", 8),
    "Int": ("i4", 4), "Short": ("i2", 2), "Char": ("i1", 1), "Byte": ("u1", 1), "Bool": ("?", 1),
    "ComplexFloat": (None, 8), "ComplexDouble": (None, 16), "QInt8": (None, 1), "QUInt8": (None, 1),
    "QInt32": (None, 4),
}  # fmt: skip
"""NumPy's name of the numbers in torch's `FloatStorage`, ..., and their size in bytes. `None` where NumPy has none, or
where they mean something else."""


class Storage(NamedTuple):
    """A row of numbers in the file.

    Attributes:
        type: Torch's name of their type, `Float`.
        key: Key of the row in the file.
        numbers: How many numbers the pickle says that it has.
        start: Where the numbers that are meant begin. Old files have parts of a row under a key of their own.
    """

    type: str
    key: str
    numbers: int
    start: int = 0


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor whose numbers are still in the file."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the tensor with its numbers in a row, in bytes."""
        return prod(self.shape) * _TYPES.get(self.storage.type, ("", 1))[1]


@dataclass(eq=False)
class StandIn(dict[object, object]):
    """Stands for an object that is not made, or for a function that is not called.

    Attributes:
        name: Name of its class or of the function: `argparse.Namespace`.
        state: Attributes of the object, if the file has them.
    """

    name: str
    state: object = None
    __hash__ = object.__hash__  # type: ignore[assignment]

    def append(self, item: object) -> None:
        """Forgets the item, which would be one of a list."""

    add = append

    def extend(self, items: object) -> None:
        """Forgets the items, which would be those of a list."""

    @property
    def is_tensor(self) -> bool:
        """Whether it stands for a tensor of another kind: sparse, quantized, without numbers, of a rare type."""
        return self.name.startswith("torch.") and "._rebuild" in self.name


@dataclass(frozen=True)
class TorchFile:
    """Content of a file of torch.

    Attributes:
        content: What was saved.
        read: Function from tensors by key to their numbers.
    """

    content: object
    read: Callable[[Mapping[str, StoredTensor]], dict[str, np.ndarray]] = field(repr=False)


def read_torch_file(path: Path) -> TorchFile:
    """Returns the content of the file. Memory is taken for no more than the file has.

    Raises:
        ValueError: The file is truncated, damaged, or not one of torch.
    """
    try:
        with path.open("rb") as file:
            return _read_zip(path, file) if file.read(len(_ZIP)) == _ZIP else _read_old(path, file)
    except _Refused as error:
        raise ValueError(f"{path}: {error}") from error
    except (PermissionError, IsADirectoryError):
        raise
    except Exception as error:  # a damaged pickle makes its instructions raise anything
        raise _damaged(path) from error


class _Refused(Exception):
    """The file is refused with a message of its own."""


def _damaged(path: Path) -> ValueError:
    return ValueError(f"{path}: truncated, damaged, or no weights file at all; download or copy it again")


def _check_total(total: int, path: Path) -> None:
    size = path.stat().st_size
    if total > size:
        raise _Refused(f"truncated or damaged: its parts would take {total:,} bytes, but the file has {size:,}")


def _read_zip(path: Path, file: io.BufferedReader) -> TorchFile:
    with zipfile.ZipFile(file) as archive:
        parts = {item.filename: item.file_size for item in archive.infolist()}
        # torch does not compress, so a zip that unpacks to more than the file is an attack or damaged
        _check_total(sum(parts.values()), path)
        (name,) = [part for part in parts if part.count("/") <= 1 and part.rpartition("/")[2] == "data.pkl"]
        folder = name.removesuffix("data.pkl")
        if f"{folder}constants.pkl" in parts:
            raise _Refused(
                "a TorchScript file, which holds code; convert the state dict of its network instead: "
                "torch.save(network.state_dict(), 'weights.pth')"
            )
        reader = _Reader(io.BytesIO(archive.read(name)))
        content = reader.load()
        for key, count in reader.counts.items():
            width = _TYPES.get(reader.types[key], (None, 1))[1]
            if count * width > parts[f"{folder}data/{key}"]:
                raise pickle.UnpicklingError("a storage is shorter than its tensors")
        order = ">" if f"{folder}byteorder" in parts and archive.read(f"{folder}byteorder") == b"big" else "<"

    def read(tensors: Mapping[str, StoredTensor]) -> dict[str, np.ndarray]:
        try:
            with zipfile.ZipFile(path) as archive:
                return {
                    key: _numbers(tensor, archive.read(f"{folder}data/{tensor.storage.key}"), order)
                    for key, tensor in tensors.items()
                }
        except Exception as error:
            raise _damaged(path) from error

    return TorchFile(content, read)


def _read_old(path: Path, opened: io.BufferedReader) -> TorchFile:
    """Reads a file of torch before 1.6, which has the storages one after the other behind its pickles."""
    places: dict[object, tuple[int, int]] = {}
    # a mapped file gives no more bytes than it has, whatever length a pickle claims
    with mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as file:
        readers = [_Reader(file) for _ in range(4)]
        magic, _, _, content = [reader.load() for reader in readers]
        _check_total(sum(sum(reader.counts.values()) for reader in readers), path)
        if magic != _MAGIC:
            raise pickle.UnpicklingError("the magic number is another")
        counts, types = readers[-1].counts, readers[-1].types
        for key in _Reader(file).load():
            count = int.from_bytes(file.read(8), "little")
            length = count * _TYPES[types[key]][1]
            places[key] = (file.tell(), length)
            if count != counts[key]:
                raise pickle.UnpicklingError("a storage is longer or shorter than its tensors")
            file.seek(length, 1)  # not beyond the end

    def read(tensors: Mapping[str, StoredTensor]) -> dict[str, np.ndarray]:
        arrays = {}
        try:
            with path.open("rb") as file:
                for key, tensor in tensors.items():
                    start, length = places[tensor.storage.key]
                    file.seek(start)
                    arrays[key] = _numbers(tensor, file.read(length), "<")
            return arrays
        except Exception as error:
            raise _damaged(path) from error

    return TorchFile(content, read)


def _numbers(tensor: StoredTensor, data: bytes, order: str) -> np.ndarray:
    """Returns a copy of the tensor's numbers, floating-point ones as float32."""
    kind, width = _TYPES[tensor.storage.type]
    if len(data) < tensor.storage.numbers * width:
        raise ValueError("a storage is shorter than the pickle says")
    if kind == _BFLOAT16:  # the upper half of a float32
        row = (np.frombuffer(data, f"{order}u2").astype(np.uint32) << 16).view(np.float32)
    else:
        row = np.frombuffer(data, np.dtype(f"{order}{kind}")) if data else np.empty(0, kind)
    start = tensor.storage.start + tensor.offset
    last = start + sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.strides, strict=True))
    if min((*tensor.shape, *tensor.strides, start), default=0) < 0 or (0 not in tensor.shape and last >= len(row)):
        raise ValueError("a tensor reaches beyond its storage")
    strides = [stride * row.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(row[start:], tensor.shape, strides, writeable=False)
    with np.errstate(over="ignore"):  # a value that does not fit becomes infinite, and is refused later
        return np.array(view, np.float32 if row.dtype.kind == "f" else row.dtype.newbyteorder("="))


class _Name(NamedTuple):
    """A class or function that a pickle names."""

    text: str


class _Reader(pickle._Unpickler):
    """Follows the instructions of a pickle, and calls nothing that it names.

    It is based on the unpickler in Python, because the one in C takes memory for the largest number that an object of
    the file has. Left out are the instructions that take objects from a table of this process.

    Attributes:
        counts: The largest number of numbers that the pickle says each storage has.
        types: Torch's name of the type of each storage.
    """

    read: Callable[[int], bytes]
    stack: list[Any]
    append: Callable[[object], None]
    dispatch: ClassVar[dict[int, Callable[..., None]]] = {
        code: load
        for code, load in pickle._Unpickler.dispatch.items()
        if code not in {part[0] for part in (pickle.EXT1, pickle.EXT2, pickle.EXT4)}
    }

    def __init__(self, file: io.BufferedIOBase | mmap.mmap) -> None:
        super().__init__(file)
        self.counts: dict[object, int] = {}
        self.types: dict[object, str] = {}

    def find_class(self, module: str, name: str) -> object:
        return _Name(f"{module}.{name}")

    def persistent_load(self, saved_id: object) -> object:
        match saved_id:
            case ("storage", kind, key, _, int(count), *rest):
                type_name = kind.text.rpartition(".")[2].removesuffix("Storage") if isinstance(kind, _Name) else ""
                self.counts[key] = max(count, self.counts.get(key, 0))
                self.types[key] = type_name
                match rest:
                    case [(_, int(start), int(length))]:
                        return Storage(type_name, str(key), length, start)
                return Storage(type_name, str(key), count)
            case ("module", _Name() as kind, *_):  # a class of layers, with its source code
                return kind
        raise pickle.UnpicklingError("a reference to something else than a storage of numbers")

    def _make(self, called: object, arguments: object) -> object:
        match called:
            case _Name(name) | StandIn(name=name):
                pass
            case _:
                raise pickle.UnpicklingError("a call of what cannot be called")
        match name, arguments:
            case "torch._utils._rebuild_tensor" | "torch._utils._rebuild_tensor_v2", (
                Storage() as storage,
                int(offset),
                tuple(shape),
                tuple(strides),
                *rest,
            ):
                if len(shape) != len(strides) or not all(type(number) is int for number in (*shape, *strides)):
                    raise pickle.UnpicklingError("a tensor's shape and strides must be whole numbers")
                turned = any(
                    isinstance(flags, dict) and any(flags.values()) for flags in rest[2:]
                )  # negated, conjugated
                if not turned and _TYPES.get(storage.type, (None, 0))[0] is not None:
                    return StoredTensor(storage, offset, shape, strides)
            case "torch._utils._rebuild_tensor_v3", (_, _, _, _, _, _, _Name(kind), *_):
                return StandIn(f"torch._utils._rebuild_tensor_v3 of {kind}")
            case (
                "torch._utils._rebuild_parameter"
                | "torch._utils._rebuild_parameter_with_state"
                | "torch.nn.parameter.Parameter"
                | "torch.nn.parameter.Buffer",
                (tensor, *_),
            ):
                return tensor
            case "torch._tensor._rebuild_from_type_v2", (inner, _, tuple(inner_arguments), *_):
                return self._make(inner, inner_arguments)
            case "copyreg._reconstructor" | "copy_reg._reconstructor", (_Name(kind), *_):
                return StandIn(kind)
            case "collections.OrderedDict" | "collections.defaultdict" | "collections.Counter", (
                [dict() as items] | [list() as items]
            ):
                return dict(items)
            case "collections.OrderedDict" | "collections.defaultdict" | "collections.Counter", _:
                return {}
        return StandIn(name)

    def load_bytearray8(self) -> None:
        length = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(length)))

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = self._make(self.stack[-1], arguments)

    def load_newobj_ex(self) -> None:
        del self.stack[-1]  # arguments by name
        self.load_reduce()

    def _instantiate(self, called: object, arguments: object) -> None:
        self.append(self._make(called, arguments))

    def load_build(self) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], StandIn):
            self.stack[-1].state = state

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8
    dispatch[pickle.REDUCE[0]] = load_reduce
    dispatch[pickle.NEWOBJ[0]] = load_reduce
    dispatch[pickle.NEWOBJ_EX[0]] = load_newobj_ex
    dispatch[pickle.BUILD[0]] = load_build
