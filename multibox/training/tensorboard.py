"""Writes the metrics, curves and images of a run for TensorBoard."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from multibox.evaluation.precision_recall import PrecisionRecall
from multibox.training.progress import Row
from multibox.training.recipes import TrainConfig


class TensorBoard:
    """Event files in the folder `tensorboard/` of a run.

    A resumed run repeats the steps that were lost, with the same numbers. Entries of these steps in older files are
    marked as purged, so that TensorBoard shows each point once.
    """

    def __init__(self, folder: Path, config: TrainConfig, *, step: int) -> None:
        """Opens a new file.

        Args:
            folder: Folder of the run.
            config: Values of the run, shown as text.
            step: Number of steps done. Older entries for later steps no longer count.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else 0)
        if step == 0:
            lines = [f"    {name}: {value}" for name, value in config.values().items()]  # preformatted Markdown
            self._writer.add_text("config", "\n".join(lines), 0)

    def add_row(self, row: Row) -> None:
        """Writes the numbers of a row of `metrics.csv`, in a group for training and one for validation."""
        step = int(row["step"] or 0)
        for name, value in row.items():
            if value is not None and name != "step":
                group = "validation" if name.startswith("ap") else "training"
                self._writer.add_scalar(f"{group}/{name}", value, step)
        self._writer.flush()  # a process that is killed loses what it has not written

    def add_image(self, step: int, name: str, image: Image.Image) -> None:
        """Writes an image as it was at a step."""
        self._writer.add_image(name, np.asarray(image), step, dataformats="HWC")
        self._writer.flush()

    def add_pr_curves(self, step: int, curves: Mapping[str, PrecisionRecall]) -> None:
        """Writes precision by recall for each class. The thresholds must be evenly spaced from 0 to 1."""
        for name, curve in curves.items():
            self._writer.add_pr_curve_raw(
                f"precision_recall/{name}",
                true_positive_counts=curve.true_positives,
                false_positive_counts=curve.false_positives,
                true_negative_counts=np.zeros_like(curve.true_positives),  # not defined for a detector
                false_negative_counts=curve.objects - curve.true_positives,
                precision=curve.precision,
                recall=curve.recall,
                global_step=step,
                num_thresholds=len(curve.thresholds),
            )
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()
