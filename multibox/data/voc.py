"""The layout of PASCAL VOC: `JPEGImages/`, `Annotations/*.xml`, and `ImageSets/Main/<split>.txt`."""

import codecs
import re
from collections.abc import Container, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from multibox.data.files import list_files, nfc, read_list
from multibox.data.records import AnnotatedImage, Object, make_dataset, similar_classes, to_numbers, to_size
from multibox.data.sample import Dataset, DatasetError, Problem
from multibox.images import IMAGE_SUFFIXES
from multibox.messages import quoted, shortened

MARKS = ("1", "0", "-1")
"""Marks behind each name in a list of one class: the image has it, has only difficult objects of it, or lacks it."""

SIDES = ("xmin", "ymin", "xmax", "ymax")


NO_ENCODINGS = ("idna", "punycode", "raw-unicode-escape", "unicode-escape")
"""Codecs of Python that no XML is written in. Those for domain names take time that grows with the length squared."""


class _Annotation(NamedTuple):
    """The content of an XML file: one image and its objects.

    Attributes:
        file: The XML file.
        fault: Why the file cannot be read; "" if it can.
        file_name: Name of the image; "" if none is given.
        size: `(height, width)` as text; None where nothing is given.
        objects: The objects in the order of the file.
    """

    file: Path
    fault: str = ""
    file_name: str = ""
    size: tuple[str | None, str | None] = (None, None)
    objects: tuple["_Entry", ...] = ()


class _Entry(NamedTuple):
    """An `<object>`: the name of its class, its mark, and the text of each of the `SIDES`, None if it is missing."""

    name: str
    difficult: bool
    box: tuple[str | None, ...]


