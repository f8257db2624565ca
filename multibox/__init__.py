"""SSD (Single Shot MultiBox Detector): train, evaluate and run it on images of your own.

Each public name is loaded when it is first used, so that importing the package takes next to no time.
"""

import importlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from multibox.config import DetectorConfig
    from multibox.data import Dataset, DatasetError, GroundTruth, Sample, read_dataset
    from multibox.data.synthetic import synthetic_scenes
    from multibox.deploy.export import export
    from multibox.detections import Detection, Detections
    from multibox.detector import Detector, convert, load
    from multibox.evaluation.evaluate import evaluate
    from multibox.evaluation.metrics import Metrics
    from multibox.presets import preset
    from multibox.training import TrainConfig, train
    from multibox.weights.published import EXAMPLE_IMAGE

__version__ = "0.1.0"

# torch's threads spin while they wait for each other. If something else runs on the machine, that slows detection and
# training to a tenth of their speed. With this setting the threads soon go to sleep instead. It is read when torch is
# loaded: in a program that imports torch before multibox, it has no effect on that program's own threads.
if "OMP_WAIT_POLICY" not in os.environ:  # the user has chosen how threads wait
    os.environ.setdefault("GOMP_SPINCOUNT", "3000")

_MODULES = {
    "EXAMPLE_IMAGE": "multibox.weights.published",
    "Dataset": "multibox.data",
    "DatasetError": "multibox.data",
    "Detection": "multibox.detections",
    "Detections": "multibox.detections",
    "Detector": "multibox.detector",
    "DetectorConfig": "multibox.config",
    "GroundTruth": "multibox.data",
    "Metrics": "multibox.evaluation.metrics",
    "Sample": "multibox.data",
    "TrainConfig": "multibox.training",
    "convert": "multibox.detector",
    "evaluate": "multibox.evaluation.evaluate",
    "export": "multibox.deploy.export",
    "load": "multibox.detector",
    "preset": "multibox.presets",
    "read_dataset": "multibox.data",
    "synthetic_scenes": "multibox.data.synthetic",
    "train": "multibox.training",
}
"""The module that each public name is loaded from."""

__all__ = [
    "EXAMPLE_IMAGE",
    "Dataset",
    "DatasetError",
    "Detection",
    "Detections",
    "Detector",
    "DetectorConfig",
    "GroundTruth",
    "Metrics",
    "Sample",
    "TrainConfig",
    "convert",
    "evaluate",
    "export",
    "load",
    "preset",
    "read_dataset",
    "synthetic_scenes",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'multibox' has no attribute '{name}'")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
