"""A mended copy has nothing left that can be mended, the list of changes names every damage, the source stays."""

import csv
import json
import re
from pathlib import Path

import pytest

from multibox.data import DatasetReader
from multibox.doctor import KINDS, Report, examine
from multibox.doctor.fix import CHANGES, write_fixed
from tests.doctor.conftest import Copy
from tests.doctor.damages import DAMAGES
from tests.doctor.sound import WRITERS

FORMATS = tuple(WRITERS)
TOGETHER = {
    "voc": (
        "box-tiny",
        "image-listed-twice",
        "annotation-second",
        "image-suffix",
        "name-case",
        "class-background-unused",
    ),
    "coco": ("annotation-without-image", "area-exceeds-box", "class-nameless", "image-in-two-splits", "box-twice"),
    "yolo": ("name-shared", "box-in-pixels", "class-spelled-differently", "class-count", "split-part-twice"),
}
"""Damages that are done at once, by layout."""

CASES = [
    (kind, layout, FORMATS[(place + FORMATS.index(layout)) % 3])
    for place, kind in enumerate(DAMAGES)
    for layout in DAMAGES[kind]
    if KINDS[kind].fixable
]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def look(folder: Path, pixels: bool) -> Report:
    return examine(folder, with_pixels=pixels)


def check_fix(folder: Path, out: Path, format: str, kinds: tuple[str, ...]) -> None:
    for kind in kinds:
        DAMAGES[kind][next(layout for layout in FORMATS if is_layout(folder, layout))](folder)
    before = contents(folder.parent)
    pixels = any(KINDS[kind].needs == "pixels" for kind in kinds)
    report = look(folder, pixels)
    changes = write_fixed(report, out, format)
    assert set(kinds) <= {change.kind for change in changes}
    assert contents(folder.parent) == before
    with (out / CHANGES).open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["kind", "split", "where", "value", "done"]
    assert rows == [list(change) for change in changes]
    assert not look(out, pixels).fixable
    for split in DatasetReader(out).splits:
        assert not DatasetReader(out).read(split).problems


def is_layout(folder: Path, layout: str) -> bool:
    return (folder / {"voc": "ImageSets", "coco": "annotations", "yolo": "images"}[layout]).exists()


@pytest.mark.parametrize(("layout", "format"), list(zip(FORMATS, ("coco", "yolo", "voc"), strict=True)))
def test_several_damages_are_mended_at_once(copy: Copy, tmp_path: Path, layout: str, format: str):
    check_fix(copy(layout), tmp_path / "out", format, TOGETHER[layout])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "layout", "format"), CASES)
def test_every_fixable_kind_is_mended(copy: Copy, tmp_path: Path, kind: str, layout: str, format: str):
    check_fix(copy(layout), tmp_path / "out", format, (kind,))


def test_a_sound_set_is_copied_as_it_is(sound_sets: dict[str, Path], tmp_path: Path):
    assert write_fixed(examine(sound_sets["voc"]), tmp_path / "out") == []
    for split in ("train", "val"):
        here, there = (DatasetReader(path).read(split) for path in (sound_sets["voc"], tmp_path / "out"))
        assert there.class_names == here.class_names
        assert [each.name for each in there] == [each.name for each in here]
        assert all((one.truth.boxes == two.truth.boxes).all() for one, two in zip(here, there, strict=True))


def test_boxes_that_fit_the_stored_pixels_are_turned(copy: Copy, tmp_path: Path):
    folder = copy("coco")
    DAMAGES["exif-contradicts"]["coco"](folder)
    write_fixed(examine(folder), tmp_path / "out")
    (sample,) = [each for each in DatasetReader(tmp_path / "out").read("train") if each.name == "turned.jpg"]
    # 128 x 96 stored pixels are shown turned to the right: the top becomes the right side
    assert sample.truth.boxes.tolist() == [[96 - 71, 61, 96 - 9, 122]]


def test_the_class_with_more_objects_gives_its_name(copy: Copy, tmp_path: Path):
    folder = copy("voc")
    DAMAGES["class-spelled-differently"]["voc"](folder)
    write_fixed(examine(folder), tmp_path / "out", "yolo")
    assert DatasetReader(tmp_path / "out").read("train").class_names == ("cat", "dog", "hen")


