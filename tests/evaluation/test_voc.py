"""VOC's average precision against the devkit's procedure as slow loops, and against numbers worked out by hand."""

import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.evaluate import score
from multibox.evaluation.metrics import Metrics
from multibox.evaluation.voc import area_ap, eleven_point_ap

CLASSES = ("cat", "dog", "bird")
WHOLE = (0, 0, 10, 10)
ELSEWHERE = (50, 50, 60, 60)


def truth(*objects, difficult=None, crowd=None) -> GroundTruth:
    """Objects as (label, box)."""
    return GroundTruth([box for _, box in objects], [label for label, _ in objects], difficult=difficult, crowd=crowd)


def found(*rows) -> Detections:
    """Detections as (label, score, box), in the order that is given."""
    return Detections(
        np.array([box for *_, box in rows], dtype=np.float32).reshape(-1, 4),
        np.array([value for _, value, _ in rows], dtype=np.float32),
        np.array([label for label, *_ in rows], dtype=np.int64),
        np.full(len(rows), -1),
        CLASSES,
    )


def score_cats(truths, detections, *, rule="voc2010", pixels=None) -> Metrics:
    return score(truths, detections, class_names=CLASSES, rule=rule, pixels=pixels)


def hits(*values: int) -> np.ndarray:
    return np.array(values, dtype=bool)


# --- the two rules, by hand


def test_half_of_the_recall_at_full_precision_and_half_at_two_thirds() -> None:
    # precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1: six of eleven points have 1, five have 2/3
    assert eleven_point_ap(hits(1, 0, 1), 2) == pytest.approx((6 + 5 * 2 / 3) / 11)
    assert area_ap(hits(1, 0, 1), 2) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_later_better_precision_counts_for_lower_recall_too() -> None:
    # precision 0, 1/2, 2/3 at recall 0, 1/2, 1: the envelope is 2/3 throughout
    assert eleven_point_ap(hits(0, 1, 1), 2) == pytest.approx(2 / 3)
    assert area_ap(hits(0, 1, 1), 2) == pytest.approx(2 / 3)


@pytest.mark.parametrize("tenths", range(11))
def test_recall_of_exactly_so_many_tenths_reaches_that_point(tenths: int) -> None:
    assert eleven_point_ap(np.ones(tenths, dtype=bool), 10) == pytest.approx((tenths + 1) / 11 if tenths else 0)


@pytest.mark.parametrize("average_precision", [eleven_point_ap, area_ap])
def test_nothing_found_is_zero(average_precision) -> None:
    assert average_precision(hits(), 3) == 0
    assert average_precision(hits(0, 0), 3) == 0


# --- what is a hit


def test_overlap_of_exactly_one_half_is_a_hit() -> None:
    objects = [truth((0, WHOLE))]
    assert score_cats(objects, [found((0, 0.9, (0, 0, 10, 5)))], pixels="continuous").ap == 1
    assert score_cats(objects, [found((0, 0.9, (0, 0, 10, 4.99)))], pixels="continuous").ap == 0
    assert score_cats([truth((0, (0, 0, 9, 9)))], [found((0, 0.9, (0, 0, 9, 4)))]).ap == 1  # 50 of 100 pixels


def test_last_pixel_is_included_unless_continuous_is_asked_for() -> None:
    objects, near = [truth((0, WHOLE))], [found((0, 0.9, (0, 0, 10, 4.8)))]
    assert score_cats(objects, near).ap == 1  # 11 * 5.8 / 121 = 0.527
    assert score_cats(objects, near).pixels == "inclusive"
    assert score_cats(objects, near, pixels="continuous").ap == 0  # 0.48
    assert score_cats(objects, near, pixels="continuous").pixels == "continuous"


def test_second_detection_of_an_object_is_false() -> None:
    rows = found((0, 0.9, WHOLE), (0, 0.8, WHOLE), (0, 0.7, ELSEWHERE))
    metrics = score_cats([truth((0, WHOLE), (0, ELSEWHERE))], [rows])
    assert metrics.ap == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_the_higher_score_finds_the_object_even_if_it_fits_worse() -> None:
    rows = found((0, 0.8, WHOLE), (0, 0.9, (0, 0, 10, 7)))
    assert score_cats([truth((0, WHOLE), (0, ELSEWHERE))], [rows]).ap == 0.5


