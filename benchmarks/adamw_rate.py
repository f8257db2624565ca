"""Measure how AdamW's learning rate should follow the batch size: linearly, by the square root, or not at all.

    python benchmarks/adamw_rate.py run --data BCCD --out OUT      # BCCD.zip, unpacked; some minutes a run
    python benchmarks/adamw_rate.py table OUT

`ssd256-tiny` is trained from scratch by the recipe `modern` on BCCD's split `train` (205 images) and scored on `val`
(87), with 8, 16 and 32 images in a step, by each rule, for each seed. All runs see the same number of images. At 8
images, the recipe's own batch size, the rules agree and share a run. Each run leaves one JSON file, and a run whose
file is there already is skipped. The command can therefore be stopped and started again. Start it on a quiet machine.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import multibox
from multibox.detector import Detector
from multibox.evaluation.evaluate import evaluate
from multibox.report.environment import commit, device_name
from multibox.training.recipes import RECIPES

MODEL = "ssd256-tiny"
BATCH_SIZES = (8, 16, 32)
Rule = Literal["linear", "sqrt", "none"]
RULES: Final[tuple[Rule, ...]] = ("linear", "sqrt", "none")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and score what has no file yet")
    run.add_argument("--data", type=Path, required=True)
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--epochs", type=float, default=20.0)
    run.add_argument("--seeds", type=int, default=3)
    run.add_argument("--limit", type=int, help="images of each split, for a trial of this script")
    table = commands.add_parser("table", help="print the results")
    table.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "run":
        run_all(arguments.data, arguments.out, arguments.epochs, arguments.seeds, arguments.limit)
    print_table(arguments.out)


def run_all(data: Path, out: Path, epochs: float, seeds: int, limit: int | None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):  # seed by seed, so that early results cover all rules
        for batch_size in BATCH_SIZES:
            for rule in RULES if batch_size != RECIPES["modern"].batch_size else RULES[:1]:
                file = out / f"batch-{batch_size}-{rule}-seed-{seed}.json"
                if not file.exists():
                    print(f"{file.stem} ...", flush=True)
                    result = run_one(data, batch_size, rule, epochs=epochs, seed=seed, limit=limit)
                    file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
                    print(f"  AP50 {100 * result['ap50']:.1f}, AP {100 * result['ap']:.1f}", flush=True)


def run_one(data: Path, batch_size: int, rule: Rule, *, epochs: float, seed: int, limit: int | None) -> dict[str, Any]:
    train_set, val_set = (
        replace(dataset, samples=dataset.samples[:limit])
        for dataset in (multibox.read_dataset(data, split=split, on_problem="skip") for split in ("train", "val"))
    )
    recipe = RECIPES["modern"]
    ratio = batch_size / recipe.batch_size
    learning_rate = recipe.learning_rate * {"linear": ratio, "sqrt": ratio**0.5, "none": 1.0}[rule]
    config = multibox.TrainConfig(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        seed=seed,
        validate_every=1e6,
        precision="fp32",
        workers=0,
        device="cpu",
    )
    detector = Detector.create(MODEL, train_set.class_names, seed=seed)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        trained = multibox.train(detector, train_set, None, config, out=Path(folder) / "run", recipe=recipe)
    minutes = (time.process_time() - began) / 60
    metrics = evaluate(trained, val_set)
    return {
        "batch_size": batch_size,
        "rule": rule,
        "learning_rate": learning_rate,
        "seed": seed,
        "epochs": epochs,
        "ap": metrics.ap or 0.0,
        "ap50": metrics.ap50 or 0.0,
        "cpu_minutes": round(minutes, 2),
        "commit": commit(),
        "processor": device_name("cpu"),
    }


def print_table(out: Path) -> None:
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("batch-*.json"))]
    print("| images in a step | rule | learning rate | AP50 | AP | seeds |\n| ---: | --- | ---: | --- | --- | ---: |")
    for batch_size in BATCH_SIZES:
        for rule in RULES:
            runs = [each for each in results if (each["batch_size"], each["rule"]) == (batch_size, rule)]
            if runs:
                name = "all" if batch_size == RECIPES["modern"].batch_size else rule
                scores = [spread([100 * each[key] for each in runs]) for key in ("ap50", "ap")]
                cells = [batch_size, name, f"{runs[0]['learning_rate']:.3g}", *scores, len(runs)]
                print(f"| {' | '.join(map(str, cells))} |")


def spread(values: list[float]) -> str:
    """Returns the mean, the lowest and the highest value as text."""
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
