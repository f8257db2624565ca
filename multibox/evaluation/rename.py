"""Tables of new names, for classes that a detector and a data set call by different names."""

from collections.abc import Mapping
from pathlib import Path

RENAMES: Mapping[str, Mapping[str, str]] = {
    "coco-to-voc": {
        "airplane": "aeroplane",
        "motorcycle": "motorbike",
        "couch": "sofa",
        "dining table": "diningtable",
        "potted plant": "pottedplant",
        "tv": "tvmonitor",
    },
}
"""Built-in tables, each `{detector's class: data set's class}`. COCO has VOC's 20 classes, 14 by the same names."""


def read_renames(path: Path) -> dict[str, str]:
    """Reads a table from a text file with one line `detector's=data set's` for each class.

    Empty lines and `# remarks` are skipped.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line does not have this form, or a class is renamed twice.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file in UTF-8 ({error.reason} at byte {error.start})") from error
    table: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        old, equals, new = (part.strip() for part in line.partition("="))
        if not (old and equals and new):
            raise ValueError(f"{path}, line {number}: '{line.strip()}' is not of the form OLD=NEW")
        if table.setdefault(old, new) != new:
            raise ValueError(f"{path}, line {number}: '{old}' becomes '{new}', but was '{table[old]}' above")
    return table
