"""The third question of reading: which split does each image belong to?"""

from collections.abc import Callable
from pathlib import Path

import pytest

from multibox.data import DatasetError, DatasetReader, list_splits, read_dataset
from multibox.data.read import usual_split
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
    write_yolo_set,
)


def roboflow_voc(root: Path) -> None:
    for split in ("train", "valid", "test"):
        write_picture(root, split, f"a_jpg.rf.{split}.jpg")
        write_text(root / split / f"a_jpg.rf.{split}.xml", box_xml(file_name=f"a_jpg.rf.{split}.jpg"))
    write_text(root / "README.roboflow.txt", "about the set")


def roboflow_coco(root: Path) -> None:
    for split in ("train", "valid", "test"):
        write_picture(root, split, "images", "a.jpg")
        write_json(root / split / "_annotations.coco.json", coco_of("a.jpg"))


def roboflow_darknet(root: Path) -> None:
    for split in ("train", "valid", "test"):
        write_picture(root, split, "a.jpg")
        write_text(root / split / "a.txt", LINE)
        write_text(root / split / "_darknet.labels", "valve\n")


def yolo_with_other_folders(root: Path) -> None:
    for split in ("Train", "valid", "TEST"):
        write_picture(root, split, "imgs", "a b.png")
        write_text(root / split / "Labels" / "a b.txt", LINE)
    write_text(root / "data.yaml", "nc: 1\nnames: [valve]\n")


def coco_beside(root: Path) -> None:
    for split in ("train", "valid", "test"):
        write_picture(root, split, f"{split}.jpg")
        write_json(root / split / f"{split}_COCO.json", coco_of(f"{split}.jpg"))


def one_json(root: Path) -> None:
    for split in ("train", "valid", "test"):
        write_picture(root, "images", split, "a.jpg")
    write_json(root / "annotations.json", coco_of("images/train/a.jpg", "test/a.jpg", "valid\\a.jpg"))


def cvat_yolo(root: Path) -> None:
    for split in ("train", "valid", "test"):
        write_picture(root, f"obj_{split}_data", "f 0.PNG")
        write_text(root / f"obj_{split}_data" / "f 0.txt", LINE)
        write_text(root / f"{split}.txt", f"data/obj_{split}_data/f 0.PNG\n")
    entries = "".join(f"{split} = data/{split}.txt\n" for split in ("train", "valid", "test"))
    write_text(root / "obj.data", f"classes = 1\n{entries}names = data/obj.names\nbackup = backup/\n")
    write_text(root / "obj.names", "valve\n")


def lists_alone(root: Path) -> None:
    cvat_yolo(root)
    (root / "obj.data").unlink()


def folders_alone(root: Path) -> None:
    lists_alone(root)
    for split in ("train", "valid", "test"):
        (root / f"{split}.txt").unlink()


def lists_are_missing(root: Path) -> None:
    cvat_yolo(root)
    (root / "valid.txt").unlink()


@pytest.mark.parametrize(
    "write",
    [
        roboflow_voc,
        roboflow_coco,
        roboflow_darknet,
        yolo_with_other_folders,
        coco_beside,
        one_json,
        cvat_yolo,
        lists_alone,
        folders_alone,
        lists_are_missing,
    ],
)
def test_exports_with_splits(tmp_path: Path, write: Callable[[Path], None]):
    write(tmp_path)
    assert list_splits(tmp_path) == ("train", "valid", "test")
    for split in ("train", "valid", "test"):
        dataset = read_clean(tmp_path, split=split)
        assert dataset.class_names == ("valve",)
        assert list(boxes_of(dataset).values()) == [[BOX]]
        assert split in str(dataset[0].image).lower()
    assert usual_split(list_splits(tmp_path), ["val", "test"]) == "valid"
    assert DatasetReader(tmp_path).choose("val") == "valid"


@pytest.mark.parametrize("key", ["val", "valid", "validation"])
def test_keys_of_a_data_yaml(tmp_path: Path, key: str):
    write_yolo_set(tmp_path, {"a": "0 0.5 0.5 0.25 0.5"})
    write_text(tmp_path / "data.yaml", f"train: images/train\n{key}: images/train\nnames: [cat]")
    assert list_splits(tmp_path) == ("train", key)
    assert usual_split(list_splits(tmp_path), ["val", "test"]) == key
    assert len(read_clean(tmp_path, split="val")) == 1


@pytest.mark.parametrize(
    "entries",
    [
        "path: C:\\Users\\me\\set\ntrain: images\\train",
        "train: images\\train",
        "path: /content/drive/set\ntrain: images/train/",
        "path: /content/drive/set\ntrain: /content/drive/set/images/train",
    ],
)
def test_entries_of_another_machine(tmp_path: Path, entries: str):
    write_yolo_set(tmp_path, {"a": "0 0.5 0.5 0.25 0.5"})
    write_text(tmp_path / "data.yaml", f"{entries}\nnames: [cat]")
    assert len(read_clean(tmp_path)[0].truth) == 1


@pytest.mark.parametrize(
    "line", ["C:\\Users\\x\\project\\images\\a0.jpg", "/content/drive/images/a0.jpg", "data/images/a0.jpg", "a0"]
)
def test_lists_of_another_machine(tmp_path: Path, line: str):
    write_picture(tmp_path, "images", "a0.jpg")
    write_text(tmp_path / "labels" / "a0.txt", LINE)
    write_text(tmp_path / "train.txt", line)
    write_text(tmp_path / "data.yaml", "path: /content/drive/MyDrive\ntrain: train.txt\nnames: [valve]")
    assert boxes_of(read_clean(tmp_path)) == {"a0.jpg": [BOX]}


