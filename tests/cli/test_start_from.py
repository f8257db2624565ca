"""Tests `multibox train --start-from`: ImageNet's weights and their license, files, and what is neither."""

from pathlib import Path

import numpy as np
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
    monkeypatch.setattr("multibox.weights.imagenet.imagenet_weights", lambda name, on_progress: start)
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


def test_a_run_goes_on_without_the_file_that_it_started_from(multibox: Multibox, data: Path, tmp_path: Path):
    """Its recipe stays, and what is trained further is no longer a start: it gets the recipe of any weights."""
    Detector.create("ssd256-tiny", ["cat"], seed=3).save(tmp_path / "start.safetensors")
    quick = ["--batch-size", 2, "--workers", 0, "--val-split", "none"]
    model = ["--model", "ssd256-tiny", "--start-from", tmp_path / "start.safetensors"]
    run = tmp_path / "run"
    assert multibox("train", data, *model, *quick, "--steps", 1, "--out", run).status == 0
    backbone = Detector.load(run).provenance["backbone"]
    (tmp_path / "start.safetensors").unlink()
    assert multibox("train", "--resume", run, "--steps", 2).status == 0
    assert "recipe: fine-tune" in (run / "config.yaml").read_text(encoding="utf-8")
    assert "know classes of the data already" not in (run / "log.txt").read_text(encoding="utf-8")
    found = Detector.load(run / "last.safetensors")
    assert (found.provenance["step"], found.provenance["backbone"]) == ("2", backbone)
    status, _, err = multibox("train", "--resume", run, "--steps", 3, *model)
    assert status == 1 and "there is no such file of weights to start from" in err[-1]
    on = tmp_path / "on"
    assert multibox("train", data, "--model", run, *quick, "--steps", 1, "--out", on).status == 0
    assert "recipe: modern" in (on / "config.yaml").read_text(encoding="utf-8")


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


@pytest.fixture
def start_file(tmp_path: Path) -> Path:
    """A weights file whose backbone is that of `ssd256-tiny`."""
    Detector.create("ssd256-tiny", ["a", "b"], seed=3).save(tmp_path / "start.safetensors")
    return tmp_path / "start.safetensors"


@pytest.mark.parametrize("how", ["flag", "yaml"])
def test_a_file_is_taken_and_is_in_the_runs_config(
    multibox: Multibox, data: Path, start_file: Path, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(start_file.parent)
    config = tmp_path / "run.yaml"
    config.write_text("steps: 1\nbatch_size: 2\nworkers: 0\nlearning_rate: 1.0e-09\nrecipe: paper\nsize: 64x96\n")
    flags: list[object] = ["--start-from", start_file.name]
    if how == "yaml":
        config.write_text(f"{config.read_text()}start_from: {start_file.name}\n")
        flags = []
    command = ["train", data, "--model", "ssd256-tiny", "--config", config, "--val-split", "none", *flags]
    status, _, err = multibox(*command, "--out", tmp_path / "run")
    assert status == 0
    assert "the backbone starts from start.safetensors (72 tensors, SHA-256 " in err[0]
    assert f"start_from: {start_file}" in (tmp_path / "run" / "config.yaml").read_text()
    trained, begun = Detector.load(tmp_path / "run" / "last.safetensors"), Detector.load(start_file)
    assert trained.provenance["backbone"] in err[0]
    tensors, others = (network_tensors(each.network) for each in (trained, begun))
    weights = [key for key in tensors if key.startswith("backbone.") and key.endswith("weight")]
    assert len(weights) > 10
    for key in weights:
        np.testing.assert_allclose(tensors[key], others[key], atol=1e-4)


@pytest.mark.parametrize(
    "start, expected, words",
    [
        (
            "imagnet",
            2,
            "--start-from takes 'imagenet' or a file with the weights of a backbone, not 'imagnet'; did you",
        ),
        ("ssd300-vgg16", 2, "'ssd300-vgg16' is a model: --model ssd300-vgg16"),
        ("multibox/shapes", 2, "'multibox/shapes' is a model: --model multibox/shapes"),
        ("missing.pth", 1, "missing.pth: there is no such file of weights to start from"),
        ("folder", 2, "'folder' is a folder; did you mean 'folder/best.safetensors'?"),
        ("text.txt", 1, "text.txt: is a JSON file"),
        ("state/last.pt", 2, "is a training state, for --resume; the weights are last.safetensors beside it"),
        (
            "other.safetensors",
            1,
            "other.safetensors: its backbone is 'tiny', but that of the new detector is 'resnet18'",
        ),
    ],
)
def test_what_is_no_start_is_said_in_one_sentence(
    multibox: Multibox,
    data: Path,
    start_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    start: str,
    expected: int,
    words: str,
):
    monkeypatch.chdir(tmp_path)
    for folder, name in (("folder", "best.safetensors"), ("state", "last.safetensors"), ("state", "last.pt")):
        Path(folder).mkdir(exist_ok=True)
        Path(folder, name).write_bytes(b"")
    Path("text.txt").write_text('{"a": 1}')
    start_file.rename("other.safetensors")
    command = ["train", data, "--model", "ssd300-resnet18", "--start-from", start, "--out", tmp_path / "run"]
    status, out, err = multibox(*command)
    assert (status, out, len(err)) == (expected, [], 1)
    assert words in err[0]
    assert not (tmp_path / "run").exists()
