"""Synthetic scenes with damaged labels, what a good detector finds in them, and what was damaged."""

from dataclasses import replace
from functools import cache

import numpy as np

from multibox.boxes import box_iou, clip
from multibox.data.sample import Dataset, GroundTruth
from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.detections import Detections

DAMAGED = 4
"""Number of images with damages."""


def detections(*rows: tuple[int, float, list[float]], class_names: tuple[str, ...] = CLASS_NAMES) -> Detections:
    labels, scores, boxes = zip(*rows, strict=True) if rows else ([], [], [])
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
        np.full(len(rows), -1),
        class_names,
    )


def good_detections(dataset: Dataset, *, seed: int) -> list[Detections]:
    """Every object with a high score, in a box that fits a little loosely, and weak boxes anywhere."""
    rng = np.random.default_rng(seed)
    found = []
    for sample in dataset:
        rows = []
        for box, label in zip(sample.truth.boxes, sample.truth.labels, strict=True):
            sides = np.tile(box[2:] - box[:2], 2)
            rows.append(
                (int(label), float(rng.uniform(0.8, 0.95)), (box + rng.uniform(-0.05, 0.05, 4) * sides).tolist())
            )
        for _ in range(20):
            x, y, width, height = rng.uniform(5, 100, 4)
            rows.append((int(rng.integers(6)), float(rng.uniform(0.01, 0.2)), [x, y, x + width, y + height]))
        one = detections(*rows)
        found.append(replace(one, boxes=clip(one.boxes, sample.height, sample.width)))
    return found


@cache
def damaged_scenes(count: int = 60, *, seed: int = 5) -> tuple[Dataset, list[Detections], set[tuple[int, str, object]]]:
    """The scenes, the detections, and `(image, kind, place)` of each damage: the label, or the box that is missing.

    The first four images with three objects or more have one damage of each kind.
    """
    scenes = synthetic_scenes(count, seed=seed)
    rng = np.random.default_rng(seed)
    samples, damages = list(scenes), set()
    for label, image in enumerate([index for index, scene in enumerate(scenes) if len(scene.truth) >= 3][:DAMAGED]):
        truth = scenes[image].truth
        boxes, labels = truth.boxes.copy(), truth.labels.copy()
        gone, swapped, moved = rng.choice(len(truth), 3, replace=False).tolist()
        labels[swapped] = (labels[swapped] + 1) % len(CLASS_NAMES)
        width = boxes[moved, 2] - boxes[moved, 0]
        boxes[moved, [0, 2]] += 0.6 * width if boxes[moved, 0] < 128 else -0.6 * width  # an overlap of 0.25
        boxes = clip(boxes, scenes[image].height, scenes[image].width)
        empty = free_box(boxes, rng)
        kept = np.arange(len(truth)) != gone
        order = np.cumsum(kept) - 1  # the new index of each object
        damages |= {
            (image, "swapped", int(order[swapped])),
            (image, "badly located", int(order[moved])),
            (image, "missing", int(truth.labels[gone])),
            (image, "phantom", int(kept.sum())),
        }
        changed = GroundTruth(np.concatenate([boxes[kept], [empty]]), [*labels[kept], label])
        samples[image] = replace(scenes[image], truth=changed)
    return replace(scenes, samples=samples), good_detections(scenes, seed=seed), damages


def free_box(boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A box of 40 pixels that no other touches."""
    while True:
        x, y = rng.uniform(0, 216, 2)
        box = np.array([x, y, x + 40, y + 40], np.float32)
        if not box_iou(boxes, box[None]).any():
            return box
