"""The detector at hand: what its input, its default boxes, its maps and its limits make of the objects."""

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from multibox.config import DetectorConfig
from multibox.default_boxes import IOU_THRESHOLD, best_default_boxes, feature_maps_of
from multibox.doctor.labels import overlapping_pairs
from multibox.doctor.survey import Advice, Finding, Split, Survey, short_place
from multibox.explain.model import Model
from multibox.messages import counted, quoted

SMALLEST_SIDE = 8.0
"""Pixels of the input: a cell of the finest map of the usual detectors."""

REACH = 2.25
"""A box of any size overlaps one of another aspect ratio by at most `1 / (2 sqrt(k) - 1)`, where `k` is the ratio of
the two aspect ratios (concentric, with the best size). Beyond this `k`, that is under 0.5."""

IDLE = 0.01
"""Fraction of the objects below which a map is idle."""

SQUEEZE = 1.5
"""Factor between the shapes of image and input beyond which objects are distorted."""

STRIDE = 32
"""Proposed sizes are multiples of it."""

LARGEST_PROPOSED = 1024


class _Objects(NamedTuple):
    """The objects of a split beside the default boxes; crowd regions are left out.

    Attributes:
        places: Place of each object in the split.
        sizes: Width and height of each object in pixels of the input.
        overlaps: Largest overlap of each object with a default box.
        best: The default box with this overlap.
    """

    places: Int[np.ndarray, " objects"]
    sizes: Float[np.ndarray, "objects 2"]
    overlaps: Float[np.ndarray, " objects"]
    best: Int[np.ndarray, " objects"]


def judge_for(survey: Survey, model: Model) -> Iterator[Finding | Advice]:
    """Yields objects, images and splits that a detector will have difficulties with."""
    config = model.config
    for split in survey.splits.values():
        objects = _compare(split, model)
        yield from _small(split, objects, config)
        yield from _uncovered(split, objects, config)
        yield from _contested(split, objects)
        yield from _suppressed(split, config)
        yield from _over_limit(split, config)
    training = survey.training
    if training is not None and len(training):
        yield from _idle_maps(survey, training, model)
        yield from _input(survey, training, config)
        if model.class_names is not None:
            unknown = [name for name in training.class_names if name not in model.class_names]
            for name in unknown:
                yield Finding("class-not-of-detector", str(survey.path), quoted(name))


def _compare(split: Split, model: Model) -> _Objects:
    index = np.flatnonzero(~split.crowd)
    boxes = split.fractions[index]
    sizes = (boxes[:, 2:] - boxes[:, :2]) * np.array([model.config.width, model.config.height])
    return _Objects(index, sizes.astype(np.float64), *best_default_boxes(boxes, model.default_boxes))


def _small(split: Split, objects: _Objects, config: DetectorConfig) -> Iterator[Finding | Advice]:
    short = objects.sizes.min(axis=1)
    small = np.flatnonzero(short < SMALLEST_SIDE)
    for place in small:
        value = f"{_size(objects.sizes[place])} pixels of the input"
        yield _at(split, objects, place, "object-small", value)
    if len(small):
        factor = SMALLEST_SIDE / float(np.quantile(short[small], 0.1))
        proposed = _proposed(config.height * factor), _proposed(config.width * factor)
        counts = f"{split.name}: {len(small)} of {counted(len(objects.places), 'object')}"
        reaches = f"--size {proposed[0]}x{proposed[1]} leaves a tenth of them so"
        tiles = f"no input up to {LARGEST_PROPOSED} pixels helps nine in ten of them; cut the images into tiles"
        yield Advice("object-small", f"{counts}; {reaches if max(proposed) <= LARGEST_PROPOSED else tiles}")


