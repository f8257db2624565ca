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
from multibox.evaluation.evaluate import counted_by
from multibox.evaluation.metrics import Metrics
from multibox.evaluation.precision_recall import match_detections, precision_recall
from multibox.messages import percent
from multibox.report.environment import versions
from multibox.report.figures import Row, best_row, draw_curves, draw_sheet
from multibox.report.overview import objects_by_class
from multibox.report.tables import class_table
from multibox.weights.published import is_weights

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

    The sheet is `validation.jpg`, or `training.jpg` if there is no validation set. The card links `labels.jpg` and
    `batch.jpg` if they are in the folder.

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
    if metrics is not None:
        truths = counted_by(metrics.rule, truths)
    best = best_row(rows, best_step)
    measured = detector.score_thresholds
    # without thresholds of its own, the detector gets one for all classes: that with the highest F1
    overall = detector.config.detect_score_threshold if measured else precision_recall(truths, found).best_threshold
    thresholds = {name: round(measured.get(name, overall), 4) for name in detector.class_names}
    sheet_names = ("curves.png", f"{'validation' if val_set else 'training'}.jpg")
    values: dict[str, Any] = {
        "run": folder.name,
        "folder": str(folder),
        "detector": detector.config.name,
        "input": {"height": detector.config.height, "width": detector.config.width},
        "provenance": detector.provenance,
        "best": None if best is None else dict(best),
        "metrics": None if metrics is None else json.loads(metrics.to_json()),
        "score_thresholds": thresholds,
        "classes": _class_results(truths, found, thresholds, metrics),
        "data": {"train": _describe(train_set), "val": None if val_set is None else _describe(val_set)},
        "config": dict(config),
        "facts": dict(facts),
        "versions": versions(),
        "commands": commands(
            folder,
            data,
            val_split,
            shown,
            score_threshold=None if measured else overall,
            length=longer(config),
            unlabelled=unlabelled,
        ),
        "images": [name for name in (*_OVERVIEW, *sheet_names) if (folder / name).exists() or name in sheet_names],
    }
    draw_curves(rows, folder / "curves.png", best_step=best_step)
    sheet = draw_sheet(shown, found, score_thresholds=thresholds)
    sheet.save(folder / sheet_names[-1], quality=90)
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
    """Returns the lines for the end of a run: accuracy by class, which weights, where they are, and what to do next."""
    best, metrics, folder = card["best"], card["metrics"], Path(card["folder"])
    lines = []
    if metrics is not None and metrics["ap"] is not None:
        named = ", ".join(f"{label} {percent(metrics[name])}" for name, label in _MAIN.items())
        lines.append(f"{named} on {metrics['images']} validation images with {metrics['objects']} objects")
        lines += ["", *class_table(CLASS_HEAD, _class_rows(card)), ""]
    if best is not None:
        kind = "last" if best["ap"] is None else "best"
        lines.append(f"{kind} weights: {_which(best)}{'' if best['step'] else ', which no later ones surpass'}")
    if card["facts"].get("time"):
        lines.append(f"time: {card['facts']['time']}")
    lines.append(f"card: {folder / 'card.md'}, with {', '.join(card['images'])}")
    for name, command in card["commands"].items():
        if name != "train again":
            lines += [f"to {name}:", f"  {command}"]
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
    score_threshold: float | None,
    length: str | None,
    unlabelled: str | None = None,
) -> dict[str, str]:
    """Returns the commands to evaluate the best weights, to detect with them, to train longer, and to train again.

    Args:
        folder: Folder of the run.
        data: Folders of the data set. Without any there is only the command to detect.
        val_split: Name of the validation split, if there is one.
        shown: Images of the run. The first one that is a file is the example to detect in.
        score_threshold: The threshold to detect with, if it is not the detector's own.
        length: The flag with the length of a longer run.
        unlabelled: How unlabelled images were read; None for the reader's own way.
    """
    run = shlex.quote(str(folder))
    best = run if is_weights(folder) else shlex.quote(str(folder / "best.safetensors"))  # a preset's name is no run
    image = next((str(sample.image) for sample in shown if isinstance(sample.image, Path)), "IMAGE.jpg")
    lines = {}
    if data and val_split is not None:
        for number, each in enumerate(data, start=1):
            name = "evaluate" if len(data) == 1 else f"evaluate {number}"
            lines[name] = evaluate_command(each, val_split, folder / "best.safetensors", unlabelled=unlabelled)
    score = "" if score_threshold is None else f"--score {score_threshold:.2f} "
    lines["detect"] = (
        f"multibox detect {shlex.quote(image)} --model {best} {score}--out {shlex.quote(str(folder / 'found'))}"
    )
    if data:
        if length:
            lines["train longer"] = resume_command(folder, length)
        folders = " ".join(map(shlex.quote, data))
        lines["train again"] = (
            f"multibox train {folders} --config {shlex.quote(str(folder / 'config.yaml'))} --out FOLDER"
        )
    return lines


def evaluate_command(data: str, split: str, model: Path, *, unlabelled: str | None = None) -> str:
    """Returns the command that scores a model on a split of the data, which are read as the run has read them."""
    read = [] if unlabelled is None else ["--unlabelled", unlabelled]
    return shlex.join(["multibox", "evaluate", data, "--split", split, *read, "--model", str(model)])


