"""The second question of reading: which image belongs to each annotation?"""

from pathlib import Path

import pytest

from multibox.data import Dataset, DatasetError, image_finder, list_splits, read_dataset
from tests.data.folders import BOX, LINE, box_xml, boxes_of, coco_of, read_clean, write_json, write_picture, write_text


def read_coco(root: Path, name: str, **image: object) -> Dataset:
    write_json(root / "annotations" / "instances_train.json", coco_of(name, **image))
    return read_clean(root)


@pytest.mark.parametrize(
    "stated",
    [
        "a b.jpg",
        "train/a b.jpg",
        "a b.JPG",
        "a%20b.jpg",
        "./train/a b.jpg",
        "../train/a b.jpg",
        "..\\..\\label-studio\\media\\upload\\4\\a b.jpg",
        "images\\1/a b.jpg",
        "/home/someone/pictures/a b.jpg",
        "/home/test/pictures/a b.jpg",
        "D:\\work\\project\\train\\a b.jpg",
        "/data/local-files/?d=pictures/a b.jpg",
        "a b.png",
        "A B.jpg",
    ],
)
@pytest.mark.parametrize("place", ["train", "images", "images/train", "data", "JPEGImages", "."])
def test_paths_of_other_machines(tmp_path: Path, stated: str, place: str):
    image = write_picture(tmp_path, place, "a b.jpg")
    write_picture(tmp_path, place, "b.jpg")
    dataset = read_coco(tmp_path, stated)
    assert dataset[0].image == image
    assert list(boxes_of(dataset).values()) == [[BOX]]


def test_lvis_states_an_address_only(tmp_path: Path):
    image = write_picture(tmp_path, "train2017", "000000000001.jpg")
    url = "http://images.cocodataset.org/train2017/000000000001.jpg"
    dataset = read_coco(tmp_path, "", coco_url=url)
    assert dataset[0].image == image
    assert dataset[0].name == "train2017/000000000001.jpg"


def test_the_longest_end_decides_between_images_of_the_same_name(tmp_path: Path):
    for folder in ("v1/patch0", "v2/patch0", "v2/patch5"):
        write_picture(tmp_path, "images", folder, "1.jpg")
    write_json(tmp_path / "objv2_train.json", coco_of("images/v2/patch0/1.jpg", "x/v1/patch0/1.jpg"))
    dataset = read_clean(tmp_path)
    assert [sample.name for sample in dataset] == ["images/v2/patch0/1.jpg", "images/v1/patch0/1.jpg"]


def test_an_image_of_another_split_is_not_taken(tmp_path: Path):
    write_picture(tmp_path, "val", "a.jpg")
    write_picture(tmp_path, "train", "b.jpg")
    write_json(tmp_path / "annotations" / "instances_train.json", coco_of("a.jpg", "b.jpg"))
    write_json(tmp_path / "annotations" / "instances_val.json", coco_of("a.jpg"))
    train, val = (read_dataset(tmp_path, split=split) for split in ("train", "val"))
    assert (list(boxes_of(train)), list(boxes_of(val))) == (["b.jpg"], ["a.jpg"])
    assert [problem.done for problem in train.problems] == ["image left out"]
    write_json(tmp_path / "annotations" / "instances_train.json", coco_of("val/a.jpg"))
    assert list(boxes_of(read_clean(tmp_path, split="train"))) == ["val/a.jpg"]


def test_copies_in_other_folders_are_said(tmp_path: Path):
    for folder in ("one", "two"):
        write_picture(tmp_path, folder, "a.jpg")
    write_json(tmp_path / "train.json", coco_of("a.jpg"))
    (problem,) = read_dataset(tmp_path).problems
    assert (problem.what, problem.done) == ("'a.jpg' is the name of 2 images", "one/a.jpg taken")


def test_an_xml_of_another_name_than_its_image(tmp_path: Path):
    for name in ("IMG_1.jpg", "IMG_2.JPG"):
        write_picture(tmp_path, "images", name)
    write_text(tmp_path / "ann" / "0001.xml", box_xml(file_name="IMG_1.jpg"))
    write_text(tmp_path / "ann" / "0002.xml", box_xml(file_name="C:\\pictures\\IMG_2.jpg"))
    assert boxes_of(read_clean(tmp_path)) == {"IMG_1.jpg": [BOX], "IMG_2.JPG": [BOX]}


def test_an_xml_whose_stated_name_is_outdated(tmp_path: Path):
    """The name of the file comes before the name in it, which is often copied from another file."""
    for name in "ab":
        write_picture(tmp_path, f"{name}.jpg")
        write_text(tmp_path / f"{name}.xml", box_xml(name, file_name="a.jpg"))
    dataset = read_clean(tmp_path)
    assert [dataset.class_names[sample.truth.labels[0]] for sample in dataset] == ["a", "b"]


