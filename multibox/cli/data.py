"""Reads and checks the data sets of the commands that take one."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from multibox.cli.arguments import VAL_FRACTION, OnProblem, UsageError
from multibox.cli.terminal import info, progress_bar
from multibox.messages import counted

if TYPE_CHECKING:
    from multibox.data import Dataset, DatasetReader


def read_splits(
    reader: "DatasetReader",
    splits: Sequence[str],
    on_problem: OnProblem,
    *,
    check: Callable[["Dataset"], object] | None = None,
    decode: bool = True,
) -> list["Dataset"]:
    """Reads splits of a data set, without the images that cannot be decoded. Lists each problem once.

    Args:
        reader: The data set.
        splits: Names of the splits.
        on_problem: What to do if there are problems.
        check: A check of the first split, which raises before all images are decoded.
        decode: Whether all images are decoded. A command that needs only their sizes does without.

    Raises:
        DatasetError: A split cannot be read; or, with `error`, there is a problem.
    """
    from multibox.data.check import leave_out

    datasets = [reader.read(split) for split in splits]
    if check is not None:
        try:
            check(datasets[0])
        except ValueError:
            _list_problems(datasets, splits, "skip")
            raise
    if decode:
        faults = _in_main_process(lambda: [_find_undecodable(dataset) for dataset in datasets])
        datasets = [leave_out(*each) for each in zip(datasets, faults, strict=True)]
    _list_problems(datasets, splits, on_problem)
    return datasets


def _list_problems(datasets: Sequence["Dataset"], splits: Sequence[str], on_problem: OnProblem) -> None:
    """Lists the problems of all splits on the terminal, those of a kind in one line.

    Raises:
        DatasetError: There is a problem, and `on_problem` is `error`.
    """
    from multibox.data import DatasetError
    from multibox.data.sample import list_problems

    # A problem of the whole data set is found in each of its splits.
    problems = list(dict.fromkeys(problem for dataset in datasets for problem in dataset.problems))
    if problems:
        found = f"{' and '.join([datasets[0].name, *splits[1:]])}: {counted(len(problems), 'problem')}"
        if on_problem == "error":
            raise DatasetError(f"{found}; mend the files, or --on-problem skip them", problems)
        info(list_problems(found, problems))


def read_for_evaluation(
    reader: "DatasetReader",
    wanted: str | None,
    provenance: Mapping[str, str],
    on_problem: OnProblem,
    *,
    check: Callable[["Dataset"], object],
) -> "Dataset":
    """Reads the split to score a detector on, or the part of one that its training held out.

    Args:
        reader: The data set.
        wanted: The value of `--split`.
        provenance: Provenance of the detector's weights, which says what its training held out.
        on_problem: What to do if there are problems.
        check: A check of the data set, which raises before all images are decoded.
    """
    from multibox.data.holdout import Holdout
    from multibox.data.read import EVALUATION_SPLITS

    holdout = Holdout.from_provenance(provenance)
    part = holdout.find(reader.splits, wanted) if holdout else None
    split = holdout.split if holdout and part else choose_split(reader, wanted, EVALUATION_SPLITS, "--split")
    (dataset,) = read_splits(reader, [split], on_problem, check=check)
    if holdout is None or part is None:
        return dataset
    info(
        f"scoring on the {percent(getattr(holdout, part))} % of '{split}' that the training kept for "
        f"{'validation' if part == 'val' else 'a test'}; for all of it: --split {split}"
    )
    return holdout.divide(dataset)[part]


def percent(fraction: float) -> str:
    """Returns a fraction in percent, without digits that say nothing: 20, 12.5."""
    return f"{100 * fraction:g}"


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


def choose_split_apart(reader: "DatasetReader", learned: str, wanted: str | None) -> str | None:
    """Returns a split to score on that has no image of the one to learn from: the wanted one, or else `val` or `test`.

    Args:
        reader: The data set.
        learned: The split to learn from.
        wanted: The value of `--split`.

    Returns:
        Its name; None if no split was named and there is none.

    Raises:
        DatasetError: A split has no image that can be used.
        UsageError: There is no split of that name, or it has images of the one to learn from.
    """
    from multibox.data.read import EVALUATION_SPLITS, usual_split

    usual = [usual_split(reader.splits, [name]) for name in EVALUATION_SPLITS]
    names = [choose_split(reader, wanted, [], "--split")] if wanted else [name for name in usual if name is not None]
    seen = {sample.image for sample in reader.read(learned)} if names else set()
    for name in names:
        shared = sum(sample.image in seen for sample in reader.read(name))
        if not shared:
            return name
        if wanted:
            raise UsageError(
                f"--split {name}: {counted(shared, 'image')} of it {'is' if shared == 1 else 'are'} in '{learned}' "
                "too, the split to learn from; name another one with --split or --train-split"
            )
    return None


def read_apart(
    reader: "DatasetReader", learned: str, wanted: str | None, on_problem: OnProblem
) -> tuple["Dataset", "Dataset", str]:
    """Returns the set to learn from, one to score on that has none of its images, and what the second one is.

    Without a split for it, the second one is the part of the first that `train` would keep for validation.

    Args:
        reader: The data set.
        learned: The split to learn from.
        wanted: The value of `--split`.
        on_problem: What to do if there are problems.

    Raises:
        ValueError: A set cannot be read or has no usable box, or the classes do not fit.
    """
    from multibox.data.check import check_learnable
    from multibox.data.holdout import Holdout

    name = choose_split_apart(reader, learned, wanted)
    train_set, *others = read_splits(reader, [learned, *([name] if name else [])], on_problem, check=check_learnable)
    if name:
        val_set = others[0].with_classes(train_set.class_names)
    else:
        train_set, val_set = Holdout(learned, VAL_FRACTION).divide(train_set).values()
    for dataset in (train_set, val_set):
        check_learnable(dataset)
    return train_set, val_set, name or f"{percent(VAL_FRACTION)} % of {learned}, by a hash of their names"


def choose_val_split(reader: "DatasetReader", wanted: str | None) -> str | None:
    """Returns the split to validate on: the wanted one, or else `val` where it exists, or else None."""
    if wanted == "none":
        return None
    if wanted is not None:
        return choose_split(reader, wanted, [], "--val-split")
    from multibox.data.read import usual_split

    return usual_split(reader.splits, ["val"])
