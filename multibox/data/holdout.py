"""The images of a split that a training run holds out: for validation, and for a test."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from multibox.data.read import EVALUATION_SPLITS, DatasetReader, usual_split
from multibox.data.sample import Dataset

_KEYS = ("divided split", "val fraction", "test fraction")
"""What a weights file's provenance calls the values of a `Holdout`."""

_PART = ", {} part"
"""What the name of a part has behind that of the split."""

LEARNED = "trained on"
"""What a weights file's provenance calls the name of the data set that it learned from."""


class Holdout(NamedTuple):
    """The fractions of a split that a run holds out. A hash of an image's name decides about it: see `Dataset.split`.

    Attributes:
        split: Name of the split that is divided.
        val: Fraction of the images that the run validates on.
        test: Fraction of the images that the run does not see.
    """

    split: str
    val: float = 0.0
    test: float = 0.0

    def divide(self, dataset: Dataset) -> dict[str, Dataset]:
        """Returns the part of the split to learn from, `train`, and those that are held out, `val` and `test`.

        Raises:
            ValueError: There are too few images.
        """
        fractions = {name: value for name, value in (("val", self.val), ("test", self.test)) if value}
        return {
            name: replace(part, name=f"{dataset.name}{_PART.format(name)}")
            for name, part in zip(["train", *fractions], dataset.split(*fractions.values()), strict=True)
        }

    def find(self, splits: Sequence[str], wanted: str | None) -> str | None:
        """Returns the part that an evaluation is about, or None if it is about a split of the data set itself.

        Args:
            splits: Names of the data set's own splits.
            wanted: The split that was asked for: the name of a split or of a part. None stands for the part that
                the run validated on, if the data set has no split for evaluation.
        """
        if self.split not in splits or usual_split(splits, EVALUATION_SPLITS if wanted is None else [wanted]):
            return None
        if self.val and wanted in ("val", None):
            return "val"
        return "test" if self.test and wanted in ("test", None) else None

    def to_provenance(self) -> dict[str, str]:
        """Returns the values as text by name, for the provenance of weights."""
        return dict(zip(_KEYS, (self.split, f"{self.val:g}", f"{self.test:g}"), strict=True))

    @classmethod
    def from_provenance(cls, provenance: Mapping[str, str]) -> "Holdout | None":
        """Returns what the run held out that trained the weights with this provenance; None for nothing."""
        try:
            split, val, test = (provenance[key] for key in _KEYS)
            return cls(split, float(val), float(test))
        except (KeyError, ValueError):
            return None


def find_learned(provenance: Mapping[str, str], reader: DatasetReader) -> Dataset | None:
    """Returns the images of a data set that the weights with this provenance learned from; None if it is another one.

    The data sets are told apart by their path as the training was given it.

    Raises:
        DatasetError: The split cannot be read any more.
    """
    folders = {path.resolve() for path in reader.paths}
    for name in provenance.get(LEARNED, "").removesuffix(_PART.format("train")).split(" + "):
        folder, _, split = name.rpartition(", ")
        if folder and Path(folder).resolve() in folders and split in reader.splits:
            dataset = reader.read(split)
            holdout = Holdout.from_provenance(provenance)
            return holdout.divide(dataset)["train"] if holdout and holdout.split == split else dataset
    return None


def forget_holdout(provenance: dict[str, str]) -> None:
    """Removes what an earlier run held out from the provenance of weights that are trained further."""
    for key in _KEYS:
        provenance.pop(key, None)
