"""`multibox.postprocess` for a batch on a GPU: the same rules in plain tensor code, without a loop over images."""

from collections.abc import Sequence
from typing import assert_never

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from multibox.config import DetectorConfig, Postprocess
from multibox.postprocess import NormalizedDetections, not_finite
from multibox.ssd.coder import BoxCoder
from multibox.ssd.matching import box_iou

_CHUNK = 512
"""Number of candidates of each image that suppression looks at in one round."""

_LOW_BITS = 2**32 - 1


def postprocess(
    offsets: Float[Tensor, "batch default_boxes 4"],
    logits: Float[Tensor, "batch default_boxes classes_and_background"],
    default_boxes_center: Float[Tensor, "default_boxes 4"],
    config: DetectorConfig,
    *,
    settings: Postprocess,
    labels: Sequence[int] | None = None,
    merged_labels: Int[np.ndarray, " classes"] | None = None,
    score_thresholds: Float[np.ndarray, " detector_classes"] | None = None,
) -> list[NormalizedDetections]:
    """Returns the detections of each image, by the rules of `multibox.postprocess.postprocess`.

    The host waits for the device once for each round of suppression, which is mostly once for the whole batch.

    Args:
        offsets: The network's offsets of each default box.
        logits: The network's logits of each default box; column 0 is the background.
        default_boxes_center: The default boxes in center form, as fractions of the image.
        config: Config that says how offsets become boxes and logits become scores.
        settings: Thresholds and limits.
        labels: Labels of the wanted classes; all classes if `None`.
        merged_labels: New label of each class, if several classes are merged.
        score_thresholds: Score threshold of each of the detector's classes, where it is above that of the settings.

    Raises:
        ValueError: The outputs hold NaN or infinity.
    """
    finite = offsets.isfinite().all() & logits.isfinite().all()
    logits, offsets = logits.float(), offsets.float()
    match config.scoring:
        case "softmax":
            scores = logits.softmax(dim=2)[..., 1:]
        case "sigmoid":
            scores = logits[..., 1:].sigmoid()
        case unknown:
            assert_never(unknown)
    if merged_labels is not None:
        scores = _merge_classes(scores, torch.from_numpy(merged_labels).to(scores.device))
    if score_thresholds is not None:
        scores = scores.masked_fill(scores <= torch.from_numpy(score_thresholds).to(scores.device), 0)
    num_classes = scores.shape[2]
    coder = BoxCoder(config.center_variance, config.size_variance, config.max_log_size)

    def decode(keys: Int[Tensor, "batch rows"]) -> tuple[Float[Tensor, "batch rows 4"], Int[Tensor, "batch rows"]]:
        """Returns the box of each candidate, and its place: default box x classes + class."""
        places = torch.where(keys > 0, _LOW_BITS - (keys & _LOW_BITS), 0)
        indices = places // num_classes
        chosen = offsets.gather(1, indices[..., None].expand(-1, -1, 4))
        boxes = coder.decode(chosen, default_boxes_center[indices])
        return (boxes.clamp(0, 1) if config.clip_boxes else boxes), places

    def vote(
        kept: Int[Tensor, "batch kept"], boxes: Float[Tensor, "batch kept 4"], places: Int[Tensor, "batch kept"]
    ) -> Float[Tensor, "batch kept 4"]:
        """Returns the kept boxes as `multibox.boxes.box_voting` moves them, for a batch."""
        sums = _weighted(boxes, kept)
        number = torch.arange(kept.shape[1], device=kept.device)
        count = int((candidates > 0).sum(dim=1).max())
        for start in range(0, count, _CHUNK):
            chunk = candidates[:, start : min(start + _CHUNK, count)]
            others, other_places = decode(chunk)
            suppresses = box_iou(boxes[:, :, None], others[:, None, :]) > settings.iou_threshold
            suppresses &= (kept[:, :, None] > chunk[:, None, :]) & (chunk[:, None, :] > 0)  # row: a kept box
            if not settings.class_agnostic:
                suppresses &= (places % num_classes)[:, :, None] == (other_places % num_classes)[:, None, :]
            first = torch.where(suppresses, number[:, None], len(number)).amin(dim=1)
            voters = _weighted(others, chunk).masked_fill((first == len(number))[..., None], 0)
            sums += (first[:, None, :] == number[:, None]).double() @ voters
        return (sums[..., :4] / sums[..., 4:]).float()

    candidates = _rank(scores, settings, labels)
    kept = candidates[:, :0]
    for chunk in candidates.split(_CHUNK, dim=1):
        pool = torch.cat([kept, chunk], dim=1)
        boxes, places = decode(pool)
        rivals = (pool[:, None, :] > chunk[:, :, None]) & (
            chunk[:, :, None] > 0
        )  # row: a candidate; column: a better one
        if not settings.class_agnostic:
            classes = places % num_classes
            rivals &= classes[:, kept.shape[1] :, None] == classes[:, None, :]
        overlaps = box_iou(boxes[:, kept.shape[1] :, None], boxes[:, None, :])
        keep = _keep(chunk > 0, rivals & (overlaps > settings.iou_threshold))
        pool = torch.cat([kept, torch.where(keep, chunk, 0)], dim=1)
        kept = pool.topk(min(settings.max_detections, pool.shape[1]), dim=1).values
        done = (chunk == 0).any(dim=1) | ((kept > 0).sum(dim=1) == settings.max_detections)
        if bool(done.all()):
            break
    if not bool(finite):
        raise not_finite()
    boxes, places = decode(kept)
    match settings.merge:
        case "none":
            found = boxes
        case "weighted":
            found = vote(kept, boxes, places)
        case unknown_merge:
            assert_never(unknown_merge)
    return _to_host(kept, found, places, num_classes)


