"""The mechanism that checks values: what it takes, what it refuses, and in which words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from msgspec import Meta

from multibox.checks import Count, Fraction, NotNegative, Positive, check_fields, checked, checked_values

NAN, INFINITE = float("nan"), float("inf")


@dataclass(frozen=True)
class Point:
    x: Positive

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, 1.0),
        (np.float32(0.5), Fraction, 0.5),
        (np.int64(3), Count, 3),
        (np.bool_(True), bool, True),
        (0, Fraction, 0.0),
        (1.0, Fraction, 1.0),
        (None, Positive | None, None),
        ([1, 2], tuple[float, float], (1.0, 2.0)),
        (np.array([1.0, 2.0]), tuple[float, ...], (1.0, 2.0)),
        ([0.5], Sequence[float], (0.5,)),
        ([[1, 2], [3, 4]], tuple[tuple[Positive, Positive], ...], ((1.0, 2.0), (3.0, 4.0))),
        ("same", int | Literal["same"], "same"),
        ({"a": 2, "b": np.float32(0.5)}, Literal["same"] | Mapping[str, Positive] | None, {"a": 2.0, "b": 0.5}),
        ([Point(1.0)], tuple[Point, ...], (Point(1.0),)),
    ],
)
def test_a_value_that_fits_has_the_type_of_the_annotation(value: Any, hint: Any, expected: Any):
    found = checked("field", value, hint)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (NAN, Fraction, "field must be from 0 to 1, but is nan"),
        (1.5, Fraction, "field must be from 0 to 1, but is 1.5"),
        ("a", Fraction, "field must be a number, but is 'a'"),
        (None, Fraction, "field must be a number, but is None"),
        (0, Positive, "field must be above 0, but is 0"),
        (NAN, Positive, "field must be above 0, but is nan"),
        (INFINITE, Positive, "field must be above 0 and finite, but is inf"),
        (INFINITE, NotNegative | None, "field must be 0 or more and finite, but is inf"),
        (True, Count, "field must be a whole number, but is True"),
        (2.0, Count, "field must be a whole number, but is 2.0"),
        (1, bool, "field must be true or false, but is 1"),
        (3, str, "field must be a text, but is 3"),
        ("c", Literal["a", "b"], "field must be one of a, b, but is 'c'"),
        (["c"], Sequence[Literal["a", "b"]], "field must be one of a, b, but is 'c'"),
        ("a", Sequence[str], "field must be a list of texts, but is 'a'"),
        ([1, "late"], Sequence[float], "field must be a list of numbers, but is [1, 'late']"),
        ((1, 2, 3), tuple[float, float], "field must be 2 numbers, but is [1, 2, 3]"),
        ([(1, 2), (3, -4)], tuple[tuple[Positive, Positive], ...], "field must be above 0, but is -4"),
        ([3], tuple[Point, ...], "field must be a list of Point rows, but is [3]"),
        ("valid", Count | Literal["same"], "field must be at least 1 or 'same', but is 'valid'"),
        (
            {"a": 2, "b": 0},
            Mapping[str, Positive],
            "field must be a mapping of names to numbers above 0, but is {'b': 0}",
        ),
        ({"a": INFINITE}, Literal["same"] | Mapping[str, Positive], "numbers above 0 and finite, but is {'a': inf}"),
        ({"a": "x"}, Mapping[str, Count], "a mapping of names to whole numbers at least 1, but is {'a': 'x'}"),
        ({1: 2.0}, Mapping[str, Positive], "field must be a mapping of names to numbers above 0, but is {1: 2.0}"),
        (3, Literal["same"] | Mapping[str, Positive], "'same' or a mapping of names to numbers above 0, but is 3"),
        ((), Annotated[tuple[float, ...], Meta(min_length=1, description="at least one")], "must be at least one"),
        ("x" * 10**6, float, f"field must be a number, but is '{'x' * 27}...{'x' * 28}'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_words(value: Any, hint: Any, message: str):
    with pytest.raises(ValueError) as refused:
        checked("field", value, hint)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("value", "hint", "words"),
    [
        (1, float, "a number"),
        (1, Count, r"at most 10\*\*18"),
        (-1, Count, "at least 1"),
        (1, Annotated[int, Meta(le=9, description="at most 9")], "at most 9"),
    ],
)
def test_a_number_too_long_to_be_written_is_refused_in_words(value: int, hint: Any, words: str):
    with pytest.raises(ValueError, match=f"field must be {words}, but is a number of over 3,000 digits"):
        checked("field", value * 10**5000, hint)


def test_values_of_a_file_may_be_written_as_text():
    hints = {"rate": Positive | None, "steps": Count, "parts": Sequence[float], "compile": bool, "size": str}
    values = {"rate": "1e-3", "steps": 1e4, "parts": [1, 2], "compile": None, "size": 300}
    found = checked_values(values, hints, owner="a run")
    assert found == {"rate": 1e-3, "steps": 10_000, "parts": (1.0, 2.0), "size": "300"}
    with pytest.raises(ValueError, match="size must be a text, but is False"):
        checked_values({"size": False}, hints, owner="a run")
    for wrong in (1, "true"):
        with pytest.raises(ValueError, match="compile must be true or false"):
            checked_values({"compile": wrong}, hints, owner="a run")
    weights = {"weights": Literal["same"] | Mapping[str, Positive]}
    assert checked_values({"weights": {1: 2, "a": 3}}, weights, owner="a run") == {"weights": {"1": 2.0, "a": 3.0}}
    with pytest.raises(ValueError, match=r"names to numbers above 0, but is {False: 2}"):  # YAML's no
        checked_values({"weights": {False: 2}}, weights, owner="a run")
    with pytest.raises(ValueError, match="a run has no value 'stepps'; did you mean 'steps'"):
        checked_values({"stepps": 3}, hints, owner="a run")
    with pytest.raises(ValueError, match="size must be a text, but is a number of over 3,000 digits"):
        checked_values({"size": 10**5000}, hints, owner="a run")
    with pytest.raises(ValueError, match="a run has no value a number of over 3,000 digits"):
        checked_values({10**5000: 3}, hints, owner="a run")
    with pytest.raises(ValueError, match="there are rate, steps, parts, compile, size"):
        checked_values({7: 3}, hints, owner="a run")


def test_a_config_is_checked_when_it_is_made():
    assert Point(np.float32(2.0)).x == 2.0  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x must be above 0, but is 0"):
        Point(0.0)
