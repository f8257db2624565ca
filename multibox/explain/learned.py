"""Explain what a training would learn from an image: matched default boxes, hard negatives, and the loss."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int

from multibox.boxes import box_iou
from multibox.config import DetectorConfig
from multibox.runtimes.runtime import RawOutputs
from multibox.ssd import cpu
from multibox.ssd.coder import BoxCoder, center_to_corner
from multibox.ssd.loss import Losses
from multibox.ssd.matching import Targets
from multibox.ssd.network import Predictions

NEGATIVES_PER_POSITIVE = 3.0
"""The number of negatives for each match with which a run trains: the default of the loss."""


@dataclass(frozen=True, eq=False)
class Matches:
    """The default boxes that the objects of one image are matched to.

    Attributes:
        objects: Number of the object that each default box is matched to, or `matching.UNMATCHED`.
        own: Whether the default box is the one that its object got by the first rule, whatever their overlap.
        overlaps: Overlap of each object with each default box.
        offsets: The offsets that each matched default box learns; 0 for the others.
        labels: The label that each default box learns, as in the logits: 0 is the background.
    """

    objects: Int[np.ndarray, " default_boxes"]
    own: Bool[np.ndarray, " default_boxes"]
    overlaps: Float[np.ndarray, "objects default_boxes"]
    offsets: Float[np.ndarray, "default_boxes 4"]
    labels: Int[np.ndarray, " default_boxes"]


@dataclass(frozen=True, eq=False)
class Mined:
    """What the loss makes of one image.

    Attributes:
        losses: The loss of both terms, divided by the number of matches.
        hard_negatives: Indices of the mined default boxes, the largest loss first.
        background_losses: Loss of each default box against the background.
    """

    losses: Losses
    hard_negatives: Int[np.ndarray, " negatives"]
    background_losses: Float[np.ndarray, " default_boxes"]


def match_objects(
    boxes: Float[np.ndarray, "objects 4"],
    labels: Int[np.ndarray, " objects"],
    default_boxes_center: Float[np.ndarray, "default_boxes 4"],
    config: DetectorConfig,
) -> Matches:
    """Matches the objects of an image to default boxes, as a training step does.

    Args:
        boxes: Objects in corner form, as fractions of the image.
        labels: Indices into the class names.
        default_boxes_center: Default boxes in center form, as fractions of the image.
        config: Config of the detector, which says how boxes are coded.
    """
    objects, table = torch.tensor(boxes)[None], torch.tensor(default_boxes_center)
    present, corners = torch.ones(1, len(boxes), dtype=torch.bool), center_to_corner(table)
    matched = cpu.match(objects, present, corners)[0]
    # above an overlap of 1 there is only the rule that gives each object a default box of its own
    own = cpu.match(objects, present, corners, iou_threshold=float("inf"))[0]
    coder = BoxCoder(config.center_variance, config.size_variance, config.max_log_size)
    targets = cpu.make_targets(objects, torch.tensor(labels)[None], table, coder)
    return Matches(
        matched.numpy(),
        (own >= 0).numpy(),
        box_iou(boxes, corners.numpy()),
        targets.offsets[0].numpy(),
        targets.labels[0].numpy(),
    )


def mine(outputs: RawOutputs, matches: Matches) -> Mined:
    """Returns the loss of the network's outputs for an image, and the hard negatives that it takes.

    Args:
        outputs: The raw outputs for the image. The loss trains a softmax; outputs of a sigmoid are no use here.
        matches: What the default boxes should learn.
    """
    predictions = Predictions(torch.tensor(outputs.offsets), torch.tensor(outputs.logits))
    labels = torch.from_numpy(matches.labels)[None]
    targets = Targets(torch.from_numpy(matches.offsets)[None], labels)
    background = F.cross_entropy(predictions.logits[0], torch.zeros_like(labels[0]), reduction="none")
    negative = cpu.hard_negatives(background[None], labels > 0, negatives_per_positive=NEGATIVES_PER_POSITIVE)[0]
    chosen = negative.nonzero()[:, 0]
    order = background[chosen].argsort(descending=True, stable=True)
    losses = cpu.multibox_loss(predictions, targets, negatives_per_positive=NEGATIVES_PER_POSITIVE)
    return Mined(losses, chosen[order].numpy(), background.numpy())
