"""Measure what fitted default boxes bring: a detector trained with them and one with the preset's, in the same time.

    taskset -c 0 python -m benchmarks.fitted_boxes run --data DeepPCB --out OUT
    taskset -c 0 python -m benchmarks.fitted_boxes run --data BCCD --minutes 2 10 --out OUT
    python -m benchmarks.fitted_boxes table OUT

The fit is that of `multibox coverage --fit`, made on the very images that are learned from. For each seed the runs take
turns: first the preset's default boxes, then the fitted ones. Each run trains with the defaults of `multibox train` for
a number of minutes of CPU time, on one core and without workers, and its last weights are scored by COCO's rule; see
`benchmarks.starts`. The detector learns from the split `trainval`, else `train`, and is scored on `test`, else `val`.
With `--images` only so many training images are used, evenly spaced in their order; likewise `--test-images`.

Each run leaves one JSON file, with the config and its coverage of both sets, and a run whose file is there already is
skipped. The command can therefore be stopped and started again.
"""

import argparse
import statistics
from collections.abc import Sequence
from typing import Any

from benchmarks import runs
from benchmarks.starts import describe_task, read_task, scores, train
from multibox.config import DetectorConfig
from multibox.data.sample import Dataset
from multibox.detector import Detector
from multibox.explain.coverage import measure_coverage, summarize
from multibox.explain.fit import candidates, fit_default_boxes
from multibox.presets import preset

PLAIN, FITTED = "the preset's", "fitted"


def main(given: Sequence[str] | None = None) -> None:
    parser, run = runs.make_parser("fitted_boxes", __doc__)
    run.add_argument("--model", default="ssd256-tiny", help="a preset")
    run.add_argument("--minutes", type=float, nargs="+", default=[10.0])
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--images", type=int, help="number of training images")
    run.add_argument("--test-images", type=int, help="number of test images")
    run.add_argument("--train-split")
    run.add_argument("--test-split")
    arguments = parser.parse_args(given)
    if arguments.command == "run":
        run_all(arguments)
        arguments.out = [arguments.out]
    print_table(arguments.out)


def run_all(arguments: argparse.Namespace) -> None:
    runs.use_one_core()
    train_set, test_set = read_task(
        arguments.data,
        images=arguments.images,
        test_images=arguments.test_images,
        train_split=arguments.train_split,
        test_split=arguments.test_split,
    )
    task = f"{arguments.model}, {describe_task(arguments.data, None, train_set, test_set)}"
    plain = preset(arguments.model)
    configs = {PLAIN: plain, FITTED: fit_default_boxes(train_set, candidates(train_set, plain, arguments.model))}
    print(f"{task}; fitted: {configs[FITTED]!r}", flush=True)
    for minutes in arguments.minutes:
        for seed in arguments.seeds:
            for boxes, config in configs.items():
                name = runs.file_name(task, boxes, f"{minutes:g} min", f"seed {seed}")
                file = arguments.out / f"{name}.json"
                if file.exists():
                    continue
                detector = Detector.create(config, train_set.class_names, seed=seed)
                found, trained = train(detector, train_set, minutes=minutes, seed=seed)
                result = {
                    "task": task,
                    "boxes": boxes,
                    "minutes": minutes,
                    "seed": seed,
                    "config": config.to_json(),
                    "default_boxes": config.num_default_boxes,
                    "train": _covered(train_set, config),
                    "test": _covered(test_set, config),
                    **trained,
                    **scores(found, test_set),
                    **runs.machine(),
                }
                runs.write_result(file, result)
                print(f"{name}: AP {100 * result['ap']:.1f}, AP50 {100 * result['ap50']:.1f}", flush=True)


def _covered(dataset: Dataset, config: DetectorConfig) -> dict[str, Any]:
    """Returns overlap and recall of all objects."""
    every = summarize(measure_coverage(dataset, config), "all")
    return {"overlap": every.overlap, "recall": every.recall}


def print_table(folders: Sequence[Any]) -> None:
    """Prints AP and AP50 by default boxes as mean (lowest to highest) of the seeds, and what the fit gains by seed."""
    results = runs.read_results(folders)
    plain = {(each["task"], each["minutes"], each["seed"]): each for each in results if each["boxes"] == PLAIN}
    columns = ["number", "test overlap", "test recall", "seeds", "images/s", "epochs", "AP50", "AP"]
    runs.print_row("task", "minutes", "default boxes", *columns, "gain in AP50", "gain in AP")
    runs.print_row("---", "---:", "---", *["---:"] * 10)
    for task, minutes in sorted({(each["task"], each["minutes"]) for each in results}):
        for boxes in (PLAIN, FITTED):
            found = [
                each for each in results if (each["task"], each["minutes"], each["boxes"]) == (task, minutes, boxes)
            ]
            if not found:
                continue
            first = found[0]
            cells = [task, f"{minutes:g}", boxes, f"{first['default_boxes']:,}"]
            cells += [f"{100 * first['test'][name]:.1f}" for name in ("overlap", "recall")]
            cells.append(str(len(found)))
            cells += [
                f"{statistics.mean(each[name] for each in found):.1f}" for name in ("images_per_second", "epochs")
            ]
            cells += [runs.spread([each[name] for each in found]) for name in ("ap50", "ap")]
            for name in ("ap50", "ap"):
                gains = [
                    each[name] - plain[key][name]
                    for each in found
                    if boxes == FITTED and (key := (task, minutes, each["seed"])) in plain
                ]
                cells.append(runs.spread(gains, sign="+") if gains else "")
            runs.print_row(*cells)
    runs.print_machines(results)


if __name__ == "__main__":
    main()
