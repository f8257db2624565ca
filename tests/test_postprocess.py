"""Postprocessing in numpy and, batched, in torch: both against slow loops, torchvision, and each other."""

from dataclasses import replace
from math import log
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

import multibox.boxes
import multibox.postprocess
import multibox.ssd.postprocess
from multibox.boxes import box_iou, corner_to_center
from multibox.config import Postprocess
from multibox.default_boxes import make_default_boxes
from multibox.postprocess import NormalizedDetections
from multibox.presets import preset
from multibox.ssd.coder import BoxCoder

CODER = BoxCoder(center_variance=0.1, size_variance=0.2)
PAPER = Postprocess()
CONFIG = replace(preset("ssd300-vgg16"), center_variance=0.1, size_variance=0.2)
SSD300 = torch.from_numpy(make_default_boxes(preset("ssd300-vgg16")))
RATIO = float(torch.tensor(0.5).sigmoid() / torch.tensor(1.0).sigmoid())
"""The last score of `test_boxes_too_large_for_a_number_and_empty_ones_do_no_harm`, divided by the one before it."""
COLUMNS = ("boxes", "scores", "labels", "default_box_indices")


def in_numpy(offsets, logits, default_boxes, settings=PAPER, *, config=CONFIG, **rules):
    arrays = [values.numpy() for values in (offsets, logits, default_boxes)]
    return multibox.postprocess.postprocess(*arrays, config, settings=settings, **rules)


def in_torch(offsets, logits, default_boxes, settings=PAPER, *, config=CONFIG, **rules):
    """The batched one, with another image before this one."""
    random = np.random.default_rng(len(logits))
    other = [torch.from_numpy(random.normal(0, 1, values.shape)).to(values) for values in (offsets, logits)]
    _, found = multibox.ssd.postprocess.postprocess(
        torch.stack([other[0], offsets]),
        torch.stack([other[1], logits]),
        default_boxes,
        config,
        settings=settings,
        **rules,
    )
    return found


def softmax(run, logits):
    """In the arithmetic of each: their exponentials differ in the last bit."""
    if run is in_torch:
        return logits.softmax(dim=1)
    powers = np.exp(logits.numpy() - logits.numpy().max(axis=1, keepdims=True, initial=-np.inf))
    return torch.from_numpy(powers / powers.sum(axis=1, keepdims=True))


both = pytest.mark.parametrize("run", [in_numpy, in_torch])


def slow_select(scores, offsets, default_boxes, settings, labels=None):
    """DetectionOutput as it is described: one candidate after the other. `scores` begin with the background's."""
    kept, _ = slow_suppress(scores, offsets, default_boxes, settings, labels)
    scores = scores.tolist()
    return [row for row, _ in kept], [label for _, label in kept], [scores[row][label + 1] for row, label in kept]


def slow_suppress(scores, offsets, default_boxes, settings, labels=None):
    """Returns the kept pairs of row and label, and for each one itself and the pairs whose first suppressor it is."""
    corners = CODER.decode(offsets.float(), default_boxes).double().numpy()
    overlaps = box_iou(corners, corners)
    threshold = float(np.float32(settings.score_threshold))
    columns = scores.shape[1]
    scores = scores.tolist()
    going_on = []
    for label in range(columns - 1) if labels is None else labels:
        candidates = [(row, label) for row in range(len(scores)) if scores[row][label + 1] > threshold]
        candidates.sort(key=lambda pair: -scores[pair[0]][pair[1] + 1])  # stable
        going_on += candidates[: settings.max_candidates_per_class]
    going_on.sort(key=lambda pair: (-scores[pair[0]][pair[1] + 1], pair))
    kept, voters = [], []
    for row, label in going_on:
        for place, (other, name) in enumerate(kept):
            if (name == label or settings.class_agnostic) and overlaps[row, other] > settings.iou_threshold:
                voters[place].append((row, label))
                break
        else:
            kept.append((row, label))
            voters.append([(row, label)])
    return kept[: settings.max_detections], voters[: settings.max_detections]


