"""What a run holds out of a split follows from the images' names, and is found again from its weights."""

from pathlib import Path

import numpy as np
import pytest

from multibox.data.holdout import Holdout, find_learned, forget_holdout
from multibox.data.read import DatasetReader, join
from multibox.data.sample import Dataset, GroundTruth, Sample
from multibox.data.synthetic import synthetic_scenes
from multibox.data.write import write_voc
from multibox.training.finish import provenance_of
from multibox.training.recipes import TrainConfig

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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two data sets of two splits each, in folders `one` and `two`."""
    for seed, name in enumerate(("one", "two")):
        splits = {
            split: synthetic_scenes(12, seed=2 * seed + place, height=64, width=64)
            for place, split in enumerate(("train", "val"))
        }
        write_voc(splits, tmp_path / name)
    return tmp_path


def learned(train_set: Dataset, path: Path, holdout: Holdout | None = None) -> set[Path] | None:
    """The images of the data set that the weights of a training on this set learned from."""
    found = find_learned(provenance_of(TrainConfig(steps=1), train_set, holdout, None), DatasetReader(path))
    return None if found is None else {sample.image for sample in found}


def test_the_whole_split_or_the_part_that_was_not_held_out_is_found(folder: Path):
    train_set = DatasetReader(folder / "one").read("train")
    assert learned(train_set, folder / "one") == {sample.image for sample in train_set}
    for holdout in (Holdout("train", 0.2), Holdout("train", 0.0, 0.3), Holdout("train", 0.2, 0.3)):
        part = holdout.divide(train_set)["train"]
        assert len(part) < len(train_set)
        assert learned(part, folder / "one", holdout) == {sample.image for sample in part}


def test_of_joined_data_sets_each_is_found(folder: Path):
    parts = [DatasetReader(folder / name).read("train") for name in ("one", "two")]
    for name, part in zip(("one", "two"), parts, strict=True):
        assert learned(join(parts), folder / name) == {sample.image for sample in part}


def test_another_data_set_is_not_taken_for_the_one_learned_from(folder: Path):
    assert learned(DatasetReader(folder / "one").read("train"), folder / "two") is None
    assert find_learned({}, DatasetReader(folder / "two")) is None
