"""Tests `multibox ablate`: its files, how it goes on, and what it refuses. Nothing is trained but in the slow test."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from multibox.data.write import write_voc
from multibox.report.ablation import AblationScore
from tests.cli.conftest import Multibox, scenes

SHORT = ("--steps", 2, "--workers", 0, "--device", "cpu", "--variants", "no-mining")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The runs that are asked for. Their AP50 is made up: 0.4 for the full detector, 0.3 for others, plus the seed."""
    asked: list[tuple[str, int]] = []

    def ablate(variants, seeds, train_set, test_set, config, *, done, on_run, **others) -> Iterator[AblationScore]:
        for seed in seeds:
            for variant in variants:
                if (variant.name, seed) in {(score.variant, score.seed) for score in done}:
                    continue
                on_run(variant, seed)
                asked.append((variant.name, seed))
                ap50 = (0.4 if variant.name == "full" else 0.3) + seed / 100
                boxes = variant.config.num_default_boxes
                yield AblationScore(
                    variant.name, seed, boxes, config.steps, 0.1, ap50 / 2, ap50, 0.1, None, 0.2, 0.3, {"star": ap50}
                )

    monkeypatch.setattr("multibox.training.ablation.ablate", ablate)
    return asked


def test_the_files_hold_each_run_and_the_table_is_printed(multibox: Multibox, data: Path, tmp_path: Path, trained):
    status, out, err = multibox("ablate", data, *SHORT, "--seeds", 2, "--out", tmp_path / "out")
    assert status == 0
    assert err[0] == "4 images to learn from (train), 3 to score on (val)"
    assert err[1] == "2 variants, 2 seeds: 4 runs to train, 2 steps each"
    assert " ".join(out[2].split()) == "no-mining 30.5 (30.0 to 31.0) -10.0 (-10.0 to -10.0) 6,132"
    assert all(len(line) <= 80 for line in out)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "ablation.json",
        "ablation.md",
        "ablation.png",
    ]
    values = json.loads((tmp_path / "out" / "ablation.json").read_text())
    assert [(score["variant"], score["seed"]) for score in values["scores"]] == trained
    assert values["plan"]["steps"] == 2
    assert values["rows"][1]["difference"]["mean"] == pytest.approx(-0.1)


def test_the_same_command_goes_on_and_more_seeds_are_added(multibox: Multibox, data: Path, tmp_path: Path, trained):
    command = ("ablate", data, *SHORT, "--out", tmp_path / "out")
    assert multibox(*command, "--seeds", 1).status == 0
    assert multibox(*command, "--seeds", 1).err[1] == "2 variants, 1 seed: 0 runs to train, 2 steps each"
    assert multibox(*command, "--seeds", 2).err[2] == "run 3 of 4: full, seed 1"
    assert trained == [("full", 0), ("no-mining", 0), ("full", 1), ("no-mining", 1)]


def test_without_a_split_to_score_on_a_fifth_is_kept(multibox: Multibox, tmp_path: Path, trained):
    write_voc({"train": scenes(20, seed=1)}, tmp_path / "one")
    err = multibox("ablate", tmp_path / "one", *SHORT, "--seeds", 1, "--out", tmp_path / "out").err
    assert err[0].endswith(" to score on (20 % of train, by a hash of their names)")


def hold_trainval(data: Path) -> None:
    """Gives the data set a split that holds `train` and `val`."""
    lists = data / "ImageSets" / "Main"
    (lists / "trainval.txt").write_text((lists / "train.txt").read_text() + (lists / "val.txt").read_text())


def test_no_image_that_is_learned_from_is_scored_on(multibox: Multibox, data: Path, tmp_path: Path, trained):
    hold_trainval(data)
    command = ("ablate", data, *SHORT, "--seeds", 1, "--train-split", "trainval", "--out", tmp_path / "out")
    status, _, err = multibox(*command, "--split", "val")
    assert (status, trained, len(err)) == (2, [], 1)
    assert "--split val: 3 images of it are in 'trainval' too, the split to learn from; name another one" in err[0]
    assert not (tmp_path / "out").exists()
    assert multibox(*command).err[0] == "7 images to learn from (trainval), 2 to score on (test)"


def test_where_all_splits_are_learned_from_a_fifth_is_kept(multibox: Multibox, data: Path, tmp_path: Path, trained):
    hold_trainval(data)
    (data / "ImageSets" / "Main" / "test.txt").unlink()
    command = ("ablate", data, *SHORT, "--seeds", 1, "--train-split", "trainval", "--out", tmp_path / "out")
    assert multibox(*command).err[0].endswith(" to score on (20 % of trainval, by a hash of their names)")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", 2, "--minutes", 1], "--minutes and --steps are two lengths of the runs; give one of them"),
        (["--steps", 0], "--steps must be above 0, but is 0"),
        (["--variants", "squars"], "there is no variant 'squars' of this detector, only full, no-augmentation, "),
        (
            ["--split", "train"],
            "--split train: 4 images of it are in 'train' too, the split to learn from; name another",
        ),
        (["--model", "ssd256-tin"], "did you mean 'ssd256-tiny'?"),
    ],
)
def test_wrong_usage_is_said(multibox: Multibox, data: Path, tmp_path: Path, trained, flags: list, message: str):
    status, out, err = multibox("ablate", data, *flags, "--out", tmp_path / "out")
    assert (status, out, len(err)) == (2, [], 1)
    assert message in err[0]
    assert not (tmp_path / "out").exists()


def test_another_job_in_the_folder_is_refused(multibox: Multibox, data: Path, tmp_path: Path, trained):
    command = ("ablate", data, "--seeds", 1, "--variants", "squares", "--out", tmp_path / "out")
    assert multibox(*command, "--steps", 2).status == 0
    status, _, err = multibox(*command, "--steps", 3)
    assert status == 1
    assert err[-1].endswith("holds an ablation with another steps; choose another folder with --out")
    (tmp_path / "out" / "ablation.json").write_text("{}")
    assert "not as an ablation writes it" in multibox(*command, "--steps", 2).err[-1]


@pytest.mark.slow
def test_a_job_that_was_interrupted_goes_on(
    multibox: Multibox, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from multibox.training.trainer import Trainer

    step, steps = Trainer.step, []

    def interrupted(self, batch, *, learning_rate):
        steps.append(1)
        if len(steps) == 5:  # in the run without mining
            raise KeyboardInterrupt
        return step(self, batch, learning_rate=learning_rate)

    monkeypatch.setattr(Trainer, "step", interrupted)
    command = ["ablate", data, *SHORT[2:], "--steps", 4, "--seeds", 1, "--out", tmp_path / "out"]
    status, _, err = multibox(*command)
    assert (status, err[-1]) == (130, "multibox: interrupted; the same command goes on")
    status, _, err = multibox(*command)
    assert status == 0
    assert [line for line in err if line.startswith("run ")] == ["run 2 of 2: no-mining, seed 0"]
    assert json.loads((tmp_path / "out" / "ablation.json").read_text())["scores"][1]["steps"] == 4
