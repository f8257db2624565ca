"""The report of an evaluation: its page, with the verdict, every error and what mending it would bring, and files."""

import csv
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int

from multibox.config import DetectorConfig
from multibox.data.sample import Dataset, GroundTruth
from multibox.detections import Detections
from multibox.evaluation.bootstrap import Comparison, Difference, compare
from multibox.evaluation.coco_matches import ClassMatches, match_by_class
from multibox.evaluation.errors import (
    BACKGROUND,
    NONE,
    ImageErrors,
    count_confusions,
    find_errors,
)
from multibox.evaluation.evaluate import counted_by
from multibox.evaluation.groups import ap_by_group
from multibox.evaluation.metrics import Metrics, Rule
from multibox.evaluation.precision_recall import PrecisionRecall, precision_recall_by_class
from multibox.evaluation.tide import analyze
from multibox.pages import hex_colors
from multibox.report.evaluation_figures import draw_confusions, draw_f1, draw_precision_recall, image_name
from multibox.report.files import REPORT_FILES
from multibox.report.html import curve_values, image_values, lowest_threshold, write_page
from multibox.report.slices import Slice, make_slices, sides_after_resize
from multibox.report.thumbnails import make_thumbnails
from multibox.report.verdict import Case, judge

FALSE_KINDS = {
    "duplicate": "It lies on an object of its class that another detection has found. A lower --iou suppresses more.",
    "wrong class": "It lies on an object of another class. Look for classes that are labeled alike; where that object "
    "is found as well, --class-agnostic leaves only the surer detection.",
    "poor box": "It is near an object of its class, but overlaps it by less than 0.5. Longer training makes boxes fit.",
    "background": "No object of its class is near. Look whether there is one that nobody has labeled.",
}
MISSED_KINDS = {
    "wrong class": "A detection of another class lies on it.",
    "low score": "A box fits, but scores below the threshold. A lower threshold finds it, at the price of false ones.",
    "poor box": "A detection of its class is near, but overlaps it by less than 0.5 or fits a neighbor better.",
    "not found": "No detection of its class is near. More images with such objects help; so may a larger --size.",
}

NO_THRESHOLD = 0.5
"""The stated threshold where no object is found at any."""


class RunHistory(NamedTuple):
    """A training run, as its folder shows it.

    Attributes:
        rows: Rows of `metrics.csv`.
        state: What it does now or how it ended, in a sentence.
        resume: The command that goes on with it.
    """

    rows: Sequence[Mapping[str, float | None]]
    state: str
    resume: str | None = None


class Report(NamedTuple):
    """A report that was written: the sentences of its verdict, and all that its page shows."""

    verdict: tuple[str, ...]
    page: Mapping[str, Any]


class Other(NamedTuple):
    """Another detector, to compare with: its name, and its detections in the same images."""

    name: str
    detections: Sequence[Detections]


