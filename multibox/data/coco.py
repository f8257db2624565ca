"""Read COCO's JSON: a file for a whole split, with its images, annotations and categories."""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from multibox.data.class_names import BACKGROUND
from multibox.data.records import AnnotatedImage, Object, similar_classes, to_numbers, to_size
from multibox.data.sample import DatasetError, Problem
from multibox.files import read_text
from multibox.messages import quoted

OTHER_TASKS = ("captions_", "image_info_", "panoptic_", "person_keypoints_", "stuff_")
"""How COCO's files of other tasks begin, which lie beside those of instances."""

NAMES = ("file_name", "coco_url", "path", "filename", "flickr_url")
"""Where the name of an image may be stated: the first that is there. LVIS has a `coco_url` only."""

AREA_LIMIT = 1e12
"""The area of an image with a million pixels in each direction: no object is larger."""

READ = ("id", "image_id", "category_id", "bbox", "area", "iscrowd")
"""What is read of an annotation."""

PARTS = ("images", "annotations", "categories")

Id = int | str
Row = Mapping[str, Any]  # the values of a JSON object are checked where they are used
Find = Callable[[str], list[Path]]
"""Returns the image that a stated path means, or several if it cannot be told which, or none."""


class _Category(NamedTuple):
    id: Id
    name: str


class _Image(NamedTuple):
    id: Id
    name: str
    shown: str  # the name as messages show it
    where: str
    size: tuple[int, int] | None


class CocoTable:
    """The content of a COCO JSON.

    Attributes:
        file: The file.
        class_names: The names of the categories in the order of the file.
        category_ids: The number of each category; None if one has a text instead.
    """

    def __init__(self, file: Path) -> None:
        """Parses the file.

        Raises:
            DatasetError: The file cannot be read, or is not COCO's.
        """
        self.file = file
        self._content = _parse(file)
        found = list(_categories(str(file), self._content))
        self._problems = [each for each in found if isinstance(each, Problem)]
        categories = [each for each in found if isinstance(each, _Category)]
        self.class_names = [each.name for each in categories]
        self._labels = {each.id: label for label, each in enumerate(categories)}
        ids = [each.id for each in categories]
        self.category_ids = [each for each in ids if isinstance(each, int)] if _are_numbers(ids) else None

    def image_paths(self, find: Find) -> Iterator[Path]:
        """Yields the path of each image that is there."""
        for image in _images(str(self.file), self._content["images"]):
            if isinstance(image, _Image) and (found := find(image.name)):
                yield found[0]

    def records(self, find: Find, root: Path) -> Iterator[AnnotatedImage | Problem]:
        """Yields the images with their objects, and what is wrong with the file.

        Args:
            find: Finds images by the paths that the file states.
            root: The folder that was searched for images.
        """
        yield from self._problems
        yield from similar_classes(str(self.file), self.class_names)
        images: dict[Id, _Image] = {}
        for image in _images(str(self.file), self._content["images"]):
            if isinstance(image, Problem):
                yield image
            elif image.id in images:
                yield Problem(
                    image.where, f"{images[image.id].shown} has the same id", "image left out", "image-id-twice"
                )
            else:
                images[image.id] = image
        numbered = _are_numbers(images)
        objects: dict[Id, list[Object | Problem]] = {id: [] for id in images}
        yield from self._fill(objects, images)
        for image in images.values():
            found = find(image.name)
            if not found:
                yield Problem(image.where, f"there is no such image in {root}", "image left out", "image-missing")
                continue
            path = found[0]
            if len(found) > 1:
                what = f"{image.shown} is the name of {len(found)} images"
                yield Problem(image.where, what, f"{path.relative_to(root)} taken", "image-ambiguous")
            whole = path.as_posix().endswith(f"/{image.name}")
            name = (
                image.name if whole else path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
            )
            number = image.id if numbered and isinstance(image.id, int) else None
            yield AnnotatedImage(name, path, image.where, image.where, objects[image.id], image.size, image_id=number)

    def _fill(self, objects: Mapping[Id, list[Object | Problem]], images: Mapping[Id, _Image]) -> Iterator[Problem]:
        """Adds each annotation to the objects of its image; yields those that belong to none."""
        seen: dict[Id, Row] = {}
        for place, row in enumerate(self._content["annotations"]):
            id, image_id = _id(row.get("id")), _id(row.get("image_id"))
            where = f"{self.file}, annotation {place if id is None else quoted(id) if isinstance(id, str) else id}"
            if image_id is None or image_id not in images:
                what = f"image_id {quoted(row.get('image_id'))} is none of the images"
                yield Problem(where, what, "annotation left out", "annotation-without-image")
                continue
            where = f"{where} of image {images[image_id].shown}"
            if id is not None and (first := seen.setdefault(id, row)) is not row:
                same = _equal(row, first)
                done = "taken once" if same else "both annotations kept"
                yield Problem(where, "the id is used twice", done, "annotation-id-twice")
                if same:
                    continue
            objects[image_id] += _object(where, row, self._labels)


