"""What goes wrong with data sets, put into real ones: a hundred kinds of damage, by the definitions of the formats.

Each damage is a function that breaks a copy of a set in one way and returns the places where one would look for it.
They were written from the definitions of VOC's XML, COCO's JSON and YOLO's text, and from the list of kinds in
docs/check.md, without a look at the code that has to find them.
"""

import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageEnhance, ImageFilter

from tests.doctor.real_sets import Coco, Corners, Place, RealSet, Voc, Yolo, area

ALL = ("bccd", "coco-mini", "deeppcb")
VOC, COCO, YOLO = ("bccd",), ("coco-mini",), ("deeppcb",)
WHOLE = ("bccd-whole",)  # for what is said about hundreds of images only
STATED = (*VOC, *COCO)  # the formats that state the size of an image and the pixels of a box
ORIENTATION = 0x0112  # EXIF


class Damage(NamedTuple):
    """A kind of damage: what puts it into a copy, in which sets, the flags of `multibox check` that it needs, and what
    else is rightly said about a set with it."""

    kind: str
    put: Callable[[Any], Sequence[Place]]
    sets: tuple[str, ...]
    flags: tuple[str, ...]
    also: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.put.__name__.replace("_", "-")


DAMAGES: list[Damage] = []


def damage(
    kind: str, *, sets: tuple[str, ...] = ALL, flags: tuple[str, ...] = (), also: tuple[str, ...] = ()
) -> Callable[[Callable[[Any], Sequence[Place]]], Callable[[Any], Sequence[Place]]]:
    def register(put: Callable[[Any], Sequence[Place]]) -> Callable[[Any], Sequence[Place]]:
        DAMAGES.append(Damage(kind, put, sets, flags, also))
        return put

    return register


# Boxes, in all three formats


@damage("box-empty")
def box_without_width(data: RealSet) -> list[Place]:
    name, victim = data.take()
    x_min, y_min, _, y_max = victim.corners
    return [data.move(name, victim.number, (x_min, y_min, x_min, y_max))]


@damage("box-empty")
def box_without_height(data: RealSet) -> list[Place]:
    name, victim = data.take()
    x_min, y_min, x_max, _ = victim.corners
    return [data.move(name, victim.number, (x_min, y_min, x_max, y_min))]


@damage("box-inverted")
def box_with_swapped_corners(data: RealSet) -> list[Place]:
    name, victim = data.take()
    x_min, y_min, x_max, y_max = victim.corners
    return [data.move(name, victim.number, (x_max, y_max, x_min, y_min))]


@damage("box-inverted")
def box_with_swapped_left_and_right(data: RealSet) -> list[Place]:
    name, victim = data.take()
    x_min, y_min, x_max, y_max = victim.corners
    return [data.move(name, victim.number, (x_max, y_min, x_min, y_max))]


@damage("box-outside-image")
def box_right_of_the_image(data: RealSet) -> list[Place]:
    name, victim = data.take()
    x_min, y_min, x_max, y_max = victim.corners
    width = data.size(name)[0]
    return [data.move(name, victim.number, (x_min + width + 10, y_min, x_max + width + 10, y_max))]


@damage("box-outside-image")
def box_above_the_image(data: RealSet) -> list[Place]:
    name, victim = data.take()
    x_min, y_min, x_max, y_max = victim.corners
    return [data.move(name, victim.number, (x_min, y_min - y_max - 5, x_max, -5))]


@damage("box-beyond-image")
def box_cut_by_the_right_edge(data: RealSet) -> list[Place]:
    name, victim = data.take()
    _, y_min, _, y_max = victim.corners
    width = data.size(name)[0]
    return [data.move(name, victim.number, (width - 40, y_min, width + 25, y_max))]


@damage("box-beyond-image")
def box_cut_by_the_left_edge(data: RealSet) -> list[Place]:
    name, victim = data.take()
    _, y_min, _, y_max = victim.corners
    return [data.move(name, victim.number, (-20, y_min, 50, y_max))]


@damage("box-not-finite", sets=VOC)
def nan_in_xml(data: Voc) -> list[Place]:
    return [write_voc_number(data, "nan")]


@damage("box-not-finite", sets=VOC)
def infinity_in_xml(data: Voc) -> list[Place]:
    return [write_voc_number(data, "inf")]


@damage("box-unreadable", sets=VOC)
def word_in_xml(data: Voc) -> list[Place]:
    return [write_voc_number(data, "left")]


@damage("box-unreadable", sets=VOC)
def decimal_comma_in_xml(data: Voc) -> list[Place]:
    return [write_voc_number(data, "12,5")]


@damage("box-unreadable", sets=VOC)
def number_missing_in_xml(data: Voc) -> list[Place]:
    return [write_voc_number(data, "")]


def write_voc_number(data: Voc, text: str) -> Place:
    name, victim = data.take()
    with data.xml(name) as root:
        data.nth(root, victim.number).find("bndbox/xmax").text = text  # type: ignore[union-attr]
    return Place(data.file(data.labels(name)), victim.number, text)


@damage("box-unreadable", sets=VOC)
def object_without_bndbox(data: Voc) -> list[Place]:
    name, victim = data.take()
    with data.xml(name) as root:
        element = data.nth(root, victim.number)
        element.remove(element.find("bndbox"))  # type: ignore[arg-type]
    return [Place(data.file(data.labels(name)), victim.number)]


def edit_annotation(data: Coco, **entries: Any) -> Place:
    """Writes these entries into an annotation; None takes one out."""
    name, victim = data.take()
    with data.json("train") as content:
        annotation = data.annotation(content, victim.number)
        annotation.update(entries)
        for key in [key for key, value in annotation.items() if value is None]:
            del annotation[key]
    return Place(data.file(data.labels(name)), victim.number)


@damage("box-not-finite", sets=COCO)
def nan_in_json(data: Coco) -> list[Place]:
    return [edit_annotation(data, bbox=[10, float("nan"), 20, 30])._replace(value="nan")]


@damage("box-not-finite", sets=COCO)
def infinity_in_json(data: Coco) -> list[Place]:
    return [edit_annotation(data, bbox=[10, 12, float("inf"), 30])._replace(value="inf")]


@damage("box-unreadable", sets=COCO)
def bbox_of_three_numbers(data: Coco) -> list[Place]:
    return [edit_annotation(data, bbox=[10, 77, 20])._replace(value="77")]


