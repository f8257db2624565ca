"""The demo, with few scenes and no time to learn: what it leaves, and that it can be run again."""

import json

import pytest

from multibox.cli import demo as module
from multibox.cli import main


def test_it_leaves_its_page_and_can_be_run_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "TRAIN_SCENES", 8)
    monkeypatch.setattr(module, "TEST_SCENES", 3)
    for _ in range(2):
        assert main(["demo", "--out", str(tmp_path), "--minutes", "0.001"]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["rule"] == "coco"
    assert metrics["images"] == 3
    assert {"ap", "ap50", "ap75", "per_class", "selection", "pixels", "objects"} <= metrics.keys()
    page = (tmp_path / "summary.html").read_text(encoding="utf-8")
    for picture in ("found.png", "run/curves.png"):
        assert picture in page
        assert (tmp_path / picture).stat().st_size > 0
    assert (tmp_path / "run" / "best.safetensors").exists()
    assert "AP50" in capsys.readouterr().out


@pytest.mark.parametrize("minutes", ["0", "-1", "soon"])
def test_a_wrong_time_is_wrong_usage(tmp_path, minutes):
    assert main(["demo", "--out", str(tmp_path), "--minutes", minutes]) == 2
