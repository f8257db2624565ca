"""Read a folder as a data set. Its files show which of the three layouts it has."""

import difflib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

from multibox.data.coco import CocoLayout
from multibox.data.sample import Dataset, DatasetError, Sample, compare_classes, summarize_problems
from multibox.data.voc import VocLayout
from multibox.data.yolo import YoloLayout
from multibox.messages import quoted

log = logging.getLogger("multibox")

OnProblem = Literal["error", "skip"]

DEPTH = 3
"""How many folders may lie above a data set, as in VOC's archives: VOCdevkit/VOC2007."""

Layout = VocLayout | CocoLayout | YoloLayout
LAYOUTS: tuple[type[VocLayout], type[CocoLayout], type[YoloLayout]] = (VocLayout, CocoLayout, YoloLayout)

EVALUATION_SPLITS = ("val", "valid", "test")
"""Names of splits that a detector is evaluated on by default, the first that there is."""

Paths = str | Path | Sequence[str | Path]


class DatasetReader:
    """A data set on disk. Its layout is recognized, and its lists are read, only once for all splits.

    To read a single split, `read_dataset` is shorter; to list the splits, `list_splits`.

    Attributes:
        paths: The folders or files of the data set; several data sets are joined.
    """

    def __init__(self, path: Paths, *, unlabelled: Literal["empty", "skip"] | None = None) -> None:
        """Takes a path or several, as `read_dataset` does. Nothing is read before `splits` or `read` need it."""
        self.unlabelled = unlabelled
        self.paths = tuple(Path(each) for each in ([path] if isinstance(path, str | Path) else path))
        if not self.paths:
            raise ValueError("there is no path to read a data set from")
        times = Counter(each.resolve() for each in self.paths)
        for each in self.paths:
            if times[each.resolve()] > 1:
                raise DatasetError(f"{each} is given twice")

    @cached_property
    def _layouts(self) -> list[tuple[Path, Layout]]:
        return [_recognize(path) for path in self.paths]

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits. If several data sets are joined, only those that all of them have.

        Raises:
            FileNotFoundError: A path does not exist.
            DatasetError: A path holds no data set, or more than one.
        """
        first, *others = [layout.splits for _, layout in self._layouts]
        return tuple(split for split in first if all(split in splits for splits in others))

    def choose(self, split: str | None) -> str:
        """Returns the name of the split that `read` reads; None stands for the only split.

        Raises:
            DatasetError: There is no such split, or None is given and there are several.
        """
        chosen = list(dict.fromkeys(_choose(split, *each) for each in self._layouts))
        if len(chosen) > 1:
            raise DatasetError(f"the sets have other splits: {', '.join(map(quoted, chosen))}; say which to read")
        return chosen[0]

    def read(self, split: str | None = None) -> Dataset:
        """Reads one split. Leaves out what cannot be used, and keeps all problems in `Dataset.problems`.

        Raises:
            FileNotFoundError: A path does not exist.
            DatasetError: There is no such split, it has no image that can be used, or the classes of several data sets
                differ.
        """
        return join([layout.read(_choose(split, place, layout)) for place, layout in self._layouts])


def read_dataset(path: Paths, *, split: str | None = None, on_problem: OnProblem = "skip") -> Dataset:
    """Reads one split of a data set. The files show whether its layout is that of VOC, COCO or YOLO.

    Images are not decoded; only the header of each is read. All files are read before anything is reported, so that one
    bad record does not hide the next.

    Args:
        path: The folder of the data set, or a folder above that holds no other data set; or a `data.yaml` or COCO's
            JSON. The data sets of several paths are joined (`["VOC2007", "VOC2012"]`), if they name the same classes.
        split: Name of the split: `train`, `val`, ..., as `list_splits` gives them. It may be left out if there is only
            one.
        on_problem: What to do about bad records: `skip` leaves out what cannot be used, logs a warning that sums up the
            problems, and keeps them in `Dataset.problems`; `error` raises.

    Raises:
        FileNotFoundError: A path does not exist.
        DatasetError: There is no data set, or more than one; there is no such split, or it has no image that can be
            used; the classes of several data sets differ; or there are problems and `on_problem` is `error`.
    """
    if on_problem not in get_args(OnProblem):
        raise ValueError(f"on_problem must be 'error' or 'skip', not {on_problem!r}")
    dataset = DatasetReader(path).read(split)
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
    """Returns the first candidate that exists. Without a `train`, `train2017` counts as one."""
    for candidate in candidates:
        named = [name for name in splits if name.rstrip("0123456789") == candidate]
        if named:
            return candidate if candidate in named else named[0]
    return None


def join(datasets: Sequence[Dataset]) -> Dataset:
    """Joins data sets of the same classes into one, in their order. `image_id` becomes the position in it.

    If images of several data sets have the same name, each gets the number of its data set in front: `1/000001.jpg`.

    Raises:
        DatasetError: The classes are not the same, in the same order.
    """
    first, *others = datasets
    if not others:
        return first
    for other in others:
        if other.class_names != first.class_names:
            difference = compare_classes(first.name, first.class_names, other.name, other.class_names)
            advice = "where a set has no object of a class, a classes.txt in VOC's folder names it"
            raise DatasetError(
                f"{first.name} and {other.name} cannot be joined, their classes differ: {difference} ({advice})"
            )
    times = Counter(sample.name for dataset in datasets for sample in dataset)
    samples: list[Sample] = []
    for number, dataset in enumerate(datasets, start=1):
        for sample in dataset:
            name = sample.name if times[sample.name] == 1 else f"{number}/{sample.name}"
            samples.append(replace(sample, name=name, image_id=len(samples)))
    return Dataset(
        " + ".join(dataset.name for dataset in datasets),
        first.class_names,
        samples,
        tuple(problem for dataset in datasets for problem in dataset.problems),
        first.category_ids if all(other.category_ids == first.category_ids for other in others) else None,
    )


def _recognize(path: Path) -> tuple[Path, Layout]:
    """Returns the folder or file of the data set at or below the path, and its layout."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such folder or file")
    level = [path]
    for _ in range(DEPTH + 1):
        found = [(place, layout) for place in level for kind in LAYOUTS if (layout := kind.recognize(place))]
        if found:
            break
        folders = [folder for place in level if place.is_dir() for folder in sorted(place.iterdir()) if folder.is_dir()]
        level = [folder for folder in folders if not folder.name.startswith((".", "__"))]
    else:
        signs = "; ".join(f"{layout.name} ({layout.signs})" for layout in LAYOUTS)
        raise DatasetError(f"{path}: no data set is here or in the folders below; looked for {signs}")
    places = sorted({place for place, _ in found})
    if len(places) > 1:
        raise DatasetError(f"{path} holds {len(places)} data sets; give one of them: {', '.join(map(str, places))}")
    if len(found) > 1:
        names = " and ".join(f"{layout.name} ({layout.signs})" for _, layout in found)
        advice = "keep one of them here, or give the path of the data.yaml or JSON itself"
        raise DatasetError(f"{places[0]} holds {len(found)} layouts at once: {names}; {advice}")
    return found[0]


def _choose(split: str | None, place: Path, layout: Layout) -> str:
    """Returns the split with this name; None stands for the only split."""
    splits = layout.splits
    if not splits:
        raise DatasetError(f"{place}: a {layout.name} set without a split; looked for {layout.signs}")
    listed = ", ".join(f"'{name}'" for name in splits)
    if split is None:
        if len(splits) > 1:
            raise DatasetError(f"{place} has the splits {listed}; choose one of them")
        return splits[0]
    if split not in splits:
        near = difflib.get_close_matches(split, splits, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise DatasetError(f"{place} has no split '{split}', only {listed}{hint}")
    return split
