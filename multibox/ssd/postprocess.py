"""From predictions to detections: threshold, non-maximum suppression, limits (the Caffe code's DetectionOutput).

Exact, and quick because it looks at few boxes.
"""

from collections.abc import Iterator, Sequence
from math import inf, log
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multibox.config import Postprocess, Scoring
from multibox.ssd.boxes import box_iou, center_to_corner
from multibox.ssd.coder import BoxCoder

_CHUNK = 256
"""Candidates that are compared with each other at once."""

_PREFIX = 1024
"""Where there are more candidates than this, they are not all sorted: the best so many mostly reach the maximum."""


class Postprocessed(NamedTuple):
    """What is kept of one image, the highest score first.

    Attributes:
        boxes: Corner form, as fractions of the image, not clipped.
        scores: From 0 to 1.
        labels: Indices into the class names.
        default_box_indices: The index of the default box of each.
    """

    boxes: Float[Tensor, "detections 4"]
    scores: Float[Tensor, " detections"]
    labels: Int[Tensor, " detections"]
    default_box_indices: Int[Tensor, " detections"]


def postprocess(
    offsets: Float[Tensor, "default_boxes 4"],
    logits: Float[Tensor, "default_boxes classes_and_background"],
    default_boxes_center: Float[Tensor, "default_boxes 4"],
    coder: BoxCoder,
    *,
    settings: Postprocess,
    scoring: Scoring = "softmax",
    clip_boxes: bool = False,
    labels: Sequence[int] | None = None,
) -> Postprocessed:
    """The detections of one image.

    A class score above the threshold makes a candidate. The best `max_candidates_per_class` candidates of each class
    enter suppression. In the order of their scores, each is kept unless it overlaps a kept one (of its class, or of any
    class) by more than the IoU threshold. The best `max_detections` are returned. Of equal scores, the default box that
    comes first wins, then the class that comes first.

    Args:
        offsets: Of one image.
        logits: Of one image.
        default_boxes_center: Center form, as fractions of the image.
        coder: Offsets to boxes.
        settings: Thresholds and limits.
        scoring: What makes scores of logits.
        clip_boxes: Whether boxes are clipped to the image before they suppress each other.
        labels: The classes that are wanted; all where it is `None`.
    """
    scores, rows = _scores(logits.float(), settings.score_threshold, scoring, labels)
    columns = scores.shape[1]
    for places in _prefixes(scores, settings):
        if len(places) > settings.max_candidates_per_class:
            places = places[_rank(places % columns) < settings.max_candidates_per_class]
        found, classes = rows[places // columns], places % columns
        boxes = center_to_corner(coder.decode(offsets[found].float(), default_boxes_center[found]))
        if clip_boxes:
            boxes = boxes.clamp(0, 1)
        rival_classes = torch.zeros_like(classes) if settings.class_agnostic else classes
        kept = _suppress(boxes, rival_classes, settings.iou_threshold, max_detections=settings.max_detections)
        if len(kept) == settings.max_detections:
            break
    return Postprocessed(boxes[kept], scores.flatten()[places[kept]], classes[kept] - 1, found[kept])


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
    scores: Float[Tensor, "rows classes_and_background"], settings: Postprocess
) -> Iterator[Int[Tensor, " candidates"]]:
    """The places (row x columns + column) of the scores above the threshold, the highest first: the best, then all.

    What is kept depends on higher scores only: where the best reach the maximum, nobody asks for the others.
    """
    flat = scores.flatten()
    above = flat > settings.score_threshold
    if above.sum() > _PREFIX:
        least = flat.topk(_PREFIX, sorted=False).values.min()
        yield _sorted(flat, flat >= least)
        # the last that goes on of each class, or one equal to it
        last = scores.topk(min(settings.max_candidates_per_class, len(scores)), dim=0).values[-1]
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
    boxes: Float[Tensor, "boxes 4"], classes: Int[Tensor, " boxes"], iou_threshold: float, *, max_detections: int
) -> Int[Tensor, " kept"]:
    """Returns the first `max_detections` boxes that greedy suppression keeps, the earlier box always winning."""
    kept = classes.new_empty(0)
    for chunk in torch.arange(len(boxes), device=boxes.device).split(_CHUNK):
        pool = torch.cat([kept, chunk])
        kept = pool[_greedy(boxes[pool], classes[pool], iou_threshold, settled=len(kept))][:max_detections]
        if len(kept) == max_detections:
            break
    return kept


def _greedy(
    boxes: Float[Tensor, "boxes 4"], classes: Int[Tensor, " boxes"], iou_threshold: float, *, settled: int
) -> Bool[Tensor, " boxes"]:
    """Which boxes greedy suppression keeps, where it has kept the first `settled` already.

    Asks again who overlaps a kept box of its class until the answer stays the same. By induction down the order there
    is just one such answer: the first box is kept, and each answer settles at least one box more.
    """
    pairs = (classes[settled:, None] == classes).tril_(settled - 1).nonzero()
    pairs[:, 0] += settled
    later, earlier = pairs[box_iou(*boxes[pairs].unbind(1)) > iou_threshold].unbind(1)
    keep = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    while True:
        answer = torch.ones_like(keep)
        answer[later[keep[earlier]]] = False
        if torch.equal(answer, keep):
            return keep
        keep = answer
