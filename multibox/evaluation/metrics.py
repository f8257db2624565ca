"""The results of an evaluation, and their JSON form."""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:  # NumPy is not loaded for the help of the command line
    import multibox.detections

from multibox.messages import counted

Rule = Literal["coco", "voc2007", "voc2010"]
Pixels = Literal["inclusive", "continuous"]


class OperatingPoint(TypedDict, total=False):
    """Results at the score threshold with the highest F1, at an overlap of 0.5.

    All rates are `None` if no object counts. The threshold and the precision are `None` if no object is found at any
    threshold.
    """

    score_threshold: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    true_positives: int
    false_positives: int


class ClassMetrics(OperatingPoint):
    """Results of one class: average precision (`None` if no object counts), and numbers of objects and detections.

    `detections` counts all that were scored, down to the low score threshold of an evaluation.
    """

    ap: float | None
    ap50: float | None
    objects: int
    detections: int


@dataclass(frozen=True, repr=False)
class Metrics:
    """Results of an evaluation, as fractions from 0 to 1; `None` if the rule has no such number, or no object counts.

    Attributes:
        rule: Rule that defines average precision (AP).
        pixels: How overlap was measured: `inclusive` counts the last pixel, as the VOC devkit does.
        images: Number of images, including those without objects.
        objects: Number of objects that count: VOC's difficult objects and crowd regions do not.
        ap: Headline number of the rule. COCO: mean over classes and over overlaps from 0.50 to 0.95. VOC: mean over
            classes at overlap 0.5.
        ap50: AP at overlap 0.5; by VOC's rules the same as `ap`.
        ap75: AP at overlap 0.75; only COCO's rule has this and the following numbers.
        ap_small: AP of objects with an area of up to 32 x 32 pixels of their image.
        ap_medium: AP of objects between 32 x 32 and 96 x 96 pixels.
        ap_large: AP of objects from 96 x 96 pixels.
        ar1: Average recall (AR) with the best detection of each image and class.
        ar10: AR with the best 10 detections of each image and class.
        ar100: AR with the best 100 detections of each image and class.
        ar_small: `ar100` of the small objects.
        ar_medium: `ar100` of the medium objects.
        ar_large: `ar100` of the large objects.
        score_threshold: Score threshold with the highest F1 over all classes. This and the five numbers below are
            counted at an overlap of 0.5 with continuous pixels by every rule.
        precision: Fraction of the detections above that threshold that are right.
        recall: Fraction of the objects that are found with a score above that threshold.
        f1: Harmonic mean of the two.
        true_positives: Number of objects found with a score above that threshold.
        false_positives: Number of detections above that threshold that match no object, or a found one.
        per_class: Results of each class by name, in the data set's order. Each class has its own score threshold.
        postprocess: Thresholds and limits that the detector ran with, if a detector was evaluated.
        ignored_classes: Classes of the detector that the data set does not name; their detections were left out.
        detections: The detections in each image, if a detector was evaluated: for curves, and for a look at the errors
            (`multibox.report.evaluation`). They are not in the JSON.
    """

    rule: Rule
    pixels: Pixels
    images: int
    objects: int
    ap: float | None
    ap50: float | None
    per_class: Mapping[str, ClassMetrics]
    ap75: float | None = None
    ap_small: float | None = None
    ap_medium: float | None = None
    ap_large: float | None = None
    ar1: float | None = None
    ar10: float | None = None
    ar100: float | None = None
    ar_small: float | None = None
    ar_medium: float | None = None
    ar_large: float | None = None
    score_threshold: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    true_positives: int = 0
    false_positives: int = 0
    postprocess: Mapping[str, float | int | str] = field(default_factory=dict)
    ignored_classes: tuple[str, ...] = ()
    detections: Sequence["multibox.detections.Detections"] = field(default=(), repr=False, compare=False)

    def __repr__(self) -> str:
        """Returns the headline numbers in percent. All numbers are in the attributes and in `to_json`."""
        named = {"AP": self.ap, **({"AP50": self.ap50, "AP75": self.ap75} if self.rule == "coco" else {})}
        numbers = [f"{name} {'-' if value is None else f'{100 * value:.1f}'}" for name, value in named.items()]
        sizes = [counted(self.images, "image"), counted(self.objects, "object"), counted(len(self.per_class), "class")]
        return f"Metrics({self.rule}: {', '.join([*numbers, *sizes])})"

    def to_json(self) -> str:
        """Returns one JSON object with all attributes but the detections; `None` becomes `null`.

        Raises:
            ValueError: A number is NaN or infinite, which JSON does not have.
        """
        values = dataclasses.asdict(dataclasses.replace(self, detections=()))
        del values["detections"]
        return json.dumps(values, indent=2, allow_nan=False)


def mean(values: Iterable[float | None]) -> float | None:
    """Returns the mean of the values that are not `None`; `None` if there are none."""
    known = [value for value in values if value is not None]
    return float(sum(known) / len(known)) if known else None
