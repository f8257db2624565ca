"""From predictions to detections: threshold, non-maximum suppression, limits (the Caffe code's DetectionOutput).

Exact, and quick because it looks at few boxes.
"""

from collections.abc import Iterator, Sequence
from math import inf, log
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multibox.config import Scoring, Selection
from multibox.ssd.boxes import box_iou, center_to_corner
from multibox.ssd.coder import BoxCoder

_CHUNK = 256
"""Candidates that are compared with each other at once."""

_PREFIX = 1024
"""Where there are more candidates than this, they are not all put in order: the best so many mostly reach the limit."""


class Selected(NamedTuple):
    """What is kept of one picture, the highest score first.

    Attributes:
        boxes: Corner form, as fractions of the picture, not clipped.
        scores: From 0 to 1.
        labels: Indices into the class names.
        default_boxes: The index of the default box of each.
    """

    boxes: Float[Tensor, "detections 4"]
    scores: Float[Tensor, " detections"]
    labels: Int[Tensor, " detections"]
    default_boxes: Int[Tensor, " detections"]


def select(
    offsets: Float[Tensor, "default_boxes 4"],
    logits: Float[Tensor, "default_boxes classes_and_background"],
    default_boxes_center: Float[Tensor, "default_boxes 4"],
    coder: BoxCoder,
    *,
    selection: Selection,
    scoring: Scoring = "softmax",
    clip_boxes: bool = False,
    labels: Sequence[int] | None = None,
) -> Selected:
    """The detections of one picture.

    A class score above the threshold makes a candidate; the best `limit_per_class` candidates of each class go on; in
    the order of their scores each is kept unless it overlaps a kept one (of its class, or of any) by more than the
    overlap threshold; the best `limit` are returned. Of equal scores the default box that comes first wins, then the
    class.

    Args:
        offsets: Of one picture.
        logits: Of one picture.
        default_boxes_center: Centre form, as fractions of the picture.
        coder: Offsets to boxes.
        selection: Thresholds and limits.
        scoring: What makes scores of logits.
        clip_boxes: Whether boxes are clipped to the picture before they suppress each other.
        labels: The classes that are wanted; all where it is `None`.
    """
    scores, rows = _scores(logits.float(), selection.score_threshold, scoring, labels)
    columns = scores.shape[1]
    for places in _prefixes(scores, selection):
        if len(places) > selection.limit_per_class:
            places = places[_rank(places % columns) < selection.limit_per_class]
        found, classes = rows[places // columns], places % columns
        boxes = center_to_corner(coder.decode(offsets[found].float(), default_boxes_center[found]))
        if clip_boxes:
            boxes = boxes.clamp(0, 1)
        rival_classes = classes if selection.suppression == "by-class" else torch.zeros_like(classes)
        kept = _suppress(boxes, rival_classes, selection.overlap_threshold, limit=selection.limit)
        if len(kept) == selection.limit:
            break
    return Selected(boxes[kept], scores.flatten()[places[kept]], classes[kept] - 1, found[kept])


def _scores(
    logits: Float[Tensor, "default_boxes classes_and_background"],
    threshold: float,
    scoring: Scoring,
    labels: Sequence[int] | None,
) -> tuple[Float[Tensor, "rows classes_and_background"], Int[Tensor, " rows"]]:
    """The scores of the default boxes that may pass the threshold, and which those are.

    Columns are the logits'; those of classes that are not wanted, and of the background, are 0.
    """
    # A softmax is below exp(logit - background logit), a sigmoid below exp(logit): few boxes need to be finished.
    # (Rounding gets its due.)
    least = log(threshold) - 1e-4 if threshold > 0 else -inf
    background = logits[:, 0] if scoring == "softmax" else 0.0
    rows = (logits[:, 1:].amax(dim=1) - background > least).nonzero()[:, 0]
    wanted = torch.zeros(logits.shape[1], device=logits.device)
    wanted[1:] = 1 if labels is None else 0
    wanted[[label + 1 for label in labels or ()]] = 1
    scores = logits[rows].softmax(dim=1) if scoring == "softmax" else logits[rows].sigmoid()
    return scores.mul_(wanted), rows


def _prefixes(
    scores: Float[Tensor, "rows classes_and_background"], selection: Selection
) -> Iterator[Int[Tensor, " candidates"]]:
    """The places (row x columns + column) of the scores above the threshold, the highest first: the best, then all.

    What is kept depends on higher scores only: where the best reach the limit, nobody asks for the others.
    """
    flat = scores.flatten()
    above = flat > selection.score_threshold
    if above.sum() > _PREFIX:
        least = flat.topk(_PREFIX, sorted=False).values.min()
        yield _sorted(flat, flat >= least)
        # the last that goes on of each class, or one equal to it
        last = scores.topk(min(selection.limit_per_class, len(scores)), dim=0).values[-1]
        above &= (scores >= last).flatten()
    yield _sorted(flat, above)


def _sorted(scores: Float[Tensor, " places"], chosen: Bool[Tensor, " places"]) -> Int[Tensor, " candidates"]:
    places = chosen.nonzero()[:, 0]
    return places[scores[places].sort(descending=True, stable=True).indices]


def _rank(classes: Int[Tensor, " candidates"]) -> Int[Tensor, " candidates"]:
    """How many of the same class come before each."""
    ordered, order = classes.sort(stable=True)
    first = torch.searchsorted(ordered, ordered)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device) - first)


def _suppress(
    boxes: Float[Tensor, "boxes 4"], classes: Int[Tensor, " boxes"], overlap_threshold: float, *, limit: int
) -> Int[Tensor, " kept"]:
    """The first `limit` boxes that greedy suppression keeps; the box that comes first goes before all others."""
    kept = classes.new_empty(0)
    for chunk in torch.arange(len(boxes), device=boxes.device).split(_CHUNK):
        pool = torch.cat([kept, chunk])
        kept = pool[_greedy(boxes[pool], classes[pool], overlap_threshold, settled=len(kept))][:limit]
        if len(kept) == limit:
            break
    return kept


def _greedy(
    boxes: Float[Tensor, "boxes 4"], classes: Int[Tensor, " boxes"], overlap_threshold: float, *, settled: int
) -> Bool[Tensor, " boxes"]:
    """Which boxes greedy suppression keeps, where it has kept the first `settled` already.

    Asks again who overlaps a kept box of its class until the answer stays the same. By induction down the order there
    is just one such answer: the first box is kept, and each answer settles at least one box more.
    """
    pairs = (classes[settled:, None] == classes).tril_(settled - 1).nonzero()
    pairs[:, 0] += settled
    later, earlier = pairs[box_iou(*boxes[pairs].unbind(1)) > overlap_threshold].unbind(1)
    keep = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    while True:
        answer = torch.ones_like(keep)
        answer[later[keep[earlier]]] = False
        if torch.equal(answer, keep):
            return keep
        keep = answer
