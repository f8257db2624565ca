"""Several short trainings for one purpose, kept in a folder, so that a job that was killed goes on where it was."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from multibox.data.fingerprint import fingerprint
from multibox.data.sample import Dataset
from multibox.detector import Detector
from multibox.files import atomic_write, file_sha256
from multibox.messages import quoted
from multibox.training.fit import train
from multibox.training.given import check_model
from multibox.training.progress import Progress
from multibox.training.recipes import TrainConfig
from multibox.training.run_files import is_run
from multibox.weights.published import find_weights, is_weights

MODEL = "multibox/voc-tiny"
"""What the trainings start from by default: it comes with the package, and learns most in a short time."""

STEPS = 500
"""Number of steps of each training by default: some two minutes on one core."""

OnProgress = Callable[[float, str], None]
"""Called with the part of the job that is done, from 0 to 1, and a few words about it."""

_PLAN, _FINISHED = "plan.json", "finished.json"


class Job:
    """Trainings of the same model and length on different images.

    Each has a folder of its own below the job's. A finished one is not repeated, one that was killed is resumed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        purpose: str,
        trainings: int,
        data: Mapping[str, Dataset],
        model: str,
        config: TrainConfig,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Makes the folder of the job, or takes up the job that is in it.

        Args:
            folder: The folder of the job.
            purpose: What the trainings are for.
            trainings: Number of the trainings.
            data: The data sets that they are made of, by name.
            model: Preset or weights that each training starts from.
            config: Values of each training; the seed may be given for each anew.
            on_progress: Called during the trainings.

        Raises:
            ValueError: Another job is in the folder, of other data or values; or there is no such model.
            FileExistsError: The folder holds other files.
            FileNotFoundError: There is no such weights file.
        """
        self.folder = Path(folder)
        self._trainings, self._done = trainings, 0
        self._model, self._config, self._on_progress = model, config, on_progress
        check_model(model)
        weights = {"weights": file_sha256(find_weights(model))[:16]} if is_weights(model) else {}
        self._check(
            {
                "purpose": purpose,
                "model": model,
                **weights,
                **{name: f"{dataset.name}, fingerprint {fingerprint(dataset)[:16]}" for name, dataset in data.items()},
                **{
                    name: value
                    for name, value in config.values().items()
                    if name not in ("workers", "device", "report")
                },
            }
        )

    def _check(self, plan: Mapping[str, Any]) -> None:
        """Checks that the job in the folder has this plan, or writes the plan of a new job."""
        file = self.folder / _PLAN
        if not file.is_file():
            if self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
                raise FileExistsError(f"{self.folder} holds files of something else; choose another folder")
            self.folder.mkdir(parents=True, exist_ok=True)
            _write_json(file, plan)
            return
        before = json.loads(file.read_text(encoding="utf-8"))
        now = json.loads(json.dumps(plan))
        for name in {**before, **now}:
            if before.get(name) != now.get(name):
                raise ValueError(
                    f"{self.folder} holds trainings with another {name}: {quoted(before.get(name))}, now "
                    f"{quoted(now.get(name))}; choose another folder, or remove this one"
                )

    def train(self, name: str, train_set: Dataset, *, seed: int) -> Detector:
        """Returns the detector of one training, which is made, resumed, or has been finished before.

        Args:
            name: Name of the training's folder.
            train_set: The images to learn from.
            seed: Seed of the training.

        Raises:
            KeyboardInterrupt: The training received Ctrl-C or SIGTERM, and has saved its state.
        """
        folder, number = self.folder / name, self._done + 1

        def show(progress: Progress) -> None:
            self._report(progress.fraction_done, f"training {number} of {self._trainings}, {progress.speed()}")

        if not (folder / _FINISHED).is_file():
            config = replace(self._config, seed=seed)
            try:
                train(self._model, train_set, None, config, out=folder, resume=is_run(folder), on_progress=show)
            except KeyboardInterrupt as interrupt:
                raise KeyboardInterrupt(f"{interrupt}; the same command goes on with {self.folder}") from None
            _write_json(folder / _FINISHED, {"images": len(train_set)})
        self._done += 1
        self._report(0, f"training {number} of {self._trainings} is done")
        return Detector.load(folder)

    def _report(self, fraction: float, words: str) -> None:
        if self._on_progress is not None:
            self._on_progress((self._done + fraction) / self._trainings, words)


def _write_json(file: Path, values: Mapping[str, Any]) -> None:
    with atomic_write(file) as part:
        part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
