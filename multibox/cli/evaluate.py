"""The command `multibox evaluate`."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from multibox.cli.arguments import (
    DATA,
    MACHINE,
    MODEL,
    OUTPUT,
    Compile,
    Count,
    DetectPrecision,
    Device,
    Fraction,
    Merge,
    OnProblem,
    Overwrite,
    Unlabelled,
    UsageError,
    choose_device,
    fetch_weights,
)
from multibox.cli.data import read_for_evaluation
from multibox.cli.output import STANDARD_OUTPUT, check_folder, check_new
from multibox.cli.terminal import info, progress_bar, stdout
from multibox.evaluation.metrics import Metrics, Pixels, Rule
from multibox.evaluation.rename import RENAMES, read_renames
from multibox.messages import counted, percent

if TYPE_CHECKING:
    from rich.table import Table

_THRESHOLD = Parameter(group=MODEL, show_default="the detector's own")


def evaluate(
    data: Annotated[Path, Parameter(group=DATA)],
    /,
    *,
    model: Annotated[str, Parameter(group=MODEL)],
    split: Annotated[str | None, Parameter(group=DATA, show_default="val, or test, or the only one")] = None,
    rule: Annotated[Rule, Parameter(group=DATA)] = "coco",
    pixels: Annotated[Pixels | None, Parameter(group=DATA, show_default="as the rule has it")] = None,
    score: Annotated[Fraction | None, _THRESHOLD] = None,
    iou: Annotated[Fraction | None, _THRESHOLD] = None,
    max_detections: Annotated[Count | None, _THRESHOLD] = None,
    class_agnostic: Annotated[
        bool | None, Parameter(group=MODEL, negative="--per-class", show_default="the detector's own")
    ] = None,
    merge: Merge = None,
    rename: Annotated[Sequence[str], Parameter(group=MODEL, negative="", show_default=False)] = (),
    batch_size: Annotated[Count, Parameter(group=MACHINE)] = 8,
    device: Device = None,
    precision: DetectPrecision = "fp32",
    compile: Compile = False,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    json: Annotated[Path | None, Parameter(group=OUTPUT, allow_leading_hyphen=True)] = None,
    overwrite: Overwrite = False,
    on_problem: Annotated[OnProblem, Parameter(group=DATA)] = "skip",
    unlabelled: Unlabelled = None,
) -> int:
    """Score a detector on a data set.

    The tables are in percent. AP looks at all detections down to a low score; precision, recall and F1 look at those
    above the score threshold with the highest F1, at an overlap of 0.5. That is the threshold to detect with.

    Args:
        data: The folder of the data set: VOC XML, COCO or labelme JSON, or YOLO text.
        model: A weights file, the folder of a run for its best weights, or the name of published weights ('multibox
            models' lists them).
        split: The split of the data set to score on; also val or test for the part that the training held out with
            --val-fraction or --test-fraction.
        rule: Whose definition of AP to use: COCO's mean over overlaps from 0.50 to 0.95, VOC 2007's mean over 11
            points of recall, or VOC 2010's area under the curve.
        pixels: How to measure overlap: 'inclusive' counts the last pixel of a box, as the VOC rules do by default.
        score: Count detections with a score above this. AP needs a low one.
        iou: Suppress a box that overlaps a better one by more than this.
        max_detections: Keep at most this many detections of an image.
        class_agnostic: Let better boxes of all classes suppress a box, or only those of its own class.
        merge: Box voting. 'weighted' moves each box to the score-weighted mean of itself and of those that it
            suppressed; 'none' does not.
        rename: Match classes of different names. OLD=NEW says that the detector's class OLD is the data's class NEW.
            Also takes a file of such lines, or 'coco-to-voc' for a detector of COCO's classes on data with VOC's. May
            be given more than once.
        batch_size: Put this many images through the network at once.
        device: Compute on cpu, cuda or mps.
        precision: Compute convolutions in fp32; in bf16, which is faster on some processors at slightly different
            scores; or in the faster of the two, which 'auto' finds out by timing a few images.
        compile: Let torch compile the network first, which takes up to minutes and pays for many images.
        out: Write a report to this folder: a page that says what fails, why, and what to try first, and the usual
            curves and tables. Begin with its index.html. 'multibox report' writes it too, and compares detectors.
        json: Write all numbers to this file; '-' prints them instead of the tables.
        overwrite: Replace the files of the report and the JSON file if they are there already.
        on_problem: What to do about a bad record: 'skip' lists it and leaves it out, 'error' stops.
        unlabelled: What an image without a label file is: 'empty' takes it as one without objects, 'skip' leaves it
            out.
    """
    if rule == "coco" and pixels == "inclusive":
        raise UsageError("COCO's rule has no last pixel to include: leave out --pixels inclusive, or take a VOC rule")
    new_names = _renames(rename)
    from multibox.weights.exported import is_exported, read_header

    exported = is_exported(model)
    if device is not None:
        choose_device(device, exported=exported)
    weights = fetch_weights(model)  # a wrong name is reported before the data are read
    from multibox.report.evaluation import check_matplotlib, write_report
    from multibox.report.files import REPORT_FILES

    if out is not None:
        if Path(os.path.realpath(out)).is_relative_to(os.path.realpath(data)):
            raise UsageError(f"--out {out} is in the data set, among its images; choose a folder outside of {data}")
        check_folder(out)
        check_matplotlib()
    files = [] if out is None else [out / name for name in REPORT_FILES]
    if json not in (None, STANDARD_OUTPUT):
        files.append(json)
    check_new(files, overwrite=overwrite, read=[weights, data, *rename])

    from multibox.data import Dataset, DatasetReader
    from multibox.evaluation.evaluate import check_classes, check_rename
    from multibox.evaluation.evaluate import evaluate as run

    header = read_header(weights)

    def check(dataset: Dataset) -> None:
        try:
            check_rename(new_names, header.class_names, dataset)
        except ValueError as error:
            raise UsageError(f"--rename: {error}") from error
        check_classes([new_names.get(name, name) for name in header.class_names], dataset)

    reader = DatasetReader(data, unlabelled=unlabelled)
    dataset = read_for_evaluation(reader, split, header.provenance, on_problem, check=check)

    from multibox.detector import Detector

    detector = Detector.load(
        model, device=choose_device(device, exported=exported), precision=precision, compile=compile
    )
    began = time.monotonic()
    with progress_bar("evaluating", len(dataset)) as bar:

        def show(done: int, total: int) -> None:
            bar(done, f"{done} of {total}  {done / (time.monotonic() - began):.0f} images/s")

        metrics = run(
            detector,
            dataset,
            rule=rule,
            pixels=pixels,
            score_threshold=score,
            iou_threshold=iou,
            class_agnostic=class_agnostic,
            max_detections=max_detections,
            merge=merge,
            batch_size=batch_size,
            rename=new_names,
            on_progress=show,
        )
    if metrics.ignored_classes:
        info(f"left out, because {dataset.name} does not name them: {', '.join(metrics.ignored_classes)}")
    if json == STANDARD_OUTPUT:
        stdout().print(metrics.to_json())
    else:
        _print_metrics(metrics, dataset.name)
    if json not in (None, STANDARD_OUTPUT):
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(metrics.to_json() + "\n", encoding="utf-8")
        info(f"written to {json}")
    if out is not None:
        with progress_bar("writing the report", len(dataset)) as bar:
            report = write_report(
                out,
                dataset,
                metrics,
                name=model,
                config=detector.config,
                on_progress=lambda done, total: bar(done, f"{done} of {total}"),
            )
        if json != STANDARD_OUTPUT:
            stdout().print()
            for sentence in report.verdict:
                stdout().print(sentence)
        info(f"report: {out / 'index.html'}")
    return 0


def _print_metrics(metrics: Metrics, name: str) -> None:
    """Prints the numbers as tables."""
    stdout().print(
        f"{name}: {counted(metrics.images, 'image')}, {counted(metrics.objects, 'object')}; "
        f"rule {metrics.rule}, pixels {metrics.pixels}"
    )
    if metrics.rule == "coco":
        overall = _table(["", "AP", "AP50", "AP75", "AP small", "medium", "large"])
        values = metrics.ap, metrics.ap50, metrics.ap75, metrics.ap_small, metrics.ap_medium, metrics.ap_large
        overall.add_row("all classes", *map(percent, values))
        stdout().print(overall)
    names = {"ap": "AP", "ap50": "AP50"} if metrics.rule == "coco" else {"ap": "AP"}
    classes = _table(["class", *names.values(), "objects", "found", "false", "precision", "recall", "F1", "threshold"])
    every: dict[str, Any] = {"all classes": vars(metrics), **metrics.per_class}
    for label, row in every.items():
        classes.add_row(label, *(percent(row[name]) for name in names), str(row["objects"]), *_at_threshold(row))
    stdout().print()
    stdout().print(classes)
    stdout().print(
        "\nfound, false, precision, recall and F1 are those of detections that score above\n"
        "the threshold and overlap an object by at least 0.5. A class is counted at the\n"
        "threshold with its highest F1, all classes together at the best one for all."
    )


def _table(columns: Sequence[str]) -> "Table":
    """Returns a table of numbers under these headings, whose first column has names."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left", no_wrap=place > 0, overflow="fold")
    return table


def _at_threshold(row: Mapping[str, Any]) -> list[str]:
    """Returns the numbers of found and false objects, precision, recall, F1, and their threshold."""
    threshold = row["score_threshold"]
    counts = ["-", "-"] if threshold is None else [str(row["true_positives"]), str(row["false_positives"])]
    rates = (percent(row[name]) for name in ("precision", "recall", "f1"))
    return [*counts, *rates, "-" if threshold is None else f"{threshold:.2f}"]


def _renames(texts: Sequence[str]) -> dict[str, str]:
    """Returns the new name of each renamed class. If a class has several new names, the last one counts."""
    table: dict[str, str] = {}
    for text in texts:
        old, _, new = text.partition("=")
        if text in RENAMES:
            table |= RENAMES[text]
        elif Path(text).is_file():
            table |= read_renames(Path(text))
        elif old and new:
            table[old] = new
        else:
            known = ", ".join(RENAMES)
            raise UsageError(f"--rename takes OLD=NEW, a file of such lines, or {known}; '{text}' is none of them")
    return table
