"""The command `multibox export`."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from multibox.cli.arguments import DATA, MODEL, OUTPUT, Count, Fraction, Overwrite, UsageError, fetch_weights
from multibox.cli.output import check_empty, check_new
from multibox.cli.terminal import show_log, stdout
from multibox.messages import counted

if TYPE_CHECKING:
    from multibox.data import Dataset, Sample
    from multibox.deploy.export import Exported
    from multibox.detector import Detector

MOST_IMAGES, CALIBRATION_IMAGES = 50, 300
"""Number of images of a data set that the file is compared on, and that 8 bits are calibrated on."""


def export(
    model: str,
    out: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    /,
    *,
    web: Annotated[Path | None, Parameter(group=OUTPUT)] = None,
    nms: Annotated[
        Literal["graph", "runtime", "none"] | None,
        Parameter(group=MODEL, show_default="graph, but runtime for .tflite and .pte"),
    ] = None,
    raw: Annotated[bool, Parameter(group=MODEL, negative="", show_default=False)] = False,
    batch: Annotated[Count | None, Parameter(group=MODEL, show_default="any, but 1 for .tflite and .pte")] = None,
    prepare: Annotated[bool, Parameter(group=MODEL, negative="", show_default=False)] = False,
    home: Annotated[
        Literal["frigate", "model-api", "jetson", "opencv", "mediapipe"] | None, Parameter(name="--for", group=MODEL)
    ] = None,
    data: Annotated[Path | None, Parameter(group=DATA, show_default="synthetic scenes")] = None,
    judge_split: Annotated[str | None, Parameter(group=DATA, show_default="val, or test if there is no val")] = None,
    calibrate_split: Annotated[str | None, Parameter(group=DATA, show_default="train")] = None,
    int8: Annotated[bool, Parameter(group=MODEL, negative="", show_default=False)] = False,
    max_drop: Annotated[Fraction | None, Parameter(group=MODEL, show_default="0.005")] = None,
    overwrite: Overwrite = False,
) -> int:
    """Write a detector as one file for other engines.

    The file is compared with the network before it is written: it must find the same objects.

    Args:
        model: A weights file, the folder of a run for its best weights, or the name of published weights ('multibox
            models' lists them).
        out: The file to write. Its suffix says the kind: .onnx, .tflite, .xml for OpenVINO, or .pte for ExecuTorch.
        web: Write a web page that runs the detector in a browser to this new folder, with the file or instead of it.
        nms: Where suppression happens: in the file; in the runtime, from the boxes and scores of all default boxes; or
            there from raw outputs. What 'multibox detect' and 'multibox.load' find is the same.
        raw: Let the file give the raw offsets and logits as well.
        batch: The number of images that the file takes at once.
        prepare: Put the resize into the file, which then takes one whole image of any size, plain RGB in uint8.
        home: The program that shall run the file, which then has that program's form. The lines to paste into its
            configuration are printed.
        data: The folder of a data set on whose images the file is compared with the network. Without --int8 they may
            have other classes.
        judge_split: The split with these images, by which 8 bits are judged too. If the set has no such split, these
            are the images that the training held out.
        calibrate_split: The split to calibrate 8 bits on, which tell the ranges of the activations.
        int8: Compute the network in 8 bits, which is several times faster on many processors. Needs --data.
        max_drop: The largest fall of AP50 with which a file in 8 bits is written.
        overwrite: Replace the file if it is there already.
    """
    if int8 and data is None:
        raise UsageError("--int8 needs --data: images to calibrate on, and others to judge the file by")
    if judge_split is not None and data is None:
        raise UsageError("--judge-split is a split of --data, which is missing")
    for flag, value in {"--calibrate-split": calibrate_split, "--max-drop": max_drop}.items():
        if value is not None and not int8:
            raise UsageError(f"{flag} is for 8 bits: add --int8, or leave it out")
    if out is None:
        _check_page_alone(web, {"nms": nms, "raw": raw, "batch": batch, "prepare": prepare, "for": home})

    from multibox.deploy.export import Int8, choose_form
    from multibox.deploy.export import export as run
    from multibox.weights.exported import is_exported

    if out is not None:
        try:
            choose_form(out, suppression=nms, raw=raw, batch=batch, prepare=prepare, home=home, int8=int8)
        except ValueError as error:
            raise UsageError(str(error)) from error
    weights = fetch_weights(model)
    if is_exported(weights):
        raise UsageError(
            f"{model} is an exported file, without the network; give the .safetensors file that it is from"
        )
    if out is not None:
        check_new(_files(out, home), overwrite=overwrite, read=[weights, *([data] if data else [])])
    if web is not None:
        _check_page(web, overwrite=overwrite)

    from multibox.detector import Detector

    detector = Detector.load(model)
    images, eight_bits, judged_on = None, None, ""
    if data is not None:
        judged, calibrate = _read_images(data, detector, judge_split, calibrate_split, int8=int8)
        images = [sample.image for sample in some(judged, MOST_IMAGES)]
        if calibrate is not None:
            eight_bits = Int8(calibrate, judged, **({} if max_drop is None else {"max_drop": max_drop}))
            judged_on = f"judged on {counted(len(judged), 'image')} of {judged.name}:"
    if web is not None:
        from multibox.deploy.web_page import write_page

        with show_log():
            _report(write_page(detector, web, images=images, int8=eight_bits), judged_on)
        stdout().print(f"written to {web} ({_size(web)}); to see it, run\n\n    python -m http.server -d {web} 8000\n")
        stdout().print("and open http://localhost:8000")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        with show_log():
            exported = run(
                detector,
                out,
                suppression=nms,
                raw=raw,
                batch=batch,
                prepare=prepare,
                home=home,
                images=images,
                int8=eight_bits,
            )
        _report(exported, judged_on)
        stdout().print(f"written to {out} ({_size(out)})")
        if home is not None:
            _advise(out, home, detector)
    return 0


def _read_images(
    data: Path, detector: "Detector", judge_split: str | None, calibrate_split: str | None, *, int8: bool
) -> "tuple[Dataset, Dataset | None]":
    """Reads the images that a file is compared and judged on, and those that 8 bits are calibrated on.

    Where the training held out images of a split, they are those that judge, and the others of the split calibrate.

    Raises:
        ValueError: A split cannot be read or has no images; or, with 8 bits, has classes that the detector has not.
    """
    from multibox.cli.data import choose_split, read_splits
    from multibox.data import DatasetReader
    from multibox.data.holdout import Holdout
    from multibox.data.read import EVALUATION_SPLITS

    def check(dataset: "Dataset") -> None:
        if int8:  # otherwise only the images are needed
            dataset.with_classes(detector.class_names)

    reader = DatasetReader(data)
    holdout = Holdout.from_provenance(detector.provenance)
    part = holdout.find(reader.splits, judge_split) if holdout else None
    if holdout and part:
        names = [holdout.split]
    else:
        names = [choose_split(reader, judge_split, EVALUATION_SPLITS, "--judge-split")]
    if int8:
        names.append(choose_split(reader, calibrate_split, ("train", "trainval"), "--calibrate-split"))
    distinct = list(dict.fromkeys(names))
    sets = dict(zip(distinct, read_splits(reader, distinct, "skip", check=check), strict=True))
    judged, calibrate = sets[names[0]], sets[names[-1]] if int8 else None
    if holdout and part:
        parts = holdout.divide(judged)
        judged = parts[part]
        if int8 and calibrate_split is None and len(sets) == 1:
            calibrate = parts["train"]
    if calibrate is None:
        return judged, None
    calibrate = dataclasses.replace(calibrate, samples=some(calibrate, CALIBRATION_IMAGES))
    return judged.with_classes(detector.class_names), calibrate


def _files(out: Path, home: str | None) -> list[Path]:
    """Returns the file and what comes with it: the weights of an OpenVINO file, the class names for a program."""
    from multibox.deploy.homes import labels_file
    from multibox.deploy.kinds import files_of

    return [*files_of(out), *([labels_file(out)] if home else [])]


def _check_page_alone(web: Path | None, of_file: Mapping[str, object]) -> None:
    """Checks what the command writes if it names no file.

    Raises:
        UsageError: There is no page either, or a flag is given that is for a file.
    """
    if web is None:
        raise UsageError("name the file to write, such as detector.onnx; or a folder for a web page: --web DIR")
    for name, value in of_file.items():
        if value:
            raise UsageError(f"--{name} is for a file, and the page has its own form; name a file too, or leave it out")


def _check_page(folder: Path, *, overwrite: bool) -> None:
    """Checks that a page can be written to the folder.

    Raises:
        FileExistsError: Something is in the folder that no page of an earlier call is to be replaced by.
        OSError: The folder cannot be made or written to, or the engine of the page cannot be fetched.
    """
    from multibox.deploy.web_page import find_engine

    if not (overwrite and (folder / "detector.json").is_file()):
        check_empty(folder, by="multibox export --web" if overwrite else None)
    find_engine()


def _report(exported: "Exported", judged_on: str) -> None:
    stdout().print(f"compared with the network: {exported.proof}")
    if exported.int8 is not None:
        stdout().print(judged_on)
        stdout().print("\n".join(exported.int8.lines()))


def _advise(file: Path, home: str, detector: "Detector") -> None:
    """Prints what to write into the configuration of the program that shall run the file."""
    from multibox.deploy.homes import home_of, tflite_home_of

    chosen = tflite_home_of(home) if file.suffix == ".tflite" else home_of(home, file.suffix)
    stdout().print(f"\nfor {chosen.title}:\n")
    stdout().print(chosen.advice(file, detector.class_names, detector.config.height, detector.config.width))


def _size(path: Path) -> str:
    """Returns the size of a file, with those that belong to it, or of all files in a folder."""
    from multibox.deploy.kinds import files_of

    files = path.rglob("*") if path.is_dir() else files_of(path)
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


def some(dataset: "Dataset", most: int) -> list["Sample"]:
    """Returns at most so many samples, evenly spaced."""
    count = min(most, len(dataset))
    return [dataset[number * len(dataset) // count] for number in range(count)]
