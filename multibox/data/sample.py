"""What a data set is: images, each with its ground truth, and everything that was wrong with the files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import ArrayLike
from PIL import Image

from multibox.boxes import area
from multibox.images import open_image, read_image


@dataclass(frozen=True, init=False, eq=False)
class GroundTruth:
    """The objects of one image: boxes in corner form, in pixels of that very image.

    Attributes:
        boxes: Corner form.
        labels: Indices into the data set's `class_names`.
        difficult: VOC's mark: neither a hit nor a miss in the evaluation.
        crowd: COCO's `iscrowd`: a region of many objects; not trained on, and detections inside it do not count.
        areas: In pixels. COCO sorts objects into small, medium and large by the area of their outline, which is less
            than that of the box.
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
        """Takes lists or arrays; nothing is marked and areas are those of the boxes where they are not given.

        Raises:
            ValueError: The numbers of boxes, labels and marks differ, or a box has no width or height.
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

    def __getitem__(self, chosen: Bool[np.ndarray, " objects"] | Int[np.ndarray, " chosen"]) -> "GroundTruth":
        """The objects where a mask is true, or those with these indices."""
        return GroundTruth(
            self.boxes[chosen],
            self.labels[chosen],
            difficult=self.difficult[chosen],
            crowd=self.crowd[chosen],
            areas=self.areas[chosen],
        )


@dataclass(frozen=True, eq=False)
class Sample:
    """One image of a data set, not decoded before `read`, and its objects.

    Attributes:
        name: What messages and output files call it; each of a data set has its own.
        image: A file, or the pixels themselves.
        height: Of the image as it is shown (EXIF orientation applied), like the boxes.
        width: The same.
        image_id: COCO's number of the image, or its place in the data set.
    """

    name: str
    image: Path | UInt8[np.ndarray, "3 height width"]
    height: int
    width: int
    truth: GroundTruth
    image_id: int

    def open(self, *, at_least: tuple[int, int] | None = None) -> Image.Image:
        """The image as PIL's RGB; `at_least` as in `images.open_image`."""
        return open_image(self.image, at_least=at_least)

    def read(self) -> UInt8[np.ndarray, "3 height width"]:
        """The pixels, RGB, right way up."""
        return read_image(self.image)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a data set's files, and what was done about it.

    Attributes:
        where: The file, and the line, object or annotation in it.
        what: The value found and why it cannot be used.
        done: What the reader did: "box left out", "image left out", "clipped to the image", ...
    """

    where: str
    what: str
    done: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what} ({self.done})"


class DatasetError(ValueError):
    """A data set that cannot be used as it is: everything that was found wrong with it, together.

    Attributes:
        problems: All of them, in the order of the files.
    """

    def __init__(self, message: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__("\n  ".join([message, *map(str, problems)]))
        self.problems = tuple(problems)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with ground truth, in the order of their files.

    Attributes:
        name: The folder and split it was read from.
        class_names: In the order of the file that names them; labels are indices into it.
        samples: One for each image, those without objects included.
        problems: What the reader found wrong; empty for a clean set.
        category_ids: COCO's number of each class; they may have gaps.
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

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)


def compare_classes(one: str, names: Sequence[str], other: str, other_names: Sequence[str]) -> str:
    """How the class names of two things differ, in words; "" where they are equal."""
    if tuple(names) == tuple(other_names):
        return ""
    differences = [
        f"only {owner} has {', '.join(only)}"
        for owner, here, there in ((one, names, other_names), (other, other_names, names))
        if (only := [f"'{name}'" for name in here if name not in there])
    ]
    return "; ".join(differences) or f"the classes of {one} and of {other} are in another order"
