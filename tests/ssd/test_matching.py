import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from multibox.boxes import box_iou
from multibox.default_boxes import make_default_boxes
from multibox.presets import preset
from multibox.ssd import cpu, matching
from multibox.ssd.coder import center_to_corner
from multibox.ssd.matching import UNMATCHED
from tests.strategies import boxes


@pytest.fixture(params=[matching.match, cpu.match], ids=["batched", "image by image"], scope="module")
def match(request):
    return request.param


@pytest.fixture(scope="module")
def match_one(match):
    """Matches one image without padding."""

    def one(boxes, default_boxes, **threshold):
        return match(boxes[None], torch.ones(1, len(boxes), dtype=torch.bool), default_boxes, **threshold)[0].tolist()

    return one


SSD300 = center_to_corner(torch.from_numpy(make_default_boxes(preset("ssd300-vgg16"))))


def match_bbox(overlaps, iou_threshold=0.5):
    """Matches one image like the Caffe code's MatchBBox with PER_PREDICTION, from `overlaps[object][default box]`."""
    count = len(overlaps[0]) if len(overlaps) else 0
    matched = [UNMATCHED] * count
    pool = list(range(len(overlaps)))
    while pool:
        best, best_object, best_default_box = -1.0, None, None
        for default_box in range(count):
            if matched[default_box] != UNMATCHED:
                continue
            for index in pool:
                overlap = overlaps[index][default_box]
                if overlap > 1e-6 and overlap > best:
                    best, best_object, best_default_box = overlap, index, default_box
        if best_object is None:
            break
        matched[best_default_box] = best_object
        pool.remove(best_object)
    bipartite = list(matched)
    for default_box in range(count):
        if bipartite[default_box] != UNMATCHED:
            continue
        best = -1.0
        for index in range(len(overlaps)):
            overlap = overlaps[index][default_box]
            if overlap > 1e-6 and overlap >= iou_threshold and overlap > best:
                best, matched[default_box] = overlap, index
    return matched


def oracle(boxes, default_boxes, **threshold):
    if len(boxes) == 0:
        return [UNMATCHED] * len(default_boxes)
    return match_bbox(box_iou(boxes.double().numpy(), default_boxes.double().numpy()).tolist(), **threshold)


def whole_boxes(random, count, side):
    """Returns boxes with corners on whole numbers from 0 to `side`, where equal overlaps abound."""
    low = random.integers(0, side, (count, 2))
    size = random.integers(1, side + 1 - low)
    return torch.from_numpy(np.concatenate([low, low + size], axis=1)).float()


def overlaps_of(boxes, default_boxes):
    return box_iou(boxes.double().numpy(), default_boxes.double().numpy())


# Four default boxes of 10 x 10, side by side
ROW = torch.tensor([[10.0 * column, 0, 10.0 * column + 10, 10] for column in range(4)])


def test_an_object_that_is_a_default_box(match_one):
    assert match_one(ROW[2:3], ROW) == [UNMATCHED, UNMATCHED, 0, UNMATCHED]


def test_an_object_gets_its_best_default_box_however_small_the_overlap(match_one):
    assert match_one(torch.tensor([[12.0, 2, 13, 3]]), ROW) == [UNMATCHED, 0, UNMATCHED, UNMATCHED]


def test_an_overlap_of_half_is_enough_and_less_is_not(match_one):
    """The paper says "higher than 0.5"; its code takes 0.5."""
    default_boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 10, 4]])
    assert match_one(torch.tensor([[0.0, 0, 10, 10]]), default_boxes) == [0, 0, UNMATCHED]


def test_objects_that_share_the_best_default_box_both_get_one(match_one):
    """With the widespread rule "each object's best default box is forced", one of them would get none."""
    default_boxes = torch.tensor([[0.0, 0, 10, 10], [6, 0, 16, 10]])
    objects = torch.tensor(
        [[1.0, 0, 9, 10], [0, 0, 10, 9]]
    )  # overlaps 0.8 and 0.9 with the first, little with the other
    assert match_one(objects, default_boxes) == [1, 0]


def test_a_default_box_that_is_an_objects_own_stays_with_it_though_another_overlaps_it_more(match_one):
    """Each object first gets its own default box. Object 0 then keeps the second one, which object 1 overlaps more."""
    default_boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9]])
    objects = torch.tensor([[0.0, 0, 10, 6], [0, 0, 10, 10]])
    overlaps = overlaps_of(objects, default_boxes)
    assert overlaps[1, 1] > overlaps[0, 1] > 0.5
    assert match_one(objects, default_boxes) == [1, 0]


