"""YOLO's layout: a `data.yaml` with class names and splits, and for each image a text file, a line for each object.

A line is `class center_x center_y width height`, in fractions of the image, or a class and the corners of an outline.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from multibox.data.files import FileFinder, list_files, read_lines, read_list, read_text, spellings
from multibox.data.records import Object, Record, make_dataset, similar_classes, to_numbers
from multibox.data.sample import Dataset, DatasetError, Problem
from multibox.images import IMAGE_SUFFIXES

SPLITS = ("train", "val", "test")
FRACTION_LIMIT = 2.0  # a box may reach a little beyond the image; what is far beyond was written in pixels

Config = dict[str, Any]  # what a YAML holds is checked where it is used


class _Loader(yaml.SafeLoader):
    """YAML without code that says when a key is there twice, where PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        for (key, _), name in zip(node.value, keys, strict=True):
            if name != "<<" and isinstance(name, str) and keys.count(name) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{name}' is there twice", key.start_mark)
        return super().construct_mapping(node, deep)


def recognize(path: Path) -> bool:
    """Whether this folder has the layout, or is itself the `data.yaml`."""
    return bool(_yaml_files(path))


def list_splits(path: Path) -> tuple[str, ...]:
    """Those of `train`, `val` and `test` that `data.yaml` names.

    Raises:
        DatasetError: It cannot be read.
    """
    config = _parse(_yaml_file(path))
    return tuple(split for split in SPLITS if config.get(split))


def read(path: Path, split: str) -> Dataset:
    """The images of a split, in the order of the list or of their names, with the classes in the order of the file.

    Args:
        path: The folder of `data.yaml`, or the file itself.
        split: One of `list_splits`.

    Raises:
        DatasetError: `data.yaml` cannot be read, what it names is not there, or none of the images can be used.
    """
    file = _yaml_file(path)
    config = _parse(file)
    class_names = _class_names(file, config)
    entries = config[split] if isinstance(config[split], list) else [config[split]]
    sources = [_locate(file, config, entry) for entry in entries]

    def findings() -> Iterator[Record | Problem]:
        stated = config.get("nc", len(class_names))
        if stated != len(class_names):
            yield Problem(str(file), f"nc is {stated!r:.40}, but there are {len(class_names)} names", "names taken")
        yield from similar_classes(str(file), class_names)
        yield from _records(file, sources, len(class_names))

    return make_dataset(f"{path}, {split}", class_names, findings())


def _records(file: Path, sources: Sequence[Path], classes: int) -> Iterator[Record | Problem]:
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
            objects = [_object(f"{label_file}, line {number}", line, classes, file.name) for number, line in lines]
        name = Path(os.path.abspath(image)).relative_to(common).as_posix()
        yield Record(name, image, listed, str(label_file or place), objects, fractions=True)
    for spare in _label_files(file, sources):
        if spare not in label_files:
            yield Problem(str(spare), "a label file without its image", "label left out")
    if images and not label_files:
        what = f"none of the {len(images)} images has a label file like {_label_place(images[0][1], file.parent)}"
        yield Problem(str(file), what, "taken as images without objects")


def _object(where: str, line: str, classes: int, names_file: str) -> Object | Problem:
    try:
        label, *values = to_numbers(line.split())
    except ValueError as error:
        return Problem(where, str(error), "box left out")
    if label not in range(classes):
        what = f"class {line.split()[0]}, but {names_file} names only 0 to {classes - 1}"
        return Problem(where, what, "box left out")
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        what = f"{len(values)} numbers behind the class are neither 4 of a box nor pairs of an outline"
        return Problem(where, what, "box left out")
    if any(abs(value) > FRACTION_LIMIT for value in values):
        return Problem(where, f"'{line:.60}' is not in fractions of the image, 0 to 1", "box left out")
    if len(values) == 4:
        x, y, width, height = values
        return Object(where, (x - width / 2, y - height / 2, x + width / 2, y + height / 2), int(label))
    across, down = values[::2], values[1::2]
    return Object(where, (min(across), min(down), max(across), max(down)), int(label))


