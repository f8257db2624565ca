"""Compare detectors that learn from the same images in the same time: ours, torchvision's SSDLite, and a YOLO11n.

    python -m venv peers && peers/bin/pip install ultralytics     # an environment of its own; installs torch as well
    taskset -c 0 python -m benchmarks.side_by_side run --data BCCD --minutes 10 --out OUT --peer-python peers/bin/python
    taskset -c 0 python -m benchmarks.side_by_side run --data BCCD --out OUT --who ssd300-lite0 ssdlite320 --seeds 0
    python -m benchmarks.side_by_side table OUT

The detectors (`--who`):

    ssd256-tiny              ours, from random weights
    ssd256-tiny-voc          the same, from `multibox/voc-tiny`, which learned VOC 2007 trainval
    ssd300-lite0             ours, its backbone from ImageNet's weights
    ssd300-lite0-whole       the same, all of the backbone learning at the full rate, for images unlike photographs
    ssd300-lite0-scratch     the same, from random weights
    ssdlite320               torchvision's SSDLite320 MobileNetV3, from random weights (`torchvision_peer.py`)
    yolo11n, yolo11n-320     Ultralytics' YOLO11n at its own input of 640 pixels and at 320, from random weights
    yolo11n-coco, yolo11n-coco-320    the same, from the weights of `--weights`, such as its own yolo11n.pt of COCO

Each trains for the same minutes of CPU time on one core, by its own default recipe, whose schedule ends with the time:
ours by `--minutes`, Ultralytics' by its argument `time`, torchvision's as `torchvision_peer.train_lite` says. The
minutes do not include imports, reading or converting the data, or loading weights. There is no validation, and the last
weights count. (Ultralytics needs a split to validate on and looks at it after the last epoch: it gets one training
image.) Precision is what each chooses by itself on a CPU: ours tries bf16 if the processor has it, the others take
float32.

All learn from the split `trainval`, else `train`, and are scored on `test`, else `val`; `--images` and `--test-images`
take so many, evenly spaced in their order. The YOLO reads them as `multibox.data.write.write_yolo` writes them. All
save their detections in one form: at most 300 an image, with scores above 0.001, after each one's own suppression.
`multibox.evaluation.evaluate.score` scores them by COCO's rule. The latency is the median, over the test images, of the
CPU time from the file to its detections with these limits, one image at a time on one thread.

Each run leaves OUT/NAME.json and OUT/NAME.detections.json.gz; a run whose file is there already is skipped. The command
can therefore be stopped and started again.
"""

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import runs, starts, torchvision_peer
from benchmarks.cpu_clock import cpu_clock
from multibox.data.sample import Dataset
from multibox.data.write import write_yolo
from multibox.detections import Detections
from multibox.evaluation.evaluate import score

SCORE_THRESHOLD = 0.001
MAX_DETECTIONS = 300
WARM_UP = 3  # images before the latency is measured

OURS: dict[str, tuple[str, str | None, dict[str, Any]]] = {
    "ssd256-tiny": ("ssd256-tiny", None, {}),
    "ssd256-tiny-voc": ("multibox/voc-tiny", None, {}),
    "ssd300-lite0": ("ssd300-lite0", "imagenet", {}),
    "ssd300-lite0-whole": ("ssd300-lite0", "imagenet", {"backbone_lr_factor": 1.0, "freeze_stride": 0}),
    "ssd300-lite0-scratch": ("ssd300-lite0", None, {}),
}
"""The preset or weights of each detector, its backbone's start, and values of the training that are not the default."""

YOLOS = {"yolo11n": 640, "yolo11n-320": 320, "yolo11n-coco": 640, "yolo11n-coco-320": 320}
WHO = (*OURS, "ssdlite320", *YOLOS)
FROM_WEIGHTS = ("yolo11n-coco", "yolo11n-coco-320")
YOLO_BATCH = 16  # Ultralytics' default

Found = dict[str, list[Any]]
"""Detections in an image: `boxes` in corner form and in pixels, `scores`, and `labels`."""

Outcome = tuple[dict[str, Any], dict[str, Found]]
"""What is known of a run, and the detections in each test image by its name."""


def main(given: Sequence[str] | None = None) -> None:
    parser, run = runs.make_parser("side_by_side", __doc__)
    run.add_argument("--who", nargs="+", choices=WHO, help="by default all that can be run")
    run.add_argument("--minutes", type=float, default=10.0)
    run.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    run.add_argument("--images", type=int, help="number of training images")
    run.add_argument("--test-images", type=int, help="number of test images")
    run.add_argument("--train-split")
    run.add_argument("--test-split")
    run.add_argument("--peer-python", type=Path, help="Python of the environment with ultralytics")
    run.add_argument("--weights", type=Path, help="a YOLO's own weights to start from")
    arguments = parser.parse_args(given)
    if arguments.command == "run":
        arguments.who = arguments.who or [who for who in WHO if not missing_option(arguments, who)]
        for who in arguments.who:
            if problem := missing_option(arguments, who):
                parser.error(problem)
        run_all(arguments)
        arguments.out = [arguments.out]
    print_table(arguments.out)


