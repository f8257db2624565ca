"""Take names and paths where `train` needs detectors and data sets, as the command `multibox train` does."""

import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

from multibox.data.check import read_usable
from multibox.data.holdout import Holdout
from multibox.data.read import EVALUATION_SPLITS, DatasetReader, usual_split
from multibox.data.sample import Dataset
from multibox.detector import Detector, new_config
from multibox.weights.published import find_weights, is_weights

log = logging.getLogger("multibox")

GivenSet = Dataset | str | os.PathLike[str]
"""A data set, or its path as `read_dataset` takes it."""

GivenDetector = Detector | str | os.PathLike[str]
"""A detector; or the name of a preset or of published weights, or the path of a config or of a weights file."""


class Sets(NamedTuple):
    """The data sets of a run.

    Attributes:
        train: The images to learn from.
        val: The images to validate on, if there are any.
        notes: What `config.yaml` says about data that were given by a path: `data`, `train_split`, and `val_split` or
            `val_fraction`.
        holdout: What was held out of the training set to validate on, if anything was.
    """

    train: Dataset
    val: Dataset | None
    notes: dict[str, Any]
    holdout: Holdout | None = None


def read_sets(train_set: GivenSet, val_set: GivenSet | None, *, val_fraction: float, progress: bool) -> Sets:
    """Returns the data sets of a run. Those that are given by a path are read, without what cannot be used.

    Args:
        train_set: The images to learn from. Of a path, the split `train`, `trainval` or the only one is read.
        val_set: The images to validate on. Of a path, the split `val`, `test` or the only one is read. If it is None
            and the training set is a path, `val` of the same data is read, or a part of the training set is taken.
        val_fraction: Size of that part, as a fraction of the images.
        progress: Whether to show progress bars.

    Raises:
        FileNotFoundError: There is no such folder or file.
        DatasetError: A path holds no data set that can be used.
        ValueError: The fraction is not from 0 to below 1.
    """
    if not 0 <= val_fraction < 1:
        raise ValueError(f"val_fraction must be at least 0 and below 1, but is {val_fraction:g}")
    if isinstance(val_set, str | os.PathLike):
        reader = DatasetReader(os.fspath(val_set))
        val_set = read_usable(reader, usual_split(reader.splits, EVALUATION_SPLITS), progress=progress)
    if not isinstance(train_set, str | os.PathLike):
        return Sets(train_set, val_set, {})
    reader = DatasetReader(os.fspath(train_set))
    split = reader.choose(usual_split(reader.splits, ("train", "trainval")))
    notes: dict[str, Any] = {"data": [os.path.abspath(train_set)], "train_split": split}
    dataset = read_usable(reader, split, progress=progress)
    if val_set is not None:
        return Sets(dataset, val_set, notes)
    val_split = usual_split(reader.splits, ("val",))
    if val_split is not None:
        return Sets(dataset, read_usable(reader, val_split, progress=progress), notes | {"val_split": val_split})
    if not val_fraction:
        return Sets(dataset, None, notes | {"val_split": "none"})
    holdout = Holdout(split, val_fraction)
    parts = holdout.divide(dataset)
    log.warning(
        f"{dataset.name} has no validation split: {len(parts['val'])} of its {len(dataset)} images, by a hash of their "
        f"names, are validated on and not learned from (val_fraction={val_fraction:g})"
    )
    return Sets(parts["train"], parts["val"], notes | {"val_fraction": val_fraction}, holdout)


def check_model(model: GivenDetector) -> dict[str, Any]:
    """Checks the name of a detector before the data are read. Published weights are fetched.

    Returns:
        What `config.yaml` says about a detector that is given by its name: `model`.

    Raises:
        ValueError: There is no such preset, or the file holds no config.
        FileNotFoundError: There is no such file.
        OSError: The weights cannot be fetched.
    """
    if isinstance(model, Detector):
        return {}
    name = os.fspath(model)
    if is_weights(name):
        find_weights(name)
    elif not name.startswith("timm/"):
        new_config(name)
    return {"model": os.path.abspath(name) if Path(name).is_file() else name}


def make_detector(model: GivenDetector, dataset: Dataset, *, seed: int, progress: bool) -> Detector:
    """Returns the detector; a new one of a preset for the classes of the data, or that of weights with these classes.

    Args:
        model: A detector, which is returned as it is; the name of a preset; the path of a config; or weights.
        dataset: The training set.
        seed: Seed of random weights.
        progress: Whether to show progress bars.
    """
    if isinstance(model, Detector):
        return model
    if not is_weights(model):
        return Detector.create(os.fspath(model), dataset.class_names, seed=seed, progress=progress)
    detector = Detector.load(model, progress=progress)
    if detector.class_names == dataset.class_names and detector.config.scoring == "softmax":
        return detector
    return detector.with_classes(dataset.class_names, seed=seed)