def _images(file: Path, source: Path, finder: FileFinder) -> Iterator[tuple[str, Path | None]]:
    """Where each image is named, and the image; None where it is not there."""
    if source.is_dir():
        yield from ((str(image), image) for image in list_files(source, IMAGE_SUFFIXES))
        return
    for number, line in read_list(source):
        places = [base / name for name in spellings(line) for base in (source.parent, file.parent)]
        image = next(filter(None, map(finder.find, places)), None)
        yield f"{source}, line {number}, '{line}'", image


def _label_place(image: Path, root: Path) -> Path:
    """The text file of an image: `labels` in place of the last `images` of its path, or else beside the image."""
    inside = image.relative_to(root) if image.is_relative_to(root) else image
    parts = list(inside.with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return root.joinpath(*parts)


def _label_files(file: Path, sources: Sequence[Path]) -> list[Path]:
    """All that lie where the images of whole folders have theirs.

    `classes.txt` is no label file (labelImg writes it beside them), and beside `data.yaml` other texts may lie.
    """
    folders = {_label_place(source / "any", file.parent).parent for source in sources if source.is_dir()}
    found = {text for folder in folders if folder != file.parent for text in list_files(folder, {".txt"})}
    return sorted(text for text in found if text.name != "classes.txt")


def _locate(file: Path, config: Config, entry: object) -> Path:
    """The folder or list of images that `data.yaml` means.

    Files written on another machine name it by `path` and from wherever they were: then the longest end of the entry
    that is there beside `data.yaml` is taken (`../train/images`, `D:/raccoons/train/images`).
    """
    if not isinstance(entry, str) or not entry:
        raise DatasetError(f"{file}: {entry!r:.60} is no folder and no list of images")
    root = config.get("path") or ""
    parts = Path(entry.replace("\\", "/")).parts
    tails = [file.parent.joinpath(*parts[start:]) for start in range(1, len(parts))]
    for place in (file.parent / str(root) / entry, file.parent / entry, *tails):
        if os.path.isdir(place) or (place.suffix == ".txt" and os.path.isfile(place)):
            return place
    looked = file.parent / str(root) / entry
    raise DatasetError(f"{file}: there is no folder and no list of images '{entry}'; looked for {looked}")


def _class_names(file: Path, config: Config) -> list[str]:
    names = config.get("names")
    if isinstance(names, dict):
        numbered = {str(number): name for number, name in names.items()}
        missing = [number for number in range(len(names)) if str(number) not in numbered]
        if missing:
            raise DatasetError(f"{file}: names must number the classes from 0 without gaps; there is no {missing[0]}")
        names = [numbered[str(number)] for number in range(len(numbered))]
    if not isinstance(names, list) or not names:
        raise DatasetError(f"{file}: names must be a list of class names or a table 0: name, 1: name, ...")
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise DatasetError(f"{file}: {name!r:.40} is no class name to YAML; write it in quotes")
    return [str(name) for name in names]


def _parse(file: Path) -> Config:
    try:
        config = yaml.load(read_text(file), _Loader)  # a SafeLoader: no code is run
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise DatasetError(f"{file}: the YAML cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise DatasetError(f"{file}: there are no names and no splits in it")
    return config


def _yaml_file(path: Path) -> Path:
    files = _yaml_files(path)
    if len(files) > 1:
        raise DatasetError(f"{files[0]} and {files[1]} both describe the set; give the path of one of them")
    return files[0]


def _yaml_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix.lower() in (".yaml", ".yml") else []
    named = [file for file in (path / "data.yaml", path / "data.yml") if file.is_file()]
    return named or [file for file in sorted(path.glob("*.y*ml")) if _names_classes(file)]


def _names_classes(file: Path) -> bool:
    try:
        text = read_text(file)
    except ValueError:
        return False
    return all(re.search(pattern, text, re.MULTILINE) for pattern in (r"^names\s*:", r"^(train|val|test)\s*:"))
