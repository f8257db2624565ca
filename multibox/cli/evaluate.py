"""multibox evaluate"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from multibox.cli.terminal import (
    Count,
    Fraction,
    OnProblem,
    UsageError,
    check_device,
    choose_split,
    count,
    fetch_weights,
    progress_bar,
    read_splits,
    say,
    stdout,
)
from multibox.evaluation.metrics import Metrics, Pixels, Rule
from multibox.evaluation.rename import RENAMES, read_renames


def evaluate(
    data: Path,
    *,
    model: str,
    split: str | None = None,
    rule: Rule = "coco",
    pixels: Pixels | None = None,
    score: Fraction | None = None,
    iou: Fraction | None = None,
    max_detections: Count | None = None,
    class_agnostic: Annotated[bool | None, Parameter(negative="--per-class")] = None,
    rename: Annotated[Sequence[str], Parameter(negative="")] = (),
    batch_size: Count = 8,
    device: str = "cpu",
    json: Annotated[bool, Parameter(negative="")] = False,
    on_problem: OnProblem = "skip",
) -> int:
    """Score a detector on a data set.

    Args:
        data: The folder of the data set, in the layout of VOC, COCO or YOLO.
        model: A weights file, or the name of published weights (multibox models lists them).
        split: By default val, or test where there is no val, or the only one.
        rule: COCO's AP over overlaps from 0.50 to 0.95, VOC 2007's mean over 11 points of recall, or VOC 2010's area.
        pixels: How overlap is measured: inclusive counts the last pixel, as the VOC rules do by default.
        score: Detections must score above this; by default the detector's own, as for the next three.
        iou: A box that overlaps a better one by more than this is suppressed.
        max_detections: How many detections of an image are kept.
        class_agnostic: Whether better boxes of any class suppress, or only those of the same class.
        rename: OLD=NEW, the detector's class OLD is the data's class NEW; or a file of such lines; or coco-to-voc,
            where a detector of COCO's classes meets data with VOC's. May be given more than once.
        batch_size: Images that go through the network at once.
        device: cpu, cuda, mps.
        json: Print one JSON object, not tables.
        on_problem: What to do about bad records: skip lists them and goes on, error stops.
    """
    if rule == "coco" and pixels == "inclusive":
        raise UsageError("COCO's rule has no last pixel to include: leave out --pixels inclusive, or take a VOC rule")
    new_names = _renames(rename)
    check_device(device)
    fetch_weights(model)  # says that there is no such file before the data is read

    from multibox.data import DatasetReader

    reader = DatasetReader(data)
    (dataset,) = read_splits(reader, [choose_split(reader, split, ["val", "valid", "test"], "--split")], on_problem)

    from multibox.detector import Detector
    from multibox.evaluation.evaluate import check_rename
    from multibox.evaluation.evaluate import evaluate as run

    detector = Detector.load(model, device=device)
    try:
        check_rename(new_names, detector.class_names, dataset)
    except ValueError as error:
        raise UsageError(f"--rename: {error}") from error
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
        say(f"left out, because {dataset.name} does not name them: {', '.join(metrics.ignored_classes)}")
    if json:
        stdout().print(metrics.to_json())
    else:
        _print_metrics(metrics, dataset.name)
    return 0


def _print_metrics(metrics: Metrics, name: str) -> None:
    """The numbers as tables."""
    from rich.table import Table

    stdout().print(
        f"{name}: {count(metrics.images, 'image')}, {count(metrics.objects, 'object')}; "
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
    """All that is renamed; what comes last counts."""
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
