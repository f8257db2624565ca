"""The command `multibox coverage`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Parameter

from multibox.cli.arguments import (
    DATA,
    MODEL,
    OUTPUT,
    VAL_FRACTION,
    OnProblem,
    Overwrite,
    ScalesName,
    Unlabelled,
    UsageError,
    open_model,
)
from multibox.cli.data import choose_split, choose_split_apart, read_splits
from multibox.cli.output import STANDARD_OUTPUT, check_new
from multibox.cli.terminal import info, progress_bar, stdout
from multibox.messages import counted, percent
from multibox.weights.published import is_config, is_weights

if TYPE_CHECKING:
    import numpy as np

    from multibox.config import DetectorConfig
    from multibox.data import Dataset
    from multibox.explain.coverage import Coverage, Group

PICTURE, NUMBERS, FITTED = "coverage.png", "coverage.json", "fitted.json"
"""Names of the files that are written to `--out`."""

INPUTS = (0.75, 1.0, 1.25, 1.5, 2.0)
"""Inputs that are compared, as multiples of the sides of the given one."""


class _Measured(NamedTuple):
    """The coverage of the splits by the default boxes of one config."""

    config: "DetectorConfig"
    splits: dict[str, "Coverage"]


def coverage(
    data: Annotated[Path, Parameter(group=DATA)],
    /,
    *,
    model: Annotated[str, Parameter(group=MODEL)],
    split: Annotated[str | None, Parameter(group=DATA, show_default="train, or trainval, or the only one")] = None,
    size: Annotated[str | None, Parameter(group=MODEL, show_default="the preset's own")] = None,
    scales: Annotated[ScalesName | None, Parameter(group=MODEL)] = None,
    fit: Annotated[bool, Parameter(group=MODEL, negative="", show_default=False)] = False,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    json: Annotated[Path | None, Parameter(group=OUTPUT, allow_leading_hyphen=True)] = None,
    overwrite: Overwrite = False,
    on_problem: Annotated[OnProblem, Parameter(group=DATA)] = "skip",
    unlabelled: Unlabelled = None,
) -> int:
    """Show how well default boxes cover the objects of a data set, and fit them.

    The images are taken as they are, without augmentation, and resized to the input of the detector. Overlap and recall
    are in percent. Recall is the part of the objects that overlap a default box by at least 0.5. 'Bipartite' counts the
    objects whose default boxes all overlap them by less, so that they have one by the bipartite rule alone. Positives
    are the default boxes that matching gives to objects.

    Args:
        data: The folder of the data set: VOC XML, COCO or labelme JSON, or YOLO text.
        model: A preset, timm/NAME, the .json file of a config, or weights: a file, the folder of a run, or the name of
            published weights.
        split: The split whose objects are looked at; with --fit, the one to fit to.
        size: The input size of a preset in pixels, HEIGHTxWIDTH (240x320) or one number for both.
        scales: The sizes of a preset's default boxes: for VOC, or for COCO's smaller objects.
        fit: Propose sizes and aspect ratios for the default boxes, another shape of the input, and an earlier feature
            map, with no more default boxes than before, and write them as a config for 'multibox train --model'. Needs
            --out.
        out: Write a picture, the numbers and the fitted config to this folder.
        json: Write all numbers to this file; '-' prints them instead of the tables.
        overwrite: Replace the files in the folder and the JSON file if they are there already.
        on_problem: What to do about a bad record: 'skip' lists it and leaves it out, 'error' stops.
        unlabelled: What an image without a label file is: 'empty' takes it as one without objects, 'skip' leaves it
            out.
    """
    if fit and out is None:
        raise UsageError("--fit writes a config; say to which folder: --out DIR")
    _, config, table, _ = open_model(model, size, scales)
    files = [] if out is None else [out / name for name in (PICTURE, NUMBERS, *([FITTED] if fit else []))]
    if json not in (None, STANDARD_OUTPUT):
        files.append(json)
    check_new(files, overwrite=overwrite, read=[data, *([model] if Path(model).exists() else [])])
    if out is not None:
        from multibox.report.evaluation import check_matplotlib

        check_matplotlib()
    sets = _read_sets(data, split, on_problem, unlabelled, with_val=fit)
    measured = [_measure(config, sets, table)]
    learned = next(iter(sets))
    preset = None if is_weights(model) or is_config(model) else model
    numbers: dict[str, Any] = {"data": str(data), "model": model}
    if fit:
        measured.append(_measure(_fit(config, preset, scales, sets[learned]), sets))
        numbers |= {
            when: {name: _describe(each.config, found, sets[name]) for name, found in each.splits.items()}
            for when, each in zip(("before", "after"), measured, strict=True)
        }
    else:
        inputs = [] if preset is None else _other_inputs(preset, config, scales, sets[learned])
        numbers |= {"split": learned, **_describe(config, measured[0].splits[learned], sets[learned])}
        numbers["inputs"] = inputs
    text = _to_json(numbers)
    if json == STANDARD_OUTPUT:
        stdout().print(text)
    elif fit:
        _print_fit(measured)
    else:
        _print_coverage(sets[learned], model, measured[0], inputs)
    if json not in (None, STANDARD_OUTPUT):
        _write(json, text)
        info(f"written to {json}")
    if out is not None:
        _write_folder(out, text, measured, learned)
        if fit:
            _say_what_is_next(out / FITTED, data, model, size, scales)
    return 0


def _read_sets(
    data: Path, split: str | None, on_problem: OnProblem, unlabelled: Any, *, with_val: bool
) -> dict[str, "Dataset"]:
    """Returns the data set to look at by the name of its split and, if wanted, one that it has no image in common with.

    The second one is the split for validation, else that for a test, else the part that `train` would hold out.
    """
    from multibox.data import DatasetReader
    from multibox.data.holdout import Holdout

    reader = DatasetReader(data, unlabelled=unlabelled)
    learned = choose_split(reader, split, ["train", "trainval"], "--split")
    val_split = choose_split_apart(reader, learned, None) if with_val else None
    names = [learned, *([val_split] if val_split else [])]
    (train_set, *others) = read_splits(reader, names, on_problem, decode=False)
    if val_split or not with_val:
        sets = [train_set, *(other.with_classes(train_set.class_names) for other in others)]
        return dict(zip(names, sets, strict=True))
    info(f"no split for validation: {100 * VAL_FRACTION:g} % of the images, as 'train' would choose, are not fitted to")
    return Holdout(learned, VAL_FRACTION).divide(train_set)


def _measure(config: "DetectorConfig", sets: dict[str, "Dataset"], table: "np.ndarray | None" = None) -> _Measured:
    from multibox.explain.coverage import measure_coverage

    found = {}
    for name, dataset in sets.items():
        with progress_bar(f"measuring {name}", len(dataset)) as bar:
            found[name] = measure_coverage(
                dataset, config, table, on_progress=lambda done, total: bar(done, f"{done} of {total} images")
            )
    return _Measured(config, found)


def _fit(
    config: "DetectorConfig", preset: str | None, scales: ScalesName | None, train_set: "Dataset"
) -> "DetectorConfig":
    """Returns the config with default boxes that are fitted to the training set."""
    from multibox.explain.fit import candidates, fit_default_boxes

    configs = candidates(train_set, config, preset, scales=scales)
    with progress_bar("fitting", len(configs)) as bar:
        return fit_default_boxes(
            train_set, configs, on_progress=lambda done, total: bar(done, f"{done} of {total} configs")
        )


def _other_inputs(
    model: str, config: "DetectorConfig", scales: ScalesName | None, dataset: "Dataset"
) -> list[dict[str, Any]]:
    """Returns what the default boxes of a preset cover at other sizes of the input."""
    from multibox.config import LARGEST_SIDE
    from multibox.default_boxes import IOU_THRESHOLD
    from multibox.detector import new_config
    from multibox.explain.fit import GRAIN
    from multibox.explain.shapes import best_overlaps, boxes_of

    found: list[dict[str, Any]] = []
    boxes = boxes_of(dataset)
    for factor in INPUTS if len(boxes) else ():
        height, width = (
            side if factor == 1 else max(GRAIN, round(side * factor / GRAIN) * GRAIN)
            for side in (config.height, config.width)
        )
        if max(height, width) <= LARGEST_SIDE:
            other = new_config(model, scales=scales, height=height, width=width)
            overlaps = best_overlaps(boxes, other)
            figures = {"overlap": float(overlaps.mean()), "recall": float((overlaps >= IOU_THRESHOLD).mean())}
            found.append({"height": height, "width": width, "default_boxes": other.num_default_boxes, **figures})
    return found


def _describe(config: "DetectorConfig", found: "Coverage", dataset: "Dataset") -> dict[str, Any]:
    from multibox.explain.coverage import describe

    return describe(found, config, dataset.class_names)


def _to_json(numbers: dict[str, Any]) -> str:
    from json import dumps

    return dumps(numbers, ensure_ascii=False, allow_nan=False, indent=2)


def _print_coverage(dataset: "Dataset", model: str, measured: _Measured, inputs: Sequence[dict[str, Any]]) -> None:
    """Prints the figures of one split as tables."""
    from multibox.explain.coverage import by_class, by_map, by_shape, by_size, summarize
    from multibox.report.tables import class_table, text_table

    config = measured.config
    (found,) = measured.splits.values()
    lines = [
        f"{dataset.name}: {counted(found.images, 'image')}, {counted(len(found), 'object')}",
        f"{model} at {config.height} x {config.width}: {config.num_default_boxes:,} default boxes",
        "",
    ]
    head = ["objects", "overlap", "recall", "bipartite", "positives"]
    groups = {"size after resize": by_size(found), "width : height": by_shape(found)}
    lines += text_table(["", *head], [_row(summarize(found, "all objects"))])
    for title, rows in groups.items():
        lines += ["", *text_table([title, *head], list(map(_row, rows)))]
    lines += ["", *class_table(["class", *head], list(map(_row, by_class(found, dataset.class_names))))]
    maps = [
        [
            group.name,
            f"{row.rows} x {row.columns}",
            f"{row.num_default_boxes:,}",
            *_row(group)[1:4],
            *_share(group, found),
        ]
        for row, group in zip(config.feature_maps, by_map(found, config), strict=True)
    ]
    head = ["map", "cells", "boxes", "best for", "overlap", "recall", "positives", "% of all"]
    lines += ["", *text_table(head, maps)]
    if inputs:
        sizes = [
            [
                f"{each['height']} x {each['width']}",
                f"{each['default_boxes']:,}",
                percent(each["overlap"]),
                percent(each["recall"]),
            ]
            for each in inputs
        ]
        lines += ["", *text_table(["input", "default boxes", "overlap", "recall"], sizes)]
    if unmatched := int(found.unmatched.sum()):
        lines += ["", f"{counted(unmatched, 'object')} without any default box: too many objects in one place"]
    stdout().print("\n".join(lines))


def _row(group: "Group") -> list[str]:
    return [
        group.name,
        f"{group.objects:,}",
        percent(group.overlap),
        percent(group.recall),
        f"{group.only_bipartite:,}",
        f"{group.positives:,}",
    ]


def _share(group: "Group", found: "Coverage") -> list[str]:
    """Returns the positives of a feature map, and their part of all."""
    return [f"{group.positives:,}", percent(group.positives / max(int(found.matches.sum()), 1))]


def _print_fit(measured: Sequence[_Measured]) -> None:
    """Prints the figures of both splits before and after the fit, and the fitted default boxes."""
    from multibox.report.tables import text_table

    names = list(measured[0].splits)
    head = ["", *(f"{name} {when}" for name in names for when in ("before", "after"))]
    columns = [_fit_figures(each.config, each.splits[name]) for name in names for each in measured]
    rows = [[label, *(column[label] for column in columns)] for label in columns[0]]
    before, after = (each.config for each in measured)
    lines = [
        *text_table(head, rows),
        "",
        f"input: {before.height} x {before.width} before, {after.height} x {after.width} after",
        "default boxes of a cell, width x height in pixels of the input:",
    ]
    for row in after.feature_maps:
        sizes = " ".join(f"{width:g}x{height:g}" for width, height in row.box_sizes)
        text = f"{row.layer} ({row.rows} x {row.columns} cells): {sizes}"
        lines.append(fill(text, 80, initial_indent="  ", subsequent_indent="    "))
    stdout().print("\n".join(lines))


def _fit_figures(config: "DetectorConfig", found: "Coverage") -> dict[str, str]:
    from multibox.explain.coverage import mean_of_classes, summarize

    every, (overlap, recall) = summarize(found, ""), mean_of_classes(found)
    return {
        "default boxes": f"{config.num_default_boxes:,}",
        "overlap, by class": percent(overlap),
        "recall, by class": percent(recall),
        "overlap, all objects": percent(every.overlap),
        "recall, all objects": percent(every.recall),
        "bipartite": f"{every.only_bipartite:,}",
        "positives an image": f"{every.positives / max(found.images, 1):.1f}",
    }


def _write_folder(out: Path, text: str, measured: Sequence[_Measured], split: str) -> None:
    """Writes the picture, the numbers and, if there is one, the fitted config."""
    from multibox.report.coverage_figure import draw_coverage

    out.mkdir(parents=True, exist_ok=True)
    _write(out / NUMBERS, text)
    for fitted in measured[1:]:
        _write(out / FITTED, fitted.config.to_json())
    titles = ["default boxes before the fit", "after the fit"] if measured[1:] else ["default boxes"]
    panels = [(title, each.config, each.splits[split]) for title, each in zip(titles, measured, strict=True)]
    draw_coverage(out / PICTURE, panels)
    info(f"picture: {out / PICTURE}")


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text + "\n", encoding="utf-8", errors="backslashreplace", newline="\n")


def _say_what_is_next(fitted: Path, data: Path, model: str, size: str | None, scales: ScalesName | None) -> None:
    """Prints what the fit has optimized, and the trainings that tell what it is worth."""
    flags = [word for flag, value in (("--size", size), ("--scales", scales)) if value for word in (flag, value)]
    commands = [
        shlex.join(["multibox", "train", str(data), "--model", *words, "--minutes", "10"])
        for words in ([str(fitted)], [model, *flags])
    ]
    info(
        "The fit raises overlap and recall at 0.5 on the split that it was fitted to, every class\n"
        "counting alike. This is no promise of a higher AP: train both for the same time and compare.\n  "
        + "\n  ".join(commands)
    )
