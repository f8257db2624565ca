"""The command `multibox convert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from multibox.cli.arguments import OUTPUT, Overwrite, UsageError, check_not_a_state
from multibox.cli.output import check_new
from multibox.cli.terminal import stdout

if TYPE_CHECKING:
    import multibox.config

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


def convert(source: Path, out: Annotated[Path, Parameter(group=OUTPUT)], /, *, overwrite: Overwrite = False) -> int:
    """Convert a weights file of another project to multibox's format.

    Args:
        source: The file to convert. Its contents tell which project it is from. No code in the file is run.
        out: The .safetensors file to write.
        overwrite: Replace the file if it is there already.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"a weights file of multibox is called .safetensors, unlike {out}")
    if out.is_dir():
        raise UsageError(f"{out} is a folder; the second argument is the file to write")
    check_not_a_state(str(source))
    check_new([out], overwrite=overwrite, read=[source])

    from multibox.detector import Detector

    detector = Detector.convert(source)
    out.parent.mkdir(parents=True, exist_ok=True)
    detector.save(out)
    stdout().print(f"{source}: {detector.provenance.get('converted from', 'converted')}")
    stdout().print("\n".join(_rules(detector.config)))
    names = ", ".join(detector.class_names[:8]) + (", ..." if len(detector.class_names) > 8 else "")
    stdout().print(f"classes: {len(detector.class_names)}, {names}")
    stdout().print(f"written to {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


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
