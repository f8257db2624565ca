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
from multibox.data.class_names import folded_class
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
        kind: Kind of the problem that it is if there are no numbers.
        aside: What the file states of the object beside this, as `Object` has it.
    """

    where: str
    name: str
    box: Sequence[float] | str
    difficult: bool = False
    kind: str = "box-unreadable"
    aside: tuple[str, ...] = ()


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
        aside: What the file states of the object beside this, which is not read, by its names: `truncated`, `outline`.
    """

    where: str
    box: Sequence[float]
    label: int
    difficult: bool = False
    crowd: bool = False
    area: float | None = None
    aside: tuple[str, ...] = ()


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


class SplitRecords(NamedTuple):
    """A split as the files state it, before its images and boxes are checked.

    Attributes:
        name: The folder and split.
        class_names: The names of the classes in the order of the files; two may be equal.
        findings: The images, and what is wrong with the files.
        category_ids: COCO's number of each class; None if there are none.
    """

    name: str
    class_names: Sequence[str]
    findings: Iterable[AnnotatedImage | Problem]
    category_ids: Sequence[int] | None = None

    @property
    def unique_category_ids(self) -> tuple[int, ...] | None:
        """COCO's number of each class, the first one for classes of the same name."""
        if self.category_ids is None:
            return None
        first = dict(zip(reversed(self.class_names), reversed(self.category_ids), strict=True))
        return tuple(first[class_name] for class_name in _label_of(self.class_names))


class CheckedImage(NamedTuple):
    """An image that can be used.

    Attributes:
        sample: The image with the objects that can be used.
        stated: The image as the files state it.
        objects: The objects of the sample, in its order, as the files state them.
    """

    sample: Sample
    stated: AnnotatedImage
    objects: tuple[Object, ...]


def make_dataset(records: SplitRecords) -> Dataset:
    """Returns the data set of all images that can be used, with every problem. Classes of the same name become one.

    Raises:
        DatasetError: No image can be used.
    """
    found = list(check_records(records))
    samples = [each.sample for each in found if isinstance(each, CheckedImage)]
    problems = [each for each in found if isinstance(each, Problem)]
    if not samples:
        raise DatasetError(f"{records.name}: there is no image that can be used", problems)
    class_names = tuple(_label_of(records.class_names))
    return Dataset(records.name, class_names, samples, tuple(problems), records.unique_category_ids)


def check_records(records: SplitRecords) -> Iterator[CheckedImage | Problem]:
    """Yields all images that can be used, and every problem. Classes of the same name become one."""
    label_of = _label_of(records.class_names)
    labels = [label_of[class_name] for class_name in records.class_names]
    seen: set[str] = set()
    place = 0
    for finding in records.findings:
        if isinstance(finding, Problem):
            yield finding
        elif (path := os.path.abspath(finding.image)) in seen:
            what = f"{quoted(finding.name)} is listed a second time"
            yield Problem(finding.listed, what, "the first entry and its objects taken", "image-listed-twice")
        else:
            seen.add(path)
            checked, problems = _check(finding, place, labels)
            yield from problems
            if checked is not None:
                place += 1
                yield checked


def _label_of(class_names: Sequence[str]) -> dict[str, int]:
    return {class_name: label for label, class_name in enumerate(dict.fromkeys(class_names))}


def similar_classes(where: str, class_names: Sequence[str]) -> Iterator[Problem]:
    """Yields a problem for each class whose name equals another one, or differs from it only in case or spaces."""
    first_of: dict[str, str] = {}
    seen: set[str] = set()
    for name in class_names:
        first = first_of.setdefault(folded_class(name), name)
        if name in seen:
            yield Problem(where, f"class {quoted(name)} is named twice", "taken as one class", "class-named-twice")
        elif first != name:
            what = f"classes {quoted(first)} and {quoted(name)} differ in case or spaces only"
            yield Problem(where, what, "kept as two classes", "class-spelled-differently")
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


