"""Write data sets as folders that other tools read, in the layouts of VOC, COCO and YOLO.

Image files are copied unchanged, with the suffix of their content; pixels are saved as PNG, which loses nothing. Marks
that a format does not have are lost: VOC has no crowd regions, COCO no difficult objects, YOLO neither. Difficult
objects become plain ones, and crowd regions, which are not objects, are left out.
"""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path, PurePath
from xml.etree.ElementTree import Element, ElementTree, SubElement, indent

import numpy as np
import yaml

from multibox.boxes import corner_to_center
from multibox.data.sample import Dataset, Sample
from multibox.images import FORMATS, IMAGE_SUFFIXES, image_header
from multibox.messages import list_names, quoted


def write_voc(splits: Mapping[str, Dataset], folder: str | os.PathLike[str]) -> None:
    """Writes `JPEGImages/`, `Annotations/` and `ImageSets/Main/<split>.txt` of VOC's layout.

    Coordinates are those of `GroundTruth`: decimal numbers, counted from 0. VOC has no place for the order of the
    classes, so `classes.txt` keeps it. Areas of outlines are not kept.

    Args:
        splits: The data set of each split, by the name of the split.
        folder: A new or empty folder.

    Raises:
        ValueError: The splits have different classes, or two images of any split would have the same name.
        FileExistsError: The folder has files already.
    """
    root, class_names = _prepare(splits, folder)
    _refuse_repeats(map(file_stem, chain.from_iterable(splits.values())), "images would be called")
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    _write_text(root / "classes.txt", "".join(f"{name}\n" for name in class_names))
    for split, dataset in splits.items():
        for sample, file in _write_images(dataset, root / "JPEGImages"):
            annotation = ElementTree(_voc_annotation(sample, file.name, class_names))
            annotation.write(root / "Annotations" / f"{file_stem(sample)}.xml", encoding="utf-8", xml_declaration=True)
        _write_text(
            root / "ImageSets" / "Main" / f"{split}.txt", "".join(f"{file_stem(sample)}\n" for sample in dataset)
        )


def write_coco(splits: Mapping[str, Dataset], folder: str | os.PathLike[str]) -> None:
    """Writes `annotations/instances_<split>.json` of COCO's layout, and images to `<split>/`.

    The numbers of images and categories are kept. Categories without numbers are counted from 1.

    Args:
        splits: The data set of each split, by the name of the split.
        folder: A new or empty folder.

    Raises:
        ValueError: The splits have different classes, or two images of a split would have the same name or number.
        FileExistsError: The folder has files already.
    """
    root, class_names = _prepare(splits, folder)
    for split, dataset in splits.items():
        _refuse_repeats(map(file_stem, dataset), f"images of '{split}' would be called")
        _refuse_repeats((sample.image_id for sample in dataset), f"images of '{split}' have the image_id")
    (root / "annotations").mkdir(parents=True)
    for split, dataset in splits.items():
        category_ids = dataset.category_ids or range(1, len(class_names) + 1)
        images: list[dict[str, object]] = []
        annotations: list[dict[str, object]] = []
        for sample, file in _write_images(dataset, root / split):
            images.append(
                {"id": sample.image_id, "file_name": file.name, "width": sample.width, "height": sample.height}
            )
            truth = sample.truth
            for index, (x_min, y_min, x_max, y_max) in enumerate(truth.boxes):
                annotations.append(
                    {
                        "id": len(annotations) + 1,  # pycocotools takes 0 for no match
                        "image_id": sample.image_id,
                        "category_id": category_ids[truth.labels[index]],
                        "bbox": [float(str(value)) for value in (x_min, y_min, x_max - x_min, y_max - y_min)],
                        "area": float(str(truth.areas[index])),
                        "iscrowd": int(truth.crowd[index]),
                    }
                )
        categories = [{"id": number, "name": name} for number, name in zip(category_ids, class_names, strict=True)]
        content = {"images": images, "annotations": annotations, "categories": categories}
        _write_text(root / "annotations" / f"instances_{split}.json", json.dumps(content, ensure_ascii=False))


