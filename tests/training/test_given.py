"""Names and paths where `train` takes detectors and data sets: the run is the one of what they stand for."""

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import yaml
from PIL import Image

from multibox.cli import main
from multibox.data.holdout import Holdout
from multibox.data.read import read_dataset
from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.data.write import write_voc
from multibox.detector import Detector, load
from multibox.evaluation.evaluate import evaluate
from multibox.presets import preset
from multibox.training import TrainConfig, finish, fit, given, train

pytestmark = pytest.mark.usefixtures("plain_recipes")

SHORT = TrainConfig(steps=1, batch_size=2, workers=0)
EMPTY_CARD = {"best": None, "metrics": None, "facts": {}, "data": {"val": None}, "commands": {}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A VOC folder with the splits train and val."""
    folder = tmp_path_factory.mktemp("scenes")
    train_set, val_set = (synthetic_scenes(n, seed=n, height=64, width=64) for n in (4, 2))
    samples = [replace(sample, name=f"val-{sample.name}") for sample in val_set]
    write_voc({"train": train_set, "val": replace(val_set, samples=samples)}, folder)
    return folder


@pytest.fixture(autouse=True)
def cards(monkeypatch):
    """What the card of each run was made of; it is not drawn."""
    made = []

    def write_nothing(folder, best, **values):
        made.append(values)
        return EMPTY_CARD | {"folder": str(folder)}, Image.new("RGB", (1, 1))

    monkeypatch.setattr(finish, "write_card", write_nothing)
    return made


def weights_of(detector):
    return {name: tensor.numpy() for name, tensor in detector.network.state_dict().items()}


def assert_equal(one, other):
    assert one.class_names == other.class_names and one.config == other.config
    ours, theirs = weights_of(one), weights_of(other)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


def test_a_preset_and_a_path_train_as_what_they_stand_for(tmp_path, data, cards):
    by_name = train("ssd256-tiny", data, config=SHORT, out=tmp_path / "by-name")
    sets = [read_dataset(data, split=split) for split in ("train", "val")]
    by_hand = train(Detector.create("ssd256-tiny", sets[0].class_names, seed=0), *sets, SHORT, out=tmp_path / "by-hand")
    assert_equal(by_name, by_hand)
    assert [card["val_split"] for card in cards] == ["val", None]
    assert [list(card["data"]) for card in cards] == [[str(data)], []]
    values = yaml.safe_load((tmp_path / "by-name" / "config.yaml").read_text(encoding="utf-8"))
    assert list(values.items())[:4] == [
        ("data", [str(data)]),
        ("train_split", "train"),
        ("val_split", "val"),
        ("model", "ssd256-tiny"),
    ]


def test_the_command_goes_on_with_such_a_run(tmp_path, data):
    train("ssd256-tiny", str(data), config=SHORT, out=tmp_path)
    assert main(["train", "--resume", str(tmp_path), "--steps", "2"]) == 0
    assert load(tmp_path / "last.safetensors").provenance["step"] == "2"


def test_weights_train_on_with_the_classes_of_the_data(tmp_path, data):
    dataset = read_dataset(data, split="train")
    start = Detector.create("ssd256-tiny", ["zebra", CLASS_NAMES[1]], height=64, width=64, seed=3)
    start.save(tmp_path / "start.safetensors")
    made = given.make_detector(tmp_path / "start.safetensors", dataset, seed=7, progress=False)
    assert_equal(made, start.with_classes(dataset.class_names, seed=7))
    same = Detector.create("ssd256-tiny", dataset.class_names, height=64, width=64, seed=3)
    same.save(tmp_path / "same.safetensors")
    assert_equal(given.make_detector(str(tmp_path / "same.safetensors"), dataset, seed=7, progress=False), same)


def test_a_detector_is_trained_itself(data):
    dataset = read_dataset(data, split="train")
    detector = Detector.create("ssd256-tiny", ["zebra"], height=64, width=64)
    assert given.make_detector(detector, dataset, seed=0, progress=False) is detector


def test_a_set_for_validation_may_be_another_path_or_none(data, tmp_path):
    other = tmp_path / "other"
    write_voc({"test": synthetic_scenes(3, seed=9, height=64, width=64)}, other)
    sets = given.read_sets(data, other, val_fraction=0.2, progress=False)
    assert (len(sets.train), len(sets.val)) == (4, 3) and "val_split" not in sets.notes
    dataset = read_dataset(data, split="train")
    sets = given.read_sets(dataset, data, val_fraction=0.2, progress=False)
    assert sets.train is dataset and len(sets.val) == 2 and sets.notes == {}
    assert given.read_sets(dataset, None, val_fraction=0.2, progress=False) == (dataset, None, {}, None)


def test_without_a_split_for_validation_a_part_is_kept_and_said(data, tmp_path, caplog):
    alone = tmp_path / "alone"
    write_voc({"trainval": read_dataset(data, split="train")}, alone)
    sets = given.read_sets(alone, None, val_fraction=0.25, progress=False)
    assert (len(sets.train), len(sets.val)) == (3, 1)
    assert sets.holdout == Holdout("trainval", 0.25)
    assert sets.notes == {"data": [str(alone)], "train_split": "trainval", "val_fraction": 0.25}
    (said,) = caplog.messages
    assert "no validation split: 1 of its 4 images, by a hash of their names, are validated on" in said
    sets = given.read_sets(alone, None, val_fraction=0, progress=False)
    assert (len(sets.train), sets.val) == (4, None) and sets.notes["val_split"] == "none"
    for fraction in (-0.1, 1, 1.5):
        with pytest.raises(ValueError, match=f"val_fraction must be at least 0 and below 1, but is {fraction:g}"):
            given.read_sets(alone, None, val_fraction=fraction, progress=False)


def test_images_of_a_path_that_cannot_be_decoded_are_left_out_and_said(tmp_path, caplog):
    """Evaluating ended at the first one, after all images before it."""
    write_voc({"val": synthetic_scenes(3, seed=9, height=64, width=64)}, tmp_path)
    broken = sorted((tmp_path / "JPEGImages").iterdir())[1]
    broken.write_bytes(broken.read_bytes()[:-60])
    detector = Detector.create("ssd256-tiny", CLASS_NAMES, height=64, width=64, seed=0)
    assert evaluate(detector, tmp_path).images == 2
    assert any(f"{broken.name}: " in each and "1 x image left out" in each for each in caplog.messages)
    assert len(given.read_sets(tmp_path, None, val_fraction=0, progress=False).train) == 2


@pytest.mark.parametrize(
    ("model", "error", "says"),
    [
        ("ssd256-tin", ValueError, "did you mean 'ssd256-tiny'"),
        ("best.safetensors", FileNotFoundError, "neither a weights file nor"),
        ("runs/none", FileNotFoundError, "neither a weights file nor"),
    ],
)
def test_a_wrong_name_is_said_before_the_data_are_read(tmp_path, model, error, says):
    with pytest.raises(error, match=says):
        train(model, tmp_path / "none", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


NO_DATA = """
from multibox import Detector, train, synthetic_scenes
scenes = synthetic_scenes(1, seed=0, height=64, width=64)
detector = Detector.create("ssd256-tiny", scenes.class_names, height=64, width=64)
for sets in (("BCCD",), (scenes, "BCCD"), (["BCCD"],), (scenes, ["BCCD"])):
    try:
        train(detector, *sets, out="run")
    except (TypeError, FileNotFoundError) as error:
        print(error)
"""


def test_a_folder_that_holds_a_run_is_refused_before_the_data_are_read(tmp_path):
    (tmp_path / "last.pt").touch()
    with pytest.raises(FileExistsError, match="holds a run already"):
        train("ssd256-tiny", tmp_path / "there is no such set", out=tmp_path)


def test_what_is_no_data_is_refused_in_one_sentence(tmp_path):
    """In a process of its own, since the tests check the types of all arguments."""
    ran = subprocess.run(
        [sys.executable, "-c", NO_DATA], check=True, capture_output=True, text=True, cwd=tmp_path, env=os.environ
    )
    missing = "BCCD: there is no such folder or file"
    several = (
        "train takes data sets, or the path of one, not ['BCCD']; to join several, read them first: "
        "multibox.read_dataset([path, other_path], split='train')"
    )
    assert ran.stdout.splitlines() == [missing, missing, several, several]
    assert list(tmp_path.iterdir()) == []


def test_a_run_shows_a_bar_unless_told_otherwise(tmp_path, data, monkeypatch):
    shown = []

    @contextmanager
    def record(text):
        yield lambda fraction, words: shown.append((fraction, words))

    monkeypatch.setattr(fit, "progress_bar", record)
    dataset = read_dataset(data, split="train")
    detector = Detector.create("ssd256-tiny", dataset.class_names, height=64, width=64)
    train(detector, dataset, None, SHORT, out=tmp_path / "a")
    assert [fraction for fraction, words in shown] == [1.0] and "loss" in shown[0][1]
    steps = []
    train(detector, dataset, None, SHORT, out=tmp_path / "b", on_progress=lambda now: steps.append(now.step))
    train(detector, dataset, None, SHORT, out=tmp_path / "c", progress=False)
    assert len(shown) == 1 and steps == [1]


def test_the_file_of_a_config_stands_for_a_new_detector(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = preset("ssd256-tiny", height=64, width=96)
    (tmp_path / "mine.json").write_text(config.to_json())
    assert given.check_model("mine.json") == {"model": str(tmp_path / "mine.json")}
    scenes = synthetic_scenes(1, seed=0, height=64, width=96)
    detector = given.make_detector("mine.json", scenes, seed=0, progress=False)
    assert (detector.config, detector.class_names) == (config, scenes.class_names)
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match=r"other\.json: not the config of a detector"):
        given.check_model("other.json")
    with pytest.raises(FileNotFoundError, match=r"none\.json: there is no such file"):
        given.check_model("none.json")
