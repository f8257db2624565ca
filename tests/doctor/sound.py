"""A small sound data set in three layouts, written by hand from the definitions of the formats.

Nothing here knows the package: the damage of `damages.py` is done to these files.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

NAMES = ("cat", "dog", "hen")
WIDTH, HEIGHT = 128, 96
SPLITS = {"train": 24, "val": 20}


class Thing(NamedTuple):
    """An object: its class and the corners of its box in pixels."""

    name: str
    box: tuple[float, float, float, float]


Images = Mapping[str, Sequence[Thing]]
"""The objects of each image, by the stem of its name."""


def sound_images(*, seed: int = 0) -> dict[str, Images]:
    """Returns three objects for each image of each split, side by side and of various sizes."""
    rng = np.random.default_rng(seed)
    result: dict[str, Images] = {}
    number = 0
    for split, count in SPLITS.items():
        images = {}
        for _ in range(count):
            things = []
            for place, name in enumerate(rng.permutation(NAMES)):
                left, top = int(rng.integers(3, 8)) + 42 * place, int(rng.integers(3, 40))
                right, bottom = left + int(rng.integers(17, 33)), top + int(rng.integers(17, 29))
                things.append(Thing(str(name), (left, top, right, bottom)))
            images[f"{chr(97 + number % 26)}{number:03d}x"] = things
            number += 1
        result[split] = images
    return result


def picture(seed: int, *, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """Returns colored spots with a grain, other ones for each seed."""
    rng = np.random.default_rng(seed)
    spots = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    grain = Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)).convert("RGB")
    return Image.blend(spots.resize((width, height), Image.Resampling.BICUBIC), grain, 0.15)


def save_pictures(folder: Path, stems: Sequence[str]) -> None:
    folder.mkdir(parents=True)
    for stem in stems:
        picture(sum(map(ord, stem)) * 1000 + int("".join(filter(str.isdigit, stem)) or 0)).save(folder / f"{stem}.png")


def xml(things: Sequence[Thing], *, width: int = WIDTH, height: int = HEIGHT) -> str:
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{''.join(map(xml_object, things))}</annotation>"


def xml_object(thing: Thing, extra: str = "") -> str:
    corners = "".join(
        f"<{side}>{value}</{side}>" for side, value in zip(("xmin", "ymin", "xmax", "ymax"), thing.box, strict=True)
    )
    return f"<object><name>{thing.name}</name>{extra}<bndbox>{corners}</bndbox></object>"


def line(thing: Thing, *, width: int = WIDTH, height: int = HEIGHT) -> str:
    """Returns the line of YOLO: the class, then center and size in fractions of the image."""
    x_min, y_min, x_max, y_max = thing.box
    center = (x_min + x_max) / 2 / width, (y_min + y_max) / 2 / height
    size = (x_max - x_min) / width, (y_max - y_min) / height
    return " ".join([str(NAMES.index(thing.name)), *(f"{value:.8f}" for value in (*center, *size))])


def coco_annotation(number: int, image: int, thing: Thing) -> dict[str, object]:
    x_min, y_min, x_max, y_max = thing.box
    width, height = x_max - x_min, y_max - y_min
    return {
        "id": number,
        "image_id": image,
        "category_id": NAMES.index(thing.name) + 1,
        "bbox": [x_min, y_min, width, height],
        "area": width * height,
        "iscrowd": 0,
    }


def write_voc(folder: Path, splits: Mapping[str, Images]) -> None:
    for part in ("Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    save_pictures(folder / "JPEGImages", [stem for images in splits.values() for stem in images])
    (folder / "classes.txt").write_text("\n".join(NAMES))
    for split, images in splits.items():
        (folder / "ImageSets" / "Main" / f"{split}.txt").write_text("\n".join(images))
        for stem, things in images.items():
            (folder / "Annotations" / f"{stem}.xml").write_text(xml(things))


def write_coco(folder: Path, splits: Mapping[str, Images]) -> None:
    (folder / "annotations").mkdir(parents=True)
    for split, images in splits.items():
        save_pictures(folder / split, list(images))
        rows = [
            {"id": number, "file_name": f"{stem}.png", "width": WIDTH, "height": HEIGHT}
            for number, stem in enumerate(images, start=1)
        ]
        pairs = [(number, thing) for number, things in enumerate(images.values(), start=1) for thing in things]
        content = {
            "images": rows,
            "annotations": [coco_annotation(100 + place, *pair) for place, pair in enumerate(pairs)],
            "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)],
        }
        (folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))


def write_yolo(folder: Path, splits: Mapping[str, Images]) -> None:
    for split, images in splits.items():
        save_pictures(folder / "images" / split, list(images))
        (folder / "labels" / split).mkdir(parents=True)
        for stem, things in images.items():
            (folder / "labels" / split / f"{stem}.txt").write_text("\n".join(map(line, things)))
    entries = "".join(f"{split}: images/{split}\n" for split in splits)
    (folder / "data.yaml").write_text(f"{entries}names: [{', '.join(NAMES)}]\n")


WRITERS = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}
