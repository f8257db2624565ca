"""Small files that would take minutes or gigabytes, or end in a traceback: each gives a short message at once."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from multibox.data import Dataset, DatasetError, read_dataset
from tests.data.folders import voc_object, voc_xml, write_image, write_text, write_voc_set, write_yolo_set

CAT = voc_object("cat", (10, 8, 30, 40))
LINE = "0 0.5 0.5 0.25 0.5"
LONG = "x" * 2_000_000
SECONDS = 5.0
"""Far above what any of these needs, which is well under one, and far below what they took."""


def cut(value: object) -> str:
    """Returns a name for a test of this value."""
    return repr(value)[:20]


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    began = time.process_time()
    yield
    assert time.process_time() - began < SECONDS


def assert_short(dataset: Dataset, folder: Path) -> None:
    """The problems fit on a screen, whatever the paths are."""
    for problem in dataset.problems:
        assert len(str(problem).replace(str(folder), "")) < 400, str(problem)[:1000]
        assert str(problem).isprintable()


def read_yaml(folder: Path, text: str) -> Dataset:
    write_yolo_set(folder, {"a": LINE})
    write_text(folder / "data.yaml", text)
    return read_dataset(folder, split="train")


# data.yaml

LAUGHS = "\n".join(
    ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
)
ANCHORS = "anchors .* and aliases .* are not read here; write the value out"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{LAUGHS}\nnames: *a8\ntrain: images/train", ANCHORS),
        (f"{LAUGHS}\nnames: [cat]\ntrain: *a8", ANCHORS),
        ("names: &names [cat]\ntrain: images/train", ANCHORS),
        ("train: &place images/train\nval: *place\nnames: [cat]", ANCHORS),
        ("&key names: [cat]\ntrain: images/train", ANCHORS),
        (
            "base: {x: 1}\nmore: {<<: {names: [cat]}}\nnames: [cat]\ntrain: images/train",
            "merge keys .* write the entries",
        ),
        ("<<: [{names: [cat]}]\ntrain: images/train", "merge keys"),
        (f"names: {'[' * 50_000}\ntrain: images/train", "too many lists or tables in one another"),
        (f"names: {'{a: ' * 50_000}\ntrain: images/train", "too many lists or tables in one another"),
        (
            "names: [cat]\ntrain: images/train\n" + "".join(f"{'  ' * n}a:\n" for n in range(600)),
            "too many lists|cannot be",
        ),
        (f"names: [cat]\ntrain: images/train\nnc: {'1:' * 300_000}1", "a value without quotes has 600001 characters"),
        (f"names: [cat]\ntrain: images/train\nnc: {'1:' * 2000}1.5", "the YAML cannot be read"),
        ("names: [cat]\ntrain: images/train\nnc: 1" + "0" * 4500, "a value without quotes has 4501 characters"),
        (f"names: [cat]\ntrain: {'a/' * 400_000}", "a value without quotes has"),
        (f'names: [cat]\ntrain: "{"a/" * 400_000}"', r"'a/a/.*\.\.\..*/a/a/' is no folder and no list of images"),
        (
            f'path: "{"a/" * 400_000}"\nnames: [cat]\ntrain: b',
            r"path is 'a/.*\.\.\..*/' is no folder|path is 'a/.*, which",
        ),
        ("path: [1, 2]\nnames: [cat]\ntrain: images/train", r"path is \[1, 2\], which is no folder"),
        (f"names: [{'a, ' * 400_000}]\ntrain: images/train", "it has 1,200,0.. bytes, more than 1,000,000"),
        (f"names:\n  ? 0x1{'0' * 4000}\n  : cat\ntrain: images/train", "names must number the classes from 0"),
        (f"names: [[0x1{'0' * 4000}]]\ntrain: images/train", "is no class name"),
        ("names: [cat]\ntrain: !!timestamp x", "the YAML cannot be read"),
        ("names: [cat]\ntrain: !!bool x", "the YAML cannot be read"),
        ('names: [cat]\ntrain: !!int ""', "the YAML cannot be read"),
        ("names: [cat]\ntrain: 2001-99-99", "the YAML cannot be read"),
        ("names: [cat]\n? [1, 2]\n: x\ntrain: images/train", "the YAML cannot be read"),
    ],
    ids=range(25),
)
def test_a_yaml_that_would_grow_or_that_no_set_needs(tmp_path: Path, text: str, message: str):
    with pytest.raises(DatasetError, match=message) as caught:
        read_yaml(tmp_path, text)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 800


def test_a_yaml_of_many_keys(tmp_path: Path):
    """Of 10,000 names, each key was once compared with all the others."""
    names = "".join(f"  {number}: class {number}\n" for number in range(10_000))
    assert len(read_yaml(tmp_path, f"names:\n{names}train: images/train").class_names) == 10_000


def test_the_count_of_classes_is_a_giant(tmp_path: Path):
    dataset = read_yaml(tmp_path, f"names: [cat]\ntrain: images/train\nnc: 0x1{'0' * 4000}")
    (problem,) = dataset.problems
    assert problem.what == "nc is a number of over 3,000 digits, but there are 1 names"


def test_a_folder_that_is_named_a_thousand_times(tmp_path: Path):
    dataset = read_yaml(tmp_path, f"names: [cat]\ntrain: [{'images/train, ' * 1000}images/train]")
    (problem,) = dataset.problems
    assert problem.what == f"train names {tmp_path / 'images' / 'train'} 1001 times"
    assert len(dataset) == 1


# labels of YOLO


@pytest.mark.parametrize(
    "line",
    [
        LONG,
        f"{LONG} 0.5 0.5 0.25 0.5",
        f"{'9' * 1_000_000} 0.5 0.5 0.25 0.5",
        f"0 {'9' * 1_000_000} 0.5 0.25 0.5",
        f"0 {'0.5 ' * 300_000}-3",
        f"0 {'7 ' * 300_000}",
        f"0 {LONG} 0.5 0.25 0.5",
        "\x1b[31m\x07 0.5 0.5 0.25 0.5",
        "0 1e999 0.5 0.25 0.5",
        "1" + "0" * 400 + " 0.5 0.5 0.25 0.5",
    ],
    ids=range(10),
)
def test_label_lines_of_megabytes(tmp_path: Path, line: str):
    dataset = read_dataset(write_yolo_set(tmp_path, {"a": f"{line}\n{LINE}"}))
    (problem,) = dataset.problems
    assert problem.done == "box left out"
    assert_short(dataset, tmp_path)
    assert len(dataset[0].truth) == 1


def test_an_outline_of_many_corners(tmp_path: Path):
    dataset = read_dataset(write_yolo_set(tmp_path, {"a": f"0 {'0.25 0.25 0.5 0.5 ' * 100_000}"}))
    assert dataset[0].truth.boxes.tolist() == [[16, 12, 32, 24]]


def test_a_list_of_images_with_lines_of_megabytes(tmp_path: Path):
    write_yolo_set(tmp_path, {"a": LINE})
    write_text(tmp_path / "data.yaml", "names: [cat, dog]\ntrain: train.txt")
    write_text(tmp_path / "train.txt", f"images/train/a.png\n{LONG}\n{'a/' * 500_000}\nim\0age.png\n")
    dataset = read_dataset(tmp_path)
    assert [problem.done for problem in dataset.problems] == ["image left out"] * 3
    assert_short(dataset, tmp_path)


# COCO


def coco_set(folder: Path, text: str) -> Path:
    write_text(folder / "annotations" / "instances_train.json", text)
    write_image(folder / "train" / "a.png")
    return folder


def coco_json(**changes: object) -> str:
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 8, 20, 32], **changes}
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [row, {"id": 2, "image_id": 1, "category_id": 1, "bbox": [10, 8, 20, 30]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    return json.dumps(content)


DEEP = f"{'[' * 800}{']' * 800}"


@pytest.mark.parametrize(
    "value", [LONG, [LONG] * 3, list(range(100_000)), 10**4200, 1e308, True, {"a": {"b": LONG}}, "DEEP"], ids=cut
)
@pytest.mark.parametrize("key", ["id", "image_id", "category_id", "bbox", "area", "iscrowd"])
def test_annotations_with_values_of_megabytes(tmp_path: Path, key: str, value: object):
    text = coco_json(**{key: value}).replace('"DEEP"', DEEP)
    dataset = read_dataset(coco_set(tmp_path, text))
    assert_short(dataset, tmp_path)
    assert 1 <= len(dataset[0].truth) <= 2


@pytest.mark.parametrize("key", ["id", "file_name", "height", "width"])
@pytest.mark.parametrize(
    "value", [LONG, 10**4200, 1e308, float("nan"), float("inf"), True, ["a"], "DEEP", "\x1b[31m", "a\0b"], ids=cut
)
def test_images_with_values_of_megabytes(tmp_path: Path, key: str, value: object):
    content = json.loads(coco_json())
    content["images"].append({"id": 2, "file_name": "b.png", "height": 48, "width": 64, key: value})
    write_image(tmp_path / "train" / "b.png")
    dataset = read_dataset(coco_set(tmp_path, json.dumps(content).replace('"DEEP"', DEEP)))
    assert_short(dataset, tmp_path)
    assert 1 <= len(dataset) <= 2
    assert all(abs(sample.image_id) < 2**63 for sample in dataset)


@pytest.mark.parametrize("name", [LONG, "\x1b[31mcat", "cat\ndog"], ids=cut)
def test_class_names_of_megabytes_are_cut_in_messages(tmp_path: Path, name: str):
    content = json.loads(coco_json())
    content["categories"] += [{"id": number, "name": name} for number in (2, 3, 3)]
    dataset = read_dataset(coco_set(tmp_path, json.dumps(content)))
    assert len(dataset.problems) == 2
    assert_short(dataset, tmp_path)


def test_many_classes(tmp_path: Path):
    """Each name was once compared with all the others."""
    content = json.loads(coco_json())
    content["categories"] += [{"id": number, "name": f"class {number}"} for number in range(2, 60_000)]
    dataset = read_dataset(coco_set(tmp_path, json.dumps(content)))
    assert len(dataset.class_names) == 59_999


@pytest.mark.parametrize(
    "text", ["[" * 1_000_000, '{"a":' * 1_000_000, f'{{"images": [{{"id": {"9" * 5000}}}]}}', "NaN", "\0"], ids=cut
)
def test_a_json_that_cannot_be_parsed(tmp_path: Path, text: str):
    with pytest.raises(DatasetError, match=r"the JSON cannot be read|there is no list 'images'") as caught:
        read_dataset(coco_set(tmp_path, text))
    assert len(str(caught.value).replace(str(tmp_path), "")) < 400


def test_equal_numbers_of_deep_annotations(tmp_path: Path):
    """Two rows of one number are compared, lists in lists in lists included."""
    row = f'{{"id": 7, "image_id": 1, "category_id": 1, "bbox": [10, 8, 20, 28], "segmentation": {DEEP}}}'
    text = coco_json().replace('"annotations": [', f'"annotations": [{row}, {row}, ')
    dataset = read_dataset(coco_set(tmp_path, text))
    assert [problem.what for problem in dataset.problems] == ["the id is used twice"]


def test_many_problems_are_counted_rather_than_listed(tmp_path: Path):
    content = json.loads(coco_json())
    content["annotations"] += [{"id": number, "image_id": 9} for number in range(10, 5010)]
    coco_set(tmp_path, json.dumps(content))
    with pytest.raises(DatasetError, match=r"train: 5000 problems .*\n  5000 x image_id 9 is none of the") as caught:
        read_dataset(tmp_path, on_problem="error")
    assert len(str(caught.value).splitlines()) == 2
    assert len(caught.value.problems) == 5000


# VOC


@pytest.mark.parametrize(
    "xml",
    [
        f"<annotation>{'<a>' * 100_000}{'</a>' * 100_000}</annotation>",
        f"<annotation>{'<object>' * 50_000}{'</object>' * 50_000}</annotation>",
        voc_xml(CAT, f"<{LONG}/>"),
        "<annotation " + " ".join(f"a{n}='1'" for n in range(100_000)) + f">{CAT}</annotation>",
    ],
    ids=["deep", "deep objects", "a long tag", "many attributes"],
)
def test_xml_that_is_large_for_what_it_says(tmp_path: Path, xml: str):
    dataset = read_dataset(write_voc_set(tmp_path, {"a": xml, "b": voc_xml(CAT)}))
    assert_short(dataset, tmp_path)
    assert len(dataset) == 2


@pytest.mark.parametrize(
    ("box", "name"),
    [
        ((LONG, 8, 30, 40), "cat"),
        (("9" * 1_000_000, 8, 30, 40), "cat"),
        ((10, 8, 10, 40), LONG),
        ((10, 8, 10, 40), "a\nb"),
    ],
    ids=["text", "digits", "name", "two lines"],
)
def test_values_of_megabytes_in_xml(tmp_path: Path, box: tuple[object, ...], name: str):
    dataset = read_dataset(write_voc_set(tmp_path, {"a": voc_xml(CAT, voc_object(name, box))}))
    (problem,) = dataset.problems
    assert problem.done == "box left out"
    assert_short(dataset, tmp_path)


@pytest.mark.parametrize("side", [LONG, "1" + "0" * 300, "1e308", "9" * 1_000_000], ids=cut)
def test_a_size_of_megabytes_in_xml(tmp_path: Path, side: str):
    dataset = read_dataset(write_voc_set(tmp_path, {"a": voc_xml(CAT).replace(">64<", f">{side}<")}))
    assert_short(dataset, tmp_path)
    assert len(dataset[0].truth) == 1


@pytest.mark.parametrize(
    "encoding", ["punycode", "idna", "utf-7", "raw_unicode_escape", "zlib", "bz2", "rot13", "undefined"]
)
def test_encodings_that_are_slow_or_none(tmp_path: Path, encoding: str):
    """Python's codec of domain names takes time that grows with the square of the length."""
    xml = f'<?xml version="1.0" encoding="{encoding}"?><a>{"ab-" * 200_000}</a>'
    dataset = read_dataset(write_voc_set(tmp_path, {"a": xml, "b": voc_xml(CAT)}))
    assert len(dataset.problems) <= 1
    assert_short(dataset, tmp_path)


