"""The folder of a run: its weights, state, metrics and log."""

import csv
import errno
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from math import isnan
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import torch
import yaml

from multibox.evaluation.metrics import Metrics
from multibox.files import atomic_write
from multibox.training.checkpoint import Checkpoints
from multibox.training.distributed import World
from multibox.training.loading import Batch
from multibox.training.progress import Progress, Stretch
from multibox.training.recipes import TrainConfig
from multibox.weights.file import load_weights

log = logging.getLogger("multibox")

COLUMNS = (
    "step",
    "epoch",
    "minutes",
    "learning_rate",
    "localization",
    "confidence",
    "gradient_norm",
    "bad_steps",
    "images_per_second",
    "wait_input",
    "wait_host",
    "wait_device",
    "ap",
    "ap50",
    "ap75",
)


def row_of(progress: Progress, stretch: Stretch, seconds: float, metrics: Metrics | None) -> dict[str, float | None]:
    """A row of `metrics.csv`; unknown losses are those of a stretch without a good step."""
    values = {
        "step": progress.step,
        "epoch": progress.epoch,
        "minutes": seconds / 60,
        "learning_rate": progress.learning_rate,
        "localization": progress.localization,
        "confidence": progress.confidence,
        "gradient_norm": progress.gradient_norm,
        "bad_steps": stretch.bad_steps,
        "images_per_second": progress.images_per_second,
        **{f"wait_{whom}": share for whom, share in stretch.shares().items()},
        "ap": metrics.ap if metrics else None,
        "ap50": metrics.ap50 if metrics else None,
        "ap75": metrics.ap75 if metrics else None,
    }
    return {name: None if value is None or isnan(value) else value for name, value in values.items()}


class Record:
    """The files of one run, as a context that keeps the log open.

    Attributes:
        checkpoints: The state of the run.
    """

    def __init__(self, folder: Path, *, resume: bool, world: World) -> None:
        """Makes the folder.

        Args:
            folder: Of the run.
            resume: Whether it may hold a run already.
            world: Of which the first process writes the files.

        Raises:
            FileExistsError: It holds a run, and `resume` was not asked for; or another process is at work in it.
        """
        self.folder = folder
        self.best = folder / "best.safetensors"
        self.last = folder / "last.safetensors"
        self.metrics = folder / "metrics.csv"
        self.checkpoints = Checkpoints(folder)
        self._world = world
        self._held: TextIO | None = None
        world.from_first(partial(self._take, resume=resume))
        self._log: logging.Handler = (
            logging.FileHandler(folder / "log.txt", encoding="utf-8") if world.is_first else logging.NullHandler()
        )
        self._log.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))

    def _take(self, *, resume: bool) -> None:
        of_a_run = (self.checkpoints.last, self.checkpoints.previous, self.metrics)
        if not resume and any(path.exists() for path in of_a_run):
            raise FileExistsError(
                f"{self.folder} holds a run already; choose another folder, or go on with it: resume=True, --resume"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._held = (self.folder / ".lock").open("w", encoding="utf-8")
        if not _lock(self._held):
            self._held.close()
            raise FileExistsError(
                f"another run is at work in {self.folder}; wait for its end, or choose another folder"
            )

    def __enter__(self) -> "Record":
        self._level_before = log.level
        if not log.isEnabledFor(logging.INFO):
            log.setLevel(logging.INFO)
        log.addHandler(self._log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:  # for those who read the file: others hear of the error itself
            message = f"stopped: {str(error) or type(error).__name__}"
            self._log.handle(logging.LogRecord(log.name, logging.INFO, __file__, 0, message, None, None))
        log.removeHandler(self._log)
        log.setLevel(self._level_before)
        self._log.close()
        if self._held:
            self._held.close()

    def begin(self, config: TrainConfig, notes: Mapping[str, Any], *, step: int) -> None:
        """Writes `config.yaml`, and takes back the rows of steps that were lost when a run was interrupted.

        Args:
            config: What `multibox train --config` reads.
            notes: What else it reads; stands first.
            step: The last that was not lost.

        Raises:
            ValueError: Something else has written to `metrics.csv`.
        """
        self._world.from_first(partial(self._begin, {**notes, **config.values()}, step))

    def _begin(self, values: Mapping[str, object], step: int) -> None:
        if self.metrics.exists():
            self._write_rows([row for row in self.rows() if row["step"] is not None and row["step"] <= step])
        with atomic_write(self.folder / "config.yaml") as part:
            part.write_text(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True), encoding="utf-8")

    def write_row(self, row: dict[str, float | int | None]) -> None:
        """One more row of `metrics.csv`."""
        self._write_rows([*self.rows(), row])

    def rows(self) -> list[dict[str, float | int | None]]:
        """The rows of `metrics.csv`.

        Raises:
            ValueError: Something else has written to it.
        """
        if not self.metrics.exists():
            return []
        try:
            with self.metrics.open(newline="", encoding="utf-8") as file:
                return [
                    {name: float(value) if (value := row.get(name)) else None for name in COLUMNS}
                    | {"step": float(row["step"])}
                    for row in csv.DictReader(file)
                ]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{self.metrics}: not as a run writes it ({error}); move it out of the folder to go on without its rows"
            ) from error

    def _write_rows(self, rows: Sequence[dict[str, float | int | None]]) -> None:
        with atomic_write(self.metrics) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for row in rows:
                writer.writerow({name: _text(name, value) for name, value in row.items() if value is not None})

    def save_batch(self, step: int, rank: int, batch: Batch) -> Path | None:
        """Writes a batch that gave no finite loss, for a look at it; where it is. Those of ten steps are enough."""
        others = {path.stem.split("-")[2] for path in self.folder.glob("bad-step-*.pt")} - {str(step)}
        if len(others) >= 10:
            return None
        path = self.folder / (f"bad-step-{step}.pt" if rank == 0 else f"bad-step-{step}-process-{rank}.pt")
        torch.save(batch._asdict(), path)
        return path


def step_of(weights: Path) -> int | None:
    """Of a run's file of weights; nothing where there is none, or it is damaged."""
    try:
        return int(load_weights(weights).provenance["step"])
    except (OSError, ValueError, KeyError):
        return None


def _lock(file: TextIO) -> bool:
    """Takes an open file for this process, until it is closed or the process ends; whether no other process has it.

    Windows has no such locks.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # some file systems have none either
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True


def _text(name: str, value: float) -> str:
    return f"{value:.0f}" if name in ("step", "bad_steps") else f"{value:.6g}"
