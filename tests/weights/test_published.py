"""Weights that have a name: what is said of them is true, and they are fetched, converted and kept."""

import hashlib
import io
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.models import get_weight
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

import multibox
from multibox.boxes import box_iou
from multibox.detector import Detector
from multibox.weights import imagenet, published
from multibox.weights.file import load_weights
from multibox.weights.published import PUBLISHED, find_weights, is_weights
from tests.weights.server import Server

NAME = "torchvision/ssdlite320-mobilenetv3-coco"


@pytest.mark.parametrize("name", [name for name in PUBLISHED if PUBLISHED[name].entry])
def test_what_is_listed_is_what_torchvision_says(name: str):
    known = PUBLISHED[name]
    entry = get_weight(known.entry)
    assert entry.meta["_metrics"]["COCO-val2017"]["box_map"] == float(known.accuracy.split()[-2])
    assert entry.meta["_file_size"] * 1.048576 == pytest.approx(known.megabytes, rel=0.06)
    assert known.accuracy.startswith("COCO val2017 ")
    assert known.path is None


@pytest.mark.parametrize(
    "entry", [*(known.entry for known in PUBLISHED.values() if known.entry), *imagenet.ENTRIES.values()]
)
def test_every_file_of_torchvision_can_be_checked(entry: str):
    url = get_weight(entry).url
    assert url.startswith("https://")
    assert len(published.hash_in(url)) == 8


def test_a_name_without_a_hash_is_refused():
    with pytest.raises(ValueError, match="no hash in the name"):
        published.hash_in("https://host/model.pth")


OURS = [name for name in PUBLISHED if PUBLISHED[name].path]
"""Weights that come with the package."""


@pytest.mark.parametrize("name", OURS)
def test_what_comes_with_the_package_has_the_size_that_is_listed(name: str):
    known = PUBLISHED[name]
    assert known.path is not None
    assert known.path.stat().st_size / 1e6 == pytest.approx(known.megabytes, abs=0.05)


@pytest.mark.parametrize("name", [name for name in OURS if name != "multibox/shapes"])
def test_what_comes_with_the_package_has_a_card_with_the_accuracy_that_is_listed(name: str):
    known = PUBLISHED[name]
    assert known.path is not None
    card = known.path.with_suffix(".md").read_text(encoding="utf-8")
    (accuracy,) = re.findall(r"mAP (\d+\.\d) by VOC 2007's rule", card)
    assert known.accuracy == f"VOC 2007 test {accuracy} mAP"
    for fact in ("fingerprint of the data", "command", "seed", "machine", "commit"):
        assert f"| {fact} | " in card
    assert known.license == "Apache-2.0"


def test_the_detector_of_photographs_finds_a_dog():
    detector = multibox.load("multibox/voc")
    (dog,) = detector.detect(Path(__file__).parents[2] / "docs" / "images" / "dog.jpg")
    assert dog.name == "dog"
    assert box_iou(np.array([dog.box], np.float32), np.array([[34, 138, 458, 496]], np.float32)) > 0.7


@pytest.fixture
def entry(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The entry of the small detector, its file random and on a server of this machine."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    written = io.BytesIO()
    torch.save(model.state_dict(), written)
    path = f"/model-{hashlib.sha256(written.getvalue()).hexdigest()[:8]}.pth"
    server.files[path] = written.getvalue()
    fake = SimpleNamespace(url=server.url(path), meta=get_weight(PUBLISHED[NAME].entry).meta)
    monkeypatch.setattr(published, "torchvision_entry", lambda name: fake)
    return fake


def test_published_weights_are_fetched_converted_and_kept(entry: SimpleNamespace, server: Server, cache: Path):
    told: list[int] = []
    detector = Detector.load(NAME, on_progress=lambda done, total, rate: told.append(done))
    assert told[-1] == len(next(iter(server.files.values())))
    assert len(detector.class_names) == 90
    assert detector.provenance["converted from"] == "torchvision ssdlite320_mobilenet_v3_large"
    assert detector.provenance["url"] == entry.url
    assert detector.provenance["license"] == "BSD-3-Clause"
    assert len(server.requests) == 1
    kept = find_weights(NAME)
    assert kept.parent == cache
    assert load_weights(kept).provenance == detector.provenance
    assert Detector.load(NAME).config == detector.config
    assert len(server.requests) == 1


def test_a_wrong_file_of_published_weights_is_thrown_away(entry: SimpleNamespace, server: Server, cache: Path):
    (path,) = server.files
    server.files[path] += b"more"
    with pytest.raises(ValueError, match="SHA-256"):
        Detector.load(NAME)
    assert [item.name for item in cache.iterdir() if not item.name.startswith(".")] == []


def test_the_folder_of_a_run_is_its_best_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("run", "ssd256-tiny", "begun", "empty"):
        Path(folder).mkdir()
    for file in (
        "run/best.safetensors",
        "run/last.safetensors",
        "ssd256-tiny/best.safetensors",
        "begun/last.safetensors",
    ):
        Path(file).touch()
    for name in ("run", Path("run"), "run/", "./ssd256-tiny"):
        assert is_weights(name)
        assert find_weights(name) == Path(name) / "best.safetensors"
    for name, said in (
        ("ssd256-tiny", "'ssd256-tiny' is a preset, untrained"),  # a preset's name is no folder
        ("begun", "'begun' is a folder, not a weights file; did you mean 'begun/last.safetensors'?"),
        (".", "'.' is a folder, not a weights file; did you mean 'run'?"),
        ("empty", "'empty' is a folder, not a weights file; a folder stands for its best.safetensors"),
        ("none", "'none' is neither a weights file"),
    ):
        assert not is_weights(name)
        with pytest.raises(FileNotFoundError, match=re.escape(said)):
            find_weights(name)


def test_names_are_told_from_paths_without_fetching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("a.safetensors").touch()
    for name in (NAME, "multibox/shapes", "hf://owner/name", "a.safetensors", Path("a.safetensors")):
        assert is_weights(name)
    for name in ("ssd300-vgg16", "b.safetensors", "."):
        assert not is_weights(name)
    with pytest.raises(FileNotFoundError, match=f"did you mean '{NAME}'"):
        find_weights("torchvision/ssdlite320-mobilenetv3")
