"""An explanation says what detection, matching, the loss and suppression really do, on synthetic scenes."""

import dataclasses

import numpy as np
import pytest
import torch

from multibox.boxes import box_iou, center_to_corner
from multibox.config import Merge
from multibox.data.augment import Augmentation
from multibox.data.sample import Dataset, GroundTruth, Sample
from multibox.data.synthetic import synthetic_scenes
from multibox.detector import Detector
from multibox.explain.explanation import Explanation, explain
from multibox.ssd import cpu, loss, matching
from multibox.ssd.coder import BoxCoder
from multibox.ssd.matching import UNMATCHED
from multibox.ssd.network import Predictions
from multibox.training.loading import Batch, make_loader
from tests.slow import slow
from tests.ssd.test_matching import match_bbox

AS_IT_IS = Augmentation(crop_probability=0.0, expand_probability=0.0, flip_probability=0.0)
TRAINING = [(cpu.make_targets, cpu.multibox_loss), (matching.make_targets, loss.multibox_loss)]


@pytest.fixture(scope="module")
def shapes() -> Detector:
    return Detector.load("multibox/shapes")


@pytest.fixture(scope="module")
def scenes() -> Dataset:
    """Scenes of the size of the network's input; the first has no objects, and one is of a crowd."""
    first, *others = synthetic_scenes(4, seed=11)
    crowd = dataclasses.replace(
        others[0],
        truth=GroundTruth(others[0].truth.boxes, others[0].truth.labels, crowd=np.arange(len(others[0].truth)) == 0),
    )
    empty = dataclasses.replace(first, truth=GroundTruth([], []))
    return dataclasses.replace(synthetic_scenes(1, seed=0), samples=[empty, crowd, *others[1:]])


@pytest.fixture(scope="module")
def explained(shapes: Detector, scenes: Dataset) -> dict[str, Explanation]:
    return {sample.name: explain({"shapes": shapes}, sample.image, sample=sample) for sample in scenes}


