import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multibox.data import Dataset, DatasetError, DatasetReader, Problem, list_splits, read_dataset
from tests.data.folders import read_clean, voc_object, voc_xml, write_image, write_text, write_voc_set

CAT = voc_object("cat", (10, 8, 30.5, 40.25))


def read(folder: Path, split: str = "train") -> Dataset:
    return read_dataset(folder, split=split, on_problem="skip")


def said(dataset: Dataset) -> list[tuple[str, str, str]]:
    """Returns where each problem is (without folders), what it is, and what was done."""
    return [(problem.where.rpartition("/")[2], problem.what, problem.done) for problem in dataset.problems]


def test_reads_boxes_as_written(tmp_path: Path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    dog = voc_object("dog", (0, 0, 64, 48), "<difficult>1</difficult>" + part)
    write_voc_set(tmp_path, {"b": voc_xml(dog, CAT), "a": voc_xml()})
    dataset = read_clean(tmp_path)
    assert [sample.name for sample in dataset] == ["b.png", "a.png"]  # the order of the split
    assert [sample.image_id for sample in dataset] == [0, 1]
    assert (dataset[0].height, dataset[0].width) == (48, 64)
    assert dataset.class_names == ("cat", "dog")
    assert dataset[0].truth.boxes.tolist() == [[0, 0, 64, 48], [10, 8, 30.5, 40.25]]
    assert dataset[0].truth.labels.tolist() == [1, 0]
    assert dataset[0].truth.difficult.tolist() == [True, False]
    assert len(dataset[1].truth) == 0
    assert dataset.problems == ()


def test_the_devkits_pixels_from_one(tmp_path: Path):
    folder = write_voc_set(tmp_path, {"a": voc_xml(voc_object("cat", (1, 1, 64, 48)))})
    assert DatasetReader(folder, pixels_from_one=True).read("train")[0].truth.boxes.tolist() == [[0, 0, 64, 48]]


def test_classes_are_those_of_all_splits(tmp_path: Path):
    write_voc_set(tmp_path, {"a": voc_xml(CAT)}, split="train")
    write_voc_set(tmp_path, {"b": voc_xml(voc_object("ant", (1, 1, 9, 9)))}, split="test")
    assert read(tmp_path, "train").class_names == read(tmp_path, "test").class_names == ("ant", "cat")
    assert read(tmp_path, "train")[0].truth.labels.tolist() == [1]


def test_classes_in_the_order_of_their_file(tmp_path: Path):
    dog = voc_object("dog", (0, 0, 9, 9))
    write_voc_set(tmp_path, {"a": voc_xml(CAT, dog)})
    write_text(tmp_path / "classes.txt", "zebra\r\ncat\r\n\r\n", "utf-8-sig")
    dataset = read(tmp_path)
    assert dataset.class_names == ("zebra", "cat")
    assert dataset[0].truth.labels.tolist() == [1]
    assert said(dataset) == [("a.xml, object 2 (dog)", "class 'dog' is none of 2 known", "box left out")]


def test_files_of_one_class_are_no_splits(tmp_path: Path):
    write_voc_set(tmp_path, {"a": voc_xml(CAT)})
    lists = tmp_path / "ImageSets" / "Main"
    write_text(lists / "cat_train.txt", "a  1\n")
    write_text(lists / "small_train.txt", "a\n")
    write_text(lists / "test.txt", "a  1\n")
    assert list_splits(tmp_path) == ("train", "test", "small_train")
    assert len(read_clean(tmp_path, split="test")) == 1


@pytest.mark.parametrize("line", ["a", "a  1", "a\t-1", "a.png", "\r\n a \r\n\r\n"])
def test_what_a_line_of_a_split_may_look_like(tmp_path: Path, line: str):
    write_voc_set(tmp_path, {"a": voc_xml(CAT)})
    write_text(tmp_path / "ImageSets" / "Main" / "train.txt", line, "utf-8-sig")
    assert [sample.name for sample in read_clean(tmp_path)] == ["a.png"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "iso-8859-1", "windows-1252"])
