from pathlib import Path

import pytest

from multibox.data import Dataset, DatasetError, list_splits, read_dataset
from tests.data.folders import read_clean, write_image, write_text, write_yolo_set

CAT = "0 0.5 0.5 0.25 0.5"  # [24, 12, 40, 36] of 64 x 48


def read(path: Path, split: str = "train") -> Dataset:
    return read_dataset(path, split=split, on_problem="skip")


def said(dataset: Dataset) -> list[tuple[str, str, str]]:
    """Returns where each problem is (without folders), what it is, and what was done."""
    return [(problem.where.rpartition("/")[2], problem.what, problem.done) for problem in dataset.problems]


def test_fractions_become_pixels(tmp_path: Path):
    write_yolo_set(tmp_path, {"b": f"{CAT}\r\n\r\n1 0.125 0.25 0.25 0.5\r\n", "a": "", "c": CAT})
    dataset = read_clean(tmp_path)
    assert dataset.class_names == ("cat", "dog")
    assert [sample.name for sample in dataset] == ["a.png", "b.png", "c.png"]
    assert [len(sample.truth) for sample in dataset] == [0, 2, 1]
    assert dataset[1].truth.boxes.tolist() == [[24, 12, 40, 36], [0, 0, 16, 24]]
    assert dataset[1].truth.labels.tolist() == [0, 1]
    assert dataset.problems == ()


def test_an_outline_is_read_as_its_box(tmp_path: Path):
    write_yolo_set(tmp_path, {"a": "1 0.25 0.5 0.75 0.25 0.5 1.0"})
    assert read_clean(tmp_path)[0].truth.boxes.tolist() == [[16, 12, 48, 48]]


def test_fractions_are_of_the_image_as_shown(tmp_path: Path):
    write_yolo_set(tmp_path, {"a": CAT})
    write_image(tmp_path / "images" / "train" / "a.png", orientation=6)
    assert read_clean(tmp_path)[0].truth.boxes.tolist() == [[18, 16, 30, 48]]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("7 0.5 0.5 0.1 0.1", "class 7, but data.yaml names only 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "class -1, but data.yaml names only 0 to 1"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5, but data.yaml names only 0 to 1"),
        ("nan 0.5 0.5 0.1 0.1", "class nan, but data.yaml names only 0 to 1"),
        ("cat 0.5 0.5 0.1 0.1", "'cat' is not a number"),
        ("0 0.5 0.5 0.1", "3 numbers behind the class are neither 4 of a box nor pairs of an outline"),
        (
            "0 0.5 0.5 0.1 0.1 -0.9",
            "the sixth number (-0.9) is neither a confidence nor the number of a track, perhaps an angle",
        ),
        ("0 320 240 50 60", "'0 320 240 50 60' is not in fractions of the image, 0 to 1"),
        ("0 0.5 0.5 0 0.5", "box [32.0, 12.0, 32.0, 36.0] has no width"),
        ("0 0.5 0.5 0.5 -0.5", "box [16.0, 36.0, 48.0, 12.0] has a negative height"),
        ("0 0.5 nan 0.5 0.5", "box [16.0, nan, 48.0, nan] holds a value that is not finite"),
        ("0 1.5 0.5 0.5 0.5", "box [80.0, 12.0, 112.0, 36.0] lies outside the image (width 64, height 48)"),
    ],
)
def test_lines_that_are_left_out(tmp_path: Path, line: str, what: str):
    dataset = read(write_yolo_set(tmp_path, {"a": f"{CAT}\n\n{line}\n1 {CAT[2:]}"}))
    assert said(dataset) == [("a.txt, line 3", what, "box left out")]
    assert len(dataset[0].truth) == 2


@pytest.mark.parametrize("numbers", ["0.5 0.5 {} 0.5", "0.5 0.5 0.5 {}", "-{} 0.5 5 0.5", "0 0 {} 0 0 0.5"])
def test_numbers_above_two_were_written_in_pixels(tmp_path: Path, numbers: str):
    for value, done in (("2.0", {"clipped to the image", "box left out"}), ("2.01", {"box left out"})):
        dataset = read(write_yolo_set(tmp_path, {"a": f"{CAT}\n0 {numbers.format(value)}"}))
        (problem,) = dataset.problems
        assert problem.done in done
        in_pixels = value == "2.01" or " 5 " in numbers
        assert problem.what.endswith("is not in fractions of the image, 0 to 1") == in_pixels


