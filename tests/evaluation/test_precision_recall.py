"""What is right among detections, against slow loops over the thresholds."""

from dataclasses import replace

import numpy as np
import pytest

from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.evaluate import score
from multibox.evaluation.precision_recall import (
    FP,
    IGNORED,
    TP,
    image_quality,
    match_detections,
    missed_objects,
    precision_recall,
)
from multibox.evaluation.voc import score_voc

CLASS_NAMES = ("bear", "곰", "bird")


def detections(boxes, scores, labels):
    order = np.argsort(-np.asarray(scores, np.float32), kind="stable")
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)[order]
    labels = np.asarray(labels, np.int64)[order]
    return Detections(boxes, np.asarray(scores, np.float32)[order], labels, np.full(len(order), -1), CLASS_NAMES)


def random_image(random):
    count = random.integers(0, 6)
    low = random.uniform(0, 60, (count, 2))
    marks = random.random((2, count)) < 0.15
    boxes = np.concatenate([low, low + random.uniform(10, 40, (count, 2))], axis=1)
    truth = GroundTruth(boxes, random.integers(0, 3, count), difficult=marks[0], crowd=marks[1])
    near = truth.boxes[random.integers(0, count, 8)] + random.normal(0, 4, (8, 4)) if count else np.empty((0, 4))
    far = np.tile([50.0, 50, 70, 70], (3, 1)) + random.normal(0, 9, (3, 4))
    found = np.concatenate([near, far])
    scores = random.integers(1, 100, len(found)) / 100 - 0.005  # never at a threshold
    return truth, detections(found, scores, random.integers(0, 3, len(found)))


