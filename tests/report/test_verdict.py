"""The verdict: each rule speaks where its numbers say so, with these numbers, and is silent where there are too few."""

import dataclasses

import numpy as np
import pytest

from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.errors import find_errors
from multibox.evaluation.precision_recall import precision_recall_by_class
from multibox.evaluation.tide import Tide
from multibox.presets import preset
from multibox.report.verdict import LEAST, Case, judge

NAMES = ("cell", "speck")
CONFIG = preset("ssd256-tiny")
NO_GAIN = Tide(0.5, {"wrong class": 0.0, "missed": 0.005}, {"wrong class": 0, "missed": 0})


class Scene:
    """Objects on a grid in images of 1024 x 1024 pixels, which an input of 256 makes four times smaller."""

    def __init__(self, images: int = 20) -> None:
        self.images = [([], [], [], [], []) for _ in range(images)]  # boxes, labels, found boxes, scores, found labels
        self.places = [0] * images

    def add(self, image: int, label: int | None, side: float, *, found: int | None = None, score: float = 0.9, fit=1.0):
        """Adds an object (or nothing) of that side in pixels of the input, and a detection of class `found` on it."""
        row, column = divmod(self.places[image], 6)
        self.places[image] += 1
        x, y = 170.0 * column, 170.0 * row
        boxes, labels, found_boxes, scores, found_labels = self.images[image]
        if label is not None:
            boxes.append([x, y, x + 4 * side, y + 4 * side])
            labels.append(label)
        if found is not None:
            found_boxes.append([x, y, x + 4 * side * fit, y + 4 * side])
            scores.append(score)
            found_labels.append(found)
        return self

    def case(self, threshold: float = 0.5, **values) -> Case:
        truths = [GroundTruth(boxes, labels) for boxes, labels, *_ in self.images]
        found = [
            Detections(
                np.array(boxes, np.float32).reshape(-1, 4),
                np.array(scores, np.float32),
                np.array(labels, np.int64),
                np.full(len(labels), -1),
                NAMES,
            )
            for _, _, boxes, scores, labels in self.images
        ]
        errors = [find_errors(truth, each, [threshold] * 2) for truth, each in zip(truths, found, strict=True)]
        overall, by_class = precision_recall_by_class(truths, found, num_classes=2)
        sides = np.concatenate([np.zeros(0), *(np.sqrt(truth.areas) / 4 for truth in truths)])
        sizes = [1024] * len(truths)
        case = Case(truths, errors, NAMES, threshold, sides, CONFIG, sizes, overall, by_class, NO_GAIN)
        return dataclasses.replace(case, **values)


@pytest.fixture
def good() -> Scene:
    """Twenty cells and twenty specks of 30 pixels, all found."""
    scene = Scene()
    for image in range(20):
        scene.add(image, 0, 30, found=0).add(image, 1, 30, found=1)
    return scene


def test_nothing_wrong_asks_for_nothing(good: Scene):
    sentences = judge(good.case()).sentences
    assert sentences == (
        "At a score threshold of 0.50 it finds 40 of 40 objects (100 %), and 0 of its 40 detections are false (0 %); "
        "the weakest class is cell, with 20 of 20 found and 0 false.",
        "There are 0 errors, too few to name a cause.",
        "No kind of error costs as much as 1 point of AP50: nothing here asks for a change.",
    )


@pytest.mark.parametrize(("images", "each"), [(9, 4), (20, 1)])
def test_too_few_images_or_objects_have_no_verdict(images: int, each: int):
    scene = Scene(images)
    for image in range(images):
        for _ in range(each):
            scene.add(image, 0, 30)
    (sentence,) = judge(scene.case()).sentences
    assert f"too little to judge by: {images * each} objects in {images} images" in sentence


