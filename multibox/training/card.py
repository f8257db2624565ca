"""What a run leaves at its end: the card, which says what came out, of what, and how; and the figures beside it."""

import dataclasses
import json
import platform
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multibox.data.fingerprint import fingerprint
from multibox.data.sample import Dataset, GroundTruth, Sample
from multibox.detections import Detections
from multibox.detector import Detector
from multibox.evaluation.metrics import Metrics
from multibox.evaluation.precision_recall import precision_recall
from multibox.training.figures import Row, best_row, draw_curves, draw_images
from multibox.training.recipes import TrainConfig

_PACKAGE = Path(__file__).parents[1]


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
    config: TrainConfig,
    facts: Mapping[str, object],
    data: Sequence[str] = (),
    val_split: str | None = None,
) -> None:
    """Writes `curves.png`, `validation.jpg`, `card.json` and, the same for readers, `card.md`.

    Args:
        folder: Of the run; holds `best.safetensors`.
        detector: The best of the run.
        train_set: What was learned from.
        val_set: What was validated on.
        shown: The images to choose from for `validation.jpg`: `val_set`, or without one `images_to_show`.
        found: What the detector finds in each of them, at its own thresholds.
        metrics: The detector's on `val_set`.
        rows: Of `metrics.csv`.
        best_step: That of the detector.
        config: All values of the run, those of the recipe and of the machine among them.
        facts: What only the loop knows (processes, threads, times, ...), named as it is to be read.
        data: The folders of the data set, for the commands on the card.
        val_split: Of the data set, the same.
    """
    truths = [sample.truth for sample in shown]
    counts = precision_recall(truths, found)
    best = best_row(rows, best_step)
    card: dict[str, Any] = {
        "run": folder.name,
        "detector": detector.config.name,
        "input": {"height": detector.config.height, "width": detector.config.width},
        "provenance": detector.provenance,
        "best": None if best is None else dict(best),
        "metrics": None if metrics is None else json.loads(metrics.to_json()),
        "score_threshold": round(counts.best_threshold, 4),
        "data": {"train": _describe(train_set), "val": None if val_set is None else _describe(val_set)},
        "config": config.values(),
        "facts": dict(facts),
        "versions": versions(),
        "commands": commands(folder, data, val_split, shown, score_threshold=counts.best_threshold),
    }
    draw_curves(rows, folder / "curves.png", best_step=best_step)
    draw_images(shown, found, score_threshold=counts.best_threshold).save(folder / "validation.jpg", quality=90)
    text = json.dumps(card, indent=2, ensure_ascii=False, default=str)
    (folder / "card.json").write_text(text + "\n", encoding="utf-8", errors="backslashreplace")
    (folder / "card.md").write_text(_markdown(json.loads(text)), encoding="utf-8", errors="backslashreplace")


def images_to_show(train_set: Dataset, *, most: int = 64) -> Dataset:
    """Images from all over the training set that can be read."""
    count = min(most, len(train_set))
    chosen = [train_set[i * len(train_set) // count] for i in range(count)]
    return dataclasses.replace(train_set, samples=[sample for sample in chosen if _can_be_read(sample)])


def _can_be_read(sample: Sample) -> bool:
    try:
        sample.open()
    except (OSError, ValueError):
        return False
    return True


def commands(
    folder: Path, data: Sequence[str], val_split: str | None, shown: Dataset, *, score_threshold: float
) -> dict[str, str]:
    """What to type to evaluate the best weights, to detect with them, and to train another time."""
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
            lines[name] = f"multibox evaluate {shlex.quote(each)} --split {shlex.quote(val_split)} --model {best}"
    return lines


def versions() -> dict[str, str | None]:
    """Of all that the numbers of a run may depend on; `None` where there is none."""
    return {
        "multibox": version("multibox"),
        "commit": commit(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "CUDA": torch.version.cuda,
        "numpy": np.__version__,
        "Pillow": version("pillow"),
        "Python": platform.python_version(),
        "system": platform.platform(),
    }


def device_name(device: str) -> str:
    """What the device is, for people: a GPU's model, or the processor's."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(models), platform.processor() or platform.machine())


def commit() -> str | None:
    """The commit of the checkout that this package is part of, "-dirty" where files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=_PACKAGE, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    try:
        git(
            "ls-files", "--error-unmatch", "__init__.py"
        )  # an installed package may lie in a checkout of something else
        return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return None


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


def _markdown(card: Mapping[str, Any]) -> str:
    best, metrics, val = card["best"], card["metrics"], card["data"]["val"]
    shown = "validation" if val else "training"
    parts = [
        f"# {card['run']}",
        f"`{card['detector']}`, {card['input']['height']} x {card['input']['width']} pixels.",
        "## Result",
    ]
    if best is not None:
        what = "the last ones: nothing was validated" if best["ap"] is None else "the best of all validations"
        parts.append(
            f"The weights in `best.safetensors` are of epoch {best['epoch']:.4g} (step {best['step']:.0f}), {what}."
        )
    if metrics is not None:
        names = {
            "ap": "AP", "ap50": "AP50", "ap75": "AP75",
            "ap_small": "AP small", "ap_medium": "AP medium", "ap_large": "AP large", "ar100": "AR100",
        }  # fmt: skip
        parts.append(_table(["", metrics["rule"]], [[label, _percent(metrics[name])] for name, label in names.items()]))
        classes = [
            [name, _percent(values["ap"]), _bar(values["ap"]), _percent(values["ap50"]), values["objects"]]
            for name, values in metrics["per_class"].items()
        ]
        parts.append(_table(["class", "AP", "", "AP50", "objects"], classes))
    parts += [
        "![Losses and average precision over the epochs](curves.png)",
        f"The {shown} images on which the best weights are at their best and worst. Objects are dashed; detections "
        f"are drawn where they score above {card['score_threshold']:.2f}, the threshold of the highest F1 on these "
        "images. Quality is F1 times the mean overlap of the hits; a hit overlaps an object of its class by at least "
        "0.5.",
        f"![The best and worst {shown} images](validation.jpg)",
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


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    def line(cells: Sequence[object]) -> str:
        texts = ["-" if cell is None else f"{cell:.6g}" if isinstance(cell, float) else str(cell) for cell in cells]
        return "| " + " | ".join(" ".join(text.split()).replace("|", "\\|") for text in texts) + " |"

    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)])


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _bar(value: float | None) -> str:
    return "" if value is None else "\u2588" * round(20 * value) + "\u2591" * round(20 * (1 - value))
