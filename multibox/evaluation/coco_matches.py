"""The matches behind COCO's AP: which detection finds which object, so that AP of any part of them can be computed.

The matches are hotcoco's and depend on one image each. They stay the same in every part of a data set.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.coco import match_as_coco

RECALLS = np.linspace(0, 1, 101)


class ClassMatches(NamedTuple):
    """The detections of one class in all images, the highest score first, and the objects of the class that count.

    Detections and objects are numbered across all images, in the order in which the images have them.

    Attributes:
        images: Index of the image of each detection.
        detections: Number of each detection.
        found: Number of the object that each detection finds at each overlap; -1 for none.
        ignored: Whether a detection is neither right nor wrong at an overlap, as in a crowd region.
        objects: Number of each object that counts.
        object_images: Index of the image of each of these objects.
    """

    images: Int[np.ndarray, " detections"]
    detections: Int[np.ndarray, " detections"]
    found: Int[np.ndarray, "overlaps detections"]
    ignored: Bool[np.ndarray, "overlaps detections"]
    objects: Int[np.ndarray, " objects"]
    object_images: Int[np.ndarray, " objects"]


class RightDetections(NamedTuple):
    """Which detections of a class are right, and which do not count, at one overlap.

    Attributes:
        right: Place of each detection that finds an object.
        ignored: Place of each detection that is neither right nor wrong.
        ignored_before: Number of the ignored detections that come before each right one.
    """

    right: Int[np.ndarray, " right"]
    ignored: Int[np.ndarray, " ignored"]
    ignored_before: Int[np.ndarray, " right"]

    @classmethod
    def of(cls, right: Bool[np.ndarray, " detections"], ignored: Bool[np.ndarray, " detections"]) -> "RightDetections":
        """Returns the places of the marked detections."""
        hits, passed = np.flatnonzero(right), np.flatnonzero(ignored)
        return cls(hits, passed, np.searchsorted(passed, hits))


def match_by_class(
    truths: Sequence[GroundTruth], detections: Sequence[Detections], class_names: Sequence[str]
) -> list[ClassMatches]:
    """Returns the matches of each class by COCO's rule. They take longer than what is computed from them.

    Args:
        truths: Objects of each image.
        detections: Detections of each image, in the same order.
        class_names: Names of the classes in label order.

    Raises:
        ImportError: hotcoco is not installed.
        ValueError: There are detections for another number of images.
    """
    if len(truths) != len(detections):
        raise ValueError(f"objects of {len(truths)} images, but detections in {len(detections)}")
    evaluation = match_as_coco(truths, detections, class_names=class_names, sizes=False)
    by_class: list[list[dict[str, Any]]] = [[] for _ in class_names]
    for pair in evaluation.eval_imgs:
        if pair is not None:
            by_class[pair["category_id"] - 1].append(pair)
    overlaps = len(evaluation.params.iou_thrs)
    none = np.empty(0, np.int64)
    classes = []
    for pairs in by_class:
        images, numbers, objects, object_images = [none], [none], [none], [none]
        scores = [np.empty(0)]
        found, ignored = [np.empty((overlaps, 0), np.int64)], [np.empty((overlaps, 0), dtype=bool)]
        for pair in pairs:
            image, count = pair["image_id"] - 1, len(pair["dtScores"])
            counted = np.array(pair["gtIds"], np.int64)[~np.array(pair["gtIgnore"], dtype=bool)] - 1
            objects.append(counted)
            object_images.append(np.full(len(counted), image))
            images.append(np.full(count, image))
            numbers.append(np.array(pair["dtIds"], np.int64) - 1)
            scores.append(np.array(pair["dtScores"], dtype=np.float64))
            found.append(np.array(pair["dtMatches"], np.int64).reshape(overlaps, count) - 1)
            ignored.append(np.array(pair["dtIgnore"], dtype=bool).reshape(overlaps, count))
        order = np.argsort(-np.concatenate(scores), kind="stable")
        classes.append(
            ClassMatches(
                np.concatenate(images)[order],
                np.concatenate(numbers)[order],
                np.concatenate(found, axis=1)[:, order],
                np.concatenate(ignored, axis=1)[:, order],
                np.concatenate(objects),
                np.concatenate(object_images),
            )
        )
    return classes


def average_precision(
    weights: Int[np.ndarray, " detections"], objects: int, right: Sequence[RightDetections]
) -> Float[np.ndarray, " overlaps"]:
    """Returns COCO's AP at each overlap; nan if there is no object.

    Args:
        weights: How often each detection counts, the highest score first: as often as its image is in the set.
        objects: Number of objects in the set.
        right: The right detections at each overlap.
    """
    if not objects:
        return np.full(len(right), np.nan)
    all_so_far = weights.cumsum()
    averages = []
    for hits, ignored, ignored_before in right:
        # precision is highest at right detections, and recall rises at them alone, so the others need no look
        found = weights[hits].cumsum()
        ignored_so_far = np.append(0, weights[ignored].cumsum())[ignored_before]
        precision = found / np.maximum(all_so_far[hits] - ignored_so_far, 1)
        envelope = np.maximum.accumulate(precision[::-1])[::-1]
        averages.append(_at_recalls(found / objects, envelope))
    return np.array(averages)


def _at_recalls(recall: Float[np.ndarray, " detections"], precision: Float[np.ndarray, " detections"]) -> float:
    """Returns the mean precision at COCO's 101 recalls, 0 where a recall is not reached."""
    return float(np.append(precision, 0.0)[np.searchsorted(recall, RECALLS)].mean())
