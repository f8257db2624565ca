"""Answer the first question of reading: what annotates the images of a folder?

The content of files tells, wherever they lie: VOC's XML, COCO's JSON, labelme's JSON, YOLO's text files.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from multibox.data import coco, labelme, voc, yolo
from multibox.data.class_names import is_class_list
from multibox.data.files import FileTree, folded, stem_of
from multibox.data.records import ImageAnnotation
from multibox.data.sample import DatasetError
from multibox.data.splits import several_sets, split_word
from multibox.files import read_text
from multibox.messages import counted
from multibox.safe_yaml import YAML_LIMIT


class Format(NamedTuple):
    """A kind of annotation.

    Attributes:
        name: What messages call it.
        signs: The files that it is recognized by.
        parse: Reads a file that annotates one image; None where a file annotates a whole split.
    """

    name: str
    signs: str
    parse: Callable[[Path], ImageAnnotation] | None


VOC = Format("VOC XML", "an .xml for each image", voc.parse)
COCO = Format("COCO JSON", "a .json with images, annotations and categories", None)
LABELME = Format("labelme JSON", "a .json with shapes for each image", labelme.parse)
YOLO = Format("YOLO text", "a .txt for each image, or a data.yaml", yolo.parse)
FORMATS = (VOC, COCO, LABELME, YOLO)

OTHERS = {
    ".csv": [(rb"(?i)x_?min|bbox", "a table of boxes", "write them as COCO JSON, or as VOC XML for each image")],
    ".xml": [(rb"<annotations>", "CVAT's own XML", "export the task as 'COCO 1.0' or 'Pascal VOC 1.1'")],
    ".json": [
        (rb'"_via_|"shape_attributes"', "a project of VIA", "export the annotations as COCO"),
        (
            rb'"(?:from_name|annotations)".*"(?:from_name|result)"',
            "Label Studio's own JSON",
            "export as COCO, VOC or YOLO",
        ),
        (rb'"label".*"coordinates"', "CreateML's JSON", "export as COCO, VOC or YOLO"),
        (rb'"assets".*"regions"|"visitedAssets', "a project of VoTT", "export as Pascal VOC"),
    ],
}
"""Signs of annotations that are not read here: a pattern of the content, a name, and the step that helps."""

LOOKED_AT = 20
"""How many files of a suffix are looked at before their kind is known."""

HEAD = 65_536
"""How many bytes at the start of a file are looked at for the signs of labelme's JSON and of `OTHERS`."""


class Annotations(NamedTuple):
    """What annotates a data set.

    Attributes:
        format: The kind of annotation.
        files: The files that annotate images or splits, sorted.
        config: The `data.yaml` or `obj.data` that describes a set of YOLO, or None.
        parsed: The files that had to be parsed to find out.
    """

    format: Format
    files: tuple[Path, ...]
    config: Path | None = None
    parsed: Mapping[Path, ImageAnnotation] = MappingProxyType({})

    def __str__(self) -> str:
        if self.config is not None:
            return f"{self.format.name} ({self.config.name})"
        return f"{counted(len(self.files), self.format.name + ' file')}"


def find_annotations(tree: FileTree, only: Path | None = None) -> Annotations:
    """Returns what annotates the images of a folder.

    Args:
        tree: The files of the folder.
        only: A file or folder to take annotations from; None for all.

    Raises:
        DatasetError: Nothing annotates the images, or files of several kinds or sets do.
    """
    if only is not None and only.suffix.lower() in (".yaml", ".yml", ".data"):
        return Annotations(YOLO, tuple(_label_files(tree.files, tree)), only)
    if only is not None and only.suffix.lower() == ".json":
        return Annotations(LABELME if _is_labelme(only) else COCO, (only,))
    files = [file for file in tree.files if only is None or file.is_relative_to(only)]
    xmls, jsons = _with_suffix(files, ".xml"), _with_suffix(files, ".json")
    parsed = _parse_until_voc(xmls)
    shapes = [file for file in jsons if not file.name.startswith("instances_") and _is_labelme(file)]
    tables = _tables(sorted(set(jsons) - set(shapes)))
    texts, configs = _label_files(files, tree), _configs(files, tree.root)
    if not configs and not _are_labels(texts):
        texts = []
    found = [
        Annotations(VOC, tuple(xmls), parsed=parsed) if parsed else None,
        Annotations(COCO, tuple(tables)) if tables else None,
        Annotations(LABELME, tuple(shapes)) if shapes else None,
        Annotations(YOLO, tuple(texts), configs[0] if configs else None) if configs or texts else None,
    ]
    kinds = [each for each in found if each is not None]
    if len(kinds) > 1:
        advice = "keep one of them here, or give the path of the data.yaml, the JSON, or the folder of the annotations"
        raise DatasetError(f"{tree.root} holds {len(kinds)} layouts at once: {' and '.join(map(str, kinds))}; {advice}")
    if not kinds:
        raise DatasetError(_nothing(tree, files))
    return kinds[0]


