"""The command `multibox report`, and the report that a run leaves."""

import csv
import dataclasses
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from multibox.cli import report as command
from multibox.data.sample import GroundTruth
from multibox.data.synthetic import synthetic_scenes
from multibox.report.evaluation import Report
from multibox.report.files import REPORT_FILES
from multibox.training.run_files import is_running, remove_run
from tests.cli.conftest import Multibox


@pytest.fixture(autouse=True)
def nothing_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """tests/report draws the figures."""
    for name in ("draw_confusions", "draw_precision_recall", "draw_f1"):
        monkeypatch.setattr(f"multibox.report.evaluation.{name}", lambda path, *_: path.write_bytes(b""))
    monkeypatch.setattr("multibox.report.speed.IMAGES", 1)


def data_of(folder: Path) -> dict:
    page = (folder / "index.html").read_text(encoding="utf-8")
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    data: dict = json.loads(text)
    return data


def test_the_report_has_the_numbers_of_evaluate(multibox: Multibox, data: Path, tmp_path: Path):
    out, model = tmp_path / "report", "multibox/shapes"
    status, lines, err = multibox("report", model, "--data", data, "--out", out)
    assert (status, err) == (0, [f"report: {out / 'index.html'}"])
    assert lines[0].startswith("There is too little to judge by: ")
    assert {path.name for path in out.iterdir()} == set(REPORT_FILES)
    assert multibox("evaluate", data, "--model", model, "--json", tmp_path / "all.json").status == 0
    expected = json.loads((tmp_path / "all.json").read_text())
    page = data_of(out)
    assert page["metrics"] == json.loads((out / "metrics.json").read_text()) == expected
    with (out / "results.csv").open(newline="") as file:
        rows = {row["class"]: row for row in csv.DictReader(file)}
    assert rows["all classes"]["ap"] == str(expected["ap"])
    assert rows["circle"]["f1"] == str(expected["per_class"]["circle"]["f1"])
    assert page["facts"]["speed"].endswith("(median of 1)")
    assert multibox("report", model, "--data", data, "--out", out).status == 1  # nothing is replaced


