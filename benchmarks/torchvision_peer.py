"""Trains as torchvision's reference script does, our network or its own SSDLite: the peer of our training.

torchvision provides resizing and normalization, matching, box coder, loss and hard negative mining
(`torchvision.models.detection.ssd.SSD`), and the v2 transforms. We provide the network with its weights and its default
boxes. The values are those of torchvision's `references/detection` (BSD-3): `presets.py` for the transforms ("ssd"),
`engine.py` for the step and the warm-up, `train.py` and `README.md` for optimizer, batch size and schedule.

Two things are left out: grouping by aspect ratio, which has no effect because all images are warped to one size, and
what several GPUs need. The reference trains with 8 processes of 4 images each (SSDLite: 24); this is one of them.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision import tv_tensors
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD
from torchvision.transforms import v2

from multibox.data.sample import Dataset
from multibox.detector import Detector
from multibox.ssd.coder import center_to_corner
from multibox.ssd.network import SSD as Network

Target = dict[str, Tensor]
Images = tuple[list[Tensor], list[Target]]

MEAN = (123.0, 117.0, 104.0)
"""Color around an image that is zoomed out. It is the reference's value, whatever the mean of the network."""


class Step(NamedTuple):
    """A training step that is done.

    Attributes:
        step: Number of steps done, including this one.
        epoch: How often each image was seen.
        learning_rate: Learning rate of this step.
        loss: Loss of this step's batch.
    """

    step: int
    epoch: float
    learning_rate: float
    loss: float


def train(
    detector: Detector, dataset: Dataset, *, learning_rate: float = 0.002, epochs: int = 120, seed: int = 0
) -> Iterator[Step]:
    """Trains the detector's network in place with the reference recipe. Yields after each step.

    The recipe is SGD with momentum 0.9 and a decay of 5e-4 for all weights, in batches of 4. The learning rate rises
    from a thousandth in the first epoch and is divided by 10 after epochs 80 and 110. (The reference uses 0.002 for 8
    processes with such batches.) The transforms draw from torch's global random state, which is seeded here.

    Raises:
        ValueError: A loss is not finite.
    """
    torch.manual_seed(seed)
    model = make_model(detector).train()
    loader = make_loader(dataset)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[80, 110], gamma=0.1)
    rise = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / 1000, total_iters=max(1, min(1000, len(loader) - 1)))
    step = 0
    for epoch in range(epochs):
        for images, targets in loader:
            rate = optimizer.param_groups[0]["lr"]
            hint = f"; try a learning rate below {learning_rate}"
            loss = _learn(model, optimizer, (images, targets), step=step, hint=hint)
            if epoch == 0:
                rise.step()
            step += 1
            yield Step(step, step / len(loader), rate, loss)
        schedule.step()


def train_lite(model: SSD, dataset: Dataset, *, minutes: float, seed: int) -> Iterator[Step]:
    """Trains torchvision's SSDLite in place with its reference recipe, fitted to a time. Yields after each step.

    The recipe is SGD with momentum 0.9 and a decay of 4e-5 for all weights, in batches of 24. The learning rate is
    0.15 for 8 processes, and by the reference's rule an eighth of that for one. It rises from a thousandth in the first
    epoch, and follows a cosine to 0, here over the minutes instead of 660 epochs, and by the step instead of by the
    epoch.

    Raises:
        ValueError: A loss is not finite.
    """
    torch.manual_seed(seed)
    began = time.monotonic()
    loader = make_loader(dataset, batch_size=min(24, len(dataset)), transforms=make_lite_transforms())
    highest, rise, step = 0.15 / 8, max(1, min(1000, len(loader) - 1)), 0
    optimizer = torch.optim.SGD(model.train().parameters(), lr=highest, momentum=0.9, weight_decay=4e-5)
    while True:
        for images, targets in loader:
            fraction_done = (time.monotonic() - began) / 60 / minutes
            if step and fraction_done * (step + 0.5) / step >= 1:  # half of another step would be over the time
                return
            warmup = min(1.0, 1 / 1000 + step / rise * (1 - 1 / 1000))
            cosine = (1 + math.cos(math.pi * min(1.0, fraction_done))) / 2
            rate = optimizer.param_groups[0]["lr"] = highest * warmup * cosine
            loss = _learn(model, optimizer, (images, targets), step=step)
            step += 1
            yield Step(step, step / len(loader), rate, loss)