def slow_means(scores, offsets, default_boxes, settings, labels=None, *, clip=False):
    """The boxes of `merge="weighted"`, one kept box and one voter after the other."""
    corners = CODER.decode(offsets.float(), default_boxes).double().numpy()
    corners = corners.clip(0, 1) if clip else corners
    _, voters = slow_suppress(scores, offsets, default_boxes, settings, labels)
    means = []
    for pairs in voters:
        total = sum(float(scores[row, label + 1]) for row, label in pairs)
        means.append(sum(float(scores[row, label + 1]) * corners[row] for row, label in pairs) / total)
    return np.array(means).reshape(-1, 4)


def assert_is_the_oracles(run, offsets, logits, default_boxes, settings, labels=None):
    found = run(offsets, logits, default_boxes, settings, labels=labels)
    rows, names, scores = slow_select(softmax(run, logits), offsets, default_boxes, settings, labels)
    assert found.default_box_indices.tolist() == rows
    assert found.labels.tolist() == names
    assert found.scores.tolist() == scores
    expected = CODER.decode(offsets[rows].float(), default_boxes[rows])
    np.testing.assert_allclose(found.boxes, expected.numpy(), rtol=0, atol=1e-6)
    merged = run(offsets, logits, default_boxes, replace(settings, merge="weighted"), labels=labels)
    for name in COLUMNS[1:]:
        np.testing.assert_array_equal(getattr(merged, name), getattr(found, name))
    means = slow_means(softmax(run, logits), offsets, default_boxes, settings, labels)
    np.testing.assert_allclose(merged.boxes, means, rtol=0, atol=2e-6)
    return found


def assert_equal(one, other, *, count=None):
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name)[:count])


def logits_of(scores):
    """Logits whose softmax gives these probabilities of the classes; the background has the rest."""
    scores = torch.tensor(scores, dtype=torch.float64)
    return torch.cat([1 - scores.sum(dim=1, keepdim=True), scores], dim=1).log().float()


def select_boxes(run, boxes, scores, settings=PAPER, **arguments):
    """Of these boxes in corner form, which are default boxes with offsets 0."""
    centers = torch.from_numpy(corner_to_center(np.array(boxes, np.float32)))
    return run(torch.zeros(len(boxes), 4), logits_of(scores), centers, settings, **arguments)


def random_case(random, *, count, classes, passing):
    """Random boxes, of which about `passing` class scores are above 0.01."""
    boxes = np.concatenate([random.uniform(0, 1, (count, 2)), random.uniform(0.1, 0.5, (count, 2))], axis=1)
    logits = random.normal(0, 1.5, (count, classes + 1))
    if passing < count * classes:
        margins = np.sort((logits[:, 1:] - logits[:, :1]).ravel())
        logits[:, 0] += margins[-passing] - log(0.01)
    else:
        logits *= 0.2
    offsets = random.normal(0, 1, (count, 4))
    return [torch.from_numpy(values).float() for values in (offsets, logits, boxes)]


# Two that overlap by 9/11, and one by itself
THREE = [[0.0, 0, 10, 10], [1, 0, 11, 10], [20, 20, 30, 30]]


@both
def test_the_better_of_two_is_kept_with_its_score_label_and_default_box(run):
    found = select_boxes(run, THREE, [[0.1, 0.5], [0.1, 0.8], [0.3, 0.1]], Postprocess(score_threshold=0.2))
    assert found.default_box_indices.tolist() == [1, 2] and found.labels.tolist() == [1, 0]
    assert found.scores.tolist() == pytest.approx([0.8, 0.3])
    np.testing.assert_allclose(found.boxes, np.float32(THREE)[[1, 2]], rtol=1e-6)


