"""Reads FlatBuffers and FlexBuffers, the two data formats in a TFLite file. Every position is checked before reading.

Both are described in "FlatBuffers Internals" and "FlexBuffers" (google/flatbuffers, Apache-2.0).
"""

import numpy as np
from jaxtyping import Shaped


class Table:
    """A table of FlatBuffers: fields by their number in the schema. A field that is left out is 0, empty or `None`.

    Every method raises a ValueError if the file points beyond its end.
    """

    def __init__(self, data: bytes, place: int) -> None:
        self._data, self._place = data, place
        fields = place - _number(data, "<i4", place)
        self._fields = _numbers(data, "<u2", fields + 4, max(_number(data, "<u2", fields) - 4, 0) // 2)

    @classmethod
    def root(cls, data: bytes) -> "Table":
        """Returns the table at the beginning of the file."""
        return cls(data, _number(data, "<u4", 0))

    def number(self, field: int, kind: str) -> int:
        """Returns a whole number, stored as NumPy's type `kind` (`<i4`)."""
        place = self._find(field)
        return 0 if place is None else _number(self._data, kind, place)

    def numbers(self, field: int, kind: str) -> Shaped[np.ndarray, " numbers"]:
        """Returns a vector of numbers, stored as NumPy's type `kind`."""
        place, count = self._vector(field)
        return _numbers(self._data, kind, place, count)

    def text(self, field: int) -> str:
        return self.numbers(field, "u1").tobytes().decode(errors="replace")

    def table(self, field: int) -> "Table | None":
        place = self._find(field)
        return None if place is None else Table(self._data, _follow(self._data, place))

    def tables(self, field: int) -> list["Table"]:
        """Returns a vector of tables."""
        place, count = self._vector(field)
        offsets = _numbers(self._data, "<u4", place, count).tolist()
        return [Table(self._data, place + 4 * number + offset) for number, offset in enumerate(offsets)]

    def _find(self, field: int) -> int | None:
        offset = int(self._fields[field]) if field < len(self._fields) else 0
        return self._place + offset if offset else None

    def _vector(self, field: int) -> tuple[int, int]:
        """Returns the position of a vector's first item, and the number of items."""
        place = self._find(field)
        if place is None:
            return 0, 0
        vector = _follow(self._data, place)
        return vector + 4, _number(self._data, "<u4", vector)


_FLEX_MAP = 9
_FLEX_KINDS = {1: "i", 2: "u", 3: "f", 26: "u"}
"""NumPy's kinds of the types whose values stand in a map itself: int, uint, float, bool."""

_FLEX_NAME = 64
"""Most bytes of a name."""


def flex_numbers(data: bytes) -> dict[str, float]:
    """Returns the numbers of a FlexBuffer's map by name. Values of other types are left out.

    Raises:
        ValueError: The FlexBuffer is not a map, or points beyond its end.
    """
    root_type, root_width = _numbers(data, "u1", len(data) - 2, 2).tolist()
    if root_type >> 2 != _FLEX_MAP:
        raise ValueError(f"its options are not a map, but of FlexBuffers' type {root_type >> 2}")
    root = len(data) - 2 - root_width
    width = 1 << (root_type & 3)
    values = root - _number(
        data, f"<u{root_width}", root
    )  # offset and width of the keys and the count stand before them
    count, keys_width = (_number(data, f"<u{width}", values - back * width) for back in (1, 2))
    keys = values - 3 * width - _number(data, f"<u{width}", values - 3 * width)
    types = _numbers(data, "u1", values + count * width, count).tolist()
    found = {}
    for number, kind in enumerate(types):
        if kind >> 2 in _FLEX_KINDS:
            place = keys + number * keys_width
            name = place - _number(data, f"<u{keys_width}", place)
            text = data[max(name, 0) : max(name, 0) + _FLEX_NAME].partition(b"\0")[0].decode(errors="replace")
            value = _numbers(data, f"<{_FLEX_KINDS[kind >> 2]}{width}", values + number * width, 1)[0]
            found[text] = float(str(value))  # 0.6, and not 0.6000000238
    return found


def _follow(data: bytes, place: int) -> int:
    """Returns the position that the offset at `place` points to."""
    return place + _number(data, "<u4", place)


def _number(data: bytes, kind: str, place: int) -> int:
    return int(_numbers(data, kind, place, 1)[0])


def _numbers(data: bytes, kind: str, place: int, count: int) -> Shaped[np.ndarray, " numbers"]:
    try:
        numbers = np.dtype(kind)
    except TypeError as error:
        raise ValueError(f"damaged: it holds numbers of the width '{kind}'") from error
    end = place + count * numbers.itemsize
    if place < 0 or end > len(data):
        raise ValueError(f"truncated or damaged: it has {len(data)} bytes and points to {place if place < 0 else end}")
    return np.frombuffer(data, numbers, count, place)
