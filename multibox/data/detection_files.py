"""Files of detections for other programs, written and read: COCO results, FiftyOne, Label Studio, YOLO text."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

import numpy as np

from multibox.data.sample import Dataset, Sample
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


class ReadDetections(NamedTuple):
    """Detections that were read from a file, and what of it was left out.

    Attributes:
        detections: The detections in each image of the data set.
        unknown_images: Images of the file that the data set does not have, in the order of the file.
        unknown_classes: Classes of the file that the data set does not name, in alphabetical order.
    """

    detections: list[Detections]
    unknown_images: tuple[str, ...]
    unknown_classes: tuple[str, ...]


class _Row(NamedTuple):
    """A detection as a file has it: its class by name, or by a number that no class has, its score and its box."""

    name: str
    score: float
    box: tuple[float, float, float, float]


_Found = tuple[str | int, Sequence[_Row]]
"""An image by name or by COCO's number, and detections in it. A file may have several of one image."""


def read_detections(path: Path, dataset: Dataset) -> ReadDetections:
    """Returns the detections in each image of a data set, from a file of any of the four forms.

    Images are found by their names without folder and suffix, or by COCO's number where the file has no names. Classes
    are found by their names, or by COCO's number: that of the data set, or the label + 1. Images and classes that the
    data set does not have are left out.

    Args:
        path: The file, or the folder of YOLO text files.
        dataset: The data set, which says which images and classes there are.

    Raises:
        ValueError: The file has none of the forms, or names no image of the data set, or none of its classes.
        OSError: It cannot be read.
    """
    places: dict[str | int, int] = {PurePath(sample.name).stem: index for index, sample in enumerate(dataset)}
    if len(places) < len(dataset):
        raise ValueError(
            f"{dataset.name} has images of the same name in several folders; {path} does not tell them apart"
        )
    places |= {sample.image_id: index for index, sample in enumerate(dataset)}
    samples = {key: dataset[index] for key, index in places.items()}
    rows: dict[int, list[_Row]] = {}
    unknown: dict[str, None] = {}  # in place of a set, which has no order
    for image, found in _read(path, dataset, samples):
        if image in places:
            rows.setdefault(places[image], []).extend(found)
        else:
            unknown[str(image)] = None
    if not rows:
        names = f": {list_names(tuple(unknown), 3)}" if unknown else ""
        raise ValueError(f"{path} names no image of {dataset.name}{names}")
    named = {row.name for found in rows.values() for row in found}
    strange = tuple(sorted(named.difference(dataset.class_names)))
    if named and len(strange) == len(named):
        raise ValueError(
            f"{path} names no class of {dataset.name}: {list_names(strange)} against {list_names(dataset.class_names)}"
        )
    labels = {name: label for label, name in enumerate(dataset.class_names)}
    detections = [_detections(rows.get(index, ()), labels) for index in range(len(dataset))]
    return ReadDetections(detections, tuple(unknown), strange)


def _detections(rows: Sequence[_Row], labels: Mapping[str, int]) -> Detections:
    """Returns the detections of the classes that have a label."""
    rows = [row for row in rows if row.name in labels]
    return Detections(
        np.array([row.box for row in rows], np.float32).reshape(-1, 4),
        np.array([row.score for row in rows], np.float32),
        np.array([labels[row.name] for row in rows], np.int64),
        np.full(len(rows), -1),
        tuple(labels),
    )


def _read(path: Path, dataset: Dataset, samples: Mapping[str | int, Sample]) -> Iterator[_Found]:
    """Yields the images and detections of a file or folder, whatever its form.

    Detections in images that are none of the samples may be left out.
    """
    if path.is_dir():
        yield from _read_yolo(path, dataset.class_names, samples)
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    try:
        if isinstance(content, dict) and "labels" in content:
            yield from _read_fiftyone(path, content, samples)
        elif isinstance(content, list) and content and "data" in content[0]:
            yield from _read_label_studio(path, content)
        elif isinstance(content, list):
            numbers = dataset.category_ids or range(1, len(dataset.class_names) + 1)
            yield from _read_coco(path, content, dict(zip(numbers, dataset.class_names, strict=True)))
        else:
            raise ValueError(f"{path}: neither COCO results nor labels of FiftyOne nor tasks of Label Studio")
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(f"{path}: an entry is not as the form has it ({type(error).__name__}: {error})") from error


def _read_coco(path: Path, content: Sequence[Mapping[str, Any]], names: Mapping[int, str]) -> Iterator[_Found]:
    for place, row in enumerate(content):
        where = f"{path}, result {place}"
        image = PurePath(row["file_name"]).stem if "file_name" in row else int(row["image_id"])
        number = int(row["category_id"])
        name = str(row.get("category_name", names.get(number, f"category {number}")))
        x, y, width, height = _numbers(where, row["bbox"])
        yield image, [_Row(name, _score(where, row["score"]), (x, y, x + width, y + height))]


def _read_fiftyone(path: Path, content: Mapping[str, Any], samples: Mapping[str | int, Sample]) -> Iterator[_Found]:
    for stem, rows in content["labels"].items():
        found = []
        for place, row in enumerate(rows or () if stem in samples else ()):
            where = f"{path}, {stem}, detection {place}"
            box = _scaled(_numbers(where, row["bounding_box"]), samples[stem].width, samples[stem].height)
            found.append(_Row(str(row["label"]), _score(where, row.get("confidence", 1.0)), box))
        yield stem, found


def _read_label_studio(path: Path, content: Sequence[Mapping[str, Any]]) -> Iterator[_Found]:
    for task, each in enumerate(content):
        found = []
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
                found.append(_Row(str(value["rectanglelabels"][0]), _score(where, row.get("score", 1.0)), box))
        image = str(each["data"]["image"]).removeprefix(LOCAL_FILES)
        yield PurePath(image.replace("\\", "/")).stem, found


def _read_yolo(folder: Path, class_names: Sequence[str], samples: Mapping[str | int, Sample]) -> Iterator[_Found]:
    names = folder / "classes.txt"
    known = names.read_text(encoding="utf-8").splitlines() if names.is_file() else class_names
    for file in sorted(folder.glob("*.txt")):
        if file != names:
            sample = samples.get(file.stem)
            yield file.stem, [] if sample is None else [*_yolo_rows(file, sample, known)]


def _yolo_rows(file: Path, sample: Sample, names: Sequence[str]) -> Iterator[_Row]:
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
        yield _Row(names[label] if label < len(names) else f"class {label}", _score(where, score), box)


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
