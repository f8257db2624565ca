"""The command `multibox evaluate`."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from multibox.cli.arguments import (
    DATA,
    MACHINE,
    MODEL,
    OUTPUT,
    Count,
    DetectPrecision,
    Device,
    Fraction,
    OnProblem,
    Overwrite,
    Unlabelled,
    UsageError,
    choose_device,
    fetch_weights,
)
from multibox.cli.data import read_for_evaluation
from multibox.cli.output import STANDARD_OUTPUT, check_new
from multibox.cli.terminal import info, progress_bar, stdout
from multibox.evaluation.metrics import Metrics, Pixels, Rule
from multibox.evaluation.rename import RENAMES, read_renames
from multibox.messages import counted

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
    rename: Annotated[Sequence[str], Parameter(group=MODEL, negative="", show_default=False)] = (),
    batch_size: Annotated[Count, Parameter(group=MACHINE)] = 8,
    device: Device = None,
    precision: DetectPrecision = "fp32",
    json: Annotated[Path | None, Parameter(group=OUTPUT, allow_leading_hyphen=True)] = None,
    overwrite: Overwrite = False,
    on_problem: Annotated[OnProblem, Parameter(group=DATA)] = "skip",
    unlabelled: Unlabelled = None,
) -> int:
    """Score a detector on a data set.

    Args:
        data: The folder of the data set, in the layout of VOC, COCO or YOLO.
        model: A weights file, the folder of a run for its best weights, or the name of published weights ('multibox
            models' lists them).
        split: The split of the data set to score on; also val or test for the part that the training held out with
            --val-fraction or --test-fraction.
        rule: Whose definition of AP to use: COCO's mean over overlaps from 0.50 to 0.95, VOC 2007's mean over 11
            points of recall, or VOC 2010's area under the curve.
        pixels: How to measure overlap: 'inclusive' counts the last pixel of a box, as the VOC rules do by default.
        score: Count detections with a score above this.
        iou: Suppress a box that overlaps a better one by more than this.
        max_detections: Keep at most this many detections of an image.
        class_agnostic: Let better boxes of all classes suppress a box, or only those of its own class.
        rename: Match classes of different names. OLD=NEW says that the detector's class OLD is the data's class NEW.
            Also takes a file of such lines, or 'coco-to-voc' for a detector of COCO's classes on data with VOC's. May
            be given more than once.
        batch_size: Put this many images through the network at once.
        device: Compute on cpu, cuda or mps.
        precision: Compute convolutions in fp32; in bf16, which is faster on some processors at slightly different
            scores; or in the faster of the two, which 'auto' finds out by timing a few images.
        json: Write all numbers to this file; '-' prints them instead of the tables.
        overwrite: Replace the JSON file if it is there already.
        on_problem: What to do about a bad record: 'skip' lists it and leaves it out, 'error' stops.
        unlabelled: What an image without a label file is: 'empty' takes it as one without objects, 'skip' leaves it
            out.
    """
    if rule == "coco" and pixels == "inclusive":
        raise UsageError("COCO's rule has no last pixel to include: leave out --pixels inclusive, or take a VOC rule")
    new_names = _renames(rename)
    if device is not None:
        choose_device(device)
    weights = fetch_weights(model)  # a wrong name is reported before the data are read
    if json not in (None, STANDARD_OUTPUT):
        check_new([json], overwrite=overwrite, read=[weights, data, *rename])

    from multibox.data import Dataset, DatasetReader
    from multibox.evaluation.evaluate import check_classes, check_rename
    from multibox.evaluation.evaluate import evaluate as run
    from multibox.weights.file import load_weights

    header = load_weights(weights)

    def check(dataset: Dataset) -> None:
        try:
            check_rename(new_names, header.class_names, dataset)
        except ValueError as error:
            raise UsageError(f"--rename: {error}") from error
        check_classes([new_names.get(name, name) for name in header.class_names], dataset)

    reader = DatasetReader(data, unlabelled=unlabelled)
    dataset = read_for_evaluation(reader, split, header.provenance, on_problem, check=check)

    from multibox.detector import Detector

    detector = Detector.load(model, device=choose_device(device), precision=precision)
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
            batch_size=batch_size,
            rename=new_names,
            on_progress=show,
        )
    if metrics.ignored_classes:
        info(f"left out, because {dataset.name} does not name them: {', '.join(metrics.ignored_classes)}")
    if json == STANDARD_OUTPUT:
        stdout().print(metrics.to_json())
        return 0
    _print_metrics(metrics, dataset.name)
    if json is not None:
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(metrics.to_json() + "\n", encoding="utf-8")
        info(f"written to {json}")
    return 0


def _print_metrics(metrics: Metrics, name: str) -> None:
    """Prints the numbers as tables."""
    from rich.table import Table

    stdout().print(
        f"{name}: {counted(metrics.images, 'image')}, {counted(metrics.objects, 'object')}; "
        f"rule {metrics.rule}, pixels {metrics.pixels}"
    )
    overall = Table("", "AP", "AP50", "AP75", "AP small", "medium", "large", box=None, padding=(0, 2, 0, 0))
    overall.add_row(
        "all classes",
        *map(
            _percent,
            (metrics.ap, metrics.ap50, metrics.ap75, metrics.ap_small, metrics.ap_medium, metrics.ap_large),
        ),
    )
    if metrics.rule != "coco":
        overall = Table("", "AP", box=None, padding=(0, 2, 0, 0))
        overall.add_row("all classes", _percent(metrics.ap))
    stdout().print(overall)
    classes = Table("class", "AP", "AP50", "objects", "detections", box=None, padding=(0, 2, 0, 0))
    for label, values in metrics.per_class.items():
        classes.add_row(
            label, _percent(values["ap"]), _percent(values["ap50"]), str(values["objects"]), str(values["detections"])
        )
    stdout().print(classes)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


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
