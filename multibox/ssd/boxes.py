"""Boxes as tensors: corner form, center form and overlap, as in `multibox.boxes` for arrays.

`torchvision.ops.box_iou` takes two lists of boxes. Matching and suppression need a table for each image of a batch, so
the overlap here broadcasts.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def corner_to_center(boxes: Float[Tensor, "*rows 4"]) -> Float[Tensor, "*rows 4"]:
    """Returns the boxes as `(center_x, center_y, width, height)`."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return torch.cat([(low + high) / 2, high - low], dim=-1)


def center_to_corner(boxes_center: Float[Tensor, "*rows 4"]) -> Float[Tensor, "*rows 4"]:
    """Returns the boxes as `(x_min, y_min, x_max, y_max)`."""
    center, half = boxes_center[..., :2], boxes_center[..., 2:] / 2
    return torch.cat([center - half, center + half], dim=-1)


def box_iou(boxes1: Float[Tensor, "*#rows 4"], boxes2: Float[Tensor, "*#rows 4"]) -> Float[Tensor, "*rows"]:
    """Returns the jaccard overlap of boxes in corner form, row by row; 0 if both boxes are empty.

    Rows are broadcast: `box_iou(boxes1[:, None], boxes2)` is the table of all pairs.
    """
    # one coordinate at a time, each contiguous, is faster than tensors of shape (..., 2)
    x_min, y_min, x_max, y_max = boxes1.movedim(-1, 0).contiguous().unbind()
    left, top, right, bottom = boxes2.movedim(-1, 0).contiguous().unbind()
    width = torch.minimum(x_max, right).sub_(torch.maximum(x_min, left)).clamp_(min=0)
    height = torch.minimum(y_max, bottom).sub_(torch.maximum(y_min, top)).clamp_(min=0)
    intersection = width.mul_(height)
    del height  # frees memory: these tables are large
    union = ((x_max - x_min) * (y_max - y_min) + (right - left) * (bottom - top)).sub_(intersection)
    return intersection.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))  # 0 / 0 where both are empty
