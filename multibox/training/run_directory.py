"""The folder of a run: its weights, checkpoints, metrics and log."""

import csv
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
import yaml
from filelock import FileLock, Timeout

from multibox.data.sample import Problem
from multibox.files import atomic_write, remove_leftovers
from multibox.messages import counted
from multibox.training.distributed import ProcessGroup
from multibox.training.loading import Batch
from multibox.training.progress import COLUMNS, Row
from multibox.training.recipes import TrainConfig
from multibox.training.run_files import check_run_folder
from multibox.training.state import Checkpoints
from multibox.weights.file import load_weights

log = logging.getLogger("multibox")

LOCK_SECONDS = 10.0
"""Seconds to wait for the lock. The readers of a run that was killed inherit its lock, and notice within 5 seconds."""


class RunDirectory:
    """The files of one run, as a context that holds the lock and keeps the log open.

    Attributes:
        folder: Path of the folder.
        best: Path of the weights with the highest AP.
        last: Path of the weights of the last validation.
        metrics: Path of `metrics.csv`.
        checkpoints: The checkpoints of the run.
    """

    def __init__(self, folder: Path, *, resume: bool, group: ProcessGroup) -> None:
        """Creates the folder and takes its lock.

        Args:
            folder: Path of the folder.
            resume: Whether the folder may hold a run already.
            group: The processes of the run. The main process writes the files.

        Raises:
            FileExistsError: The folder holds a run and `resume` is false, or another process is writing to it.
        """
        self.folder = folder
        self.best = folder / "best.safetensors"
        self.last = folder / "last.safetensors"
        self.metrics = folder / "metrics.csv"
        self.checkpoints = Checkpoints(folder)
        self._group = group
        self._lock = FileLock(folder / ".lock")
        group.broadcast_from_main(partial(self._open, resume=resume))
        self._log: logging.Handler = (
            logging.FileHandler(folder / "log.txt", encoding="utf-8", errors="backslashreplace")
            if group.is_main
            else logging.NullHandler()
        )
        self._log.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S"))

    def _open(self, *, resume: bool) -> None:
        check_run_folder(self.folder, resume=resume)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=LOCK_SECONDS)
        except Timeout as error:
            raise FileExistsError(
                f"another run is writing to {self.folder}; wait for its end, or choose another folder"
            ) from error
        except NotImplementedError:
            log.warning(f"the file system of {self.folder} has no locks: do not start a second run in it")

    def __enter__(self) -> "RunDirectory":
        self._level_before = log.level
        if not log.isEnabledFor(logging.INFO):
            log.setLevel(logging.INFO)
        log.addHandler(self._log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None:  # in the file only: the caller receives the error itself
            self.note(f"stopped: {str(error) or type(error).__name__}")
        log.removeHandler(self._log)
        log.setLevel(self._level_before)
        self._log.close()
        self._lock.release()

    def kept(self, step: int) -> Path:
        """Returns the path of the weights that are kept of the validation after a step (`keep_weights`)."""
        return self.folder / f"weights-{step:06d}.safetensors"

    def note(self, message: str) -> None:
        """Writes a line to `log.txt` only."""
        self._log.handle(logging.LogRecord(log.name, logging.INFO, __file__, 0, message, None, None))

    def begin(self, config: TrainConfig, notes: Mapping[str, Any], *, step: int) -> None:
        """Writes `config.yaml`, and removes rows of steps that were lost when the run was interrupted.

        Args:
            config: The values of the run, which `multibox train --config` reads.
            notes: Further values that it reads. They come first in the file.
            step: Step of the last row to keep; -1 for none.

        Raises:
            ValueError: Something else has written to `metrics.csv`.
        """
        self._group.broadcast_from_main(partial(self._begin, {**notes, **config.values()}, step))

    def _begin(self, values: Mapping[str, object], step: int) -> None:
        remove_leftovers(self.folder)
        if self.metrics.exists():
            self._write_rows([row for row in self.rows() if row["step"] is not None and row["step"] <= step])
        with atomic_write(self.folder / "config.yaml") as part:
            part.write_text(yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True), encoding="utf-8")

    def write_problems(self, problems: Sequence[Problem]) -> None:
        """Writes the problems of the data to `problems.csv`, and to the log if they were not there before.

        The terminal does not get them: who read the data has shown them already.
        """
        if self._group.is_main:
            self._write_problems(list(dict.fromkeys(problems)))

    def _write_problems(self, problems: Sequence[Problem]) -> None:
        file = self.folder / "problems.csv"
        if not problems:
            file.unlink(missing_ok=True)
            return
        before = file.read_bytes() if file.exists() else None
        with (
            atomic_write(file) as part,
            part.open("w", newline="", encoding="utf-8", errors="backslashreplace") as lines,
        ):
            writer = csv.writer(lines)
            writer.writerow(["where", "what", "done"])
            writer.writerows([problem.where, problem.what, problem.done] for problem in problems)
        if file.read_bytes() != before:
            self.note(f"{counted(len(problems), 'problem')} of the data:")
            for problem in problems:
                self.note(f"  {problem}")

    def write_row(self, row: Row) -> None:
        """Adds a row to `metrics.csv`."""
        self._write_rows([*self.rows(), row])

    def rows(self) -> list[Row]:
        """Returns the rows of `metrics.csv`.

        Raises:
            ValueError: Something else has written to the file.
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

    def _write_rows(self, rows: Sequence[Row]) -> None:
        with atomic_write(self.metrics) as part, part.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            for row in rows:
                writer.writerow({name: _text(name, value) for name, value in row.items() if value is not None})

    def save_batch(self, step: int, rank: int, batch: Batch) -> Path | None:
        """Saves the batch of a step that was not finite. Returns its file, or `None` after ten such steps."""
        others = {path.stem.split("-")[2] for path in self.folder.glob("bad-step-*.pt")} - {str(step)}
        if len(others) >= 10:
            return None
        path = self.folder / (f"bad-step-{step}.pt" if rank == 0 else f"bad-step-{step}-process-{rank}.pt")
        torch.save(batch._asdict(), path)
        return path


def step_of(weights: Path) -> int | None:
    """Returns the step at which a run saved a weights file, or `None` if the file is missing or damaged."""
    try:
        return int(load_weights(weights).provenance["step"])
    except (OSError, ValueError, KeyError):
        return None


def _text(name: str, value: float) -> str:
    return f"{value:.0f}" if name in ("step", "nonfinite_steps") else f"{value:.6g}"
