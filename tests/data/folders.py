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


BOX = [20, 16, 60, 56]
"""The box of the exports below, in pixels of an image of 128 x 96."""

LINE = "0 0.3125 0.375 0.3125 0.4166667"
"""The same box of the first class, as a line of YOLO."""


def write_picture(folder: Path, *parts: str) -> Path:
    """Writes an image of 128 x 96."""
    return write_image(folder.joinpath(*parts), width=128, height=96)


def box_xml(name: str = "valve", file_name: str = "", box: Iterable[object] = BOX, extra: str = "") -> str:
    """Returns VOC's XML with one object; the image has 128 x 96 pixels."""
    named = f"<filename>{file_name}</filename>" if file_name else ""
    return voc_xml(named, voc_object(name, box, extra), width=128, height=96)


def coco_of(*file_names: str, names: Sequence[str] = ("valve",), **image: object) -> dict[str, list[dict[str, object]]]:
    """Returns the content of a COCO JSON: each image has the same box, of the first class."""
    x, y, right, bottom = BOX
    numbers = range(len(file_names))
    return {
        "images": [{"id": number, "file_name": file_names[number], **image} for number in numbers],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names)],
        "annotations": [
            {"id": number, "image_id": number, "category_id": 0, "bbox": [x, y, right - x, bottom - y]}
            for number in numbers
        ],
    }


def boxes_of(dataset: Dataset) -> dict[str, list[list[float]]]:
    """Returns the boxes of each image, rounded, by the name of the image."""
    return {sample.name: sample.truth.boxes.round(2).tolist() for sample in dataset}
