"""Checks of the training and the validation set, and their fingerprints."""

import logging
from collections.abc import Mapping, Sequence

from multibox.data.check import check_learnable, find_shared_images, find_unused_classes
from multibox.data.fingerprint import fingerprint
from multibox.data.sample import Dataset, compare_classes
from multibox.detector import Detector
from multibox.messages import counted, quoted
from multibox.training.distributed import ProcessGroup
from multibox.training.recipes import TrainConfig

log = logging.getLogger("multibox")

DatasetFingerprints = Mapping[str, Mapping[str, int | str]]
"""Size and fingerprint of each data set (`"train"`, `"val"`), stored in the checkpoint to detect changed data."""

_NAMES = {"train": "training set", "val": "validation set"}


def check_data(detector: Detector, datasets: Sequence[Dataset]) -> list[Dataset]:
    """Checks that the detector can be trained on the first data set and validated on the second.

    Returns:
        The data sets. The classes of the second one are those of the first, joined by name.

    Raises:
        TypeError: A data set is not a `Dataset` but, for example, a list.
        ValueError: The detector scores by sigmoids; a data set has no images; the first one has no usable box, or other
            classes than the detector; or the second one has objects of a class that the first one does not have.
    """
    if detector.config.scoring != "softmax":
        raise ValueError(
            "the loss trains a softmax over the classes, but this detector scores each class by a sigmoid; make one to "
            "train with detector.with_classes(dataset.class_names)"
        )
    for dataset in datasets:
        if not isinstance(dataset, Dataset):
            raise TypeError(
                f"train takes data sets, or the path of one, not {quoted(dataset)}; to join several, read them first: "
                "multibox.read_dataset([path, other_path], split='train')"
            )
        if len(dataset) == 0:
            raise ValueError(f"{dataset.name} has no images")
    train_set, *others = datasets
    difference = compare_classes(train_set.name, train_set.class_names, "the detector", detector.class_names)
    if difference:
        raise ValueError(f"{difference}; make one for the data with detector.with_classes(dataset.class_names)")
    check_learnable(train_set)
    return [train_set, *(dataset.with_classes(train_set.class_names) for dataset in others)]


def check_same(group: ProcessGroup, datasets: Sequence[Dataset], fingerprints: DatasetFingerprints) -> None:
    """Checks that all processes have read the same data. Otherwise their steps would differ.

    Args:
        group: The processes of the run.
        datasets: The data sets that this process has read.
        fingerprints: The fingerprints of these data sets.

    Raises:
        ValueError: Another process has other images or other boxes, for example because it cannot read a file.
    """
    of_all = group.all_gather(fingerprints)
    for dataset, name in zip(datasets, fingerprints, strict=True):
        if any(each[name] != fingerprints[name] for each in of_all):
            counts = ", ".join(str(each[name]["images"]) for each in of_all)
            raise ValueError(
                f"the processes do not have the same data: {counts} images of {dataset.name}, or other boxes; see "
                "that all of them can read all files"
            )


def warn_about_data(datasets: Sequence[Dataset], config: TrainConfig) -> None:
    """Warns about classes that cannot be learned, and about a validation set that measures nothing, or too well."""
    unseen = find_unused_classes(datasets[0])
    if unseen:
        log.warning(f"no training image has an object of {', '.join(unseen)}, so the detector cannot learn it")
    for dataset in datasets[1:]:
        if len(find_unused_classes(dataset)) == len(dataset.class_names):
            log.warning(f"no image of {dataset.name} has an object, so no average precision can be measured")
        if shared := len(find_shared_images(datasets[0], dataset)):
            log.warning(f"{counted(shared, 'validation image')} also in the training set: the scores will be too good")
    if len(datasets) == 1 and config.patience is not None:
        log.warning("patience has no effect without a validation set: the run goes to its end")


def fingerprints_of(datasets: Sequence[Dataset]) -> DatasetFingerprints:
    """Returns the size and the fingerprint of the training set and, if there is one, of the validation set."""
    return {
        name: {"images": len(dataset), "fingerprint": fingerprint(dataset)}
        for name, dataset in zip(_NAMES, datasets, strict=False)
    }


def warn_if_data_changed(before: DatasetFingerprints, now: DatasetFingerprints) -> list[str]:
    """Warns if a run is resumed with other images or boxes. Returns which sets changed: `"train"`, `"val"`."""
    consequences = {
        "train": "the steps from here on are not those of a run that was never stopped",
        "val": (
            "the best weights so far are evaluated again on the new set"
            if "val" in now
            else "there is no validation set any more, so the last weights are kept"
        ),
    }
    changed = [name for name in _NAMES if before.get(name) != now.get(name)]
    for name in changed:
        then, here = (fingerprints.get(name, {}).get("images", "none") for fingerprints in (before, now))
        log.warning(
            f"the {_NAMES[name]} has changed since the run was stopped ({then} images then, {here} now, or other "
            f"boxes): {consequences[name]}"
        )
    return changed
