"""Reads the wire format of Protocol Buffers without a compiled schema (protobuf.dev/programming-guides/encoding).

Values are views of the bytes of the file, so a size that a file claims takes no memory.
"""

from collections.abc import Iterator


def fields(message: memoryview, *, cut: bool = False) -> Iterator[tuple[int, int | memoryview]]:
    """Yields the number and the value of each field: numbers of variable length as `int`, anything else as bytes.

    Args:
        message: The bytes of a message.
        cut: Whether these are only the first bytes of the message. The last field's value may then be incomplete.

    Raises:
        ValueError: The bytes end within a field, or are not in this format.
    """
    place = 0
    while place < len(message):
        key, place = _number(message, place)
        field, kind = key >> 3, key & 7
        if field == 0 or kind not in (0, 1, 2, 5):
            raise ValueError(f"not Protocol Buffers: field {field} has the type {kind}")
        if kind == 0:
            value, place = _number(message, place)
            yield field, value
            continue
        if kind == 2:
            size, place = _number(message, place)
        else:
            size = {1: 8, 5: 4}[kind]
        if size > len(message) - place and not cut:
            raise ValueError(f"field {field} has {size} bytes, but {len(message) - place} are left")
        yield field, message[place : place + size]
        place += size


def numbers(packed: memoryview) -> list[int]:
    """Returns numbers of variable length that follow one another."""
    found, place = [], 0
    while place < len(packed):
        value, place = _number(packed, place)
        found.append(value)
    return found


def _number(message: memoryview, place: int) -> tuple[int, int]:
    """Returns a number of variable length, seven bits a byte, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if place == len(message):
            raise ValueError("the file ends within a number")
        value |= (message[place] & 127) << shift
        place += 1
        if message[place - 1] < 128:
            return value, place
    raise ValueError("not Protocol Buffers: a number of more than ten bytes")
