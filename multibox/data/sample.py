"""The types of a data set: images with their ground truth, and the problems that were found in its files."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import ArrayLike
from PIL import Image

from multibox.boxes import area
from multibox.images import open_image, read_image
from multibox.messages import counted, list_names

PROBLEMS_SHOWN = 100
"""The number of problems that a message lists one by one."""


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
    """Returns the heading, then the first `PROBLEMS_SHOWN` problems, one on each line, and the number of the rest."""
    more = len(problems) - PROBLEMS_SHOWN
    lines = [heading, *map(str, problems[:PROBLEMS_SHOWN]), *([f"... and {more} more"] if more > 0 else [])]
    return "\n  ".join(lines)


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