def test_of_equal_overlaps_the_first_default_box_wins_then_the_first_object(match_one):
    twins = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [20, 0, 30, 10]])
    assert match_one(torch.tensor([[0.0, 0, 10, 4]]), twins) == [0, UNMATCHED, UNMATCHED]
    assert match_one(torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10]]), twins) == [0, 1, UNMATCHED]
    assert match_one(torch.tensor([[0.0, 0, 10, 10]] * 3), twins) == [0, 1, UNMATCHED]
    assert match_one(torch.tensor([[20.0, 0, 30, 10], [0, 0, 10, 10]]), twins) == [1, 1, 0]


def test_no_objects(match):
    for batch in (0, 1, 3):
        matched = match(torch.zeros(batch, 0, 4), torch.zeros(batch, 0, dtype=torch.bool), ROW)
        assert matched.shape == (batch, 4) and (matched == UNMATCHED).all() and not matched.is_floating_point()


def test_padding_matches_nothing_whatever_it_holds(match):
    """Even if it has the coordinates of a default box, and in any row."""
    boxes = torch.stack([torch.stack([ROW[0], ROW[1], torch.zeros(4)])] * 4)
    present = torch.tensor(
        [[False, False, False], [False, True, False], [True, True, False], [True, False, False]],
    )
    expected = [[-1, -1, -1, -1], [-1, 1, -1, -1], [0, 1, -1, -1], [0, -1, -1, -1]]
    for nothing in (0.0, 5.0, float("inf"), float("nan")):
        boxes[:, 2] = nothing
        assert match(boxes, present, ROW).tolist() == expected


def test_objects_outside_all_default_boxes_match_nothing(match_one):
    outside, touching = [50.0, 50, 60, 60], [0.0, 10, 40, 20]
    assert match_one(torch.tensor([outside, touching]), ROW) == [UNMATCHED] * 4
    assert match_one(torch.tensor([outside, ROW[3].tolist(), touching]), ROW) == [UNMATCHED] * 3 + [1]


def test_an_overlap_of_a_millionth_is_none(match_one):
    far = torch.tensor([[0.0, 0, 1e4, 1e4]])
    for side, matched in ((9.9, UNMATCHED), (10.1, 0)):  # overlaps 0.98e-6 and 1.02e-6
        assert match_one(torch.tensor([[0, 0, side, side]]), far) == [matched]


def test_a_threshold_of_0_takes_every_overlap_but_none_that_is_none(match):
    boxes = torch.tensor([[[0.0, 0, 15, 10], [0, 0, 0, 0]]])
    for threshold in (0.0, 1e-9):
        matched = match(boxes, torch.tensor([[True, False]]), ROW, iou_threshold=threshold)
        assert matched.tolist() == [[0, 0, UNMATCHED, UNMATCHED]]


def test_more_objects_than_default_boxes(match_one):
    random = np.random.default_rng(1)
    objects = whole_boxes(random, 12, side=40)
    objects[:, 1::2] = torch.tensor([0.0, 10])
    matched = match_one(objects, ROW)
    assert matched == oracle(objects, ROW)
    assert UNMATCHED not in matched and len(set(matched)) == 4


@pytest.mark.parametrize("side", [4, 12, 40])
@pytest.mark.parametrize("objects, default_boxes", [(1, 1), (1, 30), (2, 2), (5, 40), (12, 30), (30, 12), (40, 60)])
def test_match_is_the_oracle_where_ties_abound(match_one, objects, default_boxes, side):
    random = np.random.default_rng([objects, default_boxes, side])
    for _ in range(6):
        some, table = whole_boxes(random, objects, side), whole_boxes(random, default_boxes, side)
        for threshold in (0.5, 0.3, 1.0):
            expected = oracle(some, table, iou_threshold=threshold)
            assert match_one(some, table, iou_threshold=threshold) == expected


@pytest.mark.parametrize("objects", [1, 2, 7, 20])
def test_match_is_the_oracle_on_the_boxes_of_ssd300(match_one, objects):
    random = np.random.default_rng(objects)
    low = random.uniform(0, 0.8, (objects, 2))
    boxes = torch.from_numpy(np.concatenate([low, low + random.uniform(0.02, 0.7, (objects, 2))], axis=1)).float()
    # overlaps in single precision, as in `match`: a small object overlaps many default boxes equally
    overlaps = box_iou(boxes.numpy(), SSD300.numpy())
    assert match_one(boxes, SSD300) == match_bbox(overlaps.tolist())


