"""What a runtime is, and what every one gives for a picture."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Shaped

from multibox.config import Selection


class Found(NamedTuple):
    """The detections of one picture, the highest score first.

    Attributes:
        boxes: Corner form, as fractions of the picture, not clipped.
        scores: From 0 to 1.
        labels: Indices into the class names.
        default_boxes: The index of the default box of each; -1 where the runtime cannot tell.
    """

    boxes: Float[np.ndarray, "detections 4"]
    scores: Float[np.ndarray, " detections"]
    labels: Int[np.ndarray, " detections"]
    default_boxes: Int[np.ndarray, " detections"]


@runtime_checkable
class Runtime(Protocol):
    """Prepared pictures to what was found in each."""

    def __call__(
        self, images: Shaped[np.ndarray, "batch 3 height width"], *, selection: Selection, labels: Sequence[int] | None
    ) -> list[Found]: ...
