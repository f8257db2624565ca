"""Read one data set on disk. Three questions are answered one after the other, each in a module of its own:

what annotates (`annotations`), which image belongs to each annotation (`image_finder`), which split (`splits`).
"""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple

from multibox.data import yolo
from multibox.data.annotations import COCO, YOLO, Annotations, find_annotations
from multibox.data.class_names import find_class_list, order_classes
from multibox.data.coco import CocoTable
from multibox.data.files import FileFinder, FileTree, nfc, read_list, stem_of
from multibox.data.image_finder import ImageFinder
from multibox.data.records import (
    AnnotatedImage,
    Entry,
    ImageAnnotation,
    Object,
    SplitRecords,
    make_dataset,
    similar_classes,
    to_size,
)
from multibox.data.sample import Dataset, DatasetError, Problem
from multibox.data.splits import (
    ALL,
    MARKS,
    PLAIN_FOLDERS,
    Sources,
    by_entries,
    by_file_name,
    by_folder,
    by_lists,
    folder_split,
    split_word,
)
from multibox.images import IMAGE_SUFFIXES
from multibox.messages import counted, quoted

log = logging.getLogger("multibox")

Unlabelled = Literal["empty", "skip"]

DESCRIPTIONS = (".yaml", ".yml", ".data", ".json")
"""Suffixes of the files that a data set can be named by: a `data.yaml`, Darknet's `obj.data`, a JSON."""

CLIMB = 2
"""How many folders above a folder of annotations (`labels/train`) its images are looked for."""


class Options(NamedTuple):
    """How a data set is read.

    Attributes:
        unlabelled: Whether an image without a file of annotations is taken as empty or left out; None to decide by the
            format and the files.
        pixels_from_one: Whether boxes in pixels count from 1 and include the last one, as VOC's devkit does.
    """

    unlabelled: Unlabelled | None = None
    pixels_from_one: bool = False


def open_source(path: Path, options: Options) -> "LabeledImages | CocoTables":
    """Returns the data set at or below a path. Its files are listed, and what annotates them is found out.

    Raises:
        FileNotFoundError: There is no such path.
        DatasetError: No data set is there, or several.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no such folder or file")
    if path.is_file() and path.suffix.lower() not in DESCRIPTIONS:
        raise DatasetError(
            f"{path}: a data set is a folder, or its {', '.join(DESCRIPTIONS)} file, not a file of another kind; "
            f"give the folder ({path.parent}), and unpack an archive first"
        )
    folder = path.parent if path.is_file() else path
    only = path if path.is_file() else None
    tree = FileTree(folder)
    if not tree.images() and (only is None or path.suffix.lower() == ".json"):
        for _ in range(CLIMB):
            if not (folder.name.lower() in PLAIN_FOLDERS or split_word(folder.name)):
                break
            folder = folder.parent
            if (above := FileTree(folder)).images():
                tree, only = above, path
                break
    annotations = find_annotations(tree, only)
    if annotations.format is COCO:
        return CocoTables(path, tree, annotations)
    return LabeledImages(path, tree, annotations, options)


class CocoTables:
    """A data set whose files annotate a whole split each.

    Attributes:
        path: What the data set is called.
        annotations: What annotates it.
    """

    def __init__(self, path: Path, tree: FileTree, annotations: Annotations) -> None:
        self.path = path
        self.annotations = annotations
        self._tree = tree
        self._tables: dict[Path, CocoTable] = {}

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits: those of the files, or of the folders of images if there is one file for all."""
        return tuple(self._folders if self._folders else self._files)

    def read(self, split: str) -> Dataset:
        """Reads the images of a split, one of `splits`, with the classes in the order of the file."""
        return make_dataset(self.records(split))

    def records(self, split: str) -> SplitRecords:
        """Returns a split, one of `splits`, as the files state it."""
        file = self._files[ALL if self._folders else split]
        table = self._table(file)
        name, problems = f"{self.path}, {split}", self._by_folder[1] if self._folders else []
        records = table.records(partial(self._find, file, split), self._tree.root)
        if self._folders:
            inside = set(self._folders[split])
            kept = (each for each in records if isinstance(each, Problem) or each.image in inside)
            return SplitRecords(name, table.class_names, [*problems, *kept], table.category_ids)
        return SplitRecords(name, table.class_names, records, table.category_ids)

    def unused_images(self) -> tuple[Path, ...]:
        """Returns the images that no file states, in the folders of those that are stated."""
        stated = {
            image
            for split, file in self._files.items()
            for image in self._table(file).image_paths(partial(self._find, file, split))
        }
        return _beside(stated, self._tree.images())

    @property
    def counts(self) -> str:
        """What was found, in words."""
        return f"{counted(len(self._tree.images()), 'image')}, {self.annotations}"

    @cached_property
    def _files(self) -> dict[str, Path]:
        return by_file_name(self.annotations.files, self._tree.root)

    @property
    def _folders(self) -> dict[str, Sources]:
        """The images of each split by their folders, where one file annotates all; else nothing."""
        return self._by_folder[0]

    @cached_property
    def _by_folder(self) -> tuple[dict[str, Sources], list[Problem]]:
        """The `_folders`, and what is wrong with them."""
        folders = {image.parent for image in self._tree.images()}
        if list(self._files) != [ALL] or not any(folder_split(_below(each, self._tree.root)) for each in folders):
            return {}, []
        file = self._files[ALL]
        parts, problems = by_folder(self._table(file).image_paths(partial(self._find, file, "")), self._tree.root)
        return ({}, []) if list(parts) == [ALL] else (parts, problems)

    def _table(self, file: Path) -> CocoTable:
        if file not in self._tables:
            self._tables[file] = CocoTable(file)
        return self._tables[file]

    @cached_property
    def _finder(self) -> ImageFinder:
        return ImageFinder(self._tree.images(), self._tree.root)

    def _find(self, file: Path, split: str, stated: str) -> list[Path]:
        return self._finder.find(stated, near=file.parent, split=split if self._files.get(split) == file else "")


