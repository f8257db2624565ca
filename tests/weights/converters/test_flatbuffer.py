"""Our reader of FlatBuffers and FlexBuffers against the ones that Google's package writes."""

import flatbuffers
import numpy as np
import pytest
from flatbuffers import flexbuffers
from hypothesis import given
from hypothesis import strategies as st

from multibox.weights.converters.flatbuffer import Table, flex_numbers


@pytest.fixture(scope="module")
def data() -> bytes:
    """A table of all that is read: field 0 a text, 1 a number, 2 numbers, 3 two tables, 4 left out, 5 a table."""
    builder = flatbuffers.Builder()
    inner = []
    for value in (-7, 300):
        builder.StartObject(1)
        builder.PrependInt32Slot(0, value, 0)
        inner.append(builder.EndObject())
    builder.StartVector(4, 2, 4)
    for place in reversed(inner):
        builder.PrependUOffsetTRelative(place)
    tables = builder.EndVector()
    numbers = builder.CreateNumpyVector(np.array([1.5, -2, 1e30], np.float32))
    text = builder.CreateString("박스")
    builder.StartObject(6)
    builder.PrependUOffsetTRelativeSlot(0, text, 0)
    builder.PrependInt8Slot(1, -3, 0)
    builder.PrependUOffsetTRelativeSlot(2, numbers, 0)
    builder.PrependUOffsetTRelativeSlot(3, tables, 0)
    builder.PrependUOffsetTRelativeSlot(5, inner[1], 0)
    builder.Finish(builder.EndObject())
    return bytes(builder.Output())


def read_all(data: bytes) -> tuple:
    root = Table.root(data)
    inner = root.table(5)
    return (
        root.text(0),
        root.number(1, "i1"),
        root.numbers(2, "<f4").tolist(),
        [table.number(0, "<i4") for table in root.tables(3)],
        inner.number(0, "<i4") if inner else None,
    )


def test_every_kind_of_field_is_read(data: bytes):
    assert read_all(data) == ("박스", -3, [1.5, -2, np.float32(1e30)], [-7, 300], 300)


def test_what_is_left_out_is_nothing(data: bytes):
    root = Table.root(data)
    for field in (4, 6, 1000):
        assert (root.number(field, "<i4"), root.text(field), root.table(field), root.tables(field)) == (0, "", None, [])
        assert root.numbers(field, "<f4").tolist() == []


def test_every_truncated_table_is_refused(data: bytes):
    whole = read_all(data)
    refused = 0
    for length in range(len(data)):
        try:
            assert read_all(data[:length]) == whole  # only padding is gone
        except ValueError as error:
            assert "truncated or damaged" in str(error)
            refused += 1
    assert refused > len(data) - 4


@given(position=st.integers(0), value=st.integers(0, 255))
def test_damage_is_a_value_error_or_another_value(data: bytes, position: int, value: int):
    damaged = bytearray(data)
    damaged[position % len(data)] = value
    try:
        read_all(bytes(damaged))
    except ValueError as error:
        assert "damaged" in str(error)


NUMBERS = st.one_of(
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_nan=False, width=32),
)


@given(st.dictionaries(st.text("abcdefgh_", min_size=1, max_size=20), NUMBERS, max_size=12))
def test_a_map_of_numbers_is_read(values: dict[str, float]):
    found = flex_numbers(bytes(flexbuffers.Dumps(values)))
    assert found.keys() == values.keys()
    for name, value in values.items():
        assert np.float32(found[name]) == value if isinstance(value, float) else found[name] == value


def test_what_is_no_number_is_left_out():
    assert flex_numbers(bytes(flexbuffers.Dumps({"name": "x", "max_detections": 3, "list": [1, 2]}))) == {
        "max_detections": 3
    }


def test_numbers_are_the_shortest_that_mean_the_same():
    written = flexbuffers.Builder()
    with written.Map():
        written.Key("overlap")
        written.Float(0.6, 4)
    assert flex_numbers(bytes(written.Finish())) == {"overlap": 0.6}


@pytest.mark.parametrize("value", [[1, 2], "text", 5])
def test_what_is_no_map_is_refused(value: object):
    with pytest.raises(ValueError, match="not a map"):
        flex_numbers(bytes(flexbuffers.Dumps(value)))


@given(st.binary(max_size=80))
def test_any_bytes_are_a_map_or_a_value_error(data: bytes):
    for start in (data, bytes(flexbuffers.Dumps({"a": 1, "b": 2.5}))):
        for kind in (b"", b"\x26\x01", b"\x24\x01", b"\x27\x08"):
            try:
                flex_numbers(start[: len(data)] + kind)
            except ValueError as error:
                assert "damaged" in str(error) or "not a map" in str(error)
