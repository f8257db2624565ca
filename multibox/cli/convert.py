"""The command `multibox convert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from multibox.cli.arguments import MODEL, OUTPUT, Overwrite, UsageError, check_not_a_state, height_and_width
from multibox.cli.output import check_new
from multibox.cli.terminal import stdout
from multibox.weights.published import find_weights

if TYPE_CHECKING:
    import multibox.config

_RESIZE = {
    "bilinear": "bilinear",
    "antialias": "bilinear with antialiasing",
    "float": "bilinear, not rounded to whole numbers",
}
_CLIPPED = {"none": "not clipped", "size": "width and height clipped", "all": "all four numbers clipped"}


def convert(
    source: Path,
    out: Annotated[Path, Parameter(group=OUTPUT)],
    /,
    *,
    size: Annotated[str | None, Parameter(group=MODEL, show_default="240x320")] = None,
    overwrite: Overwrite = False,
) -> int:
    """Convert a weights file of another project to multibox's format.

    Args:
        source: The file to convert. Its contents tell which project it is from. No code in the file is run.
        out: The .safetensors file to write.
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
    check_new([out], overwrite=overwrite, read=[source])

    from multibox.detector import Detector

    detector = Detector.convert(source, height=height, width=width)
    out.parent.mkdir(parents=True, exist_ok=True)
    detector.save(out)
    stdout().print(f"{source}: {detector.provenance.get('converted from', 'converted')}")
    stdout().print("\n".join(_rules(detector.config)))
    if size is None and detector.config.backbone.startswith("ultra-light"):
        stdout().print("size: not told by the file; version-RFB-640 and version-slim-640 need --size 480x640")
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