@damage("box-unreadable", sets=COCO)
def bbox_missing(data: Coco) -> list[Place]:
    return [edit_annotation(data, bbox=None)]


@damage("box-unreadable", sets=COCO)
def bbox_with_a_word(data: Coco) -> list[Place]:
    return [edit_annotation(data, bbox=[10, 12, "wide", 20])._replace(value="wide")]


def edit_line(data: Yolo, change: Callable[[list[str]], list[str]]) -> Place:
    """Changes the words of the line of an object."""
    name, victim = data.take()
    words = change(data.lines(name)[victim.number - 1].split())
    return data.write_line(name, victim.number, " ".join(words))


@damage("box-not-finite", sets=YOLO)
def nan_in_a_line(data: Yolo) -> list[Place]:
    return [edit_line(data, lambda words: [words[0], "nan", *words[2:]])._replace(value="nan")]


@damage("box-not-finite", sets=YOLO)
def infinity_in_a_line(data: Yolo) -> list[Place]:
    return [edit_line(data, lambda words: [*words[:4], "inf"])._replace(value="inf")]


@damage("box-unreadable", sets=YOLO)
def line_with_a_word(data: Yolo) -> list[Place]:
    return [edit_line(data, lambda words: [*words[:4], "high"])._replace(value="high")]


@damage("box-unreadable", sets=YOLO)
def line_cut_off(data: Yolo) -> list[Place]:
    return [edit_line(data, lambda words: words[:3])]


@damage("box-unreadable", sets=YOLO)
def line_with_commas(data: Yolo) -> list[Place]:
    return [edit_line(data, lambda words: [",".join(words)])]


@damage("numbers-aside", sets=YOLO)
def confidences_behind_all_boxes(data: Yolo) -> list[Place]:
    for split in ("train", "val"):
        for name in data.names(split):
            data.write_lines(name, [f"{line} 0.87" for line in data.lines(name)])
    return [Place("")]


@damage("box-in-fractions", sets=VOC)
def fractions_in_xml(data: Voc) -> list[Place]:
    return write_fractions(data)


@damage("box-in-fractions", sets=COCO)
def fractions_in_json(data: Coco) -> list[Place]:
    return write_fractions(data)


def write_fractions(data: RealSet) -> list[Place]:
    """All boxes of an image as fractions."""
    name, _ = data.take()
    width, height = data.size(name)
    for each in data.objects(name):
        x_min, y_min, x_max, y_max = each.corners
        place = data.move(name, each.number, (x_min / width, y_min / height, x_max / width, y_max / height))
    return [Place(place.file, None)]


@damage("box-in-pixels", sets=YOLO)
def pixels_in_a_line(data: Yolo) -> list[Place]:
    return [edit_line(data, lambda words: [words[0], "320", "300.5", "120", "80"])._replace(value="300.5")]


@damage("box-twice")
def object_twice(data: RealSet) -> list[Place]:
    name, victim = data.take()
    return [data.add(name, victim.class_name, victim.corners)._replace(value="")]


@damage("box-nearly-twice")
def object_drawn_twice(data: RealSet) -> list[Place]:
    name, victim = data.take()
    x_min, y_min, x_max, y_max = victim.corners
    twice = (x_min, y_min, x_max - 0.04 * (x_max - x_min), y_max)
    return [data.add(name, victim.class_name, twice)._replace(value="0.96")]


@damage("box-two-classes")
def object_with_two_classes(data: RealSet) -> list[Place]:
    name, victim = data.take()
    other = another_class(data, victim.class_name)
    return [data.add(name, other, victim.corners)._replace(value=other)]


def another_class(data: RealSet, class_name: str) -> str:
    return next(each.class_name for _, each in data.everything("train") if each.class_name != class_name)


@damage("box-in-box")
def part_of_an_object_drawn_too(data: RealSet) -> list[Place]:
    name, victim = data.take()
    return [data.add(name, victim.class_name, shrunk(victim.corners, 0.84))._replace(value="0.7")]


def shrunk(corners: Corners, factor: float) -> Corners:
    """The box with the same center and both sides multiplied."""
    x_min, y_min, x_max, y_max = corners
    x, y = (x_max - x_min) * (1 - factor) / 2, (y_max - y_min) * (1 - factor) / 2
    return x_min + x, y_min + y, x_max - x, y_max - y


@damage("box-whole-image", also=("class-few",))
def label_of_the_image_as_a_box(data: RealSet) -> list[Place]:
    name, victim = data.take()
    width, height = data.size(name)
    return [data.add(name, victim.class_name, (0, 0, width, height))._replace(value=str(width))]


@damage("box-tiny")
def click_without_a_drag(data: RealSet) -> list[Place]:
    name, victim = data.take()
    x_min, y_min, _, _ = victim.corners
    return [data.move(name, victim.number, (x_min, y_min, x_min + 1.5, y_min + 1))._replace(value="1.5")]


@damage("box-sliver")
def corner_that_slipped(data: RealSet) -> list[Place]:
    name, victim = data.take()
    width, height = data.size(name)
    sliver = (10, height / 2, width - 10, height / 2 + 6)
    return [data.move(name, victim.number, sliver)._replace(value=f"{width - 20}")]


@damage("labels-copied")
def labels_of_another_image(data: RealSet) -> list[Place]:
    (name, _), (other, _) = data.take(), data.take()
    return [copy_labels(data, name, other)]


def copy_labels(data: RealSet, name: str, other: str) -> Place:
    """The objects of an image for another one instead of its own. Both have the same size."""
    width, height = data.size(name)
    if data.size(other) != (width, height):
        data.resize(other, width, height)
    for each in reversed(data.objects(other)):
        data.remove(other, each.number)
    for each in data.objects(name):
        place = data.add(other, each.class_name, each.corners)
    return Place(place.file, None, other if isinstance(data, Coco) else "")


@damage("position-crowded", also=("box-nearly-twice", "box-two-classes", "image-size-skew"))
def clock_of_the_camera_in_every_image(data: RealSet) -> list[Place]:
    class_name = next(data.everything("train"))[1].class_name
    for split in ("train", "val"):
        for name in data.names(split):
            data.add(name, class_name, (8, 11, 60, 49))
    return [Place("")]


