"""The types of a data set: images with their ground truth, and the problems that were found in its files."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import ArrayLike
from PIL import Image

from multibox.boxes import area
from multibox.images import open_image, read_image
from multibox.messages import counted, list_names

PROBLEMS_SHOWN = 100
"""The number of lines in which a message lists problems."""

ALIKE_SHOWN = 3
"""The number of problems of one kind that a message lists one by one."""

_QUOTED = r"""(?<!\w)'[^']*'(?!\w)|(?<!\w)"[^"]*"(?!\w)"""
_NUMBER = r"[-+]?\b(?:\d[\w.,:+-]*|nan|inf)\b"
_FILE = r"""(?<![^\s'",;()])[^\s'",;()]+\.[A-Za-z]\w+\b"""
_VALUE = rf"(?:{_QUOTED}|{_NUMBER}|{_FILE})"
_VALUES = re.compile(rf"{_VALUE}(?:(?:, | and | to | x | ){_VALUE})*")
"""Numbers, quoted values and names of files in a text, or lists of them: problems of one kind may differ by these."""


@dataclass(frozen=True, init=False, eq=False, repr=False)
class GroundTruth:
    """The objects of one image, with boxes in pixels of that image.

    Attributes:
        boxes: Boxes in corner form, in pixels.
        labels: Indices into the data set's `class_names`.
        difficult: VOC's mark of objects that count neither as hits nor as misses in the evaluation.
        crowd: COCO's `iscrowd`: regions of many objects. They are not trained on, and detections inside do not count.
        areas: Areas in square pixels. COCO calls objects small, medium or large by the area of their outline, which is
            less than that of the box.
    """

    boxes: Float[np.ndarray, "objects 4"]
    labels: Int[np.ndarray, " objects"]
    difficult: Bool[np.ndarray, " objects"]
    crowd: Bool[np.ndarray, " objects"]
    areas: Float[np.ndarray, " objects"]

    def __init__(
        self,
        boxes: ArrayLike,
        labels: ArrayLike,
        *,
        difficult: ArrayLike | None = None,
        crowd: ArrayLike | None = None,
        areas: ArrayLike | None = None,
    ) -> None:
        """Takes lists or arrays. By default no object is marked, and the areas are those of the boxes.

        Raises:
            ValueError: The numbers of boxes, labels and marks differ, or a box has no width or no height.
        """
        corners = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
        count = len(corners)
        values: dict[str, np.ndarray] = {
            "boxes": corners,
            "labels": np.asarray(labels, dtype=np.int64).reshape(-1),
            "difficult": np.zeros(count, bool) if difficult is None else np.asarray(difficult, dtype=bool).reshape(-1),
            "crowd": np.zeros(count, bool) if crowd is None else np.asarray(crowd, dtype=bool).reshape(-1),
            "areas": area(corners) if areas is None else np.asarray(areas, dtype=np.float32).reshape(-1),
        }
        for name, array in values.items():
            if len(array) != count:
                raise ValueError(f"{count} boxes, but {len(array)} {name}")
            object.__setattr__(self, name, array)
        bad = ~(corners[:, 2:] > corners[:, :2]).all(axis=1)
        if bad.any():
            first = int(np.argmax(bad))
            raise ValueError(f"box {first} {corners[first].tolist()} has no width or no height")

    def __len__(self) -> int:
        return len(self.labels)

    def __repr__(self) -> str:
        return f"GroundTruth({counted(len(self), 'object')})"

    def __getitem__(self, chosen: Bool[np.ndarray, " objects"] | Int[np.ndarray, " chosen"]) -> "GroundTruth":
        """Returns the objects where a mask is true, or those with the given indices."""
        return GroundTruth(
            self.boxes[chosen],
            self.labels[chosen],
            difficult=self.difficult[chosen],
            crowd=self.crowd[chosen],
            areas=self.areas[chosen],
        )

    def with_labels(self, labels: Int[np.ndarray, " objects"]) -> "GroundTruth":
        """Returns the same objects with other labels."""
        return GroundTruth(self.boxes, labels, difficult=self.difficult, crowd=self.crowd, areas=self.areas)

    def with_areas(self, areas: Float[np.ndarray, " objects"]) -> "GroundTruth":
        """Returns the same objects with other areas."""
        return GroundTruth(self.boxes, self.labels, difficult=self.difficult, crowd=self.crowd, areas=areas)


