import pytest

from multibox.config import Selection


@pytest.mark.parametrize(
    "values, message",
    [
        ({"score_threshold": -0.1}, "score_threshold must be from 0 to 1, but is -0.1"),
        ({"score_threshold": 1.5}, "score_threshold must be from 0 to 1, but is 1.5"),
        ({"overlap_threshold": float("nan")}, "overlap_threshold must be from 0 to 1, but is nan"),
        ({"limit": 0}, "limit must be at least 1, but is 0"),
        ({"limit_per_class": -1}, "limit_per_class must be at least 1, but is -1"),
    ],
)
def test_selection_refuses_what_has_no_meaning(values, message):
    with pytest.raises(ValueError, match=message):
        Selection(**values)


def test_selection_refuses_a_suppression_that_does_not_exist():
    selection = Selection()
    object.__setattr__(selection, "suppression", "never")  # past the tests' own type checks
    with pytest.raises(
        ValueError, match=r"suppression must be one of \('by-class', 'across-classes'\), but is 'never'"
    ):
        selection.__post_init__()


def test_selection_takes_the_borders():
    for border in (0, 1):
        assert Selection(score_threshold=border, overlap_threshold=border).score_threshold == border


def test_but_refuses_the_same():
    with pytest.raises(ValueError, match="limit must be at least 1, but is 0"):
        Selection().but(limit=0)


def test_but_changes_what_is_given_and_nothing_else():
    selection = Selection(score_threshold=0.2, overlap_threshold=0.5, limit_per_class=7, limit=9)
    assert selection.but() == selection
    changed = selection.but(score_threshold=0.0, suppression="across-classes", limit=3)
    assert changed == Selection(0.0, 0.5, "across-classes", 7, 3)
    assert selection == Selection(0.2, 0.5, "by-class", 7, 9)