def test_small_objects_of_the_weakest_class_are_named_with_a_larger_input(good: Scene):
    for image in range(14):
        good.add(image, 1, 9)
    verdict = judge(good.case())
    assert "the weakest class is speck, with 20 of 34 found and 0 false" in verdict.sentences[0]
    assert verdict.sentences[1] == (
        "14 of 14 missed objects of class speck are under 12 pixels after the resize to 256 x 256, where 0 % are found "
        "against 100 % of the larger ones."
    )
    assert verdict.sentences[2] == "Try a larger input: train a new run with --size 384."
    assert verdict.findings[0].errors == 14
    # where the images have no more pixels than the input, a larger input brings nothing
    small = judge(good.case(image_sides=[256] * 20))
    assert small.sentences[2].startswith("The images have no more pixels to give (their longer side is 256)")


def test_small_objects_of_a_class_without_large_ones_are_compared_with_those_of_all(good: Scene):
    for image in range(20):
        for column in good.images[image]:  # no speck of 30 pixels is left
            del column[1]
    for image in range(15):
        good.add(image, 1, 9)
    assert judge(good.case()).sentences[1] == (
        "15 of 15 missed objects of class speck are under 12 pixels after the resize to 256 x 256, where 0 % are found "
        "against 100 % of the larger ones of all classes."
    )


def test_one_miss_fewer_than_the_rule_asks_for_is_no_cause(good: Scene):
    for image in range(LEAST - 1):
        good.add(image, 1, 9)
    assert judge(good.case()).findings == ()


@pytest.mark.parametrize(
    ("added", "rule", "said"),
    [
        ({"label": 1, "found": 0}, "confused", "12 of 12 missed objects of class speck are taken for cell."),
        (
            {"label": None, "found": 1},
            "on nothing",
            "12 of 12 false detections of class speck lie where no such object",
        ),
        (
            {"label": 1, "found": 1, "score": 0.4},
            "low score",
            "12 of 12 missed objects of class speck have a box that fits",
        ),
        (
            {"label": 1, "found": 1, "fit": 0.4},
            "poor box",
            "12 of 12 missed objects of class speck have a detection near",
        ),
        ({"label": 1}, "not found", "12 of 12 missed objects of class speck have no detection of their class near."),
    ],
)
def test_each_cause_is_named_with_its_numbers(good: Scene, added: dict, rule: str, said: str):
    for image in range(12):
        good.add(image, side=30, **added)
    verdict = judge(good.case())
    assert verdict.findings[0].rule == rule
    assert said in verdict.sentences[1]
    assert verdict.sentences[2] == verdict.findings[0].action


def test_a_lower_threshold_is_priced(good: Scene):
    for image in range(12):
        good.add(image, 1, 30, found=1, score=0.4).add(image, None, 30, found=1, score=0.3)
    (finding,) = [each for each in judge(good.case()).findings if each.rule == "low score" and "speck" in each.sentence]
    assert "--score 0.25 finds 12 more objects of class speck and brings 12 more false detections" in finding.action


def test_a_lower_threshold_that_costs_too_much_is_not_advised(good: Scene):
    for image in range(20):
        good.add(image, 1, 30, found=1, score=0.4 if image < 12 else 0.9)
        for _ in range(2):
            good.add(image, None, 30, found=1, score=0.3)
    finding = next(each for each in judge(good.case()).findings if each.rule == "low score")
    assert "A lower threshold costs too much: --score 0.25 finds 12 more objects" in finding.action
    assert "but brings 40 more false detections. Train longer, or on more images" in finding.action


def test_duplicates_ask_for_more_suppression(good: Scene):
    for image in range(20):
        boxes, _, found, scores, labels = good.images[image]
        found.append(list(boxes[1]))
        scores.append(0.8)
        labels.append(1)
    finding = judge(good.case(postprocess={"iou_threshold": 0.6})).findings[0]
    assert finding.sentence == "20 of 20 false detections of class speck find an object a second time."
    assert "--iou 0.50 (now 0.60)" in finding.action
    for unknown_or_least in ({}, {"iou_threshold": 0.1}):
        assert "duplicates" not in [each.rule for each in judge(good.case(postprocess=unknown_or_least)).findings]