@dataclass(frozen=True, eq=False, repr=False)
class Sample:
    """One image of a data set and its objects. A file is decoded by `open` and `read`, not before.

    Attributes:
        name: The name in messages and output files; no other sample of the data set has it.
        image: Path of the image file, or the RGB pixels themselves.
        height: Height in pixels of the image as it is shown, with its EXIF orientation applied.
        width: Width in pixels of the image as it is shown, with its EXIF orientation applied.
        truth: The objects, with boxes in pixels of the image as it is shown.
        image_id: COCO's number of the image, or its position in the data set.
    """

    name: str
    image: Path | UInt8[np.ndarray, "3 height width"]
    height: int
    width: int
    truth: GroundTruth
    image_id: int

    def __repr__(self) -> str:
        return f"Sample({self.name}: height {self.height}, width {self.width}, {counted(len(self.truth), 'object')})"

    def open(self, *, at_least: tuple[int, int] | None = None) -> Image.Image:
        """Returns the image as PIL's RGB, upright. `multibox.images.open_image` explains `at_least`."""
        return open_image(self.image, at_least=at_least)

    def read(self) -> UInt8[np.ndarray, "3 height width"]:
        """Returns the pixels as RGB, upright."""
        return read_image(self.image)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set's files, and what was done about it.

    Attributes:
        where: The file, and the line, object or annotation in it.
        what: The value that was found, and why it cannot be used.
        done: What the reader did: "box left out", "image left out", "clipped to the image", ...
        kind: Identifier of the kind of problem, one of `multibox.doctor.kinds`. It does not count in comparisons.
    """

    where: str
    what: str
    done: str
    kind: str = field(default="", compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.where}: {self.what} ({self.done})"


class DatasetError(ValueError):
    """A data set that cannot be used as it is. The message lists what is wrong, up to `PROBLEMS_SHOWN` findings.

    Attributes:
        problems: All findings, in the order of the files.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(list_problems(message, problems))
        self.problems = tuple(problems)


def list_problems(heading: str, problems: Sequence[Problem]) -> str:
    """Returns the heading, then what is wrong: at most `PROBLEMS_SHOWN` lines, then the number of the other problems.

    Up to `ALIKE_SHOWN` problems of a kind have a line each. More have one line, with their number and the first one.
    """
    lines: list[tuple[str, int]] = []
    for kind in group_problems(problems):
        alone = len(kind) <= ALIKE_SHOWN
        lines += [(str(problem), 1) for problem in kind] if alone else [(_line(kind), len(kind))]
    more = sum(count for _, count in lines[PROBLEMS_SHOWN:])
    shown = [line for line, _ in lines[:PROBLEMS_SHOWN]]
    return "\n  ".join([heading, *shown, *([f"... and {more} more"] if more else [])])


def group_problems(problems: Sequence[Problem]) -> list[list[Problem]]:
    """Returns the problems of each kind, in the order of the first ones.

    Problems are of one kind if the same was done about them, and their texts are equal but for numbers, quoted values
    and names of files.
    """
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        kinds.setdefault((_VALUES.sub("#", problem.what), _VALUES.sub("#", problem.done)), []).append(problem)
    return list(kinds.values())


def main_problem(problems: Sequence[Problem]) -> str:
    """Returns the most frequent kind of problem with its number and its first one, or "" if there is no problem."""
    return _line(max(group_problems(problems), key=len)) if problems else ""


def _line(kind: Sequence[Problem]) -> str:
    first = kind[0]
    return str(first) if len(kind) == 1 else f"{len(kind)} x {first.what} ({first.done}), first in {first.where}"


