"""Tests `multibox train --start-from imagenet`: the source and license of the weights, and backbones without any."""

from pathlib import Path

import pytest

from multibox.detector import Detector
from multibox.ssd.build import network_tensors
from multibox.weights import imagenet
from multibox.weights.imagenet import PretrainedBackbone
from tests.cli.conftest import Multibox


@pytest.fixture
def tiny_start(monkeypatch: pytest.MonkeyPatch) -> PretrainedBackbone:
    """Pretends that there are ImageNet weights for the small backbone."""
    network = Detector.create("ssd256-tiny", ["cat"], seed=3).network
    tensors = network_tensors(network)
    backbone = {key.removeprefix("backbone."): tensors[key] for key in tensors if key.startswith("backbone.")}
    start = PretrainedBackbone(backbone, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), "somebody's net, license cc-by-nc-4.0")
    monkeypatch.setattr("multibox.detector.imagenet_weights", lambda name, on_progress: start)
    monkeypatch.setattr(imagenet, "describe_weights", lambda name: start.source)
    return start


@pytest.mark.usefixtures("tiny_start")
@pytest.mark.filterwarnings("default:beware of")
def test_the_license_is_said_and_the_weights_are_taken(multibox: Multibox, data: Path, tmp_path: Path):
    command = ["train", data, "--model", "ssd256-tiny", "--start-from", "imagenet", "--val-split", "none"]
    status, _, err = multibox(*command, "--steps", 1, "--batch-size", 2, "--workers", 0, "--out", tmp_path / "run")
    assert status == 0
    assert "the backbone starts from somebody's net, license cc-by-nc-4.0" in err
    (beware,) = (line for line in err if "commercial" in line)  # said once
    assert beware.startswith("beware of somebody's net, license cc-by-nc-4.0: it forbids commercial use")
    trained = Detector.load(tmp_path / "run" / "last.safetensors")
    assert (trained.config.mean, trained.config.scale) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert trained.provenance["backbone"] == "somebody's net, license cc-by-nc-4.0"


@pytest.mark.usefixtures("tiny_start")
def test_who_creates_one_in_python_is_warned_as_well():
    with pytest.warns(
        UserWarning, match=r"^beware of somebody's net, license cc-by-nc-4\.0: .* commercial use"
    ) as said:
        Detector.create("ssd256-tiny", ["cat"], start_from="imagenet", seed=0)
    assert len(said) == 1


def test_where_there_are_none_it_is_said_at_once(multibox: Multibox, data: Path, weights: Path, tmp_path: Path):
    for model, words in (
        ("ssd256-tiny", "no weights from ImageNet for the backbone 'tiny'"),
        (weights, "--start-from is for presets"),
    ):
        out_path = tmp_path / "run"
        status, out, err = multibox("train", data, "--model", model, "--start-from", "imagenet", "--out", out_path)
        assert (status, out, len(err)) == (2, [], 1)
        assert words in err[0]
        assert not out_path.exists()
