"""Boxes as rows of four numbers, in numpy: their two forms, overlap, decoding, and non-maximum suppression.

Corner form is `(x_min, y_min, x_max, y_max)`; center form is `(center_x, center_y, width, height)`. Coordinates are
continuous: 0 is the left or top edge of the first pixel, `width` is the right edge of the last.
"""

import numpy as np
from jaxtyping import Float, Int

_CHUNK = 256
"""Number of candidates that suppression compares with each other at once."""

SIZE_EDGES = (8, 16, 32, 64, 128, 256)
"""Square roots of the area, in pixels of the input, between the groups in which objects are counted by size."""

NOT_SUPPRESSED = -1
"""Stands in for the place of a kept box: no kept box suppresses this one."""


def corner_to_center(boxes: Float[np.ndarray, "*rows 4"]) -> Float[np.ndarray, "*rows 4"]:
    """Returns the boxes in center form; the inverse of `center_to_corner`."""
    low, high = boxes[..., :2], boxes[..., 2:]
    return np.concatenate([(low + high) / 2, high - low], axis=-1)


def center_to_corner(boxes_center: Float[np.ndarray, "*rows 4"]) -> Float[np.ndarray, "*rows 4"]:
    """Returns the boxes in corner form; the inverse of `corner_to_center`."""
    center, half = boxes_center[..., :2], boxes_center[..., 2:] / 2
    return np.concatenate([center - half, center + half], axis=-1)


def area(boxes: Float[np.ndarray, "*rows 4"]) -> Float[np.ndarray, "*rows"]:
    """Returns width times height of each box; 0 for a box whose corners are swapped."""
    size = np.maximum(boxes[..., 2:] - boxes[..., :2], 0)
    product: Float[np.ndarray, "*rows"] = size[..., 0] * size[..., 1]
    return product


def box_iou(
    boxes1: Float[np.ndarray, "rows 4"], boxes2: Float[np.ndarray, "columns 4"]
) -> Float[np.ndarray, "rows columns"]:
    """Returns the jaccard overlap (intersection over union) of each pair; 0 where both boxes are empty.

    To measure as the VOC devkit does, with the last pixel included, add 1 to `x_max` and `y_max` of all boxes first.
    """
    return _iou(boxes1.T[:, :, None], boxes2.T[:, None])


def clip(boxes: Float[np.ndarray, "*rows 4"], height: float, width: float) -> Float[np.ndarray, "*rows 4"]:
    """Returns the part of each box that lies inside an image of `height` x `width`."""
    limits = np.array([width, height, width, height], dtype=boxes.dtype)
    clipped: Float[np.ndarray, "*rows 4"] = np.clip(boxes, 0, limits)
    return clipped


def decode(
    offsets: Float[np.ndarray, "*rows 4"],
    default_boxes_center: Float[np.ndarray, "*rows 4"],
    *,
    center_variance: float,
    size_variance: float,
    max_log_size: float | None = None,
) -> Float[np.ndarray, "*rows 4"]:
    """Returns the boxes, in corner form, at these offsets from their default boxes (equation 2, solved for the box).

    Args:
        offsets: The network's four numbers for each default box, `(Δcx, Δcy, Δw, Δh)`.
        default_boxes_center: The default boxes in center form.
        center_variance: Scales the offsets of the center.
        size_variance: Scales the offsets of the size.
        max_log_size: Limits a box to `exp(max_log_size)` times its default box; no limit if `None`.
    """
    default_center, default_size = default_boxes_center[..., :2], default_boxes_center[..., 2:]
    log_size = offsets[..., 2:] * size_variance
    if max_log_size is not None:
        log_size = np.minimum(log_size, max_log_size)
    center = offsets[..., :2] * center_variance * default_size + default_center
    half = np.exp(log_size) * default_size / 2
    return np.concatenate([center - half, center + half], axis=-1)


def nms(
    boxes: Float[np.ndarray, "boxes 4"],
    labels: Int[np.ndarray, " boxes"],
    iou_threshold: float,
    *,
    max_detections: int,
) -> Int[np.ndarray, " kept"]:
    """Returns the indices of the boxes that greedy non-maximum suppression keeps, at most the first `max_detections`.

    Boxes are visited in their order. Each is kept unless it overlaps a kept box of its own label by more than the
    threshold. This is computed chunk by chunk, by iterating "kept if no kept box before it overlaps it too much" to a
    fixed point. There is only one (by induction on the order: each round settles at least one more box), so the result
    equals visiting one box after the other.

    Args:
        boxes: Boxes in corner form, the highest score first.
        labels: The class of each box; boxes of different classes do not suppress each other.
        iou_threshold: The largest overlap that two kept boxes of one class may have.
        max_detections: Stop after this many kept boxes.
    """
    corners, labels = boxes.T.copy(), labels.astype(np.int16)  # faster to gather, faster to compare
    kept = np.empty(0, dtype=np.int64)
    for start in range(0, len(boxes), _CHUNK):
        pool = np.concatenate([kept, np.arange(start, min(start + _CHUNK, len(boxes)))])
        rows = len(pool) - len(kept)
        rivals = np.tri(rows, len(pool), len(kept) - 1, dtype=bool)  # row: a box of the chunk; column: a box before it
        rivals &= labels[pool[len(kept) :], None] == labels[pool]
        pairs = np.flatnonzero(rivals)
        later = pairs // len(pool)
        earlier = pairs - later * len(pool)
        later += len(kept)
        iou = _iou(corners.take(pool[later], axis=1), corners.take(pool[earlier], axis=1))
        suppresses = iou > iou_threshold
        later, earlier = later[suppresses], earlier[suppresses]
        keep, settled = np.ones(len(pool), dtype=bool), False
        while not settled:
            answer = np.ones_like(keep)
            answer[later[keep[earlier]]] = False
            keep, settled = answer, np.array_equal(answer, keep)
        kept = pool[keep][:max_detections]
        if len(kept) == max_detections:
            break
    return kept


