"""Matching and loss, image by image: the same results as `matching.py` and `loss.py`, several times faster on a CPU.

A CPU can look at values and skip what does not count: padding rows, and the many default boxes that are neither matched
nor mined. A GPU would have to stop for each look. Read the other two files to understand the method, and this one to
see how the time is saved. `tests/ssd/test_paths.py` compares the two.
"""

from heapq import heapify, heappop, heappush

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multibox.boxes import box_iou
from multibox.default_boxes import IOU_THRESHOLD
from multibox.ssd.coder import BoxCoder, center_to_corner
from multibox.ssd.loss import Losses, count_matches
from multibox.ssd.matching import NO_OVERLAP, UNMATCHED, Targets
from multibox.ssd.network import Predictions


def make_targets(
    boxes: Float[Tensor, "batch objects 4"],
    labels: Int[Tensor, "batch objects"],
    default_boxes_center: Float[Tensor, "default_boxes 4"],
    coder: BoxCoder,
) -> Targets:
    """Returns what `matching.make_targets` returns; encodes only the matched default boxes."""
    matched = match(boxes, labels >= 0, center_to_corner(default_boxes_center))
    image, place = (matched != UNMATCHED).nonzero(as_tuple=True)
    index = matched[image, place]
    offsets = coder.encode(boxes[image, index], default_boxes_center[place])
    targets = Targets(offsets.new_zeros(*matched.shape, 4), torch.zeros_like(matched))
    targets.offsets[image, place] = offsets
    targets.labels[image, place] = labels[image, index] + 1
    return targets


def match(
    boxes: Float[Tensor, "batch objects 4"],
    present: Bool[Tensor, "batch objects"],
    default_boxes: Float[Tensor, "default_boxes 4"],
    *,
    iou_threshold: float = IOU_THRESHOLD,
) -> Int[Tensor, "batch default_boxes"]:
    """Returns what `matching.match` returns; measures the overlaps of one image at a time, without padding rows."""
    default_boxes = default_boxes.float().T.contiguous().T  # as box_iou reads them fastest
    matched = torch.full((len(boxes), len(default_boxes)), UNMATCHED)
    for image, rows in enumerate(present):
        objects = rows.nonzero()[:, 0]
        if len(objects):
            overlaps = box_iou(boxes[image, objects].float().numpy(), default_boxes.numpy())
            matched[image] = torch.from_numpy(_match_image(overlaps, objects.numpy(), iou_threshold))
    return matched


def _match_image(
    overlaps: Float[np.ndarray, "objects default_boxes"], objects: Int[np.ndarray, " objects"], iou_threshold: float
) -> Int[np.ndarray, " default_boxes"]:
    """Matches one image in NumPy, which is faster than torch at argmax and at small steps.

    Args:
        overlaps: Overlap of each object with each default box.
        objects: Row of each object in the padded ground truth.
        iou_threshold: Smallest overlap of a match.
    """
    matched = np.full(overlaps.shape[1], UNMATCHED)
    largest = overlaps.max(axis=0)
    enough = np.flatnonzero((largest >= iou_threshold) & (largest > NO_OVERLAP))
    matched[enough] = objects[overlaps[:, enough].argmax(axis=0)]

    # Each object waits in a heap with its best pair, and the best pair of all comes first. If another object has taken
    # the default box meanwhile, the object waits again with the best one still free. That pair is never better than the
    # last, so no pair comes too late.
    taken: list[int] = []
    places = overlaps.argmax(axis=1).tolist()
    waiting = [(-overlaps[index, place].item(), place, index) for index, place in enumerate(places)]
    heapify(waiting)
    while waiting and -waiting[0][0] > NO_OVERLAP:
        _, place, index = heappop(waiting)
        if place in taken:
            free = overlaps[index].copy()
            free[taken] = 0
            place = int(free.argmax())
            heappush(waiting, (-free[place].item(), place, index))
        else:
            taken.append(place)
            matched[place] = objects[index]
    return matched


def multibox_loss(
    predictions: Predictions,
    targets: Targets,
    *,
    negatives_per_positive: float = 3.0,
    negatives_without_matches: int = 0,
    class_weights: Float[Tensor, " classes_and_background"] | None = None,
    divisor: Float[Tensor, ""] | float | None = None,
) -> Losses:
    """Returns what `loss.multibox_loss` returns; gradients flow through the chosen default boxes only."""
    offsets, logits = predictions
    positive = targets.labels > 0
    dtype = torch.promote_types(logits.dtype, torch.float32)
    background = torch.empty(positive.shape, dtype=dtype)
    for row, image in zip(background, logits.detach(), strict=True):
        row[:] = -F.log_softmax(image, dim=-1, dtype=dtype)[:, 0]
    negative = hard_negatives(
        background,
        positive,
        negatives_per_positive=negatives_per_positive,
        negatives_without_matches=negatives_without_matches,
    )
    matched, chosen = (mask.flatten().nonzero()[:, 0] for mask in (positive, positive | negative))
    # `index_select` has a faster gradient than an index in brackets
    matched_offsets = offsets.flatten(0, 1).index_select(0, matched).to(dtype)
    chosen_logits = logits.flatten(0, 1).index_select(0, chosen).to(dtype)
    localization = F.smooth_l1_loss(matched_offsets, targets.offsets.flatten(0, 1)[matched], reduction="sum")
    weights = None if class_weights is None else class_weights.to(dtype)
    confidence = F.cross_entropy(chosen_logits, targets.labels.flatten()[chosen], weights, reduction="sum")
    if divisor is None:
        divisor = count_matches(
            targets, negatives_per_positive=negatives_per_positive, negatives_without_matches=negatives_without_matches
        )
    divisor = torch.as_tensor(divisor).clamp(min=1)
    return Losses(localization / divisor, confidence / divisor, positive.sum())


def hard_negatives(
    losses: Float[Tensor, "batch default_boxes"],
    positive: Bool[Tensor, "batch default_boxes"],
    *,
    negatives_per_positive: float,
    negatives_without_matches: int = 0,
) -> Bool[Tensor, "batch default_boxes"]:
    """Returns what `loss.hard_negatives` returns; finds the smallest chosen loss instead of sorting all of them."""
    positives = positive.sum(dim=1, keepdim=True)
    count = torch.where(positives > 0, (positives * negatives_per_positive).long(), negatives_without_matches)
    last = count.clamp(1, positive.shape[1]) - 1
    ranked = torch.where(positive, -torch.inf, losses)
    smallest = ranked.topk(max(last.flatten().tolist(), default=0) + 1, dim=1).values.gather(1, last)
    above, equal = (ranked > smallest) | ranked.isnan(), ranked == smallest
    first = equal.cumsum(dim=1, dtype=torch.int32) <= count - above.sum(dim=1, keepdim=True)
    return (above | (equal & first)) & ~positive
