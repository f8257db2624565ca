"""Trains and runs a YOLO in an environment of its own, for `side_by_side.py`: it imports nothing of the package.

    peers/bin/python benchmarks/peer_yolo.py JOB.json RESULT.json

The job names the data set (`data.yaml`), the model (a name of Ultralytics' YAML files, or weights), the side of its
input in pixels, the minutes and the seed of the training, and the images to detect on, with the limits of detections.
The recipe is Ultralytics' own; its argument `time` fits the schedule to the minutes, of CPU time here. All that would
reach for the network is off. The clock starts with the first epoch and stops at the end of the last one.

Ultralytics is licensed under the AGPL. It is used here through its documented interface, and is no dependency of ours.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from cpu_clock import cpu_clock


def main(job_file: str, result_file: str) -> None:
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    work = Path(job["work"])
    os.environ |= {
        "YOLO_CONFIG_DIR": str(work / "config"),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",
        "OMP_NUM_THREADS": "1",
    }
    (work / "config").mkdir(parents=True, exist_ok=True)

    import torch
    import ultralytics
    from ultralytics import YOLO, settings

    settings.update({"sync": False, "tensorboard": False, "wandb": False, "comet": False, "mlflow": False})
    began = last = 0.0
    batches = 0

    def on_train_start(trainer: Any) -> None:
        nonlocal began
        torch.set_num_threads(1)
        began = time.monotonic()

    def on_train_batch_end(trainer: Any) -> None:
        nonlocal batches
        batches += 1

    def on_train_epoch_end(trainer: Any) -> None:  # before the validation that follows the last epoch
        nonlocal last
        last = time.monotonic()

    model = YOLO(job["model"])
    model.add_callback("on_train_start", on_train_start)
    model.add_callback("on_train_batch_end", on_train_batch_end)
    model.add_callback("on_train_epoch_end", on_train_epoch_end)
    with cpu_clock():
        model.train(
            data=job["data"],
            time=job["minutes"] / 60,
            imgsz=job["size"],
            seed=job["seed"],
            pretrained=job["model"].endswith(".pt"),
            device="cpu",
            workers=0,
            amp=False,
            val=False,
            plots=False,
            project=str(work),
            name="run",
            verbose=False,
        )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    trained = YOLO(work / "run" / "weights" / "last.pt")
    how = {"imgsz": job["size"], "conf": job["score_threshold"], "max_det": job["max_detections"], "device": "cpu"}

    def detect(path: str) -> dict[str, list[Any]]:
        boxes = trained.predict(path, verbose=False, save=False, **how)[0].boxes
        return {"boxes": boxes.xyxy.tolist(), "scores": boxes.conf.tolist(), "labels": boxes.cls.int().tolist()}

    for path in list(job["images"].values())[:3]:
        detect(path)
    torch.set_num_threads(1)
    detections, seconds = {}, []
    for name, path in job["images"].items():
        start = time.process_time()
        detections[name] = detect(path)
        seconds.append(time.process_time() - start)
    result = {
        "trained_minutes": (last - began) / 60,
        "batches": batches,
        "threads_in_training": threads,
        "threads_in_detection": torch.get_num_threads(),
        "median_ms": 1000 * statistics.median(seconds),
        "peer_versions": {"ultralytics": ultralytics.__version__, "its torch": torch.__version__},
        "detections": detections,
    }
    Path(result_file).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
