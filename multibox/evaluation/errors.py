"""What a detector does wrong at its score thresholds: each false detection, each missed object, and the confusions.

Detections are matched by the rule of `precision_recall`, so that the numbers add up: a false detection here is a false
positive there, and an object is missed here if it is no true positive there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from multibox.boxes import box_iou
from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.precision_recall import FP, TP, image_quality, match_detections, missed_objects

NONE = -1
BACKGROUND = "background"
NEAR = 0.1
"""Below this overlap, a detection and an object have nothing to do with each other."""

FalseKind = Literal["wrong class", "duplicate", "poor box", "background"]
"""Why a detection is false, the first that holds:

* `duplicate`: it overlaps an object of its class by at least 0.5, which another detection has found, and stands for no
  missed object of another class;
* `wrong class`: it overlaps an object of another class by at least 0.5;
* `poor box`: it overlaps an object of its class, but by less than 0.5;
* `background`: no object of its class is near.
"""

MissedKind = Literal["wrong class", "low score", "poor box", "not found"]
"""Why an object is missed, the first that holds:

* `wrong class`: a detection of another class overlaps it by at least 0.5;
* `low score`: a detection of its class overlaps it by at least 0.5, but scores below the threshold;
* `poor box`: a detection of its class is near, but overlaps it by less than 0.5 or fits a neighbor better;
* `not found`: no detection of its class is near.
"""


class FalseDetection(NamedTuple):
    """A detection that is wrong.

    Attributes:
        detection: Index of the detection.
        kind: Why it is wrong.
        overlap: Its overlap with the object that it overlaps most, of any class.
        label: Label of that object; `NONE` if it overlaps none.
    """

    detection: int
    kind: FalseKind
    overlap: float
    label: int


class MissedObject(NamedTuple):
    """An object that is not found.

    Attributes:
        object: Index of the object.
        kind: Why it is missed.
        overlap: The largest overlap of a detection with it, of any class and above the threshold of that class.
        label: Label of that detection; `NONE` if none overlaps it.
        score: The highest score, also below the threshold, of a detection of its class that overlaps it by at least
            0.5; `None` if there is none.
    """

    object: int
    kind: MissedKind
    overlap: float
    label: int
    score: float | None


@dataclass(frozen=True, eq=False)
class ImageErrors:
    """The errors in one image.

    Attributes:
        found: The detections above the thresholds. `false` has indices into them.
        false: The false ones among them, the highest score first.
        missed: The objects that are not found, in the order of the ground truth.
        confusions: Pairs of labels (object, detection). For an object of class 0 it is (0, 0) if it was found, (0, 1)
            if it was taken for class 1, and (0, `NONE`) if it was missed; (`NONE`, 0) is a false detection of nothing.
        quality: Quality of the detections above the thresholds, as in `precision_recall.ImageQuality`.
    """

    found: Detections
    false: tuple[FalseDetection, ...]
    missed: tuple[MissedObject, ...]
    confusions: tuple[tuple[int, int], ...]
    quality: float


def above_thresholds(detections: Detections, thresholds: Sequence[float]) -> Detections:
    """Returns the detections that score above the threshold of their class."""
    above: Bool[np.ndarray, " detections"] = detections.scores > np.array([*thresholds, 0.0])[detections.labels]
    return detections[above]


def find_errors(truth: GroundTruth, detections: Detections, thresholds: Sequence[float]) -> ImageErrors:
    """Returns what is wrong with the detections in an image.

    Objects that are difficult or crowds do not count, and neither do detections that find them.

    Args:
        truth: The objects.
        detections: The detections at a low threshold; those that are not above `thresholds` explain missed objects.
        thresholds: Score threshold of each class.
    """
    found = above_thresholds(detections, thresholds)
    matches = match_detections(truth, found)
    false = np.flatnonzero(matches == FP)
    missed = np.flatnonzero(missed_objects(truth, found))
    counts = ~(truth.difficult | truth.crowd)
    overlaps = box_iou(found.boxes, truth.boxes) * counts
    same_class = found.labels[:, None] == truth.labels
    taken_for = _pair(overlaps, false, missed, same_class)
    confused = {int(object_): int(detection) for detection, object_ in taken_for.items()}

    def false_detection(index: int) -> FalseDetection:
        of_class = overlaps[index][same_class[index]]
        kind: FalseKind = "background"
        if index not in taken_for and of_class.max(initial=0) >= 0.5:
            kind = "duplicate"
        elif overlaps[index].max(initial=0) >= 0.5:
            kind = "wrong class"
        elif of_class.max(initial=0) >= NEAR:
            kind = "poor box"
        return FalseDetection(index, kind, *_best(overlaps[index], truth.labels))

    def missed_object(index: int) -> MissedObject:
        of_class = detections[detections.labels == truth.labels[index]]
        fits = of_class.scores[box_iou(of_class.boxes, truth.boxes[index : index + 1])[:, 0] >= 0.5]
        score = float(fits.max()) if len(fits) else None
        kind: MissedKind = "not found"
        if index in confused:
            kind = "wrong class"
        elif score is not None and score <= thresholds[truth.labels[index]]:
            kind = "low score"
        elif overlaps[:, index][same_class[:, index]].max(initial=0) >= NEAR:
            kind = "poor box"
        return MissedObject(index, kind, *_best(overlaps[:, index], found.labels), score)

    confusions = [
        *((int(label), int(label)) for label in found.labels[matches == TP]),
        *((int(truth.labels[i]), int(found.labels[confused[i]]) if i in confused else NONE) for i in missed.tolist()),
        *((NONE, int(found.labels[i])) for i in false.tolist() if i not in taken_for),
    ]
    return ImageErrors(
        found,
        tuple(map(false_detection, false.tolist())),
        tuple(map(missed_object, missed.tolist())),
        tuple(confusions),
        image_quality(truth, found).quality,
    )


def count_confusions(errors: Sequence[ImageErrors], num_classes: int) -> Int[np.ndarray, "objects detections"]:
    """Returns the confusion matrix: a row for the class of the objects, a column for that of the detections.

    The last row is the background, with false detections where no object was left to find, and the last column has the
    objects that no detection found. A row's sum is the number of objects, a column's that of detections.
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), np.int64)
    for image in errors:
        for row, column in image.confusions:
            matrix[row, column] += 1  # NONE is the last one
    return matrix


