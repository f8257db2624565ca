"""YOLO's layout: a `data.yaml` with class names and splits, and a text file for each image with a line for each object.

A line is `class center_x center_y width height` in fractions of the image, or a class and the corners of an outline.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from multibox.data.files import FileFinder, list_files, path_variants, read_lines, read_list
from multibox.data.records import AnnotatedImage, Object, make_dataset, similar_classes, to_numbers
from multibox.data.sample import Dataset, DatasetError, Problem
from multibox.files import read_text
from multibox.images import IMAGE_SUFFIXES
from multibox.messages import quoted, shortened
from multibox.safe_yaml import YAML_LIMIT, read_yaml

SPLITS = ("train", "val", "test")
FRACTION_LIMIT = 2.0
"""A box may reach a little beyond the image. Numbers above this were written in pixels, not as fractions."""

PATH_LIMIT = 4096
"""Largest number of characters of a path."""

Config = dict[str, Any]  # the values of a YAML are checked where they are used


class YoloLayout:
    """A data set in the layout of YOLO. Its `data.yaml` is parsed once, when it is first needed.

    Attributes:
        path: The folder of `data.yaml`, or the file itself.
    """

    name = "YOLO"
    signs = "data.yaml with names, train and val"

    def __init__(self, path: Path, files: list[Path]) -> None:
        self.path = path
        self._files = files

    @classmethod
    def recognize(cls, path: Path) -> "YoloLayout | None":
        """Returns the layout if this folder, or this `data.yaml`, is YOLO's, or else None."""
        files = _yaml_files(path)
        return cls(path, files) if files else None

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that `data.yaml` names (`train`, `val`, `test`). Raises a `DatasetError` if it cannot be read."""
        return tuple(split for split in SPLITS if self._config.get(split))

    def read(self, split: str) -> Dataset:
        """Reads the images of a split, one of `splits`, with the classes in the order of `data.yaml`.

        The images come in the order of their list, or in the order of their names if the split is a folder.

        Raises:
            DatasetError: `data.yaml` cannot be read, what it names does not exist, or none of the images can be used.
        """
        file, config = self._file, self._config
        class_names = _class_names(file, config)
        entries = config[split] if isinstance(config[split], list) else [config[split]]
        sources = Counter(_locate(file, config, entry) for entry in entries)

        def findings() -> Iterator[AnnotatedImage | Problem]:
            stated = config.get("nc", len(class_names))
            if stated != len(class_names):
                what = f"nc is {quoted(stated)}, but there are {len(class_names)} names"
                yield Problem(str(file), what, "names taken")
            yield from similar_classes(str(file), class_names)
            for source, times in sources.items():
                if times > 1:
                    yield Problem(str(file), f"{split} names {source} {times} times", "taken once")
            yield from _annotated_images(file, list(sources), len(class_names))

        return make_dataset(f"{self.path}, {split}", class_names, findings())

    @property
    def _file(self) -> Path:
        if len(self._files) > 1:
            first, second, *_ = self._files
            raise DatasetError(f"{first} and {second} both describe the set; give the path of one of them")
        return self._files[0]

    @cached_property
    def _config(self) -> Config:
        return _parse(self._file)


def _annotated_images(file: Path, sources: Sequence[Path], num_classes: int) -> Iterator[AnnotatedImage | Problem]:
    finder = FileFinder()
    images: list[tuple[str, Path]] = []
    for source in sources:
        for listed, image in _images(file, source, finder):
            if image is None:
                yield Problem(listed, "there is no such image", "image left out")
            else:
                images.append((listed, image))
    # a list may hold relative and absolute paths
    common = os.path.commonpath([os.path.abspath(image.parent) for _, image in images] or [str(file.parent)])
    label_files: set[Path] = set()
    for listed, image in images:
        place = _label_place(image, file.parent)
        label_file = finder.find(place)
        objects: list[Object | Problem] = []
        if label_file is not None:
            label_files.add(label_file)
            try:
                lines = read_lines(label_file)
            except ValueError as error:
                yield Problem(str(label_file), str(error), "image left out")
                continue
            objects = [_object(f"{label_file}, line {number}", line, num_classes, file.name) for number, line in lines]
        name = Path(os.path.abspath(image)).relative_to(common).as_posix()
        yield AnnotatedImage(name, image, listed, str(label_file or place), objects, normalized=True)
    for spare in _label_files(file, sources):
        if spare not in label_files:
            yield Problem(str(spare), "a label file without its image", "label left out")
    if images and not label_files:
        what = f"none of the {len(images)} images has a label file like {_label_place(images[0][1], file.parent)}"
        yield Problem(str(file), what, "taken as images without objects")


def _object(where: str, line: str, num_classes: int, names_file: str) -> Object | Problem:
    try:
        label, *values = to_numbers(line.split())
    except ValueError as error:
        return Problem(where, str(error), "box left out")
    if label not in range(num_classes):
        what = f"class {shortened(line.split(maxsplit=1)[0], 60)}, but {names_file} names only 0 to {num_classes - 1}"
        return Problem(where, what, "box left out")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        what = f"{len(values)} numbers behind the class are neither 4 of a box nor pairs of an outline"
        return Problem(where, what, "box left out")
    if any(abs(value) > FRACTION_LIMIT for value in values):
        return Problem(where, f"{quoted(line)} is not in fractions of the image, 0 to 1", "box left out")
    if len(values) == 4:
        x, y, width, height = values
        return Object(where, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), int(label))
    across, down = values[::2], values[1::2]
    return Object(where, (min(across), min(down), max(across), max(down)), int(label))


def _images(file: Path, source: Path, finder: FileFinder) -> Iterator[tuple[str, Path | None]]:
    """Yields for each image the place that names it, and its file, or None if the file does not exist."""
    if source.is_dir():
        yield from ((str(image), image) for image in list_files(source, IMAGE_SUFFIXES))
        return
    for number, line in read_list(source):
        places = [base / name for name in path_variants(line) for base in (source.parent, file.parent)]
        image = next(filter(None, map(finder.find, places)), None)
        yield f"{source}, line {number}, {quoted(line)}", image


def _label_place(image: Path, root: Path) -> Path:
    """Returns the text file of an image: with `labels` for the last `images` of its path, or else beside the image."""
    inside = image.relative_to(root) if image.is_relative_to(root) else image
    parts = list(inside.with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return root.joinpath(*parts)


def _label_files(file: Path, sources: Sequence[Path]) -> list[Path]:
    """Returns all label files in the folders that belong to whole folders of images.

    `classes.txt` is not a label file (labelImg writes it beside them), and other texts may lie beside `data.yaml`.
    """
    folders = {_label_place(source / "any", file.parent).parent for source in sources if source.is_dir()}
    found = {text for folder in folders if folder != file.parent for text in list_files(folder, {".txt"})}
    return sorted(text for text in found if text.name != "classes.txt")


def _locate(file: Path, config: Config, entry: object) -> Path:
    """Returns the folder or list of images that `data.yaml` means.

    An entry that was written on another machine (`../train/images`, `D:/raccoons/train/images`) may not exist here.
    Then the longest end of it that exists beside `data.yaml` is used.
    """
    root = config.get("path") or ""
    if not isinstance(root, str) or len(root) > PATH_LIMIT:
        raise DatasetError(f"{file}: path is {quoted(root)}, which is no folder")
    if not isinstance(entry, str) or not 0 < len(entry) <= PATH_LIMIT:
        raise DatasetError(f"{file}: {quoted(entry)} is no folder and no list of images")
    parts = Path(entry.replace("\\", "/")).parts
    tails = [file.parent.joinpath(*parts[start:]) for start in range(1, len(parts))]
    for place in (file.parent / root / entry, file.parent / entry, *tails):
        if os.path.isdir(place) or (place.suffix == ".txt" and os.path.isfile(place)):
            return place
    looked = shortened(str(file.parent / root / entry), 300)
    raise DatasetError(f"{file}: there is no folder and no list of images {quoted(entry)}; looked for {looked}")


def _class_names(file: Path, config: Config) -> list[str]:
    names = config.get("names")
    if isinstance(names, dict):
        numbered = {str(number): name for number, name in names.items() if _is_short(number)}
        missing = [number for number in range(len(names)) if str(number) not in numbered]
        if missing:
            raise DatasetError(f"{file}: names must number the classes from 0 without gaps; there is no {missing[0]}")
        names = [numbered[str(number)] for number in range(len(numbered))]
    if not isinstance(names, list) or not names:
        raise DatasetError(f"{file}: names must be a list of class names or a table 0: name, 1: name, ...")
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int | float) or not _is_short(name):
            raise DatasetError(f"{file}: {quoted(name)} is no class name to YAML; write it in quotes")
    return [str(name) for name in names]


def _is_short(value: object) -> bool:
    """Returns whether Python can write the value as text: it refuses whole numbers with thousands of digits."""
    return not isinstance(value, int) or abs(value) < 10**18


def _parse(file: Path) -> Config:
    try:
        config = read_yaml(file)
    except ValueError as error:
        raise DatasetError(f"{file}: {error}") from error
    if not isinstance(config, dict):
        raise DatasetError(f"{file}: there are no names and no splits in it")
    return config


def _yaml_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() in (".yaml", ".yml") else []
    named = [file for file in (path / "data.yaml", path / "data.yml") if file.is_file()]
    return named or [file for file in sorted(path.glob("*.y*ml")) if _names_classes(file)]


def _names_classes(file: Path) -> bool:
    """Returns whether a YAML file could be a `data.yaml`, without parsing it."""
    try:
        if file.stat().st_size > YAML_LIMIT:
            return False
        text = read_text(file)
    except (OSError, ValueError):
        return False
    return all(re.search(pattern, text, re.MULTILINE) for pattern in (r"^names\s*:", r"^(train|val|test)\s*:"))
