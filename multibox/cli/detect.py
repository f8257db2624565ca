"""The command `multibox detect`."""

import glob
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from cyclopts import Parameter

from multibox.cli.arguments import (
    DATA,
    MODEL,
    OUTPUT,
    Compile,
    Count,
    DetectPrecision,
    Device,
    Fraction,
    Merge,
    Overwrite,
    UsageError,
    choose_device,
    fetch_weights,
)
from multibox.cli.found import (
    FOUND_FILES,
    LABELS_FOLDER,
    Failure,
    Form,
    LabelFormat,
    label_names,
    write_csv,
    write_found,
    write_json,
    write_labels,
)
from multibox.cli.output import STANDARD_OUTPUT, check_empty, check_new
from multibox.cli.terminal import error, info, progress_bar, stdout
from multibox.messages import counted

if TYPE_CHECKING:
    from multibox.detector import Detector, PreparedImage

DRAWN_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
"""The formats that an image with its boxes drawn is saved in; images of other formats become PNG files."""


class Source(NamedTuple):
    """An image to find objects in.

    Attributes:
        path: The image, as it is printed.
        drawn: The path of the drawn image, relative to the `--out` folder.
    """

    path: str
    drawn: Path


def detect(
    sources: Annotated[list[str], Parameter(negative="", group=DATA)],
    /,
    *,
    model: Annotated[str, Parameter(group=MODEL)],
    score: Annotated[Fraction | None, Parameter(group=MODEL, show_default="the detector's own")] = None,
    iou: Annotated[Fraction | None, Parameter(group=MODEL, show_default="the detector's own")] = None,
    max_detections: Annotated[Count | None, Parameter(group=MODEL, show_default="the detector's own")] = None,
    merge: Merge = None,
    classes: Annotated[str | None, Parameter(group=MODEL, show_default="all")] = None,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    save_labels: Annotated[LabelFormat | None, Parameter(group=OUTPUT)] = None,
    format: Annotated[Form | None, Parameter(group=OUTPUT)] = None,
    json: Annotated[Path | None, Parameter(group=OUTPUT, allow_leading_hyphen=True)] = None,
    csv: Annotated[Path | None, Parameter(group=OUTPUT, allow_leading_hyphen=True)] = None,
    overwrite: Overwrite = False,
    device: Device = None,
    precision: DetectPrecision = "fp32",
    compile: Compile = False,
) -> int:
    """Find objects in images.

    Args:
        sources: Images, folders of images, and patterns such as 'street/*.jpg'.
        model: A weights file, the folder of a run for its best weights, or the name of published weights ('multibox
            models' lists them).
        score: Print, draw and write detections with a score above this.
        iou: Suppress a box that overlaps a better one by more than this.
        max_detections: Keep at most this many detections of an image.
        merge: Box voting. 'weighted' moves each box to the score-weighted mean of itself and of those that it
            suppressed; 'none' does not.
        classes: Find only these classes. Put commas between the names.
        out: Save the images with their boxes drawn to this folder, which mirrors the folders of the images. With a
            single image it may also be the name of an image file.
        save_labels: Write the images and their detections as a data set in this layout to the folder 'pre-labels' below
            --out, to be corrected in a labeling tool. It is never overwritten.
        format: Write the detections for another program to a file below --out: COCO's list of results, labels of
            FiftyOne, tasks of Label Studio, or YOLO text files with scores. 'multibox report' reads them back.
        json: Write the detections to this file; '-' prints them instead of the lines.
        csv: Write the detections to this file as a table with a row for each; '-' prints it instead of the lines.
        overwrite: Replace drawn images, the JSON file and the CSV file if they are there already.
        device: Compute on cpu, cuda or mps.
        precision: Compute convolutions in fp32; in bf16, which is faster on some processors at slightly different
            scores; or in the faster of the two, which 'auto' finds out by timing a few images.
        compile: Let torch compile the network first, which takes up to minutes and pays for many images.
    """
    wanted = None if classes is None else [name for part in classes.split(",") if (name := part.strip())]
    if wanted == []:
        raise UsageError("--classes takes names with commas between them, such as 'cat,dog'")
    if json == csv == STANDARD_OUTPUT:
        raise UsageError("--json and --csv cannot both be printed; give the name of a file for one of them")
    from multibox.weights.exported import is_exported, read_header

    exported = is_exported(model)
    if device is not None:
        choose_device(device, exported=exported)
    weights = fetch_weights(model)  # a wrong name is reported before anything else happens
    from multibox.detections import label_of

    class_names = read_header(weights).class_names  # so is a file that holds no weights
    for name in wanted or ():
        try:
            label_of(name, class_names)
        except ValueError as failure:
            raise UsageError(f"--classes: {failure}") from failure
    images, failed = find_images(sources, out=out)
    total = len(images) + len(failed)
    targets = {} if out is None else _targets(images, out)
    written = [file for file in (json, csv) if file not in (None, STANDARD_OUTPUT)]
    found_file = None if format is None else _found_file(out, format, targets)
    if found_file is not None and format != "yolo":
        written.append(found_file)
    labels = _labels_folder(out, save_labels, [*targets.values(), *written])
    check_new([*targets.values(), *written], overwrite=overwrite, read=[weights, *(image.path for image in images)])
    if not images:
        _report(failed, total)
        return 1

    from multibox.detector import Detector

    detector = Detector.load(
        model, device=choose_device(device, exported=exported), precision=precision, compile=compile
    )
    settings = {
        "score_threshold": score,
        "iou_threshold": iou,
        "max_detections": max_detections,
        "merge": merge,
        "class_names": wanted,
    }
    records: list[dict[str, Any]] = []

    def write(skipped: list[Failure]) -> None:
        if json is not None:
            write_json(json, model, detector.class_names, records, [*failed, *skipped])
        if csv is not None:
            write_csv(csv, records)
        if save_labels is not None and labels is not None and records:
            names = label_names({image.path: image.drawn for image in images})
            write_labels(save_labels, labels, detector.class_names, records, names)
        if format is not None and found_file is not None:
            write_found(format, found_file, detector.class_names, records, {each.path: each.drawn for each in images})

    places: dict[str, list[Path | None]] = {
        "drawn in": [out],
        "written to": [*written],
        "labels in": [labels, found_file if format == "yolo" else None],
    }
    began = time.monotonic()
    try:
        _detect_all(
            detector,
            [image.path for image in images],
            settings,
            targets,
            records,
            failed,
            print_lines=STANDARD_OUTPUT not in (json, csv),
        )
    except BaseException as failure:  # what is done is written before the command ends, whatever ends it
        interrupted = isinstance(failure, KeyboardInterrupt)
        why = "interrupted before it was looked at" if interrupted else f"not looked at, because of an error: {failure}"
        done = {record["file"] for record in records} | {each.path for each in failed}
        write([Failure(image.path, why) for image in images if image.path not in done])
        message = f"{len(records)} of {counted(total, 'image')} are done{_where(places)}"
        if interrupted:
            raise KeyboardInterrupt(message) from failure
        if out or written:
            info(message)
        raise
    seconds = time.monotonic() - began
    write([])
    if records:
        info(_summary(records, seconds, places))
    if failed:
        _report(failed, total)
    return 1 if failed else 0