def suppressed_by(
    boxes: Float[np.ndarray, "boxes 4"],
    labels: Int[np.ndarray, " boxes"],
    kept: Int[np.ndarray, " kept"],
    iou_threshold: float,
) -> Int[np.ndarray, " boxes"]:
    """Returns for each box the place in `kept` of the kept box that suppresses it, or `NOT_SUPPRESSED`.

    It is the first kept box of its label that it overlaps by more than the threshold, which is the best of those that
    suppress it. A kept box is not suppressed. Neither is a box that only a box beyond the limit on detections overlaps.

    Args:
        boxes: Boxes in corner form, the highest score first.
        labels: The class of each box.
        kept: Indices of the boxes that `nms` kept of them with this threshold.
        iou_threshold: The largest overlap that two kept boxes of one class may have.
    """
    by = np.full(len(boxes), NOT_SUPPRESSED)
    others = np.setdiff1d(np.arange(len(boxes)), kept) if len(kept) else kept
    for start in range(0, len(others), _CHUNK):
        chunk = others[start : start + _CHUNK]
        suppresses = box_iou(boxes[chunk], boxes[kept]) > iou_threshold
        suppresses &= labels[chunk, None] == labels[kept]
        found = suppresses.any(axis=1)
        by[chunk[found]] = suppresses[found].argmax(axis=1)
    return by


def box_voting(
    boxes: Float[np.ndarray, "boxes 4"],
    labels: Int[np.ndarray, " boxes"],
    scores: Float[np.ndarray, " boxes"],
    kept: Int[np.ndarray, " kept"],
    iou_threshold: float,
) -> Float[np.ndarray, "kept 4"]:
    """Returns each kept box, moved to the score-weighted mean of itself and of the boxes that vote for it.

    A box votes for the kept one that suppresses it, as `suppressed_by` says. So the mean depends on all boxes that
    entered suppression, also on those that come after the last kept one.

    The idea is that of Gidaris and Komodakis (Object detection via a multi-region and semantic segmentation-aware CNN
    model, ICCV 2015), whose boxes may vote for several kept ones.

    Args:
        boxes: Boxes in corner form, the highest score first.
        labels: The class of each box; boxes vote for a box of their own class.
        scores: Score of each box, above 0.
        kept: Indices of the boxes that `nms` kept of them with this threshold.
        iou_threshold: A box votes for a kept one if it overlaps it by more than this.
    """
    weights = scores[kept, None].astype(np.float64)
    sums = boxes[kept] * weights
    chosen = suppressed_by(boxes, labels, kept, iou_threshold)
    voters = np.flatnonzero(chosen != NOT_SUPPRESSED)
    np.add.at(weights, chosen[voters], scores[voters, None])
    np.add.at(sums, chosen[voters], boxes[voters] * scores[voters, None].astype(np.float64))
    means: Float[np.ndarray, "kept 4"] = (sums / weights).astype(boxes.dtype)
    return means


def _iou(boxes1: Float[np.ndarray, "4 *#rows"], boxes2: Float[np.ndarray, "4 *#rows"]) -> Float[np.ndarray, "*rows"]:
    """Returns the overlap of boxes given as four rows of coordinates, which numpy handles faster than columns."""
    x_min, y_min, x_max, y_max = boxes1
    left, top, right, bottom = boxes2
    # in place: new memory for each large table would take as long as the arithmetic
    width = np.minimum(x_max, right)
    width -= np.maximum(x_min, left)
    height = np.minimum(y_max, bottom)
    height -= np.maximum(y_min, top)
    intersection: Float[np.ndarray, "*rows"] = np.maximum(width, 0, out=width)
    intersection *= np.maximum(height, 0, out=height)
    areas = np.maximum(x_max - x_min, 0) * np.maximum(y_max - y_min, 0)
    other_areas = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    union = areas + other_areas
    union -= intersection
    intersection /= np.maximum(union, np.finfo(union.dtype).tiny, out=union)  # 0 / 0 is 0
    return intersection
