"""The command `multibox report`."""

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Parameter

from multibox.cli.arguments import (
    DATA,
    MACHINE,
    MODEL,
    OUTPUT,
    Count,
    Device,
    OnProblem,
    Overwrite,
    Unlabelled,
    UsageError,
    choose_device,
    fetch_weights,
)
from multibox.cli.data import read_for_evaluation
from multibox.cli.output import check_folder, check_new
from multibox.cli.runs import read_rows, read_run, run_config
from multibox.cli.terminal import info, progress_bar, stdout
from multibox.evaluation.metrics import Rule
from multibox.messages import list_names
from multibox.training.run_files import LIVE, REPORT, is_run, is_running

if TYPE_CHECKING:
    from multibox.data import Dataset, DatasetReader
    from multibox.detector import Detector
    from multibox.evaluation.metrics import Metrics
    from multibox.report.evaluation import Report, RunHistory

REFRESH = 10
"""Seconds between two looks at a run that goes on, and between two reloads of its page."""

REST = 10
"""A run that goes on is not evaluated again before so many times the seconds have passed that the last time took."""


class Settings(NamedTuple):
    """How each model is evaluated: values of flags."""

    rule: Rule
    batch_size: int
    device: str | None


class Watched(NamedTuple):
    """The last report of a run that goes on.

    Attributes:
        report: The report; None if there are no weights yet.
        changed: When its weights were written.
        due: Time from which the next one may be made.
    """

    report: "Report | None" = None
    changed: float = 0.0
    due: float = 0.0


def report(
    models: Annotated[list[str], Parameter(negative="", group=MODEL)],
    /,
    *,
    data: Annotated[Path | None, Parameter(group=DATA, show_default="the run's own")] = None,
    split: Annotated[str | None, Parameter(group=DATA, show_default="val, or test, or the only one")] = None,
    rule: Annotated[Rule, Parameter(group=DATA)] = "coco",
    out: Annotated[Path | None, Parameter(group=OUTPUT, show_default="RUN/report, or RUN/live to follow")] = None,
    follow: Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)] = False,
    overwrite: Overwrite = False,
    batch_size: Annotated[Count, Parameter(group=MACHINE)] = 8,
    device: Device = None,
    on_problem: Annotated[OnProblem, Parameter(group=DATA)] = "skip",
    unlabelled: Unlabelled = None,
) -> int:
    """Write a page that says how good a detector is, what fails, why, and what to try first.

    The page is one file, index.html, that fetches nothing. Beside it are the usual curves and tables.

    Args:
        models: The folder of a run, a weights file, the name of published weights, or a file of detections that
            'multibox detect --format' or another program wrote. The page is about the first one; the others are
            compared with it.
        data: The folder of the data set to judge by.
        split: The split of the data set; also val or test for the part that the training held out.
        rule: Whose definition of AP to use, as in 'multibox evaluate'.
        out: Write the report to this folder.
        follow: Keep the page fresh while the run goes on: its curves, and the report on the best weights so far. It
            ends with the run.
        overwrite: Replace the files of an earlier report.
        batch_size: Put this many images through the network at once.
        device: Compute on cpu, cuda or mps.
        on_problem: What to do about a bad record: 'skip' lists it and leaves it out, 'error' stops.
        unlabelled: What an image without a label file is: 'empty' takes it as one without objects, 'skip' leaves it
            out.
    """
    run = Path(models[0]) if is_run(Path(models[0])) else None
    if follow and run is None:
        raise UsageError(f"--follow watches the folder of a run, and {models[0]} is none; leave it out")
    folder = out or (run / (LIVE if follow else REPORT) if run else None)
    if folder is None:
        raise UsageError("--out is missing: name a folder for the report, as in --out report/")
    config = run_config(run) if run else {}
    places = [data] if data else [Path(each) for each in config.get("data") or ()]
    if not places:
        raise UsageError("--data is missing: name the folder of the data set to judge by, as in --data raccoons/")
    for place in places:
        if Path(os.path.realpath(folder)).is_relative_to(os.path.realpath(place)):
            raise UsageError(f"{folder} is in the data set, among its images; choose another --out")
    from multibox.report.evaluation import check_matplotlib
    from multibox.report.files import REPORT_FILES

    if device is not None:
        choose_device(device)
    check_folder(folder)
    check_matplotlib()
    again = overwrite or (follow and out is None)  # nothing else writes to this folder
    check_new([folder / name for name in REPORT_FILES], overwrite=again, read=[*places, *map(Path, models[1:])])
    from multibox.data import DatasetReader

    reader = DatasetReader(places, unlabelled=unlabelled or config.get("unlabelled"))
    settings = Settings(rule, batch_size, device)
    if follow and run is not None:
        _follow(run, models, reader, split, on_problem, settings, folder)
    elif run is not None and not (run / "best.safetensors").is_file():
        _write_training(run, folder)
    else:
        dataset = _read(models, reader, split, on_problem)
        for sentence in _write(models, dataset, settings, folder, run).verdict:
            stdout().print(sentence)
    info(f"report: {folder / 'index.html'}")
    return 0


