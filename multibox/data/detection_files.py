"""Files of detections for other programs, written and read: COCO results, FiftyOne, Label Studio, YOLO text."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

import numpy as np

from multibox.data.sample import Dataset
from multibox.detections import Detections
from multibox.messages import list_names, quoted

Form = Literal["coco", "fiftyone", "label-studio", "yolo"]

LOCAL_FILES = "/data/local-files/?d="
"""How Label Studio names a file below the folder that its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT says."""


class FoundImage(NamedTuple):
    """An image and what was found in it.

    Attributes:
        name: Path of the image, below the folder that the other program reads it from.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        found: Each detection: name of its class, label, score, and box in corner form in pixels.
    """

    name: str
    height: int
    width: int
    found: Sequence[tuple[str, int, float, Sequence[float]]]


def write_detections(form: Form, place: Path, images: Sequence[FoundImage], class_names: Sequence[str]) -> None:
    """Writes the detections to a file, or for YOLO to a new folder.

    Args:
        form: Form of the file.
        place: The file or folder.
        images: The images. Their names without folder and suffix must differ, except for COCO and Label Studio.
        class_names: Names of all classes of the detector.

    Raises:
        ValueError: Two images would have one name in the file.
    """
    if form in ("fiftyone", "yolo"):
        _check_stems(images)
    place.parent.mkdir(parents=True, exist_ok=True)
    if form == "yolo":
        place.mkdir(parents=True, exist_ok=True)
        _write(place / "classes.txt", "".join(f"{name}\n" for name in class_names))
        for image in images:
            _write(place / f"{PurePath(image.name).stem}.txt", "".join(_yolo_lines(image)))
        return
    make: Callable[[Sequence[FoundImage], Sequence[str]], object] = {
        "coco": _coco,
        "fiftyone": _fiftyone,
        "label-studio": _label_studio,
    }[form]
    _write(place, json.dumps(make(images, class_names), ensure_ascii=False, allow_nan=False) + "\n")


def _coco(images: Sequence[FoundImage], class_names: Sequence[str]) -> list[dict[str, object]]:
    """Returns COCO's list of results. Beside its four fields each has the name of its file and of its class."""
    return [
        {
            "image_id": image_id,
            "category_id": label + 1,
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": score,
            "file_name": image.name,
            "category_name": name,
        }
        for image_id, image in zip(_image_ids(images), images, strict=True)
        for name, label, score, box in image.found
    ]


def _image_ids(images: Sequence[FoundImage]) -> list[int]:
    """Returns the number in the name of each image, as in COCO's `000000000139.jpg`, or else its place from 1 on."""
    stems = [PurePath(image.name).stem for image in images]
    numbers = [int(stem) for stem in stems if stem.isascii() and stem.isdigit()]
    return numbers if len(set(numbers)) == len(stems) else list(range(1, len(stems) + 1))


def _fiftyone(images: Sequence[FoundImage], class_names: Sequence[str]) -> dict[str, object]:
    """Returns the labels of a FiftyOneImageDetectionDataset: boxes are fractions of the image."""
    return {
        "classes": list(class_names),
        "labels": {
            PurePath(image.name).stem: [
                {
                    "label": name,
                    "bounding_box": [
                        box[0] / image.width,
                        box[1] / image.height,
                        (box[2] - box[0]) / image.width,
                        (box[3] - box[1]) / image.height,
                    ],
                    "confidence": score,
                }
                for name, _, score, box in image.found
            ]
            for image in images
        },
    }


def _label_studio(images: Sequence[FoundImage], class_names: Sequence[str]) -> list[dict[str, object]]:
    """Returns Label Studio's tasks with predictions: boxes are percentages of the image."""
    return [
        {
            "data": {"image": LOCAL_FILES + image.name},
            "predictions": [
                {
                    "model_version": "multibox",
                    "score": max((score for _, _, score, _ in image.found), default=0.0),
                    "result": [
                        {
                            "id": f"box{number}",
                            "from_name": "label",
                            "to_name": "image",
                            "type": "rectanglelabels",
                            "original_width": image.width,
                            "original_height": image.height,
                            "image_rotation": 0,
                            "score": score,
                            "value": {
                                "x": 100 * box[0] / image.width,
                                "y": 100 * box[1] / image.height,
                                "width": 100 * (box[2] - box[0]) / image.width,
                                "height": 100 * (box[3] - box[1]) / image.height,
                                "rotation": 0,
                                "rectanglelabels": [name],
                            },
                        }
                        for number, (name, _, score, box) in enumerate(image.found, start=1)
                    ],
                }
            ],
        }
        for image in images
    ]


