"""A short name for exactly these annotations."""

import hashlib

import numpy as np

from multibox.data.sample import Dataset


def fingerprint(dataset: Dataset) -> str:
    """SHA-256, in hexadecimal, of all that is learned from or judged by but the pixels.

    These are the class names, and of each image, in order, its name, height and width, and its boxes, labels, areas
    and marks: two sets of one fingerprint differ at most in the contents of their images. It is the same on all
    machines.
    """
    digest = hashlib.sha256()

    def add(value: bytes) -> None:
        digest.update(len(value).to_bytes(8, "little") + value)  # or "ab", "c" would be "a", "bc"

    add(len(dataset.class_names).to_bytes(8, "little"))
    for name in dataset.class_names:
        add(name.encode())
    for sample in dataset:
        add(sample.name.encode(errors="surrogateescape"))  # what a file system has need not be UTF-8
        add(np.array([sample.height, sample.width], "<i8").tobytes())
        truth = sample.truth
        add(truth.boxes.astype("<f4").tobytes())
        add(truth.labels.astype("<i8").tobytes())
        add(truth.areas.astype("<f4").tobytes())
        add(np.stack([truth.difficult, truth.crowd]).tobytes())
    return digest.hexdigest()
