"""The figures of an evaluation: the confusion matrix, the curves by score threshold, and the worst images."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int
from PIL import Image, ImageDraw, ImageFont, ImageOps

from multibox.data.sample import Dataset, Sample
from multibox.drawing import class_color, contact_sheet, draw_boxes, find_font
from multibox.evaluation.errors import BACKGROUND, ImageErrors
from multibox.evaluation.metrics import Metrics
from multibox.evaluation.precision_recall import PrecisionRecall
from multibox.messages import percent, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL_HEIGHT, CELL_WIDTH = 480, 640  # pixels of an image on the sheet of the worst ones
WORST = 12  # images on the sheet
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


def draw_worst(dataset: Dataset, errors: Sequence[ImageErrors]) -> Image.Image:
    """Draws the images of the lowest quality (`precision_recall.ImageQuality`) that have errors, the worst first.

    Found objects are thin solid boxes, false detections thick solid ones, missed objects dashed, in the color of their
    class.
    """
    wrong = [i for i, image in enumerate(errors) if image.false or image.missed]
    worst = sorted(wrong, key=lambda i: (errors[i].quality, -len(errors[i].false) - len(errors[i].missed)))[:WORST]
    lines = [
        "The images with the lowest quality (F1 times the mean overlap of the found objects), the worst first.",
        "Thin box: found object.  Thick box with a text: false detection.  Dashed box: missed object.",
    ]
    if not worst:
        return _header(["No image has an error: every object is found, and no detection is false."], 900)
    cells = [_draw_errors(dataset[i], errors[i]) for i in worst]
    captions = [
        f"{place}: {image_name(dataset[i])}\nquality {errors[i].quality:.2f}: "
        f"{sum(row == column for row, column in errors[i].confusions)} found, {len(errors[i].missed)} missed, "
        f"{len(errors[i].false)} false"
        for place, i in enumerate(worst, start=1)
    ]
    sheet = contact_sheet(
        cells, captions=captions, columns=3, cell_height=CELL_HEIGHT, cell_width=CELL_WIDTH, margin=12
    )
    header = _header(lines, sheet.width)
    both = Image.new("RGB", (sheet.width, header.height + sheet.height), (255, 255, 255))
    both.paste(header, (0, 0))
    both.paste(sheet, (0, header.height))
    return both


def _header(lines: Sequence[str], width: int) -> Image.Image:
    header = Image.new("RGB", (width, 16 + 26 * len(lines)), (255, 255, 255))
    font = ImageFont.load_default(18 if width > 1000 else 12)  # one image alone leaves 664 pixels
    for number, line in enumerate(lines):
        ImageDraw.Draw(header).text((12, 12 + 26 * number), line, (40, 40, 40), font)
    return header


def _draw_errors(sample: Sample, image: ImageErrors) -> Image.Image:
    """Draws the errors on the image after scaling it to its cell, so that lines and texts keep their size."""
    opened = sample.open()
    shown = ImageOps.contain(opened, (CELL_WIDTH, CELL_HEIGHT))
    scale = np.tile(np.array(shown.size) / np.array(opened.size), 2).astype(np.float32)
    truth, found, names = sample.truth, image.found, image.found.class_names
    false = np.array([wrong.detection for wrong in image.false], np.int64)
    missed = np.array([lost.object for lost in image.missed], np.int64)
    right = np.setdiff1d(np.arange(len(found)), false)
    shown = draw_boxes(shown, found.boxes[right] * scale, labels=found.labels[right], line_width=1)
    texts = [f"missed {names[truth.labels[lost.object]]}: {lost.kind}" for lost in image.missed]
    texts += [
        f"false {names[found.labels[wrong.detection]]} {found.scores[wrong.detection]:.2f}: {wrong.kind}"
        for wrong in image.false
    ]
    return draw_boxes(
        shown,
        np.concatenate([truth.boxes[missed], found.boxes[false]]) * scale,
        labels=np.concatenate([truth.labels[missed], found.labels[false]]),
        texts=texts,
        dashed=np.arange(len(missed) + len(false)) < len(missed),
        font_size=11,
        line_width=2,
    )


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
