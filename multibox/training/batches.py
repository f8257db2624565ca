"""From a data set to batches: which pictures are in a step is a function of the seed and the step, nothing else."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from multibox.config import DetectorConfig
from multibox.data.augment import Augmentation, Augmented, apply, draw, fractions
from multibox.data.sample import Dataset


class Batch(NamedTuple):
    """What a step learns from.

    Attributes:
        images: Augmented, not yet normalised.
        boxes: Corner form, as fractions of the image; padded where a picture has fewer objects than another.
        labels: Indices into the class names; -1 in rows that are padding.
        names: Of the pictures.
    """

    images: UInt8[Tensor, "batch 3 height width"]
    boxes: Float[Tensor, "batch objects 4"]
    labels: Int[Tensor, "batch objects"]
    names: tuple[str, ...]


def make_loader(
    dataset: Dataset,
    config: DetectorConfig,
    augmentation: Augmentation,
    *,
    batch_size: int,
    first_step: int,
    steps: int | None,
    seed: int,
    workers: int,
) -> Iterator[Batch]:
    """The batches of a run from `first_step` on.

    All pictures come once in a new order, then again in another: position p of that stream is always the same picture
    with the same random changes, whatever the number of workers and wherever a run was taken up again.

    Raises:
        FileNotFoundError: A picture is not there.
        ValueError: A picture cannot be read.
    """
    loader: DataLoader[_Item] = DataLoader(
        _AugmentedPictures(dataset, config, augmentation, seed),
        batch_sampler=_Stream(len(dataset), batch_size, first_step, steps, seed),
        collate_fn=_collate_or_error,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    for batch in loader:
        if isinstance(batch, Exception):
            raise batch
        yield batch


def collate(pictures: list[tuple[str, Augmented]]) -> Batch:
    """One batch of augmented pictures, their objects padded to the same number."""
    most = max(len(picture.labels) for _, picture in pictures)
    boxes = torch.zeros(len(pictures), most, 4)
    labels = torch.full((len(pictures), most), -1)
    for row, (_, picture) in enumerate(pictures):
        boxes[row, : len(picture.labels)] = torch.from_numpy(picture.boxes)
        labels[row, : len(picture.labels)] = torch.from_numpy(picture.labels)
    images = torch.from_numpy(np.stack([picture.image for _, picture in pictures]))
    return Batch(images, boxes, labels, tuple(name for name, _ in pictures))


_Item = tuple[str, Augmented] | Exception
"""An error travels as a value: a worker that raises it would put its traceback into the message."""


def _collate_or_error(items: list[_Item]) -> Batch | Exception:
    pictures = []
    for item in items:
        if isinstance(item, Exception):
            return item
        pictures.append(item)
    return collate(pictures)


class _AugmentedPictures(TorchDataset[_Item]):
    """Item (position, index): that picture, with the random changes of that position of the stream."""

    def __init__(self, dataset: Dataset, config: DetectorConfig, augmentation: Augmentation, seed: int) -> None:
        self.dataset = dataset
        self.config = config
        self.augmentation = augmentation
        self.seed = seed

    def __getitem__(self, item: tuple[int, int]) -> _Item:
        position, index = item
        sample = self.dataset[index]
        drawn = draw(np.random.default_rng((self.seed, position)), fractions(sample), self.augmentation)
        config = self.config
        try:
            return sample.name, apply(sample, drawn, height=config.height, width=config.width, margin=config.mean)
        except (OSError, ValueError) as error:
            return error


class _Stream:
    """The (position, index) pairs of each step."""

    def __init__(self, pictures: int, batch_size: int, first_step: int, steps: int | None, seed: int) -> None:
        self.pictures = pictures
        self.batch_size = batch_size
        self.first_step = first_step
        self.steps = steps
        self.seed = seed

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        step, epoch = self.first_step, -1
        order = np.empty(0, np.int64)
        while self.steps is None or step < self.steps:
            batch = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size):
                if position // self.pictures != epoch:
                    epoch = position // self.pictures
                    order = np.random.default_rng((self.seed, epoch, 1)).permutation(self.pictures)
                batch.append((position, int(order[position % self.pictures])))
            yield batch
            step += 1