def missing_option(arguments: argparse.Namespace, who: str) -> str:
    """Returns what is missing to run this detector, or "" if nothing is."""
    if who in YOLOS and not (arguments.peer_python and arguments.peer_python.is_file()):
        return f"{who} needs --peer-python, the Python of an environment with ultralytics, not {arguments.peer_python}"
    if who in FROM_WEIGHTS and not (arguments.weights and arguments.weights.is_file()):
        return f"{who} needs --weights, a file such as yolo11n.pt, not {arguments.weights}"
    return ""


def run_all(arguments: argparse.Namespace) -> None:
    runs.use_one_core()
    train_set, test_set = starts.read_task(
        arguments.data,
        images=arguments.images,
        test_images=arguments.test_images,
        train_split=arguments.train_split,
        test_split=arguments.test_split,
    )
    task = starts.describe_task(arguments.data, None, train_set, test_set)
    print(f"{task}; {', '.join(arguments.who)}", flush=True)
    for seed in arguments.seeds:  # the detectors take turns
        for who in arguments.who:
            name = runs.file_name(task, who, f"{arguments.minutes:g} min", f"seed {seed}")
            file = arguments.out / f"{name}.json"
            if file.exists():
                continue
            print(f"{name} ...", flush=True)
            facts, found = run_one(arguments, who, train_set, test_set, seed=seed)
            save_detections(arguments.out / f"{name}.detections.json.gz", found)
            result = {
                "task": task,
                "who": who,
                "data": str(arguments.data),
                "minutes": arguments.minutes,
                "seed": seed,
                "images": len(train_set),
                "test_images": len(test_set),
                **facts,
                **scores(found, test_set),
                **runs.machine(),
            }
            runs.write_result(file, result)
            print(f"  AP {100 * result['ap']:.1f}, AP50 {100 * result['ap50']:.1f}", flush=True)


def run_one(arguments: argparse.Namespace, who: str, train_set: Dataset, test_set: Dataset, *, seed: int) -> Outcome:
    if who in OURS:
        return run_ours(*OURS[who], train_set, test_set, minutes=arguments.minutes, seed=seed)
    if who in YOLOS:
        model = str(arguments.weights.resolve()) if who in FROM_WEIGHTS else "yolo11n.yaml"
        job = {"model": model, "size": YOLOS[who], "minutes": arguments.minutes, "seed": seed}
        return run_yolo(arguments.peer_python, job, train_set, test_set)
    return run_ssdlite(train_set, test_set, minutes=arguments.minutes, seed=seed)


def run_ours(
    model: str,
    start_from: str | None,
    values: dict[str, Any],
    train_set: Dataset,
    test_set: Dataset,
    *,
    minutes: float,
    seed: int,
) -> Outcome:
    detector = starts.make_detector(model, train_set.class_names, start_from=start_from, seed=seed)
    detector, facts = starts.train(detector, train_set, minutes=minutes, seed=seed, **values)

    def detect(image: Path) -> Found:
        found = detector.detect(image, score_threshold=SCORE_THRESHOLD, max_detections=MAX_DETECTIONS)
        return {"boxes": found.boxes.tolist(), "scores": found.scores.tolist(), "labels": found.labels.tolist()}

    found, median_ms = timed(detect, test_set)
    return facts | {"median_ms": median_ms}, found


def run_ssdlite(train_set: Dataset, test_set: Dataset, *, minutes: float, seed: int) -> Outcome:
    from PIL import Image
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large
    from torchvision.transforms.v2.functional import pil_to_tensor

    torch.manual_seed(seed)
    model = ssdlite320_mobilenet_v3_large(
        weights=None,
        weights_backbone=None,
        num_classes=len(train_set.class_names) + 1,
        score_thresh=SCORE_THRESHOLD,
        detections_per_img=MAX_DETECTIONS,
    )
    with cpu_clock():
        began = time.monotonic()
        *_, last = torchvision_peer.train_lite(model, train_set, minutes=minutes, seed=seed)
        taken = (time.monotonic() - began) / 60
    model.eval()

    def detect(path: Path) -> Found:
        with torch.inference_mode(), Image.open(path) as image:
            [found] = model([pil_to_tensor(image.convert("RGB")) / 255])
        return {
            "boxes": found["boxes"].tolist(),
            "scores": found["scores"].tolist(),
            "labels": (found["labels"] - 1).tolist(),
        }

    found, median_ms = timed(detect, test_set)
    images = last.step * min(24, len(train_set))
    return {
        "trained_minutes": taken,
        "epochs": images / len(train_set),
        "images_per_second": images / taken / 60,
        "median_ms": median_ms,
    }, found