@pytest.fixture(scope="module")
def batch(shapes: Detector, scenes: Dataset) -> Batch:
    """The scenes as a training reads them, without random changes."""
    quiet = dataclasses.replace(AS_IT_IS, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
    loader = make_loader(scenes, shapes.config, quiet, batch_size=len(scenes), first_step=0, steps=1, seed=0, workers=0)
    return next(loader)


@pytest.mark.parametrize("way", TRAINING, ids=["image by image", "batched"])
def test_matches_and_hard_negatives_are_those_of_a_training_step(
    shapes: Detector, batch: Batch, explained: dict[str, Explanation], way: tuple
):
    """The loss has a gradient at the matched default boxes and the mined negatives, and nowhere else."""
    make_targets, multibox_loss = way
    config = shapes.config
    coder = BoxCoder(config.center_variance, config.size_variance, config.max_log_size)
    targets = make_targets(batch.boxes, batch.labels, shapes.network.default_boxes, coder)
    with torch.inference_mode():
        outputs = shapes.network.eval()(batch.inputs)
    offsets, logits = (values.clone().requires_grad_() for values in outputs)
    multibox_loss(Predictions(offsets, logits), targets).total.backward()
    numbers = []
    for row, name in enumerate(batch.names):
        record = explained[name].record
        learned = {
            match["index"]: (one["label"], match["offsets"]) for one in record["truth"] for match in one["matches"]
        }
        positive = targets.labels[row] > 0
        assert sorted(learned) == positive.nonzero()[:, 0].tolist()
        for index, (label, wanted) in learned.items():
            assert label + 1 == targets.labels[row, index]
            np.testing.assert_allclose(wanted, targets.offsets[row, index], atol=1e-4)
        (stage,) = record["hard_negatives"]
        mined = [one["index"] for one in stage["default_boxes"]]
        chosen = logits.grad[row].abs().sum(dim=1) > 0
        assert sorted(mined) == (chosen & ~positive).nonzero()[:, 0].tolist()
        assert stage["matches"] == len(learned)
        numbers.append((len(learned), len(mined)))
    assert (0, 0) in numbers and all(negatives == 3 * positives for positives, negatives in numbers)
    assert max(numbers)[0] > 20


def test_the_losses_are_those_of_the_image_alone(shapes: Detector, batch: Batch, explained: dict[str, Explanation]):
    coder = BoxCoder(shapes.config.center_variance, shapes.config.size_variance, shapes.config.max_log_size)
    for row, name in enumerate(batch.names):
        targets = matching.make_targets(
            batch.boxes[row, None], batch.labels[row, None], shapes.network.default_boxes, coder
        )
        with torch.inference_mode():
            losses = loss.multibox_loss(shapes.network.eval()(batch.inputs[row, None]), targets)
        (stage,) = explained[name].record["hard_negatives"]
        np.testing.assert_allclose(stage["localization_loss"], losses.localization, atol=1e-4)
        np.testing.assert_allclose(stage["confidence_loss"], losses.confidence, atol=1e-4)


def test_matches_are_those_of_the_caffe_code(scenes: Dataset, explained: dict[str, Explanation]):
    for sample in scenes:
        explanation = explained[sample.name]
        truth = sample.truth[~sample.truth.crowd]
        size = np.array([sample.width, sample.height] * 2, np.float32)
        overlaps = box_iou(truth.boxes / size, center_to_corner(explanation.found.default_boxes))
        expected = match_bbox(overlaps.tolist())
        own = [index for index, number in enumerate(match_bbox(overlaps.tolist(), 2.0)) if number != UNMATCHED]
        found = {}
        for number, one in enumerate(explanation.record["truth"]):
            assert one["best_overlap"] == pytest.approx(overlaps[number].max(), abs=1e-5)
            for match in one["matches"]:
                found[match["index"]] = number
                assert match["overlap"] == pytest.approx(overlaps[number, match["index"]], abs=1e-5)
                assert match["rule"] == ("own" if match["index"] in own else "overlap")
        assert found == {index: number for index, number in enumerate(expected) if number != UNMATCHED}


def greedy(rows: list[tuple], iou_threshold: float, most: int, *, class_agnostic: bool) -> dict[int, list[int]]:
    """Suppression as slow loops: the places that each kept row suppresses. Rows are (score, label, box), best first."""
    kept: dict[int, list[int]] = {}
    for place, (_, label, box) in enumerate(rows):
        for other in kept:
            iou = box_iou(np.array([box]), np.array([rows[other][2]]))[0, 0]
            if (class_agnostic or rows[other][1] == label) and iou > iou_threshold:
                kept[other].append(place)
                break
        else:
            if len(kept) < most:
                kept[place] = []
    return kept


@pytest.mark.parametrize(
    ("score", "iou", "class_agnostic", "merge"),
    [
        slow(None, None, False, "none"),
        slow(0.02, 0.3, False, "none"),
        (0.05, 0.6, True, "none"),
        (0.1, None, False, "weighted"),
    ],
)
def test_detections_and_what_they_suppress_are_those_of_postprocessing(
    shapes: Detector, scenes: Dataset, score: float | None, iou: float | None, class_agnostic: bool, merge: Merge
):
    settings = dataclasses.replace(
        shapes.config.postprocess, class_agnostic=class_agnostic, merge=merge, max_detections=9
    )
    config = dataclasses.replace(shapes.config, postprocess=settings)
    detector = Detector.of_network(config, shapes.class_names, shapes.network)
    suppressed = 0
    for sample in scenes:
        record = explain({"it": detector}, sample.image, score_threshold=score, iou_threshold=iou).record
        found = detector.detect(sample.image, score_threshold=score, iou_threshold=iou)
        assert [one["default_box"]["index"] for one in record["detections"]] == found.default_box_indices.tolist()
        assert [one["name"] for one in record["detections"]] == found.names
        np.testing.assert_allclose([one["score_after"] for one in record["detections"]], found.scores, atol=1e-6)
        np.testing.assert_allclose(
            np.reshape([one["box"] for one in record["detections"]], (-1, 4)), found.boxes, atol=0.01
        )
        threshold = 0.5 if score is None else score
        rows = [
            (each["score"], each["label"], each["box"]) for each in record["candidates"] if each["score"] > threshold
        ]
        kept = greedy(rows, iou or settings.iou_threshold, 9, class_agnostic=class_agnostic)
        expected = [[record["candidates"][place]["default_box"] for place in places] for places in kept.values()]
        assert [
            [each["default_box"]["index"] for each in one["suppressed"]] for one in record["detections"]
        ] == expected
        for one in record["detections"]:
            assert one["score_before"] == pytest.approx(one["score_after"])
            assert all(
                each["score_after"] == 0 and each["overlap"] > (iou or 0.45) - 1e-3 for each in one["suppressed"]
            )
        suppressed += sum(map(len, expected))
    assert suppressed > 5


def test_offsets_lead_from_the_default_box_to_the_box(shapes: Detector, scenes: Dataset):
    sample = scenes[2]
    explanation = explain({"it": shapes}, sample.image, score_threshold=0.1)
    with torch.inference_mode():
        offsets, _ = shapes.network.eval()(torch.from_numpy(shapes.prepare(sample.image)))
    coder = BoxCoder(shapes.config.center_variance, shapes.config.size_variance, shapes.config.max_log_size)
    size = np.array([sample.width, sample.height] * 2)
    assert len(explanation.record["detections"]) > 2
    for one in explanation.record["detections"]:
        index = one["default_box"]["index"]
        default_box = shapes.network.default_boxes[index]
        np.testing.assert_allclose(one["offsets"], offsets[0, index], atol=1e-4)
        first, middle, last = np.array(one["steps"])
        np.testing.assert_allclose(first, center_to_corner(default_box.numpy()) * size, atol=0.01)
        np.testing.assert_allclose(middle[2:] - middle[:2], first[2:] - first[:2], atol=0.02)
        np.testing.assert_allclose(middle[2:] + middle[:2], last[2:] + last[:2], atol=0.03)
        np.testing.assert_allclose(last, coder.decode(offsets[0, index], default_box).numpy() * size, atol=0.01)
        np.testing.assert_allclose(np.clip(last, 0, size), one["box"], atol=0.01)


def test_of_several_weights_the_last_are_explained_and_all_are_mined(shapes: Detector, scenes: Dataset):
    random = Detector.create(shapes.config, shapes.class_names, seed=0)
    sample = scenes[2]
    record = explain({"start": random, "end": shapes}, sample.image, sample=sample).record
    alone = explain({"end": shapes}, sample.image, sample=sample).record
    assert record["model"] == "end"
    assert record["detections"] == alone["detections"]
    first, last = record["hard_negatives"]
    assert (first["model"], last) == ("start", alone["hard_negatives"][0])
    assert len(first["default_boxes"]) == len(last["default_boxes"]) == 3 * last["matches"]
    assert first["confidence_loss"] > last["confidence_loss"]
    assert first["default_boxes"] != last["default_boxes"]


def test_weights_of_another_detector_are_refused(shapes: Detector, scenes: Dataset):
    first, *others = shapes.config.feature_maps
    maps = (dataclasses.replace(first, offset=0.25), *others)
    moved = dataclasses.replace(shapes.config, feature_maps=maps)
    renamed = tuple(name.upper() for name in shapes.class_names)
    for what, other in (
        ("classes", Detector.of_network(shapes.config, renamed, shapes.network)),
        ("default boxes", Detector.of_network(moved, shapes.class_names, shapes.network)),
    ):
        with pytest.raises(ValueError, match=f"a.safetensors has other {what} than b.safetensors; give weights of one"):
            explain({"a.safetensors": other, "b.safetensors": shapes}, scenes[0].image)


def test_what_cannot_be_explained_says_why(shapes: Detector, scenes: Dataset):
    merged = shapes.with_merged_classes({"star": "circle"})
    with pytest.raises(ValueError, match="a detector that merges classes is not explained; give the original one"):
        explain({"merged": merged}, scenes[0].image)


def test_an_image_of_another_shape_has_its_own_pixels(shapes: Detector):
    sample: Sample = synthetic_scenes(1, seed=3, height=150, width=320)[0]
    record = explain({"it": shapes}, sample.image, sample=sample, score_threshold=0.05).record
    assert record["image"] == {"file": "", "height": 150, "width": 320}
    for one in record["truth"]:
        for match in one["matches"]:
            iou = box_iou(np.array([match["box"]]), np.array([one["box"]]))[0, 0]
            assert iou == pytest.approx(match["overlap"], abs=2e-3)
