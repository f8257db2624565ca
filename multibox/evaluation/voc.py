"""Average precision as the PASCAL VOC devkit computes it, by the rule of 2007 and by that of 2010 and later."""

from collections.abc import Sequence
from typing import Literal

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
    """The AP of each class at overlap 0.5, and its mean over the classes that have objects.

    The detections of a class are taken over all images, the highest score first, of equal ones the earlier first.
    Each looks at one object, the one of its class that it overlaps best (`best_objects`): it is true where it is the
    first to find that object, and false where another was before it or there is no such object. Objects that are marked
    difficult or as a crowd do not count, and neither do the detections that find them; a class that has no others has
    no AP.
    """
    found = [best_objects(truth, each, pixels) for truth, each in zip(truths, detections, strict=True)]
    # from here on objects are numbered through all images
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
        ap = average_precision(_hits(objects[by_score], counts), total) if total else None
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
    """For each detection of an image the object of its class that it overlaps best, `MISSED` below an overlap of 0.5.

    Difficult objects are looked at like the others, so that a detection of one does not pass for a bad one of its
    neighbor. Of several equally good objects it is the first.
    """
    if len(truth) == 0 or len(found) == 0:
        return np.full(len(found), MISSED)
    last_pixel = np.array([0, 0, 1, 1] if pixels == "inclusive" else [0, 0, 0, 0], dtype=np.float64)
    overlaps = box_iou(found.boxes + last_pixel, truth.boxes + last_pixel)
    overlaps[found.labels[:, None] != truth.labels[None, :]] = 0
    best = overlaps.argmax(axis=1)
    return np.where(overlaps.max(axis=1) >= 0.5, best, MISSED)


def eleven_point_ap(hits: Bool[np.ndarray, " detections"], objects: int) -> float:
    """VOC 2007's: the mean of the best precision at a recall of at least 0, 0.1, ..., 1.

    Args:
        hits: Which detections are true, the highest score first.
        objects: How many there are to find, at least 1.
    """
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    # in whole numbers: as fractions, 3 of 10 objects would not reach the recall 3 * 0.1 = 0.30000000000000004
    best = [precision[10 * found >= tenths * objects].max(initial=0) for tenths in range(11)]
    return float(sum(best) / 11)


def area_ap(hits: Bool[np.ndarray, " detections"], objects: int) -> float:
    """VOC 2010's: the area under the precision by recall, where the precision at a recall is the best from there on.

    Args:
        hits: Which detections are true, the highest score first.
        objects: How many there are to find, at least 1.
    """
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    # each hit widens the recall by one object
    return float(envelope[hits].sum() / objects)


def _hits(objects: Int[np.ndarray, " detections"], counts: Bool[np.ndarray, " objects"]) -> Bool[np.ndarray, " kept"]:
    """Which detections are true, among those that did not find an object that does not count.

    Args:
        objects: The object that each detection found, or `MISSED`, the highest score first.
        counts: Which objects count.
    """
    missed = objects == MISSED
    first = np.zeros(len(objects), dtype=bool)
    first[np.unique(objects, return_index=True)[1]] = True
    kept = missed.copy()
    kept[~missed] = counts[objects[~missed]]
    hits: Bool[np.ndarray, " kept"] = (first & ~missed)[kept]
    return hits
