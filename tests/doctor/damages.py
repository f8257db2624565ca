"""Damage to data sets, kind by kind, done to their files by the definitions of the formats.

Each function damages a copy of the sound set in one layout and returns where the damage is: the file, and the number of
the object, line or annotation in it (None for the whole file). The file is "" for damage of the set as a whole.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageFilter

from tests.doctor.sound import HEIGHT, NAMES, WIDTH, Thing, coco_annotation, line, picture, xml, xml_object


class Place(NamedTuple):
    """Where a damage is."""

    file: str
    object: int | None = None


SET = Place("")

Damage = Callable[[Path], Place]
DAMAGES: dict[str, dict[str, Damage]] = {}
"""The damage of each kind, by layout."""


def damage(kind: str, *layouts: str) -> Callable[[Damage], Damage]:
    def add(function: Damage) -> Damage:
        for layout in layouts:
            DAMAGES.setdefault(kind, {})[layout] = function
        return function

    return add


# The files of the three layouts


def image_of(folder: Path, split: str = "train", place: int = 4) -> Path:
    """Returns the fifth image of a split, in any layout."""
    stem = stem_of(folder, split, place)
    return next(file for file in folder.rglob(f"{stem}.png"))


def stem_of(folder: Path, split: str = "train", place: int = 4) -> str:
    if (folder / "ImageSets").exists():
        return (folder / "ImageSets" / "Main" / f"{split}.txt").read_text().split("\n")[place]
    pictures = folder / "images" / split if (folder / "images").exists() else folder / split
    return sorted(pictures.glob("*.png"))[place].stem


def edit(file: Path, change: Callable[[str], str]) -> Path:
    before = file.read_text()
    after = change(before)
    assert after != before, file
    file.write_text(after)
    return file


def edit_xml(folder: Path, change: Callable[[str], str], *, place: int = 4) -> Path:
    return edit(folder / "Annotations" / f"{stem_of(folder, place=place)}.xml", change)


def edit_lines(folder: Path, change: Callable[[list[str]], list[str]], *, place: int = 4, split: str = "train") -> Path:
    file = folder / "labels" / split / f"{stem_of(folder, split, place)}.txt"
    return edit(file, lambda text: "\n".join(change(text.split("\n"))))


def edit_json(folder: Path, change: Callable[[dict[str, Any]], object], *, split: str = "train") -> Path:
    file = folder / "annotations" / f"instances_{split}.json"

    def changed(text: str) -> str:
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return edit(file, changed)


def second_box(folder: Path, box: tuple[object, object, object, object], name: str | None = None) -> Place:
    """Gives the second object of an image another box, in corners, and perhaps another class."""
    return change_boxes(folder, {1: box}, {} if name is None else {1: name})


def more_boxes(folder: Path, *things: Thing) -> Place:
    """Adds objects to an image; the place is that of the last one."""
    if (folder / "Annotations").exists():
        more = "".join(map(xml_object, things))
        file = edit_xml(folder, lambda text: text.replace("</annotation>", f"{more}</annotation>"))
        return Place(file.name, 3 + len(things))
    if (folder / "labels").exists():
        return Place(edit_lines(folder, lambda lines: [*lines, *map(line, things)]).name, 3 + len(things))

    def add(content: dict[str, Any]) -> None:
        content["annotations"] += [coco_annotation(9000 + number, 5, thing) for number, thing in enumerate(things)]

    return Place(edit_json(folder, add).name, 9000 + len(things) - 1)


def things_of(folder: Path) -> list[Thing]:
    """Returns the objects of the image whose boxes are changed, as they are stated."""
    if (folder / "Annotations").exists():
        text = (folder / "Annotations" / f"{stem_of(folder)}.xml").read_text()
        names = re.findall(r"<name>(\w+)</name>", text)
        numbers = list(map(float, re.findall(r"<[xy]m\w+>([\d.]+)<", text)))
        return [Thing(name, tuple(numbers[4 * i : 4 * i + 4])) for i, name in enumerate(names)]
    if (folder / "labels").exists():
        things = []
        for each in (folder / "labels" / "train" / f"{stem_of(folder)}.txt").read_text().split("\n"):
            label, x, y, w, h = map(float, each.split())
            x, y, w, h = x * WIDTH, y * HEIGHT, w * WIDTH, h * HEIGHT
            things.append(Thing(NAMES[int(label)], (x - w / 2, y - h / 2, x + w / 2, y + h / 2)))
        return things
    content = json.loads((folder / "annotations" / "instances_train.json").read_text())
    rows = [row for row in content["annotations"] if row["image_id"] == 5]
    corners = [(x, y, x + w, y + h) for x, y, w, h in (row["bbox"] for row in rows)]
    return [Thing(NAMES[row["category_id"] - 1], box) for row, box in zip(rows, corners, strict=True)]


def change_boxes(folder: Path, boxes: dict[int, Any], names: dict[int, str] | None = None) -> Place:
    names = names or {}
    last = max(boxes)
    if (folder / "Annotations").exists():

        def replace(text: str) -> str:
            head, *objects = text.split("<object>")
            for place, box in boxes.items():
                name = names.get(place) or re.search(r"<name>(.*?)</name>", objects[place])[1]
                end = "</annotation>" if place == len(objects) - 1 else ""
                objects[place] = xml_object(Thing(name, box)).removeprefix("<object>") + end
            return "<object>".join([head, *objects])

        return Place(edit_xml(folder, replace).name, last + 1)
    if (folder / "labels").exists():

        def rewrite(lines: list[str]) -> list[str]:
            for place, box in boxes.items():
                name = names.get(place) or NAMES[int(lines[place].split()[0])]
                lines[place] = line(Thing(name, tuple(map(float, box))))
            return lines

        return Place(edit_lines(folder, rewrite).name, last + 1)

    def update(content: dict[str, Any]) -> None:
        rows = [row for row in content["annotations"] if row["image_id"] == 5]
        for place, (x_min, y_min, x_max, y_max) in boxes.items():
            rows[place]["bbox"] = [x_min, y_min, x_max - x_min, y_max - y_min]
            rows[place]["area"] = abs((x_max - x_min) * (y_max - y_min))
            if place in names:
                rows[place]["category_id"] = NAMES.index(names[place]) + 1

    file = edit_json(folder, update)
    rows = [row for row in json.loads(file.read_text())["annotations"] if row["image_id"] == 5]
    return Place(file.name, rows[last]["id"])


def set_image(folder: Path, image: Image.Image, **options: Any) -> Place:
    """Replaces an image; the name stays."""
    file = image_of(folder)
    options.setdefault("format", "PNG")
    image.save(file, **options)
    return Place(file.name)


def coco_id(name: str, split: str = "train") -> int:
    """Returns the id of an image that is added to COCO's layout."""
    return 500 + sum(map(ord, name + split))


