"""The layout of PASCAL VOC: `JPEGImages/`, `Annotations/*.xml`, and `ImageSets/Main/<split>.txt` with a name a line."""

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from multibox.data.files import list_files, name_key, read_list
from multibox.data.records import Object, Record, make_dataset, similar_classes, to_numbers, to_size
from multibox.data.sample import Dataset, DatasetError, Problem
from multibox.images import IMAGE_SUFFIXES

MARKS = ("1", "0", "-1")  # behind each name in the files of one class: it is there, hard to see, not there
SIDES = ("xmin", "ymin", "xmax", "ymax")


class _Annotation(NamedTuple):
    file: Path
    root: Element | None  # None where the file cannot be read
    fault: str = ""


def recognize(folder: Path) -> bool:
    """Whether this folder has the layout."""
    return (folder / "ImageSets" / "Main").is_dir() or any((folder / "Annotations").glob("*.xml"))


def list_splits(folder: Path) -> tuple[str, ...]:
    """The splits in `ImageSets/Main`, without the files of one class (`cat_train.txt`)."""
    files = _split_files(folder)
    return tuple(name for name, file in files.items() if not _is_of_a_class(file, files))


def read(folder: Path, split: str, *, pixels_from_one: bool = False) -> Dataset:
    """The images of a split; classes are the names in `classes.txt` or `labels.txt`, or all of the whole set, sorted.

    Args:
        folder: That of `Annotations`.
        split: One of `list_splits`.
        pixels_from_one: The set is drawn in the devkit's convention, which counts pixels from 1 and includes the last:
            1 is taken from `xmin` and `ymin`. Otherwise the numbers are taken as written, as the SSD authors' code did.

    Raises:
        DatasetError: The split cannot be read, or none of its images can be used.
    """
    annotations = {key: _parse(files[0]) for key, files in _by_name(folder / "Annotations", {".xml"}).items()}
    where, class_names = _class_names(folder, annotations)

    def findings() -> Iterator[Record | Problem]:
        yield from similar_classes(where, class_names)
        yield from _records(folder, split, annotations, class_names, shift=1.0 if pixels_from_one else 0.0)

    return make_dataset(f"{folder}, {split}", class_names, findings())


def _records(
    folder: Path, split: str, annotations: Mapping[str, _Annotation], class_names: Sequence[str], shift: float
) -> Iterator[Record | Problem]:
    images = _by_name(folder / "JPEGImages", IMAGE_SUFFIXES)
    labels = {name: label for label, name in enumerate(class_names)}
    split_file = _split_files(folder)[split]
    for number, line in read_list(split_file):
        listed = f"{split_file}, line {number}"
        key = next((key for key in _readings(line) if key in images or key in annotations), line)
        files, annotation = images.get(key, []), annotations.get(key)
        if not files:
            yield Problem(listed, f"there is no image '{key}' in JPEGImages", "image left out")
        elif annotation is None:
            yield Problem(listed, f"there is no '{key}.xml' in Annotations", "image left out")
        elif annotation.root is None:
            yield Problem(str(annotation.file), annotation.fault, "image left out")
        else:
            root, where = annotation.root, str(annotation.file)
            # <filename> is often that of another folder or time: it only decides between two images of one name
            image = next((file for file in files if file.name == root.findtext("filename")), files[0])
            if len(files) > 1 and image.name != root.findtext("filename"):
                yield Problem(listed, f"'{key}' is the name of {len(files)} images", f"{image.name} taken")
            name = image.relative_to(folder / "JPEGImages").as_posix()
            entries = enumerate(root.findall("object"), start=1)
            objects = [_object(f"{where}, object {count}", entry, labels, shift) for count, entry in entries]
            size = to_size(root.findtext("size/height"), root.findtext("size/width"))
            yield Record(name, image, listed, where, objects, size)


