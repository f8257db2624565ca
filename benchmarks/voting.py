"""Measure what box voting brings: AP with `merge="none"` and `merge="weighted"`, of the same outputs of a network.

    python -m benchmarks.voting MODEL [MODEL ...] --data DATA [--split test] [--rename coco-to-voc] [--images 300]

Each network looks at each image once, on the CPU. Its outputs are postprocessed in both ways at several IoU thresholds,
and scored by COCO's rule. AP is that of `multibox evaluate`. The interval holds 95 % of the differences between the two
ways on sets of as many images, drawn with replacement from the same ones (a paired bootstrap). In these drawn sets, the
matches of detections to objects are those of hotcoco's rule without crowd regions, so data with such regions are
refused.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

import multibox
from benchmarks import runs
from multibox.boxes import box_iou
from multibox.config import Postprocess
from multibox.data.read import EVALUATION_SPLITS
from multibox.data.sample import Dataset, GroundTruth
from multibox.detections import Detections
from multibox.detector import Detector
from multibox.evaluation.evaluate import check_rename, evaluate, score
from multibox.evaluation.rename import RENAMES
from multibox.report.environment import commit, device_name
from multibox.runtimes.runtime import RawOutputs
from multibox.runtimes.torch_runtime import TorchRuntime

OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MEASURES = {"ap": slice(None), "ap50": slice(0, 1), "ap75": slice(5, 6)}
BATCH = 8
RESAMPLES = 1000


class RunOnce:
    """A runtime that runs the network once for each batch, and gives later calls with this batch the same outputs."""

    suppresses = False

    def __init__(self, runtime: TorchRuntime, settings: Postprocess) -> None:
        self._runtime, self._settings = runtime, settings
        self._inputs = np.empty(0)
        self._outputs: Any = None

    def __call__(self, inputs: np.ndarray, **_: Any) -> RawOutputs:
        if not np.array_equal(inputs, self._inputs):
            self._inputs, self._outputs = inputs, self._runtime(inputs, settings=self._settings)
        return self._outputs  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.voting", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="weights file, folder of a run, or published name")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", help="by default val, or test if there is no val")
    parser.add_argument("--rename", choices=tuple(RENAMES), help="as in multibox evaluate")
    parser.add_argument("--iou", type=float, nargs="+", default=[0.45, 0.5, 0.55, 0.6], help="IoU thresholds")
    parser.add_argument("--score", type=float, help="score threshold; by default the detector's own")
    parser.add_argument("--images", type=int, help="only this many images, evenly spread over the split")
    parser.add_argument("--resamples", type=int, default=RESAMPLES, help="drawn sets of the bootstrap")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file to write all numbers to")
    arguments = parser.parse_args()
    results = []
    for model in arguments.models:
        detector = multibox.load(model)
        dataset = runs.read(arguments.data, arguments.split, EVALUATION_SPLITS, arguments.images)
        result = measure(
            detector,
            dataset,
            rename=RENAMES[arguments.rename] if arguments.rename else {},
            iou_thresholds=arguments.iou,
            score_threshold=arguments.score,
            resamples=arguments.resamples,
        )
        print(f"{model} on {dataset.name}, {len(dataset)} images, {device_name('cpu')}, commit {commit()}\n")
        print(table(result))
        results.append({"model": model, "data": dataset.name, "images": len(dataset), "commit": commit(), **result})
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def measure(
    detector: Detector,
    dataset: Dataset,
    *,
    rename: Mapping[str, str],
    iou_thresholds: Sequence[float],
    score_threshold: float | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Returns AP, AP50 and AP75 for each threshold with and without voting, and the interval of the difference."""
    if any(sample.truth.crowd.any() for sample in dataset):
        raise ValueError(f"{dataset.name} has crowd regions, which the bootstrap does not handle")
    runtime = RunOnce(TorchRuntime(detector.config, detector.network.cpu()), detector.config.postprocess)
    detector = Detector(detector.config, detector.class_names, runtime)
    if rename:
        check_rename(rename, detector.class_names, dataset)
    ways = [(iou, merge) for iou in iou_thresholds for merge in ("none", "weighted")]
    found: dict[Any, list[Detections]] = {way: [] for way in ways}
    for start in range(0, len(dataset), BATCH):
        part = replace(dataset, samples=dataset.samples[start : start + BATCH])
        for iou, merge in ways:
            metrics = evaluate(
                detector,
                part,
                score_threshold=score_threshold,
                iou_threshold=iou,
                merge=merge,
                batch_size=BATCH,
                rename=rename,
                progress=False,
            )
            found[iou, merge] += metrics.detections
    truths = [sample.truth for sample in dataset]
    draws = np.random.default_rng(0).multinomial(len(truths), [1 / len(truths)] * len(truths), size=resamples)
    rows = []
    for iou in iou_thresholds:
        row: dict[str, Any] = {"iou_threshold": iou}
        by_draw = {}
        for merge in ("none", "weighted"):
            metrics = score(truths, found[iou, merge], class_names=dataset.class_names, rule="coco")
            row[merge] = {name: getattr(metrics, name) for name in MEASURES}
            matched = match(truths, found[iou, merge], len(dataset.class_names))
            whole = average_precision(matched, np.ones(len(truths), dtype=np.int64))
            if abs(whole["ap"] - (metrics.ap or 0)) > 1e-6:
                raise RuntimeError(f"AP is {metrics.ap}, but {whole['ap']} in the bootstrap")
            by_draw[merge] = [average_precision(matched, draw) for draw in draws]
        for name in MEASURES:
            pairs = zip(by_draw["none"], by_draw["weighted"], strict=True)
            differences = [after[name] - before[name] for before, after in pairs]
            low, high = np.quantile(differences, [0.025, 0.975]) if resamples else (0.0, 0.0)
            row[f"{name}_interval"] = [float(low), float(high)]
        rows.append(row)
    return {"rows": rows, "resamples": resamples}


