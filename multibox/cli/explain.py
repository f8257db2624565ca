"""The command `multibox explain`."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from multibox.cli.arguments import DATA, MODEL, OUTPUT, Fraction, Overwrite, UsageError, fetch_weights
from multibox.cli.output import STANDARD_OUTPUT, check_new
from multibox.cli.terminal import info, progress_bar, stdout
from multibox.messages import counted, list_names

if TYPE_CHECKING:
    from rich.table import Table

    from multibox.data.sample import Sample
    from multibox.detector import Detector

_DETECTOR_S_OWN = Parameter(group=MODEL, show_default="the detector's own")

FILES = {
    "index.html": "the page: the image with its feature maps, to try things out",
    "explanation.json": "all of it as numbers",
    "detections.png": "the detections, and dashed the default box that found each",
    "matches.png": "the objects, and on each feature map the default boxes that they matched",
}
"""The files that `--out` writes. The last one needs objects."""


def explain(
    image: Annotated[str, Parameter(group=DATA)],
    /,
    *,
    model: Annotated[list[str], Parameter(group=MODEL, negative="", consume_multiple=True)],
    truth: Annotated[Path | None, Parameter(group=DATA)] = None,
    data: Annotated[Path | None, Parameter(group=DATA)] = None,
    score: Annotated[Fraction | None, _DETECTOR_S_OWN] = None,
    iou: Annotated[Fraction | None, _DETECTOR_S_OWN] = None,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    json: Annotated[Path | None, Parameter(group=OUTPUT, allow_leading_hyphen=True)] = None,
    overwrite: Overwrite = False,
) -> int:
    """Show which default box found each object in an image, and what training would learn from it.

    For every detection: its feature map, cell and default box, the offsets from there to the box, its score, and the
    boxes that it suppressed. If the objects are known, by --truth or --data: which default boxes each of them matches,
    and which hard negatives the loss would take.

    Args:
        image: The image.
        model: A weights file, the folder of a run for its best weights, or the name of published weights ('multibox
            models' lists them). If there are several, such as the weights of a run after more and more epochs, the last
            one is explained, and of the others the hard negatives.
        truth: The objects of the image: an .xml of VOC, a .json of labelme, or a .txt of YOLO with the numbers of the
            detector's classes.
        data: The data set that the image belongs to, which knows its objects.
        score: Explain detections with a score above this.
        iou: Suppress a box that overlaps a better one by more than this.
        out: Write a page to explore the image with, the drawn image and the JSON to this folder. Begin with its
            index.html.
        json: Write the explanation to this file; '-' prints it instead of the tables.
        overwrite: Replace these files if they are there already.
    """
    if truth is not None and data is not None:
        raise UsageError("--truth and --data both say what the objects are; give one of them")
    weights = [fetch_weights(name) for name in model]  # a wrong name is reported before anything else happens
    known = truth is not None or data is not None
    files = [] if out is None else [out / name for name in FILES if known or name != "matches.png"]
    files += [json] if json not in (None, STANDARD_OUTPUT) else []
    annotated = [path for path in (truth, data) if path is not None]
    check_new(files, overwrite=overwrite, read=[image, *weights, *annotated])

    from multibox.explain.explanation import explain as run

    detectors = _load(model)
    sample = None
    if known:
        sample = _objects(image, truth, data, list(detectors.values())[-1].class_names)
    explanation = run(detectors, image, sample=sample, score_threshold=score, iou_threshold=iou)
    if json == STANDARD_OUTPUT:
        sys.stdout.write(explanation.to_json() + "\n")
    else:
        _print(explanation.record)
    if json not in (None, STANDARD_OUTPUT):
        json.parent.mkdir(parents=True, exist_ok=True)
        json.write_text(explanation.to_json() + "\n", encoding="utf-8", errors="backslashreplace", newline="\n")
        info(f"written to {json}")
    if out is not None:
        from multibox.explain.draw import draw_detections, draw_matches
        from multibox.explain.page import write_page

        out.mkdir(parents=True, exist_ok=True)
        draw_detections(explanation, image).save(out / "detections.png")
        if known:
            draw_matches(explanation, image).save(out / "matches.png")
        write_page(explanation, image, out)
        info(f"page: {out / 'index.html'}")
    return 0


def _load(models: Sequence[str]) -> dict[str, "Detector"]:
    """Returns the detectors by their names; of equal names the first counts."""
    from multibox.detector import Detector

    names = dict.fromkeys(models)
    with progress_bar("loading", len(names)) as bar:
        detectors = {}
        for number, name in enumerate(names):
            bar(number, name)
            detectors[name] = Detector.load(name)
    return detectors


def _objects(image: str, truth: Path | None, data: Path | None, class_names: Sequence[str]) -> "Sample":
    """Returns the image with its objects. Says what is wrong with them, and which classes the detector lacks."""
    from multibox.data.one_image import read_file_of, read_sample_of, with_known_classes
    from multibox.data.read import DatasetReader

    if truth is not None:
        dataset = read_file_of(image, truth, class_names)
        for problem in dataset.problems:
            info(str(problem))
    else:
        assert data is not None
        dataset = read_sample_of(image, DatasetReader(data))
    known, left_out = with_known_classes(dataset, class_names)
    if left_out:
        info(f"objects of classes that the detector does not know are left out: {list_names(left_out)}")
    return known[0]


def _print(record: dict[str, Any]) -> None:
    """Prints the detections, and what the objects match, as tables."""
    image, detector, maps = record["image"], record["detector"], record["feature_maps"]
    boxes = sum(row["default_boxes"] for row in maps)
    stdout().print(
        f"{image['file']}: {image['width']} x {image['height']} pixels; {detector['name']}, {boxes:,} default boxes "
        f"on {counted(len(maps), 'map')}"
    )
    table = _table(["found", "score", "map", "cell", "default box", "offsets (x, y, w, h)", "suppressed"])
    for one in record["detections"]:
        offsets = "-" if one["offsets"] is None else " ".join(f"{value:+.1f}" for value in one["offsets"])
        suppressed = "-" if one["suppressed"] is None else str(len(one["suppressed"]))
        table.add_row(one["name"], f"{one['score_after']:.2f}", *_place(one["default_box"], maps), offsets, suppressed)
    stdout().print()
    stdout().print(table if record["detections"] else "nothing found; a lower --score shows what scores less")
    if record["truth"] is not None:
        _print_truth(record)


def _print_truth(record: dict[str, Any]) -> None:
    """Prints the matches of each object, and the hard negatives of each of the weights."""
    maps = record["feature_maps"]
    table = _table(["object", "width x height", "best overlap", "matches", "on the maps"])
    for one in record["truth"]:
        counts = Counter(match["feature_map"] for match in one["matches"])
        places = ", ".join(f"{_grid(maps[number])}: {count}" for number, count in sorted(counts.items()))
        saved = " by its own rule only" if one["best_overlap"] < 0.5 and one["matches"] else ""
        table.add_row(
            one["name"], _size(one["box"]), f"{one['best_overlap']:.2f}", str(len(one["matches"])), places + saved
        )
    stdout().print()
    stdout().print(table if record["truth"] else "no objects")
    if record["hard_negatives"]:
        stdout().print()
        stdout().print(_hard_negatives(record))


def _hard_negatives(record: dict[str, Any]) -> "Table":
    """Returns a table of the hard negatives on each feature map, and the losses, by the weights."""
    maps = record["feature_maps"]
    table = _table(["hard negatives with", *map(_grid, maps), "box loss", "class loss"])
    for stage in record["hard_negatives"]:
        counts = Counter(one["feature_map"] for one in stage["default_boxes"])
        name = Path(stage["model"]).name if Path(stage["model"]).is_file() else stage["model"]
        losses = (f"{stage[key]:.2f}" for key in ("localization_loss", "confidence_loss"))
        table.add_row(name, *(str(counts[number]) for number in range(len(maps))), *losses)
    return table


def _table(columns: Sequence[str]) -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def _place(default_box: dict[str, Any], maps: Sequence[dict[str, Any]]) -> tuple[str, str, str]:
    """Returns the grid of the map, the row and column of the cell from 1, and the size of the default box."""
    cell = f"{default_box['row'] + 1}, {default_box['column'] + 1}"
    return _grid(maps[default_box["feature_map"]]), cell, _size(default_box["box"])


def _grid(feature_map: dict[str, Any]) -> str:
    return f"{feature_map['rows']}x{feature_map['columns']}"


def _size(box: Sequence[float]) -> str:
    return f"{box[2] - box[0]:.0f} x {box[3] - box[1]:.0f}"
