"""Read YOLO's text files, one for each image, and the `data.yaml` or `obj.data` that describes a set of them.

A line is a class and numbers in fractions of the image. What the numbers mean is decided for a whole split by what
`data.yaml` says and by the numbers themselves, never by their count alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from multibox.boxes import center_to_corner
from multibox.data.files import read_lines, read_list
from multibox.data.records import Entry, ImageAnnotation, to_numbers
from multibox.data.sample import DatasetError, Problem
from multibox.messages import counted, quoted, shortened
from multibox.safe_yaml import read_yaml

SPLITS = ("train", "val", "valid", "validation", "test")
"""The keys of a `data.yaml` or `obj.data` that name splits."""

FRACTION_LIMIT = 2.0
"""A box may reach a little beyond the image. Numbers above this were written in pixels, not as fractions."""

MOST_POINTS = 200
"""Key points that a line may have. Rows of more numbers are outlines."""

TOLERANCE = 0.01
"""How far, as a fraction of the image, rounded numbers may be off."""

Rows = Float[np.ndarray, "lines numbers"]


@dataclass(frozen=True)
class YoloConfig:
    """What a `data.yaml` or `obj.data` says.

    Attributes:
        file: The file.
        names: The class names in their order; None if the file has none.
        entries: What it names for each split.
        root: The folder that entries start from; "" if none is stated.
        key_points: The number of key points and of values for each (`kpt_shape`), or None.
        problems: What is wrong with the file.
    """

    file: Path
    names: tuple[str, ...] | None
    entries: Mapping[str, object]
    root: object = ""
    key_points: tuple[int, int] | None = None
    problems: tuple[Problem, ...] = ()


def is_darknet(file: Path) -> bool:
    """Returns whether a file is Darknet's `obj.data`: lines such as `names = data/obj.names`."""
    try:
        keys = {line.partition("=")[0].strip() for _, line in read_lines(file)}
    except ValueError:
        return False
    return bool(keys & {"names", "classes"}) and bool(keys & {"train", "valid", "names"})


def read_config(file: Path) -> YoloConfig:
    """Returns what a `data.yaml` or `obj.data` says.

    Raises:
        DatasetError: The file cannot be read, or says what no set of YOLO has.
    """
    if file.suffix.lower() == ".data":
        pairs = (line.partition("=") for _, line in read_list(file))
        config = {key.strip(): value.strip() for key, _, value in pairs}
        return YoloConfig(file, None, {split: config[split] for split in SPLITS if config.get(split)})
    try:
        content = read_yaml(file, as_text=("names",))
    except ValueError as error:
        raise DatasetError(f"{file}: {error}") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{file}: there are no names and no splits in it")
    names = _class_names(file, content)
    stated = content.get("nc", len(names))
    what = f"nc is {quoted(stated)}, but there are {len(names)} names"
    problems = (Problem(str(file), what, "names taken", "class-count"),) if stated != len(names) else ()
    entries = {split: content[split] for split in SPLITS if content.get(split)}
    root = content.get("path") or ""
    return YoloConfig(file, tuple(names), entries, root, _key_points(file, content.get("kpt_shape")), problems)


