"""What the numbers of an object mean: told by what the files say and by the numbers, never by their count alone."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multibox.data import Dataset, read_dataset
from multibox.data.records import Entry
from multibox.data.yolo import to_boxes
from tests.data.folders import BOX, LINE, box_xml, coco_of, write_json, write_picture, write_text

FACE = "0.22 0.25 0.30 0.25 0.26 0.35 0.24 0.45 0.29 0.45"
MARKED = "0.2 0.2 2 0.4 0.2 2 0.0 0.0 0 0.4 0.5 1"


def read_lines(folder: Path, *lines: str, config: str = "") -> Dataset:
    """Reads one image with a label file of these lines, and a `data.yaml` with this part."""
    write_picture(folder, "images", "a.png")
    write_text(folder / "labels" / "a.txt", "\n".join(lines))
    write_text(folder / "data.yaml", f"train: images\nnames: [gauge, bolt]\n{config}")
    return read_dataset(folder)


@pytest.mark.parametrize(
    ("shape", "points"),
    [([5, 2], FACE), ([1, 2], "0.3 0.4"), ([4, 3], MARKED), ([17, 3], "0.3 0.4 2 " * 17), ([4, 3], f"{MARKED} 7")],
)
def test_key_points_behind_a_box(tmp_path: Path, shape: list[int], points: str):
    dataset = read_lines(tmp_path, f"{LINE} {points}", config=f"kpt_shape: {shape}")
    assert dataset[0].truth.boxes.astype(float).round(2).tolist() == [BOX]
    assert dataset.problems == ()


def test_lines_that_are_not_of_the_stated_key_points(tmp_path: Path):
    dataset = read_lines(tmp_path, f"{LINE} 0.3 0.4", LINE, config="kpt_shape: [5, 2]")
    (problem,) = dataset.problems
    assert problem.what == "6 numbers behind the class, but kpt_shape [5, 2] makes 14"
    assert dataset[0].truth.boxes.astype(float).round(2).tolist() == [BOX]


@pytest.mark.parametrize(
    ("points", "aside"), [(MARKED, "1 line has 4 key points"), ("0.3 0.4 2 " * 17, "1 line has 17 key points")]
)
def test_key_points_with_their_visibility_are_told_by_it(tmp_path: Path, points: str, aside: str):
    dataset = read_lines(tmp_path, f"{LINE} {points}")
    assert dataset[0].truth.boxes.astype(float).round(2).tolist() == [BOX]
    assert [(problem.what, problem.done) for problem in dataset.problems] == [(aside, "left aside")]


def test_a_box_with_points_or_an_outline_is_refused_if_it_cannot_be_told(tmp_path: Path):
    dataset = read_lines(tmp_path, f"{LINE} {FACE}")
    (problem,) = dataset.problems
    assert problem.what.startswith("14 numbers behind the class are an outline or a box with key points; say which")
    assert len(dataset[0].truth) == 0


def test_key_points_are_told_by_a_size_that_is_no_corner(tmp_path: Path):
    """The box is small and far from the corner: as a point, its size lies far from the others."""
    dataset = read_lines(tmp_path, "0 0.8 0.8 0.1 0.1 0.79 0.8 0.81 0.82 0.8 0.79", f"{LINE} 0.3 0.4 0.31 0.4 0.3 0.41")
    assert dataset[0].truth.boxes.astype(float).round(2).tolist() == [[96, 72, 108.8, 81.6], BOX]
    assert [problem.done for problem in dataset.problems] == ["left aside"]


@pytest.mark.parametrize("number", ["1", "0.913", "42"])
def test_a_sixth_number_is_left_aside_and_said_once(tmp_path: Path, number: str):
    dataset = read_lines(tmp_path, f"{LINE} {number}", f"1{LINE[1:]} {number}")
    assert dataset[0].truth.boxes.astype(float).round(2).tolist() == [BOX, BOX]
    (problem,) = dataset.problems
    assert problem.what == f"2 lines have a sixth number ({number}), a confidence or the number of a track"


@pytest.mark.parametrize("number", ["-0.5", "1.57", "nan"])
def test_a_sixth_number_that_may_be_an_angle_is_refused(tmp_path: Path, number: str):
    dataset = read_lines(tmp_path, f"{LINE} {number}", f"{LINE} 0.5")
    assert [problem.done for problem in dataset.problems] == ["box left out"] * 2
    assert "neither a confidence nor the number of a track" in dataset.problems[0].what


@pytest.mark.parametrize("track", ["", " 7", " 0.91"])
def test_an_oriented_box_is_read_as_the_box_around_it(tmp_path: Path, track: str):
    dataset = read_lines(tmp_path, f"0 0.3 0.2 0.5 0.4 0.4 0.5 0.2 0.3{track}")
    assert dataset[0].truth.boxes.astype(float).round(2).tolist() == [[25.6, 19.2, 64, 48]]
    assert [problem.done for problem in dataset.problems] == ["left aside"] * bool(track)


@pytest.mark.parametrize("track", ["", " 7", " 0.91"])
def test_outlines(tmp_path: Path, track: str):
    lines = [f"0 0.1 0.1 0.2 0.1 0.2 0.3{track}", f"0 0.25 0.25 0.5 0.25 0.5 0.5 0.25 0.5 0.3 0.3{track}"]
    assert read_lines(tmp_path, *lines)[0].truth.boxes.astype(float).round(2).tolist() == [
        [12.8, 9.6, 25.6, 28.8],
        [32, 24, 64, 48],
    ]


@given(
    st.lists(
        st.tuples(st.floats(0.01, 0.9), st.floats(0.01, 0.9), st.floats(0.02, 0.09), st.floats(0, 3.1)),
        min_size=1,
        max_size=5,
    )
)
def test_corners_of_turned_rectangles_are_never_taken_for_key_points(rectangles):
    entries, expected = [], []
    for x, y, size, angle in rectangles:
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        corners = np.array([[-1, -0.5], [1, -0.5], [1, 0.5], [-1, 0.5]]) * size @ turn.T + [x, y]
        entries.append(Entry("a.txt", "0", corners.round(6).ravel().tolist()))
        expected.append([*corners.min(axis=0), *corners.max(axis=0)])
    boxes, problems = to_boxes(entries, None)
    np.testing.assert_allclose([entry.box for entry in boxes], expected, atol=1e-5)
    assert problems == []


# Fractions, and objects that stand there twice


def test_boxes_in_fractions_where_pixels_belong(tmp_path: Path):
    fractions = [0.156, 0.167, 0.469, 0.583]
    for name in "ab":
        write_picture(tmp_path / "voc", f"{name}.png")
        write_text(tmp_path / "voc" / f"{name}.xml", box_xml(box=fractions if name == "a" else BOX))
    write_picture(tmp_path / "coco", "a.png")
    content = coco_of("a.png")
    content["annotations"][0]["bbox"] = [0.156, 0.167, 0.313, 0.416]
    write_json(tmp_path / "coco" / "a.json", content)
    write_picture(tmp_path / "labelme", "a.png")
    shape = {"label": "valve", "points": [fractions[:2], fractions[2:]], "shape_type": "rectangle"}
    write_json(tmp_path / "labelme" / "a.json", {"shapes": [shape], "imagePath": "a.png"})
    for kind in ("voc", "coco", "labelme"):
        (problem,) = read_dataset(tmp_path / kind).problems
        assert problem.what == ("box [0.16, 0.17, 0.47, 0.58] is in fractions of the image, 0 to 1, not in pixels"), (
            kind
        )
        assert problem.done == "box left out"


def test_a_box_of_one_pixel_among_others_is_kept(tmp_path: Path):
    write_picture(tmp_path, "a.png")
    write_text(tmp_path / "a.xml", box_xml(box=[0, 0, 1, 1]).replace("</annotation>", box_xml()[12:]))
    dataset = read_dataset(tmp_path)
    assert dataset[0].truth.boxes.tolist() == [[0, 0, 1, 1], BOX]
    assert dataset.problems == ()


def test_an_object_that_stands_there_twice_is_taken_once(tmp_path: Path):
    dataset = read_lines(tmp_path, LINE, LINE, f"1{LINE[1:]}", "0 0.5 0.5 0.1 0.1")
    assert dataset[0].truth.labels.tolist() == [0, 1, 0]
    (problem,) = dataset.problems
    assert (problem.where.rpartition("/")[2], problem.done) == ("a.txt, line 2", "taken once")
    assert problem.what == "box [20.0, 16.0, 60.0, 56.0] of the same class stands there twice"
