"""The published data sets have the numbers of images and objects that docs/data.md states."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from multibox.data import Dataset, DatasetError, list_splits, read_dataset
from tests.data.folders import read_clean

Unpack = Callable[[str], Path]


def objects(dataset: Dataset) -> int:
    return sum(len(sample.truth) for sample in dataset)


def test_voc2007_trainval(shared_data: Unpack):
    folder = shared_data("voc2007-trainval")
    dataset = read_clean(folder, split="trainval")
    assert list_splits(folder) == ("train", "trainval", "val")
    assert (len(dataset), objects(dataset)) == (5008, 15655)
    assert len(dataset.class_names) == 20
    assert dataset.class_names[:2] == ("aeroplane", "bicycle")
    assert dataset.class_names[-1] == "tvmonitor"


def test_voc2007_test(shared_data: Unpack):
    dataset = read_clean(shared_data("voc2007-test"))
    assert (len(dataset), objects(dataset)) == (4952, 14976)
    assert sum(int((~sample.truth.difficult).sum()) for sample in dataset) == 12032
    assert all(sample.truth.boxes.min(initial=0) >= 0 for sample in dataset)


def test_coco_mini(shared_data: Unpack):
    splits = [read_clean(shared_data("coco-mini"), split=split) for split in ("train", "val")]
    assert [len(dataset) for dataset in splits] == [318, 286]
    assert sum(map(objects, splits)) == 5065
    assert sum(int(sample.truth.crowd.sum()) for dataset in splits for sample in dataset) == 45
    for dataset in splits:
        assert len(dataset.class_names) == 80
        assert dataset.category_ids is not None
        assert dataset.category_ids[-1] == 90  # eleven numbers are not used


def test_bccd_and_its_two_empty_boxes(shared_data: Unpack):
    folder = shared_data("bccd")
    splits = [read_dataset(folder, split=split, on_problem="skip") for split in ("trainval", "test")]
    assert [len(dataset) for dataset in splits] == [292, 72]
    assert sum(map(objects, splits)) == 4888 - 2
    assert {dataset.class_names for dataset in splits} == {("Platelets", "RBC", "WBC")}
    said = [(Path(problem.where).name, problem.what, problem.done) for problem in splits[0].problems]
    assert said == [
        ("BloodImage_00338.xml, object 13 (RBC)", "box [504.0, 337.0, 504.0, 337.0] has no width", "box left out"),
        ("BloodImage_00343.xml, object 4 (RBC)", "box [181.0, 329.0, 181.0, 329.0] has no width", "box left out"),
    ]
    with pytest.raises(DatasetError, match=r"(?s)2 problems.*00338\.xml, object 13.*00343\.xml, object 4"):
        read_clean(folder, split="trainval")


def test_deeppcb(shared_data: Unpack):
    splits = [read_clean(shared_data("deeppcb"), split=split) for split in ("train", "val")]
    assert [len(dataset) for dataset in splits] == [1000, 500]
    assert sum(map(objects, splits)) == 10013
    assert {dataset.class_names for dataset in splits} == {("open", "short", "mousebite", "spur", "copper", "pin-hole")}
    pixels = splits[0][0].read()
    assert pixels.shape == (3, 640, 640)
    assert set(np.unique(pixels)) == {0, 255}  # one bit a pixel in the file