def _rank(
    scores: Float[Tensor, "batch default_boxes classes"], settings: Postprocess, labels: Sequence[int] | None
) -> Int[Tensor, "batch candidates"]:
    """Returns the candidates of each image in the order in which suppression visits them.

    A candidate is one whole number: the bits of its score, then its place counted from the end. So candidates are
    ordered by score and, if their scores are equal, by place. No two are equal, so `topk` is exact, although it
    returns equal values in any order. 0 stands for no candidate.
    """
    _, default_boxes, num_classes = scores.shape
    passes = scores > settings.score_threshold
    if labels is not None:
        wanted = torch.zeros(num_classes, dtype=torch.bool, device=scores.device)
        wanted[list(labels)] = True
        passes &= wanted
    place = torch.arange(default_boxes * num_classes, device=scores.device).view(default_boxes, num_classes)
    bits = scores.contiguous().view(torch.int32).long()  # of floats above 0: in the order of the floats
    keys = torch.where(passes, (bits << 32) + (_LOW_BITS - place), 0)
    best = keys.topk(min(settings.max_candidates_per_class, default_boxes), dim=1, sorted=False).values
    return best.flatten(1).sort(dim=1, descending=True).values


def _keep(valid: Bool[Tensor, "batch rows"], suppresses: Bool[Tensor, "batch rows pool"]) -> Bool[Tensor, "batch rows"]:
    """Returns which candidates greedy suppression keeps: the fixed point of `multibox.boxes.nms`, for a batch.

    Args:
        valid: Which rows are candidates.
        suppresses: Which boxes would suppress each candidate: first the boxes that are kept already, then the
            candidates.
    """
    already_kept = suppresses.shape[2] - suppresses.shape[1]
    possible = valid & ~suppresses[..., :already_kept].any(dim=2)
    keep = possible
    while True:
        answer = possible & ~(suppresses[..., already_kept:] & keep[:, None, :]).any(dim=2)
        if torch.equal(answer, keep):
            return keep
        keep = answer


def _scores_of(keys: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows"]:
    """Returns the scores of candidates."""
    return (keys >> 32).int().view(torch.float32)


def _weighted(boxes: Float[Tensor, "batch rows 4"], keys: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows 5"]:
    """Returns the boxes times their scores, and the scores, which are the parts of a weighted mean."""
    weights = _scores_of(keys).double()[..., None]
    return torch.cat([boxes * weights, weights], dim=2)


def _merge_classes(
    scores: Float[Tensor, "batch default_boxes classes"], merged_labels: Int[Tensor, " classes"]
) -> Float[Tensor, "batch default_boxes merged_classes"]:
    """Returns the best score of the classes that have the same new label, one column for each new label."""
    merged = scores.new_zeros(*scores.shape[:2], int(merged_labels.max()) + 1)
    return merged.scatter_reduce_(2, merged_labels.expand_as(scores), scores, "amax")


def _to_host(
    keys: Int[Tensor, "batch rows"],
    boxes: Float[Tensor, "batch rows 4"],
    places: Int[Tensor, "batch rows"],
    num_classes: int,
) -> list[NormalizedDetections]:
    """Returns the columns of each image as arrays, without the rows that hold no detection."""
    counts, *columns = (
        values.cpu().numpy()
        for values in ((keys > 0).sum(dim=1), boxes, _scores_of(keys), places % num_classes, places // num_classes)
    )
    return [
        NormalizedDetections(*(column[image, :count] for column in columns))
        for image, count in enumerate(counts.tolist())
    ]
