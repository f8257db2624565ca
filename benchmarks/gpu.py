"""Measure a GPU in bf16: throughput of training and inference, and where the time of a step goes.

The tests run this on a CPU, in fp32.
"""

import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torchvision.models.detection.ssd import SSD

from benchmarks.networks import as_theirs, class_names, make_ours_realistic, make_theirs_realistic, theirs
from benchmarks.step import make_batch, our_step, their_step
from benchmarks.timing import Comparison, Settings, compare, peak_memory, synchronize
from multibox.benchmark.photographs import CLASS_NAMES, write_photographs
from multibox.detector import Detector
from multibox.runtimes.torch_runtime import TorchRuntime
from multibox.training.loading import Batch

MODELS = ("ssd300-vgg16", "ssd512-vgg16", "ssdlite320-mobilenetv3")
BATCH_SIZES = (32, 64, 128)
SYNCHRONIZING = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")
"""Events of the profile in which the host waits for the device, or asks for a number (which shows on a CPU too)."""

Variants = dict[str, Callable[[], object]]


def measure_training(settings: Settings) -> Iterator[Comparison]:
    """Times whole training steps, from inputs in the host's memory to new weights."""
    for name, count in _cases(settings):
        yield from _unless_too_large(
            f"Training, `{name}`, {_precision(settings)}, batch {count}",
            partial(_steps, name, count, settings),
            settings,
            count,
            ["Images start in the host's memory: ours as pinned bytes, torchvision's as floats, as the loaders do."],
        )


def measure_inference(settings: Settings) -> Iterator[Comparison]:
    """Times network and postprocessing, from inputs in the host's memory to detections."""
    for name, count in _cases(settings):
        yield from _unless_too_large(
            f"Inference with postprocessing, `{name}`, {_precision(settings)}, batch {count}",
            partial(_inference, name, count, settings),
            settings,
            count,
            ["Random weights with realistic heads; images start in the host's memory, as in training."],
        )
    for name in dict.fromkeys(name for name, _ in _cases(settings)):
        yield from _unless_too_large(
            f"Inference with postprocessing, `{name}`, {_precision(settings)}, batch 1",
            partial(_inference, name, 1, settings),
            settings,
            1,
            [],
        )


def measure_profile(settings: Settings) -> Iterator["Profile"]:
    """Profiles one training step of each variant with torch's profiler."""
    smallest = {name: count for name, count in reversed(list(_cases(settings)))}
    for name, count in smallest.items():
        parts = [
            _profile(run, settings, variant, steps=1 if settings.quick else 10)
            for variant, run in _steps(name, count, settings).items()
        ]
        yield Profile(f"Profile of a training step, `{name}`, {_precision(settings)}, batch {count}", tuple(parts))


def _cases(settings: Settings) -> Iterator[tuple[str, int]]:
    quick = settings.quick
    for name in settings.models or (MODELS[2:] if quick else MODELS):
        for count in settings.batch_sizes or ((2,) if quick else BATCH_SIZES):
            yield name, count


def _unless_too_large(
    title: str, make: Callable[[], Variants], settings: Settings, count: int, notes: list[str]
) -> Iterator[Comparison]:
    """Yields the comparison, or only the reason if it does not fit into the device's memory."""
    try:
        variants = make()
        extras: Mapping[str, Mapping[str, float]] = {}
        if settings.device != "cpu":
            extras = {
                name: {"peak GiB": peak_memory(run, device=settings.device) / 1024} for name, run in variants.items()
            }
        yield compare(
            title, variants, settings, rounds=20, warm_up=5, unit="batch", images=count, extras=extras, notes=notes
        )
    except torch.OutOfMemoryError as error:
        yield Comparison(title, "batch", count, settings.clock, (), (f"Not measured: {str(error).splitlines()[0]}",))
    finally:
        variants = {}
        gc.collect()
        if settings.device != "cpu":
            torch.cuda.empty_cache()


def _steps(name: str, count: int, settings: Settings) -> Variants:
    model = theirs(name, classes=len(CLASS_NAMES))
    batch = make_batch(count, *model.transform.fixed_size)
    device = settings.device
    variants: Variants = {"torchvision": their_step(model, batch, device, _precision(settings))}
    variants["multibox"] = our_step(_detector(name), batch, device, _precision(settings))
    if settings.compile:
        variants["multibox, compiled"] = our_step(_detector(name), batch, device, _precision(settings), compiled=True)
    return variants


