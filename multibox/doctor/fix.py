"""Write a mended copy of a data set: what the report calls fixable is mended, and everything is listed."""

import csv
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Literal, NamedTuple

import numpy as np

from multibox.boxes import area
from multibox.data.class_names import folded_class
from multibox.data.records import CheckedImage, SplitRecords, check_records
from multibox.data.sample import Dataset, DatasetError, Sample
from multibox.data.splits import split_kind
from multibox.data.write import KEPT, WRITERS, file_stem
from multibox.doctor.files import find_reported, portable_stem
from multibox.doctor.kinds import KINDS
from multibox.doctor.report import Report
from multibox.doctor.survey import Finding, Split
from multibox.images import image_size
from multibox.messages import counted, quoted

Format = Literal["voc", "coco", "yolo"]

CHANGES = "changes.csv"
"""Name of the list of changes in the mended copy."""

OWN_FORMATS: Mapping[str, Format] = {"VOC XML": "voc", "COCO JSON": "coco", "labelme JSON": "coco", "YOLO text": "yolo"}
"""The format in which a data set is written by default, by what annotates it."""

DROPPED_BOXES = ("box-tiny", "box-nearly-twice")
DROPPED_IMAGES = ("image-twice", "image-in-two-splits", "copies-in-two-splits", "image-damaged")
RENAMED_CLASSES = ("class-spelled-differently", "class-blanks")


NOT_KEPT = "not-kept"
"""Stands in the list of changes for the kind of problem: the copy has no place for what is stated of objects."""

ROUNDING = 0.01
"""Fraction by which the area of an object may differ from that of its box without being another one."""


class Change(NamedTuple):
    """One thing that the copy has otherwise than the data set.

    Attributes:
        kind: Identifier of the kind of problem, or `NOT_KEPT`.
        split: Name of the split; "" for the whole data set.
        where: The file, and the object, line or annotation in it, in the data set.
        value: What was found there.
        done: What was done.
    """

    kind: str
    split: str
    where: str
    value: str
    done: str


Edit = Callable[[Mapping[str, Dataset], Mapping[str, Dataset]], tuple[Mapping[str, Dataset], Sequence[Change]]]
"""Further changes, such as the decisions of a person. Takes the splits that are mended so far, and those of the data
set itself. Returns the changed splits, and what was done."""


def write_fixed(
    report: Report, folder: str | Path, format: Format | None = None, edit: Edit | None = None
) -> list[Change]:
    """Writes a copy of a data set in which what the report found is mended, as far as it is fixable.

    What the readers cannot use is never in the copy, whether it was looked for or not. `changes.csv` in the folder
    lists all changes. The data set itself is only read.

    Args:
        report: What was found.
        folder: A new or empty folder.
        format: The format to write; None for that of the data set, and COCO's for labelme's.
        edit: Further changes, made before the copy is written.

    Raises:
        ValueError: No image is left, or YOLO's format has no place for the splits.
        FileExistsError: The folder has files already.
    """
    format = format or OWN_FORMATS[report.survey.format]
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for finding in report.findings:
        found[finding.kind].add((finding.split, finding.where))
    mended = [each for split in report.survey.splits.values() if len(each := _mended(split, found))]
    datasets = {split.name: split.dataset for split in mended}
    if not datasets:
        raise DatasetError(f"{report.survey.path}: no image is left to write")
    as_read = {split.name: split.dataset for split in report.survey.splits.values()}
    edited, edits = edit(datasets, as_read) if edit else (datasets, ())
    datasets = _with_joined_classes(edited, rename=any(found[kind] for kind in RENAMED_CLASSES))
    WRITERS[format](_with_names(_with_splits(datasets, format)), folder)
    changes = [*_changes(report), *edits, *_not_kept(mended, format)]
    with Path(folder, CHANGES).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Change._fields)
        writer.writerows(changes)
    return changes


def _changes(report: Report) -> list[Change]:
    """Returns what is mended because it was found, and what the readers left out or changed anyway."""
    findings = dict.fromkeys(report.fixable)
    findings |= dict.fromkeys(finding for finding in find_reported(report.survey) if finding.kind != "split-unusable")
    return [_change(finding) for finding in findings]


def _change(finding: Finding) -> Change:
    done = KINDS[finding.kind].fixed or "written as it was read; look at it"
    return Change(finding.kind, finding.split, finding.where, finding.value, done)


def _not_kept(splits: Sequence[Split], format: Format) -> Iterator[Change]:
    """Yields what is stated of objects and has no place in the copy: a row for each name, with the first object."""
    for split in splits:
        places: dict[str, list[str]] = defaultdict(list)
        for image in split:
            truth = image.sample.truth
            has_outline = ~np.isclose(truth.areas, area(truth.boxes), rtol=ROUNDING)
            for index, entry in enumerate(image.objects):
                marks = {"crowd": entry.crowd, "difficult": entry.difficult, "area": has_outline[index]}
                for name in (*(mark for mark, has in marks.items() if has and mark not in KEPT[format]), *entry.aside):
                    places[name].append(entry.where)
        for name, found in places.items():
            value = f"{quoted(name)} of {counted(len(found), 'object')}, of which this is the first"
            yield Change(NOT_KEPT, split.name, found[0], value, "left out: the copy has no place for it")


