"""Bad input gives one clear message and the right exit status, and the rest of the work is done.

Status 1 where something in the files failed, 2 where the command itself was wrong. What is wrong with a data set is
listed once and left out, unless `--on-problem error` says otherwise.
"""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from multibox.data.synthetic import CLASS_NAMES
from multibox.data.write import write_coco, write_yolo
from multibox.detector import Detector
from tests.cli.conftest import Multibox, scenes
from tests.data.folders import voc_object, voc_xml, write_text

BOMB = """<?xml version="1.0"?>
<!DOCTYPE bomb [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]>
<annotation><object><name>&c;</name></object></annotation>"""


def first_of(data: Path, folder: str, split: str = "val") -> Path:
    """Returns the file of a split's first image in a folder of VOC's layout."""
    name = (data / "ImageSets" / "Main" / f"{split}.txt").read_text().split()[0]
    return next((data / folder).glob(f"{name}.*"))


def truncated_jpeg(path: Path) -> Path:
    Image.effect_noise((96, 64), 80).convert("RGB").save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:1500])
    return path


def missing_image(data: Path, split: str) -> str:
    first_of(data, "JPEGImages", split).unlink()
    return "there is no image 'scene_"


def text_for_an_image(data: Path, split: str) -> str:
    first_of(data, "JPEGImages", split).write_text("I am no image")
    return "not an image that can be read"


def truncated_image(data: Path, split: str) -> str:
    png = first_of(data, "JPEGImages", split)
    truncated_jpeg(png.with_suffix(".jpg"))
    png.unlink()
    return ".jpg: the image is truncated or damaged"


def bomb(data: Path, split: str) -> str:
    first_of(data, "Annotations", split).write_text(BOMB)
    return "an attack would"


def box_without_size(data: Path, split: str) -> str:
    circle, ring = voc_object("circle", (20, 10, 20, 30)), voc_object("ring", (1, 2, 30, 40))
    write_text(first_of(data, "Annotations", split), voc_xml(circle, ring, width=96, height=64))
    return "object 1 (circle): box [20.0, 10.0, 20.0, 30.0] has no width (box left out)"


VOC_SPOILS = [missing_image, text_for_an_image, truncated_image, bomb, box_without_size]


def class_out_of_range(data: Path, split: str) -> str:
    lines = sorted((data / "labels" / split).glob("*.txt"))[0]
    lines.write_text("0 0.5 0.5 0.2 0.2\n6 0.5 0.5 0.1 0.1\n")
    return "line 2: class 6, but data.yaml names only 0 to 5 (box left out)"


@pytest.fixture(params=[*VOC_SPOILS, class_out_of_range], ids=lambda spoil: spoil.__name__)
def spoil(request: pytest.FixtureRequest) -> Callable[[Path, str], str]:
    """Damages one record of a split, and returns the message that reports it."""
    return request.param


@pytest.fixture
def spoiled(spoil, data: Path, tmp_path: Path) -> tuple[Path, str]:
    """A data set with one bad record in `val`, and the message that reports it."""
    if spoil is class_out_of_range:
        data = tmp_path / "yolo"
        write_yolo({"train": scenes(4, seed=1), "val": scenes(3, seed=2)}, data)
    return data, spoil(data, "val")


def test_a_bad_record_is_listed_once_and_the_work_is_done(multibox: Multibox, spoiled, weights: Path):
    data, said = spoiled
    status, out, err = multibox("evaluate", data, "--model", weights)
    assert status == 0
    assert err[0] == f"{data}, val: 1 problem"
    assert len(err) == 2
    assert said in err[1]
    assert out[0].startswith(f"{data}, val: ")


def test_a_bad_record_ends_the_work_where_that_is_asked_for(multibox: Multibox, spoiled, weights: Path):
    data, said = spoiled
    status, out, err = multibox("evaluate", data, "--model", weights, "--on-problem", "error")
    assert (status, out, len(err)) == (1, [], 2)
    assert err[0] == f"multibox: {data}, val: 1 problem; mend the files, or --on-problem skip them"
    assert said in err[1]


