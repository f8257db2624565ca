"""Boxes as rows of four numbers, in numpy: corner form `(x_min, y_min, x_max, y_max)` and center form.

Coordinates are continuous: 0 is the left or top edge of the first pixel, `width` the right edge of the last.
Center form is `(center_x, center_y, width, height)`.
"""

import numpy as np
from jaxtyping import Float


def corner_to_center(boxes: Float[np.ndarray, "*rows 4"]) -> Float[np.ndarray, "*rows 4"]:
    """The same boxes in center form; the inverse of `center_to_corner`."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=-1)


def center_to_corner(boxes_center: Float[np.ndarray, "*rows 4"]) -> Float[np.ndarray, "*rows 4"]:
    """The same boxes in corner form; the inverse of `corner_to_center`."""
    center, half = boxes_center[..., :2], boxes_center[..., 2:] / 2
    return np.concatenate([center - half, center + half], axis=-1)


def area(boxes: Float[np.ndarray, "*rows 4"]) -> Float[np.ndarray, "*rows"]:
    """Width times height; a box whose corners are swapped has area 0."""
    size = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    product: Float[np.ndarray, "*rows"] = size[..., 0] * size[..., 1]
    return product


def box_iou(
    boxes1: Float[np.ndarray, "rows 4"], boxes2: Float[np.ndarray, "columns 4"]
) -> Float[np.ndarray, "rows columns"]:
    """The jaccard overlap of each pair: intersection over union, 0 where both are empty.

    To measure as the VOC devkit does, with the last pixel included, add 1 to `x_max` and `y_max` of both first.
    """
    # one side after the other: numpy is slow along an axis of two
    width, height = (
        np.minimum(boxes1[:, None, axis + 2], boxes2[:, axis + 2]) - np.maximum(boxes1[:, None, axis], boxes2[:, axis])
        for axis in (0, 1)
    )
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    union = area(boxes1)[:, None] + area(boxes2)[None, :] - intersection
    iou: Float[np.ndarray, "rows columns"] = np.zeros_like(union)
    np.divide(intersection, union, out=iou, where=union > 0)
    return iou


def clip(boxes: Float[np.ndarray, "*rows 4"], height: float, width: float) -> Float[np.ndarray, "*rows 4"]:
    """The part of each box inside an image of `height` x `width`."""
    limits = np.array([width, height, width, height], dtype=boxes.dtype)
    clipped: Float[np.ndarray, "*rows 4"] = np.clip(boxes, 0, limits)
    return clipped
