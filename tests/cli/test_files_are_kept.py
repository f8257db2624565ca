"""No command removes or replaces a file that was there before it, unless it is told to."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from multibox.cli import COMMANDS, demo
from tests.cli.conftest import Multibox

SHORT = ("--steps", 1, "--batch-size", 2, "--workers", 0, "--device", "cpu")
USERS = (
    *("run/best.safetensors", "run/config.yaml", "run/log.txt", "run/metrics.csv", "run/card.md", "run/scene_0001.png"),
    *("run/JPEGImages/one.png", "run/one.png", "summary.html", "metrics.json", "found.json", "scene_0000.png"),
    *(
        "labeled/pre-labels/classes.txt",
        "it.safetensors",
        "demo-output/found.png",
        "runs/voc-1/best.safetensors",
        "config.yaml",
    ),
    *("it.onnx", "it.bin", "new.labels.txt", "run/index.html", "kept/coverage.json"),
)
"""Files of a user, in the places where the commands write, and below them."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, full of files of the user's."""
    for name in USERS:
        path = tmp_path / "home" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the user's {name}")
    (tmp_path / "home" / "run" / "config.yaml").write_text("recipe: drawn\n")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def nothing_heavy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails where a command begins its work before it looks at where it writes."""

    def begin(*args: object, **kwargs: object) -> None:
        raise AssertionError("the work has begun")

    for name in ("detector.Detector.load", "detector.Detector.convert", "detector.Detector.create"):
        monkeypatch.setattr(f"multibox.{name}", begin)
    for name in ("read_dataset", "list_splits"):
        monkeypatch.setattr(f"multibox.data.{name}", begin)
    monkeypatch.setattr("multibox.data.synthetic.synthetic_scenes", begin)


REFUSED: dict[str, Callable[[Path, Path, Path], list[list[object]]]] = {
    "demo": lambda data, weights, foreign: [["--out", "."], ["--out", "run"], [], ["--out", ".", "--overwrite"]],
    "check": lambda data, weights, foreign: [
        [data, "--json", "found.json"],
        [data, "--json", data / "ImageSets" / "Main" / "val.txt", "--overwrite"],
        [data, "--predict", weights, "--page", "summary.html"],
        [data, "--folds", 2, "--page", data / "page.html", "--overwrite"],
    ],
    "train": lambda data, weights, foreign: [
        [data, "--model", "ssd256-tiny", "--out", "."],
        [data, "--model", "ssd256-tiny", "--out", "run"],
        [data, "--model", "ssd256-tiny", "--out", "run", "--resume"],
        [data, "--model", "ssd256-tiny", "--resume", "run"],
        ["--resume", "run"],
        ["--resume", "."],
    ],
    "evaluate": lambda data, weights, foreign: [
        [data, "--model", weights, "--json", "found.json"],
        [data, "--model", weights, "--out", "."],
        [data, "--model", weights, "--out", "metrics.json"],
    ],
    "detect": lambda data, weights, foreign: [
        [data / "JPEGImages" / "one.png", "--model", weights, "--out", "run"],
        [data / "JPEGImages" / "one.png", "--model", weights, "--out", "run/one.png"],
        [data, "--model", weights, "--out", "run"],
        [data / "JPEGImages", "--model", weights, "--json", "found.json"],
        [data / "JPEGImages", "--model", weights, "--csv", "found.json"],
        [data / "JPEGImages", "--model", weights, "--out", "labeled", "--save-labels", "voc"],
    ],
    "explain": lambda data, weights, foreign: [
        [data / "JPEGImages" / "one.png", "--model", weights, "--out", "run"],
        [data / "JPEGImages" / "one.png", "--model", weights, "--json", "found.json"],
        [data / "JPEGImages" / "one.png", "--model", weights, "--json", weights, "--overwrite"],
    ],
    "convert": lambda data, weights, foreign: [[foreign, "it.safetensors"]],
    "export": lambda data, weights, foreign: [
        [weights, "it.onnx"],
        [weights, "it.xml"],
        [weights, "new.tflite", "--for", "frigate"],
        [weights, weights, "--overwrite"],
        [weights, "--web", "run"],
        [weights, "--web", "run", "--overwrite"],
    ],
    "benchmark": lambda data, weights, foreign: [
        [weights, "--json", "found.json"],
        [weights, "--json", weights, "--overwrite"],
    ],
    "ablate": lambda data, weights, foreign: [[data, "--out", "."], [data, "--out", "run"]],
    "coverage": lambda data, weights, foreign: [
        [data, "--model", "ssd256-tiny", "--json", "found.json"],
        [data, "--model", "ssd256-tiny", "--out", "metrics.json"],
        [data, "--model", weights, "--out", "kept"],
        [data, "--model", weights, "--json", weights, "--overwrite"],
    ],
    "models": lambda data, weights, foreign: [],
    "report": lambda data, weights, foreign: [
        [weights, "--data", data, "--out", "run"],
        [weights, "--data", data, "--out", "."],
        [weights, "--data", data, "--out", "metrics.json"],
        [weights, "--data", data],
        [weights, "--data", data, "--out", "new", "--follow"],
    ],
    "runs": lambda data, weights, foreign: [],
}
"""Command lines of each command that would replace a file of the user's."""


