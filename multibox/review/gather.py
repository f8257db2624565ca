"""Put the splits of a data set together, each image once, so that all are reviewed in one list."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from multibox.data.sample import Dataset, Sample


class Gathered(NamedTuple):
    """The images of several splits.

    Attributes:
        dataset: All images, those of the first split first.
        splits: The split that each image was taken from: the first that has it.
    """

    dataset: Dataset
    splits: tuple[str, ...]


def gather(splits: Mapping[str, Dataset]) -> Gathered:
    """Returns the images of the splits, each once: VOC's `trainval` has those of `train` too.

    Classes are joined by name: those of the first split, then those that only others have.

    Args:
        splits: The data set of each split, by the name of the split; at least one.
    """
    class_names = join_class_names(splits)
    first: dict[Path | int, tuple[str, Sample]] = {}
    for split, dataset in splits.items():
        for sample in dataset.with_classes(class_names):
            first.setdefault(image_key(sample), (split, sample))
    name = " + ".join(dataset.name for dataset in splits.values())
    dataset = replace(next(iter(splits.values())), name=name, class_names=class_names)
    samples = [sample for _, sample in first.values()]
    return Gathered(replace(dataset, samples=samples), tuple(split for split, _ in first.values()))


def join_class_names(splits: Mapping[str, Dataset]) -> tuple[str, ...]:
    """Returns the class names of the first split, then those that only others have."""
    return tuple(dict.fromkeys(name for dataset in splits.values() for name in dataset.class_names))


def image_key(sample: Sample) -> Path | int:
    """Returns what samples of the same image have in common: the path of the file, or the array in memory."""
    return sample.image if isinstance(sample.image, Path) else id(sample.image)
