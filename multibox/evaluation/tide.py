"""What mending each kind of error would bring: TIDE (Bolya et al., ECCV 2020), computed by hotcoco."""

from collections.abc import Sequence
from typing import NamedTuple

from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.coco import match_as_coco

KINDS = {
    "Cls": "wrong class",
    "Loc": "poor box",
    "Both": "wrong class and poor box",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}
"""TIDE's kinds of errors, by our names."""


class Tide(NamedTuple):
    """The kinds of errors over all scores, and what AP50 would gain without each of them.

    Attributes:
        ap50: AP at an overlap of 0.5.
        gains: What AP50 would gain if all errors of a kind were mended, by the names of `KINDS`. They do not add up.
        counts: Number of errors of each kind, at any score.
    """

    ap50: float
    gains: dict[str, float]
    counts: dict[str, int]


class ScoreBin(NamedTuple):
    """The detections of a range of scores: how many there are, their mean score, and the fraction that is right."""

    low: float
    high: float
    detections: int
    score: float
    precision: float


class Calibration(NamedTuple):
    """Whether scores are probabilities: in each range of scores, their mean beside the fraction that is right.

    Attributes:
        error: The expected calibration error: the mean distance of the two, weighted by the number of detections.
        bins: The ten ranges.
    """

    error: float
    bins: list[ScoreBin]


def analyze(
    truths: Sequence[GroundTruth], detections: Sequence[Detections], *, class_names: Sequence[str]
) -> tuple[Tide, Calibration]:
    """Returns the errors as TIDE counts them, and the calibration of the scores, at an overlap of 0.5.

    Args:
        truths: Objects of each image.
        detections: Detections of each image, in the same order.
        class_names: Names of the classes in label order.

    Raises:
        ImportError: hotcoco is not installed.
    """
    evaluation = match_as_coco(truths, detections, class_names=class_names, sizes=False)
    errors, scores = evaluation.tide_errors(), evaluation.calibration()
    tide = Tide(
        float(errors["ap_base"]),
        {name: float(errors["delta_ap"][key]) for key, name in KINDS.items()},
        {name: int(errors["counts"][key]) for key, name in KINDS.items()},
    )
    bins = [
        ScoreBin(each["bin_lower"], each["bin_upper"], each["count"], each["avg_confidence"], each["avg_accuracy"])
        for each in scores["bins"]
    ]
    return tide, Calibration(float(scores["ece"]), bins)
