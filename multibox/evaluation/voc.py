"""Average precision as the PASCAL VOC devkit computes it: by the rule of 2007, and by the rule of 2010 and later."""

from collections.abc import Sequence
from typing import Literal, assert_never

import numpy as np
from jaxtyping import Bool, Int

from multibox.boxes import box_iou
from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.metrics import ClassMetrics, Metrics, Pixels, mean

MISSED = -1


def score_voc(
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    *,
    class_names: Sequence[str],
    rule: Literal["voc2007", "voc2010"],
    pixels: Pixels,
) -> Metrics:
    """Returns the AP of each class at overlap 0.5, and its mean over the classes that have objects.

    The detections of a class are visited over all images, the highest score first; of equal scores, the earlier first.
    Each is compared with one object, the one of its class that it overlaps best (`best_objects`). It is a true positive
    if it is the first to find that object, and a false positive if another was first or there is no such object.
    Objects that are marked difficult or as a crowd do not count, and neither do the detections that find them. A class
    without objects that count has no AP.
    """
    found = [best_objects(truth, each, pixels) for truth, each in zip(truths, detections, strict=True)]
    # from here on, objects are numbered across all images
    starts = np.cumsum([0, *(len(truth) for truth in truths)])
    numbered = zip(found, starts[:-1], strict=True)
    objects = np.concatenate([np.where(best == MISSED, MISSED, best + start) for best, start in numbered])
    scores = np.concatenate([each.scores for each in detections])
    labels = np.concatenate([each.labels for each in detections])
    object_labels = np.concatenate([truth.labels for truth in truths])
    counts = ~np.concatenate([truth.difficult | truth.crowd for truth in truths])
    average_precision = {"voc2007": eleven_point_ap, "voc2010": area_ap}[rule]

    per_class: dict[str, ClassMetrics] = {}
    for label, name in enumerate(class_names):
        total = int(np.count_nonzero(counts & (object_labels == label)))
        own = np.flatnonzero(labels == label)
        by_score = own[np.argsort(-scores[own], kind="stable")]
        ap = average_precision(_true_positives(objects[by_score], counts), total) if total else None
        per_class[name] = {"ap": ap, "ap50": ap, "objects": total, "detections": len(own)}

    ap = mean(values["ap"] for values in per_class.values())
    return Metrics(
        rule=rule,
        pixels=pixels,
        images=len(truths),
        objects=int(np.count_nonzero(counts)),
        ap=ap,
        ap50=ap,
        per_class=per_class,
    )


def best_objects(truth: GroundTruth, found: Detections, pixels: Pixels) -> Int[np.ndarray, " detections"]:
    """Returns the object that each detection of an image overlaps best, or `MISSED` below an overlap of 0.5.

    Only objects of the detection's class are considered. Difficult objects are among them, so that a detection of one
    is not taken for a bad detection of its neighbor. Of equally good objects, the first is returned.
    """
    if len(truth) == 0 or len(found) == 0:
        return np.full(len(found), MISSED)
    match pixels:
        case "inclusive":
            last_pixel = np.array([0.0, 0.0, 1.0, 1.0])
        case "continuous":
            last_pixel = np.zeros(4)
        case unknown:
            assert_never(unknown)
    overlaps = box_iou(found.boxes + last_pixel, truth.boxes + last_pixel)
    overlaps[found.labels[:, None] != truth.labels[None, :]] = 0
    best = overlaps.argmax(axis=1)
    return np.where(overlaps.max(axis=1) >= 0.5, best, MISSED)


def eleven_point_ap(true_positives: Bool[np.ndarray, " detections"], objects: int) -> float:
    """Returns VOC 2007's AP: the mean of the best precision at a recall of at least 0, 0.1, ..., 1.

    Args:
        true_positives: Which detections are true positives, the highest score first.
        objects: Number of objects to find, at least 1.
    """
    found = np.cumsum(true_positives)
    precision = found / np.arange(1, len(true_positives) + 1)
    # whole numbers, because as fractions 3 of 10 objects would not reach the recall 3 * 0.1 = 0.30000000000000004
    best = [precision[10 * found >= tenths * objects].max(initial=0) for tenths in range(11)]
    return float(sum(best) / 11)


def area_ap(true_positives: Bool[np.ndarray, " detections"], objects: int) -> float:
    """Returns VOC 2010's AP: the area under precision by recall, with the best precision at that or a higher recall.

    Args:
        true_positives: Which detections are true positives, the highest score first.
        objects: Number of objects to find, at least 1.
    """
    precision = np.cumsum(true_positives) / np.arange(1, len(true_positives) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    # each true positive raises the recall by one object
    return float(envelope[true_positives].sum() / objects)


def _true_positives(
    objects: Int[np.ndarray, " detections"], counts: Bool[np.ndarray, " objects"]
) -> Bool[np.ndarray, " counted_detections"]:
    """Returns which detections are true positives, without the detections of objects that do not count.

    Args:
        objects: Object that each detection found, or `MISSED`, the highest score first.
        counts: Which objects count.
    """
    missed = objects == MISSED
    first = np.zeros(len(objects), dtype=bool)
    first[np.unique(objects, return_index=True)[1]] = True
    counted = missed.copy()
    counted[~missed] = counts[objects[~missed]]
    true_positives: Bool[np.ndarray, " counted_detections"] = (first & ~missed)[counted]
    return true_positives
