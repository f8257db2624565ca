"""The card of a run: its results, data and settings, and the commands to use next."""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from multibox.data.fingerprint import fingerprint
from multibox.data.sample import Dataset, GroundTruth, Sample
from multibox.detections import Detections
from multibox.detector import Detector
from multibox.evaluation.metrics import Metrics
from multibox.evaluation.precision_recall import precision_recall
from multibox.report.environment import versions
from multibox.report.figures import Row, best_row, draw_curves, draw_sheet

Card = Mapping[str, Any]
"""The content of `card.json`."""


def write_card(
    folder: Path,
    detector: Detector,
    *,
    train_set: Dataset,
    val_set: Dataset | None,
    shown: Dataset,
    found: Sequence[Detections],
    metrics: Metrics | None,
    rows: Sequence[Row],
    best_step: int,
    config: Mapping[str, object],
    facts: Mapping[str, object],
    data: Sequence[str] = (),
    val_split: str | None = None,
    unlabelled: str | None = None,
) -> tuple[Card, Image.Image]:
    """Writes `card.json`, its text form `card.md`, `curves.png`, and the sheet of images.

    The sheet is `validation.jpg`, or `training.jpg` if there is no validation set.

    Args:
        folder: Folder of the run. It holds `best.safetensors`.
        detector: The best detector of the run.
        train_set: The training set.
        val_set: The validation set.
        shown: The images that the sheet is chosen from: `val_set` or, if there is none, `images_to_show`.
        found: The detections in each of these images, at the detector's own thresholds.
        metrics: Metrics of the detector on `val_set`.
        rows: Rows of `metrics.csv`.
        best_step: Step of the best weights.
        config: Values of the run by name, including those of the recipe and of the machine.
        facts: Further facts about the run (device, processes, times, ...), by name.
        data: Folders of the data set, for the commands.
        val_split: Name of the validation split, for the commands.
        unlabelled: How unlabelled images were read, for the commands; None for the reader's own way.

    Returns:
        The card, and the sheet of images.
    """
    truths = [sample.truth for sample in shown]
    counts = precision_recall(truths, found)
    best = best_row(rows, best_step)
    threshold = counts.best_threshold
    values: dict[str, Any] = {
        "run": folder.name,
        "folder": str(folder),
        "detector": detector.config.name,
        "input": {"height": detector.config.height, "width": detector.config.width},
        "provenance": detector.provenance,
        "best": None if best is None else dict(best),
        "metrics": None if metrics is None else json.loads(metrics.to_json()),
        "score_threshold": round(threshold, 4),
        "data": {"train": _describe(train_set), "val": None if val_set is None else _describe(val_set)},
        "config": dict(config),
        "facts": dict(facts),
        "versions": versions(),
        "commands": commands(folder, data, val_split, shown, score_threshold=threshold, unlabelled=unlabelled),
    }
    draw_curves(rows, folder / "curves.png", best_step=best_step)
    sheet = draw_sheet(shown, found, score_threshold=threshold)
    sheet.save(folder / f"{'validation' if val_set else 'training'}.jpg", quality=90)
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False, default=str)
    (folder / "card.json").write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    card: Card = json.loads(text)
    (folder / "card.md").write_text(_markdown(card), encoding="utf-8", errors="backslashreplace")
    return card, sheet


def read_card(folder: Path) -> Card:
    """Returns the card of a finished run.

    Raises:
        FileNotFoundError: The folder has no card, because the run is not finished.
    """
    card: Card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    return card


def summary(card: Card) -> str:
    """Returns a few lines for the end of a run: accuracy, which weights, where they are, and the next commands."""
    best, metrics, folder = card["best"], card["metrics"], Path(card["folder"])
    lines = []
    if metrics is not None and metrics["ap"] is not None:
        named = ", ".join(f"{label} {_percent(metrics[name])}" for name, label in _MAIN.items())
        lines.append(f"{named} on {metrics['images']} validation images with {metrics['objects']} objects")
        classes = {name: values["ap"] for name, values in metrics["per_class"].items() if values["ap"] is not None}
        if 1 < len(classes) <= 10:
            lines.append("AP by class: " + ", ".join(f"{name} {_percent(ap)}" for name, ap in classes.items()))
    if best is not None:
        which = "best" if best["ap"] is not None else "last"
        lines.append(
            f"{which} weights: {folder / 'best.safetensors'}, of epoch {_epoch(best)} (step {best['step']:.0f})"
        )
    if card["facts"].get("time"):
        lines.append(f"time: {card['facts']['time']}")
    lines.append(f"report: {folder / 'card.md'}, with curves.png and {_sheet_name(card)}")
    lines += [f"to {name}: {command}" for name, command in card["commands"].items() if name != "train"]
    return "\n".join(lines)


