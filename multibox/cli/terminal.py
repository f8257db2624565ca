"""What the commands share: where they print and show progress, how they read splits, what they check beforehand.

Here and in the commands, what is slow to import is imported where it is used, so that `--help` answers at once.
"""

import dataclasses
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TextIO

from cyclopts import Parameter
from cyclopts.validators import Number

from multibox.weights.published import find_weights

if TYPE_CHECKING:
    from rich.console import Console

    import multibox.data.sample
    import multibox.training

OnProblem = Literal["error", "skip"]
Fraction = Annotated[float, Parameter(validator=Number(gte=0, lte=1))]
Count = Annotated[int, Parameter(validator=Number(gte=1))]

DIGITS = "0123456789"


class UsageError(Exception):
    """The command line itself is wrong: exit status 2."""


@cache
def stdout() -> "Console":
    """Where results are printed. Off a terminal, tables are as wide as they need to be."""
    return _console(width=None if sys.stdout.isatty() else 1000)


@cache
def stderr() -> "Console":
    """Where all is said that is not the result."""
    return _console(stderr=True)


def _console(*, width: int | None = None, stderr: bool = False) -> "Console":
    from rich.console import Console

    # names of files and classes are shown as they are: nothing in them is markup, or short for an emoji
    return Console(highlight=False, soft_wrap=True, markup=False, emoji=False, stderr=stderr, width=width)


def complain(message: str) -> None:
    """An error, on the error stream."""
    stderr().print(f"multibox: {message}", style="red" if stderr().is_terminal else None)


def speaks() -> bool:
    """Whether this process speaks for all: of those that torchrun started, the first."""
    return os.environ.get("RANK", "0") == "0"


def say(message: str) -> None:
    """A remark that is not the command's result, on the error stream."""
    if speaks():
        stderr().print(message)


