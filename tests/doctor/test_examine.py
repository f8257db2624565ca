import json
from pathlib import Path

import numpy as np
import pytest

from multibox.doctor import KINDS, examine
from multibox.doctor.examine import choose_kinds
from multibox.doctor.report import WIDTH
from multibox.doctor.survey import independent_splits
from multibox.explain.model import open_model
from tests.doctor.conftest import Copy
from tests.doctor.damages import DAMAGES

NEEDS = ("labels", "headers", "pixels", "model", "predictions")


def test_kinds_are_chosen_by_name_family_and_grade():
    assert choose_kinds([], [], NEEDS) == tuple(KINDS)
    assert choose_kinds(["box-empty", "image-dark"], [], NEEDS) == ("image-dark", "box-empty")
    assert choose_kinds(["image-dark", "box-empty"], [], ["labels"]) == ("box-empty",)
    balance = choose_kinds(["balance"], ["note"], NEEDS)
    assert balance == tuple(kind.id for kind in KINDS.values() if kind.family == "balance" and kind.grade != "note")
    with pytest.raises(ValueError, match="no kind of problem 'box-emtpy'; did you mean 'box-empty'"):
        choose_kinds(["box-emtpy"], [], NEEDS)
    with pytest.raises(ValueError, match="no kind of problem is left to look for"):
        choose_kinds(["labels"], ["labels"], NEEDS)


def test_every_kind_says_what_it_is_what_it_does_and_what_to_do():
    for kind in KINDS.values():
        assert kind.title[0].islower() or kind.title.startswith("EXIF")
        assert not kind.title.endswith(".")
        for text in (kind.consequence, kind.remedy):
            assert text[0].isupper() and text.endswith("."), kind.id
        assert not kind.fixed.endswith(".")


def test_the_json_says_what_is_where(copy: Copy):
    folder = copy("voc")
    place = DAMAGES["box-empty"]["voc"](folder)
    report = examine(folder)
    content = json.loads(report.to_json())
    assert content["data"] == str(folder)
    train = content["splits"]["train"]
    assert (train["images"], train["objects"], sum(train["classes"].values())) == (24, 71, 71)
    assert content["counts"] == {"error": 1, "warning": 0, "note": 1}
    first = content["kinds"][0]
    assert (first["id"], first["grade"], first["fixable"], first["count"]) == ("box-empty", "error", True, 1)
    (finding,) = first["findings"]
    assert (Path(finding["file"]).name, finding["object"], finding["split"]) == (place.file, place.object, "train")
    assert finding["value"].startswith("box [50.0, 20.0, 50.0, 60.0] has no width")


def test_the_text_fits_a_terminal_and_names_everything(copy: Copy):
    folder = copy("coco")
    DAMAGES["box-empty"]["coco"](folder)
    text = examine(folder).to_text()
    assert "1 x box-empty: a box has no width or no height" in text
    assert "instances_train.json, annotation 113 of image" in text
    assert all(len(line) <= WIDTH or " " not in line.strip() for line in text.splitlines())
    assert text.splitlines()[-1].startswith("1 error, 0 warnings, 1 note; --fix mends 1; ")


def test_a_split_made_of_others_is_not_looked_at_twice():
    assert independent_splits(["train", "trainval", "val", "test"]) == ["train", "val", "test"]
    assert independent_splits(["trainval", "test"]) == ["trainval", "test"]
    assert independent_splits(["train", "all"]) == ["train", "all"]


def test_the_best_overlap_equals_a_brute_force_search(copy: Copy):
    folder = copy("coco")
    DAMAGES["object-uncovered"]["coco"](folder)
    model = open_model("ssd256-tiny")
    (finding,) = examine(folder, model=model, only=["object-uncovered"]).findings
    left, top, right, bottom = 60 / 128, 90 / 96, 64 / 128, 94 / 96  # as the damage draws it
    best = 0.0
    for center_x, center_y, width, height in model.default_boxes.tolist():
        across = min(right, center_x + width / 2) - max(left, center_x - width / 2)
        down = min(bottom, center_y + height / 2) - max(top, center_y - height / 2)
        common = max(across, 0) * max(down, 0)
        best = max(best, common / ((right - left) * (bottom - top) + width * height - common))
    assert f"overlaps by {best:.2f}" in finding.value


def test_an_object_that_no_default_box_touches_is_an_error(copy: Copy):
    model = open_model("ssd256-tiny")
    corner = model._replace(default_boxes=np.array([[0.01, 0.01, 0.01, 0.01]], np.float32))
    report = examine(copy("voc"), model=corner, only=["object-without-default-box"])
    assert len(report.findings) == 44 * 3
    assert report.findings[0].object == 1


def test_classes_that_the_detector_lacks_are_named(copy: Copy):
    model = open_model("ssd256-tiny")._replace(class_names=("cat", "hen"))
    report = examine(copy("voc"), model=model, only=["class-not-of-detector"])
    assert [finding.value for finding in report.findings] == ["'dog'"]


def test_a_detector_is_a_preset_a_config_or_weights(tmp_path: Path):
    tiny = open_model("ssd256-tiny", height=192, width=320)
    assert (tiny.config.height, tiny.config.width, tiny.class_names) == (192, 320, None)
    (tmp_path / "config.json").write_text(tiny.config.to_json())
    assert open_model(str(tmp_path / "config.json")).config == tiny.config
    assert open_model("multibox/voc-tiny").class_names is not None
    with pytest.raises(ValueError, match="has an input size of its own"):
        open_model("multibox/voc-tiny", height=300)
    with pytest.raises(FileNotFoundError, match="neither a weights file"):
        open_model("runs/nothing.safetensors")
    with pytest.raises(ValueError, match="did you mean 'ssd256-tiny'"):
        open_model("ssd256-tinny")


@pytest.mark.slow
def test_the_two_empty_boxes_of_bccd_are_named(shared_data):
    report = examine(shared_data("bccd"))
    assert [(Path(each.file).name, each.object) for each in report.by_kind["box-empty"]] == [
        ("BloodImage_00343.xml", 4),
        ("BloodImage_00338.xml", 13),
    ]
    assert report.count("error") == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["deeppcb", "coco-mini", "voc2007-test"])
def test_published_sets_have_no_error(shared_data, name: str):
    assert examine(shared_data(name)).count("error") == 0
