"""The result of an evaluation, and its JSON form."""

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypedDict

Rule = Literal["coco", "voc2007", "voc2010"]
Pixels = Literal["inclusive", "continuous"]


class ClassMetrics(TypedDict):
    """One class: its average precision (`None` where nothing of it counts), and how many of it there are."""

    ap: float | None
    ap50: float | None
    objects: int
    detections: int


@dataclass(frozen=True)
class Metrics:
    """What an evaluation found: fractions from 0 to 1; `None` where the rule has no such number, or no object for it.

    Attributes:
        rule: Whose definition of average precision (AP) it is.
        pixels: How overlap was measured: `inclusive` counts the last pixel, as the VOC devkit does.
        images: How many images, those without objects included.
        objects: How many objects count: not VOC's difficult ones, and no crowd regions.
        ap: The rule's headline. COCO: the mean over classes and over overlaps from 0.50 to 0.95. VOC: over classes, at
            overlap 0.5.
        ap50: At overlap 0.5; under VOC's rules the same as `ap`.
        ap75: At overlap 0.75; this and all the following is COCO's alone.
        ap_small: Of objects with an area of up to 32 x 32 pixels of their image.
        ap_medium: Between the two.
        ap_large: From 96 x 96 pixels on.
        ar1: Average recall (AR) with the best detection of each image and class alone.
        ar10: With the best ten.
        ar100: With the best hundred.
        ar_small: `ar100` of the small objects.
        ar_medium: Of the medium ones.
        ar_large: Of the large ones.
        per_class: By class name, in the data set's order.
        postprocess: The thresholds and limits that the detector ran with, where it was a detector that was evaluated.
        ignored_classes: What the detector also knows and the data set does not name: detections of it were left out.
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
    postprocess: Mapping[str, float | int | str] = field(default_factory=dict)
    ignored_classes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One JSON object with all the attributes; what is `None` is `null`."""
        return json.dumps(dataclasses.asdict(self), indent=2, allow_nan=False)


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are there; `None` where none is."""
    there = [value for value in values if value is not None]
    return float(sum(there) / len(there)) if there else None
