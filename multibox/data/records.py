"""From what an annotation file says to samples: the checks of images, sizes and boxes, the same for every format.

A reader yields records and problems in the order of its files; `make_dataset` checks the records and keeps both.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from multibox.boxes import area, clip
from multibox.data.sample import Dataset, DatasetError, GroundTruth, Problem, Sample
from multibox.images import image_size

PIXEL_TOLERANCE = 1.0  # so much beyond the image is no mistake: some count pixels from 1, and tools round


@dataclass(frozen=True)
class Object:
    """One object as its file states it.

    Attributes:
        where: The file, and the line, object or annotation in it.
        box: Corner form, not checked.
        label: Index into the class names.
        difficult: VOC's mark.
        crowd: COCO's mark.
        area: In pixels; None for that of the box.
    """

    where: str
    box: Sequence[float]
    label: int
    difficult: bool = False
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True)
class Record:
    """One image of a split as the files state it, the problems found on the way in place of the objects they cost.

    Attributes:
        name: Of the sample.
        image: A file that is there.
        listed: Where the split names the image.
        where: Where its size and objects are stated.
        objects: The objects.
        size: `(height, width)` as stated; None where it is not.
        fractions: The boxes are fractions of the image as it is shown, not pixels.
        image_id: None for the place in the data set.
    """

    name: str
    image: Path
    listed: str
    where: str
    objects: Sequence[Object | Problem]
    size: tuple[int, int] | None = None
    fractions: bool = False
    image_id: int | None = None


def make_dataset(
    name: str,
    class_names: Sequence[str],
    findings: Iterable[Record | Problem],
    *,
    category_ids: Sequence[int] | None = None,
) -> Dataset:
    """The data set of all records that can be used, with every problem; classes of the same name become one.

    Raises:
        DatasetError: No image is left.
    """
    names = list(dict.fromkeys(class_names))
    labels = [names.index(name) for name in class_names]
    samples: list[Sample] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for finding in findings:
        if isinstance(finding, Problem):
            problems.append(finding)
        elif (path := os.path.abspath(finding.image)) in seen:
            what = f"'{finding.name}' is listed a second time"
            problems.append(Problem(finding.listed, what, "the first entry and its objects taken"))
        else:
            seen.add(path)
            sample, found = _check(finding, len(samples), labels)
            problems += found
            samples += [sample] if sample is not None else []
    if not samples:
        raise DatasetError(f"{name}: there is no image that can be used", problems)
    ids = None if category_ids is None else tuple(category_ids[labels.index(label)] for label in range(len(names)))
    return Dataset(name, tuple(names), samples, tuple(problems), ids)


def similar_classes(where: str, class_names: Sequence[str]) -> Iterator[Problem]:
    """A problem for each class whose name is taken already, or nearly: upper case and spaces are easily mistyped."""
    keys = ["".join(name.split()).casefold() for name in class_names]
    for index, name in enumerate(class_names):
        first = class_names[keys.index(keys[index])]
        if name in class_names[:index]:
            yield Problem(where, f"class '{name}' is named twice", "taken as one class")
        elif first != name:
            yield Problem(where, f"classes '{first}' and '{name}' differ in case or spaces only", "kept as two classes")


def to_numbers(values: Iterable[object]) -> list[float]:
    """Numbers, or text that holds them.

    Raises:
        ValueError: One is something else.
    """
    numbers = []
    for value in values:
        try:
            numbers.append(float(value))  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{value!r:.40} is not a number") from error
    return numbers


def to_size(height: object, width: object) -> tuple[int, int] | None:
    """The size that a file states; None where it states none: nothing, no numbers, or zeros, as some tools write."""
    try:
        numbers = to_numbers([height, width])
    except ValueError:
        return None
    if not all(0 < number < float("inf") for number in numbers):
        return None
    return int(numbers[0]), int(numbers[1])


def _check(record: Record, place: int, labels: Sequence[int]) -> tuple[Sample | None, list[Problem]]:
    try:
        stored, orientation = image_size(record.image)
    except (ValueError, OSError) as error:
        what = str(error).removeprefix(f"{record.image}: ")
        return None, [Problem(str(record.image), what, "image left out")]
    turned = orientation in (5, 6, 7, 8)
    height, width = stored[::-1] if turned else stored

    problems = [entry for entry in record.objects if isinstance(entry, Problem)]
    objects = [entry for entry in record.objects if isinstance(entry, Object)]
    written = np.array([entry.box for entry in objects], dtype=np.float64).reshape(-1, 4)
    with np.errstate(over="ignore"):
        written = (written * ([width, height, width, height] if record.fractions else 1)).astype(np.float32)
    boxes = written
    if record.size is not None and record.size != (height, width):
        if turned and record.size == stored:
            boxes = _turn_boxes(written, *stored, orientation)
        else:
            what = f"the size is given as {_size(*record.size)}, but the image has {_size(height, width)}"
            problems.append(Problem(record.where, what, "boxes taken as pixels of the image"))

    inside = clip(boxes, height, width)
    beyond = np.abs(boxes - inside).max(axis=1, initial=0)
    image = f"the image ({_size(height, width)})"
    kept = []
    for index, (entry, fault) in enumerate(zip(objects, _faults(written, inside, image), strict=True)):
        box = f"box {[round(value, 2) for value in written[index].tolist()]}"
        if fault:
            problems.append(Problem(entry.where, f"{box} {fault}", "box left out"))
            continue
        if beyond[index] > PIXEL_TOLERANCE:
            what = f"{box} reaches {beyond[index]:.1f} pixels beyond {image}"
            problems.append(Problem(entry.where, what, "clipped to the image"))
        kept.append(index)
    stated = [entry.area for entry in objects]
    areas = [box if outline is None else outline for box, outline in zip(area(inside).tolist(), stated, strict=True)]
    truth = GroundTruth(
        inside[kept],
        [labels[objects[index].label] for index in kept],
        difficult=[objects[index].difficult for index in kept],
        crowd=[objects[index].crowd for index in kept],
        areas=[areas[index] for index in kept],
    )
    image_id = place if record.image_id is None else record.image_id
    return Sample(record.name, record.image, height, width, truth, image_id), problems


def _faults(written: Float[np.ndarray, "objects 4"], inside: Float[np.ndarray, "objects 4"], image: str) -> list[str]:
    """Why each box, as it is written and as it is clipped to the image, cannot be used; "" where it can."""
    x_min, y_min, x_max, y_max = written.T
    faults = {
        "holds a value that is not finite": ~np.isfinite(written).all(axis=1),
        "has no width": x_max == x_min,
        "has no height": y_max == y_min,
        "has a negative width": x_max < x_min,
        "has a negative height": y_max < y_min,
        f"lies outside {image}": (inside[:, 2:] <= inside[:, :2]).any(axis=1),
    }
    first = np.select(list(faults.values()), np.arange(1, len(faults) + 1).tolist(), default=0)
    return [["", *faults][index] for index in first]


def _turn_boxes(
    boxes: Float[np.ndarray, "boxes 4"], height: int, width: int, orientation: int
) -> Float[np.ndarray, "boxes 4"]:
    """Boxes of the image as stored (`height` x `width`), turned with it by an EXIF orientation from 5 to 8."""
    x_min, y_min, x_max, y_max = boxes.T
    left, right = (y_min, y_max) if orientation in (5, 8) else (height - y_max, height - y_min)
    top, bottom = (x_min, x_max) if orientation in (5, 6) else (width - x_max, width - x_min)
    return np.stack([left, top, right, bottom], axis=1)


def _size(height: int, width: int) -> str:
    return f"width {width}, height {height}"