def test_a_list_is_read_from_its_own_split(tmp_path: Path):
    for split in ("train", "val"):
        write_picture(tmp_path, "images", split, "a0.jpg")
        write_text(tmp_path / "labels" / split / "a0.txt", LINE)
        write_text(tmp_path / f"{split}.txt", f"data/images/{split}/a0.jpg")
    write_text(tmp_path / "data.yaml", "path: .\ntrain: train.txt\nval: val.txt\nnames: [valve]")
    for split in ("train", "val"):
        (sample,) = read_clean(tmp_path, split=split)
        assert sample.image == tmp_path / "images" / split / "a0.jpg"


def test_the_folder_beside_a_data_yaml_comes_before_its_neighbour(tmp_path: Path):
    for folder in (".", "set"):
        write_picture(tmp_path, folder, "train", "images", f"{folder}a.png")
        write_text(tmp_path / folder / "train" / "labels" / f"{folder}a.txt", LINE)
    write_text(tmp_path / "set" / "data.yaml", "train: ../train/images\nnames: [a]")
    dataset = read_dataset(tmp_path / "set")
    assert boxes_of(dataset) == {"seta.png": [BOX]}
    assert [problem.done for problem in dataset.problems] == ["the one beside the file taken"]


@pytest.mark.parametrize("doubled", [False, True])
def test_lists_of_one_class_together_are_the_split(tmp_path: Path, doubled: bool):
    """As VoTT writes them: with suffix and mark, in older versions with both marks for an image."""
    for name in ("part0", "part1", "part2"):
        write_picture(tmp_path, "JPEGImages", f"{name}.jpg")
        write_text(tmp_path / "Annotations" / f"{name}.xml", box_xml("hex_bolt" if name == "part1" else "valve"))
    for owner in ("hex_bolt", "valve"):
        lines = [f"part{number}.jpg {mark}" for number in (0, 1) for mark in (("-1", "1") if doubled else ("1",))]
        write_text(tmp_path / "ImageSets" / "Main" / f"{owner}_train.txt", "\n".join(lines))
        write_text(tmp_path / "ImageSets" / "Main" / f"{owner}_val.txt", "part2.jpg -1\n")
    assert list_splits(tmp_path) == ("train", "val")
    assert boxes_of(read_clean(tmp_path, split="train")) == {"part0.jpg": [BOX], "part1.jpg": [BOX]}
    assert boxes_of(read_clean(tmp_path, split="val")) == {"part2.jpg": [BOX]}


def test_images_outside_the_folders_of_splits_are_said(tmp_path: Path):
    roboflow_voc(tmp_path)
    write_picture(tmp_path, "more", "b.jpg")
    write_text(tmp_path / "more" / "b.xml", box_xml())
    (problem,) = read_dataset(tmp_path, split="train").problems
    assert problem.what == "1 image, such as b.jpg, is in no folder of a split"


def test_two_exports_side_by_side(tmp_path: Path):
    for name in ("one", "two"):
        roboflow_voc(tmp_path / name)
    with pytest.raises(DatasetError, match=r"holds 2 data sets; give one of them: .*one, .*two"):
        list_splits(tmp_path)


@pytest.mark.parametrize("file", ["annotations/instances_train.json", "train/_annotations.coco.json", "result.json"])
def test_two_sets_of_coco_side_by_side(tmp_path: Path, file: str):
    for name in ("one", "two"):
        write_picture(tmp_path / "data" / name, "train", "a.jpg")
        write_json(tmp_path / "data" / name / file, coco_of("a.jpg"))
    with pytest.raises(DatasetError, match=r"holds 2 data sets; give one of them: .*/data/one, .*/data/two$"):
        list_splits(tmp_path)


def test_an_empty_list_is_said(tmp_path: Path):
    voc = tmp_path / "ImageSets" / "Main"
    write_picture(tmp_path, "JPEGImages", "a.jpg")
    write_text(tmp_path / "Annotations" / "a.xml", box_xml())
    write_text(voc / "train.txt", "a\n")
    write_text(voc / "val.txt", "\n")
    assert boxes_of(read_clean(tmp_path, split="train")) == {"a.jpg": [BOX]}
    with pytest.raises(DatasetError, match=r"val.txt: the list is empty"):
        read_dataset(tmp_path, split="val")


def test_years_and_any_case(tmp_path: Path):
    for split in ("Train2017", "VAL2017"):
        write_picture(tmp_path, split, f"{split}.jpg")
        write_text(tmp_path / split / f"{split}.xml", box_xml())
    assert list_splits(tmp_path) == ("train2017", "val2017")
    assert len(read_clean(tmp_path, split="val")) == 1


@pytest.mark.parametrize("file", ["lvis_v1_train.json", "zhiyuan_objv2_train.json", "train_COCO.json", "Train.json"])
def test_splits_in_the_names_of_files(tmp_path: Path, file: str):
    write_picture(tmp_path, "a.jpg")
    write_json(tmp_path / file, coco_of("a.jpg"))
    assert list_splits(tmp_path) == ("train",)
