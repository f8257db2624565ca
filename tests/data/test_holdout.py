"""What weights learned from is found again in the data set, part of a split or whole split."""

from pathlib import Path

import pytest

from multibox.data.holdout import Holdout, find_learned
from multibox.data.read import DatasetReader, join
from multibox.data.sample import Dataset
from multibox.data.synthetic import synthetic_scenes
from multibox.data.write import write_voc
from multibox.training.finish import provenance_of
from multibox.training.recipes import TrainConfig


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
