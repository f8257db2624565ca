"""`multibox benchmark`: what is measured runs in turns, each in a process of its own; how fast is nobody's test."""

import json
from math import isfinite
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
import pytest
import torch
from torchvision.models import detection

from benchmarks.networks import make_theirs_realistic, theirs
from multibox.benchmark.photographs import write_photographs
from multibox.benchmark.run import Variant, Worker, _started, _take_turns, agreement
from multibox.benchmark.torchvision_detector import as_torchvision
from multibox.benchmark.worker import Task, peak_memory
from multibox.cli import main
from multibox.detector import Detector
from multibox.weights.converters.torchvision import convert
from multibox.weights.exported import read_metadata
from tests.deploy.conftest import Exporter

SHAPES = "multibox/shapes"


@pytest.fixture
def shapes(exporter: Exporter, tmp_path: Path) -> Path:
    path = tmp_path / "shapes.onnx"
    path.write_bytes(exporter(Detector.load(SHAPES), ".onnx", suppression="graph").read_bytes())
    return path


def run(*arguments: object) -> int:
    return main(["benchmark", *map(str, arguments)])


def check(result: dict, works: list[str], variants: list[str]) -> None:
    assert [table["work"] for table in result["tables"]] == works
    for table in result["tables"]:
        assert [row["name"] for row in table["rows"]] == variants
        for row in table["rows"]:
            assert isfinite(row["median_seconds"]) and row["median_seconds"] > 0
        assert table["rows"][0]["times_as_fast"] == 1


def test_a_file_is_measured_in_each_number_of_threads(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    file = tmp_path / "numbers" / "found.json"
    few = ("--rounds", 1, "--images", 2, "--batch-size", 2, "--threads", "1,2")
    assert run(shapes, *few, "--json", file) == 0
    result = json.loads(file.read_text())
    check(result, 2 * ["detect", "network", "batch", "start"], ["shapes.onnx"])
    assert [table["threads"] for table in result["tables"]] == 4 * [1] + 4 * [2]
    assert [table["clock"] for table in result["tables"][::4]] == ["CPU time", "wall time"]
    start = result["tables"][3]["rows"][0]
    assert start["as the first"] == "100.0 %"
    assert start["file MB"] == pytest.approx(shapes.stat().st_size / 1e6)
    assert 30 < start["peak MiB"] < 400  # without torch
    assert result["images"] == {"source": "generated photographs of 500 x 375", "count": 2}
    printed = capsys.readouterr().out
    assert "| Image file to detections, 1 thread |" in printed and "| Network alone, 2 threads " in printed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ssd300_vgg16", "ssdlite320_mobilenet_v3_large"])
def test_torchvision_finds_the_same_with_the_same_weights(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    preset = {"ssd300_vgg16": "ssd300-vgg16", "ssdlite320_mobilenet_v3_large": "ssdlite320-mobilenetv3"}[name]
    model = theirs(preset, classes=4)
    make_theirs_realistic(model, write_photographs(tmp_path, 2))
    torch.save(model.state_dict(), tmp_path / "model.pth")
    Detector.convert(tmp_path / "model.pth").save(tmp_path / "model.safetensors")
    few = ("--rounds", 1, "--data", tmp_path, "--batch-size", 1, "--threads", "1", "--json", "-")
    assert run(tmp_path / "model.safetensors", "--beside", "torchvision", "--precision", "fp32,bf16", *few) == 0
    result = json.loads(capsys.readouterr().out)
    check(
        result,
        ["detect", "network", "start"],
        [f"torchvision's {name}", "model.safetensors, fp32", "model.safetensors, bf16"],
    )
    first, ours, _ = result["tables"][-1]["rows"]
    assert int(first["detections"]) > 100
    assert ours["as the first"] in ("100.0 %", "99.9 %", "99.8 %")  # rounding decides between equal scores


@pytest.mark.parametrize(
    "name", ["ssdlite320_mobilenet_v3_large", pytest.param("ssd300_vgg16", marks=pytest.mark.slow)]
)
def test_weights_that_come_from_torchvision_go_back(name: str):
    model = getattr(detection, name)(weights=None, weights_backbone=None, num_classes=4)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2)
    state = model.state_dict()
    converted = convert({key: tensor.numpy() for key, tensor in state.items()})
    assert converted is not None
    for key, tensor in as_torchvision(converted).state_dict().items():
        if not key.endswith("num_batches_tracked"):
            torch.testing.assert_close(
                tensor, state[key], rtol=0, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}"
            )


def test_other_rules_than_torchvisions_are_refused():
    shapes = Detector.load(SHAPES)
    with pytest.raises(ValueError, match="torchvision has no detector with the rules of this ssd256-tiny"):
        as_torchvision(shapes._weights(half=False))
    paper = Detector.create("ssdlite320-mobilenetv3", ["a"], seed=0)
    with pytest.raises(ValueError, match="the rules of this ssdlite320-mobilenetv3"):
        as_torchvision(paper._weights(half=False))


class Fake(Worker):
    """Says that each call took so many seconds, and writes down what it is asked for."""

    def __init__(self, name: str, seconds: float, asked: list[tuple[str, int, int]]) -> None:
        self.name, self.seconds, self.asked = name, seconds, asked

    def do(self, work: str, *, image: int = 0, repeats: int = 1) -> float:
        self.asked.append((self.name, image, repeats))
        return self.seconds


