"""What a run is about to learn: the number of objects by class, the labels at a glance, and the first batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image, ImageOps

from multibox.data.augment import normalized_boxes
from multibox.data.sample import Dataset
from multibox.drawing import contact_sheet, draw_boxes
from multibox.report.tables import class_table, text_table

MOST_BARS = 30
"""Number of classes in the bar chart of `labels.jpg`: the most frequent ones."""

BATCH_IMAGES, BATCH_PIXELS = 16, 400
"""Largest number of images on `batch.jpg`, and the size of their cells."""


def objects_by_class(dataset: Dataset) -> Int[np.ndarray, " classes"]:
    """Returns the number of objects of each class; crowd regions are left out, because they are not learned."""
    labels = [sample.truth.labels[~sample.truth.crowd] for sample in dataset]
    counts: Int[np.ndarray, " classes"] = np.bincount(
        np.concatenate([np.empty(0, np.int64), *labels]), minlength=len(dataset.class_names)
    )
    return counts


def data_table(train_set: Dataset, val_set: Dataset | None) -> list[str]:
    """Returns the lines of a table: images, images without objects, and objects by class, of one set or of both."""
    sets = {"training": train_set} | ({"validation": val_set} if val_set else {})
    counts = [objects_by_class(dataset) for dataset in sets.values()]
    empty = [sum(len(sample.truth) == 0 for sample in dataset) for dataset in sets.values()]
    images = [["images", *(f"{len(dataset):,}" for dataset in sets.values())]]
    if any(empty):
        images.append(["without objects", *(f"{count:,}" for count in empty)])
    head = ["objects by class", *(["training", "validation"][: len(sets)])]
    rows = [[name, *(f"{count[label]:,}" for count in counts)] for label, name in enumerate(train_set.class_names)]
    return [*text_table(["", *sets], images), "", *class_table(head, rows)]


def draw_batch(
    inputs: UInt8[np.ndarray, "batch 3 height width"],
    boxes: Float[np.ndarray, "batch objects 4"],
    labels: Int[np.ndarray, "batch objects"],
    class_names: Sequence[str],
) -> Image.Image:
    """Returns a sheet of augmented images, as the network takes them, with their objects and the objects' names.

    Args:
        inputs: Augmented images, not yet normalized.
        boxes: Boxes in corner form, as fractions of the input.
        labels: Indices into the class names; -1 where there is no object.
        class_names: Names of the classes.
    """
    drawn = []
    for pixels, corners, numbers in zip(inputs[:BATCH_IMAGES], boxes, labels, strict=False):
        image = ImageOps.contain(Image.fromarray(pixels.transpose(1, 2, 0)), (BATCH_PIXELS, BATCH_PIXELS))
        there = numbers >= 0
        names = [class_names[label] for label in numbers[there]]
        scale = np.array([image.width, image.height] * 2, np.float32)
        drawn.append(
            draw_boxes(image, corners[there] * scale, labels=numbers[there], texts=names, font_size=12, line_width=2)
        )
    return contact_sheet(drawn, cell_height=BATCH_PIXELS, cell_width=BATCH_PIXELS)


def draw_labels(train_set: Dataset, val_set: Dataset | None, path: Path) -> None:
    """Draws the labels of the training set: their number by class, and where, how large and how many they are.

    The bars of the classes show the validation set too. Sizes are in percent of the image's width and height.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout="constrained")
    grid = figure.subplots(2, 3)
    _draw_counts(grid[0, 0], train_set, val_set)
    none = np.zeros((0, 4))
    corners = np.concatenate([none, *map(normalized_boxes, train_set)])
    pixels = np.concatenate([none, *(sample.truth.boxes[~sample.truth.crowd] for sample in train_set)])
    centers, sizes = 50 * (corners[:, :2] + corners[:, 2:]), 100 * (corners[:, 2:] - corners[:, :2])
    grid[0, 1].hist2d(*centers.T, bins=40, range=[[0, 100], [0, 100]], cmap="viridis", cmin=1)
    grid[0, 1].set(
        title="centers", xlabel="% of the width", ylabel="% of the height", xlim=(0, 100), ylim=(100, 0), aspect="equal"
    )
    grid[0, 2].scatter(*sizes.T, s=6, alpha=max(0.05, min(1.0, 300 / max(len(sizes), 1))), linewidths=0)
    grid[0, 2].set(title="sizes", xlabel="width, % of the image", ylabel="height, % of the image", aspect="equal")
    grid[0, 2].set(xlim=(0, 100), ylim=(0, 100))
    area = np.sqrt(sizes.prod(axis=1))
    grid[1, 0].hist(area, bins=40, range=(0, 100))
    grid[1, 0].set(title="square root of the area", xlabel="% of the image", ylabel="objects")
    ratios = (pixels[:, 2] - pixels[:, 0]) / (pixels[:, 3] - pixels[:, 1])
    grid[1, 1].hist(np.clip(ratios, 1 / 8, 8), bins=np.geomspace(1 / 8, 8, 37))
    grid[1, 1].set_xscale("log", base=2)
    ticks = [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8]
    grid[1, 1].set_xticks(ticks, ["1:8", "1:4", "1:2", "1", "2:1", "4:1", "8:1"])
    grid[1, 1].set(title="aspect ratios (width : height)", ylabel="objects")
    numbers = [int(np.count_nonzero(~sample.truth.crowd)) for sample in train_set]
    most = max(numbers, default=0)
    grid[1, 2].hist(numbers, bins=np.arange(0, most + 2) - 0.5 if most < 40 else 40)
    grid[1, 2].set(title="objects in an image", xlabel="objects", ylabel="images")
    figure.savefig(path, dpi=100)


def _draw_counts(axes: Any, train_set: Dataset, val_set: Dataset | None) -> None:
    """Draws the number of objects of each class, the most frequent class on top."""
    counts = objects_by_class(train_set)
    order = np.argsort(-counts, kind="stable")[:MOST_BARS]
    names = [train_set.class_names[label] for label in order]
    height = 0.4 if val_set else 0.8
    places = np.arange(len(order))
    axes.barh(places - (height / 2 if val_set else 0), counts[order], height, label="training")
    if val_set:
        axes.barh(places + height / 2, objects_by_class(val_set)[order], height, label="validation")
        axes.legend()
    shown = [name if len(name) <= 20 else f"{name[:19]}\u2026" for name in names]
    axes.set_yticks(places, shown, fontsize=8 if len(order) > 12 else None, parse_math=False)
    axes.invert_yaxis()
    more = len(train_set.class_names) - len(order)
    axes.set(title=f"objects by class{f' ({more} more classes)' if more else ''}", xlabel="objects")