def _labels_folder(out: Path | None, save_labels: LabelFormat | None, files: list[Path]) -> Path | None:
    """Returns the folder that `--save-labels` writes to.

    Args:
        out: Value of `--out`.
        save_labels: Value of `--save-labels`.
        files: All other files that the command writes.

    Raises:
        UsageError: There is no `--out`, it is the name of an image, or another file would be in the folder.
        FileExistsError: The folder has files already; they may be labels that were corrected by hand.
    """
    if save_labels is None:
        return None
    if out is None or out in files:
        raise UsageError(
            f"--save-labels needs a folder, as in --out found/ --save-labels {save_labels}; the labels go to "
            f"found/{LABELS_FOLDER}"
        )
    folder = out / LABELS_FOLDER
    for file in files:
        if Path(os.path.abspath(file)).is_relative_to(os.path.abspath(folder)):
            raise UsageError(f"{file} would be among the labels in {folder}; choose another --out or another name")
    check_empty(folder)
    return folder


def _found_file(out: Path | None, format: Form, targets: Mapping[str, Path]) -> Path:
    """Returns the file that `--format` writes to; YOLO's is a folder, which must be empty.

    Raises:
        UsageError: There is no `--out`, or it is the name of an image.
        FileExistsError: The folder has files already.
    """
    if out is None or out in targets.values():
        raise UsageError(f"--format needs a folder, as in --out found/ --format {format}")
    file = out / FOUND_FILES[format]
    if format == "yolo":
        check_empty(file)
    return file


def _detect_all(
    detector: "Detector",
    paths: list[str],
    settings: dict[str, Any],
    targets: dict[str, Path],
    records: list[dict[str, Any]],
    failed: list[Failure],
    *,
    print_lines: bool,
) -> None:
    """Looks at each image, prints what is found, and saves the drawn image. Appends to `records` and `failed`."""
    prepared: deque[tuple[str, int, int]] = deque()  # path, height and width of the images whose results will follow

    def readable_images() -> Iterator["PreparedImage"]:
        for path in paths:
            try:
                image = detector.prepare_image(path)
            except (ValueError, OSError) as failure:
                failed.append(Failure(path, str(failure)))
                continue
            prepared.append((path, image.height, image.width))
            yield image

    began, failed_before = time.monotonic(), len(failed)
    # The lines are progress enough where they can be seen.
    with progress_bar("detecting", len(paths), show=not (print_lines and stdout().is_terminal)) as bar:
        for found in detector.detect(readable_images(), **settings):
            path, height, width = prepared.popleft()
            if print_lines:
                stdout().print(f"{path}: {_counts(found.names)}")
            record: dict[str, Any] = {"file": path, "height": height, "width": width}
            if path in targets:
                targets[path].parent.mkdir(parents=True, exist_ok=True)
                found.draw(path).save(targets[path])
                record["drawn"] = str(targets[path])
            records.append(record | {"detections": found.records()})
            done = len(records) + len(failed) - failed_before
            bar(done, f"{done} of {len(paths)}  {done / (time.monotonic() - began):.0f} images/s")


