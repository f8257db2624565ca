"""What is written for TensorBoard is there once, also if a run was resumed."""

from contextlib import closing

import numpy as np
import pytest
from PIL import Image

from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.precision_recall import precision_recall
from multibox.training.recipes import TrainConfig
from multibox.training.tensorboard import TensorBoard

CONFIG = TrainConfig(recipe="modern", epochs=3.0, seed=7)
IMAGE = Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))


def curves():
    truth = GroundTruth([[0, 0, 10, 10], [20, 0, 30, 10]], [0, 0])
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    found = Detections(boxes, np.array([0.8, 0.3]), np.array([0, 0]), np.array([-1, -1]), ("bear",))
    return {"bear": precision_recall([truth], [found], label=0)}


def row(step):
    return {"step": step, "ap": step / 100, "confidence": 1 / step, "gradient_norm": None}


def read_events(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0})
    return events.Reload()


def test_tensorboard_has_what_it_was_told(tmp_path):
    with closing(TensorBoard(tmp_path, CONFIG, step=0)) as tensorboard:
        tensorboard.add_row(row(10))
        tensorboard.add_row(row(20))
        tensorboard.add_image(20, "validation", IMAGE)
        tensorboard.add_pr_curves(20, curves())
    events = read_events(tmp_path)
    assert set(events.Tags()["scalars"]) == {"validation/ap", "training/confidence"}
    assert [(each.step, each.value) for each in events.Scalars("validation/ap")] == [
        (10, pytest.approx(0.1)),
        (20, pytest.approx(0.2)),
    ]
    (image,) = events.Images("validation")
    assert (image.step, image.width, image.height) == (20, 6, 4)
    (text,) = events.Tensors("config/text_summary")
    assert b"recipe: modern" in text.tensor_proto.string_val[0]


def test_tensorboards_precision_by_recall(tmp_path):
    with closing(TensorBoard(tmp_path, CONFIG, step=0)) as tensorboard:
        tensorboard.add_pr_curves(20, curves())
    (event,) = read_events(tmp_path).Tensors("precision_recall/bear")
    hits, false, _, missed, precision, recall = np.reshape(event.tensor_proto.float_val, (6, -1))
    assert hits.shape == (101,) and event.step == 20
    for place in range(101):  # of two objects one is found, at 0.8; what scores 0.3 is none
        right, wrong = int(place < 80), int(place < 30)
        assert (hits[place], false[place], missed[place]) == (right, wrong, 2 - right)
        assert recall[place] == pytest.approx(right / 2)
        assert precision[place] == pytest.approx(right / (right + wrong) if right + wrong else 1)


def test_tensorboard_has_each_step_once_after_a_resume(tmp_path):
    with closing(TensorBoard(tmp_path, CONFIG, step=0)) as tensorboard:
        for step in (10, 20, 30):
            tensorboard.add_row(row(step))
            tensorboard.add_image(step, "validation", IMAGE)
            tensorboard.add_pr_curves(step, curves())
    with closing(TensorBoard(tmp_path, CONFIG, step=10)) as tensorboard:
        for step in (20, 30, 40):
            tensorboard.add_row(row(step))
            tensorboard.add_image(step, "validation", IMAGE)
            tensorboard.add_pr_curves(step, curves())
    # the reader of the program itself, to which all are tensors
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.plugin_event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for tag in ("validation/ap", "validation", "precision_recall/bear"):
        assert [each.step for each in events.Tensors(tag)] == [10, 20, 30, 40]


def test_what_a_killed_process_told_tensorboard_is_there(tmp_path):
    with closing(TensorBoard(tmp_path, CONFIG, step=0)) as tensorboard:
        tensorboard.add_row(row(10))
        assert [each.step for each in read_events(tmp_path).Scalars("validation/ap")] == [10]  # not closed yet