def add_image(
    folder: Path,
    name: str,
    image: Image.Image | bytes,
    things: tuple[Thing, ...] | None = None,
    *,
    split: str = "train",
) -> Place:
    """Adds an image with its annotations to a split, in any layout."""
    stem = name.rpartition(".")[0]
    width, height = image.size if isinstance(image, Image.Image) else (WIDTH, HEIGHT)
    if things is None:  # of a shape of its own, so that the labels are no copies
        seed = sum(map(ord, name + split)) % 7
        things = (Thing("cat", (11 + seed, 13, 37 + seed, 44 + seed)),)
    if (folder / "ImageSets").exists():
        target = folder / "JPEGImages" / name
        (folder / "Annotations" / f"{stem}.xml").write_text(xml(things, width=width, height=height))
        edit(folder / "ImageSets" / "Main" / f"{split}.txt", lambda text: f"{text}\n{stem}")
    elif (folder / "images").exists():
        target = folder / "images" / split / name
        lines = [line(thing, width=width, height=height) for thing in things]
        (folder / "labels" / split / f"{stem}.txt").write_text("\n".join(lines))
    else:
        target = folder / split / name
        number = coco_id(name, split)

        def add(content: dict[str, Any]) -> None:
            content["images"].append({"id": number, "file_name": name, "width": width, "height": height})
            content["annotations"] += [coco_annotation(number * 10 + i, number, each) for i, each in enumerate(things)]

        edit_json(folder, add, split=split)
    if isinstance(image, bytes):
        target.write_bytes(image)
    else:
        image.save(target)
    return Place(name)


ALL = ("voc", "coco", "yolo")

# Files


@damage("image-missing", "voc")
def _(folder: Path) -> Place:
    image_of(folder).unlink()
    return Place("train.txt", 5)


@damage("image-missing", "coco")
def _(folder: Path) -> Place:
    image_of(folder).unlink()
    return Place("instances_train.json", 5)


@damage("image-unreadable", *ALL)
def _(folder: Path) -> Place:
    file = image_of(folder)
    file.write_text("<html>404 Not Found</html>")
    return Place(file.name)


@damage("image-damaged", *ALL)
def _(folder: Path) -> Place:
    file = image_of(folder)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return Place(file.name)


