"""Make torchvision's detectors and ours, with random weights that are scaled to score like trained ones."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import vgg16
from torchvision.models.detection import ssd300_vgg16, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, _vgg_extractor
from torchvision.transforms.v2.functional import pil_to_tensor

from multibox.data.augment import Augmented, normalized_boxes
from multibox.data.sample import Dataset, Sample
from multibox.detector import Detector
from multibox.images import to_array
from multibox.training.loading import Batch, Read, collate

PASSING = 300
"""Number of pairs of a default box and a class that pass the threshold in an image, about as for a trained detector."""


def theirs(name: str, *, classes: int) -> SSD:
    """Returns torchvision's model of the same architecture as our preset `name`, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "ssd512-vgg16":
            return _theirs_512(classes)
        make = {"ssd300-vgg16": ssd300_vgg16, "ssdlite320-mobilenetv3": ssdlite320_mobilenet_v3_large}[name]
        model: SSD = make(weights=None, weights_backbone=None, num_classes=classes + 1)
        return model


def _theirs_512(classes: int) -> SSD:
    """Returns an SSD512 of torchvision's parts; its last maps have 6, 4 and 1 cells a side, not 4, 2 and 1 as ours."""
    ratios = [[2], [2, 3], [2, 3], [2, 3], [2, 3], [2], [2]]
    scales = [0.07, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05]
    boxes = DefaultBoxGenerator(ratios, scales=scales, steps=[8, 16, 32, 64, 100, 128, 512])
    mean, deviation = [0.48235, 0.45882, 0.40784], [1 / 255] * 3
    return SSD(_vgg_extractor(vgg16(), True, 5), boxes, (512, 512), classes + 1, image_mean=mean, image_std=deviation)


def ours(model: SSD) -> Detector:
    """Returns our detector with the weights and the rules of a model of torchvision."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pth"
        torch.save(model.state_dict(), path)
        return Detector.convert(path)


def class_names(count: int) -> list[str]:
    return [f"class {number}" for number in range(count)]


def read(sample: Sample) -> Tensor:
    """Returns the pixels as torchvision's detectors take them: from 0 to 1."""
    pixels: Tensor = pil_to_tensor(Image.open(sample.image).convert("RGB"))
    return pixels / 255


def make_theirs_realistic(model: SSD, dataset: Dataset, *, passing: int = PASSING) -> None:
    """See `make_realistic`."""
    images = model.transform([read(sample) for sample in dataset])[0].tensors
    heads = [
        [block if isinstance(block, nn.Conv2d) else block[-1] for block in head.module_list]
        for head in (model.head.regression_head, model.head.classification_head)
    ]
    make_realistic(model, lambda: model.head(list(model.backbone(images).values())), *heads, passing=passing)


def make_ours_realistic(detector: Detector, dataset: Dataset, *, passing: int = PASSING) -> None:
    """See `make_realistic`."""
    network = detector.network
    images = torch.from_numpy(detector.prepare([sample.open() for sample in dataset]))
    heads = [
        [block if isinstance(block, nn.Conv2d) else block.pointwise for block in head.values()]
        for head in (network.offsets, network.logits)
    ]
    make_realistic(network, lambda: network(images), *heads, passing=passing)


@torch.no_grad()
def make_realistic(
    model: nn.Module,
    predict: Callable[[], object],
    offset_heads: Sequence[nn.Conv2d],
    logit_heads: Sequence[nn.Conv2d],
    *,
    passing: int,
) -> None:
    """Calibrates BatchNorm, scales the heads' outputs, and shifts the background so that `passing` scores exceed 0.01.

    With plain random heads nearly every class of every default box passes, which is the worst case of postprocessing.
    `predict` runs the model on some images.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momentum = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over everything it sees
    if norms:
        model.train()
        predict()
    for norm, value in zip(norms, momentum, strict=True):
        norm.momentum = value
    model.eval()

    answers: dict[nn.Module, Tensor] = {}
    hooks = [
        head.register_forward_hook(lambda module, _, answer: answers.update({module: answer}))
        for head in (*offset_heads, *logit_heads)
    ]
    predict()
    for head in (*offset_heads, *logit_heads):
        mean = answers[head].mean(dim=(0, 2, 3))
        scale = (1.0 if head in logit_heads else 0.3) / (answers[head] - mean[:, None, None]).std()
        head.weight.mul_(scale)
        head.bias.sub_(mean).mul_(scale)
        answers[head] = (answers[head] - mean[:, None, None]) * scale
    for hook in hooks:
        hook.remove()

    # of each cell 4 offsets a box, and a logit of each class a box
    columns = 4 * logit_heads[0].out_channels // offset_heads[0].out_channels
    logits = torch.cat(
        [answers[head].unflatten(1, (-1, columns)).movedim(2, -1).flatten(1, -2) for head in logit_heads], 1
    )
    low, high = -20.0, 40.0
    for _ in range(40):
        background = (low + high) / 2
        shifted = torch.cat([logits[..., :1] + background, logits[..., 1:]], dim=-1)
        found = (shifted.softmax(dim=-1)[..., 1:] > 0.01).sum() / len(logits)
        low, high = (background, high) if found > passing else (low, background)
    for head in logit_heads:
        head.bias.view(-1, columns)[:, 0] += background


def batch_of(samples: Sequence[Sample], height: int, width: int) -> Batch:
    """Returns the images as our training step takes them: resized, but not augmented."""
    items = []
    for sample in samples:
        image = to_array(sample.open().resize((width, height)))
        boxes = normalized_boxes(sample).astype(np.float32)
        items.append(Read(sample.name, Augmented(image, boxes, sample.truth.labels)))
    batch = collate(items)
    assert isinstance(batch, Batch)
    return batch


def as_theirs(batch: Batch) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Returns the batch as torchvision's models take it: pixels from 0 to 1, boxes in pixels, labels from 1."""
    height, width = batch.inputs.shape[2:]
    sides = torch.tensor([width, height, width, height])
    targets = [
        {"boxes": boxes[labels >= 0] * sides, "labels": labels[labels >= 0] + 1}
        for boxes, labels in zip(batch.boxes, batch.labels, strict=True)
    ]
    return [image / 255 for image in batch.inputs], targets
