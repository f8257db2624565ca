"""Show progress and images to a person who looks on, in a terminal or in a notebook."""

import io
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PIL import Image

from multibox.messages import duration

DELAY = 1.0
"""Seconds after which a progress bar appears: what takes less time needs none."""

INTERVAL = 0.2
"""Least number of seconds between two changes of a progress bar."""

BAR = 20
"""Width of a progress bar in characters."""

NOTEBOOK_SIDE = 1280
"""Largest width or height in pixels of an image that is shown in a notebook."""


def in_notebook() -> bool:
    """Returns whether this process runs the cells of a notebook (Jupyter, Colab, an editor's)."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


@contextmanager
def progress_bar(text: str, *, show: bool = True) -> Iterator[Callable[[float, str], None]]:
    """Shows a progress bar on the error stream while the context is open, in a terminal or a notebook only.

    The context gives a function to call with the fraction of the work that is done, from 0 to 1, and a few words to
    show beside the bar. The bar appears once `DELAY` has passed, and its last state stays. Lines of the log stand above
    it.

    Args:
        text: What is being done, shown before the bar.
        show: Whether to show a bar at all. Other threads than the main one never do: their bars would get mixed up.
    """
    if not (show and _is_watched() and threading.current_thread() is threading.main_thread()):
        yield lambda fraction, words: None
        return
    due, width = time.monotonic() + DELAY, 0

    def erase(record: logging.LogRecord) -> bool:
        """Makes room for a line of the log; the bar appears again below it."""
        nonlocal due, width
        if width:
            sys.stderr.write(f"\r{'':{width}}\r")
            sys.stderr.flush()
            due, width = 0.0, 0
        return True

    def draw(fraction: float, words: str) -> None:
        nonlocal due, width
        now = time.monotonic()
        if now < due and not (width and fraction >= 1):
            return
        filled = int(BAR * min(fraction, 1.0))
        line = f"{text} {100 * fraction:3.0f} % [{'#' * filled}{'.' * (BAR - filled)}] {words}"
        line = line[: shutil.get_terminal_size().columns - 1]
        sys.stderr.write(f"\r{line:{width}}")  # the spaces cover what is left of a longer line
        sys.stderr.flush()
        due, width = now + INTERVAL, len(line)

    handlers = [*logging.getLogger("multibox").handlers, *logging.root.handlers]
    handlers += [logging.lastResort] if logging.lastResort else []
    for handler in handlers:
        handler.addFilter(erase)
    try:
        yield draw
    finally:
        for handler in handlers:
            handler.removeFilter(erase)
        if width:
            sys.stderr.write("\n")
            sys.stderr.flush()


@contextmanager
def image_bar(text: str, *, show: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Shows the bar of work on images. The context gives a function of images done and images in all."""
    began = time.monotonic()
    with progress_bar(text, show=show) as draw:

        def count(done: int, total: int) -> None:
            passed = max(time.monotonic() - began, 1e-9)
            rate, left = done / passed, passed * (total - done) / max(done, 1)
            words = f"{done} of {total}  {rate:.{0 if rate >= 10 else 1}f} images/s  "
            draw(done / max(total, 1), words + (f"{duration(left)} left" if done < total else f"in {passed:.1f} s"))

        yield count


@contextmanager
def download_bar(*, show: bool = True) -> Iterator[Callable[[int, int | None, float], None]]:
    """Shows the bar of a download. The context gives a function of bytes done, bytes in all, and bytes a second."""
    with progress_bar("fetching", show=show) as draw:

        def count(done: int, total: int | None, rate: float) -> None:
            size = "" if total is None else f" of {total / 1e6:.1f}"
            left = "" if not (total and rate) else f"  {duration((total - done) / rate)} left"
            draw(done / total if total else 0.0, f"{done / 1e6:.1f}{size} MB  {rate / 1e6:.1f} MB/s{left}")

        yield count


def show_image(image: Image.Image) -> None:
    """Shows an image below the cell of a notebook, else in the system's viewer.

    Raises:
        RuntimeError: There is no screen or no viewer, as on a server.
    """
    if in_notebook():
        from IPython import display

        display.display(display.Image(data=notebook_png(image)))
        return
    from PIL import ImageShow  # its import looks for viewers

    screen = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not (screen and ImageShow.show(image)):
        raise RuntimeError(
            "there is no screen here, or no program that shows images; save the drawing instead, as in "
            "found.draw().save('found.png')"
        )


def notebook_png(image: Image.Image) -> bytes:
    """Returns the image as a PNG file. A large image is made smaller, because a notebook keeps what it shows."""
    small, file = image.copy(), io.BytesIO()
    small.thumbnail((NOTEBOOK_SIDE, NOTEBOOK_SIDE))
    small.save(file, "png")
    return file.getvalue()


def _is_watched() -> bool:
    """Returns whether a person may read the error stream now."""
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())
