"""Files of detections for other programs: each form is as its program documents it, and is read back as it was."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from multibox.data.detection_files import Form, FoundImage, is_detections, read_detections, write_detections
from multibox.data.sample import Dataset, GroundTruth, Sample

NAMES = ("cat", "dog")
IMAGES = [
    FoundImage(
        "a/0001.jpg", 100, 200, [("dog", 1, 0.9, (10.0, 20.0, 110.0, 70.0)), ("cat", 0, 0.25, (0.0, 0.0, 50.0, 100.0))]
    ),
    FoundImage("a/0007.png", 64, 64, []),
]
FILES: dict[Form, str] = {"coco": "r.json", "fiftyone": "f.json", "label-studio": "l.json", "yolo": "labels"}


@pytest.fixture
def dataset() -> Dataset:
    samples = [
        Sample(f"b/{name}", np.zeros((3, height, width), np.uint8), height, width, GroundTruth([], []), number)
        for name, height, width, number in (("0007.jpg", 64, 64, 7), ("0001.jpg", 100, 200, 1))
    ]
    return Dataset("pets", NAMES, samples)


@pytest.mark.parametrize("form", FILES)
def test_a_form_is_read_as_it_was_written(tmp_path: Path, dataset: Dataset, form: Form):
    place = tmp_path / FILES[form]
    write_detections(form, place, IMAGES, NAMES)
    assert is_detections(place)
    (none, found), unknown_images, unknown_classes = read_detections(place, dataset)
    assert len(none) == len(unknown_images) == len(unknown_classes) == 0
    assert found.names == ["dog", "cat"]
    np.testing.assert_allclose(found.scores, [0.9, 0.25], atol=1e-6)
    np.testing.assert_allclose(found.boxes, [[10, 20, 110, 70], [0, 0, 50, 100]], atol=1e-3)


def test_the_forms_are_those_of_their_programs(tmp_path: Path):
    for form, name in FILES.items():
        write_detections(form, tmp_path / name, IMAGES, NAMES)
    coco, fiftyone, tasks = (json.loads((tmp_path / name).read_text()) for name in ("r.json", "f.json", "l.json"))
    assert {key: coco[0][key] for key in ("image_id", "category_id", "bbox", "score")} == {
        "image_id": 1,  # the number in the name
        "category_id": 2,
        "bbox": [10.0, 20.0, 100.0, 50.0],
        "score": 0.9,
    }
    assert fiftyone["classes"] == ["cat", "dog"]
    assert fiftyone["labels"]["0001"][0] == {"label": "dog", "bounding_box": [0.05, 0.2, 0.5, 0.5], "confidence": 0.9}
    assert fiftyone["labels"]["0007"] == []
    (box, _) = tasks[0]["predictions"][0]["result"]
    assert tasks[0]["data"]["image"].endswith("a/0001.jpg")
    assert (box["type"], box["original_width"], box["original_height"]) == ("rectanglelabels", 200, 100)
    assert box["value"] == {"x": 5, "y": 20, "width": 50, "height": 50, "rotation": 0, "rectanglelabels": ["dog"]}
    assert (tmp_path / "labels" / "0001.txt").read_text().splitlines()[
        0
    ] == "1 0.300000 0.450000 0.500000 0.500000 0.900000"
    assert (tmp_path / "labels" / "0007.txt").read_text() == ""


def test_coco_results_of_others_go_by_the_numbers_of_the_data_set(tmp_path: Path, dataset: Dataset):
    rows = [{"image_id": 7, "category_id": 90, "bbox": [1, 2, 3, 4], "score": 0.5}]
    (tmp_path / "r.json").write_text(json.dumps(rows))
    (found, _), *_ = read_detections(tmp_path / "r.json", dataclasses.replace(dataset, category_ids=(17, 90)))
    assert (found.names, found.boxes.tolist()) == (["dog"], [[1, 2, 4, 6]])
    with pytest.raises(ValueError, match=r"r.json names no class of pets: 'category 90' against 'cat', 'dog'"):
        read_detections(tmp_path / "r.json", dataset)


@pytest.mark.parametrize("form", FILES)
def test_images_and_classes_that_the_data_set_lacks_are_left_out_and_listed(
    tmp_path: Path, dataset: Dataset, form: Form
):
    place = tmp_path / FILES[form]
    named = ("cat", "cow")
    box = (0.0, 0.0, 10.0, 20.0)
    images = [
        FoundImage("0001.jpg", 100, 200, [("cow", 1, 0.9, box), ("cat", 0, 0.5, box)]),
        FoundImage("0042.jpg", 100, 200, [("cat", 0, 0.9, box)]),
    ]
    write_detections(form, place, images, named)
    read = read_detections(place, dataset)
    assert [found.names for found in read.detections] == [[], ["cat"]]
    assert (read.unknown_images, read.unknown_classes) == (("0042",), ("cow",))


@pytest.mark.parametrize("form", FILES)
def test_a_file_about_other_images_is_refused(tmp_path: Path, dataset: Dataset, form: Form):
    """Otherwise it would count as a detector that finds nothing."""
    place = tmp_path / FILES[form]
    others = [image._replace(name=f"other-{number}.jpg") for number, image in enumerate([*IMAGES, *IMAGES[:1]])]
    write_detections(form, place, others, NAMES)
    with pytest.raises(ValueError, match=r"names no image of pets: 'other-0', '"):
        read_detections(place, dataset)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ('{"boxes": []}', "neither COCO results nor labels of FiftyOne nor tasks of Label Studio"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3], "score": 1}]', "result 0: .* are not 4 finite numbers"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 2}]', "result 0: the score 2 is not from"),
        ('[{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}]', "an entry is not as the form has it .*score"),
        ('[{"image_id": 5, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 1}]', "r.json names no image of pets: '5'"),
        (
            '{"labels": {"0001": [{"label": "cow", "bounding_box": [0, 0, 1, 1]}]}}',
            "names no class of pets: 'cow' against",
        ),
        ("[]", "r.json names no image of pets"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_place(tmp_path: Path, dataset: Dataset, content: str, message: str):
    (tmp_path / "r.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_detections(tmp_path / "r.json", dataset)


def test_a_wrong_line_of_yolo_is_named(tmp_path: Path, dataset: Dataset):
    (tmp_path / "0001.txt").write_text("0 0.5 0.5 0.1 0.1 0.9\n0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(ValueError, match=r"0001\.txt, line 2: .* is not a label, four numbers and a score"):
        read_detections(tmp_path, dataset)


def test_images_that_would_share_a_name_are_refused(tmp_path: Path):
    twice = [IMAGES[1], IMAGES[1]._replace(name="b/0007.png")]
    with pytest.raises(ValueError, match=r"a/0007\.png and b/0007\.png have one name"):
        write_detections("yolo", tmp_path / "labels", twice, NAMES)
