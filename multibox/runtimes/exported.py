"""The runtime of an exported file, whichever engine runs it: it finishes what the file leaves open."""

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
from jaxtyping import Float, Int, Shaped

from multibox.config import DetectorConfig, Postprocess
from multibox.default_boxes import make_default_boxes
from multibox.postprocess import NormalizedDetections, not_finite, select
from multibox.runtimes.runtime import RawOutputs

Suppression = Literal["graph", "runtime", "none"]
"""Where suppression happens: in the file; in whoever runs it, from boxes and scores; or there, from raw outputs."""

OUTPUTS: Mapping[Suppression, tuple[str, ...]] = {
    "graph": ("boxes", "scores", "labels", "default_box_indices", "count"),
    "runtime": ("boxes", "scores"),
    "none": ("offsets", "logits"),
}
"""Names of the outputs of an exported file."""

Run = Callable[[Shaped[np.ndarray, "batch 3 height width"]], Mapping[str, np.ndarray]]
"""Runs a file on a batch of the size that it takes, and returns its outputs by name."""


class ExportFacts(msgspec.Struct, frozen=True):
    """What an exported file's metadata say of it, beside what a weights file says of a detector.

    Attributes:
        suppression: Where suppression happens.
        settings: Thresholds and limits of the suppression in the file.
        default_boxes: The table of default boxes as base64 of its 32-bit numbers, if the config does not make it.
        prepares: Whether the file takes one whole image, `(1, height, width, 3)`, and resizes it itself.
    """

    suppression: Suppression
    settings: Postprocess
    default_boxes: str = ""
    prepares: bool = False

    def to_text(self) -> str:
        """Returns the facts as a JSON object, for the key `export` of the metadata."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_text(cls, text: str) -> "ExportFacts":
        """Returns the facts that `to_text` wrote.

        Raises:
            ValueError: A value is missing or invalid.
        """
        return msgspec.json.decode(text, type=cls)

    def default_boxes_of(self, config: DetectorConfig) -> Float[np.ndarray, "default_boxes 4"]:
        """Returns the default boxes of the file in center form, as fractions of the image.

        Args:
            config: Config of the detector.

        Raises:
            ValueError: The table in the metadata is not one of this config.
        """
        if not self.default_boxes:
            return make_default_boxes(config)
        table = np.frombuffer(base64.b64decode(self.default_boxes), np.float32)
        return table.reshape(config.num_default_boxes, 4)


class ExportedRuntime:
    """Runs an exported file.

    Attributes:
        facts: What the file's metadata say of it.
        prepares: Whether calls take a whole image of any size, one at a time.
        default_boxes: The default boxes in center form, as fractions of the image.
    """

    def __init__(self, run: Run, config: DetectorConfig, facts: ExportFacts, *, batch: int | None) -> None:
        """Makes the runtime of a file that is open.

        Args:
            run: Runs the file.
            config: Config of the detector.
            facts: What the file's metadata say of it.
            batch: Number of images that the file takes at once; None for any number.

        Raises:
            ValueError: The table of default boxes in the metadata is not one of this config.
        """
        self.facts, self.prepares = facts, facts.prepares
        self._run, self._batch = run, batch
        self.default_boxes = facts.default_boxes_of(config)

    def __call__(
        self,
        inputs: Shaped[np.ndarray, "batch 3 height width"],
        *,
        settings: Postprocess,
        labels: Sequence[int] | None = None,
        merged_labels: Int[np.ndarray, " classes"] | None = None,
        score_thresholds: Float[np.ndarray, " detector_classes"] | None = None,
    ) -> RawOutputs | list[NormalizedDetections]:
        """Returns the raw outputs, or the detections of each image, as the file has them.

        Raises:
            ValueError: The file's own suppression has other settings than the ones asked for, or gives NaN.
        """
        match self.facts.suppression:
            case "none":
                outputs = self._outputs(inputs)
                return RawOutputs(outputs["offsets"], outputs["logits"], self.default_boxes)
            case "runtime":
                outputs = self._outputs(inputs)
                return [
                    select(
                        *row,
                        settings=settings,
                        labels=labels,
                        merged_labels=merged_labels,
                        score_thresholds=score_thresholds,
                    )
                    for row in zip(outputs["boxes"], outputs["scores"], strict=True)
                ]
            case "graph":
                self._check(settings, labels, merged_labels)
                outputs = self._outputs(inputs)
                whole = (outputs[name].astype(np.int64) for name in ("labels", "default_box_indices"))
                columns = (outputs["boxes"], outputs["scores"], *whole, outputs["count"].tolist())
                return [
                    _above(*row, settings=settings, labels=labels, score_thresholds=score_thresholds)
                    for row in zip(*columns, strict=True)
                ]

    def raw_outputs(self, inputs: Shaped[np.ndarray, "batch 3 height width"]) -> RawOutputs | None:
        """Returns the raw outputs, wherever suppression happens; None if the file does not give them (`raw=True`)."""
        outputs = self._outputs(inputs)
        if not outputs.keys() >= set(OUTPUTS["none"]):
            return None
        return RawOutputs(outputs["offsets"], outputs["logits"], self.default_boxes)

    def _outputs(self, inputs: Shaped[np.ndarray, "batch 3 height width"]) -> Mapping[str, np.ndarray]:
        """Returns the outputs for any number of images."""
        if self.prepares:
            return self._run(np.ascontiguousarray(inputs.transpose(0, 2, 3, 1)))
        if self._batch is None or len(inputs) == self._batch:
            return self._run(inputs)
        parts = []
        for start in range(0, len(inputs), self._batch):
            part = inputs[start : start + self._batch]
            missing = self._batch - len(part)
            found = self._run(np.concatenate([part, np.zeros_like(inputs[:1]).repeat(missing, axis=0)]))
            parts.append({name: values[: len(part)] for name, values in found.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _check(
        self, settings: Postprocess, labels: Sequence[int] | None, merged_labels: Int[np.ndarray, " classes"] | None
    ) -> None:
        """Raises a ValueError if the file's suppression is not the one that is asked for."""
        own = self.facts.settings
        advice = "; export it with --nms runtime, and any value can be given"
        if merged_labels is not None:
            raise ValueError(f"the suppression in this file knows its own classes, so they cannot be merged{advice}")
        if labels is not None and own.class_agnostic:
            raise ValueError(f"the suppression in this file is across all classes, so none can be left out{advice}")
        for name in ("iou_threshold", "class_agnostic", "max_candidates_per_class", "merge"):
            wanted, there = getattr(settings, name), getattr(own, name)
            if wanted != there:
                raise ValueError(f"the suppression in this file has {name} {there}, not {wanted}{advice}")
        if settings.max_detections > own.max_detections:
            raise ValueError(
                f"this file gives at most {own.max_detections} detections, not {settings.max_detections}{advice}"
            )
        if settings.score_threshold < own.score_threshold:
            raise ValueError(
                f"this file gives detections that score above {own.score_threshold:g}, not "
                f"{settings.score_threshold:g}{advice}"
            )


def _above(
    boxes: Float[np.ndarray, "rows 4"],
    scores: Float[np.ndarray, " rows"],
    labels_found: Int[np.ndarray, " rows"],
    indices: Int[np.ndarray, " rows"],
    count: int,
    *,
    settings: Postprocess,
    labels: Sequence[int] | None,
    score_thresholds: Float[np.ndarray, " classes"] | None,
) -> NormalizedDetections:
    """Returns the detections in a file's outputs that are asked for.

    The others may be left out afterwards: whether a box is kept depends on higher scores of its class alone. But the
    file counts all of them for its own `max_detections`.
    """
    if not np.isfinite(scores).all() or np.isnan(boxes).any():
        raise not_finite()
    found = np.arange(len(scores)) < count
    found &= scores > settings.score_threshold
    if score_thresholds is not None:
        found &= scores > score_thresholds[labels_found]
    if labels is not None:
        found &= np.isin(labels_found, labels)
    kept = np.flatnonzero(found)[: settings.max_detections]
    return NormalizedDetections(boxes[kept], scores[kept], labels_found[kept].astype(np.int64), indices[kept])
