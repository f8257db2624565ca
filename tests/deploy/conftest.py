import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from multibox.deploy.export import export
from multibox.detector import Detector

Exporter = Callable[..., Path]


@pytest.fixture(scope="session")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    """Exports a detector to a file with this suffix; the same one only once, for all processes of the tests."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    folder = folder / "exported"
    folder.mkdir(exist_ok=True)

    def run(detector: Detector, suffix: str, **how: object) -> Path:
        facts = (detector.config.to_json(), detector.class_names, sorted(how.items()))
        key = hashlib.sha256(repr(facts).encode())
        for tensor in detector.network.state_dict().values():
            key.update(tensor.numpy().tobytes())
        path = folder / f"{key.hexdigest()[:16]}{suffix}"
        with FileLock(path.with_suffix(f"{suffix}.lock")):
            if not path.exists():
                export(detector, path, images=[], **how)
        return path

    return run


@pytest.fixture(scope="session")
def tflite(exporter: Exporter) -> Path:
    """The TFLite file of the detector of shapes, with raw outputs as well."""
    return exporter(Detector.load("multibox/shapes"), ".tflite", raw=True)


def untrained(height: int, width: int, classes: int) -> Detector:
    """A small detector, with random weights as if it were trained, so that scores differ."""
    names = [f"class {number}" for number in range(classes)]
    detector = Detector.create("ssd256-tiny", names, height=height, width=width, seed=0)
    spread = torch.Generator().manual_seed(0)
    for name, parameter in detector.network.logits.named_parameters():
        if not name.endswith("pointwise.bias"):
            parameter.data.normal_(0, 0.5, generator=spread)
    return detector
