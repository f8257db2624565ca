"""Tests `multibox coverage`, and `multibox train` with the config that it writes."""

import json
import shutil
from pathlib import Path

import pytest

from multibox.config import DetectorConfig
from multibox.data.read import read_dataset
from multibox.explain.coverage import describe, measure_coverage
from multibox.presets import preset
from multibox.weights.file import load_weights
from tests.cli.conftest import Multibox

TINY = ("--model", "ssd256-tiny", "--size", "96x128")


@pytest.fixture(autouse=True)
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves a second for each run; tests/report/test_coverage_figure.py draws it."""
    monkeypatch.setattr("multibox.report.coverage_figure.draw_coverage", lambda path, panels: path.write_bytes(b""))


def test_the_numbers_are_those_of_the_library(multibox: Multibox, data: Path, tmp_path: Path):
    status, out, _ = multibox("coverage", data, *TINY, "--split", "val", "--json", "-", "--out", tmp_path / "out")
    assert status == 0
    found = json.loads("\n".join(out))
    val_set, config = read_dataset(data, split="val"), preset("ssd256-tiny", height=96, width=128)
    expected = describe(measure_coverage(val_set, config), config, val_set.class_names)
    assert (found["split"], found["model"]) == ("val", "ssd256-tiny")
    assert {name: found[name] for name in expected} == json.loads(json.dumps(expected))
    assert [(each["height"], each["width"]) for each in found["inputs"]] == [
        *((64, 96), (96, 128), (128, 160), (128, 192), (192, 256))
    ]
    assert found["inputs"][1]["overlap"] == pytest.approx(found["overlap"], abs=1e-6)
    assert found["inputs"][1]["recall"] == found["recall"]
    assert json.loads((tmp_path / "out" / "coverage.json").read_text()) == found
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"coverage.json", "coverage.png"}


def test_tables_fit_a_terminal(multibox: Multibox, data: Path):
    status, out, err = multibox("coverage", data, *TINY)
    assert (status, err) == (0, [])
    page = "\n".join(out)
    assert "ssd256-tiny at 96 x 128" in page
    for title in ("size after resize", "width : height", "class ", "map ", "input "):
        assert any(line.startswith(title) for line in out), title
    assert max(map(len, out)) <= max(80, len(out[0]))  # the first line has a path


def test_weights_are_measured_with_their_own_default_boxes(multibox: Multibox, data: Path, weights: Path):
    status, out, _ = multibox("coverage", data, "--model", weights, "--json", "-")
    found = json.loads("\n".join(out))
    assert (status, found["default_boxes"], found["inputs"]) == (0, 6132, [])
    status, out, err = multibox("coverage", data, "--model", weights, "--size", "320")
    assert (status, out) == (2, [])
    assert "--size and --scales are for presets" in err[0]


def fitted_json(multibox: Multibox, data: Path, out: Path) -> DetectorConfig:
    assert multibox("coverage", data, *TINY, "--fit", "--out", out).status == 0
    return DetectorConfig.load(out / "fitted.json")


def test_a_fit_shows_both_splits_and_learns_from_one(multibox: Multibox, data: Path, tmp_path: Path):
    status, out, err = multibox("coverage", data, *TINY, "--fit", "--out", tmp_path / "out")
    assert status == 0
    assert out[0].split() == ["train", "before", "train", "after", "val", "before", "val", "after"]
    assert max(map(len, out)) <= 80
    assert any("This is no promise of a higher AP" in line for line in err)
    assert f"multibox train {str(data)!r} --model" in " ".join(err)
    config = DetectorConfig.load(tmp_path / "out" / "fitted.json")
    found = json.loads((tmp_path / "out" / "coverage.json").read_text())
    assert found["after"]["train"]["default_boxes"] == config.num_default_boxes
    assert config.num_default_boxes <= found["before"]["train"]["default_boxes"]
    assert (
        found["after"]["train"]["mean_of_classes"]["overlap"] > found["before"]["train"]["mean_of_classes"]["overlap"]
    )
    for name in (data / "ImageSets" / "Main" / "val.txt").read_text().split():
        file = data / "Annotations" / f"{name}.xml"
        file.write_text(file.read_text().replace("<xmin>", "<xmin>1"))  # other boxes to validate on
    assert fitted_json(multibox, data, tmp_path / "again") == config


def test_without_a_split_for_it_a_part_is_not_fitted_to(multibox: Multibox, data: Path, tmp_path: Path):
    shutil.rmtree(data / "ImageSets")
    status, out, err = multibox("coverage", data, *TINY, "--fit", "--out", tmp_path / "out")
    assert status == 0
    assert out[0].split() == ["train", "before", "train", "after", "val", "before", "val", "after"]
    assert err[0].startswith("no split for validation: 20 % of the images")


def test_a_fit_needs_a_folder(multibox: Multibox, data: Path):
    status, out, err = multibox("coverage", data, *TINY, "--fit")
    assert (status, out, err) == (2, [], ["multibox: --fit writes a config; say to which folder: --out DIR"])


def test_train_refuses_what_a_config_has_and_what_is_none(multibox: Multibox, data: Path, tmp_path: Path):
    file = tmp_path / "mine.json"
    file.write_text(preset("ssd256-tiny").to_json())
    status, out, err = multibox("train", data, "--model", file, "--size", "320", "--out", tmp_path / "run")
    assert (status, out) == (2, [])
    assert err == [f"multibox: --size is for presets; {file} has an input size of its own"]
    file.write_text("{}")
    status, out, err = multibox("train", data, "--model", file, "--out", tmp_path / "run")
    assert (status, out) == (2, [])
    assert f"{file}: not the config of a detector: " in err[0]
    status, out, err = multibox("train", data, "--model", tmp_path / "none.json", "--out", tmp_path / "run")
    assert (status, out) == (1, [])
    assert err == [f"multibox: {tmp_path / 'none.json'}: there is no such file"]
    status, out, err = multibox("evaluate", data, "--model", file)
    assert (status, out) == (2, [])
    assert f"'{file}' is a config, a network that is not trained yet; train it first" in err[0]


@pytest.mark.slow
def test_a_fitted_config_is_trained_and_resumed_without_its_file(multibox: Multibox, data: Path, tmp_path: Path):
    config = fitted_json(multibox, data, tmp_path / "out")
    run = tmp_path / "run"
    short = ("--batch-size", 2, "--workers", 0, "--device", "cpu")
    model = ("--model", tmp_path / "out" / "fitted.json")
    assert multibox("train", data, *model, *short, "--steps", 1, "--out", run).status == 0
    assert load_weights(run / "best.safetensors").config == config
    shutil.rmtree(tmp_path / "out")
    assert multibox("train", "--resume", run, "--steps", 2).status == 0
    assert load_weights(run / "last.safetensors").config == config
    assert multibox("evaluate", data, "--model", run).status == 0
