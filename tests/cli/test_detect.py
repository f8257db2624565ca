"""`multibox detect`: which images are meant, what is printed and written, and that nothing of the user's is lost."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multibox import drawing
from multibox.detector import Detector
from tests.cli.conftest import Multibox

FINDS = ("--score", 0.15, "--max-detections", 3)  # random weights score just above


@pytest.fixture
def street(tmp_path: Path, written_scenes: Path) -> Path:
    """Images in a folder, and one in a folder below it; names with spaces and in Korean."""
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
    assert (status, err) == (0, [])
    expected = Detector.load(weights).detect(street / "one.png", score_threshold=0.15, max_detections=3)
    said = ", ".join(f"{one.name} {one.score:.2f}" for one in expected)
    assert out == [f"{street / 'one.png'}: {said}"]
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
        assert (status, err) == (0, [])
        assert found_in(out) == expected


def test_an_empty_source_is_no_folder(multibox: Multibox, weights: Path):
    status, out, err = multibox("detect", "", "--model", weights)
    assert (status, out, err) == (1, [], ["multibox: '': there is no such image or folder"])


def test_a_name_that_looks_like_a_pattern_is_a_name(multibox: Multibox, street: Path, weights: Path):
    shutil.copyfile(street / "one.png", street / "[o]ne.png")
    assert found_in(multibox("detect", street / "[o]ne.png", "--model", weights).out) == [str(street / "[o]ne.png")]


def test_names_are_printed_as_they_are(multibox: Multibox, street: Path, weights: Path):
    """The library that prints would take these for markup and an emoji."""
    for name in ("[red]x[/red].png", "a:cat:b.png", "x" * 150 + ".png"):
        shutil.copyfile(street / "one.png", path := street / name.replace("/", "_"))
        assert found_in(multibox("detect", path, "--model", weights).out) == [str(path)]


def test_drawn_images(multibox: Multibox, street: Path, weights: Path, tmp_path: Path):
    out = tmp_path / "new" / "found"
    assert multibox("detect", street, "--model", weights, *FINDS, "--out", out).status == 0
    assert sorted(path.name for path in out.iterdir()) == ["one.png", "three.png", "두 번째.PNG"]
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
    names = [path.name.casefold() for path in out.iterdir() if path.stem.casefold().startswith("one")]
    assert sorted(names) == ["one-2.png", "one-3.png", "one-4.png", "one.png"]


def test_what_was_drawn_before_is_not_searched(multibox: Multibox, street: Path, weights: Path):
    command = ["detect", street, "--model", weights, "--out", street / "found"]
    first, second = multibox(*command), multibox(*command)
    assert len(first.out) == 3
    assert first == second
    # but a user may ask for just that
    assert len(multibox("detect", street / "found", "--model", weights).out) == 3


def test_no_image_is_overwritten(multibox: Multibox, street: Path, weights: Path, monkeypatch: pytest.MonkeyPatch):
    before = {path: path.read_bytes() for path in street.rglob("*.png")}
    monkeypatch.chdir(street)
    for sources, out in ((["."], "."), ([street], street), (["one.png"], street), (["night/three.png"], "night")):
        status, lines, err = multibox("detect", *sources, "--model", weights, "--out", out)
        assert (status, lines, len(err)) == (2, [], 1)
        assert "would overwrite" in err[0]
        assert "choose another folder" in err[0]
    assert {path: path.read_bytes() for path in street.rglob("*.png")} == before


def test_json_holds_all_that_was_found(multibox: Multibox, street: Path, weights: Path, tmp_path: Path):
    file = tmp_path / "new" / "found.json"
    broken = tmp_path / "none.jpg"
    status, _, err = multibox("detect", street, broken, "--model", weights, *FINDS, "--json", file)
    assert (status, len(err)) == (1, 1)
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


def test_only_the_wanted_classes(multibox: Multibox, street: Path, weights: Path):
    command = ["detect", street / "one.png", "--model", weights, "--score", 0, "--max-detections", 5, "--classes"]
    status, out, _ = multibox(*command, "star, ring")
    assert status == 0
    names = {entry.split()[0] for entry in out[0].rpartition(": ")[2].split(", ")}
    assert names and names <= {"star", "ring"}
    assert multibox(*command, " ,star,").status == 0
    status, out, err = multibox(*command, ",")
    assert (status, out) == (2, [])
    status, out, err = multibox(*command, "star,rnig")
    assert (status, out, len(err)) == (2, [], 1)
    assert "--classes: the detector has no class 'rnig'; did you mean 'ring'?" in err[0]


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
    assert (status, len(err)) == (0, 1)
    assert err[0].startswith("no font on this machine has all characters of the names")
