"""Write small data sets by hand for the tests of the readers, and read data sets without problems."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from multibox.data import Dataset, read_dataset


def read_clean(path: str | Path | Sequence[str | Path], *, split: str | None = None) -> Dataset:
    """Reads a data set; raises if anything is wrong with it."""
    return read_dataset(path, split=split, on_problem="error")


def write_image(file: Path, *, width: int = 64, height: int = 48, orientation: int | None = None) -> Path:
    """Writes a gray image of this size; an EXIF orientation turns it when it is shown."""
    file.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.new("L", (width, height), 128).save(file, exif=exif)
    return file


def write_text(file: Path, text: str, encoding: str = "utf-8") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text.encode(encoding))
    return file


def write_json(file: Path, content: object) -> Path:
    return write_text(file, json.dumps(content))


def voc_object(name: str, box: Iterable[object], extra: str = "") -> str:
    x_min, y_min, x_max, y_max = box
    corners = f"<xmin>{x_min}</xmin><ymin>{y_min}</ymin><xmax>{x_max}</xmax><ymax>{y_max}</ymax>"
    return f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def voc_xml(*objects: str, width: int = 64, height: int = 48) -> str:
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{''.join(objects)}</annotation>"


def write_voc_set(folder: Path, annotations: dict[str, str], *, split: str = "train") -> Path:
    """Writes an image of 64 x 48 and an annotation for each name, all in one split."""
    for name, xml in annotations.items():
        write_image(folder / "JPEGImages" / f"{name}.png")
        write_text(folder / "Annotations" / f"{name}.xml", xml)
    write_text(folder / "ImageSets" / "Main" / f"{split}.txt", "\n".join(annotations))
    return folder


def write_yolo_set(folder: Path, labels: dict[str, str], *, names: str = "[cat, dog]") -> Path:
    """Writes an image of 64 x 48 and a label file for each name, all in `train`."""
    for name, lines in labels.items():
        write_image(folder / "images" / "train" / f"{name}.png")
        write_text(folder / "labels" / "train" / f"{name}.txt", lines)
    write_text(folder / "data.yaml", f"train: images/train\nnames: {names}\n")
    return folder