@both
def test_boxes_of_two_classes_suppress_each_other_only_across_classes(run):
    scores = [[0.6, 0.01], [0.01, 0.7], [0.5, 0.4]]
    by_class = select_boxes(run, THREE, scores, Postprocess(score_threshold=0.2))
    assert list(zip(by_class.default_box_indices.tolist(), by_class.labels.tolist(), strict=True)) == [
        (1, 1),
        (0, 0),
        (2, 0),
        (2, 1),
    ]
    across = select_boxes(run, THREE, scores, Postprocess(score_threshold=0.2, class_agnostic=True))
    assert list(zip(across.default_box_indices.tolist(), across.labels.tolist(), strict=True)) == [(1, 1), (2, 0)]


@both
def test_a_suppressed_box_suppresses_nobody(run):
    """The second overlaps the first and the third by more than a half; first and third overlap by a third."""
    row = [[0.0, 0, 12, 10], [3, 0, 15, 10], [6, 0, 18, 10]]
    found = select_boxes(run, row, [[0.9], [0.8], [0.7]], Postprocess(iou_threshold=0.5))
    assert found.default_box_indices.tolist() == [0, 2]


@both
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_a_box_that_overlaps_by_just_the_threshold_is_kept(run, class_agnostic):
    """The quotient is compared as it is rounded; a product with the threshold may round the other way."""
    for percent in range(1, 100, 2):
        settings = Postprocess(iou_threshold=percent / 100, class_agnostic=class_agnostic)
        wide, narrow, more = [0.0, 0, 100, 8], [0.0, 0, percent, 8], [0.0, 0, percent + 0.5, 8]
        assert select_boxes(run, [wide, narrow], [[0.9], [0.8]], settings).default_box_indices.tolist() == [0, 1]
        assert select_boxes(run, [wide, more], [[0.9], [0.8]], settings).default_box_indices.tolist() == [0]


@both
def test_boxes_are_clipped_at_the_end_only(run):
    """Not here: two that reach out of the image overlap by 0.43, and what is left of them in it by 0.91."""
    outside = [[-0.6, 0.0, 0.5, 1.0], [0.0, 0.0, 0.55, 1.0]]
    found = select_boxes(run, outside, [[0.9], [0.8]])
    np.testing.assert_allclose(found.boxes, outside, rtol=1e-6)
    config = replace(CONFIG, clip_boxes=True)
    assert select_boxes(run, outside, [[0.9], [0.8]], config=config).boxes.tolist() == [[0.0, 0.0, 0.5, 1.0]]


@both
def test_a_score_of_just_the_threshold_is_not_enough(run):
    logits = torch.zeros(3, 2)
    logits[1, 1], logits[2, 1] = 1e-3, -1e-3
    found = run(torch.zeros(3, 4), logits, torch.eye(3, 4) + 5, settings=Postprocess(score_threshold=0.5))
    assert found.default_box_indices.tolist() == [1]


def test_merge_is_the_weighted_mean_of_a_box_and_its_voters():
    """By hand: the second votes for the first, the third for nobody, and the fourth for the first, not for the third.

    The fourth overlaps the first by 0.5 and the third by 0.6; the first is the better one.
    """
    row = [[0.0, 0, 12, 10], [0, 0, 10, 10], [5, 0, 17, 10], [4, 0, 12, 10]]
    scores = [[0.6], [0.2], [0.5], [0.2]]
    for run in (in_numpy, in_torch):
        settings = Postprocess(iou_threshold=0.45, merge="weighted")
        found = select_boxes(run, row, scores, settings)
        assert found.default_box_indices.tolist() == [0, 2]
        assert found.scores.tolist() == pytest.approx([0.6, 0.5])
        np.testing.assert_allclose(found.boxes, [[0.8, 0, 11.6, 10], [5, 0, 17, 10]], rtol=0, atol=1e-5)


