"""The card of a run: what stands on it is what was given, and its commands can be typed."""

import json
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from multibox.cli import main
from multibox.data.fingerprint import fingerprint
from multibox.data.read import read_dataset
from multibox.data.sample import GroundTruth
from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.data.write import write_voc
from multibox.detector import Detector
from multibox.evaluation.evaluate import score
from multibox.evaluation.precision_recall import TP, match_detections
from multibox.messages import percent
from multibox.report import card as card_module
from multibox.report import environment
from multibox.report.card import images_to_show, read_card, summary, write_card
from multibox.report.environment import versions
from multibox.training.progress import COLUMNS
from multibox.training.recipes import TrainConfig

FACTS = {"device": "Abacus | 3 beads", "processes": 2, "training, minutes": 12.5, "waits for input, %": None}


def row(step, **values):
    return dict.fromkeys(COLUMNS, 0.5) | {"step": step, "epoch": step / 4} | values


def written(folder, detector, train_set, val_set, **values):
    """The card of a made-up run with that detector."""
    folder.mkdir(exist_ok=True)
    detector.save(folder / "best.safetensors")
    shown = val_set or images_to_show(train_set)
    found = detector.detect([sample.open() for sample in shown], score_threshold=0.01)
    truths = [sample.truth for sample in shown]
    metrics = score(truths, found, class_names=shown.class_names, rule="coco") if val_set else None
    rows = [row(4, ap=0.1), row(10, ap=0.25), row(16, ap=0.2)] if val_set else [row(4, ap=None), row(16, ap=None)]
    defaults = {"rows": rows, "best_step": 10 if val_set else 16, "facts": FACTS}
    defaults["config"] = TrainConfig(recipe="modern", epochs=3.0, seed=7).values()
    sets = {"train_set": train_set, "val_set": val_set, "shown": shown, "found": found, "metrics": metrics}
    write_card(folder, detector, **sets, **defaults | values)
    return json.loads((folder / "card.json").read_text(encoding="utf-8")), (folder / "card.md").read_text("utf-8")


@pytest.fixture
def figures_not_drawn(monkeypatch):
    monkeypatch.setattr(card_module, "draw_curves", lambda rows, path, best_step: path.touch())


@pytest.mark.usefixtures("figures_not_drawn")
def test_a_card_never_holds_nan(tmp_path, new_detector):
    """JSON has no NaN, and other programs refuse a file with one."""
    scenes = synthetic_scenes(2, seed=1, height=64, width=64)
    with pytest.raises(ValueError, match="JSON"):
        written(tmp_path / "bears", new_detector(), scenes, None, facts=FACTS | {"seconds": float("nan")})
    assert not (tmp_path / "bears" / "card.json").exists()


@pytest.mark.usefixtures("figures_not_drawn")
def test_the_card_has_what_it_was_given(tmp_path, new_detector):
    train_set, val_set = (synthetic_scenes(count, seed=count, height=64, width=64) for count in (6, 4))
    card, text = written(tmp_path / "bears", new_detector(), train_set, val_set)
    assert card["run"] == "bears" and text.startswith("# bears\n")
    assert (card["best"]["step"], card["best"]["epoch"]) == (10, 2.5)
    assert "are of epoch 2.5 (step 10): the best of all validations" in text
    assert TrainConfig(**card["config"]) == TrainConfig(recipe="modern", epochs=3.0, seed=7)
    assert card["facts"] == FACTS and "| device | Abacus \\| 3 beads |" in text and "| waits for input, % | - |" in text
    assert "| training, minutes | 12.5 |" in text and "| seed | 7 |" in text
    for name, dataset in (("train", train_set), ("val", val_set)):
        described = card["data"][name]
        assert described["fingerprint"] == fingerprint(dataset) and described["fingerprint"] in text
        assert described["images"] == len(dataset)
        assert described["objects"] == sum(len(sample.truth.labels) for sample in dataset)
    assert card["metrics"]["per_class"].keys() == set(CLASS_NAMES)
    for name, values in card["metrics"]["per_class"].items():
        assert f"| {name} | " + ("-" if values["ap"] is None else f"{100 * values['ap']:.1f}") in text
    assert {path.name for path in (tmp_path / "bears").iterdir()} == {
        *("best.safetensors", "card.json", "card.md", "curves.png", "validation.jpg")
    }


