"""What a runtime is: the one stage of detection that differs between a network in memory and an exported file."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Shaped

from multibox.config import Postprocess
from multibox.postprocess import NormalizedDetections


class RawOutputs(NamedTuple):
    """A network's predictions for a batch, in the order of the table of default boxes.

    Attributes:
        offsets: The four offsets of each default box.
        logits: The logits of each default box: the background in column 0, then each class.
    """

    offsets: Float[np.ndarray, "batch default_boxes 4"]
    logits: Float[np.ndarray, "batch default_boxes classes_and_background"]


@runtime_checkable
class Runtime(Protocol):
    """Prepared images to raw outputs, or, for a file with suppression inside, to detections. Safe in threads."""

    @property
    def suppresses(self) -> bool:
        """Whether `detect` is to be called in place of `predict`."""

    @property
    def default_boxes(self) -> Float[np.ndarray, "default_boxes 4"]:
        """The default boxes of the raw outputs, in center form, as fractions of the image."""

    def predict(self, inputs: Shaped[np.ndarray, "batch 3 height width"]) -> RawOutputs:
        """Returns the raw outputs, in single precision."""

    def detect(
        self,
        inputs: Shaped[np.ndarray, "batch 3 height width"],
        *,
        settings: Postprocess,
        labels: Sequence[int] | None,
        merged_labels: Int[np.ndarray, " classes"] | None,
    ) -> list[NormalizedDetections]:
        """Returns the detections of each image; the arguments are those of `multibox.postprocess.postprocess`."""
