"""multibox detect"""

import glob
import json as json_text
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from multibox.cli.terminal import (
    Count,
    Fraction,
    UsageError,
    check_device,
    check_output,
    complain,
    fetch_weights,
    progress_bar,
    stdout,
)


def detect(
    sources: Annotated[list[str], Parameter(negative="")],
    /,
    *,
    model: str,
    score: Fraction = 0.5,
    iou: Fraction | None = None,
    max_detections: Count | None = None,
    classes: str | None = None,
    out: Path | None = None,
    json: Path | None = None,
    device: str = "cpu",
) -> int:
    """Find objects in images.

    Args:
        sources: Images, folders of images, and patterns such as 'street/*.jpg'.
        model: A weights file, or the name of published weights (multibox models lists them).
        score: Detections must score above this.
        iou: A box that overlaps a better one by more than this is suppressed; by default the detector's own.
        max_detections: How many detections of an image are kept; by default the detector's own.
        classes: Names of the classes that are wanted, with commas between them.
        out: A folder for the images with their boxes drawn.
        json: A file for all that was found.
        device: cpu, cuda, mps.
    """
    wanted = None if classes is None else [name for part in classes.split(",") if (name := part.strip())]
    if wanted == []:
        raise UsageError("--classes takes names with commas between them, such as 'cat,dog'")
    check_device(device)
    fetch_weights(model)  # says that there is no such file before anything is made
    paths, failed = _find_images(sources, out=out)
    total = len(paths) + len(failed)
    targets = {} if out is None else _targets(out, paths)
    if out is not None:
        check_output(out)
    if json is not None:
        if json.is_dir():
            raise UsageError(f"--json takes the name of a file, and {json} is a folder")
        check_output(json.parent)
    if not paths:
        _complain_of(failed, total)
        return 1

    from multibox.detector import Detector
    from multibox.images import open_image

    detector = Detector.load(model, device=device)
    try:
        detector.detect([], class_names=wanted)
    except ValueError as error:  # there is no such class
        raise UsageError(f"--classes: {error}") from error
    records: list[dict[str, Any]] = []
    began = time.monotonic()
    # where the results are seen they are progress enough
    with progress_bar("detecting", len(paths), show=not stdout().is_terminal) as bar:
        for done, path in enumerate(paths, start=1):
            bar(done, f"{done} of {len(paths)}  {done / (time.monotonic() - began):.0f} images/s")
            try:
                image = open_image(path)
            except (ValueError, OSError) as error:
                failed.append((path, str(error)))
                continue
            found = detector.detect(
                image, score_threshold=score, iou_threshold=iou, max_detections=max_detections, class_names=wanted
            )
            summary = ", ".join(f"{one.name} {one.score:.2f}" for one in found) or "nothing found"
            stdout().print(f"{path}: {summary}")
            if path in targets:
                found.draw(image).save(targets[path])
            records.append({"file": path, "height": image.height, "width": image.width, "detections": found.records()})
    if json is not None:
        result = {
            "model": model,
            "class_names": detector.class_names,
            "images": records,
            "failed": [{"file": path, "error": error} for path, error in failed],
        }
        # a name that is no UTF-8 is read back as it was
        text = json_text.dumps(result, ensure_ascii=False, indent=2) + "\n"
        json.write_text(text, encoding="utf-8", errors="backslashreplace")
    if failed:
        _complain_of(failed, total)
    return 1 if failed else 0


def _find_images(sources: list[str], *, out: Path | None = None) -> tuple[list[str], list[tuple[str, str]]]:
    """The files that the sources mean, each once, in order; and the sources that mean none, with why.

    What lies in `out` is left out where a folder is searched: it was drawn by an earlier run.
    """
    paths: dict[str, str] = {}
    failed = []
    for source in sources:
        found = list(_images_of(source, out))
        if not found:
            what = "a folder without images" if os.path.isdir(source) else "there is no such image or folder"
            failed.append((source, f"{source or repr(source)}: {what}"))
        for path in found:
            paths.setdefault(os.path.abspath(path), path)
    return list(paths.values()), failed


def _images_of(source: str, out: Path | None) -> Iterator[str]:
    from multibox.data.files import list_files
    from multibox.images import IMAGE_SUFFIXES

    folder = Path(source)
    if not source:  # of a variable of the shell that is not set; to Path it is the folder that we are in
        return
    if folder.is_dir():
        drawn = None
        if out is not None and folder.resolve() in out.resolve().parents:
            drawn = folder / out.resolve().relative_to(folder.resolve())
        for path in list_files(folder, IMAGE_SUFFIXES):
            if drawn is None or not path.is_relative_to(drawn):
                yield str(path)
    elif os.path.exists(source):
        yield source
    else:
        yield from sorted(item for item in glob.glob(source, recursive=True) if os.path.isfile(item))


def _targets(out: Path, paths: list[str]) -> dict[str, Path]:
    """Where each drawn image goes: under its own name, with a number where two images share it.

    Raises:
        UsageError: One would overwrite an image that is read.
    """
    targets: dict[str, Path] = {}
    taken: set[str] = set()
    originals = {os.path.realpath(path) for path in paths}
    for path in paths:
        stem, suffix = Path(path).stem, Path(path).suffix
        suffix = suffix if suffix.lower() in {".jpg", ".jpeg", ".png", ".webp"} else ".png"
        name, number = f"{stem}{suffix}", 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}{suffix}"
        taken.add(name.casefold())
        targets[path] = out / name
        if os.path.realpath(out / name) in originals:
            raise UsageError(f"--out {out}: the drawn image would overwrite {out / name}; choose another folder")
    return targets


def _complain_of(failed: list[tuple[str, str]], total: int) -> None:
    lines = [why for _, why in failed]
    complain(lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} of {total} could not be read:", *lines]))
