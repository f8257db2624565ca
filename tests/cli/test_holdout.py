"""A data set without a validation split is divided, and its parts are found again to score a detector on them."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

import multibox as package
from multibox.data.holdout import Holdout
from multibox.data.write import write_coco
from multibox.detector import Detector
from tests.cli.conftest import Multibox, scenes

SHORT = ("--steps", 1, "--batch-size", 2, "--workers", 0, "--device", "cpu")
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
    parts = {part: len(images) for part, images in Holdout("default", 0.2, 0.2).divide(whole).items()}
    assert err[0].startswith(SAID)
    assert err[1] == (
        f"{parts['train']} images to learn from (default), {parts['val']} to validate on (20 % of default), "
        f"{parts['test']} for a test (20 %)"
    )
    assert sum(parts.values()) == 20
    config = config_of(out)
    assert (config["train_split"], config["val_fraction"], config["test_fraction"]) == ("default", 0.2, 0.2)
    assert "val_split" not in config
    assert Holdout.from_provenance(Detector.load(out).provenance) == Holdout("default", 0.2, 0.2)

    # the card's own command, the one without a split, and Python's call give the number of the card
    card = json.loads((out / "card.json").read_text())
    typed = shlex.split(card["commands"]["evaluate"])[1:]
    assert typed[typed.index("--split") + 1] == "val"
    for number, arguments in enumerate((typed, ["evaluate", undivided, "--model", out])):
        status, _, err = multibox(*arguments, "--json", tmp_path / f"{number}.json")
        assert status == 0
        assert err[0] == "scoring on the 20 % of 'default' that the training kept for validation; for all of it: " + (
            "--split default"
        )
        scores = json.loads((tmp_path / f"{number}.json").read_text())
        assert (scores["images"], scores["objects"]) == (card["metrics"]["images"], card["metrics"]["objects"])
        assert scores["ap"] == pytest.approx(card["metrics"]["ap"], abs=1e-6)
    assert package.evaluate(package.load(out), undivided).images == parts["val"]

    # the other part, and all of it
    (typed_test,) = (
        line.partition(": ")[2] for line in multibox(*command, "--resume").err if "kept for a test: " in line
    )
    assert (
        multibox(*shlex.split(typed_test)[1:]).out[0].startswith(f"{undivided}, default (test): {parts['test']} image")
    )
    assert (
        multibox("evaluate", undivided, "--model", out, "--split", "default")
        .out[0]
        .startswith(f"{undivided}, default: 20 images")
    )

    # resumed from its folder alone, with the same parts
    status, _, err = multibox("train", "--resume", out, "--steps", 2)
    assert status == 0
    assert err[0].startswith(f"{parts['train']} images to learn from (default), {parts['val']} to validate on (20 %")
    assert not any("has changed" in line for line in err)
    assert config_of(out) == config | {"steps": 2}


def test_the_default_gives_way_to_what_was_asked_for(multibox: Multibox, undivided: Path, data: Path, tmp_path: Path):
    command = ["train", undivided, "--model", "ssd256-tiny", *SHORT]
    for number, flags in enumerate((["--val-split", "none"], ["--val-fraction", 0])):
        out = tmp_path / f"none-{number}"
        status, _, err = multibox(*command, *flags, "--out", out)
        assert (status, err[0]) == (
            0,
            "20 images to learn from (default), none to validate on: the last weights are kept",
        )
        assert (config_of(out)["val_split"], "val_fraction" in config_of(out)) == ("none", False)
    # a flag replaces the other way to validate of a file
    (tmp_path / "run.yaml").write_text("val_fraction: 0.4\n")
    for flags, said in (
        (["--val-split", "default"], "20 to validate on (default)"),
        (["--val-fraction", 0.3], "to validate on (30 % of default)"),
        ([], "to validate on (40 % of default)"),
    ):
        status, _, err = multibox(*command, "--config", tmp_path / "run.yaml", *flags, "--out", tmp_path / "full" / "x")
        assert said in err[0]


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_split_of_the_data_is_not_replaced(multibox: Multibox, data: Path, tmp_path: Path, part: str):
    command = ["train", data, "--model", "ssd256-tiny", *SHORT, "--out", tmp_path / "run"]
    status, _, err = multibox(*command, f"--{part}-fraction", 0.3)
    assert (status, len(err)) == (2, 1)
    assert f"--{part}-fraction is for data without such a split, but {data} has '{part}'; leave it out" in err[0]


def test_unlabelled_images_are_read_as_asked(
    multibox: Multibox, undivided: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The reader gets the value, `config.yaml` keeps it, and the card's command to evaluate has it."""
    asked = []

    class Reader(package.data.DatasetReader):
        def __init__(self, path, *, unlabelled=None) -> None:
            asked.append(unlabelled)
            super().__init__(path)

    monkeypatch.setattr("multibox.data.DatasetReader", Reader)
    out = tmp_path / "run"
    command = ["train", undivided, "--model", "ssd256-tiny", *SHORT, "--out", out]
    assert multibox(*command, "--unlabelled", "skip").status == 0
    assert config_of(out)["unlabelled"] == "skip"
    typed = json.loads((out / "card.json").read_text())["commands"]["evaluate"]
    assert multibox(*shlex.split(typed)[1:]).status == 0
    assert asked == ["skip", "skip"]
