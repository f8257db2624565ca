"""How messages show values: short, on one line, and without control characters."""

import pytest

from multibox.messages import counted, duration, list_names, percent, quoted, shortened


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("cat", "'cat'"),
        (7, "7"),
        (-(10**39), f"-1{'0' * 16}...{'0' * 18}"),
        (10**4000, "a number of over 3,000 digits"),
        (None, "None"),
        ([1, [2, [3, [4]]]], "[1, [2, [...]]]"),
        (list(range(9)), "[0, 1, 2, 3, 4, 5, ...]"),
        ("a\x1b[31m", r"'a\x1b[31m'"),
    ],
    ids=range(8),
)
def test_values_in_messages(value: object, shown: str):
    assert quoted(value) == shown


def test_long_texts_in_messages_keep_both_ends():
    assert len(quoted("x" * 10**6)) == 60
    assert shortened("abc" * 100) == "abc" * 100
    assert shortened("abc" * 101) == f"{('abc' * 101)[:148]}...{('abc' * 101)[-148:]}"
    assert shortened("0123456789", 8) == "01...89"
    assert shortened(ValueError("no such layer")) == "no such layer"
    assert shortened("a\nb\tc\x07") == "a?b?c?"


def test_counts_of_things():
    assert [counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert [counted(number, "class") for number in (1, 2)] == ["1 class", "2 classes"]
    assert list_names(["a", "b"]) == "'a', 'b'"
    assert list_names([str(number) for number in range(32)], most=2) == "'0', '1' and 30 more"


def test_durations():
    assert [duration(seconds) for seconds in (0, 59, 61, 3600, 360_000)] == [
        "0:00",
        "0:59",
        "1:01",
        "1:00:00",
        "100:00:00",
    ]


def test_percent():
    assert [percent(value) for value in (None, 0.0, 0.12345, 1.0)] == ["-", "0.0", "12.3", "100.0"]
