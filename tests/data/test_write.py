"""Data sets written in each layout and read again: nothing that the format can hold is lost."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from defusedxml import ElementTree
from PIL import Image

from multibox.data import Dataset, GroundTruth, Sample
from multibox.data.synthetic import synthetic_scenes
from multibox.data.write import write_coco, write_voc, write_yolo
from tests.data.folders import read_clean

WRITERS = {"voc": write_voc, "coco": write_coco, "yolo": write_yolo}


@pytest.fixture(params=WRITERS)
def write(request):
    return WRITERS[request.param]


def one_sample(name="a", *, image=None, image_id=0, **truth):
    pixels = np.random.default_rng(5).integers(0, 256, (3, 30, 50), dtype=np.uint8)
    truth = GroundTruth(**{"boxes": [[1.25, 2, 40.1, 29.7]], "labels": [0], **truth})
    return Sample(name, pixels if image is None else image, 30, 50, truth, image_id)


def one_split(*samples, class_names=("cat", "dog"), **others):
    return Dataset("a set", class_names, samples, **others)


def assert_same(found, expected):
    assert len(found) == len(expected)
    assert found.class_names == expected.class_names
    assert found.problems == ()
    for sample, source in zip(found, expected, strict=True):
        assert Path(sample.name).stem == Path(source.name).stem
        assert (sample.height, sample.width) == (source.height, source.width)
        np.testing.assert_array_equal(sample.read(), source.read())
        np.testing.assert_allclose(sample.truth.boxes, source.truth.boxes, atol=1e-3)
        np.testing.assert_array_equal(sample.truth.labels, source.truth.labels)
        np.testing.assert_array_equal(sample.truth.crowd, source.truth.crowd)
        np.testing.assert_array_equal(sample.truth.difficult, source.truth.difficult)


def test_synthetic_scenes_are_the_same_when_read_again(write, tmp_path):
    train, val = synthetic_scenes(24, seed=0, height=72, width=96), synthetic_scenes(3, seed=1, height=72, width=96)
    assert any(len(sample.truth) == 0 for sample in train)
    write({"train": train, "val": val}, tmp_path / "new" / "set")
    assert_same(read_clean(tmp_path / "new" / "set", split="train"), train)
    assert_same(read_clean(tmp_path / "new" / "set", split="val"), val)


def test_the_order_of_classes_and_names_in_any_script_are_kept(write, tmp_path):
    dataset = one_split(one_sample("고양이_1"), class_names=("zebra", "고양이", "Äpfel & <Birnen>", "no"))
    write({"train": dataset}, tmp_path)
    found = read_clean(tmp_path, split="train")
    assert_same(found, dataset)
    assert found[0].name == "고양이_1.png"


def test_classes_without_objects_are_kept(write, tmp_path):
    write({"train": one_split(one_sample(labels=[1]))}, tmp_path)
    assert read_clean(tmp_path).class_names == ("cat", "dog")


def test_image_files_are_copied_as_they_are(write, tmp_path):
    file = tmp_path / "photo.JPG"
    Image.effect_mandelbrot((50, 30), (-2, -1.5, 1, 1.5), 20).convert("RGB").save(file, "JPEG", quality=60)
    dataset = one_split(one_sample("some/where/photo.JPG", image=file))
    write({"train": dataset}, tmp_path / "set")
    found = read_clean(tmp_path / "set")
    assert found[0].name == "some_where_photo.JPG"
    assert found[0].image.read_bytes() == file.read_bytes()
    np.testing.assert_allclose(found[0].truth.boxes, dataset[0].truth.boxes, atol=1e-3)


def test_boxes_fit_an_image_that_is_turned_when_shown(write, tmp_path):
    file = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 50)).save(file, exif=exif)
    dataset = one_split(one_sample("turned.jpg", image=file))
    write({"train": dataset}, tmp_path / "set")
    assert_same(read_clean(tmp_path / "set"), dataset)


def three_marks():
    return one_split(
        one_sample(
            boxes=[[0, 0, 10, 10], [5, 5, 20, 20], [10, 10, 50, 30]],
            labels=[0, 1, 0],
            difficult=[False, True, False],
            crowd=[False, False, True],
            areas=[77.5, 100, 300],
        )
    )


@pytest.mark.parametrize(
    ("format_name", "labels", "difficult", "crowd"),
    [
        ("voc", [0, 1], [False, True], [False, False]),
        ("coco", [0, 1, 0], [False, False, False], [False, False, True]),
        ("yolo", [0, 1], [False, False], [False, False]),
    ],
)
def test_marks_are_kept_where_the_format_has_them(format_name, labels, difficult, crowd, tmp_path):
    WRITERS[format_name]({"train": three_marks()}, tmp_path)
    truth = read_clean(tmp_path)[0].truth
    assert truth.labels.tolist() == labels
    assert truth.difficult.tolist() == difficult
    assert truth.crowd.tolist() == crowd


def test_coco_keeps_areas_and_numbers(tmp_path):
    marks = three_marks()
    dataset = one_split(one_sample("b", image_id=4711), *marks, category_ids=(7, 90))
    write_coco({"val": dataset}, tmp_path)
    found = read_clean(tmp_path)
    assert found.category_ids == (7, 90)
    assert [sample.image_id for sample in found] == [4711, 0]
    np.testing.assert_array_equal(found[1].truth.areas, marks[0].truth.areas)


def test_coco_is_read_by_pycocotools(tmp_path, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    write_coco({"val": three_marks()}, tmp_path)
    index = coco.COCO(tmp_path / "annotations" / "instances_val.json")
    assert len(index.getAnnIds(imgIds=[0], iscrowd=False)) == 2
    assert [category["name"] for category in index.loadCats(index.getCatIds())] == ["cat", "dog"]


def test_the_layouts_are_the_usual_ones(tmp_path):
    splits = {"train": one_split(one_sample("a"), one_sample("b", image_id=1)), "val": one_split(one_sample("c"))}
    for format_name, write in WRITERS.items():
        write(splits, tmp_path / format_name)
    files = {file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*") if file.is_file()}
    assert files == {
        *(f"voc/JPEGImages/{name}.png" for name in "abc"),
        *(f"voc/Annotations/{name}.xml" for name in "abc"),
        *(f"voc/ImageSets/Main/{split}.txt" for split in splits),
        "voc/classes.txt",
        *(f"coco/annotations/instances_{split}.json" for split in splits),
        *("coco/train/a.png", "coco/train/b.png", "coco/val/c.png"),
        *("yolo/images/train/a.png", "yolo/images/train/b.png", "yolo/images/val/c.png"),
        *("yolo/labels/train/a.txt", "yolo/labels/train/b.txt", "yolo/labels/val/c.txt"),
        "yolo/data.yaml",
    }
    assert (tmp_path / "voc/ImageSets/Main/train.txt").read_text() == "a\nb\n"
    box = ElementTree.parse(tmp_path / "voc/Annotations/a.xml").find("object/bndbox")
    assert {side.tag: side.text for side in box} == {"xmin": "1.25", "ymin": "2.0", "xmax": "40.1", "ymax": "29.7"}
    content = json.loads((tmp_path / "coco/annotations/instances_train.json").read_text())
    assert content["images"][1] == {"id": 1, "file_name": "b.png", "width": 50, "height": 30}
    assert [entry["id"] for entry in content["annotations"]] == [1, 2]
    assert yaml.safe_load((tmp_path / "yolo/data.yaml").read_text()) == {
        "train": "images/train",
        "val": "images/val",
        "names": {0: "cat", 1: "dog"},
    }
    label, *numbers = (tmp_path / "yolo/labels/val/c.txt").read_text().split()
    assert label == "0"
    expected = [(1.25 + 40.1) / 2 / 50, (2 + 29.7) / 2 / 30, (40.1 - 1.25) / 50, (29.7 - 2) / 30]
    np.testing.assert_allclose([float(number) for number in numbers], expected, rtol=1e-6)


def test_nothing_is_written_over(write, tmp_path):
    write({"train": one_split(one_sample())}, tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(FileExistsError, match="has files already; choose a new or an empty folder"):
        write({"val": one_split(one_sample("b"))}, tmp_path)
    assert sorted(tmp_path.rglob("*")) == before
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(FileExistsError, match="is a file"):
        write({"train": one_split(one_sample())}, file)


def test_what_does_not_fit_together_is_refused_before_anything_is_written(write, tmp_path):
    root = tmp_path / "set"
    cats = one_split(one_sample())
    with pytest.raises(ValueError, match="no split to write"):
        write({}, root)
    with pytest.raises(ValueError, match=r"'\.\./train' cannot name a split"):
        write({"../train": cats}, root)
    with pytest.raises(ValueError, match="classes of 'val' are 'dog', 'cat', but those of 'train' are 'cat', 'dog'"):
        write({"train": cats, "val": one_split(one_sample("b"), class_names=("dog", "cat"))}, root)
    with pytest.raises(ValueError, match=r"2 images .*would be called 'a_b'"):
        write({"train": one_split(one_sample("a/b.jpg"), one_sample("a_b.png", image_id=1))}, root)
    assert not root.exists()


def test_what_one_format_cannot_hold_is_refused(tmp_path):
    cats = one_split(one_sample())
    with pytest.raises(ValueError, match="2 images would be called 'a'"):
        write_voc({"train": cats, "val": cats}, tmp_path / "set")
    with pytest.raises(ValueError, match="2 images of 'train' have the image_id 0"):
        write_coco({"train": one_split(one_sample("a"), one_sample("b"))}, tmp_path / "set")
    with pytest.raises(ValueError, match="'train', 'val' and 'test', not 'trainval'"):
        write_yolo({"trainval": cats}, tmp_path / "set")
    assert not (tmp_path / "set").exists()