@pytest.fixture
def images(data: Path) -> Path:
    (first, *_) = sorted((data / "JPEGImages").iterdir())
    first.rename(data / "JPEGImages" / "one.png")
    return data


def test_every_command_is_looked_at():
    assert REFUSED.keys() == COMMANDS.keys()


@pytest.mark.usefixtures("nothing_heavy")
@pytest.mark.parametrize("command", REFUSED)
def test_files_of_the_user_are_refused_in_a_sentence_before_any_work(
    multibox: Multibox, folder: Path, images: Path, weights: Path, tmp_path: Path, command: str
):
    before = contents(tmp_path)
    for arguments in REFUSED[command](images, weights, tmp_path / "foreign.pth"):
        status, out, err = multibox(command, *arguments)
        assert status in (1, 2)
        assert (out, len(err)) == ([], 1), arguments
        assert contents(tmp_path) == before


@pytest.mark.slow
def test_what_is_written_beside_them_leaves_them_alone(
    multibox: Multibox, folder: Path, data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(demo, "TRAIN_SCENES", 2)
    monkeypatch.setattr(demo, "TEST_SCENES", 1)
    network = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    torch.save(network.state_dict(), tmp_path / "foreign.pth")
    before = contents(tmp_path)
    for command in (
        ["demo", "--out", "runs", "--minutes", 0.001],
        ["demo", "--out", "new", "--minutes", 0.001],
        ["demo", "--out", "new", "--minutes", 0.001, "--overwrite"],
        ["train", data, "--model", "ssd256-tiny", *SHORT],
        ["train", data, "--model", "ssd256-tiny", *SHORT, "--out", "runs/mine"],
        ["train", "--resume", "runs/mine", "--steps", 2],
        ["evaluate", data, "--model", weights, "--json", "new/all.json"],
        ["detect", data, "--model", weights, "--out", "run", "--json", "run/found.json"],
        ["detect", data, "--model", weights, "--out", "run", "--json", "run/found.json", "--overwrite"],
        ["detect", data, "--model", weights, "--out", "new", "--csv", "new/a.csv", "--save-labels", "yolo"],
        ["evaluate", data, "--model", weights, "--out", "judged"],
        ["evaluate", data, "--model", weights, "--out", "judged", "--overwrite"],
        ["convert", tmp_path / "foreign.pth", "new.safetensors"],
        ["convert", tmp_path / "foreign.pth", "new.safetensors", "--overwrite"],
        ["models"],
    ):
        refused = command[1:3] == ["--out", "runs"]
        assert (multibox(*command).status, command) == (int(refused), command)
        after = contents(tmp_path)
        assert {path: after[path] for path in before} == before, command


@pytest.mark.usefixtures("nothing_heavy")
def test_json_never_replaces_what_the_command_reads(multibox: Multibox, images: Path, weights: Path, tmp_path: Path):
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(weights.read_bytes())
    names = tmp_path / "names.txt"
    names.write_text("ball=circle")
    one, listed = images / "JPEGImages" / "one.png", images / "ImageSets" / "Main" / "val.txt"
    before = contents(tmp_path)
    for command in (
        ["detect", one, "--model", mine, "--json", one],
        ["detect", images, "--model", mine, "--json", one],
        ["detect", one, "--model", mine, "--json", mine],
        ["detect", one, "--model", mine, "--csv", one],
        ["evaluate", images, "--model", mine, "--json", mine],
        ["evaluate", images, "--model", mine, "--json", listed],
        ["evaluate", images, "--model", mine, "--rename", names, "--json", names],
    ):
        status, out, err = multibox(*command, "--overwrite")
        assert (status, out, len(err)) == (2, [], 1)
        assert "is among the files that are read, so it is not replaced; choose another name" in err[0]
        assert contents(tmp_path) == before
