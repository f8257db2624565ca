"""Trackers: what they are told is there once, also where a run was taken up again."""

import logging
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.precision_recall import precision_recall
from multibox.training.recipes import TrainConfig
from multibox.training.trackers import TRACKERS, open_trackers

CONFIG = TrainConfig(recipe="modern", epochs=3.0, seed=7)
IMAGE = Image.fromarray(np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3))


def curves():
    truth = GroundTruth([[0, 0, 10, 10], [20, 0, 30, 10]], [0, 0])
    boxes = np.array([[0, 0, 10, 10], [50, 50, 60, 60]], np.float32)
    found = Detections(boxes, np.array([0.8, 0.3]), np.array([0, 0]), np.array([-1, -1]), ("bear",))
    return {"bear": precision_recall([truth], [found], label=0)}


def row(step):
    return {"step": step, "ap": step / 100, "confidence": 1 / step, "gradient_norm": None}


@pytest.mark.parametrize("name", TRACKERS)
def test_a_package_that_is_not_there_is_named(tmp_path, monkeypatch, name):
    for module in ("torch.utils.tensorboard", "wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"the tracker {name} needs its package: pip install .*{name}"):  # noqa: SIM117
        with open_trackers([name], tmp_path, CONFIG, step=0):
            pass
    assert list(tmp_path.iterdir()) == []


# --- TensorBoard ---


def read_events(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0, "scalars": 0})
    return events.Reload()


def test_tensorboard_has_what_it_was_told(tmp_path):
    with open_trackers(["tensorboard"], tmp_path, CONFIG, step=0) as (tracker,):
        tracker.scalars(10, row(10))
        tracker.scalars(20, row(20))
        tracker.images(20, "validation", IMAGE)
        tracker.pr_curves(20, curves())
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
    with open_trackers(["tensorboard"], tmp_path, CONFIG, step=0) as (tracker,):
        tracker.pr_curves(20, curves())
    (event,) = read_events(tmp_path).Tensors("precision_recall/bear")
    hits, false, _, missed, precision, recall = np.reshape(event.tensor_proto.float_val, (6, -1))
    assert hits.shape == (101,) and event.step == 20
    for place in range(101):  # of two objects one is found, at 0.8; what scores 0.3 is none
        right, wrong = int(place < 80), int(place < 30)
        assert (hits[place], false[place], missed[place]) == (right, wrong, 2 - right)
        assert recall[place] == pytest.approx(right / 2)
        assert precision[place] == pytest.approx(right / (right + wrong) if right + wrong else 1)


def test_tensorboard_has_each_step_once_after_a_resume(tmp_path):
    with open_trackers(["tensorboard"], tmp_path, CONFIG, step=0) as (tracker,):
        for step in (10, 20, 30):
            tracker.scalars(step, row(step))
            tracker.images(step, "validation", IMAGE)
            tracker.pr_curves(step, curves())
    with open_trackers(["tensorboard"], tmp_path, CONFIG, step=10) as (tracker,):
        for step in (20, 30, 40):
            tracker.scalars(step, row(step))
            tracker.images(step, "validation", IMAGE)
            tracker.pr_curves(step, curves())
    # the reader of the program itself, to which all are tensors
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.plugin_event_accumulator")
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for tag in ("validation/ap", "validation", "precision_recall/bear"):
        assert [each.step for each in events.Tensors(tag)] == [10, 20, 30, 40]


def test_what_a_killed_process_told_tensorboard_is_there(tmp_path):
    with open_trackers(["tensorboard"], tmp_path, CONFIG, step=0) as (tracker,):
        tracker.scalars(10, row(10))
        assert [each.step for each in read_events(tmp_path).Scalars("validation/ap")] == [10]  # not closed yet


