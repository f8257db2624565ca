"""Explain one image: put together what was found and what a training would learn, as values that JSON can hold."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from multibox.boxes import box_iou, center_to_corner
from multibox.data.augment import normalized_boxes
from multibox.data.sample import GroundTruth, Sample
from multibox.default_boxes import place_of
from multibox.detector import Detector, PreparedImage
from multibox.explain.found import LOWEST_SCORE, Found, box_steps, explain_found, raw_outputs
from multibox.images import Source

if TYPE_CHECKING:
    from multibox.explain.learned import Matches, Mined

Record = dict[str, Any]
"""Plain values, ready for JSON."""


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a detector found in one image and how, and what it would learn from it.

    Attributes:
        detector: The detector.
        found: What was found.
        record: All of it as plain values, ready for JSON: docs/explain.md says what they mean.
    """

    detector: Detector
    found: Found
    record: Record

    def to_json(self) -> str:
        """Returns the record as a JSON object."""
        return json.dumps(self.record, ensure_ascii=False, allow_nan=False)


def explain(
    models: Mapping[str, Detector],
    image: Source,
    *,
    sample: Sample | None = None,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
) -> Explanation:
    """Explains one image.

    Args:
        models: Detectors by the names of their weights. The last is explained. Of the others, such as the weights of
            the same run after fewer epochs, only the hard negatives are.
        image: The image, as `Detector.detect` takes it.
        sample: The image with its objects, if they are known. Its labels are those of the detector.
        score_threshold: Detections score above this; by default above the threshold of their class.
        iou_threshold: A box is suppressed if it overlaps a better one by more than this; by default the detector's own.

    Raises:
        ValueError: A detector cannot be explained, or the models differ in their classes or default boxes.
        ImportError: Objects are given, and torch is not installed.
    """
    *_, (model, detector) = models.items()
    for name, other in models.items():
        _check_alike(model, detector, name, other)
    prepared = detector.prepare_image(image)
    found = explain_found(detector, prepared, score_threshold=score_threshold, iou_threshold=iou_threshold)
    describe = _Describer(detector, prepared, found)
    record: Record = {
        "image": {"file": str(found.detections.path or ""), "height": prepared.height, "width": prepared.width},
        "model": model,
        "detector": describe.detector(),
        "feature_maps": describe.feature_maps(),
        "detections": describe.detections(),
        "candidates": describe.candidates(),
        "truth": None,
        "hard_negatives": [],
    }
    if sample is None:
        return Explanation(detector, found, record)
    from multibox.explain.learned import match_objects, mine

    truth = sample.truth[~sample.truth.crowd]
    boxes = normalized_boxes(sample).astype(np.float32)
    matches = match_objects(boxes, truth.labels, found.default_boxes, detector.config)
    record["truth"] = describe.truth(truth, matches)
    for name, other in models.items():
        outputs = found.outputs if other is detector else raw_outputs(other, other.prepare_image(image))
        if outputs is not None and other.config.scoring == "softmax":  # which is what the loss trains
            record["hard_negatives"].append({"model": name, **describe.mined(mine(outputs, matches), matches)})
    return Explanation(detector, found, record)


def _check_alike(model: str, detector: Detector, name: str, other: Detector) -> None:
    """Checks that another detector has the same classes, default boxes, and variances of the offsets.

    Raises:
        ValueError: They differ.
    """
    for what, one, two in (
        ("classes", detector.class_names, other.class_names),
        ("default boxes", detector.config.feature_maps, other.config.feature_maps),
        ("variances", *((each.config.center_variance, each.config.size_variance) for each in (detector, other))),
        ("input", (detector.config.height, detector.config.width), (other.config.height, other.config.width)),
    ):
        if one != two:
            raise ValueError(f"{name} has other {what} than {model}; give weights of one detector, such as of one run")


