"""Measure what box voting brings: AP with `merge="none"` and `merge="weighted"`, of the same outputs of a network.

    python -m benchmarks.voting MODEL [MODEL ...] --data DATA [--split test] [--rename coco-to-voc] [--images 300]

Each network looks at each image once, on the CPU. Its outputs are postprocessed in both ways at several IoU thresholds,
and scored by COCO's rule, as by `multibox evaluate`. The interval is that of a paired bootstrap over the images
(`multibox/evaluation/bootstrap.py`).
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import multibox
from benchmarks import runs
from multibox.config import Merge, Postprocess
from multibox.data.read import EVALUATION_SPLITS
from multibox.data.sample import Dataset
from multibox.detections import Detections
from multibox.detector import Detector
from multibox.evaluation.bootstrap import Difference, compare
from multibox.evaluation.coco_matches import match_by_class
from multibox.evaluation.evaluate import check_rename, evaluate
from multibox.evaluation.rename import RENAMES
from multibox.report.environment import commit, device_name
from multibox.runtimes.runtime import RawOutputs
from multibox.runtimes.torch_runtime import TorchRuntime

MERGES: tuple[Merge, Merge] = ("none", "weighted")
MEASURES = ("ap", "ap50", "ap75")
BATCH = 8
RESAMPLES = 1000


class RunOnce:
    """A runtime that runs the network once for each batch, and gives later calls with this batch the same outputs."""

    prepares = False

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
    """Returns AP, AP50 and AP75 at each IoU threshold: without voting, with it, and the interval of the difference."""
    runtime = RunOnce(TorchRuntime(detector.config, detector.network.cpu()), detector.config.postprocess)
    detector = Detector(detector.config, detector.class_names, runtime)
    if rename:
        check_rename(rename, detector.class_names, dataset)
    ways = [(iou, merge) for iou in iou_thresholds for merge in MERGES]
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
    rows = []
    for iou in iou_thresholds:
        none, weighted = (match_by_class(truths, found[iou, merge], dataset.class_names) for merge in MERGES)
        compared = compare(none, weighted, images=len(dataset), class_names=dataset.class_names, resamples=resamples)
        rows.append({"iou_threshold": iou, **{name: getattr(compared, name)._asdict() for name in MEASURES}})
    return {"rows": rows, "resamples": resamples}


def table(result: Mapping[str, Any]) -> str:
    """Returns the numbers in percent as Markdown: those of `none`, of `weighted`, and their difference."""
    names = [name.upper() for name in MEASURES]
    lines = ["| IoU threshold | " + " | ".join(f"{name}: none | weighted | difference" for name in names) + " |"]
    lines.append("| ---: |" + " ---: | ---: | ---: |" * len(MEASURES))
    for row in result["rows"]:
        cells = [f"{row['iou_threshold']:g}"]
        for name in MEASURES:
            one = Difference(**row[name])
            cells += [f"{100 * one.before:.2f}", f"{100 * one.after:.2f}", str(one)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
