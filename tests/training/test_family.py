"""Detectors of other sizes and backbones learn, and come back from their files as they were."""

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from multibox.data import read_dataset
from multibox.data.sample import Dataset
from multibox.data.synthetic import synthetic_scenes
from multibox.detector import Detector
from multibox.training import TrainConfig, train
from tests.slow import slow

needs_timm = pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed: pip install 'multibox[timm]'")


def losses_of(detector: Detector, dataset: Dataset, out: Path, *, steps: int, batch_size: int) -> list[float]:
    """Trains the detector; the loss of each step."""
    losses: list[float] = []  # up to 50 steps have a row each

    def add(row: Mapping[str, float | None]) -> None:
        losses.append((row["localization"] or 0.0) + (row["confidence"] or 0.0))

    config = TrainConfig(steps=steps, batch_size=batch_size, validate_every=1000, workers=0, device="cpu", seed=0)
    train(detector, dataset, None, config, out=out, on_row=add)
    return losses


def check_round_trip(out: Path, detector: Detector, dataset: Dataset) -> None:
    """What training saved is found again: same config, same weights, and the same after another saving."""
    trained = Detector.load(out / "last.safetensors")
    assert trained.config == detector.config
    assert trained.class_names == dataset.class_names
    trained.save(out / "again.safetensors")
    again = Detector.load(out / "again.safetensors")
    assert len(again.detect(dataset[0].image, score_threshold=0.001)) > 0
    torch.testing.assert_close(again.network.state_dict(), trained.network.state_dict(), rtol=0, atol=0)
    assert again.provenance == trained.provenance


@pytest.mark.parametrize(
    "model, height, width",
    [
        ("ssd256-tiny", 96, 160),
        slow("ssd300-mobilenetv1", 96, 64),
        ("ssdlite320-mobilenetv3", 96, 96),
        pytest.param("timm/mobilenetv3_small_050", 64, 96, marks=[needs_timm, pytest.mark.slow]),
    ],
)
def test_two_steps_on_synthetic_scenes(model: str, height: int, width: int, tmp_path: Path) -> None:
    dataset = synthetic_scenes(2, seed=3, height=64, width=96)
    detector = Detector.create(model, dataset.class_names, height=height, width=width, seed=0)
    losses = losses_of(detector, dataset, tmp_path / "run", steps=2, batch_size=2)
    assert len(losses) == 2 and np.isfinite(losses).all()
    check_round_trip(tmp_path / "run", detector, dataset)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model, height, width, batch_size",
    [
        ("ssd256-tiny", 240, 320, 4),
        ("ssd256-tiny", 768, 768, 2),
        ("ssd300-resnet34", 300, 300, 2),
        pytest.param("timm/resnet18", 300, 300, 2, marks=needs_timm),
    ],
)
def test_fifty_steps_on_blood_cells(
    model: str, height: int, width: int, batch_size: int, tmp_path: Path, shared_data: Callable[[str], Path]
) -> None:
    dataset = read_dataset(shared_data("bccd"), split="trainval", on_problem="skip")
    detector = Detector.create(model, dataset.class_names, height=height, width=width, seed=0)
    losses = losses_of(detector, dataset, tmp_path / "run", steps=50, batch_size=batch_size)
    assert len(losses) == 50
    first, last = np.mean(losses[:10]), np.mean(losses[-10:])
    print(f"{detector.config.name}: loss {first:.2f} in the first ten steps, {last:.2f} in the last ten")
    assert last < 0.8 * first
    check_round_trip(tmp_path / "run", detector, dataset)
