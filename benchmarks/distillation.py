"""Measure what a teacher brings: a small detector trained with and without one, in the same time.

    python -m benchmarks.distillation run --data BCCD --teacher runs/large --minutes 10 --out OUT
    python -m benchmarks.distillation table OUT

The teacher is trained before: `multibox train BCCD --model ssd300-resnet34 --size 256 --scales coco --out runs/large`.
The student (`--model`, `--size`, `--scales`) learns from the split `train`, else `trainval`, without validation, so
that its last weights count, and is scored on `test`. For each seed, the runs take turns: first without a teacher, then
with it at each of the `--distillation-weights`. All have the same minutes of CPU time, which pay for the teacher's
forward pass too, or the same number of epochs. With `--images` only so many training images are used, evenly spaced in
their order.

Each run leaves one JSON file, and a run whose file is there already is skipped. The command can therefore be stopped
and started again. CPU time counts all threads and no GPU: take epochs with `--threads 2` or `--device cuda`.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

import multibox
from benchmarks import runs
from benchmarks.cpu_clock import cpu_clock
from multibox.data.sample import Dataset
from multibox.detector import Detector
from multibox.evaluation.evaluate import evaluate
from multibox.presets import preset
from multibox.report.environment import commit, device_name


def main(given: Sequence[str] | None = None) -> None:
    parser, run = runs.make_parser("distillation", __doc__)
    run.add_argument("--teacher", required=True, help="weights, or the folder of a run")
    run.add_argument("--model", default="ssd256-tiny", help="preset of the student")
    run.add_argument("--size", type=int, help="input size of the student, if it is not the preset's")
    run.add_argument("--scales", choices=("voc", "coco"))
    run.add_argument("--start-from", choices=("imagenet",))
    length = run.add_mutually_exclusive_group(required=True)
    length.add_argument("--minutes", type=float)
    length.add_argument("--epochs", type=float)
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--distillation-weights", type=float, nargs="+", default=[1.0])
    run.add_argument("--images", type=int, help="number of training images")
    run.add_argument("--test-images", type=int, help="number of test images")
    run.add_argument("--batch-size", type=int)
    run.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    run.add_argument("--threads", type=int, default=1)
    run.add_argument("--device", default="cpu")
    arguments = parser.parse_args(given)
    if arguments.command == "run":
        run_all(arguments)
        arguments.out = [arguments.out]
    print_table(arguments.out)


def run_all(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    torch.set_num_threads(arguments.threads)
    train_set = runs.read(arguments.data, None, ("train", "trainval"), arguments.images)
    test_set = runs.read(arguments.data, None, ("test",), arguments.test_images)
    teacher = Detector.load(arguments.teacher)
    print(f"teacher: {_percents(evaluate(teacher.to(arguments.device), test_set))}", flush=True)
    for seed in arguments.seeds:
        for weight in (0.0, *arguments.distillation_weights):
            length = f"{arguments.minutes:g} min" if arguments.minutes else f"{arguments.epochs:g} epochs"
            name = runs.file_name(arguments.data.name, arguments.model, length, f"weight {weight:g}", f"seed {seed}")
            file = out / f"{name}.json"
            if file.exists():
                continue
            result = _run(arguments, teacher if weight else None, train_set, test_set, seed=seed, weight=weight)
            result["task"] = f"{arguments.data.name}, {length}"
            runs.write_result(file, result)
            print(f"{file.stem}: AP {100 * result['ap']:.1f}, AP50 {100 * result['ap50']:.1f}", flush=True)


def _percents(metrics: multibox.Metrics) -> str:
    return f"AP {100 * (metrics.ap or 0):.1f}, AP50 {100 * (metrics.ap50 or 0):.1f}"


def _run(
    arguments: argparse.Namespace,
    teacher: Detector | None,
    train_set: Dataset,
    test_set: Dataset,
    *,
    seed: int,
    weight: float,
) -> dict[str, Any]:
    """Trains a student and scores its last weights on the test set."""
    config = preset(arguments.model, scales=arguments.scales, height=arguments.size, width=arguments.size)
    student = Detector.create(config, train_set.class_names, start_from=arguments.start_from, seed=seed)
    values = multibox.TrainConfig(
        minutes=arguments.minutes,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        distillation_weight=weight or 1.0,
        validate_every=1e6,
        precision=arguments.precision,
        workers=0,
        device=arguments.device,
        seed=seed,
    )
    rows: list[Any] = []
    with tempfile.TemporaryDirectory() as folder, cpu_clock():
        found = multibox.train(
            student, train_set, None, values, out=Path(folder) / "run", teacher=teacher, on_row=rows.append
        )
    metrics = evaluate(found.to(arguments.device), test_set)
    return {
        "data": str(arguments.data),
        "model": arguments.model,
        "teacher": str(arguments.teacher) if teacher else None,
        "weight": weight,
        "seed": seed,
        "minutes": rows[-1]["minutes"],
        "epochs": rows[-1]["epoch"],
        "ap": metrics.ap,
        "ap50": metrics.ap50,
        "images": len(train_set),
        "commit": commit(),
        "processor": device_name(arguments.device),
    }


def print_table(folders: Sequence[Path]) -> None:
    """Prints the mean and the spread over the seeds by task and weight, and the mean gain over no teacher."""
    results = runs.read_results(folders)
    alone = {(each["task"], each["model"], each["seed"]): each for each in results if not each["weight"]}
    runs.print_row("task", "student", "weight", "seeds", "epochs", "AP", "AP50", "gain in AP", "gain in AP50")
    runs.print_row("---", "---", *["---:"] * 7)
    for task, model, weight in sorted({(each["task"], each["model"], each["weight"]) for each in results}):
        found = [each for each in results if (each["task"], each["model"], each["weight"]) == (task, model, weight)]
        cells = [task, model, f"{weight:g}" if weight else "no teacher", str(len(found))]
        cells.append(f"{statistics.mean(each['epochs'] for each in found):.1f}")
        cells += [runs.spread([each[name] for each in found]) for name in ("ap", "ap50")]
        for name in ("ap", "ap50"):
            pairs = [
                each[name] - alone[key][name]
                for each in found
                if weight and (key := (task, model, each["seed"])) in alone
            ]
            cells.append(runs.spread(pairs, sign="+") if pairs else "")
        runs.print_row(*cells)


if __name__ == "__main__":
    main()
