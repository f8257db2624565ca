"""Turn the content of annotation files into samples. Images, sizes and boxes are checked alike for every format.

The formats say what each file states (`Entry`, `ImageAnnotation`); `source` joins it with an image (`AnnotatedImage`),
and `make_dataset` checks the images.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from multibox.boxes import area, clip
from multibox.data.sample import Dataset, DatasetError, GroundTruth, Problem, Sample
from multibox.images import image_size
from multibox.messages import quoted

PIXEL_TOLERANCE = 1.0
"""How many pixels a box may reach beyond the image without a report: some tools count from 1, others round."""

LARGEST_FRACTION = 1.05
"""Boxes said to be in pixels, of which no corner lies above this, were written as fractions of the image."""


class Entry(NamedTuple):
    """One object as a file of annotations states it.

    Attributes:
        where: The file, and the line or object in it.
        name: Name of the class; in YOLO's files its number.
        box: The numbers of the box, or the reason why there are none. In corner form, except before `yolo.to_boxes`.
        difficult: VOC's mark of difficult objects.
    """

    where: str
    name: str
    box: Sequence[float] | str
    difficult: bool = False


class ImageAnnotation(NamedTuple):
    """The content of a file that annotates one image.

    Attributes:
        file: The file.
        fault: Why the file cannot be read; "" if it can.
        stated: Names or paths of the image, as the file states them.
        size: `(height, width)` as written; None where nothing is given.
        objects: The objects in the order of the file.
    """

    file: Path
    fault: str = ""
    stated: tuple[str, ...] = ()
    size: tuple[object, object] = (None, None)
    objects: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class Object:
    """One object with the label of its class.

    Attributes:
        where: The file, and the line, object or annotation in it.
        box: Box in corner form, not checked yet.
        label: Index into the class names.
        difficult: VOC's mark of difficult objects.
        crowd: COCO's mark of crowd regions.
        area: Area in square pixels; None for the area of the box.
    """

    where: str
    box: Sequence[float]
    label: int
    difficult: bool = False
    crowd: bool = False
    area: float | None = None


@dataclass(frozen=True)
class AnnotatedImage:
    """One image of a split as the files state it.

    Attributes:
        name: Name of the sample.
        image: Path of an image file that exists.
        listed: Where the split lists the image.
        where: Where the size and the objects of the image are stated.
        objects: The objects; a problem stands in the place of an object that cannot be used.
        size: The `(height, width)` that the files state, or None if they state no size.
        normalized: Whether boxes are fractions of the image as it is shown, instead of pixels.
        image_id: Number of the image; None for its position in the data set.
    """

    name: str
    image: Path
    listed: str
    where: str
    objects: Sequence[Object | Problem]
    size: tuple[int, int] | None = None
    normalized: bool = False
    image_id: int | None = None


def make_dataset(
    name: str,
    class_names: Sequence[str],
    findings: Iterable[AnnotatedImage | Problem],
    *,
    category_ids: Sequence[int] | None = None,
) -> Dataset:
    """Returns the data set of all images that can be used, with every problem. Classes of the same name become one.

    Raises:
        DatasetError: No image can be used.
    """
    label_of = {class_name: label for label, class_name in enumerate(dict.fromkeys(class_names))}
    labels = [label_of[class_name] for class_name in class_names]
    samples: list[Sample] = []
    problems: list[Problem] = []
    seen: set[str] = set()
    for finding in findings:
        if isinstance(finding, Problem):
            problems.append(finding)
        elif (path := os.path.abspath(finding.image)) in seen:
            what = f"{quoted(finding.name)} is listed a second time"
            problems.append(Problem(finding.listed, what, "the first entry and its objects taken"))
        else:
            seen.add(path)
            sample, found = _check(finding, len(samples), labels)
            problems += found
            samples += [sample] if sample is not None else []
    if not samples:
        raise DatasetError(f"{name}: there is no image that can be used", problems)
    ids = None
    if category_ids is not None:  # the first number of each class
        first = dict(zip(reversed(labels), reversed(category_ids), strict=True))
        ids = tuple(first[label] for label in range(len(label_of)))
    return Dataset(name, tuple(label_of), samples, tuple(problems), ids)


def similar_classes(where: str, class_names: Sequence[str]) -> Iterator[Problem]:
    """Yields a problem for each class whose name equals another one, or differs from it only in case or spaces."""
    first_of: dict[str, str] = {}
    seen: set[str] = set()
    for name in class_names:
        first = first_of.setdefault("".join(name.split()).casefold(), name)
        if name in seen:
            yield Problem(where, f"class {quoted(name)} is named twice", "taken as one class")
        elif first != name:
            what = f"classes {quoted(first)} and {quoted(name)} differ in case or spaces only"
            yield Problem(where, what, "kept as two classes")
        seen.add(name)


def to_numbers(values: Iterable[object]) -> list[float]:
    """Returns the values, which may be numbers or texts, as floats.

    Raises:
        ValueError: A value is not a number.
    """
    numbers = []
    for value in values:
        try:
            numbers.append(float(value))  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{quoted(value)} is not a number") from error
    return numbers


def to_size(height: object, width: object) -> tuple[int, int] | None:
    """Returns the size that a file states, or None if it is missing, is not a number, or is 0, as some tools write."""
    try:
        numbers = to_numbers([height, width])
    except ValueError:
        return None
    if not all(0 < number < float("inf") for number in numbers):
        return None
    return int(numbers[0]), int(numbers[1])


def _check(found: AnnotatedImage, place: int, labels: Sequence[int]) -> tuple[Sample | None, list[Problem]]:
    """Checks an image, its stated size and its boxes.

    Args:
        found: The image as the files state it.
        place: Position of the sample in the data set.
        labels: Label of each class that the files name, where classes of the same name share a label.

    Returns:
        The sample, or None if the image cannot be used, and the problems.
    """
    try:
        stored, orientation = image_size(found.image)
    except (ValueError, OSError) as error:
        what = str(error).removeprefix(f"{found.image}: ")
        return None, [Problem(str(found.image), what, "image left out")]
    turned = orientation in (5, 6, 7, 8)
    height, width = stored[::-1] if turned else stored

    problems = [entry for entry in found.objects if isinstance(entry, Problem)]
    classes = [labels[entry.label] for entry in found.objects if isinstance(entry, Object)]
    objects = [entry for entry in found.objects if isinstance(entry, Object)]
    written = np.array([entry.box for entry in objects], dtype=np.float64).reshape(-1, 4)
    with np.errstate(over="ignore"):
        written = (written * ([width, height, width, height] if found.normalized else 1)).astype(np.float32)
    boxes = written
    if found.size is not None and found.size != (height, width):
        if turned and found.size == stored:
            boxes = _turn_boxes(written, *stored, orientation)
        else:
            what = f"the size is given as {_size(*found.size)}, but the image has {_size(height, width)}"
            problems.append(Problem(found.where, what, "boxes taken as pixels of the image"))

    inside = clip(boxes, height, width)
    beyond = np.abs(boxes - inside).max(axis=1, initial=0)
    image = f"the image ({_size(height, width)})"
    faults = _faults(written, inside, image)
    if not found.normalized and _in_fractions(written, height, width):
        faults = [fault or "is in fractions of the image, 0 to 1, not in pixels" for fault in faults]
    kept: dict[tuple[object, ...], int] = {}
    for index, (entry, fault, corners) in enumerate(zip(objects, faults, written.tolist(), strict=True)):
        same = (*corners, classes[index], entry.crowd)
        is_sound = not fault and same not in kept and beyond[index] <= PIXEL_TOLERANCE
        box = "" if is_sound else f"box {[round(value, 2) for value in corners]}"
        if fault:
            problems.append(Problem(entry.where, f"{box} {fault}", "box left out"))
            continue
        if same in kept:
            problems.append(Problem(entry.where, f"{box} of the same class stands there twice", "taken once"))
            continue
        if beyond[index] > PIXEL_TOLERANCE:
            what = f"{box} reaches {beyond[index]:.1f} pixels beyond {image}"
            problems.append(Problem(entry.where, what, "clipped to the image"))
        kept[same] = index
    rows = list(kept.values())
    stated = [entry.area for entry in objects]
    areas = [box if outline is None else outline for box, outline in zip(area(inside).tolist(), stated, strict=True)]
    truth = GroundTruth(
        inside[rows],
        [classes[index] for index in rows],
        difficult=[objects[index].difficult for index in rows],
        crowd=[objects[index].crowd for index in rows],
        areas=[areas[index] for index in rows],
    )
    image_id = place if found.image_id is None else found.image_id
    return Sample(found.name, found.image, height, width, truth, image_id), problems


def _in_fractions(written: Float[np.ndarray, "objects 4"], height: int, width: int) -> bool:
    """Returns whether all boxes of an image, though said to be in pixels, lie within 0 to 1."""
    return bool(len(written) and min(height, width) > 2 and (np.abs(written) <= LARGEST_FRACTION).all())


def _faults(written: Float[np.ndarray, "objects 4"], inside: Float[np.ndarray, "objects 4"], image: str) -> list[str]:
    """Returns for each box the reason why it cannot be used, or "" if it can.

    Args:
        written: Boxes as the files state them.
        inside: The boxes, clipped to the image.
        image: What messages call the image.
    """
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
    """Turns the boxes of a stored image of `height` x `width` together with it, by an EXIF orientation from 5 to 8."""
    x_min, y_min, x_max, y_max = boxes.T
    left, right = (y_min, y_max) if orientation in (5, 8) else (height - y_max, height - y_min)
    top, bottom = (x_min, x_max) if orientation in (5, 6) else (width - x_max, width - x_min)
    return np.stack([left, top, right, bottom], axis=1)


def _size(height: int, width: int) -> str:
    return f"width {quoted(width)}, height {quoted(height)}"