@damage("boxes-round", also=("box-nearly-twice", "box-two-classes", "box-twice", "box-tiny", "box-beyond-image"))
def boxes_on_a_grid_of_ten_pixels(data: RealSet) -> list[Place]:
    for split in ("train", "val"):
        for name, each in list(data.everything(split)):
            x_min, y_min, x_max, y_max = (round(value / 10) * 10 for value in each.corners)
            data.move(name, each.number, (x_min, y_min, max(x_max, x_min + 10), max(y_max, y_min + 10)))
    return [Place("")]


@damage("pixels-mixed", sets=VOC)
def second_labeler_counts_from_zero(data: Voc) -> list[Place]:
    """The devkit counts pixels from 1, labelImg's early versions from 0. Every second image is from zero."""
    for split in ("train", "val"):
        for name in data.names(split)[::2]:
            for each in data.objects(name):
                x_min, y_min, x_max, y_max = (value - 1 for value in each.corners)
                data.move(name, each.number, (x_min, y_min, x_max, y_max))
    return [Place("")]


# What COCO's JSON has besides


@damage("area-unreadable", sets=COCO)
def area_negative(data: Coco) -> list[Place]:
    return [edit_annotation(data, area=-12.5)._replace(value="-12.5")]


@damage("area-unreadable", sets=COCO)
def area_of_words(data: Coco) -> list[Place]:
    return [edit_annotation(data, area="large")._replace(value="large")]


@damage("area-exceeds-box", sets=COCO)
def area_of_the_image_before_the_resize(data: Coco) -> list[Place]:
    name, victim = data.take()
    with data.json("train") as content:
        annotation = data.annotation(content, victim.number)
        annotation["area"] = round(9 * area(victim.corners), 1)
    return [Place(data.file(data.labels(name)), victim.number)]


@damage("annotation-id-twice", sets=COCO)
def annotation_id_of_another_image(data: Coco) -> list[Place]:
    name, victim = data.take()
    number = next(each.number for other in data.train if other != name for each in data.objects(other))
    with data.json("train") as content:
        data.annotation(content, victim.number)["id"] = number
    return [Place("instances_train.json", number)]


@damage("image-id-twice", sets=COCO, also=("class-few",))
def image_id_of_another_image(data: Coco) -> list[Place]:
    (name, _), (other, _) = data.take(), data.take()
    with data.json("train") as content:
        number = data.entry(content, name)["id"]
        wrong = data.entry(content, other)["id"]
        data.entry(content, other)["id"] = number
        content["annotations"] = [each for each in content["annotations"] if each["image_id"] != wrong]
    return [Place("instances_train.json", number)]


@damage("image-nameless", sets=COCO, also=("annotation-without-image", "image-outside-splits"))
def entry_without_file_name(data: Coco) -> list[Place]:
    name, _ = data.take()
    with data.json("train") as content:
        entry = data.entry(content, name)
        del entry["file_name"]
        for key in ("coco_url", "flickr_url"):
            entry.pop(key, None)
    return [Place("instances_train.json", None, "no file_name")]


@damage("image-nameless", sets=COCO, also=("annotation-without-image", "image-outside-splits"))
def entry_without_id(data: Coco) -> list[Place]:
    name, _ = data.take()
    with data.json("train") as content:
        entry = data.entry(content, name)
        del entry["id"]
        number = content["images"].index(entry)
    return [Place("instances_train.json", number)]


@damage("annotation-without-image", sets=COCO)
def annotation_of_no_image(data: Coco) -> list[Place]:
    return [edit_annotation(data, image_id=987654321)._replace(value="987654321")]


@damage("class-id-twice", sets=COCO)
def category_id_twice(data: Coco) -> list[Place]:
    for split in ("train", "val"):
        with data.json(split) as content:
            content["categories"].append({"id": 1, "name": "pedestrian", "supercategory": ""})
    return [Place("instances_train.json", None, "pedestrian")]


@damage("class-nameless", sets=COCO)
def category_without_name(data: Coco) -> list[Place]:
    for split in ("train", "val"):
        with data.json(split) as content:
            content["categories"].append({"id": 4711, "supercategory": ""})
    return [Place("instances_train.json", None, "4711")]


@damage("classes-differ", sets=COCO)
def category_in_one_file_only(data: Coco) -> list[Place]:
    _, victim = data.take()
    with data.json("train") as content:
        number = data.category(content, "unicorn")
        data.annotation(content, victim.number)["category_id"] = number
    return [Place("", None, "unicorn")]


@damage("image-crowd-only", sets=COCO)
def image_of_crowds_only(data: Coco) -> list[Place]:
    name, _ = data.take()
    make_crowds(data, name)
    return [Place("instances_train.json", None, name)]


@damage("objects-crowd", sets=COCO, also=("class-few", "class-missing-in-split", "class-unused"))
def crowds_for_a_third(data: Coco) -> list[Place]:
    for name in data.train[::3]:
        make_crowds(data, name)
    return [Place("")]


def make_crowds(data: Coco, name: str) -> None:
    with data.json("train") as content:
        for each in data.objects(name):
            data.annotation(content, each.number)["iscrowd"] = 1


# Classes


@damage("class-unknown", sets=YOLO)
def number_beyond_the_names(data: Yolo) -> list[Place]:
    return [edit_line(data, lambda words: ["17", *words[1:]])._replace(value="17")]


@damage("class-unknown", sets=YOLO)
def negative_class_number(data: Yolo) -> list[Place]:
    return [edit_line(data, lambda words: ["-1", *words[1:]])._replace(value="-1")]


@damage("class-unknown", sets=COCO)
def category_id_of_no_category(data: Coco) -> list[Place]:
    return [edit_annotation(data, category_id=9876)._replace(value="9876")]


@damage("class-none", sets=VOC)
def name_empty(data: Voc) -> list[Place]:
    name, victim = data.take()
    return [data.reclass(name, victim.number, "")]


@damage("class-none", sets=VOC)
def name_missing(data: Voc) -> list[Place]:
    name, victim = data.take()
    with data.xml(name) as root:
        element = data.nth(root, victim.number)
        element.remove(element.find("name"))  # type: ignore[arg-type]
    return [Place(data.file(data.labels(name)), victim.number)]


@damage("class-none", sets=COCO)
def category_id_missing(data: Coco) -> list[Place]:
    return [edit_annotation(data, category_id=None)]


@damage("class-named-twice", sets=COCO)
def category_name_twice(data: Coco) -> list[Place]:
    for split in ("train", "val"):
        with data.json(split) as content:
            content["categories"].append({"id": 4711, "name": "person", "supercategory": ""})
    return [Place("instances_train.json", None, "person")]