def _object(where: str, row: Row, labels: Mapping[Id, int]) -> Iterator[Object | Problem]:
    category, bbox, area = _id(row.get("category_id")), row.get("bbox"), row.get("area")
    if row.get("category_id") is None:
        yield Problem(where, "no category_id", "box left out", "class-none")
        return
    if category is None or category not in labels:
        what = f"category_id {quoted(row.get('category_id'))} is none of the categories"
        yield Problem(where, what, "box left out", "class-unknown")
        return
    try:
        x, y, width, height = to_numbers(bbox if isinstance(bbox, list) else [bbox])
    except ValueError:
        yield Problem(where, f"bbox {quoted(bbox)} is not four numbers", "box left out", "box-unreadable")
        return
    try:
        (outline,) = to_numbers([area or 0])  # some tools write 0 if they do not know the area
    except ValueError:
        outline = math.nan
    if not 0 <= outline < AREA_LIMIT:
        yield Problem(where, f"area {quoted(area)} is none", "area of the box taken", "area-unreadable")
    stated = outline if 0 < outline < AREA_LIMIT else None
    yield Object(
        where,
        (x, y, x + width, y + height),
        labels[category],
        crowd=row.get("iscrowd") == 1,
        area=stated,
        aside=tuple(key for key, value in row.items() if value and key not in READ),
    )


def _categories(where: str, content: Mapping[str, list[Row]]) -> Iterator[_Category | Problem]:
    names: dict[Id, str] = {}
    rows = content["categories"]
    unused = _unused(content) if any(_is_no_class(row, rows) for row in rows) else set()
    for place, row in enumerate(rows):
        id, name = _id(row.get("id")), row.get("name")
        if id is None or not isinstance(name, str) or not name.strip():
            what = f"category {place} (id {quoted(row.get('id'))}, name {quoted(name)}) has no id or no name"
            yield Problem(where, what, "category left out", "class-nameless")
        elif id in names:
            what = f"categories {quoted(names[id])} and {quoted(name)} have the same id {id}"
            yield Problem(where, what, f"{quoted(name)} left out", "class-id-twice")
        elif id in unused and _is_no_class(row, rows):
            names[id] = name
            what = f"category {quoted(name)} is the background or the heading of all others, and no object has it"
            yield Problem(where, what, "category left out", "class-background-unused")
        else:
            names[id] = name
            yield _Category(id, name)


def _is_no_class(row: Row, rows: list[Row]) -> bool:
    """Returns whether a category is the background, or the heading that Roboflow makes up for all others."""
    name = row.get("name")
    if isinstance(name, str) and name.lower() in BACKGROUND and len(rows) > 1:
        return True
    if row.get("supercategory") != "none" or len(rows) < 2:
        return False
    return all(other.get("supercategory") == name for other in rows if other is not row)


def _unused(content: Mapping[str, list[Row]]) -> set[Id]:
    ids = {id for row in content["categories"] if (id := _id(row.get("id"))) is not None}
    return ids - {id for row in content["annotations"] if (id := _id(row.get("category_id"))) is not None}


def _images(file: str, rows: list[Row]) -> Iterator[_Image | Problem]:
    for place, row in enumerate(rows):
        id, name = _id(row.get("id")), next((row[key] for key in NAMES if row.get(key)), None)
        if id is None:
            yield Problem(
                f"{file}, image {place}",
                f"id {quoted(row.get('id'))} is no number and no text",
                "image left out",
                "image-nameless",
            )
        elif not isinstance(name, str):
            yield Problem(f"{file}, image {place}", "no file_name", "image left out", "image-nameless")
        else:
            size, shown = to_size(row.get("height"), row.get("width")), quoted(name)
            where = f"{file}, image {shown}" if isinstance(id, str) else f"{file}, image {id} {shown}"
            yield _Image(id, name, shown, where, size)


def _id(value: object) -> Id | None:
    """Returns a number of at most 64 bits, or a text, that names something; or None.

    `7.0` is 7, because pandas writes it so, and so is the text `"7"`.
    """
    if type(value) is int:
        return value if -(2**63) <= value < 2**63 else None
    if isinstance(value, str):
        return int(value) if len(value) < 19 and value.isdecimal() and str(int(value)) == value else value or None
    return _id(int(value)) if isinstance(value, float) and value.is_integer() else None


def _are_numbers(ids: Iterable[Id]) -> bool:
    return all(isinstance(id, int) for id in ids)


def _equal(one: Row, other: Row) -> bool:
    try:
        return one == other
    except RecursionError:  # lists in lists in lists ...
        return False


def _parse(file: Path) -> dict[str, list[Row]]:
    try:
        content = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{file}: the JSON cannot be read: {error}") from error
    for part in PARTS:
        if not isinstance(content, dict) or not isinstance(content.get(part), list):
            raise DatasetError(f"{file}: there is no list '{part}', as COCO's files of instances have")
    return {part: [row if isinstance(row, dict) else {} for row in content[part]] for part in PARTS}


def has_parts(file: Path) -> bool:
    """Returns whether a JSON file could be COCO's, without parsing it. One that cannot be read could not."""
    try:
        text = file.read_bytes()
    except OSError:
        return False
    return all(f'"{part}"'.encode() in text for part in PARTS)
