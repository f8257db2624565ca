"""Where the names of the classes come from, and how the classes of several data sets are joined."""

from pathlib import Path

import pytest

from multibox.data import Dataset, DatasetError, read_dataset
from tests.data.folders import BOX, LINE, box_xml, boxes_of, coco_of, read_clean, write_json, write_picture, write_text


def voc_with_list(folder: Path, file: str, text: str, *names: str) -> Dataset:
    for number, name in enumerate(names or ("bolt", "valve")):
        write_picture(folder, "JPEGImages", f"{number}.jpg")
        write_text(folder / "Annotations" / f"{number}.xml", box_xml(name))
    write_text(folder / file, text)
    return read_dataset(folder)


@pytest.mark.parametrize(
    ("file", "text", "classes", "said"),
    [
        ("labels.txt", "BACKGROUND\nbolt\nvalve\n\n", ("bolt", "valve"), ["'BACKGROUND' is no class of objects"]),
        ("labels.txt", "valve,bolt\n", ("valve", "bolt"), []),
        (
            "labels.txt",
            "__background__\nvalve, bolt, nut",
            ("valve", "bolt", "nut"),
            ["'__background__' is no class of"],
        ),
        ("classes.txt", "valve\nbolt", ("valve", "bolt"), []),
        (
            "labelmap.txt",
            "# label:color_rgb:parts:actions\nbackground:0,0,0::\nvalve:1,2,3::\nbolt:4,5,6::",
            ("valve", "bolt"),
            ["'background' is no class of objects"],
        ),
        (
            "classes.txt",
            "dog\nperson",
            ("bolt", "valve"),
            ["no class in it ('dog', 'person') is in the annotations, which have 'bolt', 'valve'"],
        ),
    ],
)
def test_lists_of_classes_beside_xml(tmp_path: Path, file: str, text: str, classes: tuple[str, ...], said: list[str]):
    dataset = voc_with_list(tmp_path, file, text)
    assert dataset.class_names == classes
    assert [problem.what[: len(what)] for problem, what in zip(dataset.problems, said, strict=True)] == said
    names = [dataset.class_names[label] for sample in dataset for label in sample.truth.labels]
    assert names == ["bolt", "valve"]


def test_a_class_called_background_or_with_a_comma_is_kept_if_objects_have_it(tmp_path: Path):
    dataset = voc_with_list(tmp_path, "labels.txt", "background\nnut, bolt", "background", "nut, bolt")
    assert dataset.class_names == ("background", "nut, bolt")
    assert dataset.problems == ()


@pytest.mark.parametrize(
    ("names", "read"),
    [
        ("[007, 3.10, 12:30, no, ~, 1e3]", ("007", "3.10", "12:30", "no", "~", "1e3")),
        ("{0: yes, 1: 0x10, 2: 2020-01-01}", ("yes", "0x10", "2020-01-01")),
        ("\n  - on\n  - 'off'", ("on", "off")),
    ],
)
def test_names_that_yaml_would_rewrite(tmp_path: Path, names: str, read: tuple[str, ...]):
    write_picture(tmp_path, "images", "a.png")
    write_text(tmp_path / "labels" / "a.txt", LINE)
    write_text(tmp_path / "data.yaml", f"train: images\nnames: {names}")
    assert read_clean(tmp_path).class_names == read


@pytest.mark.parametrize(
    ("categories", "classes"),
    [
        ([("fish", "none"), ("cod", "fish"), ("eel", "fish")], ("cod", "eel")),
        ([("BACKGROUND", None), ("cod", None), ("eel", None)], ("cod", "eel")),
        ([("fish", "none"), ("cod", "fish"), ("eel", "none")], ("fish", "cod", "eel")),
    ],
)
def test_categories_that_are_no_class(tmp_path: Path, categories: list[tuple[str, str]], classes: tuple[str, ...]):
    content = coco_of("a.png")
    content["categories"] = [
        {"id": number, "name": name, **({"supercategory": above} if above else {})}
        for number, (name, above) in enumerate(categories)
    ]
    content["annotations"][0]["category_id"] = 2
    write_json(tmp_path / "train" / "_annotations.coco.json", content)
    write_picture(tmp_path, "train", "a.png")
    dataset = read_dataset(tmp_path)
    assert dataset.class_names == classes
    assert [classes[label] for label in dataset[0].truth.labels] == ["eel"]
    assert [problem.done for problem in dataset.problems] == ["category left out"] * (len(classes) == 2)
    content["annotations"][0]["category_id"] = 0
    write_json(tmp_path / "train" / "_annotations.coco.json", content)
    assert len(read_clean(tmp_path).class_names) == 3


def test_splits_with_categories_of_their_own_are_joined_by_name(tmp_path: Path):
    for split, names in (("train", ("A", "bolt", "valve")), ("val", ("valve", "A")), ("test", ("nut", "bolt"))):
        write_picture(tmp_path, split, f"{split}.jpg")
        write_json(tmp_path / "annotations" / f"{split}.json", coco_of(f"{split}.jpg", names=names))
    train, val, test = (read_clean(tmp_path, split=split) for split in ("train", "val", "test"))
    joined = val.with_classes(train.class_names)
    assert joined.class_names == train.class_names
    assert joined[0].truth.labels.tolist() == [2]
    assert boxes_of(joined) == {"val.jpg": [BOX]}
    assert (joined.category_ids, train.with_classes(train.class_names)) == (None, train)
    assert train.with_classes(("valve", "bolt", "A")).category_ids == (2, 1, 0)
    with pytest.raises(DatasetError, match="test has objects of 'nut', which is none of the 3 classes: 'A', 'bolt'"):
        test.with_classes(train.class_names)
