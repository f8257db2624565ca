import io
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multibox.data import Dataset, DatasetError, DatasetReader, list_splits, read_dataset
from multibox.data.synthetic import synthetic_scenes
from multibox.data.write import write_coco, write_voc, write_yolo
from tests.data.folders import (
    read_clean,
    voc_object,
    voc_xml,
    write_image,
    write_json,
    write_text,
    write_voc_set,
    write_yolo_set,
)

XML = voc_xml(voc_object("cat", (10, 8, 30, 40)))


def write_coco_set(folder: Path) -> Path:
    write_json(
        folder / "annotations" / "instances_train.json",
        {
            "images": [{"id": 1, "file_name": "a.png"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 8, 20, 32]}],
            "categories": [{"id": 1, "name": "cat"}],
        },
    )
    write_image(folder / "train" / "a.png")
    return folder


def write_set(layout: str, folder: Path) -> Path:
    if layout == "VOC":
        return write_voc_set(folder, {"a": XML})
    if layout == "YOLO":
        return write_yolo_set(folder, {"a": "0 0.3125 0.5 0.3125 0.6666667"})
    return write_coco_set(folder)


LAYOUTS = ["VOC", "COCO", "YOLO"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("above", [0, 1, 2, 5])
def test_the_same_set_from_each_layout_and_from_above(tmp_path: Path, layout: str, above: int):
    write_set(layout, tmp_path.joinpath(*["deeper"] * above))
    write_text(tmp_path / "__MACOSX" / "data.yaml", "names: [x]\ntrain: y")
    write_text(tmp_path / "README.md", "about the set")
    dataset = read_clean(str(tmp_path))
    assert isinstance(dataset, Dataset)
    assert dataset.class_names[0] == "cat"
    assert dataset[0].name == "a.png"
    assert dataset[0].truth.boxes.round(3).tolist() == [[10, 8, 30, 40]]
    assert list_splits(tmp_path) == ("train",)


@pytest.mark.parametrize("file", ["data.yaml", "annotations/instances_train.json"])
def test_two_layouts_at_once(tmp_path: Path, file: str):
    write_set("YOLO", write_set("COCO", tmp_path))
    with pytest.raises(
        DatasetError,
        match=r"2 layouts at once: 1 COCO JSON file and YOLO text \(data.yaml\); keep one .* or give the path",
    ):
        read_clean(tmp_path)
    assert len(read_clean(tmp_path / file)) == 1


def test_two_sets_below(tmp_path: Path):
    for year in ("VOC2007", "VOC2012"):
        write_set("VOC", tmp_path / "VOCdevkit" / year)
    with pytest.raises(DatasetError, match=r"2 data sets; give one of them: .*VOC2007, .*VOC2012"):
        read_clean(tmp_path)


def test_no_set_at_all(tmp_path: Path):
    with pytest.raises(
        DatasetError, match=r"no data set is here .* VOC XML \(an .xml.*COCO JSON \(a \.json.*YOLO text \(.* data\.yaml"
    ):
        read_clean(tmp_path)
    write_image(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=r"a\.png: a data set is a folder, or its \.yaml, .* give the folder \("):
        read_clean(tmp_path / "a.png")


def test_a_folder_that_is_not_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="raccoons: there is no such folder"):
        read_clean(tmp_path / "raccoons")


def test_a_set_without_a_split(tmp_path: Path):
    write_voc_set(tmp_path, {"a": XML})
    (tmp_path / "ImageSets" / "Main" / "train.txt").unlink()
    assert list_splits(tmp_path) == ("all",)
    assert len(read_clean(tmp_path)) == 1
    says = r"has no split 'train': 1 image, 1 VOC XML file, no split; leave it out to take all images"
    with pytest.raises(DatasetError, match=says):
        read_clean(tmp_path, split="train")


