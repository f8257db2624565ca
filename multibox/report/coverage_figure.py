"""The picture of a coverage: objects as points in width and height, and the default boxes over them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float

from multibox.boxes import box_iou, center_to_corner
from multibox.config import DetectorConfig
from multibox.default_boxes import IOU_THRESHOLD, make_default_boxes
from multibox.explain.coverage import Coverage, by_map, summarize
from multibox.messages import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Panel = tuple[str, DetectorConfig, Coverage]
"""A title, and the coverage of objects by the default boxes of a config."""

SHAPES, PLACES = 36, 12
"""Widths and heights for which the shaded area is measured, and the random places of an object of each."""

MOST_POINTS = 8000
"""Number of objects that are drawn, evenly spaced in their order."""

RATIOS = {1 / 4: "1:4", 1 / 2: "1:2", 1: "1:1", 2: "2:1", 4: "4:1"}
"""Aspect ratios, width to height, that have a line."""

INK, GRID, COVERED, POOR, EDGE = "#1d2733", "#c9d1d9", "#33618d", "#d1495b", "#5b8f6b"
SHADES = ("#f1f6f3", "#dceee1", "#bfe0ca", "#9bcfae")
LEVELS = (0.5, 0.6, 0.7, 0.8, 1.0)
SHADE_TEXTS = ("an object here gets 0.5 on average", "0.6", "0.7", "0.8 or more")
"""Colors of the mean overlap from each level on, and what the legend says of it."""


def draw_coverage(path: Path, panels: Sequence[Panel]) -> None:
    """Draws objects and default boxes by width and height into a PNG file, and the part of each feature map.

    The shaded area shows which mean overlap an object of that width and height can get, anywhere in the image.

    Args:
        path: The file.
        panels: What is drawn, one below the other, on the same axes.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.8 * len(panels)), layout="constrained", facecolor="white")
    grid = figure.subplots(len(panels), 2, squeeze=False, width_ratios=[1.35, 1])
    low, high = _limits(panels)
    for (title, config, coverage), (shapes, maps) in zip(panels, grid, strict=True):
        _draw_shapes(shapes, config, coverage, low, high)
        every = summarize(coverage, "")
        shapes.set_title(
            f"{title}: mean best overlap {percent(every.overlap)} %, recall at 0.5 {percent(every.recall)} %",
            loc="left",
            fontsize=11,
            color=INK,
        )
        _draw_maps(maps, config, coverage)
    figure.savefig(path, dpi=110)


def _limits(panels: Sequence[Panel]) -> tuple[float, float]:
    """Returns the ends of both axes in pixels: all objects and default boxes are inside."""
    boxes = [size for _, config, _ in panels for row in config.feature_maps for size in row.box_sizes]
    values = np.concatenate([np.array(boxes).ravel(), *(coverage.sizes.ravel() for _, _, coverage in panels)])
    return max(1.0, float(values.min()) / 1.25), float(values.max()) * 1.25


def _draw_shapes(axes: "Axes", config: DetectorConfig, coverage: Coverage, low: float, high: float) -> None:
    """Draws objects as points, and the default boxes of each feature map in its color."""
    sides = np.geomspace(low, high, SHAPES)
    mean = _mean_overlaps(config, sides)
    axes.contourf(sides, sides, mean, levels=LEVELS, colors=SHADES, zorder=0)
    axes.contour(sides, sides, mean, levels=[IOU_THRESHOLD], colors=EDGE, linewidths=1.0, zorder=1)
    for ratio, text in RATIOS.items():
        axes.plot([low, high], [low / ratio, high / ratio], color=GRID, linewidth=0.8, zorder=1)
        x, y = (high, high / ratio) if ratio >= 1 else (high * ratio, high)
        axes.annotate(
            text,
            (x, y),
            xytext=(-3, -9) if ratio >= 1 else (3, -9),
            textcoords="offset points",
            fontsize=8,
            color="#8592a0",
            ha="right" if ratio >= 1 else "left",
            clip_on=True,
        )
    count = min(MOST_POINTS, len(coverage))
    some = np.arange(count) * len(coverage) // max(count, 1)
    faint = float(np.clip(600 / max(count, 1), 0.12, 0.8))
    for color, alpha, drawn in ((COVERED, faint, coverage.covered), (POOR, max(faint, 0.45), ~coverage.covered)):
        points = coverage.sizes[some[drawn[some]]]
        axes.scatter(points[:, 0], points[:, 1], s=9, color=color, alpha=alpha, linewidths=0, zorder=2)
    for row, color in zip(config.feature_maps, _colors(len(config.feature_maps)), strict=True):
        width, height = np.array(row.box_sizes).T
        axes.scatter(width, height, s=80, marker="s", facecolor=color, edgecolor="white", linewidths=1.4, zorder=3)
    tall = np.log(coverage.sizes / low) / np.log(high / low)  # from 0 to 1 along both axes
    upper_left = ((tall < [0.45, 2]) & (tall > [-1, 0.62])).all(axis=1).sum()
    lower_right = ((tall > [0.55, -1]) & (tall < [2, 0.28])).all(axis=1).sum()
    _explain(axes, "upper left" if upper_left < lower_right else "lower right")
    axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set_xlabel("width in pixels of the input, after the resize", color=INK)
    axes.set_ylabel("height in pixels of the input", color=INK)
    ticks = [2.0**power for power in range(13) if low <= 2**power <= high]
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_ticks([], minor=True)
    _calm(axes)


