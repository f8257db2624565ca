"""TIDE's errors and the calibration of scores, on a set whose errors can be counted by hand."""

import pytest

from multibox.data.sample import GroundTruth
from multibox.evaluation.tide import KINDS, analyze
from tests.evaluation.test_coco import CLASSES, detections_of


def test_each_kind_of_error_is_counted_and_priced():
    truths = [GroundTruth([[0, 0, 100, 100], [200, 0, 300, 100], [0, 200, 100, 300]], [1, 1, 2])]
    boxes = [[0, 0, 100, 100], [0, 0, 100, 95], [200, 0, 300, 30], [0, 200, 100, 300], [400, 400, 450, 450]]
    found = [detections_of(boxes, [0.95, 0.85, 0.75, 0.65, 0.55], [1, 1, 1, 1, 2])]
    tide, calibration = analyze(truths, found, class_names=CLASSES)
    counts = {
        "wrong class": 1,
        "poor box": 1,
        "wrong class and poor box": 0,
        "duplicate": 1,
        "background": 1,
        "missed": 0,
    }
    assert tide.counts == counts
    assert set(tide.gains) == set(KINDS.values())
    assert tide.gains["wrong class"] == max(tide.gains.values()) > 0.2
    assert tide.ap50 == pytest.approx((51 / 101 + 0) / 2, abs=1e-6)
    assert sum(each.detections for each in calibration.bins) == 5
    best = calibration.bins[9]
    assert (best.low, best.detections, best.precision) == (0.9, 1, 1.0)
    assert best.score == pytest.approx(0.95)
    assert 0 < calibration.error < 1