def write_yolo(splits: Mapping[str, Dataset], folder: str | os.PathLike[str]) -> None:
    """Writes `images/<split>/`, `labels/<split>/` and `data.yaml` of YOLO's layout.

    An image without objects gets an empty label file. Areas of outlines are not kept.

    Args:
        splits: The data set of each split, by the name of the split: `train`, `val` or `test`.
        folder: A new or empty folder.

    Raises:
        ValueError: A split is not `train`, `val` or `test`, the splits have different classes, or two
            images of a split would have the same name.
        FileExistsError: The folder has files already.
    """
    root, class_names = _prepare(splits, folder)
    for split, dataset in splits.items():
        if split not in ("train", "val", "test"):
            raise ValueError(f"YOLO's splits are 'train', 'val' and 'test', not '{split}'")
        _refuse_repeats(map(file_stem, dataset), f"images of '{split}' would be called")
    for split, dataset in splits.items():
        labels = root / "labels" / split
        labels.mkdir(parents=True)
        for sample, _ in _write_images(dataset, root / "images" / split):
            truth = sample.truth[~sample.truth.crowd]
            sides = np.array([sample.width, sample.height] * 2, dtype=np.float64)
            lines = [
                " ".join([str(label), *(f"{value:.9g}" for value in row)])
                for label, row in zip(truth.labels, corner_to_center(truth.boxes / sides), strict=True)
            ]
            _write_text(labels / f"{file_stem(sample)}.txt", "".join(f"{line}\n" for line in lines))
    content = {split: f"images/{split}" for split in splits} | {"names": dict(enumerate(class_names))}
    _write_text(root / "data.yaml", yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


WRITERS = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}

KEPT = {"voc": ("difficult",), "coco": ("crowd", "area"), "yolo": ()}
"""What each format keeps of an object, beside its class and its box."""


def _prepare(splits: Mapping[str, Dataset], folder: str | os.PathLike[str]) -> tuple[Path, tuple[str, ...]]:
    """Checks the splits and the folder, and writes nothing. Returns the folder and the class names of all splits."""
    if not splits:
        raise ValueError("there is no split to write; give at least one, as in {'train': dataset}")
    for split in splits:
        if not re.fullmatch(r"\w[\w.-]*", split):
            raise ValueError(
                f"{quoted(split)} cannot name a split; letters, digits, '_', '-' and '.' can, as in 'train'"
            )
    (first, dataset), *others = splits.items()
    for split, other in others:
        if other.class_names != dataset.class_names:
            raise ValueError(
                f"the classes of '{split}' are {list_names(other.class_names)}, but those of '{first}' are "
                f"{list_names(dataset.class_names)}; all splits need the same classes in the same order"
            )
    root = Path(folder)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        what = "has files already" if root.is_dir() else "is a file"
        raise FileExistsError(f"{root}: {what}; choose a new or an empty folder for the data set")
    return root, dataset.class_names


def _refuse_repeats(values: Iterable[object], what: str) -> None:
    """Raises a `ValueError` that names the most frequent value if it occurs more than once."""
    value, count = next(iter(Counter(values).most_common(1)), (None, 0))
    if count > 1:
        raise ValueError(f"{count} {what} {quoted(value)}; each needs one of its own")


def _write_images(dataset: Dataset, folder: Path) -> Iterator[tuple[Sample, Path]]:
    """Writes the image of each sample to the folder, and yields the sample with the path of its file."""
    folder.mkdir(parents=True, exist_ok=True)
    for sample in dataset:
        if isinstance(sample.image, Path):
            file = folder / (file_stem(sample) + _suffix(sample.image))
            shutil.copyfile(sample.image, file)
        else:
            file = folder / f"{file_stem(sample)}.png"
            sample.open().save(file, compress_level=3)  # less than half the time of level 6, for 2 % more bytes
        yield sample, file


def _suffix(image: Path) -> str:
    """Returns the suffix of an image file; another one if it is not that of the content."""
    suffixes = FORMATS[image_header(image).format]
    return image.suffix if image.suffix.lower() in suffixes else suffixes[0]


def file_stem(sample: Sample) -> str:
    """Returns the name of a sample's files, without suffix; folders in the name of the sample become part of it."""
    suffix = PurePath(sample.name).suffix
    stem = sample.name.removesuffix(suffix) if suffix.lower() in IMAGE_SUFFIXES else sample.name
    return re.sub(r"[/\\]", "_", stem)


def _voc_annotation(sample: Sample, file_name: str, class_names: tuple[str, ...]) -> Element:
    """Returns the `<annotation>` of a sample in VOC's XML."""
    root = Element("annotation")
    _add(root, "filename", file_name)
    size = SubElement(root, "size")
    for name, value in (("width", sample.width), ("height", sample.height), ("depth", 3)):
        _add(size, name, value)
    truth = sample.truth
    for index in np.flatnonzero(~truth.crowd):
        entry = SubElement(root, "object")
        _add(entry, "name", class_names[truth.labels[index]])
        _add(entry, "difficult", int(truth.difficult[index]))
        box = SubElement(entry, "bndbox")
        for side, coordinate in zip(("xmin", "ymin", "xmax", "ymax"), truth.boxes[index], strict=True):
            _add(box, side, coordinate)
    indent(root)
    return root


def _add(parent: Element, tag: str, value: object) -> None:
    SubElement(parent, tag).text = str(value)


def _write_text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", newline="\n")