@pytest.mark.slow
def test_detections_of_another_program_are_judged_and_compared(
    multibox: Multibox, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model, found, out = "multibox/shapes", tmp_path / "found", tmp_path / "report"
    # a low score, since AP looks at all detections
    detect = ["detect", data / "JPEGImages", "--model", model, "--score", 0.01, "--max-detections", 200, "--out", found]
    assert multibox(*detect, "--format", "yolo").status == 0
    assert multibox("report", found / "yolo-labels", "--data", data, "--out", out).status == 0
    assert multibox("evaluate", data, "--model", model, "--json", tmp_path / "all.json").status == 0
    page, expected = data_of(out), json.loads((tmp_path / "all.json").read_text())
    assert page["metrics"]["ap"] == pytest.approx(expected["ap"], abs=0.02)  # boxes are written with two decimals
    assert page["detector"] is None
    status, _, err = multibox(*detect[:-2], "--format", "coco")
    assert status == 2
    assert "--format needs a folder, as in --out found/ --format coco" in err[0]


def test_only_the_detector_that_the_page_is_about_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    dataset, timed, written = synthetic_scenes(2, seed=0), [], []

    def evaluated(model: str, *_: object) -> tuple[object, ...]:
        return SimpleNamespace(detections=()), SimpleNamespace(config=model), {"weights": model}

    monkeypatch.setattr(command, "_evaluate", evaluated)
    monkeypatch.setattr("multibox.report.speed.measure_speed", lambda detector, _: timed.append(detector.config))
    monkeypatch.setattr("multibox.report.evaluation.write_report", lambda *_, **how: written.append(how["facts"]))
    command._write(["one", "two", "three"], dataset, command.Settings("coco", 1, None), tmp_path, None)
    assert timed == ["one"]
    assert written == [{"speed": "no image can be read", "weights": "one"}]


def test_nothing_is_evaluated_where_nothing_can_be_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    none = synthetic_scenes(2, seed=0)
    none = dataclasses.replace(none, samples=[dataclasses.replace(each, truth=GroundTruth([], [])) for each in none])
    monkeypatch.setattr(command, "_evaluate", lambda *_: pytest.fail("it was evaluated"))
    with pytest.raises(ValueError, match="has no object that counts"):
        command._write(["one", "two"], none, command.Settings("coco", 1, None), tmp_path, None)


def test_an_interrupted_evaluation_leaves_a_page_that_does_not_reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run, out, done = tmp_path / "run", tmp_path / "out", []
    run.mkdir()
    best = run / "best.safetensors"
    best.touch()

    def evaluate_twice(*_, **how) -> Report:
        done.append(how["refresh"])
        if len(done) == 2:
            raise KeyboardInterrupt
        return Report(("It is good.",), {"name": "kept"})

    monkeypatch.setattr(command, "_write", evaluate_twice)
    monkeypatch.setattr(command, "_read", lambda *_: synthetic_scenes(1, seed=0))
    monkeypatch.setattr(command, "is_running", lambda _: True)
    monkeypatch.setattr(command, "REST", 0)
    monkeypatch.setattr(command.time, "sleep", lambda _: os.utime(best, (2e9, 2e9)))  # there are better weights
    with pytest.raises(KeyboardInterrupt):
        command._follow(run, [str(run)], None, None, "skip", command.Settings("coco", 1, None), out)
    assert done == [command.REFRESH] * 2
    assert 'http-equiv="refresh"' not in (out / "index.html").read_text(encoding="utf-8")


@pytest.fixture
def run(multibox: Multibox, data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    short = ["--steps", 2, "--batch-size", 2, "--workers", 0, "--device", "cpu"]
    assert multibox("train", data, "--model", "ssd256-tiny", "--out", folder, *short).status == 0
    return folder


@pytest.mark.slow
def test_a_run_leaves_a_report_that_can_be_made_again(multibox: Multibox, run: Path, tmp_path: Path):
    card, page = json.loads((run / "card.json").read_text()), data_of(run / "report")
    assert page["metrics"]["ap"] == card["metrics"]["ap"]
    assert len(page["run"]["rows"]) == 2
    again = tmp_path / "again"
    status, _, err = multibox("report", run, "--out", again)  # with the data of the run
    assert (status, err[-1]) == (0, f"report: {again / 'index.html'}")
    assert data_of(again)["metrics"]["ap"] == pytest.approx(card["metrics"]["ap"], abs=1e-6)
    assert data_of(again)["run"]["state"].startswith("The run has finished")
    status, _, err = multibox("report", run)
    assert status == 1
    assert "index.html is there already" in err[-1]
    (run / "report" / "mine.txt").touch()
    (run / "live").mkdir()
    (run / "live" / "index.html").touch()  # as --follow leaves it
    remove_run(run)
    assert not (run / "live").exists()
    assert [path.name for path in (run / "report").iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_a_run_that_goes_on_is_followed_and_one_that_died_is_read(
    multibox: Multibox, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out, lock = run / "live", FileLock(run / ".lock", thread_local=False)
    left = {path.name: path.read_bytes() for path in (run / "report").iterdir()}
    assert not is_running(run)
    looks = []

    def look(seconds: float) -> None:
        looks.append((out / "index.html").read_text(encoding="utf-8"))
        if len(looks) == 2:
            lock.release()

    monkeypatch.setattr(command.time, "sleep", look)
    lock.acquire()
    assert is_running(run)
    assert multibox("report", run, "--follow").status == 0
    assert {path.name: path.read_bytes() for path in (run / "report").iterdir()} == left
    assert len(looks) == 2
    assert all('http-equiv="refresh"' in page and "The run goes on" in page for page in looks)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert 'http-equiv="refresh"' not in page
    assert "The run has finished" in page
    # as if it had been killed before its first weights
    for name in ("best.safetensors", "card.json"):
        (run / name).unlink()
    config = (run / "config.yaml").read_text().replace("steps: 2", "steps: 20")
    (run / "config.yaml").write_text(config)
    status, _, err = multibox("report", run, "--out", tmp_path / "died")
    assert (status, err[-1]) == (0, f"report: {tmp_path / 'died' / 'index.html'}")
    state = data_of(tmp_path / "died")["run"]["state"]
    assert state.startswith("The run does not go on: 10 % done, epoch 1, ")
    assert f"To go on: `multibox train --resume {run}`" in state


def test_what_is_missing_is_asked_for(multibox: Multibox, data: Path, weights: Path, tmp_path: Path):
    for arguments, said in (
        ([weights, "--out", tmp_path / "out"], "--data is missing"),
        ([weights, "--data", data], "--out is missing"),
        ([weights, "--data", data, "--out", data / "out"], "is in the data set, among its images"),
        ([weights, "--data", data, "--out", tmp_path / "out", "--follow"], "--follow watches the folder of a run"),
    ):
        status, out, err = multibox("report", *arguments)
        assert (status, out) == (2, [])
        assert said in err[0]
        assert not (tmp_path / "out").exists()
