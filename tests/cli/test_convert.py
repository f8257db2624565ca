"""Tests `multibox convert`: the lines that it prints, and the files that it refuses to replace."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from multibox.detector import Detector
from tests.cli.conftest import Multibox
from tests.golden import ultra_light


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("foreign") / "model.pth"
    torch.save(ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3).state_dict(), path)
    return path


def test_it_says_what_it_is_and_what_its_rules_are(multibox: Multibox, foreign: Path, tmp_path: Path):
    out_path = tmp_path / "made" / "it.safetensors"
    status, out, err = multibox("convert", foreign, out_path)
    assert (status, err) == (0, [])
    assert out[0] == f"{foreign}: torchvision ssdlite320_mobilenet_v3_large"
    page = "\n".join(out)
    for words in (
        "network: ssdlite320-mobilenetv3, backbone mobilenet-v3-large-reduced",
        "320 x 320, bilinear, not rounded to whole numbers; less 127.5 127.5 127.5, divided by 127.5 127.5 127.5",
        "default boxes: 3,234, width and height clipped",
        "variances 0.1 and 0.2, sizes up to exp(4.135) times; boxes are clipped to the image before suppression",
        "scores: softmax",
        "scores above 0.001, suppression by class at an overlap of 0.55, 300 of a class go in, 300 are kept",
        "classes: 2, class 1, class 2 (none in the file)",
        "the file has no class names; --class-names FILE gives them, or a labels.txt beside it",
        f"written to {out_path} (",
    ):
        assert words in page
    assert Detector.load(out_path).class_names == ("class 1", "class 2")
    status, out, err = multibox("convert", foreign, out_path)
    assert (status, out) == (1, [])
    assert err == [f"multibox: {out_path} is there already; choose another name, or --overwrite"]
    assert multibox("convert", foreign, out_path, "--overwrite").status == 0


def test_size_is_for_weights_that_do_not_tell_it(multibox: Multibox, foreign: Path, tmp_path: Path):
    """tests/weights/converters/test_ultra_light.py has those weights by a rule."""
    with np.load(ultra_light.FILE) as golden:
        shapes = json.loads(str(golden["slim shapes"]))
    state = {key: torch.from_numpy(ultra_light.rule_tensor(key, tuple(shape))) for key, shape in shapes.items()}
    torch.save(state, tmp_path / "version-slim-640.pth")
    hint = "size: not told by the file; version-RFB-640 and version-slim-640 need --size 480x640"
    for flags, size, hinted in (((), "240 x 320", True), (("--size", "480x640"), "480 x 640", False)):
        out_path = tmp_path / f"{size}.safetensors"
        status, out, err = multibox("convert", tmp_path / "version-slim-640.pth", out_path, *flags)
        assert (status, err) == (0, [])
        assert any(line.startswith(f"input: {size}, bilinear") for line in out)
        assert (hint in out) == hinted
    for source, size, wrong, words in (
        (foreign, "320x200", 1, f"{foreign}: its input has 320 x 320 pixels (height x width), not 320 x 200; only the"),
        (
            foreign,
            "large",
            2,
            "--size takes HEIGHTxWIDTH in pixels, such as 240x320, or one number for both, not 'large'",
        ),
    ):
        status, out, err = multibox("convert", source, tmp_path / "no.safetensors", "--size", size)
        assert (status, out, len(err)) == (wrong, [], 1)
        assert words in err[0]
    assert multibox("convert", foreign, tmp_path / "same.safetensors", "--size", "320").status == 0


def test_class_names_come_from_a_file(multibox: Multibox, foreign: Path, tmp_path: Path):
    names, out_path = tmp_path / "names.txt", tmp_path / "it.safetensors"
    for text in ("BACKGROUND\nscrew\nnut\n", "screw, nut\n", "\ufeffscrew\r\nnut\r\n\r\n", "__background__,screw,nut"):
        names.write_text(text, encoding="utf-8")
        status, out, err = multibox("convert", foreign, out_path, "--class-names", names, "--overwrite")
        assert (status, err) == (0, [])
        assert f"classes: 2, screw, nut ({names})" in "\n".join(out)
        assert Detector.load(out_path).class_names == ("screw", "nut")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"screw\n", "--class-names has 1 name, but {} has 2 classes"),
        (b"a\nb\nc\n", "--class-names has 3 names, but {} has 2 classes"),
        (b"screw\nscrew\n", "class names occur twice: 'screw'"),
        (b"BACKGROUND\n\n", "names.txt: no class names; expected one on each line, or separated by commas"),
        (b"\xffs", "names.txt: byte 0 is not UTF-8; save the file as UTF-8"),
    ],
)
def test_class_names_that_do_not_fit_are_refused(
    multibox: Multibox, foreign: Path, tmp_path: Path, text: bytes, words: str
):
    (tmp_path / "names.txt").write_bytes(text)
    out_path = tmp_path / "it.safetensors"
    status, out, err = multibox("convert", foreign, out_path, "--class-names", tmp_path / "names.txt")
    assert (status, out, len(err)) == (1, [], 1)
    assert words.format(foreign) in err[0]
    assert not out_path.exists()


def test_labels_beside_the_file_are_read_and_said(multibox: Multibox, foreign: Path, tmp_path: Path):
    source = tmp_path / "mb1-ssd-Epoch-29.pth"
    source.write_bytes(foreign.read_bytes())
    (tmp_path / "labels.txt").write_text("BACKGROUND\nscrew\nnut\n")
    status, out, err = multibox("convert", source, tmp_path / "it.safetensors")
    assert (status, err) == (0, [])
    assert "classes: 2, screw, nut (labels.txt beside the file)" in "\n".join(out)
    (tmp_path / "labels.txt").write_text("screw\nnut\nbolt\n")
    status, out, err = multibox("convert", source, tmp_path / "it.safetensors", "--overwrite")
    assert status == 0
    assert "labels.txt is not used: it has 3 names, but " in err[0] and " has 2 classes" in err[0]
    assert "classes: 2, class 1, class 2" in "\n".join(out)
    (tmp_path / "labels.txt").write_text("nut\nnut\n")
    status, out, err = multibox("convert", source, tmp_path / "it.safetensors", "--overwrite")
    assert status == 0
    assert "labels.txt is not used: class names occur twice: 'nut'" in err[0]


def test_twenty_classes_do_not_become_vocs_silently(multibox: Multibox, tmp_path: Path):
    state = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=91).state_dict()
    torch.save(state, tmp_path / "model.pth")
    status, out, err = multibox("convert", tmp_path / "model.pth", tmp_path / "it.safetensors")
    assert status == 0
    assert "90 classes: named as COCO's, a guess; class_names (--class-names FILE) gives yours" in err[0]
    assert "COCO's, a guess from their number" in "\n".join(out)


def test_it_never_overwrites_what_it_reads(multibox: Multibox, tmp_path: Path):
    source = tmp_path / "it.safetensors"
    source.write_bytes(b"precious")
    link = tmp_path / "link.safetensors"
    link.symlink_to(source)
    for out_path in (source, link, tmp_path / "." / "it.safetensors"):
        status, out, err = multibox("convert", source, out_path)
        assert (status, out, len(err)) == (2, [], 1)
        assert "is among the files that are read, so it is not replaced; choose another name" in err[0]
    assert source.read_bytes() == b"precious"


def test_wrong_usage_is_status_2(multibox: Multibox, foreign: Path, tmp_path: Path):
    (tmp_path / "folder.safetensors").mkdir()
    for out_path, words in (
        (tmp_path / "it.pth", "is called .safetensors"),
        (tmp_path / "folder.safetensors", "a folder"),
    ):
        status, out, err = multibox("convert", foreign, out_path)
        assert (status, out, len(err)) == (2, [], 1)
        assert words in err[0]
    assert multibox("convert", foreign).status == 2


def test_what_cannot_be_converted_is_status_1_and_leaves_nothing(multibox: Multibox, foreign: Path, tmp_path: Path):
    (tmp_path / "cut.pth").write_bytes(foreign.read_bytes()[:100_000])
    for source, words in (("none.pth", "there is no such weights file"), ("cut.pth", "cut.pth: ")):
        status, out, err = multibox("convert", tmp_path / source, tmp_path / "new" / "it.safetensors")
        assert (status, out, len(err)) == (1, [], 1)
        assert words in err[0]
    assert not (tmp_path / "new").exists()
