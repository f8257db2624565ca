"""Measure what a start brings: a detector trained for a few minutes from random weights, ImageNet's, or a detector's.

    taskset -c 0 python -m benchmarks.starts run --data BCCD --model ssd256-tiny --out OUT
    taskset -c 0 python -m benchmarks.starts run --data BCCD --model ssd300-lite0 --start-from imagenet --out OUT
    taskset -c 0 python -m benchmarks.starts run --data BCCD --model runs/other --out OUT
    taskset -c 0 python -m benchmarks.starts run --data VOCdevkit/VOC2007 --classes dog --images 140 --minutes 10 \\
        --model ssd300-lite0 --start-from imagenet --out OUT
    python -m benchmarks.starts table OUT

`--model` is a preset, which `--start-from` may give a backbone, or weights: a file, the folder of a run, or a published
name. Each run trains with the defaults of `multibox train` for a number of minutes of CPU time, on one core and without
workers, and its last weights are scored by COCO's rule. The minutes include all that `multibox.train` does before its
first step (a processor with bf16 tries both precisions for a few seconds), but neither reading the data set nor loading
the weights. There is no validation.

The detector learns from the split `trainval`, else `train`, and is scored on `test`, else `val`. With `--images` only
so many training images are used, evenly spaced in their order; likewise `--test-images`. With `--classes` the task has
these classes alone: it learns from images that have one, and is scored on the test images that have one and on as many
that have none, drawn with seed 0. Objects of other classes are left out; those marked as difficult stay.

Each run leaves one JSON file, and a run whose file is there already is skipped. The command can therefore be stopped
and started again.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import multibox
from benchmarks import runs
from benchmarks.cpu_clock import cpu_clock
from multibox.data.sample import Dataset
from multibox.detector import Detector
from multibox.evaluation.evaluate import evaluate, score
from multibox.presets import PRESETS


def main(given: Sequence[str] | None = None) -> None:
    parser, run = runs.make_parser("starts", __doc__)
    run.add_argument("--model", required=True, help="a preset, or weights")
    run.add_argument("--start-from", help="imagenet, or a file with the weights of the preset's backbone")
    run.add_argument("--label", help="row of the table; by default the model and its start")
    run.add_argument("--minutes", type=float, nargs="+", default=[2.0, 10.0])
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--classes", nargs="+", help="the classes of the task, if it has not all of the data set")
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
        classes=arguments.classes,
        images=arguments.images,
        test_images=arguments.test_images,
        train_split=arguments.train_split,
        test_split=arguments.test_split,
    )
    start = f" from {Path(arguments.start_from).name}" if arguments.start_from else ""
    label = arguments.label or arguments.model + start
    task = describe_task(arguments.data, arguments.classes, train_set, test_set)
    print(f"{task}; {label}", flush=True)
    for minutes in arguments.minutes:
        for seed in arguments.seeds:
            name = runs.file_name(task, label, f"{minutes:g} min", f"seed {seed}")
            file = arguments.out / f"{name}.json"
            if file.exists():
                continue
            detector = make_detector(arguments.model, train_set.class_names, start_from=arguments.start_from, seed=seed)
            found, trained = train(detector, train_set, minutes=minutes, seed=seed)
            result = {
                "task": task,
                "label": label,
                "data": str(arguments.data),
                "model": arguments.model,
                "start_from": arguments.start_from,
                "minutes": minutes,
                "seed": seed,
                "images": len(train_set),
                "test_images": len(test_set),
                **trained,
                **scores(found, test_set),
                **runs.machine(),
            }
            runs.write_result(file, result)
            print(f"{name}: AP {100 * result['ap']:.1f}, AP50 {100 * result['ap50']:.1f}", flush=True)


def read_task(
    data: Path,
    *,
    classes: Sequence[str] | None = None,
    images: int | None = None,
    test_images: int | None = None,
    train_split: str | None = None,
    test_split: str | None = None,
) -> tuple[Dataset, Dataset]:
    """Returns the images to learn from, and those to be scored on."""
    train_set = runs.read(data, train_split, ("trainval", "train"))
    test_set = runs.read(data, test_split, ("test", "val")).with_classes(train_set.class_names)
    if classes:
        train_set = runs.with_objects(runs.only_classes(train_set, classes))
        test_set = runs.with_as_many_empty(runs.only_classes(test_set, classes))
    for dataset in (train_set, test_set):
        if not len(dataset):
            raise SystemExit(f"{dataset.name} has no image with {' or '.join(classes or ['objects'])}")
    return runs.some(train_set, images), runs.some(test_set, test_images)


def describe_task(data: Path, classes: Sequence[str] | None, train_set: Dataset, test_set: Dataset) -> str:
    """Returns the data set, its classes if they are not all, and the numbers of images: `BCCD, 292 and 72 images`."""
    names = f" {' '.join(classes)}" if classes else ""
    return f"{data.resolve().name}{names}, {len(train_set)} and {len(test_set)} images"


def make_detector(model: str, class_names: Sequence[str], *, start_from: str | None, seed: int) -> Detector:
    """Returns a new detector of a preset, or that of the weights with the classes of the task."""
    if model in PRESETS or model.startswith("timm/"):
        return Detector.create(model, class_names, start_from=start_from, seed=seed)
    if start_from:
        raise SystemExit(f"--start-from is for the backbone of a preset, but --model is {model}, which is weights")
    return Detector.load(model).with_classes(class_names, seed=seed)


def train(
    detector: Detector, train_set: Dataset, *, minutes: float, seed: int, **values: Any
) -> tuple[Detector, dict[str, Any]]:
    """Trains with the default recipe, but for the values that are given.

    Returns the detector of the last weights, and what the time was enough for.
    """
    config = multibox.TrainConfig(minutes=minutes, validate_every=1e6, workers=0, device="cpu", seed=seed, **values)
    rows: list[Any] = []
    with tempfile.TemporaryDirectory() as folder, cpu_clock():
        found = multibox.train(detector, train_set, None, config, out=Path(folder) / "run", on_row=rows.append)
    epochs, taken = rows[-1]["epoch"], rows[-1]["minutes"]
    return found, {
        "trained_minutes": taken,
        "epochs": epochs,
        "images_per_second": epochs * len(train_set) / taken / 60,
    }


def scores(detector: Detector, test_set: Dataset) -> dict[str, float | None]:
    """Returns AP and AP50 by COCO's rule, and VOC 2007's mAP (11 points, the last pixel included) of the same boxes."""
    metrics = evaluate(detector, test_set, progress=False)
    assert metrics.detections is not None
    truths = [sample.truth for sample in test_set]
    voc = score(truths, metrics.detections, class_names=test_set.class_names, rule="voc2007")
    return {"ap": metrics.ap, "ap50": metrics.ap50, "voc2007": voc.ap50}


def print_table(folders: Sequence[Path]) -> None:
    """Prints a table for each task: AP50 and AP after each number of minutes, as mean (lowest to highest) of the seeds.

    Seeds and images/s are those of the longest runs.
    """
    results = runs.read_results(folders)
    for task in sorted({each["task"] for each in results}):
        of_task = [each for each in results if each["task"] == task]
        lengths = sorted({each["minutes"] for each in of_task})
        print()
        columns = [f"{length:g} min: {name}" for length in lengths for name in ("AP50", "AP")]
        runs.print_row(task, "seeds", "images/s", "epochs", *columns)
        runs.print_row("---", *["---:"] * (3 + len(columns)))
        for label in dict.fromkeys(each["label"] for each in of_task):
            by_length = {
                length: [each for each in of_task if (each["label"], each["minutes"]) == (label, length)]
                for length in lengths
            }
            longest = by_length[max(length for length in lengths if by_length[length])]
            runs.print_row(
                label,
                str(len(longest)),
                *(f"{statistics.mean(each[name] for each in longest):.1f}" for name in ("images_per_second", "epochs")),
                *(
                    runs.spread([each[name] for each in found]) if found else ""
                    for found in by_length.values()
                    for name in ("ap50", "ap")
                ),
            )
    runs.print_machines(results)


if __name__ == "__main__":
    main()
