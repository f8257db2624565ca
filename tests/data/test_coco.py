import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multibox.data import Dataset, DatasetError, list_splits, read_dataset
from tests.data.folders import read_clean, write_image, write_json, write_text

CATEGORIES = [
    {"id": 18, "name": "dog"},
    {"id": 3, "name": "car"},
]  # neither from 1 nor in the order of names or numbers


def image(number: Any = 7, name: Any = "a.png", **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "width": 64, "height": 48, **more}


def annotation(number: Any = 1, image_id: Any = 7, **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image_id, "category_id": 3, "bbox": [10, 8, 20.5, 32.25], "area": 100, **more}


def write_set(folder: Path, *annotations: Any, images: Any = None, categories: Any = CATEGORIES) -> Path:
    """Writes a JSON for `train`, and the image `train/a.png`."""
    content = {"images": images or [image()], "annotations": list(annotations), "categories": categories}
    write_json(folder / "annotations" / "instances_train.json", content)
    write_image(folder / "train" / "a.png")
    return folder


def read(folder: Path) -> Dataset:
    return read_dataset(folder, split="train", on_problem="skip")


def said(dataset: Dataset) -> list[tuple[str, str, str]]:
    """Returns where each problem is (without folders), what it is, and what was done."""
    return [(problem.where.rpartition("/")[2], problem.what, problem.done) for problem in dataset.problems]


def test_keeps_what_the_file_says(tmp_path: Path):
    crowd = annotation(2, category_id=18, iscrowd=1, bbox=[0, 0, 64, 48], segmentation={"counts": [1], "size": [1, 1]})
    write_set(tmp_path, annotation(), crowd, images=[image(), image(2, "b.png")])
    write_image(tmp_path / "train" / "b.png")
    dataset = read_clean(tmp_path)
    assert dataset.class_names == ("dog", "car")
    assert dataset.category_ids == (18, 3)
    assert [(sample.name, sample.image_id) for sample in dataset] == [("a.png", 7), ("b.png", 2)]
    truth = dataset[0].truth
    assert truth.boxes.tolist() == [[10, 8, 30.5, 40.25], [0, 0, 64, 48]]
    assert truth.labels.tolist() == [1, 0]
    assert truth.crowd.tolist() == [False, True]
    assert truth.areas.tolist() == [100, 100]
    assert len(dataset[1].truth) == 0
    assert dataset.problems == ()


@pytest.mark.parametrize(
    "place",
    ["train/a.png", "images/train/a.png", "train2017/a.png", "images/train2017/a.png", "images/a.png", "a.png"],
)
def test_where_the_images_may_be(tmp_path: Path, place: str):
    write_set(tmp_path, annotation())
    (tmp_path / "train" / "a.png").unlink()
    write_image(tmp_path / "val" / "a.png")  # not this one
    write_image(tmp_path / place)
    assert read_clean(tmp_path)[0].image == tmp_path / place


@pytest.mark.parametrize("name", ["train/a.png", "train/a.PNG", "train\\a.png"])
def test_a_file_name_from_the_root_or_with_a_suffix_in_other_case(tmp_path: Path, name: str):
    write_set(tmp_path, annotation(), images=[image(name=name)])
    assert read_clean(tmp_path)[0].image == tmp_path / "train" / "a.png"


def test_roboflows_layout(tmp_path: Path):
    content = {"images": [image()], "annotations": [annotation()], "categories": CATEGORIES}
    for split in ("train", "valid"):
        write_json(tmp_path / split / "_annotations.coco.json", content)
        write_image(tmp_path / split / "a.png")
    assert list_splits(tmp_path) == ("train", "valid")
    assert read_clean(tmp_path, split="valid")[0].image == tmp_path / "valid" / "a.png"
    assert read_clean(tmp_path / "valid")[0].image == tmp_path / "valid" / "a.png"


def test_other_files_among_the_annotations_are_no_splits(tmp_path: Path):
    folder = write_set(tmp_path, annotation())
    instances = json.loads((folder / "annotations" / "instances_train.json").read_text())
    write_json(folder / "annotations" / "captions_train.json", instances)
    write_json(folder / "annotations" / "person_keypoints_train.json", instances)
    write_json(folder / "annotations" / "notes.json", {"made": "by hand"})
    write_json(folder / "annotations" / "more.json", instances)
    assert list_splits(folder) == ("train", "more")


