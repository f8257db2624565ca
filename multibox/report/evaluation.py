"""The report of an evaluation: confusions, curves, every false detection and missed object, and the worst images."""

import csv
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from multibox.data.sample import Dataset
from multibox.evaluation.errors import (
    BACKGROUND,
    NONE,
    ImageErrors,
    best_thresholds,
    count_confusions,
    count_kinds,
    find_errors,
)
from multibox.evaluation.evaluate import counted_by
from multibox.evaluation.metrics import Metrics
from multibox.evaluation.precision_recall import precision_recall_by_class
from multibox.messages import percent
from multibox.report.evaluation_figures import (
    draw_confusions,
    draw_f1,
    draw_precision_recall,
    draw_worst,
    image_name,
    two_digits,
)

REPORT_FILES = {
    "index.html": "this page",
    "metrics.json": "all numbers of the evaluation, as fractions",
    "confusion.png": "the confusion matrix, drawn",
    "confusion.csv": "the confusion matrix: a row for the class of the objects, a column for that of the detections",
    "precision-recall.png": "precision by recall at all score thresholds",
    "f1.png": "F1 by score threshold; its peak is the best threshold",
    "false.csv": "every false detection: image, class, score, box, kind of error, and the object that it overlaps most",
    "missed.csv": "every missed object: image, class, box, kind of error, the detection that overlaps it most, and the "
    "highest score that a fitting box of its class has",
    "worst.jpg": "the images with the most errors, drawn",
}
"""The files that `write_report` writes, and what each of them holds."""

FALSE_KINDS = {
    "wrong class": "It lies on an object of another class. Look for classes that are labeled alike in confusion.png.",
    "duplicate": "It lies on an object that another detection has found. A lower --iou suppresses more of them.",
    "poor box": "It is near an object of its class, but overlaps it by less than 0.5. Longer training makes boxes fit.",
    "background": "No object of its class is near. Look in worst.jpg whether there is one that nobody has labeled.",
}
MISSED_KINDS = {
    "wrong class": "A detection of another class lies on it.",
    "low score": "A box fits, but scores below the threshold. A lower --score finds it, at the price of false ones.",
    "poor box": "A detection of its class is near, but overlaps it by less than 0.5 or fits a neighbor better.",
    "not found": "No detection of its class is near. More images with such objects help; so may a larger --size.",
}


def write_report(
    folder: Path, dataset: Dataset, metrics: Metrics, *, on_progress: Callable[[int, int], None] | None = None
) -> None:
    """Writes the `REPORT_FILES` to a folder. Files of these names are replaced.

    Args:
        folder: The folder; it is made if need be.
        dataset: The data set that was evaluated on.
        metrics: The result of `evaluate` on it, which holds the detections.
        on_progress: Called after each image with the number of images done and of all images.

    Raises:
        ValueError: The metrics hold no detections, or those of another data set.
        ImportError: matplotlib is not installed.
    """
    if len(metrics.detections) != len(dataset):
        raise ValueError(
            f"the metrics hold the detections of {len(metrics.detections)} images, but {dataset.name} has "
            f"{len(dataset)}; give the result of evaluate() on this very data set"
        )
    check_matplotlib()
    names = dataset.class_names
    truths = counted_by(metrics.rule, [sample.truth for sample in dataset])
    thresholds = best_thresholds(metrics)
    errors: list[ImageErrors] = []
    for truth, found in zip(truths, metrics.detections, strict=True):
        errors.append(find_errors(truth, found, thresholds))
        if on_progress is not None:
            on_progress(len(errors), len(dataset))
    overall, by_class = precision_recall_by_class(
        truths,
        metrics.detections,
        num_classes=len(names),
        score_threshold=float(metrics.postprocess.get("score_threshold", 0.0)),
    )
    confusions = count_confusions(errors, len(names))

    folder.mkdir(parents=True, exist_ok=True)
    _write_text(folder / "metrics.json", metrics.to_json() + "\n")
    write_confusions(folder / "confusion.csv", confusions, names)
    write_false(folder / "false.csv", dataset, errors)
    write_missed(folder / "missed.csv", dataset, errors)
    draw_confusions(folder / "confusion.png", confusions, names)
    draw_precision_recall(folder / "precision-recall.png", overall, by_class, metrics)
    draw_f1(folder / "f1.png", overall, by_class, names)
    draw_worst(dataset, errors).save(folder / "worst.jpg", quality=90)
    _write_text(folder / "index.html", _page(dataset, metrics, thresholds, errors))