# --- Weights & Biases: the signatures of https://docs.wandb.ai/ref/python ---


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in that keeps points of rising steps as the real one does: those of earlier steps are dropped."""
    runs = {}

    class Run:
        def __init__(self, **settings):
            self.settings, self.history, self.exit_codes = settings, {}, []

        def log(self, data, step=None, commit=None):
            if step >= self.last:
                self.history.setdefault(step, {}).update(data)

        def finish(self, exit_code=None, quiet=None):
            self.exit_codes.append(exit_code)

    def init(
        entity=None, project=None, dir=None, id=None, name=None, notes=None, tags=None, config=None,
        config_exclude_keys=None, config_include_keys=None, allow_val_change=None, group=None, job_type=None,
        mode=None, force=None, reinit=None, resume=None, resume_from=None, fork_from=None, save_code=None,
        tensorboard=None, sync_tensorboard=None, monitor_gym=None, settings=None,
    ):  # fmt: skip
        assert resume == "allow"
        run = runs.setdefault(id, Run(project=project, dir=dir, name=name, config=config))
        run.last = max(run.history, default=-1) + 1  # a run that is resumed goes on after its last step
        return run

    module = ModuleType("wandb")
    module.init, module.runs = init, runs
    module.Image = lambda data_or_path, mode=None, caption=None: ("image", data_or_path.size)
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    return module


def test_wandb_has_what_it_was_told(tmp_path, wandb):
    with open_trackers(["wandb"], tmp_path, CONFIG, step=0) as (tracker,):
        tracker.scalars(10, row(10))
        tracker.images(10, "validation", IMAGE)
        tracker.pr_curves(10, curves())
    (run,) = wandb.runs.values()
    assert run.history == {
        10: {
            "validation/ap": 0.1,
            "training/confidence": 0.1,
            "validation": ("image", (6, 4)),
            "precision_recall": ("image", (600, 500)),
        }
    }
    assert run.settings["project"] == "multibox" and run.settings["name"] == tmp_path.name
    assert run.settings["dir"] == str(tmp_path) and run.settings["config"]["seed"] == 7
    assert run.exit_codes == [0]


def test_wandb_goes_on_with_the_same_run(tmp_path, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "bears")
    with pytest.raises(KeyboardInterrupt), open_trackers(["wandb"], tmp_path, CONFIG, step=0) as (tracker,):
        for step in (10, 20, 30):
            tracker.scalars(step, row(step))
        raise KeyboardInterrupt
    with open_trackers(["wandb"], tmp_path, CONFIG, step=10) as (tracker,):
        for step in (20, 30, 40):
            tracker.scalars(step, row(step))
    (run,) = wandb.runs.values()
    assert sorted(run.history) == [10, 20, 30, 40]
    assert run.exit_codes == [1, 0] and run.settings["project"] == "bears"


# --- MLflow: the signatures of https://mlflow.org/docs/latest/python_api ---


@pytest.fixture
def mlflow(monkeypatch):
    """A stand-in that keeps every point, also a second one of a step, as the real one does."""

    class MlflowException(Exception):
        pass

    module = ModuleType("mlflow")
    module.MlflowException = MlflowException
    module.points, module.params, module.images, module.ends, module.starts = {}, {}, {}, [], []
    module.down = False

    def check():
        if module.down:
            raise MlflowException("API request failed")

    def start_run(
        run_id=None, experiment_id=None, run_name=None, nested=False, parent_run_id=None, tags=None, description=None,
        log_system_metrics=None,
    ):  # fmt: skip
        module.starts.append(run_id)
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "made by the server"))

    def log_params(params, synchronous=None, run_id=None):
        check()
        assert not set(params) & set(module.params), "MLflow refuses a second value"
        module.params.update(params)

    def log_metrics(metrics, step=None, synchronous=None, run_id=None, timestamp=None, model_id=None, dataset=None):
        check()
        for key, value in metrics.items():
            module.points.setdefault(key, []).append((step, value))

    def log_image(image, artifact_file=None, key=None, step=None, timestamp=None, synchronous=False):
        assert (artifact_file is None) != (key is None)
        module.images[artifact_file] = image.size

    class MlflowClient:
        def get_metric_history(self, run_id, key):
            return [SimpleNamespace(step=step, value=value) for step, value in module.points.get(key, [])]

    module.start_run, module.log_params, module.log_metrics = start_run, log_params, log_metrics
    module.log_image, module.MlflowClient = log_image, MlflowClient
    module.end_run = lambda status="FINISHED": module.ends.append(status)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return module


def test_mlflow_has_each_point_once_after_a_resume(tmp_path, mlflow):
    with pytest.raises(ValueError, match="stopped"), open_trackers(["mlflow"], tmp_path, CONFIG, step=0) as (tracker,):
        for step in (10, 20, 30):
            tracker.scalars(step, row(step))
            tracker.images(step, "validation", IMAGE)
        raise ValueError("stopped")
    with open_trackers(["mlflow"], tmp_path, CONFIG, step=10) as (tracker,):
        for step in (20, 30, 40):
            tracker.scalars(step, row(step) | {"ap50": 0.5})  # a name that MLflow did not have
            tracker.images(step, "validation", IMAGE)
        tracker.pr_curves(40, curves())
    assert mlflow.starts == [None, "made by the server"] and mlflow.ends == ["KILLED", "FINISHED"]
    assert mlflow.params["seed"] == 7 and mlflow.params["recipe"] == "modern"
    assert mlflow.points["validation/ap"] == [(10, 0.1), (20, 0.2), (30, 0.3), (40, 0.4)]
    assert [step for step, _ in mlflow.points["validation/ap50"]] == [20, 30, 40]
    assert sorted(mlflow.images) == [
        "precision_recall/00000040.png",
        *(f"validation/000000{step}.png" for step in (10, 20, 30, 40)),
    ]


def test_a_run_goes_on_where_mlflows_server_fails(tmp_path, mlflow, caplog):
    with open_trackers(["mlflow"], tmp_path, CONFIG, step=0) as (tracker,):
        mlflow.down = True
        with caplog.at_level(logging.WARNING, logger="multibox"):
            tracker.scalars(10, row(10))
        mlflow.down = False
        tracker.scalars(20, row(20))
    assert "mlflow: API request failed; the run goes on" in caplog.text
    assert mlflow.points["validation/ap"] == [(20, 0.2)]


def test_all_are_closed_where_one_cannot_be_opened(tmp_path, wandb, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match="mlflow"), open_trackers(["wandb", "mlflow"], tmp_path, CONFIG, step=0):
        pass
    (run,) = wandb.runs.values()
    assert run.exit_codes == [1]