@pytest.mark.parametrize(("characters", "is_read"), [(4096, True), (4097, False)])
def test_the_length_of_a_value_without_quotes(tmp_path: Path, characters: int, is_read: bool):
    name = "x" * characters
    write_yolo_set(tmp_path, {"a": CAT}, names=f"['{name}']")
    assert read(tmp_path).class_names == (name,)
    write_yolo_set(tmp_path, {"a": CAT}, names=f"[{name}]")
    if is_read:
        assert read(tmp_path).class_names == (name,)
    else:
        with pytest.raises(DatasetError, match="a value without quotes has 4097 characters, more than 4096"):
            read(tmp_path)


@pytest.mark.parametrize("file", ["data.yaml", "raccoons.yaml"])
def test_the_size_of_a_yaml(tmp_path: Path, file: str):
    write_yolo_set(tmp_path, {"a": CAT})
    text = (tmp_path / "data.yaml").read_text() + "# "
    (tmp_path / "data.yaml").rename(tmp_path / file)
    write_text(tmp_path / file, text.ljust(1_000_000, "."))
    assert len(read(tmp_path)) == 1
    write_text(tmp_path / file, text.ljust(1_000_001, "."))
    if file == "data.yaml":
        with pytest.raises(DatasetError, match="1,000,001 bytes, more than 1,000,000"):
            read(tmp_path)
    else:  # nothing says that it describes the set
        assert read(tmp_path).class_names == ("class 0",)


def test_a_box_partly_beyond_the_image_is_clipped(tmp_path: Path):
    dataset = read(write_yolo_set(tmp_path, {"a": "0 0 0.5 0.5 0.5"}))
    what = "box [-16.0, 12.0, 16.0, 36.0] reaches 16.0 pixels beyond the image (width 64, height 48)"
    assert said(dataset) == [("a.txt, line 1", what, "clipped to the image")]
    assert dataset[0].truth.boxes.tolist() == [[0, 12, 16, 36]]


def test_files_that_cannot_be_read(tmp_path: Path):
    write_yolo_set(tmp_path, {"a": CAT, "b": CAT, "c": CAT})
    write_text(tmp_path / "labels" / "train" / "b.txt", "0 0.5 ½", "latin-1")
    write_text(tmp_path / "images" / "train" / "c.png", "no image at all")
    dataset = read(tmp_path)
    assert [sample.name for sample in dataset] == ["a.png"]
    assert said(dataset) == [
        ("b.txt", "byte 6 is not UTF-8; save the file as UTF-8", "image left out"),
        ("c.png", "not an image that can be read here; save it as JPEG or PNG", "image left out"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks(tmp_path: Path, encoding: str):
    write_yolo_set(tmp_path, {"a": CAT})
    write_text(tmp_path / "data.yaml", "train: images/train\nnames: [고양이, dog]\n", encoding)
    write_text(tmp_path / "labels" / "train" / "a.txt", CAT, encoding)
    dataset = read_clean(tmp_path)
    assert dataset.class_names[0] == "고양이"
    assert len(dataset[0].truth) == 1


@pytest.mark.parametrize("names", ["[cat, dog]", "{1: dog, 0: cat}", "{'0': cat, '1': dog}", "\n- cat\n- dog"])
def test_names_as_list_or_table(tmp_path: Path, names: str):
    assert read_clean(write_yolo_set(tmp_path, {"a": CAT}, names=names)).class_names == ("cat", "dog")


def test_names_that_are_numbers(tmp_path: Path):
    assert read_clean(write_yolo_set(tmp_path, {"a": CAT}, names="[0, 1]")).class_names == ("0", "1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [cat", "the YAML cannot be read: while parsing"),
        ("names: [cat]\ntrain: images\ntrain: more", "the key 'train' is there twice"),
        ("names: {0: cat, 0: dog}\ntrain: images/train", "the key '0' is there twice"),
        ("names: !!python/object/apply:os.getcwd []\ntrain: images/train", "could not determine a constructor"),
        ("just words", "there are no names and no splits in it"),
        ("nc: 2\ntrain: images/train", "names must be a list of class names"),
        ("names: {0: cat, 2: dog}\ntrain: images/train", "without gaps; there is no 1"),
        ("names: [[cat]]\ntrain: images/train", r"\['cat'\] is no class name"),
        ("names: [cat]\nkpt_shape: [5]\ntrain: images/train", r"kpt_shape is \[5\], but must be"),
        (
            "names: [cat]\ntrain: images/nowhere",
            r"no folder and no list of images 'images/nowhere'; looked for .*images",
        ),
        ("names: [cat]\ntrain: [5]", "5 is no folder and no list of images"),
    ],
)
def test_what_data_yaml_cannot_say(tmp_path: Path, text: str, message: str):
    write_yolo_set(tmp_path, {"a": CAT})
    write_text(tmp_path / "data.yaml", text)
    with pytest.raises(DatasetError, match=message):
        read(tmp_path)