@damage("class-named-twice", sets=YOLO)
def name_twice_in_yaml(data: Yolo) -> list[Place]:
    data.write_yaml(nc="7", names=json.dumps([*data.class_names, "open"]))
    return [Place("data.yaml", None, "open")]


SPELLINGS_ALSO = ("class-few", "class-missing-in-split")


def respell(data: RealSet, change: Callable[[str], str]) -> str:
    """Writes the class of a few objects in another way."""
    for _ in range(3):
        name, victim = data.take()
        spelling = change(victim.class_name)
        data.reclass(name, victim.number, spelling)
    return spelling


@damage("class-spelled-differently", also=SPELLINGS_ALSO)
def class_in_other_case(data: RealSet) -> list[Place]:
    return [Place("", None, respell(data, str.swapcase))]


@damage("class-spelled-differently", also=(*SPELLINGS_ALSO, "class-similar"))
def class_with_a_blank_in_it(data: RealSet) -> list[Place]:
    for spelling in ("red mark", "redmark"):
        for _ in range(2):
            name, victim = data.take()
            data.reclass(name, victim.number, spelling)
    return [Place("", None, "redmark")]


@damage("class-similar", also=SPELLINGS_ALSO)
def class_in_the_plural(data: RealSet) -> list[Place]:
    return [Place("", None, respell(data, lambda name: f"{name}s"))]


@damage("class-similar", also=SPELLINGS_ALSO)
def class_with_an_accent(data: RealSet) -> list[Place]:
    for spelling in ("défaut", "defaut"):
        for _ in range(2):
            name, victim = data.take()
            data.reclass(name, victim.number, spelling)
    return [Place("", None, "défaut")]


@damage("class-similar", also=SPELLINGS_ALSO)
def class_with_a_hyphen(data: RealSet) -> list[Place]:
    for spelling in ("t-shirt", "t_shirt"):
        for _ in range(2):
            name, victim = data.take()
            data.reclass(name, victim.number, spelling)
    return [Place("", None, "t_shirt")]


@damage("class-blanks", sets=COCO, also=("class-spelled-differently",))
def class_with_a_blank_before_it(data: RealSet) -> list[Place]:
    for split in ("train", "val"):
        for name, each in list(data.everything(split))[::4]:
            data.reclass(name, each.number, " marked")
    return [Place("", None, " marked")]


@damage("class-blanks", sets=YOLO)
def name_with_a_blank_in_yaml(data: Yolo) -> list[Place]:
    data.write_yaml(names=json.dumps([" open", *data.class_names[1:]]))
    return [Place("", None, " open")]


@damage("class-placeholder", also=SPELLINGS_ALSO)
def class_named_by_a_number(data: RealSet) -> list[Place]:
    return [Place("", None, respell(data, lambda name: "7"))]


@damage("class-background", also=SPELLINGS_ALSO)
def objects_of_the_background(data: RealSet) -> list[Place]:
    return [Place("", None, respell(data, lambda name: "background"))]


@damage("class-background-unused", sets=COCO)
def category_of_the_background(data: Coco) -> list[Place]:
    for split in ("train", "val"):
        with data.json(split) as content:
            content["categories"].insert(0, {"id": 0, "name": "background", "supercategory": ""})
    return [Place("instances_train.json", None, "background")]


@damage("class-unused", sets=YOLO)
def name_that_no_object_has(data: Yolo) -> list[Place]:
    data.label("scratch")
    return [Place("", None, "scratch")]


@damage("class-unused", sets=COCO)
def category_that_no_object_has(data: Coco) -> list[Place]:
    data.in_all("unicorn")
    return [Place("", None, "unicorn")]


@damage("class-names-missing", sets=YOLO)
def yaml_lost(data: Yolo) -> list[Place]:
    (data.folder / "data.yaml").unlink()
    return [Place("")]


@damage("class-count", sets=YOLO)
def nc_of_another_set(data: Yolo) -> list[Place]:
    data.write_yaml(nc="9")
    return [Place("data.yaml", None, "9")]


@damage("class-list-foreign", sets=VOC)
def list_of_classes_of_another_set(data: Voc) -> list[Place]:
    (data.folder / "classes.txt").write_text("cat\ndog\nhorse\n")
    return [Place("classes.txt")]


@damage("class-unknown", sets=VOC)
def class_that_the_list_lacks(data: Voc) -> list[Place]:
    (data.folder / "classes.txt").write_text("Platelets\nRBC\nWBC\n")
    name, victim = data.take()
    return [data.reclass(name, victim.number, "Dust")]


# Files


@damage("image-missing", sets=STATED, also=("class-few",))
def image_deleted(data: RealSet) -> list[Place]:
    name, _ = data.take()
    data.image(name).unlink()
    return [Place("", None, name)]


@damage("image-missing", sets=VOC)
def list_names_an_image_that_is_not_there(data: Voc) -> list[Place]:
    data.write_list("train", [*data.train, "BloodImage_99999"])
    return [Place("", None, "BloodImage_99999")]


@damage("image-missing", sets=YOLO)
def list_of_paths_names_an_image_that_is_not_there(data: Yolo) -> list[Place]:
    paths = [f"./images/train/{name}.png" for name in data.train]
    (data.folder / "train.txt").write_text("\n".join([*paths, "./images/train/99999999.png"]) + "\n")
    data.write_yaml(train="train.txt")
    return [Place("train.txt", len(paths) + 1, "99999999")]


@damage("annotation-without-image", sets=YOLO)
def image_deleted_and_its_labels_left(data: Yolo) -> list[Place]:
    name, _ = data.take()
    labels = data.file(data.labels(name))
    data.image(name).unlink()
    return [Place(labels)]


@damage("annotation-without-image", sets=VOC, also=("split-missing",))
def image_deleted_and_its_xml_left(data: Voc) -> list[Place]:
    name, _ = data.take()
    data.image(name).unlink()
    shutil.rmtree(data.folder / "ImageSets")
    return [Place(data.file(data.labels(name)))]


@damage("image-without-annotation", sets=(*VOC, *YOLO), also=("class-few",))
def labels_deleted(data: RealSet) -> list[Place]:
    name, _ = data.take()
    data.labels(name).unlink()
    return [Place("", None, name)]


