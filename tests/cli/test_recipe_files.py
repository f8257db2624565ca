"""Tests that the command at the top of each file in `recipes/` runs, and trains as published."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

import multibox.training as multibox_training
from multibox.config import DetectorConfig
from multibox.data.augment import Augmentation
from multibox.data.sample import Dataset
from multibox.detector import Detector
from multibox.presets import preset
from multibox.training.recipes import TrainConfig
from tests.cli.conftest import Multibox
from tests.data.folders import voc_object, voc_xml, write_image, write_json, write_voc_set

RECIPES = Path(__file__).parents[2] / "recipes"


class Published(NamedTuple):
    """The values of one training in the paper and the released scripts.

    Attributes:
        preset: The network.
        scales: The name of its default boxes' scales.
        folders: The folders of the data set.
        falls: The steps at which the rate of 1e-3 falls to a tenth; the last is the end.
        expand: The fraction of the images that are expanded.
        expected: The paper's figure, as it stands at the top of the file.
    """

    preset: str
    scales: str
    folders: tuple[str, ...]
    falls: tuple[int, int, int]
    expand: float
    expected: str


SEVEN, TWELVE = "VOCdevkit/VOC2007", "VOCdevkit/VOC2012"
PUBLISHED = {
    "ssd300-voc07": Published("ssd300-vgg16", "voc", (SEVEN,), (40_000, 50_000, 60_000), 0.0, "68.0 mAP"),
    "ssd512-voc07": Published("ssd512-vgg16", "voc", (SEVEN,), (40_000, 50_000, 60_000), 0.0, "71.6 mAP"),
    "ssd300-voc0712": Published("ssd300-vgg16", "voc", (SEVEN, TWELVE), (80_000, 100_000, 120_000), 0.5, "77.2 mAP"),
    "ssd512-voc0712": Published("ssd512-vgg16", "voc", (SEVEN, TWELVE), (80_000, 100_000, 120_000), 0.5, "79.8 mAP"),
    "ssd300-coco": Published(
        "ssd300-vgg16", "coco", ("coco",), (280_000, 360_000, 400_000), 0.5, "25.1 AP, 43.1 AP50, 25.8 AP75"
    ),
    "ssd512-coco": Published(
        "ssd512-vgg16", "coco", ("coco",), (280_000, 360_000, 400_000), 0.5, "28.8 AP, 48.5 AP50, 30.3 AP75"
    ),
}


OURS = {
    "ssd256-tiny-voc07": ("ssd256-tiny", None, {"epochs": 40}),
    "ssd300-lite0-voc07": ("ssd300-lite0", "imagenet", {"minutes": 150}),
}
"""Trainings of our own: the preset, what its backbone starts from, and the length."""


def test_there_is_a_file_for_each():
    names = [*PUBLISHED, *OURS]
    assert sorted(path.name for path in RECIPES.iterdir()) == sorted(f"{name}.yaml" for name in names)


def command_of(text: str) -> list[str]:
    """Returns the arguments of the `multibox train` command at the top of a file."""
    (command,) = re.findall(r"^#     multibox (train (?:.*\\\n)*.*)$", text, re.MULTILINE)
    return shlex.split(command.replace("\\\n#", ""))


def write_data(folder: Path) -> None:
    """Writes one image in the place of each split of the published data sets."""
    cat = voc_xml(voc_object("cat", (10, 8, 30, 40)))
    write_voc_set(folder / SEVEN, {"000005": cat}, split="trainval")
    write_voc_set(folder / TWELVE, {"2008_000002": cat}, split="trainval")
    content = {
        "images": [{"id": 9, "file_name": "a.png"}],
        "annotations": [{"id": 1, "image_id": 9, "category_id": 17, "bbox": [10, 8, 20, 32]}],
        "categories": [{"id": 17, "name": "cat"}],
    }
    write_json(folder / "coco" / "annotations" / "instances_train2017.json", content)
    write_image(folder / "coco" / "train2017" / "a.png")


class Asked(NamedTuple):
    """What the command at the top of a file asks for."""

    network: DetectorConfig
    start_from: str | None
    train_set: Dataset
    val_set: Dataset | None
    config: TrainConfig
    out: Path


Ask = Callable[[str], Asked]


@pytest.fixture
def ask(multibox: Multibox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Runs the command at the top of a file of this name, up to the training."""

    def run(name: str) -> Asked:
        asked = {}

        def create(config, class_names, *, start_from, seed, on_progress):
            asked.update(network=config, start_from=start_from)

        def train(detector, train_set, val_set, config, **others):
            asked.update(train_set=train_set, val_set=val_set, config=config, out=others["out"])

        monkeypatch.setattr(Detector, "create", create)
        monkeypatch.setattr(multibox_training, "train", train)
        write_data(tmp_path)
        (tmp_path / "recipes").symlink_to(RECIPES)
        monkeypatch.chdir(tmp_path)
        assert multibox(*command_of(text_of(name))).status == 0
        return Asked(**asked)

    return run


def text_of(name: str) -> str:
    return (RECIPES / f"{name}.yaml").read_text(encoding="utf-8")


def head_of(name: str) -> dict[str, str]:
    """Returns the facts at the top of a file."""
    head = dict(re.findall(r"^# (data|weights|hardware|expected|got) +(\S.*)$", text_of(name), re.MULTILINE))
    assert head.keys() == {"data", "weights", "hardware", "expected", "got"}
    return head


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_command_in_its_head_trains_as_published(ask: Ask, name: str):
    published = PUBLISHED[name]
    asked = ask(name)
    assert asked.network == preset(published.preset, scales=published.scales)
    assert asked.start_from == "imagenet"
    assert [sample.image.parts[:-2] for sample in asked.train_set] == [
        Path(folder).parts for folder in published.folders
    ]
    assert asked.val_set is None
    assert asked.out == Path("runs") / name

    config, recipe = asked.config.resolve(backbone="vgg16")
    first, second, end = published.falls
    assert (config.steps, config.epochs, config.minutes) == (end, None, None)
    rates = {0: 1e-3, first - 1: 1e-3, first: 1e-4, second - 1: 1e-4, second: 1e-5, end - 1: 1e-5}
    assert {step: recipe.learning_rate_at(step / end) for step in rates} == pytest.approx(rates)
    assert (recipe.optimizer, recipe.batch_size, recipe.weight_decay, recipe.bias_lr_factor) == ("sgd", 32, 5e-4, 2.0)
    assert recipe.augmentation == Augmentation(expand_probability=published.expand)
    assert config.precision == "fp32"

    head = head_of(name)
    assert head["expected"].startswith(published.expected)
    start = preset("ssd300-resnet18")  # on torchvision's weights too
    assert f"pixels' mean is\n#           {start.mean} and their scale {start.scale}, not" in text_of(name)
    assert head["got"] == "not measured by us" or re.match(r"\d+\.\d", head["got"])


@pytest.mark.parametrize("name", OURS)
def test_the_command_in_its_head_trains_on_voc_07(ask: Ask, name: str):
    asked = ask(name)
    preset, start, length = OURS[name]
    assert (asked.network.name, asked.start_from) == (preset, start)
    assert [sample.image.parts[:-2] for sample in asked.train_set] == [Path(SEVEN).parts]
    assert asked.val_set is None
    assert {key: getattr(asked.config, key) for key in length} == length
    assert asked.out == Path("runs") / name
    assert re.match(r"\d+\.\d mAP", head_of(name)["got"])
