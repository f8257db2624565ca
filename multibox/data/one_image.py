"""Read the objects of one image: from a file that annotates it alone, or from a data set that it is part of."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from multibox.data import labelme, voc, yolo
from multibox.data.read import DatasetReader
from multibox.data.records import AnnotatedImage, Entry, Object, SplitRecords, make_dataset, to_size
from multibox.data.sample import Dataset, DatasetError, Problem
from multibox.messages import list_names, quoted

PARSERS = {".xml": voc.parse, ".json": labelme.parse, ".txt": yolo.parse}
"""How a file that annotates one image is read, by its suffix."""


def read_file_of(image: str | os.PathLike[str], file: str | os.PathLike[str], class_names: Sequence[str]) -> Dataset:
    """Returns a data set of the one image, with the objects of a file that annotates it alone.

    Args:
        image: Path of the image.
        file: VOC's XML, labelme's JSON or YOLO's text.
        class_names: Names of the classes that the numbers in YOLO's text stand for.

    Raises:
        FileNotFoundError: There is no such file.
        DatasetError: The file cannot be read, is of another kind, or names a class by a number that has no name; or the
            image cannot be read.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file")
    parse = PARSERS.get(file.suffix.lower())
    if parse is None:
        raise DatasetError(f"{file}: objects of one image are in an .xml of VOC, a .json of labelme, or a .txt of YOLO")
    annotation = parse(file)
    if annotation.fault:
        raise DatasetError(f"{file}: {annotation.fault}; a file for many images is a data set, which --data takes")
    entries: Sequence[Entry] = annotation.objects
    problems: list[Problem] = []
    names = list(dict.fromkeys([*class_names, *(entry.name for entry in entries)]))
    labels = {name: label for label, name in enumerate(names)}
    is_yolo = parse is yolo.parse
    if is_yolo:
        entries, problems = yolo.to_boxes(entries, None)
        names, labels = list(class_names), {str(label): label for label in range(len(class_names))}

    def to_object(entry: Entry) -> Object | Problem:
        if isinstance(entry.box, str):
            return Problem(entry.where, entry.box, "box left out", entry.kind)
        if entry.name not in labels:
            return Problem(
                entry.where, f"class {quoted(entry.name)} is none of {len(names)}", "box left out", "class-unknown"
            )
        return Object(entry.where, entry.box, labels[entry.name], difficult=entry.difficult, aside=entry.aside)

    objects = [to_object(entry) for entry in entries]
    where, size = str(file), to_size(*annotation.size)
    stated = AnnotatedImage(Path(image).name, Path(image), where, where, objects, size, normalized=is_yolo)
    return make_dataset(SplitRecords(str(file), names, [*problems, stated]))


def read_sample_of(image: str | os.PathLike[str], reader: DatasetReader) -> Dataset:
    """Returns the one image of a data set, whichever split it is in. Its problems are those of the split.

    Raises:
        FileNotFoundError: There is no such data set.
        DatasetError: The data set cannot be read, or the image is not part of it.
    """
    for split in reader.splits:
        dataset = reader.read(split)
        for sample in dataset:
            if isinstance(sample.image, Path) and os.path.realpath(sample.image) == os.path.realpath(image):
                return replace(dataset, samples=[sample])
    where = " + ".join(map(str, reader.paths))
    raise DatasetError(f"{where}: {os.fspath(image)} is not among its images ({list_names(reader.splits)})")


def with_known_classes(dataset: Dataset, class_names: Sequence[str]) -> tuple[Dataset, list[str]]:
    """Returns the data set with the labels of these class names, without objects of other classes.

    The second value is the names of the classes whose objects were left out.
    """
    known = np.array([name in class_names for name in dataset.class_names])
    left_out = sorted(
        {dataset.class_names[label] for sample in dataset for label in sample.truth.labels[~known[sample.truth.labels]]}
    )
    samples = [replace(sample, truth=sample.truth[known[sample.truth.labels]]) for sample in dataset]
    return replace(dataset, samples=samples).with_classes(class_names), left_out
