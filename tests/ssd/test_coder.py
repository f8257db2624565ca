from math import exp, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from multibox import boxes as in_numpy
from multibox.ssd.coder import BoxCoder, center_to_corner
from tests.strategies import SIDE, boxes
from tests.tolerances import assert_close

CODER = BoxCoder(center_variance=0.1, size_variance=0.2)


def encode_one(box, default_box):
    """Equation 2, with the variances; both in center form."""
    return [
        (box[0] - default_box[0]) / default_box[2] / 0.1,
        (box[1] - default_box[1]) / default_box[3] / 0.1,
        log(box[2] / default_box[2]) / 0.2,
        log(box[3] / default_box[3]) / 0.2,
    ]


def double(values):
    return torch.tensor(values, dtype=torch.float64)


def as_center(corners):
    return torch.from_numpy(in_numpy.corner_to_center(corners.numpy()))


def test_offsets_that_a_reader_can_compute():
    default_box = double([[0.5, 0.5, 0.2, 0.4]])
    box = center_to_corner(double([[0.6, 0.4, 0.2 * exp(1), 0.2]]))
    # half a width to the right, a quarter of the height up, e times as wide, half as high
    expected = double([[0.5 / 0.1, -0.25 / 0.1, 1 / 0.2, log(0.5) / 0.2]])
    assert_close(CODER.encode(box, default_box), expected)
    assert_close(CODER.decode(expected, default_box), box)


def test_the_default_box_itself_has_offsets_0():
    default_boxes = torch.rand(7, 4, dtype=torch.float64) + 0.1
    corners, zero = center_to_corner(default_boxes), torch.zeros(7, 4, dtype=torch.float64)
    assert_close(CODER.encode(corners, default_boxes), zero)
    assert_close(CODER.decode(zero, default_boxes), corners)


@settings(max_examples=30)
@given(boxes(min_count=4, max_count=4, min_side=1), boxes(min_count=4, max_count=4, min_side=1))
def test_encode_is_the_formula(objects, default_boxes):
    objects, default_boxes = torch.from_numpy(objects / SIDE), as_center(torch.from_numpy(default_boxes / SIDE))
    expected = [encode_one(*pair) for pair in zip(as_center(objects).tolist(), default_boxes.tolist(), strict=True)]
    assert_close(CODER.encode(objects, default_boxes), double(expected))


@settings(max_examples=30)
@given(boxes(min_count=4, max_count=4, min_side=1), boxes(min_count=4, max_count=4, min_side=1))
def test_decode_undoes_encode(objects, default_boxes):
    objects, default_boxes = torch.from_numpy(objects / SIDE), as_center(torch.from_numpy(default_boxes / SIDE))
    assert_close(CODER.decode(CODER.encode(objects, default_boxes), default_boxes), objects)


def test_a_decoded_box_grows_to_at_most_the_limit():
    default_boxes, offsets = double([[0.5, 0.5, 0.1, 0.2]] * 2), double([[0, 0, 100, 1], [0, 0, -100, 0]])
    limited = BoxCoder(center_variance=0.1, size_variance=0.2, max_log_size=log(4)).decode(offsets, default_boxes)
    sizes = [[0.1 * 4, 0.2 * exp(0.2)], [0.1 * exp(-20), 0.2]]
    assert_close(as_center(limited), double([[0.5, 0.5, *size] for size in sizes]))
    assert_close(as_center(CODER.decode(offsets, default_boxes))[0, 2], double(0.1 * exp(20)))


def test_variances_only_scale_the_offsets():
    box, default_box = (torch.rand(5, 4, dtype=torch.float64) + 0.1 for _ in range(2))
    box = center_to_corner(box)
    plain = BoxCoder(center_variance=1.0, size_variance=1.0).encode(box, default_box)
    assert_close(CODER.encode(box, default_box), plain * torch.tensor([10, 10, 5, 5]))


@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 3, 4), (2, 0, 4)])
def test_any_number_of_rows(shape):
    box, default_box = (torch.rand(shape, dtype=torch.float64) + 0.1 for _ in range(2))
    box = center_to_corner(box)
    offsets = CODER.encode(box, default_box)
    assert offsets.shape == shape
    assert_close(CODER.decode(offsets, default_box), box)


@settings(max_examples=30)
@given(boxes())
def test_corner_form_is_that_of_numpy(some):
    np.testing.assert_array_equal(center_to_corner(torch.from_numpy(some)), in_numpy.center_to_corner(some))
