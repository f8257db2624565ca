"""The sets to learn from and to validate on: what they must be, and what is said of them."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from multibox.data.fingerprint import fingerprint
from multibox.data.sample import Dataset, compare_classes
from multibox.detector import Detector
from multibox.training.distributed import World
from multibox.training.recipes import TrainConfig

log = logging.getLogger("multibox")

LEARN_FROM, VALIDATE_ON = "learn from", "validate on"

Names = Mapping[str, Mapping[str, int | str]]
"""Of the sets, how many images they have, and their fingerprints."""


def check_data(detector: Detector, datasets: Sequence[Dataset]) -> None:
    """That the detector can learn from the first of the sets, and be validated on the second.

    Raises:
        ValueError: The detector scores by sigmoids, or a set has no images, or other classes than the detector.
    """
    if detector.config.scoring != "softmax":
        raise ValueError(
            "the loss trains a softmax over the classes, but this detector scores each class by a sigmoid; make one to "
            "train with detector.with_classes(dataset.class_names)"
        )
    for dataset in datasets:
        if len(dataset) == 0:
            raise ValueError(f"{dataset.name} has no images")
        difference = compare_classes(dataset.name, dataset.class_names, "the detector", detector.class_names)
        if difference:
            raise ValueError(f"{difference}; make one for the data with detector.with_classes(dataset.class_names)")


def check_same(world: World, datasets: Sequence[Dataset], names: Names) -> None:
    """That all processes have the same data: where a file could be read by some only, their steps would differ.

    Args:
        world: The processes.
        datasets: Those of this one.
        names: `names_of` them.

    Raises:
        ValueError: They have not.
    """
    shares = world.gather(names)
    for dataset, what in zip(datasets, names, strict=True):
        if any(share[what] != names[what] for share in shares):
            counts = ", ".join(str(share[what]["images"]) for share in shares)
            raise ValueError(
                f"the processes do not have the same data: {counts} images of {dataset.name}, or other boxes; see "
                "that all of them can read all files"
            )


def say_doubts(datasets: Sequence[Dataset], config: TrainConfig) -> None:
    """What cannot be learned from these sets, or measured on them."""
    names, seen = datasets[0].class_names, set(_labels(datasets[0]).tolist())
    unseen = [name for label, name in enumerate(names) if label not in seen]
    if unseen:
        log.warning(f"no image to learn from has {', '.join(unseen)}: that cannot be learned")
    for dataset in datasets[1:]:
        if not len(_labels(dataset)):
            log.warning(f"no image of {dataset.name} has an object: no average precision can be measured")
    if len(datasets) == 1 and config.patience is not None:
        log.warning("patience counts validations, and there is no set to validate on: the run goes to its end")


def names_of(datasets: Sequence[Dataset]) -> Names:
    """What a state says of the sets, to know them again."""
    return {
        what: {"images": len(dataset), "fingerprint": fingerprint(dataset)}
        for what, dataset in zip((LEARN_FROM, VALIDATE_ON), datasets, strict=False)
    }


def say_other_data(before: Names, now: Names) -> list[str]:
    """Says where a run goes on with other images, or other boxes, than before; which sets those are."""
    consequences = {
        LEARN_FROM: "the steps from here on are not those of a run that was never stopped",
        VALIDATE_ON: (
            "the best weights so far are measured on these" if VALIDATE_ON in now else "the last weights are kept"
        ),
    }
    others = [what for what in consequences if before.get(what) != now.get(what)]
    for what in others:
        then, here = (names.get(what, {}).get("images", "none") for names in (before, now))
        log.warning(
            f"the images to {what}, or their boxes, are others than before ({then} then, {here} now): "
            f"{consequences[what]}"
        )
    return others


def _labels(dataset: Dataset) -> Int[np.ndarray, " objects"]:
    """Of all objects but crowds, which are neither learned nor looked for."""
    none = np.empty(0, np.int64)
    labels: Int[np.ndarray, " objects"] = np.concatenate(
        [none, *(sample.truth.labels[~sample.truth.crowd] for sample in dataset)]
    )
    return labels
