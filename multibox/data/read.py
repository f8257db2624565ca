"""Read folders as data sets. What the files are tells how; there is no option for the layout."""

import difflib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from multibox.data.sample import Dataset, DatasetError, Problem, Sample, compare_classes, summarize_problems
from multibox.data.source import CocoTables, LabeledImages, Options, Unlabelled, open_source
from multibox.data.splits import ALL, split_kind
from multibox.messages import quoted

log = logging.getLogger("multibox")

OnProblem = Literal["error", "skip"]

EVALUATION_SPLITS = ("val", "test")
"""Names of splits that a detector is evaluated on by default, the first that there is; `val` may also be `valid`."""

Paths = str | Path | Sequence[str | Path]


class DatasetReader:
    """A data set on disk. Its files are listed, and each is read, only once for all splits.

    To read a single split, `read_dataset` is shorter; to list the splits, `list_splits`.

    Attributes:
        paths: The folders or files of the data set; several data sets are joined.
    """

    def __init__(self, path: Paths, *, unlabelled: Unlabelled | None = None, pixels_from_one: bool = False) -> None:
        """Takes a path or several, as `read_dataset` does. Nothing is read before `splits` or `read` need it.

        Args:
            path: The folder of the data set, a `data.yaml`, or a JSON; or several of them.
            unlabelled: What to do with images without a file of annotations, as in `read_dataset`.
            pixels_from_one: Whether boxes follow the convention of VOC's devkit, which counts pixels from 1 and
                includes the last: 1 is then subtracted from `xmin` and `ymin`. Otherwise the numbers are taken as they
                are written, as the SSD authors' code does.
        """
        if unlabelled not in (None, *get_args(Unlabelled)):
            raise ValueError(f"unlabelled must be 'empty', 'skip' or None, not {unlabelled!r}")
        self._options = Options(unlabelled, pixels_from_one)
        self.paths = tuple(Path(each) for each in ([path] if isinstance(path, str | Path) else path))
        if not self.paths:
            raise ValueError("there is no path to read a data set from")
        times = Counter(each.resolve() for each in self.paths)
        for each in self.paths:
            if times[each.resolve()] > 1:
                raise DatasetError(f"{each} is given twice")

    @cached_property
    def _opened(self) -> list[CocoTables | LabeledImages]:
        return [open_source(path, self._options) for path in self.paths]

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits; `("all",)` for a set without splits. Of several data sets, those that all have.

        Raises:
            FileNotFoundError: A path does not exist.
            DatasetError: A path holds no data set, or more than one.
        """
        first, *others = [source.splits for source in self._opened]
        return tuple(split for split in first if all(split in splits for splits in others))

    def choose(self, split: str | None) -> str:
        """Returns the name of the split that `read` reads; None stands for the only split.

        Raises:
            DatasetError: There is no such split, or None is given and there are several.
        """
        chosen = list(dict.fromkeys(choose_split(split, source) for source in self._opened))
        if len(chosen) > 1:
            raise DatasetError(f"the sets have other splits: {', '.join(map(quoted, chosen))}; say which to read")
        return chosen[0]

    def read(self, split: str | None = None) -> Dataset:
        """Reads one split. Leaves out what cannot be used, and keeps all problems in `Dataset.problems`.

        Raises:
            FileNotFoundError: A path does not exist.
            DatasetError: There is no such split, it has no image that can be used, or the classes of several data sets
                cannot be joined.
        """
        return join([source.read(choose_split(split, source)) for source in self._opened])


def read_dataset(
    path: Paths,
    *,
    split: str | None = None,
    on_problem: OnProblem = "skip",
    unlabelled: Unlabelled | None = None,
) -> Dataset:
    """Reads one split of a data set. The files show what annotates the images, wherever they lie.

    Images are not decoded; only the header of each is read. All files are read before anything is reported, so that one
    bad record does not hide the next.

    Args:
        path: The folder of the data set, or a folder above that holds no other data set; or a `data.yaml` or COCO's
            JSON. The data sets of several paths are joined (`["VOC2007", "VOC2012"]`), with their classes by name.
        split: Name of the split: `train`, `val`, ..., as `list_splits` gives them. It may be left out if there is only
            one: a set without splits has `all`, which `Dataset.split` divides.
        on_problem: What to do about bad records: `skip` leaves out what cannot be used, logs a warning that sums up the
            problems, and keeps them in `Dataset.problems`; `error` raises.
        unlabelled: What to do with images that have no file of annotations: `empty` takes them as images without
            objects, `skip` leaves them out. By default they are left out, except in YOLO's form if no image has an
            empty file.

    Raises:
        FileNotFoundError: A path does not exist.
        DatasetError: There is no data set, or more than one; there is no such split, or it has no image that can be
            used; or there are problems and `on_problem` is `error`.
    """
    if on_problem not in get_args(OnProblem):
        raise ValueError(f"on_problem must be 'error' or 'skip', not {on_problem!r}")
    dataset = DatasetReader(path, unlabelled=unlabelled).read(split)
    if dataset.problems and on_problem == "error":
        advice = "mend the files, or read with on_problem='skip', which does what stands behind each"
        raise DatasetError(f"{dataset.name}: {summarize_problems(dataset.problems)}; {advice}", dataset.problems)
    warn_of_problems(dataset)
    return dataset


def warn_of_problems(dataset: Dataset) -> None:
    """Logs a warning that sums up what is wrong with a data set's files, if anything is."""
    if dataset.problems:
        log.warning(
            f"{dataset.name}: {summarize_problems(dataset.problems)}; Dataset.problems lists them. "
            f"The first: {dataset.problems[0]}"
        )


