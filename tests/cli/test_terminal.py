"""Tests the progress bar of a training run in terminals of several widths."""

import io
from math import nan

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
    with terminal.training_bar() as show:
        show(Progress(**vars(PROGRESS) | {"localization": loss}))
    shown = [line for line in console.file.getvalue().replace("\r", "\n").splitlines() if "34%" in line]
    assert f"34% epoch 10.4, {words}, 130 images/s, 0:01:02 left" in shown[-1]
    assert "training ━━" in shown[-1]
