"""The matching strategy: which object each default box learns (section 2.2; the Caffe code's MatchBBox)."""

from heapq import heapify, heappop, heappush

import numpy as np
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
    iou_threshold: float = 0.5,
) -> Int[Tensor, "batch default_boxes"]:
    """The index of the object that each default box is matched to, or `UNMATCHED`.

    First each object gets a default box of its own: the pair with the largest jaccard overlap of all is matched, then
    the largest among the objects and default boxes that are left, and so on. Then every other default box is matched to
    the object it overlaps most, if by at least `iou_threshold`. (The paper says "higher than"; its code, and we,
    take 0.5 itself too.) Of equal overlaps the default box that comes first wins, then the object that comes first.

    Args:
        boxes: Ground truth in corner form, padded to the same number of rows for each image.
        present: Which rows are objects; the others are padding, and match nothing.
        default_boxes: In corner form, not clipped.
        iou_threshold: From 0 to 1.
    """
    default_boxes = default_boxes.T.contiguous().T  # as box_iou wants them, and once for all images
    if image_by_image(boxes):
        matched = torch.full((len(boxes), len(default_boxes)), UNMATCHED)
        for image, rows in enumerate(present):
            objects = rows.nonzero()[:, 0]
            if len(objects):
                overlaps = box_iou(boxes[image, objects, None], default_boxes)
                matched[image] = torch.from_numpy(_match_image(overlaps.numpy(), objects.numpy(), iou_threshold))
        return matched
    if boxes.shape[1] == 0:
        return torch.full((len(boxes), len(default_boxes)), UNMATCHED, device=boxes.device)
    overlaps = box_iou(boxes[:, :, None], default_boxes).masked_fill_(~present[..., None], 0)
    best_overlap, best_object = overlaps.max(dim=1)
    enough = (best_overlap >= iou_threshold) & (best_overlap > _NO_OVERLAP)
    matched = torch.where(enough, best_object, UNMATCHED)
    own = _own_default_boxes(overlaps)
    # objects that overlap no default box are sent to a column of their own, which is cut off
    columns = torch.where(own == UNMATCHED, len(default_boxes), own)
    spare = torch.cat([matched, matched.new_zeros(len(matched), 1)], dim=1)
    return spare.scatter(1, columns, torch.arange(boxes.shape[1], device=boxes.device).expand_as(columns))[:, :-1]


def image_by_image(values: Tensor) -> bool:
    """Whether to take the images one by one and only those rows that count, rather than all at once under masks.

    On a CPU that is several times faster. A GPU would have to stop for each look at a value, and a compiled graph
    would break, so there all shapes are fixed. The results are the same.
    """
    return values.device.type == "cpu" and not torch.compiler.is_compiling()


def _match_image(
    overlaps: Float[np.ndarray, "objects default_boxes"], objects: Int[np.ndarray, " objects"], iou_threshold: float
) -> Int[np.ndarray, " default_boxes"]:
    """`match` of one image, in NumPy, whose argmax and small steps are quicker; `objects` are its rows that count."""
    matched = np.full(overlaps.shape[1], UNMATCHED)
    best = overlaps.max(axis=0)
    enough = np.flatnonzero((best >= iou_threshold) & (best > _NO_OVERLAP))
    matched[enough] = objects[overlaps[:, enough].argmax(axis=0)]

    # Each object waits with its best pair, and the best pair of all is taken. Where another object has the default box
    # by then, it waits again with the best that is left: never a better one, so that no pair comes too late.
    own: list[int] = []
    places = overlaps.argmax(axis=1).tolist()
    waiting = [(-overlaps[index, place].item(), place, index) for index, place in enumerate(places)]
    heapify(waiting)
    while waiting and -waiting[0][0] > _NO_OVERLAP:
        _, place, index = heappop(waiting)
        if place in own:
            left = overlaps[index].copy()
            left[own] = 0
            place = int(left.argmax())
            heappush(waiting, (-left[place].item(), place, index))
        else:
            own.append(place)
            matched[place] = objects[index]
    return matched


def _own_default_boxes(overlaps: Float[Tensor, "batch objects default_boxes"]) -> Int[Tensor, "batch objects"]:
    """The default box that is matched to each object first: greedy bipartite matching."""
    batch, objects, default_boxes = overlaps.shape
    pairs = overlaps.transpose(1, 2).contiguous()  # of equal overlaps the first is the one with the first default box
    own = torch.full((batch, objects), UNMATCHED, device=overlaps.device)
    for _ in range(min(objects, default_boxes)):
        overlap, pair = pairs.flatten(1).max(dim=1, keepdim=True)
        place, index = pair // objects, pair % objects
        own = torch.where(overlap > _NO_OVERLAP, own.scatter(1, index, place), own)
        pairs.scatter_(1, place[..., None].expand(-1, -1, objects), 0.0)
        pairs.scatter_(2, index[..., None].expand(-1, default_boxes, -1), 0.0)
    return own
