"""A data set without a validation split is divided, and its parts are found again to score a detector on them."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

import multibox as package
from multibox.cli import train
from multibox.data.holdout import Holdout
from multibox.data.synthetic import CLASS_NAMES
from multibox.data.write import write_coco
from multibox.detector import Detector
from multibox.report.card import commands
from tests.cli.conftest import Multibox, scenes

SHORT = ("--steps", 1, "--batch-size", 2, "--workers", 0, "--device", "cpu", "--precision", "fp32")
SAID = "no validation split: 20 % of the images, by a hash of their names, are kept for validation "


@pytest.fixture
def undivided(tmp_path: Path) -> Path:
    """Images of a single split, as annotation tools export them: `instances_default.json`."""
    write_coco({"default": scenes(20, seed=1)}, tmp_path / "coco")
    return tmp_path / "coco"


def config_of(out: Path) -> dict:
    return yaml.safe_load((out / "config.yaml").read_text())


def test_data_without_a_validation_split_are_divided(multibox: Multibox, undivided: Path, tmp_path: Path):
    out = tmp_path / "run"
    command = ["train", undivided, "--model", "ssd256-tiny", *SHORT, "--out", out, "--test-fraction", 0.2]
    status, _, err = multibox(*command)
    assert status == 0
    whole = package.read_dataset(undivided)
    parts = {part: len(images) for part, images in Holdout("all", 0.2, 0.2).divide(whole).items()}
    assert err[0].startswith(SAID)
    assert err[1] == (
        f"{parts['train']} images to learn from (all), {parts['val']} to validate on (20 % of all), "
        f"{parts['test']} for a test (20 %)"
    )
    assert sum(parts.values()) == 20
    config = config_of(out)
    assert (config["train_split"], config["val_fraction"], config["test_fraction"]) == ("all", 0.2, 0.2)
    assert "val_split" not in config
    assert Holdout.from_provenance(Detector.load(out).provenance) == Holdout("all", 0.2, 0.2)

    # the card's own command, the one without a split, and Python's call give the number of the card
    card = json.loads((out / "card.json").read_text())
    typed = shlex.split(card["commands"]["evaluate"])[1:]
    assert typed[typed.index("--split") + 1] == "val"
    for number, arguments in enumerate((typed, ["evaluate", undivided, "--model", out])):
        status, _, err = multibox(*arguments, "--json", tmp_path / f"{number}.json")
        assert status == 0
        assert err[0] == "scoring on the 20 % of 'all' that the training kept for validation; for all of it: " + (
            "--split all"
        )
        scores = json.loads((tmp_path / f"{number}.json").read_text())
        assert (scores["images"], scores["objects"]) == (card["metrics"]["images"], card["metrics"]["objects"])
        assert scores["ap"] == pytest.approx(card["metrics"]["ap"], abs=1e-6)
    assert package.evaluate(package.load(out), undivided).images == parts["val"]

    # the other part, as the log says, and all of it
    (typed_test,) = (
        line.partition(": ")[2] for line in multibox(*command, "--resume").err if "kept for a test: " in line
    )
    assert (
        multibox(*shlex.split(typed_test)[1:]).out[0].startswith(f"{undivided}, all, test part: {parts['test']} image")
    )
    assert (
        multibox("evaluate", undivided, "--model", out, "--split", "all")
        .out[0]
        .startswith(f"{undivided}, all: 20 images")
    )

    # resumed from its folder alone, with the same parts
    status, _, err = multibox("train", "--resume", out, "--steps", 2)
    assert status == 0
    assert err[0].startswith(f"{parts['train']} images to learn from (all), {parts['val']} to validate on (20 %")
    assert not any("has changed" in line for line in err)
    assert config_of(out) == config | {"steps": 2}


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[train.Plan]:
    """The plans of the commands, which do not train."""
    plans: list[train.Plan] = []
    monkeypatch.setattr(train, "_make_detector", lambda plan, class_names: None)
    monkeypatch.setattr(train, "_run", lambda plan, *_: plans.append(plan))
    return plans


def test_the_default_gives_way_to_what_was_asked_for(
    multibox: Multibox, undivided: Path, planned: list[train.Plan], tmp_path: Path
):
    (tmp_path / "run.yaml").write_text("val_fraction: 0.4\n")
    of_file = ["--config", tmp_path / "run.yaml"]
    for flags, said, kept in (
        (["--val-split", "none"], "none to validate on: the last weights are kept", {"val_split": "none"}),
        (["--val-fraction", 0], "none to validate on: the last weights are kept", {"val_split": "none"}),
        (["--val-fraction", 0.5], "to validate on (50 % of all)", {"val_fraction": 0.5}),
        (of_file, "to validate on (40 % of all)", {"val_fraction": 0.4}),
        ([*of_file, "--val-fraction", 0.3], "to validate on (30 % of all)", {"val_fraction": 0.3}),
        ([*of_file, "--val-split", "all"], "20 to validate on (all)", {"val_split": "all"}),
    ):
        status, _, err = multibox("train", undivided, "--model", "ssd256-tiny", *flags, "--out", tmp_path / "run")
        assert (status, len(err) <= 3) == (0, True)
        assert said in err[0]
        notes = planned[-1].notes
        assert {name: notes[name] for name in ("val_split", "val_fraction") if name in notes} == kept


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_split_of_the_data_is_not_replaced(multibox: Multibox, data: Path, tmp_path: Path, part: str):
    command = ["train", data, "--model", "ssd256-tiny", *SHORT, "--out", tmp_path / "run"]
    status, _, err = multibox(*command, f"--{part}-fraction", 0.3)
    assert (status, len(err)) == (2, 1)
    assert f"--{part}-fraction is for data without such a split, but {data} has '{part}'; leave it out" in err[0]


def test_unlabelled_images_are_read_as_asked(
    multibox: Multibox, undivided: Path, planned: list[train.Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The reader gets the value, the run keeps it, and the card's command to evaluate has it."""
    asked = []

    class Reader(package.data.DatasetReader):
        def __init__(self, path, *, unlabelled=None) -> None:
            asked.append(unlabelled)
            super().__init__(path)

    monkeypatch.setattr("multibox.data.DatasetReader", Reader)
    command = ["train", undivided, "--model", "ssd256-tiny", "--out", tmp_path / "run"]
    for value in ("skip", "empty"):
        assert multibox(*command, "--unlabelled", value).status == 0
        assert (asked[-1], planned[-1].notes["unlabelled"]) == (value, value)
    assert multibox(*command).status == 0
    assert (asked[-1], "unlabelled" in planned[-1].notes) == (None, False)
    known = commands(
        tmp_path, ["data"], "val", package.read_dataset(undivided), score_threshold=None, length=None, unlabelled="skip"
    )
    assert known["evaluate"].startswith("multibox evaluate data --split val --unlabelled skip --model ")
    Detector.create("ssd256-tiny", CLASS_NAMES, seed=0).save(tmp_path / "it.safetensors")
    assert multibox("evaluate", undivided, "--model", tmp_path / "it.safetensors", "--unlabelled", "skip").status == 0
    assert asked[-1] == "skip"
