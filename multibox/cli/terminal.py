"""Talks to the terminal: results, remarks, errors, progress bars, and the library's warnings and log.

`rich` takes a while to import, so the functions import it when they first print.
"""

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TextIO

from multibox.messages import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn

    import multibox.training


BESIDE_THE_BAR = 72
"""Columns of the terminal that the words beside a progress bar may take. The bar takes the others."""


@cache
def stdout() -> "Console":
    """Returns the console for results. Away from a terminal, tables are as wide as they need to be."""
    return _console(width=None if sys.stdout.isatty() else 1000)


@cache
def stderr() -> "Console":
    """Returns the console for everything that is not the command's result."""
    return _console(stderr=True)


def _console(*, width: int | None = None, stderr: bool = False) -> "Console":
    from rich.console import Console

    # File names and class names are printed as they are: rich must not take parts of them for markup or emoji.
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False, stderr=stderr, width=width)


def is_main() -> bool:
    """Returns whether this process prints: always without torchrun, only in the process of rank 0 under torchrun."""
    return os.environ.get("RANK", "0") == "0"


def info(message: str) -> None:
    """Prints a remark on the error stream. Under torchrun only the main process prints it."""
    if is_main():
        stderr().print(message)


def error(message: str) -> None:
    """Prints an error on the error stream, in red on a terminal."""
    stderr().print(f"multibox: {message}", style="red" if stderr().is_terminal else None)


@contextmanager
def plain_warnings() -> Iterator[None]:
    """Prints warnings that are meant for users without the file and the line of code that raised them."""
    show = warnings.showwarning

    def show_plainly(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if category is UserWarning:
            info(str(message))
        else:
            show(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = show_plainly
        yield


@contextmanager
def progress_bar(
    text: str, total: float, *, show: bool = True, time_left: bool = True
) -> Iterator[Callable[[float, str], None]]:
    """Shows a progress bar while the context is open, on a terminal only.

    The context gives a function to call with the amount of work done so far and a few words to show beside the bar.

    Args:
        text: What is being done, shown before the bar.
        total: The amount of work at the end.
        show: Whether to show a bar at all.
        time_left: Whether to estimate and show the remaining time. Leave it out when the words already say it.
    """
    if not (show and stderr().is_terminal and is_main()):
        yield lambda done, words: None
        return
    from rich.progress import Progress

    with Progress(*_columns(time_left=time_left), console=stderr(), transient=True) as progress:
        task = progress.add_task(text, total=total, words="")
        yield lambda done, words: progress.update(task, completed=done, words=words)


def _columns(*, time_left: bool) -> tuple["ProgressColumn", ...]:
    from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return (
        SpinnerColumn(),  # turns while the work is silent
        TextColumn("{task.description}"),
        BarColumn(bar_width=min(40, max(6, stderr().width - BESIDE_THE_BAR))),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}"),
        *([TimeRemainingColumn()] if time_left else []),
    )


class TrainingBar(NamedTuple):
    """The callbacks of `multibox.train` that show a run on the terminal.

    Attributes:
        on_progress: Shows the progress of the run after a step.
        on_validation: Shows the number of validation images done, and of all.
    """

    on_progress: Callable[["multibox.training.Progress"], None] | None
    on_validation: Callable[[int, int], None] | None


@contextmanager
def training_bar() -> Iterator[TrainingBar]:
    """Shows the bar of a training run, and a second one while a validation runs, on a terminal only.

    The context gives the callbacks for the run; without a terminal they are None, and the log has more lines instead.
    """
    if not (stderr().is_terminal and is_main()):
        yield TrainingBar(None, None)
        return
    from rich.progress import Progress

    with Progress(*_columns(time_left=False), console=stderr(), transient=True) as progress:
        training = progress.add_task("training  ", total=1.0, words="")
        validating = progress.add_task("validating", total=1.0, words="", visible=False)
        began = 0.0

        def show_training(now: "multibox.training.Progress") -> None:
            progress.update(training, completed=now.fraction_done, words=str(now))

        def show_validation(done: int, total: int) -> None:
            nonlocal began
            began = time.monotonic() if done == 0 else began
            rate = done / max(time.monotonic() - began, 1e-9)
            words = f"{done} of {total}  {rate:.0f} images/s  {duration((total - done) / rate)} left" if rate else ""
            progress.update(validating, completed=done, total=total, words=words, visible=done < total)

        yield TrainingBar(show_training, show_validation)


@contextmanager
def download_bar() -> Iterator[Callable[[int, int | None, float], None]]:
    """Shows the bar of a download once there is one.

    The context gives a function of bytes done, bytes in all, and bytes a second.
    """
    with ExitStack() as shown:

        @cache
        def bar() -> Callable[[float, str], None]:
            return shown.enter_context(progress_bar("fetching", 1.0))

        def show(done: int, total: int | None, rate: float) -> None:
            size = "" if total is None else f" of {total / 1e6:.1f}"
            bar()(done / total if total else 0.0, f"{done / 1e6:.1f}{size} MB  {rate / 1e6:.1f} MB/s")

        yield show


@contextmanager
def show_log() -> Iterator[None]:
    """Prints the library's log on the error stream while the context is open."""
    log = logging.getLogger("multibox")
    handler = _ConsoleHandler()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


class _ConsoleHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        info(record.getMessage())