def test_declared_encodings(tmp_path: Path, encoding: str):
    write_voc_set(tmp_path, {"a": ""})
    xml = f'<?xml version="1.0" encoding="{encoding.removesuffix("-sig")}"?>{voc_xml(CAT.replace("cat", "köttur"))}'
    write_text(tmp_path / "Annotations" / "a.xml", xml, encoding)
    assert read_clean(tmp_path).class_names == ("köttur",)


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("euc-kr", "고양이"),
        ("cp949", "햏고양이"),
        ("gbk", "猫"),
        ("gb18030", "猫"),
        ("big5", "貓"),
        ("shift_jis", "ねこ"),
        ("utf-32", "고양이"),
        ("utf-32-be", "고양이"),
    ],
)
def test_declared_encodings_that_the_parser_does_not_know(tmp_path: Path, encoding: str, name: str):
    write_voc_set(tmp_path, {"a": ""})
    xml = f"<?xml version='1.0' encoding='{encoding.upper()}' ?>\n{voc_xml(CAT.replace('cat', name))}"
    write_text(tmp_path / "Annotations" / "a.xml", xml, encoding)
    assert read_clean(tmp_path).class_names == (name,)


@pytest.mark.parametrize(
    ("encoding", "content", "what"),
    [
        ("cp949", b"<a>\xff\xff</a>", "not well-formed XML ('cp949' codec can't decode"),
        ("nonsense", b"<a/>", "not well-formed XML (unknown encoding: nonsense)"),
        ("hex", b"<a/>", "not well-formed XML ("),
        ("euc-kr", b"<a>", "not well-formed XML (no element found"),
        ("euc-kr", b'<!DOCTYPE x [<!ENTITY a "ha">]><a>&a;</a>', "the XML holds what no annotation needs"),
    ],
)
def test_declared_encodings_that_do_not_help(tmp_path: Path, encoding: str, content: bytes, what: str):
    write_voc_set(tmp_path, {"a": voc_xml(CAT), "b": ""})
    (tmp_path / "Annotations" / "b.xml").write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + content)
    ((where, said_of_it, done),) = said(read(tmp_path))
    assert (where, done) == ("b.xml", "image left out")
    assert said_of_it.startswith(what)


def test_what_is_offered_as_a_split_can_be_read(tmp_path: Path):
    folder = write_voc_set(tmp_path, {"a": voc_xml(CAT)})
    lists = folder / "ImageSets" / "Main"
    (lists / "train.txt").rename(lists / "Train.TXT")
    write_text(lists / "older" / "val.txt", "a")
    write_text(lists / ".hidden.txt", "a")
    (lists / "folder.txt").mkdir()
    assert list_splits(folder) == ("train",)
    assert len(read(folder, "train")) == len(read(folder, "Train")) == 1
    write_text(lists / "Train.txt", "a")
    with pytest.raises(DatasetError, match=r"Train\.TXT and .*Train\.txt are both of split 'train'; rename one"):
        list_splits(folder)


@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_other_scripts_and_either_unicode_form(tmp_path: Path, forms: tuple[str, str]):
    on_disk, in_list = (unicodedata.normalize(form, "hús 고양이") for form in forms)
    write_voc_set(tmp_path, {on_disk: voc_xml(CAT)})
    write_text(tmp_path / "ImageSets" / "Main" / "train.txt", in_list)
    assert len(read_clean(tmp_path)[0].truth) == 1


def test_upper_case_suffix(tmp_path: Path):
    write_voc_set(tmp_path, {"a": voc_xml(CAT)})
    (tmp_path / "JPEGImages" / "a.png").unlink()
    write_image(tmp_path / "JPEGImages" / "a.JPG")
    assert read_clean(tmp_path)[0].name == "a.JPG"


@pytest.mark.parametrize(
    ("box", "what"),
    [
        ((13, 8, 13, 30), "box [13.0, 8.0, 13.0, 30.0] has no width"),
        ((13, 8, 20, 8), "box [13.0, 8.0, 20.0, 8.0] has no height"),
        ((20, 8, 13.5, 30), "box [20.0, 8.0, 13.5, 30.0] has a negative width"),
        ((13, 30, 20, 8), "box [13.0, 30.0, 20.0, 8.0] has a negative height"),
        (("nan", 8, 20, 30), "box [nan, 8.0, 20.0, 30.0] holds a value that is not finite"),
        ((10, 8, "1e999", 30), "box [10.0, 8.0, inf, 30.0] holds a value that is not finite"),
        ((10, 8, "1e39", 30), "box [10.0, 8.0, inf, 30.0] holds a value that is not finite"),  # beyond float32
        ((10, 8, "1e-30", 30), "box [10.0, 8.0, 0.0, 30.0] has a negative width"),
        (("ten", 8, 20, 30), "'ten' is not a number"),
        ((64, 8, 70, 30), "box [64.0, 8.0, 70.0, 30.0] lies outside the image (width 64, height 48)"),
    ],
)
def test_boxes_that_are_left_out(tmp_path: Path, box: tuple[object, ...], what: str):
    write_voc_set(tmp_path, {"a": voc_xml(CAT, voc_object("cat", box), voc_object("cat", (0, 0, 9, 9)))})
    dataset = read(tmp_path)
    assert said(dataset) == [("a.xml, object 2 (cat)", what, "box left out")]
    assert dataset[0].truth.boxes.tolist() == [[10, 8, 30.5, 40.25], [0, 0, 9, 9]]


