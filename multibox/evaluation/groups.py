"""COCO's AP of parts of a data set: of objects and detections of one size, or of the images that are dark."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.coco_matches import ClassMatches, RightDetections, average_precision
from multibox.evaluation.metrics import mean


class GroupAP(NamedTuple):
    """AP of one group by COCO's rule, as fractions; `None` if the group has no object.

    Attributes:
        ap: Mean over the classes with objects in the group, and over overlaps from 0.50 to 0.95.
        ap50: Mean over these classes at an overlap of 0.50.
        objects: Number of objects in the group.
    """

    ap: float | None
    ap50: float | None
    objects: int


class Grouping(NamedTuple):
    """The group of each object and of each detection, numbered across all images in their order; -1 for none."""

    objects: Int[np.ndarray, " objects"]
    detections: Int[np.ndarray, " detections"]
    groups: int


def ap_by_group(classes: Sequence[ClassMatches], groupings: Sequence[Grouping]) -> list[list[GroupAP]]:
    """Returns the AP of each group of each grouping.

    In a group, its objects count. A detection that finds one of them is right, wherever it belongs itself; one that
    finds another object is left out; one that finds nothing is wrong if it belongs to the group, and left out if not.
    A grouping with a single group gives the AP of `score`, and a grouping by image that of `score` on these images.

    Args:
        classes: The matches of each class: the result of `match_by_class`.
        groupings: The groupings.
    """
    return [
        [_group_ap([_class_ap(each, grouping, group) for each in classes]) for group in range(grouping.groups)]
        for grouping in groupings
    ]


def group_images(
    truths: Sequence[GroundTruth], detections: Sequence[Detections], groups: Sequence[int], count: int
) -> Grouping:
    """Returns the grouping of objects and detections by the group of their image."""
    return Grouping(
        np.repeat(np.array(groups, np.int64), [len(truth) for truth in truths]),
        np.repeat(np.array(groups, np.int64), [len(found) for found in detections]),
        count,
    )


def _class_ap(matches: ClassMatches, grouping: Grouping, group: int) -> tuple[float, float, int] | None:
    """Returns AP, AP50 and the number of objects of a class in a group; None if it has no object there."""
    belongs = np.append(grouping.objects == group, False)  # the last one for detections of nothing, -1
    objects = int(np.count_nonzero(belongs[matches.objects]))
    if not objects:
        return None
    own = grouping.detections[matches.detections] == group
    finds = matches.found >= 0
    right = finds & belongs[matches.found] & ~matches.ignored
    ignored = matches.ignored | (finds & ~right) | (~finds & ~own)
    marked = [RightDetections.of(*marks) for marks in zip(right, ignored, strict=True)]
    averages = average_precision(np.ones(len(matches.images), np.int64), objects, marked)
    return float(averages.mean()), float(averages[0]), objects


def _group_ap(classes: Sequence[tuple[float, float, int] | None]) -> GroupAP:
    known = [each for each in classes if each is not None]
    return GroupAP(mean(each[0] for each in known), mean(each[1] for each in known), sum(each[2] for each in known))