def _yolo_lines(image: FoundImage) -> Iterator[str]:
    """Yields a line for each detection: label, center and size as fractions of the image, score."""
    for _, label, score, (x_min, y_min, x_max, y_max) in image.found:
        center = (x_min + x_max) / 2 / image.width, (y_min + y_max) / 2 / image.height
        size = (x_max - x_min) / image.width, (y_max - y_min) / image.height
        yield " ".join([str(label), *(f"{value:.6f}" for value in (*center, *size)), f"{score:.6f}"]) + "\n"


def is_detections(path: Path) -> bool:
    """Returns whether a path may be that of detections: a JSON file, or a folder of text files."""
    return (path.is_file() and path.suffix.lower() == ".json") or (path.is_dir() and any(path.glob("*.txt")))


class _Row(NamedTuple):
    """A detection as a file has it: its image by name or number, its class by name or label, score and box."""

    where: str
    image: str | int
    label: str | int
    score: float
    box: tuple[float, float, float, float]


def read_detections(path: Path, dataset: Dataset) -> list[Detections]:
    """Returns the detections in each image of a data set, from a file of any of the four forms.

    Images are found by their names without folder and suffix, or by COCO's number where the file has no names. Classes
    are found by their names, or by COCO's number: that of the data set, or the label + 1. Images that the data set does
    not have are left out.

    Args:
        path: The file, or the folder of YOLO text files.
        dataset: The data set, which says which images and classes there are.

    Raises:
        ValueError: The file has none of the forms, or names a class that the data set does not have, or no image of it.
        OSError: It cannot be read.
    """
    stems = {PurePath(sample.name).stem: index for index, sample in enumerate(dataset)}
    numbers = {sample.image_id: index for index, sample in enumerate(dataset)}
    if len(stems) < len(dataset):
        raise ValueError(
            f"{dataset.name} has images of the same name in several folders; {path} does not tell them apart"
        )
    rows: list[list[_Row]] = [[] for _ in dataset]
    strange: list[str] = []
    for row in _read(path, dataset, stems):
        index = numbers.get(row.image) if isinstance(row.image, int) else stems.get(row.image)
        if index is None:
            strange.append(str(row.image))
        else:
            rows[index].append(row)
    if strange and not any(rows):
        raise ValueError(f"{path}: none of its images is in {dataset.name}: {list_names(sorted(set(strange)), 3)}")
    return [_detections(each, dataset.class_names) for each in rows]


def _detections(rows: Sequence[_Row], class_names: tuple[str, ...]) -> Detections:
    labels = [_label(row, class_names) for row in rows]
    return Detections(
        np.array([row.box for row in rows], np.float32).reshape(-1, 4),
        np.array([row.score for row in rows], np.float32),
        np.array(labels, np.int64),
        np.full(len(rows), -1),
        class_names,
    )


def _label(row: _Row, class_names: Sequence[str]) -> int:
    if isinstance(row.label, str) and row.label in class_names:
        return list(class_names).index(row.label)
    if isinstance(row.label, int) and 0 <= row.label < len(class_names):
        return row.label
    raise ValueError(f"{row.where}: the class {quoted(row.label)} is none of {list_names(class_names)}")


def _read(path: Path, dataset: Dataset, stems: Mapping[str, int]) -> Iterator[_Row]:
    """Yields the detections of a file or folder, whatever its form."""
    if path.is_dir():
        yield from _read_yolo(path, dataset, stems)
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    try:
        if isinstance(content, dict) and "labels" in content:
            yield from _read_fiftyone(path, content, dataset, stems)
        elif isinstance(content, list) and content and "data" in content[0]:
            yield from _read_label_studio(path, content)
        elif isinstance(content, list):
            yield from _read_coco(path, content, dataset.category_ids)
        else:
            raise ValueError(f"{path}: neither COCO results nor labels of FiftyOne nor tasks of Label Studio")
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path}: an entry is not as the form has it ({type(error).__name__}: {error})") from error


