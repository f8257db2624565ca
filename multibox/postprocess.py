"""Turn a network's raw outputs into detections: threshold, suppression, limits (the Caffe code's DetectionOutput).

This is the one definition for CPUs. It is exact, and fast because it looks at few boxes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import inf, log
from typing import assert_never

import numpy as np
from jaxtyping import Float, Int

from multibox.boxes import box_voting, decode, nms
from multibox.config import DetectorConfig, Postprocess, Scoring

_PREFIX = 1024
"""Number of the best candidates that are sorted first. They mostly fill all detections, and the rest is not sorted."""


@dataclass(frozen=True, eq=False)
class NormalizedDetections:
    """The detections of one image, the highest score first: columns of `Detections` in fractions of the image.

    Attributes:
        boxes: Boxes in corner form; 0 to 1 is the image, and they are not clipped to it.
        scores: Scores from 0 to 1.
        labels: Indices into the class names.
        default_box_indices: Index of the default box that found each object, or, if boxes were merged, of the best of
            those that did; -1 if the runtime does not report it.
    """

    boxes: Float[np.ndarray, "detections 4"]
    scores: Float[np.ndarray, " detections"]
    labels: Int[np.ndarray, " detections"]
    default_box_indices: Int[np.ndarray, " detections"]


def postprocess(
    offsets: Float[np.ndarray, "default_boxes 4"],
    logits: Float[np.ndarray, "default_boxes classes_and_background"],
    default_boxes_center: Float[np.ndarray, "default_boxes 4"],
    config: DetectorConfig,
    *,
    settings: Postprocess,
    labels: Sequence[int] | None = None,
    merged_labels: Int[np.ndarray, " classes"] | None = None,
    score_thresholds: Float[np.ndarray, " detector_classes"] | None = None,
) -> NormalizedDetections:
    """Returns the detections of one image.

    A class score above the threshold makes a candidate. The best `max_candidates_per_class` candidates of each class
    enter suppression. In the order of their scores, each is kept unless it overlaps a kept one (of its class, or of any
    class) by more than the IoU threshold. The best `max_detections` are returned. Of equal scores, the default box that
    comes first wins, then the class that comes first.

    If the settings say `weighted`, the boxes that are returned are means (`multibox.boxes.box_voting`) over all
    candidates that entered suppression. So a box may move if the score threshold changes. Nothing else changes.

    Args:
        offsets: The network's offsets of each default box.
        logits: The network's logits of each default box; column 0 is the background.
        default_boxes_center: The default boxes in center form, as fractions of the image.
        config: Config that says how offsets become boxes and logits become scores.
        settings: Thresholds and limits.
        labels: Labels of the wanted classes; all classes if `None`.
        merged_labels: New label of each class, if several classes are merged. The score of a merged class is the best
            of their scores; thresholds, limits, suppression and `labels` apply to the new classes only.
        score_thresholds: Score threshold of each of the detector's classes, where it is above that of the settings.

    Raises:
        ValueError: The outputs hold NaN or infinity.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        # sums of squares are fast; they also overflow if finite values are huge, so every value is checked then
        finite = np.isfinite(np.vdot(offsets, offsets) + np.vdot(logits, logits))
    if not (finite or (np.isfinite(offsets).all() and np.isfinite(logits).all())):
        raise not_finite()
    scores, rows = _scores(logits, settings.score_threshold, config.scoring)

    def boxes_of(indices: Int[np.ndarray, " candidates"]) -> Float[np.ndarray, "candidates 4"]:
        boxes = decode(
            offsets[indices],
            default_boxes_center[indices],
            center_variance=config.center_variance,
            size_variance=config.size_variance,
            max_log_size=config.max_log_size,
        )
        return boxes.clip(0, 1) if config.clip_boxes else boxes

    return _select(
        scores,
        rows,
        boxes_of,
        settings=settings,
        labels=labels,
        merged_labels=merged_labels,
        score_thresholds=score_thresholds,
    )


def select(
    boxes: Float[np.ndarray, "default_boxes 4"],
    scores: Float[np.ndarray, "default_boxes classes"],
    *,
    settings: Postprocess,
    labels: Sequence[int] | None = None,
    merged_labels: Int[np.ndarray, " classes"] | None = None,
    score_thresholds: Float[np.ndarray, " detector_classes"] | None = None,
) -> NormalizedDetections:
    """Returns what `postprocess` returns, from boxes and class scores that are computed already.

    Args:
        boxes: Box of each default box in corner form, as fractions of the image.
        scores: Score of each class; the background is left out.
        settings: Thresholds and limits; this and all others as in `postprocess`.
        labels: Labels of the wanted classes.
        merged_labels: New label of each class.
        score_thresholds: Score threshold of each of the detector's classes.

    Raises:
        ValueError: A box or a score is NaN, or a score is infinite.
    """
    if np.isnan(boxes).any() or not np.isfinite(scores).all():
        raise not_finite()
    rows = np.flatnonzero((scores > settings.score_threshold).any(axis=1))
    return _select(
        scores[rows],
        rows,
        boxes.__getitem__,
        settings=settings,
        labels=labels,
        merged_labels=merged_labels,
        score_thresholds=score_thresholds,
    )