class VocLayout:
    """A data set in the layout of PASCAL VOC. Its annotations are parsed once, when the first split is read.

    Attributes:
        folder: The folder of `Annotations`.
    """

    name = "VOC"
    signs = "Annotations/*.xml and ImageSets/Main/<split>.txt"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def recognize(cls, path: Path) -> "VocLayout | None":
        """Returns the layout if this folder is VOC's, or else None."""
        found = (path / "ImageSets" / "Main").is_dir() or any((path / "Annotations").glob("*.xml"))
        return cls(path) if found else None

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The lists in `ImageSets/Main`, without the lists of one class (`cat_train.txt`)."""
        files = self._split_files
        return tuple(name for name, file in files.items() if not _is_of_a_class(file, files))

    def read(self, split: str, *, pixels_from_one: bool = False) -> Dataset:
        """Reads the images of a split.

        Class names are those of `classes.txt` or `labels.txt`, or else all names in the annotations of the whole set,
        sorted.

        Args:
            split: One of `splits`.
            pixels_from_one: Whether boxes follow the devkit's convention, which counts pixels from 1 and includes the
                last: 1 is then subtracted from `xmin` and `ymin`. Otherwise the numbers are taken as they are written,
                as the SSD authors' code does.

        Raises:
            DatasetError: The split cannot be read, or none of its images can be used.
        """
        where, class_names = self._class_names

        def findings() -> Iterator[AnnotatedImage | Problem]:
            yield from similar_classes(where, class_names)
            labels = {name: label for label, name in enumerate(class_names)}
            yield from self._images_of(self._split_files[split], labels, shift=1.0 if pixels_from_one else 0.0)

        return make_dataset(f"{self.folder}, {split}", class_names, findings())

    def _images_of(
        self, split_file: Path, labels: Mapping[str, int], shift: float
    ) -> Iterator[AnnotatedImage | Problem]:
        images, annotations = self._images, self._annotations
        for number, line in read_list(split_file):
            listed = f"{split_file}, line {number}"
            key = next((key for key in _readings(line) if key in images or key in annotations), line)
            files, annotation = images.get(key, []), annotations.get(key)
            if not files:
                yield Problem(listed, f"there is no image {quoted(key)} in JPEGImages", "image left out")
            elif annotation is None:
                yield Problem(listed, f"there is no {quoted(f'{key}.xml')} in Annotations", "image left out")
            elif annotation.fault:
                yield Problem(str(annotation.file), annotation.fault, "image left out")
            else:
                # <filename> is often outdated, so it only decides between two images of the same name
                image = next((file for file in files if file.name == annotation.file_name), files[0])
                if len(files) > 1 and image.name != annotation.file_name:
                    yield Problem(listed, f"{quoted(key)} is the name of {len(files)} images", f"{image.name} taken")
                name = image.relative_to(self.folder / "JPEGImages").as_posix()
                where = str(annotation.file)
                entries = enumerate(annotation.objects, start=1)
                objects = [_object(f"{where}, object {place}", entry, labels, shift) for place, entry in entries]
                yield AnnotatedImage(name, image, listed, where, objects, to_size(*annotation.size))

    @cached_property
    def _annotations(self) -> dict[str, _Annotation]:
        files = _by_name(self.folder / "Annotations", {".xml"})
        return {key: _parse(first) for key, (first, *_) in files.items()}

    @cached_property
    def _images(self) -> dict[str, list[Path]]:
        return _by_name(self.folder / "JPEGImages", IMAGE_SUFFIXES)

    @cached_property
    def _class_names(self) -> tuple[str, list[str]]:
        """The place that names the classes, and the names of all splits together, so that train and test agree."""
        for file in (self.folder / "classes.txt", self.folder / "labels.txt"):
            if file.is_file():
                return str(file), [name for _, name in read_list(file)]
        names = {entry.name for annotation in self._annotations.values() for entry in annotation.objects}
        return str(self.folder / "Annotations"), sorted(names - {""})

    @cached_property
    def _split_files(self) -> dict[str, Path]:
        """The lists of `ImageSets/Main` by name, the lists of one class included."""
        found: dict[str, Path] = {}
        for file in sorted((self.folder / "ImageSets" / "Main").glob("[!.]*")):
            if file.suffix.lower() == ".txt" and file.is_file():
                if file.stem in found:
                    raise DatasetError(f"{found[file.stem]} and {file} are both of split '{file.stem}'; rename one")
                found[file.stem] = file
        return found


def _object(where: str, entry: _Entry, labels: Mapping[str, int], shift: float) -> Object | Problem:
    where = f"{where} ({shortened(entry.name, 60)})" if entry.name else where
    if entry.name not in labels:
        what = f"class {quoted(entry.name)} is none of {len(labels)} known" if entry.name else "no <name>"
        return Problem(where, what, "box left out")
    if None in entry.box:
        return Problem(where, f"no <{SIDES[entry.box.index(None)]}> in <bndbox>", "box left out")
    try:
        x_min, y_min, x_max, y_max = to_numbers(entry.box)
    except ValueError as error:
        return Problem(where, str(error), "box left out")
    return Object(where, (x_min - shift, y_min - shift, x_max, y_max), labels[entry.name], difficult=entry.difficult)


def _parse(file: Path) -> _Annotation:
    try:
        root = _root(file.read_bytes())
    except OSError as error:
        return _Annotation(file, f"the file cannot be read ({error.strerror})")
    except DefusedXmlException as error:  # entities that grow without bound, or that fetch other files
        what = f"the XML holds what no annotation needs and an attack would: {shortened(str(error), 200)}"
        return _Annotation(file, what)
    except (ParseError, ValueError, LookupError) as error:
        return _Annotation(file, f"not well-formed XML ({shortened(str(error), 200)})")
    size = root.findtext("size/height"), root.findtext("size/width")
    entries = tuple(
        _Entry(
            (element.findtext("name") or "").strip(),
            (element.findtext("difficult") or "").strip() == "1",
            tuple(element.findtext(f"bndbox/{side}") for side in SIDES),
        )
        for element in root.findall("object")
    )
    return _Annotation(file, "", root.findtext("filename") or "", size, entries)


def _root(data: bytes) -> Element:
    try:
        root: Element = fromstring(data)
    except (ValueError, ParseError):  # the parser knows neither East Asia's encodings nor UTF-32
        declared = re.match(rb"""\W*xml\b[^>]*\bencoding\s*=\s*["']([\w.-]+)""", data[:400].replace(b"\0", b""))
        encoding = codecs.lookup(declared[1].decode("ascii")).name if declared else ""
        if encoding in ("", "utf-8", "utf-16", *NO_ENCODINGS):
            raise
        root = fromstring(data.decode(encoding))  # the parser ignores the declaration of text that is decoded
    return root


def _by_name(folder: Path, suffixes: frozenset[str] | set[str]) -> dict[str, list[Path]]:
    """Returns the files with these suffixes by their path in the folder, without suffix and in composed Unicode."""
    if not folder.is_dir():
        raise DatasetError(f"{folder}: there is no such folder, which VOC's layout has")
    found: dict[str, list[Path]] = {}
    for file in list_files(folder, suffixes):
        found.setdefault(nfc(file.relative_to(folder).with_suffix("").as_posix()), []).append(file)
    return found


def _readings(line: str) -> Iterator[str]:
    """Yields the names that a line may mean: the whole line, or the line without a mark or suffix at its end."""
    yield nfc(line)
    name, _, mark = line.replace("\t", " ").rpartition(" ")
    if mark in MARKS:
        yield nfc(name.strip())
    if Path(line).suffix.lower() in IMAGE_SUFFIXES:
        yield nfc(line.rpartition(".")[0])


def _is_of_a_class(file: Path, splits: Container[str]) -> bool:
    """Returns whether a list is of one class: a `cat_train.txt` beside `train.txt`, with a mark behind each name."""
    name, _, split = file.stem.rpartition("_")
    if not name or split not in splits:
        return False
    lines = read_list(file)
    return bool(lines) and lines[0][1].split()[-1] in MARKS
