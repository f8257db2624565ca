"""AP of parts of a data set: a whole is COCO's AP, and a part of the images is AP of these images alone."""

import dataclasses

import numpy as np
import pytest

from multibox.data.sample import GroundTruth
from multibox.evaluation.coco_matches import match_by_class
from multibox.evaluation.evaluate import score
from multibox.evaluation.groups import Grouping, ap_by_group, group_images
from tests.evaluation.test_coco import CLASSES, detections_of, random_set


@pytest.mark.parametrize("seed", [0, 1])
def test_a_part_of_the_images_has_the_ap_of_these_images_alone(seed):
    truths, found = random_set(seed)
    random = np.random.default_rng(seed)
    found = [dataclasses.replace(each, scores=random.random(len(each)).astype(np.float32)) for each in found]
    groups = random.integers(0, 3, len(truths)).tolist()
    whole, parts = ap_by_group(
        match_by_class(truths, found, CLASSES),
        [group_images(truths, found, [0] * len(truths), 1), group_images(truths, found, groups, 3)],
    )
    chosen = [list(range(len(truths))), *([i for i, group in enumerate(groups) if group == part] for part in range(3))]
    for images, got in zip(chosen, [*whole, *parts], strict=True):
        if images:
            of_images = [truths[i] for i in images], [found[i] for i in images]
            expected = score(*of_images, class_names=CLASSES, rule="coco")
            assert got.ap == pytest.approx(expected.ap, abs=1e-9)
            assert got.ap50 == pytest.approx(expected.ap50, abs=1e-9)
            assert got.objects == expected.objects


def test_objects_of_other_groups_are_neither_right_nor_wrong():
    """Of two objects one is found; a third detection finds nothing. In the group of the found one, AP is perfect."""
    truths = [GroundTruth([[0, 0, 10, 10], [50, 50, 60, 60]], [1, 1])]
    found = [detections_of([[100, 0, 110, 10], [0, 0, 10, 10]], [0.9, 0.8], [1, 1])]
    stray_in_second = Grouping(np.array([0, 1]), np.array([1, 1]), 2)
    stray_in_first = Grouping(np.array([0, 1]), np.array([0, 1]), 2)
    (one, other) = ap_by_group(match_by_class(truths, found, CLASSES), [stray_in_second, stray_in_first])
    assert [group.ap50 for group in one] == [pytest.approx(1.0), 0.0]
    assert [group.ap50 for group in other] == [pytest.approx(0.5), 0.0]
    assert [group.objects for group in one] == [1, 1]
