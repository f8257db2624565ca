"""Time torch and exported files beside torchvision, with equal weights: `multibox benchmark` does the work.

The weights are random, but made realistic: see `networks.make_realistic`. Files in 8 bits are calibrated on generated
photographs; what 8 bits cost in accuracy is measured on trained detectors.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from benchmarks.machine import multiplies_bf16
from benchmarks.networks import make_theirs_realistic, ours, theirs
from benchmarks.timing import Comparison, Settings
from multibox.benchmark.photographs import write_photographs
from multibox.benchmark.run import Variant, benchmark
from multibox.deploy.export import Int8, export
from multibox.detector import Detector
from multibox.presets import FIGURE_CLASSES

MODELS = ("ssdlite320-mobilenetv3", "ssd300-vgg16")
ENGINES = {".onnx": "ONNX Runtime", ".xml": "OpenVINO"}
CALIBRATED, MEASURED = 32, 8
"""Number of photographs that 8 bits are calibrated on, and that are measured."""


def measure(settings: Settings) -> Iterator[Comparison]:
    """Compares file to detections, the network alone, batches, and start-up."""
    quick = settings.quick
    for name in settings.models or MODELS[: 1 if quick else 2]:
        with tempfile.TemporaryDirectory() as place:
            photographs = write_photographs(Path(place), MEASURED + CALIBRATED)
            measured = photographs.samples[: 1 if quick else MEASURED]
            model = theirs(name, classes=FIGURE_CLASSES)
            make_theirs_realistic(model, replace(photographs, samples=photographs.samples[:2]))
            detector = ours(model)
            photographs = replace(photographs, class_names=detector.class_names)
            others = replace(photographs, samples=photographs.samples[MEASURED:])
            int8 = Int8(others, replace(photographs, samples=measured), max_drop=1.0)
            variants = list(_variants(name, detector, Path(place), None if quick else int8))
            for result in benchmark(
                variants,
                [Path(sample.image) for sample in measured],
                score_thresholds={each.path: detector.config.postprocess.score_threshold for each in variants},
                threads=[settings.threads],
                batch_size=1 if quick else (settings.batch_sizes or (4,))[0],
                rounds=1 if quick else settings.rounds,
            ):
                yield replace(result.table, title=f"`{name}`: {result.table.title}")


def _variants(name: str, detector: Detector, folder: Path, int8: Int8 | None) -> Iterator[Variant]:
    """Writes the detector in each form, and yields what is measured: torchvision's first."""
    bf16 = multiplies_bf16() and int8 is not None
    weights = folder / f"{name}.safetensors"
    detector.save(weights)
    yield Variant("torchvision", weights, torchvision=True)
    yield Variant("multibox, torch", weights)
    if bf16:
        yield Variant("multibox, torch, bf16", weights, "bf16")
    for suffix, engine in ENGINES.items():
        path = folder / f"{name}{suffix}"
        export(detector, path)
        yield Variant(f"multibox, {engine}", path)
        if bf16 and suffix == ".xml":
            yield Variant(f"multibox, {engine}, bf16", path, "bf16")
    if int8 is not None:
        for suffix, engine in ENGINES.items():
            path = folder / f"{name}-int8{suffix}"
            export(detector, path, int8=int8)
            yield Variant(f"multibox, {engine}, int8", path)
