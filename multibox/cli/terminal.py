"""What the commands share: where they print and show progress, how they read a split, what they check beforehand.

Here and in the commands, what is slow to import is imported where it is used, so that `--help` answers at once.
"""

import dataclasses
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console

if TYPE_CHECKING:
    import multibox.data.sample

OnProblem = Literal["error", "skip"]
Fraction = Annotated[float, Parameter(validator=Number(gte=0, lte=1))]
Count = Annotated[int, Parameter(validator=Number(gte=1))]

# names of files and classes are shown as they are: nothing in them is markup, or short for an emoji
stdout = Console(highlight=False, soft_wrap=True, markup=False, emoji=False)
stderr = Console(highlight=False, soft_wrap=True, markup=False, emoji=False, stderr=True)


class UsageError(Exception):
    """The command line itself is wrong: exit status 2."""


def complain(message: str) -> None:
    """An error, on the error stream."""
    stderr.print(f"multibox: {message}", style="red" if stderr.is_terminal else None)


def say(message: str) -> None:
    """A remark that is not the command's result, on the error stream."""
    stderr.print(message)


def read_split(data: Path, split: str, on_problem: OnProblem) -> "multibox.data.sample.Dataset":
    """One split of a data set without the pictures that cannot be decoded; what is wrong with it is listed once.

    Raises:
        DatasetError: It cannot be read; or, with `error`, anything is wrong.
    """
    from multibox.data import DatasetError, read_dataset

    dataset = _without_broken_pictures(read_dataset(data, split=split, on_problem="skip"))
    if dataset.problems:
        found = f"{dataset.name}: {count(len(dataset.problems), 'problem')}"
        if on_problem == "error":
            raise DatasetError(f"{found}; mend the files, or --on-problem skip them", dataset.problems)
        say("\n  ".join([found, *map(str, dataset.problems)]))
    return dataset


def _without_broken_pictures(dataset: "multibox.data.sample.Dataset") -> "multibox.data.sample.Dataset":
    """Decodes every picture: a truncated one has a fine head, and would end a run in its midst."""
    from concurrent.futures import ThreadPoolExecutor

    from multibox.data import DatasetError
    from multibox.data.sample import Problem, Sample

    def fault(sample: Sample) -> str:
        try:
            sample.open(at_least=(1, 1))
        except (ValueError, OSError) as error:
            return str(error).removeprefix(f"{sample.picture}: ")
        return ""

    faults = []
    with progress_bar("checking", len(dataset)) as bar, ThreadPoolExecutor() as threads:
        for found in threads.map(fault, dataset):
            faults.append(found)
            bar(len(faults), f"{len(faults)} of {count(len(dataset), 'picture')}")
    pairs = list(zip(dataset, faults, strict=True))
    problems = [Problem(str(sample.picture), what, "picture left out") for sample, what in pairs if what]
    samples = [sample for sample, what in pairs if not what]
    if not samples:
        raise DatasetError(f"{dataset.name}: there is no picture that can be used", [*dataset.problems, *problems])
    return dataclasses.replace(dataset, samples=samples, problems=(*dataset.problems, *problems))


def choose_split(data: Path, wanted: str | None, candidates: Sequence[str], flag: str) -> str:
    """The split that is wanted by the flag, or the first of the candidates that there is.

    Raises:
        FileNotFoundError: There is no such path.
        DatasetError: It holds no data set, or more than one; or there is none of these splits.
    """
    from multibox.data import DatasetError, list_splits

    splits = list_splits(data)
    chosen = wanted or next((name for name in candidates if name in splits), None)
    if chosen not in splits:
        looked = f"'{wanted}'" if wanted else " or ".join(f"'{name}'" for name in candidates)
        listed = ", ".join(f"'{name}'" for name in splits) or "none at all"
        raise DatasetError(f"{data} has no split {looked}, only {listed}; choose one of them: {flag}")
    return chosen


def count(number: int, thing: str) -> str:
    """`1 picture`, `2 pictures`."""
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
def progress_bar(text: str, total: float, *, show: bool = True) -> Iterator[Callable[[float, str], None]]:
    """A bar with a rate and the time left, on a terminal only: call it with what is done and a few words."""
    if not (show and stderr.is_terminal):
        yield lambda done, words: None
        return
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, transient=True) as progress:
        task = progress.add_task(text, total=total, words="")
        yield lambda done, words: progress.update(task, completed=done, words=words)


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
