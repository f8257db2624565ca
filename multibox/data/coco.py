"""COCO's layout: one JSON for each split (`annotations/instances_<split>.json`), and the images in folders beside."""

import json
import math
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from multibox.data.files import FileFinder, path_variants
from multibox.data.records import AnnotatedImage, Object, make_dataset, similar_classes, to_numbers, to_size
from multibox.data.sample import Dataset, DatasetError, Problem
from multibox.files import read_text
from multibox.messages import quoted

OTHER_TASKS = ("captions_", "image_info_", "panoptic_", "person_keypoints_", "stuff_")
ROBOFLOW = "_annotations.coco.json"
"""Roboflow gives all its files this name; the folder of each says the split."""

AREA_LIMIT = 1e12
"""The area of an image with a million pixels in each direction: no object is larger."""

PARTS = ("images", "annotations", "categories")

Row = Mapping[str, Any]  # the values of a JSON object are checked where they are used


class _Category(NamedTuple):
    id: int
    name: str


class _Image(NamedTuple):
    id: int
    name: str
    shown: str  # the name as messages show it
    where: str
    size: tuple[int, int] | None


class CocoLayout:
    """A data set in the layout of COCO. The JSON of a split is parsed when the split is read.

    Attributes:
        path: The folder of `annotations`, or the JSON of one split.
    """

    name = "COCO"
    signs = "annotations/instances_<split>.json or <split>/_annotations.coco.json"

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.path = path
        self._files = files

    @classmethod
    def recognize(cls, path: Path) -> "CocoLayout | None":
        """Returns the layout if this folder, or this JSON of a split, is COCO's, or else None."""
        files = _json_files(path)
        return cls(path, files) if files else None

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the JSON files without `instances_`, or of the folders of Roboflow's files."""
        return tuple(self._split_files)

    def read(self, split: str) -> Dataset:
        """Reads the images of a split, one of `splits`, with the classes in the order of the file.

        Raises:
            DatasetError: The file cannot be read, or none of its images can be used.
        """
        file = self._split_files[split]
        content = _parse(file)
        entries = list(_categories(str(file), content["categories"]))
        categories = [entry for entry in entries if isinstance(entry, _Category)]
        names = [category.name for category in categories]
        ids = [category.id for category in categories]

        def findings() -> Iterator[AnnotatedImage | Problem]:
            yield from (entry for entry in entries if isinstance(entry, Problem))
            yield from similar_classes(str(file), names)
            yield from _annotated_images(file, split, content, {category: label for label, category in enumerate(ids)})

        return make_dataset(f"{self.path}, {split}", names, findings(), category_ids=ids)

    @cached_property
    def _split_files(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for file in self._files:
            split = file.parent.name if file.name == ROBOFLOW else file.stem.removeprefix("instances_")
            if split in found:
                raise DatasetError(f"{found[split]} and {file} are both of split '{split}'; rename or remove one")
            found[split] = file
        return found


def _annotated_images(
    file: Path, split: str, content: Mapping[str, list[Row]], labels: Mapping[int, int]
) -> Iterator[AnnotatedImage | Problem]:
    images: dict[int, _Image] = {}
    for image in _images(str(file), content["images"]):
        if isinstance(image, Problem):
            yield image
        elif image.id in images:
            yield Problem(image.where, f"{images[image.id].shown} has the same id", "image left out")
        else:
            images[image.id] = image

    objects: dict[int, list[Object | Problem]] = {id: [] for id in images}
    seen: dict[int, Row] = {}
    for place, row in enumerate(content["annotations"]):
        id, image_id = _whole(row.get("id")), _whole(row.get("image_id"))
        where = f"{file}, annotation {place if id is None else id}"
        if image_id is None or image_id not in images:
            what = f"image_id {quoted(row.get('image_id'))} is none of the images"
            yield Problem(where, what, "annotation left out")
            continue
        where = f"{where} of image {images[image_id].shown}"
        if id is not None and (first := seen.setdefault(id, row)) is not row:
            same = _equal(row, first)
            yield Problem(where, "the id is used twice", "taken once" if same else "both annotations kept")
            if same:
                continue
        objects[image_id] += _object(where, row, labels)

    folders, finder = _image_folders(file, split), FileFinder()
    for image in images.values():
        places = [folder / name for name in path_variants(image.name) for folder in folders]
        file_found = next(filter(None, map(finder.find, places)), None)
        if file_found is None:
            looked = ", ".join(map(str, folders))
            yield Problem(image.where, f"there is no such image in {looked}", "image left out")
        else:
            yield AnnotatedImage(
                image.name, file_found, image.where, image.where, objects[image.id], image.size, image_id=image.id
            )


def _object(where: str, row: Row, labels: Mapping[int, int]) -> Iterator[Object | Problem]:
    category, bbox, area = _whole(row.get("category_id")), row.get("bbox"), row.get("area")
    if category is None or category not in labels:
        what = f"category_id {quoted(row.get('category_id'))} is none of the categories"
        yield Problem(where, what, "box left out")
        return
    try:
        x, y, width, height = to_numbers(bbox if isinstance(bbox, list) else [bbox])
    except ValueError:
        yield Problem(where, f"bbox {quoted(bbox)} is not four numbers", "box left out")
        return
    try:
        (outline,) = to_numbers([area or 0])  # some tools write 0 if they do not know the area
    except ValueError:
        outline = math.nan
    if not 0 <= outline < AREA_LIMIT:
        yield Problem(where, f"area {quoted(area)} is none", "area of the box taken")
    stated = outline if 0 < outline < AREA_LIMIT else None
    yield Object(where, (x, y, x + width, y + height), labels[category], crowd=row.get("iscrowd") == 1, area=stated)


def _categories(where: str, rows: list[Row]) -> Iterator[_Category | Problem]:
    names: dict[int, str] = {}
    for place, row in enumerate(rows):
        id, name = _whole(row.get("id")), row.get("name")
        if id is None or not isinstance(name, str) or not name.strip():
            yield Problem(where, f"category {place} has no id or no name", "category left out")
        elif id in names:
            what = f"categories {quoted(names[id])} and {quoted(name)} have the same id {id}"
            yield Problem(where, what, f"{quoted(name)} left out")
        else:
            names[id] = name
            yield _Category(id, name)


def _images(file: str, rows: list[Row]) -> Iterator[_Image | Problem]:
    for place, row in enumerate(rows):
        id, name = _whole(row.get("id")), row.get("file_name")
        if id is None or not isinstance(name, str) or not name:
            yield Problem(f"{file}, image {place}", "no id that is a whole number or no file_name", "image left out")
        else:
            size, shown = to_size(row.get("height"), row.get("width")), quoted(name)
            yield _Image(id, name, shown, f"{file}, image {id} {shown}", size)


def _whole(value: object) -> int | None:
    """Returns the value as a whole number of at most 64 bits, or None. 7.0 counts too, because pandas writes it."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None


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


def _json_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() == ".json" else []
    named = [file for file in sorted(path.glob("annotations/*.json")) if not file.name.startswith(OTHER_TASKS)]
    return (
        [file for file in named if file.name.startswith("instances_") or _has_parts(file)]
        or sorted(path.glob(f"*/{ROBOFLOW}"))
        or [file for file in sorted(path.glob("*.json")) if not file.name.startswith(OTHER_TASKS) and _has_parts(file)]
    )


def _has_parts(file: Path) -> bool:
    """Returns whether a JSON file could be COCO's, without parsing it."""
    text = file.read_bytes()
    return all(f'"{part}"'.encode() in text for part in PARTS)


def _image_folders(file: Path, split: str) -> list[Path]:
    """Returns where to look for images: folders of the split (also `train2017` for `train`), then the others."""
    if file.name == ROBOFLOW:
        return [file.parent]
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    kind = split.rstrip("0123456789")
    folders = []
    for base in (root, root / "images"):
        alike = [folder for folder in base.glob("*/") if folder.name.rstrip("0123456789") == kind]
        folders += sorted(alike, key=lambda folder: (folder.name != split, folder.name))
    return [*folders, root / "images", root]
