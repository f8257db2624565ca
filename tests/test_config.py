import pytest

from multibox.config import Postprocess


@pytest.mark.parametrize(
    "values, message",
    [
        ({"score_threshold": -0.1}, "score_threshold must be from 0 to 1, but is -0.1"),
        ({"score_threshold": 1.5}, "score_threshold must be from 0 to 1, but is 1.5"),
        ({"iou_threshold": float("nan")}, "iou_threshold must be from 0 to 1, but is nan"),
        ({"max_detections": 0}, "max_detections must be at least 1, but is 0"),
        ({"max_candidates_per_class": -1}, "max_candidates_per_class must be at least 1, but is -1"),
    ],
)
def test_postprocess_refuses_what_has_no_meaning(values, message):
    with pytest.raises(ValueError, match=message):
        Postprocess(**values)


def test_postprocess_takes_the_borders():
    for border in (0, 1):
        assert Postprocess(score_threshold=border, iou_threshold=border).score_threshold == border


def test_override_refuses_the_same():
    with pytest.raises(ValueError, match="max_detections must be at least 1, but is 0"):
        Postprocess().override(max_detections=0)


def test_override_changes_what_is_given_and_nothing_else():
    settings = Postprocess(score_threshold=0.2, iou_threshold=0.5, max_candidates_per_class=7, max_detections=9)
    assert settings.override() == settings
    changed = settings.override(score_threshold=0.0, class_agnostic=True, max_detections=3)
    assert changed == Postprocess(0.0, 0.5, True, 7, 3)
    assert settings == Postprocess(0.2, 0.5, False, 7, 9)