def list_splits(path: Paths) -> tuple[str, ...]:
    """Returns the names of the splits of a data set, or those that all of several have. Raises as `read_dataset`."""
    return DatasetReader(path).splits


def usual_split(splits: Sequence[str], candidates: Sequence[str]) -> str | None:
    """Returns the first candidate that exists. `train2017` counts as `train`, `valid` and `validation` as `val`."""
    for candidate in candidates:
        named = [name for name in splits if split_kind(name) == split_kind(candidate)]
        if named:
            return candidate if candidate in named else named[0]
    return None


def join(datasets: Sequence[Dataset]) -> Dataset:
    """Joins data sets into one, in their order. `image_id` becomes the position in it.

    Classes are joined by name: those of the first data set, then those that only others have, which is a problem of the
    result. If images of several data sets have the same name, each gets the number of its data set in front:
    `1/000001.jpg`.
    """
    first, *others = datasets
    if not others:
        return first
    class_names = tuple(dict.fromkeys(name for dataset in datasets for name in dataset.class_names))
    name = " + ".join(dataset.name for dataset in datasets)
    problems = [problem for dataset in datasets for problem in dataset.problems]
    for other in others:
        if set(other.class_names) != set(first.class_names):
            what = compare_classes(first.name, first.class_names, other.name, other.class_names)
            problems.append(Problem(name, f"the classes differ: {what}", "joined by name", "classes-differ"))
    times = Counter(sample.name for dataset in datasets for sample in dataset)
    samples: list[Sample] = []
    for number, dataset in enumerate(datasets, start=1):
        for sample in dataset.with_classes(class_names):
            unique = sample.name if times[sample.name] == 1 else f"{number}/{sample.name}"
            samples.append(replace(sample, name=unique, image_id=len(samples)))
    same = all((other.class_names, other.category_ids) == (first.class_names, first.category_ids) for other in others)
    return Dataset(name, class_names, samples, tuple(problems), first.category_ids if same else None)


def choose_split(split: str | None, source: CocoTables | LabeledImages) -> str:
    """Returns the split with this name, or the only one of this kind; None stands for the only split."""
    splits = source.splits
    listed = ", ".join(f"'{name}'" for name in splits)
    if split is None:
        if len(splits) > 1:
            raise DatasetError(f"{source.path} has the splits {listed}; choose one of them")
        return splits[0]
    alike = [name for name in splits if split_kind(name) == split_kind(split)]
    if split in splits or len(alike) == 1:
        return split if split in splits else alike[0]
    if splits == (ALL,):
        advice = "leave it out to take all images, which Dataset.split, or multibox train --val-fraction, divides"
        raise DatasetError(f"{source.path} has no split '{split}': {source.counts}, no split; {advice}")
    near = difflib.get_close_matches(split, splits, n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise DatasetError(f"{source.path} has no split '{split}', only {listed}{hint}")
