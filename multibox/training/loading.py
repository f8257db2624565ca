"""Reads a data set in batches. Which images a step gets depends only on the seed and the number of the step."""

import multiprocessing
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from multibox.config import DetectorConfig
from multibox.data.augment import Augmentation, Augmented, normalized_boxes, render, sample_params
from multibox.data.sample import Dataset
from multibox.training.interrupts import ignore_interrupts

PADDING = 8
"""The number of objects of a batch's images is padded to a multiple of this."""

REPLACEMENTS = 10
"""Number of other images that are tried in place of one that cannot be read."""


class Batch(NamedTuple):
    """The images and objects of one process in one step.

    Attributes:
        inputs: Augmented images of the network's size, not yet normalized.
        boxes: Boxes in corner form, as fractions of the input. Images with fewer objects than others are padded.
        labels: Indices into the class names; -1 in padded rows.
        names: Names of the images.
        unreadable: Errors of images that could not be read and were replaced by others.
    """

    inputs: UInt8[Tensor, "batch 3 height width"]
    boxes: Float[Tensor, "batch objects 4"]
    labels: Int[Tensor, "batch objects"]
    names: tuple[str, ...]
    unreadable: tuple[str, ...] = ()


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
    pin_memory: bool = False,
    rank: int = 0,
    world_size: int = 1,
    balance_classes: bool = False,
) -> Generator[Batch, None, None]:
    """Yields the batches of a run from `first_step` on: this process's share of each.

    All images come once in random order, then again in another order. Position p of that stream is always the same
    image with the same random changes, whatever the number of readers and processes and wherever a run was resumed. An
    image that cannot be read is replaced by another.

    Args:
        dataset: The training set.
        config: The detector's config, for the size and the mean of the input.
        augmentation: Ranges of the random changes.
        batch_size: Number of images in a step, those of all processes together.
        first_step: Number of the first step.
        steps: Number of the step before which the batches end, or `None` for no end.
        seed: Seed of the order and of the random changes.
        workers: Number of processes that read and augment images.
        pin_memory: Whether to put the batches into pinned memory, for a GPU.
        rank: Number of this process.
        world_size: Number of processes.
        balance_classes: Show images with rare classes several times in an epoch: see `image_weights`.

    Raises:
        FileNotFoundError: Neither the image nor any of those tried in its place exists.
        ValueError: None of them can be read.
    """
    weights = image_weights(dataset) if balance_classes else np.ones(len(dataset))
    loader: DataLoader[_Item] = DataLoader(
        _AugmentedImages(dataset, config, augmentation, seed),
        batch_sampler=_Stream(weights, batch_size, first_step, steps, seed, rank, world_size),
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=pin_memory,
        worker_init_fn=ignore_interrupts,
    )
    others = multiprocessing.active_children()
    batches = iter(loader)
    readers = [child for child in multiprocessing.active_children() if child not in others]
    try:
        for batch in batches:
            if isinstance(batch, Exception):
                raise batch
            yield batch
    finally:
        del batches  # asks the readers to end and waits a while, unless an interrupt came in the middle of this
        for reader in readers:  # they ignore SIGTERM, so Python would wait for them forever
            with suppress(RuntimeError):  # torch reports the end of a reader that it still waits for
                reader.kill()
                reader.join()


def image_weights(dataset: Dataset) -> Float[np.ndarray, " images"]:
    """Returns the relative frequency with which each image is shown when classes are balanced.

    These are LVIS's repeat factors (Gupta et al. 2019, section 5) of each image's rarest class: 1 / sqrt(fraction of
    the images that have the class). LVIS's threshold, above which a class is not rare, is 1 here. An image without
    objects counts as if it had a class that all images have.
    """
    classes = [np.unique(sample.truth.labels[~sample.truth.crowd]) for sample in dataset]
    images = np.bincount(np.concatenate(classes), minlength=len(dataset.class_names)) if classes else np.zeros(0)
    repeat = np.sqrt(len(dataset) / np.maximum(images, 1))
    return np.array([repeat[labels].max(initial=1.0) for labels in classes])