@damage("image-outside-splits", sets=COCO)
def image_that_the_json_lacks(data: Coco) -> list[Place]:
    name, _ = data.take()
    (data.folder / "train" / "extra.jpg").write_bytes(data.image(name).read_bytes()[:-2] + b"\x00\xff\xd9")
    return [Place("train", None, "extra")]


@damage("image-unreadable", also=("class-few",))
def page_of_a_server_saved_as_image(data: RealSet) -> list[Place]:
    name, _ = data.take()
    data.image(name).write_text("<html><body>404 not found</body></html>")
    return [Place("", None, name)]


@damage("image-unreadable", also=("class-few",))
def image_of_no_bytes(data: RealSet) -> list[Place]:
    name, _ = data.take()
    data.image(name).write_bytes(b"")
    return [Place("", None, name)]


@damage("image-damaged", flags=("--pixels",), also=("class-few",))
def download_that_broke_off(data: RealSet) -> list[Place]:
    name, _ = data.take()
    content = data.image(name).read_bytes()
    data.image(name).write_bytes(content[: len(content) // 2])
    return [Place(data.file(data.image(name)), None)]


@damage("image-damaged", flags=("--pixels",), sets=YOLO, also=("class-few",))
def image_transparent_everywhere(data: RealSet) -> list[Place]:
    name, _ = data.take()

    def fade(image: Image.Image) -> Image.Image:
        faded = image.convert("RGBA")
        faded.putalpha(0)
        return faded

    data.redraw(name, fade)
    return [Place(data.file(data.image(name)), None)]


@damage("annotation-unreadable", sets=VOC, also=("class-few",))
def xml_cut_off(data: Voc) -> list[Place]:
    name, _ = data.take()
    text = data.labels(name).read_text()
    data.labels(name).write_text(text[: len(text) // 2])
    return [Place(data.file(data.labels(name)))]


@damage("annotation-unreadable", sets=VOC, also=("class-few",))
def xml_with_entities(data: Voc) -> list[Place]:
    name, _ = data.take()
    text = data.labels(name).read_text()
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]>'
    data.labels(name).write_text(bomb + text.replace("<pose>Unspecified", "<pose>&c;"))
    return [Place(data.file(data.labels(name)))]


@damage("annotation-unreadable", sets=YOLO, also=("class-few",))
def labels_of_binary_rubbish(data: Yolo) -> list[Place]:
    name, _ = data.take()
    data.labels(name).write_bytes(bytes(range(128, 256)) * 4)
    return [Place(data.file(data.labels(name)))]


@damage("annotation-second", sets=VOC)
def xml_of_an_earlier_export(data: Voc) -> list[Place]:
    name, _ = data.take()
    (data.folder / "Annotations" / "old").mkdir()
    shutil.copy(data.labels(name), data.folder / "Annotations" / "old")
    return [Place("", None, name)]


@damage("annotation-second", sets=YOLO)
def labels_beside_the_image_too(data: Yolo) -> list[Place]:
    name, _ = data.take()
    shutil.copy(data.labels(name), data.image(name).with_suffix(".txt"))
    return [Place("", None, name)]


@damage("image-ambiguous", sets=COCO, also=("image-outside-splits",))
def two_images_of_one_name(data: Coco) -> list[Place]:
    name, _ = data.take()
    image = data.image(name)
    for folder in ("morning", "evening"):
        (image.parent / folder).mkdir()
    with Image.open(image) as opened:
        opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(image.parent / "evening" / image.name)
    image.rename(image.parent / "morning" / image.name)
    with data.json("train") as content:
        data.entry(content, name).pop("coco_url")
    return [Place("instances_train.json", None, name)]


@damage("image-listed-twice", sets=VOC)
def line_twice_in_the_list(data: Voc) -> list[Place]:
    names = data.train
    data.write_list("train", [*names, names[3]])
    return [Place("train.txt", None, names[3])]


@damage("image-listed-twice", sets=COCO)
def file_name_in_two_entries(data: Coco) -> list[Place]:
    name, _ = data.take()
    with data.json("train") as content:
        number = 1 + max(each["id"] for each in content["images"])
        content["images"].append({**data.entry(content, name), "id": number})
    return [Place("instances_train.json", number, name)]


@damage("image-listed-twice", sets=YOLO)
def path_twice_in_the_list(data: Yolo) -> list[Place]:
    paths = [f"./images/train/{name}.png" for name in data.train]
    (data.folder / "train.txt").write_text("\n".join([*paths, paths[3]]) + "\n")
    data.write_yaml(train="train.txt")
    return [Place("train.txt", len(paths) + 1, data.train[3])]


@damage("size-differs", sets=STATED)
def size_from_before_a_resize(data: RealSet) -> list[Place]:
    name, _ = data.take()
    width, height = data.size(name)
    return [data.state_size(name, 2 * width, 2 * height)]


@damage("size-swapped", sets=STATED)
def height_before_width(data: RealSet) -> list[Place]:
    name, _ = data.take()
    width, height = data.size(name)
    return [data.state_size(name, height, width)]


@damage("image-suffix", sets=STATED)
def png_called_jpg(data: RealSet) -> list[Place]:
    name, _ = data.take()
    path = data.image(name)
    with Image.open(path) as image:
        image.save(path, format="PNG")
    return [Place(data.file(path), None, "PNG")]


@damage("image-suffix", sets=YOLO)
def jpeg_called_png(data: RealSet) -> list[Place]:
    name, _ = data.take()
    path = data.image(name)
    with Image.open(path) as image:
        image.convert("L").save(path, format="JPEG")
    return [Place(data.file(path), None, "JPEG")]


@damage("name-case")
def two_names_that_differ_in_case(data: RealSet) -> list[Place]:
    (name, _), (other, _) = data.take(), data.take()
    data.rename(name, "board_a")
    data.rename(other, "Board_A")
    return [Place("", None, "oard_")]


@damage("name-shared", sets=COCO)
def two_suffixes_for_one_name(data: Coco) -> list[Place]:
    (name, _), (other, _) = data.take(), data.take()
    data.rename(name, "scene", ".jpg")
    data.rename(other, "scene", ".jpeg")
    return [Place("", None, "scene")]


@damage("image-outside-splits", sets=VOC)
def second_image_for_one_xml(data: Voc) -> list[Place]:
    (name, _), (other, _) = data.take(), data.take()
    shutil.copy(data.image(other), data.image(name).with_suffix(".jpeg"))
    return [Place("JPEGImages", None, name)]


@damage("name-shared", sets=YOLO)
def two_images_for_one_label_file(data: Yolo) -> list[Place]:
    (name, _), (other, _) = data.take(), data.take()
    with Image.open(data.image(other)) as image:
        image.convert("L").save(data.image(name).with_suffix(".jpg"))
    return [Place("", None, name)]


@damage("name-unportable")
def name_with_a_colon(data: RealSet) -> list[Place]:
    name, _ = data.take()
    data.rename(name, "shot 12:30")
    return [Place("", None, "12:30")]


@damage("name-unportable")
def name_with_a_question_mark(data: RealSet) -> list[Place]:
    name, _ = data.take()
    data.rename(name, "what? now")
    return [Place("", None, "what? now")]


# EXIF: the boxes of an upright image, and what cameras and tools make of the two


def turn_by_exif(data: RealSet, orientation: int, turn: Image.Transpose | None) -> tuple[str, Path]:
    """Saves an image with an orientation in EXIF, after its pixels were turned."""
    name, _ = data.take()
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = data.redraw(name, lambda image: image.transpose(turn) if turn is not None else image.copy(), exif=exif)
    return name, path


@damage("exif-turned", sets=STATED)
def camera_held_upright(data: RealSet) -> list[Place]:
    """Orientation 6: to show the image, its pixels are turned clockwise. Shown, it is the image that was labeled."""
    _, path = turn_by_exif(data, 6, Image.Transpose.ROTATE_90)
    return [Place(data.file(path))]


@damage("exif-stored", sets=STATED)
def labeled_by_a_tool_that_ignores_exif(data: RealSet) -> list[Place]:
    _, path = turn_by_exif(data, 6, None)
    return [Place(data.file(path))]


@damage("exif-contradicts", sets=STATED, also=("box-beyond-image", "box-outside-image", "class-few"))
def stored_boxes_and_the_size_as_shown(data: RealSet) -> list[Place]:
    name, path = turn_by_exif(data, 6, None)
    with Image.open(path) as image:
        width, height = image.size
    number = data.objects(name)[0].number
    if width > height:
        data.move(name, number, (width - 60, 20, width - 10, 90))  # beyond the image as it is shown
    else:
        data.move(name, number, (20, height - 60, 90, height - 10))
    data.state_size(name, height, width)
    return [Place(data.file(path))]


@damage("exif-upside-down")
def camera_upside_down(data: RealSet) -> list[Place]:
    _, path = turn_by_exif(data, 3, Image.Transpose.ROTATE_180)
    return [Place(data.file(path))]


# The form and the look of images


@damage("image-mode", sets=STATED)
def image_for_print(data: RealSet) -> list[Place]:
    name, _ = data.take()
    path = data.redraw(name, lambda image: image.convert("CMYK"))
    return [Place(data.file(path), None, "CMYK")]


@damage("image-mode", sets=YOLO)
def image_of_sixteen_bits(data: RealSet) -> list[Place]:
    name, _ = data.take()
    path = data.redraw(
        name, lambda image: image.convert("L").convert("I").point(lambda value: value * 257).convert("I;16")
    )
    return [Place(data.file(path), None, "16")]


@damage("image-alpha")
def image_cut_out_in_an_editor(data: RealSet) -> list[Place]:
    name, _ = data.take()
    data.rename(name, name, ".png")

    def cut_out(image: Image.Image) -> Image.Image:
        cut = image.convert("RGBA")
        alpha = Image.new("L", image.size, 255)
        alpha.paste(0, (0, 0, 30, 30))
        cut.putalpha(alpha)
        return cut

    path = data.redraw(name, cut_out)
    return [Place(data.file(path))]


@damage("image-animated")
def image_of_two_frames(data: RealSet) -> list[Place]:
    name, _ = data.take()
    data.rename(name, name, ".gif")
    path = data.image(name)
    with Image.open(path) as image:
        frame = image.convert("RGB")
    frame.save(path, save_all=True, append_images=[frame.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    return [Place(data.file(path), None, "GIF")]


@damage("image-tiny", also=("box-tiny", "box-sliver", "box-nearly-twice", "box-two-classes"))
def thumbnail_instead_of_the_image(data: RealSet) -> list[Place]:
    name, _ = data.take()
    data.resize(name, 30, 24)
    return [Place("", None, "30")]


@damage("image-huge")
def scan_of_twenty_six_million_pixels(data: RealSet) -> list[Place]:
    name, _ = data.take()
    data.resize(name, 5200, 5000)
    return [Place("", None, "5200")]


@damage("image-long", also=("box-sliver",))
def panorama(data: RealSet) -> list[Place]:
    name, _ = data.take()
    data.resize(name, 900, 200)
    return [Place("", None, "900")]


@damage("image-uniform", flags=("--pixels",))
def lens_cap(data: RealSet) -> list[Place]:
    name, _ = data.take()
    path = data.redraw(name, lambda image: Image.new("L", image.size, 90))
    return [Place(data.file(path))]


@damage("image-dark", flags=("--pixels",), sets=VOC)
def lamp_off(data: RealSet) -> list[Place]:
    name, _ = data.take()
    path = data.redraw(name, lambda image: ImageEnhance.Brightness(image.convert("RGB")).enhance(0.25))
    return [Place(data.file(path))]


@damage("image-bright", flags=("--pixels",), sets=VOC)
def overexposed(data: RealSet) -> list[Place]:
    name, _ = data.take()
    path = data.redraw(name, lambda image: image.convert("RGB").point(lambda value: 215 + value * 40 // 255))
    return [Place(data.file(path))]


@damage("image-flat", flags=("--pixels",), sets=(*VOC, *YOLO))
def fog(data: RealSet) -> list[Place]:
    name, _ = data.take()
    path = data.redraw(name, lambda image: ImageEnhance.Contrast(image.convert("RGB")).enhance(0.2))
    return [Place(data.file(path))]


@damage("image-blurred", flags=("--pixels",))
def out_of_focus(data: RealSet) -> list[Place]:
    name, _ = data.take()
    path = data.redraw(name, lambda image: image.convert("RGB").filter(ImageFilter.GaussianBlur(9)))
    return [Place(data.file(path))]


# Copies


@damage("image-twice")
def same_file_under_another_name(data: RealSet) -> list[Place]:
    name, _ = data.take()
    data.copy_image(name, "again", "train")
    return [Place("", None, "again")]


@damage("image-in-two-splits", also=("labels-copied",))
def training_image_in_validation(data: RealSet) -> list[Place]:
    name, _ = data.take()
    data.copy_image(name, "again", "val")
    return [Place("", None, "again")]


@damage("image-in-two-splits", sets=VOC)
def name_in_two_lists(data: Voc) -> list[Place]:
    name, _ = data.take()
    data.write_list("val", [*data.names("val"), name])
    return [Place("", None, name)]


@damage("copies-in-two-splits", also=("labels-copied",))
def augmented_copies_on_both_sides(data: RealSet) -> list[Place]:
    """Roboflow names the copies that it makes of `a.jpg` `a_jpg.rf.HASH.jpg`."""
    name, _ = data.take()
    for number, split in enumerate(("train", "val")):
        path = data.copy_image(name, f"{name}_jpg.rf.{number:032x}", split)
        lighten(path, 1.0 + 0.02 * (number + 1))
    data.drop(name)
    return [Place("", None, f"{name}_jpg.rf")]


def lighten(path: Path, factor: float) -> None:
    """Saves an image a little lighter. One-bit images become gray."""
    with Image.open(path) as image:
        changed = ImageEnhance.Brightness(image.convert("RGB")).enhance(1 / factor)
    changed.save(path)


@damage("image-nearly-twice", flags=("--pixels",), also=("labels-copied",))
def image_saved_again(data: RealSet) -> list[Place]:
    name, _ = data.take()
    lighten(data.copy_image(name, "again", "train"), 1.03)
    return [Place("", None, "again")]


@damage("image-nearly-in-two-splits", flags=("--pixels",), also=("labels-copied",))
def image_saved_again_in_validation(data: RealSet) -> list[Place]:
    name, _ = data.take()
    lighten(data.copy_image(name, "again", "val"), 1.03)
    return [Place("", None, "again")]


def put_turned(data: RealSet, split: str, turn: Image.Transpose) -> Place:
    """Puts the flipped or turned copy of a training image into a split, with the boxes turned with it."""
    name, _ = data.take()
    width, height = data.size(name)
    path = data.copy_image(name, "again", split)
    with Image.open(path) as image:
        turned = image.transpose(turn)
    turned.save(path)
    for each in data.objects("again"):
        x_min, y_min, x_max, y_max = each.corners
        flipped = (width - x_max, y_min, width - x_min, y_max)
        upside_down = (width - x_max, height - y_max, width - x_min, height - y_min)
        data.move("again", each.number, flipped if turn is Image.Transpose.FLIP_LEFT_RIGHT else upside_down)
    return Place("", None, "again")


@damage("image-turned-twice", flags=("--pixels",))
def flipped_copy(data: RealSet) -> list[Place]:
    return [put_turned(data, "train", Image.Transpose.FLIP_LEFT_RIGHT)]


@damage("image-turned-in-two-splits", flags=("--pixels",))
def turned_copy_in_validation(data: RealSet) -> list[Place]:
    return [put_turned(data, "val", Image.Transpose.ROTATE_180)]


@damage("video-in-two-splits")
def frames_of_one_video_on_both_sides(data: RealSet) -> list[Place]:
    for start, split in ((0, "train"), (100, "val")):
        for number, name in enumerate(data.names(split)[:6]):
            data.rename(name, f"ride7_frame_{start + number:05}")
    return [Place("", None, "ride7")]


# Splits and balance


@damage("split-unusable", also=("image-unreadable", "split-small", "class-missing-in-split"))
def validation_of_broken_images(data: RealSet) -> list[Place]:
    for name in data.names("val"):
        data.image(name).write_bytes(b"gone")
    return [Place("", None, "val")]


@damage("split-part-empty", sets=YOLO)
def folder_of_a_split_empty(data: Yolo) -> list[Place]:
    (data.folder / "images" / "night").mkdir()
    data.write_yaml(train="[images/train, images/night]")
    return [Place("", None, "images/night")]


@damage("split-part-twice", sets=YOLO)
def folder_of_a_split_twice(data: Yolo) -> list[Place]:
    data.write_yaml(train="[images/train, images/train]")
    return [Place("data.yaml", None, "images/train")]


@damage("image-outside-splits", sets=YOLO)
def folder_that_no_split_names(data: Yolo) -> list[Place]:
    for folder in ("images", "labels"):
        (data.folder / folder / "more").mkdir()
    for each in data.names("val")[:4]:
        for old in (data.image(each), data.labels(each)):
            new = data.folder / old.parent.parent.name / "more" / old.name
            old.rename(new)
    return [Place("images/more", None, "4")]


@damage("split-missing", sets=VOC, also=("image-outside-splits",))
def validation_list_lost(data: Voc) -> list[Place]:
    data.list_file("val").unlink()
    return [Place("")]


@damage("split-missing", sets=COCO, also=("image-outside-splits",))
def validation_json_lost(data: Coco) -> list[Place]:
    data.json_file("val").unlink()
    return [Place("")]


@damage("split-missing", sets=YOLO)
def validation_not_in_yaml(data: Yolo) -> list[Place]:
    text = (data.folder / "data.yaml").read_text().replace("val: images/val\n", "")
    (data.folder / "data.yaml").write_text(text)
    for folder in ("images", "labels"):
        shutil.rmtree(data.folder / folder / "val")
    return [Place("")]


@damage("split-small")
def validation_of_nine_images(data: RealSet) -> list[Place]:
    for name in data.names("val")[9:]:
        data.drop(name)
    return [Place("", None, "9")]


@damage("class-missing-in-split")
def class_not_in_validation(data: RealSet) -> list[Place]:
    class_name = most_frequent(data, "val", 1)
    for name, each in reversed(list(data.everything("val"))):
        if each.class_name == class_name:
            data.remove(name, each.number)
    return [Place("", None, class_name)]


def most_frequent(data: RealSet, split: str, rank: int = 0) -> str:
    found = [each.class_name for _, each in data.everything(split)]
    return sorted(set(found), key=lambda name: (-found.count(name), name))[rank]


@damage("class-skew", sets=(*VOC, *YOLO), also=("class-missing-in-split", "box-two-classes"))
def class_skewed_in_validation(data: RealSet) -> list[Place]:
    """Two thirds of the objects of the most frequent class are of another class there."""
    frequent, other = most_frequent(data, "train"), most_frequent(data, "train", 1)
    for number, (name, each) in enumerate(list(data.everything("val"))):
        if each.class_name == frequent and number % 3:
            data.reclass(name, each.number, other)
    return [Place("", None, frequent)]


@damage("box-size-skew", also=("box-tiny",))
def objects_of_validation_far_away(data: RealSet) -> list[Place]:
    for name, each in list(data.everything("val")):
        data.move(name, each.number, shrunk(each.corners, 0.35))
    return [Place("", None, "val")]


@damage("image-size-skew", also=("box-tiny",))
def images_of_validation_smaller(data: RealSet) -> list[Place]:
    for name in data.names("val"):
        width, height = data.size(name)
        data.resize(name, width // 3, height // 3)
    return [Place("", None, "val")]


@damage("class-few")
def class_of_three_objects(data: RealSet) -> list[Place]:
    respell(data, lambda name: "scratch")
    name = data.names("val")[0]
    data.reclass(name, data.objects(name)[0].number, "scratch")
    return [Place("", None, "scratch")]


@damage("class-concentrated", also=("class-missing-in-split", "class-few"))
def class_in_one_image(data: RealSet) -> list[Place]:
    name, _ = data.take()
    for number in range(24):
        left, top = 10 + 9 * (number % 12), 10 + 9 * (number // 12)
        data.add(name, "scratch", (left, top, left + 8, top + 7))
    other = data.names("val")[0]
    data.reclass(other, data.objects(other)[0].number, "scratch")
    return [Place("", None, "scratch")]


@damage("class-imbalance", also=("class-few", "class-missing-in-split", "class-unused"))
def one_class_for_nearly_all(data: RealSet) -> list[Place]:
    rare = {most_frequent(data, split, rank) for split in ("train", "val") for rank in (0, 1)}
    frequent = most_frequent(data, "train")
    seen: set[tuple[str, str]] = set()
    for split in ("train", "val"):
        for name, each in list(data.everything(split)):
            if each.class_name in rare and (split, each.class_name) not in seen:
                seen.add((split, each.class_name))  # the first of each stays
            else:
                data.reclass(name, each.number, frequent)
    return [Place("", None, frequent)]


@damage("class-always-together", sets=WHOLE, also=("class-few", "class-missing-in-split"))
def class_beside_another_class(data: RealSet) -> list[Place]:
    """Wherever a license plate is, there is a car."""
    for number, name in enumerate(data.train[:40]):
        data.add(name, "car", (20 + number, 20, 150, 120))
        if number < 25:
            data.add(name, "plate", (60, 90 - number, 90, 105))
    return [Place("", None, "plate")]


@damage("images-few", sets=WHOLE)
def training_list_cut_off(data: Voc) -> list[Place]:
    data.write_list("train", data.train[:60])
    return [Place("", None, "60")]


@damage("images-empty", also=("class-few", "class-missing-in-split"))
def most_images_without_objects(data: RealSet) -> list[Place]:
    for name in data.train[: 2 * len(data.train) // 3]:
        for each in reversed(data.objects(name)):
            data.remove(name, each.number)
        if isinstance(data, Coco):  # what crowds are in it, too
            with data.json("train") as content:
                number = data.entry(content, name)["id"]
                content["annotations"] = [each for each in content["annotations"] if each["image_id"] != number]
    return [Place("")]


@damage("objects-difficult", sets=VOC)
def half_of_the_objects_difficult(data: Voc) -> list[Place]:
    for split in ("train", "val"):
        for name in data.names(split):
            with data.xml(name) as root:
                for element in list(root.iter("object"))[::2]:
                    element.find("difficult").text = "1"  # type: ignore[union-attr]
    return [Place("")]


# For the detector at hand: 256 x 256 pixels, its default boxes, 200 detections

DETECTOR = ("--model", "ssd256-tiny")


@damage("object-small", flags=DETECTOR, also=("object-uncovered",))
def object_of_five_pixels(data: RealSet) -> list[Place]:
    name, victim = data.take()
    x_min, y_min, _, _ = victim.corners
    return [data.move(name, victim.number, (x_min, y_min, x_min + 5, y_min + 5))._replace(value="")]


@damage("object-ratio", flags=DETECTOR, also=("object-uncovered", "object-small"))
def object_like_a_rod(data: RealSet) -> list[Place]:
    name, victim = data.take()
    width, height = data.size(name)
    rod = (10, height / 2, width - 20, height / 2 + (width - 30) / 15)
    return [data.move(name, victim.number, rod)._replace(value="")]


@damage("object-uncovered", flags=DETECTOR, also=("object-small", "object-ratio"))
def object_between_the_default_boxes(data: RealSet) -> list[Place]:
    name, victim = data.take()
    width, height = data.size(name)
    return [data.move(name, victim.number, (0.45 * width, 10, 0.53 * width, 10 + 0.4 * height))._replace(value="")]


@damage("objects-suppressed", flags=DETECTOR, also=("object-contested", "object-uncovered"))
def two_objects_one_behind_the_other(data: RealSet) -> list[Place]:
    name, victim = data.take()
    x_min, y_min, x_max, y_max = victim.corners
    shift = (x_max - x_min) / 8 * (-1 if x_max > 0.8 * data.size(name)[0] else 1)
    return [data.add(name, victim.class_name, (x_min + shift, y_min, x_max + shift, y_max))._replace(value="0.7")]


@damage(
    "objects-over-limit",
    flags=DETECTOR,
    also=("object-small", "object-uncovered", "object-contested", "object-without-default-box"),
)
def swarm(data: RealSet) -> list[Place]:
    name, victim = data.take()
    width, height = data.size(name)
    draw = random.Random(0)
    for number in range(230):
        left, top = (number % 16) * (width - 24) / 16 + draw.random() * 4, (number // 16) * (height - 24) / 16
        data.add(name, victim.class_name, (left, top, left + 12.0, top + 11.5))
    return [Place(data.file(data.labels(name)), None, str(len(data.objects(name))))]


@damage("input-shape", flags=DETECTOR, also=("object-small", "object-uncovered", "object-ratio"))
def all_images_wide(data: RealSet) -> list[Place]:
    for split in ("train", "val"):
        for name in data.names(split):
            data.resize(name, 800, 300)
    return [Place("")]


@damage("class-not-of-detector", flags=("--model", "multibox/voc"), sets=("voc2007-trainval",), also=SPELLINGS_ALSO)
def class_that_the_detector_lacks(data: RealSet) -> list[Place]:
    name, victim = data.take()
    data.reclass(name, victim.number, "hydrant")
    return [Place("", None, "hydrant")]