def resume_command(folder: Path, length: str | None = None) -> str:
    """Returns the command that goes on with a run, to another length if its flag is given."""
    command = shlex.join(["multibox", "train", "--resume", str(folder)])
    return f"{command} {length}" if length else command


def longer(config: Mapping[str, object]) -> str | None:
    """Returns the flag for a run of twice the length."""
    for name in ("epochs", "steps", "minutes"):
        if isinstance(value := config.get(name), int | float):
            return f"--{name} {2 * value:g}"
    return None


CLASS_HEAD = ("class", "AP", "AP50", "precision", "recall", "F1", "score >", "objects")
"""Columns of the table by class: AP over all scores, then the results of the detections above the threshold."""


def _class_results(
    truths: Sequence[GroundTruth],
    found: Sequence[Detections],
    thresholds: Mapping[str, float],
    metrics: Metrics | None,
) -> dict[str, dict[str, float | None]]:
    """Returns precision, recall and F1 of each class above its score threshold, and its AP."""
    matches = list(map(match_detections, truths, found))
    results = {}
    for label, (name, threshold) in enumerate(thresholds.items()):
        above = np.array([threshold])
        at = precision_recall(truths, found, label=label, matches=matches, thresholds=above)
        found_any = bool(at.true_positives[0] + at.false_positives[0])
        ap = metrics.per_class[name] if metrics else {"ap": None, "ap50": None}
        results[name] = {
            "ap": ap["ap"],
            "ap50": ap["ap50"],
            "precision": float(at.precision[0]) if found_any else None,
            "recall": float(at.recall[0]) if at.objects else None,
            "f1": float(at.f1[0]) if at.objects else None,
            "score_threshold": threshold,
            "objects": at.objects,
        }
    return results


def _class_rows(card: Card) -> list[list[str]]:
    """Returns the rows of the table by class."""
    return [
        [
            name,
            *(percent(values[key]) for key in ("ap", "ap50", "precision", "recall", "f1")),
            f"{values['score_threshold']:.2f}",
            f"{values['objects']:,}",
        ]
        for name, values in card["classes"].items()
    ]


def _which(best: Row) -> str:
    """Returns which weights the best ones are: those of an epoch, or the start."""
    if best["step"] == 0:
        return "the start (epoch 0)"
    return f"epoch {_epoch(best)} (step {best['step']:.0f})"


_OVERVIEW = ("labels.jpg", "batch.jpg")
_ALT = {
    "labels.jpg": "The training labels: their number by class, where, how large and how many they are",
    "batch.jpg": "The first batch, as the network sees it",
}
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
    by_class = zip(dataset.class_names, objects_by_class(dataset).tolist(), strict=True)
    return {
        "name": dataset.name,
        "images": len(dataset),
        "objects": sum(map(len, truths)),
        "images without objects": sum(len(truth) == 0 for truth in truths),
        "problems": len(dataset.problems),
        "fingerprint": fingerprint(dataset),
        "objects by class": dict(by_class),
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
        parts.append(f"The weights in `best.safetensors` are of {_which(best)}: {what}.")
    if metrics is not None:
        parts.append(_table(["", metrics["rule"]], [[label, percent(metrics[name])] for name, label in _ALL.items()]))
        parts.append(_table(CLASS_HEAD, _class_rows(card)))
        parts.append(
            "Precision, recall and F1 are those of the detections that score above the threshold of their class, with "
            "an IoU of at least 0.5. The threshold is the one with the highest F1 on the validation set. It is stored "
            "in the weights, and `detect` uses it by default."
        )
    parts += [
        "![Losses and average precision over the epochs](curves.png)",
        f"The {shown} images on which the best weights do best and worst. Dashed boxes are annotated objects, solid "
        "boxes are detections that score above the threshold of their class: "
        + ", ".join(f"{name} {threshold:.2f}" for name, threshold in card["score_thresholds"].items())
        + ". The quality of an image is F1 times the mean IoU of its correct detections; a detection is "
        "correct if its IoU with an object of its class is at least 0.5.",
        f"![The best and worst {shown} images]({_sheet_name(card)})",
        "## Use",
        "```\n" + "\n".join(card["commands"].values()) + "\n```",
        "## Data",
    ]
    sets = {name: dict(values) for name, values in card["data"].items() if values}
    by_class = [values.pop("objects by class") for values in sets.values()]
    parts += [
        _table(["", *sets], [[name, *[values[name] for values in sets.values()]] for name in sets["train"]]),
        _table(["objects by class", *sets], [[name, *[of[name] for of in by_class]] for name in by_class[0]]),
        *(f"![{_ALT[name]}]({name})" for name in _OVERVIEW if name in card["images"]),
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
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(part)}" for name, part in value.items())
    return str(value)


def _epoch(row: Row) -> str:
    """Returns the epoch of a row, which need not be a whole number, with at most one decimal."""
    return f"{round(row['epoch'] or 0, 1):g}"


def _number(value: float) -> str:
    """Returns a number with four digits and without an exponent: 0.001, 2.286, 1234."""
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return np.format_float_positional(value, precision=4, fractional=False, trim="-")
