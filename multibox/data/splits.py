"""Answer the third question of reading: which split does each image belong to?

In this order: the entries of a `data.yaml` or `obj.data`, lists of images, the names of files (`instances_train.json`),
the names of folders, or else the one split `all`.
"""

import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from multibox.data.files import FileTree, read_list
from multibox.data.sample import DatasetError, Problem
from multibox.images import IMAGE_SUFFIXES
from multibox.messages import counted, quoted, shortened

ALL = "all"
"""The name of the only split of a data set that has none."""

_Content = TypeVar("_Content")

Sources = tuple[Path, ...]
"""What a split consists of: images, folders of images, or lists (`.txt`) with an image on each line."""

PLAIN_FOLDERS = frozenset(
    """
    images image imgs img jpegimages pictures photos frames labels label annotations annotation anns ann xml xmls json
    jsons txt yolo voc coco bboxes boxes data dataset obj set split
    """.split()  # noqa: SIM905 - thirty short words
)
"""Names of folders that say what kind of files are inside, in lower case. They tell no two images apart."""

WORDS = "trainval|train|training|validation|valid|val|testing|test"
KINDS = {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
"""Other words for the usual names of splits."""

PATH_LIMIT = 4096
"""Largest number of characters of a path."""

MARKS = ("1", "0", "-1")
"""Marks behind each name in a list of one class: the image has it, has only difficult objects of it, or lacks it."""


def split_word(name: str) -> str | None:
    """Returns the name in lower case if it is that of a split, also with a year (`Train`, `val2017`), or else None."""
    return name.lower() if re.fullmatch(rf"({WORDS})([-_]?\d{{4}})?", name, re.IGNORECASE) else None


def split_kind(name: str) -> str:
    """Returns the usual name of a split: `train` for `train2017`, `val` for `Valid`."""
    kind = name.lower().rstrip("0123456789-_")
    return KINDS.get(kind, kind)


def word_in(name: str) -> str | None:
    """Returns the one word in the name of a file that names a split (`lvis_v1_train`), or None."""
    words = {word for token in re.split(r"[\W_]+", name) if (word := split_word(token))}
    return words.pop() if len(words) == 1 else None


def folder_split(folders: Sequence[str]) -> tuple[int, str] | None:
    """Returns the place and the split of the first folder that is named after a split, or None.

    A name may also say what is inside: `Train`, `val2017`, `train_images`, `obj_train_data`.
    """
    for place, folder in enumerate(folders):
        others = {token.lower() for token in re.split(r"[\W_]+", folder) if not split_word(token)}
        if (word := split_word(folder) or word_in(folder)) and (others <= PLAIN_FOLDERS or split_word(folder)):
            return place, word
    return None


def kinds_in(folders: Sequence[str]) -> frozenset[str]:
    """Returns the kind of split that folders are named after: none or one, or two for `trainval`."""
    found = folder_split(folders)
    return kinds_of(found[1]) if found else frozenset()


def kinds_of(split: str) -> frozenset[str]:
    """Returns the kinds of images that a split holds; `trainval` holds two. Only names of splits have one."""
    kind = split_kind(split)
    return frozenset({"trainval": ("train", "val")}.get(kind, (kind,) if split_word(split) else ()))


def by_folder(images: Iterable[Path], root: Path) -> tuple[dict[str, Sources], list[Problem]]:
    """Returns the images of each split by the names of their folders, and what is wrong with the others.

    Raises:
        DatasetError: The folders are those of several data sets.
    """
    found: dict[str, list[Path]] = {}
    homes: set[Path] = set()
    cache: dict[Path, tuple[int, str] | None] = {}
    for image in images:
        folder = image.parent
        parts = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
        if folder not in cache:
            cache[folder] = folder_split(parts)
        place = cache[folder]
        found.setdefault(place[1] if place else ALL, []).append(image)
        if place:
            homes.add(_home(folder, root))
    if len(homes) > 1:
        raise several_sets(root, homes)
    problems = []
    if len(found) > 1 and (others := found.pop(ALL, None)):
        are = "is" if len(others) == 1 else "are"
        what = f"{counted(len(others), 'image')}, such as {others[0].name}, {are} in no folder of a split"
        problems.append(Problem(str(others[0].parent), what, "left out", "image-outside-splits"))
    return _ordered({split: tuple(members) for split, members in found.items()}), problems


def by_file_name(files: Sequence[Path], root: Path) -> dict[str, Path]:
    """Returns the file of each split, where a file holds a whole split.

    Its name says which, or else its folder; or else it is called like the file, or `all` if there is only one file.

    Raises:
        DatasetError: Two files are of the same split, perhaps of several data sets.
    """
    found: dict[str, Path] = {}
    for file in files:
        above = file.parent.relative_to(root).parts if file.is_relative_to(root) else ()
        folder = folder_split(above)
        split = word_in(file.stem) or (folder[1] if folder else None)
        if split is None:
            split = ALL if len(files) == 1 else file.stem.removeprefix("instances_")
        if split in found:
            if len(homes := {_home(each.parent, root) for each in files}) > 1:
                raise several_sets(root, homes)
            raise DatasetError(f"{found[split]} and {file} are both of split '{split}'; rename or remove one")
        found[split] = file
    return _ordered(found)


def by_lists(tree: FileTree) -> dict[str, Sources]:
    """Returns the lists of each split: those in `ImageSets/Main` (or `ImageSets`), or else those named after a split.

    Lists of one class (`cat_train.txt`, with a mark behind each name) are no splits beside a `train.txt`. Where there
    are only such lists, as VoTT writes them, those of all classes together are the split.

    Raises:
        DatasetError: Two lists are of the same split.
    """
    texts = tree.select({".txt"})
    named = [file for file in texts if [part.lower() for part in file.parts[-3:-1]] == ["imagesets", "main"]]
    named = named or [file for file in texts if file.parent.name.lower() == "imagesets"]
    if not named:
        named = [file for file in texts if split_word(file.stem) and _lists_images(file)]
    depth = min((len(file.parts) for file in named), default=0)  # a set below a set is another one
    named = [file for file in named if len(file.parts) == depth]
    if len(homes := {_home(file.parent, tree.root) for file in named}) > 1:
        raise several_sets(tree.root, homes)
    files: dict[str, Path] = {}
    for file in named:
        name = split_word(file.stem) or file.stem
        if name in files:
            raise DatasetError(f"{files[name]} and {file} are both of split '{name}'; rename one")
        files[name] = file
    of_classes: dict[str, list[Path]] = {}
    for name, file in files.items():
        owner, _, split = name.rpartition("_")
        if owner and (split in files or split_word(split)) and _has_marks(file):
            of_classes.setdefault(split_word(split) or split, []).append(file)
    in_class = {file for group in of_classes.values() for file in group}
    whole = {name: (file,) for name, file in files.items() if file not in in_class}
    if list(whole) == ["default"]:  # what CVAT calls images that are in no subset
        whole = {ALL: whole["default"]}
    return _ordered(whole | {split: tuple(group) for split, group in of_classes.items() if split not in whole})


def by_entries(
    file: Path, entries: Mapping[str, object], root: object = ""
) -> tuple[dict[str, Sources], list[Problem]]:
    """Returns the sources of each split that a `data.yaml` or `obj.data` names, and what is wrong with the entries.

    Args:
        file: The file that names them.
        entries: The entry of each split: a folder or a list of images, or several.
        root: The folder that the entries start from, as the file states it; "" for its own.

    Raises:
        DatasetError: An entry is neither a folder nor a list.
    """
    if not isinstance(root, str) or len(root) > PATH_LIMIT:
        raise DatasetError(f"{file}: path is {quoted(root)}, which is no folder")
    found: dict[str, Sources] = {}
    problems = []
    for split, entry in entries.items():
        places: dict[Path, int] = {}
        for each in entry if isinstance(entry, list) else [entry]:
            place, other = _locate(file, root, each)
            if other is not None:
                what = f"{split} is {quoted(each)}, and both {place} and {other} are there"
                problems.append(Problem(str(file), what, "the one beside the file taken", "split-part-ambiguous"))
            places[place] = places.get(place, 0) + 1
        for place, times in places.items():
            if times > 1:
                what = f"{split} names {place} {times} times"
                problems.append(Problem(str(file), what, "taken once", "split-part-twice"))
        found[split] = tuple(places)
    return found, problems


def _locate(file: Path, root: str, entry: object) -> tuple[Path, Path | None]:
    """Returns the folder or list of images that an entry means, and another one that it could mean too.

    An entry that was written on another machine (`D:/raccoons/train/images`) may not exist here. Then the longest end
    of it that exists beside the file is used. Roboflow writes `../train/images` for a folder beside the file.
    """
    if not isinstance(entry, str) or not 0 < len(entry) <= PATH_LIMIT:
        raise DatasetError(f"{file}: {quoted(entry)} is no folder and no list of images")
    text = entry.replace("\\", "/")
    parts = Path(text).parts
    tails = [file.parent.joinpath(*parts[start:]) for start in range(1, len(parts))]
    starts = [file.parent / start / each for start in (root, "") for each in dict.fromkeys((entry, text))]
    found = [place for place in (*starts, *tails) if _is_source(place)]
    if not found:
        looked = shortened(str(file.parent / root / entry), 300)
        raise DatasetError(f"{file}: there is no folder and no list of images {quoted(entry)}; looked for {looked}")
    beside = next((place for place in found if ".." not in place.parts), found[0])
    if not root and parts[:1] == ("..",) and found[0] != beside:
        return beside, found[0]
    return found[0], None


def _is_source(place: Path) -> bool:
    return os.path.isdir(place) or (place.suffix.lower() == ".txt" and os.path.isfile(place))


def _ordered(splits: dict[str, _Content]) -> dict[str, _Content]:
    """Returns the splits in the usual order: those to train on, `val`, `test`, and then all others by name."""
    kinds = ["train", "trainval", "val", "test"]

    def place(split: str) -> tuple[int, str]:
        kind = split_kind(split)
        return kinds.index(kind) if kind in kinds else len(kinds), split

    return {split: splits[split] for split in sorted(splits, key=place)}


def several_sets(root: Path, homes: Collection[Path]) -> DatasetError:
    """Returns the error of a folder that holds several data sets, each in a folder of its own."""
    places = ", ".join(map(str, sorted(homes)))
    return DatasetError(f"{root} holds {len(homes)} data sets; give one of them: {places}")


def _home(folder: Path, root: Path) -> Path:
    """Returns the folder of the data set that a folder is a part of, as `images/train` and `ImageSets/Main` are."""
    parts = folder.relative_to(root).parts if folder.is_relative_to(root) else ()
    if place := folder_split(parts):
        parts = parts[: place[0]]
    while parts and parts[-1].lower() in PLAIN_FOLDERS | {"imagesets", "main"}:
        parts = parts[:-1]
    return root.joinpath(*parts)


def _lists_images(file: Path) -> bool:
    """Returns whether a text file names images rather than the objects of one image."""
    first = next((line for _, line in read_list(file)), "")
    is_name = len(first.split()) == 1 and not first.isdigit()
    return is_name or Path(first.rpartition(" ")[0] or first).suffix.lower() in IMAGE_SUFFIXES


def _has_marks(file: Path) -> bool:
    lines = read_list(file)
    return bool(lines) and lines[0][1].split()[-1] in MARKS
