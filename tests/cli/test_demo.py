"""Tests `multibox demo` with few scenes and hardly a step: the files that it writes, and running it again."""

import json
import re

import pytest

from multibox.cli import demo as module
from multibox.cli import main


def test_it_leaves_its_page_and_can_be_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "TRAIN_SCENES", 8)
    monkeypatch.setattr(module, "TEST_SCENES", 3)
    monkeypatch.setattr("multibox.training.reporter.LOG_SECONDS", 0.0)
    command = ["demo", "--out", str(tmp_path), "--minutes", "0.001"]
    assert main(command) == 0
    assert re.search(
        r"minute 0\.\d/0\.001 +loss .* left\n", capsys.readouterr().err
    )  # no terminal: lines instead of a bar
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(command) == 1
    assert f"{tmp_path} holds an earlier demo; choose another folder with --out, or --overwrite it" in (
        capsys.readouterr().err
    )
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    (tmp_path / "summary.html").unlink()  # as when it was interrupted
    mine = [tmp_path / name for name in ("mine.txt", "run/mine.txt", "run/found/a.jpg", "scenes/mine.png")]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("notes")
    assert main([*command, "--overwrite"]) == 0
    assert [path.read_text() for path in mine] == ["notes"] * 4
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["rule"] == "coco"
    assert metrics["images"] == 3
    assert {"ap", "ap50", "ap75", "per_class", "postprocess", "pixels", "objects"} <= metrics.keys()
    page = (tmp_path / "summary.html").read_text(encoding="utf-8")
    for image in ("found.png", "run/curves.png"):
        assert image in page
        assert (tmp_path / image).stat().st_size > 0
    assert (tmp_path / "run" / "best.safetensors").exists()
    assert "AP50" in capsys.readouterr().out


def test_a_run_that_is_no_demo_s_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "TRAIN_SCENES", 2)
    monkeypatch.setattr(module, "TEST_SCENES", 1)
    (tmp_path / "run").mkdir()
    for name in ("metrics.csv", "best.safetensors", "log.txt"):
        (tmp_path / "run" / name).write_text("weeks of work")
    assert main(["demo", "--out", str(tmp_path), "--minutes", "0.001"]) == 1
    assert f"{tmp_path} is not empty; choose another folder" in capsys.readouterr().err
    assert main(["demo", "--out", str(tmp_path), "--minutes", "0.001", "--overwrite"]) == 1
    assert f"{tmp_path} holds files that no demo wrote (run); choose another folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert {path.read_text() for path in (tmp_path / "run").iterdir()} == {"weeks of work"}


@pytest.mark.parametrize("value", ["0", "-1", "soon", "inf", "nan"])
def test_a_wrong_time_is_wrong_usage(tmp_path, value):
    assert main(["demo", "--out", str(tmp_path / "new"), "--minutes", value]) == 2
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("seed", ["-1", str(10**20)])
def test_a_seed_that_cannot_be_is_wrong_usage(tmp_path, capsys, seed):
    assert main(["demo", "--out", str(tmp_path / "new"), f"--seed={seed}"]) == 2
    assert f"--seed must be from 0 to 2**63 - 1, but is {seed}" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
