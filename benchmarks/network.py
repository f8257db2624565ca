"""Time the networks of our presets on one image."""

from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.networks import theirs
from benchmarks.timing import Comparison, Settings, compare
from multibox.detector import Detector
from multibox.presets import FIGURE_CLASSES, PRESETS


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