@pytest.mark.parametrize(
    ("element", "what"),
    [
        ("<object><name>cat</name></object>", "no <xmin> in <bndbox>"),
        (CAT.replace("<name>cat</name>", ""), "no class is named"),
    ],
)
def test_objects_that_lack_something(tmp_path: Path, element: str, what: str):
    dataset = read(write_voc_set(tmp_path, {"a": voc_xml(CAT, element)}))
    assert [problem.what for problem in dataset.problems] == [what]
    assert len(dataset[0].truth) == 1


def test_boxes_beyond_the_image_are_clipped(tmp_path: Path):
    little, much = voc_object("cat", (-1, 0, 65, 49)), voc_object("cat", (-3, 0, 30, 40))
    dataset = read(write_voc_set(tmp_path, {"a": voc_xml(little, much)}))
    what = "box [-3.0, 0.0, 30.0, 40.0] reaches 3.0 pixels beyond the image (width 64, height 48)"
    assert said(dataset) == [("a.xml, object 2 (cat)", what, "clipped to the image")]
    assert dataset[0].truth.boxes.tolist() == [[0, 0, 64, 48], [0, 0, 30, 40]]


@pytest.mark.parametrize("side", range(4))
@pytest.mark.parametrize(("beyond", "is_said"), [(1.0, False), (1.01, True), (1.5, True)])
def test_a_pixel_beyond_the_image_is_no_mistake_but_more_is(tmp_path: Path, side: int, beyond: float, is_said: bool):
    box = [10.0, 8.0, 30.0, 40.0]
    box[side] = -beyond if side < 2 else (64, 48)[side - 2] + beyond
    dataset = read(write_voc_set(tmp_path, {"a": voc_xml(voc_object("cat", box))}))
    assert [problem.done for problem in dataset.problems] == ["clipped to the image"] * is_said
    inside = [10, 8, 30, 40]
    inside[side] = (0, 0, 64, 48)[side]
    assert dataset[0].truth.boxes.tolist() == [inside]


BOMB = (
    '<!DOCTYPE a [<!ENTITY x "lol">'
    + "".join(f'<!ENTITY {name} "{f"&{before};" * 10}">' for before, name in zip("xbcdefgh", "bcdefghi", strict=True))
    + "]><annotation>&i;</annotation>"
)
FOREIGN_FILE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation>&x;</annotation>'


@pytest.mark.parametrize("xml", [BOMB, FOREIGN_FILE])
def test_attacks_in_xml_cost_one_image(tmp_path: Path, xml: str):
    dataset = read(write_voc_set(tmp_path, {"a": voc_xml(CAT), "b": xml}))
    ((where, what, done),) = said(dataset)
    assert (where, done) == ("b.xml", "image left out")
    assert what.startswith("the XML holds what no annotation needs and an attack would: EntitiesForbidden")
    assert [sample.name for sample in dataset] == ["a.png"]


def test_all_problems_of_a_set_in_one_error(tmp_path: Path):
    folder = write_voc_set(
        tmp_path,
        {
            "good": voc_xml(CAT),
            "empty": voc_xml(voc_object("cat", (131, 20, 131, 88))),
            "torn": voc_xml(CAT)[:-8],
            "text": voc_xml(CAT),
            "lonely": voc_xml(CAT),
            "bare": voc_xml(CAT),
        },
    )
    write_text(folder / "JPEGImages" / "text.png", "no image at all")
    (folder / "JPEGImages" / "lonely.png").unlink()
    (folder / "Annotations" / "bare.xml").unlink()
    with pytest.raises(DatasetError) as error:
        read_clean(folder, split="train")
    problems = error.value.problems
    assert [problem.where.rpartition("/")[2] for problem in problems] == [
        "train.txt, line 5",
        folder.name,
        "empty.xml, object 1 (cat)",
        "torn.xml",
        "text.png",
    ]
    assert [problem.done for problem in problems] == [
        "image left out",
        "left out; --unlabelled empty takes them as empty",
        "box left out",
        *["image left out"] * 2,
    ]
    assert problems[0].what == "there is no image 'lonely'"
    assert problems[1].what == "1 of 5 images has no VOC XML file, such as bare.png"
    assert problems[3].what.startswith("not well-formed XML (")
    assert problems[4].what == "not an image that can be read here; save it as JPEG or PNG"
    assert all(str(problem) in str(error.value) for problem in problems)
    assert "5 problems" in str(error.value)
    dataset = read(folder)
    assert [sample.name for sample in dataset] == ["good.png", "empty.png"]
    assert dataset.problems == problems