@both
def test_what_is_suppressed_only_by_a_box_beyond_the_limit_does_not_vote(run):
    row = [[0.0, 0, 10, 10], [20, 0, 30, 10], [21, 0, 31, 10], [1, 0, 11, 10]]
    settings = Postprocess(merge="weighted", max_detections=1)
    found = select_boxes(run, row, [[0.6], [0.5], [0.4], [0.2]], settings)
    np.testing.assert_allclose(found.boxes, [[0.25, 0, 10.25, 10]], rtol=0, atol=1e-5)


@both
def test_a_box_by_itself_is_not_changed_by_merging_to_the_bit(run):
    case = random_case(np.random.default_rng(31), count=200, classes=3, passing=150)
    settings = Postprocess(iou_threshold=1.0)  # nobody is suppressed
    assert_equal(run(*case, replace(settings, merge="weighted")), run(*case, settings))


@both
def test_of_equal_scores_the_first_default_box_wins_then_the_first_class(run):
    same = [[0.25, 0.25]] * 3
    found = select_boxes(run, THREE, same)
    assert found.default_box_indices.tolist() == [0, 0, 2, 2] and found.labels.tolist() == [0, 1, 0, 1]
    found = select_boxes(run, THREE, same, Postprocess(class_agnostic=True))
    assert found.default_box_indices.tolist() == [0, 2] and found.labels.tolist() == [0, 0]
    assert select_boxes(run, THREE, same, Postprocess(max_candidates_per_class=1)).default_box_indices.tolist() == [
        0,
        0,
    ]


@both
def test_limit_per_class_counts_before_suppression(run):
    """Of the best two of the class one is suppressed; the third does not move up."""
    found = select_boxes(run, THREE, [[0.9], [0.8], [0.7]], Postprocess(max_candidates_per_class=2))
    assert found.default_box_indices.tolist() == [0]


@both
@pytest.mark.parametrize("labels", [None, [], [0]])
def test_nothing_above_the_threshold(run, labels):
    for count in (0, 5):
        offsets, logits = torch.zeros(count, 4), torch.zeros(count, 4)
        logits[:, 0] = 50
        found = run(offsets, logits, torch.rand(count, 4), settings=PAPER, labels=labels)
        assert found.boxes.shape == (0, 4)
        assert [len(getattr(found, name)) for name in COLUMNS] == [0] * 4
        assert [getattr(found, name).dtype.kind for name in COLUMNS] == ["f", "f", "i", "i"]


@both
def test_threshold_of_1_keeps_nothing_and_of_0_everything_that_is_possible(run):
    scores = [[0.9, 0.05], [1e-6, 1e-7], [0.3, 0.3]]
    apart = [[0.0, 0, 1, 1], [2, 0, 3, 1], [4, 0, 5, 1]]
    assert len(select_boxes(run, apart, scores, Postprocess(score_threshold=1.0)).scores) == 0
    assert len(select_boxes(run, apart, scores, Postprocess(score_threshold=0.0)).scores) == 6
    logits = torch.tensor([[0.0, -85.0], [0.0, -95.0], [0.0, -300.0]])  # probabilities of 1e-37, 6e-42 and 0
    found = run(torch.zeros(3, 4), logits, torch.eye(3, 4) + 1, settings=Postprocess(score_threshold=0.0))
    assert 0 in found.default_box_indices.tolist() and 2 not in found.default_box_indices.tolist()


@both
@pytest.mark.parametrize("threshold", [1e-9, 1e-7, 1e-5, 1e-3, 0.01, 0.3, 0.5, 0.9])
def test_what_the_background_wins_is_dropped_without_a_mistake_close_to_the_threshold(run, threshold):
    random = np.random.default_rng(1)
    shift = random.normal(0, 20, (1000, 1))
    near = log(threshold / (1 - threshold)) + random.normal(0, 3e-6, (1000, 1))
    logits = torch.from_numpy(np.concatenate([shift, shift + near], axis=1)).float()
    far_apart = torch.stack([torch.arange(1000.0) * 3, *torch.ones(3, 1000)], dim=1)
    settings = Postprocess(score_threshold=threshold, max_detections=1000, max_candidates_per_class=1000)
    found = run(torch.zeros(1000, 4), logits, far_apart, settings=settings)
    expected = (softmax(run, logits)[:, 1] > threshold).nonzero()[:, 0]
    assert 0 < len(expected) < 1000
    assert sorted(found.default_box_indices.tolist()) == expected.tolist()


