"""A job keeps what is finished, goes on with what is not, and never mixes two jobs in a folder."""

from dataclasses import replace
from pathlib import Path

import pytest

from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.detector import Detector
from multibox.training.recipes import TrainConfig
from multibox.trials import job as job_module
from multibox.trials.job import Job

MODEL = "multibox/shapes"
CONFIG = TrainConfig(steps=3)


@pytest.fixture
def scenes():
    return synthetic_scenes(2, seed=0)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, bool]]:
    """The folder, seed and `resume` of each training, which only writes its weights; "killed" raises once."""
    calls: list[tuple[str, int, bool]] = []
    detector = Detector.create("ssd256-tiny", CLASS_NAMES, seed=0)

    def train(model, train_set, val_set, config, *, out: Path, resume: bool, on_progress) -> None:
        assert val_set is None
        calls.append((out.name, config.seed, resume))
        out.mkdir(exist_ok=True)
        if out.name == "killed" and not resume:
            (out / "last.pt").touch()
            raise KeyboardInterrupt("Ctrl-C at step 1; all is saved")
        detector.save(out / "best.safetensors")

    monkeypatch.setattr(job_module, "train", train)
    return calls


def make_job(folder: Path, dataset, **changed: object) -> Job:
    values = {"purpose": "test", "trainings": 2, "model": MODEL, "config": CONFIG, **changed}
    return Job(folder, data={"data": dataset}, **values)


def test_a_finished_training_is_not_repeated_and_a_killed_one_is_resumed(tmp_path, scenes, trained):
    reported: list[tuple[float, str]] = []
    job = make_job(tmp_path / "job", scenes, on_progress=lambda fraction, words: reported.append((fraction, words)))
    assert job.train("first", scenes, seed=1).class_names == CLASS_NAMES
    with pytest.raises(KeyboardInterrupt, match=r"all is saved; the same command goes on with .*job"):
        job.train("killed", scenes, seed=2)
    again = make_job(tmp_path / "job", scenes)
    again.train("first", scenes, seed=1)
    again.train("killed", scenes, seed=2)
    assert trained == [("first", 1, False), ("killed", 2, False), ("killed", 2, True)]
    assert reported == [(0.5, "training 1 of 2 is done")]
    assert make_job(tmp_path / "job", scenes).train("killed", scenes, seed=2).class_names == CLASS_NAMES
    assert len(trained) == 3


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"purpose": "other"}, "another purpose: 'test', now 'other'"),
        ({"config": TrainConfig(steps=4)}, "another steps: 3, now 4"),
        ({"config": TrainConfig(minutes=4)}, "another steps: 3, now None"),
        ({"model": "ssd256-tiny"}, "another model: 'multibox/shapes', now 'ssd256-tiny'"),
    ],
)
def test_another_job_in_the_folder_is_refused(tmp_path, scenes, changed, what):
    make_job(tmp_path / "job", scenes)
    with pytest.raises(ValueError, match=what):
        make_job(tmp_path / "job", scenes, **changed)


def test_other_labels_are_another_job(tmp_path, scenes):
    make_job(tmp_path / "job", scenes)
    moved = replace(scenes[0], truth=scenes[1].truth)
    with pytest.raises(ValueError, match="another data"):
        make_job(tmp_path / "job", replace(scenes, samples=[moved, scenes[1]]))


def test_the_machine_may_change(tmp_path, scenes):
    make_job(tmp_path / "job", scenes)
    make_job(tmp_path / "job", scenes, config=replace(CONFIG, workers=3, device="cpu"))


def test_trainings_may_be_added(tmp_path, scenes):
    make_job(tmp_path / "job", scenes, trainings=3)
    make_job(tmp_path / "job", scenes, trainings=5)


def test_files_of_something_else_stay(tmp_path, scenes):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="files of something else"):
        make_job(tmp_path, scenes)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_missing_model_is_reported_before_anything_is_made(tmp_path, scenes):
    with pytest.raises(FileNotFoundError):
        make_job(tmp_path / "job", scenes, model="runs/nowhere/best.safetensors")
    assert not (tmp_path / "job").exists()
