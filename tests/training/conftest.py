"""A detector of 64 x 64 pixels that trains in a second, and recipes that do not change with the package's."""

from dataclasses import replace

import pytest
import torch

from multibox.config import DetectorConfig
from multibox.data.augment import Augmentation
from multibox.data.synthetic import CLASS_NAMES
from multibox.detector import Detector
from multibox.report.evaluation import Report
from multibox.training import finish, machine, progress
from multibox.training.recipes import RECIPES
from tests.training import in_processes


@pytest.fixture(scope="session")
def small_config() -> DetectorConfig:
    """See `in_processes.small_config`."""
    return in_processes.small_config()


@pytest.fixture(scope="session")
def new_detector(small_config):
    """`new_detector(seed=...)` has random weights, for the classes of the synthetic scenes."""
    return lambda seed=0: Detector.create(small_config, CLASS_NAMES, seed=seed)


@pytest.fixture(autouse=True, scope="package")
def one_core():
    """Runs are as fast, and the same to the bit, on a machine that others use."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "_cores", lambda: 1)
        patch.setattr(machine, "has_bf16", lambda device: False)  # no trial of precisions
        yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="package")
def report_is_not_written():
    """Saves a second for each run; tests/report and tests/cli/test_report.py write it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "write_report", lambda *_, **__: Report((), {}))
        yield


@pytest.fixture(scope="module")
def plain_recipes():
    """`modern` and `paper` with short lengths and cheap augmentation; `modern` averages the weights.

    Metrics have a row for each validation, and none between.
    """
    augmentation = Augmentation(expand_probability=0.0, crop_probability=0.0, interpolations=("bilinear",))
    fixed = {"batch_size": 4, "epochs": 3.0, "augmentation": augmentation}
    modern = replace(
        RECIPES["modern"],
        optimizer="adamw",
        learning_rate=2e-3,
        weight_decay=0.05,
        warmup=0.1,
        milestones=(),
        ema_decay=0.9,
        **fixed,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "ROWS", 1)
        patch.setitem(RECIPES, "modern", modern)
        patch.setitem(RECIPES, "paper", replace(RECIPES["paper"], **fixed))
        yield


@pytest.fixture(autouse=True)
def labels_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saves half a second for each run; tests/report/test_overview.py draws them."""
    monkeypatch.setattr("multibox.training.opening.draw_labels", lambda train_set, val_set, path: path.write_bytes(b""))