class Read(NamedTuple):
    """An augmented image of the data set.

    Attributes:
        name: Name of the image.
        image: The augmented image and its objects.
        unreadable: Errors of images that could not be read and were replaced by this one.
    """

    name: str
    image: Augmented
    unreadable: tuple[str, ...] = ()


_Item = Read | Exception
"""A reader returns its error as a value: if it raised the error, torch would add the traceback to the message."""


def collate(items: Sequence[_Item]) -> Batch | Exception:
    """Returns the items as a batch, with their objects padded to the same number, or the first error among them.

    The number is a multiple of `PADDING`, so that a GPU sees few different shapes.
    """
    read: list[Read] = []
    for item in items:
        if isinstance(item, Exception):
            return item
        read.append(item)
    most = max(1, *(len(item.image.labels) for item in read))
    most += -most % PADDING
    boxes = torch.zeros(len(read), most, 4)
    labels = torch.full((len(read), most), -1)
    for row, (_, augmented, _) in enumerate(read):
        boxes[row, : len(augmented.labels)] = torch.from_numpy(augmented.boxes)
        labels[row, : len(augmented.labels)] = torch.from_numpy(augmented.labels)
    return Batch(
        inputs=torch.from_numpy(np.stack([item.image.image for item in read])),
        boxes=boxes,
        labels=labels,
        names=tuple(item.name for item in read),
        unreadable=tuple(error for item in read for error in item.unreadable),
    )


class _AugmentedImages(TorchDataset[_Item]):
    """A data set whose item `(position, index)` is the image `index` with the random changes of that position."""

    def __init__(self, dataset: Dataset, config: DetectorConfig, augmentation: Augmentation, seed: int) -> None:
        self.dataset = dataset
        self.config = config
        self.augmentation = augmentation
        self.seed = seed

    def __getitem__(self, item: tuple[int, int]) -> _Item:
        position, index = item
        samples, config = self.dataset.samples, self.config
        others = np.random.default_rng((self.seed, position, 2)).integers(len(samples), size=REPLACEMENTS)
        unreadable: list[str] = []
        for sample in (samples[index], *(samples[other] for other in others.tolist())):
            rng = np.random.default_rng((self.seed, position))
            params = sample_params(rng, normalized_boxes(sample), self.augmentation)
            try:
                image = render(sample, params, height=config.height, width=config.width, margin=config.mean)
            except (OSError, ValueError) as error:
                last = error
                unreadable.append(str(error))
            else:
                return Read(sample.name, image, tuple(unreadable))
        return last


class _Stream:
    """Yields the `(position, index)` pairs of this process for each step."""

    def __init__(
        self,
        weights: Float[np.ndarray, " images"],
        batch_size: int,
        first_step: int,
        steps: int | None,
        seed: int,
        rank: int,
        world_size: int,
    ) -> None:
        self.weights = weights
        self.batch_size = batch_size
        self.first_step = first_step
        self.steps = steps
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        images, epoch = len(self.weights), -1
        step = self.first_step
        order = np.empty(0, np.int64)
        while self.steps is None or step < self.steps:
            batch = []
            for position in range(step * self.batch_size, (step + 1) * self.batch_size)[self.rank :: self.world_size]:
                if position // images != epoch:
                    epoch = position // images
                    order = self._order(epoch)
                batch.append((position, int(order[position % images])))
            yield batch
            step += 1

    def _order(self, epoch: int) -> Int[np.ndarray, " images"]:
        """Returns the images of an epoch in random order, each as often as its weight says, rounded up or down."""
        rng = np.random.default_rng((self.seed, epoch, 1))
        order = rng.permutation(len(self.weights))
        if (self.weights == self.weights[0]).all():
            return order
        # systematic sampling: equally spaced points along the cumulative weights
        ends = self.weights[order].cumsum()
        at = (np.arange(len(order)) + rng.random()) * ends[-1] / len(order)
        return rng.permutation(order[np.searchsorted(ends, at, side="right").clip(max=len(order) - 1)])
