"""What an exported file computes, as one module of torch: prepared images in, detections out.

It says in plain tensor code, with shapes that do not depend on the values, what `multibox.postprocess` says in NumPy.
Suppression is one operator (`multibox::suppress`), which each format writes in its own way.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from multibox.boxes import nms
from multibox.config import DetectorConfig, Postprocess
from multibox.runtimes.exported import OUTPUTS, Suppression
from multibox.ssd.coder import BoxCoder
from multibox.ssd.network import SSD


class ExportedGraph(nn.Module):
    """A module that an exporter takes: one input, and outputs with names.

    Attributes:
        input_name: Name of the input.
    """

    input_name: str

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in their order."""
        raise NotImplementedError

    def example(self, batch: int | None) -> tuple[Tensor, dict[int, str]]:
        """Returns an input of so many images (None: of any number), and the names of its axes of any length."""
        raise NotImplementedError


class DetectorGraph(ExportedGraph):
    """A network and the postprocessing behind it.

    Outputs with suppression in the graph, `max_detections` rows for each image, the highest score first:

        boxes                (batch, rows, 4)   corner form, in fractions of the image; 0 behind the last detection
        scores               (batch, rows)      0 behind the last detection
        labels               (batch, rows)      -1 behind the last detection
        default_box_indices  (batch, rows)      -1 behind the last detection
        count                (batch)            number of detections

    Without it, `boxes` and `scores` are those of all default boxes, the scores with a column for each class, and raw
    outputs are the network's `offsets` and `logits`.
    """

    input_name = "images"

    def __init__(
        self,
        network: SSD,
        config: DetectorConfig,
        settings: Postprocess,
        *,
        suppression: Suppression,
        raw: bool = False,
    ) -> None:
        """Makes the graph around a network, which it shares.

        Args:
            network: The network in evaluation mode.
            config: Config of the detector.
            settings: Thresholds and limits of the suppression.
            suppression: Where suppression happens.
            raw: Whether the outputs end with the raw `offsets` and `logits`, if they are not the only ones.
        """
        super().__init__()
        self.network = network
        self.config, self.settings = config, settings
        self.suppression, self.raw = suppression, raw
        self.coder = BoxCoder(config.center_variance, config.size_variance, config.max_log_size)

    def example(self, batch: int | None) -> tuple[Tensor, dict[int, str]]:
        """Returns plain RGB from 0 to 255, as `Detector.prepare` gives it."""
        dtype = torch.float32 if self.config.resize == "float" else torch.uint8
        images = torch.zeros(batch or 2, 3, self.config.height, self.config.width, dtype=dtype)
        return images, {} if batch else {0: "batch"}

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in their order."""
        names = OUTPUTS[self.suppression]
        return names + OUTPUTS["none"] if self.raw and self.suppression != "none" else names

    def forward(self, images: Shaped[Tensor, "batch 3 height width"]) -> tuple[Tensor, ...]:
        """Returns the outputs for images of the input's size."""
        offsets, logits = self.network(images)
        extra = (offsets, logits) if self.raw or self.suppression == "none" else ()
        if self.suppression == "none":
            return extra
        boxes = self.coder.decode(offsets, self.network.default_boxes.expand_as(offsets))
        if self.config.clip_boxes:
            boxes = boxes.clamp(0, 1)
        scores = logits.softmax(dim=-1)[..., 1:] if self.config.scoring == "softmax" else logits[..., 1:].sigmoid()
        if self.suppression == "runtime":
            return boxes, scores, *extra
        return *self._suppress(boxes, scores.transpose(1, 2)), *extra

    def _suppress(
        self,
        boxes: Float[Tensor, "batch default_boxes 4"],
        scores: Float[Tensor, "batch classes default_boxes"],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Returns the detections. From here on a score of 0 says that a box is no candidate."""
        settings = self.settings
        batch, classes, rows = scores.shape
        candidates = torch.where(scores > settings.score_threshold, scores, 0.0)
        if rows > settings.max_candidates_per_class:
            best = candidates.topk(settings.max_candidates_per_class, dim=2)
            candidates = torch.zeros_like(candidates).scatter(2, best.indices, best.values)
        rivals, label = candidates, None
        if settings.class_agnostic:  # of a default box only the best class can be kept: it overlaps the others wholly
            rivals, label = candidates.max(dim=1, keepdim=True)
            classes = 1
        kept = suppress(boxes, rivals, settings.iou_threshold, settings.max_detections)
        limit = min(settings.max_detections, rows * classes)
        found, places = kept.transpose(1, 2).reshape(batch, rows * classes).topk(limit, dim=1)
        there = found > 0
        index = places // classes
        labels = places % classes if label is None else label[:, 0].gather(1, index)
        corners = boxes.gather(1, index[..., None].expand(batch, limit, 4))
        if settings.merge == "weighted":
            weights = candidates if label is None else candidates.sum(dim=1, keepdim=True)
            corners = self._vote(boxes, weights, corners, labels if label is None else torch.zeros_like(labels), there)
        return (
            torch.where(there[..., None], corners, 0.0),
            found,
            torch.where(there, labels, -1),
            torch.where(there, index, -1),
            there.sum(dim=1),
        )

    def _vote(
        self,
        boxes: Float[Tensor, "batch default_boxes 4"],
        weights: Float[Tensor, "batch rivals default_boxes"],
        corners: Float[Tensor, "batch rows 4"],
        rivals: Int[Tensor, "batch rows"],
        there: Bool[Tensor, "batch rows"],
    ) -> Float[Tensor, "batch rows 4"]:
        """Returns the detections' boxes after box voting, as `multibox.boxes.box_voting` does it.

        Args:
            boxes: Boxes of all default boxes.
            weights: Score of each candidate, and 0 for the others, by the row of boxes that suppress each other.
            corners: Boxes of the detections.
            rivals: Row of `weights` that each detection is of.
            there: Whether each row is a detection.
        """
        overlaps = (_iou(corners, boxes) > self.settings.iou_threshold) & there[..., None]
        before = (rivals[:, :, None] == rivals[:, None, :]).float().tril(-1)
        taken = before @ overlaps.float() > 0  # a box votes for the first detection that suppresses it
        candidates = weights.gather(1, rivals[..., None].expand(*rivals.shape, boxes.shape[1]))
        votes = torch.where(overlaps & ~taken, candidates, 0.0)
        total = votes.sum(dim=2, keepdim=True)
        return torch.where(total > 0, votes @ boxes / total.clamp(min=torch.finfo(total.dtype).tiny), corners)


def _iou(
    boxes1: Float[Tensor, "batch rows 4"], boxes2: Float[Tensor, "batch columns 4"]
) -> Float[Tensor, "batch rows columns"]:
    low = torch.maximum(boxes1[:, :, None, :2], boxes2[:, None, :, :2])
    high = torch.minimum(boxes1[:, :, None, 2:], boxes2[:, None, :, 2:])
    intersection = (high - low).clamp(min=0).prod(dim=-1)
    areas = [(each[..., 2:] - each[..., :2]).clamp(min=0).prod(dim=-1) for each in (boxes1, boxes2)]
    union = areas[0][:, :, None] + areas[1][:, None] - intersection
    return intersection / union.clamp(min=torch.finfo(union.dtype).tiny)


@torch.library.custom_op("multibox::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, iou_threshold: float, max_detections: int) -> Tensor:
    """Returns the scores of the boxes that greedy non-maximum suppression keeps, and 0 for all others.

    Args:
        boxes: Boxes in corner form, `(batch, default_boxes, 4)`.
        scores: Scores, `(batch, rows, default_boxes)`. The boxes of a row suppress each other. 0: no candidate.
        iou_threshold: A box is suppressed if it overlaps a better one by more than this.
        max_detections: Largest number of boxes that are kept of a row.
    """
    kept = torch.zeros_like(scores)
    for image, rows, kept_rows in zip(boxes.numpy(), scores.numpy(), kept, strict=True):
        for row, kept_row in zip(rows, kept_rows, strict=True):
            order = np.argsort(-row, kind="stable")[: np.count_nonzero(row)]
            chosen = order[nms(image[order], np.zeros_like(order), iou_threshold, max_detections=max_detections)]
            kept_row[chosen] = torch.from_numpy(row[chosen])
    return kept


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float, max_detections: int) -> Tensor:
    return torch.empty_like(scores)
