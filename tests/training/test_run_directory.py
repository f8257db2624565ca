"""The folder of a run: its rows and its log."""

import csv
import logging
import subprocess
import sys

import pytest
import yaml

from multibox.data.sample import Problem
from multibox.training import run_directory
from multibox.training.distributed import ProcessGroup
from multibox.training.progress import COLUMNS
from multibox.training.recipes import TrainConfig
from multibox.training.run_directory import RunDirectory

ALONE = ProcessGroup(rank=0, size=1, device="cpu")


@pytest.fixture
def record(tmp_path):
    with RunDirectory(tmp_path / "run", resume=False, group=ALONE) as record:
        yield record


def row(step, **values):
    return dict.fromkeys(COLUMNS, 0.5) | {"step": step, "epoch": step / 4, "nonfinite_steps": 0} | values


def test_rows_are_read_as_they_were_written(record):
    assert record.rows() == []
    record.write_row(row(10, minutes=1.25, localization=1.5))
    record.write_row(row(20, ap=None, ap50=None, ap75=None))
    assert record.rows() == [row(10, minutes=1.25, localization=1.5), row(20, ap=None, ap50=None, ap75=None)]
    lines = record.metrics.read_text(encoding="utf-8").splitlines()
    assert lines == [
        ",".join(COLUMNS),
        "10,2.5,1.25,0.5,1.5,0.5,0.5,0.5,0,0.5,0.5,0.5,0.5,0.5,0.5,0.5",
        "20,5,0.5,0.5,0.5,0.5,0.5,0.5,0,0.5,0.5,0.5,0.5,,,",
    ]


def test_problems_stand_in_a_table_and_in_the_log(tmp_path, caplog):
    problems = [Problem(f"a.txt, line {n}", 'class "x", none of 4', "box left out") for n in range(200)]
    folder = tmp_path / "run"
    with RunDirectory(folder, resume=False, group=ALONE) as record:
        record.write_problems([*problems, problems[0]])
    with (folder / "problems.csv").open(newline="", encoding="utf-8") as file:
        assert [Problem(**row) for row in csv.DictReader(file)] == problems
    lines = (folder / "log.txt").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 201
    assert "200 problems of the data:" in lines[0]
    assert all(str(problem) in line for problem, line in zip(problems, lines[1:], strict=True))
    assert not caplog.records  # who read the data has shown them already
    with RunDirectory(folder, resume=True, group=ALONE) as record:
        record.write_problems(problems)
        assert len((folder / "log.txt").read_text(encoding="utf-8").splitlines()) == 201  # known already
        record.write_problems([])
        assert not (folder / "problems.csv").exists()


def test_a_file_is_no_folder_of_a_run(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file is a file, not a folder; choose another folder"):
        RunDirectory(tmp_path / "file", resume=False, group=ALONE)


def test_rows_after_a_step_are_dropped(record):
    for step in (10, 20, 30):
        record.write_row(row(step, ap=None, minutes=step / 7))
    before = record.metrics.read_text(encoding="utf-8").splitlines()
    record.begin(TrainConfig(), {}, step=30)
    assert record.metrics.read_text(encoding="utf-8").splitlines() == before
    record.begin(TrainConfig(), {}, step=20)
    assert record.metrics.read_text(encoding="utf-8").splitlines() == before[:3]
    record.begin(TrainConfig(), {}, step=0)
    assert record.rows() == []
    record.write_row(row(10))
    assert record.rows() == [row(10)]


def test_a_table_of_an_earlier_version_gets_the_new_column(record):
    old = [name for name in COLUMNS if name != "gradient_norm"]
    record.metrics.write_text(",".join(old) + "\n" + ",".join(["10"] * len(old)) + "\n", encoding="utf-8")
    record.begin(TrainConfig(), {}, step=10)
    record.write_row(row(20))
    assert [each.get("gradient_norm") for each in record.rows()] == [None, 0.5]


@pytest.mark.parametrize("text", ["step;epoch\n1;2\n", "step,epoch\n1,x\n", "step,epoch\n,2\n"])
def test_a_table_that_something_else_has_written_to_is_refused(record, text):
    record.metrics.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"metrics\.csv: not as a run writes it \(.*\); move it out of the folder"):
        record.begin(TrainConfig(), {}, step=10)
    assert record.metrics.read_text(encoding="utf-8") == text


