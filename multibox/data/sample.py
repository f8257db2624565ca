"""The types of a data set: images with their ground truth, and the problems that were found in its files."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

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

_VALUE = (
    r"""(?:(?<!\w)'[^']*'(?!\w)|(?<!\w)"[^"]*"(?!\w)|[-+]?\b(?:\d[\w.,:+-]*|nan|inf)\b|[^\s'",;()]+\.[A-Za-z]\w+\b)"""
)
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


@dataclass(frozen=True, eq=False, repr=False)
class Sample:
    """One image of a data set and its objects. A file is decoded by `open` and `read`, not before.

    Attributes:
        name: The name in messages and output files; no other sample of the data set has it.
        image: Path of the image file, or the pixels themselves.
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
    """

    where: str
    what: str
    done: str

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
    return f"{len(kind)} x {first.what} ({first.done}), first in {first.where}"


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

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def with_classes(self, class_names: Sequence[str]) -> "Dataset":
        """Returns the data set with these classes, joined by name.

        Raises:
            DatasetError: An object has a class that is not among them.
        """
        names = tuple(class_names)
        if names == self.class_names:
            return self
        labels = np.array([names.index(name) if name in names else -1 for name in self.class_names], dtype=np.int64)
        used = {label for sample in self.samples for label in sample.truth.labels.tolist()}
        if missing := [name for label, name in enumerate(self.class_names) if label in used and labels[label] < 0]:
            raise DatasetError(
                f"{self.name} has objects of {list_names(missing)}, which is none of {list_names(names)}"
            )
        samples = []
        for sample in self.samples:
            truth = sample.truth
            renamed = GroundTruth(
                truth.boxes, labels[truth.labels], difficult=truth.difficult, crowd=truth.crowd, areas=truth.areas
            )
            samples.append(replace(sample, truth=renamed))
        return replace(self, class_names=names, samples=samples, category_ids=None)

    def split(self, val: float = 0.2, test: float = 0.0) -> tuple["Dataset", ...]:
        """Returns the parts to learn from and to validate on; with `test`, also a part to test on.

        The part of an image follows from a hash of the stem of its name, so that adding images moves none.
        """
        parts: dict[str, list[Sample]] = {"train": [], "val": [], "test": []}
        for sample in self.samples:
            stem = Path(sample.name).stem.partition(".rf.")[0]
            place = int.from_bytes(hashlib.sha256(stem.encode()).digest()[:8]) / 2**64
            parts["val" if place < val else "test" if place < val + test else "train"].append(sample)
        return tuple(
            replace(self, name=f"{self.name} ({name})", samples=samples)
            for name, samples in parts.items()
            if name != "test" or test > 0
        )


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