def test_two_files_of_one_split(tmp_path: Path):
    folder = write_set(tmp_path, annotation())
    content = (folder / "annotations" / "instances_train.json").read_text()
    write_text(folder / "annotations" / "train.json", content)
    with pytest.raises(DatasetError, match=r"instances_train\.json and .*train\.json are both of split 'train'"):
        read_clean(folder)


def test_json_files_beside_the_images_and_by_themselves(tmp_path: Path):
    content = {"images": [image()], "annotations": [annotation()], "categories": CATEGORIES}
    file = write_json(tmp_path / "train.json", content)
    write_json(tmp_path / "metrics.json", {"ap": 0.5})
    write_image(tmp_path / "train" / "a.png")
    assert len(read_clean(tmp_path)) == len(read_clean(file)) == 1


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(tmp_path: Path, encoding: str):
    file = write_set(tmp_path, annotation()) / "annotations" / "instances_train.json"
    write_text(file, file.read_text(), encoding)
    assert len(read_clean(tmp_path)) == 1


def test_whole_numbers_that_pandas_wrote(tmp_path: Path):
    write_set(tmp_path, annotation(1.0, 7.0, category_id=3.0))
    assert read_clean(tmp_path)[0].truth.labels.tolist() == [1]


def test_an_area_that_is_not_stated_is_that_of_the_box(tmp_path: Path):
    write_set(tmp_path, annotation(1, area=0, bbox=[0, 0, 3, 4]), annotation(2, area=None, bbox=[0, 0, 4, 3]))
    assert read_clean(tmp_path)[0].truth.areas.tolist() == [12, 12]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"bbox": [13, 8, 0, 4]}, "box [13.0, 8.0, 13.0, 12.0] has no width"),
        ({"bbox": [13, 8, 5, -4]}, "box [13.0, 8.0, 18.0, 4.0] has a negative height"),
        ({"bbox": [13, 8, float("nan"), 4]}, "box [13.0, 8.0, nan, 12.0] holds a value that is not finite"),
        ({"bbox": [10**400, 8, 5, 4]}, f"bbox [1{'0' * 17}...{'0' * 18}, 8, 5, 4] is not four numbers"),
        ({"bbox": [100, 8, 5, 4]}, "box [100.0, 8.0, 105.0, 12.0] lies outside the image (width 64, height 48)"),
        ({"bbox": [1, 2, 3]}, "bbox [1, 2, 3] is not four numbers"),
        ({"bbox": None}, "bbox None is not four numbers"),
        ({"category_id": 1}, "category_id 1 is none of the categories"),
        ({"category_id": [3]}, "category_id [3] is none of the categories"),
    ],
)
def test_boxes_that_are_left_out(tmp_path: Path, change: dict[str, Any], what: str):
    dataset = read(write_set(tmp_path, annotation(1), annotation(4711, **change)))
    where = "instances_train.json, annotation 4711 of image 'a.png'"
    assert said(dataset) == [(where, what, "box left out")]
    assert len(dataset[0].truth) == 1


@pytest.mark.parametrize("area", [-5, -0.01, 1e12, 1e39, float("nan"), "large"])
def test_an_impossible_area(tmp_path: Path, area: object):
    dataset = read(write_set(tmp_path, annotation(1, area=area, bbox=[0, 0, 3, 4])))
    ((_, what, done),) = said(dataset)
    assert (what, done) == (f"area {area!r} is none", "area of the box taken")
    assert dataset[0].truth.areas.tolist() == [12]


def test_a_very_large_area_is_kept(tmp_path: Path):
    assert read_clean(write_set(tmp_path, annotation(1, area=9.99e11)))[0].truth.areas.tolist() == [np.float32(9.99e11)]


@pytest.mark.parametrize(
    ("number", "is_read"),
    [
        (2**63 - 1, True),
        (2**63, False),
        (-(2**63), True),
        (-(2**63) - 1, False),
        (0, True),
        (0.5, False),
        (True, False),
    ],
)
def test_numbers_of_images_have_64_bits(tmp_path: Path, number: object, is_read: bool):
    write_image(tmp_path / "train" / "b.png")
    dataset = read(write_set(tmp_path, images=[image(), image(number, "b.png")]))
    assert [sample.image_id for sample in dataset] == ([7, number] if is_read else [7])
    assert len(dataset.problems) == (not is_read)