def _object(where: str, element: Element, labels: Mapping[str, int], shift: float) -> Object | Problem:
    name = (element.findtext("name") or "").strip()
    where = f"{where} ({name})" if name else where
    missing = [side for side in SIDES if element.findtext(f"bndbox/{side}") is None]
    if name not in labels:
        return Problem(where, f"class '{name}' is none of {len(labels)} known" if name else "no <name>", "box left out")
    if missing:
        return Problem(where, f"no <{missing[0]}> in <bndbox>", "box left out")
    try:
        x_min, y_min, x_max, y_max = to_numbers(element.findtext(f"bndbox/{side}") for side in SIDES)
    except ValueError as error:
        return Problem(where, str(error), "box left out")
    difficult = (element.findtext("difficult") or "").strip() == "1"
    return Object(where, (x_min - shift, y_min - shift, x_max, y_max), labels[name], difficult=difficult)


def _class_names(folder: Path, annotations: Mapping[str, _Annotation]) -> tuple[str, list[str]]:
    """Where the classes are named, and their names: of every split together, so that train and test agree."""
    for file in (folder / "classes.txt", folder / "labels.txt"):
        if file.is_file():
            return str(file), [name for _, name in read_list(file)]
    roots = [annotation.root for annotation in annotations.values() if annotation.root is not None]
    names = {(element.text or "").strip() for root in roots for element in root.findall("object/name")}
    return str(folder / "Annotations"), sorted(names - {""})


def _parse(file: Path) -> _Annotation:
    try:
        return _Annotation(file, _root(file.read_bytes()))
    except OSError as error:
        return _Annotation(file, None, f"the file cannot be read ({error.strerror})")
    except DefusedXmlException as error:  # entities that grow without bound, or that fetch other files
        return _Annotation(file, None, f"the XML holds what no annotation needs and an attack would: {error}")
    except (ParseError, ValueError, LookupError) as error:
        return _Annotation(file, None, f"not well-formed XML ({error})")


def _root(data: bytes) -> Element:
    try:
        root: Element = fromstring(data)
    except (ValueError, ParseError):  # the parser knows neither East Asia's encodings nor UTF-32
        declared = re.match(rb"""\W*xml\b[^>]*\bencoding\s*=\s*["']([\w.-]+)""", data[:400].replace(b"\0", b""))
        if declared is None or declared[1].lower() in (b"utf-8", b"utf-16"):
            raise
        root = fromstring(data.decode(declared[1].decode("ascii")))  # of text, the declaration is not looked at
    return root


def _by_name(folder: Path, suffixes: frozenset[str] | set[str]) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: there is no such folder, which VOC's layout has")
    found: dict[str, list[Path]] = {}
    for file in list_files(folder, suffixes):
        found.setdefault(name_key(file.relative_to(folder).with_suffix("").as_posix()), []).append(file)
    return found


def _readings(line: str) -> Iterator[str]:
    """The image's name that a line may mean: all of it, or without a mark or the suffix behind it."""
    yield name_key(line)
    name, _, mark = line.replace("\t", " ").rpartition(" ")
    if mark in MARKS:
        yield name_key(name.strip())
    if Path(line).suffix.lower() in IMAGE_SUFFIXES:
        yield name_key(line.rpartition(".")[0])


def _split_files(folder: Path) -> dict[str, Path]:
    """The lists of `ImageSets/Main`, the files of one class included."""
    found: dict[str, Path] = {}
    for file in sorted((folder / "ImageSets" / "Main").glob("[!.]*")):
        if file.suffix.lower() == ".txt" and file.is_file():
            if file.stem in found:
                raise DatasetError(f"{found[file.stem]} and {file} are both of split '{file.stem}'; rename one")
            found[file.stem] = file
    return found


def _is_of_a_class(file: Path, splits: Container[str]) -> bool:
    """Whether this is a `cat_train.txt` beside `train.txt`, with a mark behind each name."""
    name, _, split = file.stem.rpartition("_")
    if not name or split not in splits:
        return False
    lines = read_list(file)
    return bool(lines) and lines[0][1].split()[-1] in MARKS