def test_turns_go_round_with_the_same_image_and_quick_work_is_repeated():
    asked: list[tuple[str, int, int]] = []
    workers = [Fake("slow", 0.5, asked), Fake("quick", 0.02, asked)]
    assert _take_turns(workers, "detect", 2, 3) == [(0.5,) * 3, (0.02,) * 3]
    assert asked[:4] == [("slow", 0, 1)] * 2 + [("quick", 0, 1)] * 2  # to warm up
    assert asked[4:] == [
        *(("slow", 0, 1), ("quick", 0, 5)),
        *(("slow", 1, 1), ("quick", 1, 5)),
        *(("slow", 0, 1), ("quick", 0, 5)),
    ]
    assert len(_take_turns(workers[:1], "detect", 2, None)[0]) == 25


def test_every_start_is_timed_and_every_process_ends(monkeypatch: pytest.MonkeyPatch):
    log: list[str] = []

    class Started(Worker):
        def __init__(self, variant: Variant, task: Task, threads: int) -> None:
            log.append(f"start {variant.name}")
            self._name, self.start_seconds = variant.name, float(len(log))

        def close(self) -> None:
            log.append(f"end {self._name}")

    monkeypatch.setattr("multibox.benchmark.run.Worker", Started)
    task = Task("", False, "cpu", "fp32", False, [], 0.5, 1, True)
    one, other = (Variant(name, Path(name)) for name in ("one", "other"))
    with _started({one: task, other: task}, 1, 2) as (workers, seconds):
        assert list(workers) == [one, other]
        assert seconds == {one: (1, 5), other: (3, 6)}
        assert log == ["start one", "end one", "start other", "end other", "start one", "start other"]
    assert log[6:] == ["end other", "end one"]


def test_agreement_is_a_fraction_of_the_reference():
    one = {"boxes": [[0, 0, 10, 10], [20, 20, 40, 40]], "labels": [0, 1]}
    moved = {"boxes": [[0, 0, 10, 10.5], [20, 20, 30, 40]], "labels": [0, 1]}
    renamed = {"boxes": one["boxes"], "labels": [1, 0]}
    nothing = {"boxes": [], "labels": []}
    assert agreement([one], [one]) == agreement([nothing], [nothing]) == agreement([nothing], [one]) == 1
    assert agreement([one], [moved]) == 0.5
    assert agreement([one], [renamed]) == agreement([one], [nothing]) == 0
    assert agreement([one, one], [one, nothing]) == 0.5


def test_peak_memory_is_that_of_this_process():
    before = peak_memory()
    assert before is not None
    held = np.ones(2**25)  # 256 MiB
    after = peak_memory()
    assert after is not None
    assert after >= max(before, held.nbytes)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--precision", "int8"], "--precision takes fp32, bf16 or fp32,bf16, not 'int8'"),
        (["--threads", "0"], "--threads takes whole numbers from 1, such as 4 or 1,2, not '0'"),
        (["--threads", "1,two"], "not '1,two'"),
        ([SHAPES], "multibox/shapes is named twice"),
        (["--beside", "torchvision"], "needs a weights file that was converted from torchvision's ssd300_vgg16 or"),
        (["--data", "no-such-folder"], "--data takes a folder, and no-such-folder is none"),
        (["ssd300-vgg16"], "'ssd300-vgg16' is a preset, a network that is not trained yet"),
    ],
)
def test_wrong_usage_is_said_before_anything_runs(given, said: str, capsys: pytest.CaptureFixture[str]):
    assert run(SHAPES, *given) == 2
    assert said in capsys.readouterr().err


def test_a_folder_without_images_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert run(SHAPES, "--data", tmp_path) == 2
    assert f"{tmp_path}: there is no image below it (" in capsys.readouterr().err


def test_a_variant_that_cannot_be_run_is_named(shapes: Path, capsys: pytest.CaptureFixture[str]):
    net = Element("net")
    facts = SubElement(SubElement(net, "rt_info"), "multibox")
    for name, value in read_metadata(shapes).items():
        SubElement(facts, name, value=value)
    lone = shapes.with_name("lone.xml")
    lone.write_bytes(tostring(net))
    assert run(lone, "--rounds", 1, "--images", 1) == 1
    assert f"lone.xml, fp32: {lone}: its weights are missing, lone.bin beside it" in capsys.readouterr().err


def test_a_process_that_dies_is_named(
    shapes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("PYTHONHOME", str(shapes.parent))  # Python does not start there
    assert run(shapes, "--rounds", 1, "--images", 1) == 1
    assert "shapes.onnx: its process ended with status 1 (" in capsys.readouterr().err


def test_an_unreadable_image_is_named(shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    broken = tmp_path / "images" / "broken.jpg"
    broken.parent.mkdir()
    broken.write_bytes(b"no image")
    assert run(shapes, "--rounds", 1, "--data", broken.parent) == 1
    err = capsys.readouterr().err
    assert f"shapes.onnx: {broken}" in err and "Traceback" not in err


def test_an_existing_json_file_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "found.json").write_text("mine")
    assert run(SHAPES, "--json", tmp_path / "found.json") == 1
    assert "is there already; choose another name, or --overwrite" in capsys.readouterr().err
    assert (tmp_path / "found.json").read_text() == "mine"
