"""Raw outputs that the ports' own code gave, against ours with the converted weights, in float64.

`tests/weights/golden/` has for each detector the keys of its state dict in order, with shape and dtype, and 97 rows of
its output: offsets, logits, default boxes in center form as fractions, and the sums of the absolute values of all rows.
Weights and image follow from a rule (`golden_tensor`, `golden_image`), so that neither their code nor their weights are
here. The projects were amdegroot/ssd.pytorch, lufficc/SSD and qfgaohao/pytorch-ssd, on a CPU in float64.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from multibox.default_boxes import make_default_boxes
from multibox.ssd.build import load_network
from multibox.weights.convert import STATE_DICTS
from multibox.weights.file import Weights

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.npz"))
SLOW = {name for name in NAMES if "vgg" in name or name.startswith("ssd.pytorch")}


def golden_tensor(key: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    if "float" not in dtype:
        return np.full(shape, 7, np.int64)
    draw = np.random.default_rng(zlib.crc32(key.encode()))
    if key.endswith("running_var"):
        values = draw.uniform(0.6, 1.4, shape)
    elif key.endswith("running_mean"):
        values = draw.normal(size=shape) * 0.2
    elif len(shape) >= 2:
        values = draw.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif key.endswith("bias"):
        values = draw.normal(size=shape) * 0.1
    elif "L2Norm" in key or "l2_norm" in key:
        values = draw.uniform(15, 25, shape)
    else:
        values = draw.uniform(0.6, 1.4, shape)
    return np.asarray(values, np.float32)


def golden_image(size: int) -> np.ndarray:
    """Smooth noise, `(size, size, 3)`, uint8 RGB."""
    coarse = np.random.default_rng(size).integers(0, 256, (12, 12, 3)).astype(np.float64)
    place = np.linspace(0, 11, size)
    low = np.clip(place.astype(int), 0, 10)
    share = place - low
    rows = coarse[low] * (1 - share)[:, None, None] + coarse[low + 1] * share[:, None, None]
    image = rows[:, low] * (1 - share)[None, :, None] + rows[:, low + 1] * share[None, :, None]
    return np.rint(image).astype(np.uint8)


def convert_golden(name: str) -> Weights:
    keys = json.loads((GOLDEN / f"{name}.keys.json").read_text())
    state = {key: golden_tensor(key, shape, dtype) for key, (shape, dtype) in keys.items()}
    return next(weights for convert in STATE_DICTS if (weights := convert(state)) is not None)


def test_there_are_thirteen_detectors():
    assert len(NAMES) == 13


@torch.inference_mode()
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in NAMES]
)
def test_raw_outputs_are_those_of_the_project(name: str):
    """To 1e-8 of the largest: an eps or a bias that BatchNorm takes in float32 costs 7e-9, the others are equal."""
    weights = convert_golden(name)
    golden = np.load(GOLDEN / f"{name}.npz")
    size, rows = int(golden["size"]), golden["rows"]
    network = load_network(weights.config, weights.tensors, num_classes=len(weights.class_names)).double()
    found = network(torch.from_numpy(golden_image(size)).permute(2, 0, 1)[None])
    for what, values in zip(("offsets", "logits"), found, strict=True):
        values, expected = values[0].numpy(), golden[what]
        assert len(values) == golden["count"]
        assert np.abs(values[rows] - expected).max() <= 1e-8 * np.abs(expected).max()
        np.testing.assert_allclose(np.abs(values).sum(), golden[f"{what}_sum"], rtol=1e-8)
    default_boxes = make_default_boxes(weights.config)
    np.testing.assert_allclose(default_boxes[rows], golden["priors"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(np.abs(default_boxes).sum(dtype=np.float64), golden["priors_sum"], rtol=1e-7)
