"""Converts layers of other projects into entries of our state dict."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

Tensors = Mapping[str, np.ndarray]

_EPS = 1e-5
"""`eps` of PyTorch's BatchNorm, which our networks use."""


def convolution(source: Tensors, key: str, target: str) -> dict[str, np.ndarray]:
    """Returns the weight of a convolution, and its bias if it has one, under our name."""
    parts = ("weight", "bias") if f"{key}.bias" in source else ("weight",)
    return {f"{target}.{part}": source[f"{key}.{part}"] for part in parts}


def batch_norm(source: Tensors, key: str, target: str, *, eps: float = _EPS) -> dict[str, np.ndarray]:
    """Returns a BatchNorm under our name. If its `eps` differs from ours, the difference goes into the variance."""
    return _norm(
        target,
        weight=source[f"{key}.weight"],
        bias=source[f"{key}.bias"],
        mean=source[f"{key}.running_mean"],
        variance=source[f"{key}.running_var"] + np.float32(eps - _EPS),
    )


def norm_of_bias(bias: Float[np.ndarray, " channels"], target: str) -> dict[str, np.ndarray]:
    """Returns a BatchNorm that only adds a bias, for layers that have a bias in their project and BatchNorm here."""
    one, zero = np.ones_like(bias), np.zeros_like(bias)
    return _norm(target, weight=one, bias=bias, mean=zero, variance=one - np.float32(_EPS))


def turned_to_rgb(weight: Float[np.ndarray, "channels 3 rows columns"]) -> Float[np.ndarray, "channels 3 rows columns"]:
    """Turns the weight of a first convolution for blue, green, red into one for red, green, blue."""
    return np.ascontiguousarray(weight[:, ::-1])


def reordered(head: Float[np.ndarray, "outputs ..."], order: Sequence[int]) -> Float[np.ndarray, "outputs ..."]:
    """Returns a head with the outputs of each box in another order.

    Args:
        head: Weight or bias of the head, `len(order)` outputs for each box.
        order: For each output of a box, its index in `head`.
    """
    groups = head.reshape(-1, len(order), *head.shape[1:])
    return np.ascontiguousarray(groups[:, list(order)].reshape(head.shape))


def join(parts: Iterable[Tensors]) -> dict[str, np.ndarray]:
    """Returns one state dict with all the parts."""
    return {key: tensor for part in parts for key, tensor in part.items()}


def _norm(
    target: str, *, weight: np.ndarray, bias: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> dict[str, np.ndarray]:
    return {
        f"{target}.weight": weight,
        f"{target}.bias": bias,
        f"{target}.running_mean": mean,
        f"{target}.running_var": variance,
        f"{target}.num_batches_tracked": np.zeros((), np.int64),
    }
