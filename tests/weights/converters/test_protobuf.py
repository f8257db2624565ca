"""The wire format of Protocol Buffers: the examples of its documentation, and what is cut off or no such thing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multibox.weights.converters.protobuf import fields, numbers


def read(data: bytes) -> list[tuple[int, int | bytes]]:
    return [(field, value if isinstance(value, int) else bytes(value)) for field, value in fields(memoryview(data))]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\x08\x96\x01", [(1, 150)]),
        (b"\x12\x07testing", [(2, b"testing")]),
        (b"\x1a\x03\x08\x96\x01", [(3, b"\x08\x96\x01")]),
        (b"\x08" + b"\xfe" + b"\xff" * 8 + b"\x01", [(1, 2**64 - 2)]),  # -2
        (b"\x0d\0\0\0\x40\x11\0\0\0\0\0\0\0\x40", [(1, b"\0\0\0\x40"), (2, b"\0\0\0\0\0\0\0\x40")]),
        (b"\xa2\x06\x01x", [(100, b"x")]),
    ],
)
def test_examples(data: bytes, expected: list[tuple[int, int | bytes]]):
    """protobuf.dev/programming-guides/encoding"""
    assert read(data) == expected


def test_packed_numbers():
    assert numbers(memoryview(b"\x03\x8e\x02\x9e\xa7\x05")) == [3, 270, 86942]
    assert numbers(memoryview(b"")) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x08", "ends within a number"),
        (b"\x08\x96", "ends within a number"),
        (b"\x12\x08testing", "field 2 has 8 bytes, but 7 are left"),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "field 2 has 9223372036854775807 bytes, but 0 are left"),
        (b"\x0d\0\0\0", "field 1 has 4 bytes, but 3 are left"),
        (b"\x0b", "field 1 has the type 3"),
        (b"\x00\x00", "field 0 has the type 0"),
        (b"\x08" + b"\xff" * 10 + b"\x01", "more than ten bytes"),
    ],
)
def test_what_is_no_such_message_is_refused(data: bytes, message: str):
    with pytest.raises(ValueError, match=message):
        read(data)


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(data: bytes):
    try:
        read(data)
    except ValueError as error:
        assert "\n" not in str(error)