def _read(models: Sequence[str], reader: "DatasetReader", split: str | None, on_problem: OnProblem) -> "Dataset":
    """Returns the data set, whose classes the models know."""
    from multibox.evaluation.evaluate import check_classes
    from multibox.weights.exported import read_header

    headers = [read_header(fetch_weights(model)) for model in models if not _is_detections(model)]

    def check(dataset: "Dataset") -> None:
        for header in headers:
            check_classes(header.class_names, dataset)

    return read_for_evaluation(reader, split, headers[0].provenance if headers else {}, on_problem, check=check)


def _is_detections(model: str) -> bool:
    """Returns whether a model is in truth a file or folder of detections."""
    from multibox.data.detection_files import is_detections

    return not is_run(Path(model)) and is_detections(Path(model))


def _write(
    models: Sequence[str],
    dataset: "Dataset",
    settings: Settings,
    folder: Path,
    run: Path | None,
    *,
    refresh: int | None = None,
) -> "Report":
    """Evaluates the models and writes the report."""
    from multibox.report.evaluation import Other, check_comparable, write_report
    from multibox.report.speed import measure_speed

    if len(models) > 1:
        check_comparable(dataset, settings.rule)
    names = _names(models)
    metrics, detector, facts = _evaluate(models[0], dataset, settings)
    if detector is not None:
        facts = {"speed": str(measure_speed(detector, dataset) or "no image can be read"), **facts}
    others = [
        Other(name, _evaluate(model, dataset, settings)[0].detections)
        for name, model in zip(names[1:], models[1:], strict=True)
    ]
    with progress_bar("writing the report", len(dataset)) as bar:
        return write_report(
            folder,
            dataset,
            metrics,
            name=names[0],
            config=None if detector is None else detector.config,
            run=history(run) if run else None,
            others=others,
            facts=facts,
            refresh=refresh,
            on_progress=lambda done, total: bar(done, f"{done} of {total}"),
        )


def _names(models: Sequence[str]) -> list[str]:
    """Returns a short name of each model; its whole path, where another one has the same short name."""
    short = [Path(os.path.normpath(model)).name if Path(model).exists() else model for model in models]
    return [name if short.count(name) == 1 else model for name, model in zip(short, models, strict=True)]


def _evaluate(
    model: str, dataset: "Dataset", settings: Settings
) -> tuple["Metrics", "Detector | None", dict[str, str]]:
    """Returns the metrics of a model, its detector unless its detections are read, and facts about the evaluation."""
    from multibox.evaluation.evaluate import evaluate, score

    if _is_detections(model):
        from multibox.data.detection_files import read_detections

        read = read_detections(Path(model), dataset)
        if read.unknown_images:
            some = list_names(read.unknown_images, 3)
            info(f"{model}: left out, because {dataset.name} does not have these images: {some}")
        _say_ignored(model, read.unknown_classes, dataset)
        metrics = score(
            [sample.truth for sample in dataset], read.detections, class_names=dataset.class_names, rule=settings.rule
        )
        metrics = dataclasses.replace(metrics, detections=read.detections, ignored_classes=read.unknown_classes)
        return metrics, None, {"detections": f"read from {model}"}
    from multibox.detector import Detector
    from multibox.report.environment import device_name
    from multibox.weights.exported import is_exported

    device = choose_device(settings.device, exported=is_exported(model))
    detector = Detector.load(model, device=device)
    began = time.monotonic()
    with progress_bar("evaluating", len(dataset)) as bar:

        def show(done: int, total: int) -> None:
            bar(done, f"{done} of {total}  {done / max(time.monotonic() - began, 1e-9):.0f} images/s")

        metrics = evaluate(detector, dataset, rule=settings.rule, batch_size=settings.batch_size, on_progress=show)
    seconds = time.monotonic() - began
    _say_ignored(model, metrics.ignored_classes, dataset)
    facts = {
        "speed of the evaluation": f"{len(dataset) / seconds:.0f} images/s, {settings.batch_size} at a time",
        "device": f"{device}, {device_name(device)}",
        "weights": model,
    }
    return metrics, detector, facts