def _read_coco(path: Path, content: Sequence[Mapping[str, Any]], category_ids: Sequence[int] | None) -> Iterator[_Row]:
    label_of = None if category_ids is None else {number: label for label, number in enumerate(category_ids)}
    for place, row in enumerate(content):
        where = f"{path}, result {place}"
        image = PurePath(row["file_name"]).stem if "file_name" in row else int(row["image_id"])
        number = int(row["category_id"])
        label = row.get("category_name", number - 1 if label_of is None else label_of.get(number, -1))
        x, y, width, height = _numbers(where, row["bbox"])
        yield _Row(where, image, label, _score(where, row["score"]), (x, y, x + width, y + height))


def _read_fiftyone(
    path: Path, content: Mapping[str, Any], dataset: Dataset, stems: Mapping[str, int]
) -> Iterator[_Row]:
    for stem, rows in content["labels"].items():
        for place, row in enumerate(rows or ()):
            where = f"{path}, {stem}, detection {place}"
            if stem in stems:
                sample = dataset[stems[stem]]
                box = _scaled(_numbers(where, row["bounding_box"]), sample.width, sample.height)
                yield _Row(where, stem, row["label"], _score(where, row.get("confidence", 1.0)), box)


def _read_label_studio(path: Path, content: Sequence[Mapping[str, Any]]) -> Iterator[_Row]:
    for task, each in enumerate(content):
        stem = PurePath(str(each["data"]["image"]).replace("\\", "/")).stem
        for prediction in each.get("predictions", [])[:1]:
            for place, row in enumerate(prediction["result"]):
                if row.get("type") != "rectanglelabels":
                    continue
                where = f"{path}, task {task}, result {place}"
                value = row["value"]
                fractions = [
                    number / 100 for number in _numbers(where, [value[key] for key in ("x", "y", "width", "height")])
                ]
                box = _scaled(fractions, row["original_width"], row["original_height"])
                yield _Row(where, stem, value["rectanglelabels"][0], _score(where, row.get("score", 1.0)), box)


def _read_yolo(folder: Path, dataset: Dataset, stems: Mapping[str, int]) -> Iterator[_Row]:
    names = folder / "classes.txt"
    known = names.read_text(encoding="utf-8").splitlines() if names.is_file() else None
    for file in sorted(folder.glob("*.txt")):
        if file == names or file.stem not in stems:
            continue
        sample = dataset[stems[file.stem]]
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            where = f"{file}, line {number}"
            values = line.split()
            if not values:
                continue
            if len(values) != 6 or not values[0].isdigit():
                raise ValueError(f"{where}: '{line}' is not a label, four numbers and a score")
            x, y, width, height, score = _numbers(where, values[1:], 5)
            label = int(values[0])
            box = _scaled((x - width / 2, y - height / 2, width, height), sample.width, sample.height)
            name = known[label] if known and label < len(known) else label
            yield _Row(where, file.stem, name, _score(where, score), box)


def _scaled(box: Sequence[float], width: float, height: float) -> tuple[float, float, float, float]:
    """Returns the corners in pixels of a box whose first corner and size are fractions of the image."""
    x, y, box_width, box_height = box
    return x * width, y * height, (x + box_width) * width, (y + box_height) * height


def _numbers(where: str, values: Sequence[Any], count: int = 4) -> list[float]:
    try:
        numbers = [float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {quoted(values)} are not {count} numbers") from error
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{where}: {quoted(values)} are not {count} finite numbers")
    return numbers


def _score(where: str, value: Any) -> float:
    (score,) = _numbers(where, [value], 1)
    if not 0 <= score <= 1:
        raise ValueError(f"{where}: the score {score:g} is not from 0 to 1")
    return score


def _check_stems(images: Sequence[FoundImage]) -> None:
    seen: dict[str, str] = {}
    for image in images:
        stem = PurePath(image.name).stem
        if stem in seen:
            raise ValueError(
                f"{seen[stem]} and {image.name} have one name without folder and suffix; rename one of them"
            )
        seen[stem] = image.name


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