def _nothing(tree: FileTree, files: Sequence[Path]) -> str:
    """Returns a message that says what is in a folder that nothing annotates, and the step that helps."""
    images = len(tree.images())
    where = f"{tree.root}: {counted(images, 'image')}, but " if images else f"{tree.root}: "
    for file in files:
        for pattern, name, step in OTHERS.get(file.suffix.lower(), ()):
            if re.search(pattern, _head(file), re.DOTALL):
                return f"{where}the annotations ({file.name}) are {name}, which is not read here; {step}"
    found = [
        counted(len(some), f"{suffix} file")
        for suffix in (".xml", ".json", ".txt", ".csv")
        if (some := _with_suffix(files, suffix))
    ]
    others = f" (found {', '.join(found)} of other content)" if found else ""
    signs = "; ".join(f"{each.name} ({each.signs})" for each in FORMATS)
    step = "label the images first, or give the folder that holds the annotations too"
    return f"{where}no data set is here or in the folders below{others}; looked for {signs}; {step}"


def _with_suffix(files: Sequence[Path], *suffixes: str) -> list[Path]:
    return [file for file in files if file.suffix.lower() in suffixes]


def _parse_until_voc(files: Sequence[Path]) -> dict[Path, ImageAnnotation]:
    """Parses XML files up to the first that is VOC's, or so damaged that it could be. Returns none if none is."""
    parsed = {}
    for file in files[:LOOKED_AT]:
        parsed[file] = voc.parse(file)
        if not parsed[file].fault or "not well-formed" in parsed[file].fault:
            return parsed
    return {}


def _tables(files: Sequence[Path]) -> list[Path]:
    """Returns the files that are COCO's. Those of other tasks, as COCO names them, count only by themselves."""
    others = [file for file in files if file.name.startswith(coco.OTHER_TASKS)]
    first = [file for file in files if file not in others]
    for some in (first, others):
        if found := [file for file in some if file.name.startswith("instances_") or coco.has_parts(file)]:
            return found
    return []


def _is_labelme(file: Path) -> bool:
    """Returns whether a JSON begins like labelme's. The image inside may make it long."""
    return re.search(rb'"shapes"\s*:', _head(file)) is not None


def _head(file: Path) -> bytes:
    """Returns the start of a file; nothing of one that cannot be read, such as a broken link."""
    try:
        with file.open("rb") as content:
            return content.read(HEAD)
    except OSError:
        return b""


def _configs(files: Sequence[Path], root: Path) -> list[Path]:
    """Returns the files that describe a set of YOLO: the `data.yaml`, or another YAML of this kind, or `obj.data`.

    Raises:
        DatasetError: There are several.
    """
    yamls = _with_suffix(files, ".yaml", ".yml")
    named = [file for file in yamls if file.stem == "data"] or [file for file in yamls if _names_classes(file)]
    named = named or [file for file in _with_suffix(files, ".data") if yolo.is_darknet(file)]
    depth = min((len(file.parts) for file in named), default=0)
    named = [file for file in named if len(file.parts) == depth]
    if len(homes := {file.parent for file in named}) > 1:
        raise several_sets(root, homes)
    if len(named) > 1:
        raise DatasetError(f"{named[0]} and {named[1]} both describe the set; give the path of one of them")
    return named


def _names_classes(file: Path) -> bool:
    """Returns whether a YAML file could be a `data.yaml`, without parsing it."""
    try:
        if file.stat().st_size > YAML_LIMIT:
            return False
        text = read_text(file)
    except (OSError, ValueError):
        return False
    return all(
        re.search(pattern, text, re.MULTILINE) for pattern in (r"^names\s*:", r"^(train|val|valid|validation|test)\s*:")
    )


def _label_files(files: Sequence[Path], tree: FileTree) -> list[Path]:
    """Returns the texts that may be label files of YOLO: those called like an image, or in a folder `labels`."""
    images = {folded(stem_of(image.name)) for image in tree.images()}

    def may_be(file: Path) -> bool:
        if folded(stem_of(file.stem)) in images:
            return True
        return _is_for_labels(file) and split_word(file.stem) is None

    return [file for file in _with_suffix(files, ".txt") if not is_class_list(file) and may_be(file)]


def _are_labels(texts: Sequence[Path]) -> bool:
    """Returns whether the first texts that are not empty look like lines of YOLO; all may be empty."""
    content = (yolo.parse(file) for file in texts[:LOOKED_AT])
    looks = [yolo.looks_like_labels(each) for each in content if each.objects]
    return bool(texts) and (any(looks) or not looks)


def _is_for_labels(file: Path) -> bool:
    return any(part.lower() in ("labels", "label") for part in file.parts[:-1])
