"""How far apart two results may be: one table, by the precision in which they were computed.

Processors add up in different orders, so the last bits of a sum differ between them. The tolerances leave room for that
where numbers are of the order of 1 and come from few operations. Compare gradients, and sums in different orders, in
float64: there the noise is a million times smaller than any fault. Where a test needs more room, as with the outputs of
a whole network in float32, it gives its own numbers and says why.
"""

from typing import Any

import numpy as np
import torch

from multibox import Detections

TOLERANCES = {
    "float64": {"rtol": 1e-9, "atol": 1e-12},
    "float32": {"rtol": 1e-5, "atol": 1e-6},
    "bfloat16": {"rtol": 2e-2, "atol": 1e-3},
}
"""Largest relative and absolute difference: |a - b| <= atol + rtol * |b|."""

EXACT = {"rtol": 0.0, "atol": 0.0}
"""For integers and truth values."""


def assert_close(actual: Any, expected: Any, dtype: str | None = None) -> None:
    """Fails unless all numbers are within the tolerance of `dtype`.

    Args:
        actual: Tensors, arrays or numbers, also in (nested) tuples and lists.
        expected: The same structure.
        dtype: Precision in which the numbers were computed; the dtype of `actual` by default. Python's numbers are
            float64.
    """
    if isinstance(actual, (tuple, list)) and not all(isinstance(value, (int, float)) for value in actual):
        for one, other in zip(actual, expected, strict=True):
            assert_close(one, other, dtype)
        return
    tolerance = TOLERANCES.get(dtype or _dtype(actual), EXACT)
    torch.testing.assert_close(_double(actual), _double(expected), **tolerance)


def assert_same(found: Detections, expected: Detections, *, scores: float = 1e-5, boxes: float = 0.01) -> None:
    """Fails unless both found the same, and something; scores in [0, 1] and boxes in pixels may differ by so much.

    A loaded network has its BatchNorm folded and its memory in another order than the one that was saved: on some
    processors the last bits of its outputs differ, and detections with nearly equal scores change places. Ask for a
    score that few boxes have, and compare the weights to the bit.
    """
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.scores, expected.scores, atol=scores)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=boxes)
    assert found.labels.tolist() == expected.labels.tolist()
    assert found.default_box_indices.tolist() == expected.default_box_indices.tolist()
    assert found.class_names == expected.class_names


def _dtype(values: Any) -> str:
    return str(values.dtype).removeprefix("torch.") if hasattr(values, "dtype") else "float64"


def _double(values: Any) -> torch.Tensor:
    return values.double() if isinstance(values, torch.Tensor) else torch.from_numpy(np.array(values, np.float64))
