"""The interface of a runtime: the stage of detection that differs between a network in memory and an exported file."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, Shaped

from multibox.config import Postprocess
from multibox.postprocess import NormalizedDetections


class RawOutputs(NamedTuple):
    """A network's predictions for a batch, in single precision.

    Attributes:
        offsets: The four offsets of each default box.
        logits: The logits of each default box: the background in column 0, then each class.
        default_boxes: The default boxes in center form, as fractions of the image.
    """

    offsets: Float[np.ndarray, "batch default_boxes 4"]
    logits: Float[np.ndarray, "batch default_boxes classes_and_background"]
    default_boxes: Float[np.ndarray, "default_boxes 4"]


@runtime_checkable
class Runtime(Protocol):
    """Runs a network on prepared inputs. Several threads may call it at the same time."""

    @property
    def prepares(self) -> bool:
        """Whether a call takes a whole image of any size, one at a time, because the resize is part of the file."""

    def __call__(
        self,
        inputs: Shaped[np.ndarray, "batch 3 height width"],
        *,
        settings: Postprocess,
        labels: Sequence[int] | None = None,
        merged_labels: Int[np.ndarray, " classes"] | None = None,
        score_thresholds: Float[np.ndarray, " detector_classes"] | None = None,
    ) -> RawOutputs | list[NormalizedDetections]:
        """Returns the raw outputs; or the detections of each image, if suppression is in the file or on the device.

        All arguments but `inputs` are those of `multibox.postprocess.postprocess`, for a runtime that suppresses.
        """
