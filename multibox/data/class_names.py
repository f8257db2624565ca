"""Find the names of the classes in the lists that tools write beside annotations: `classes.txt`, `labels.txt`, ..."""

import json
import re
from collections.abc import Collection
from pathlib import Path

from multibox.data.files import FileTree, read_list
from multibox.data.sample import Problem
from multibox.files import read_text
from multibox.messages import list_names, quoted

BACKGROUND = ("background", "__background__", "_background_")
"""Names, in lower case, of what is no object. The detector has an output of its own for it."""


def folded_class(name: str) -> str:
    """Returns a class name in lower case and without blanks: classes that differ in no more are probably one."""
    return "".join(name.split()).casefold()


def is_class_list(file: Path) -> bool:
    """Returns whether a file has a name that tools give to lists of classes."""
    name = file.name.lower()
    return name in ("classes.txt", "labels.txt", "labelmap.txt") or file.suffix.lower() in (".names", ".labels")


def find_class_list(tree: FileTree) -> tuple[Path, list[str]] | None:
    """Returns the list of classes that lies highest in the data set, and its names; or None if there is none.

    Besides lists, this is the `notes.json` of Label Studio.

    Raises:
        DatasetError: The list cannot be read.
    """
    lists = [file for file in tree.files if is_class_list(file)]
    lists += [file for file in tree.select({".json"}) if file.name == "notes.json"]
    for file in sorted(lists, key=lambda file: len(file.parts)):
        if names := _notes(file) if file.name == "notes.json" else _names(file):
            return file, names
    return None


def order_classes(
    found: tuple[Path, list[str]] | None, used: Collection[str], where: Path
) -> tuple[str, list[str], list[Problem]]:
    """Returns where the classes are named, their names, and what is wrong with the list, for annotations with names.

    Args:
        found: A list of classes as `find_class_list` returns it.
        used: The names in the annotations of the whole set.
        where: The place that names the classes if no list does.
    """
    if found is None:
        return str(where), sorted(used), []
    file, names = found
    parts = (part.strip() for name in names for part in ([name] if name in used else name.split(",")))
    names = [name for name in parts if name]
    ignored = [name for name in names if name.lower() in BACKGROUND and name not in used]
    problems = [
        Problem(str(file), f"{quoted(name)} is no class of objects", "line left out", "class-background-unused")
        for name in ignored
    ]
    names = [name for name in names if name not in ignored]
    if used and not set(used) & set(names):
        has = list_names(sorted(used), 5)
        what = f"no class in it ({list_names(names, 5)}) is in the annotations, which have {has}"
        return (
            str(where),
            sorted(used),
            [*problems, Problem(str(file), what, "the names in the annotations taken", "class-list-foreign")],
        )
    return str(file), names, problems


def _names(file: Path) -> list[str]:
    lines = [line for _, line in read_list(file) if not line.startswith("#")]
    if file.name.lower() == "labelmap.txt":  # CVAT's: name:color:parts:actions
        lines = [line.split(":")[0] for line in lines]
    return lines


def _notes(file: Path) -> list[str]:
    try:
        rows = json.loads(read_text(file))["categories"]
        return [row["name"] for row in sorted(rows, key=lambda row: row["id"]) if re.search(r"\S", row["name"])]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return []