def _learn(model: SSD, optimizer: torch.optim.Optimizer, batch: Images, *, step: int, hint: str = "") -> float:
    """Makes a training step. Returns the loss.

    Raises:
        ValueError: The loss is not finite.
    """
    loss = sum(model(*batch).values())
    if not torch.isfinite(loss):
        raise ValueError(f"step {step}: the loss is {loss.item()}{hint}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    value: float = loss.item()
    return value


def trained(detector: Detector) -> Detector:
    """Returns the trained detector with torchvision's rule of resizing, as it was trained; validate this one.

    All the rest is shared with our own training, so that the two differ in their weights alone.
    """
    config = replace(detector.config, resize="float", draft_decoding=False)
    return Detector.of_network(config, detector.class_names, detector.network)


def make_model(detector: Detector) -> SSD:
    """Returns torchvision's SSD with the backbone, heads and default boxes of the detector, and the same weights."""
    config = detector.config
    if (config.center_variance, config.size_variance, config.height) != (0.1, 0.2, config.width):
        raise ValueError(f"torchvision's box coder and square input do not fit '{config.name}'")
    return SSD(
        backbone=_Backbone(detector.network),
        anchor_generator=_DefaultBoxes(detector.network),
        size=(config.width, config.height),
        num_classes=len(detector.class_names) + 1,
        # from 0 ... 1 to 0 ... 255: the network subtracts its own mean
        image_mean=[0.0, 0.0, 0.0],
        image_std=[1 / 255, 1 / 255, 1 / 255],
        head=_Head(),
    )


def make_transforms() -> v2.Compose:
    """Returns the transforms that the reference calls "ssd", for PIL images."""
    return v2.Compose(
        [
            v2.RandomPhotometricDistort(),
            v2.RandomZoomOut(fill=list(MEAN)),
            *make_lite_transforms().transforms,
        ]
    )


def make_lite_transforms() -> v2.Compose:
    """Returns the transforms that the reference calls "ssdlite", for PIL images."""
    return v2.Compose(
        [
            v2.RandomIoUCrop(),
            v2.RandomHorizontalFlip(),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.SanitizeBoundingBoxes(),
            v2.ToPureTensor(),
        ]
    )


def make_loader(
    dataset: Dataset, *, batch_size: int = 4, workers: int = 0, transforms: v2.Transform | None = None
) -> DataLoader[Images]:
    """Returns a loader of shuffled batches of images in their own sizes; an incomplete last batch is left out."""
    images = _Augmented(dataset, transforms or make_transforms())
    return DataLoader(images, batch_size, shuffle=True, drop_last=True, num_workers=workers, collate_fn=_collate)


class _Augmented(TorchDataset[tuple[Tensor, Target]]):
    """Images and objects in torchvision's form, in which label 0 is the background."""

    def __init__(self, dataset: Dataset, transforms: v2.Transform) -> None:
        self.dataset = dataset
        self.transforms = transforms

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Target]:
        sample = self.dataset[index]
        truth = sample.truth[~sample.truth.crowd]
        target = {
            "boxes": tv_tensors.BoundingBoxes(
                torch.from_numpy(truth.boxes), format="XYXY", canvas_size=(sample.height, sample.width)
            ),
            "labels": torch.from_numpy(truth.labels + 1),
        }
        image, target = self.transforms(sample.open(), target)
        return image, target


def _collate(items: list[tuple[Tensor, Target]]) -> Images:
    images, targets = zip(*items, strict=True)
    return list(images), list(targets)


class _Backbone(nn.Module):
    """Runs the whole network and passes its two outputs on as if they were feature maps."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        return OrderedDict(self.network(images)._asdict())


class _Head(nn.Module):
    def forward(self, features: list[Tensor]) -> dict[str, Tensor]:
        offsets, logits = features
        return {"bbox_regression": offsets, "cls_logits": logits}


class _DefaultBoxes(nn.Module):
    """Returns the network's default boxes in corner form, in pixels of its input."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.register_buffer("corners", center_to_corner(network.default_boxes), persistent=False)

    def forward(self, images: ImageList, features: list[Tensor]) -> list[Tensor]:
        height, width = images.tensors.shape[-2:]
        boxes = self.corners * self.corners.new_tensor([width, height, width, height])
        return [boxes for _ in images.image_sizes]
