"""What the doctor looks at: the splits of a data set, where each object is stated, and the problems of the reader."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from multibox.data.class_names import BACKGROUND
from multibox.data.read import choose_split
from multibox.data.records import CheckedImage, Object, check_records
from multibox.data.sample import Dataset, Problem
from multibox.data.source import Options, Unlabelled, open_source
from multibox.data.splits import kinds_of
from multibox.images import ImageHeader, image_header

_PLACE = re.compile(r"(?P<file>.*?), (?:object|line|shape|annotation|image) (?P<number>\d+)\b", re.DOTALL)


class Finding(NamedTuple):
    """One thing that was found.

    Attributes:
        kind: Identifier of its kind, a key of `KINDS`.
        where: The file, and the object, line or annotation in it; or a split.
        value: What was found there.
        split: Name of the split; "" for the whole data set.
    """

    kind: str
    where: str
    value: str
    split: str = ""

    @property
    def file(self) -> str:
        """The file, without the place in it."""
        found = _PLACE.match(self.where)
        return found["file"] if found else self.where

    @property
    def object(self) -> int | None:
        """The number of the object, line or annotation in the file; None if it is about the file."""
        found = _PLACE.match(self.where)
        return int(found["number"]) if found else None


def short_place(where: str) -> str:
    """Returns the place of an object in its file, without its class and its image: `object 3`."""
    return where.rpartition(", ")[2].partition(" (")[0].partition(" of image")[0]


class Advice(NamedTuple):
    """A sentence about all findings of a kind together.

    Attributes:
        kind: Identifier of the kind.
        text: The sentence.
    """

    kind: str
    text: str


@dataclass(frozen=True, eq=False)
class Split:
    """A split with all that can be used, and what the reader reported.

    Attributes:
        name: Its name.
        class_names: Its class names; labels are indices into them.
        images: The images that can be used.
        problems: What the reader reported.
        category_ids: COCO's number of each class; None if there are none.
        stated_names: The class names as the files state them; two may be equal.
    """

    name: str
    class_names: tuple[str, ...]
    images: Sequence[CheckedImage]
    problems: tuple[Problem, ...]
    category_ids: tuple[int, ...] | None
    stated_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[CheckedImage]:
        return iter(self.images)

    @cached_property
    def dataset(self) -> Dataset:
        """All that can be used, without the problems."""
        return Dataset(self.name, self.class_names, [each.sample for each in self.images], (), self.category_ids)

    @cached_property
    def boxes(self) -> Float[np.ndarray, "objects 4"]:
        """The boxes of all objects, image after image, in pixels of their image."""
        return np.concatenate([np.zeros((0, 4), np.float32), *(each.sample.truth.boxes for each in self.images)])

    @cached_property
    def labels(self) -> Int[np.ndarray, " objects"]:
        """The label of each object."""
        return np.concatenate([np.zeros(0, np.int64), *(each.sample.truth.labels for each in self.images)])

    @cached_property
    def crowd(self) -> Bool[np.ndarray, " objects"]:
        """Whether each object is a crowd region."""
        return np.concatenate([np.zeros(0, bool), *(each.sample.truth.crowd for each in self.images)])

    @cached_property
    def difficult(self) -> Bool[np.ndarray, " objects"]:
        """Whether each object is marked as difficult."""
        return np.concatenate([np.zeros(0, bool), *(each.sample.truth.difficult for each in self.images)])

    @cached_property
    def image_of(self) -> Int[np.ndarray, " objects"]:
        """The index of the image that each object is in."""
        return np.repeat(np.arange(len(self.images)), [len(each.objects) for each in self.images])

    @cached_property
    def sizes(self) -> Int[np.ndarray, "images 2"]:
        """Width and height of each image in pixels."""
        return np.array([(each.sample.width, each.sample.height) for each in self.images], np.int64).reshape(-1, 2)

    @cached_property
    def objects(self) -> list[Object]:
        """The objects as the files state them, in the order of `boxes`."""
        return [entry for image in self.images for entry in image.objects]

    @cached_property
    def fractions(self) -> Float[np.ndarray, "objects 4"]:
        """The boxes as fractions of their images."""
        fractions: Float[np.ndarray, "objects 4"] = self.boxes / np.tile(self.sizes[self.image_of], 2)
        return fractions

    def counts(self) -> Int[np.ndarray, " classes"]:
        """Returns the number of objects of each class, without crowd regions."""
        return np.bincount(self.labels[~self.crowd], minlength=len(self.class_names))


@dataclass(frozen=True, eq=False)
class Survey:
    """A data set as the doctor looks at it.

    Attributes:
        path: The data set.
        format: What annotates it.
        splits: Its splits by name.
        unused: The images that no split has, where files say what is in a split, and all splits are looked at.
    """

    path: Path
    format: str
    splits: Mapping[str, Split]
    unused: tuple[Path, ...]

    @cached_property
    def headers(self) -> Mapping[Path, ImageHeader]:
        """What the header of each image file says."""
        return {path: image_header(path) for path in self.paths}

    @cached_property
    def paths(self) -> tuple[Path, ...]:
        """The files of all images, each once."""
        return tuple(dict.fromkeys(image.stated.image for split in self.splits.values() for image in split))

    @property
    def has_background(self) -> bool:
        """Whether a split has objects of a background; the readers leave it out where none has."""
        return any(name.lower() in BACKGROUND for split in self.splits.values() for name in split.class_names)

    @property
    def training(self) -> Split | None:
        """The split to learn from: the first one, which is the one for training where there is one."""
        return next(iter(self.splits.values()), None)


def survey(path: Path, *, split: str | None = None, unlabelled: Unlabelled | None = None) -> Survey:
    """Reads a data set. Nothing raises that is wrong with a single image, object or split.

    Args:
        path: The data set, as `read_dataset` takes it.
        split: Name of the only split to look at; None for all. A `trainval` beside its parts is then left out.
        unlabelled: What to do with images without annotations, as in `read_dataset`.

    Raises:
        FileNotFoundError: There is no such path.
        DatasetError: No data set is there, or several; there is no such split; or a file for a whole split cannot be
            read.
    """
    source = open_source(path, Options(unlabelled))
    names = independent_splits(source.splits) if split is None else [choose_split(split, source)]
    splits = {}
    for name in names:
        records = source.records(name)
        found = list(check_records(records))
        images = [each for each in found if isinstance(each, CheckedImage)]
        problems = tuple(each for each in found if isinstance(each, Problem))
        classes = tuple(dict.fromkeys(records.class_names))
        splits[name] = Split(name, classes, images, problems, records.unique_category_ids, tuple(records.class_names))
    return Survey(path, source.annotations.format.name, splits, source.unused_images() if split is None else ())


def independent_splits(names: Sequence[str]) -> list[str]:
    """Returns the splits without those that are made up of others, as `trainval` is of `train` and `val`."""
    parts = {kind for name in names if len(kinds_of(name)) == 1 for kind in kinds_of(name)}
    return [name for name in names if not (len(kinds_of(name)) > 1 and kinds_of(name) <= parts)]