def _inference(name: str, count: int, settings: Settings) -> Variants:
    model, detector = theirs(name, classes=len(CLASS_NAMES)), _detector(name)
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_photographs(Path(folder), 2)
        make_theirs_realistic(model, dataset)
        make_ours_realistic(detector, dataset)
    batch = make_batch(count, *model.transform.fixed_size)
    return {
        "torchvision": _their_inference(model, batch, settings.device),
        "multibox": _our_inference(detector, batch, settings.device),
    }


def _their_inference(model: SSD, batch: Batch, device: str) -> Callable[[], object]:
    model.to(device).eval()
    images, _ = as_theirs(batch)

    def run() -> object:
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            found = model([image.to(device) for image in images])
        return [{name: values.cpu() for name, values in one.items()} for one in found]

    return run


def _our_inference(detector: Detector, batch: Batch, device: str) -> Callable[[], object]:
    network = detector.network.to(device, memory_format=torch.channels_last)
    runtime = TorchRuntime(detector.config, network)
    images = batch.inputs.numpy()

    def run() -> object:
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            return runtime(images, settings=detector.config.postprocess, labels=None)

    return run


def _precision(settings: Settings) -> str:
    return "fp32" if settings.device == "cpu" else "bf16"


def _detector(name: str) -> Detector:
    return Detector.create(name, class_names(len(CLASS_NAMES)), seed=0)


@dataclass(frozen=True)
class ProfilePart:
    """The profile of one variant's training step.

    Attributes:
        name: Name of the variant.
        step_seconds: Seconds of a step under the profiler, which makes the host slower.
        idle: Fraction of the time in which no kernel and no copy ran; `None` without a GPU.
        launches: Number of kernels and copies of a step; without a GPU, number of operations.
        synchronizations: Number of the host's waits for the device in a step, by name.
        top: Names of the operations that take longest on the device, with their fractions of its time.
    """

    name: str
    step_seconds: float
    idle: float | None
    launches: float
    synchronizations: dict[str, float]
    top: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Profile:
    """A table of profiles, one for each variant."""

    title: str
    parts: tuple[ProfilePart, ...]

    def values(self) -> dict[str, Any]:
        return asdict(self)

    def markdown(self) -> str:
        header = [self.title, "ms per step", "idle", "launches", "host waits"]
        lines = [header, ["---", *["---:"] * 4]]
        for part in self.parts:
            idle = "" if part.idle is None else f"{part.idle:.0%}"
            waits = ", ".join(f"{name} {count:g}" for name, count in part.synchronizations.items()) or "none"
            lines.append([part.name, f"{1000 * part.step_seconds:.1f}", idle, f"{part.launches:g}", waits])
        tables = ["\n".join(f"| {' | '.join(line)} |" for line in lines)]
        for part in self.parts:
            top = "\n".join(f"| `{name[:90]}` | {share:.1%} |" for name, share in part.top)
            tables.append(f"| {part.name}: takes longest | of the time |\n| --- | ---: |\n{top}")
        return "\n\n".join(tables) + "\n"


def _profile(run: Callable[[], object], settings: Settings, name: str, *, steps: int) -> ProfilePart:
    on_gpu = settings.device != "cpu"
    for _ in range(0 if settings.quick else 5):
        run()
    synchronize(settings.device)
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]) as profiler:
        began = time.perf_counter()
        for _ in range(steps):
            run()
        synchronize(settings.device)  # one of the waits that are counted
        seconds = time.perf_counter() - began
    events = profiler.events()
    kind = DeviceType.CUDA if on_gpu else DeviceType.CPU
    spans = sorted((event.time_range.start, event.time_range.end) for event in events if event.device_type == kind)
    counts = {wait: sum(event.name == wait for event in events) for wait in SYNCHRONIZING}
    counts["cudaDeviceSynchronize"] -= on_gpu and counts["cudaDeviceSynchronize"] > 0
    times = {
        average.key: average.self_device_time_total if on_gpu else average.self_cpu_time_total
        for average in profiler.key_averages()
        if average.device_type == kind
    }
    whole = sum(times.values())
    top = sorted(times.items(), key=lambda item: -item[1])[:10]
    return ProfilePart(
        name,
        seconds / steps,
        1 - _covered(spans) / (1e6 * seconds) if on_gpu else None,
        len(spans) / steps,
        {wait: count / steps for wait, count in counts.items() if count},
        tuple((key, value / whole) for key, value in top),
    )


def _covered(spans: list[tuple[float, float]]) -> float:
    """Returns the total length that the spans cover. They must be sorted by their starts."""
    covered, reached = 0.0, float("-inf")
    for start, end in spans:
        covered += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return covered
