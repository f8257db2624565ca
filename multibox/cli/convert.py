"""The command `multibox convert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from multibox.cli.arguments import (
    MODEL,
    OUTPUT,
    Overwrite,
    UsageError,
    check_not_a_state,
    height_and_width,
    name_flag,
)
from multibox.cli.output import check_new
from multibox.cli.terminal import show_log, stdout
from multibox.weights.published import find_weights

if TYPE_CHECKING:
    import multibox.config
    import multibox.detector

_RESIZE = {
    "bilinear": "bilinear",
    "antialias": "bilinear with antialiasing",
    "float": "bilinear, not rounded to whole numbers",
}
_CLIPPED = {
    "none": "not clipped",
    "size": "width and height clipped",
    "all": "all four numbers clipped",
    "corners": "cut at the edges of the image",
}


def convert(
    source: Path,
    out: Annotated[Path, Parameter(group=OUTPUT)],
    /,
    *,
    class_names: Annotated[Path | None, Parameter(group=MODEL)] = None,
    size: Annotated[str | None, Parameter(group=MODEL, show_default="240x320")] = None,
    overwrite: Overwrite = False,
) -> int:
    """Convert a weights file of another project to multibox's format.

    Args:
        source: The file to convert. Its contents tell which project it is from. No code in the file is run.
        out: The .safetensors file to write.
        class_names: A text file with the names of the classes, one on each line or separated by commas; BACKGROUND is
            left out. Without it, the names come from a labels.txt beside the source, if the source has none.
        size: The size of the network input in pixels, HEIGHTxWIDTH, for the Ultra-Light face detectors, whose file does
            not tell it: 480x640 for version-RFB-640.
        overwrite: Replace the file if it is there already.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"a weights file of multibox is called .safetensors, unlike {out}")
    if out.is_dir():
        raise UsageError(f"{out} is a folder; the second argument is the file to write")
    height, width = height_and_width(size)
    check_not_a_state(str(source))
    if source.is_dir():
        source = find_weights(source)  # the folder of a run, whose weights are multibox's own already
    check_new([out], overwrite=overwrite, read=[source, *([class_names] if class_names else [])])

    from multibox.detector import Detector
    from multibox.weights.converters.class_names import read_class_names

    names = None if class_names is None else read_class_names(class_names)
    try:
        with show_log():
            detector = Detector.convert(source, names, height=height, width=width)
    except ValueError as error:
        raise ValueError(name_flag(error, {"class_names"})) from error
    out.parent.mkdir(parents=True, exist_ok=True)
    detector.save(out)
    stdout().print(f"{source}: {detector.provenance.get('converted from', 'converted')}")
    stdout().print("\n".join(_rules(detector.config)))
    if size is None and detector.config.backbone.startswith("ultra-light"):
        stdout().print("size: not told by the file; version-RFB-640 and version-slim-640 need --size 480x640")
    stdout().print("\n".join(_classes(detector, class_names)))
    for note in ("state dict", "left out"):
        if note in detector.provenance:
            stdout().print(f"{note}: {detector.provenance[note]}")
    stdout().print(f"written to {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


def _classes(detector: "multibox.detector.Detector", file: Path | None) -> list[str]:
    """Returns the class names and where they are from, and what to do if the file has none."""
    names = ", ".join(detector.class_names[:8]) + (", ..." if len(detector.class_names) > 8 else "")
    origin = detector.provenance.get("class names", "the project's own")
    lines = [f"classes: {len(detector.class_names)}, {names} ({file or origin})"]
    if detector.class_names[0] == "class 1":
        lines.append("the file has no class names; --class-names FILE gives them, or a labels.txt beside it")
    return lines


def _rules(config: "multibox.config.DetectorConfig") -> list[str]:
    """Returns a description of the rules that come with the weights, one rule on each line."""
    chosen = config.postprocess
    largest = "" if config.max_log_size is None else f", sizes up to exp({config.max_log_size:.3f}) times"
    stored = ", stored in the file" if config.stored_default_boxes else ""
    return [
        f"network: {config.name}, backbone {config.backbone}",
        f"input: {config.height} x {config.width}, {_RESIZE[config.resize]}; "
        f"less {_numbers(config.mean)}, divided by {_numbers(config.scale)}",
        f"default boxes: {config.num_default_boxes:,}, {_CLIPPED[config.clip_default_boxes]}{stored}",
        f"offsets: variances {config.center_variance:g} and {config.size_variance:g}{largest}; boxes are clipped to "
        f"the image {'before' if config.clip_boxes else 'after'} suppression",
        f"scores: {config.scoring}",
        f"postprocessing: scores above {chosen.score_threshold:g}, "
        f"suppression {'across classes' if chosen.class_agnostic else 'by class'} at an overlap of "
        f"{chosen.iou_threshold:g}, {chosen.max_candidates_per_class} of a class go in, "
        f"{chosen.max_detections} are kept",
    ]


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