def test_of_equal_scores_the_earlier_comes_first() -> None:
    objects = [truth((0, WHOLE)), truth()]
    hit, miss = found((0, 0.5, WHOLE)), found((0, 0.5, ELSEWHERE))
    assert score_cats(objects, [hit, miss]).ap == 1
    assert score_cats(objects[::-1], [miss, hit]).ap == 0.5


def test_another_class_or_image_is_no_hit() -> None:
    assert score_cats([truth((0, WHOLE))], [found((1, 0.9, WHOLE))]).ap == 0
    assert score_cats([truth((0, WHOLE)), truth()], [found(), found((0, 0.9, WHOLE))]).ap == 0


@pytest.mark.parametrize("mark", ["difficult", "crowd"])
def test_marked_objects_and_their_detections_do_not_count(mark: str) -> None:
    objects = truth((0, ELSEWHERE), (0, WHOLE), **{mark: [True, False]})
    # twice on the marked object, both better than the hit
    rows = found((0, 0.9, ELSEWHERE), (0, 0.8, ELSEWHERE), (0, 0.7, WHOLE))
    metrics = score_cats([objects], [rows])
    assert metrics.ap == 1
    assert metrics.objects == metrics.per_class["cat"]["objects"] == 1
    assert metrics.per_class["cat"]["detections"] == 3
    assert score_cats([objects], [found()]).ap == 0


def test_detection_nearer_to_a_difficult_object_misses_its_neighbor() -> None:
    # overlaps the ordinary object by more than a half too, but the difficult one by more
    objects = truth((0, (0, 0, 10, 10)), (0, (0, 0, 10, 14)), difficult=[False, True])
    assert score_cats([objects], [found((0, 0.9, (0, 0, 10, 13)))]).ap == 0


def test_class_without_countable_objects_has_no_ap_and_is_not_in_the_mean() -> None:
    objects = truth((0, WHOLE), (1, ELSEWHERE), difficult=[False, True])
    metrics = score_cats([objects], [found((0, 0.9, WHOLE), (2, 0.9, WHOLE), (1, 0.9, WHOLE))])
    assert metrics.ap == metrics.ap50 == 1
    rates = ("score_threshold", "precision", "recall", "f1")
    nothing = {**dict.fromkeys(rates), "true_positives": 0, "false_positives": 0}
    assert metrics.per_class == {
        "cat": {
            **{"ap": 1.0, "ap50": 1.0, "objects": 1, "detections": 1},
            **{"score_threshold": 0.44, "precision": 1.0, "recall": 1.0, "f1": 1.0},
            **{"true_positives": 1, "false_positives": 0},
        },
        "dog": {"ap": None, "ap50": None, "objects": 0, "detections": 1, **nothing},
        "bird": {"ap": None, "ap50": None, "objects": 0, "detections": 1, **nothing},
    }
    assert metrics.ap75 is None and metrics.ap_small is None and metrics.ar100 is None


@pytest.mark.parametrize("rule", ["voc2007", "voc2010"])
def test_no_objects_at_all_is_no_ap(rule) -> None:
    metrics = score_cats([truth(), truth()], [found(), found((0, 0.9, WHOLE))], rule=rule)
    assert metrics.ap is None
    assert (metrics.images, metrics.objects) == (2, 0)


# --- the devkit as loops


def devkit_overlap(box, other, extra: int) -> float:
    width = min(box[2], other[2]) - max(box[0], other[0]) + extra
    height = min(box[3], other[3]) - max(box[1], other[1]) + extra
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(b[2] - b[0] + extra) * (b[3] - b[1] + extra) for b in (box, other)]
    return width * height / (sum(areas) - width * height)