class _Describer:
    """Writes the parts of an explanation as plain values. Boxes become pixels of the image."""

    def __init__(self, detector: Detector, image: PreparedImage, found: Found) -> None:
        self._config, self._names = detector.config, detector.class_names
        self._found, self._rows = found, found.candidates.rows
        self._size = np.array([image.width, image.height] * 2, np.float64)
        self._corners = center_to_corner(found.default_boxes)

    def detector(self) -> Record:
        """Returns what the detector's config says of default boxes, offsets and suppression."""
        config, settings = self._config, self._config.postprocess
        return {
            "name": config.name,
            "input": {"height": config.height, "width": config.width},
            "class_names": list(self._names),
            "center_variance": config.center_variance,
            "size_variance": config.size_variance,
            "score_thresholds": self._found.score_thresholds,
            "lowest_score": min(LOWEST_SCORE, *self._found.score_thresholds),
            "iou_threshold": self._found.iou_threshold,
            "class_agnostic": settings.class_agnostic,
            "max_detections": settings.max_detections,
        }

    def feature_maps(self) -> list[Record]:
        """Returns the grid of each feature map, and the default boxes of a cell in pixels of the network's input."""
        return [
            {
                "layer": row.layer,
                "rows": row.rows,
                "columns": row.columns,
                "step": list(row.step),
                "offset": row.offset,
                "box_sizes": [list(size) for size in row.box_sizes],
                "default_boxes": row.num_default_boxes,
            }
            for row in self._config.feature_maps
        ]

    def default_box(self, index: int) -> Record:
        """Returns where a default box is, and its corners."""
        number, row, column, shape = place_of(index, self._config)
        return {
            "index": index,
            "feature_map": number,
            "layer": self._config.feature_maps[number].layer,
            "row": row,
            "column": column,
            "shape": shape,
            "box": self._pixels(self._corners[index]),
        }

    def detections(self) -> list[Record]:
        """Returns how each detection came about, and what it suppressed."""
        by = self._found.candidates.suppressed_by
        records = []
        for number, (one, place) in enumerate(zip(self._found.detections, self._found.places.tolist(), strict=True)):
            suppressed = np.flatnonzero(by == number).tolist()
            records.append(
                {
                    **self._candidate(place, score_after=one.score),
                    "box": [round(value, 2) for value in one.box],
                    "suppressed": [
                        {**self._candidate(each, score_after=0.0), "overlap": self._overlap(each, place)}
                        for each in suppressed
                    ]
                    if self._found.candidates.complete
                    else None,
                }
            )
        return records

    def candidates(self) -> list[Record] | None:
        """Returns all boxes that suppression chooses from, not clipped; None if the file does not give them."""
        if not self._found.candidates.complete:
            return None
        boxes = (self._rows.boxes * self._size).round(4).tolist()
        columns = (self._rows.default_box_indices, self._rows.labels, self._rows.scores)
        return [
            {"default_box": index, "label": label, "score": round(score, 6), "box": box}
            for index, label, score, box in zip(*(column.tolist() for column in columns), boxes, strict=True)
        ]

    def truth(self, truth: GroundTruth, matches: "Matches") -> list[Record]:
        """Returns the default boxes that each object is matched to, the largest overlap first."""
        records = []
        for number, overlaps in enumerate(matches.overlaps):
            matched = np.flatnonzero(matches.objects == number)
            matched = matched[np.argsort(-overlaps[matched], kind="stable")]
            label = int(truth.labels[number])
            records.append(
                {
                    "name": self._names[label],
                    "label": label,
                    "box": [round(value, 2) for value in truth.boxes[number].tolist()],
                    "difficult": bool(truth.difficult[number]),
                    "best_overlap": round(float(overlaps.max()), 5),
                    "matches": [
                        {
                            **self.default_box(index),
                            "overlap": round(float(overlaps[index]), 5),
                            "rule": "own" if matches.own[index] else "overlap",
                            "offsets": _rounded(matches.offsets[index]),
                        }
                        for index in matched.tolist()
                    ],
                }
            )
        return records

    def mined(self, mined: "Mined", matches: "Matches") -> Record:
        """Returns the loss, and the default boxes of the hard negatives, the largest loss first."""
        return {
            "matches": int(mined.losses.matches),
            "localization_loss": round(float(mined.losses.localization), 5),
            "confidence_loss": round(float(mined.losses.confidence), 5),
            "default_boxes": [
                {
                    **self.default_box(index),
                    "loss": round(float(mined.background_losses[index]), 5),
                    **_nearest(matches.overlaps[:, index]),
                }
                for index in mined.hard_negatives.tolist()
            ],
        }

    def _candidate(self, place: int, *, score_after: float) -> Record:
        label, index = int(self._rows.labels[place]), int(self._rows.default_box_indices[place])
        record: Record = {
            "name": self._names[label],
            "label": label,
            "score_before": round(float(self._rows.scores[place]), 6),
            "score_after": round(score_after, 6),
            "box": self._pixels(self._rows.boxes[place]),
            "default_box": self.default_box(index),
            "offsets": None,
            "steps": None,
        }
        if self._found.outputs is not None:
            offsets = self._found.outputs.offsets[0, index]
            steps = box_steps(offsets, self._found.default_boxes[index], self._config)
            record |= {"offsets": _rounded(offsets), "steps": [self._pixels(step) for step in steps]}
        return record

    def _overlap(self, one: int, other: int) -> float:
        boxes = self._rows.boxes
        return round(float(box_iou(boxes[one : one + 1], boxes[other : other + 1])[0, 0]), 5)

    def _pixels(self, box: Float[np.ndarray, "4"]) -> list[float]:
        return [round(value, 2) for value in (box * self._size).tolist()]


def _nearest(overlaps: Float[np.ndarray, " objects"]) -> Record:
    """Returns the object that a default box overlaps most, and by how much; the object is None if it overlaps none."""
    best = float(overlaps.max(initial=0))
    return {"overlap": round(best, 5), "object": int(overlaps.argmax()) if best > 0 else None}


def _rounded(offsets: Float[np.ndarray, "4"]) -> list[float]:
    return [round(value, 5) for value in offsets.tolist()]
