import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multibox.boxes import (
    NOT_SUPPRESSED,
    area,
    box_iou,
    center_to_corner,
    clip,
    corner_to_center,
    nms,
    suppressed_by,
)
from tests.strategies import boxes


def iou_of_two(first, second):
    """The definition, one pair at a time."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    intersection = width * height if width > 0 and height > 0 else 0.0
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (first, second)) - intersection
    return intersection / union if union > 0 else 0.0


def devkit_overlap(first, second):
    """As VOCdevkit's `VOCevaldet.m` measures it, the last pixel included."""
    width = min(first[2], second[2]) - max(first[0], second[0]) + 1
    height = min(first[3], second[3]) - max(first[1], second[1]) + 1
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (first, second)]
    return width * height / (sum(areas) - width * height)


@given(boxes(), boxes())
def test_iou_is_the_definition(boxes1, boxes2):
    expected = np.array([[iou_of_two(a, b) for b in boxes2] for a in boxes1]).reshape(len(boxes1), len(boxes2))
    np.testing.assert_allclose(box_iou(boxes1, boxes2), expected, rtol=1e-9, atol=1e-12)


@given(boxes(), boxes())
def test_iou_with_one_added_is_the_devkits(boxes1, boxes2):
    boxes1, boxes2 = boxes1.round(), boxes2.round()
    expected = np.array([[devkit_overlap(a, b) for b in boxes2] for a in boxes1]).reshape(len(boxes1), len(boxes2))
    last_pixel = np.array([0, 0, 1, 1])
    np.testing.assert_allclose(box_iou(boxes1 + last_pixel, boxes2 + last_pixel), expected, rtol=1e-12)


def test_iou_of_boxes_that_can_be_reckoned_in_the_head():
    ours = np.array([[0, 0, 10, 10]], dtype=np.float64)
    others = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 0, 20, 10], [2, 2, 7, 7], [3, 3, 3, 3]], dtype=np.float64)
    np.testing.assert_allclose(box_iou(ours, others), [[1, 1 / 3, 0, 1 / 4, 0]])


@given(boxes(), boxes())
def test_iou_is_symmetric_and_between_0_and_1(boxes1, boxes2):
    overlap = box_iou(boxes1, boxes2)
    np.testing.assert_array_equal(overlap, box_iou(boxes2, boxes1).T)
    assert ((overlap >= 0) & (overlap <= 1 + 1e-12)).all()


@given(boxes(min_side=1))
def test_a_box_overlaps_itself_wholly(some):
    np.testing.assert_allclose(np.diag(box_iou(some, some)), 1)


@given(boxes(min_side=1), boxes(min_side=1), st.floats(-500, 500), st.floats(0.01, 100))
def test_iou_does_not_depend_on_place_and_scale(boxes1, boxes2, shift, scale):
    moved = box_iou(boxes1 * scale + shift, boxes2 * scale + shift)
    np.testing.assert_allclose(moved, box_iou(boxes1, boxes2), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rows, columns", [(0, 0), (0, 3), (3, 0)])
def test_iou_of_no_boxes(rows, columns):
    assert box_iou(np.zeros((rows, 4)), np.zeros((columns, 4))).shape == (rows, columns)


def test_iou_of_empty_boxes_is_0_not_nan():
    point = np.array([[4, 4, 4, 4]], dtype=np.float64)
    np.testing.assert_array_equal(box_iou(point, point), [[0]])


def test_swapped_corners_have_no_area_and_no_overlap():
    swapped = np.array([[10, 10, 0, 0], [10, 0, 0, 10]], dtype=np.float64)
    np.testing.assert_array_equal(area(swapped), [0, 0])
    np.testing.assert_array_equal(box_iou(swapped, np.array([[0.0, 0, 10, 10]])), [[0], [0]])


@given(boxes())
def test_area_is_width_times_height(some):
    expected = [(x_max - x_min) * (y_max - y_min) for x_min, y_min, x_max, y_max in some]
    np.testing.assert_allclose(area(some), np.array(expected), rtol=1e-12)


@given(boxes())
def test_center_form_and_back(some):
    np.testing.assert_allclose(center_to_corner(corner_to_center(some)), some, atol=1e-9)


def test_center_form_of_one_box():
    np.testing.assert_array_equal(corner_to_center(np.array([10.0, 20, 30, 60])), [20, 40, 20, 40])
    np.testing.assert_array_equal(center_to_corner(np.array([20.0, 40, 20, 40])), [10, 20, 30, 60])


@given(boxes(), st.integers(1, 1200), st.integers(1, 1200))
def test_clip_leaves_what_is_inside(some, height, width):
    some = some - 100
    clipped = clip(some, height, width)
    assert (clipped >= 0).all()
    assert (clipped[:, 0::2] <= width).all() and (clipped[:, 1::2] <= height).all()
    np.testing.assert_array_equal(clip(clipped, height, width), clipped)
    inside = (some >= 0).all(axis=1) & (some[:, 2] <= width) & (some[:, 3] <= height)
    np.testing.assert_array_equal(clipped[inside], some[inside])


def test_arguments_are_not_written_to_and_types_stay():
    some = np.array([[-5, -5, 50, 50]], dtype=np.float32)
    before = some.copy()
    for result in (clip(some, 10, 20), corner_to_center(some), center_to_corner(some), area(some), box_iou(some, some)):
        assert result.dtype == np.float32
    np.testing.assert_array_equal(some, before)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 1)), max_size=12), st.integers(1, 12))
def test_a_box_is_suppressed_by_the_best_kept_box_that_it_overlaps_too_much(corners, most):
    some = np.array([(x, y, x + 5, y + 4) for x, y, _ in corners], np.float32).reshape(-1, 4)
    labels = np.array([label for *_, label in corners], np.int64)
    kept = nms(some, labels, 0.3, max_detections=most)
    overlaps = box_iou(some, some)
    for place, by in enumerate(suppressed_by(some, labels, kept, 0.3).tolist()):
        rivals = [
            number
            for number, other in enumerate(kept)
            if labels[other] == labels[place] and overlaps[place, other] > 0.3
        ]
        assert by == (NOT_SUPPRESSED if place in kept or not rivals else rivals[0])
