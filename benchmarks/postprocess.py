"""From offsets and logits to detections: threshold, suppression, limits."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models.detection.image_list import ImageList

from benchmarks.networks import PASSING, make_theirs_realistic, ours, read, theirs
from benchmarks.photographs import write_photographs
from benchmarks.timing import Comparison, Settings, compare
from multibox.detector import Detector
from multibox.ssd.coder import BoxCoder
from multibox.ssd.postprocess import Postprocessed, postprocess


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
            # as of a network that learned nothing: nearly all passes
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
    config = detector.config
    our_run = partial(
        postprocess,
        outputs["bbox_regression"][0],
        outputs["cls_logits"][0],
        detector.network.default_boxes.to(settings.device),
        BoxCoder(config.center_variance, config.size_variance, config.max_log_size),
        settings=config.postprocess,
        scoring=config.scoring,
        clip_boxes=config.clip_boxes,
    )
    their_run = partial(model.postprocess_detections, outputs, anchors, images.image_sizes)
    return compare(
        f"Postprocess, {title}",
        {"torchvision": their_run, "multibox": our_run},
        settings,
        rounds=25,
        warm_up=3,
        notes=[_difference(our_run(), their_run()[0])],
    )


def _difference(found: Postprocessed, expected: dict[str, Tensor]) -> str:
    if len(found.scores) != len(expected["scores"]):
        return f"We keep {len(found.scores)}, they {len(expected['scores'])}."
    most = (found.scores - expected["scores"]).abs().max().item() if len(found.scores) else 0.0
    return f"Both keep {len(found.scores)}; their scores differ by at most {most:.1e}."
