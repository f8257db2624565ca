"""A detector is compared with the data before a run begins."""

from dataclasses import replace

import numpy as np
import pytest

from multibox.data.sample import Dataset, GroundTruth, Problem
from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.detector import Detector
from multibox.presets import preset
from multibox.training import train
from multibox.training.data import check_data


def test_a_sigmoid_detector_is_not_trained_with_the_softmax_loss():
    """As TensorFlow's converted detectors are: the loss would learn another meaning of the logits."""
    config = replace(preset("ssd256-tiny"), scoring="sigmoid")
    detector = Detector.create(config, CLASS_NAMES, seed=0)
    scenes = synthetic_scenes(1, seed=0)
    with pytest.raises(ValueError, match=r"softmax .* sigmoid; make one to train with detector\.with_classes\("):
        check_data(detector, [scenes])
    check_data(detector.with_classes(CLASS_NAMES), [scenes])


def without_objects(dataset: Dataset, *, crowd: bool = False) -> Dataset:
    """Returns the data set with all of its objects marked as crowds, or without any."""
    truths = [replace_crowd(sample.truth) if crowd else GroundTruth([], []) for sample in dataset]
    samples = [replace(sample, truth=truth) for sample, truth in zip(dataset, truths, strict=True)]
    return replace(dataset, samples=samples)


def replace_crowd(truth: GroundTruth) -> GroundTruth:
    return GroundTruth(truth.boxes, truth.labels, crowd=np.ones(len(truth), bool))


@pytest.mark.parametrize("crowd", [False, True])
def test_a_set_without_a_usable_box_is_not_trained_on(tmp_path, crowd: bool):
    detector = Detector.create("ssd256-tiny", CLASS_NAMES, seed=0)
    nothing = without_objects(synthetic_scenes(3, seed=0), crowd=crowd)
    said = "no image to learn from has a usable box: 3 images, "
    with pytest.raises(ValueError, match=f"{said}no image has an annotated object"):
        train(detector, nothing, out=tmp_path / "run")
    problems = [Problem("a.txt", f"class {n}, but there are 6", "box left out") for n in range(400)]
    with pytest.raises(ValueError, match=rf"{said}400 x class 0, but there are 6 \(box left out\), first in a\.txt"):
        train(detector, replace(nothing, problems=(Problem("b", "other", "kept"), *problems)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_classes_of_the_validation_set_are_joined_by_name():
    detector = Detector.create("ssd256-tiny", CLASS_NAMES, seed=0)
    scenes = synthetic_scenes(3, seed=0)
    order = np.array([3, 1, 4, 0, 5, 2])
    samples = [
        replace(sample, truth=GroundTruth(sample.truth.boxes, np.argsort(order)[sample.truth.labels]))
        for sample in scenes
    ]
    other = replace(scenes, class_names=tuple(CLASS_NAMES[n] for n in order), samples=samples)
    _, joined = check_data(detector, [scenes, other])
    assert joined.class_names == CLASS_NAMES
    for sample, same in zip(scenes, joined, strict=True):
        assert sample.truth.labels.tolist() == same.truth.labels.tolist()
    with pytest.raises(ValueError, match=r"the classes of .* and of the detector are in another order"):
        check_data(detector, [other, scenes])
    unknown = replace(scenes, class_names=("disc", *CLASS_NAMES[1:]))
    with pytest.raises(ValueError, match="'disc'"):
        check_data(detector, [scenes, unknown])
    more = replace(scenes, class_names=(*CLASS_NAMES, "disc"))  # without an object of it
    assert check_data(detector, [scenes, more])[1].class_names == CLASS_NAMES
