"""COCO's numbers against those of pycocotools on random sets."""

import contextlib
import io
import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.evaluate import score

CLASSES = ("nothing", "car", "bus", "only found", "only crowds")
# in the order of `stats`
TWELVE = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
TWELVE += ["ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"]


def detections_of(boxes, scores, labels) -> Detections:
    return Detections(
        np.asarray(boxes, dtype=np.float32).reshape(-1, 4),
        np.asarray(scores, dtype=np.float32),
        np.asarray(labels, dtype=np.int64),
        np.full(len(labels), -1),
        CLASSES,
    )


def random_set(seed: int, images: int = 8):
    """Objects of all sizes, crowds, ties, images without objects or detections, one with more than 100 detections."""
    random = np.random.default_rng(seed)
    truths, detections = [], []
    for image in range(images):
        count = random.integers(0, 7) if image else 0
        low, size = random.uniform(0, 300, (count, 2)), np.exp(random.uniform(1, 5.5, (count, 2)))
        boxes = np.concatenate([low, low + size], axis=1)
        labels = random.choice([1, 2, 4], count)
        crowd = (labels == 4) | (random.random(count) < 0.15)
        areas = size.prod(axis=1) * random.uniform(0.4, 1, count)
        truths.append(GroundTruth(boxes, labels, crowd=crowd, areas=areas))

        copies = random.integers(0, count, 130 if image == 1 else 12) if count else np.zeros(0, dtype=int)
        near = boxes[copies] + random.normal(0, 0.08, (len(copies), 4)) * np.tile(size[copies], 2)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        stray = random.uniform(0, 100, (random.integers(image == 0, 4), 4)) + np.array([0, 0, 100, 100])
        given = np.concatenate([labels[copies], random.integers(1, 5, len(stray))])
        values = random.integers(1, 40, len(given)) / 40
        detections.append(detections_of(np.concatenate([near, stray]), values, given))
    return truths, detections


def pycocotools_says(truths, detections):
    """Its evaluation, with numbers of images and categories that have gaps."""

    def rows(image, boxes, labels):
        for (x_min, y_min, x_max, y_max), label in zip(boxes.astype(float).tolist(), labels.tolist(), strict=True):
            box = [x_min, y_min, x_max - x_min, y_max - y_min]
            yield {"image_id": 100 + 7 * image, "category_id": 5 + 3 * label, "bbox": box}

    annotations = []
    for image, truth in enumerate(truths):
        for row, area, crowd in zip(rows(image, truth.boxes, truth.labels), truth.areas, truth.crowd, strict=True):
            annotations.append({**row, "id": len(annotations) + 1, "area": float(area), "iscrowd": int(crowd)})
    results = [
        {**row, "score": float(value)}
        for image, found in enumerate(detections)
        for row, value in zip(rows(image, found.boxes, found.labels), found.scores, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {
            "info": {},
            "images": [{"id": 100 + 7 * image} for image in range(len(truths))],
            "categories": [{"id": 5 + 3 * label, "name": name} for label, name in enumerate(CLASSES)],
            "annotations": annotations,
        }
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def or_none(value: float) -> float | None:
    return None if value == -1 else value


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_equals_pycocotools(seed: int) -> None:
    truths, detections = random_set(seed)
    metrics = score(truths, detections, class_names=CLASSES, rule="coco")
    expected = pycocotools_says(truths, detections)
    for name, value in zip(TWELVE, expected.stats.tolist(), strict=True):
        assert getattr(metrics, name) == pytest.approx(or_none(value), abs=1e-12), name

    precision = expected.eval["precision"]
    for label, name in enumerate(CLASSES):
        own = precision[:, :, label, 0, 2]
        assert metrics.per_class[name]["ap"] == pytest.approx(or_none(own.mean()), abs=1e-12)
        assert metrics.per_class[name]["ap50"] == pytest.approx(or_none(own[0].mean()), abs=1e-12)


def test_counts_are_of_what_counts() -> None:
    truths, detections = random_set(0)
    metrics = score(truths, detections, class_names=CLASSES, rule="coco")
    assert (metrics.rule, metrics.pixels, metrics.images) == ("coco", "continuous", 8)
    assert metrics.objects == sum(int((~truth.crowd).sum()) for truth in truths)
    assert sum(values["objects"] for values in metrics.per_class.values()) == metrics.objects
    assert sum(values["detections"] for values in metrics.per_class.values()) == sum(map(len, detections))
    assert metrics.per_class["only crowds"]["ap"] is None


def test_difficult_objects_count_like_any_other() -> None:
    truths, detections = random_set(1)
    marked = [
        GroundTruth(each.boxes, each.labels, crowd=each.crowd, areas=each.areas, difficult=each.labels > 0)
        for each in truths
    ]
    assert score(marked, detections, class_names=CLASSES, rule="coco") == score(
        truths, detections, class_names=CLASSES, rule="coco"
    )


def test_the_area_and_not_the_box_makes_an_object_small() -> None:
    box = [0, 0, 100, 100]
    thin = GroundTruth([box], [1], areas=[500])
    metrics = score([thin], [detections_of([box], [0.9], [1])], class_names=CLASSES, rule="coco")
    assert (metrics.ap_small, metrics.ap_medium, metrics.ap_large) == (pytest.approx(1), None, None)


def test_nothing_detected_is_zero_and_prints_nothing(capfd) -> None:
    truths = [GroundTruth([[0, 0, 10, 10]], [1]), GroundTruth([], [])]
    metrics = score(truths, [detections_of([], [], [])] * 2, class_names=CLASSES, rule="coco")
    assert (metrics.ap, metrics.ap50, metrics.ap75, metrics.ar100) == (0, 0, 0, 0)
    assert metrics.ap_large is None  # there is no large object
    assert metrics.per_class["car"] == {
        **{"ap": 0, "ap50": 0, "objects": 1, "detections": 0},
        **{"score_threshold": None, "precision": None, "recall": 0, "f1": 0},
        **{"true_positives": 0, "false_positives": 0},
    }
    assert capfd.readouterr() == ("", "")


def test_no_objects_at_all_is_null_in_json() -> None:
    found = detections_of([[0, 0, 10, 10]], [0.9], [1])
    for detections in (found, detections_of([], [], [])):
        metrics = score([GroundTruth([], [])], [detections], class_names=CLASSES, rule="coco")
        assert all(getattr(metrics, name) is None for name in TWELVE)
        written = json.loads(metrics.to_json())
        assert written["ap"] is None and written["per_class"]["car"]["ap"] is None


def test_inclusive_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="no last pixel to include"):
        score([GroundTruth([], [])], [detections_of([], [], [])], class_names=CLASSES, rule="coco", pixels="inclusive")


def test_without_hotcoco_the_error_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "hotcoco", None)
    truths, detections = random_set(0)
    assert score(truths, detections, class_names=CLASSES, rule="voc2010").ap is not None
    with pytest.raises(ImportError, match=r"pip install 'multibox\[train\]'"):
        score(truths, detections, class_names=CLASSES, rule="coco")
