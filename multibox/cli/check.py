"""The command `multibox check`."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from multibox.cli.arguments import (
    DATA,
    LENGTH,
    MODEL,
    OUTPUT,
    Count,
    Overwrite,
    Unlabelled,
    UsageError,
    open_model,
)
from multibox.cli.output import STANDARD_OUTPUT, check_empty, check_new, check_outside
from multibox.cli.review import (
    Reviewer,
    Trainings,
    add_doubts,
    check_one_question,
    measure_curve,
    read_edit,
    trainings_folder,
)
from multibox.cli.terminal import info, stdout
from multibox.messages import counted

_NEEDS = {
    "headers": "the headers of the images, so it does not go with --fast",
    "pixels": "--pixels",
    "model": "--model NAME",
    "predictions": "--predict NAME or --folds N",
}
"""How the command line gives the checks what they look at."""

_Flag = Annotated[bool, Parameter(group=DATA, negative="", show_default=False)]
_Kinds = Annotated[Sequence[str], Parameter(group=DATA, negative="", show_default=False)]


def check(
    data: Annotated[Path, Parameter(group=DATA)],
    /,
    *,
    split: Annotated[str | None, Parameter(group=DATA, show_default="all")] = None,
    model: Annotated[str | None, Parameter(group=MODEL)] = None,
    size: Annotated[str | None, Parameter(group=MODEL, show_default="the preset's own")] = None,
    only: _Kinds = (),
    skip: _Kinds = (),
    fast: _Flag = False,
    pixels: _Flag = False,
    fix: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    format: Annotated[
        Literal["voc", "coco", "yolo"] | None, Parameter(group=OUTPUT, show_default="that of the data")
    ] = None,
    decisions: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    predict: Annotated[str | None, Parameter(group=MODEL)] = None,
    folds: Annotated[Count | None, Parameter(group=MODEL)] = None,
    learning_curve: Annotated[bool, Parameter(group=MODEL, negative="", show_default=False)] = False,
    steps: Annotated[Count | None, Parameter(group=LENGTH, show_default="500")] = None,
    seeds: Annotated[Count | None, Parameter(group=LENGTH, show_default="3")] = None,
    work: Annotated[Path | None, Parameter(group=OUTPUT, show_default="runs/DATA-folds and the like")] = None,
    page: Annotated[Path | None, Parameter(group=OUTPUT, show_default="runs/DATA-review.html")] = None,
    json: Annotated[Path | None, Parameter(group=OUTPUT, allow_leading_hyphen=True)] = None,
    overwrite: Overwrite = False,
    unlabelled: Unlabelled = None,
) -> int:
    """Find what is wrong with a data set.

    Each problem is listed with its file, object and value, what it means for a training, and what to do. Errors change
    what is learned, warnings probably do, notes are worth knowing. The exit status is 1 if there are errors; with
    --fix, if there are errors in the mended copy.

    Args:
        data: The folder of the data set: VOC XML, COCO or labelme JSON, or YOLO text.
        split: Look at this split only.
        model: Judge the data for this detector as well: a preset, timm/NAME, the .json file of a config, or weights: a
            file, the folder of a run, or the name of published weights.
        size: The input size of a preset in pixels, HEIGHTxWIDTH (240x320) or one number for both.
        only: Look for these only: kinds of problem, families (files, labels, splits, balance, detector) or grades
            (error, warning, note). May be given more than once.
        skip: Leave these out: kinds of problem, families or grades. May be given more than once.
        fast: Read the annotations and the sizes of the images only.
        pixels: Decode all images: for damage, odd light, blur, and copies that were saved again, flipped or turned.
        fix: Write a mended copy of the data to this new folder, with a list of what was changed (changes.csv). The data
            themselves are never changed.
        format: The layout of the mended copy.
        decisions: Apply the decisions of this file, which the page of a review saves, to the mended copy.
        predict: Let this detector look at the images, and list the labels that it doubts: missing, phantom, badly
            located and swapped ones. It must not have learned from them.
        folds: The same by detectors that have not seen what they judge: divide the images into so many folds, and
            train a detector for each on the others, for --steps.
        learning_curve: Instead of all this, train on 25, 50 and 100 % of the training images, and say how AP grows.
        steps: Length of each training. --model says what it starts from, 'multibox/voc-tiny' by default.
        seeds: Number of trainings on each part of the images.
        work: Keep the trainings in this folder: the same command goes on with them after it was stopped.
        page: Write the page of a review to this file: the 50 labels that are doubted most, to decide about.
        json: Write everything to this file; '-' prints it instead of the text.
        overwrite: Replace the JSON file and the page if they are there already.
        unlabelled: What an image without a label file is: 'empty' takes it as one without objects, 'skip' leaves it
            out.
    """
    flags = {
        **{"--only": only, "--skip": skip, "--fast": fast, "--pixels": pixels, "--model": model, "--size": size},
        **{"--fix": fix, "--format": format, "--decisions": decisions, "--page": page, "--json": json},
        **{"--predict": predict, "--folds": folds, "--learning-curve": learning_curve},
        **{"--steps": steps, "--seeds": seeds, "--work": work},
    }
    check_one_question([flag for flag, value in flags.items() if value])
    if fix is None and format is not None:
        raise UsageError("--format is that of a mended copy; say where to write it: --fix OUT")
    if decisions is not None and fix is None:
        raise UsageError("--decisions are applied to a copy; say where to write it: --fix OUT")

    if size is not None and model is None:
        raise UsageError("--size is that of a detector; say which: --model NAME")

    trainings = Trainings(model, steps, trainings_folder(work, data, "learning-curve" if learning_curve else "folds"))
    reviewer = None
    if predict is not None or folds is not None:
        place = page or Path("runs") / f"{data.resolve().name}-review.html"
        reviewer = Reviewer(predict, folds, trainings, place)
    written = {
        "--fix": fix,
        "--json": None if json == STANDARD_OUTPUT else json,
        "--page": reviewer.page if reviewer else None,
        "--work": trainings.folder if folds or learning_curve else None,
    }
    read = [data, *(Path(each) for each in (decisions, model, predict) if each and Path(each).is_file())]
    _check_places(data, written, overwrite=overwrite, read=read)
    if learning_curve:
        return measure_curve(data, split, unlabelled, seeds or 3, trainings)
    needs = {"labels": True, "headers": not fast, "pixels": pixels, "model": model, "predictions": reviewer}
    kinds = _choose_kinds(only, skip, [need for need, is_there in needs.items() if is_there])
    if reviewer is not None:
        reviewer.check()
    edit = None if decisions is None else read_edit(decisions)

    from multibox.display import image_bar
    from multibox.doctor.examine import examine
    from multibox.doctor.kinds import KINDS
    from multibox.doctor.report import Report
    from multibox.doctor.survey import survey

    judge = None if model is None else open_model(model, size)
    examined = [kind for kind in kinds if KINDS[kind].needs != "predictions"]

    def look(path: Path, split: str | None) -> Report:
        if not examined:  # which `examine` would take for everything
            return Report(survey(path, split=split, unlabelled=unlabelled), (), (), (), "", 0.0)
        with image_bar("decoding", show=pixels) as bar:
            return examine(
                path,
                split=split,
                only=examined,
                fast=fast,
                with_pixels=pixels,
                model=judge,
                unlabelled=unlabelled,
                on_progress=bar,
            )

    report = look(data, split)
    if reviewer is not None:
        report = add_doubts(report, reviewer, kinds)
    stdout().print(report.to_json() if json == STANDARD_OUTPUT else report.to_text())
    if json not in (None, STANDARD_OUTPUT):
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(report.to_json() + "\n", encoding="utf-8")
        info(f"written to {json}")
    if fix is not None:
        from multibox.doctor.fix import CHANGES, write_fixed

        changes = write_fixed(report, fix, format, edit)
        info(f"{counted(len(changes), 'change')}, listed in {fix / CHANGES}")
        report = look(fix, None)
        info(f"the mended copy: {report.summary()}")
    return 1 if report.count("error") else 0


def _check_places(data: Path, written: Mapping[str, Path | None], *, overwrite: bool, read: Sequence[Path]) -> None:
    """Checks, before any work begins, that what is written is new, outside of the data set and of the mended copy.

    Args:
        data: The data set.
        written: The files and folders to write, by the flag that names them; None for those that are not written.
        overwrite: Whether files may be replaced.
        read: The files and folders that are read.

    Raises:
        UsageError: A place does not suit.
        OSError: A file is there already, or a folder cannot be written to.
    """
    places = {flag: place for flag, place in written.items() if place is not None}
    for flag, place in places.items():
        check_outside(place, data, flag)
    if fix := places.get("--fix"):
        for flag in places.keys() - {"--fix"}:
            check_outside(places[flag], fix, flag, what="the folder of the mended copy")
        check_empty(fix)
    check_new([places[flag] for flag in ("--json", "--page") if flag in places], overwrite=overwrite, read=read)


def _choose_kinds(only: Sequence[str], skip: Sequence[str], needs: Collection[str]) -> tuple[str, ...]:
    """Returns the identifiers of the kinds of problem to look for.

    Args:
        only: Kinds, families or grades to look for; nothing stands for all.
        skip: Kinds, families or grades to leave out.
        needs: What the checks may look at.

    Raises:
        UsageError: There is no such kind; or another flag is needed, or leaves nothing to look for.
    """
    from multibox.doctor.examine import choose_kinds
    from multibox.doctor.kinds import KINDS

    for word in only:
        needed = [kind.needs for kind in KINDS.values() if word in (kind.id, kind.family, kind.grade)]
        if needed and not set(needed) & set(needs):
            raise UsageError(f"--only {word} needs {_NEEDS[needed[0]]}")
    try:
        kinds = choose_kinds(only, skip, list(needs))
    except ValueError as error:
        raise UsageError(str(error)) from error
    if "predictions" in needs and not any(KINDS[kind].needs == "predictions" for kind in kinds):
        raise UsageError("--predict and --folds look for doubtful labels, which --only or --skip leaves out")
    return kinds
