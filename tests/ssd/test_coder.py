from math import exp, log

import numpy as np
import pytest
import torch
from hypothesis import given, settings

from multibox import boxes as in_numpy
from multibox.ssd.boxes import center_to_corner, corner_to_center
from multibox.ssd.coder import BoxCoder
from tests.strategies import SIDE, boxes

CODER = BoxCoder(center_variance=0.1, size_variance=0.2)


def encode_one(box, default_box):
    """Equation 2, with the variances; both in center form."""
    return [
        (box[0] - default_box[0]) / default_box[2] / 0.1,
        (box[1] - default_box[1]) / default_box[3] / 0.1,
        log(box[2] / default_box[2]) / 0.2,
        log(box[3] / default_box[3]) / 0.2,
    ]


def as_fractions(corners):
    return corner_to_center(torch.from_numpy(corners / SIDE))


def test_offsets_that_can_be_reckoned_in_the_head():
    default_box = torch.tensor([[0.5, 0.5, 0.2, 0.4]])
    box = torch.tensor([[0.6, 0.4, 0.2 * exp(1), 0.2]])
    # half a width to the right, a quarter of the height up, e times as wide, half as high
    expected = torch.tensor([[0.5 / 0.1, -0.25 / 0.1, 1 / 0.2, log(0.5) / 0.2]])
    torch.testing.assert_close(CODER.encode(box, default_box), expected)
    torch.testing.assert_close(CODER.decode(expected, default_box), box)


def test_the_default_box_itself_has_offsets_0():
    default_boxes = torch.rand(7, 4) + 0.1
    torch.testing.assert_close(CODER.encode(default_boxes, default_boxes), torch.zeros(7, 4))
    torch.testing.assert_close(CODER.decode(torch.zeros(7, 4), default_boxes), default_boxes)


@settings(max_examples=30)
@given(boxes(min_count=4, max_count=4, min_side=1), boxes(min_count=4, max_count=4, min_side=1))
def test_encode_is_the_formula(objects, default_boxes):
    objects, default_boxes = as_fractions(objects), as_fractions(default_boxes)
    expected = [encode_one(*pair) for pair in zip(objects.tolist(), default_boxes.tolist(), strict=True)]
    np.testing.assert_allclose(CODER.encode(objects, default_boxes).numpy(), expected, rtol=1e-9, atol=1e-9)


@settings(max_examples=30)
@given(boxes(min_count=4, max_count=4, min_side=1), boxes(min_count=4, max_count=4, min_side=1))
def test_decode_undoes_encode(objects, default_boxes):
    objects, default_boxes = as_fractions(objects), as_fractions(default_boxes)
    torch.testing.assert_close(CODER.decode(CODER.encode(objects, default_boxes), default_boxes), objects)


def test_variances_only_scale_the_offsets():
    box, default_box = torch.rand(5, 4) + 0.1, torch.rand(5, 4) + 0.1
    plain = BoxCoder(center_variance=1.0, size_variance=1.0).encode(box, default_box)
    torch.testing.assert_close(CODER.encode(box, default_box), plain * torch.tensor([10.0, 10, 5, 5]))


@pytest.mark.parametrize("shape", [(0, 4), (4,), (2, 3, 4), (2, 0, 4)])
def test_any_number_of_rows(shape):
    box, default_box = torch.rand(shape) + 0.1, torch.rand(shape) + 0.1
    offsets = CODER.encode(box, default_box)
    assert offsets.shape == shape
    torch.testing.assert_close(CODER.decode(offsets, default_box), box)


@settings(max_examples=30)
@given(boxes())
def test_center_and_corner_form_are_those_of_numpy(some):
    np.testing.assert_array_equal(corner_to_center(torch.from_numpy(some)), in_numpy.corner_to_center(some))
    np.testing.assert_array_equal(center_to_corner(torch.from_numpy(some)), in_numpy.center_to_corner(some))