def test_two_processes_do_not_write_to_one_folder(tmp_path, monkeypatch):
    """Where a process was killed, the next one may."""
    code = "import sys, time; from pathlib import Path; from multibox.training.run_directory import RunDirectory\n"
    code += (
        "from multibox.training.distributed import ProcessGroup; ALONE = ProcessGroup(rank=0, size=1, device='cpu')\n"
    )
    code += (
        "with RunDirectory(Path(sys.argv[1]), resume=True, group=ALONE): print('at work', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "at work\n"
        (tmp_path / "log.txt").read_text(encoding="utf-8")  # it may be looked at
        try:
            monkeypatch.setattr(run_directory, "LOCK_SECONDS", 0.1)
            with pytest.raises(FileExistsError, match="another run is writing to"):
                RunDirectory(tmp_path, resume=True, group=ALONE)
        finally:
            other.kill()
    with RunDirectory(tmp_path, resume=True, group=ALONE):
        pass


def test_rows_of_nothing_cannot_be_dropped(record):
    record.begin(TrainConfig(), {}, step=0)
    assert not record.metrics.exists()


def test_a_folder_that_holds_a_run_is_refused(tmp_path):
    (tmp_path / "last.pt").touch()
    with pytest.raises(FileExistsError, match="holds a run already"):
        RunDirectory(tmp_path, resume=False, group=ALONE)
    assert not (tmp_path / "log.txt").exists()
    with RunDirectory(tmp_path, resume=True, group=ALONE):
        pass


def test_a_folder_with_other_files_is_taken(tmp_path):
    (tmp_path / "notes.txt").write_text("mine", encoding="utf-8")
    with RunDirectory(tmp_path, resume=False, group=ALONE):
        pass
    assert (tmp_path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_the_config_is_written_without_what_is_open(record):
    config = TrainConfig(recipe="paper", epochs=2.5, batch_size=4)
    record.begin(config, {}, step=0)
    values = yaml.safe_load((record.folder / "config.yaml").read_text(encoding="utf-8"))
    assert TrainConfig(**values) == config
    assert (values["recipe"], values["epochs"], values["batch_size"], values["seed"]) == ("paper", 2.5, 4, 0)
    assert None not in values.values() and "steps" not in values
    assert TrainConfig(**values) == config


def test_notes_come_first_in_the_config(record):
    record.begin(TrainConfig(steps=3), {"model": "ssd256-tiny", "train_split": "학습"}, step=0)
    values = yaml.safe_load((record.folder / "config.yaml").read_text(encoding="utf-8"))
    assert list(values.items())[:3] == [("model", "ssd256-tiny"), ("train_split", "학습"), ("steps", 3)]


@pytest.mark.parametrize("level", [logging.NOTSET, logging.DEBUG, logging.ERROR])
def test_the_log_is_kept_whatever_the_level(tmp_path, level):
    log = logging.getLogger("multibox")
    log.setLevel(level)
    try:
        with RunDirectory(tmp_path, resume=False, group=ALONE):
            log.info("step 3, 곰")
        log.info("after the run")
        assert (log.level, log.handlers) == (level, [])
    finally:
        log.setLevel(logging.NOTSET)
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").endswith(" step 3, 곰\n")


def test_the_log_goes_on_and_says_why_a_run_stopped(tmp_path):
    for error in (ValueError("the loss is nan"), KeyboardInterrupt()):
        with pytest.raises(type(error)), RunDirectory(tmp_path, resume=True, group=ALONE):
            raise error
    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert [line[20:] for line in lines] == ["stopped: the loss is nan", "stopped: KeyboardInterrupt"]
