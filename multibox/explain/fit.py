"""Fit default boxes to the objects of a training set: their sizes and aspect ratios, the input, an earlier feature map.

The fit raises the mean of the objects' best overlaps and their recall at 0.5, counted alike, with no more default boxes
than it is given. It knows nothing of what a network makes of them: only training tells what that is worth.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import ceil, sqrt
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from multibox.config import DetectorConfig, FeatureMap, Scales
from multibox.data.sample import Dataset
from multibox.default_boxes import IOU_THRESHOLD
from multibox.detector import new_config
from multibox.explain.shapes import boxes_of, overlaps_by_shape
from multibox.ssd.backbones import make_backbone

MOST_OBJECTS = 6000
"""Number of objects that are fitted to."""

MOST_SHAPES = 250
"""Number of shapes that are tried, those of the most objects."""

OCTAVE = 4
"""Tried widths and heights are 2 ** (1 / OCTAVE) apart, 19 percent."""

WIDEST = 6.0
"""Largest side of a square on a feature map in steps between its cells: a cell hardly sees more of the image."""

LEAST_GAIN = 0.01
"""Least gain in the score for which the cells of a map get one more default box."""

WORTHWHILE = 0.03
"""Gain in the score below which another input or feature map is not worth its price."""

GRAIN = 32
"""Heights and widths of tried inputs are multiples of this: the stride of most backbones' last map."""

SMALLEST_INPUT = 0.85
"""Least number of pixels of a tried input, as a fraction of the pixels of the given one."""

EARLIEST_STRIDE = 4


class Objects(NamedTuple):
    """The objects that default boxes are fitted to.

    Attributes:
        boxes: Boxes in corner form, as fractions of their images.
        weights: Weight of each object. They sum to 1, and those of each class to the same, since average precision is a
            mean over the classes too.
    """

    boxes: Float[np.ndarray, "objects 4"]
    weights: Float[np.ndarray, " objects"]

    def score(self, overlaps: Float[np.ndarray, "objects ..."]) -> Float[np.ndarray, "..."]:
        """Returns the mean of overlaps plus the fraction of objects whose overlap is at least `IOU_THRESHOLD`."""
        return np.asarray(self.weights @ (overlaps + (overlaps >= IOU_THRESHOLD)))


