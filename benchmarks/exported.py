"""Score exported files beside the network that they are from, in single precision, bf16 and 8 bits, on the same images.

    taskset -c 0 python -m benchmarks.exported --data BCCD --model runs/bccd
    taskset -c 0 python -m benchmarks.exported --data VOCdevkit/VOC2007 --model ssd.safetensors --rename coco-to-voc \\
        --calibrate-split trainval --json exported.json

8 bits are calibrated on `--calibration-images` of one split, evenly spaced, and all files are scored on another split;
no image may be in both. The interval of a difference is that of a paired bootstrap over the images. The speed is that
of `multibox benchmark`: from an image file to its detections, on one thread, in turns.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import runs
from benchmarks.machine import multiplies_bf16
from multibox.benchmark.run import Variant, benchmark
from multibox.data.sample import Dataset
from multibox.deploy.export import Int8, export
from multibox.deploy.int8 import check_apart
from multibox.detector import Detector
from multibox.evaluation.bootstrap import compare
from multibox.evaluation.coco_matches import match_by_class
from multibox.evaluation.evaluate import evaluate, score
from multibox.evaluation.rename import RENAMES
from multibox.messages import percent

ENGINES = {".onnx": "ONNX Runtime", ".xml": "OpenVINO", ".tflite": "LiteRT"}
TIMED = 8  # images


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.exported", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True, help="weights, or the folder of a run")
    parser.add_argument("--rename", choices=sorted(RENAMES), help="names of the detector's classes in the data")
    parser.add_argument("--calibrate-split")
    parser.add_argument("--test-split")
    parser.add_argument("--calibration-images", type=int, default=300)
    parser.add_argument("--test-images", type=int, help="score on so many, evenly spaced")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args(given)
    runs.use_one_core()
    detector = Detector.load(arguments.model)
    calibrate = runs.read(arguments.data, arguments.calibrate_split, ("train", "trainval"))
    calibrate = runs.some(calibrate, arguments.calibration_images)
    test_set = runs.read(arguments.data, arguments.test_split, ("test", "val"), arguments.test_images)
    check_apart(calibrate, test_set)
    renames = RENAMES[arguments.rename] if arguments.rename else {}
    with tempfile.TemporaryDirectory() as folder:
        judged = runs.some(test_set, TIMED)
        int8 = Int8(*(as_named_by(detector, each, renames) for each in (calibrate, judged)), max_drop=1.0)
        variants = list(write_variants(detector, Path(folder), int8))
        rows = score_all(variants, test_set, renames)
        images = [Path(sample.image) for sample in judged]
        thresholds = {each.path: detector.config.detect_score_threshold for each in variants}
        for measured in benchmark(variants, images, score_thresholds=thresholds, threads=[1], batch_size=1):
            if measured.work == "detect":
                for row, timed in zip(rows, measured.table.values()["rows"], strict=True):
                    row["times_as_fast"] = timed["times_as_fast"]
    title = f"{arguments.data.resolve().name}, {len(test_set):,} images"
    print_table(title, rows)
    result = {"task": title, "model": arguments.model, "calibrated_on": len(calibrate), "rows": rows, **runs.machine()}
    runs.print_machines([result])
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def as_named_by(detector: Detector, dataset: Dataset, renames: Mapping[str, str]) -> Dataset:
    """Returns the data set with the detector's classes."""
    old_names = {new: old for old, new in renames.items()}
    names = tuple(old_names.get(name, name) for name in dataset.class_names)
    return replace(dataset, class_names=names, category_ids=None).with_classes(detector.class_names)


def write_variants(detector: Detector, folder: Path, int8: Int8) -> Iterator[Variant]:
    """Writes the detector in each form, and yields what is compared; the network comes first."""
    weights = folder / "detector.safetensors"
    detector.save(weights)
    yield Variant("torch", weights)
    images = [sample.open() for sample in int8.judge]
    for suffix, engine in ENGINES.items():
        path = folder / f"fp32{suffix}"
        export(detector, path, suppression="runtime", images=images)
        yield Variant(engine, path)
        if suffix == ".xml":
            yield Variant(f"{engine}, bf16{'' if multiplies_bf16() else ' (emulated)'}", path, "bf16")
    for suffix, engine in ENGINES.items():
        path = folder / f"int8{suffix}"
        export(detector, path, suppression="runtime", images=images, int8=int8)
        yield Variant(f"{engine}, int8", path)


def score_all(variants: Sequence[Variant], test_set: Dataset, renames: Mapping[str, str]) -> list[dict[str, Any]]:
    """Scores each variant by COCO's rule and VOC 2007's, and compares it with the first."""
    truths, names = [sample.truth for sample in test_set], test_set.class_names
    rows: list[dict[str, Any]] = []
    reference = None
    for variant in variants:
        found = evaluate(Detector.load(variant.path, precision=variant.precision), test_set, rename=renames).detections
        assert found is not None
        matches = match_by_class(truths, found, names)
        reference = reference or matches
        compared = compare(reference, matches, images=len(test_set), class_names=names)
        voc = score(truths, found, class_names=names, rule="voc2007")
        rows.append(
            {
                "name": variant.name,
                "megabytes": variant.megabytes,
                "ap": compared.ap.after,
                "ap50": compared.ap50.after,
                "voc2007": voc.ap,
                "ap_difference": str(compared.ap),
                "ap50_difference": str(compared.ap50),
            }
        )
        print(f"{variant.name}: AP {percent(rows[-1]['ap'])}, AP50 {compared.ap50}", flush=True)
    return rows


def print_table(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints the rows; each is compared with the first."""
    print()
    runs.print_row(title, "AP", "AP50", "mAP, VOC 2007", "AP50, difference (95 %)", "MB", "times as fast")
    runs.print_row("---", *["---:"] * 6)
    for place, row in enumerate(rows):
        scores = (percent(row[name]) for name in ("ap", "ap50", "voc2007"))
        difference = row["ap50_difference"] if place else ""
        runs.print_row(row["name"], *scores, difference, f"{row['megabytes']:.2f}", f"{row['times_as_fast']:.2f}")


if __name__ == "__main__":
    main()
