"""Reads a folder as a data set, whichever of the three layouts it has."""

import difflib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from multibox.data import coco, voc, yolo
from multibox.data.sample import Dataset, DatasetError, Sample, compare_classes

OnProblem = Literal["error", "skip"]

DEPTH = 3  # of folders above a set, as in VOC's archives: VOCdevkit/VOC2007


class Layout(NamedTuple):
    """What a format's module offers, and the words for it."""

    name: str
    signs: str
    recognize: Callable[[Path], bool]
    list_splits: Callable[[Path], tuple[str, ...]]
    read: Callable[[Path, str], Dataset]


LAYOUTS = (
    Layout("VOC", "Annotations/*.xml and ImageSets/Main/<split>.txt", voc.recognize, voc.list_splits, voc.read),
    Layout(
        "COCO",
        "annotations/instances_<split>.json or <split>/_annotations.coco.json",
        coco.recognize,
        coco.list_splits,
        coco.read,
    ),
    Layout("YOLO", "data.yaml with names, train and val", yolo.recognize, yolo.list_splits, yolo.read),
)


Paths = str | Path | Sequence[str | Path]


def read_dataset(path: Paths, *, split: str | None = None, on_problem: OnProblem = "error") -> Dataset:
    """The images and objects of one split of a data set in the layout of VOC, COCO or YOLO, told from its files.

    Images are not decoded, but the head of each is read. Whatever is wrong in the files is gathered before anything
    is raised: one bad record does not hide the next.

    Args:
        path: The folder of the set, or one above it that holds no other; or a `data.yaml` or COCO's JSON itself. Of
            several paths the sets, which must name the same classes, are joined: `["VOC2007", "VOC2012"]`.
        split: `train`, `val`, ... as `list_splits` gives them; may be left out where there is only one.
        on_problem: `error` raises if anything is wrong; `skip` leaves out what cannot be used and keeps the findings
            in `Dataset.problems`.

    Raises:
        FileNotFoundError: There is no such path.
        DatasetError: It holds no data set, or more than one; there is no such split; the split has no image that can
            be used; the classes of several sets differ; or, with `error`, there are problems.
    """
    if on_problem not in get_args(OnProblem):
        raise ValueError(f"on_problem must be 'error' or 'skip', not {on_problem!r}")
    dataset = join([_read(each, split) for each in _places(path)])
    if dataset.problems and on_problem == "error":
        count = len(dataset.problems)
        advice = "mend the files, or read with on_problem='skip', which does what stands behind each"
        raise DatasetError(f"{dataset.name}: {count} problem{'s'[: count > 1]}; {advice}", dataset.problems)
    return dataset


def list_splits(path: Paths) -> tuple[str, ...]:
    """The names of the splits of the data set that `read_dataset(path)` finds; raises as it does.

    Of several sets those that each of them has.
    """
    first, *others = [layout.list_splits(place) for place, layout in map(_recognize, _places(path))]
    return tuple(split for split in first if all(split in splits for splits in others))


def join(datasets: Sequence[Dataset]) -> Dataset:
    """The images of all these sets as one set, in their order; `image_id` is the place in it.

    Of images of the same name each gets the number of its set in front: `1/000001.jpg`.

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


def _places(path: Paths) -> list[Path]:
    places = [Path(each) for each in ([path] if isinstance(path, str | Path) else path)]
    if not places:
        raise ValueError("there is no path to read a data set from")
    for place in places:
        if [other.resolve() for other in places].count(place.resolve()) > 1:
            raise DatasetError(f"{place} is given twice")
    return places


def _read(path: Path, split: str | None) -> Dataset:
    place, layout = _recognize(path)
    return layout.read(place, _choose(split, layout.list_splits(place), place, layout))


def choose_split(path: Paths, split: str | None) -> str:
    """The name of the split that `read_dataset(path, split=split)` reads; raises as it does."""
    chosen = dict.fromkeys(
        _choose(split, layout.list_splits(place), place, layout) for place, layout in map(_recognize, _places(path))
    )
    if len(chosen) > 1:
        raise DatasetError(f"the sets have other splits: {', '.join(chosen)}; say which to read")
    return next(iter(chosen))


def _recognize(path: Path) -> tuple[Path, Layout]:
    """Where the data set lies at or below the path, and its layout."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such folder or file")
    level = [path]
    for _ in range(DEPTH + 1):
        found = [(place, layout) for place in level for layout in LAYOUTS if layout.recognize(place)]
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


def _choose(split: str | None, splits: tuple[str, ...], place: Path, layout: Layout) -> str:
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