def test_nc_and_names_that_disagree_are_said(tmp_path: Path):
    write_yolo_set(tmp_path, {"a": CAT})
    write_text(tmp_path / "data.yaml", "train: images/train\nnc: 3\nnames: [cat, Cat]\n")
    assert said(read(tmp_path)) == [
        ("data.yaml", "nc is 3, but there are 2 names", "names taken"),
        ("data.yaml", "classes 'cat' and 'Cat' differ in case or spaces only", "kept as two classes"),
    ]


def test_a_download_entry_is_only_text(tmp_path: Path):
    write_yolo_set(tmp_path, {"a": CAT})
    text = (tmp_path / "data.yaml").read_text()
    write_text(tmp_path / "data.yaml", f"{text}download: |\n  open({str(tmp_path / 'ran')!r}, 'w')\n")
    assert len(read_clean(tmp_path)) == 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "entries",
    [
        "train: ../images/train",  # as Roboflow writes it, from a folder that is not there
        "train: /home/somebody/raccoons/images/train",
        "train: 'D:\\raccoons\\images\\train'",
        "path: ../datasets/raccoons\ntrain: images/train",
        "path: images\ntrain: train",
        "train: [images/train]",
        "train: images",
    ],
)
def test_how_the_folder_may_be_named(tmp_path: Path, entries: str):
    folder = write_yolo_set(tmp_path / "set", {"a": CAT})
    write_text(folder / "data.yaml", f"{entries}\nnames: [cat]\n")
    dataset = read_clean(folder)
    assert len(dataset[0].truth) == 1


def test_an_absolute_path_that_is_there(tmp_path: Path):
    write_yolo_set(tmp_path / "set", {"a": CAT})
    write_text(tmp_path / "elsewhere" / "data.yaml", f"path: {tmp_path / 'set'}\ntrain: images/train\nnames: [cat]\n")
    assert len(read_clean(tmp_path / "elsewhere")[0].truth) == 1


def test_a_list_of_images(tmp_path: Path):
    write_yolo_set(tmp_path, {"a": CAT, "b": CAT, "c": CAT})
    write_text(tmp_path / "data.yaml", "train: lists/train.txt\nnames: [cat]\n")
    lines = [
        "./images/train/b.png",
        str(tmp_path / "images/train/a.png"),
        "",
        "images/train/x.png",
        "images/train/b.png",
    ]
    write_text(tmp_path / "lists" / "train.txt", "\r\n".join(lines))
    dataset = read(tmp_path)
    assert [sample.name for sample in dataset] == ["b.png", "a.png"]
    assert [len(sample.truth) for sample in dataset] == [1, 1]
    assert [(problem.what, problem.done) for problem in dataset.problems] == [
        ("there is no image 'images/train/x.png'", "image left out"),
        ("'b.png' is listed a second time", "the first entry and its objects taken"),
    ]
    assert dataset.problems[0].where == f"{tmp_path / 'lists' / 'train.txt'}, line 4"


def test_a_list_that_windows_wrote(tmp_path: Path):
    write_yolo_set(tmp_path, {"a": CAT})
    write_text(tmp_path / "data.yaml", "train: train.txt\nnames: [cat]\n")
    write_text(tmp_path / "train.txt", ".\\images\\train\\a.png\r\n")
    assert [len(sample.truth) for sample in read_clean(tmp_path)] == [1]


def test_label_files_without_their_image_are_said(tmp_path: Path):
    write_yolo_set(tmp_path, {"a": CAT, "b": CAT})
    labels = tmp_path / "labels" / "train"
    for name in ("c.txt", "deeper/d.TXT", "classes.txt", "notes.json", "../val/e.txt"):
        write_text(labels / name, CAT)
    assert [(problem.where, problem.what, problem.done) for problem in read(tmp_path).problems] == [
        (str(labels / name), "a label file without its image", "label left out") for name in ("c.txt", "deeper/d.TXT")
    ]
    # a list may leave images out
    write_text(tmp_path / "data.yaml", "train: train.txt\nnames: [cat, dog]\n")
    write_text(tmp_path / "train.txt", "images/train/a.png")
    assert read(tmp_path).problems == ()