def check_matplotlib() -> None:
    """Checks that matplotlib is there, before any work begins.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("the report needs matplotlib: pip install 'multibox[train]', or matplotlib alone") from error


def write_confusions(path: Path, confusions: Int[np.ndarray, "objects detections"], class_names: Sequence[str]) -> None:
    """Writes the confusion matrix as CSV: a row for each class of objects, a column for each class of detections."""
    names = [*class_names, BACKGROUND]
    rows = ([name, *row] for name, row in zip(names, confusions.tolist(), strict=True))
    _write_csv(path, ["object", *names], rows)


def write_false(path: Path, dataset: Dataset, errors: Sequence[ImageErrors]) -> None:
    """Writes a row for each false detection as CSV."""
    head = "image", "class", "score", "x_min", "y_min", "x_max", "y_max", "error", "best_iou", "best_class"
    rows = (
        [
            *(image_name(sample), image.found.names[wrong.detection], f"{image.found.scores[wrong.detection]:.4f}"),
            *(f"{value:.2f}" for value in image.found.boxes[wrong.detection]),
            *(wrong.kind, f"{wrong.overlap:.3f}", _class_name(wrong.label, dataset.class_names)),
        ]
        for sample, image in zip(dataset, errors, strict=True)
        for wrong in image.false
    )
    _write_csv(path, head, rows)


def write_missed(path: Path, dataset: Dataset, errors: Sequence[ImageErrors]) -> None:
    """Writes a row for each missed object as CSV. `score` is empty if no detection of its class fits it."""
    head = "image", "class", "x_min", "y_min", "x_max", "y_max", "error", "best_iou", "best_class", "score"
    rows = (
        [
            *(image_name(sample), dataset.class_names[sample.truth.labels[lost.object]]),
            *(f"{value:.2f}" for value in sample.truth.boxes[lost.object]),
            *(lost.kind, f"{lost.overlap:.3f}", _class_name(lost.label, dataset.class_names)),
            "" if lost.score is None else f"{lost.score:.4f}",
        ]
        for sample, image in zip(dataset, errors, strict=True)
        for lost in image.missed
    )
    _write_csv(path, head, rows)


def _page(dataset: Dataset, metrics: Metrics, thresholds: Sequence[float], errors: Sequence[ImageErrors]) -> str:
    """Returns `index.html`: the numbers, the figures, and what each file holds."""
    rows = [
        [name, percent(row["ap"]), percent(row["ap50"]), row["objects"], *_rates(row)]
        for name, row in metrics.per_class.items()
    ]
    overall: dict[str, Any] = vars(metrics)
    rows.insert(0, ["all classes", percent(metrics.ap), percent(metrics.ap50), metrics.objects, *_rates(overall)])
    head = ["class", "AP", "AP50", "objects", "found", "false", "precision", "recall", "F1", "threshold"]
    false, missed = count_kinds(errors)
    files = "".join(f'<tr><td><a href="{name}">{name}</a><td>{escape(text)}' for name, text in REPORT_FILES.items())
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Evaluation on {escape(dataset.name)}</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; color: #222 }}
  img {{ max-width: 100% }}
  table {{ border-collapse: collapse; margin-bottom: 1.5rem; font-variant-numeric: tabular-nums }}
  td, th {{ padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #ddd; text-align: right }}
  td:first-child, th:first-child, .text td {{ text-align: left }}
</style>
<h1>Evaluation on {escape(dataset.name)}</h1>
<p>{metrics.images} images, {metrics.objects} objects. AP by the rule <code>{metrics.rule}</code>, in percent.</p>
{_table(head, rows)}
<p>An object is found if a detection of its class overlaps it by at least 0.5 (intersection over union) and scores
above the threshold. <b>Precision</b> is the share of the detections that are right, <b>recall</b> the share of the
objects that are found, and <b>F1</b> their harmonic mean. Each class is counted at the threshold with its highest F1,
and all classes together at the one that is best for all. All files below count at the thresholds of the classes.</p>
<h2>Errors</h2>
<div class="text">
{_table(["false detections", "", ""], [[kind, number, FALSE_KINDS[kind]] for kind, number in false.items()])}
{_table(["missed objects", "", ""], [[kind, number, MISSED_KINDS[kind]] for kind, number in missed.items()])}
</div>
<h2>Confusions</h2>
<p>The last column has the objects that no detection found, the last row the detections of nothing.</p>
<a href="confusion.png"><img src="confusion.png" alt="Confusion matrix"></a>
<h2>Curves</h2>
<a href="precision-recall.png"><img src="precision-recall.png" alt="Precision by recall"></a>
<a href="f1.png"><img src="f1.png" alt="F1 by score threshold"></a>
<h2>The worst images</h2>
<a href="worst.jpg"><img src="worst.jpg" alt="The images with the lowest quality"></a>
<h2>Files</h2>
<table class="text">{files}</table>
</html>
"""


def _rates(row: Any) -> list[object]:
    if row["score_threshold"] is None:
        return ["-", "-", "-", percent(row["recall"]), percent(row["f1"]), "-"]
    rates = [percent(row[name]) for name in ("precision", "recall", "f1")]
    return [row["true_positives"], row["false_positives"], *rates, two_digits(row["score_threshold"])]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}" for cell in head)]
    lines += ["<tr>" + "".join(f"<td>{escape(str(cell))}" for cell in row) for row in rows]
    return "<table>" + "\n".join(lines) + "</table>"


def _class_name(label: int, class_names: Sequence[str]) -> str:
    return "" if label == NONE else class_names[label]


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