@dataclass(frozen=True, eq=False)
class Matched:
    """The detections of one class in all images, the highest score first, and the number of objects by image.

    Attributes:
        images: Index of the image of each detection.
        right: Whether each detection finds an object, at each overlap.
        objects: Number of objects in each image.
    """

    images: Int[np.ndarray, " detections"]
    right: Bool[np.ndarray, "overlaps detections"]
    objects: Int[np.ndarray, " images"]


def match(truths: Sequence[GroundTruth], detections: Sequence[Detections], num_classes: int) -> list[Matched]:
    """Returns the detections of each class with their matches by COCO's rule, which do not depend on other images."""
    classes = []
    for label in range(num_classes):
        images, scores, right = [np.empty(0, np.int64)], [np.empty(0)], [np.empty((len(OVERLAPS), 0), dtype=bool)]
        for image, (truth, found) in enumerate(zip(truths, detections, strict=True)):
            own = np.flatnonzero(found.labels == label)[:100]
            overlaps = box_iou(
                found.boxes[own].astype(np.float64), truth.boxes[truth.labels == label].astype(np.float64)
            )
            images.append(np.full(len(own), image))
            scores.append(found.scores[own])
            right.append(np.array([_match_image(overlaps, least) for least in OVERLAPS]).reshape(len(OVERLAPS), -1))
        order = np.argsort(-np.concatenate(scores), kind="stable")
        objects = np.array([np.count_nonzero(truth.labels == label) for truth in truths])
        classes.append(Matched(np.concatenate(images)[order], np.concatenate(right, axis=1)[:, order], objects))
    return classes


def _match_image(overlaps: Float[np.ndarray, "detections objects"], least: float) -> Bool[np.ndarray, " detections"]:
    """Gives each detection, the best first, the object that it overlaps most of those that are left."""
    right = np.zeros(len(overlaps), dtype=bool)
    if not overlaps.size:
        return right
    overlaps = overlaps.copy()
    for place in np.flatnonzero(overlaps.max(axis=1) >= least):
        best = len(overlaps[place]) - 1 - int(overlaps[place][::-1].argmax())  # of equals COCO's rule takes the last
        if overlaps[place, best] >= least:
            right[place] = True
            overlaps[:, best] = -1
    return right


def average_precision(classes: Sequence[Matched], counts: Int[np.ndarray, " images"]) -> dict[str, float]:
    """Returns AP, AP50 and AP75 of the set that has each image as often as `counts` says."""
    by_class = []
    for each in classes:
        objects = int(counts @ each.objects)
        if not objects:
            continue
        weights = counts[each.images]
        found, total = (each.right * weights).cumsum(axis=1), weights.cumsum()
        precision = found / np.maximum(total, 1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        by_class.append([_at_recalls(recall, best) for recall, best in zip(found / objects, envelope, strict=True)])
    table = np.array(by_class).reshape(-1, len(OVERLAPS))
    return {name: float(table[:, overlaps].mean()) if len(table) else 0.0 for name, overlaps in MEASURES.items()}


def _at_recalls(recall: Float[np.ndarray, " detections"], precision: Float[np.ndarray, " detections"]) -> float:
    """Returns the mean precision at 101 recalls, 0 where a recall is not reached."""
    return float(np.append(precision, 0.0)[np.searchsorted(recall, RECALLS)].mean())


def table(result: Mapping[str, Any]) -> str:
    """Returns the numbers in percent as Markdown: those of `none`, of `weighted`, and their difference."""
    names = [name.upper() for name in MEASURES]
    lines = ["| IoU threshold | " + " | ".join(f"{name}: none | weighted | difference" for name in names) + " |"]
    lines.append("| ---: |" + " ---: | ---: | ---: |" * len(MEASURES))
    for row in result["rows"]:
        cells = [f"{row['iou_threshold']:g}"]
        for name in MEASURES:
            before, after = row["none"][name] or 0, row["weighted"][name] or 0
            low, high = row[f"{name}_interval"]
            between = f"{100 * (after - before):+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
            cells += [f"{100 * before:.2f}", f"{100 * after:.2f}", between]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
