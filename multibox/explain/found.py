"""Explain what was found in an image: the default box and the offsets of each box, and which box suppressed which."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from multibox.boxes import NOT_SUPPRESSED, decode, suppressed_by
from multibox.config import DetectorConfig, Postprocess
from multibox.detections import Detections
from multibox.detector import Detector, PreparedImage
from multibox.postprocess import NormalizedDetections, postprocess
from multibox.runtimes.exported import ExportedRuntime
from multibox.runtimes.runtime import RawOutputs

LOWEST_SCORE = 0.05
"""Boxes that score above this are candidates, so that the page can try lower thresholds than the detector's."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """The boxes that suppression chooses from in one image, the highest score first, in columns.

    Attributes:
        rows: Boxes, scores, labels and default boxes. Boxes are not clipped to the image, as suppression compares them.
        suppressed_by: Number of the detection that suppressed the box, or `NOT_SUPPRESSED`. Boxes with a score below
            the threshold did not take part.
        complete: Whether suppressed boxes are among them. A file with suppression inside does not give those.
    """

    rows: NormalizedDetections
    suppressed_by: Int[np.ndarray, " candidates"]
    complete: bool


@dataclass(frozen=True, eq=False)
class Found:
    """What a detector found in one image, and how.

    Attributes:
        detections: What `Detector.detect` returns.
        places: Place of each detection among the candidates.
        candidates: The boxes that suppression chose from.
        score_thresholds: The score of each class above which a box took part in suppression.
        iou_threshold: The overlap above which a box was suppressed.
        default_boxes: All default boxes in center form, as fractions of the image.
        outputs: The raw outputs for the image; None if the exported file gives boxes only.
    """

    detections: Detections
    places: Int[np.ndarray, " detections"]
    candidates: Candidates
    score_thresholds: list[float]
    iou_threshold: float
    default_boxes: Float[np.ndarray, "default_boxes 4"]
    outputs: RawOutputs | None


def explain_found(
    detector: Detector,
    image: PreparedImage,
    *,
    score_threshold: float | None = None,
    iou_threshold: float | None = None,
) -> Found:
    """Returns what the detector finds in an image, with the boxes that each detection was chosen from.

    Args:
        detector: A detector on the CPU, of a weights file or of an exported file.
        image: The image, from `detector.prepare_image`.
        score_threshold: Detections score above this; by default above the threshold of their class.
        iou_threshold: A box is suppressed if it overlaps a better one by more than this; by default the detector's own.

    Raises:
        ValueError: The detector is not on the CPU, merges classes, or does not say which default box found an object.
    """
    found = detector.detect(image, score_threshold=score_threshold, iou_threshold=iou_threshold)
    if (found.default_box_indices < 0).any():
        raise ValueError("this detector does not say which default box found an object; give its .safetensors file")
    thresholds = detector.detect_thresholds
    if score_threshold is not None:
        thresholds = [score_threshold] * len(thresholds)
    settings = detector.config.postprocess.override(iou_threshold=iou_threshold)
    outputs = raw_outputs(detector, image)
    rows = _candidates(detector, image, outputs, settings, least=min(LOWEST_SCORE, *thresholds))
    complete = rows is not None
    if rows is None:
        size = np.array([image.width, image.height] * 2, np.float32)
        rows = NormalizedDetections(found.boxes / size, found.scores, found.labels, found.default_box_indices)
    place_of = {key: place for place, key in enumerate(_keys(rows))}
    places = np.array([place_of[key] for key in _keys(found)], np.int64)
    took_part = rows.scores > np.array(thresholds, np.float32)[rows.labels]
    rivals = np.zeros_like(rows.labels) if settings.class_agnostic else rows.labels
    by = suppressed_by(rows.boxes, rivals, places, settings.iou_threshold)
    candidates = Candidates(rows, np.where(took_part, by, NOT_SUPPRESSED), complete)
    table = default_boxes_of(detector, outputs)
    return Found(found, places, candidates, thresholds, settings.iou_threshold, table, outputs)


def default_boxes_of(detector: Detector, outputs: RawOutputs | None) -> Float[np.ndarray, "default_boxes 4"]:
    """Returns all default boxes in center form, as fractions of the image: those of the raw outputs, or of the file."""
    if outputs is not None:
        return outputs.default_boxes
    if isinstance(detector.runtime, ExportedRuntime):
        return detector.runtime.default_boxes
    raise ValueError("only a detector on the CPU is explained; call detector.to('cpu') first")


def box_steps(
    offsets: Float[np.ndarray, "*rows 4"], default_boxes: Float[np.ndarray, "*rows 4"], config: DetectorConfig
) -> list[Float[np.ndarray, "*rows 4"]]:
    """Returns the way from default boxes to boxes, in corner form as fractions of the image.

    The steps are the default box itself, the default box at the center that the first two offsets give, and the box.
    """
    uses = ([0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1])
    rules = {"center_variance": config.center_variance, "size_variance": config.size_variance}
    return [
        decode(offsets * np.array(use, offsets.dtype), default_boxes, **rules, max_log_size=config.max_log_size)
        for use in uses
    ]


def raw_outputs(detector: Detector, image: PreparedImage) -> RawOutputs | None:
    """Returns the raw outputs for an image; None for an exported file that gives boxes only.

    Raises:
        ValueError: The detector merges classes.
    """
    runtime = detector.runtime
    if isinstance(runtime, ExportedRuntime):
        return runtime.raw_outputs(image.pixels[None])
    outputs = runtime(image.pixels[None], settings=detector.config.postprocess)
    if not isinstance(outputs, RawOutputs):
        return None
    if outputs.logits.shape[2] != len(detector.class_names) + 1:
        raise ValueError("a detector that merges classes is not explained; give the original one")
    return outputs


def _candidates(
    detector: Detector, image: PreparedImage, outputs: RawOutputs | None, settings: Postprocess, *, least: float
) -> NormalizedDetections | None:
    """Returns all boxes that suppression chooses from; None for an exported file that does not give them."""
    config, runtime = detector.config, detector.runtime
    # what suppression chooses from is what it leaves if no overlap is too large
    most = config.num_default_boxes * len(detector.class_names)
    everything = replace(settings, score_threshold=least, iou_threshold=1.0, max_detections=most, merge="none")
    if outputs is not None:
        return postprocess(outputs.offsets[0], outputs.logits[0], outputs.default_boxes, config, settings=everything)
    if isinstance(runtime, ExportedRuntime) and runtime.facts.suppression == "runtime":
        rows = runtime(image.pixels[None], settings=everything)
        assert isinstance(rows, list)
        return rows[0]
    return None


def _keys(found: Detections | NormalizedDetections) -> list[tuple[int, int]]:
    """Returns the default box and the label of each detection, which no other has."""
    return list(zip(found.default_box_indices.tolist(), found.labels.tolist(), strict=True))