def write_report(
    folder: Path,
    dataset: Dataset,
    metrics: Metrics,
    *,
    name: str | None = None,
    config: DetectorConfig | None = None,
    run: RunHistory | None = None,
    others: Sequence[Other] = (),
    facts: Mapping[str, str] | None = None,
    refresh: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Writes the `REPORT_FILES` to a folder, where files of these names are replaced. Returns the report.

    The page and the tables count at one score threshold for all classes: the one with the highest F1, which
    `metrics.score_threshold` is. On the page it can be moved.

    Args:
        folder: The folder; it is made if need be.
        dataset: The data set that was evaluated on.
        metrics: The result of `evaluate` on it, which holds the detections.
        name: Name of the detector.
        config: Config of the detector. Without it the report has nothing about its input and its feature maps.
        run: The training run, for its curves.
        others: Other detectors that are compared with this one by a paired bootstrap.
        facts: Further facts by name, such as the speed.
        refresh: Seconds after which a browser reads the page again, while it is still written to.
        on_progress: Called after each image with the number of images done and of all images.

    Raises:
        ValueError: The metrics hold no detections, or those of another data set; or there are others to compare with,
            and no object to compare by.
        ImportError: matplotlib or hotcoco is not installed.
    """
    given = {"the metrics hold the": metrics.detections} | {f"{each.name} has": each.detections for each in others}
    for what, detections in given.items():
        if len(detections) != len(dataset):
            raise ValueError(
                f"{what} detections of {len(detections)} images, but {dataset.name} has {len(dataset)}; give the "
                "result of evaluate() on this very data set"
            )
    if others:
        check_comparable(dataset, metrics.rule)
    check_matplotlib()
    truths = counted_by(metrics.rule, [sample.truth for sample in dataset])
    threshold = NO_THRESHOLD if metrics.score_threshold is None else metrics.score_threshold
    names = dataset.class_names
    errors = [find_errors(*pair, [threshold] * len(names)) for pair in zip(truths, metrics.detections, strict=True)]
    curves = precision_recall_by_class(
        truths,
        metrics.detections,
        num_classes=len(names),
        score_threshold=float(metrics.postprocess.get("score_threshold", 0.0)),
    )
    page, sentences = _page(
        dataset,
        metrics,
        truths,
        errors,
        curves,
        threshold,
        config=config,
        others=others,
        run=run,
        on_progress=on_progress,
    )
    page |= {"name": name, "facts": dict(facts or {}), "files": REPORT_FILES}

    confusions = count_confusions(errors, len(names))
    folder.mkdir(parents=True, exist_ok=True)
    _write_text(folder / "metrics.json", metrics.to_json() + "\n")
    write_results(folder / "results.csv", metrics)
    write_confusions(folder / "confusion_matrix.csv", confusions, names)
    write_false(folder / "false.csv", dataset, errors)
    write_missed(folder / "missed.csv", dataset, errors)
    draw_confusions(folder / "confusion_matrix.png", confusions, names)
    draw_precision_recall(folder / "PR_curve.png", *curves, metrics)
    draw_f1(folder / "F1_curve.png", *curves, names)
    write_page(folder / "index.html", page, refresh=refresh)
    return Report(sentences, page)


def _page(
    dataset: Dataset,
    metrics: Metrics,
    truths: Sequence[GroundTruth],
    errors: Sequence[ImageErrors],
    curves: tuple[PrecisionRecall, list[PrecisionRecall]],
    threshold: float,
    *,
    config: DetectorConfig | None,
    run: RunHistory | None,
    others: Sequence[Other],
    on_progress: Callable[[int, int], None] | None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns the data of the page, and the sentences of the verdict."""
    overall, by_class = curves
    names = dataset.class_names
    as_coco = [_without_difficult(truth) for truth in truths]
    order = sorted(
        range(len(dataset)), key=lambda i: (errors[i].quality, -len(errors[i].false) - len(errors[i].missed))
    )
    thumbnails = make_thumbnails(dataset, order, on_progress=on_progress)
    slices = make_slices(dataset, truths, metrics.detections, config=config, brightness=thumbnails.brightness)
    matches = match_by_class(as_coco, metrics.detections, names)
    tide, calibration = analyze(as_coco, metrics.detections, class_names=names)
    case = Case(
        truths,
        errors,
        names,
        threshold,
        sides_after_resize(dataset, truths, config),
        config,
        [max(sample.height, sample.width) for sample in dataset],
        overall,
        by_class,
        tide,
        metrics.postprocess,
        run.rows if run else (),
        run.resume if run else None,
    )
    verdict = judge(case)
    lowest = lowest_threshold(metrics.detections, threshold)
    page = {
        "dataset": dataset.name,
        "detector": None if config is None else f"{config.name}, {config.height} x {config.width} pixels",
        "metrics": json.loads(metrics.to_json()),
        "threshold": threshold,
        "lowest": lowest,
        "classes": names,
        "colors": hex_colors(len(names)),
        "verdict": {"sentences": verdict.sentences, "findings": [each._asdict() for each in verdict.findings]},
        "curves": {
            "thresholds": overall.thresholds.tolist(),
            "all": curve_values(overall),
            "classes": [curve_values(curve) for curve in by_class],
        },
        "tide": tide._asdict(),
        "calibration": {"error": calibration.error, "bins": [each._asdict() for each in calibration.bins]},
        "kinds": {"false": FALSE_KINDS, "missed": MISSED_KINDS},
        "slices": _slices(slices, matches),
        "images": image_values(
            dataset,
            truths,
            metrics.detections,
            uris=thumbnails.uris,
            slices=slices,
            lowest=lowest,
        ),
        "run": None if run is None else run_values(run),
        "comparisons": [
            {"name": each.name}
            | _comparison(
                compare(
                    matches,
                    match_by_class(as_coco, each.detections, names),
                    images=len(dataset),
                    class_names=names,
                )
            )
            for each in others
        ],
    }
    return page, verdict.sentences


def _without_difficult(truth: GroundTruth) -> GroundTruth:
    """Returns the objects with difficult ones as crowd regions: COCO's numbers leave out these alone."""
    return GroundTruth(truth.boxes, truth.labels, crowd=truth.crowd | truth.difficult, areas=truth.areas)


def run_values(run: RunHistory) -> dict[str, Any]:
    """Returns what the page shows of a run."""
    return {"rows": run.rows, "state": run.state}


def _slices(slices: Sequence[Slice], matches: Sequence[ClassMatches]) -> list[dict[str, Any]]:
    tables = ap_by_group(matches, [each.grouping for each in slices])
    return [
        {
            "title": each.title,
            "note": each.note,
            "names": each.names,
            "byImage": each.image_groups is not None,
            "ap": [group._asdict() for group in table],
        }
        for each, table in zip(slices, tables, strict=True)
    ]


def _comparison(compared: Comparison) -> dict[str, Any]:
    """Returns a comparison for the page."""
    overall = {"AP": compared.ap, "AP50": compared.ap50, "AP75": compared.ap75}
    rows: dict[str, Difference] = overall | {f"AP of {name}": value for name, value in compared.per_class.items()}
    return {"rows": [{"what": what} | difference._asdict() for what, difference in rows.items()]}


def check_comparable(dataset: Dataset, rule: Rule) -> None:
    """Checks that detectors can be compared on a data set, before any of them looks at it.

    Raises:
        ValueError: It has no object that counts by this rule.
    """
    if all(_without_difficult(truth).crowd.all() for truth in counted_by(rule, [each.truth for each in dataset])):
        raise ValueError(f"{dataset.name} has no object that counts, so detectors cannot be compared on it")


def check_matplotlib() -> None:
    """Checks that matplotlib is there, before any work begins.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ImportError("the report needs matplotlib: pip install 'multibox[train]', or matplotlib alone") from error


def write_results(path: Path, metrics: Metrics) -> None:
    """Writes a row of numbers for all classes together and one for each class as CSV, as fractions."""
    head = (
        "ap",
        "ap50",
        "objects",
        "true_positives",
        "false_positives",
        "precision",
        "recall",
        "f1",
        "score_threshold",
    )
    every: dict[str, Any] = {"all classes": vars(metrics), **metrics.per_class}
    rows = ([name, *("" if row[key] is None else row[key] for key in head)] for name, row in every.items())
    _write_csv(path, ["class", *head], rows)


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


def _class_name(label: int, class_names: Sequence[str]) -> str:
    return "" if label == NONE else class_names[label]


def _write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(head)
        writer.writerows(rows)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