def test_texts_beside_the_yaml_are_no_label_files(tmp_path: Path):
    write_image(tmp_path / "a.png")
    write_text(tmp_path / "a.txt", CAT)
    write_text(tmp_path / "README.txt", "about the set")
    write_text(tmp_path / "data.yaml", "train: .\nnames: [cat]\n")
    assert len(read_clean(tmp_path)[0].truth) == 1


def test_names_that_stand_twice_are_one_class(tmp_path: Path):
    dataset = read(write_yolo_set(tmp_path, {"a": f"2 0.5 0.5 0.1 0.1\n{CAT}\n1 0.5 0.5 0.1 0.1"}, names="[a, b, a]"))
    assert said(dataset) == [("data.yaml", "class 'a' is named twice", "taken as one class")]
    assert dataset.class_names == ("a", "b")
    assert dataset[0].truth.labels.tolist() == [0, 0, 1]


def test_several_folders_name_their_images_apart(tmp_path: Path):
    write_yolo_set(tmp_path, {"a": CAT})
    write_image(tmp_path / "images" / "more" / "a.PNG")
    write_text(tmp_path / "labels" / "more" / "a.txt", CAT)
    write_text(tmp_path / "data.yaml", "train: [images/train, images/more]\nnames: [cat]\n")
    dataset = read_clean(tmp_path)
    assert [sample.name for sample in dataset] == ["train/a.png", "more/a.PNG"]
    assert [len(sample.truth) for sample in dataset] == [1, 1]


def test_labels_beside_the_images(tmp_path: Path):
    write_image(tmp_path / "train" / "a.png")
    write_text(tmp_path / "train" / "a.txt", CAT)
    write_text(tmp_path / "data.yaml", "train: train\nnames: [cat]\n")
    assert len(read_clean(tmp_path)[0].truth) == 1


@pytest.mark.parametrize("folders", [("Images/Train", "Labels/Train"), ("train/imgs", "train/labels")])
def test_labels_where_the_rule_of_yolo_does_not_look(tmp_path: Path, folders: tuple[str, str]):
    images, labels = folders
    write_image(tmp_path / images / "a.png")
    write_text(tmp_path / labels / "a.txt", CAT)
    write_text(tmp_path / "data.yaml", f"train: {images}\nnames: [cat]\n")
    assert read_clean(tmp_path)[0].truth.boxes.tolist() == [[24, 12, 40, 36]]


def test_where_the_rule_of_yolo_holds_no_other_labels_are_taken(tmp_path: Path):
    """Such as those that a detector predicted for images without labels."""
    write_yolo_set(tmp_path, {"a": CAT})
    write_image(tmp_path / "images" / "train" / "b.png")
    write_text(tmp_path / "runs" / "predict" / "labels" / "b.txt", CAT)
    assert [len(sample.truth) for sample in read(tmp_path)] == [1, 0]


def test_no_label_file_at_all_is_said(tmp_path: Path):
    write_yolo_set(tmp_path, {"a": CAT})
    (tmp_path / "labels" / "train" / "a.txt").unlink()
    place = tmp_path / "labels" / "train" / "a.txt"
    assert said(read(tmp_path)) == [
        (
            "data.yaml",
            f"none of the 1 images has a label file like {place}",
            "taken as empty; --unlabelled skip leaves them out",
        )
    ]


def test_an_empty_folder_of_images(tmp_path: Path):
    (tmp_path / "images").mkdir()
    write_text(tmp_path / "data.yaml", "train: images\nval:\nnames: [cat]\n")
    assert list_splits(tmp_path) == ("train",)
    with pytest.raises(
        DatasetError, match=r"(?s)there is no image that can be used.*images: no image is in this folder"
    ):
        read(tmp_path)


def test_a_yaml_of_another_name(tmp_path: Path):
    folder = write_yolo_set(tmp_path, {"a": CAT})
    (folder / "data.yaml").rename(folder / "raccoons.yaml")
    write_text(folder / "run.yaml", "epochs: 5\n")
    assert len(read_clean(folder)) == 1
    write_text(folder / "bears.yaml", (folder / "raccoons.yaml").read_text())
    with pytest.raises(DatasetError, match=r"bears\.yaml and .*raccoons\.yaml both describe the set"):
        read_clean(folder)
    assert len(read_clean(folder / "bears.yaml")) == 1
