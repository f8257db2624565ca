import json
import re
from pathlib import Path

import pytest

from multibox.doctor.report import WIDTH
from tests.cli.conftest import Multibox


@pytest.fixture
def damaged(data: Path) -> Path:
    """A data set of which one box has no width."""
    (first, *_) = sorted((data / "Annotations").iterdir())
    text = first.read_text()
    left = re.search(r"<xmin>(.*?)<", text)[1]
    first.write_text(re.sub(r"<xmax>.*?<", f"<xmax>{left}<", text, count=1))
    return data


def test_a_sound_set_gives_0(multibox: Multibox, data: Path):
    status, out, err = multibox("check", data)
    assert (status, err) == (0, [])
    assert " ".join(" ".join(out).split()).startswith(f"{data}: VOC XML; train: 4 images, 12 objects; val: 3 images")
    assert out[-1].startswith("0 errors, ")
    assert all(len(line) <= WIDTH for line in out[2:])


def test_an_error_is_named_and_gives_1(multibox: Multibox, damaged: Path):
    status, out, _ = multibox("check", damaged, "--only", "error")
    assert status == 1
    assert any("has no width" in line or "object 1" in line for line in out)
    assert out[-1].startswith("1 error, 0 warnings, 0 notes; --fix mends 1; ")
    assert multibox("check", damaged, "--skip", "box-empty").status == 0


def test_json_is_printed_or_written(multibox: Multibox, damaged: Path, tmp_path: Path):
    status, out, _ = multibox("check", damaged, "--json", "-")
    printed = json.loads("\n".join(out))
    assert (status, printed["counts"]["error"]) == (1, 1)
    status, out, err = multibox("check", damaged, "--json", tmp_path / "new" / "found.json")
    assert err == [f"written to {tmp_path / 'new' / 'found.json'}"]
    written = json.loads((tmp_path / "new" / "found.json").read_text())
    assert written | {"seconds": 0} == printed | {"seconds": 0}


def test_a_mended_copy_has_no_error_and_gives_0(multibox: Multibox, damaged: Path, tmp_path: Path):
    status, _, err = multibox("check", damaged, "--fix", tmp_path / "out", "--format", "yolo")
    assert (status, len(err)) == (0, 2)
    assert err[0] == f"1 change, listed in {tmp_path / 'out' / 'changes.csv'}"
    assert err[1].startswith("the mended copy: 0 errors, ")
    assert (tmp_path / "out" / "data.yaml").is_file()
    assert multibox("check", damaged, "--fix", tmp_path / "out").status == 1  # it is there already


def test_a_detector_at_hand_finds_more(multibox: Multibox, data: Path, weights: Path):
    for model in ("ssd256-tiny", weights):
        status, out, _ = multibox("check", data, "--model", model, "--only", "detector")
        assert status == 0
        assert any("map-idle" in line or "input-larger" in line for line in out)
    few = multibox("check", data, "--model", "ssd256-tiny", "--size", "64", "--only", "input-larger")
    assert few.out[-1].startswith("0 errors, 0 warnings, 0 notes")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "boxes"], "there is no kind of problem 'boxes'"),
        (["--model", "ssd256-tinny"], "did you mean 'ssd256-tiny'?"),
        (["--size", "64"], "--size is that of a detector; say which: --model NAME"),
        (["--format", "coco"], "--format is that of a mended copy; say where to write it: --fix OUT"),
        (["--only", "image-dark"], "--only image-dark needs --pixels"),
        (["--only", "detector"], "--only detector needs --model NAME"),
        (["--only", "label-missing"], "--only label-missing needs --predict NAME or --folds N"),
        (["--only", "exif-turned", "--fast"], "so it does not go with --fast"),
    ],
)
def test_wrong_values_are_explained(multibox: Multibox, data: Path, arguments: list[str], message: str):
    status, out, err = multibox("check", data, *arguments)
    assert (status, out, len(err)) == (2, [], 1)
    assert message in err[0]


@pytest.mark.parametrize(
    ("flags", "place"),
    [
        (["--fix", "mended"], "--fix mended"),
        (["--json", "new.json"], "--json new.json"),
        (["--folds", 2, "--page", "../new.html"], "--work runs/my scenes-folds"),
        (["--folds", 2, "--work", "../work"], "--page runs/my scenes-review.html"),
        (["--predict", "multibox/shapes"], "--page runs/my scenes-review.html"),
        (["--learning-curve"], "--work runs/my scenes-learning-curve"),
    ],
)
def test_nothing_is_written_into_the_data(multibox: Multibox, data: Path, monkeypatch, flags: list, place: str):
    monkeypatch.chdir(data)
    before = sorted(data.rglob("*"))
    status, out, err = multibox("check", ".", *flags)
    assert (status, out) == (2, [])
    assert f"{place} is in the data set, which is not changed; choose a place outside" in " ".join(err)
    assert sorted(data.rglob("*")) == before


def test_what_is_written_beside_a_mended_copy_is_not_in_it(multibox: Multibox, damaged: Path, tmp_path: Path):
    mended = tmp_path / "mended"
    status, _, err = multibox("check", damaged, "--json", mended / "report.json", "--fix", mended)
    assert status == 2
    assert "report.json is in the folder of the mended copy" in " ".join(err)
    assert not mended.exists()


def test_one_file_is_not_named_for_the_page_and_the_json(multibox: Multibox, data: Path, weights: Path, tmp_path: Path):
    both = tmp_path / "both"
    status, _, err = multibox("check", data, "--predict", weights, "--page", both, "--json", both)
    assert status == 2
    assert "is named twice" in err[0]
    assert not both.exists()
