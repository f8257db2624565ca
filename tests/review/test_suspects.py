"""What a detector doubts: every damage of the labels, and nothing else that is as sure."""

import numpy as np
import pytest

from multibox.data.sample import GroundTruth
from multibox.review.suspects import KINDS, count_suspects, find_suspects
from tests.review.damaged import DAMAGED, damaged_scenes, detections

HERE, SHIFTED, THERE = [0.0, 0, 40, 40], [20.0, 0, 60, 40], [100.0, 100, 140, 140]  # the first two overlap by 1/3
RED, BLUE = 0, 1


def suspects_of(truth: GroundTruth, *rows):
    """The suspects of one image, beside twenty in which the detector finds both classes surely."""
    sure = GroundTruth([HERE, THERE], [RED, BLUE]), detections((RED, 0.75, HERE), (BLUE, 0.75, THERE))
    found = find_suspects([truth, *[sure[0]] * 20], [detections(*rows), *[sure[1]] * 20])
    assert all(suspect.image == 0 for suspect in found)
    return [(each.kind, round(each.sureness, 3), each.object, each.found and each.found.label) for each in found]


def test_each_damage_is_found_before_all_others():
    dataset, found, damages = damaged_scenes()
    suspects = find_suspects([sample.truth for sample in dataset], found)
    assert len(damages) == 4 * DAMAGED
    first = {
        (each.image, each.kind, each.found.label if each.object is None else each.object)
        for each in suspects[: len(damages)]
    }
    assert first == damages
    assert count_suspects(suspects, sureness=0.5) == dict.fromkeys(KINDS, DAMAGED)


def test_labels_that_are_right_are_no_suspects():
    dataset, found, damages = damaged_scenes()
    damaged = {image for image, _, _ in damages}
    suspects = find_suspects([sample.truth for sample in dataset], found)
    assert {suspect.image for suspect in suspects} == damaged


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([(RED, 0.9, HERE)], []),
        ([(RED, 0.9, HERE), (BLUE, 0.8, THERE)], [("missing", 0.8, None, BLUE)]),
        ([(RED, 0.9, HERE), (BLUE, 0.2, THERE)], []),  # too weak to mention
        ([(RED, 0.9, HERE), (BLUE, 0.8, THERE), (RED, 0.7, THERE)], [("missing", 0.8, None, BLUE)]),  # one place
        ([(BLUE, 0.8, HERE)], [("swapped", 0.8, 0, BLUE)]),
        ([(BLUE, 0.8, HERE), (RED, 0.5, HERE)], [("swapped", 0.4, 0, BLUE)]),
        ([(RED, 0.8, HERE), (BLUE, 0.5, HERE)], []),
        ([(RED, 0.8, SHIFTED)], [("badly located", 0.8, 0, RED)]),
        ([(RED, 0.8, SHIFTED), (RED, 0.9, HERE)], [("missing", 0.8, None, RED)]),  # a neighbor
        ([(BLUE, 0.8, SHIFTED), (RED, 0.9, HERE)], [("missing", 0.8, None, BLUE)]),
        ([], [("phantom", 0.75, 0, None)]),
        ([(RED, 0.25, HERE)], [("phantom", 0.5, 0, None)]),
        ([(BLUE, 0.25, HERE)], [("phantom", 0.5, 0, None)]),  # sooner nothing than another class
    ],
)
def test_the_kind_and_the_sureness_of_a_suspect(rows, expected):
    assert suspects_of(GroundTruth([HERE], [RED]), *rows) == expected


def test_one_more_miss_of_a_class_that_is_often_missed_says_little():
    truths = [GroundTruth([HERE], [RED]) for _ in range(10)]
    found = [detections((RED, 0.9, HERE)) if image > 1 else detections() for image in range(10)]
    assert find_suspects(truths, found) == []


def test_an_image_without_labels_and_detections_has_no_suspects():
    assert suspects_of(GroundTruth([], [])) == []
    assert find_suspects([], []) == []


def test_crowd_regions_that_are_not_found_hide_no_phantom():
    truth = GroundTruth([HERE, THERE], [RED, RED], crowd=[False, True])
    found = [detections(), *[detections((RED, 0.9, HERE))] * 20]
    (suspect,) = find_suspects([truth] * 21, found)
    assert (suspect.kind, suspect.image, suspect.object) == ("phantom", 0, 0)


def test_difficult_objects_are_no_suspects_and_explain_what_is_found():
    difficult = GroundTruth([HERE], [RED], difficult=[True])
    assert suspects_of(difficult) == []
    assert suspects_of(difficult, (RED, 0.9, HERE)) == []


def test_what_is_found_in_a_crowd_is_not_missing():
    crowd = GroundTruth([[0, 0, 100, 100]], [RED], crowd=[True])
    assert suspects_of(crowd, (BLUE, 0.9, [10, 10, 30, 30])) == []
    assert suspects_of(crowd, (BLUE, 0.9, THERE)) == [("missing", 0.9, None, BLUE)]


def test_the_order_of_objects_does_not_matter():
    dataset, found, _ = damaged_scenes(10)
    truths = [sample.truth for sample in dataset]
    backward = [truth[np.arange(len(truth))[::-1]] for truth in truths]
    one, other = find_suspects(truths, found), find_suspects(backward, found)
    assert [(each.image, each.kind, each.sureness) for each in one] == [
        (each.image, each.kind, each.sureness) for each in other
    ]


def test_another_number_of_images_is_an_error():
    with pytest.raises(ValueError, match="1 images, but detections in 0"):
        find_suspects([GroundTruth([], [])], [])