@both
def test_only_the_wanted_classes(run):
    case = random_case(np.random.default_rng(4), count=200, classes=5, passing=300)
    for labels in ([1], [4, 0], [0, 1, 2, 3, 4], []):
        found = assert_is_the_oracles(run, *case, PAPER, sorted(labels))
        again = run(*case, settings=PAPER, labels=labels)
        assert_equal(found, again)
        assert set(found.labels.tolist()) <= set(labels)
    assert len(run(*case, settings=PAPER, labels=[1]).scores) > 0


@both
def test_the_filter_of_classes_is_no_filter_of_the_result(run):
    """With a limit: what is not wanted takes no place, and suppresses nothing."""
    case = random_case(np.random.default_rng(5), count=300, classes=4, passing=700)
    settings = Postprocess(class_agnostic=True, max_detections=20)
    found = assert_is_the_oracles(run, *case, settings, [2])
    assert len(found.scores) == 20 > (run(*case, settings=settings).labels == 2).sum()


@both
@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize(
    "count, classes, passing",
    [(1, 1, 1), (1, 6, 6), (50, 1, 50), (300, 20, 300), (150, 8, 1200), (600, 3, 400), (600, 1, 600)],
)
def test_postprocess_is_the_oracle(run, count, classes, passing, class_agnostic):
    case = random_case(np.random.default_rng([count, classes, passing]), count=count, classes=classes, passing=passing)
    for limits in (
        {},
        {"max_detections": 5},
        {"max_candidates_per_class": 7},
        {"max_detections": 400},
        {"iou_threshold": 0.0},
    ):
        assert_is_the_oracles(run, *case, Postprocess(class_agnostic=class_agnostic, **limits))


@both
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_postprocess_is_the_oracle_where_few_places_have_all_the_candidates(run, class_agnostic):
    """Thousands of candidates, of which so few survive that no prefix reaches the maximum."""
    random = np.random.default_rng(9)
    offsets, logits, _ = random_case(random, count=500, classes=5, passing=10_000)
    places = np.array([[0.3, 0.3, 0.4, 0.4], [0.7, 0.7, 0.4, 0.4], [0.5, 0.5, 0.9, 0.9]])
    boxes = torch.from_numpy(places[random.integers(0, 3, 500)]).float()
    found = assert_is_the_oracles(run, offsets * 0.1, logits, boxes, Postprocess(class_agnostic=class_agnostic))
    assert len(found.scores) < 200
    for max_candidates_per_class in (30, 250):
        settings = Postprocess(class_agnostic=class_agnostic, max_candidates_per_class=max_candidates_per_class)
        assert_is_the_oracles(run, offsets * 0.1, logits, boxes, settings)


@both
def test_postprocess_is_the_oracle_where_all_scores_are_equal(run):
    """A network that has learned nothing: more ties than any prefix holds."""
    random = np.random.default_rng(6)
    offsets, _, boxes = random_case(random, count=700, classes=1, passing=1)
    for class_agnostic in (False, True):
        settings = Postprocess(class_agnostic=class_agnostic, max_detections=100)
        assert_is_the_oracles(run, offsets, torch.zeros(700, 4), boxes, settings)