def test_repeated_annotations(tmp_path: Path):
    again, other = annotation(1), annotation(1, bbox=[0, 0, 5, 5])
    dataset = read(write_set(tmp_path, annotation(1), again, other))
    where = "instances_train.json, annotation 1 of image 'a.png'"
    assert said(dataset) == [
        (where, "the id is used twice", "taken once"),
        (where, "the id is used twice", "both annotations kept"),
    ]
    assert len(dataset[0].truth) == 2


def test_annotations_of_no_image(tmp_path: Path):
    dataset = read(write_set(tmp_path, annotation(1), annotation(2, 99), annotation(None, None), "text"))
    assert said(dataset) == [
        ("instances_train.json, annotation 2", "image_id 99 is none of the images", "annotation left out"),
        ("instances_train.json, annotation 2", "image_id None is none of the images", "annotation left out"),
        ("instances_train.json, annotation 3", "image_id None is none of the images", "annotation left out"),
    ]


def test_images_that_cannot_be_used(tmp_path: Path):
    images = [image(), image(7, "b.png"), image(8, "a.png"), image(9, "c.png"), image("x", "d.png"), image(10, None)]
    write_image(tmp_path / "train" / "b.png")
    dataset = read(write_set(tmp_path, annotation(), images=images))
    assert [sample.name for sample in dataset] == ["a.png"]
    assert [problem.what.partition(" in /")[0] for problem in dataset.problems] == [
        "'a.png' has the same id",
        "no file_name",
        "'a.png' is listed a second time",
        "there is no such image",
        "there is no such image",
    ]


def test_categories_that_cannot_be_told_apart(tmp_path: Path):
    names = [(1, "cat"), (2, "cat"), (2, "dog"), (3, None), (4, "Cat")]
    categories = [{"id": number, "name": name} for number, name in names]
    dataset = read(write_set(tmp_path, annotation(category_id=2), categories=categories))
    assert dataset.class_names == ("cat", "Cat")
    assert dataset.category_ids == (1, 4)
    assert [(problem.what, problem.done) for problem in dataset.problems] == [
        ("categories 'cat' and 'dog' have the same id 2", "'dog' left out"),
        ("category 3 (id 3, name None) has no id or no name", "category left out"),
        ("class 'cat' is named twice", "taken as one class"),
        ("classes 'cat' and 'Cat' differ in case or spaces only", "kept as two classes"),
    ]
    assert dataset[0].truth.labels.tolist() == [0]


def test_labels_behind_a_category_that_is_named_twice(tmp_path: Path):
    categories = [{"id": number, "name": name} for number, name in ((5, "dog"), (9, "cat"), (2, "dog"), (7, "ant"))]
    dataset = read(
        write_set(
            tmp_path,
            *(annotation(id, category_id=id, bbox=[id, 8, 9, 9]) for id in (5, 9, 2, 7)),
            categories=categories,
        )
    )
    assert (dataset.class_names, dataset.category_ids) == (("dog", "cat", "ant"), (5, 9, 7))
    assert dataset[0].truth.labels.tolist() == [0, 1, 0, 2]


def test_a_size_that_disagrees_is_said(tmp_path: Path):
    dataset = read(write_set(tmp_path, annotation(), images=[image(width=100)]))
    ((where, what, _),) = said(dataset)
    assert where == "instances_train.json, image 7 'a.png'"
    assert what == "the size is given as width 100, height 48, but the image has width 64, height 48"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "the JSON cannot be read: Expecting value"),
        ("[" * 100_000, "the JSON cannot be read"),
        ("[]", "there is no list 'images'"),
        ('{"images": [], "annotations": {}}', "there is no list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": []}', "there is no image that can be used"),
    ],
)
def test_files_that_are_not_cocos(tmp_path: Path, text: str, message: str):
    write_text(tmp_path / "annotations" / "instances_train.json", text)
    with pytest.raises(DatasetError, match=message):
        read(tmp_path)
