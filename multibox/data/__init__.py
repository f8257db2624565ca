"""Images and boxes: what a data set is, and how one is read. Knows nothing of networks."""

from multibox.data.read import list_splits, read_dataset
from multibox.data.sample import Dataset, DatasetError, GroundTruth, Problem, Sample

__all__ = ["Dataset", "DatasetError", "GroundTruth", "Problem", "Sample", "list_splits", "read_dataset"]
