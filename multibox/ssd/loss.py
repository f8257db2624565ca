"""The MultiBox loss: localization and confidence, with hard negative mining (section 2.2, equations 1 to 3).

Everything is batched, with static shapes and without waiting for the device, so that a GPU can capture it.
`multibox.ssd.cpu` gives the same results faster on a CPU.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multibox.ssd.matching import Targets
from multibox.ssd.network import Predictions


class Losses(NamedTuple):
    """The two terms of equation 1, each divided by N: the number of matched default boxes, or the given divisor.

    Attributes:
        localization: L_loc of equation 2: smooth L1 between the predicted offsets and those of the matched objects.
        confidence: L_conf of equation 3: softmax cross-entropy over the matched default boxes and the mined negatives.
        matches: Number of matched default boxes in the targets.
    """

    localization: Float[Tensor, ""]
    confidence: Float[Tensor, ""]
    matches: Int[Tensor, ""]

    @property
    def total(self) -> Float[Tensor, ""]:
        """Returns L of equation 1, with alpha = 1."""
        return self.localization + self.confidence


def multibox_loss(
    predictions: Predictions,
    targets: Targets,
    *,
    negatives_per_positive: float = 3.0,
    negatives_without_matches: int = 0,
    class_weights: Float[Tensor, " classes_and_background"] | None = None,
    divisor: Float[Tensor, ""] | float | None = None,
) -> Losses:
    """Returns the two losses of a batch; both are zero, never NaN, for a batch without matches.

    Negatives are mined in each image separately: the unmatched default boxes with the largest loss against the
    background, at most `negatives_per_positive` for each match. An image without objects has no matches and therefore
    no negatives, as in the Caffe code. (There, a negative must also overlap every object by less than 0.5. An unmatched
    default box always does, so there is nothing to test.)

    Args:
        predictions: Output of the network. Half precision is converted to single before the losses are computed.
        targets: Targets of the same images, from `make_targets`.
        negatives_per_positive: Number of negatives for each match.
        negatives_without_matches: Number of negatives in an image without matches; 0 is the Caffe code's rule.
        class_weights: Factor on the cross-entropy of the default boxes with each label, in the order of the logits. The
            background's should be 1: it is a factor on the negatives. N stays the number of matches, so that factors of
            1 change nothing. None: no factors.
        divisor: Both losses are divided by this value if it is above 1. If the batch is part of a larger one, pass the
            N of the whole (see `count_matches`): the losses of the parts then add up to the loss of the whole.
            None: the N of this batch.
    """
    offsets, logits = (values.to(torch.promote_types(values.dtype, torch.float32)) for values in predictions)
    positive = targets.labels > 0
    # unmatched default boxes have the label of the background: mining ranks by the very loss that is learned
    weights = None if class_weights is None else class_weights.to(logits.dtype)
    cross_entropy = F.cross_entropy(logits.flatten(0, 1), targets.labels.flatten(), weights, reduction="none")
    cross_entropy = cross_entropy.view_as(targets.labels)
    negative = hard_negatives(
        cross_entropy.detach(),
        positive,
        negatives_per_positive=negatives_per_positive,
        negatives_without_matches=negatives_without_matches,
    )
    distance = F.smooth_l1_loss(offsets, targets.offsets, reduction="none").sum(dim=-1)
    if divisor is None:
        divisor = count_matches(
            targets, negatives_per_positive=negatives_per_positive, negatives_without_matches=negatives_without_matches
        )
    divisor = torch.as_tensor(divisor).clamp(min=1)
    return Losses(
        localization=torch.where(positive, distance, 0.0).sum() / divisor,
        confidence=torch.where(positive | negative, cross_entropy, 0.0).sum() / divisor,
        matches=positive.sum(),
    )


def hard_negatives(
    losses: Float[Tensor, "batch default_boxes"],
    positive: Bool[Tensor, "batch default_boxes"],
    *,
    negatives_per_positive: float,
    negatives_without_matches: int = 0,
) -> Bool[Tensor, "batch default_boxes"]:
    """Returns a mask of the hard negatives: in each image, the unmatched default boxes with the largest loss.

    There are at most `negatives_per_positive` for each positive, or `negatives_without_matches` in an image that has no
    positives. If losses are equal, the first default box is chosen. Losses that are NaN are always chosen, so that the
    loss shows them.
    """
    positives = positive.sum(dim=1, keepdim=True)
    count = torch.where(positives > 0, (positives * negatives_per_positive).long(), negatives_without_matches)
    order = losses.masked_fill(positive, -torch.inf).argsort(dim=1, descending=True, stable=True)
    in_order = torch.arange(order.shape[1], device=order.device).expand_as(order)
    rank = torch.empty_like(order).scatter_(1, order, in_order)
    return ((rank < count) | losses.isnan()) & ~positive


def count_matches(
    targets: Targets, *, negatives_per_positive: float = 3.0, negatives_without_matches: int = 0
) -> Float[Tensor, ""]:
    """Returns N, which `multibox_loss` divides by: the number of matched default boxes.

    An image without matches counts as `negatives_without_matches / negatives_per_positive`: if a match has three
    negatives, three negatives alone weigh as much as a match together with its own. The N of the parts of a batch add
    up to the N of the whole. N is zero if there is nothing to learn.
    """
    positives = (targets.labels > 0).sum(dim=1).float()
    alone = negatives_without_matches / negatives_per_positive if negatives_without_matches else 0.0
    return torch.where(positives > 0, positives, alone).sum()
