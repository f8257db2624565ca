"""The MultiBox loss: localization and confidence, with hard negative mining (section 2.2, equations 1 to 3)."""

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multibox.ssd.boxes import center_to_corner, corner_to_center
from multibox.ssd.coder import BoxCoder
from multibox.ssd.matching import UNMATCHED, image_by_image, match
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
    """The two terms of equation 1, each divided by N: the number of matched default boxes, or the given divisor.

    Attributes:
        localization: L_loc of equation 2: smooth L1 between offsets and those of the matched objects.
        confidence: L_conf of equation 3: softmax cross-entropy over the matched boxes and the mined negatives.
        matches: The number of matched default boxes of these targets.
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
        boxes: Corner form, as fractions of the image; images with fewer objects are padded.
        labels: Indices into the class names; -1 in rows that are padding.
        default_boxes_center: Center form, as fractions of the image.
        coder: Boxes to offsets.
    """
    matched = match(boxes, labels >= 0, center_to_corner(default_boxes_center))
    positive = matched != UNMATCHED
    if image_by_image(boxes):
        image, place = positive.nonzero(as_tuple=True)
        index = matched[image, place]
        chosen = corner_to_center(boxes[image, index])
        targets = Targets(boxes.new_zeros(*matched.shape, 4), torch.zeros_like(matched))
        targets.offsets[image, place] = coder.encode(chosen, default_boxes_center[place])
        targets.labels[image, place] = labels[image, index] + 1
        return targets
    if boxes.shape[1] == 0:
        return Targets(boxes.new_zeros(*matched.shape, 4), torch.zeros_like(matched))
    index = matched.clamp(min=0)
    chosen = corner_to_center(boxes).gather(1, index[..., None].expand(-1, -1, 4))
    offsets = coder.encode(chosen, default_boxes_center.expand_as(chosen))
    return Targets(
        offsets=torch.where(positive[..., None], offsets, 0.0),
        labels=torch.where(positive, labels.gather(1, index) + 1, 0),
    )


def count_matches(
    targets: Targets, *, negatives_per_positive: float = 3.0, negatives_without_matches: int = 0
) -> Float[Tensor, ""]:
    """N of these targets: what `multibox_loss` divides by, or their share of it where they are part of a larger batch.

    The matched default boxes, and of each image without any, `negatives_without_matches / negatives_per_positive`: with
    three negatives to a match, three negatives alone weigh as much as a match with its own. The N of parts add up to
    that of the whole; it is zero where there is nothing to learn.
    """
    positives = (targets.labels > 0).sum(dim=1).float()
    alone = negatives_without_matches / negatives_per_positive if negatives_without_matches else 0.0
    return torch.where(positives > 0, positives, alone).sum()


def multibox_loss(
    predictions: Predictions,
    targets: Targets,
    *,
    negatives_per_positive: float = 3.0,
    negatives_without_matches: int = 0,
    divisor: Float[Tensor, ""] | float | None = None,
) -> Losses:
    """The two losses of a batch; both zero, never NaN, for a batch without matches.

    Each image's negatives are mined by themselves: its unmatched default boxes with the largest loss against the
    background, at most `negatives_per_positive` times its matches. An image without objects has no matches and
    therefore no negatives, as in the Caffe code. (There a negative must also overlap no object by 0.5 or more; such a
    box is always matched, so that nothing is left to test.)

    Args:
        predictions: Of any precision; the losses are reckoned in single.
        targets: Of the same images, from `make_targets`.
        negatives_per_positive: Negatives for each match.
        negatives_without_matches: Negatives of an image in which nothing matches; 0 is the Caffe code's rule.
        divisor: What both losses are divided by, if above 1: the N (see `count_matches`) of the whole batch where this
            is only a part of it, so that the losses of the parts add up to those of the whole. None: this batch's own.
    """
    offsets, logits = predictions
    positive = targets.labels > 0
    mine = partial(
        hard_negatives,
        positive=positive,
        negatives_per_positive=negatives_per_positive,
        negatives_without_matches=negatives_without_matches,
    )
    if image_by_image(logits):
        background = torch.empty(positive.shape)
        for row, image in zip(background, logits.detach(), strict=True):
            row[:] = -F.log_softmax(image, dim=-1, dtype=torch.float32)[:, 0]
        chosen = positive | mine(background)
        localization = F.smooth_l1_loss(_rows(offsets, positive), _rows(targets.offsets, positive), reduction="sum")
        confidence = F.cross_entropy(_rows(logits, chosen), targets.labels[chosen], reduction="sum")
    else:
        # unmatched boxes are labeled background: this one cross-entropy is also what the mining ranks by
        cross_entropy = F.cross_entropy(logits.flatten(0, 1).float(), targets.labels.flatten(), reduction="none")
        cross_entropy = cross_entropy.view_as(targets.labels)
        chosen = positive | mine(cross_entropy.detach())
        distance = F.smooth_l1_loss(offsets.float(), targets.offsets, reduction="none").sum(dim=-1)
        localization = torch.where(positive, distance, 0.0).sum()
        confidence = torch.where(chosen, cross_entropy, 0.0).sum()

    if divisor is None:
        divisor = count_matches(
            targets, negatives_per_positive=negatives_per_positive, negatives_without_matches=negatives_without_matches
        )
    divisor = torch.as_tensor(divisor).clamp(min=1)
    return Losses(localization / divisor, confidence / divisor, positive.sum())


def _rows(
    values: Float[Tensor, "batch default_boxes numbers"], chosen: Bool[Tensor, "batch default_boxes"]
) -> Float[Tensor, "chosen numbers"]:
    """The chosen rows, in single precision. (`values[chosen]` is the same, with a slower gradient.)"""
    return values.flatten(0, 1).index_select(0, chosen.flatten().nonzero()[:, 0]).float()


def hard_negatives(
    losses: Float[Tensor, "batch default_boxes"],
    positive: Bool[Tensor, "batch default_boxes"],
    *,
    negatives_per_positive: float,
    negatives_without_matches: int = 0,
) -> Bool[Tensor, "batch default_boxes"]:
    """The negatives of each image that it scores worst: at most `negatives_per_positive` times its positives.

    Of an image without positives, at most `negatives_without_matches`. Of equal losses that of the default box that
    comes first is taken.
    """
    positives = positive.sum(dim=1, keepdim=True)
    count = torch.where(positives > 0, (positives * negatives_per_positive).long(), negatives_without_matches)
    last = count.clamp(1, positive.shape[1]) - 1
    ranked = torch.where(positive, -torch.inf, losses)
    if image_by_image(losses):
        in_order = ranked.topk(max(last.flatten().tolist(), default=0) + 1, dim=1).values
    else:
        in_order = ranked.sort(dim=1, descending=True).values
    limit = in_order.gather(1, last)
    above = ~(ranked <= limit)  # NaN too: the loss must not hide it
    equal = ranked == limit
    first = equal.cumsum(dim=1, dtype=torch.int32) <= count - above.sum(dim=1, keepdim=True)
    return (above | (equal & first)) & ~positive
