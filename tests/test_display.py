"""What a person sees of a long call: nothing but in a terminal or a notebook, and nothing of a short one."""

import io
import logging
import sys
import threading
import types

import pytest
from PIL import Image, ImageShow

from multibox import display
from multibox.display import download_bar, image_bar, in_notebook, progress_bar, show_image


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """What each line was, one after the other."""
        return [line.rstrip() for line in self.getvalue().replace("\n", "\r").split("\r") if line]


class Clock:
    """A clock that goes on only when it is told."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(display, "time", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    terminal = Terminal()
    # pytest puts its own stream in the place of `sys.stderr` whenever a test begins
    monkeypatch.setattr(display, "sys", types.SimpleNamespace(stderr=terminal, modules=sys.modules))
    monkeypatch.setenv("COLUMNS", "80")
    return terminal


@pytest.fixture
def notebook(monkeypatch) -> list[object]:
    """A stand-in for IPython's kernel; what was displayed."""
    shown: list[object] = []
    kernel = types.ModuleType("IPython")
    kernel.get_ipython = lambda: types.SimpleNamespace(kernel="a kernel")
    kernel.display = types.SimpleNamespace(display=shown.append, Image=lambda data: data)
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    return shown


def test_a_long_call_shows_what_is_done_how_fast_and_what_is_left(terminal, clock):
    with image_bar("detecting") as count:
        for done in (8, 16, 24, 32):
            clock.now += 0.8
            count(done, 32)
    assert terminal.lines() == [
        "detecting  50 % [##########..........] 16 of 32  10 images/s  0:02 left",
        "detecting  75 % [###############.....] 24 of 32  10 images/s  0:01 left",
        "detecting 100 % [####################] 32 of 32  10 images/s  in 3.2 s",
    ]
    assert terminal.getvalue().endswith("\n")


def test_a_line_of_the_log_has_a_line_of_its_own(terminal, clock, monkeypatch):
    log = logging.getLogger("multibox.of-a-test")
    monkeypatch.setattr(log, "level", logging.INFO)
    handler = logging.StreamHandler(terminal)
    logging.root.addHandler(handler)
    try:
        with progress_bar("training") as draw:
            clock.now += 2
            draw(0.25, "epoch 1")
            log.info("loss 2.50")
            draw(0.5, "epoch 2")
            log.info("loss 2.25")
        log.info("done")
        assert handler.filters == []
    finally:
        logging.root.removeHandler(handler)
    shown = terminal.getvalue()
    first, second = ("training  25 % [#####...............] epoch 1", "training  50 % [##########..........] epoch 2")
    blank = " " * len(first)
    assert shown == f"\r{first}\r{blank}\rloss 2.50\n\r{second}\r{blank}\rloss 2.25\ndone\n"


def test_a_short_call_shows_nothing(terminal, clock):
    with image_bar("detecting") as count:
        clock.now += 0.9
        count(40, 40)
    assert terminal.getvalue() == ""


def test_a_line_covers_the_longer_one_before_and_fits_the_terminal(terminal, clock, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    with pytest.raises(KeyboardInterrupt), progress_bar("training") as draw:
        for words in ("a" * 40, "b", "never seen: it comes too soon"):
            clock.now += 1 if words in ("b", "a" * 40) else 0.1
            draw(0.5, words)
        raise KeyboardInterrupt
    _, first, second = terminal.getvalue().split("\r")
    assert len(first) == 49 and len(second) == 50 and second.endswith(" b" + " " * (49 - len(second.rstrip())) + "\n")


@pytest.mark.parametrize("why", ["no terminal", "turned off", "another thread"])
def test_where_nobody_looks_nothing_is_shown(terminal, clock, monkeypatch, why):
    if why == "no terminal":
        monkeypatch.setattr(terminal, "isatty", lambda: False)

    def work() -> None:
        with image_bar("detecting", show=why != "turned off") as count:
            clock.now += 5
            count(1, 2)

    if why == "another thread":
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    else:
        work()
    assert terminal.getvalue() == ""


def test_a_program_without_an_error_stream_runs(monkeypatch, clock):
    monkeypatch.setattr(display, "sys", types.SimpleNamespace(stderr=None, modules=sys.modules))
    with image_bar("detecting") as count:
        clock.now += 5
        count(1, 2)


def test_a_notebook_shows_bars_though_it_is_no_terminal(terminal, clock, notebook, monkeypatch):
    monkeypatch.setattr(terminal, "isatty", lambda: False)
    with image_bar("evaluating") as count:
        clock.now += 4
        count(2, 4)
    assert terminal.lines() == ["evaluating  50 % [##########..........] 2 of 4  0.5 images/s  0:04 left"]


def test_a_download_shows_its_size_if_it_is_known(terminal, clock):
    with download_bar() as count:
        clock.now += 2
        count(30_000_000, 90_000_000, 10e6)
        clock.now += 2
        count(50_000_000, None, 10e6)
    assert terminal.lines() == [
        "fetching  33 % [######..............] 30.0 of 90.0 MB  10.0 MB/s  0:06 left",
        "fetching   0 % [....................] 50.0 MB  10.0 MB/s",
    ]


def test_ipython_in_a_terminal_is_no_notebook(monkeypatch):
    shell = types.ModuleType("IPython")
    shell.get_ipython = lambda: None
    monkeypatch.setitem(sys.modules, "IPython", shell)
    assert not in_notebook()
    shell.get_ipython = lambda: types.SimpleNamespace()
    assert not in_notebook()


def test_an_image_is_shown_in_a_notebook_and_a_large_one_smaller(notebook):
    image = Image.new("RGB", (3000, 1500), "red")
    show_image(image)
    (png,) = notebook
    assert Image.open(io.BytesIO(png)).size == (1280, 640) and image.size == (3000, 1500)


def test_an_image_is_shown_in_the_viewer_or_it_is_said_how_to_save_it(monkeypatch):
    seen: list[Image.Image] = []
    image = Image.new("RGB", (3000, 1500), "red")
    monkeypatch.setattr(ImageShow, "show", lambda image: seen.append(image) or True)
    monkeypatch.setenv("DISPLAY", ":0")
    show_image(image)
    assert seen == [image]
    monkeypatch.setattr(ImageShow, "show", lambda image: False)  # there is no viewer
    with pytest.raises(RuntimeError, match=r"found\.draw\(\)\.save\('found\.png'\)"):
        show_image(image)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ImageShow, "show", lambda image: True)
    monkeypatch.delenv("DISPLAY")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(RuntimeError, match="there is no screen here"):
        show_image(image)
