"""The errors of a detector: their kinds in small scenes, and that their numbers add up."""

import numpy as np
import pytest

from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.errors import (
    NONE,
    above_thresholds,
    count_confusions,
    count_kinds,
    find_errors,
)
from multibox.evaluation.precision_recall import precision_recall
from tests.evaluation.test_precision_recall import CLASS_NAMES, random_image

BEAR, CAT, BIRD = range(3)
HERE, THERE = [0, 0, 40, 40], [100, 100, 140, 140]
SHIFTED = [20, 0, 60, 40]  # an overlap of 1/3 with HERE


def found(*rows: tuple[int, float, list[float]]) -> Detections:
    labels, scores, boxes = zip(*rows, strict=True) if rows else ([], [], [])
    count = len(rows)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
        np.full(count, -1),
        CLASS_NAMES,
    )


def errors_of(truth: GroundTruth, *rows: tuple[int, float, list[float]]):
    errors = find_errors(truth, found(*rows), [0.5, 0.5, 0.5])
    false = [(each.kind, round(each.overlap, 3), each.label) for each in errors.false]
    missed = [(each.kind, round(each.overlap, 3), each.label, each.score) for each in errors.missed]
    return false, missed, sorted(errors.confusions)


@pytest.mark.parametrize(
    ("rows", "false", "missed", "confusions"),
    [
        ([(BEAR, 0.9, HERE)], [], [], [(BEAR, BEAR)]),
        ([], [], [("not found", 0, NONE, None)], [(BEAR, NONE)]),
        ([(CAT, 0.9, HERE)], [("wrong class", 1, BEAR)], [("wrong class", 1, CAT, None)], [(BEAR, CAT)]),
        ([(BEAR, 0.25, HERE)], [], [("low score", 0, NONE, 0.25)], [(BEAR, NONE)]),
        (
            [(BEAR, 0.9, SHIFTED)],
            [("poor box", 0.333, BEAR)],
            [("poor box", 0.333, BEAR, None)],
            [(NONE, BEAR), (BEAR, NONE)],
        ),
        ([(BEAR, 0.9, HERE), (BEAR, 0.75, HERE)], [("duplicate", 1, BEAR)], [], [(NONE, BEAR), (BEAR, BEAR)]),
        ([(BEAR, 0.9, HERE), (CAT, 0.95, HERE)], [("wrong class", 1, BEAR)], [], [(NONE, CAT), (BEAR, BEAR)]),
        ([(BEAR, 0.9, HERE), (BIRD, 0.9, THERE)], [("background", 0, NONE)], [], [(NONE, BIRD), (BEAR, BEAR)]),
        (  # near, but of another class
            [(CAT, 0.9, SHIFTED)],
            [("background", 0.333, BEAR)],
            [("not found", 0.333, CAT, None)],
            [(NONE, CAT), (BEAR, NONE)],
        ),
        (  # the better score takes the object
            [(BIRD, 0.75, HERE), (CAT, 0.9, HERE)],
            [("wrong class", 1, BEAR), ("wrong class", 1, BEAR)],
            [("wrong class", 1, CAT, None)],
            [(NONE, BIRD), (BEAR, CAT)],
        ),
    ],
)
def test_the_kinds_of_errors(rows, false, missed, confusions):
    assert errors_of(GroundTruth([HERE], [BEAR]), *rows) == (false, missed, confusions)


def test_objects_that_do_not_count_are_no_errors():
    truth = GroundTruth([HERE, THERE], [BEAR, CAT], difficult=[True, False], crowd=[False, True])
    assert errors_of(truth, (BEAR, 0.9, HERE), (CAT, 0.9, THERE)) == ([], [], [])
    assert errors_of(truth) == ([], [], [])
    false, _, confusions = errors_of(truth, (BIRD, 0.9, HERE))
    assert (false, confusions) == ([("background", 0, NONE)], [(NONE, BIRD)])


def test_the_numbers_add_up():
    """Diagonal: true positives. Row: objects. Column: detections that count. All else: the lists of errors."""
    random = np.random.default_rng(11)
    images = [random_image(random) for _ in range(60)]
    thresholds = [0.3, 0.4, 0.2]
    errors = [find_errors(truth, each, thresholds) for truth, each in images]
    matrix = count_confusions(errors, 3)
    assert matrix.shape == (4, 4)
    truths, kept = [truth for truth, _ in images], [above_thresholds(each, thresholds) for _, each in images]
    for label, threshold in enumerate(thresholds):
        curve = precision_recall(truths, kept, label=label, thresholds=np.array([threshold]))
        (right,), (wrong,) = curve.true_positives, curve.false_positives
        assert matrix[label, label] == right > 0
        assert matrix[label].sum() == curve.objects
        assert matrix[:, label].sum() == right + wrong
        assert sum(each.label == label for image in errors for each in listed_false(image)) == wrong
    false, missed = count_kinds(errors)
    off_diagonal = matrix[:3, :3].sum() - np.trace(matrix[:3, :3])
    assert false["wrong class"] >= missed["wrong class"] == off_diagonal > 0
    assert sum(false.values()) == matrix[:, :3].sum() - np.trace(matrix[:3, :3])
    assert sum(missed.values()) == matrix[:3].sum() - np.trace(matrix[:3, :3])
    assert min([*false.values(), *missed.values()]) > 0


def listed_false(image):
    return [image.found[each.detection] for each in image.false]
