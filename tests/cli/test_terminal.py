"""Tests the progress bar of a training run in terminals of several widths."""

import io
import re
from math import nan
from types import SimpleNamespace

import pytest
from rich.console import Console

from multibox.cli import terminal
from multibox.training.progress import Progress

PROGRESS = Progress(
    step=80,
    fraction_done=0.34,
    epoch=10.4,
    localization=2.34,
    confidence=15.97,
    gradient_norm=3.0,
    learning_rate=1e-3,
    images_per_second=130.0,
    seconds_left=62,
)


@pytest.mark.parametrize("width", [80, 100, 200])
@pytest.mark.parametrize(("loss", "words"), [(2.34, "loss 18.31"), (nan, "no finite loss")])
def test_the_bar_the_percentage_and_the_time_left_are_shown(
    monkeypatch: pytest.MonkeyPatch, width: int, loss: float, words: str
):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, soft_wrap=True)
    monkeypatch.setattr(terminal, "stderr", lambda: console)
    with terminal.training_bar() as bar:
        bar.on_progress(Progress(**vars(PROGRESS) | {"localization": loss}))
    shown = [line for line in console.file.getvalue().replace("\r", "\n").splitlines() if "34%" in line]
    assert f"34% epoch 10.4  {words}  130 images/s  1:02 left" in shown[-1]
    assert "training   ━━" in shown[-1]


@pytest.mark.parametrize("width", [80, 120])
def test_a_validation_has_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch, width: int):
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None, soft_wrap=True)
    monkeypatch.setattr(terminal, "stderr", lambda: console)
    clock = iter([0.0, 0.0, 2.0, 4.0])
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with terminal.training_bar() as bar:
        bar.on_progress(PROGRESS)
        for done in (0, 100, 200):
            bar.on_validation(done, 1000)
    lines = [re.sub(r"\x1b\[\S*?[A-Za-z]", "", line) for line in re.split("[\r\n]", console.file.getvalue())]
    shown = [line for line in lines if "validating" in line]
    assert re.search(r"validating ━\S+ +20% 200 of 1000  50 images/s  0:16 left", shown[-1])
    assert len(shown[-1].rstrip()) <= width
    assert any("34% epoch 10.4" in line for line in lines)  # above it, that of the training


def test_without_a_terminal_there_is_no_bar():
    with terminal.training_bar() as bar:
        assert bar == (None, None)


def test_a_download_has_a_bar_only_once_something_is_fetched(monkeypatch: pytest.MonkeyPatch):
    screen = io.StringIO()
    monkeypatch.setattr(terminal, "stderr", lambda: Console(file=screen, force_terminal=True, width=80))
    with terminal.download_bar():
        pass
    assert screen.getvalue() == ""
    with terminal.download_bar() as show:
        show(1_000_000, 4_000_000, 2e6)
    assert "fetching" in screen.getvalue()
    assert "1.0 of 4.0 MB  2.0 MB/s" in screen.getvalue()