def test_all_bad_records_of_a_training_set_are_listed_together(multibox: Multibox, data: Path, tmp_path: Path):
    names = (data / "ImageSets" / "Main" / "train.txt").read_text().split()
    said = []
    for name, spoil in zip(names, (text_for_an_image, truncated_image, box_without_size), strict=False):
        write_text(data / "ImageSets" / "Main" / "one.txt", name)  # so that each spoils another image
        said.append(spoil(data, "one"))
    (data / "ImageSets" / "Main" / "one.txt").unlink()
    out = tmp_path / "run"
    command = ["train", data, "--model", "ssd256-tiny", "--val-split", "none", "--workers", 0]
    status, _, err = multibox(*command, "--steps", 1, "--batch-size", 2, "--out", out)
    assert status == 0
    assert err[0] == f"{data}, train: 3 problems"
    for text in said:
        assert sum(text in line for line in err) == 1
    assert err[4].startswith("2 images to learn from")
    assert (out / "best.safetensors").is_file()
    status, _, err = multibox(*command, "--on-problem", "error", "--out", tmp_path / "other")
    assert status == 1
    assert err[0].startswith("multibox: ") and "3 problems" in err[0]
    assert len(err) == 4


def test_what_is_wrong_in_both_splits_is_listed_once(multibox: Multibox, data: Path, tmp_path: Path):
    """Problems are in `train`, in `val`, and in the whole data set."""
    said = [missing_image(data, "train"), box_without_size(data, "val"), "class 'ring' is named twice"]
    write_text(data / "classes.txt", "\n".join([*CLASS_NAMES, "ring"]))
    command = ["train", data, "--model", "ssd256-tiny", "--out", tmp_path / "run", "--steps", 1, "--batch-size", 2]
    status, _, err = multibox(*command, "--on-problem", "error")
    assert (status, len(err)) == (1, 4)
    assert err[0] == f"multibox: {data}, train and val: 3 problems; mend the files, or --on-problem skip them"
    assert all(sum(text in line for line in err) == 1 for text in said)
    assert not (tmp_path / "run" / "log.txt").exists()
    status, _, err = multibox(*command, "--workers", 0, "--device", "cpu")
    assert status == 0
    assert err[0] == f"{data}, train and val: 3 problems"
    assert all(sum(text in line for line in err) == 1 for text in said)


def test_splits_of_other_classes(multibox: Multibox, tmp_path: Path):
    write_coco({"train": scenes(2, seed=1), "val": scenes(2, seed=2)}, tmp_path / "coco")
    file = tmp_path / "coco" / "annotations" / "instances_val.json"
    file.write_text(file.read_text().replace('"circle"', '"disc"'))
    status, _, err = multibox(
        "train", tmp_path / "coco", "--model", "ssd256-tiny", "--out", tmp_path / "run", "--steps", 1
    )
    assert status == 1
    assert err[-1].startswith(f"multibox: {tmp_path / 'coco'}, val has objects of 'disc', which ")
    assert err[-1].endswith("; name the class in both splits, or --val-split none")
    assert not (tmp_path / "run").exists()


def test_a_set_without_a_single_good_image(multibox: Multibox, data: Path, weights: Path):
    for image in (data / "JPEGImages").iterdir():
        truncated_jpeg(image)
    status, out, err = multibox("evaluate", data, "--model", weights)
    assert (status, out) == (1, [])
    assert err[0] == f"multibox: {data}, val: there is no image that can be used"
    assert len(err) == 1 + 3


def test_images_that_cannot_be_read_are_listed_at_the_end(
    multibox: Multibox, data: Path, weights: Path, tmp_path: Path
):
    fine = first_of(data, "JPEGImages")
    text, cut = tmp_path / "text.jpg", truncated_jpeg(tmp_path / "cut.JPG")
    text.write_text("I am no image")
    status, out, err = multibox("detect", text, tmp_path / "none.jpg", cut, fine, "--model", weights)
    assert status == 1
    assert [line.partition(":")[0] for line in out] == [str(fine)]
    assert err[0].startswith("1 image in ")
    assert err[1] == "multibox: 3 of 4 could not be read:"
    assert len(err) == 5
    for path, why in ((text, "not an image"), (tmp_path / "none.jpg", "there is no such"), (cut, "truncated")):
        assert sum(line.startswith(f"  {path}: ") and why in line for line in err) == 1


