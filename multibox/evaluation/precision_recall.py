"""Judge detections at an overlap of 0.5. This gives precision and recall by score, and the best threshold.

Detections are matched to objects by VOC's rule (`voc.best_objects`), with continuous pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from multibox.boxes import box_iou
from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.metrics import OperatingPoint
from multibox.evaluation.voc import MISSED, best_objects

THRESHOLDS = np.round(np.linspace(0, 1, 101), 2)


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Counts of right and wrong detections above each of some score thresholds.

    Attributes:
        thresholds: Score thresholds in rising order.
        true_positives: Number of objects found with a score above each threshold.
        false_positives: Number of detections that match no object, or one that a better detection had found.
        objects: Number of objects to find.
    """

    thresholds: Float[np.ndarray, " thresholds"]
    true_positives: Int[np.ndarray, " thresholds"]
    false_positives: Int[np.ndarray, " thresholds"]
    objects: int

    @property
    def precision(self) -> Float[np.ndarray, " thresholds"]:
        """Fraction of the detections that are right; 1 if there are none, so that a curve begins at the top."""
        found = self.true_positives + self.false_positives
        precision: Float[np.ndarray, " thresholds"] = np.where(
            found > 0, self.true_positives / np.maximum(found, 1), 1.0
        )
        return precision

    @property
    def recall(self) -> Float[np.ndarray, " thresholds"]:
        """Fraction of the objects that are found; 0 if there are none."""
        recall: Float[np.ndarray, " thresholds"] = self.true_positives / max(self.objects, 1)
        return recall

    @property
    def f1(self) -> Float[np.ndarray, " thresholds"]:
        """Harmonic mean of precision and recall; 0 if there is neither object nor detection."""
        f1: Float[np.ndarray, " thresholds"] = (
            2 * self.true_positives / np.maximum(self.true_positives + self.false_positives + self.objects, 1)
        )
        return f1

    @property
    def best_threshold(self) -> float:
        """Score threshold with the highest F1; the middle one of equally good ones."""
        return float(self.thresholds[self._best])

    @property
    def _best(self) -> int:
        best = np.flatnonzero(self.f1 == self.f1.max())
        return int(best[(len(best) - 1) // 2])

    def at_best_threshold(self) -> OperatingPoint:
        """Returns the numbers at the best threshold. There is none if no object is found at any threshold."""
        best = self._best
        right, wrong = int(self.true_positives[best]), int(self.false_positives[best])
        if not self.objects or not right:
            rate = 0.0 if self.objects else None
            return OperatingPoint(
                score_threshold=None, precision=None, recall=rate, f1=rate, true_positives=0, false_positives=0
            )
        return OperatingPoint(
            score_threshold=self.best_threshold,
            precision=float(self.precision[best]),
            recall=float(self.recall[best]),
            f1=float(self.f1[best]),
            true_positives=right,
            false_positives=wrong,
        )


def precision_recall(
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    *,
    label: int | None = None,
    matches: Sequence[Int[np.ndarray, " detections"]] | None = None,
    thresholds: Float[np.ndarray, " thresholds"] = THRESHOLDS,
) -> PrecisionRecall:
    """Returns precision and recall over all images, of one class or of all classes together.

    Objects that are marked difficult or as a crowd do not count, and neither do the detections that find them.

    Args:
        truths: Objects of each image.
        detections: Detections of each image, in the same order.
        label: Label of the class; `None` for all classes.
        matches: Results of `match_detections` for each image, so that they are computed once for several classes.
        thresholds: Score thresholds in rising order; a detection counts if its score is above.
    """
    return _join(truths, detections, matches).curve(label, thresholds)


def precision_recall_by_class(
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    *,
    num_classes: int,
    score_threshold: float = 0.0,
) -> tuple[PrecisionRecall, list[PrecisionRecall]]:
    """Returns precision and recall over all images: of all classes together, and of each class.

    Args:
        truths: Objects of each image.
        detections: Detections of each image, in the same order.
        num_classes: Number of classes.
        score_threshold: Score above which boxes became detections. Nothing is known about lower thresholds, so the
            curves begin there.
    """
    joined = _join(truths, detections, None)
    thresholds = THRESHOLDS[score_threshold - 1e-9 < THRESHOLDS]
    return joined.curve(None, thresholds), [joined.curve(label, thresholds) for label in range(num_classes)]


class _JoinedImages(NamedTuple):
    """The matched detections of all images, and the labels of all objects that count."""

    scores: Float[np.ndarray, " detections"]
    labels: Int[np.ndarray, " detections"]
    matches: Int[np.ndarray, " detections"]
    object_labels: Int[np.ndarray, " objects"]

    def curve(self, label: int | None, thresholds: Float[np.ndarray, " thresholds"]) -> PrecisionRecall:
        of_class = slice(None) if label is None else self.labels == label
        scores, matches = self.scores[of_class], self.matches[of_class]
        true, false = (_count_above(scores[matches == match], thresholds) for match in (TP, FP))
        objects = len(self.object_labels) if label is None else np.count_nonzero(self.object_labels == label)
        return PrecisionRecall(thresholds, true, false, int(objects))


def _count_above(
    scores: Float[np.ndarray, " detections"], thresholds: Float[np.ndarray, " thresholds"]
) -> Int[np.ndarray, " thresholds"]:
    return len(scores) - np.searchsorted(np.sort(scores), thresholds, side="right")


def _join(
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    matches: Sequence[Int[np.ndarray, " detections"]] | None,
) -> _JoinedImages:
    if matches is None:
        matches = list(map(match_detections, truths, detections))
    if not len(truths) == len(detections) == len(matches):
        raise ValueError(f"ground truth of {len(truths)} images, but detections in {len(detections)}")
    none = np.zeros(0, np.int64)
    return _JoinedImages(
        np.concatenate([np.zeros(0), *(found.scores for found in detections)]),
        np.concatenate([none, *(found.labels for found in detections)]),
        np.concatenate([none, *matches]),
        np.concatenate([none, *(truth.labels[~(truth.difficult | truth.crowd)] for truth in truths)]),
    )


TP, FP, IGNORED = 1, 0, -1


def match_detections(truth: GroundTruth, found: Detections) -> Int[np.ndarray, " detections"]:
    """Returns `TP` or `FP` for each detection of an image, or `IGNORED` if its object is difficult or a crowd.

    The best detection of an object is the true positive, all later ones are false positives. So a score threshold
    changes no match: without the detections below it, the others keep their matches.
    """
    return _match(truth, best_objects(truth, found, "continuous"))


def _match(truth: GroundTruth, objects: Int[np.ndarray, " detections"]) -> Int[np.ndarray, " detections"]:
    matches = np.full(len(objects), FP)
    matched = np.flatnonzero(objects != MISSED)
    matches[matched[np.unique(objects[matched], return_index=True)[1]]] = TP
    matches[matched[(truth.difficult | truth.crowd)[objects[matched]]]] = IGNORED
    return matches


class ImageQuality(NamedTuple):
    """The quality of the detections in one image.

    Attributes:
        quality: Sum of the overlaps of the true positives, divided by TP + (FP + FN) / 2; from 0 to 1. It is F1 times
            the mean overlap of the true positives, which Kirillov et al. (Panoptic Segmentation, CVPR 2019) call
            panoptic quality. 1 if there was nothing to find and nothing was found.
        true_positives: Number of objects found.
        false_negatives: Number of objects not found.
        false_positives: Number of detections that match no object, or one that a better detection had found.
    """

    quality: float
    true_positives: int
    false_negatives: int
    false_positives: int


def missed_objects(truth: GroundTruth, found: Detections) -> Bool[np.ndarray, " objects"]:
    """Returns which objects of an image no detection finds; objects that do not count are never among them."""
    return _missed(truth, best_objects(truth, found, "continuous"))


def _missed(truth: GroundTruth, objects: Int[np.ndarray, " detections"]) -> Bool[np.ndarray, " objects"]:
    missed: Bool[np.ndarray, " objects"] = ~(truth.difficult | truth.crowd)
    missed[objects[objects != MISSED]] = False
    return missed


def image_quality(truth: GroundTruth, found: Detections) -> ImageQuality:
    """Returns the quality of all these detections in an image, whatever their scores."""
    objects = best_objects(truth, found, "continuous")
    matches = _match(truth, objects)
    right = np.flatnonzero(matches == TP)
    overlaps = box_iou(found.boxes[right], truth.boxes[objects[right]]).diagonal()
    missed = int(np.count_nonzero(_missed(truth, objects)))
    wrong = int(np.count_nonzero(matches == FP))
    total = len(right) + (missed + wrong) / 2
    return ImageQuality(float(overlaps.sum() / total) if total else 1.0, len(right), missed, wrong)