@damage("annotation-unreadable", "voc")
def _(folder: Path) -> Place:
    return Place(edit_xml(folder, lambda text: text[: len(text) // 2]).name)


@damage("annotation-unreadable", "yolo")
def _(folder: Path) -> Place:
    file = folder / "labels" / "train" / f"{stem_of(folder)}.txt"
    file.write_bytes(b"0 0.5 0.5 \xff\xfe\xfa 0.2")
    return Place(file.name)


@damage("annotation-without-image", "yolo")
def _(folder: Path) -> Place:
    (folder / "labels" / "train" / "ghost.txt").write_text("0 0.5 0.5 0.3 0.4")
    return Place("ghost.txt")


@damage("annotation-without-image", "coco")
def _(folder: Path) -> Place:
    thing = Thing("cat", (10, 10, 40, 40))
    return Place(
        edit_json(folder, lambda content: content["annotations"].append(coco_annotation(8000, 4711, thing))).name, 8000
    )


@damage("image-without-annotation", "voc")
def _(folder: Path) -> Place:
    (folder / "Annotations" / f"{stem_of(folder)}.xml").unlink()
    return SET


@damage("image-without-annotation", "yolo")
def _(folder: Path) -> Place:
    (folder / "labels" / "train" / f"{stem_of(folder)}.txt").unlink()
    return Place("data.yaml")


@damage("annotation-second", "voc")
def _(folder: Path) -> Place:
    stem = stem_of(folder)
    shutil.copy(folder / "Annotations" / f"{stem}.xml", folder / "Annotations" / f"{stem}.png.xml")
    return Place(f"{stem}.xml")


@damage("image-ambiguous", "voc")
def _(folder: Path) -> Place:
    stem = stem_of(folder)
    picture(99).save(folder / "JPEGImages" / f"{stem}.jpg")
    return Place(f"{stem}.xml")


@damage("image-listed-twice", "voc")
def _(folder: Path) -> Place:
    edit(folder / "ImageSets" / "Main" / "train.txt", lambda text: f"{text}\n{stem_of(folder)}")
    return Place("train.txt", 25)


@damage("image-id-twice", "coco")
def _(folder: Path) -> Place:
    picture(77).save(folder / "train" / "more.png")
    row = {"id": 4, "file_name": "more.png", "width": WIDTH, "height": HEIGHT}
    return Place(edit_json(folder, lambda content: content["images"].append(row)).name, 4)


@damage("image-nameless", "coco")
def _(folder: Path) -> Place:
    row = {"id": 900, "width": WIDTH, "height": HEIGHT}
    return Place(edit_json(folder, lambda content: content["images"].append(row)).name, 24)


@damage("size-differs", "voc")
def _(folder: Path) -> Place:
    return Place(edit_xml(folder, lambda text: text.replace(f"<width>{WIDTH}<", "<width>256<")).name)


@damage("size-differs", "coco")
def _(folder: Path) -> Place:
    return Place(edit_json(folder, lambda content: content["images"][4].update(width=256, height=192)).name, 5)


@damage("size-swapped", "voc")
def _(folder: Path) -> Place:
    swapped = f"<width>{HEIGHT}</width><height>{WIDTH}</height>"
    return Place(edit_xml(folder, lambda text: re.sub(r"<width>.*</height>", swapped, text)).name)


@damage("size-swapped", "coco")
def _(folder: Path) -> Place:
    return Place(edit_json(folder, lambda content: content["images"][4].update(width=HEIGHT, height=WIDTH)).name, 5)


@damage("image-suffix", *ALL)
def _(folder: Path) -> Place:
    return set_image(folder, picture(5), format="JPEG")


@damage("name-case", *ALL)
def _(folder: Path) -> Place:
    name = image_of(folder).name
    other = name.upper().replace(".PNG", ".png")
    add_image(folder, other, picture(77))
    return Place(name if (folder / "images").exists() else other)  # the one that is read last


@damage("name-shared", "yolo", "coco")
def _(folder: Path) -> Place:
    stem = stem_of(folder)
    file = image_of(folder).with_name(f"{stem}.jpg")
    picture(99).save(file)
    if (folder / "annotations").exists():
        row = {"id": 900, "file_name": file.name, "width": WIDTH, "height": HEIGHT}
        edit_json(folder, lambda content: content["images"].append(row))
        return Place(file.name)
    return Place(f"{stem}.png")


@damage("name-unportable", *ALL)
def _(folder: Path) -> Place:
    return add_image(folder, "what is it?.png", picture(77))


@damage("exif-turned", "voc", "coco")
def _(folder: Path) -> Place:
    return add_image(folder, "turned.jpg", turned(6, (96, 96), at=folder), (Thing("dog", (11, 9, 52, 61)),))


@damage("exif-turned", "yolo")
def _(folder: Path) -> Place:
    return add_image(folder, "turned.jpg", turned(6, (128, 96), at=folder))


@damage("exif-stored", "voc", "coco")
def _(folder: Path) -> Place:
    # the size and the boxes are those of the stored pixels, 128 x 96
    return add_image(folder, "turned.jpg", turned(6, (128, 96), at=folder), (Thing("dog", (61, 9, 122, 71)),))


@damage("exif-contradicts", "voc", "coco")
def _(folder: Path) -> Place:
    add_image(folder, "turned.jpg", turned(6, (128, 96), at=folder), (Thing("dog", (61, 9, 122, 71)),))
    if (folder / "annotations").exists():
        edit_json(folder, lambda content: [content["images"][-1].pop(key) for key in ("width", "height")])
    else:
        edit(folder / "Annotations" / "turned.xml", lambda text: re.sub("<size>.*</size>", "", text))
    return Place("turned.jpg")


@damage("exif-upside-down", *ALL)
def _(folder: Path) -> Place:
    return add_image(folder, "turned.jpg", turned(3, (128, 96), at=folder))


def turned(orientation: int, size: tuple[int, int], *, at: Path) -> bytes:
    """Returns a JPEG of this width and height that EXIF turns when it is shown."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = at.parent / "turned.jpg"
    picture(55, width=size[0], height=size[1]).save(file, exif=exif)
    return file.read_bytes()


@damage("image-mode", *ALL)
def _(folder: Path) -> Place:
    return add_image(folder, "print.jpg", picture(5).convert("CMYK"))


@damage("image-alpha", *ALL)
def _(folder: Path) -> Place:
    return set_image(folder, picture(5).convert("RGBA"))


@damage("image-animated", *ALL)
def _(folder: Path) -> Place:
    return set_image(folder, picture(5), save_all=True, append_images=[picture(6)])


@damage("image-tiny", *ALL)
def _(folder: Path) -> Place:
    return add_image(folder, "icon.png", picture(5, width=24, height=20), (Thing("cat", (3, 4, 17, 15)),))


@damage("image-huge", *ALL)
def _(folder: Path) -> Place:
    return add_image(folder, "scan.png", Image.new("1", (5100, 5000)), (Thing("cat", (301, 404, 1717, 1515)),))


@damage("image-long", *ALL)
def _(folder: Path) -> Place:
    return add_image(folder, "banner.png", picture(5, width=300, height=60), (Thing("cat", (33, 4, 77, 51)),))


@damage("image-uniform", *ALL)
def _(folder: Path) -> Place:
    return set_image(folder, Image.new("RGB", (WIDTH, HEIGHT), "gray"))


@damage("image-dark", *ALL)
def _(folder: Path) -> Place:
    return set_image(folder, picture(5).point(lambda value: value // 4))


@damage("image-bright", *ALL)
def _(folder: Path) -> Place:
    return set_image(folder, picture(5).point(lambda value: 190 + value // 4))


@damage("image-flat", *ALL)
def _(folder: Path) -> Place:
    return set_image(folder, picture(5).point(lambda value: 110 + value // 4))


@damage("image-blurred", *ALL)
def _(folder: Path) -> Place:
    return set_image(folder, picture(5).filter(ImageFilter.GaussianBlur(3)))


# Boxes


@damage("box-empty", *ALL)
def _(folder: Path) -> Place:
    return second_box(folder, (50, 20, 50, 60))


@damage("box-inverted", *ALL)
def _(folder: Path) -> Place:
    return second_box(folder, (70, 20, 50, 60))


@damage("box-not-finite", "voc", "yolo")
def _(folder: Path) -> Place:
    return second_box(folder, ("nan", 20, 70, 60))


@damage("box-not-finite", "coco")
def _(folder: Path) -> Place:
    return second_box(folder, (50, 20, float("inf"), 60))


@damage("box-outside-image", *ALL)
def _(folder: Path) -> Place:
    return second_box(folder, (WIDTH + 20, 20, WIDTH + 60, 60))


@damage("box-beyond-image", *ALL)
def _(folder: Path) -> Place:
    return second_box(folder, (50, 20, 70, HEIGHT + 12))


@damage("box-unreadable", "voc")
def _(folder: Path) -> Place:
    return second_box(folder, (50, 20, "seventy", 60))


@damage("box-unreadable", "coco")
def _(folder: Path) -> Place:
    return Place(edit_json(folder, lambda content: content["annotations"][13].update(bbox=[1, 2, 3])).name, 113)


@damage("box-unreadable", "yolo")
def _(folder: Path) -> Place:
    return Place(edit_lines(folder, lambda lines: [lines[0], "1 0.5 half 0.2 0.2", *lines[2:]]).name, 2)


@damage("box-in-fractions", "voc", "coco")
def _(folder: Path) -> Place:
    boxes = [(0.1, 0.1, 0.3, 0.4), (0.4, 0.2, 0.6, 0.7), (0.7, 0.1, 0.9, 0.3)]
    return change_boxes(folder, dict(enumerate(boxes)))


@damage("box-in-pixels", "yolo")
def _(folder: Path) -> Place:
    return Place(edit_lines(folder, lambda lines: [lines[0], "1 60 40 20 30", *lines[2:]]).name, 2)


@damage("numbers-aside", "yolo")
def _(folder: Path) -> Place:
    return Place(edit_lines(folder, lambda lines: [f"{lines[0]} 0.93", *lines[1:]]).name, 1)


@damage("box-twice", *ALL)
def _(folder: Path) -> Place:
    return more_boxes(folder, things_of(folder)[0])


@damage("box-nearly-twice", *ALL)
def _(folder: Path) -> Place:
    name, (x_min, y_min, x_max, y_max) = things_of(folder)[0]
    return more_boxes(folder, Thing(name, (x_min + 0.25, y_min, x_max + 0.25, y_max + 0.25)))


@damage("box-two-classes", *ALL)
def _(folder: Path) -> Place:
    name, box = things_of(folder)[0]
    return more_boxes(folder, Thing(NAMES[NAMES.index(name) - 1], box))


@damage("box-in-box", *ALL)
def _(folder: Path) -> Place:
    name, (x_min, y_min, x_max, y_max) = things_of(folder)[0]
    return more_boxes(folder, Thing(name, (x_min + 2, y_min + 1, x_max - 1, y_max - 2)))


@damage("box-whole-image", *ALL)
def _(folder: Path) -> Place:
    return more_boxes(folder, Thing("cat", (0, 0, WIDTH, HEIGHT)))


@damage("box-tiny", *ALL)
def _(folder: Path) -> Place:
    return more_boxes(folder, Thing("cat", (60, 90, 61.5, 94)))


@damage("box-sliver", *ALL)
def _(folder: Path) -> Place:
    return more_boxes(folder, Thing("cat", (2, 90, 122, 93)))


@damage("area-unreadable", "coco")
def _(folder: Path) -> Place:
    return Place(edit_json(folder, lambda content: content["annotations"][13].update(area=-5)).name, 113)


@damage("area-exceeds-box", "coco")
def _(folder: Path) -> Place:
    return Place(edit_json(folder, lambda content: content["annotations"][13].update(area=WIDTH * HEIGHT)).name, 113)


@damage("annotation-id-twice", "coco")
def _(folder: Path) -> Place:
    return Place(edit_json(folder, lambda content: content["annotations"][13].update(id=112)).name, 112)


@damage("labels-copied", *ALL)
def _(folder: Path) -> Place:
    things = tuple(things_of(folder))
    for number in range(2):
        add_image(folder, f"zcopy{number}.png", picture(300 + number), things)
    place = Place("instances_train", coco_id("zcopy1.png")) if (folder / "annotations").exists() else Place("zcopy1")
    return place


@damage("position-crowded", *ALL)
def _(folder: Path) -> Place:
    clock = Thing("cat", (3, 88, 20, 95))
    for number in range(6):
        other = Thing("dog", (40 + number, 20, 70, 50 + number))
        add_image(folder, f"z{number}.png", picture(300 + number), (clock, other))
    return Place("instances_train", coco_id("z0.png") * 10) if (folder / "annotations").exists() else Place("z0", 1)


@damage("boxes-round", "voc", "coco")
def _(folder: Path) -> Place:
    def rounded(number: float) -> int:
        return max(10, round(number / 10) * 10)

    for file in (folder / "Annotations").glob("*.xml"):
        edit(file, lambda text: re.sub(r"(<[xy]m\w+>)([\d.]+)", lambda m: f"{m[1]}{rounded(float(m[2]))}", text))
    if (folder / "annotations").exists():

        def change(content: dict[str, Any]) -> None:
            for row in content["annotations"]:
                row["bbox"] = [rounded(value) for value in row["bbox"]]
                row["area"] = row["bbox"][2] * row["bbox"][3]

        edit_json(folder, change)
    return SET


@damage("pixels-mixed", "voc")
def _(folder: Path) -> Place:
    for number in range(24):  # objects that the left edge cuts, counted from 0 and from 1
        edit_xml(folder, lambda text: re.sub(r"<xmin>\d+", f"<xmin>{number % 2}", text, count=1), place=number)  # noqa: B023
    return SET


# Classes


@damage("class-unknown", "voc")
def _(folder: Path) -> Place:
    file = edit_xml(folder, lambda text: re.sub(r"<name>\w+", "<name>cow", text, count=1))
    return Place(file.name, 1)


@damage("class-unknown", "coco")
def _(folder: Path) -> Place:
    return Place(edit_json(folder, lambda content: content["annotations"][13].update(category_id=77)).name, 113)


@damage("class-unknown", "yolo")
def _(folder: Path) -> Place:
    return Place(edit_lines(folder, lambda lines: [lines[0], "7 0.5 0.5 0.2 0.2", *lines[2:]]).name, 2)


@damage("class-none", "voc")
def _(folder: Path) -> Place:
    return Place(edit_xml(folder, lambda text: re.sub(r"<name>\w+</name>", "", text, count=1)).name, 1)


def rename_class(folder: Path, names: str, *, categories: list[str] | None = None) -> Place:
    """Gives the set another list of class names."""
    if (folder / "annotations").exists():

        def change(content: dict[str, Any]) -> None:
            listed = categories or names.split(", ")
            content["categories"] = [{"id": number, "name": name} for number, name in enumerate(listed, start=1)]

        for split in ("train", "val"):
            edit_json(folder, change, split=split)
        return SET
    edit(folder / "data.yaml", lambda text: re.sub("names: .*", f"names: [{names}]", text))
    return SET


@damage("class-named-twice", "coco", "yolo")
def _(folder: Path) -> Place:
    rename_class(folder, "cat, dog, cat")
    return Place("data.yaml" if (folder / "data.yaml").exists() else "instances_train.json")


@damage("class-id-twice", "coco")
def _(folder: Path) -> Place:
    row = {"id": 1, "name": "cow"}
    return Place(edit_json(folder, lambda content: content["categories"].append(row)).name)


@damage("class-nameless", "coco")
def _(folder: Path) -> Place:
    return Place(edit_json(folder, lambda content: content["categories"].append({"id": 9})).name)


@damage("class-spelled-differently", "coco", "yolo")
def _(folder: Path) -> Place:
    rename_class(folder, "cat, dog, Cat")
    return Place("data.yaml" if (folder / "data.yaml").exists() else "instances_train.json")


@damage("class-spelled-differently", "voc")
def _(folder: Path) -> Place:
    edit(folder / "classes.txt", lambda text: f"{text}\nCat")
    edit_xml(folder, lambda text: text.replace(">cat<", ">Cat<"))
    return Place("classes.txt")


@damage("class-similar", "coco", "yolo")
def _(folder: Path) -> Place:
    return rename_class(folder, "cat, dog, cats")


@damage("class-blanks", "coco")
def _(folder: Path) -> Place:
    return rename_class(folder, "cat, dog, hen ")


@damage("class-blanks", "yolo")
def _(folder: Path) -> Place:
    return rename_class(folder, "cat, dog, 'hen '")


@damage("class-placeholder", "coco", "yolo")
def _(folder: Path) -> Place:
    return rename_class(folder, "cat, dog, 2")


@damage("class-background", "coco", "yolo")
def _(folder: Path) -> Place:
    return rename_class(folder, "background, dog, hen")


@damage("class-background-unused", "voc")
def _(folder: Path) -> Place:
    edit(folder / "classes.txt", lambda text: f"BACKGROUND\n{text}")
    return Place("classes.txt")


@damage("class-background-unused", "coco")
def _(folder: Path) -> Place:
    row = {"id": 0, "name": "background"}
    return Place(edit_json(folder, lambda content: content["categories"].append(row)).name)


@damage("class-names-missing", "yolo")
def _(folder: Path) -> Place:
    (folder / "data.yaml").unlink()
    return SET


@damage("class-count", "yolo")
def _(folder: Path) -> Place:
    return Place(edit(folder / "data.yaml", lambda text: f"{text}nc: 5\n").name)


@damage("class-list-foreign", "voc")
def _(folder: Path) -> Place:
    (folder / "classes.txt").write_text("apple\npear\n")
    return Place("classes.txt")


@damage("image-crowd-only", "coco")
def _(folder: Path) -> Place:
    def change(content: dict[str, Any]) -> None:
        for row in content["annotations"]:
            if row["image_id"] == 5:
                row["iscrowd"] = 1

    return Place(edit_json(folder, change).name, 5)


# Splits


@damage("split-unusable", "voc")
def _(folder: Path) -> Place:
    (folder / "ImageSets" / "Main" / "test.txt").write_text("nothing\n")
    return SET


@damage("split-part-empty", "voc")
def _(folder: Path) -> Place:
    (folder / "ImageSets" / "Main" / "test.txt").write_text("")
    return Place("test.txt")


@damage("split-part-empty", "yolo")
def _(folder: Path) -> Place:
    (folder / "images" / "test").mkdir()
    edit(folder / "data.yaml", lambda text: f"test: images/test\n{text}")
    return Place("test")


@damage("split-part-twice", "yolo")
def _(folder: Path) -> Place:
    return Place(
        edit(folder / "data.yaml", lambda text: text.replace("images/train", "[images/train, images/train]")).name
    )


@damage("split-part-ambiguous", "yolo")
def _(folder: Path) -> Place:
    (folder.parent / "images" / "train").mkdir(parents=True)
    return Place(edit(folder / "data.yaml", lambda text: text.replace("images/train", "../images/train")).name)


@damage("image-outside-splits", "yolo")
def _(folder: Path) -> Place:
    (folder / "classes.txt").write_text("\n".join(NAMES))
    (folder / "data.yaml").unlink()
    (folder / "images" / "spare").mkdir()
    (folder / "labels" / "spare").mkdir()
    picture(77).save(folder / "images" / "spare" / "q.png")
    (folder / "labels" / "spare" / "q.txt").write_text("0 0.5 0.5 0.2 0.2")
    return Place("spare")


@damage("classes-differ", "coco")
def _(folder: Path) -> Place:
    edit_json(folder, lambda content: content["categories"][2].update(name="cow"), split="val")
    return SET


@damage("split-missing", *ALL)
def _(folder: Path) -> Place:
    if (folder / "annotations").exists():
        (folder / "annotations" / "instances_val.json").unlink()
    elif (folder / "data.yaml").exists():
        edit(folder / "data.yaml", lambda text: text.replace("val: images/val\n", ""))
    else:
        (folder / "ImageSets" / "Main" / "val.txt").unlink()
    return SET


@damage("split-small", "voc")
def _(folder: Path) -> Place:
    edit(folder / "ImageSets" / "Main" / "val.txt", lambda text: "\n".join(text.split("\n")[:5]))
    return SET


@damage("image-twice", *ALL)
def _(folder: Path) -> Place:
    return add_image(folder, "zz.png", image_of(folder).read_bytes())


@damage("image-in-two-splits", *ALL)
def _(folder: Path) -> Place:
    file = image_of(folder)
    add_image(folder, "zz.png", file.read_bytes(), split="val")
    return Place(file.name)


@damage("copies-in-two-splits", *ALL)
def _(folder: Path) -> Place:
    add_image(folder, "street_jpg.rf.0a1b2c.png", picture(71), split="val")
    return add_image(folder, "street_jpg.rf.3d4e5f.png", picture(72))


@damage("image-nearly-twice", *ALL)
def _(folder: Path) -> Place:
    again = Image.open(image_of(folder)).resize((WIDTH - 8, HEIGHT - 6))
    return add_image(folder, "zz.jpg", again)


@damage("image-nearly-in-two-splits", *ALL)
def _(folder: Path) -> Place:
    file = image_of(folder)
    add_image(folder, "zz.jpg", Image.open(file).resize((WIDTH - 8, HEIGHT - 6)), split="val")
    return Place(file.name)


@damage("image-turned-twice", *ALL)
def _(folder: Path) -> Place:
    return add_image(folder, "zz.jpg", Image.open(image_of(folder)).transpose(Image.Transpose.FLIP_LEFT_RIGHT))


@damage("image-turned-in-two-splits", *ALL)
def _(folder: Path) -> Place:
    file = image_of(folder)
    add_image(folder, "zz.jpg", Image.open(file).transpose(Image.Transpose.ROTATE_90), split="val")
    return Place(file.name)


@damage("video-in-two-splits", *ALL)
def _(folder: Path) -> Place:
    for number in range(6):
        add_image(folder, f"cam2_{number:04d}.png", picture(200 + number), split="train" if number < 3 else "val")
    return SET


@damage("class-missing-in-split", "yolo")
def _(folder: Path) -> Place:
    for file in (folder / "labels" / "val").glob("*.txt"):
        edit(file, lambda text: "\n".join(each for each in text.split("\n") if not each.startswith("2")))
    return SET


@damage("class-unused", "yolo", "coco")
def _(folder: Path) -> Place:
    return rename_class(folder, "cat, dog, hen, cow")


@damage("class-skew", "yolo")
def _(folder: Path) -> Place:
    for number, file in enumerate(sorted((folder / "labels" / "val").glob("*.txt"))):
        if number % 6:
            edit(file, lambda text: "\n".join(each for each in text.split("\n") if not each.startswith("2")))
    return SET


@damage("box-size-skew", "yolo")
def _(folder: Path) -> Place:
    for file in (folder / "labels" / "val").glob("*.txt"):
        edit(file, lambda text: "\n".join(halved(each) for each in text.split("\n")))
    return SET


def halved(text: str) -> str:
    label, x, y, w, h = text.split()
    return f"{label} {x} {y} {float(w) / 2:.8f} {float(h) / 2:.8f}"


@damage("image-size-skew", "yolo")
def _(folder: Path) -> Place:
    for file in (folder / "images" / "val").glob("*.png"):
        Image.open(file).resize((3 * WIDTH, 3 * HEIGHT)).save(file)
    return SET


# Balance


def relabel(folder: Path, change: Callable[[int, str], str]) -> Place:
    """Changes the lines of the training split of YOLO's layout, given the number of the image and the line."""
    for number, file in enumerate(sorted((folder / "labels" / "train").glob("*.txt"))):
        lines = [changed for each in file.read_text().split("\n") if (changed := change(number, each))]
        file.write_text("\n".join(lines))
    return SET


@damage("class-few", "yolo")
def _(folder: Path) -> Place:
    return relabel(folder, lambda number, each: "" if each.startswith("2") and number > 5 else each)


@damage("class-concentrated", "yolo")
def _(folder: Path) -> Place:
    def change(number: int, each: str) -> str:
        if not each.startswith("2"):
            return each
        x, y = each.split()[1:3]
        many = "\n".join(f"2 {x} {float(y) - 0.01 * i:.6f} 0.05 0.1" for i in range(12))
        return many if number < 2 else "" if number > 5 else each

    return relabel(folder, change)


@damage("class-imbalance", "yolo")
def _(folder: Path) -> Place:
    def change(number: int, each: str) -> str:
        label, x, y, w, h = each.split()
        if label == "2":
            return each if number == 0 else ""
        return f"{each}\n{label} {x} {float(y) + 0.02:.6f} {float(w) / 2:.6f} {h}"

    return relabel(folder, change)


@damage("class-always-together", "yolo")
def _(folder: Path) -> Place:
    for number in range(60):
        add_image(folder, f"more{number}.png", picture(900 + number), (Thing("cat", (5 + number, 7, 40 + number, 50)),))
    return relabel(folder, lambda number, each: each)


@damage("images-few", *ALL)
def _(folder: Path) -> Place:
    return SET  # the sound set has 24


@damage("images-empty", "yolo")
def _(folder: Path) -> Place:
    return relabel(folder, lambda number, each: each if number > 14 else "")


@damage("objects-difficult", "voc")
def _(folder: Path) -> Place:
    for file in (folder / "Annotations").glob("*.xml"):
        edit(file, lambda text: text.replace("</name>", "</name><difficult>1</difficult>", 2))
    return SET


@damage("objects-crowd", "coco")
def _(folder: Path) -> Place:
    def change(content: dict[str, Any]) -> None:
        for row in content["annotations"][::3]:
            row["iscrowd"] = 1

    edit_json(folder, change)
    return SET


# The detector at hand: ssd256-tiny, whose input is 256 x 256


@damage("object-small", *ALL)
def _(folder: Path) -> Place:
    return more_boxes(folder, Thing("cat", (60, 88, 63.5, 93)))


@damage("object-uncovered", *ALL)
def _(folder: Path) -> Place:
    return more_boxes(folder, Thing("cat", (60, 90, 64, 94)))


@damage("object-ratio", *ALL)
def _(folder: Path) -> Place:
    return more_boxes(folder, Thing("cat", (2, 86, 122, 95)))


@damage("object-contested", *ALL)
def _(folder: Path) -> Place:
    name, (x_min, y_min, x_max, y_max) = things_of(folder)[0]
    return more_boxes(folder, Thing(name, (x_min + 0.25, y_min, x_max + 0.25, y_max)))


@damage("objects-suppressed", *ALL)
def _(folder: Path) -> Place:
    name, (x_min, y_min, x_max, y_max) = things_of(folder)[0]
    return more_boxes(folder, Thing(name, (x_min + 3, y_min, x_max + 3, y_max)))


@damage("objects-over-limit", *ALL)
def _(folder: Path) -> Place:
    cells = np.argwhere(np.ones((14, 15))).tolist()
    place = more_boxes(folder, *(Thing("cat", (8.3 * x, 6.3 * y, 8.3 * x + 7, 6.3 * y + 5)) for y, x in cells))
    return Place(place.file, 5 if (folder / "annotations").exists() else None)


@damage("map-idle", *ALL)
def _(folder: Path) -> Place:
    return SET  # no object of the sound set is as large as the boxes of the last map


@damage("input-larger", *ALL)
def _(folder: Path) -> Place:
    return SET  # images of 128 x 96


@damage("input-shape", "yolo")
def _(folder: Path) -> Place:
    for file in folder.rglob("*.png"):
        Image.open(file).resize((384, 96)).save(file)
    return SET
