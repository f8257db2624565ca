"""The names that users import: to take one away, or to add one, is a decision, so it is made here as well."""

import subprocess
import sys

import pytest

import multibox

PUBLIC = [
    "EXAMPLE_IMAGE",
    "Dataset",
    "DatasetError",
    "Detection",
    "Detections",
    "Detector",
    "DetectorConfig",
    "GroundTruth",
    "Metrics",
    "Sample",
    "TrainConfig",
    "convert",
    "synthetic_scenes",
    "evaluate",
    "export",
    "load",
    "preset",
    "read_dataset",
    "train",
]


def test_all_is_the_committed_list():
    assert sorted(getattr(multibox, "__all__", [])) == sorted(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_is_there_and_says_what_it_is(name):
    value = getattr(multibox, name)
    assert name in dir(multibox)
    if callable(value):
        assert value.__doc__, f"multibox.{name} has no docstring"


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        multibox.no_such_name  # noqa: B018


def test_a_star_import_gives_them_all():
    code = f"from multibox import *; missing = set({PUBLIC}) - set(dir()); assert not missing, missing"
    subprocess.run([sys.executable, "-c", code], check=True)
