"""The figures of a run: its curves, and a sheet of images with the detections in them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from multibox.data.sample import Dataset, Sample
from multibox.detections import Detections
from multibox.drawing import contact_sheet, draw_boxes
from multibox.evaluation.precision_recall import FP, image_quality, match_detections, missed_objects

Row = Mapping[str, float | None]
"""A row of a run's `metrics.csv`."""

AP_TITLE = "average precision on the validation set, in percent"

CELL_HEIGHT, CELL_WIDTH = 320, 426  # pixels of an image on the sheet
MOST_CLASSES = 12  # in the legend of the sheet


def best_row(rows: Sequence[Row], best_step: int) -> Row | None:
    """Returns the row of the best weights."""
    return next((row for row in reversed(rows) if row["step"] == best_step), None)


def draw_curves(rows: Sequence[Row], path: Path, *, best_step: int) -> None:
    """Draws losses, average precision, learning rate and gradient norm over the epochs, into a PNG file.

    Panels without any value are left out. A line marks the epoch of the best weights.
    """
    from matplotlib.figure import Figure

    panels = [
        ("loss", {name: name for name in ("localization", "confidence", "distillation")}),
        (AP_TITLE, {"ap50": "AP50", "ap": "AP", "ap75": "AP75"}),
        ("learning rate", {"learning_rate": ""}),
        ("gradient norm", {"gradient_norm": ""}),
    ]
    known = {name for row in rows for name, value in row.items() if value is not None}
    panels = [(title, names) for title, names in panels if title == "loss" or known & set(names)]
    columns = 2 if len(panels) == 4 else len(panels)
    figure = Figure(figsize=(5 * max(columns, 2), 7 if len(panels) == 4 else 4), layout="constrained")
    places = figure.subplots(len(panels) // columns, columns, squeeze=False).flat
    best = best_row(rows, best_step)
    for axes, (title, names) in zip(places, panels, strict=True):
        is_ap = title == AP_TITLE
        shown: list[float] = []
        for name, label in names.items():
            points = [
                (row["epoch"], value * (100 if is_ap else 1)) for row in rows if (value := row.get(name)) is not None
            ]
            if points:
                epochs, values = zip(*points, strict=True)
                axes.plot(epochs, values, marker="." if len(points) < 30 else None, linewidth=1.3, label=label)
                shown += values
        top = 100.0 if is_ap else _top(shown)
        axes.set(xlabel="epoch", title=title, ylim=(0, top))
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        if max(shown, default=0.0) > top:
            note = f"cut off: values up to {max(shown):.3g}"
            axes.text(0.98, 0.02, note, transform=axes.transAxes, horizontalalignment="right")
        if is_ap and best is not None and best["ap"] is not None:
            text = f"best: AP {100 * best['ap']:.1f}, epoch {round(best['epoch'] or 0, 1):g}"
            axes.axvline(best["epoch"], color="black", linestyle=":", label=text)
        if len(axes.lines) > 1:
            axes.legend()
    figure.savefig(path, dpi=100)


def _top(values: Sequence[float]) -> float:
    """Returns the upper end of an axis: above all values, unless a few of them are far above all others."""
    if not values:
        return 1.0
    usual = float(np.quantile(values, 0.9))
    highest = max(values)
    return 1.1 * (highest if highest <= 4 * usual else usual) or 1.0


def draw_sheet(dataset: Dataset, found: Sequence[Detections], *, score_thresholds: Mapping[str, float]) -> Image.Image:
    """Draws up to 16 images in the order of their quality: the best four, four from the middle, the worst eight.

    Annotated objects are dashed and detections are solid, in the color of their class. Wrong boxes have a text, and in
    images with few boxes the right ones too. A legend stands above the images. The quality is that of
    `precision_recall.ImageQuality`.

    Args:
        dataset: The images to choose from.
        found: The detections in each image.
        score_thresholds: Threshold of each class by name, in the order of the labels. Detections above the threshold
            of their class count and are drawn.
    """
    thresholds = np.array(list(score_thresholds.values()), np.float32)
    kept = [each[each.scores > thresholds[each.labels]] for each in found]
    qualities = [image_quality(sample.truth, each) for sample, each in zip(dataset, kept, strict=True)]

    def rank(index: int) -> tuple[bool, float, int, int]:
        quality, hits, missed, false = qualities[index]
        return (
            hits + missed + false == 0,
            -quality,
            missed + false,
            -hits,
        )  # an empty image without detections is not worth a look

    order = sorted(range(len(dataset)), key=rank)
    order = [i for i in order if not rank(i)[0]] or order
    top, others = order[:4], order[4:]
    bottom, between = others[-8:], others[:-8]
    middle = between[max(0, len(between) // 2 - 2) :][:4]
    named = [("best", top), ("middle", middle), ("worst", bottom[::-1])]
    chosen = [(f"{name} {place}", i) for name, each in named for place, i in enumerate(each, start=1)]
    captions = [
        f"{place}: {Path(dataset[i].name).name}\n"
        f"quality {qualities[i].quality:.2f}: {qualities[i].true_positives} found, "
        f"{qualities[i].false_negatives} missed, "
        f"{qualities[i].false_positives} false"
        for place, i in chosen
    ]
    images = [_draw_judged(dataset[i], kept[i]) for _, i in chosen]
    sheet = contact_sheet(images, captions=captions, cell_height=CELL_HEIGHT, cell_width=CELL_WIDTH, margin=12)
    return _with_legend(sheet, score_thresholds)


def _with_legend(sheet: Image.Image, score_thresholds: Mapping[str, float]) -> Image.Image:
    """Returns the sheet with a legend above it, which explains solid and dashed boxes and the colors of the classes."""
    lines = [
        "Solid box: detection with a score above the threshold of its class.  Dashed box: annotated object.",
        '"missed": an object that no detection finds.  "false": a detection of nothing, or a second one of an object.',
    ]
    named = [f"{name} > {threshold:.2f}" for name, threshold in list(score_thresholds.items())[:MOST_CLASSES]]
    left, pitch, line_height = 16, 180, 24
    columns = max(1, (sheet.width - left) // pitch)
    rows = -(-len(named) // columns)
    legend = Image.new("RGB", (sheet.width, len(lines) * line_height + 12 + rows * 44), (255, 255, 255))
    font = ImageFont.load_default(16)
    for number, line in enumerate(lines):
        ImageDraw.Draw(legend).text((left, 8 + number * line_height), line, (40, 40, 40), font)
    top = 8 + len(lines) * line_height + 20
    corners = [(left + place % columns * pitch, top + place // columns * 44) for place in range(len(named))]
    swatches = [[x, y, x + pitch - 20, y + 16] for x, y in corners]
    legend = draw_boxes(
        legend,
        np.array(swatches, np.float32).reshape(-1, 4),
        labels=np.arange(len(named)),
        texts=named,
        font_size=14,
        line_width=2,
    )
    both = Image.new("RGB", (sheet.width, legend.height + sheet.height), (255, 255, 255))
    both.paste(legend, (0, 0))
    both.paste(sheet, (0, legend.height))
    return both


def _draw_judged(sample: Sample, found: Detections) -> Image.Image:
    """Draws boxes on the image after scaling it to the size of its cell, so that lines and texts keep their size."""
    image = sample.open()
    shown = ImageOps.contain(image, (CELL_WIDTH, CELL_HEIGHT))
    scale = np.tile(np.array(shown.size) / np.array(image.size), 2).astype(np.float32)
    truth = sample.truth
    few = len(truth) + len(found) <= 12
    missed_texts = [
        f"missed: {found.class_names[label]}" if missed else ""
        for label, missed in zip(truth.labels, missed_objects(truth, found), strict=True)
    ]
    found_texts = [
        f"{'false: ' if match == FP else ''}{name} {score:.2f}" if few or match == FP else ""
        for name, score, match in zip(found.names, found.scores, match_detections(truth, found), strict=True)
    ]
    return draw_boxes(
        shown,
        np.concatenate([truth.boxes, found.boxes]) * scale,
        labels=np.concatenate([truth.labels, found.labels]),
        texts=[*missed_texts, *found_texts],
        dashed=np.arange(len(truth) + len(found)) < len(truth),
        font_size=11,
        line_width=2,
    )
