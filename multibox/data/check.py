"""Check what the readers do not: images that cannot be decoded, images in two splits, classes without an object.

Nothing here changes a data set. `check_dataset` runs all checks; the others are single checks for callers that act on
the result, as the commands `train` and `evaluate` do.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from multibox.data.read import DatasetReader, warn_of_problems
from multibox.data.sample import Dataset, DatasetError, Problem, Sample, main_problem
from multibox.display import image_bar
from multibox.files import file_sha256
from multibox.messages import counted, list_names

Progress = Callable[[int, int], None]
"""Called with the number of images that are done and the number of all."""


class SharedImage(NamedTuple):
    """An image that two splits have in common.

    Attributes:
        one: Its sample in the first split.
        other: Its sample in the second split.
    """

    one: Sample
    other: Sample


def check_dataset(splits: Mapping[str, Dataset], *, on_progress: Progress | None = None) -> tuple[Problem, ...]:
    """Returns everything that is wrong with a data set, its splits given by name.

    These are the problems that the reader found, images that cannot be decoded, images that two splits have in common,
    and classes that no image of a split has. What is wrong with the whole set is listed once.
    """
    problems = [problem for dataset in splits.values() for problem in dataset.problems]
    total, before = sum(map(len, splits.values())), 0
    for dataset in splits.values():
        progress = None if on_progress is None else partial(_add_progress, on_progress, before, total)
        problems += _undecodable(dataset, find_undecodable(dataset, on_progress=progress))
        before += len(dataset)
    for one, other in combinations(splits, 2):
        if shared := find_shared_images(splits[one], splits[other]):
            names = list_names([each.other.name for each in shared])
            what = f"{counted(len(shared), 'image')} of this split are in '{one}' too: {names}"
            problems.append(Problem(splits[other].name, what, "kept", "image-in-two-splits"))
    for dataset in splits.values():
        if unused := find_unused_classes(dataset):
            what = f"no image has an object of {list_names(unused)}"
            problems.append(Problem(dataset.name, what, "kept", "class-unused"))
    return tuple(dict.fromkeys(problems))


def read_usable(reader: DatasetReader, split: str | None, *, progress: bool = True) -> Dataset:
    """Reads a split without the images that cannot be decoded. Logs a warning that sums up all problems.

    Args:
        reader: The data set.
        split: Name of the split; None stands for the only one.
        progress: Whether to show a progress bar while the images are decoded.

    Raises:
        FileNotFoundError: A path does not exist.
        DatasetError: There is no such split, or it has no image that can be used.
    """
    dataset = reader.read(split)
    with image_bar("checking", show=progress) as bar:
        dataset = leave_out(dataset, find_undecodable(dataset, on_progress=bar))
    warn_of_problems(dataset)
    return dataset


def find_undecodable(
    dataset: Dataset, *, on_progress: Progress | None = None, threads: int | None = None
) -> dict[int, str]:
    """Decodes every image. Returns what is wrong with those that cannot be decoded, by their place in the data set.

    Readers look at the header of an image alone, which a truncated file has too. The result is plain data, so that one
    process can check the images and send it to others.

    Args:
        dataset: The data set to check.
        on_progress: Called after each image with the number of images done and the number of all.
        threads: Number of threads that decode; None for Python's default.
    """

    def fault(sample: Sample) -> str:
        try:
            sample.open(at_least=(1, 1))
        except (ValueError, OSError) as error:
            return str(error).removeprefix(f"{sample.image}: ")
        return ""

    faults = {}
    with ThreadPoolExecutor(threads) as pool:
        for index, what in enumerate(pool.map(fault, dataset)):
            if what:
                faults[index] = what
            if on_progress is not None:
                on_progress(index + 1, len(dataset))
    return faults


def leave_out(dataset: Dataset, faults: Mapping[int, str]) -> Dataset:
    """Returns the data set without the given samples, and adds what is wrong with them to its problems.

    Args:
        dataset: The data set to leave samples out of.
        faults: What is wrong with each sample, by its place from 0, as `find_undecodable` returns it.

    Raises:
        DatasetError: No sample is left.
    """
    problems = (*dataset.problems, *_undecodable(dataset, faults))
    samples = [sample for index, sample in enumerate(dataset) if index not in faults]
    if not samples:
        raise DatasetError(f"{dataset.name}: there is no image that can be used", problems)
    return replace(dataset, samples=samples, problems=problems)


def find_shared_images(one: Dataset, other: Dataset) -> list[SharedImage]:
    """Returns the images that two splits share, as the same file or the same content, in the order of the second split.

    A detector that learned from an image of the validation set scores too high there. Only files of equal size are
    read. A copy that was saved again, scaled or cropped is not found.
    """
    by_size: dict[int, list[Sample]] = defaultdict(list)
    for sample in one:
        by_size[content_size(sample)].append(sample)
    digests: dict[int, dict[bytes, Sample]] = {}
    shared = []
    for sample in other:
        size = content_size(sample)
        if size not in by_size:
            continue
        if size not in digests:
            digests[size] = {content_digest(each): each for each in reversed(by_size[size])}
        if (same := digests[size].get(content_digest(sample))) is not None:
            shared.append(SharedImage(same, sample))
    return shared


def check_learnable(dataset: Dataset) -> None:
    """Checks that there is something to learn in a training set.

    Raises:
        DatasetError: No image has a box that can be learned from. The message names the main reason with its count.
    """
    if all(sample.truth.crowd.all() for sample in dataset):
        reason = main_problem(dataset.problems) or "no image has an annotated object"
        raise DatasetError(
            f"{dataset.name}: no image to learn from has a usable box: {counted(len(dataset), 'image')}, {reason}"
        )


def find_unused_classes(dataset: Dataset) -> tuple[str, ...]:
    """Returns the names of the classes that no object of the data set has; crowd regions do not count."""
    used = {label for sample in dataset for label in sample.truth.labels[~sample.truth.crowd].tolist()}
    return tuple(name for label, name in enumerate(dataset.class_names) if label not in used)


def _undecodable(dataset: Dataset, faults: Mapping[int, str]) -> list[Problem]:
    """Returns a problem for each sample with a fault."""
    return [
        Problem(
            str(sample.image) if isinstance(sample.image, Path) else sample.name,
            fault,
            "image left out",
            "image-damaged",
        )
        for index, sample in enumerate(dataset)
        if (fault := faults.get(index)) is not None
    ]


def _add_progress(on_progress: Progress, before: int, total: int, done: int, _: int) -> None:
    on_progress(before + done, total)


def content_size(sample: Sample) -> int:
    """Returns the size of the image's content in bytes; -1 for a file that cannot be read."""
    if not isinstance(sample.image, Path):
        return sample.image.nbytes
    try:
        return sample.image.stat().st_size
    except OSError:
        return -1


def content_digest(sample: Sample) -> bytes:
    """Returns the SHA-256 of the image's content: the bytes of its file, or its shape and pixels.

    The path stands for the content of a file that cannot be read.
    """
    if not isinstance(sample.image, Path):
        return hashlib.sha256(repr(sample.image.shape).encode() + sample.image.tobytes()).digest()
    try:
        return bytes.fromhex(file_sha256(sample.image))
    except OSError:
        return bytes(sample.image)
