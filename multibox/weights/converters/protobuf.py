"""The wire format of Protocol Buffers, read without a compiled schema (protobuf.dev/programming-guides/encoding).

Nothing is allocated for what a file declares: values are views of the bytes that are there.
"""

from collections.abc import Iterator


def fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """The number and the value of each field: numbers of variable length as `int`, anything else as its bytes.

    Raises:
        ValueError: The bytes end within a field, or are not of this format.
    """
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        field, kind = key >> 3, key & 7
        if field == 0 or kind not in (0, 1, 2, 5):
            raise ValueError(f"no Protocol Buffers: field {field} of kind {kind}")
        if kind == 0:
            value, place = _number(message, place)
            yield field, value
            continue
        if kind == 2:
            size, place = _number(message, place)
        else:
            size = {1: 8, 5: 4}[kind]
        if size > len(message) - place:
            raise ValueError(f"field {field} has {size} bytes, but {len(message) - place} are left")
        yield field, message[place : place + size]
        place += size


def numbers(packed: memoryview) -> list[int]:
    """Numbers of variable length, one after the other."""
    found, place = [], 0
    while place < len(packed):
        value, place = _number(packed, place)
        found.append(value)
    return found


def _number(message: memoryview, place: int) -> tuple[int, int]:
    """A number of variable length, seven bits a byte, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place == len(message):
            raise ValueError("it ends within a number")
        value |= (message[place] & 127) << shift
        place += 1
        if message[place - 1] < 128:
            return value, place
    raise ValueError("no Protocol Buffers: a number of more than ten bytes")
