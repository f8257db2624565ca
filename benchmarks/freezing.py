"""Times a training step of `ssd300-lite0` with frozen stages, and what their forward pass alone takes of it."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from benchmarks.networks import class_names
from benchmarks.step import LEARNING_RATE, make_batch
from benchmarks.timing import Comparison, Settings, compare
from multibox.benchmark.photographs import CLASS_NAMES
from multibox.detector import Detector
from multibox.training.distributed import ProcessGroup
from multibox.training.recipes import RECIPES, TrainConfig
from multibox.training.trainer import Trainer

STRIDES = (0, 4, 8)


def measure(settings: Settings) -> Iterator[Comparison]:
    count = 2 if settings.quick else (settings.batch_sizes or (16,))[0]
    precisions = settings.precisions or ("fp32", "bf16")
    variants = {}
    for precision in precisions:
        for stride in STRIDES:
            frozen = f"up to stride {stride} frozen" if stride else "all layers learn"
            for batch_norm in (False, True):
                name = f"multibox, {frozen}{', statistics of BatchNorm too' * batch_norm}, {precision}"
                variants[name] = _step(count, stride, precision, batch_norm=batch_norm)
        variants[f"forward pass of the layers up to stride {STRIDES[-1]} alone, {precision}"] = _first_stages(
            count, precision
        )
    yield compare(
        f"Training step, `ssd300-lite0`, batch {count}", variants, settings, rounds=7, unit="step", images=count
    )


def _step(count: int, stride: int, precision: str, *, batch_norm: bool) -> Callable[[], object]:
    detector = Detector.create("ssd300-lite0", class_names(len(CLASS_NAMES)), seed=0)
    recipe = replace(RECIPES["fine-tune"], freeze_stride=stride, freeze_batch_norm=batch_norm)
    group = ProcessGroup(rank=0, size=1, device="cpu")
    trainer = Trainer(detector, recipe, TrainConfig(), precision=precision, group=group)
    batch = make_batch(count, detector.config.height, detector.config.width)
    return lambda: trainer.step(batch, learning_rate=LEARNING_RATE)


def _first_stages(count: int, precision: str) -> Callable[[], object]:
    """Returns the forward pass of EfficientNet-Lite0 to block 4, the last of stride 8 before its expansion."""
    backbone = Detector.create("ssd300-lite0", ["a"], seed=0).network.backbone
    layers = torch.nn.Sequential(*list(backbone.children())[:6]).eval().to(memory_format=torch.channels_last)
    inputs = torch.rand(count, 3, 300, 300).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def run() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            layers(inputs)

    return run