def _select(
    scores: Float[np.ndarray, "rows classes"],
    rows: Int[np.ndarray, " rows"],
    boxes_of: Callable[[Int[np.ndarray, " candidates"]], Float[np.ndarray, "candidates 4"]],
    *,
    settings: Postprocess,
    labels: Sequence[int] | None,
    merged_labels: Int[np.ndarray, " classes"] | None,
    score_thresholds: Float[np.ndarray, " detector_classes"] | None,
) -> NormalizedDetections:
    """Returns the detections among the default boxes of these rows, given their scores and the boxes of candidates."""
    if merged_labels is not None:
        scores = _merge_classes(scores, merged_labels)
    if score_thresholds is not None:
        scores[scores <= score_thresholds] = 0
    if labels is not None:
        scores[:, np.setdiff1d(np.arange(scores.shape[1]), np.array(labels, dtype=np.int64))] = 0
    columns = scores.shape[1]
    for places in _prefixes(scores, settings):
        if len(places) > settings.max_candidates_per_class:
            places = places[_rank(places % columns) < settings.max_candidates_per_class]
        indices, classes = rows[places // columns], places % columns
        with np.errstate(over="ignore", invalid="ignore"):  # a box may be too large for a float
            boxes = boxes_of(indices)
            rivals = np.zeros_like(classes) if settings.class_agnostic else classes
            kept = nms(boxes, rivals, settings.iou_threshold, max_detections=settings.max_detections)
        if len(kept) == settings.max_detections:
            break
    match settings.merge:
        case "none":
            found = boxes[kept]
        case "weighted":
            with np.errstate(over="ignore", invalid="ignore"):
                found = box_voting(boxes, rivals, scores.ravel()[places], kept, settings.iou_threshold)
        case unknown:
            assert_never(unknown)
    return NormalizedDetections(found, scores.ravel()[places[kept]], classes[kept], indices[kept])


def not_finite() -> ValueError:
    """Returns the error for raw outputs with NaN or infinity, in which nothing would be found."""
    return ValueError(
        "the network's outputs hold NaN or infinity, so that nothing can be detected: its weights are damaged or "
        "diverged in training, or its precision is too low (try precision='fp32')"
    )


def _scores(
    logits: Float[np.ndarray, "default_boxes classes_and_background"], threshold: float, scoring: Scoring
) -> tuple[Float[np.ndarray, "rows classes"], Int[np.ndarray, " rows"]]:
    """Returns the class scores of the default boxes that may pass the threshold, and the indices of these boxes."""
    # A softmax score is at most exp(logit - background logit), a sigmoid at most exp(logit). So most boxes are dropped
    # before any exponential is computed. The margins allow for rounding.
    least = log(threshold) - 1e-4 if threshold > 0 else -inf
    match scoring:
        case "softmax":
            background = logits[:, :1]
        case "sigmoid":
            background = np.zeros_like(logits[:1, :1])
        case unknown:
            assert_never(unknown)
    may_pass = logits > background + (least - 1e-6 * np.abs(background))
    may_pass[:, 0] = False
    rows = np.flatnonzero(may_pass) // logits.shape[1]
    rows = rows[np.diff(rows, prepend=-1) > 0]
    chosen = logits[rows]
    match scoring:
        case "softmax":
            powers = np.exp(chosen - chosen.max(axis=1, keepdims=True))
            return powers[:, 1:] / powers.sum(axis=1, keepdims=True), rows
        case "sigmoid":
            with np.errstate(over="ignore"):
                return 1 / (1 + np.exp(-chosen[:, 1:])), rows
        case unknown:
            assert_never(unknown)


def _merge_classes(
    scores: Float[np.ndarray, "rows classes"], merged_labels: Int[np.ndarray, " classes"]
) -> Float[np.ndarray, "rows merged_classes"]:
    """Returns the best score of the classes that have the same new label, one column for each new label."""
    order = np.argsort(merged_labels, kind="stable")
    starts = np.searchsorted(merged_labels[order], np.arange(merged_labels.max() + 1))
    merged: Float[np.ndarray, "rows merged_classes"] = np.maximum.reduceat(scores[:, order], starts, axis=1)
    return merged


def _prefixes(
    scores: Float[np.ndarray, "rows classes"], settings: Postprocess
) -> Iterator[Int[np.ndarray, " candidates"]]:
    """Yields the places (row x columns + column) of scores above the threshold, the highest first: the best, then all.

    Whether a box is kept depends on higher scores only. If the best candidates fill all detections, the others are
    never sorted. A box that is merged with others depends on all candidates, so only all are yielded then.
    """
    flat = scores.ravel()
    above = flat > settings.score_threshold
    if np.count_nonzero(above) > _PREFIX:
        if settings.merge == "none":
            best = np.flatnonzero(flat >= np.partition(flat, -_PREFIX)[-_PREFIX])
            yield best[np.argsort(-flat[best], kind="stable")]
        # the lowest score that can be among the best of its class
        last = min(settings.max_candidates_per_class, len(scores))
        above &= (scores >= np.partition(scores, -last, axis=0)[-last]).ravel()
    places = np.flatnonzero(above)
    yield places[np.argsort(-flat[places], kind="stable")]


def _rank(classes: Int[np.ndarray, " candidates"]) -> Int[np.ndarray, " candidates"]:
    """Returns how many candidates of the same class come before each."""
    order = np.argsort(classes, kind="stable")
    ordered = classes[order]
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return rank