def summarize_problems(problems: Sequence[Problem]) -> str:
    """Returns the number of problems, also by what was done: `3 problems (2 x box left out, 1 x image left out)`."""
    kinds = Counter(problem.done for problem in problems).most_common()
    return f"{counted(len(problems), 'problem')} ({', '.join(f'{count} x {done}' for done, count in kinds)})"


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images with ground truth, in the order of the files that list them.

    Attributes:
        name: The folder and split that the data set was read from.
        class_names: Class names in the order of the file that lists them; labels are indices into them.
        samples: One sample for each image, images without objects included.
        problems: Problems that the reader found; empty if there are none.
        category_ids: COCO's number of each class. The numbers may have gaps.
    """

    name: str
    class_names: tuple[str, ...]
    samples: Sequence[Sample]
    problems: tuple[Problem, ...] = ()
    category_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for sample in self.samples:
            wrong = (sample.truth.labels < 0) | (sample.truth.labels >= len(self.class_names))
            if wrong.any():
                raise ValueError(
                    f"{self.name}: {sample.name} has the label {sample.truth.labels[wrong][0]}, "
                    f"but there are only {len(self.class_names)} class names"
                )

    def __repr__(self) -> str:
        objects = sum(len(sample.truth) for sample in self.samples)
        counts = [
            counted(len(self.samples), "image"),
            counted(objects, "object"),
            counted(len(self.class_names), "class"),
            *([counted(len(self.problems), "problem")] if self.problems else []),
        ]
        return f"Dataset({self.name}: {', '.join(counts)})"

    def split(self, val: float = 0.2, test: float = 0.0) -> tuple["Dataset", ...]:
        """Divides the images at random into `(train, val)`, or with a `test` above 0 into `(train, val, test)`.

        The place of an image follows from a hash of its name, so that more images move none of the others. Images of
        the same stem stay together, as do the augmented copies that Roboflow makes of an image. Each part keeps all
        problems.

        Args:
            val: The fraction of the images in the validation set, about.
            test: The fraction of the images in the test set, about.

        Raises:
            ValueError: The fractions are not between 0 and 1, or leave no image to a part.
        """
        if not (0 < val < 1 and 0 <= test < 1 and val + test < 1):
            raise ValueError(
                f"val and test must be fractions of the images that leave some to learn from, not {val} and {test}"
            )
        places = self.places
        order = sorted(set(places))
        wanted = ["val", "test", "train"] if test else ["val", "train"]
        if len(order) < len(wanted):
            images = f"{counted(len(self.samples), 'image')} of {counted(len(order), 'name')}"
            raise ValueError(f"{self.name}: {images} cannot be divided into {len(wanted)} parts")
        # bounds between the parts, moved only as far as each part needs one image
        first = min(max(sum(place < val for place in order), 1), len(order) - len(wanted) + 1)
        second = min(max(sum(place < val + test for place in order), first + 1), len(order) - 1) if test else first
        ends = {"val": order[:first], "test": order[first:second], "train": order[second:]}
        parts = []
        for part in ("train", "val", *(["test"] if test else [])):
            inside = set(ends[part])
            samples = [sample for sample, place in zip(self.samples, places, strict=True) if place in inside]
            parts.append(replace(self, name=f"{self.name}, {part} part", samples=samples))
        return tuple(parts)

    @property
    def places(self) -> list[float]:
        """A number from 0 to 1 for each image, which follows from a hash of its name.

        Images that every division keeps together have the same number: those of the same stem, and the augmented copies
        that Roboflow makes of an image.
        """
        return [_place(sample.name) for sample in self.samples]

    def with_classes(self, class_names: Sequence[str]) -> "Dataset":
        """Returns the data set with the labels of other class names. Classes are joined by name.

        Raises:
            DatasetError: An object has a class that is not among the names.
        """
        if tuple(class_names) == self.class_names:
            return self
        label_of = {name: label for label, name in enumerate(class_names)}
        labels = np.array([label_of.get(name, -1) for name in self.class_names], dtype=np.int64)
        used = {label for sample in self.samples for label in sample.truth.labels.tolist()}
        if missing := [self.class_names[label] for label in sorted(used) if labels[label] < 0]:
            raise DatasetError(
                f"{self.name} has objects of {list_names(missing)}, which is none of the {len(class_names)} classes: "
                f"{list_names(class_names)}"
            )
        samples = [
            replace(sample, truth=sample.truth.with_labels(labels[sample.truth.labels])) for sample in self.samples
        ]
        ids = dict(zip(self.class_names, self.category_ids or (), strict=False))
        known = all(name in ids for name in class_names)
        numbers = tuple(ids[name] for name in class_names) if known else None
        return replace(self, class_names=tuple(class_names), samples=samples, category_ids=numbers)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)


def _place(name: str) -> float:
    """Returns a number from 0 to 1 that follows from the stem of an image's name.

    Roboflow's augmented copies of an image (`a_jpg.rf.HASH.jpg`) have the same number.
    """
    digest = hashlib.sha256(source_stem(name).encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def source_stem(name: str) -> str:
    """Returns the stem of an image's name, in composed Unicode; for a copy of Roboflow's, that of its source."""
    return unicodedata.normalize("NFC", re.sub(r"\.rf\.\w+$", "", PurePath(name).stem))


def compare_classes(one: str, names: Sequence[str], other: str, other_names: Sequence[str]) -> str:
    """Returns a description of how two lists of class names differ, or "" if they are equal.

    Args:
        one: What messages call the first thing.
        names: Class names of the first thing.
        other: What messages call the second thing.
        other_names: Class names of the second thing.
    """
    if tuple(names) == tuple(other_names):
        return ""
    differences = [
        f"only {owner} has {list_names(only)}"
        for owner, here, there in ((one, names, set(other_names)), (other, other_names, set(names)))
        if (only := [name for name in here if name not in there])
    ]
    return "; ".join(differences) or f"the classes of {one} and of {other} are in another order"
