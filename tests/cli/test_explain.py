"""Tests `multibox explain`: its tables and files, and where the objects of an image come from."""

import json
from pathlib import Path

import numpy as np
import pytest

from multibox.cli.explain import FILES
from multibox.data import read_dataset
from multibox.data.synthetic import CLASS_NAMES
from multibox.data.write import write_coco, write_yolo
from tests.cli.conftest import Multibox, scenes
from tests.slow import slow

SHAPES = "multibox/shapes"


@pytest.fixture
def image(data: Path) -> Path:
    return min((data / "JPEGImages").glob("scene_2_*"))


def annotation(image: Path, data: Path) -> Path:
    return data / "Annotations" / f"{image.stem}.xml"


def record_of(out: list[str]) -> dict:
    return json.loads("\n".join(out))


def test_the_tables_fit_80_columns_and_say_where_the_boxes_come_from(multibox: Multibox, image: Path, data: Path):
    status, out, err = multibox("explain", image, "--model", SHAPES, "--truth", annotation(image, data))
    assert (status, err) == (0, [])
    assert out[0] == f"{image}: 96 x 64 pixels; ssd256-tiny, 6,132 default boxes on 6 maps"
    assert all(len(line.rstrip()) <= 80 for line in out[1:])
    heads = [line.split()[0] for line in out if line.startswith(("found", "object", "hard negatives with"))]
    assert heads == ["found", "object", "hard"]


def test_it_writes_its_files_and_the_json(multibox: Multibox, image: Path, data: Path, tmp_path: Path):
    arguments = ("explain", image, "--model", SHAPES, "--data", data, "--out", tmp_path / "explained")
    status, out, err = multibox(*arguments, "--json", "-")
    assert (status, err) == (0, [f"page: {tmp_path / 'explained' / 'index.html'}"])
    assert {path.name for path in (tmp_path / "explained").iterdir()} == FILES.keys()
    record = json.loads((tmp_path / "explained" / "explanation.json").read_text(encoding="utf-8"))
    assert record == record_of(out)
    truth = read_dataset(data, split="val")[0].truth
    assert [one["label"] for one in record["truth"]] == truth.labels.tolist()
    status, out, err = multibox(*arguments)
    assert (status, out, len(err)) == (1, [], 1)
    assert "is there already, and 3 more of the files to write; choose another name, or --overwrite" in err[0]
    assert multibox(*arguments, "--overwrite").status == 0


@pytest.mark.parametrize("layout", ["voc", "yolo", slow("coco")])
def test_objects_are_the_same_from_every_file(multibox: Multibox, image: Path, data: Path, tmp_path: Path, layout: str):
    """YOLO's file holds fractions and numbers of classes; COCO's holds a whole split."""
    dataset = {"val": scenes(3, seed=2)}
    source: tuple[object, ...] = ("--truth", annotation(image, data))
    if layout == "yolo":
        write_yolo(dataset, tmp_path / "yolo")
        source = ("--truth", tmp_path / "yolo" / "labels" / "val" / f"{image.stem}.txt")
    if layout == "coco":
        write_coco(dataset, tmp_path / "coco")
        (image,) = (tmp_path / "coco").rglob(image.name)
        source = ("--data", tmp_path / "coco")
    status, out, err = multibox("explain", image, "--model", SHAPES, *source, "--json", "-")
    assert (status, err) == (0, [])
    found = record_of(out)["truth"]
    expected = dataset["val"][0].truth
    assert [one["name"] for one in found] == [CLASS_NAMES[label] for label in expected.labels]
    np.testing.assert_allclose([one["box"] for one in found], expected.boxes, atol=0.5)


def test_objects_of_other_classes_are_left_out_and_said(multibox: Multibox, image: Path, data: Path):
    file = annotation(image, data)
    text = file.read_text(encoding="utf-8")
    name = text.partition("<name>")[2].partition("</name>")[0]
    file.write_text(text.replace(f"<name>{name}</name>", "<name>teapot</name>"), encoding="utf-8")
    status, out, err = multibox("explain", image, "--model", SHAPES, "--truth", file, "--json", "-")
    assert (status, err) == (0, ["objects of classes that the detector does not know are left out: 'teapot'"])
    assert all(one["name"] != name for one in record_of(out)["truth"])


def test_several_weights_are_compared(multibox: Multibox, image: Path, data: Path, weights: Path):
    truth = ("--truth", annotation(image, data))
    status, out, err = multibox("explain", image, "--model", weights, SHAPES, *truth, "--json", "-")
    assert (status, err) == (0, [])
    record = record_of(out)
    assert (record["model"], [each["model"] for each in record["hard_negatives"]]) == (SHAPES, [str(weights), SHAPES])
    status, out, err = multibox("explain", image, "--model", SHAPES, "multibox/voc-tiny")
    assert (status, out) == (1, [])
    assert err == [
        "multibox: multibox/shapes has other classes than multibox/voc-tiny; give weights of one detector, such as of "
        "one run"
    ]


@pytest.mark.parametrize(
    ("flags", "status", "said"),
    [
        (["--truth", "a.xml", "--data", "here"], 2, "--truth and --data both say what the objects are; give one"),
        (["--truth", "none.xml"], 1, "none.xml: there is no such file"),
        (
            ["--truth", "a.csv"],
            1,
            "a.csv: objects of one image are in an .xml of VOC, a .json of labelme, or",
        ),
        (["--truth", "a.xml"], 1, "a.xml: not well-formed XML"),
        (["--truth", "a.txt"], 1, "a.txt, line 1: class '7' is none of 6 (box left out)"),
        (["--data", "."], 1, "is not among its images ('val')"),
    ],
)
def test_what_is_wrong_with_the_objects_is_said(
    multibox: Multibox, image: Path, tmp_path: Path, monkeypatch, flags: list[str], status: int, said: str
):
    (tmp_path / "here" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    Path("a.csv").write_text("")
    Path("a.xml").write_text("<annotation>")
    Path("a.txt").write_text("7 0.5 0.5 0.5 0.5\n")
    if flags[0] == "--data":
        write_yolo({"val": scenes(1, seed=5)}, "set")
        flags = ["--data", "set"]
    done = multibox("explain", image, "--model", SHAPES, *flags)
    if flags[-1] == "a.txt":
        assert (done.status, done.err) == (0, [said])
    else:
        assert (done.status, done.out, len(done.err)) == (status, [], 1)
        assert said in done.err[0]
