"""Time one image in both libraries with equal weights: through the network alone, and from its file to detections."""

import tempfile
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch

from benchmarks.machine import multiplies_bf16
from benchmarks.networks import make_theirs_realistic, ours, read, theirs
from benchmarks.photographs import write_photographs
from benchmarks.timing import Comparison, Settings, compare
from multibox.detector import Detector
from multibox.presets import FIGURE_CLASSES, PRESETS

MODELS = ("ssdlite320-mobilenetv3", "ssd300-vgg16")


def measure(settings: Settings) -> Iterator[Comparison]:
    """Compares the networks alone, on one image."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        dataset = write_photographs(Path(folder), 2)
        for name in settings.models or MODELS[: 1 if settings.quick else 2]:
            model = theirs(name, classes=FIGURE_CLASSES)
            make_theirs_realistic(model, dataset)
            detector = ours(model)
            network = detector.network.to(settings.device)
            last = deepcopy(network).to(memory_format=torch.channels_last)
            height, width = model.transform.fixed_size
            torch.manual_seed(0)
            images = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
            normalized = model.transform([images[0] / 255])[0].tensors.to(settings.device)
            images = images.to(settings.device)
            model.to(settings.device)

            def run_theirs(model=model, normalized=normalized) -> dict[str, torch.Tensor]:
                return model.head(list(model.backbone(normalized).values()))

            found, expected = network(images), run_theirs()
            difference = max(
                (found.offsets - expected["bbox_regression"]).abs().max().item(),
                (found.logits - expected["cls_logits"]).abs().max().item(),
            )
            yield compare(
                f"Network `{name}`, one image",
                {
                    "torchvision": run_theirs,
                    "multibox": partial(network, images),
                    "multibox, channels_last": partial(last, images.contiguous(memory_format=torch.channels_last)),
                },
                settings,
                rounds=15 if name.startswith("ssdlite") else 7,
                notes=[
                    f"The same weights (random); offsets and logits differ by at most {difference:.1e}.",
                    "Ours normalizes as well.",
                ],
            )


def measure_presets(settings: Settings) -> Iterator[Comparison]:
    """Compares the networks of our presets with torchvision's SSD300, on one image."""
    names = settings.models or (("ssd256-tiny",) if settings.quick else tuple(PRESETS))
    with torch.inference_mode():
        model = theirs("ssd300-vgg16", classes=FIGURE_CLASSES).eval().to(settings.device)
        normalized = torch.rand(1, 3, 300, 300, device=settings.device)
        variants: dict[str, Callable[[], object]] = {
            "torchvision ssd300_vgg16": lambda: model.head(list(model.backbone(normalized).values()))
        }
        for name in names:
            detector = Detector.create(name, [f"class {number}" for number in range(FIGURE_CLASSES)], seed=0)
            size = (1, 3, detector.config.height, detector.config.width)
            images = torch.randint(0, 256, size, dtype=torch.uint8, device=settings.device)
            variants[name] = partial(detector.to(settings.device).network, images)
        yield compare("Networks of the presets, one image", variants, settings, rounds=5)


def measure_detect(settings: Settings) -> Iterator[Comparison]:
    """Times the way from image files to detections, one image at a time; also in bf16 if the processor has it."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        dataset = write_photographs(Path(folder), 2)
        paths = [sample.image for sample in dataset]
        for name in settings.models or MODELS[: 1 if settings.quick else 2]:
            model = theirs(name, classes=FIGURE_CLASSES)
            make_theirs_realistic(model, dataset)
            model.to(settings.device)
            detector = ours(model).to(settings.device)
            low = detector.config.postprocess.score_threshold
            expected = [model([read(sample).to(settings.device)])[0] for sample in dataset]
            found = detector.detect(paths, score_threshold=low)
            counts = [f"{len(one)} and {len(other['scores'])}" for one, other in zip(found, expected, strict=True)]

            def run_theirs(model=model) -> list[object]:
                return [model([read(sample).to(settings.device)]) for sample in dataset]

            def run_ours(detector=detector, low=low) -> list[object]:
                return [detector.detect(path, score_threshold=low) for path in paths]

            variants: dict[str, Callable[[], object]] = {"torchvision": run_theirs, "multibox": run_ours}
            if settings.device != "cpu" or multiplies_bf16():
                half = ours(model).to(settings.device, precision="bf16")
                variants["multibox, bf16"] = partial(run_ours, half)
            yield compare(
                f"File to detections, `{name}`",
                variants,
                settings,
                rounds=9 if name.startswith("ssdlite") else 3,
                units=len(dataset),
                notes=[
                    f"The same weights (random, realistic heads); detections by us and by them: {', '.join(counts)}.",
                    "Both read JPEG files of 500 x 375.",
                ],
            )
