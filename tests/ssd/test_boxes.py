import numpy as np
import torch
from hypothesis import given

from multibox import boxes as on_arrays
from multibox.ssd.boxes import box_iou
from tests.strategies import boxes


def test_the_overlap_of_empty_boxes_is_0():
    point, empty, some = (torch.tensor(box) for box in ([0.5] * 4, [0.2, 0.2, 0.2, 0.8], [0.0, 0.0, 1.0, 1.0]))
    assert box_iou(point, point) == box_iou(point, empty) == box_iou(empty, some) == 0
    assert box_iou(some, some) == 1
    assert box_iou(torch.zeros(0, 1, 4), torch.zeros(7, 4)).shape == (0, 7)


@given(boxes(max_count=5), boxes(max_count=5))
def test_the_table_of_all_pairs_is_that_of_the_arrays(some, others):
    table = box_iou(torch.tensor(some)[:, None], torch.tensor(others))
    np.testing.assert_allclose(table.numpy(), on_arrays.box_iou(some, others), rtol=1e-9, atol=1e-12)