@st.composite
def small_cases(draw):
    """Boxes on whole numbers and few different scores: ties of both kinds."""
    count, classes = draw(st.integers(0, 14)), draw(st.integers(1, 3))
    whole = st.integers(0, 6)
    corners = draw(
        st.lists(st.tuples(whole, whole, st.integers(1, 6), st.integers(1, 6)), min_size=count, max_size=count)
    )
    levels = st.lists(st.integers(-2, 2), min_size=classes + 1, max_size=classes + 1)
    logits = draw(st.lists(levels, min_size=count, max_size=count))
    boxes = torch.tensor([[x, y, x + 2 * w, y + 2 * h] for x, y, w, h in corners]).float().reshape(-1, 4)
    settings = Postprocess(
        score_threshold=draw(st.sampled_from([0.0, 0.1, 0.3])),
        iou_threshold=draw(st.sampled_from([0.0, 0.25, 0.5, 1.0])),
        class_agnostic=draw(st.booleans()),
        max_candidates_per_class=draw(st.integers(1, 6)),
        max_detections=draw(st.integers(1, 12)),
    )
    labels = draw(st.none() | st.sets(st.integers(0, classes - 1)).map(sorted))
    centers = torch.from_numpy(corner_to_center(boxes.numpy()))
    return centers, torch.tensor(logits).float().reshape(count, classes + 1), settings, labels


@both
@given(small_cases(), st.sampled_from([1, 3, 256]), st.sampled_from([1, 4, 1024]))
@settings(max_examples=150)
def test_postprocess_is_the_oracle_with_ties_and_chunks_of_any_size(run, case, chunk, prefix):
    default_boxes, logits, settings, labels = case
    with (
        mock.patch.object(multibox.boxes, "_CHUNK", chunk),
        mock.patch.object(multibox.postprocess, "_PREFIX", prefix),
        mock.patch.object(multibox.ssd.postprocess, "_CHUNK", chunk),
    ):
        assert_is_the_oracles(run, torch.zeros(len(logits), 4), logits, default_boxes, settings, labels)


def torchvision_select(offsets, logits, default_boxes, settings):
    """The steps of torchvision's SSD.postprocess_detections, without clipping."""
    scores = logits.softmax(dim=1)
    boxes = CODER.decode(offsets, default_boxes)
    chosen = []
    for label in range(1, logits.shape[1]):
        rows = (scores[:, label] > settings.score_threshold).nonzero()[:, 0]
        best = scores[rows, label].topk(min(settings.max_candidates_per_class, len(rows))).indices
        chosen.append(torch.stack([rows[best], torch.full_like(best, label)]))
    rows, labels = torch.cat(chosen, dim=1)
    kept = batched_nms(boxes[rows], scores[rows, labels], labels, settings.iou_threshold)[: settings.max_detections]
    rows, labels = rows[kept], labels[kept]
    return NormalizedDetections(*(v.numpy() for v in (boxes[rows], scores[rows, labels], labels - 1, rows)))


@both
@pytest.mark.parametrize("classes, passing", [(20, 300), (90, 300), (20, None), (90, None)])
def test_postprocess_is_torchvisions_on_the_default_boxes_of_ssd300(run, classes, passing):
    """About 300 candidates, and the worst case: all scores above the threshold, or as many as there can be."""
    random = np.random.default_rng(classes)
    offsets, logits, _ = random_case(random, count=8732, classes=classes, passing=passing or 10**9)
    found = run(offsets, logits, SSD300, settings=PAPER)
    assert len(found.scores) == 200
    expected = torchvision_select(offsets, logits, SSD300, PAPER)
    for name in COLUMNS:
        atol = 1e-6 if name == "boxes" else 1e-7 if run is in_numpy and name == "scores" else 0
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=0, atol=atol)


