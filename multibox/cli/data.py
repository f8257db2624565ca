"""Reads and checks the data sets of the commands that take one."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from multibox.cli.arguments import OnProblem, UsageError
from multibox.cli.terminal import info, progress_bar
from multibox.messages import counted

if TYPE_CHECKING:
    from multibox.data import Dataset, DatasetReader


def read_splits(reader: "DatasetReader", splits: Sequence[str], on_problem: OnProblem) -> list["Dataset"]:
    """Reads splits of a data set, without the images that cannot be decoded. Lists each problem once.

    Raises:
        DatasetError: A split cannot be read; or, with `error`, there is a problem.
    """
    from multibox.data import DatasetError
    from multibox.data.check import leave_out
    from multibox.data.sample import list_problems

    datasets = [reader.read(split) for split in splits]
    faults = _in_main_process(lambda: [_find_undecodable(dataset) for dataset in datasets])
    datasets = [leave_out(*each) for each in zip(datasets, faults, strict=True)]
    # A problem of the whole data set is found in each of its splits.
    problems = list(dict.fromkeys(problem for dataset in datasets for problem in dataset.problems))
    if problems:
        found = f"{' and '.join([datasets[0].name, *splits[1:]])}: {counted(len(problems), 'problem')}"
        if on_problem == "error":
            raise DatasetError(f"{found}; mend the files, or --on-problem skip them", problems)
        info(list_problems(found, problems))
    return datasets


def _find_undecodable(dataset: "Dataset") -> dict[int, str]:
    """Decodes every image behind a progress bar; returns what is wrong with those that cannot be decoded."""
    from multibox.data.check import find_undecodable

    with progress_bar("checking", len(dataset)) as bar:
        return find_undecodable(
            dataset, on_progress=lambda done, total: bar(done, f"{done} of {counted(total, 'image')}")
        )


def _in_main_process(work: Callable[[], list[dict[int, str]]]) -> list[dict[int, str]]:
    """Returns the result of the main process to all processes that torchrun started; a single process does the work."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return work()
    from multibox.training.distributed import join_processes

    with join_processes("cpu") as group:
        return group.broadcast_from_main(work)


def choose_split(reader: "DatasetReader", wanted: str | None, candidates: Sequence[str], flag: str) -> str:
    """Returns the split that the flag names, or else the first candidate that exists, or else the only split.

    Raises:
        FileNotFoundError: The path does not exist.
        DatasetError: The path holds no data set, or more than one, or one without splits.
        UsageError: There is no split of that name; or none was named and there are several others.
    """
    from multibox.data import DatasetError
    from multibox.data.read import usual_split

    splits = reader.splits
    try:
        return reader.choose(wanted or usual_split(splits, candidates))
    except DatasetError as error:
        if not splits:
            raise
        raise UsageError(f"{flag}: {error}") from error


def choose_val_split(reader: "DatasetReader", wanted: str | None) -> str | None:
    """Returns the split to validate on: the wanted one, or else `val` or `valid` where it exists, or else None."""
    if wanted == "none":
        return None
    if wanted is not None:
        return choose_split(reader, wanted, [], "--val-split")
    from multibox.data.read import usual_split

    return usual_split(reader.splits, ["val", "valid"])
