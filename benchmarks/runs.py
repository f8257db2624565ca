"""What benchmarks that train have in common: the choice of images, one file for each run, and the spread over seeds."""

import json
import os
import re
import statistics
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import multibox
from benchmarks.machine import facts
from benchmarks.timing import Settings
from multibox.data.read import DatasetReader, usual_split
from multibox.data.sample import Dataset


def make_parser(name: str, description: str | None) -> tuple[ArgumentParser, ArgumentParser]:
    """Returns the parser of a benchmark with the commands `run` and `table`, and that of `run`, to add options to."""
    parser = ArgumentParser(
        prog=f"python -m benchmarks.{name}", description=description, formatter_class=RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="train and score what has no file yet, then print the results")
    run.add_argument("--data", type=Path, required=True)
    run.add_argument("--out", type=Path, required=True)
    table = commands.add_parser("table", help="print the results")
    table.add_argument("out", type=Path, nargs="+")
    return parser, run


def read(data: Path, split: str | None, usual: Sequence[str], images: int | None = None) -> Dataset:
    """Returns a split of a data set, or the first of the usual ones that it has; `images` of it, evenly spaced."""
    splits = DatasetReader(data).splits
    found = split or usual_split(splits, usual)
    if found not in splits:
        wanted = found or " or ".join(usual)
        sys.exit(f"{data} has no split {wanted}, only {', '.join(splits)}")
    return some(multibox.read_dataset(data, split=found, on_problem="skip"), images)


def some(dataset: Dataset, images: int | None) -> Dataset:
    """Returns so many images of a data set, evenly spaced in their order; all of them if it has no more."""
    count = min(images or len(dataset), len(dataset))
    return replace(dataset, samples=[dataset[n * len(dataset) // count] for n in range(count)])


def only_classes(dataset: Dataset, names: Sequence[str]) -> Dataset:
    """Returns all images of a data set with the objects of these classes alone."""
    if missing := [name for name in names if name not in dataset.class_names]:
        sys.exit(f"{dataset.name} has no class {', '.join(missing)}, only {', '.join(dataset.class_names)}")
    wanted = [dataset.class_names.index(name) for name in names]
    samples = []
    for sample in dataset:
        truth = sample.truth[np.isin(sample.truth.labels, wanted)]
        labels = np.array([wanted.index(label) for label in truth.labels.tolist()], dtype=np.int64)
        samples.append(replace(sample, truth=truth.with_labels(labels)))
    return replace(dataset, class_names=tuple(names), samples=samples, category_ids=None)


def with_objects(dataset: Dataset) -> Dataset:
    """Returns the images that have an object."""
    return replace(dataset, samples=[sample for sample in dataset if len(sample.truth)])


def with_as_many_empty(dataset: Dataset, seed: int = 0) -> Dataset:
    """Returns the images that have an object, and as many without one (or all, if there are fewer), drawn at random."""
    empty = [number for number, sample in enumerate(dataset) if not len(sample.truth)]
    full = [number for number, sample in enumerate(dataset) if len(sample.truth)]
    drawn = np.random.default_rng(seed).permutation(empty)[: len(full)].tolist()
    return replace(dataset, samples=[dataset[number] for number in sorted(full + drawn)])


def use_one_core() -> None:
    """Exits unless this process has one core, as the minutes are for one; torch gets one thread."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if cores != 1:
        sys.exit(f"this process may use {cores} cores, but its minutes are for one: taskset -c 0 python ...")
    torch.set_num_threads(1)


def machine() -> dict[str, Any]:
    """Returns the device, commit, versions and date that the figures of a run belong to."""
    return facts(Settings(threads=torch.get_num_threads()))


def file_name(*words: object) -> str:
    """Returns the words as the stem of a file, joined by hyphens, without characters that need quoting."""
    return re.sub(r"[^\w.]+", "-", "-".join(map(str, words))).strip("-")


def write_result(file: Path, values: dict[str, Any]) -> None:
    """Writes a JSON file, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    os.replace(part, file)


def read_results(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Returns the results in the JSON files of the folders."""
    files = [file for folder in folders for file in sorted(folder.glob("*.json"))]
    if not files:
        sys.exit(f"there is no result in {', '.join(map(str, folders))}; make some with `run`")
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


def print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |")


def print_machines(results: Sequence[dict[str, Any]]) -> None:
    """Prints the machines, commits and versions of the results, a line for each combination."""
    lines = {
        f"{each['cpu']} ({each['cpu_capability']}), threads: {each['threads']}, commit {each['commit']}, "
        + ", ".join(f"{name} {number}" for name, number in (each["versions"] | each.get("peer_versions", {})).items())
        for each in results
    }
    print("\n" + "\n".join(sorted(lines)))


def spread(values: Sequence[float], *, sign: str = "") -> str:
    """Returns the mean, the lowest and the highest value in percent."""
    low, mean, high = (f"{100 * value:{sign}.1f}" for value in (min(values), statistics.mean(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({low} to {high})"