def _counts(names: list[str]) -> str:
    """Returns how many objects of each class there are: `12 RBC, 1 WBC`."""
    return ", ".join(f"{number} {name}" for name, number in Counter(names).most_common()) or "nothing found"


def _summary(records: list[dict[str, Any]], seconds: float, places: Mapping[str, Sequence[Path | None]]) -> str:
    names = [found["name"] for record in records for found in record["detections"]]
    return f"{counted(len(records), 'image')} in {seconds:.1f} s: {_counts(names)}{_where(places)}"


def _where(places: Mapping[str, Sequence[Path | None]]) -> str:
    """Returns where the results are: `; drawn in found; written to found.json and found.csv`."""
    there = {what: [str(place) for place in paths if place and place.exists()] for what, paths in places.items()}
    return "".join(f"; {what} {' and '.join(paths)}" for what, paths in there.items() if paths)


def find_images(sources: list[str], *, out: Path | None = None) -> tuple[list[Source], list[Failure]]:
    """Returns the images that the sources name, each once and in order, and the sources that name none.

    Args:
        sources: Images, folders and patterns.
        out: The folder for drawn images. It is left out where a folder that contains it is searched, because an earlier
            run drew what is in it.
    """
    images: dict[str, Source] = {}
    failed = []
    skipped = 0
    for source in sources:
        found = list(_images_of(source, alone=len(sources) == 1))
        kept = [image for image in found if not _is_output(image.path, source, out)]
        skipped += len(found) - len(kept)
        if not kept:
            what = "there is no such image or folder"
            if os.path.isdir(source):
                what = "a folder without images"
            if found:
                what = f"all its images are in {out}, the --out folder, which is left out; choose another --out folder"
            failed.append(Failure(source, f"{source or repr(source)}: {what}"))
        for image in kept:
            images.setdefault(os.path.abspath(image.path), image)
    if skipped and images:
        info(f"{counted(skipped, 'image')} in {out}, the --out folder, left out")
    return list(images.values()), failed


def _is_output(path: str, source: str, out: Path | None) -> bool:
    """Returns whether the path was found in the output folder only because a folder above it was searched."""
    if out is None or not os.path.isdir(source):
        return False
    folder, drawn = Path(source).resolve(), out.resolve()
    if folder not in drawn.parents:
        return False
    return Path(path).is_relative_to(Path(source) / drawn.relative_to(folder))


def _images_of(source: str, *, alone: bool) -> Iterator[Source]:
    """Yields the images of a source. If there are several folders, each gets a folder of its own below `--out`."""
    from multibox.data.files import list_files
    from multibox.images import IMAGE_SUFFIXES

    if not source:  # an unset variable of the shell; `Path` would take it for the current folder
        return
    folder = Path(source)
    if folder.is_dir():
        above = Path() if alone else Path(folder.resolve().name)
        for path in list_files(folder, IMAGE_SUFFIXES):
            yield Source(str(path), above / path.relative_to(folder))
    elif os.path.exists(source):
        yield Source(source, Path(folder.name))
    else:
        parts = folder.parts
        fixed = Path(*parts[: next((i for i, part in enumerate(parts) if glob.has_magic(part)), len(parts))])
        for item in sorted(glob.glob(source, recursive=True)):
            if os.path.isfile(item):
                yield Source(item, Path(item).relative_to(fixed))


def _targets(images: list[Source], out: Path) -> dict[str, Path]:
    """Returns where each drawn image goes. Names that differ only in the suffix or in upper case get a number.

    Raises:
        UsageError: `out` names a file, but there are more images.
    """
    if out.suffix.lower() in DRAWN_SUFFIXES and not out.is_dir():
        if len(images) > 1:
            raise UsageError(f"--out {out} is the name of one image, but there are {len(images)} images; give a folder")
        targets = {image.path: out for image in images}
    else:
        targets = {}
        taken: set[str] = set()
        for image in images:
            suffix = image.drawn.suffix if image.drawn.suffix.lower() in DRAWN_SUFFIXES else ".png"
            drawn, number = image.drawn.with_suffix(suffix), 1
            while str(drawn).casefold() in taken:
                number += 1
                drawn = image.drawn.with_name(f"{image.drawn.stem}-{number}{suffix}")
            taken.add(str(drawn).casefold())
            targets[image.path] = out / drawn
    return targets


def _report(failed: list[Failure], total: int) -> None:
    lines = [why for _, why in failed]
    error(lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} of {total} could not be read:", *lines]))
