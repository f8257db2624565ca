import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from multibox.cli import main
from multibox.data.sample import Dataset
from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.data.write import write_voc
from multibox.detector import Detector


class Result(NamedTuple):
    """The exit status of a command, and the lines that it printed on each stream."""

    status: int
    out: list[str]
    err: list[str]


Multibox = Callable[..., Result]


@pytest.fixture
def multibox(capfd: pytest.CaptureFixture[str]) -> Multibox:
    """Runs the command line in this process: `multibox("detect", path, "--model", model)`."""

    def run(*arguments: object) -> Result:
        capfd.readouterr()
        status = main([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        assert "\x1b" not in out + err  # color is for a terminal
        return Result(status, out.splitlines(), err.splitlines())

    return run


def scenes(count: int, *, seed: int) -> Dataset:
    return synthetic_scenes(count, seed=seed, height=64, width=96)


@pytest.fixture(scope="session")
def written_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "voc"
    write_voc({"train": scenes(4, seed=1), "val": scenes(3, seed=2), "test": scenes(2, seed=3)}, folder)
    return folder


@pytest.fixture
def data(written_scenes: Path, tmp_path: Path) -> Path:
    """A copy of synthetic scenes in VOC's layout, which a test may damage."""
    return Path(shutil.copytree(written_scenes, tmp_path / "my scenes"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights file of a detector with random weights, whose scores are all between 0.1 and 0.2."""
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    Detector.create("ssd256-tiny", CLASS_NAMES, seed=0).save(path)
    return path


@pytest.fixture(autouse=True)
def labels_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves half a second for each run; tests/report/test_overview.py draws them."""
    monkeypatch.setattr("multibox.training.opening.draw_labels", lambda train_set, val_set, path: path.write_bytes(b""))


@pytest.fixture(autouse=True)
def report_is_not_written(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves a second for each run; tests/cli/test_report.py writes it."""
    if request.module.__name__.endswith("test_report"):
        return
    from multibox.report.evaluation import Report

    monkeypatch.setattr("multibox.training.finish.write_report", lambda *_, **__: Report((), {}))