def _class_names(file: Path, config: Mapping[Any, Any]) -> list[str]:
    names = config.get("names")
    if isinstance(names, dict):
        missing = [number for number in range(len(names)) if str(number) not in names]
        if missing:
            raise DatasetError(f"{file}: names must number the classes from 0 without gaps; there is no {missing[0]}")
        names = [names[str(number)] for number in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DatasetError(f"{file}: names must be a list of class names or a table 0: name, 1: name, ...")
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise DatasetError(f"{file}: {quoted(name)} is no class name")
    return names


def _key_points(file: Path, shape: object) -> tuple[int, int] | None:
    if shape is None:
        return None
    if isinstance(shape, list) and len(shape) == 2 and all(type(value) is int for value in shape):
        points, values = shape
        if 0 < points <= MOST_POINTS and values in (2, 3):
            return points, values
    raise DatasetError(f"{file}: kpt_shape is {quoted(shape)}, but must be [number of key points, 2 or 3]")


def parse(file: Path) -> ImageAnnotation:
    """Returns the lines of a label file, with all numbers behind the class. `fault` says why it cannot be read."""
    try:
        lines = read_lines(file)
    except ValueError as error:
        return ImageAnnotation(file, str(error))
    return ImageAnnotation(file, objects=tuple(_entry(f"{file}, line {number}", line) for number, line in lines))


def _entry(where: str, line: str) -> Entry:
    try:
        label, *numbers = to_numbers(line.split())
    except ValueError as error:
        return Entry(where, "", str(error))
    name = str(int(label)) if label.is_integer() and abs(label) < 1e9 else shortened(line.split(maxsplit=1)[0], 60)
    return Entry(where, name, numbers)


def looks_like_labels(annotation: ImageAnnotation) -> bool:
    """Returns whether the first line of a text is a class and the numbers of a box."""
    first = annotation.objects[0]
    return first.name.isdigit() and not isinstance(first.box, str) and len(first.box) >= 4


def to_boxes(entries: Sequence[Entry], key_points: tuple[int, int] | None) -> tuple[list[Entry], list[Problem]]:
    """Returns the lines of a split with corners of boxes in place of their numbers, and what was left aside.

    Args:
        entries: The lines as `parse` returns them.
        key_points: The `kpt_shape` of the set, if it states one.
    """
    by_count: dict[int, list[int]] = {}
    for place, entry in enumerate(entries):
        if not isinstance(entry.box, str):
            by_count.setdefault(len(entry.box), []).append(place)
    result = list(entries)
    problems = []
    several = len([count for count in by_count if count > 5]) > 1
    for count, places in by_count.items():
        rows = np.array([entries[place].box for place in places], dtype=np.float64).reshape(len(places), count)
        meaning = _meaning(rows, several, key_points)
        if isinstance(meaning, str):
            for place in places:
                result[place] = entries[place]._replace(box=meaning)
            continue
        if meaning.aside:
            what = f"{counted(len(places), 'line')} {'has' if len(places) == 1 else 'have'} {meaning.aside}"
            problems.append(Problem(entries[places[0]].where, what, "left aside", "numbers-aside"))
        numbers = rows[:, : meaning.used]
        with np.errstate(invalid="ignore"):
            corners = _around(numbers) if meaning.is_outline else center_to_corner(numbers)
        finite = np.isfinite(numbers).all(axis=1)
        in_pixels = (finite & np.any(np.abs(numbers) > FRACTION_LIMIT, axis=1)).tolist()
        for row, place in enumerate(places):
            box: Sequence[float] | str = corners[row].tolist()
            if in_pixels[row]:
                line = " ".join([entries[place].name, *(f"{value:.6g}" for value in rows[row, :40])])
                box = f"{quoted(line)} is not in fractions of the image, 0 to 1"
            aside = ("outline",) if meaning.is_outline else ()
            result[place] = entries[place]._replace(box=box, kind="box-in-pixels", aside=aside)
    return result, problems


class _Meaning(NamedTuple):
    """What the numbers of lines are: the first `used` are a box or an outline; what comes behind is left aside."""

    used: int
    is_outline: bool = False
    aside: str = ""


def _meaning(rows: Rows, several: bool, key_points: tuple[int, int] | None) -> _Meaning | str:
    """Returns what the numbers of lines of the same length mean, or why it cannot be told.

    Args:
        rows: The numbers behind the class.
        several: Whether the split has lines of different lengths beyond a box.
        key_points: The `kpt_shape` of the set, if it states one.
    """
    count = rows.shape[1]
    if count == 4:
        return _Meaning(4)
    if key_points is not None:
        points, values = key_points
        if count in (4 + points * values, 5 + points * values):  # a track's number may come last
            return _Meaning(4)
        return f"{count} numbers behind the class, but kpt_shape [{points}, {values}] makes {4 + points * values}"
    last = rows[:, -1]
    fraction = (last >= 0) & (last <= 1)
    known = _is_whole(last) or bool(fraction.all())
    behind = f"({last[0]:g}), a confidence or the number of a track"
    if count == 5:
        if known:
            return _Meaning(4, aside=f"a sixth number {behind}")
        odd = last[~fraction][0]
        return f"the sixth number ({odd:g}) is neither a confidence nor the number of a track, perhaps an angle"
    if count < 6 or (count % 2 and not known and not _has_visibility(rows)):
        return f"{count} numbers behind the class are neither 4 of a box nor pairs of an outline"
    if _has_visibility(rows) and count > 7:
        return _Meaning(4, aside=f"{(count - 4) // 3} key points")
    pairs = rows[:, : count - count % 2]
    outline = _Meaning(pairs.shape[1], is_outline=True, aside=f"a last number {behind}" if count % 2 else "")
    if several or count > 4 + 2 * MOST_POINTS or _is_oriented(pairs) or not _may_be_key_points(pairs):
        return outline
    if _is_far(pairs):
        return _Meaning(4, aside=f"{(count - 4) // 2} key points")
    return (
        f"{count} numbers behind the class are an outline or a box with key points; say which in data.yaml: "
        f"kpt_shape: [{(count - 4) // 2}, 2], if they are key points"
    )


def _is_whole(numbers: Float[np.ndarray, " lines"]) -> bool:
    return bool(((numbers >= 0) & (numbers == np.floor(numbers))).all())


def _has_visibility(rows: Rows) -> bool:
    """Returns whether each third number behind the first four is 0, 1 or 2, as the visibility of key points is."""
    marks = rows[:, 6::3]
    return (rows.shape[1] - 4) % 3 == 0 and bool(np.isin(marks, (0, 1, 2)).all())


def _is_oriented(rows: Rows) -> bool:
    """Returns whether all rows are the four corners of a turned rectangle."""
    if rows.shape[1] != 8:
        return False
    corners = rows.reshape(-1, 4, 2)
    return bool((np.abs(corners[:, 0] - corners[:, 1] + corners[:, 2] - corners[:, 3]) < TOLERANCE).all())


def _may_be_key_points(rows: Rows) -> bool:
    """Returns whether in all rows the first four numbers are a box in the image, and the others points in the box."""
    low, high = np.split(center_to_corner(rows[:, :4]), 2, axis=1)
    in_image = (low >= -TOLERANCE) & (high <= 1 + TOLERANCE) & (low < high)
    points = rows[:, 4:].reshape(len(rows), -1, 2)
    margin = (high - low)[:, None] / 10
    in_box = (points >= low[:, None] - margin) & (points <= high[:, None] + margin)
    return bool(in_image.all() and (in_box | (points == 0)).all())


def _is_far(rows: Rows) -> bool:
    """Returns whether in a row the third and fourth number, as a point, lie far from all other points.

    The second corner of an outline is near the others. The size of a box, taken for a point, may be anywhere.
    """
    points = rows.reshape(len(rows), -1, 2)
    others = np.delete(points, 1, axis=1)
    low, high = others.min(axis=1), others.max(axis=1)
    margin = (high - low).max(axis=1, keepdims=True) + TOLERANCE
    return bool(((points[:, 1] < low - margin) | (points[:, 1] > high + margin)).any())


def _around(outlines: Rows) -> Float[np.ndarray, "lines 4"]:
    """Returns the corners of the boxes around outlines."""
    points = outlines.reshape(len(outlines), -1, 2)
    return np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
