"""Compute a hash that identifies the annotations of a data set."""

import hashlib

import numpy as np

from multibox.data.sample import Dataset


def fingerprint(dataset: Dataset) -> str:
    """Returns the SHA-256, in hexadecimal, of everything that is learned from or evaluated against, except pixels.

    It covers the class names and, for each image in order, the name, height, width, boxes, labels, areas and marks. Two
    data sets with the same fingerprint differ at most in the content of their images. All machines agree on it.
    """
    digest = hashlib.sha256()

    def add(value: bytes) -> None:
        digest.update(len(value).to_bytes(8, "little") + value)  # without the length, "ab", "c" would equal "a", "bc"

    add(len(dataset.class_names).to_bytes(8, "little"))
    for name in dataset.class_names:
        add(name.encode())
    for sample in dataset:
        add(sample.name.encode(errors="surrogateescape"))  # a file name need not be UTF-8
        add(np.array([sample.height, sample.width], "<i8").tobytes())
        truth = sample.truth
        add(truth.boxes.astype("<f4").tobytes())
        add(truth.labels.astype("<i8").tobytes())
        add(truth.areas.astype("<f4").tobytes())
        add(np.stack([truth.difficult, truth.crowd]).tobytes())
    return digest.hexdigest()
