"""Lists of names against the sets that they belong to."""

from collections.abc import Callable
from pathlib import Path

from multibox.data import read_dataset
from multibox.weights.converters.class_names import COCO, COCO_BY_ID, VOC, class_names


def test_numbers_say_which_list():
    assert class_names(20) == VOC
    assert class_names(80) == COCO
    assert class_names(2) == ("class 1", "class 2")
    assert [class_names(count).owner for count in (20, 80, 2)] == ["PASCAL VOC", "COCO", ""]
    assert (len(set(VOC)), len(set(COCO)), max(COCO_BY_ID)) == (20, 80, 90)


def test_voc_is_alphabetical():
    """Which is how the authors' label map and all ports number it."""
    assert list(VOC) == sorted(VOC)


def test_coco_is_as_its_annotations_have_it(shared_data: Callable[[str], Path]):
    assert read_dataset(shared_data("coco-mini"), split="val").class_names == COCO