@both
@pytest.mark.parametrize("classes, class_agnostic", [(1, False), (4, True)])
def test_what_is_kept_stays_when_it_is_postprocessed_again(run, classes, class_agnostic):
    offsets, logits, boxes = random_case(np.random.default_rng(12), count=400, classes=classes, passing=350)
    settings = Postprocess(class_agnostic=class_agnostic)
    once = run(offsets, logits, boxes, settings=settings)
    rows = once.default_box_indices
    twice = run(offsets[rows], logits[rows], boxes[rows], settings=settings)
    assert twice.default_box_indices.tolist() == list(range(len(rows)))
    for name in ("boxes", "scores", "labels"):
        np.testing.assert_array_equal(getattr(once, name), getattr(twice, name))


@both
def test_a_stricter_call_finds_part_of_a_laxer_one(run):
    case = random_case(np.random.default_rng(13), count=500, classes=3, passing=600)
    lax = run(*case, settings=Postprocess(max_detections=1000))
    strict = run(*case, settings=Postprocess(max_detections=1000, score_threshold=0.05))
    first = run(*case, settings=Postprocess(max_detections=10))
    for part in (strict, first):
        assert 0 < len(part.scores) < len(lax.scores)
        assert_equal(part, lax, count=len(part.scores))


def test_half_precision_is_decoded_and_scored_in_single(run=in_torch):
    case = random_case(np.random.default_rng(14), count=100, classes=3, passing=150)
    offsets, logits, boxes = case[0].bfloat16(), case[1].bfloat16(), case[2]
    found = run(offsets, logits, boxes, settings=PAPER)
    same = run(offsets.float(), logits.float(), boxes, settings=PAPER)
    assert_equal(found, same)


@both
def test_boxes_too_large_for_a_number_and_empty_ones_do_no_harm(run):
    offsets = torch.zeros(4, 4)
    offsets[0, 2:], offsets[1, 2:] = 1e3, -1e3  # exp(200) and exp(-200) times as large
    logits = torch.tensor([[0.0, 3.0], [0.0, 2.0], [0.0, 1.0], [0.0, 0.5]])
    default_boxes = torch.tensor([[0.5, 0.5, 1, 1], [0.5, 0.5, 1, 1], [0.5, 0.5, 1, 1], [0.5, 0.45, 1, 0.9]])
    found = run(offsets, logits, default_boxes, settings=PAPER)
    assert found.default_box_indices.tolist() == [0, 1, 2]
    assert not np.isnan(found.boxes).any()
    merged = run(offsets, logits, default_boxes, settings=replace(PAPER, merge="weighted"))
    assert merged.default_box_indices.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(merged.boxes[:2], found.boxes[:2])
    np.testing.assert_allclose(merged.boxes[2], [0, 0, 1, (1 + 0.9 * RATIO) / (1 + RATIO)], rtol=0, atol=1e-6)


@both
def test_arguments_are_not_written_to(run):
    case = random_case(np.random.default_rng(15), count=60, classes=3, passing=10**9)
    before = [values.clone() for values in case]
    run(*case, settings=PAPER, labels=[1])
    assert all(torch.equal(one, other) for one, other in zip(case, before, strict=True))


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
@pytest.mark.parametrize("labels", [None, [0, 3]])
@pytest.mark.parametrize("class_agnostic", [False, True])
@pytest.mark.parametrize("merge", ["none", "weighted"])
def test_a_batch_in_torch_is_each_image_in_numpy(scoring, labels, class_agnostic, merge):
    """Images with many, few and no candidates; some fill all detections in the first round, some in none."""
    random = np.random.default_rng(21)
    config = replace(CONFIG, scoring=scoring, clip_boxes=True)
    settings = Postprocess(class_agnostic=class_agnostic, max_candidates_per_class=300, max_detections=150, merge=merge)
    passing = (10**9, 40, 400, 1500)
    cases = [random_case(random, count=900, classes=5, passing=count) for count in passing]
    cases[1][1][:, 1:] -= 40
    offsets, logits = (torch.stack(values) for values in list(zip(*cases, strict=True))[:2])
    boxes = cases[0][2]
    together = multibox.ssd.postprocess.postprocess(offsets, logits, boxes, config, settings=settings, labels=labels)
    counts = set()
    for found, *case in zip(together, offsets, logits, strict=True):
        expected = in_numpy(*case, boxes, settings, labels=labels, config=config)
        assert found.labels.tolist() == expected.labels.tolist()
        assert found.default_box_indices.tolist() == expected.default_box_indices.tolist()
        np.testing.assert_allclose(found.scores, expected.scores, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found.boxes, expected.boxes, rtol=0, atol=1e-6)
        counts.add(len(found.scores))
    assert {0, 150} <= counts