def test_the_split_is_chosen_or_the_only_one(tmp_path: Path):
    write_voc_set(tmp_path, {"a": XML}, split="train")
    write_voc_set(tmp_path, {"b": XML}, split="trainval")
    with pytest.raises(DatasetError, match="has the splits 'train', 'trainval'; choose one of them"):
        read_clean(tmp_path)
    with pytest.raises(DatasetError, match="no split 'tranval', only 'train', 'trainval'; did you mean 'trainval'"):
        read_clean(tmp_path, split="tranval")
    with pytest.raises(DatasetError, match=r"no split 'x', only 'train', 'trainval'$"):
        read_clean(tmp_path, split="x")
    assert [sample.name for sample in read_clean(tmp_path, split="trainval")] == ["b.png"]
    assert DatasetReader(tmp_path).choose("trainval") == "trainval"
    with pytest.raises(DatasetError, match="choose one of them"):
        DatasetReader(tmp_path).choose(None)
    (tmp_path / "ImageSets" / "Main" / "trainval.txt").unlink()
    assert DatasetReader(tmp_path).choose(None) == "train"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_problems_are_raised_or_kept(tmp_path: Path, layout: str):
    write_set(layout, tmp_path)
    (image,) = tmp_path.rglob("a.png")
    for name in ("b", "c"):
        write_image(image.with_name(f"{name}.png"))
    if layout == "COCO":
        images = [{"id": number, "file_name": f"{name}.png"} for number, name in enumerate("abc", start=1)]
        content = {"images": images, "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
        write_json(tmp_path / "annotations" / "instances_train.json", content)
    if layout == "VOC":
        write_voc_set(tmp_path, {"a": XML, "b": XML, "c": XML})
    if layout == "YOLO":
        for name in ("b", "c"):
            write_text(tmp_path / "labels" / "train" / f"{name}.txt", "")
    for name in ("b", "c"):
        write_text(image.with_name(f"{name}.png"), "this is text")
    with pytest.raises(
        DatasetError,
        match=r"(?s)train: 2 problems \(2 x image left out\); mend .*on_problem='skip'.*b\.png: not an .*c\.png: not a",
    ):
        read_dataset(tmp_path, on_problem="error")
    dataset = read_dataset(tmp_path, on_problem="skip")
    assert [sample.name for sample in dataset] == ["a.png"]
    assert len(dataset.problems) == 2


def test_on_problem_is_one_of_two(tmp_path: Path):
    with pytest.raises((ValueError, TypeError)):  # the type of the argument is checked before, in the tests
        read_dataset(write_set("VOC", tmp_path), on_problem="ignore")  # type: ignore[arg-type]


def test_several_sets_are_one_after_the_other(tmp_path: Path):
    years = {"VOC2007": {"000001": XML, "000002": XML}, "VOC2012": {"2008_000001": XML}}
    paths = [write_voc_set(tmp_path / year, annotations, split="trainval") for year, annotations in years.items()]
    write_voc_set(tmp_path / "VOC2007", {"000003": XML}, split="test")
    assert list_splits(paths) == ("trainval",)
    dataset = read_clean(paths, split="trainval")
    assert dataset.name == f"{paths[0]}, trainval + {paths[1]}, trainval"
    assert dataset.class_names == ("cat",)
    assert [sample.name for sample in dataset] == ["000001.png", "000002.png", "2008_000001.png"]
    assert [sample.image_id for sample in dataset] == [0, 1, 2]
    assert [str(sample.image.parent.parent) for sample in dataset] == [str(paths[0])] * 2 + [str(paths[1])]
    assert dataset[2].truth.boxes.tolist() == [[10, 8, 30, 40]]
    alone = read_clean(paths[:1], split="trainval")
    assert (alone.name, len(alone)) == (f"{paths[0]}, trainval", 2)
    with pytest.raises(DatasetError, match="VOC2012 has no split 'test', only 'trainval'"):
        read_clean(paths, split="test")


def test_sets_of_other_layouts_and_with_images_of_the_same_name(tmp_path: Path):
    coco, voc = write_coco_set(tmp_path / "coco"), write_voc_set(tmp_path / "voc", {"a": XML, "b": XML})
    dataset = read_clean([str(coco), voc])
    assert [sample.name for sample in dataset] == ["1/a.png", "2/a.png", "b.png"]
    assert [sample.image_id for sample in dataset] == [0, 1, 2]
    assert dataset.category_ids is None
    both = [coco, write_coco_set(tmp_path / "more")]
    assert read_clean(both).category_ids == (1,)


def test_problems_of_several_sets_are_gathered(tmp_path: Path):
    paths = [write_voc_set(tmp_path / name, {"a": XML, "b": XML}) for name in ("one", "two")]
    for path in paths:
        write_text(path / "JPEGImages" / "b.png", "this is text")
    with pytest.raises(DatasetError, match=r"(?s)one, train \+ .*two, train: 2 problems.*one.*b\.png.*two.*b\.png"):
        read_clean(paths)
    assert len(read_dataset(paths, on_problem="skip").problems) == 2


@pytest.mark.parametrize(
    ("classes", "joined", "what"),
    [
        (
            ("cat\ndog", "hen\ncow\ncat"),
            ("cat", "dog", "hen", "cow"),
            "only .*one, train has 'dog'; only .*two, train has 'hen', 'cow'",
        ),
        (("cat", "dog\ncat"), ("cat", "dog"), r"the classes differ: only .*two, train has 'dog'$"),
        (("dog\ncat", "cat\ndog"), ("dog", "cat"), None),
    ],
)
def test_classes_of_several_sets_are_joined_by_name(
    tmp_path: Path, classes: tuple[str, str], joined: tuple[str, ...], what: str | None
):
    paths = []
    for name, text in zip(("one", "two"), classes, strict=True):
        paths.append(write_voc_set(tmp_path / name, {name: XML}))
        write_text(tmp_path / name / "classes.txt", text)
    dataset = read_dataset(paths)
    assert dataset.class_names == joined
    assert [[joined[label] for label in sample.truth.labels] for sample in dataset] == [["cat"], ["cat"]]
    assert len(dataset.problems) == (what is not None)
    assert all(re.search(str(what), problem.what) and problem.done == "joined by name" for problem in dataset.problems)


def test_a_set_given_twice_and_none_at_all(tmp_path: Path):
    write_voc_set(tmp_path / "one", {"a": XML})
    with pytest.raises(DatasetError, match="one is given twice"):
        read_clean([tmp_path / "one", tmp_path / ".." / tmp_path.name / "one"])
    for read in (read_dataset, list_splits):
        with pytest.raises(ValueError, match="no path to read"):
            read([])


def count_opens(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Returns a counter of how often each file is opened from here on, by its name; images do not count."""
    opened: Counter[str] = Counter()
    open_file = io.open

    def counting(file: Any, *arguments: Any, **options: Any) -> Any:
        name = str(file).rpartition("/")[2]
        if not name.endswith(".png"):
            opened[name] += 1
        return open_file(file, *arguments, **options)

    monkeypatch.setattr("io.open", counting)
    monkeypatch.setattr("builtins.open", counting)
    return opened


@pytest.mark.parametrize(
    ("layout", "lists"),
    [
        ("VOC", {"a.xml", "b.xml", "train.txt", "val.txt"}),
        ("COCO", {"instances_train.json", "instances_val.json"}),
        ("YOLO", {"data.yaml", "a.txt", "b.txt"}),
    ],
)
def test_each_file_is_opened_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, lists: set[str]):
    """Each list and annotation, even if the splits are asked for before, and from the folder above."""
    scenes = {split: synthetic_scenes(1, seed=seed, height=64, width=64) for seed, split in enumerate(("train", "val"))}
    for name, split in zip("ab", scenes, strict=True):
        (only,) = scenes[split]
        scenes[split] = replace(scenes[split], samples=[replace(only, name=name)])
    {"VOC": write_voc, "COCO": write_coco, "YOLO": write_yolo}[layout](scenes, tmp_path / "set")
    (tmp_path / "set" / "classes.txt").unlink(missing_ok=True)
    opened = count_opens(monkeypatch)
    reader = DatasetReader(tmp_path)
    assert reader.splits == ("train", "val")
    assert reader.choose("val") == "val"
    assert [len(reader.read(split)) for split in reader.splits] == [1, 1]
    assert reader.splits == ("train", "val")
    assert opened == dict.fromkeys(lists, 1)


def test_bad_records_are_left_out_and_summed_up_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The default is the same in Python as in the commands."""
    read_dataset(write_set("VOC", tmp_path / "clean"))
    assert caplog.records == []
    write_voc_set(tmp_path, {"a": XML, "b": XML, "c": voc_xml(voc_object("cat", (3, 3, 3, 9)))})
    write_text(tmp_path / "JPEGImages" / "b.png", "this is text")
    dataset = read_dataset(tmp_path / "JPEGImages" / "..")
    assert len(dataset.problems) == 2
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("multibox", "WARNING")
    assert "train: 2 problems (1 x image left out, 1 x box left out); Dataset.problems lists them. The first: " in (
        record.getMessage()
    )
    caplog.clear()
    assert len(DatasetReader(tmp_path / "JPEGImages" / "..").read().problems) == 2
    assert caplog.records == []
