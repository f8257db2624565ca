"""The MultiBox loss: localization and confidence, with hard negative mining (section 2.2, equations 1 to 3)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multibox.ssd.boxes import center_to_corner, corner_to_center
from multibox.ssd.coder import BoxCoder
from multibox.ssd.matching import UNMATCHED, match
from multibox.ssd.network import Predictions


class Targets(NamedTuple):
    """What the network is to answer for each default box.

    Attributes:
        offsets: Of the matched object; zero where there is none.
        labels: The matched object's label + 1; 0, the background, where there is none.
    """

    offsets: Float[Tensor, "batch default_boxes 4"]
    labels: Int[Tensor, "batch default_boxes"]


class Losses(NamedTuple):
    """The two terms of equation 1, each divided by N, the number of matched default boxes of the batch.

    Attributes:
        localization: L_loc of equation 2: smooth L1 between offsets and those of the matched objects.
        confidence: L_conf of equation 3: softmax cross-entropy over the matched boxes and the mined negatives.
        matches: N.
    """

    localization: Float[Tensor, ""]
    confidence: Float[Tensor, ""]
    matches: Int[Tensor, ""]

    @property
    def total(self) -> Float[Tensor, ""]:
        """L of equation 1, with alpha = 1."""
        return self.localization + self.confidence


def make_targets(
    boxes: Float[Tensor, "batch objects 4"],
    labels: Int[Tensor, "batch objects"],
    default_boxes_center: Float[Tensor, "default_boxes 4"],
    coder: BoxCoder,
) -> Targets:
    """Matches the objects to the default boxes and codes them.

    Args:
        boxes: Corner form, as fractions of the picture; pictures with fewer objects are padded.
        labels: Indices into the class names; -1 in rows that are padding.
        default_boxes_center: Centre form, as fractions of the picture.
        coder: Boxes to offsets.
    """
    matched = match(boxes, labels >= 0, center_to_corner(default_boxes_center))
    if boxes.shape[1] == 0:
        return Targets(torch.zeros(*matched.shape, 4, device=boxes.device), torch.zeros_like(matched))
    positive = matched != UNMATCHED
    index = matched.clamp(min=0)
    chosen = corner_to_center(boxes).gather(1, index[..., None].expand(-1, -1, 4))
    offsets = coder.encode(chosen, default_boxes_center.expand_as(chosen))
    return Targets(
        offsets=torch.where(positive[..., None], offsets, 0.0),
        labels=torch.where(positive, labels.gather(1, index) + 1, 0),
    )


def multibox_loss(predictions: Predictions, targets: Targets, *, per_positive: float = 3.0) -> Losses:
    """The two losses of a batch; both zero, never NaN, for a batch without matches.

    Each picture's negatives are mined by themselves: its unmatched default boxes with the largest loss against the
    background, at most `per_positive` times its matches. A picture without objects has no matches and therefore
    no negatives, as in the Caffe code. (There a negative must also overlap no object by 0.5 or more; such a box is
    always matched, so that nothing is left to test.)
    """
    offsets, logits = (values.float() for values in predictions)
    positive = targets.labels > 0
    matches = positive.sum()

    # unmatched boxes are labelled background: this one cross-entropy is also what the mining ranks by
    cross_entropy = F.cross_entropy(logits.flatten(0, 1), targets.labels.flatten(), reduction="none")
    cross_entropy = cross_entropy.view_as(targets.labels)
    chosen = positive | hard_negatives(cross_entropy.detach(), positive, per_positive=per_positive)
    distance = F.smooth_l1_loss(offsets, targets.offsets, reduction="none").sum(dim=-1)

    divisor = matches.clamp(min=1)
    return Losses(
        localization=torch.where(positive, distance, 0.0).sum() / divisor,
        confidence=torch.where(chosen, cross_entropy, 0.0).sum() / divisor,
        matches=matches,
    )


def hard_negatives(
    losses: Float[Tensor, "batch default_boxes"], positive: Bool[Tensor, "batch default_boxes"], *, per_positive: float
) -> Bool[Tensor, "batch default_boxes"]:
    """The negatives of each picture that it scores worst: at most `per_positive` times its positives."""
    count = (positive.sum(dim=1, keepdim=True) * per_positive).long()
    order = torch.where(positive, -torch.inf, losses).sort(dim=1, descending=True, stable=True).indices
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    return (rank < count) & ~positive
