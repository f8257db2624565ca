"""Tests `multibox detect`: the images that it finds, the lines that it prints, and the files that it writes."""

import csv
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from io import StringIO
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multibox import drawing
from multibox.data import Sample, read_dataset
from multibox.data.synthetic import CLASS_NAMES
from multibox.detector import Detector
from multibox.images import open_image
from tests.cli.conftest import Multibox

FINDS = ("--score", 0.15, "--max-detections", 3)  # random weights score just above


@pytest.fixture
def street(tmp_path: Path, written_scenes: Path) -> Path:
    """A folder with images and a folder below it, with spaces and Korean letters in the names."""
    scenes = sorted((written_scenes / "JPEGImages").iterdir())
    street = tmp_path / "a street"
    for scene, name in zip(scenes, ("one.png", "두 번째.PNG", "night/three.png"), strict=False):
        (street / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(scene, street / name)
    (street / "notes.txt").write_text("no image, and not looked at")
    (street / ".hidden.jpg").write_text("what macOS leaves, say")
    return street


def found_in(lines: list[str]) -> list[str]:
    return [line.rpartition(":")[0] for line in lines]


def test_a_line_for_each_image(multibox: Multibox, street: Path, weights: Path):
    status, out, err = multibox("detect", street / "one.png", "--model", weights, *FINDS)
    assert status == 0
    names = Detector.load(weights).detect(street / "one.png", score_threshold=0.15, max_detections=3).names
    path, said = out[0].rsplit(": ", 1)
    assert (path, len(out)) == (str(street / "one.png"), 1)
    counts = {name: int(number) for number, name in (each.split() for each in said.split(", "))}
    assert counts == {name: names.count(name) for name in names}
    assert re.fullmatch(rf"1 image in \d+\.\d s: {said}", err[0])
    assert multibox("detect", street / "one.png", "--model", weights).out == [f"{street / 'one.png'}: nothing found"]


def test_folders_patterns_and_images_each_once(
    multibox: Multibox, street: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(street.parent)
    everything = ["a street/night/three.png", "a street/one.png", "a street/두 번째.PNG"]
    for sources, expected in (
        (["a street"], everything),
        (["a street/"], everything),
        (["."], everything),
        ([street], [str(street.parent / path) for path in everything]),
        (["a street/**/*.png"], everything[:2]),
        (["a street/o*", "./a street/one.png", street / "one.png"], everything[1:2]),
        (["a street/one.png", "a street"], [everything[1], everything[0], everything[2]]),
    ):
        status, out, err = multibox("detect", *sources, "--model", weights)
        assert (status, len(err)) == (0, 1)
        assert found_in(out) == expected


def test_an_empty_source_is_no_folder(multibox: Multibox, weights: Path):
    status, out, err = multibox("detect", "", "--model", weights)
    assert (status, out, err) == (1, [], ["multibox: '': there is no such image or folder"])


def test_a_name_that_looks_like_a_pattern_is_a_name(multibox: Multibox, street: Path, weights: Path):
    shutil.copyfile(street / "one.png", street / "[o]ne.png")
    assert found_in(multibox("detect", street / "[o]ne.png", "--model", weights).out) == [str(street / "[o]ne.png")]


def test_names_are_printed_as_they_are(multibox: Multibox, street: Path, weights: Path):
    """The printing library, rich, would take these names for markup and an emoji."""
    for name in ("[red]x[/red].png", "a:cat:b.png", "x" * 150 + ".png"):
        shutil.copyfile(street / "one.png", path := street / name.replace("/", "_"))
        assert found_in(multibox("detect", path, "--model", weights).out) == [str(path)]


def test_drawn_images(multibox: Multibox, street: Path, weights: Path, tmp_path: Path):
    out = tmp_path / "new" / "found"
    assert multibox("detect", street, "--model", weights, *FINDS, "--out", out).status == 0
    drawn_files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert drawn_files == [str(Path("night", "three.png")), "one.png", "두 번째.PNG"]
    drawn, original = Image.open(out / "one.png"), Image.open(street / "one.png")
    assert drawn.size == original.size
    assert not np.array_equal(drawn, original)
    nothing = tmp_path / "nothing"
    assert multibox("detect", street / "one.png", "--model", weights, "--out", nothing).status == 0
    assert np.array_equal(Image.open(nothing / "one.png"), original)


def test_drawn_images_of_one_name_are_all_kept(multibox: Multibox, street: Path, weights: Path, tmp_path: Path):
    shutil.copyfile(street / "one.png", street / "night" / "one.png")
    shutil.copyfile(street / "one.png", street / "night" / "ONE.PNG")
    Image.open(street / "one.png").save(street / "one.bmp")
    out = tmp_path / "found"
    assert multibox("detect", street, "--model", weights, "--out", out).status == 0
    names = [
        str(path.relative_to(out)).casefold() for path in out.rglob("*") if path.stem.casefold() in ("one", "one-2")
    ]
    night = Path("night")
    assert sorted(names) == [str(night / "one-2.png"), str(night / "one.png"), "one-2.png", "one.png"]


def test_what_was_drawn_before_is_not_searched(multibox: Multibox, street: Path, weights: Path):
    command = ["detect", street, "--model", weights, "--out", street / "found"]
    first, second = multibox(*command), multibox(*command, "--overwrite")
    assert len(first.out) == 3
    assert first.out == second.out
    assert second.err[0] == f"3 images in {street / 'found'}, the --out folder, left out"
    # but a user may ask for just that
    assert len(multibox("detect", street / "found", "--model", weights).out) == 3
    (street / "empty").mkdir()
    shutil.move(street / "found", street / "empty" / "found")
    status, _, err = multibox("detect", street / "empty", "--model", weights, "--out", street / "empty" / "found")
    found = street / "empty" / "found"
    assert (status, err) == (
        1,
        [
            f"multibox: {street / 'empty'}: all its images are in {found}, the --out folder, which is left out; "
            "choose another --out folder"
        ],
    )


def test_no_image_is_overwritten(multibox: Multibox, street: Path, weights: Path, monkeypatch: pytest.MonkeyPatch):
    before = {path: path.read_bytes() for path in street.rglob("*.png")}
    monkeypatch.chdir(street)
    for sources, out in ((["."], "."), ([street], street), (["one.png"], street), (["night/three.png"], "night")):
        for overwrite in ([], ["--overwrite"]):
            status, lines, err = multibox("detect", *sources, "--model", weights, "--out", out, *overwrite)
            assert (status, lines, len(err)) == (2, [], 1)
            assert "is among the files that are read, so it is not replaced; choose another name" in err[0]
    assert {path: path.read_bytes() for path in street.rglob("*.png")} == before


def test_json_holds_all_that_was_found(multibox: Multibox, street: Path, weights: Path, tmp_path: Path):
    file = tmp_path / "new" / "found.json"
    broken = tmp_path / "none.jpg"
    status, _, err = multibox("detect", street, broken, "--model", weights, *FINDS, "--json", file)
    assert (status, len(err)) == (1, 2)
    assert err[0].endswith(f"; written to {file}")
    written = json.loads(file.read_text(encoding="utf-8"))
    assert sorted(written) == ["class_names", "failed", "images", "model"]
    assert written["model"] == str(weights)
    assert written["failed"] == [{"file": str(broken), "error": f"{broken}: there is no such image or folder"}]
    assert [Path(entry["file"]).name for entry in written["images"]] == ["three.png", "one.png", "두 번째.PNG"]
    one = written["images"][1]
    assert (one["height"], one["width"]) == (64, 96)
    expected = Detector.load(weights).detect(street / "one.png", score_threshold=0.15, max_detections=3)
    assert one["detections"] == expected.records()
    assert written["class_names"] == list(expected.class_names)


def test_the_json_names_the_drawn_image(multibox: Multibox, street: Path, weights: Path, tmp_path: Path):
    shutil.copytree(street / "night", tmp_path / "day")
    out, file = tmp_path / "found", tmp_path / "found.json"
    sources = [street / "night", tmp_path / "day", street / "one.png"]
    assert multibox("detect", *sources, "--model", weights, "--out", out, "--json", file).status == 0
    drawn = {entry["file"]: entry["drawn"] for entry in json.loads(file.read_text(encoding="utf-8"))["images"]}
    assert drawn == {
        str(street / "night" / "three.png"): str(out / "night" / "three.png"),
        str(tmp_path / "day" / "three.png"): str(out / "day" / "three.png"),
        str(street / "one.png"): str(out / "one.png"),
    }
    assert all(Path(path).is_file() for path in drawn.values())


def test_json_on_standard_output(multibox: Multibox, street: Path, weights: Path):
    status, out, err = multibox("detect", street, "--model", weights, *FINDS, "--json", "-")
    assert (status, len(err)) == (0, 1)
    assert len(json.loads("\n".join(out))["images"]) == 3


def test_a_file_name_for_the_drawing_of_one_image(multibox: Multibox, street: Path, weights: Path, tmp_path: Path):
    out = tmp_path / "new" / "it.jpg"
    assert multibox("detect", street / "one.png", "--model", weights, "--out", out).status == 0
    with Image.open(out) as drawn:
        assert drawn.format == "JPEG"
    status, lines, err = multibox("detect", street, "--model", weights, "--out", tmp_path / "them.jpg")
    assert (status, lines) == (2, [])
    said = f"--out {tmp_path / 'them.jpg'} is the name of one image, but there are 3 images; give a folder"
    assert err == [f"multibox: {said}"]


def fail_after(results: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the detection of many images raise the error after so many results."""
    detect = Detector.detect

    def failing(self, images, **settings):
        found = detect(self, images, **settings)
        if not isinstance(found, Iterator):
            return found

        def some():
            yield from islice(found, results)
            raise error

        return some()

    monkeypatch.setattr(Detector, "detect", failing)


def test_an_error_keeps_the_json_of_what_is_done(
    multibox: Multibox, street: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Not only an interrupt: outputs that are NaN, a full disk, a file that is gone before it is drawn."""
    fail_after(2, OSError("no space is left"), monkeypatch)
    file = tmp_path / "found.json"
    status, out, err = multibox("detect", street, "--model", weights, "--json", file)
    assert (status, len(out)) == (1, 2)
    assert err == [f"2 of 3 images are done; written to {file}", "multibox: no space is left"]
    written = json.loads(file.read_text(encoding="utf-8"))
    assert [Path(entry["file"]).name for entry in written["images"]] == ["three.png", "one.png"]
    why = "not looked at, because of an error: no space is left"
    assert written["failed"] == [{"file": str(street / "두 번째.PNG"), "error": why}]


def test_a_large_jpeg_gives_what_the_detector_gives(multibox: Multibox, weights: Path, tmp_path: Path):
    """The command decoded at full size, where the detector lets a JPEG be decoded at half of it."""
    folder, file = tmp_path / "large", tmp_path / "found.json"
    folder.mkdir()
    for number in range(10):  # more than a batch
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((1200, 800)).save(folder / f"{number}.jpg")
    (folder / "4.jpg").write_bytes(b"no image")
    status, out, err = multibox("detect", folder, "--model", weights, *FINDS, "--json", file)
    assert (status, len(out), len(err)) == (1, 9, 2)
    assert "4.jpg" in err[1]
    written = json.loads(file.read_text(encoding="utf-8"))
    assert [entry["file"] for entry in written["failed"]] == [str(folder / "4.jpg")]
    assert len(written["images"]) == 9
    readable = [Path(entry["file"]) for entry in written["images"]]
    found = Detector.load(weights).detect(readable, score_threshold=0.15, max_detections=3)
    for entry, expected in zip(written["images"], found, strict=True):
        assert (entry["height"], entry["width"]) == (800, 1200)
        assert entry["detections"] == expected.records()


def test_precision_and_compile(multibox: Multibox, street: Path, weights: Path, monkeypatch: pytest.MonkeyPatch):
    given = []
    to = Detector.to
    monkeypatch.setattr(Detector, "to", lambda self, device, **kwargs: given.append(kwargs) or to(self, device))
    for flags in ((), ("--precision", "bf16"), ("--precision", "auto", "--compile")):
        assert multibox("detect", street / "one.png", "--model", weights, *flags).status == 0
    assert given == [
        {"precision": "fp32", "compile": False},
        {"precision": "bf16", "compile": False},
        {"precision": "auto", "compile": True},
    ]


def test_an_interrupt_keeps_the_json_of_what_is_done(
    multibox: Multibox, street: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fail_after(2, KeyboardInterrupt(), monkeypatch)
    file = tmp_path / "found.json"
    status, out, err = multibox("detect", street, "--model", weights, "--json", file)
    assert (status, len(out)) == (130, 2)
    assert err == [f"multibox: interrupted; 2 of 3 images are done; written to {file}"]
    written = json.loads(file.read_text(encoding="utf-8"))
    assert [Path(entry["file"]).name for entry in written["images"]] == ["three.png", "one.png"]
    assert written["failed"] == [{"file": str(street / "두 번째.PNG"), "error": "interrupted before it was looked at"}]


def test_only_the_wanted_classes(multibox: Multibox, street: Path, weights: Path):
    command = ["detect", street / "one.png", "--model", weights, "--score", 0, "--max-detections", 5, "--classes"]
    status, out, _ = multibox(*command, "star, ring")
    assert status == 0
    names = {entry.split()[1] for entry in out[0].rpartition(": ")[2].split(", ")}
    assert names and names <= {"star", "ring"}
    assert multibox(*command, " ,star,").status == 0
    status, out, err = multibox(*command, ",")
    assert (status, out) == (2, [])
    status, out, err = multibox(*command, "star,rnig")
    assert (status, out, len(err)) == (2, [], 1)
    assert "--classes: the detector has no class 'rnig'; did you mean 'ring'?" in err[0]


def test_merged_boxes_are_written_with_the_default_box_of_the_best(multibox: Multibox, street: Path, weights: Path):
    command = ["detect", street / "one.png", "--model", weights, *FINDS, "--json", "-"]
    found, merged = (
        json.loads("\n".join(multibox(*command, *asked).out))["images"][0]["detections"]
        for asked in ([], ["--merge", "weighted"])
    )
    assert [each.pop("box") for each in found] != [each.pop("box") for each in merged]
    assert found == merged
    status, _, err = multibox(*command, "--merge", "mean")
    assert status == 2
    assert err == ['multibox: Invalid value "mean" for --merge. Choose from: "none", "weighted".']


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every name of a file is text")
def test_a_name_that_is_no_text(multibox: Multibox, street: Path, weights: Path, tmp_path: Path):
    path = os.path.join(os.fsencode(street), b"caf\xe9.png")
    shutil.copyfile(street / "one.png", path)
    status, out, _ = multibox("detect", street, "--model", weights, "--json", tmp_path / "found.json")
    assert (status, len(out)) == (0, 4)
    written = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert path in [os.fsencode(entry["file"]) for entry in written["images"]]


@pytest.mark.filterwarnings("default:no font on this machine")
def test_that_no_font_fits_is_said_in_one_line(
    multibox: Multibox, street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(drawing, "_font_folders", list)
    cached = (drawing._find_font, drawing._font_files, drawing._say_once_that_no_font_fits)
    for each in cached:
        each.cache_clear()
    Detector.create("ssd256-tiny", ["강아지", "고양이"], seed=0).save(model := tmp_path / "it.safetensors")
    status, _, err = multibox("detect", street, "--model", model, "--score", 0.1, "--out", tmp_path / "found")
    for each in cached:
        each.cache_clear()
    assert (status, len(err)) == (0, 2)
    assert err[0].startswith("no font on this machine has all characters of the names")


def test_the_score_is_the_detectors_own_unless_it_is_given(
    multibox: Multibox, street: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
):
    given = []
    detect = Detector.detect

    def watched(self, images, **settings):
        given.append(settings.get("score_threshold"))
        return detect(self, images, **settings)

    monkeypatch.setattr(Detector, "detect", watched)
    assert multibox("detect", street / "one.png", "--model", weights).status == 0
    assert multibox("detect", street / "one.png", "--model", weights, "--score", 0.15).status == 0
    assert given == [None, 0.15]


def test_csv_has_a_row_for_each_detection(multibox: Multibox, street: Path, weights: Path, tmp_path: Path):
    (street / "one.png").rename(street / 'a, "b"\nc\t.png')
    files = "--json", tmp_path / "found.json", "--csv", tmp_path / "new" / "found.csv"
    assert multibox("detect", street, "--model", weights, *FINDS, *files).status == 0
    entries = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))["images"]
    with (tmp_path / "new" / "found.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["file", "class", "score", "x_min", "y_min", "x_max", "y_max"]
    expected = [(entry["file"], each) for entry in entries for each in entry["detections"]]
    assert len(rows) == len(expected) == 9
    for (path, name, *numbers), (file, each) in zip(rows, expected, strict=True):
        assert (path, name) == (file, each["name"])
        assert [float(number) for number in numbers] == [each["score"], *each["box"]]
    status, out, _ = multibox("detect", street, "--model", weights, *FINDS, "--csv", "-")
    assert status == 0
    assert list(csv.reader(StringIO("\n".join(out)))) == [head, *rows]
    status, out, err = multibox("detect", street, "--model", weights, "--csv", "-", "--json", "-")
    assert (status, out, len(err)) == (2, [], 1)
    assert "--json and --csv cannot both be printed" in err[0]
    for out, table, said in (
        ("new", "new", "is a folder; give the name"),
        ("it", "it/one.png", "is named twice for what"),
    ):
        (street / "one.png").write_bytes(b"")
        places = "--out", tmp_path / out, "--csv", tmp_path / table
        status, lines, err = multibox("detect", street / "one.png", "--model", weights, *places)
        assert (status, lines, len(err)) == (2, [], 1)
        assert f"{tmp_path / table} {said}" in err[0]


@pytest.mark.parametrize("layout", ["voc", "coco", "yolo"])
def test_labels_are_read_again_as_a_data_set(
    multibox: Multibox, street: Path, weights: Path, tmp_path: Path, layout: str
):
    """Images of one stem, folders, spaces, other scripts, and the name of the file with the class names."""
    for name in ("one.jpg", "classes.png", "night/ONE.png"):
        open_image(street / "one.png").save(street / name)
    Image.new("RGB", (60, 40)).save(street / "nothing.png")
    out, file = tmp_path / "out", tmp_path / "found.json"
    command = ["detect", street, "--model", weights, "--max-detections", 3, "--score", 0.15, "--json", file]
    status, _, err = multibox(*command, "--out", out, "--save-labels", layout)
    labels = out / "pre-labels"
    assert status == 0
    assert err[0].endswith(f"; drawn in {out}; written to {file}; labels in {labels}")
    entries = json.loads(file.read_text(encoding="utf-8"))["images"]
    dataset = read_dataset(labels, split="train")
    assert (dataset.problems, dataset.class_names) == ((), CLASS_NAMES)
    assert len(dataset) == len(entries) == 7

    def content(sample: Sample) -> tuple[bytes, list[tuple[int, list[float]]]]:
        truth = sample.truth
        rows = zip(truth.labels.tolist(), truth.boxes.round(1).tolist(), strict=True)
        return sample.image.read_bytes(), sorted((label, box) for label, box in rows)

    expected = [
        (
            Path(entry["file"]).read_bytes(),
            sorted((each["label"], np.float32(each["box"]).round(1).tolist()) for each in entry["detections"]),
        )
        for entry in entries
    ]
    assert sorted(map(content, dataset)) == sorted(expected)
    assert all((sample.height, sample.width) == sample.open().size[::-1] for sample in dataset)
    if layout == "yolo":
        names = (labels / "labels" / "train" / "classes.txt").read_text(encoding="utf-8")
        assert tuple(names.splitlines()) == CLASS_NAMES
    if layout == "coco":
        annotations = json.loads((labels / "annotations" / "instances_train.json").read_text(encoding="utf-8"))
        scores = [each["score"] for entry in entries for each in entry["detections"]]
        assert [each["score"] for each in annotations["annotations"]] == scores
    before = {path: path.read_bytes() for path in labels.rglob("*") if path.is_file()}
    status, lines, err = multibox(*command, "--out", out, "--save-labels", layout, "--overwrite")
    assert (status, lines, len(err)) == (1, [], 1)
    assert err[0].endswith(f"{labels} is not empty; choose another folder")
    assert {path: path.read_bytes() for path in labels.rglob("*") if path.is_file()} == before


def test_labels_need_a_folder_of_their_own(multibox: Multibox, street: Path, weights: Path, tmp_path: Path):
    command = ["detect", street / "one.png", "--model", weights, "--save-labels", "voc"]
    for out in ([], ["--out", tmp_path / "one.png"]):
        status, lines, err = multibox(*command, *out)
        assert (status, lines, len(err)) == (2, [], 1)
        assert "--save-labels needs a folder, as in --out found/ --save-labels voc" in err[0]
    inside = tmp_path / "out" / "pre-labels" / "found.json"
    status, lines, err = multibox(*command, "--out", tmp_path / "out", "--json", inside)
    assert (status, lines, len(err)) == (2, [], 1)
    assert f"{inside} would be among the labels in" in err[0]
    assert not (tmp_path / "out").exists()


def test_an_interrupt_keeps_labels_and_table_of_what_is_done(
    multibox: Multibox, street: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fail_after(2, KeyboardInterrupt(), monkeypatch)
    out, table = tmp_path / "out", tmp_path / "found.csv"
    command = ["detect", street, "--model", weights, *FINDS, "--out", out, "--save-labels", "coco", "--csv", table]
    status, _, err = multibox(*command)
    assert status == 130
    done = f"drawn in {out}; written to {table}; labels in {out / 'pre-labels'}"
    assert err == [f"multibox: interrupted; 2 of 3 images are done; {done}"]
    assert len(read_dataset(out / "pre-labels", split="train")) == 2
    assert len(table.read_text(encoding="utf-8").splitlines()) == 1 + 6
