"""Measure the learning rate of fine-tuning: how far accuracy falls at first, and where it ends, at several rates.

    python benchmarks/fine_tuning_rate.py run --data BCCD --coco coco_ssd_mobilenet_v1_quant.tflite --out OUT
    python benchmarks/fine_tuning_rate.py table OUT

There are three starts. `own` is `ssd256-tiny`, trained from scratch on BCCD's split `train` for 20 epochs, which take a
quiet CPU core about two minutes, and trained on with the same data. `part` is the same without one of its three
classes, Platelets, whose weights are random. `coco` is TensorFlow's SSD MobileNet v1 with COCO's classes, none of which
BCCD has. All are trained by the recipe `modern` at several fractions of its learning rate, and
scored on `val`: at the start, after half an epoch and after each epoch. The split `test` is not looked at.

Each run leaves one JSON file, and a run whose file is there already is skipped. The command can therefore be stopped
and started again. The lengths are in epochs, so a busy machine changes the time, not the results.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import multibox
from multibox.data.sample import Dataset
from multibox.detector import Detector
from multibox.evaluation.evaluate import evaluate
from multibox.report.environment import commit, device_name
from multibox.training.recipes import RECIPES

FACTORS = (1.0, 0.1, 0.3, 0.03)  # in the order in which they are run
STARTS = ("own", "part", "coco")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and score what has no file yet")
    run.add_argument("--data", type=Path, required=True)
    run.add_argument("--coco", type=Path, help="TensorFlow's 8-bit SSD MobileNet v1")
    run.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    run.add_argument("--out", type=Path, required=True)
    run.add_argument("--scratch-epochs", type=float, default=20.0)
    run.add_argument("--epochs", type=float, default=3.0)
    run.add_argument("--limit", type=int, help="images of each split, for a trial of this script")
    table = commands.add_parser("table", help="print the results")
    table.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "run":
        run_all(arguments)
    print_table(arguments.out)


def run_all(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    train_set, val_set = (
        replace(dataset, samples=dataset.samples[: arguments.limit])
        for dataset in (
            multibox.read_dataset(arguments.data, split=name, on_problem="skip") for name in ("train", "val")
        )
    )
    own = out / "own.safetensors"
    if set(arguments.starts) & {"own", "part"} and not own.exists():
        print(f"{own.stem}: {arguments.scratch_epochs:g} epochs from scratch ...", flush=True)
        new = Detector.create("ssd256-tiny", train_set.class_names, seed=0)
        _train(new, train_set, None, epochs=arguments.scratch_epochs, factor=1.0).save(own)
    for start in arguments.starts:
        for factor in FACTORS:
            file = out / f"{start}-{factor:g}.json"
            if file.exists():
                continue
            print(f"{file.stem} ...", flush=True)
            detector = Detector.convert(arguments.coco) if start == "coco" else Detector.load(own)
            if start == "part":
                detector = detector.with_classes([name for name in detector.class_names if name != "Platelets"])
            result = _run(detector, train_set, val_set, factor=factor, epochs=arguments.epochs)
            file.write_text(json.dumps({"start": start, **result}, indent=2) + "\n", encoding="utf-8")
            print(f"  AP {', '.join(f'{100 * ap:.1f}' for ap in result['ap'].values())}", flush=True)


def _run(detector: Detector, train_set: Dataset, val_set: Dataset, *, factor: float, epochs: float) -> dict[str, Any]:
    """Trains the detector on, and returns its AP and AP50 on the validation set by the epoch."""
    known = any(name in detector.class_names for name in val_set.class_names)
    detector = detector.with_classes(train_set.class_names, seed=1)  # not the seed that `own` began with
    first = evaluate(detector, val_set) if known else None
    ap = {0.0: first.ap if first else 0.0}
    ap50 = {0.0: first.ap50 if first else 0.0}

    def keep(row: Any) -> None:
        if row["ap"] is not None:
            ap[round(row["epoch"], 2)], ap50[round(row["epoch"], 2)] = row["ap"], row["ap50"]

    _train(detector, train_set, val_set, epochs=epochs, factor=factor, on_row=keep)
    return {
        "learning_rate": RECIPES["modern"].learning_rate * factor,
        "factor": factor,
        "epochs": epochs,
        "ap": ap,
        "ap50": ap50,
        "commit": commit(),
        "processor": device_name("cpu"),
    }


def _train(
    detector: Detector, train_set: Dataset, val_set: Dataset | None, *, epochs: float, factor: float, on_row: Any = None
) -> Detector:
    config = multibox.TrainConfig(
        epochs=epochs,
        recipe="modern",
        learning_rate=RECIPES["modern"].learning_rate * factor,
        validate_every=0.5 if epochs <= 2 or val_set is not None else 1e6,
        precision="fp32",
        workers=0,
        device="cpu",
    )
    with tempfile.TemporaryDirectory() as folder:
        return multibox.train(detector, train_set, val_set, config, out=Path(folder) / "run", on_row=on_row)


def print_table(out: Path) -> None:
    """Prints AP on the validation set by start and rate: at the start, at its lowest, and at the end."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(out.glob("*-*.json"))]
    print("| start | learning rate | start | half an epoch | 1 epoch | 2 epochs | end | best AP50 |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for result in sorted(results, key=lambda each: (STARTS.index(each["start"]), -each["factor"])):
        ap = {float(epoch): 100 * value for epoch, value in result["ap"].items()}
        shown = [ap[min(ap, key=lambda epoch: abs(epoch - wanted))] for wanted in (0, 0.5, 1, 2, max(ap))]
        cells = [*(f"{value:.1f}" for value in shown), f"{100 * max(result['ap50'].values()):.1f}"]
        if result["start"] == "coco":
            cells[0] = "-"
        rate = f"{result['learning_rate']:.5f}".rstrip("0")
        print(f"| {result['start']} | {rate} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