def _uncovered(split: Split, objects: _Objects, config: DetectorConfig) -> Iterator[Finding | Advice]:
    known = [width / height for row in config.feature_maps for width, height in row.box_sizes]
    ratios = objects.sizes[:, 0] / objects.sizes[:, 1]
    odd = (ratios > max(known) * REACH) | (ratios < min(known) / REACH)
    uncovered = objects.overlaps < IOU_THRESHOLD
    for place in np.flatnonzero(uncovered):
        size = f"{_size(objects.sizes[place])} pixels of the input"
        if objects.overlaps[place] == 0:
            yield _at(split, objects, place, "object-without-default-box", size)
        elif odd[place]:
            value = f"{size}: {ratios[place]:.2f}, beyond {min(known):.2f} to {max(known):.2f}"
            yield _at(split, objects, place, "object-ratio", value)
        else:
            value = f"{size}; the best default box overlaps by {objects.overlaps[place]:.2f}"
            yield _at(split, objects, place, "object-uncovered", value)
    if count := int(uncovered.sum()):
        share = f"{split.name}: {count} of {counted(len(objects.places), 'object')} overlap no default box by 0.5"
        yield Advice("object-uncovered", share)


def _contested(split: Split, objects: _Objects) -> Iterator[Finding]:
    pairs = np.stack([split.image_of[objects.places], objects.best], axis=1)
    _, group, count = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    contested = (count[group] > 1) & (objects.overlaps > 0)
    first: dict[int, int] = {}
    for place in np.flatnonzero(contested).tolist():
        other = first.setdefault(int(group[place]), place)
        if other != place:
            rival = short_place(split.objects[int(objects.places[other])].where)
            yield _at(split, objects, place, "object-contested", f"the default box is also the best of {rival}")


def _suppressed(split: Split, config: DetectorConfig) -> Iterator[Finding]:
    rules = config.postprocess
    for one, other, overlap, _ in overlapping_pairs(split, rules.iou_threshold):
        if overlap > rules.iou_threshold and (rules.class_agnostic or split.labels[one] == split.labels[other]):
            rival = short_place(split.objects[one].where)
            value = f"overlap {overlap:.2f} with {rival}; at most {rules.iou_threshold:g} is kept"
            yield Finding("objects-suppressed", split.objects[other].where, value, split.name)


def _over_limit(split: Split, config: DetectorConfig) -> Iterator[Finding]:
    most = config.postprocess.max_detections
    counts = np.bincount(split.image_of[~split.crowd], minlength=len(split))
    for place in np.flatnonzero(counts > most).tolist():
        value = f"{counts[place]} objects; at most {most} detections are returned"
        yield Finding("objects-over-limit", split.images[place].stated.where, value, split.name)


def _idle_maps(survey: Survey, split: Split, model: Model) -> Iterator[Finding]:
    maps = model.config.feature_maps
    objects = _compare(split, model)
    counts = np.bincount(feature_maps_of(model.config)[objects.best], minlength=len(maps))
    for row, count in zip(maps, counts.tolist(), strict=True):
        if count < IDLE * len(objects.places):
            value = f"{row.layer} ({row.rows} x {row.columns} cells): {count} of {len(objects.places)} objects"
            yield Finding("map-idle", str(survey.path), value, split.name)


def _input(survey: Survey, split: Split, config: DetectorConfig) -> Iterator[Finding]:
    width, height = split.sizes.T
    squeeze = (width / height) / (config.width / config.height)
    middle = float(np.median(squeeze))
    if np.mean(np.maximum(squeeze, 1 / squeeze) > SQUEEZE) > 0.5:
        proposed = _proposed(config.height / middle**0.5), _proposed(config.width * middle**0.5)
        value = f"images of {np.median(width):.0f} x {np.median(height):.0f} pixels, an input of {config.width} x "
        value += f"{config.height}; --size {proposed[0]}x{proposed[1]} has their shape"
        yield Finding("input-shape", str(survey.path), value, split.name)
    smaller = (width * SQUEEZE < config.width) & (height * SQUEEZE < config.height)
    if smaller.mean() > 0.5:
        value = f"{smaller.sum()} of {counted(len(split), 'image')}; the median is {np.median(width):.0f} x "
        value += f"{np.median(height):.0f} pixels, the input {config.width} x {config.height}"
        yield Finding("input-larger", str(survey.path), value, split.name)


def _at(split: Split, objects: _Objects, place: int | np.integer, kind: str, value: str) -> Finding:
    return Finding(kind, split.objects[int(objects.places[int(place)])].where, value, split.name)


def _size(sides: Float[np.ndarray, "2"]) -> str:
    return f"{sides[0]:.1f} x {sides[1]:.1f}"


def _proposed(side: float) -> int:
    return max(1, ceil(side / STRIDE - 1e-6)) * STRIDE