def _say_ignored(model: str, class_names: Sequence[str], dataset: "Dataset") -> None:
    if class_names:
        info(f"{model}: left out, because {dataset.name} does not name these classes: {list_names(class_names)}")


def history(run: Path) -> "RunHistory":
    """Returns what the files of a run say of its course, whether it goes on, has ended, or died."""
    from multibox.report.card import longer, resume_command
    from multibox.report.evaluation import RunHistory

    rows = read_rows(run)
    read = read_run(run)
    if is_running(run):
        age = time.time() - (run / "metrics.csv").stat().st_mtime if rows else 0.0
        state = f"The run goes on: {read.state}, epoch {read.epochs}, {read.time}; its last row is {age:.0f} s old."
    elif read.state == "finished":
        state = f"The run has finished: {read.epochs} epochs in {read.time}."
    else:
        state = f"The run does not go on: {read.state}, epoch {read.epochs}, {read.time}{_why(run)}."
        state += f" To go on: `{resume_command(run)}`"
    return RunHistory(rows, state, resume_command(run, longer(run_config(run))))


def _why(run: Path) -> str:
    """Returns why a run has stopped, if its log says so; a run that was killed could not."""
    log = run / "log.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    said = [line.partition(" stopped: ")[2] for line in lines[-20:] if " stopped: " in line]
    return f"; it stopped: {said[-1]}" if said else "; its log does not say why, as where a process is killed"


def _write_training(run: Path, folder: Path, *, refresh: int | None = None) -> None:
    """Writes a page with the course of a run alone, which has no weights yet."""
    from multibox.report.html import write_page

    folder.mkdir(parents=True, exist_ok=True)
    write_page(folder / "index.html", _course(run), refresh=refresh)


def _course(run: Path) -> dict[str, Any]:
    from multibox.report.evaluation import run_values

    return {"name": run.resolve().name, "run": run_values(history(run))}


def _follow(
    run: Path,
    models: Sequence[str],
    reader: "DatasetReader",
    split: str | None,
    on_problem: OnProblem,
    settings: Settings,
    folder: Path,
) -> None:
    """Keeps the page fresh until the run ends, and then writes the whole report."""
    watched = Watched()
    dataset: Dataset | None = None
    info(f"watching {run}; open {folder / 'index.html'}, which reloads itself. Ctrl-C ends it, not the run")
    goes_on = True
    try:
        while goes_on:
            goes_on = is_running(run)
            refresh = REFRESH if goes_on else None
            best = run / "best.safetensors"
            changed = best.stat().st_mtime if best.is_file() else 0.0
            if changed and (not goes_on or (changed > watched.changed and time.monotonic() >= watched.due)):
                dataset = dataset or _read(models, reader, split, on_problem)
                began = time.monotonic()
                made = _write(models, dataset, settings, folder, run, refresh=refresh)
                watched = Watched(made, changed, time.monotonic() + REST * (time.monotonic() - began))
            else:
                _refresh(run, folder, watched.report, refresh)
            if goes_on:
                time.sleep(REFRESH)
    except BaseException:
        _refresh(run, folder, watched.report, None)  # a page that stays as it is must not reload itself
        raise
    if watched.report is not None:
        for sentence in watched.report.verdict:
            stdout().print(sentence)


def _refresh(run: Path, folder: Path, last: "Report | None", refresh: int | None) -> None:
    """Writes the page with the newest rows of the run, and the last report."""
    from multibox.report.html import write_page

    folder.mkdir(parents=True, exist_ok=True)
    page: Mapping[str, Any] = last.page if last else {}
    write_page(folder / "index.html", {**page, **_course(run)}, refresh=refresh)