class LabeledImages:
    """A data set with a file of annotations for each image.

    Attributes:
        path: What the data set is called.
        annotations: What annotates it.
    """

    def __init__(self, path: Path, tree: FileTree, annotations: Annotations, options: Options) -> None:
        self.path = path
        self.annotations = annotations
        self._tree = tree
        self._options = options
        self._parsed = dict(annotations.parsed)
        self._labels = FileFinder()

    @cached_property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self._config.entries) if self._by_rule else tuple(self._sources[0])

    @property
    def counts(self) -> str:
        """What was found, in words."""
        return f"{counted(len(self._tree.images()), 'image')}, {self.annotations}"

    def read(self, split: str) -> Dataset:
        """Reads the images of a split, one of `splits`."""
        return make_dataset(self.records(split))

    def records(self, split: str) -> SplitRecords:
        """Returns a split, one of `splits`, as the files state it."""
        where, names, found = self._class_names

        def findings() -> Iterator[AnnotatedImage | Problem]:
            yield from found
            yield from similar_classes(where, names)
            yield from self._records(split, names)

        return SplitRecords(f"{self.path}, {split}", names, findings())

    def unused_images(self) -> tuple[Path, ...]:
        """Returns the images that no split has, where a `data.yaml` or lists name the splits."""
        if not self._by_rule and not by_lists(self._tree):
            return ()  # folders do, and `by_folder` has looked for images outside of them
        members = (each for split in self.splits for each in self._members(split))
        return _beside({each[1] for each in members if not isinstance(each, Problem)}, self._tree.images())

    # What annotates

    def _parse(self, file: Path) -> ImageAnnotation:
        if file not in self._parsed:
            parse = self.annotations.format.parse
            assert parse is not None
            self._parsed[file] = parse(file)
        return self._parsed[file]

    @cached_property
    def _config(self) -> yolo.YoloConfig:
        """What a `data.yaml` or `obj.data` says; nothing if there is none."""
        if self.annotations.config is None:
            return yolo.YoloConfig(self._tree.root, None, {})
        return yolo.read_config(self.annotations.config)

    @cached_property
    def _class_names(self) -> tuple[str, list[str], list[Problem]]:
        """The place that names the classes, the names for all splits together, and what is wrong with them."""
        if self._config.names is not None:
            return str(self._config.file), list(self._config.names), list(self._config.problems)
        found = find_class_list(self._tree)
        files = self.annotations.files
        if self.annotations.format is not YOLO:
            used = {entry.name for file in files for entry in self._parse(file).objects} - {""}
            return order_classes(found, used, Path(os.path.commonpath([file.parent for file in files])))
        if found is not None:
            return str(found[0]), found[1], []
        numbers = {int(entry.name) for file in files for entry in self._parse(file).objects if entry.name.isdigit()}
        names = [f"class {number}" for number in range(max(numbers, default=0) + 1)]
        what = "no file names the classes (classes.txt with a name per line, or a data.yaml)"
        return (
            str(self._tree.root),
            names,
            [Problem(str(self._tree.root), what, f"called {names[0]!r} and so on", "class-names-missing")],
        )

    # Which image

    @cached_property
    def _finder(self) -> ImageFinder:
        return ImageFinder(self._tree.images(), self._tree.root)

    @cached_property
    def _pairs(self) -> tuple[dict[Path, Path], dict[Path, Problem], list[Path]]:
        """The file of each image, what is doubtful about it, and the files without an image."""
        pairs: dict[Path, Path] = {}
        doubts: dict[Path, Problem] = {}
        lonely = []
        for file in self.annotations.files:
            stated = () if self.annotations.format is YOLO else self._parse(file).stated
            images = self._finder.pair(file, stated)
            if not images:
                lonely.append(file)
            elif (image := images[0]) in pairs:
                what = f"{pairs[image]} annotates {image.name} too"
                doubts[image] = Problem(str(file), what, "the first taken", "annotation-second")
            else:
                pairs[image] = file
                if len(images) > 1:
                    what = f"{quoted(stem_of(file.stem))} is the name of {len(images)} images"
                    doubts[image] = Problem(str(file), what, f"{image.name} taken", "image-ambiguous")
        return pairs, doubts, lonely

    @cached_property
    def _by_rule(self) -> bool:
        """Whether a `data.yaml` names the images: YOLO's rule then says where their label files are."""
        return self._config.file.suffix.lower() in (".yaml", ".yml") and bool(self._config.entries)

    @cached_property
    def _rule_holds(self) -> bool:
        """Whether at least one label file lies where YOLO's rule says; else the names of the files decide as well."""
        places = (_label_place(image, self._tree.root) for image in self._tree.images())
        return self._by_rule and any(self._labels.find(place) for place in places)

    def _annotation_of(self, image: Path) -> Path | None:
        """Returns the file that annotates an image."""
        if self._by_rule and (found := self._labels.find(_label_place(image, self._tree.root))):
            return found
        return None if self._rule_holds else self._pairs[0].get(image)

    def _image_of(self, line: str, near: Path) -> Path | None:
        """Returns the image that a line of a list means: a path, or a name with or without suffix."""
        found = self._finder.find(line, near=near)
        with_file = [image for image in found if self._annotation_of(image) is not None]
        if found:
            return (with_file or found)[0]
        return None if self._by_rule else self._images_by_file.get(nfc(stem_of(line)))

    @cached_property
    def _images_by_file(self) -> dict[str, Path]:
        return {nfc(stem_of(file.stem)): image for image, file in self._pairs[0].items()}

    # Which split

    @cached_property
    def _sources(self) -> tuple[dict[str, Sources], list[Problem]]:
        """What each split consists of, where no `data.yaml` says so."""
        if self._config.file.suffix.lower() == ".data":
            try:
                return by_entries(self._config.file, self._config.entries)
            except DatasetError:  # Darknet's lists are often left behind; the folders tell as well
                pass
        lists = by_lists(self._tree)
        return (lists, []) if lists else by_folder(self._images, self._tree.root)

    @cached_property
    def _images(self) -> Sequence[Path]:
        """The images with annotations, and those beside them without.

        Raises:
            DatasetError: No image has annotations.
        """
        images = self._tree.images()
        pairs = self._pairs[0]
        if not pairs:
            files = self.annotations.files[:1]
            stated = next((name for file in files for name in (*self._parse(file).stated, file.stem)), "a label file")
            raise DatasetError(
                f"{self._tree.root}: {self.counts}, but no image belongs to one of them (looked for {quoted(stated)}); "
                "put the images beside the annotations, or give the folder that holds both"
            )
        folders = {image.parent for image in pairs}
        return [image for image in images if image.parent in folders]

    def _members(self, split: str) -> Iterator[tuple[str, Path] | Problem]:
        """Yields each image of a split with the place that lists it, and what is wrong with the lists."""
        if self._by_rule:
            config = self._config
            found, problems = by_entries(config.file, {split: config.entries[split]}, config.root)
            sources = found[split]
        else:
            sources, problems = self._sources[0][split], self._sources[1]
        yield from problems
        seen: set[Path] = set()
        for source in sources:
            if source.suffix.lower() == ".txt" and source.is_file():
                yield from self._listed(source, seen)
            elif source.is_dir():
                images = self._tree.below(source, IMAGE_SUFFIXES)
                yield from ((str(image), image) for image in images)
                if not images:
                    yield Problem(str(source), "no image is in this folder", "nothing read", "split-part-empty")
            else:
                yield str(source), source
        yield from self._spares(split, sources)

    def _listed(self, source: Path, seen: set[Path]) -> Iterator[tuple[str, Path] | Problem]:
        """Yields each image of a list with its line, and adds it to the images that the split's lists have named."""
        lines = read_list(source)
        for number, line in lines:
            listed = f"{source}, line {number}"
            name, _, mark = line.replace("\t", " ").rpartition(" ")
            image = self._image_of(line, source.parent)
            if image is None and mark in MARKS:  # a list of one class may name an image again
                image = self._image_of(name.strip(), source.parent)
                if image in seen:
                    continue
            if image is None:
                yield Problem(listed, f"there is no image {quoted(line)}", "image left out", "image-missing")
            else:
                seen.add(image)
                yield listed, image
        if not lines:
            yield Problem(str(source), "the list is empty", "nothing read", "split-part-empty")

    def _spares(self, split: str, sources: Sources) -> Iterator[Problem]:
        """Yields the files of annotations whose images are missing, where no list says what is in a split."""
        if not self._by_rule:
            for file in self._pairs[2]:
                word = folder_split(_below(file.parent, self._tree.root))
                if not any(source.suffix.lower() == ".txt" for source in sources) and (not word or word[1] == split):
                    stated = next(iter(self._parse(file).stated), "")
                    named = f" ({quoted(stated)} is stated)" if stated else ""
                    what = f"its image is missing{named}"
                    yield Problem(str(file), what, "annotation left out", "annotation-without-image")
            return
        sources = tuple(source for source in sources if source.is_dir())
        folders = {_label_place(source / "any", self._tree.root).parent for source in sources} - {self._tree.root}
        texts = {text for folder in folders for text in self._tree.below(folder, {".txt"})}
        images = (image for source in sources for image in self._tree.below(source, IMAGE_SUFFIXES))
        for text in sorted(texts - {self._annotation_of(image) for image in images}):
            if text.name != "classes.txt":
                yield Problem(str(text), "a label file without its image", "label left out", "annotation-without-image")

    # All together

    def _records(self, split: str, names: Sequence[str]) -> Iterator[AnnotatedImage | Problem]:
        members = list(self._members(split))
        yield from (each for each in members if isinstance(each, Problem))
        images = [each for each in members if not isinstance(each, Problem)]
        files = {image: self._annotation_of(image) for _, image in images}
        parsed = {image: self._parse(file) for image, file in files.items() if file is not None}
        if self.annotations.format is YOLO:
            parsed, aside = self._to_boxes(parsed)
            yield from aside
        as_empty, said = self._unlabelled(list(files), parsed)
        yield from said
        to_object = self._object_maker(names)
        doubts = self._second_labels(files) if self._rule_holds else self._pairs[1]
        places = {image.parent for _, image in images} or {self._tree.root}
        common = os.path.commonpath([os.path.abspath(place) for place in places])
        folders: dict[Path, Path] = {}
        for listed, image in images:
            if image in doubts:
                yield doubts.pop(image)
            annotation = parsed.get(image)
            if annotation is not None and annotation.fault:
                yield Problem(str(annotation.file), annotation.fault, "image left out", "annotation-unreadable")
            elif annotation is not None or as_empty:
                if image.parent not in folders:
                    folders[image.parent] = Path(os.path.relpath(os.path.abspath(image.parent), common))
                name = (folders[image.parent] / image.name).as_posix()
                objects = [to_object(entry) for entry in annotation.objects] if annotation else []
                size = to_size(*annotation.size) if annotation else None
                where = str(annotation.file if annotation else image)
                yield AnnotatedImage(
                    name, image, listed, where, objects, size, normalized=self.annotations.format is YOLO
                )

    def _second_labels(self, files: Mapping[Path, Path | None]) -> dict[Path, Problem]:
        """Returns what is doubtful about images that have a label file beside them besides that of YOLO's rule."""
        doubts = {}
        for image, file in files.items():
            spare = self._labels.find(image.with_suffix(".txt"))
            if file is not None and spare not in (None, file):
                what = f"{file} annotates {image.name} too"
                doubts[image] = Problem(str(spare), what, "left aside", "annotation-second")
        return doubts

    def _to_boxes(self, parsed: Mapping[Path, ImageAnnotation]) -> tuple[dict[Path, ImageAnnotation], list[Problem]]:
        entries = [entry for annotation in parsed.values() for entry in annotation.objects]
        boxes, problems = yolo.to_boxes(entries, self._config.key_points)
        rest = iter(boxes)
        result = {
            image: annotation._replace(objects=tuple(next(rest) for _ in annotation.objects))
            for image, annotation in parsed.items()
        }
        return result, problems

    def _unlabelled(self, images: Sequence[Path], parsed: Mapping[Path, ImageAnnotation]) -> tuple[bool, list[Problem]]:
        """Returns whether images without a file of annotations are taken as empty, and says how many there are.

        YOLO's files may be missing where there are no objects, unless other images have empty files for that.
        """
        without = [image for image in images if image not in parsed]
        is_yolo = self.annotations.format is YOLO
        empty = sum(not annotation.objects and not annotation.fault for annotation in parsed.values())
        chosen = self._options.unlabelled
        as_empty = chosen == "empty" if chosen is not None else is_yolo and not empty
        if not without:
            return as_empty, []
        root, kind = self._tree.root, "label" if is_yolo else self.annotations.format.name
        where = str(self.annotations.config or root)
        if len(without) == len(images) and is_yolo:
            place = _label_place(without[0], root)
            what = f"none of the {len(images)} images has a label file like {place}"
        else:
            have = "has" if len(without) == 1 else "have"
            what = f"{len(without)} of {counted(len(images), 'image')} {have} no {kind} file, such as {without[0].name}"
        if not as_empty and chosen is None and is_yolo:
            what += f"; images without objects have an empty file here ({empty} of them)"
        done = "taken as empty; --unlabelled skip leaves them out"
        done = done if as_empty else "left out; --unlabelled empty takes them as empty"
        problem = Problem(where, what, done, "image-without-annotation")
        if chosen is not None:
            log.info(problem)  # as it was asked for, it is no problem
        return as_empty, [problem] if chosen is None else []

    def _object_maker(self, names: Sequence[str]) -> Callable[[Entry], Object | Problem]:
        is_yolo = self.annotations.format is YOLO
        labels = {str(label) if is_yolo else name: label for label, name in enumerate(names)}
        shift = 1.0 if self._options.pixels_from_one and not is_yolo else 0.0
        place = Path(self._class_names[0]).name

        def to_object(entry: Entry) -> Object | Problem:
            if entry.name not in labels:
                kind = "class-unknown"
                if not entry.name:
                    is_line = is_yolo and isinstance(entry.box, str)
                    what, kind = (str(entry.box), entry.kind) if is_line else ("no class is named", "class-none")
                elif is_yolo:
                    what = f"class {entry.name}, but {place} names only 0 to {len(names) - 1}"
                else:
                    what = f"class {quoted(entry.name)} is none of {len(names)} known"
                return Problem(entry.where, what, "box left out", kind)
            if isinstance(entry.box, str):
                return Problem(entry.where, entry.box, "box left out", entry.kind)
            x_min, y_min, x_max, y_max = entry.box
            box = (x_min - shift, y_min - shift, x_max, y_max)
            return Object(entry.where, box, labels[entry.name], difficult=entry.difficult, aside=entry.aside)

        return to_object


def _label_place(image: Path, root: Path) -> Path:
    """Returns the text file of an image: with `labels` for the last `images` of its path, or else beside the image."""
    inside = image.relative_to(root) if image.is_relative_to(root) else image
    parts = list(inside.with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 1 - parts[::-1].index("images")] = "labels"
    return root.joinpath(*parts)


def _beside(used: Set[Path], images: Iterable[Path]) -> tuple[Path, ...]:
    """Returns the images that are not used, in the folders of those that are and in folders beside these."""
    folders = {image.parent for image in used}
    above = {folder.parent for folder in folders}
    near = (each for each in images if each.parent in folders or each.parent.parent in above)
    return tuple(image for image in near if image not in used)


def _below(folder: Path, root: Path) -> tuple[str, ...]:
    return folder.relative_to(root).parts if folder.is_relative_to(root) else ()
