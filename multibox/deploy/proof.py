"""The proof of an exported file: on real images it finds what the network finds."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Shaped

from multibox.boxes import box_iou
from multibox.deploy.homes import HomeGraph
from multibox.detections import Detections
from multibox.detector import Detector, PreparedImage
from multibox.images import Source
from multibox.messages import counted
from multibox.runtimes.open import open_exported

SAME = 0.9
"""Overlap from which two detections of a class are taken for the same one."""

TOLERANCE = 1e-3
"""Largest difference that may come from another order of additions."""

MOST_LEVELS, MEAN_LEVELS = 2, 0.1
"""Largest difference of a resized pixel, from 0 to 255, and of their mean. Pillow rounds twice: rows, then columns."""


@dataclass(frozen=True)
class Proof:
    """How far a file's detections are from those of the network.

    Attributes:
        images: Number of images that were compared.
        detections: Number of the network's detections.
        unpaired: Number of detections of either side that have no partner of their class at their place on the other.
        box_difference: Largest difference of a coordinate between partners, as a fraction of the image.
        score_difference: Largest difference of a score between partners.
    """

    images: int
    detections: int
    unpaired: int
    box_difference: float
    score_difference: float

    @property
    def holds(self) -> bool:
        """Whether both find the same. One detection in a hundred may differ: rounding decides between equal scores."""
        largest = np.max([self.box_difference, self.score_difference])  # NaN if one is
        return self.unpaired <= self.detections / 100 and bool(largest < TOLERANCE)

    def __str__(self) -> str:
        return (
            f"of {counted(self.detections, 'detection')} in {counted(self.images, 'image')}, {self.unpaired} have no "
            f"partner; the largest difference of a coordinate is {self.box_difference:.1e} of the image, of a score "
            f"{self.score_difference:.1e}"
        )


Prepare = Callable[[Source], PreparedImage]
"""Prepares an image for a network."""


def prove(
    network: Detector,
    exported: Detector,
    images: Iterable[Source],
    *,
    prepare: Prepare | None = None,
    batch_size: int = 8,
) -> Proof:
    """Compares the detections of a network with those of the file that was exported from it.

    All detections count that score above the threshold of the detector's own evaluation. They are paired by class and
    overlap, the largest overlap first.

    Args:
        network: The detector that was exported.
        exported: The detector of the file.
        images: Images to detect in.
        prepare: Prepares an image for the network; None for `Detector.prepare_image`.
        batch_size: Number of images that go through the network at once.
    """
    sources = list(images)
    prepared = list(map(prepare or network.prepare_image, sources))
    least = network.config.postprocess.score_threshold
    found = network.detect(prepared, score_threshold=least, batch_size=batch_size, progress=False)
    again = list(exported.detect(iter(sources), score_threshold=least, batch_size=batch_size))  # whole images are large
    sizes = [np.array([image.width, image.height] * 2, np.float32) for image in prepared]
    return _compare(zip(found, again, sizes, strict=True))


def prepared_by(preparation: Path, network: Detector, exported: Detector) -> Prepare:
    """Returns what prepares an image for the network as the file does, and checks that this is what it shall do.

    Args:
        preparation: An exported file of the preparation alone.
        network: The detector that was exported.
        exported: The detector of the file, which takes whole images.
    """
    run, _ = open_exported(preparation)

    def prepare(image: Source) -> PreparedImage:
        expected = network.prepare_image(image)
        whole = exported.prepare_image(image).pixels.transpose(1, 2, 0)
        (pixels,) = run(whole[None])["images"]
        differences = np.abs(pixels.astype(np.float32) - expected.pixels)
        if differences.max() > MOST_LEVELS or differences.mean() > MEAN_LEVELS:
            raise ValueError(
                f"the resize in the file is not that of the detector: from {whole.shape[0]} x {whole.shape[1]} pixels, "
                f"one differs by {differences.max():.3g}, and the mean difference is {differences.mean():.2g}"
            )
        return expected._replace(pixels=pixels)

    return prepare


def check_home(graph: HomeGraph, path: Path, inputs: Sequence[Shaped[np.ndarray, "1 3 height width"]]) -> None:
    """Checks that a file in the form of a home gives what its graph gives.

    Args:
        graph: The graph that was exported.
        path: The file.
        inputs: Prepared images.

    Raises:
        ValueError: An output differs.
    """
    run, _ = open_exported(path)
    pairs = []
    for image in inputs:
        given = graph.as_the_home(torch.from_numpy(image))
        with torch.inference_mode():
            expected = [output.numpy() for output in graph(given)]
        outputs = run(given.numpy())
        found = [outputs[name] for name in graph.output_names]
        if graph.home.suppression == "graph":
            pairs.append((_of_rows(*expected), _of_rows(*found), np.ones(4, np.float32)))
            continue
        for name, one, other in zip(graph.output_names, expected, found, strict=True):
            difference = np.abs(one - other).max()
            if not difference < TOLERANCE:
                raise ValueError(f"{path.name} gives other {name} than the network: one differs by {difference:.2g}")
    _check(path, _compare(pairs))


def check_tflite_home(raw: Detector, path: Path, images: Iterable[Source]) -> None:
    """Checks that the four outputs of a TFLite file are the detections of the file that it was made from.

    All candidates enter the suppression of TFLite's operator, so those of the detector are not limited here either.

    Args:
        raw: Detector of the file that it was made from.
        path: The file: its outputs are boxes as y, x, y, x, labels, scores and their number.
        images: Images to detect in.

    Raises:
        ValueError: Detections are missing or differ.
    """
    run, _ = open_exported(path)
    settings = replace(raw.config.postprocess, max_candidates_per_class=10**9)
    raw = Detector(replace(raw.config, postprocess=settings), raw.class_names, raw.runtime)
    pairs = []
    for image in images:
        prepared = raw.prepare_image(image)
        size = np.array([prepared.width, prepared.height] * 2, np.float32)
        boxes, labels, scores, count = (values[0] for values in run(raw.prepare(prepared)).values())
        there = np.arange(len(scores)) < count
        corners = boxes[there][:, [1, 0, 3, 2]] * size
        indices = np.full(len(corners), -1)
        again = Detections(corners, scores[there], labels[there].astype(np.int64), indices, raw.class_names)
        found = raw.detect(prepared, score_threshold=raw.config.postprocess.score_threshold)
        pairs.append((found, again, size))
    _check(path, _compare(pairs))


def _check(path: Path, proof: Proof) -> None:
    """Raises a ValueError if the detections of a file in the form of a home are not those of the network."""
    if not proof.holds:
        raise ValueError(f"{path.name} does not give what the network gives: {proof}")


def _of_rows(rows: Float[np.ndarray, "1 1 rows 7"]) -> Detections:
    """Returns the detections in rows of image, label, score and box."""
    there = rows[0, 0][rows[0, 0, :, 0] >= 0]
    labels = there[:, 1].astype(np.int64)
    names = tuple(map(str, range(labels.max(initial=0) + 1)))
    return Detections(there[:, 3:], there[:, 2], labels, np.full(len(labels), -1), names)


def _compare(pairs: Iterable[tuple[Detections, Detections, Float[np.ndarray, "4"]]]) -> Proof:
    """Returns how far detections are from others in the same images.

    Args:
        pairs: For each image the network's detections, those of the file, and width and height of the image, twice.
    """
    images, detections, unpaired, boxes, scores = 0, 0, 0, [0.0], [0.0]
    for found, again, size in pairs:
        lost, box, score = _differences(found, again, size)
        images, detections, unpaired = images + 1, detections + len(found), unpaired + lost
        boxes.append(box)
        scores.append(score)
    return Proof(images, detections, unpaired, float(np.max(boxes)), float(np.max(scores)))


def _differences(found: Detections, again: Detections, size: Float[np.ndarray, "4"]) -> tuple[int, float, float]:
    """Returns the number without a partner, and the largest differences of coordinates and scores."""
    overlaps = box_iou(found.boxes, again.boxes) * (found.labels[:, None] == again.labels)
    pairs = np.argwhere(overlaps >= SAME)
    partners: dict[int, int] = {}
    for row, column in pairs[np.argsort(-overlaps[*pairs.T], kind="stable")].tolist():
        if row not in partners and column not in partners.values():
            partners[row] = column
    rows, columns = list(partners), list(partners.values())
    boxes = np.abs(found.boxes[rows] - again.boxes[columns]) / size
    scores = np.abs(found.scores[rows] - again.scores[columns])
    return len(found) + len(again) - 2 * len(rows), float(boxes.max(initial=0)), float(scores.max(initial=0))