def _mended(split: Split, found: Mapping[str, set[tuple[str, str]]]) -> Split:
    """Returns a split with the images that stay, and with the boxes that stay."""
    dropped = set().union(*(found[kind] for kind in DROPPED_IMAGES))
    boxes = set().union(*(found[kind] for kind in DROPPED_BOXES))
    to_turn = {where for _, where in found["exif-contradicts"]}  # a file of two splits is named in one of them
    clipped = {problem.where for problem in split.problems if problem.kind == "box-beyond-image"}
    images = []
    for image in split:
        place = split.name, str(image.stated.image)
        if place in dropped:
            continue
        if str(image.stated.image) in to_turn:
            image = _turned(image, split)
        truth = image.sample.truth
        places = [(split.name, entry.where) for entry in image.objects]
        stays = np.array([place not in boxes for place in places], dtype=bool)
        too_large = np.array([place in found["area-exceeds-box"] for place in places], dtype=bool)
        too_large |= np.array([entry.where in clipped for entry in image.objects], dtype=bool)
        truth = truth.with_areas(np.where(too_large, np.minimum(area(truth.boxes), truth.areas), truth.areas))
        objects = tuple(entry for entry, stay in zip(image.objects, stays.tolist(), strict=True) if stay)
        images.append(image._replace(sample=replace(image.sample, truth=truth[stays]), objects=objects))
    return replace(split, images=images)


def _turned(image: CheckedImage, split: Split) -> CheckedImage:
    """Returns the image with its boxes turned as EXIF turns it: as the reader does where the stored size is stated."""
    stored, _ = image_size(image.stated.image)
    records = SplitRecords(split.name, split.stated_names, [replace(image.stated, size=stored)])
    turned = next(each for each in check_records(records) if isinstance(each, CheckedImage))
    return turned._replace(sample=replace(turned.sample, image_id=image.sample.image_id))


def _with_joined_classes(datasets: Mapping[str, Dataset], *, rename: bool) -> dict[str, Dataset]:
    """Returns the data sets with the same classes, joined by name; those that differ in case or blanks become one."""
    names = list(dict.fromkeys(name for dataset in datasets.values() for name in dataset.class_names))
    counts: dict[str, int] = defaultdict(int)
    for dataset in datasets.values():
        for sample in dataset:
            for label in sample.truth.labels.tolist():
                counts[dataset.class_names[label]] += 1
    new_name = _new_names(names, counts) if rename else {name: name for name in names}
    joined = tuple(dict.fromkeys(new_name[name] for name in names))
    label_of = {name: label for label, name in enumerate(joined)}
    result = {}
    for split, dataset in datasets.items():
        labels = np.array([label_of[new_name[name]] for name in dataset.class_names], dtype=np.int64)
        samples = [replace(sample, truth=sample.truth.with_labels(labels[sample.truth.labels])) for sample in dataset]
        same = dataset.class_names == joined
        result[split] = Dataset(split, joined, samples, (), dataset.category_ids if same else None)
    if len({dataset.category_ids for dataset in result.values()}) > 1:
        result = {split: replace(dataset, category_ids=None) for split, dataset in result.items()}
    return result


def _new_names(names: Sequence[str], counts: Mapping[str, int]) -> dict[str, str]:
    """Returns for each class name the most frequent one that differs in case and blanks only, without outer blanks."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        groups[folded_class(name)].append(name)
    best = {key: max(group, key=lambda name: counts[name]).strip() for key, group in groups.items()}
    return {name: best[folded_class(name)] for name in names}


def _with_splits(datasets: Mapping[str, Dataset], format: Format) -> dict[str, Dataset]:
    """Returns the data sets under names that the format has for splits."""
    result: dict[str, Dataset] = {}
    for split, dataset in datasets.items():
        name = re.sub(r"[^\w.-]+", "_", split)
        if format == "yolo":
            kind = split_kind(split)
            name = kind if kind in ("train", "val", "test") else "train"
        if name in result:
            raise ValueError(
                f"the splits '{result[name].name}' and '{split}' would both be '{name}' in YOLO's format, which has "
                "train, val and test; write one of them with --split, or take --format coco"
            )
        result[name] = dataset
    return result


def _with_names(datasets: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Returns the data sets with names of images that no system refuses or takes for another, in any split."""
    taken: set[str] = set()
    result = {}
    for split, dataset in datasets.items():
        samples = []
        for sample in dataset:
            stem = base = portable_stem(file_stem(sample))
            number = 1
            while stem.casefold() in taken:
                number += 1
                stem = f"{base}_{number}"
            taken.add(stem.casefold())
            samples.append(_named(sample, stem))
        result[split] = replace(dataset, samples=samples)
    return result


def _named(sample: Sample, stem: str) -> Sample:
    suffix = sample.image.suffix if isinstance(sample.image, Path) else PurePath(sample.name).suffix
    return replace(sample, name=stem + suffix)