def run_yolo(python: Path, job: dict[str, Any], train_set: Dataset, test_set: Dataset) -> Outcome:
    """Runs `peer_yolo.py` in its own environment."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_yolo({"train": train_set, "val": runs.some(train_set, 1)}, work / "data")
        job |= {
            "data": str(work / "data" / "data.yaml"),
            "work": str(work),
            "score_threshold": SCORE_THRESHOLD,
            "max_detections": MAX_DETECTIONS,
            "images": {sample.name: str(image_file(sample.image)) for sample in test_set},
        }
        (work / "job.json").write_text(json.dumps(job), encoding="utf-8")
        script = Path(__file__).with_name("peer_yolo.py").resolve()
        outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        command = [str(python.absolute()), str(script), "job.json", "result.json"]
        with (work / "log.txt").open("w", encoding="utf-8") as log:
            done = subprocess.run(command, cwd=work, env=outside, stdout=log, stderr=subprocess.STDOUT)
        if done.returncode:
            lines = (work / "log.txt").read_text(encoding="utf-8", errors="replace").splitlines()
            sys.exit("\n".join([*lines[-30:], f"{script.name} failed with status {done.returncode}"]))
        result: dict[str, Any] = json.loads((work / "result.json").read_text(encoding="utf-8"))
    found: dict[str, Found] = result.pop("detections")
    result["epochs"] = result.pop("batches") / -(-len(train_set) // YOLO_BATCH)
    result["images_per_second"] = result["epochs"] * len(train_set) / result["trained_minutes"] / 60
    return result, found


def timed(detect: Callable[[Path], Found], test_set: Dataset) -> tuple[dict[str, Found], float]:
    """Returns the detections in each image of a data set by its name, and their median CPU time in milliseconds."""
    torch.set_num_threads(1)
    files = {sample.name: image_file(sample.image) for sample in test_set}
    for file in list(files.values())[:WARM_UP]:
        detect(file)
    found, seconds = {}, []
    for name, file in files.items():
        began = time.process_time()
        found[name] = detect(file)
        seconds.append(time.process_time() - began)
    return found, 1000 * statistics.median(seconds)


def image_file(image: object) -> Path:
    if not isinstance(image, Path):
        sys.exit("an image of the test set is no file, so its latency would not be that of the others")
    return image.resolve()


def save_detections(file: Path, found: dict[str, Found]) -> None:
    """Writes the detections of a run, boxes to a hundredth of a pixel and scores to six decimals."""
    rounded = {
        name: {
            "boxes": [[round(value, 2) for value in box] for box in one["boxes"]],
            "scores": [round(value, 6) for value in one["scores"]],
            "labels": one["labels"],
        }
        for name, one in found.items()
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, "wt", encoding="utf-8") as stream:
        json.dump(rounded, stream)


def scores(found: dict[str, Found], test_set: Dataset) -> dict[str, float | None]:
    """Returns the numbers of COCO's rule. Every image of the test set must have its detections, be they none."""
    detections = []
    for sample in test_set:
        one = found[sample.name]
        boxes = np.array(one["boxes"], dtype=np.float32).reshape(-1, 4)
        boxes = boxes.clip(0, [sample.width, sample.height] * 2).astype(np.float32)
        labels = np.array(one["labels"], dtype=np.int64)
        scores = np.array(one["scores"], dtype=np.float32)
        detections.append(Detections(boxes, scores, labels, np.full(len(labels), -1), test_set.class_names))
    metrics = score([each.truth for each in test_set], detections, class_names=test_set.class_names, rule="coco")
    return {"ap": metrics.ap, "ap50": metrics.ap50, "ap75": metrics.ap75}


def print_table(folders: Sequence[Path]) -> None:
    """Prints a table for each task and time: means over the seeds, with the lowest and highest AP and AP50."""
    results = runs.read_results(folders)
    for task, minutes in sorted({(each["task"], each["minutes"]) for each in results}):
        print()
        head = ("AP50", "AP", "seeds", "minutes taken", "images/s", "epochs", "CPU ms an image")
        runs.print_row(f"{task}, {minutes:g} min", *head)
        runs.print_row("---", *["---:"] * len(head))
        for who in WHO:
            found = [each for each in results if (each["task"], each["minutes"], each["who"]) == (task, minutes, who)]
            if found:
                names = ("trained_minutes", "images_per_second", "epochs")
                means = (statistics.mean(each[name] for each in found) for name in names)
                runs.print_row(
                    who,
                    *(runs.spread([each[name] for each in found]) for name in ("ap50", "ap")),
                    str(len(found)),
                    *(f"{value:.1f}" for value in means),
                    f"{statistics.median(each['median_ms'] for each in found):.1f}",
                )
    runs.print_machines(results)


if __name__ == "__main__":
    main()
