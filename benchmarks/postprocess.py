"""Time threshold, suppression and limits: from offsets and logits to detections, in numpy and batched in torch."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from benchmarks.networks import PASSING, make_theirs_realistic, ours, read, theirs
from benchmarks.timing import Comparison, Settings, compare
from multibox.benchmark.photographs import write_photographs
from multibox.detector import Detector
from multibox.postprocess import NormalizedDetections, postprocess
from multibox.ssd.postprocess import postprocess as postprocess_batch


def measure(settings: Settings) -> Iterator[Comparison]:
    name = (settings.models or ("ssdlite320-mobilenetv3" if settings.quick else "ssd300-vgg16",))[0]
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        dataset = write_photographs(Path(folder), 2)
        for classes in (20,) if settings.quick else (20, 90):
            model = theirs(name, classes=classes)
            make_theirs_realistic(model, dataset)
            detector = ours(model)
            images = model.transform([read(dataset[0])])[0]
            features = list(model.backbone(images.tensors).values())
            outputs = model.head(features)
            # the outputs of a network that learned nothing: nearly all scores pass the threshold
            torch.manual_seed(0)
            worst = outputs | {"cls_logits": torch.randn_like(outputs["cls_logits"]) * 0.3}
            for kind, given in ((f"some {PASSING} pass", outputs), ("nearly all pass, the worst case", worst)):
                yield _compare(
                    f"{classes} classes and background, {kind}", given, model, detector, images, features, settings
                )


def _compare(
    title: str,
    outputs: dict[str, Tensor],
    model: torch.nn.Module,
    detector: Detector,
    images: ImageList,
    features: list[Tensor],
    settings: Settings,
) -> Comparison:
    outputs = {name: values.to(settings.device) for name, values in outputs.items()}
    anchors = [boxes.to(settings.device) for boxes in model.anchor_generator(images, features)]
    config, table = detector.config, detector.network.default_boxes
    rules = {"config": config, "settings": config.postprocess}
    arrays = [values[0].cpu().numpy() for values in (outputs["bbox_regression"], outputs["cls_logits"])]
    our_run = partial(postprocess, *arrays, table.cpu().numpy(), **rules)
    our_batch = partial(
        postprocess_batch, outputs["bbox_regression"], outputs["cls_logits"], table.to(settings.device), **rules
    )
    their_run = partial(model.postprocess_detections, outputs, anchors, images.image_sizes)
    variants = {"torchvision": their_run, "multibox": our_run}
    if settings.device != "cpu":
        variants["multibox, batched on the device"] = our_batch
    return compare(
        f"Postprocess, {title}",
        variants,
        settings,
        rounds=25,
        warm_up=3,
        notes=[_difference(our_run(), their_run()[0])],
    )


def _difference(found: NormalizedDetections, expected: dict[str, Tensor]) -> str:
    if len(found.scores) != len(expected["scores"]):
        return f"We keep {len(found.scores)}, they {len(expected['scores'])}."
    most = np.abs(found.scores - expected["scores"].cpu().numpy()).max(initial=0)
    return f"Both keep {len(found.scores)}; their scores differ by at most {most:.1e}."