@pytest.mark.parametrize(
    ("image", "annotation"),
    [
        ("Images/Train/a.JPG", "Annotations/train/a.xml"),
        ("train/images/a.png", "train/annotations/a.xml"),
        ("train/a.png", "train/xml/a.xml"),
        ("train/a.png", "labels/train/a.xml"),
        ("images/train/Écran 1.png", "labels/train/%C3%89cran%201.xml"),
        ("train/a.jpg", "train/a.jpg.xml"),
    ],
)
def test_where_a_file_of_annotations_may_lie(tmp_path: Path, image: str, annotation: str):
    for split in ("train", "val"):
        here = [file.replace("train", split).replace("Train", split.upper()) for file in (image, annotation)]
        write_picture(tmp_path, here[0])
        write_text(tmp_path / here[1], box_xml(split))
    assert list_splits(tmp_path) == ("train", "val")
    for split in ("train", "val"):
        dataset = read_clean(tmp_path, split=split)
        assert [dataset.class_names[sample.truth.labels[0]] for sample in dataset] == [split]


def test_label_files_with_url_encoded_names(tmp_path: Path):
    for number in range(3):
        write_picture(tmp_path, "images", f"Écran {number}.png")
        write_text(tmp_path / "labels" / f"%C3%89cran%20{number}.txt", LINE)
    write_text(tmp_path / "data.yaml", "train: images\nval: images\nnames: [valve]")
    assert boxes_of(read_clean(tmp_path, split="train")) == {f"Écran {number}.png": [BOX] for number in range(3)}


def test_annotations_without_their_images(tmp_path: Path):
    write_picture(tmp_path, "x.jpg")
    write_text(tmp_path / "a.xml", box_xml(file_name="b.jpg"))
    with pytest.raises(
        DatasetError, match=r"1 image, 1 VOC XML file, but no image belongs .*looked for 'b.jpg'.*put the"
    ):
        read_dataset(tmp_path)
    write_text(tmp_path / "x.xml", box_xml())
    (problem,) = read_dataset(tmp_path).problems
    assert (problem.what, problem.done) == ("its image is missing ('b.jpg' is stated)", "annotation left out")


@pytest.mark.parametrize(("ids", "image_ids"), [(("0", "1"), [0, 1]), (("a0", "a1"), [0, 1]), (("7", "x"), [0, 1])])
def test_numbers_of_images_that_are_texts(tmp_path: Path, ids: tuple[str, str], image_ids: list[int]):
    content = coco_of("a.jpg", "b.jpg")
    for number, text in enumerate(ids):
        write_picture(tmp_path, "train", f"{'ab'[number]}.jpg")
        content["images"][number]["id"] = content["annotations"][number]["image_id"] = text
        content["annotations"][number]["category_id"] = "0"
    write_json(tmp_path / "annotations" / "instances_train.json", content)
    dataset = read_clean(tmp_path)
    assert boxes_of(dataset) == {"a.jpg": [BOX], "b.jpg": [BOX]}
    assert [sample.image_id for sample in dataset] == image_ids


# Images without annotations


@pytest.mark.parametrize("stated", ["video{}/000001.jpg", "/mnt/video{}/images/000001.jpg"])
def test_many_videos_with_the_same_names_of_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stated: str):
    """Each path is compared with the images in folders of its name, not with the frames of all videos."""
    videos = range(30)
    folder = "images" if "images" in stated else "."
    images = [write_picture(tmp_path / f"video{video}", folder, "000001.jpg") for video in videos]
    compared = []
    agreement = image_finder._agreement
    monkeypatch.setattr(image_finder, "_agreement", lambda *each: compared.append(each) or agreement(*each))
    finder = image_finder.ImageFinder(images, tmp_path)
    assert [finder.find(stated.format(video), near=tmp_path) for video in videos] == [[image] for image in images]
    assert len(compared) < len(images)


@pytest.mark.parametrize(("unlabelled", "names"), [(None, "ab"), ("skip", "ab"), ("empty", "abcd")])
def test_images_without_an_xml(tmp_path: Path, unlabelled, names: str):
    for name in "abcd":
        write_picture(tmp_path, f"{name}.jpg")
    for name in "ab":
        write_text(tmp_path / f"{name}.xml", box_xml())
    dataset = read_dataset(tmp_path, unlabelled=unlabelled)
    assert [sample.name[0] for sample in dataset] == list(names)
    assert [problem.what for problem in dataset.problems] == (
        [] if unlabelled else ["2 of 4 images have no VOC XML file, such as c.jpg"]
    )


@pytest.mark.parametrize(
    ("has_empty", "unlabelled", "names", "done"),
    [
        (True, None, "ab", "left out; --unlabelled empty takes them as empty"),
        (False, None, "abcd", "taken as empty; --unlabelled skip leaves them out"),
        (True, "empty", "abcd", None),
        (False, "skip", "ab", None),
    ],
)
def test_images_without_a_label_file(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, has_empty: bool, unlabelled, names: str, done: str | None
):
    for name in "abcd":
        write_picture(tmp_path, "images", f"{name}.jpg")
    write_text(tmp_path / "labels" / "a.txt", LINE)
    write_text(tmp_path / "labels" / "b.txt", "" if has_empty else LINE)
    write_text(tmp_path / "classes.txt", "valve")
    with caplog.at_level("INFO", "multibox"):
        dataset = read_dataset(tmp_path, unlabelled=unlabelled)
    assert [sample.name[0] for sample in dataset] == list(names)
    assert [problem.done for problem in dataset.problems] == [done] * (done is not None)
    assert "2 of 4 images have no label file, such as c.jpg" in caplog.text


def test_unlabelled_is_one_of_two(tmp_path: Path):
    with pytest.raises((ValueError, TypeError)):
        read_dataset(tmp_path, unlabelled="background")  # type: ignore[arg-type]
