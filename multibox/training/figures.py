"""A run in images: its curves, and what was found in the validation images."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from multibox.data.sample import Dataset, Sample
from multibox.detections import Detections
from multibox.drawing import contact_sheet, draw_boxes
from multibox.evaluation.precision_recall import FP, PrecisionRecall, image_quality, match_detections, missed_objects

Row = Mapping[str, float | None]
"""Of `metrics.csv`."""

CELL_HEIGHT, CELL_WIDTH = 320, 426  # pixels, of an image on the sheet


def best_row(rows: Sequence[Row], best_step: int) -> Row | None:
    """That of the weights which are kept."""
    return next((row for row in rows if row["step"] == best_step), None)


def draw_curves(rows: Sequence[Row], path: Path, *, best_step: int) -> None:
    """Losses, average precision with the best epoch marked, learning rate and gradient norm over the epochs.

    What no row has is left out.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    panels = [
        ("loss", {"localization": "localization", "confidence": "confidence"}),
        ("average precision", {"ap50": "AP50", "ap": "AP", "ap75": "AP75"}),
        ("learning rate", {"learning_rate": ""}),
        ("gradient norm", {"gradient_norm": ""}),
    ]
    known = {name for row in rows for name, value in row.items() if value is not None}
    panels = [(title, names) for title, names in panels if title == "loss" or known & set(names)]
    epochs = [row["epoch"] for row in rows]
    figure = Figure(figsize=(10, 4 if len(panels) <= 2 else 7), layout="constrained")
    places = figure.subplots(1 if len(panels) <= 2 else 2, 2, squeeze=False).flat
    for axes, (title, names) in zip(places, panels, strict=False):
        for name, label in names.items():
            if name in known:
                values = [np.nan if (value := row.get(name)) is None else value for row in rows]
                axes.plot(epochs, values, marker="." if len(rows) < 60 else None, label=label)
        axes.set(xlabel="epoch", title=title, ylim=(0, 1) if title == "average precision" else (0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        best = best_row(rows, best_step)
        if title == "average precision" and best is not None and best["ap"] is not None:
            axes.axvline(
                best["epoch"],
                color="black",
                linestyle=":",
                label=f"best: epoch {best['epoch']:.4g}, AP {best['ap']:.3f}",
            )
        if len(axes.lines) > 1:
            axes.legend()
    for axes in list(figure.axes)[len(panels) :]:
        axes.remove()
    figure.savefig(path, dpi=100)


def draw_pr_curves(curves: Mapping[str, PrecisionRecall]) -> Image.Image:
    """Precision by recall of each class, in one diagram."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        axes.plot(curve.recall, curve.precision, label=name)
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02), title="overlap 0.5")
    axes.grid(alpha=0.3)
    if 0 < len(curves) <= 25:
        axes.legend(fontsize="small")
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100)
    return Image.open(drawn).convert("RGB")


def draw_images(dataset: Dataset, found: Sequence[Detections], *, score_threshold: float) -> Image.Image:
    """A sheet of up to 16 images by the quality of what was found: the best four, four from the middle, the worst.

    Objects are dashed, and detections drawn, in the color of their class; written beside them is what is wrong, and
    where they are few also what is right. Quality is `precision_recall.ImageQuality`.

    Args:
        dataset: Its images are chosen from.
        found: In each image.
        score_threshold: Detections above it are judged and drawn.
    """
    kept = [each[each.scores > score_threshold] for each in found]
    qualities = [image_quality(sample.truth, each) for sample, each in zip(dataset, kept, strict=True)]

    def rank(index: int) -> tuple[bool, float, int, int]:
        quality, hits, missed, false = qualities[index]
        return hits + missed + false == 0, -quality, missed + false, -hits  # empty and rightly so is not worth a look

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
        f"{qualities[i].false_negatives} missed, {qualities[i].false_positives} false"
        for place, i in chosen
    ]
    images = [_draw_judged(dataset[i], kept[i]) for _, i in chosen]
    return contact_sheet(images, captions=captions, cell_height=CELL_HEIGHT, cell_width=CELL_WIDTH, margin=12)


def _draw_judged(sample: Sample, found: Detections) -> Image.Image:
    """The image at the size that it is shown at, so that lines and texts keep theirs."""
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
        f"{name} {score:.2f}" if few or match == FP else ""
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