def _explain(axes: "Axes", place: Literal["upper left", "lower right"]) -> None:
    """Draws the legend of points, squares and shades into a corner."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    none: list[float] = []
    marks = [
        Line2D(
            none, none, marker="o", linestyle="", color=COVERED, markersize=5, label="object, best overlap 0.5 or more"
        ),
        Line2D(none, none, marker="o", linestyle="", color=POOR, markersize=5, label="object, best overlap under 0.5"),
        Line2D(
            none, none, marker="s", linestyle="", color="#7201a8", markersize=8, label="default box, in its map's color"
        ),
        *(
            Patch(facecolor=color, edgecolor=EDGE if level == IOU_THRESHOLD else "none", label=text)
            for color, level, text in zip(SHADES, LEVELS, SHADE_TEXTS, strict=False)
        ),
    ]
    axes.legend(handles=marks, loc=place, fontsize=8, labelcolor=INK, edgecolor=GRID, framealpha=0.95)


def _draw_maps(axes: "Axes", config: DetectorConfig, coverage: Coverage) -> None:
    """Draws the part of each feature map in the default boxes, the objects' best ones, and the positives."""
    groups = by_map(coverage, config)
    shares: dict[str, list[int]] = {
        "default boxes": [row.num_default_boxes for row in config.feature_maps],
        "objects it fits best": [group.objects for group in groups],
        "positives": [group.positives for group in groups],
    }
    places = np.arange(len(groups))
    colors = _colors(len(groups))
    for number, (name, values) in enumerate(shares.items()):
        parts = 100 * np.array(values) / max(sum(values), 1)
        offset = (number - 1) * 0.27
        axes.barh(places + offset, parts, 0.24, color=colors, alpha=(0.3, 0.6, 1.0)[number])
        for place, part, value in zip(places, parts, values, strict=True):
            text = f"{value:,} {name}" if place == 0 else f"{value:,}"
            axes.text(part + 1, place + offset, text, va="center", fontsize=8, color=INK)
    names = [
        f"{row.layer}\n{row.rows} x {row.columns} cells\n{len(row.box_sizes)} a cell" for row in config.feature_maps
    ]
    axes.set_yticks(places, names, fontsize=8, color=INK)
    axes.invert_yaxis()
    axes.set(xlim=(0, 140), xticks=range(0, 101, 20))
    axes.set_xlabel("percent of all", color=INK)
    axes.set_title("what each feature map gets", loc="left", fontsize=11, color=INK)
    _calm(axes)


def _mean_overlaps(config: DetectorConfig, sides: Float[np.ndarray, " sides"]) -> Float[np.ndarray, "sides sides"]:
    """Returns the mean of the best overlaps of objects at random places, by height (rows) and width (columns).

    Objects are inside the image; larger ones have no value.
    """
    size = np.array([config.width, config.height])
    width, height = np.meshgrid(sides, sides)
    shapes = np.stack([width, height], axis=-1).reshape(-1, 1, 2) / size
    inside = np.minimum(shapes, 1)
    places = np.random.default_rng(0).random((1, PLACES, 2))
    centers = inside / 2 + places * (1 - inside)
    boxes = np.concatenate([centers, np.broadcast_to(shapes, centers.shape)], axis=-1).reshape(-1, 4)
    table = np.asfortranarray(center_to_corner(make_default_boxes(config)))
    corners = center_to_corner(boxes).astype(np.float32)
    best = np.concatenate(
        [box_iou(part, table).max(axis=1) for part in np.array_split(corners, len(corners) // 256 + 1)]
    )
    means: Float[np.ndarray, "sides sides"] = best.reshape(len(sides), len(sides), PLACES).mean(axis=-1)
    return np.where((width > config.width) | (height > config.height), np.nan, means)


def _colors(count: int) -> list[Any]:
    """Returns a color for each feature map, from the first to the last."""
    from matplotlib import colormaps

    return [colormaps["plasma"](value) for value in np.linspace(0.08, 0.88, count)]


def _calm(axes: "Axes") -> None:
    """Leaves out what is not needed."""
    axes.spines[["top", "right"]].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRID)
    axes.tick_params(color=GRID, labelcolor=INK)
