"""The matching strategy: which object each default box learns (section 2.2; the Caffe code's MatchBBox)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multibox.ssd.boxes import box_iou

UNMATCHED = -1
"""In the place of an object's index: the default box learns the background."""

_NO_OVERLAP = 1e-6
"""The Caffe code takes overlaps up to this as none."""


def match(
    boxes: Float[Tensor, "batch objects 4"],
    present: Bool[Tensor, "batch objects"],
    default_boxes: Float[Tensor, "default_boxes 4"],
    *,
    overlap_threshold: float = 0.5,
) -> Int[Tensor, "batch default_boxes"]:
    """The index of the object that each default box is matched to, or `UNMATCHED`.

    First each object gets a default box of its own: the pair with the largest jaccard overlap of all is matched, then
    the largest among the objects and default boxes that are left, and so on. Then every other default box is matched to
    the object it overlaps most, if by at least `overlap_threshold`. (The paper says "higher than"; its code, and we,
    take 0.5 itself too.) Of equal overlaps the default box that comes first wins, then the object that comes first.

    Args:
        boxes: Ground truth in corner form, padded to the same number of rows for each picture.
        present: Which rows are objects; the others are padding, and match nothing.
        default_boxes: In corner form, not clipped.
        overlap_threshold: From 0 to 1.
    """
    if boxes.shape[1] == 0:
        return torch.full((len(boxes), len(default_boxes)), UNMATCHED, device=boxes.device)
    overlaps = box_iou(boxes[:, :, None], default_boxes).masked_fill_(~present[..., None], 0)
    best_overlap, best_object = overlaps.max(dim=1)
    enough = (best_overlap >= overlap_threshold) & (best_overlap > _NO_OVERLAP)
    matched = torch.where(enough, best_object, UNMATCHED)
    own = _own_default_boxes(overlaps)
    # objects that overlap no default box are sent to a column of their own, which is cut off
    columns = torch.where(own == UNMATCHED, len(default_boxes), own)
    spare = torch.cat([matched, matched.new_zeros(len(matched), 1)], dim=1)
    return spare.scatter(1, columns, torch.arange(boxes.shape[1], device=boxes.device).expand_as(columns))[:, :-1]


def _own_default_boxes(overlaps: Float[Tensor, "batch objects default_boxes"]) -> Int[Tensor, "batch objects"]:
    """The default box that is matched to each object first: greedy bipartite matching.

    At most `objects - 1` default boxes are taken before an object's turn comes, so its best `objects` ones are all that
    the rounds need to look at.
    """
    batch, objects, default_boxes = overlaps.shape
    # The bits of a positive float grow with its value: with the index below them, one whole number sorts by overlap,
    # then by place, and nothing is left to chance where overlaps are equal.
    place = torch.arange(default_boxes, device=overlaps.device)
    keys = (overlaps.contiguous().view(torch.int32).long() << 32) | (default_boxes - place)
    keys = keys.topk(min(objects, default_boxes), dim=2).values
    keys = torch.where(keys >> 32 > _bits(_NO_OVERLAP), keys, 0)
    own = torch.full((batch, objects), UNMATCHED, device=overlaps.device)
    for _ in range(objects):
        best, at = keys.flatten(1).max(dim=1)
        row = (at // keys.shape[2])[:, None]
        index = default_boxes - (best & 0xFFFFFFFF)
        own = torch.where((best > 0)[:, None], own.scatter(1, row, index[:, None]), own)
        taken = (keys & 0xFFFFFFFF) == (best & 0xFFFFFFFF)[:, None, None]
        done = torch.zeros_like(own, dtype=torch.bool).scatter(1, row, True)
        keys = torch.where(taken | done[..., None], 0, keys)
    return own


def _bits(value: float) -> int:
    return int(torch.tensor(value).view(torch.int32))