@pytest.mark.usefixtures("figures_not_drawn")
def test_without_validation_the_card_says_so(tmp_path, new_detector):
    train_set = synthetic_scenes(3, seed=1, height=64, width=64)
    card, text = written(tmp_path, new_detector(), train_set, None)
    assert card["metrics"] is None and card["data"]["val"] is None and card["best"]["step"] == 16
    assert "nothing was validated" in text and "The training images on which" in text


def test_the_commands_can_be_typed(tmp_path, new_detector, capsys, monkeypatch):
    data, run = tmp_path / "my bears; rm", tmp_path / "first run"
    splits = {name: synthetic_scenes(2, seed=seed, height=64, width=64) for seed, name in enumerate(("train", "val"))}
    write_voc(splits, data)
    sets = [read_dataset(data, split=name) for name in ("train", "val")]
    monkeypatch.setattr(card_module, "draw_curves", lambda rows, path, best_step: path.touch())
    card, text = written(run, new_detector(), *sets, data=[str(data)], val_split="val")
    values = {
        "data": [str(data)],
        "model": "ssd256-tiny",
        "steps": 1,
        "batch_size": 1,
        "device": "cpu",
        "workers": 0,
        "size": "64",
    }
    (run / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    (run / "last.pt").touch()
    assert list(card["commands"]) == ["evaluate", "detect", "train longer", "train again"]
    assert card["commands"]["train longer"].endswith(" --epochs 6")
    for name, command in card["commands"].items():
        assert command in text.split("```")[1]
        program, *arguments = shlex.split(command)
        assert program == "multibox"
        if name.startswith("train"):  # that its arguments are taken is enough
            monkeypatch.setattr("multibox.training.train", lambda *_, **__: None)
        if name == "train again":
            arguments[-1] = str(tmp_path / "second run")
        assert main(arguments) == 0, capsys.readouterr().err
    evaluated = capsys.readouterr().out
    rows = [line.split() for line in evaluated.splitlines()]
    for name, values in card["metrics"]["per_class"].items():
        (row,) = [row for row in rows if row[:1] == [name]]
        found = "-" if values["score_threshold"] is None else str(values["true_positives"])
        assert row[3:5] == [str(values["objects"]), found]
    assert list((run / "found").iterdir())


def test_images_to_show():
    train_set = synthetic_scenes(10, seed=10, height=64, width=64)
    assert [sample.image_id for sample in images_to_show(train_set, most=5)] == [0, 2, 4, 6, 8]
    assert len(images_to_show(train_set)) == 10


def test_the_commit_is_that_of_the_checkout(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "multibox"
    package.mkdir()
    (package / "__init__.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(environment, "_PACKAGE", package)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def found():
        environment.commit.cache_clear()
        return versions()["commit"]

    assert found() is None  # no checkout
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "other")
    assert found() is None  # one that does not have the package
    git("add", ".")
    git("commit", "-q", "-m", "the package")
    assert found() == git("rev-parse", "HEAD")
    (package / "__init__.py").write_text("1\n", encoding="utf-8")
    assert found() == git("rev-parse", "HEAD") + "-dirty"
    monkeypatch.setenv("PATH", str(Path(tmp_path)))  # no git at all
    before = versions()["commit"]
    assert found() is None
    environment.commit.cache_clear()
    assert before.endswith("-dirty")  # it stays that of the first call, as the code that runs does


@pytest.mark.usefixtures("figures_not_drawn")
def test_the_summary_says_what_came_out_and_what_to_do_next(tmp_path, new_detector):
    train_set, val_set = (synthetic_scenes(count, seed=count, height=64, width=64) for count in (6, 4))
    facts = {"time": "12.5 min, of which validation 1.0 min"}
    card, _ = written(
        tmp_path / "run", new_detector(), train_set, val_set, data=["bears"], val_split="val", facts=facts
    )
    assert read_card(tmp_path / "run") == card
    lines = summary(card).splitlines()
    metrics, folder = card["metrics"], tmp_path / "run"
    assert lines[0] == (
        f"AP {100 * metrics['ap']:.1f}, AP50 {100 * metrics['ap50']:.1f}, AP75 {100 * metrics['ap75']:.1f} on 4 "
        f"validation images with {metrics['objects']} objects"
    )
    assert "best weights: epoch 2.5 (step 10)" in lines
    assert "time: 12.5 min, of which validation 1.0 min" in lines
    place = lines.index(f"card: {folder / 'card.md'}, with curves.png, validation.jpg")
    names = ("evaluate", "detect", "train longer")
    assert lines[place + 1 :] == [line for name in names for line in (f"to {name}:", f"  {card['commands'][name]}")]
    table = lines[2 : 2 + 1 + len(CLASS_NAMES)]
    assert table[0].split() == ["class", "AP", "AP50", "precision", "recall", "F1", "score", ">", "objects"]
    assert len({len(line) for line in table}) == 1 and len(table[0]) <= 80
    assert [line.split()[0] for line in table[1:]] == list(CLASS_NAMES)


@pytest.mark.usefixtures("figures_not_drawn")
def test_a_start_that_nothing_surpasses_is_called_so(tmp_path, new_detector):
    sets = [synthetic_scenes(count, seed=count, height=64, width=64) for count in (6, 4)]
    rows = [row(0, ap=0.5), row(4, ap=0.25)]
    card, text = written(tmp_path, new_detector(), *sets, rows=rows, best_step=0)
    assert "best weights: the start (epoch 0), which no later ones surpass" in summary(card).splitlines()
    assert "The weights in `best.safetensors` are of the start (epoch 0): the best of all validations." in text


@pytest.mark.usefixtures("figures_not_drawn")
def test_the_table_by_class_is_that_of_the_detections_above_the_thresholds(tmp_path, new_detector):
    """The numbers are counted here once more, from what the detector itself gives by default."""
    train_set, val_set = (synthetic_scenes(count, seed=count, height=64, width=64) for count in (6, 4))
    start = new_detector()
    images = [sample.image for sample in val_set]
    least = max(each.scores.min() for each in start.detect(images, score_threshold=0.01))  # the limit cuts below it
    thresholds = {name: round(float(least) + 0.001 * (1 + label), 4) for label, name in enumerate(CLASS_NAMES)}
    own = Detector.of_network(start.config, CLASS_NAMES, start.network, score_thresholds=thresholds)
    card, text = written(tmp_path, own, train_set, val_set)
    assert card["score_thresholds"] == pytest.approx(thresholds)
    found = own.detect(images)
    assert sum(map(len, found)) > 0
    for label, name in enumerate(CLASS_NAMES):
        matches = [match_detections(sample.truth, each) for sample, each in zip(val_set, found, strict=True)]
        of_class = np.concatenate([matched[each.labels == label] for matched, each in zip(matches, found, strict=True)])
        hits, objects = int((of_class == TP).sum()), sum((sample.truth.labels == label).sum() for sample in val_set)
        values = card["classes"][name]
        assert values["objects"] == objects
        assert values["precision"] == (pytest.approx(hits / len(of_class)) if len(of_class) else None)
        assert values["recall"] == (pytest.approx(hits / objects) if objects else None)
        cells = [percent(values[key]) for key in ("ap", "ap50", "precision", "recall", "f1")]
        assert f"| {' | '.join([name, *cells, f'{thresholds[name]:.2f}', str(objects)])} |" in text
    assert "--score" not in card["commands"]["detect"]  # they are in the weights


@pytest.mark.usefixtures("figures_not_drawn")
def test_the_table_by_class_counts_objects_as_the_rule_does(tmp_path, new_detector):
    """COCO knows no difficult objects."""
    train_set, val_set = (synthetic_scenes(count, seed=count, height=64, width=64) for count in (6, 4))
    truths = [GroundTruth(each.boxes, each.labels, difficult=each.labels >= 0) for each in (s.truth for s in val_set)]
    difficult = [replace(sample, truth=truth) for sample, truth in zip(val_set, truths, strict=True)]
    card, _ = written(tmp_path, new_detector(), train_set, replace(val_set, samples=difficult))
    assert sum(row["objects"] for row in card["classes"].values()) == card["metrics"]["objects"] > 0


@pytest.mark.usefixtures("figures_not_drawn")
def test_the_summary_without_validation(tmp_path, new_detector):
    card, text = written(tmp_path, new_detector(), synthetic_scenes(3, seed=1, height=64, width=64), None)
    lines = summary(card).splitlines()
    assert lines[0] == "last weights: epoch 4 (step 16)"
    assert (tmp_path / "training.jpg").exists() and not (tmp_path / "validation.jpg").exists()
    assert "(training.jpg)" in text and "curves.png, training.jpg" in summary(card)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.6164e-05, "0.00001616"),
        (0.002828427, "0.002828"),
        (2.285714, "2.286"),
        (9.0, "9"),
        (1234.56, "1235"),
        (0.0, "0"),
        (None, "-"),
        (True, "yes"),
        ((2 / 3, 5 / 6), "0.6667, 0.8333"),
        ((), "none"),
        (205, "205"),
    ],
)
def test_numbers_are_rounded_for_people(value, text):
    assert card_module._cell(value) == text