def devkit_ap(truths, detections, label: int, rule: str, pixels: str) -> float | None:
    extra = 1 if pixels == "inclusive" else 0
    objects = [
        [
            {"box": box.tolist(), "difficult": bool(difficult), "found": False}
            for box, own, difficult in zip(each.boxes, each.labels, each.difficult, strict=True)
            if own == label
        ]
        for each in truths
    ]
    total = sum(not each["difficult"] for image in objects for each in image)
    if total == 0:
        return None
    rows = [
        (float(value), image, box.tolist())
        for image, each in enumerate(detections)
        for value, own, box in zip(each.scores, each.labels, each.boxes, strict=True)
        if own == label
    ]
    recalls, precisions, true, false = [], [], 0, 0
    for _, image, box in sorted(rows, key=lambda row: -row[0]):
        best, best_overlap = None, 0.0
        for each in objects[image]:
            overlap = devkit_overlap(box, each["box"], extra)
            if overlap > best_overlap:
                best, best_overlap = each, overlap
        if best is None or best_overlap < 0.5:
            false += 1
        elif not best["difficult"]:
            if best["found"]:
                false += 1
            else:
                best["found"] = True
                true += 1
        if true + false:
            recalls.append(Fraction(true, total))
            precisions.append(Fraction(true, true + false))

    if rule == "voc2007":
        points = [
            max((p for r, p in zip(recalls, precisions, strict=True) if r >= Fraction(tenths, 10)), default=0)
            for tenths in range(11)
        ]
        return float(sum(points) / 11)
    recalls, precisions = [Fraction(0), *recalls, Fraction(1)], [Fraction(0), *precisions, Fraction(0)]
    for i in reversed(range(len(precisions) - 1)):
        precisions[i] = max(precisions[i], precisions[i + 1])
    return float(sum((recalls[i] - recalls[i - 1]) * precisions[i] for i in range(1, len(recalls))))


def random_set(seed: int, images: int = 6):
    """Small whole coordinates and few scores, so that ties, duplicates and overlaps of exactly one half do occur."""
    random = np.random.default_rng(seed)
    truths, detections = [], []
    for _ in range(images):
        count = random.integers(0, 5)
        low = random.integers(0, 8, (count, 2))
        boxes = np.concatenate([low, low + random.integers(1, 9, (count, 2))], axis=1)
        labels = random.integers(0, 2, count)
        truths.append(GroundTruth(boxes, labels, difficult=random.random(count) < 0.3))
        copies = random.integers(0, count, 8) if count else np.zeros(0, dtype=int)
        jitter = random.integers(-2, 3, (len(copies), 4))
        near = boxes[copies] + np.where(random.random((len(copies), 1)) < 0.5, jitter, 0)
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 1)
        stray = np.array([[0, 0, 4, 4], [2, 2, 9, 9]])
        everything = np.concatenate([near, stray])
        given = np.concatenate([labels[copies], random.integers(0, 3, 2)])
        values = random.integers(1, 6, len(everything)) / 5
        detections.append(found(*zip(given.tolist(), values.tolist(), everything.tolist(), strict=True)))
    return truths, detections


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["voc2007", "voc2010"]), st.sampled_from(["inclusive", "continuous"]))
def test_equals_the_devkit(seed: int, rule, pixels) -> None:
    truths, detections = random_set(seed)
    metrics = score(truths, detections, class_names=CLASSES, rule=rule, pixels=pixels)
    expected = {name: devkit_ap(truths, detections, label, rule, pixels) for label, name in enumerate(CLASSES)}
    assert {name: values["ap"] for name, values in metrics.per_class.items()} == pytest.approx(expected, abs=1e-12)
    known = [ap for ap in expected.values() if ap is not None]
    assert metrics.ap == (pytest.approx(sum(known) / len(known)) if known else None)
    assert metrics.objects == sum(int((~each.difficult).sum()) for each in truths)


def test_a_thousand_images_of_200_detections_take_no_longer_than_a_glance() -> None:
    random = np.random.default_rng(0)
    names = tuple(f"class {i}" for i in range(20))
    low = random.uniform(0, 200, (1000, 200, 2)).astype(np.float32)
    boxes = np.concatenate([low, low + random.uniform(5, 100, (1000, 200, 2)).astype(np.float32)], axis=2)
    labels = random.integers(0, 20, (1000, 200))
    values = random.random((1000, 200), dtype=np.float32)
    truths = [GroundTruth(boxes[i, :5], labels[i, :5]) for i in range(1000)]
    detections = [Detections(boxes[i], values[i], labels[i], np.full(200, -1), names) for i in range(1000)]
    start = time.process_time()
    score(truths, detections, class_names=names, rule="voc2007")
    assert time.process_time() - start < 5  # about 0.3 s; loops over detections took minutes
