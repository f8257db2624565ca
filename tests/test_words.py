"""Names of other tools lead to ours, and all names that the explanations give are there."""

import copy
import inspect
import pickle
import re

import pytest

import multibox
from multibox import words
from multibox.detector import Detector

CALLS = {"detect": Detector.detect, "evaluate": multibox.evaluate, "train": multibox.train}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return multibox.load("multibox/shapes")


@pytest.mark.parametrize(
    ("call", "given", "says"),
    [
        ("detect", {"conf": 0.3}, "detect has no argument 'conf'; it is called score_threshold here"),
        ("detect", {"iou": 0.3}, "detect has no argument 'iou'; it is called iou_threshold here"),
        ("detect", {"imgsz": 640}, "detect has no argument 'imgsz'; the size of the input is the detector's: "),
        ("detect", {"scor_threshold": 0.3}, "detect has no argument 'scor_threshold'; did you mean score_threshold?"),
        ("detect", {"zzz": 1}, "detect has no argument 'zzz'; it has images, score_threshold, iou_threshold, "),
        ("evaluate", {"data": "BCCD"}, "evaluate has no argument 'data'; it is called dataset here"),
        ("evaluate", {"batch": 2}, "evaluate has no argument 'batch'; it is called batch_size here"),
        ("train", {"lr": 0.1}, "it is a value of the config: config=multibox.TrainConfig(learning_rate=...)"),
        ("train", {"epochs": 3}, "it is a value of the config: config=multibox.TrainConfig(epochs=...)"),
        ("train", {"device": "cuda"}, "it is a value of the config: config=multibox.TrainConfig(device=...)"),
        ("train", {"save_dir": "runs"}, "train has no argument 'save_dir'; it is called out here"),
    ],
)
def test_an_argument_of_another_tool_is_told_by_its_name_here(detector, call, given, says):
    arguments = {"detect": [multibox.EXAMPLE_IMAGE], "evaluate": [detector], "train": [detector]}[call]
    function = detector.detect if call == "detect" else CALLS[call]
    with pytest.raises(TypeError, match=re.escape(says)):
        function(*arguments, **given)


def test_a_value_of_another_tool_is_told_by_its_name_here():
    with pytest.raises(TypeError, match="TrainConfig has no argument 'lr'; it is called learning_rate here"):
        multibox.TrainConfig(lr=0.1)
    config = multibox.TrainConfig(steps=2)
    assert pickle.loads(pickle.dumps(config)) == copy.copy(config) == config
    assert list(inspect.signature(multibox.TrainConfig).parameters)[:2] == ["recipe", "epochs"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("predict", "a detector has no 'predict'; here it is detector.detect(images)"),
        ("val", "here it is multibox.evaluate(detector, data)"),
        ("names", "here it is detector.class_names"),
        ("zzz", "'Detector' object has no attribute 'zzz'"),
    ],
)
def test_a_method_of_another_tool_is_told_by_its_name_here(detector, name, says):
    with pytest.raises(AttributeError, match=re.escape(says)):
        getattr(detector, name)
    assert not hasattr(detector, name)


def test_a_detector_is_no_function_and_says_so(detector):
    with pytest.raises(TypeError, match=r"here it is detector\.detect\(images\)"):
        detector(multibox.EXAMPLE_IMAGE)


def test_explaining_stands_in_nobody_s_way(detector):
    assert copy.copy(detector).class_names == copy.deepcopy(detector).class_names == detector.class_names
    assert pickle.loads(pickle.dumps(detector)).class_names == detector.class_names
    assert list(inspect.signature(multibox.evaluate).parameters)[:2] == ["detector", "dataset"]


def test_each_name_of_ours_is_one_and_no_name_of_theirs_is_ours():
    known = {name for call in CALLS.values() for name in inspect.signature(call).parameters}
    known |= set(multibox.TrainConfig.__dataclass_fields__)
    assert set(words.ARGUMENTS) <= known
    for ours, theirs in words.METHODS.items():
        owner, name = re.match(r"(\w+)\.(\w+)", ours).groups()
        assert hasattr(multibox if owner == "multibox" else Detector, name) or name == "class_names"
        assert not any(name in vars(Detector) for name in theirs)