def test_lists_of_voc_with_lines_of_megabytes(tmp_path: Path):
    folder = write_voc_set(tmp_path, {"a": voc_xml(CAT)})
    write_text(folder / "ImageSets" / "Main" / "train.txt", f"a\n{LONG}\n{LONG}.jpg\n{'b ' * 500_000}1\n\x1b[31m\n")
    dataset = read_dataset(tmp_path)
    assert [problem.done for problem in dataset.problems] == ["image left out"] * 4
    assert_short(dataset, tmp_path)


def test_many_names_of_classes_in_a_list(tmp_path: Path):
    folder = write_voc_set(tmp_path, {"a": voc_xml(CAT)})
    write_text(folder / "classes.txt", "cat\n" + "".join(f"class {number}\n" for number in range(100_000)))
    assert len(read_dataset(folder).class_names) == 100_001


def test_messages_about_classes_that_differ_are_short(tmp_path: Path):
    """They are joined by name, and how they differ is a problem."""
    for name in ("one", "two"):
        write_voc_set(tmp_path / name, {name: voc_xml(CAT)})
        write_text(
            tmp_path / name / "classes.txt", f"cat\n{name}{LONG}\n" + "".join(f"{name} {n}\n" for n in range(10_000))
        )
    (problem,) = read_dataset([tmp_path / "one", tmp_path / "two"]).problems
    assert "and 9971 more" in problem.what
    assert len(str(problem).replace(str(tmp_path), "")) < 2000
