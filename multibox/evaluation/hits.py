"""Which detections are right at an overlap of 0.5, and what follows: precision and recall by score, the best threshold.

Detections are matched as VOC's rule does it (`voc.best_objects`), with continuous pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from multibox.boxes import box_iou
from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.voc import MISSED, best_objects

THRESHOLDS = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """What is right among the detections that score above each of some thresholds.

    Attributes:
        thresholds: Rising.
        hits: Objects found.
        false: Detections of nothing, or of an object that a better one had found.
        objects: How many there are to find.
    """

    thresholds: Float[np.ndarray, " thresholds"]
    hits: Int[np.ndarray, " thresholds"]
    false: Int[np.ndarray, " thresholds"]
    objects: int

    @property
    def precision(self) -> Float[np.ndarray, " thresholds"]:
        """The part of the detections that is right; 1 where there are none, so that a curve begins at the top."""
        found = self.hits + self.false
        precision: Float[np.ndarray, " thresholds"] = np.where(found > 0, self.hits / np.maximum(found, 1), 1.0)
        return precision

    @property
    def recall(self) -> Float[np.ndarray, " thresholds"]:
        """The part of the objects that is found; 0 where there are none."""
        recall: Float[np.ndarray, " thresholds"] = self.hits / max(self.objects, 1)
        return recall

    @property
    def f1(self) -> Float[np.ndarray, " thresholds"]:
        """The harmonic mean of precision and recall; 0 where there is neither object nor detection."""
        f1: Float[np.ndarray, " thresholds"] = 2 * self.hits / np.maximum(self.hits + self.false + self.objects, 1)
        return f1

    @property
    def best_threshold(self) -> float:
        """The score threshold of the highest F1, the middle one of equally good ones."""
        best = np.flatnonzero(self.f1 == self.f1.max())
        return float(self.thresholds[best[(len(best) - 1) // 2]])


def precision_recall(
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    *,
    label: int | None = None,
    verdicts: Sequence[Int[np.ndarray, " detections"]] | None = None,
    thresholds: Float[np.ndarray, " thresholds"] = THRESHOLDS,
) -> PrecisionRecall:
    """Precision and recall over all images, of one class or of all together.

    Objects that are marked difficult or as a crowd do not count, and neither do the detections that find them.

    Args:
        truths: The objects of each image.
        detections: What was found in each, in the same order.
        label: Of the class; `None` for all.
        verdicts: What `judge` says of each image, for those who ask for several classes.
        thresholds: Rising; a score must be above one.
    """
    objects = 0
    hits: list[np.ndarray] = [np.empty(0)]
    false: list[np.ndarray] = [np.empty(0)]
    if verdicts is None:
        verdicts = list(map(judge, truths, detections))
    for truth, found, judged in zip(truths, detections, verdicts, strict=True):
        wanted = slice(None) if label is None else found.labels == label
        hits.append(found.scores[wanted][judged[wanted] == HIT])
        false.append(found.scores[wanted][judged[wanted] == FALSE])
        counts = ~(truth.difficult | truth.crowd)
        objects += int(np.count_nonzero(counts if label is None else counts & (truth.labels == label)))

    def above(scores: list[np.ndarray]) -> Int[np.ndarray, " thresholds"]:
        rising = np.sort(np.concatenate(scores))
        return len(rising) - np.searchsorted(rising, thresholds, side="right")

    return PrecisionRecall(thresholds, above(hits), above(false), objects)


HIT, FALSE, NEITHER = 1, 0, -1


def judge(truth: GroundTruth, found: Detections) -> Int[np.ndarray, " detections"]:
    """For each detection of an image: `HIT`, `FALSE`, or `NEITHER` where its object is difficult or a crowd.

    The first of several detections of an object, which are in the order of their scores, is the hit. So a threshold
    between them changes no verdict: what is left of the detections would be judged the same.
    """
    return _judge(truth, best_objects(truth, found, "continuous"))


def _judge(truth: GroundTruth, objects: Int[np.ndarray, " detections"]) -> Int[np.ndarray, " detections"]:
    verdicts = np.full(len(objects), FALSE)
    matched = np.flatnonzero(objects != MISSED)
    verdicts[matched[np.unique(objects[matched], return_index=True)[1]]] = HIT
    verdicts[matched[(truth.difficult | truth.crowd)[objects[matched]]]] = NEITHER
    return verdicts


class ImageQuality(NamedTuple):
    """How well the objects of one image were found.

    Attributes:
        quality: From 0 to 1: the overlaps of the hits summed up, by hits + (missed + false) / 2. It is F1 times the
            mean overlap of the hits, which Kirillov et al. (Panoptic Segmentation, CVPR 2019) call panoptic quality.
            1 where there was nothing to find and nothing was found.
        hits: Objects found.
        missed: Objects not found.
        false: Detections of nothing, or of an object that a better one had found.
    """

    quality: float
    hits: int
    missed: int
    false: int


def missed_objects(truth: GroundTruth, found: Detections) -> Bool[np.ndarray, " objects"]:
    """Which objects of an image no detection finds, those that do not count left out."""
    return _missed(truth, best_objects(truth, found, "continuous"))


def _missed(truth: GroundTruth, objects: Int[np.ndarray, " detections"]) -> Bool[np.ndarray, " objects"]:
    missed: Bool[np.ndarray, " objects"] = ~(truth.difficult | truth.crowd)
    missed[objects[objects != MISSED]] = False
    return missed


def image_quality(truth: GroundTruth, found: Detections) -> ImageQuality:
    """Judges all these detections of an image: choose those above a threshold before."""
    objects = best_objects(truth, found, "continuous")
    verdicts = _judge(truth, objects)
    hits = np.flatnonzero(verdicts == HIT)
    overlaps = box_iou(found.boxes[hits], truth.boxes[objects[hits]]).diagonal()
    missed = int(np.count_nonzero(_missed(truth, objects)))
    false = int(np.count_nonzero(verdicts == FALSE))
    total = len(hits) + (missed + false) / 2
    return ImageQuality(float(overlaps.sum() / total) if total else 1.0, len(hits), missed, false)