def count_kinds(errors: Sequence[ImageErrors]) -> tuple[Mapping[FalseKind, int], Mapping[MissedKind, int]]:
    """Returns how many false detections and how many missed objects there are of each kind."""
    false: dict[FalseKind, int] = {"wrong class": 0, "duplicate": 0, "poor box": 0, "background": 0}
    missed: dict[MissedKind, int] = {"wrong class": 0, "low score": 0, "poor box": 0, "not found": 0}
    for image in errors:
        for wrong in image.false:
            false[wrong.kind] += 1
        for lost in image.missed:
            missed[lost.kind] += 1
    return false, missed


def _pair(
    overlaps: Float[np.ndarray, "detections objects"],
    false: Int[np.ndarray, " false"],
    missed: Int[np.ndarray, " missed"],
    same_class: Bool[np.ndarray, "detections objects"],
) -> dict[int, int]:
    """Returns the missed object of another class that a false detection found: the best score chooses first."""
    free = dict.fromkeys(missed.tolist())
    pairs: dict[int, int] = {}
    for detection in false.tolist():
        others = [i for i in free if overlaps[detection, i] >= 0.5 and not same_class[detection, i]]
        if others:
            best = max(others, key=lambda i: float(overlaps[detection, i]))
            pairs[detection] = best
            del free[best]
    return pairs


def _best(overlaps: Float[np.ndarray, " boxes"], labels: Int[np.ndarray, " boxes"]) -> tuple[float, int]:
    """Returns the largest overlap and the label of its box; 0 and `NONE` if nothing overlaps."""
    if not len(overlaps) or overlaps.max() <= 0:
        return 0.0, NONE
    best = int(overlaps.argmax())
    return float(overlaps[best]), int(labels[best])
