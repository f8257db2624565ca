"""What a run holds out of a split follows from the images' names, and is found again from its weights."""

import numpy as np
import pytest

from multibox.data.holdout import Holdout, forget_holdout
from multibox.data.sample import Dataset, GroundTruth, Sample

PIXELS = np.zeros((3, 4, 4), np.uint8)


def dataset(names: list[str]) -> Dataset:
    return Dataset(
        "set", ("cat",), [Sample(name, PIXELS, 4, 4, GroundTruth([], []), n) for n, name in enumerate(names)]
    )


def names_of(parts: dict[str, Dataset]) -> dict[str, set[str]]:
    return {part: {sample.name for sample in images} for part, images in parts.items()}


@pytest.mark.parametrize(
    ("holdout", "parts"),
    [
        (Holdout("all", 0.2), ["train", "val"]),
        (Holdout("all", 0.2, 0.1), ["train", "val", "test"]),
        (Holdout("all", test=0.1), ["train", "test"]),
    ],
)
def test_each_image_is_in_one_part_and_more_images_move_none(holdout: Holdout, parts: list[str]):
    some = [f"image_{n}.jpg" for n in range(0, 500, 2)]
    every = [f"image_{n}.jpg" for n in range(500)]
    before, after = names_of(holdout.divide(dataset(some))), names_of(holdout.divide(dataset(every)))
    assert list(before) == list(after) == parts
    assert sorted(name for part in after.values() for name in part) == sorted(every)
    assert all(before[part] <= after[part] for part in parts)
    for part in parts[1:]:
        assert len(after[part]) / 500 == pytest.approx(getattr(holdout, part), abs=0.06)
    assert [each.name for each in holdout.divide(dataset(every)).values()] == [f"set, {part} part" for part in parts]


def test_too_few_images_cannot_be_divided():
    with pytest.raises(ValueError, match=r"set: 1 image .*cannot be divided"):
        Holdout("all", 0.5).divide(dataset(["a.jpg"]))


@pytest.mark.parametrize(
    ("splits", "wanted", "part"),
    [
        (("all",), None, "val"),
        (("all",), "val", "val"),
        (("all",), "test", "test"),
        (("all",), "all", None),
        (("all", "test"), None, None),  # the data set's own test split
        (("all", "test"), "val", "val"),
        (("all", "test"), "test", None),
        (("all", "val2017"), None, None),
        (("train",), None, None),  # another data set
        (("train",), "val", None),
    ],
)
def test_an_evaluation_is_about_a_part_or_about_a_split_of_the_data(splits, wanted, part):
    assert Holdout("all", 0.2, 0.1).find(splits, wanted) == part
    assert Holdout("all", test=0.1).find(("all",), None) == "test"
    assert Holdout("all", 0.2).find(("all",), "test") is None


def test_the_provenance_of_weights_holds_it():
    holdout = Holdout("all", 0.2, 0.125)
    provenance = {"recipe": "modern", **holdout.to_provenance()}
    assert Holdout.from_provenance(provenance) == holdout
    forget_holdout(provenance)
    assert provenance == {"recipe": "modern"}
    assert Holdout.from_provenance(provenance) is None
    assert Holdout.from_provenance(holdout.to_provenance() | {"val fraction": "a fifth"}) is None
