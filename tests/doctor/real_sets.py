"""Small copies of the shared sets that can be damaged, each edited as its format is defined.

Nothing here is taken from the readers or the doctor: VOC's XML is the devkit's, COCO's JSON that of its web page, and a
line of YOLO is a class and the center and size of a box in fractions of the image.
"""

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

from PIL import Image

Corners = tuple[float, float, float, float]

TRAIN, VAL = 26, 22  # images of each split: few enough for a second, enough for the statistics of a split


class Object(NamedTuple):
    """An object of an image, with its number as the format counts it."""

    class_name: str
    corners: Corners
    number: int


class Place(NamedTuple):
    """Where something is damaged: the end of a path, the number of an object or None, a part of the value."""

    file: str
    object: int | None = None
    value: str = ""


class RealSet(ABC):
    """A data set in a folder. Images go by their names without suffix, which are unique in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def names(self, split: str) -> list[str]: ...

    @abstractmethod
    def image(self, name: str) -> Path: ...

    @abstractmethod
    def labels(self, name: str) -> Path:
        """The file that annotates the image."""

    @abstractmethod
    def objects(self, name: str) -> list[Object]: ...

    @abstractmethod
    def move(self, name: str, number: int, corners: Corners) -> Place:
        """Gives an object another box. The value of the place is the first number of it as it is written."""

    @abstractmethod
    def add(self, name: str, class_name: str, corners: Corners) -> Place: ...

    @abstractmethod
    def remove(self, name: str, number: int) -> None: ...

    @abstractmethod
    def reclass(self, name: str, number: int, class_name: str) -> Place:
        """Gives an object another class, which is new to the set or not."""

    @abstractmethod
    def rename(self, name: str, to: str, suffix: str = "") -> None:
        """Renames an image and what annotates it, everywhere. `suffix` replaces that of the image."""

    @abstractmethod
    def copy_image(self, name: str, to: str, split: str) -> Path:
        """Puts an image into a split once more, with its objects under another name. Returns the new file."""

    @abstractmethod
    def drop(self, name: str) -> None:
        """Takes an image out of the set, with all that is known about it."""

    @abstractmethod
    def state_size(self, name: str, width: int, height: int) -> Place:
        """States another size of the image, where the format states one."""

    # What follows is the same in all formats

    @property
    def train(self) -> list[str]:
        return self.names("train")

    def split_of(self, name: str) -> str:
        return "train" if name in self.train else "val"

    def size(self, name: str) -> tuple[int, int]:
        with Image.open(self.image(name)) as image:
            return image.size

    def everything(self, split: str) -> Iterator[tuple[str, Object]]:
        for name in self.names(split):
            for each in self.objects(name):
                yield name, each

    def file(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    @cached_property
    def free(self) -> Iterator[tuple[str, Object]]:
        """Training images of the undamaged set in which the largest object stands free, with that object."""
        return iter([found for name in self.train if (found := self.find_free(name))])

    def find_free(self, name: str) -> tuple[str, Object] | None:
        objects, (width, height) = self.objects(name), self.size(name)
        if len(objects) < 2:
            return None
        largest = max(objects, key=lambda each: area(each.corners))
        beside = all(overlap(largest.corners, each.corners) < 0.3 for each in objects if each != largest)
        return (name, largest) if beside and area(largest.corners) < 0.7 * width * height else None

    def take(self) -> tuple[str, Object]:
        """The next image to damage: no two damages touch the same."""
        return next(self.free)

    def redraw(self, name: str, change: Callable[[Image.Image], Image.Image], **options: Any) -> Path:
        """Saves a changed image in its place, in the format that its suffix says."""
        path = self.image(name)
        with Image.open(path) as image:
            changed = change(image)
        changed.save(path, **({"quality": 95} if path.suffix == ".jpg" else {}), **options)
        return path

    def resize(self, name: str, width: int, height: int) -> None:
        """Resizes an image together with its boxes and its stated size."""
        old_width, old_height = self.size(name)
        x, y = width / old_width, height / old_height
        objects = self.objects(name)
        self.redraw(name, lambda image: image.resize((width, height), Image.Resampling.NEAREST))
        self.state_size(name, width, height)
        for each in objects:
            x_min, y_min, x_max, y_max = each.corners
            self.move(name, each.number, (x_min * x, y_min * y, x_max * x, y_max * y))


def area(corners: Corners) -> float:
    return (corners[2] - corners[0]) * (corners[3] - corners[1])


def overlap(one: Corners, other: Corners) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (area(one) + area(other) - shared)


def plain(value: float) -> str:
    """A number as a tool would write it: 12, 12.5."""
    return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) < float("inf") else str(value)


class Voc(RealSet):
    @contextmanager
    def xml(self, name: str) -> Iterator[ElementTree.Element]:
        """The annotation of an image, which is written again at the end."""
        tree = ElementTree.parse(self.labels(name))
        yield tree.getroot()
        tree.write(self.labels(name))

    def list_file(self, split: str) -> Path:
        return self.folder / "ImageSets" / "Main" / f"{split}.txt"

    def names(self, split: str) -> list[str]:
        return self.list_file(split).read_text().split("\n")[:-1]

    def write_list(self, split: str, names: list[str]) -> None:
        self.list_file(split).write_text("".join(f"{name}\n" for name in names))

    def image(self, name: str) -> Path:
        (path,) = (path for path in (self.folder / "JPEGImages").iterdir() if path.stem == name)
        return path

    def labels(self, name: str) -> Path:
        return self.folder / "Annotations" / f"{name}.xml"

    def objects(self, name: str) -> list[Object]:
        root = ElementTree.parse(self.labels(name)).getroot()
        return [
            Object(
                each.findtext("name", ""),
                tuple(float(each.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")),  # type: ignore[arg-type]
                number,
            )
            for number, each in enumerate(root.iter("object"), start=1)
        ]

    def nth(self, root: ElementTree.Element, number: int) -> ElementTree.Element:
        return list(root.iter("object"))[number - 1]

    def write_box(self, element: ElementTree.Element, corners: Corners) -> str:
        for key, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True):
            (coordinate,) = element.iter(key)
            coordinate.text = plain(value)
        return plain(corners[0])

    def move(self, name: str, number: int, corners: Corners) -> Place:
        with self.xml(name) as root:
            written = self.write_box(self.nth(root, number), corners)
        return Place(self.file(self.labels(name)), number, written)

    def add(self, name: str, class_name: str, corners: Corners) -> Place:
        with self.xml(name) as root:
            element = ElementTree.SubElement(root, "object")
            ElementTree.SubElement(element, "name").text = class_name
            box = ElementTree.SubElement(element, "bndbox")
            for key in ("xmin", "ymin", "xmax", "ymax"):
                ElementTree.SubElement(box, key)
            written = self.write_box(element, corners)
            number = len(list(root.iter("object")))
        return Place(self.file(self.labels(name)), number, written)

    def remove(self, name: str, number: int) -> None:
        with self.xml(name) as root:
            root.remove(self.nth(root, number))

    def reclass(self, name: str, number: int, class_name: str) -> Place:
        with self.xml(name) as root:
            self.nth(root, number).find("name").text = class_name  # type: ignore[union-attr]
        return Place(self.file(self.labels(name)), number, class_name)

    def rename(self, name: str, to: str, suffix: str = "") -> None:
        split, image = self.split_of(name), self.image(name)
        with self.xml(name) as root:
            root.find("filename").text = to + (suffix or image.suffix)  # type: ignore[union-attr]
        image.rename(image.with_name(to + (suffix or image.suffix)))
        if to != name:
            self.labels(name).rename(self.labels(to))
            self.write_list(split, [to if each == name else each for each in self.names(split)])

    def copy_image(self, name: str, to: str, split: str) -> Path:
        image = self.image(name)
        shutil.copy(self.labels(name), self.labels(to))
        with self.xml(to) as root:
            root.find("filename").text = to + image.suffix  # type: ignore[union-attr]
        self.write_list(split, [*self.names(split), to])
        return Path(shutil.copy(image, image.with_name(to + image.suffix)))

    def drop(self, name: str) -> None:
        split = self.split_of(name)
        self.image(name).unlink()
        self.labels(name).unlink()
        self.write_list(split, [each for each in self.names(split) if each != name])

    def state_size(self, name: str, width: int, height: int) -> Place:
        with self.xml(name) as root:
            root.find("size/width").text = str(width)  # type: ignore[union-attr]
            root.find("size/height").text = str(height)  # type: ignore[union-attr]
        return Place(self.file(self.labels(name)), None, str(width))


class Coco(RealSet):
    def json_file(self, split: str) -> Path:
        return self.folder / "annotations" / f"instances_{split}.json"

    def read(self, split: str) -> Any:
        return json.loads(self.json_file(split).read_text())

    @contextmanager
    def json(self, split: str) -> Iterator[Any]:
        """The annotations of a split, which are written again at the end."""
        data = self.read(split)
        yield data
        self.json_file(split).write_text(json.dumps(data))

    def names(self, split: str) -> list[str]:
        return [Path(entry["file_name"]).stem for entry in self.read(split)["images"]]

    def entry(self, data: Any, name: str) -> Any:
        (entry,) = (each for each in data["images"] if Path(each.get("file_name", "")).stem == name)
        return entry

    def annotation(self, data: Any, number: int) -> Any:
        (annotation,) = (each for each in data["annotations"] if each["id"] == number)
        return annotation

    def image(self, name: str) -> Path:
        split = self.split_of(name)
        return self.folder / split / self.entry(self.read(split), name)["file_name"]

    def labels(self, name: str) -> Path:
        return self.json_file(self.split_of(name))

    def objects(self, name: str) -> list[Object]:
        data = self.read(self.split_of(name))
        class_names = {each["id"]: each["name"] for each in data["categories"]}
        image_id = self.entry(data, name)["id"]
        found = []
        for each in data["annotations"]:
            if each["image_id"] == image_id and not each["iscrowd"]:
                x, y, width, height = each["bbox"]
                found.append(Object(class_names[each["category_id"]], (x, y, x + width, y + height), each["id"]))
        return found

    def box(self, corners: Corners) -> list[float]:
        x_min, y_min, x_max, y_max = corners
        return [round(value, 4) for value in (x_min, y_min, x_max - x_min, y_max - y_min)]

    def move(self, name: str, number: int, corners: Corners) -> Place:
        with self.json(self.split_of(name)) as data:
            annotation = self.annotation(data, number)
            annotation["bbox"] = self.box(corners)
            annotation["area"] = abs(area(corners))
        return Place(self.file(self.labels(name)), number, plain(corners[0]))

    def category(self, data: Any, class_name: str) -> int:
        """The id of a class, which is made if there is none."""
        ids = {each["name"]: each["id"] for each in data["categories"]}
        if class_name not in ids:
            ids[class_name] = max(ids.values()) + 1
            data["categories"].append({"id": ids[class_name], "name": class_name, "supercategory": ""})
        return int(ids[class_name])

    def in_all(self, class_name: str) -> None:
        """Names a class in both files: splits with other classes would be a damage of their own."""
        for split in ("train", "val"):
            with self.json(split) as data:
                self.category(data, class_name)

    def add(self, name: str, class_name: str, corners: Corners) -> Place:
        with self.json(self.split_of(name)) as data:
            number = 1 + max(each["id"] for each in data["annotations"])
            data["annotations"].append(
                {
                    "id": number,
                    "image_id": self.entry(data, name)["id"],
                    "category_id": self.category(data, class_name),
                    "bbox": self.box(corners),
                    "area": area(corners),
                    "iscrowd": 0,
                }
            )
        return Place(self.file(self.labels(name)), number, plain(corners[0]))

    def remove(self, name: str, number: int) -> None:
        with self.json(self.split_of(name)) as data:
            data["annotations"].remove(self.annotation(data, number))

    def reclass(self, name: str, number: int, class_name: str) -> Place:
        self.in_all(class_name)
        with self.json(self.split_of(name)) as data:
            self.annotation(data, number)["category_id"] = self.category(data, class_name)
        return Place(self.file(self.labels(name)), number, class_name)

    def rename(self, name: str, to: str, suffix: str = "") -> None:
        image = self.image(name)
        with self.json(self.split_of(name)) as data:
            entry = self.entry(data, name)
            entry["file_name"] = to + (suffix or image.suffix)
            entry.pop("coco_url", None)
        image.rename(image.with_name(to + (suffix or image.suffix)))

    def copy_image(self, name: str, to: str, split: str) -> Path:
        image, here = self.image(name), self.read(self.split_of(name))
        entry = dict(self.entry(here, name))
        annotations = [dict(each) for each in here["annotations"] if each["image_id"] == entry["id"]]
        with self.json(split) as data:
            entry["id"], entry["file_name"] = 1 + max(each["id"] for each in data["images"]), to + image.suffix
            entry.pop("coco_url", None)
            data["images"].append(entry)
            for each in annotations:
                each["image_id"], each["id"] = entry["id"], 1 + max(old["id"] for old in data["annotations"])
                data["annotations"].append(each)
        return Path(shutil.copy(image, self.folder / split / entry["file_name"]))

    def drop(self, name: str) -> None:
        self.image(name).unlink()
        with self.json(self.split_of(name)) as data:
            entry = self.entry(data, name)
            data["images"].remove(entry)
            data["annotations"] = [each for each in data["annotations"] if each["image_id"] != entry["id"]]

    def state_size(self, name: str, width: int, height: int) -> Place:
        with self.json(self.split_of(name)) as data:
            entry = self.entry(data, name)
            entry["width"], entry["height"] = width, height
        return Place(self.file(self.labels(name)), None, str(width))


class Yolo(RealSet):
    CLASS_NAMES = ("open", "short", "mousebite", "spur", "copper", "pin-hole")

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.class_names = list(self.CLASS_NAMES)

    def write_yaml(self, **entries: str) -> None:
        """Writes `data.yaml` with these entries instead of its own."""
        own = {
            "train": "images/train",
            "val": "images/val",
            "nc": str(len(self.class_names)),
            "names": json.dumps(self.class_names),
        }
        text = "".join(f"{key}: {value}\n" for key, value in {**own, **entries}.items())
        (self.folder / "data.yaml").write_text(text)

    def names(self, split: str) -> list[str]:
        return sorted(path.stem for path in (self.folder / "images" / split).iterdir())

    def image(self, name: str) -> Path:
        (path,) = (self.folder / "images" / self.split_of(name)).glob(f"{name}.*")
        return path

    def labels(self, name: str) -> Path:
        return self.folder / "labels" / self.split_of(name) / f"{name}.txt"

    def lines(self, name: str) -> list[str]:
        return self.labels(name).read_text().splitlines()

    def write_lines(self, name: str, lines: list[str]) -> None:
        self.labels(name).write_text("".join(f"{line}\n" for line in lines))

    def objects(self, name: str) -> list[Object]:
        width, height = self.size(name)
        found = []
        for number, line in enumerate(self.lines(name), start=1):
            label, *box = line.split()
            x, y, w, h = (float(value) for value in box)
            corners = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
            found.append(Object(self.class_names[int(label)], corners, number))
        return found

    def box(self, name: str, corners: Corners) -> str:
        width, height = self.size(name)
        x_min, y_min, x_max, y_max = corners
        center_x, center_y = (x_min + x_max) / 2 / width, (y_min + y_max) / 2 / height
        return f"{center_x:.6f} {center_y:.6f} {(x_max - x_min) / width:.6f} {(y_max - y_min) / height:.6f}"

    def write_line(self, name: str, number: int, text: str) -> Place:
        lines = self.lines(name)
        lines[number - 1] = text
        self.write_lines(name, lines)
        return Place(self.file(self.labels(name)), number)

    def move(self, name: str, number: int, corners: Corners) -> Place:
        label = self.lines(name)[number - 1].split()[0]
        return self.write_line(name, number, f"{label} {self.box(name, corners)}")

    def label(self, class_name: str) -> int:
        if class_name not in self.class_names:
            self.class_names.append(class_name)
            self.write_yaml()
        return self.class_names.index(class_name)

    def add(self, name: str, class_name: str, corners: Corners) -> Place:
        lines = [*self.lines(name), f"{self.label(class_name)} {self.box(name, corners)}"]
        self.write_lines(name, lines)
        return Place(self.file(self.labels(name)), len(lines))

    def remove(self, name: str, number: int) -> None:
        lines = self.lines(name)
        del lines[number - 1]
        self.write_lines(name, lines)

    def reclass(self, name: str, number: int, class_name: str) -> Place:
        box = self.lines(name)[number - 1].split()[1:]
        place = self.write_line(name, number, " ".join([str(self.label(class_name)), *box]))
        return place._replace(value=class_name)

    def rename(self, name: str, to: str, suffix: str = "") -> None:
        image, labels = self.image(name), self.labels(name)
        image.rename(image.with_name(to + (suffix or image.suffix)))
        labels.rename(labels.with_stem(to))

    def copy_image(self, name: str, to: str, split: str) -> Path:
        image = self.image(name)
        shutil.copy(self.labels(name), self.folder / "labels" / split / f"{to}.txt")
        return Path(shutil.copy(image, self.folder / "images" / split / (to + image.suffix)))

    def drop(self, name: str) -> None:
        labels = self.labels(name)
        self.image(name).unlink()
        labels.unlink()

    def state_size(self, name: str, width: int, height: int) -> Place:
        return Place(self.file(self.labels(name)))


# The undamaged copies


def small_voc(source: Path, target: Path, *, must: tuple[str, ...] = (), train: int = TRAIN) -> None:
    """A part of a VOC set: the first images of its training and validation list, and those that must be in it."""
    (target / "ImageSets" / "Main").mkdir(parents=True)
    for folder in ("Annotations", "JPEGImages"):
        (target / folder).mkdir()
    old, new = Voc(source), Voc(target)
    for split, count in (("train", train), ("val", VAL)):
        names = old.names(split)
        chosen = sorted({*names[: count - len(must)], *(name for name in must if name in names)})
        new.write_list(split, chosen)
        for name in chosen:
            shutil.copy(old.labels(name), target / "Annotations")
            shutil.copy(source / "JPEGImages" / f"{name}.jpg", target / "JPEGImages")


def small_coco(source: Path, target: Path) -> None:
    """A part of a COCO set: the first images of each split that have objects and crowd regions."""
    (target / "annotations").mkdir(parents=True)
    old, new = Coco(source), Coco(target)
    for split, count in (("train", TRAIN), ("val", VAL)):
        (target / split).mkdir()
        data = old.read(split)
        ids = [each["image_id"] for each in data["annotations"]]
        data["images"] = [each for each in data["images"] if 2 <= ids.count(each["id"]) <= 12][:count]
        kept = {each["id"] for each in data["images"]}
        data["annotations"] = [each for each in data["annotations"] if each["image_id"] in kept]
        new.json_file(split).write_text(json.dumps(data))
        for each in data["images"]:
            shutil.copy(source / split / each["file_name"], target / split)


def small_yolo(source: Path, target: Path) -> None:
    """A part of a YOLO set: every few images of each split, so that the boards differ."""
    new = Yolo(target)
    for split, count in (("train", TRAIN), ("val", VAL)):
        for folder in ("images", "labels"):
            (target / folder / split).mkdir(parents=True)
        names = sorted(path.stem for path in (source / "images" / split).iterdir())
        for name in names[:: len(names) // count][:count]:
            shutil.copy(source / "images" / split / f"{name}.png", target / "images" / split)
            shutil.copy(source / "labels" / split / f"{name}.txt", target / "labels" / split)
    new.write_yaml()