@contextmanager
def say_warnings() -> Iterator[None]:
    """Warnings that are meant for users, in their words alone: no file and line of code before them."""
    show = warnings.showwarning

    def say_it(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if category is UserWarning:
            say(str(message))
        else:
            show(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = say_it
        yield


def read_splits(
    data: Path | Sequence[Path], splits: Sequence[str], on_problem: OnProblem
) -> list["multibox.data.sample.Dataset"]:
    """Splits of a data set without the images that cannot be decoded; what is wrong with any of them is listed once.

    Raises:
        DatasetError: One cannot be read; or, with `error`, anything is wrong.
    """
    from multibox.data import DatasetError, read_dataset

    datasets = [_without_broken_images(read_dataset(data, split=split, on_problem="skip")) for split in splits]
    # what is wrong with the whole set is found in each of its splits
    problems = list(dict.fromkeys(problem for dataset in datasets for problem in dataset.problems))
    if problems:
        found = f"{' and '.join([datasets[0].name, *splits[1:]])}: {count(len(problems), 'problem')}"
        if on_problem == "error":
            raise DatasetError(f"{found}; mend the files, or --on-problem skip them", problems)
        say("\n  ".join([found, *map(str, problems)]))
    return datasets


def _without_broken_images(dataset: "multibox.data.sample.Dataset") -> "multibox.data.sample.Dataset":
    """Decodes every image: a truncated one has a fine head, and would end a run in its midst."""
    from concurrent.futures import ThreadPoolExecutor

    from multibox.data import DatasetError
    from multibox.data.sample import Problem, Sample

    def fault(sample: Sample) -> str:
        try:
            sample.open(at_least=(1, 1))
        except (ValueError, OSError) as error:
            return str(error).removeprefix(f"{sample.image}: ")
        return ""

    faults = []
    with progress_bar("checking", len(dataset)) as bar, ThreadPoolExecutor() as threads:
        for found in threads.map(fault, dataset):
            faults.append(found)
            bar(len(faults), f"{len(faults)} of {count(len(dataset), 'image')}")
    pairs = list(zip(dataset, faults, strict=True))
    problems = [Problem(str(sample.image), what, "image left out") for sample, what in pairs if what]
    samples = [sample for sample, what in pairs if not what]
    if not samples:
        raise DatasetError(f"{dataset.name}: there is no image that can be used", [*dataset.problems, *problems])
    return dataclasses.replace(dataset, samples=samples, problems=(*dataset.problems, *problems))


def choose_split(data: Path | Sequence[Path], wanted: str | None, candidates: Sequence[str], flag: str) -> str:
    """The split that is wanted by the flag, or the first of the candidates that there is, or the only one.

    Raises:
        FileNotFoundError: There is no such path.
        DatasetError: It holds no data set, or more than one, or one without splits.
        UsageError: There is no such split, or none is wanted and there are several others.
    """
    from multibox.data import DatasetError, list_splits
    from multibox.data.read import choose_split as choose

    splits = list_splits(data)
    try:
        return choose(data, wanted or usual_split(splits, candidates))
    except DatasetError as error:
        if not splits:
            raise
        raise UsageError(f"{flag}: {error}") from error


def usual_split(splits: Sequence[str], candidates: Sequence[str]) -> str | None:
    """The first of the candidates that there is; `train2017` is taken for `train` where there is no `train` itself."""
    for candidate in candidates:
        named = [name for name in splits if name.rstrip(DIGITS) == candidate]
        if named:
            return candidate if candidate in named else named[0]
    return None


def count(number: int, thing: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {thing}{'s'[: number != 1]}"


def check_output(folder: Path) -> None:
    """Makes the folder, so that a long run does not find out at its end that it cannot write.

    Raises:
        OSError: It cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        raise OSError(f"{folder}: there can be no such folder ({error.strerror}); choose another") from error
    if not writable:
        raise PermissionError(f"{folder}: cannot be written to; choose another folder")


def check_device(device: str | None) -> None:
    """That the name is one of torch's, and the device is there.

    Raises:
        UsageError: It is not.
    """
    if device in (None, "cpu"):
        return
    if not re.fullmatch(r"(cpu|cuda|mps|xpu)(:\d+)?", device):
        raise UsageError(f"no device is called '{device}'; there are cpu, cuda (or cuda:1, ...), mps and xpu")
    import torch

    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"the device '{device}' cannot be used here ({str(error).splitlines()[0]})") from error


@contextmanager
def progress_bar(
    text: str, total: float, *, show: bool = True, time_left: bool = True
) -> Iterator[Callable[[float, str], None]]:
    """A bar with the time left, on a terminal only: call it with what is done and a few words.

    Args:
        text: What is being done.
        total: What is done at the end.
        show: False for none at all.
        time_left: Estimate it, where the words do not say it.
    """
    if not (show and stderr().is_terminal and speaks()):
        yield lambda done, words: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}"),
        *([TimeRemainingColumn()] if time_left else []),
    )
    with Progress(*columns, console=stderr(), transient=True) as progress:
        task = progress.add_task(text, total=total, words="")
        yield lambda done, words: progress.update(task, completed=done, words=words)


@contextmanager
def training_bar() -> Iterator[Callable[["multibox.training.Progress"], None]]:
    """The bar of a training run, with the run's own estimate of the time that is left, for its `on_progress`."""
    with progress_bar("training", 1.0, time_left=False) as bar:
        yield lambda progress: bar(progress.fraction_done, str(progress))


@contextmanager
def fetch_bar() -> Iterator[Callable[[int, int | None, float], None]]:
    """A bar for files that may have to be fetched: it takes the bytes done, of how many, bytes a second."""
    with progress_bar("fetching", 1.0) as bar:

        def show(done: int, total: int | None, rate: float) -> None:
            size = "" if total is None else f" of {total / 1e6:.1f}"
            bar(done / total if total else 0.0, f"{done / 1e6:.1f}{size} MB  {rate / 1e6:.1f} MB/s")

        yield show


def fetch_weights(model: str) -> Path:
    """The file of a model by path or name, fetched if need be, before the work begins that needs it.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be fetched.
    """
    with fetch_bar() as show:
        return find_weights(model, on_progress=show)


@contextmanager
def log_lines() -> Iterator[None]:
    """The library's log, on the error stream."""
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
        say(record.getMessage())