def test_an_image_listed_twice(tmp_path: Path):
    folder = write_voc_set(tmp_path, {"a": voc_xml(CAT)})
    write_text(folder / "ImageSets" / "Main" / "train.txt", "a\na\n")
    dataset = read(folder)
    assert len(dataset) == 1
    assert said(dataset) == [
        ("train.txt, line 2", "'a.png' is listed a second time", "the first entry and its objects taken")
    ]


def test_two_images_of_one_name(tmp_path: Path):
    folder = write_voc_set(tmp_path, {"a": voc_xml(CAT)})
    write_image(folder / "JPEGImages" / "a.jpg")
    assert said(read(folder)) == [("a.xml", "'a' is the name of 2 images", "a.jpg taken")]
    write_text(folder / "Annotations" / "a.xml", voc_xml("<filename>a.png</filename>", CAT))
    assert [sample.name for sample in read_clean(folder)] == ["a.png"]


def test_a_filename_of_another_machine_is_no_matter(tmp_path: Path):
    write_voc_set(tmp_path, {"a": voc_xml("<filename>C:\\somewhere\\else.bmp</filename>", CAT)})
    assert [sample.name for sample in read_clean(tmp_path)] == ["a.png"]


def test_a_size_that_disagrees_is_said(tmp_path: Path):
    dataset = read(write_voc_set(tmp_path, {"a": voc_xml(CAT, width=640, height=480)}))
    assert said(dataset) == [
        (
            "a.xml",
            "the size is given as width 640, height 480, but the image has width 64, height 48",
            "boxes taken as pixels of the image",
        )
    ]
    assert dataset[0].truth.boxes.tolist() == [[10, 8, 30.5, 40.25]]


@pytest.mark.parametrize("xml", [voc_xml(CAT, width=0, height=0), f"<annotation>{CAT}</annotation>"])
def test_no_size_is_no_statement(tmp_path: Path, xml: str):
    assert len(read_clean(write_voc_set(tmp_path, {"a": xml}))[0].truth) == 1


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_drawn_on_the_stored_image_turn_with_it(tmp_path: Path, orientation: int):
    box = (5, 9, 20, 14)
    folder = write_voc_set(tmp_path, {"a": voc_xml(voc_object("cat", box))})
    image = Image.new("L", (64, 48))
    image.paste(255, box)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(folder / "JPEGImages" / "a.png", exif=exif)
    (sample,) = read_clean(folder)
    assert (sample.height, sample.width) == (64, 48)
    rows, columns = np.nonzero(sample.read()[0])
    assert sample.truth.boxes.tolist() == [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]]


def test_boxes_drawn_on_the_shown_image_stay(tmp_path: Path):
    folder = write_voc_set(tmp_path, {"a": voc_xml(voc_object("cat", (5, 9, 20, 60)), width=48, height=64)})
    write_image(folder / "JPEGImages" / "a.png", orientation=6)
    assert read_clean(folder)[0].truth.boxes.tolist() == [[5, 9, 20, 60]]


def test_classes_that_are_nearly_the_same_are_said(tmp_path: Path):
    names = ["cat", "Cat", "trafficlight", "traffic light"]
    dataset = read(write_voc_set(tmp_path, {"a": voc_xml(*(voc_object(name, (1, 1, 9, 9)) for name in names))}))
    assert dataset.class_names == ("Cat", "cat", "traffic light", "trafficlight")
    where = str(tmp_path / "Annotations")
    assert dataset.problems == (
        Problem(where, "classes 'Cat' and 'cat' differ in case or spaces only", "kept as two classes"),
        Problem(
            where, "classes 'traffic light' and 'trafficlight' differ in case or spaces only", "kept as two classes"
        ),
    )


def test_a_split_without_any_usable_image(tmp_path: Path):
    folder = write_voc_set(tmp_path, {"a": "no XML"})
    with pytest.raises(DatasetError, match=r"(?s)no image that can be used.*a\.xml: not well-formed"):
        read(folder)


def test_a_set_without_images_folder(tmp_path: Path):
    write_text(tmp_path / "Annotations" / "a.xml", voc_xml(CAT))
    write_text(tmp_path / "ImageSets" / "Main" / "train.txt", "a")
    with pytest.raises(DatasetError, match=r"(?s)there is no image that can be used.*line 1: there is no image 'a'"):
        read(tmp_path)