def test_an_empty_folder(multibox: Multibox, weights: Path, tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    status, out, err = multibox("detect", empty, "--model", weights)
    assert (status, out) == (1, [])
    assert err == [f"multibox: {empty}: a folder without images"]
    for command in (
        ["evaluate", empty, "--model", weights],
        ["train", empty, "--model", "ssd256-tiny", "--out", tmp_path / "run"],
    ):
        status, out, err = multibox(*command)
        assert (status, out, len(err)) == (1, [], 1)
        assert "no data set is here or in the folders below; looked for VOC" in err[0]
    assert not (tmp_path / "run").exists()


def test_two_layouts_at_once(multibox: Multibox, data: Path, weights: Path, tmp_path: Path):
    write_coco({"val": scenes(2, seed=2)}, tmp_path / "coco")
    (tmp_path / "coco" / "annotations").rename(data / "annotations")
    for command in (
        ["evaluate", data, "--model", weights],
        ["train", data, "--model", "ssd256-tiny", "--out", tmp_path / "run"],
    ):
        status, out, err = multibox(*command)
        assert (status, out, len(err)) == (1, [], 1)
        assert re.search(r"holds 2 layouts at once: \d+ VOC XML files and 1 COCO JSON file", err[0])


@pytest.mark.parametrize(("wrong", "near"), [("ssd300-vgg", "ssd300-vgg16"), ("ssd256tiny", "ssd256-tiny")])
def test_a_wrong_preset_is_wrong_usage(multibox: Multibox, data: Path, tmp_path: Path, wrong: str, near: str):
    status, out, err = multibox("train", data, "--model", wrong, "--out", tmp_path / "run")
    assert (status, out) == (2, [])
    said = f"no preset is called '{wrong}'; did you mean '{near}'? (multibox models lists them)"
    assert err == [f"multibox: {said}"]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", ["best.safetensor", "runs/best.safetensors", "multibox/shape"])
def test_a_missing_weights_file(multibox: Multibox, data: Path, tmp_path: Path, wrong: str):
    for command in (
        ["detect", data, "--model", wrong, "--out", tmp_path / "found"],
        ["evaluate", data, "--model", wrong],
        ["train", data, "--model", wrong, "--out", tmp_path / "run"],
    ):
        status, out, err = multibox(*command)
        assert (status, out, len(err)) == (1, [], 1)
        assert f"'{wrong}' is neither a weights file nor the name of published weights" in err[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my scenes"]


def test_a_weights_file_that_is_none(multibox: Multibox, data: Path, tmp_path: Path):
    (tmp_path / "it.safetensors").write_text("weights")
    for command in (["detect", data], ["evaluate", data], ["train", data, "--out", tmp_path / "run"]):
        status, out, err = multibox(*command, "--model", tmp_path / "it.safetensors")
        assert (status, out) == (1, [])
        assert "it.safetensors: not a .safetensors file, or damaged" in err[-1]
        assert "; download or copy it again" in err[-1]
        assert "bytes" not in err[-1]
    for name in ("it.safetensors", "last.pt"):  # text, and text beside the weights of a run
        (tmp_path / name).write_text("a" * 200)
    status, _, err = multibox("convert", tmp_path / "it.safetensors", tmp_path / "new.safetensors")
    wrong = "truncated, damaged, or no weights file at all; download or copy it again"
    assert (status, err) == (1, [f"multibox: {tmp_path / 'it.safetensors'}: {wrong}"])
    (tmp_path / "last.safetensors").touch()
    status, _, err = multibox("convert", tmp_path / "last.pt", tmp_path / "new.safetensors")
    assert (status, len(err)) == (2, 1)
    assert "last.pt is a training state, for --resume; the weights are last.safetensors beside it" in err[0]


def test_an_output_that_cannot_be_written(multibox: Multibox, data: Path, weights: Path, tmp_path: Path):
    """The output would be a folder below a file, because every folder can be written to by root."""
    file = tmp_path / "file.txt"
    file.write_text("a file")
    for command in (
        ["detect", data, "--model", weights, "--out", file / "found"],
        ["detect", data, "--model", weights, "--json", file / "found.json"],
        ["train", data, "--model", "ssd256-tiny", "--out", file / "run"],
        ["train", data, "--model", "ssd256-tiny", "--out", file],
        ["demo", "--out", file / "demo"],
    ):
        status, out, err = multibox(*command)
        assert (status, out, len(err)) == (1, [], 1)
        assert f"{file} is a file, not a folder; choose another folder" in err[0]


def test_a_folder_is_no_file_for_json(multibox: Multibox, data: Path, weights: Path, tmp_path: Path):
    status, out, err = multibox("detect", data, "--model", weights, "--json", tmp_path)
    assert (status, out) == (2, [])
    assert err == [f"multibox: {tmp_path} is a folder; give the name of a file"]


def test_a_set_in_which_nothing_can_be_learned(multibox: Multibox, tmp_path: Path):
    """Two thousand lines of unknown classes are one line with their number, and end the run before it starts."""
    data = tmp_path / "yolo"
    write_yolo({"train": scenes(4, seed=1), "val": scenes(2, seed=2)}, data)
    for labels in (data / "labels" / "train").iterdir():
        labels.write_text("".join(f"{6 + n} 0.5 0.5 0.2 0.2\n" for n in range(500)) + "0 0.5 0.5 0.2 0\n")
    status, lines, err = multibox("train", data, "--model", "ssd256-tiny", "--out", tmp_path / "run", "--steps", 1)
    assert (status, lines) == (1, [])
    assert not (tmp_path / "run").exists()
    assert len(err) <= 10
    assert err[0] == f"{data}, train and val: 2004 problems"
    assert err[1].startswith("  2000 x ")
    assert err[-1].startswith(
        f"multibox: {data}, train: no image to learn from has a usable box: 4 images, {err[1].strip()}"
    )


def test_splits_that_list_their_classes_differently_are_joined_by_name(multibox: Multibox, tmp_path: Path):
    """The classes of `train` decide; `val` has them in another order, and does not list all of them."""
    write_coco({"train": scenes(4, seed=1), "val": scenes(3, seed=2)}, tmp_path / "coco")
    file = tmp_path / "coco" / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    used = {each["category_id"] for each in content["annotations"]}
    content["categories"] = [each for each in reversed(content["categories"]) if each["id"] in used]
    assert len(content["categories"]) > 1
    file.write_text(json.dumps(content))
    command = ["train", tmp_path / "coco", "--model", "ssd256-tiny", "--out", tmp_path / "run", "--steps", 1]
    status, _, err = multibox(*command, "--batch-size", 2, "--workers", 0, "--device", "cpu")
    assert status == 0, err
    card = json.loads((tmp_path / "run" / "card.json").read_text())
    truths = [sample.truth for sample in scenes(3, seed=2)]
    objects = {name: sum((truth.labels == n).sum() for truth in truths) for n, name in enumerate(CLASS_NAMES)}
    assert {name: values["objects"] for name, values in card["metrics"]["per_class"].items()} == objects


def test_a_class_that_the_detector_does_not_know_is_found_before_torch_is_needed(
    multibox: Multibox, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def load(*args, **kwargs):
        raise AssertionError("the network is built")

    Detector.create("ssd256-tiny", ["ring", "dog"], seed=0).save(tmp_path / "other.safetensors")
    monkeypatch.setattr("multibox.data.check.find_undecodable", load)
    monkeypatch.setattr(Detector, "load", load)
    status, _, err = multibox("evaluate", data, "--model", tmp_path / "other.safetensors")
    assert (status, len(err)) == (1, 1)
    assert "has classes that the detector does not know: 'circle'" in err[0]
    status, _, err = multibox("evaluate", data, "--model", tmp_path / "other.safetensors", "--rename", "cat=circle")
    assert (status, len(err)) == (2, 1)
    assert err[0].startswith("multibox: --rename: cannot rename 'cat': the detector has no such class")


def test_what_is_wrong_with_the_data_stands_in_the_folder_of_the_run(multibox: Multibox, data: Path, tmp_path: Path):
    said = [missing_image(data, "train"), box_without_size(data, "val")]
    command = ["train", data, "--model", "ssd256-tiny", "--out", tmp_path / "run", "--steps", 1, "--batch-size", 2]
    status, _, err = multibox(*command, "--workers", 0, "--device", "cpu")
    assert status == 0
    with (tmp_path / "run" / "problems.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    lines = [f"{row['where']}: {row['what']} ({row['done']})" for row in rows]
    assert len(rows) == 2
    for text, line in zip(said, lines, strict=True):
        assert text in line
        assert line in log
        assert sum(text in each for each in err) == 1  # the terminal gets it once