def overlap(one, other):
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    first, second = ((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (first + second - width * height)


def count_slowly(truth, found, threshold, label):
    """Hits, false detections, objects and summed overlap of the hits, in loops as VOC's devkit has them."""
    taken, hits, false, overlaps = set(), 0, 0, 0.0
    for each in found:
        if each.score <= threshold:
            continue
        best, best_overlap = None, 0.0
        for number, (box, other) in enumerate(zip(truth.boxes, truth.labels, strict=True)):
            if other == each.label and overlap(each.box, box) > best_overlap:
                best, best_overlap = number, overlap(each.box, box)
        ignored = best is not None and (truth.difficult[best] or truth.crowd[best]) and best_overlap >= 0.5
        if ignored or label not in (None, each.label):
            continue
        if best is not None and best_overlap >= 0.5 and best not in taken:
            taken.add(best)
            hits += 1
            overlaps += best_overlap
        else:
            false += 1
    counted = [not (d or c) for d, c in zip(truth.difficult, truth.crowd, strict=True)]
    objects = sum(counts and label in (None, other) for counts, other in zip(counted, truth.labels, strict=True))
    return hits, false, objects, overlaps


@pytest.mark.parametrize("label", [None, 0, 2])
def test_counts_are_those_of_slow_loops(label):
    random = np.random.default_rng(7)
    images = [random_image(random) for _ in range(40)]
    truths, found = zip(*images, strict=True)
    thresholds = np.linspace(0, 1, 21)
    counts = precision_recall(truths, found, label=label, thresholds=thresholds)
    for place, threshold in enumerate(thresholds):
        slow = np.sum([count_slowly(*image, threshold, label)[:3] for image in images], axis=0)
        assert (counts.true_positives[place], counts.false_positives[place], counts.objects) == tuple(slow)
        if slow[0]:
            precision, recall = slow[0] / (slow[0] + slow[1]), slow[0] / slow[2]
            assert counts.precision[place] == pytest.approx(precision)
            assert counts.recall[place] == pytest.approx(recall)
            assert counts.f1[place] == pytest.approx(2 / (1 / precision + 1 / recall))
    assert counts.true_positives[0] > 5 and counts.false_positives[0] > 5  # or nothing was compared


def test_the_quality_of_an_image_is_that_of_slow_loops():
    random = np.random.default_rng(8)
    seen = set()
    for truth, found in (random_image(random) for _ in range(60)):
        found = found[found.scores > 0.3]
        hits, false, objects, overlaps = count_slowly(truth, found, 0, None)
        quality = image_quality(truth, found)
        assert quality[1:] == (hits, quality.false_negatives, false)
        assert quality.false_negatives == np.count_nonzero(missed_objects(truth, found)) == objects - hits
        if hits:
            f1 = 2 * hits / (2 * hits + false + objects - hits)
            assert quality.quality == pytest.approx(f1 * overlaps / hits, abs=1e-6)
        elif false + objects:
            assert quality.quality == 0
        seen.add(hits)
    assert len(seen) > 2


def test_the_last_threshold_reaches_the_recall_that_voc_counts():
    random = np.random.default_rng(9)
    truths, found = zip(*(random_image(random) for _ in range(30)), strict=True)
    found = [replace(each, scores=np.sort(random.random(len(each)))[::-1]) for each in found]  # no two the same
    metrics = score_voc(truths, found, class_names=CLASS_NAMES, rule="voc2010", pixels="continuous")
    for label, name in enumerate(CLASS_NAMES):
        thresholds = np.sort(np.concatenate([[0], *(each.scores for each in found)]))
        counts = precision_recall(truths, found, label=label, thresholds=thresholds)
        assert counts.objects == metrics.per_class[name]["objects"]
        # area under the curve of all scores, the best precision from a recall on
        recall, precision = counts.recall[::-1], np.maximum.accumulate(counts.precision)[::-1]
        assert np.sum(np.diff(recall, prepend=0) * precision) == pytest.approx(metrics.per_class[name]["ap"], abs=1e-6)


def test_nothing_at_all():
    empty = GroundTruth([], [])
    nothing = detections([], [], [])
    counts = precision_recall([], [])
    assert (counts.objects, counts.best_threshold) == (0, 0.5)
    assert counts.true_positives.sum() == counts.false_positives.sum() == counts.recall.sum() == counts.f1.sum() == 0
    assert (counts.precision == 1).all()
    assert image_quality(empty, nothing) == (1.0, 0, 0, 0)
    assert len(match_detections(empty, nothing)) == 0


def test_the_first_of_two_detections_of_an_object_is_the_hit():
    truth = GroundTruth([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], [0, 0, 1], difficult=[False, True, False])
    boxes = [[0, 0, 10, 9], [0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]]
    found = detections(boxes, [0.9, 0.8, 0.7, 0.6], [0, 0, 0, 0])
    assert match_detections(truth, found).tolist() == [TP, FP, IGNORED, FP]
    assert missed_objects(truth, found).tolist() == [False, False, True]


def test_the_best_threshold_is_in_the_middle_of_the_best():
    truth = GroundTruth([[0, 0, 10, 10]], [0])
    found = detections([[0, 0, 10, 10], [30, 30, 40, 40]], [0.8, 0.2], [0, 0])
    assert precision_recall([truth], [found]).best_threshold == pytest.approx(0.49, abs=0.011)


@pytest.mark.parametrize("rule", ["voc2007", "coco"])
def test_a_score_has_the_numbers_at_the_threshold_with_the_best_f1(rule):
    """Against slow loops over all thresholds. COCO has no difficult objects: they count like any other."""
    random = np.random.default_rng(3)
    images = [random_image(random) for _ in range(12)]
    truths, found = map(list, zip(*images, strict=True))
    metrics = score(truths, found, class_names=CLASS_NAMES, rule=rule)
    if rule == "coco":
        truths = [GroundTruth(each.boxes, each.labels, crowd=each.crowd) for each in truths]
    for label, row in [(None, vars(metrics)), *enumerate(metrics.per_class.values())]:
        best = 0.0
        for threshold in range(101):
            counts = [count_slowly(*image, threshold / 100, label) for image in zip(truths, found, strict=True)]
            hits, false, objects = (sum(each[place] for each in counts) for place in range(3))
            best = max(best, 2 * hits / max(2 * hits + false + objects - hits, 1))
            if threshold / 100 == row["score_threshold"]:
                assert (row["true_positives"], row["false_positives"]) == (hits, false)
                assert row["precision"] == pytest.approx(hits / (hits + false))
                assert row["recall"] == pytest.approx(hits / objects)
        assert 0 < row["f1"] == pytest.approx(best)


def test_no_threshold_below_that_of_the_detector_is_best():
    truth = GroundTruth([[0, 0, 10, 10]], [0])
    found = detections([[0, 0, 10, 10]], [0.9], [0])
    for lowest, best in ((0.0, 0.44), (0.5, 0.69), (0.885, 0.89), (0.895, None)):
        metrics = score([truth], [found], class_names=CLASS_NAMES, rule="voc2010", score_threshold=lowest)
        assert metrics.score_threshold == best


def test_a_class_that_is_never_found_has_no_threshold_and_no_precision():
    truth = GroundTruth([[0, 0, 10, 10]], [0])
    found = detections([[50, 50, 60, 60]] * 2, [0.9, 0.8], [0, 1])
    metrics = score([truth], [found], class_names=CLASS_NAMES, rule="voc2010")
    nothing = {"score_threshold": None, "precision": None, "true_positives": 0, "false_positives": 0}
    for row, rate in ((metrics.per_class["bear"], 0.0), (metrics.per_class["곰"], None), (vars(metrics), 0.0)):
        assert {name: row[name] for name in (*nothing, "recall", "f1")} == nothing | {"recall": rate, "f1": rate}
