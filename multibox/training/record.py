"""The folder of a run: weights, state, metrics, log, curves, pictures of what was found."""

import csv
import dataclasses
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import yaml

from multibox.data.sample import Dataset
from multibox.detector import Detector
from multibox.drawing import contact_sheet, draw_boxes
from multibox.training.recipes import TrainConfig

log = logging.getLogger("multibox")

COLUMNS = (
    "step",
    "epoch",
    "minutes",
    "learning_rate",
    "localization",
    "confidence",
    "pictures_per_second",
    "ap",
    "ap50",
    "ap75",
)


class Record:
    """The files of one run, as a context that keeps the log open."""

    def __init__(self, folder: Path, *, resume: bool) -> None:
        """Makes the folder.

        Raises:
            FileExistsError: It holds a run, and `resume` was not asked for.
        """
        self.folder = folder
        self.best = folder / "best.safetensors"
        self.last = folder / "last.safetensors"
        self.state = folder / "last.pt"
        self.metrics = folder / "metrics.csv"
        if not resume and (self.state.exists() or self.metrics.exists()):
            raise FileExistsError(
                f"{folder} holds a run already; choose another folder, or go on with it: resume=True, --resume"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self._log = logging.FileHandler(folder / "log.txt", encoding="utf-8")
        self._log.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))

    def __enter__(self) -> "Record":
        self._level_before = log.level
        if not log.isEnabledFor(logging.INFO):
            log.setLevel(logging.INFO)
        log.addHandler(self._log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:
            log.info("stopped: %s", str(error) or type(error).__name__)
        log.removeHandler(self._log)
        log.setLevel(self._level_before)
        self._log.close()

    def write_config(self, config: TrainConfig, notes: Mapping[str, str]) -> None:
        """`config.yaml`: what `multibox train --config` reads, the notes first."""
        values = {**notes, **{name: value for name, value in dataclasses.asdict(config).items() if value is not None}}
        (self.folder / "config.yaml").write_text(
            yaml.safe_dump(values, sort_keys=False, allow_unicode=True), encoding="utf-8"
        )

    def write_row(self, row: dict[str, float | int | None]) -> None:
        """One more row of `metrics.csv`."""
        new = not self.metrics.exists()
        with self.metrics.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(
                {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()}
            )

    def rows(self) -> list[dict[str, float | None]]:
        """The rows of `metrics.csv`."""
        if not self.metrics.exists():
            return []
        with self.metrics.open(newline="", encoding="utf-8") as file:
            return [
                {name: float(value) if value else None for name, value in row.items()} for row in csv.DictReader(file)
            ]

    def drop_rows_after(self, step: int) -> None:
        """Takes back the rows of steps that were lost when a run was interrupted."""
        rows = self.rows()
        if rows:
            self.metrics.unlink()
        for row in rows:
            if row["step"] is not None and row["step"] <= step:
                self.write_row({**row, "step": int(row["step"])})

    def draw_curves(self) -> None:
        """`curves.png`: the losses, and AP, over the epochs."""
        from matplotlib.figure import Figure

        rows = self.rows()
        epochs = [row["epoch"] for row in rows]
        figure = Figure(figsize=(10, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        for name in ("localization", "confidence"):
            left.plot(epochs, [row[name] for row in rows], marker=".", label=f"{name} loss")
        for name, label in (("ap50", "AP50"), ("ap", "AP")):
            if any(row[name] is not None for row in rows):
                right.plot(epochs, [row[name] for row in rows], marker=".", label=label)
        left.set(xlabel="epoch", title="training", ylim=(0, None))
        right.set(xlabel="epoch", title="validation", ylim=(0, 1))
        for axes in (left, right):
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend()
        figure.savefig(self.folder / "curves.png", dpi=100)

    def draw_validation(self, detector: Detector, dataset: Dataset, *, pictures: int = 12) -> None:
        """`validation.jpg`: what the detector finds in pictures from all over the set, the true boxes dashed."""
        count = min(pictures, len(dataset))
        chosen = [dataset[index * len(dataset) // count] for index in range(count)]
        drawn = []
        for sample in chosen:
            picture = sample.open()
            truth = sample.truth
            marked = draw_boxes(picture, truth.boxes, labels=truth.labels, dashed=True)
            drawn.append(detector.detect(picture, score_threshold=0.4).draw(marked))
        contact_sheet(drawn, columns=4).save(self.folder / "validation.jpg", quality=90)
