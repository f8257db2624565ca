"""Writes what `multibox detect` found: JSON, CSV, and labels for labeling tools."""

import csv
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

from multibox.cli.output import STANDARD_OUTPUT

LabelFormat = Literal["voc", "coco", "yolo"]

# `data.detection_files` spelled out: importing it would load NumPy, and --help must not
Form = Literal["coco", "fiftyone", "label-studio", "yolo"]

FOUND_FILES: Mapping[Form, str] = {
    "coco": "coco-results.json",
    "fiftyone": "fiftyone.json",
    "label-studio": "label-studio.json",
    "yolo": "yolo-labels",
}
"""Name of the file below `--out` that `--format` writes; that of YOLO is a folder with a text file for each image."""

LABELS_FOLDER = "pre-labels"
"""The folder below `--out` that `--save-labels` writes a data set to."""

Record = Mapping[str, Any]
"""An image and its detections, as in the JSON: `file`, `height`, `width`, `detections`, and `drawn` if it was drawn."""


class Failure(NamedTuple):
    """An image or a source that could not be used, and why."""

    path: str
    why: str


def write_json(
    file: Path, model: str, class_names: Sequence[str], records: Sequence[Record], failed: Sequence[Failure]
) -> None:
    """Writes one JSON object, or prints it for `-`."""
    result = {
        "model": model,
        "class_names": class_names,
        "images": records,
        "failed": [{"file": path, "error": why} for path, why in failed],
    }
    _write(file, json.dumps(result, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def write_csv(file: Path, records: Sequence[Record]) -> None:
    """Writes a table with a row for each detection, or prints it for `-`. Boxes are in pixels of the image."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", "class", "score", "x_min", "y_min", "x_max", "y_max"))
    for record in records:
        for found in record["detections"]:
            writer.writerow((record["file"], found["name"], found["score"], *found["box"]))
    _write(file, text.getvalue())


def _write(file: Path, text: str) -> None:
    if file == STANDARD_OUTPUT:
        sys.stdout.write(text)
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    # A file name that is not UTF-8 is escaped, so that a program that reads the JSON gets it back as it was.
    file.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def write_labels(
    layout: LabelFormat,
    folder: Path,
    class_names: Sequence[str],
    records: Sequence[Record],
    names: Mapping[str, str],
) -> None:
    """Writes the images and their detections as a data set with the one split `train`, to be corrected by hand.

    Args:
        layout: Layout of the data set.
        folder: A new or empty folder.
        class_names: Names of all classes of the detector.
        records: The images. Those without detections become images without objects.
        names: Name of each image in the data set by its path, as `label_names` makes them.
    """
    from multibox.data.sample import Dataset, GroundTruth, Sample
    from multibox.data.write import WRITERS
    from multibox.images import IMAGE_SUFFIXES, read_image

    samples = []
    scores: list[float] = []
    for number, record in enumerate(records, start=1):
        file = Path(record["file"])
        found = [each for each in record["detections"] if _has_area(each["box"])]
        truth = GroundTruth([each["box"] for each in found], [each["label"] for each in found])
        image = file if file.suffix.lower() in IMAGE_SUFFIXES else read_image(file)  # readers would not look at it
        samples.append(Sample(names[record["file"]], image, record["height"], record["width"], truth, number))
        scores += [each["score"] for each in found]
    WRITERS[layout]({"train": Dataset(str(folder), tuple(class_names), samples)}, folder)
    if layout == "yolo":  # labelImg looks for the names beside the labels
        _write(folder / "labels" / "train" / "classes.txt", "".join(f"{name}\n" for name in class_names))
    if layout == "coco":  # Label Studio does not import boxes without scores
        annotations = folder / "annotations" / "instances_train.json"
        content = json.loads(annotations.read_text(encoding="utf-8"))
        for annotation, score in zip(content["annotations"], scores, strict=True):
            annotation["score"] = score
        _write(annotations, json.dumps(content, ensure_ascii=False))


def write_found(
    form: Form, place: Path, class_names: Sequence[str], records: Sequence[Record], names: Mapping[str, PurePath]
) -> None:
    """Writes the detections for another program.

    Args:
        form: Form of the file.
        place: The file, or the folder of YOLO's text files.
        class_names: Names of all classes of the detector.
        records: The images and their detections.
        names: Path of each image below its source, by its whole path.
    """
    from multibox.data.detection_files import FoundImage, write_detections

    images = [
        FoundImage(
            names[record["file"]].as_posix(),
            record["height"],
            record["width"],
            [(each["name"], each["label"], each["score"], each["box"]) for each in record["detections"]],
        )
        for record in records
    ]
    write_detections(form, place, images, class_names)


def label_names(images: Mapping[str, PurePath]) -> dict[str, str]:
    """Returns a name for each image in a data set: folders become a part of it, and equal stems get a number.

    Args:
        images: Path of each image relative to its source, by its whole path.
    """
    taken = {"classes"}  # the file of the class names
    names = {}
    for path, relative in images.items():
        name = "_".join(part for part in relative.parts if part not in (os.sep, os.pardir))
        name = "".join(character if character.isprintable() else "_" for character in name).strip()
        stem, number = PurePath(name).stem, 1
        while (f"{stem}-{number}" if number > 1 else stem).casefold() in taken:
            number += 1
        stem = f"{stem}-{number}" if number > 1 else stem
        taken.add(stem.casefold())
        names[path] = stem + PurePath(name).suffix
    return names


def _has_area(box: Sequence[float]) -> bool:
    """Returns whether a box has an area; one on the edge of the image may have lost it, and is no label then."""
    x_min, y_min, x_max, y_max = box
    return x_max > x_min and y_max > y_min
