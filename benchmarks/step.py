"""Times a whole training step: forward, matching, loss, backward, optimizer.

torchvision's step is the loop of its reference scripts.
"""

import tempfile
from collections.abc import Callable, Iterator
from math import isfinite
from pathlib import Path

import torch
from torchvision.models.detection.ssd import SSD

from benchmarks.machine import multiplies_bf16
from benchmarks.networks import as_theirs, batch_of, class_names, theirs
from benchmarks.timing import Comparison, Settings, compare
from multibox.benchmark.photographs import CLASS_NAMES, write_photographs
from multibox.detector import Detector
from multibox.training.distributed import ProcessGroup
from multibox.training.loading import Batch
from multibox.training.recipes import RECIPES, TrainConfig
from multibox.training.trainer import Trainer

LEARNING_RATE = 1e-4
"""Low, because the weights are random and the loss must stay finite."""

DIFFERENT = 8
"""Number of different images; larger batches repeat them."""

Step = Callable[[], object]


def measure(settings: Settings) -> Iterator[Comparison]:
    models = settings.models or ("ssdlite320-mobilenetv3", "ssd300-vgg16")[: 1 if settings.quick else 2]
    for name in models:
        light = name.startswith("ssdlite")
        # on two cores, SSD300 takes several seconds for each image
        count = 2 if settings.quick else (settings.batch_sizes or (8 if light else 2,))[0]
        yield compare(
            f"Training step, `{name}`, batch {count}",
            steps(name, count, settings),
            settings,
            rounds=7 if light else 3,
            unit="step",
            images=count,
            notes=["All use SGD with momentum. Images have the input size; torchvision's are floats, ours are bytes."],
        )


def steps(name: str, count: int, settings: Settings) -> dict[str, Step]:
    """Returns the variants: torchvision as in its reference scripts, then with options a user could set, then ours."""
    variants: dict[str, Step] = {}
    for precision in settings.precisions or _precisions(settings):
        for compiled in (False, True) if settings.compile else (False,):
            end = f", {precision}" + ", compiled" * compiled
            for layout in ("", ", channels_last"):
                model = theirs(name, classes=len(CLASS_NAMES))
                batch = make_batch(count, *model.transform.fixed_size)
                variants[f"torchvision{layout}{end}"] = their_step(
                    model, batch, settings.device, precision, channels_last=bool(layout), compiled=compiled
                )
            detector = Detector.create(name, class_names(len(CLASS_NAMES)), seed=0)
            variants[f"multibox{end}"] = our_step(detector, batch, settings.device, precision, compiled=compiled)
    return variants


def make_batch(count: int, height: int, width: int) -> Batch:
    with tempfile.TemporaryDirectory() as folder:
        samples = write_photographs(Path(folder), min(count, DIFFERENT)).samples
        return batch_of([samples[place % DIFFERENT] for place in range(count)], height, width)


def our_step(detector: Detector, batch: Batch, device: str, precision: str, *, compiled: bool = False) -> Step:
    """Returns a step of the package, with the recipe that has the same optimizer as torchvision's."""
    group = ProcessGroup(rank=0, size=1, device=device)
    trainer = Trainer(detector, RECIPES["paper"], TrainConfig(compile=compiled), precision=precision, group=group)
    if device != "cpu":  # as the loader does
        batch = Batch(*(values.pin_memory() for values in batch[:3]), batch.names)
    return lambda: trainer.step(batch, learning_rate=LEARNING_RATE)


def their_step(
    model: SSD, batch: Batch, device: str, precision: str, *, channels_last: bool = False, compiled: bool = False
) -> Step:
    """Returns what `train_one_epoch` of torchvision's references does with a batch, without the logging."""
    model.to(device).train()
    if channels_last:
        model.to(memory_format=torch.channels_last)
    if compiled:
        # its forward makes lists of varying length, which cannot be compiled as a whole
        model.backbone.compile()
        model.head.compile()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=0.9, weight_decay=5e-4)
    images, targets = as_theirs(batch)

    def run() -> None:
        there = [image.to(device) for image in images]
        truths = [{name: values.to(device) for name, values in target.items()} for target in targets]
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=precision == "bf16"):
            losses = model(there, truths)
            total = sum(losses.values())
        value = total.item()
        if not isfinite(value):
            raise ValueError(f"the loss is {value}, expected a finite value; lower LEARNING_RATE")
        optimizer.zero_grad()
        total.backward()
        optimizer.step()

    return run


def _precisions(settings: Settings) -> tuple[str, ...]:
    return ("fp32", "bf16") if settings.device != "cpu" or multiplies_bf16() else ("fp32",)