def test_another_class_on_a_found_object_is_no_duplicate(good: Scene):
    """Suppression goes class by class: no threshold of it removes such a detection."""
    for image in range(20):
        boxes, _, found, scores, labels = good.images[image]
        found.append(list(boxes[1]))
        scores.append(0.8)
        labels.append(0)
    assert judge(good.case(postprocess={"iou_threshold": 0.6})).findings == ()


def test_a_weak_class_with_few_errors_gives_way_to_all_classes(good: Scene):
    for image in range(20):
        for _ in range(12):
            good.add(image, 0, 30)
        good.add(image, 0, 30, found=0).add(image, 0, 30, found=0)
    for image in range(20):  # speck is weaker still, but small: 11 objects, 1 found
        boxes, labels, *rest = good.images[image]
        for column in (boxes, labels):
            del column[1]
        for column in rest:
            del column[1]
    for image in range(11):
        good.add(image, 1, 30, found=1 if image == 0 else None)
    verdict = judge(good.case())
    assert "the weakest class is speck, with 1 of 11 found" in verdict.sentences[0]
    assert verdict.sentences[1] == "250 of 250 missed objects have no detection of their class near."


def rows(*aps: float) -> list[dict[str, float | None]]:
    return [{"step": float(step), "epoch": float(step), "ap": ap} for step, ap in enumerate(aps, start=1)]


@pytest.mark.parametrize(
    ("aps", "rule"),
    [
        ((0.1, 0.2, 0.22, 0.25, 0.28, 0.3), "still rising"),
        ((0.1, 0.2, 0.22, 0.25, 0.31, 0.3), "still rising"),  # as where the learning rate falls to 0 at the end
        ((0.1, 0.2, 0.28, 0.3, 0.305, 0.31), None),
        ((0.1, 0.3, 0.29, 0.27, 0.25, 0.22), "overfitting"),
        ((0.1, 0.3, 0.29, 0.29, 0.29, 0.28), None),
        ((0.1, 0.2, 0.24), "still rising"),
        ((0.1, 0.4), None),  # too few validations
    ],
)
def test_the_course_of_a_run_comes_first(good: Scene, aps: tuple[float, ...], rule: str | None):
    verdict = judge(good.case(rows=rows(*aps), resume="multibox train --resume run --epochs 12"))
    named = [each.rule for each in verdict.findings]
    assert named == ([rule] if rule else [])
    if rule == "still rising":
        before, last = (100 * ap for ap in (aps[len(aps) * 2 // 3 - 1], aps[-1]))
        assert verdict.sentences[2] == (
            f"AP was still rising at the end of training, from {before:.1f} to {last:.1f} in its last third. "
            "Train longer first: `multibox train --resume run --epochs 12`."
        )


def test_the_kind_that_costs_most_is_named_where_no_cause_stands_out(good: Scene):
    tide = Tide(0.5, {"poor box": 0.08, "missed": 0.05}, {"poor box": 3, "missed": 2})
    sentence = judge(good.case(tide=tide)).sentences[2]
    assert sentence.startswith("Without errors of the kind 'poor box' AP50 would gain most, 8.0 points: train longer")


def test_detections_on_the_background_confuse_no_class(good: Scene):
    for image in range(14):
        good.add(image, 0, 30).add(image, None, 30, found=1)
    assert "confused" not in [finding.rule for finding in judge(good.case()).findings]


def test_classes_with_few_objects_count_among_all():
    scene = Scene()
    for image in range(20):
        scene.add(image, 0, 30, found=0)
    for image in range(9):
        scene.add(image, 1, 30)
    for image in range(3):
        scene.add(image, 0, 30)
    (finding,) = judge(scene.case()).findings
    assert (finding.rule, finding.errors) == ("not found", 12)
