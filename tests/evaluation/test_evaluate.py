"""A detector on a data set: the join of their classes, the batches, what is passed on, and the result's JSON."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multibox.config import Postprocess
from multibox.data import read
from multibox.data.sample import Dataset, GroundTruth, Sample
from multibox.data.write import write_coco
from multibox.detections import Detections
from multibox.detector import Detector
from multibox.evaluation.evaluate import evaluate, score
from multibox.postprocess import NormalizedDetections
from multibox.presets import preset
from multibox.runtimes.runtime import RawOutputs

WIDTH, HEIGHT = 40, 20
LEFT, RIGHT = (0, 0, 20, 20), (20, 0, 40, 20)


class Finds:
    """A runtime that knows each image by its gray value, and finds in it what it was told: (label, score, box)."""

    def __init__(self, *rows_by_image) -> None:
        self.rows_by_image = rows_by_image
        self.batches: list[int] = []
        self.selections: list[Postprocess] = []

    prepares = False

    def __call__(self, inputs, *, settings: Postprocess, labels=None, merged_labels=None) -> list[NormalizedDetections]:
        self.batches.append(len(inputs))
        self.selections.append(settings)
        found = [self.found(self.rows_by_image[image[0, 0, 0]]) for image in inputs]
        if merged_labels is None:
            return found
        return [replace(one, labels=merged_labels[one.labels]) for one in found]

    def found(self, rows) -> NormalizedDetections:
        return NormalizedDetections(
            np.array([box for *_, box in rows], dtype=np.float32).reshape(-1, 4) / [WIDTH, HEIGHT, WIDTH, HEIGHT],
            np.array([value for _, value, _ in rows], dtype=np.float32),
            np.array([label for label, *_ in rows], dtype=np.int64),
            np.full(len(rows), -1),
        )


def detector_of(class_names, runtime: Finds) -> Detector:
    return Detector(preset("ssd256-tiny"), class_names, runtime)


def dataset_of(class_names, *objects_by_image, images=None) -> Dataset:
    """Images of an even gray, 0, 1, 2, ...; objects as (label, box)."""
    samples = [
        Sample(
            name=f"image {number}",
            image=np.full((3, HEIGHT, WIDTH), number, np.uint8) if images is None else images[number],
            height=HEIGHT,
            width=WIDTH,
            truth=GroundTruth([box for _, box in objects], [label for label, _ in objects]),
            image_id=number,
        )
        for number, objects in enumerate(objects_by_image)
    ]
    return Dataset("zoo (val)", tuple(class_names), samples)


def test_all_found_is_one_and_half_of_it_is_half() -> None:
    dataset = dataset_of(["cat"], [(0, LEFT)], [(0, RIGHT)])
    both = detector_of(["cat"], Finds([(0, 0.9, LEFT)], [(0, 0.8, RIGHT)]))
    one = detector_of(["cat"], Finds([(0, 0.9, LEFT)], [(0, 0.8, LEFT)]))
    assert evaluate(both, dataset).ap == pytest.approx(1)
    assert evaluate(one, dataset).ap == pytest.approx(51 / 101)  # COCO's points of recall from 0 to 0.50
    assert evaluate(one, dataset, rule="voc2007").ap == pytest.approx(6 / 11)
    assert evaluate(one, dataset, rule="voc2010").ap == 0.5


def test_classes_are_joined_by_name() -> None:
    dataset = dataset_of(["cat", "dog"], [(0, LEFT), (1, RIGHT)])
    detector = detector_of(["dog", "horse", "cat"], Finds([(0, 0.9, RIGHT), (1, 0.8, LEFT), (2, 0.7, LEFT)]))
    metrics = evaluate(detector, dataset)
    assert [metrics.per_class[name]["ap"] for name in ("cat", "dog")] == [pytest.approx(1), pytest.approx(1)]
    assert [values["detections"] for values in metrics.per_class.values()] == [1, 1]  # the horse is not there
    assert metrics.ignored_classes == ("horse",)


def test_classes_are_renamed_all_at_once() -> None:
    dataset = dataset_of(["vehicle", "cat", "dog"], [(0, LEFT), (1, RIGHT)], [(2, LEFT)])
    rows = [(0, 0.9, LEFT), (3, 0.8, RIGHT)], [(2, 0.7, LEFT)]
    detector = detector_of(["car", "bus", "cat", "dog"], Finds(*rows))
    # cat and dog change places; two classes become one
    rename = {"cat": "dog", "dog": "cat", "car": "vehicle", "bus": "vehicle"}
    metrics = evaluate(detector, dataset, rename=rename)
    assert metrics.ap == pytest.approx(1)
    assert metrics.ignored_classes == ()


class Gives:
    """A runtime of raw outputs: in every image these class scores, at default boxes by `LEFT` and `RIGHT`."""

    prepares = False
    default_boxes = np.array([[0.25, 0.5, 0.5, 1], [0.25, 0.5, 0.45, 1], [0.75, 0.5, 0.5, 1]], np.float32)

    def __init__(self, scores) -> None:
        background = 1 - np.sum(scores, axis=1, keepdims=True)
        self.logits = np.log(np.concatenate([background, scores], axis=1)).astype(np.float32)

    def __call__(self, inputs, *, settings, labels=None, merged_labels=None) -> RawOutputs:
        offsets = np.zeros((len(inputs), len(self.logits), 4), np.float32)
        return RawOutputs(offsets, np.stack([self.logits] * len(inputs)), self.default_boxes)


def test_classes_that_become_one_are_suppressed_together() -> None:
    """One vehicle, a car by one box and a bus by its neighbor, was counted twice: AP50 0.835."""
    runtime = Gives([[0.8, 0.1], [0.1, 0.7], [0.05, 0.6]])
    dataset = dataset_of(["vehicle"], [(0, LEFT), (0, RIGHT)])
    metrics = evaluate(detector_of(["car", "bus"], runtime), dataset, rename={"car": "vehicle", "bus": "vehicle"})
    assert metrics.per_class["vehicle"]["detections"] == 2
    assert metrics.ap50 == pytest.approx(1)
    # as a detector of that one class, which has the better of the two scores
    single = Gives([[0.8], [0.7], [0.6]])
    assert evaluate(detector_of(["vehicle"], single), dataset).per_class == metrics.per_class


@pytest.mark.parametrize("as_path", [str, Path])
def test_a_path_is_read(tmp_path: Path, as_path) -> None:
    train = dataset_of(["cat"], [(0, LEFT)], [(0, RIGHT)])
    write_coco({"val": dataset_of(["cat"], [(0, LEFT)]), "train": train}, tmp_path)
    detector = detector_of(["cat"], Finds([(0, 0.9, LEFT)], [(0, 0.8, RIGHT)]))
    metrics = evaluate(detector, as_path(tmp_path))
    assert (metrics.images, metrics.ap) == (1, pytest.approx(1))
    assert evaluate(detector, as_path(tmp_path), split="train").images == 2
    with pytest.raises(ValueError, match="split='val' is for a path"):
        evaluate(detector, dataset_of(["cat"], [(0, LEFT)]), split="val")


def test_a_path_is_recognized_once_and_its_usual_split_read(tmp_path: Path, monkeypatch) -> None:
    """A COCO JSON was read once for the names of the splits, and again for the split. The command knew `val2017`."""
    train = dataset_of(["cat"], [(0, LEFT)], [(0, RIGHT)])
    write_coco({"val2017": dataset_of(["cat"], [(0, LEFT)]), "train2017": train}, tmp_path)
    recognized = []
    open_source = read.open_source
    monkeypatch.setattr(read, "open_source", lambda path, *rest: recognized.append(path) or open_source(path, *rest))
    assert evaluate(detector_of(["cat"], Finds([(0, 0.9, LEFT)])), tmp_path).images == 1
    assert recognized == [tmp_path]


def test_unknown_classes_are_all_named_with_the_nearest() -> None:
    dataset = dataset_of(["Helmet", "vest", "cat", "unused"], [(0, LEFT), (1, RIGHT), (2, RIGHT)])
    detector = detector_of(["cat", "helmets"], Finds([]))
    with pytest.raises(ValueError) as error:
        evaluate(detector, dataset)
    assert str(error.value) == (
        "zoo (val) has classes that the detector does not know: 'Helmet' (did you mean 'helmets'?), 'vest'; "
        "map with --rename, or train on: multibox train DATA --model FILE"
    )


def test_a_class_that_is_known_already_is_no_suggestion() -> None:
    dataset = dataset_of(["cat", "cats"], [(0, LEFT), (1, RIGHT)])
    with pytest.raises(ValueError, match=r"that the detector does not know: 'cats'; map"):
        evaluate(detector_of(["cat", "dog"], Finds([])), dataset)
    with pytest.raises(
        ValueError, match=r"the detector knows none of the classes of .*: 'cat', 'cats'; train it: multibox"
    ):
        evaluate(detector_of(["dog"], Finds([])), dataset)


def test_class_that_no_object_has_need_not_be_known() -> None:
    metrics = evaluate(detector_of(["cat"], Finds([(0, 0.9, LEFT)])), dataset_of(["dog", "cat"], [(1, LEFT)]))
    assert metrics.per_class["dog"]["ap"] is None
    assert metrics.ap == pytest.approx(1)


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        ({"cta": "kitten"}, r"cannot rename 'cta': the detector has no such class \(did you mean 'cat'\?\)"),
        ({"cat": "kiten"}, r"cannot rename 'cat' to 'kiten': zoo .* has no such class \(did you mean 'kitten'\?\)"),
    ],
)
def test_renaming_what_is_not_there_is_an_error(rename, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        evaluate(detector_of(["cat"], Finds([])), dataset_of(["kitten"], []), rename=rename)


def test_images_go_in_batches_with_progress() -> None:
    runtime, seen = Finds(*[[]] * 5), []
    dataset = dataset_of(["cat"], *[[(0, LEFT)]] * 5)
    metrics = evaluate(
        detector_of(["cat"], runtime), dataset, batch_size=2, on_progress=lambda done, total: seen.append((done, total))
    )
    assert runtime.batches == [2, 2, 1]
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert (metrics.images, metrics.objects, metrics.ap) == (5, 5, 0)


def test_selection_is_the_detector_s_own_but_for_what_is_given() -> None:
    runtime = Finds([])
    detector, dataset = detector_of(["cat"], runtime), dataset_of(["cat"], [(0, LEFT)])
    own = detector.config.postprocess
    assert evaluate(detector, dataset).postprocess["score_threshold"] == own.score_threshold
    given = {
        "score_threshold": 0.3,
        "iou_threshold": 0.6,
        "class_agnostic": True,
        "max_detections": 7,
        "merge": "weighted",
    }
    metrics = evaluate(detector, dataset, **given)
    assert runtime.selections == [own, own.override(**given)]
    assert metrics.postprocess == {**given, "max_candidates_per_class": own.max_candidates_per_class}


def test_unreadable_images_are_named(tmp_path: Path) -> None:
    fine, text, missing = tmp_path / "fine.png", tmp_path / "text.jpg", tmp_path / "missing.jpg"
    Image.new("RGB", (WIDTH, HEIGHT)).save(fine)
    text.write_text("no image")
    detector = detector_of(["cat"], Finds([]))
    with pytest.raises(ValueError, match=r"text\.jpg: not an image"):
        evaluate(detector, dataset_of(["cat"], [], [], images=[fine, text]))
    with pytest.raises(FileNotFoundError, match=r"missing\.jpg"):
        evaluate(detector, dataset_of(["cat"], [], [], images=[fine, missing]))


def test_json_has_every_number_as_a_fraction_or_null() -> None:
    dataset = dataset_of(["고양이", "dog"], [(0, LEFT)])
    detector = detector_of(["고양이", "dog", "horse"], Finds([(0, 0.9, LEFT), (2, 0.4, LEFT)]))
    written = json.loads(evaluate(detector, dataset, rule="voc2007").to_json())
    # every threshold from the detector's own, 0.01, to the score of 0.9 is as good; the middle one is taken
    at_best = {"score_threshold": 0.45, "precision": 1.0, "recall": 1.0, "f1": 1.0}
    at_best |= {"true_positives": 1, "false_positives": 0}
    unknown = dict.fromkeys(at_best) | {"true_positives": 0, "false_positives": 0}
    assert written == {
        "rule": "voc2007",
        "pixels": "inclusive",
        "postprocess": {
            "score_threshold": 0.01,
            "iou_threshold": 0.5,
            "class_agnostic": False,
            "max_candidates_per_class": 400,
            "max_detections": 200,
            "merge": "none",
        },
        "images": 1,
        "objects": 1,
        "ap": 1.0,
        "ap50": 1.0,
        "per_class": {
            "고양이": {"ap": 1.0, "ap50": 1.0, "objects": 1, "detections": 1, **at_best},
            "dog": {"ap": None, "ap50": None, "objects": 0, "detections": 0, **unknown},
        },
        **at_best,
        **dict.fromkeys(["ap75", "ap_small", "ap_medium", "ap_large"]),
        **dict.fromkeys(["ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large"]),
        "ignored_classes": ["horse"],
    }


def test_metrics_are_a_line_in_percent() -> None:
    dataset = dataset_of(["cat"], [(0, LEFT)], [(0, RIGHT)])
    detector = detector_of(["cat"], Finds([(0, 0.9, LEFT)], []))
    assert (
        repr(evaluate(detector, dataset))
        == "Metrics(coco: AP 50.5, AP50 50.5, AP75 50.5, 2 images, 2 objects, 1 class)"
    )
    assert (
        repr(evaluate(detector, dataset, rule="voc2010")) == "Metrics(voc2010: AP 50.0, 2 images, 2 objects, 1 class)"
    )
    empty = dataset_of(["cat"], [], [])
    assert repr(evaluate(detector, empty, rule="voc2007")) == "Metrics(voc2007: AP -, 2 images, 0 objects, 1 class)"


def test_no_batch_and_no_images_are_errors() -> None:
    detector = detector_of(["cat"], Finds([]))
    with pytest.raises(ValueError, match="batch_size must be at least 1, but is 0"):
        evaluate(detector, dataset_of(["cat"], []), batch_size=0)
    with pytest.raises(ValueError, match="no images"):
        evaluate(detector, dataset_of(["cat"]))


def test_what_the_rule_cannot_do_is_said_before_anything_is_detected() -> None:
    runtime = Finds([])
    with pytest.raises(ValueError, match="no last pixel"):
        evaluate(detector_of(["cat"], runtime), dataset_of(["cat"], []), rule="coco", pixels="inclusive")
    assert runtime.batches == []


def test_scores_only_what_belongs_together() -> None:
    truth = GroundTruth([LEFT], [0])
    found = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64), ("cat",))
    with pytest.raises(ValueError, match="ground truth of 1 images, but detections in 2"):
        score([truth], [found, found], class_names=["cat"], rule="coco")
    with pytest.raises(ValueError, match="the detections in image 0 are of other classes"):
        score([truth], [found], class_names=["dog"], rule="coco")
