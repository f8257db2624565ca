"""The command `multibox export`."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from multibox.cli.arguments import DATA, MODEL, OUTPUT, Count, Fraction, Overwrite, UsageError, fetch_weights
from multibox.cli.output import check_new
from multibox.cli.terminal import show_log, stdout

if TYPE_CHECKING:
    from multibox.data import Dataset, Sample

MOST_IMAGES, CALIBRATION_IMAGES = 50, 300
"""Number of images of a data set that the file is compared on, and that 8 bits are calibrated on."""


def export(
    model: str,
    out: Annotated[Path, Parameter(group=OUTPUT)],
    /,
    *,
    nms: Annotated[
        Literal["graph", "runtime", "none"] | None,
        Parameter(group=MODEL, show_default="graph, but runtime for .tflite"),
    ] = None,
    raw: Annotated[bool, Parameter(group=MODEL, negative="", show_default=False)] = False,
    batch: Annotated[Count | None, Parameter(group=MODEL, show_default="any number, but 1 for .tflite")] = None,
    home: Annotated[
        Literal["frigate", "model-api", "jetson", "opencv", "mediapipe"] | None, Parameter(name="--for", group=MODEL)
    ] = None,
    data: Annotated[Path | None, Parameter(group=DATA, show_default="synthetic scenes")] = None,
    judge_split: Annotated[str | None, Parameter(group=DATA, show_default="val, or test if there is no val")] = None,
    calibrate_split: Annotated[str | None, Parameter(group=DATA, show_default="train")] = None,
    int8: Annotated[bool, Parameter(group=MODEL, negative="", show_default=False)] = False,
    max_drop: Annotated[Fraction, Parameter(group=MODEL)] = 0.005,
    overwrite: Overwrite = False,
) -> int:
    """Write a detector as one file for other engines.

    The file is compared with the network before it is written: it must find the same objects.

    Args:
        model: A weights file, the folder of a run for its best weights, or the name of published weights ('multibox
            models' lists them).
        out: The file to write. Its suffix says the kind: .onnx, .tflite, or .xml for OpenVINO.
        nms: Where suppression happens: in the file; in the runtime, from the boxes and scores of all default boxes; or
            there from raw outputs. What 'multibox detect' and 'multibox.load' find is the same.
        raw: Let the file give the raw offsets and logits as well.
        batch: The number of images that the file takes at once.
        home: The program that shall run the file, which then has that program's form. The lines to paste into its
            configuration are printed.
        data: The folder of a data set on whose images the file is compared with the network.
        judge_split: The split with these images, by which 8 bits are judged too.
        calibrate_split: The split to calibrate 8 bits on, which tell the ranges of the activations.
        int8: Compute the network in 8 bits, which is several times faster on many processors. Needs --data.
        max_drop: The largest fall of AP50 with which a file in 8 bits is written.
        overwrite: Replace the file if it is there already.
    """
    if int8 and data is None:
        raise UsageError("--int8 needs --data: images to calibrate on, and others to judge the file by")
    weights = fetch_weights(model)
    check_new([out], overwrite=overwrite, read=[weights, *([data] if data else [])])

    from multibox.deploy.export import Int8
    from multibox.deploy.export import export as run
    from multibox.detector import Detector

    detector = Detector.load(model)
    images, eight_bits = None, None
    if data is not None:
        from multibox.cli.data import choose_split, read_splits
        from multibox.data import DatasetReader
        from multibox.data.read import EVALUATION_SPLITS

        reader = DatasetReader(data)
        judged = choose_split(reader, judge_split, EVALUATION_SPLITS, "--judge-split")
        names = [judged]
        if int8:
            names.append(choose_split(reader, calibrate_split, ("train", "trainval"), "--calibrate-split"))
        sets = [each.with_classes(detector.class_names) for each in read_splits(reader, names, "skip")]
        images = [sample.open() for sample in some(sets[0], MOST_IMAGES)]
        if int8:
            calibrate = dataclasses.replace(sets[1], samples=some(sets[1], CALIBRATION_IMAGES))
            eight_bits = Int8(calibrate, sets[0], max_drop)
    out.parent.mkdir(parents=True, exist_ok=True)
    with show_log():
        exported = run(detector, out, suppression=nms, raw=raw, batch=batch, home=home, images=images, int8=eight_bits)
    stdout().print(f"compared with the network: {exported.proof}")
    if exported.int8 is not None:
        stdout().print(f"judged on {judged}, {exported.int8.images} images:")
        stdout().print("\n".join(exported.int8.lines()))
    stdout().print(f"written to {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if home is not None:
        from multibox.deploy.homes import home_of, tflite_home_of
        from multibox.weights.exported import read_header

        header = read_header(out)
        config = header.config
        chosen = tflite_home_of(home) if out.suffix == ".tflite" else home_of(home, out.suffix)
        stdout().print(f"\nfor {chosen.title}:\n")
        stdout().print(chosen.advice(out, header.class_names, config.height, config.width))
    return 0


def some(dataset: "Dataset", most: int) -> list["Sample"]:
    """Returns at most so many samples, evenly spaced."""
    count = min(most, len(dataset))
    return [dataset[number * len(dataset) // count] for number in range(count)]
