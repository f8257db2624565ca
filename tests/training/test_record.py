"""The folder of a run: its rows, its log, and its pictures."""

import logging

import numpy as np
import pytest
import yaml
from PIL import Image

from multibox.data.sample import Sample
from multibox.data.synthetic import drawn_scenes
from multibox.training.recipes import TrainConfig
from multibox.training.record import COLUMNS, Record


@pytest.fixture
def record(tmp_path):
    with Record(tmp_path / "run", resume=False) as record:
        yield record


def row(step, **values):
    return dict.fromkeys(COLUMNS, 0.5) | {"step": step, "epoch": step / 4} | values


def test_rows_are_read_as_they_were_written(record):
    assert record.rows() == []
    record.write_row(row(10, minutes=1.25, localization=1.5))
    record.write_row(row(20, ap=None, ap50=None, ap75=None))
    assert record.rows() == [row(10, minutes=1.25, localization=1.5), row(20, ap=None, ap50=None, ap75=None)]
    lines = record.metrics.read_text(encoding="utf-8").splitlines()
    assert lines == [
        "step,epoch,minutes,learning_rate,localization,confidence,pictures_per_second,ap,ap50,ap75",
        "10,2.5,1.25,0.5,1.5,0.5,0.5,0.5,0.5,0.5",
        "20,5,0.5,0.5,0.5,0.5,0.5,,,",
    ]


def test_rows_after_a_step_are_dropped(record):
    for step in (10, 20, 30):
        record.write_row(row(step, ap=None, minutes=step / 7))
    before = record.metrics.read_text(encoding="utf-8").splitlines()
    record.drop_rows_after(30)
    assert record.metrics.read_text(encoding="utf-8").splitlines() == before
    record.drop_rows_after(20)
    assert record.metrics.read_text(encoding="utf-8").splitlines() == before[:3]
    record.drop_rows_after(0)
    assert record.rows() == []
    record.write_row(row(10))
    assert record.rows() == [row(10)]


def test_rows_of_nothing_cannot_be_dropped(record):
    record.drop_rows_after(0)
    assert not record.metrics.exists()


@pytest.mark.parametrize("name", ["last.pt", "metrics.csv"])
def test_a_folder_that_holds_a_run_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match="holds a run already"):
        Record(tmp_path, resume=False)
    assert not (tmp_path / "log.txt").exists()
    with Record(tmp_path, resume=True):
        pass


def test_a_folder_with_other_files_is_taken(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with Record(tmp_path, resume=False):
        pass
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_the_config_is_written_without_what_is_open(record):
    config = TrainConfig(recipe="paper", epochs=2.5, batch_size=4)
    record.write_config(config, {})
    values = yaml.safe_load((record.folder / "config.yaml").read_text(encoding="utf-8"))
    assert values == {"recipe": "paper", "epochs": 2.5, "batch_size": 4, "validate_every": 1.0, "seed": 0}
    assert TrainConfig(**values) == config


def test_notes_come_first_in_the_config(record):
    record.write_config(TrainConfig(steps=3), {"model": "ssd256-tiny", "train_split": "학습"})
    values = yaml.safe_load((record.folder / "config.yaml").read_text(encoding="utf-8"))
    assert list(values.items())[:3] == [("model", "ssd256-tiny"), ("train_split", "학습"), ("steps", 3)]


@pytest.mark.parametrize("level", [logging.NOTSET, logging.DEBUG, logging.ERROR])
def test_the_log_is_kept_whatever_the_level(tmp_path, level):
    log = logging.getLogger("multibox")
    log.setLevel(level)
    try:
        with Record(tmp_path, resume=False):
            log.info("step 3, 곰")
        log.info("after the run")
        assert (log.level, log.handlers) == (level, [])
    finally:
        log.setLevel(logging.NOTSET)
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").endswith(" step 3, 곰\n")


def test_the_log_goes_on_and_says_why_a_run_stopped(tmp_path):
    for error in (ValueError("the loss is nan"), KeyboardInterrupt()):
        with pytest.raises(type(error)), Record(tmp_path, resume=True):
            raise error
    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line[20:] for line in lines] == ["stopped: the loss is nan", "stopped: KeyboardInterrupt"]


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(4)],
        [row(4, ap=None, ap50=None, ap75=None), row(8, ap=None, ap50=None, ap75=None)],
        [row(4), row(8, localization=None, confidence=None), row(12, ap=None, ap50=None)],
    ],
    ids=["none", "one", "without validation", "with gaps"],
)
def test_curves_can_be_drawn_of_any_rows(record, rows):
    for each in rows:
        record.write_row(each)
    record.draw_curves()
    with Image.open(record.folder / "curves.png") as picture:
        assert picture.size == (1000, 400)


@pytest.mark.parametrize("count", [1, 5, 12, 30])
def test_validation_pictures_are_from_all_over_the_set(record, count, new_detector, monkeypatch):
    scenes = drawn_scenes(count, seed=3, height=64, width=64)
    opened = []
    open_sample = Sample.open
    monkeypatch.setattr(Sample, "open", lambda sample: opened.append(sample.image_id) or open_sample(sample))
    record.draw_validation(new_detector(), scenes)
    shown = min(count, 12)
    assert len(opened) == shown
    assert opened[0] == 0 and opened[-1] >= 0.9 * (count - 1)
    assert set(np.diff(opened)) <= {count // shown, count // shown + 1}  # evenly, and none twice
    with Image.open(record.folder / "validation.jpg") as sheet:
        assert sheet.size == (min(shown, 4) * 328 + 8, -(-shown // 4) * 248 + 8)
