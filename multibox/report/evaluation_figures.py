"""The figures of an evaluation: the confusion matrix and the curves by score threshold."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int

from multibox.data.sample import Sample
from multibox.drawing import class_color, find_font
from multibox.evaluation.errors import BACKGROUND
from multibox.evaluation.metrics import Metrics
from multibox.evaluation.precision_recall import PrecisionRecall
from multibox.messages import percent, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COUNTS_WRITTEN = 20  # more classes than this have colors alone in the confusion matrix
NAMES_WRITTEN = 100  # more classes than this have no names there
LONGEST_NAME = 24  # characters of a name in a figure
CURVES_NAMED = 10  # more classes than this have thin gray curves


def two_digits(value: float | None) -> str:
    """Returns a score threshold, or a dash where there is none."""
    return "-" if value is None else f"{value:.2f}"


def image_name(sample: Sample) -> str:
    """Returns the path of the image, or its name if it is no file."""
    return str(sample.image) if isinstance(sample.image, Path) else sample.name


def draw_confusions(path: Path, confusions: Int[np.ndarray, "objects detections"], class_names: Sequence[str]) -> None:
    """Draws the confusion matrix into a PNG file; a color is the share of its row."""
    from matplotlib.figure import Figure

    names = [shortened(name, LONGEST_NAME) for name in [*class_names, BACKGROUND]]
    count = len(names)
    side = min(max(5.0, 1.5 + (0.6 if count <= COUNTS_WRITTEN else 0.22) * count), 30.0)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares = 100 * confusions / np.maximum(confusions.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, ax=axes, shrink=0.7, label="percent of the row")
    axes.set(
        title="confusion matrix",
        ylabel="class of the object (background: nothing is there)",
        xlabel="class of the detection (background: missed)",
    )
    if count <= NAMES_WRITTEN:
        axes.set_xticks(range(count), names, rotation=90, parse_math=False)
        axes.set_yticks(range(count), names, parse_math=False)
        _set_fonts([*axes.get_xticklabels(), *axes.get_yticklabels()])
    if count <= COUNTS_WRITTEN:
        for row, column in np.argwhere(confusions).tolist():
            color, number = "white" if shares[row, column] > 60 else "black", str(confusions[row, column])
            axes.text(column, row, number, ha="center", va="center", color=color, fontsize=9)
    _save(figure, path)


def draw_precision_recall(
    path: Path, overall: PrecisionRecall, by_class: Sequence[PrecisionRecall], metrics: Metrics
) -> None:
    """Draws precision by recall into a PNG file; a dot marks the best threshold of each curve."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    labels = [
        f"{shortened(name, LONGEST_NAME)}  AP50 {percent(row['ap50'])}, best at {two_digits(row['score_threshold'])}"
        for name, row in metrics.per_class.items()
    ]
    labels.append(f"all classes  AP50 {percent(metrics.ap50)}, best at {two_digits(metrics.score_threshold)}")
    axes.set(title="precision and recall at an overlap of 0.5", xlabel="recall (percent)", ylabel="precision (percent)")

    def draw(curve: PrecisionRecall, style: dict[str, Any]) -> None:
        recall, precision = 100 * curve.recall, 100 * curve.precision
        known = curve.true_positives + curve.false_positives > 0  # without detections there is no precision
        best = np.flatnonzero(curve.thresholds[known] == curve.best_threshold)
        axes.plot(recall[known], precision[known], markevery=best.tolist(), **style)

    _draw_curves(figure, axes, overall, by_class, labels, draw)
    _save(figure, path)


def draw_f1(
    path: Path, overall: PrecisionRecall, by_class: Sequence[PrecisionRecall], class_names: Sequence[str]
) -> None:
    """Draws F1 by score threshold into a PNG file; a dot marks the best threshold of each curve."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    axes.set(title="F1 at an overlap of 0.5", xlabel="score threshold", ylabel="F1 (percent)")
    points = [curve.at_best_threshold() for curve in [*by_class, overall]]
    labels = [
        f"{shortened(name, LONGEST_NAME)}  F1 {percent(point['f1'])} at {two_digits(point['score_threshold'])}"
        for name, point in zip([*class_names, "all classes"], points, strict=True)
    ]

    def draw(curve: PrecisionRecall, style: dict[str, Any]) -> None:
        best = np.flatnonzero((curve.thresholds == curve.best_threshold) & (curve.true_positives > 0))
        axes.plot(curve.thresholds, 100 * curve.f1, markevery=best.tolist(), **style)

    _draw_curves(figure, axes, overall, by_class, labels, draw)
    axes.set_xlim(0, 1)
    _save(figure, path)


def _draw_curves(
    figure: "Figure",
    axes: "Axes",
    overall: PrecisionRecall,
    by_class: Sequence[PrecisionRecall],
    labels: Sequence[str],
    draw: Callable[[PrecisionRecall, dict[str, Any]], None],
) -> None:
    """Draws a curve for each class with objects in its color, or in gray if they are many, and one for all classes.

    Args:
        figure: The figure, which gets a legend below the axes.
        axes: Where the curves are drawn.
        overall: The curve of all classes together.
        by_class: The curve of each class.
        labels: The text of each class in the legend, and of all classes.
        draw: Draws a curve with these properties of its line, and its best point if the line has a `marker`.
    """
    many = len(by_class) > CURVES_NAMED
    named: list[tuple[str, Any]] = []
    for label, curve in enumerate(by_class):
        if curve.objects:
            color = "0.8" if many else tuple(value / 255 for value in class_color(label))
            draw(curve, {"color": color, "linewidth": 0.8 if many else 1.5, "marker": "" if many else "o"})
            if not many or not named:
                named.append((f"each of {len(by_class)} classes" if many else labels[label], color))
    draw(overall, {"color": "black", "linewidth": 2.5, "marker": "o"})
    named.append((labels[-1], "black"))
    axes.set(xlim=(0, 102), ylim=(0, 102))
    axes.grid(alpha=0.3)
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=color, linewidth=2) for _, color in named]
    placeholders = ["-"] * len(named)  # a label that begins with "_" would be left out, and "$" would begin a formula
    legend = figure.legend(handles, placeholders, loc="outside lower center", ncols=2, fontsize=9)
    for text, (name, _) in zip(legend.get_texts(), named, strict=True):
        text.set_parse_math(False)
        text.set_text(name)
    _set_fonts(legend.get_texts())


def _set_fonts(texts: Iterable[Any]) -> None:
    """Sets a font that has the characters of each text, where matplotlib's own may lack them."""
    for text in texts:
        if not text.get_text().isascii():
            file = find_font(text.get_text())
            if file is not None:
                text.set_fontproperties({"fname": str(file), "size": text.get_fontsize()})


def _save(figure: "Figure", path: Path) -> None:
    with warnings.catch_warnings():  # `find_font` has said that no font has all characters
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, dpi=100)