def objects_of(dataset: Dataset, most: int = MOST_OBJECTS) -> Objects:
    """Returns the objects that are trained on: of each class the same number at most, evenly spaced in their order."""
    boxes = boxes_of(dataset)
    none = np.zeros(0, np.int64)
    labels = np.concatenate([none, *(sample.truth.labels[~sample.truth.crowd] for sample in dataset)])
    of_classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    share = most // max(len(of_classes), 1)
    taken = [
        places[np.arange(min(share, len(places))) * len(places) // min(share, len(places))] for places in of_classes
    ]
    weights = [np.full(len(places), 1 / len(places) / len(taken), np.float32) for places in taken]
    return Objects(boxes[np.concatenate([none, *taken])], np.concatenate([none.astype(np.float32), *weights]))


def candidates(
    train_set: Dataset, config: DetectorConfig, model: str | None = None, *, scales: Scales | None = None
) -> list[DetectorConfig]:
    """Returns the configs to fit: the given one first, then those with other inputs or an earlier feature map.

    Args:
        train_set: The images to fit to.
        config: Config to start from.
        model: Name of the preset, or `timm/NAME`, that makes the config for other inputs; None keeps the input.
        scales: Sizes of a preset's default boxes, which maps without a use keep.
    """
    inputs = [config]
    if model is not None:
        shapes = other_inputs(config.height, config.width, train_set)
        inputs += [new_config(model, scales=scales, height=height, width=width) for height, width in shapes]
    return [each for plain in inputs for each in (plain, with_earlier_map(plain)) if each is not None]


def fit_default_boxes(
    train_set: Dataset,
    configs: Sequence[DetectorConfig],
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> DetectorConfig:
    """Returns the config with fitted default boxes, no more of them than the first config has.

    Args:
        train_set: The images to fit to, and to learn from.
        configs: Configs whose default boxes may be fitted, the simplest first, as `candidates` makes them. The first
            one is taken whose score is at most `WORTHWHILE` below the best.
        on_progress: Called with the number of configs done and of all configs.

    Raises:
        ValueError: The training set has no objects, or a config cuts default boxes at the edges of the image.
    """
    objects = objects_of(train_set)
    if not len(objects.boxes):
        raise ValueError(f"{train_set.name} has no objects to fit default boxes to")
    found: list[tuple[float, DetectorConfig]] = []
    for done, config in enumerate(configs, start=1):
        if config.clip_default_boxes == "corners" or config.stored_default_boxes:
            raise ValueError(f"the default boxes of {config.name} are cut at the edges or stored in its weights")
        found += fit_boxes(objects, config, configs[0].num_default_boxes)
        if on_progress is not None:
            on_progress(done, len(configs))
    best = max(worth for worth, _ in found)
    return next(config for worth, config in found if worth >= best - WORTHWHILE)


def fit_boxes(objects: Objects, config: DetectorConfig, most: int) -> list[tuple[float, DetectorConfig]]:
    """Returns the config with other sizes of its default boxes, and its score; an empty list if it has too many cells.

    Shapes are added greedily, then each is exchanged for a better one of its map. The score is monotone and submodular,
    for which the better of two greedy orders, by gain and by gain for each default box, is known to come near the best
    choice (Khuller, Moss and Naor 1999; Krause and Guestrin 2005). A map that no object needs keeps the first box that
    it had.

    Args:
        objects: The objects to fit to.
        config: Config to fit.
        most: Largest number of default boxes.
    """
    cells = np.array([row.rows * row.columns for row in config.feature_maps])
    if cells.sum() > most:
        return []
    size = np.array([config.width, config.height], np.float32)
    shapes = _common_shapes((objects.boxes[:, 2:] - objects.boxes[:, :2]) * size, size)
    rows = [_with_shapes(row, shapes, first=place == 0) for place, row in enumerate(config.feature_maps)]
    table = np.concatenate([overlaps_by_shape(objects.boxes, config, row) for row in rows], axis=1)
    map_of = np.repeat(np.arange(len(rows)), [len(row.box_sizes) for row in rows])
    worth, chosen = max(
        (
            _exchange(objects, table, map_of, _add_greedily(objects, table, map_of, cells, most, by_price))
            for by_price in (True, False)
        ),
        key=lambda each: each[0],
    )
    every = np.array([each for row in rows for each in row.box_sizes])
    fitted = []
    for place, row in enumerate(rows):
        ours = [column for column in chosen if map_of[column] == place] or [int(np.argmax(map_of == place))]
        sizes = sorted(map(tuple, every[ours].tolist()), key=lambda pair: (pair[0] * pair[1], pair[0]))
        fitted.append(replace(row, box_sizes=tuple(sizes)))
    return [(worth, replace(config, feature_maps=tuple(fitted)))]


def _common_shapes(
    sizes: Float[np.ndarray, "objects 2"], largest: Float[np.ndarray, "2"]
) -> Float[np.ndarray, "shapes 2"]:
    """Returns widths and heights near those of the objects, on a logarithmic grid, at most `largest`."""
    steps = np.round(np.log2(np.maximum(sizes, 1)) * OCTAVE)
    common, counts = np.unique(steps, axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:MOST_SHAPES]
    shapes: Float[np.ndarray, "shapes 2"] = np.minimum(2 ** (common[order].astype(np.float64) / OCTAVE), largest)
    return np.unique(shapes.round(1), axis=0)


def _with_shapes(row: FeatureMap, shapes: Float[np.ndarray, "shapes 2"], *, first: bool) -> FeatureMap:
    """Returns the feature map with its own first box, then the shapes that its cells can see."""
    step = sqrt(row.step[0] * row.step[1])
    sides = np.sqrt(shapes.prod(axis=1))
    seen = shapes[(sides <= WIDEST * step) & (first | (sides >= step))]
    return replace(row, box_sizes=(row.box_sizes[0], *map(tuple, seen.tolist())))


def _add_greedily(
    objects: Objects,
    table: Float[np.ndarray, "objects shapes"],
    map_of: Int[np.ndarray, " shapes"],
    cells: Int[np.ndarray, " maps"],
    most: int,
    by_price: bool,
) -> list[int]:
    """Returns the columns of chosen shapes.

    Args:
        objects: The objects to fit to.
        table: Largest overlap of each object with the default boxes of each shape.
        map_of: Place of the feature map of each shape.
        cells: Number of cells of each feature map, the price of one of its shapes.
        most: Largest number of default boxes. Each feature map needs at least one shape, which is set aside.
        by_price: Whether the largest gain for each default box is taken, or else the largest gain.
    """
    chosen: list[int] = []
    left = most - cells.sum()
    best = np.zeros(len(table), np.float32)
    while True:
        has_one = np.isin(np.arange(len(cells)), map_of[chosen])
        affordable = ~has_one | (cells <= left)
        gains = objects.score(np.maximum(table, best[:, None])) - objects.score(best)
        gains[~affordable[map_of] | (gains < LEAST_GAIN)] = 0
        if not gains.any():
            return chosen
        column = int((gains / (cells[map_of] if by_price else 1)).argmax())
        left -= cells[map_of[column]] if has_one[map_of[column]] else 0
        chosen.append(column)
        best = np.maximum(best, table[:, column])


def _exchange(
    objects: Objects,
    table: Float[np.ndarray, "objects shapes"],
    map_of: Int[np.ndarray, " shapes"],
    chosen: Sequence[int],
) -> tuple[float, list[int]]:
    """Returns the score and the columns after each chosen shape, in turn, has become the best of its map, twice."""
    chosen = list(chosen)
    for place in [*range(len(chosen))] * 2:
        others = table[:, chosen[:place] + chosen[place + 1 :]].max(axis=1, initial=0)
        of_map = np.flatnonzero(map_of == map_of[chosen[place]])
        chosen[place] = int(of_map[objects.score(np.maximum(table[:, of_map], others[:, None])).argmax()])
    return float(objects.score(table[:, chosen].max(axis=1, initial=0))), list(dict.fromkeys(chosen))


def with_earlier_map(config: DetectorConfig) -> DetectorConfig | None:
    """Returns the config with one more feature map before the first; None if the backbone offers none of stride 4 on.

    Its only default box is half as wide and half as high as the first one of the map that follows.
    """
    first = config.feature_maps[0]
    with torch.device("meta"):
        sources = make_backbone(config.backbone).sources
    earlier = [
        (name, source.stride) for name, source in sources.items() if EARLIEST_STRIDE <= source.stride < min(first.step)
    ]
    if not earlier:
        return None
    layer, stride = earlier[-1]
    width, height = first.box_sizes[0]
    rows, columns = ceil(config.height / stride), ceil(config.width / stride)
    step = (float(stride), float(stride))
    row = replace(first, layer=layer, rows=rows, columns=columns, step=step, box_sizes=((width / 2, height / 2),))
    return replace(config, feature_maps=(row, *config.feature_maps))


def other_inputs(height: int, width: int, train_set: Dataset) -> list[tuple[int, int]]:
    """Returns heights and widths of inputs between the given shape and that of the images, with no more pixels.

    Args:
        height: Height of the given input in pixels.
        width: Width of the given input in pixels.
        train_set: The images. The median of their shapes counts.
    """
    shapes = [width / height, float(np.median([sample.width / sample.height for sample in train_set]))]
    most = height * width
    sides = range(GRAIN, GRAIN * (max(height, width) // GRAIN * 2) + 1, GRAIN)
    return [
        (high, wide)
        for high in sides
        for wide in sides
        if SMALLEST_INPUT * most <= high * wide <= most
        and 0.9 * min(shapes) <= wide / high <= 1.1 * max(shapes)
        and (high, wide) != (height, width)
    ]
