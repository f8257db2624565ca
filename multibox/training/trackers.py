"""Where a run can be watched: TensorBoard, Weights & Biases, MLflow; each a class of the same four methods.

After a resume the steps that were lost are made again, to the same numbers, and told again; each tracker sees to it
that no point is there twice.
"""

import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from multibox.evaluation.precision_recall import PrecisionRecall
from multibox.training.figures import draw_pr_curves
from multibox.training.recipes import TrainConfig

log = logging.getLogger("multibox")


class TensorBoard:
    """Event files in `tensorboard/` of the run's folder."""

    def __init__(self, folder: Path, config: TrainConfig, *, step: int) -> None:
        """Takes up the run after that many steps: what was told of later ones no longer counts."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "the tracker tensorboard needs its package: pip install 'multibox[tensorboard]'"
            ) from error
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else 0)
        if step == 0:
            lines = [f"    {name}: {value}" for name, value in config.values().items()]  # Markdown, as it stands
            self._writer.add_text("config", "\n".join(lines), 0)

    def scalars(self, step: int, row: Mapping[str, float | int | None]) -> None:
        """The numbers of a step, by name; what is unknown is left out."""
        for tag, value in _tagged(row).items():
            self._writer.add_scalar(tag, value, step)
        self._writer.flush()  # a process that is killed takes along what it has not written

    def images(self, step: int, name: str, image: Image.Image) -> None:
        """An image as it was at a step."""
        self._writer.add_image(name, np.asarray(image), step, dataformats="HWC")
        self._writer.flush()

    def pr_curves(self, step: int, curves: Mapping[str, PrecisionRecall]) -> None:
        """Precision by recall, by class name; the thresholds must be evenly spaced from 0 to 1."""
        for name, curve in curves.items():
            self._writer.add_pr_curve_raw(
                f"precision_recall/{name}",
                true_positive_counts=curve.true_positives,
                false_positive_counts=curve.false_positives,
                true_negative_counts=np.zeros_like(curve.true_positives),  # a detector has no number of them
                false_negative_counts=curve.objects - curve.true_positives,
                precision=curve.precision,
                recall=curve.recall,
                global_step=step,
                num_thresholds=len(curve.thresholds),
            )
        self._writer.flush()

    def close(self, *, finished: bool) -> None:
        """Ends the telling: the run is at its end, or was stopped."""
        self._writer.close()


class WeightsAndBiases:
    """A run of the project `WANDB_PROJECT`, by default multibox; wandb's own variables say where and how.

    It refuses points of steps that it has already, and goes on by the identifier in `wandb.id` of the run's folder.
    """

    def __init__(self, folder: Path, config: TrainConfig, *, step: int) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError("the tracker wandb needs its package: pip install wandb") from error
        kept = folder / "wandb.id"
        if not kept.exists():
            kept.write_text(uuid.uuid4().hex, encoding="utf-8")
        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "multibox"),
            name=folder.resolve().name,
            dir=str(folder),
            id=kept.read_text(encoding="utf-8"),
            resume="allow",
            config=config.values(),
            allow_val_change=True,  # a run may be made longer
        )

    def scalars(self, step: int, row: Mapping[str, float | int | None]) -> None:
        """As TensorBoard's."""
        self._run.log(_tagged(row), step=step)

    def images(self, step: int, name: str, image: Image.Image) -> None:
        """As TensorBoard's."""
        self._run.log({name: self._wandb.Image(image)}, step=step)

    def pr_curves(self, step: int, curves: Mapping[str, PrecisionRecall]) -> None:
        """As TensorBoard's, drawn as one image."""
        self.images(step, "precision_recall", draw_pr_curves(curves))

    def close(self, *, finished: bool) -> None:
        """As TensorBoard's."""
        self._run.finish(exit_code=0 if finished else 1)


class MLflow:
    """A run of MLflow; its own variables (`MLFLOW_TRACKING_URI`, `MLFLOW_EXPERIMENT_NAME`) say where.

    It goes on by the identifier in `mlflow.id` of the run's folder. MLflow takes a second point of the same step, so it
    is asked first which is the last that it has. Where its server fails later on, the log says so and the run goes on.
    """

    def __init__(self, folder: Path, config: TrainConfig, *, step: int) -> None:
        try:
            import mlflow
        except ImportError as error:
            raise ImportError("the tracker mlflow needs its package: pip install mlflow") from error
        self._mlflow = mlflow
        kept = folder / "mlflow.id"
        known = kept.read_text(encoding="utf-8") if kept.exists() else None
        self._id = mlflow.start_run(run_id=known, run_name=folder.resolve().name).info.run_id
        self._resumed = known is not None
        self._last_steps: dict[str, int] = {}
        if not self._resumed:
            kept.write_text(self._id, encoding="utf-8")
            self._tell(lambda: mlflow.log_params(config.values()))

    def scalars(self, step: int, row: Mapping[str, float | int | None]) -> None:
        """As TensorBoard's."""
        self._tell(lambda: self._log_new(step, _tagged(row)))

    def images(self, step: int, name: str, image: Image.Image) -> None:
        """As TensorBoard's, as a file: told again it is replaced."""
        self._tell(lambda: self._mlflow.log_image(image, artifact_file=f"{name}/{step:08}.png"))

    def pr_curves(self, step: int, curves: Mapping[str, PrecisionRecall]) -> None:
        """As TensorBoard's, drawn as one image."""
        self.images(step, "precision_recall", draw_pr_curves(curves))

    def close(self, *, finished: bool) -> None:
        """As TensorBoard's."""
        self._tell(lambda: self._mlflow.end_run("FINISHED" if finished else "KILLED"))

    def _log_new(self, step: int, values: dict[str, float]) -> None:
        if self._resumed:
            values = {name: value for name, value in values.items() if step > self._last_step(name)}
        if values:
            self._mlflow.log_metrics(values, step=step)

    def _last_step(self, name: str) -> int:
        """Of the points that MLflow had when the run was taken up again."""
        if name not in self._last_steps:
            history = self._mlflow.MlflowClient().get_metric_history(self._id, name)
            self._last_steps[name] = max((point.step for point in history), default=-1)
        return self._last_steps[name]

    def _tell(self, what: Callable[[], object]) -> None:
        try:
            what()
        except self._mlflow.MlflowException as error:
            log.warning("mlflow: %s; the run goes on", error)


Tracker = TensorBoard | WeightsAndBiases | MLflow

TRACKERS: Mapping[str, Callable[..., Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


@contextmanager
def open_trackers(names: Sequence[str], folder: Path, config: TrainConfig, *, step: int) -> Iterator[list[Tracker]]:
    """The trackers of these names, closed at the end of the block.

    Args:
        names: Of `TRACKERS`.
        folder: Of the run; must be there.
        config: Values of the run, which are shown.
        step: How many steps are done: what was told of later ones is told again.

    Raises:
        ImportError: The package of a tracker is not installed.
    """
    trackers: list[Tracker] = []
    finished = False
    try:
        for name in names:
            trackers.append(TRACKERS[name](folder, config, step=step))
        yield trackers
        finished = True
    finally:
        for tracker in trackers:
            tracker.close(finished=finished)


def _tagged(row: Mapping[str, float | int | None]) -> dict[str, float]:
    """The numbers that are known, named so that trackers show those of training and of validation in two groups."""
    return {
        f"{'validation' if name.startswith('ap') else 'training'}/{name}": float(value)
        for name, value in row.items()
        if value is not None and name != "step"
    }
