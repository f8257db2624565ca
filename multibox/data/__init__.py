"""Data sets of images and boxes: their types, readers, checks and writers. This package does not depend on networks."""

from multibox.data.check import check_dataset
from multibox.data.read import DatasetReader, list_splits, read_dataset
from multibox.data.sample import Dataset, DatasetError, GroundTruth, Problem, Sample

__all__ = [
    "Dataset",
    "DatasetError",
    "DatasetReader",
    "GroundTruth",
    "Problem",
    "Sample",
    "check_dataset",
    "list_splits",
    "read_dataset",
]
