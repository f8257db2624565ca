"""What a runtime is, and what every one gives for an image."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Shaped

from multibox.config import Postprocess


class Found(NamedTuple):
    """The detections of one image, the highest score first.

    Attributes:
        boxes: Corner form, as fractions of the image, not clipped.
        scores: From 0 to 1.
        labels: Indices into the class names.
        default_box_indices: The index of the default box of each; -1 where the runtime cannot tell.
    """

    boxes: Float[np.ndarray, "detections 4"]
    scores: Float[np.ndarray, " detections"]
    labels: Int[np.ndarray, " detections"]
    default_box_indices: Int[np.ndarray, " detections"]


@runtime_checkable
class Runtime(Protocol):
    """Prepared images to what was found in each."""

    def __call__(
        self, inputs: Shaped[np.ndarray, "batch 3 height width"], *, settings: Postprocess, labels: Sequence[int] | None
    ) -> list[Found]: ...