def images_to_show(train_set: Dataset, *, most: int = 64) -> Dataset:
    """Returns up to `most` readable images from all over the training set."""
    count = min(most, len(train_set))
    chosen = [train_set[i * len(train_set) // count] for i in range(count)]
    return dataclasses.replace(train_set, samples=[sample for sample in chosen if _can_be_read(sample)])


def commands(
    folder: Path,
    data: Sequence[str],
    val_split: str | None,
    shown: Dataset,
    *,
    score_threshold: float,
    unlabelled: str | None = None,
) -> dict[str, str]:
    """Returns the commands to detect with the best weights, to evaluate them, and to train again.

    Args:
        folder: Folder of the run.
        data: Folders of the data set. Without any there is only the command to detect.
        val_split: Name of the validation split, if there is one.
        shown: Images of the run. The first one that is a file is the example to detect in.
        score_threshold: The threshold to detect with.
        unlabelled: How unlabelled images were read; None for the reader's own way.
    """
    best = shlex.quote(str(folder / "best.safetensors"))
    image = next((str(sample.image) for sample in shown if isinstance(sample.image, Path)), "IMAGE.jpg")
    lines = {
        "detect": f"multibox detect {shlex.quote(image)} --model {best} --score {score_threshold:.2f} "
        f"--out {shlex.quote(str(folder / 'found'))}"
    }
    if data:
        folders = " ".join(map(shlex.quote, data))
        lines["train"] = f"multibox train {folders} --config {shlex.quote(str(folder / 'config.yaml'))} --out FOLDER"
    if data and val_split is not None:
        for number, each in enumerate(data, start=1):
            name = "evaluate" if len(data) == 1 else f"evaluate {number}"
            read = f"--split {shlex.quote(val_split)}" + (f" --unlabelled {unlabelled}" if unlabelled else "")
            lines[name] = f"multibox evaluate {shlex.quote(each)} {read} --model {best}"
    return lines


_MAIN = {"ap": "AP", "ap50": "AP50", "ap75": "AP75"}
_ALL = _MAIN | {"ap_small": "AP small", "ap_medium": "AP medium", "ap_large": "AP large", "ar100": "AR100"}


def _can_be_read(sample: Sample) -> bool:
    try:
        sample.open()
    except (OSError, ValueError):
        return False
    return True


def _describe(dataset: Dataset) -> dict[str, object]:
    truths: list[GroundTruth] = [sample.truth for sample in dataset]
    return {
        "name": dataset.name,
        "images": len(dataset),
        "objects": sum(map(len, truths)),
        "images without objects": sum(len(truth) == 0 for truth in truths),
        "problems": len(dataset.problems),
        "fingerprint": fingerprint(dataset),
    }


def _markdown(card: Card) -> str:
    best, metrics, val = card["best"], card["metrics"], card["data"]["val"]
    shown = "validation" if val else "training"
    parts = [
        f"# {card['run']}",
        f"`{card['detector']}`, {card['input']['height']} x {card['input']['width']} pixels.",
        "## Result",
    ]
    if best is not None:
        what = "the last ones, because nothing was validated" if best["ap"] is None else "the best of all validations"
        parts.append(
            f"The weights in `best.safetensors` are of epoch {_epoch(best)} (step {best['step']:.0f}): {what}."
        )
    if metrics is not None:
        parts.append(_table(["", metrics["rule"]], [[label, _percent(metrics[name])] for name, label in _ALL.items()]))
        classes = [
            [name, _percent(values["ap"]), _bar(values["ap"]), _percent(values["ap50"]), values["objects"]]
            for name, values in metrics["per_class"].items()
        ]
        parts.append(_table(["class", "AP", "", "AP50", "objects"], classes))
    parts += [
        "![Losses and average precision over the epochs](curves.png)",
        f"The {shown} images on which the best weights do best and worst. Dashed boxes are annotated objects, solid "
        f"boxes are detections that score above {card['score_threshold']:.2f}, the threshold with the highest F1 on "
        "these images. The quality of an image is F1 times the mean IoU of its correct detections; a detection is "
        "correct if its IoU with an object of its class is at least 0.5.",
        f"![The best and worst {shown} images]({_sheet_name(card)})",
        "## Use",
        "```\n" + "\n".join(card["commands"].values()) + "\n```",
        "## Data",
    ]
    sets = {name: values for name, values in card["data"].items() if values}
    first = next(iter(sets.values()))
    parts += [
        _table(["", *sets], [[name, *[values[name] for values in sets.values()]] for name in first]),
        "The fingerprint is the SHA-256 of class names, image names and sizes, boxes, labels and marks.",
        "## Run",
        _table(["", ""], [*card["config"].items(), *card["facts"].items()]),
        "## Versions",
        _table(["", ""], [*card["versions"].items(), *card["provenance"].items()]),
    ]
    return "\n\n".join(parts) + "\n"


def _sheet_name(card: Card) -> str:
    return f"{'validation' if card['data']['val'] else 'training'}.jpg"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(" ".join(_cell(cell).split()).replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, list | tuple):
        return ", ".join(map(_cell, value)) or "none"
    return str(value)


def _epoch(row: Row) -> str:
    """Returns the epoch of a row, which need not be a whole number, with at most one decimal."""
    return f"{round(row['epoch'] or 0, 1):g}"


def _number(value: float) -> str:
    """Returns a number with four digits and without an exponent: 0.001, 2.286, 1234."""
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return np.format_float_positional(value, precision=4, fractional=False, trim="-")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _bar(value: float | None) -> str:
    return "" if value is None else "\u2588" * round(20 * value) + "\u2591" * round(20 * (1 - value))