def test_what_is_not_looked_for_is_not_mended(copy: Copy, tmp_path: Path):
    folder = copy("yolo")
    DAMAGES["box-tiny"]["yolo"](folder)
    assert write_fixed(examine(folder, skip=["box-tiny"]), tmp_path / "out") == []
    assert [finding.kind for finding in examine(tmp_path / "out", only=["box-tiny"]).findings] == ["box-tiny"]


def test_yolo_has_no_place_for_two_splits_of_one_kind(copy: Copy, tmp_path: Path):
    folder = copy("voc")
    lists = folder / "ImageSets" / "Main"
    (lists / "night.txt").write_text("\n".join((lists / "val.txt").read_text().split("\n")[:3]))
    (lists / "val.txt").unlink()
    with pytest.raises(ValueError, match=r"'train' and 'night' would both be 'train' in YOLO's format.*--format coco"):
        write_fixed(examine(folder), tmp_path / "out", "yolo")


@pytest.mark.parametrize(
    "stem", ["con", "CON.1", "LPT1", "what?", "a:b", "back\\slash", " before", "behind ", "cafe\u0301"]
)
def test_a_name_that_some_system_refuses_is_found_and_the_copy_has_another(copy: Copy, tmp_path: Path, stem: str):
    folder = copy("yolo")
    image = next((folder / "images" / "train").iterdir())
    label = folder / "labels" / "train" / f"{image.stem}.txt"
    label.rename(label.with_stem(stem))
    image.rename(image.with_stem(stem))
    assert [finding.kind for finding in examine(folder, only=["files"]).findings] == ["name-unportable"]
    write_fixed(examine(folder), tmp_path / "out")
    assert examine(tmp_path / "out", only=["files"]).findings == []
    sets = [DatasetReader(each).read("train") for each in (folder, tmp_path / "out")]
    assert sum(len(sample.truth) for sample in sets[0]) == sum(len(sample.truth) for sample in sets[1])


def mark(folder: Path, layout: str) -> None:
    """Says more of the first object of `train` than its class and its box; of a COCO set, also of the second."""
    if layout == "voc":
        name = (folder / "ImageSets" / "Main" / "train.txt").read_text().split()[0]
        file = folder / "Annotations" / f"{name}.xml"
        more = "<difficult>1</difficult><truncated>1</truncated><pose>Left</pose><occluded>0</occluded>"
        file.write_text(file.read_text().replace("<bndbox>", f"{more}<bndbox>", 1))
    elif layout == "coco":
        file = folder / "annotations" / "instances_train.json"
        content = json.loads(file.read_text())
        first, second, *_ = content["annotations"]
        x, y, width, height = first["bbox"]
        first |= {"segmentation": [[x, y, x + width, y, x, y + height]], "area": width * height / 2, "attributes": {}}
        second["iscrowd"] = 1
        file.write_text(json.dumps(content))
    else:
        file = min((folder / "labels" / "train").iterdir())
        _, *lines = file.read_text().splitlines()
        file.write_text("\n".join(["0 0.1 0.1 0.4 0.1 0.45 0.3 0.3 0.5 0.1 0.4", *lines]))


@pytest.mark.parametrize(
    ("layout", "format", "lost"),
    [
        ("voc", "voc", {"truncated": 1, "pose": 1}),
        ("voc", "coco", {"difficult": 1, "truncated": 1, "pose": 1}),
        ("coco", "coco", {"segmentation": 100}),
        ("coco", "voc", {"segmentation": 100, "area": 100, "crowd": 101}),
        ("coco", "yolo", {"segmentation": 100, "area": 100, "crowd": 101}),
        ("yolo", "voc", {"outline": 1}),
    ],
)
def test_what_the_copy_has_no_place_for_is_listed(
    copy: Copy, tmp_path: Path, layout: str, format: str, lost: dict[str, int]
):
    folder = copy(layout)
    mark(folder, layout)
    changes = write_fixed(examine(folder, only=["files"]), tmp_path / "out", format)
    listed = {change.value: change for change in changes if change.kind == "not-kept"}
    assert listed.keys() == {f"'{name}' of 1 object, of which this is the first" for name in lost}
    for name, number in lost.items():
        change = listed[f"'{name}' of 1 object, of which this is the first"]
        assert change.split == "train"
        assert re.search(rf"(object|annotation|line) {number}\b", change.where)
