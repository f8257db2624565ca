"""Reads and checks the data sets of the commands that take one."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from multibox.cli.arguments import OnProblem, UsageError
from multibox.cli.terminal import count, info, progress_bar

if TYPE_CHECKING:
    from multibox.data.sample import Dataset

DIGITS = "0123456789"


def read_splits(data: Path | Sequence[Path], splits: Sequence[str], on_problem: OnProblem) -> list["Dataset"]:
    """Reads splits of a data set, without the images that cannot be decoded. Lists each problem once.

    Raises:
        DatasetError: A split cannot be read; or, with `error`, there is a problem.
    """
    from multibox.data import DatasetError, read_dataset

    datasets = [_without_broken_images(read_dataset(data, split=split, on_problem="skip")) for split in splits]
    # A problem of the whole data set is found in each of its splits.
    problems = list(dict.fromkeys(problem for dataset in datasets for problem in dataset.problems))
    if problems:
        found = f"{' and '.join([datasets[0].name, *splits[1:]])}: {count(len(problems), 'problem')}"
        if on_problem == "error":
            raise DatasetError(f"{found}; mend the files, or --on-problem skip them", problems)
        info("\n  ".join([found, *map(str, problems)]))
    return datasets


def _without_broken_images(dataset: "Dataset") -> "Dataset":
    """Decodes every image, because a truncated one has a sound header and would end a run later."""
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
    """Returns the split that the flag names, or else the first candidate that exists, or else the only split.

    Raises:
        FileNotFoundError: The path does not exist.
        DatasetError: The path holds no data set, or more than one, or one without splits.
        UsageError: There is no split of that name; or none was named and there are several others.
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


def choose_val_split(data: Path | Sequence[Path], wanted: str | None) -> str | None:
    """Returns the split to validate on: the wanted one, or else `val` or `valid` where it exists, or else None."""
    from multibox.data import list_splits

    if wanted == "none":
        return None
    if wanted is not None:
        return choose_split(data, wanted, [], "--val-split")
    return usual_split(list_splits(data), ["val", "valid"])


def usual_split(splits: Sequence[str], candidates: Sequence[str]) -> str | None:
    """Returns the first candidate that exists. Without a `train`, `train2017` counts as one."""
    for candidate in candidates:
        named = [name for name in splits if name.rstrip(DIGITS) == candidate]
        if named:
            return candidate if candidate in named else named[0]
    return None
