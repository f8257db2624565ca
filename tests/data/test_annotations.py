"""The first question of reading: what annotates? The exports of annotation tools are read as they are."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from multibox.data import DatasetError, list_splits, read_dataset
from tests.data.folders import (
    BOX,
    LINE,
    box_xml,
    boxes_of,
    coco_of,
    read_clean,
    write_json,
    write_picture,
    write_text,
)

NAMES = ("a0", "Écran 1")


def labelimg_voc(root: Path) -> None:
    for name in NAMES:
        write_picture(root, f"{name}.jpg")
        write_text(root / f"{name}.xml", box_xml(file_name=f"{name}.jpg"))


def labelimg_yolo(root: Path) -> None:
    for name in NAMES:
        write_picture(root, f"{name}.jpg")
        write_text(root / f"{name}.txt", f"1{LINE[1:]}")
    write_text(root / "classes.txt", "dog\nvalve\n")


def kaggle_voc(root: Path) -> None:
    for name in NAMES:
        write_picture(root, "images", f"{name}.png")
        write_text(root / "annotations" / f"{name}.xml", box_xml(file_name=f"{name}.png"))


def labelstudio_voc(root: Path) -> None:
    for name in NAMES:
        write_picture(root, "images", f"{name}.jpg")
        write_text(root / "Annotations" / f"{name}.xml", box_xml())


def voc_without_lists(root: Path) -> None:
    for name in NAMES:
        write_picture(root, "JPEGImages", f"{name}.jpg")
        write_text(root / "Annotations" / f"{name}.xml", box_xml())


def labelstudio_yolo(root: Path) -> None:
    for name in NAMES:
        write_picture(root, "images", f"{name}.png")
        write_text(root / "labels" / f"{name}.txt", LINE)
    write_text(root / "classes.txt", "valve\nbolt\n")
    write_json(root / "notes.json", {"categories": [{"id": 0, "name": "valve"}, {"id": 1, "name": "bolt"}]})


def notes_only(root: Path) -> None:
    labelstudio_yolo(root)
    (root / "classes.txt").unlink()


def fiftyone_coco(root: Path) -> None:
    for name in NAMES:
        write_picture(root, "data", f"{name}.jpg")
    write_json(root / "labels.json", coco_of(*(f"{name}.jpg" for name in NAMES)))


def cvat_coco(root: Path) -> None:
    for name in NAMES:
        write_picture(root, "images", "default", f"{name}.jpg")
    write_json(root / "annotations" / "instances_default.json", coco_of(*(f"{name}.jpg" for name in NAMES)))


def cvat_voc(root: Path) -> None:
    voc_without_lists(root)
    write_text(root / "ImageSets" / "Main" / "default.txt", "\n".join(NAMES))


def labelme(root: Path) -> None:
    for name in NAMES:
        write_picture(root, f"{name}.jpg")
        shape = {"label": "valve", "points": [[20, 30], [40, 16], [60, 56]], "shape_type": "polygon"}
        content = {"shapes": [shape], "imagePath": f"..\\x\\{name}.jpg", "imageHeight": 96, "imageWidth": 128}
        write_json(root / f"{name}.json", content)


def batches(root: Path) -> None:
    for number, name in enumerate(NAMES):
        write_picture(root, f"batch {number}", "a.jpg")
        write_text(root / f"batch {number}" / "a.xml", box_xml(file_name=name))


WRITERS = [
    labelimg_voc,
    labelimg_yolo,
    kaggle_voc,
    labelstudio_voc,
    voc_without_lists,
    labelstudio_yolo,
    notes_only,
    fiftyone_coco,
    cvat_coco,
    cvat_voc,
    labelme,
    batches,
]


@pytest.mark.parametrize("write", WRITERS)
def test_exports_without_a_split(tmp_path: Path, write: Callable[[Path], None]):
    write(tmp_path)
    write_text(tmp_path / "README.md", "about the set")
    assert list_splits(tmp_path) == ("all",)
    dataset = read_clean(tmp_path)
    assert list(boxes_of(dataset).values()) == [[BOX], [BOX]]
    assert {dataset.class_names[label] for sample in dataset for label in sample.truth.labels} == {"valve"}
    if write is not batches:  # where both images are called a.jpg
        train, val = dataset.split(val=0.5)
        assert (len(train), len(val)) == (1, 1)


@pytest.mark.parametrize("folder", ["annotations", "Annotations", "labels", "labels/train", "XML"])
def test_the_folder_of_the_annotations_alone(tmp_path: Path, folder: str):
    is_yolo = folder.startswith("labels")
    write_picture(tmp_path, "images", "a.png")
    write_text(tmp_path / folder / ("a.txt" if is_yolo else "a.xml"), LINE if is_yolo else box_xml())
    assert boxes_of(read_dataset(tmp_path / folder)) == {"a.png": [BOX]}


def test_classes_without_names_are_numbered_and_it_is_said(tmp_path: Path):
    write_picture(tmp_path, "images", "a.png")
    write_text(tmp_path / "labels" / "a.txt", f"2{LINE[1:]}")
    dataset = read_dataset(tmp_path)
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    (problem,) = dataset.problems
    assert problem.what.startswith("no file names the classes (classes.txt")


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ({"points": [[60, 56], [20, 16]], "shape_type": "rectangle"}, BOX),
        ({"points": [[40, 36], [40, 56]], "shape_type": "circle"}, BOX),
        ({"points": [[20, 16], [60, 56], [60, 16]]}, BOX),
        ({"points": [[20, 16]], "shape_type": "point"}, "a point has no box"),
        ({"points": [["a", 16], [1, 2]], "shape_type": "polygon"}, "are no corners of a polygon"),
        ({"points": [[3, 16], [3, 20]], "shape_type": "polygon"}, "has no width"),
        ({"points": None}, "points None are no corners of a polygon"),
    ],
)
def test_shapes_of_labelme(tmp_path: Path, shape: dict[str, object], box: list[float] | str):
    write_picture(tmp_path, "a.png")
    other = {"label": "bolt", "points": [[1, 1], [9, 9]], "shape_type": "rectangle"}
    write_json(tmp_path / "a.json", {"shapes": [{"label": "valve", **shape}, other], "imagePath": "a.png"})
    dataset = read_dataset(tmp_path)
    assert dataset[0].truth.boxes.tolist() == [*([box] if isinstance(box, list) else []), [1, 1, 9, 9]]
    assert [problem.done for problem in dataset.problems] == ["box left out"] * isinstance(box, str)
    assert not isinstance(box, str) or box in dataset.problems[0].what


@pytest.mark.parametrize("text", ["{", "[]", '{"shapes": 3, "imagePath": ""}'])
def test_a_labelme_file_that_cannot_be_read(tmp_path: Path, text: str):
    labelme(tmp_path)
    write_picture(tmp_path, "b.jpg")
    write_text(tmp_path / "b.json", f'{text} "shapes": ,')
    dataset = read_dataset(tmp_path)
    assert len(dataset) == 2
    assert [(Path(problem.where).name, problem.done) for problem in dataset.problems] == [("b.json", "image left out")]


def test_an_oriented_box_of_an_xml_becomes_the_one_around_it(tmp_path: Path):
    box = "<robndbox><cx>40</cx><cy>36</cy><w>40</w><h>20</h><angle>1.5707963</angle></robndbox>"
    write_picture(tmp_path, "a.png")
    write_text(tmp_path / "a.xml", voc_xml_of(box))
    assert read_clean(tmp_path)[0].truth.boxes.round(3).tolist() == [[30, 16, 50, 56]]


def voc_xml_of(box: str) -> str:
    return f"<annotation><object><name>valve</name>{box}</object></annotation>"


@pytest.mark.parametrize(("text", "difficult"), [("1", True), ("True", True), ("yes", True), ("0", False), ("", False)])
def test_marks_of_difficult_objects(tmp_path: Path, text: str, difficult: bool):
    write_picture(tmp_path, "a.png")
    write_text(tmp_path / "a.xml", box_xml(extra=f"<difficult>{text}</difficult>"))
    assert read_clean(tmp_path)[0].truth.difficult.tolist() == [difficult]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "annotations.xml",
            "<?xml version='1.0'?><annotations><image/></annotations>",
            "CVAT's own XML.*export the task",
        ),
        ("via.json", json.dumps({"_via_settings": {}}), "a project of VIA, which is not read here; export .* COCO"),
        (
            "export.json",
            json.dumps([{"annotations": [{"result": [], "from_name": "x"}]}]),
            "Label Studio's own JSON.*export as COCO",
        ),
        ("via_region_data.json", json.dumps({"a.jpg9": {"regions": [{"shape_attributes": {}}]}}), "a project of VIA"),
        (
            "labels.csv",
            "filename,class,xmin,ymin,xmax,ymax\n",
            r"labels.csv\) are a table of boxes.*write them as COCO",
        ),
        ("notes.csv", "hello", r"\(found 1 \.csv file of other content\)"),
        ("notes.txt", "hello", r"1 image, but no data set is here .*\(found 1 \.txt file of other content\)"),
    ],
)
def test_what_is_not_read_is_refused_by_name(tmp_path: Path, file: str, content: str, message: str):
    write_picture(tmp_path, "a.jpg")
    write_text(tmp_path / file, content)
    with pytest.raises(DatasetError, match=message):
        read_dataset(tmp_path)


@pytest.mark.parametrize(
    ("image", "label"),
    [("IMG_1.JPG", "img_1.txt"), ("Gr\u00f6\u00dfe.png", "Gro\u0308\u00dfe.txt"), ("my cam.png", "my%20cam.txt")],
)
@pytest.mark.parametrize("folder", [".", "annotations"])
def test_texts_of_yolo_with_another_spelling_of_the_name(tmp_path: Path, image: str, label: str, folder: str):
    write_picture(tmp_path, image)
    write_text(tmp_path / folder / label, LINE)
    write_text(tmp_path / "classes.txt", "valve\n")
    assert boxes_of(read_clean(tmp_path)) == {image: [BOX]}


@pytest.mark.parametrize("file", ["x.json", "x.csv", "x.txt", "x.data", "x.jpg"])
def test_a_broken_link_hides_nothing(tmp_path: Path, file: str):
    (tmp_path / file).symlink_to(tmp_path / "nowhere")
    write_picture(tmp_path, "a.png")
    with pytest.raises(DatasetError, match="no data set is here"):
        read_dataset(tmp_path)
    write_text(tmp_path / "a.xml", box_xml())
    assert boxes_of(read_dataset(tmp_path)) == {"a.png": [BOX]}


def test_two_kinds_at_once_and_the_step_that_helps(tmp_path: Path):
    write_picture(tmp_path, "images", "a.png")
    write_text(tmp_path / "annotations" / "a.xml", box_xml())
    write_text(tmp_path / "labels" / "a.txt", LINE)
    with pytest.raises(DatasetError, match="2 layouts at once: 1 VOC XML file and 1 YOLO text file; keep one"):
        read_dataset(tmp_path)
    for folder in ("annotations", "labels"):
        assert boxes_of(read_dataset(tmp_path / folder)) == {"a.png": [BOX]}
