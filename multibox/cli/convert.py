"""multibox convert"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from multibox.cli.terminal import UsageError, check_output, stdout

if TYPE_CHECKING:
    import multibox.config


def convert(source: Path, out: Path, /) -> int:
    """Make a weights file of another project one of multibox's.

    Args:
        source: The file; which project it is of shows in it. No code in it is run.
        out: The .safetensors file to write; one of that name is replaced.
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"a weights file of multibox is called .safetensors, unlike {out}")
    if out.is_dir():
        raise UsageError(f"{out} is a folder; the second argument is the file to write")
    if out.exists() and source.exists() and os.path.samefile(source, out):
        raise UsageError(f"{out} is the file that is read; choose another name for what is written")

    from multibox.detector import Detector

    detector = Detector.convert(source)
    check_output(out.parent)
    detector.save(out)
    stdout().print(f"{source}: {detector.provenance.get('converted from', 'converted')}")
    stdout().print("\n".join(_rules(detector.config)))
    names = ", ".join(detector.class_names[:8]) + (", ..." if len(detector.class_names) > 8 else "")
    stdout().print(f"classes: {len(detector.class_names)}, {names}")
    stdout().print(f"written to {out} ({out.stat().st_size / 1e6:.1f} MB)")
    return 0


def _rules(config: "multibox.config.DetectorConfig") -> list[str]:
    """The rules that come with the weights, in words."""
    resize = {
        "bilinear": "bilinear",
        "antialias": "bilinear with antialiasing",
        "float": "bilinear, not rounded to whole numbers",
    }
    clipped = {"none": "not clipped", "size": "width and height clipped", "all": "all four numbers clipped"}
    chosen = config.postprocess
    largest = "" if config.max_log_size is None else f", sizes up to exp({config.max_log_size:.3f}) times"
    rules = [
        f"network: {config.name}, backbone {config.backbone}",
        f"input: {config.height} x {config.width}, {resize[config.resize]}; "
        f"less {_numbers(config.mean)}, divided by {_numbers(config.scale)}",
        f"default boxes: {config.num_default_boxes:,}, {clipped[config.clip_default_boxes]}"
        + (", stored in the file" if config.stored_default_boxes else ""),
        f"offsets: variances {config.center_variance:g} and {config.size_variance:g}{largest}; boxes are clipped to "
        f"the image {'before' if config.clip_boxes else 'after'} suppression",
        f"scores: {config.scoring}",
        f"postprocessing: scores above {chosen.score_threshold:g}, "
        f"suppression {'across classes' if chosen.class_agnostic else 'by class'} at an overlap of "
        f"{chosen.iou_threshold:g}, {chosen.max_candidates_per_class} of a class go in, "
        f"{chosen.max_detections} are kept",
    ]
    return rules


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.4g}" for value in values)