def test_a_big_batch_is_its_images_one_by_one(match):
    random = np.random.default_rng(3)
    counts = random.integers(0, 9, 40)
    boxes, present = torch.zeros(40, 8, 4), torch.zeros(40, 8, dtype=torch.bool)
    table = whole_boxes(random, 50, side=20)
    for image, count in enumerate(counts):
        rows = torch.from_numpy(random.permutation(8)[:count])  # padding rows among the objects
        boxes[image, rows] = whole_boxes(random, int(count), side=20)
        present[image, rows] = True
    matched = match(boxes, present, table)
    for image in range(40):
        rows = present[image].nonzero()[:, 0]
        expected = [row if row == UNMATCHED else int(rows[row]) for row in oracle(boxes[image, rows], table)]
        assert matched[image].tolist() == expected


def test_a_crowd_on_one_spot_is_the_oracle(match_one):
    """All objects want the same default boxes, and most of them must search again and again."""
    random = np.random.default_rng(4)
    objects = torch.tensor([[8.0, 8, 24, 24]]) + torch.from_numpy(random.integers(0, 2, (30, 4))).float()
    table = torch.tensor([[7.0, 7, 23, 23]]) + torch.from_numpy(random.integers(0, 5, (60, 4))).float()
    assert match_one(objects, table) == oracle(objects, table)


def test_arguments_are_not_written_to(match):
    boxes, present = torch.rand(2, 3, 4).sort(dim=-1).values, torch.ones(2, 3, dtype=torch.bool)
    before = boxes.clone(), present.clone(), ROW.clone()
    match(boxes, present, ROW)
    for now, then in zip((boxes, present, ROW), before, strict=True):
        assert torch.equal(now, then)


@st.composite
def tables(draw, *, min_count=1, max_count=8, side=32):
    """Draws boxes with corners on whole numbers, in float32."""
    corners = st.tuples(*[st.integers(0, side - 1)] * 2, *[st.integers(1, side)] * 2)
    drawn = draw(st.lists(corners, min_size=min_count, max_size=max_count))
    return torch.tensor([[x, y, min(x + w, side), min(y + h, side)] for x, y, w, h in drawn]).float().reshape(-1, 4)


@settings(max_examples=40)
@given(tables(), tables(max_count=16))
def test_match_is_the_oracle(match_one, objects, default_boxes):
    assert match_one(objects, default_boxes) == oracle(objects, default_boxes)


@settings(max_examples=40)
@given(tables(), tables(max_count=16))
def test_laws(match_one, objects, default_boxes):
    overlaps, matched = overlaps_of(objects, default_boxes), match_one(objects, default_boxes)
    for default_box, index in enumerate(matched):
        if index == UNMATCHED:
            assert overlaps[:, default_box].max() < 0.5
        else:
            assert overlaps[index, default_box] > 1e-6
    for index in range(len(objects)):
        # an object has no match only if other objects took all default boxes that it overlaps
        if (overlaps[index] > 1e-6).sum() >= len(objects):
            assert index in matched


@settings(max_examples=25)
@given(tables(max_count=6))
def test_every_object_in_the_image_is_matched_by_ssd300(match_one, objects):
    assert set(range(len(objects))) <= set(match_one(objects / 32, SSD300))


@settings(max_examples=40)
@given(tables(side=200), tables(max_count=12, side=200), st.randoms(use_true_random=False))
def test_the_order_of_the_objects_does_not_matter_where_no_overlaps_are_equal(
    match_one, objects, default_boxes, random
):
    positive = overlaps_of(objects, default_boxes)
    positive = positive[positive > 0]
    assume(len(np.unique(positive.astype(np.float32))) == len(positive))
    order = random.sample(range(len(objects)), len(objects))
    shuffled = match_one(objects[order], default_boxes)
    assert [index if index == UNMATCHED else order[index] for index in shuffled] == match_one(objects, default_boxes)


def test_the_overlap_of_empty_boxes_is_0():
    point, empty, some = (torch.tensor(box) for box in ([0.5] * 4, [0.2, 0.2, 0.2, 0.8], [0.0, 0.0, 1.0, 1.0]))
    assert matching.box_iou(point, point) == matching.box_iou(point, empty) == matching.box_iou(empty, some) == 0
    assert matching.box_iou(some, some) == 1
    assert matching.box_iou(torch.zeros(0, 1, 4), torch.zeros(7, 4)).shape == (0, 7)


@given(boxes(max_count=5), boxes(max_count=5))
def test_the_table_of_all_pairs_is_that_of_the_arrays(some, others):
    table = matching.box_iou(torch.tensor(some)[:, None], torch.tensor(others))
    np.testing.assert_allclose(table.numpy(), box_iou(some, others), rtol=1e-9, atol=1e-12)
