"""How long a detector takes for an image, one at a time, on this machine."""

import time
from collections.abc import Iterable
from statistics import median
from typing import NamedTuple

from multibox.data.sample import Dataset
from multibox.detector import Detector

IMAGES, SECONDS = 30, 3.0
"""Images that are timed at most, and seconds after which no further one is."""


class Speed(NamedTuple):
    """Medians over some images, in seconds.

    Attributes:
        images: Number of images.
        prepare: Time to read, decode and resize an image.
        detect: Time of the network, decoding and suppression.
    """

    images: int
    prepare: float
    detect: float

    def __str__(self) -> str:
        """Returns the times in milliseconds: `8.4 ms to read and resize an image, 12.1 ms to detect, 49 images/s`."""
        return (
            f"{1000 * self.prepare:.1f} ms to read and resize an image, {1000 * self.detect:.1f} ms to detect: "
            f"{1 / max(self.prepare + self.detect, 1e-9):.0f} images/s one at a time (median of {self.images})"
        )


def measure_speed(detector: Detector, dataset: Dataset) -> Speed | None:
    """Returns the speed on the first images of a data set, after one that is not counted; None if none can be read."""
    times = list(_times(detector, dataset))[1:]
    return Speed(len(times), *map(median, zip(*times, strict=True))) if times else None


def _times(detector: Detector, dataset: Dataset) -> Iterable[tuple[float, float]]:
    end = time.monotonic() + SECONDS
    for sample in dataset.samples[: IMAGES + 1]:
        began = time.perf_counter()
        try:
            prepared = detector.prepare_image(sample.image)
        except (OSError, ValueError):
            continue
        ready = time.perf_counter()
        detector.detect(prepared, score_threshold=detector.config.postprocess.score_threshold)
        yield ready - began, time.perf_counter() - ready
        if time.monotonic() > end:
            return
