"""Class names for weights files of other projects, which hold none: those of VOC and COCO, and lists of one's own."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from multibox.data.class_names import BACKGROUND
from multibox.files import read_text

VOC = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The twenty classes of PASCAL VOC in the order that all projects use."""

COCO_BY_ID: Mapping[int, str] = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train", 8: "truck",
    9: "boat", 10: "traffic light", 11: "fire hydrant", 13: "stop sign", 14: "parking meter", 15: "bench",
    16: "bird", 17: "cat", 18: "dog", 19: "horse", 20: "sheep", 21: "cow", 22: "elephant", 23: "bear",
    24: "zebra", 25: "giraffe", 27: "backpack", 28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase",
    34: "frisbee", 35: "skis", 36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat",
    40: "baseball glove", 41: "skateboard", 42: "surfboard", 43: "tennis racket", 44: "bottle",
    46: "wine glass", 47: "cup", 48: "fork", 49: "knife", 50: "spoon", 51: "bowl", 52: "banana", 53: "apple",
    54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot", 58: "hot dog", 59: "pizza", 60: "donut",
    61: "cake", 62: "chair", 63: "couch", 64: "potted plant", 65: "bed", 67: "dining table", 70: "toilet",
    72: "tv", 73: "laptop", 74: "mouse", 75: "remote", 76: "keyboard", 77: "cell phone", 78: "microwave",
    79: "oven", 80: "toaster", 81: "sink", 82: "refrigerator", 84: "book", 85: "clock", 86: "vase",
    87: "scissors", 88: "teddy bear", 89: "hair drier", 90: "toothbrush",
}  # fmt: skip
"""The eighty classes of COCO's detection task by their number in its annotations. Of 1 to 91, eleven are unused."""

COCO = tuple(COCO_BY_ID.values())
"""The eighty classes of COCO in the order of their numbers, without the gaps."""


class GuessedNames(tuple[str, ...]):
    """Class names that a file's classes got by their number alone.

    Attributes:
        owner: Whose classes they are, `PASCAL VOC`; empty where they are numbered.
    """

    owner: str

    def __new__(cls, names: Iterable[str], owner: str = "") -> "GuessedNames":
        made = super().__new__(cls, names)
        made.owner = owner
        return made


def class_names(count: int) -> GuessedNames:
    """Returns VOC's names for twenty classes, COCO's for eighty, and `class 1`, `class 2`, ... for any other number."""
    if count == len(VOC):
        return GuessedNames(VOC, "PASCAL VOC")
    if count == len(COCO):
        return GuessedNames(COCO, "COCO")
    return GuessedNames(f"class {number}" for number in range(1, count + 1))


def read_class_names(path: Path) -> list[str]:
    """Returns the names in a text file, one on each line or separated by commas, without the background.

    Raises:
        ValueError: The file cannot be read, or has no names.
    """
    try:
        text = read_text(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    separated = text.replace("\n", ",").split(",") if "," in text else text.splitlines()
    names = [name for name in map(str.strip, separated) if name]
    names = [name for name in names if name.lower() not in BACKGROUND]
    if not names:
        raise ValueError(f"{path}: no class names; expected one on each line, or separated by commas")
    return names
