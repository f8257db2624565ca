"""The matching strategy: choose the object that each default box learns, and make its targets (section 2.2).

The rules are those of the Caffe code's MatchBBox. Everything is batched, with static shapes and without waiting for the
device, so that a GPU can capture it. `multibox.ssd.cpu` gives the same results faster on a CPU.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multibox.default_boxes import IOU_THRESHOLD
from multibox.ssd.coder import BoxCoder, center_to_corner

UNMATCHED = -1
"""Stands in for the index of an object: the default box has no match, and learns the background."""

NO_OVERLAP = 1e-6
"""The Caffe code treats overlaps up to this value as none."""


class Targets(NamedTuple):
    """The values that the network should predict for each default box.

    Attributes:
        offsets: The four numbers by which `BoxCoder.encode` describes the matched object's box as seen from the default
            box; they are zero if the default box is unmatched.
        labels: The matched object's label + 1; 0, the background, if the default box is unmatched.
    """

    offsets: Float[Tensor, "batch default_boxes 4"]
    labels: Int[Tensor, "batch default_boxes"]


def make_targets(
    boxes: Float[Tensor, "batch objects 4"],
    labels: Int[Tensor, "batch objects"],
    default_boxes_center: Float[Tensor, "default_boxes 4"],
    coder: BoxCoder,
) -> Targets:
    """Matches objects to default boxes and encodes them.

    Args:
        boxes: Objects in corner form, as fractions of the image. Images with fewer objects than others are padded.
        labels: Indices into the class names; -1 marks a padding row.
        default_boxes_center: Default boxes in center form, as fractions of the image.
        coder: Encodes a box as offsets from its default box.
    """
    matched = match(boxes, labels >= 0, center_to_corner(default_boxes_center))
    if boxes.shape[1] == 0:
        return Targets(boxes.new_zeros(*matched.shape, 4), torch.zeros_like(matched))
    positive = matched != UNMATCHED
    index = matched.clamp(min=0)
    matched_boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
    offsets = coder.encode(matched_boxes, default_boxes_center.expand_as(matched_boxes))
    return Targets(
        offsets=torch.where(positive[..., None], offsets, 0.0),
        labels=torch.where(positive, labels.gather(1, index) + 1, 0),
    )


def match(
    boxes: Float[Tensor, "batch objects 4"],
    present: Bool[Tensor, "batch objects"],
    default_boxes: Float[Tensor, "default_boxes 4"],
    *,
    iou_threshold: float = IOU_THRESHOLD,
) -> Int[Tensor, "batch default_boxes"]:
    """Returns the index of the object that each default box is matched to, or `UNMATCHED`.

    First, each object gets a default box of its own: the pair with the largest overlap of all is matched, then the
    largest among the remaining objects and default boxes, and so on. Then every remaining default box is matched to the
    object it overlaps most, if their overlap is at least `iou_threshold`. (The paper says "higher than"; its code
    accepts the threshold itself, and so do we.) If overlaps are equal, the first default box wins, then the first
    object.

    Args:
        boxes: Ground truth in corner form, padded to the same number of rows for each image.
        present: True for rows that are objects. Other rows are padding and match nothing.
        default_boxes: Default boxes in corner form, not clipped.
        iou_threshold: Smallest overlap of a match, from 0 to 1.
    """
    if boxes.shape[1] == 0:
        return torch.full((len(boxes), len(default_boxes)), UNMATCHED, device=boxes.device)
    overlaps = box_iou(boxes.float()[:, :, None], default_boxes.float())
    overlaps = overlaps.masked_fill(~present[..., None] | (overlaps <= NO_OVERLAP), 0)
    largest, closest_object = overlaps.max(dim=1)
    matched = torch.where((largest > 0) & (largest >= iou_threshold), closest_object, UNMATCHED)
    return _give_each_object_its_own(matched, overlaps)


def box_iou(boxes1: Float[Tensor, "*#rows 4"], boxes2: Float[Tensor, "*#rows 4"]) -> Float[Tensor, "*rows"]:
    """Returns the jaccard overlap of boxes in corner form, row by row; 0 if both boxes are empty.

    Rows are broadcast: `box_iou(boxes1[:, None], boxes2)` is the table of all pairs. (`torchvision.ops.box_iou` takes
    two lists of boxes. Here and in suppression, each image of a batch has a table of its own.)
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


def _give_each_object_its_own(
    matched: Int[Tensor, "batch default_boxes"], overlaps: Float[Tensor, "batch objects default_boxes"]
) -> Int[Tensor, "batch default_boxes"]:
    """Returns the matches after greedy bipartite matching: each object takes one default box, best pair first.

    The search needs only the best `objects` default boxes of each object. Other objects can take at most `objects - 1`
    of them, so the best one that is still free is always in the table.
    """
    objects, default_boxes = overlaps.shape[1:]
    count = min(objects, default_boxes)
    rank, place = _largest(overlaps, count)
    row = torch.arange(objects, device=overlaps.device)[:, None]
    for _ in range(count):
        best, pair = rank.flatten(1).max(dim=1, keepdim=True)  # the first of equals: the first object
        best_place, best_row = place.flatten(1).gather(1, pair), pair // count
        matched = matched.scatter(1, best_place, torch.where(best > 0, best_row, matched.gather(1, best_place)))
        taken = (place == best_place[..., None]) | (row == best_row[..., None])
        rank = rank.masked_fill(taken, 0)
    return matched


def _largest(
    overlaps: Float[Tensor, "batch objects default_boxes"], count: int
) -> tuple[Int[Tensor, "batch objects count"], Int[Tensor, "batch objects count"]]:
    """Returns the `count` largest overlaps of each object, as ranks, and their default boxes.

    A larger overlap has a larger rank. If overlaps are equal, the first default box has the larger one. A rank above 0
    means that there is an overlap. Ranks are needed because `topk` does not promise which of equal values it takes. The
    bits of nonnegative floats sort as the floats do: they form the upper half of the rank, and the place of the default
    box forms the lower half.
    """
    place = torch.arange(overlaps.shape[2], device=overlaps.device)
    rank, largest = ((overlaps.view(torch.int32).long() << 32) - place).topk(count, dim=2)
    return rank, largest
