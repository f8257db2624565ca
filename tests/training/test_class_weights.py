"""Class weights: where they come from, and that a step learns with them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from multibox.cli.arguments import class_weights as parse
from multibox.data.sample import Dataset, GroundTruth, Sample
from multibox.data.synthetic import synthetic_scenes
from multibox.training import TrainConfig, train
from multibox.training.class_weights import resolve_class_weights


def dataset(*labels: list[int], names: tuple[str, ...] = ("cat", "dog", "zebra"), crowd: int = 0) -> Dataset:
    """Images with objects of these classes; the first `crowd` objects of each are crowd regions."""
    samples = []
    for number, some in enumerate(labels):
        boxes = np.tile(np.array([[0.0, 0, 5, 5]], np.float32), (len(some), 1))
        truth = GroundTruth(boxes, np.array(some, np.int64), crowd=np.arange(len(some)) < crowd)
        samples.append(Sample(f"{number}.png", np.zeros((3, 9, 9), np.uint8), 9, 9, truth, number))
    return Dataset("pets", names, samples)


def test_balanced_weights_are_those_of_scikit_learn():
    """n / (k n_c): compute_class_weight("balanced", classes=[0, 1], y=[0, 0, 0, 1]) is [0.667, 2]."""
    found = resolve_class_weights("balanced", dataset([0, 0], [0, 1], []))
    assert found == pytest.approx({"cat": 4 / 6, "dog": 2.0, "zebra": 1.0})


def test_the_mean_of_balanced_weights_over_the_objects_is_1():
    scenes = synthetic_scenes(30, seed=3, height=64, width=64)
    found = resolve_class_weights("balanced", scenes)
    labels = np.concatenate([sample.truth.labels for sample in scenes])
    of_objects = np.array([found[name] for name in scenes.class_names])[labels]
    assert of_objects.mean() == pytest.approx(1)
    totals = [of_objects[labels == label].sum() for label in range(len(scenes.class_names))]
    assert totals == pytest.approx([len(labels) / len(totals)] * len(totals))


def test_crowd_regions_are_not_counted_because_they_are_not_learned():
    assert resolve_class_weights("balanced", dataset([0, 0, 1], [1, 0], crowd=1))["dog"] == pytest.approx(3 / 2)


def test_classes_that_are_left_out_have_the_weight_1():
    assert resolve_class_weights({"dog": 3.0}, dataset([0])) == {"cat": 1.0, "dog": 3.0, "zebra": 1.0}


def test_an_unknown_class_is_refused_by_name():
    with pytest.raises(ValueError, match=r"names 'dgo', but the classes of pets are 'cat', .*; did you mean 'dog'\?"):
        resolve_class_weights({"cat": 1.0, "dgo": 2.0}, dataset([0]))


class Value:
    keyword = "--class-weights"

    def __init__(self, value: str) -> None:
        self.value = value


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("balanced", "balanced"),
        ("cat=2", {"cat": 2.0}),
        ("cat=2,dog=.5", {"cat": 2.0, "dog": 0.5}),
        ("cat=2, dog = 0.5,", {"cat": 2.0, "dog": 0.5}),
        ("knife, large=2,a=b=1e1", {"knife, large": 2.0, "a=b": 10.0}),
        ("犬=2,traffic light=3", {"犬": 2.0, "traffic light": 3.0}),
    ],
)
def test_weights_are_read_from_a_flag(text, weights):
    assert parse.__wrapped__(None, [Value(text)]) == weights


@pytest.mark.usefixtures("plain_recipes")
def test_a_run_learns_by_its_weights(tmp_path, new_detector):
    """Weights of 1 leave a run as it is, to the bit. Others change the confidence loss, and no other."""
    scenes = synthetic_scenes(12, seed=1, height=64, width=64)
    config = TrainConfig(steps=1, validate_every=1000, device="cpu", workers=0)
    first, tensors = {}, {}
    weights = {
        "none": None,
        "ones": dict.fromkeys(scenes.class_names, 1.0),
        "fives": dict.fromkeys(scenes.class_names, 5.0),
    }
    for name, given in weights.items():
        rows = []
        found = train(
            new_detector(),
            scenes,
            None,
            replace(config, class_weights=given),
            out=tmp_path / name,
            on_progress=rows.append,
        )
        first[name], tensors[name] = rows[0], found.network.state_dict()
    assert (first["none"].localization, first["none"].confidence) == (
        first["ones"].localization,
        first["ones"].confidence,
    )
    assert all(torch.equal(tensors["none"][name], tensors["ones"][name]) for name in tensors["none"])
    assert first["fives"].localization == first["none"].localization
    assert first["none"].confidence < first["fives"].confidence < 5 * first["none"].confidence