@both
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_merged_classes_are_one_class(run, class_agnostic):
    """As if the network had one class, whose score is the best of the two: in suppression and in all limits."""
    case = random_case(np.random.default_rng(22), count=300, classes=5, passing=700)
    merged_labels = np.array([1, 0, 1, 2, 0])
    settings = Postprocess(class_agnostic=class_agnostic, max_candidates_per_class=60, max_detections=120)
    scores = softmax(run, case[1])[:, 1:]
    best = torch.stack([scores[:, merged_labels == label].amax(dim=1) for label in range(3)], dim=1)
    rows, names, expected = slow_select(torch.cat([scores[:, :1], best], dim=1), case[0], case[2], settings)
    found = run(*case, settings, merged_labels=merged_labels)
    assert (found.default_box_indices.tolist(), found.labels.tolist(), found.scores.tolist()) == (rows, names, expected)
    merged = run(*case, replace(settings, merge="weighted"), merged_labels=merged_labels)
    means = slow_means(torch.cat([scores[:, :1], best], dim=1), case[0], case[2], settings)
    np.testing.assert_allclose(merged.boxes, means, rtol=0, atol=2e-6)
    only = run(*case, settings, merged_labels=merged_labels, labels=[1])
    assert set(only.labels.tolist()) == {1}


@both
@pytest.mark.parametrize("class_agnostic", [False, True])
def test_a_threshold_by_class_is_applied_before_suppression_and_limits(run, class_agnostic):
    """As if the scores at or below the threshold of their class were 0."""
    case = random_case(np.random.default_rng(25), count=300, classes=4, passing=700)
    settings = Postprocess(class_agnostic=class_agnostic, max_candidates_per_class=60, max_detections=70)
    scores = softmax(run, case[1])
    thresholds = scores[:, 1:].quantile(torch.tensor([0.2, 0.9, 0.5, 0.7]), dim=0).diagonal().numpy()
    thresholds[1] = np.sort(scores[:, 2].numpy())[-40]  # a score itself does not pass
    passing = torch.where(scores[:, 1:] > torch.from_numpy(thresholds), scores[:, 1:], 0)
    expected = slow_select(torch.cat([scores[:, :1], passing], dim=1), case[0], case[2], settings)
    found = run(*case, settings, score_thresholds=thresholds)
    assert (found.default_box_indices.tolist(), found.labels.tolist(), found.scores.tolist()) == expected
    merged = run(*case, replace(settings, merge="weighted"), score_thresholds=thresholds)
    means = slow_means(torch.cat([scores[:, :1], passing], dim=1), case[0], case[2], settings)
    np.testing.assert_allclose(merged.boxes, means, rtol=0, atol=2e-6)
    assert len(found.scores) > 0


@both
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1])
def test_outputs_that_are_not_finite_are_refused(run, place, value):
    """They used to find nothing, as if the image were empty."""
    case = random_case(np.random.default_rng(23), count=50, classes=3, passing=20)
    case[place][7, 2] = value
    with pytest.raises(ValueError, match="outputs hold NaN or infinity"):
        run(*case)


def test_huge_finite_outputs_are_no_infinity():
    case = random_case(np.random.default_rng(24), count=50, classes=3, passing=20)
    case[1][7] = 1e30
    in_numpy(*case)