def _check(found: AnnotatedImage, place: int, labels: Sequence[int]) -> tuple[CheckedImage | None, list[Problem]]:
    """Checks an image, its stated size and its boxes.

    Args:
        found: The image as the files state it.
        place: Position of the sample in the data set.
        labels: Label of each class that the files name, where classes of the same name share a label.

    Returns:
        The image, or None if it cannot be used, and the problems.
    """
    try:
        stored, orientation = image_size(found.image)
    except (ValueError, OSError) as error:
        what = str(error).removeprefix(f"{found.image}: ")
        return None, [Problem(str(found.image), what, "image left out", "image-unreadable")]
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
            boxes = turn_boxes(written, *stored, orientation)
        else:
            what = f"the size is given as {_size(*found.size)}, but the image has {_size(height, width)}"
            kind = "size-swapped" if found.size == (width, height) else "size-differs"
            problems.append(Problem(found.where, what, "boxes taken as pixels of the image", kind))

    inside = clip(boxes, height, width)
    beyond = np.abs(boxes - inside).max(axis=1, initial=0)
    image = f"the image ({_size(height, width)})"
    faults = _faults(written, inside, image)
    if not found.normalized and _in_fractions(written, height, width):
        faults = [fault or _IN_FRACTIONS for fault in faults]
    kept: dict[tuple[object, ...], int] = {}
    for index, (entry, fault, corners) in enumerate(zip(objects, faults, written.tolist(), strict=True)):
        same = (*corners, classes[index], entry.crowd)
        is_sound = not fault and same not in kept and beyond[index] <= PIXEL_TOLERANCE
        box = "" if is_sound else f"box {[round(value, 2) for value in corners]}"
        if fault:
            problems.append(Problem(entry.where, f"{box} {fault.what}", "box left out", fault.kind))
            continue
        if same in kept:
            what = f"{box} of the same class stands there twice"
            problems.append(Problem(entry.where, what, "taken once", "box-twice"))
            continue
        if beyond[index] > PIXEL_TOLERANCE:
            what = f"{box} reaches {beyond[index]:.1f} pixels beyond {image}"
            problems.append(Problem(entry.where, what, "clipped to the image", "box-beyond-image"))
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
    sample = Sample(found.name, found.image, height, width, truth, image_id)
    return CheckedImage(sample, found, tuple(objects[index] for index in rows)), problems


def _in_fractions(written: Float[np.ndarray, "objects 4"], height: int, width: int) -> bool:
    """Returns whether all boxes of an image, though said to be in pixels, lie within 0 to 1."""
    return bool(len(written) and min(height, width) > 2 and (np.abs(written) <= LARGEST_FRACTION).all())


class _Fault(NamedTuple):
    """Why a box cannot be used, and the kind of the problem."""

    what: str
    kind: str


_IN_FRACTIONS = _Fault("is in fractions of the image, 0 to 1, not in pixels", "box-in-fractions")


def _faults(
    written: Float[np.ndarray, "objects 4"], inside: Float[np.ndarray, "objects 4"], image: str
) -> list[_Fault | None]:
    """Returns for each box the reason why it cannot be used, or None if it can.

    Args:
        written: Boxes as the files state them.
        inside: The boxes, clipped to the image.
        image: What messages call the image.
    """
    x_min, y_min, x_max, y_max = written.T
    faults = {
        _Fault("holds a value that is not finite", "box-not-finite"): ~np.isfinite(written).all(axis=1),
        _Fault("has no width", "box-empty"): x_max == x_min,
        _Fault("has no height", "box-empty"): y_max == y_min,
        _Fault("has a negative width", "box-inverted"): x_max < x_min,
        _Fault("has a negative height", "box-inverted"): y_max < y_min,
        _Fault(f"lies outside {image}", "box-outside-image"): (inside[:, 2:] <= inside[:, :2]).any(axis=1),
    }
    first = np.select(list(faults.values()), np.arange(1, len(faults) + 1).tolist(), default=0)
    return [[None, *faults][index] for index in first]


def turn_boxes(
    boxes: Float[np.ndarray, "boxes 4"], height: int, width: int, orientation: int
) -> Float[np.ndarray, "boxes 4"]:
    """Turns the boxes of a stored image of `height` x `width` together with it, by an EXIF orientation from 5 to 8."""
    x_min, y_min, x_max, y_max = boxes.T
    left, right = (y_min, y_max) if orientation in (5, 8) else (height - y_max, height - y_min)
    top, bottom = (x_min, x_max) if orientation in (5, 6) else (width - x_max, width - x_min)
    return np.stack([left, top, right, bottom], axis=1)


def _size(height: int, width: int) -> str:
    return f"width {quoted(width)}, height {quoted(height)}"
