"""multibox train"""

import dataclasses
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from cyclopts import Parameter

from multibox.checks import checked_values
from multibox.cli.terminal import (
    OnProblem,
    UsageError,
    check_device,
    check_output,
    choose_split,
    count,
    fetch_bar,
    fetch_weights,
    log_lines,
    read_splits,
    say,
    training_bar,
    usual_split,
)
from multibox.training.recipes import TrainConfig
from multibox.weights.published import find_weights, is_weights

if TYPE_CHECKING:
    from multibox.config import DetectorConfig, Scales
    from multibox.data import DatasetReader

ScalesName = Literal["voc", "coco"]
StartFrom = Literal["imagenet"]

NOTES: dict[str, Any] = {
    "model": str,
    "size": str,
    "scales": ScalesName | None,
    "start_from": StartFrom | None,
    "train_split": str,
    "val_split": str,
}
"""What a `config.yaml` holds beside the values of `TrainConfig`."""

# a flag for each value of TrainConfig; without a value of its own it is not given, and --config may have it
_Flags = dataclasses.make_dataclass(
    "_Flags", [(name, kind | None, None) for name, kind in get_type_hints(TrainConfig).items()], kw_only=True
)
_Flags.__doc__, _Flags.__module__ = TrainConfig.__doc__, __name__


def train(
    data: list[Path],
    *,
    model: str | None = None,
    out: Path,
    train_split: str | None = None,
    val_split: str | None = None,
    size: str | None = None,
    scales: ScalesName | None = None,
    start_from: StartFrom | None = None,
    flags: Annotated[_Flags | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
    config: Path | None = None,
    resume: bool = False,
    on_problem: OnProblem = "skip",
) -> int:
    """Train a detector on a data set of your own.

    Args:
        data: The folder of the data set, in the layout of VOC, COCO or YOLO; several of the same classes are joined.
        model: A preset or timm/NAME to start anew (multibox models lists them), or weights to go on from; may stand in
            --config.
        out: The folder of the run: weights, metrics, curves, images.
        train_split: To learn from; by default train, or trainval, or the only one.
        val_split: To validate on; by default val, where there is one; 'none' for no validation.
        size: Of a preset's input in pixels, HEIGHTxWIDTH (240x320), or one number for both; by default its own.
        scales: Sizes of a preset's default boxes, as for VOC, or for COCO's smaller objects.
        start_from: Weights for a preset's backbone, fetched if need be; by default they are random.
        flags: Values of the run.
        config: A YAML file with these values under the same names, as config.yaml of another run; flags win over it,
            and of its size, scales and start_from none is taken where the model is weights.
        resume: Go on with the run in --out; begin where it saved nothing yet.
        on_problem: What to do about bad records: skip lists them and goes on, error stops.
    """
    given: dict[str, Any] = {
        "model": model,
        "size": size,
        "scales": scales,
        "start_from": start_from,
        "train_split": train_split,
        "val_split": val_split,
        **(vars(flags) if flags else {}),
    }
    values = {name: value for name, value in given.items() if value is not None}
    values = (_read_config(config) if config else {}) | values
    model, size, scales, start_from, train_split, val_split = (values.pop(name, None) for name in NOTES)
    if model is None:
        raise UsageError("which detector is to learn? give --model, or a --config that names one")
    if is_weights(model):
        of_presets = {"size": "an input size", "scales": "default boxes", "start_from": "weights"}
        for name, what in of_presets.items():
            if given[name] is not None:
                raise UsageError(f"--{name.replace('_', '-')} is for presets; {model} has {what} of its own")
        left_out = [name for name, value in zip(of_presets, (size, scales, start_from), strict=True) if value]
        if left_out:
            say(f"not taken from {config}, as {model} has its own: {', '.join(left_out)}")
        size = scales = start_from = new = None
    else:
        new = _new_config(model, size, scales)
    source = None if new is None or start_from is None else _start_source(new.backbone)

    from multibox.data import DatasetReader
    from multibox.data.check import find_shared_images

    reader = DatasetReader(data)
    learn_name = choose_split(reader, train_split, ["train", "trainval"], "--train-split")
    check_name = None if val_split == "none" else _val_split(reader, val_split)

    from multibox.data.sample import compare_classes
    from multibox.detector import Detector
    from multibox.training import train as run

    try:
        train_config = TrainConfig(**values)
    except ValueError as error:
        raise UsageError(str(error)) from error
    check_device(train_config.device)
    check_output(out)
    train_set, *others = read_splits(reader, [learn_name, *([check_name] if check_name else [])], on_problem)
    val_set = others[0] if others else None
    say(
        f"{count(len(train_set), 'image')} to learn from ({learn_name}), "
        + (
            f"{len(val_set)} to validate on ({check_name})"
            if val_set
            else "none to validate on: the last weights are kept"
        )
    )
    if not train_set.class_names:
        raise ValueError(f"no image of {train_set.name} has an object: there is nothing to learn")
    if val_set is not None:
        difference = compare_classes(learn_name, train_set.class_names, str(check_name), val_set.class_names)
        if difference:
            raise ValueError(
                f"the splits to learn from and to validate on do not have the same classes: {difference}; give both "
                "the same list of classes, in the same order, or --val-split none"
            )
        shared = len(find_shared_images(train_set, val_set))
        if shared:
            say(f"{shared} of those to validate on are learned from as well: their scores will be too good")
    if new is None:
        fetch_weights(model)
        before = Detector.load(model)
        kept = [name for name in train_set.class_names if name in before.class_names]
        say(f"{model}: {len(kept)} of {len(train_set.class_names)} classes are kept: {', '.join(kept) or 'none'}")
        detector = before.with_classes(train_set.class_names, seed=train_config.seed)
    else:
        if source:
            say(f"the backbone starts from {source}")
        with fetch_bar() as show_fetched:
            detector = Detector.create(
                new, train_set.class_names, start_from=start_from, seed=train_config.seed, on_progress=show_fetched
            )
    notes: dict[str, Any] = {
        "model": model,
        "size": size,
        "scales": scales,
        "start_from": start_from,
        "train_split": learn_name,
        "val_split": check_name or "none",
    }
    notes = {name: value for name, value in notes.items() if value is not None}
    with log_lines(), training_bar() as show:
        try:
            run(
                detector,
                train_set,
                val_set,
                train_config,
                out=out,
                resume=resume,
                on_progress=show,
                notes=notes,
                data=[str(each) for each in data],
            )
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(f"{error}; to go on:\n{_resume_command()}" if str(error) else "") from error
        except RuntimeError as error:
            raise OSError(_too_little_memory(error)) from error
    say(f"written to {out}: best.safetensors, last.safetensors, metrics.csv, card.md, curves.png, validation.jpg")
    return 0


def _val_split(reader: "DatasetReader", wanted: str | None) -> str | None:
    """The split that is wanted, or the usual one where it is there."""
    if wanted is not None:
        return choose_split(reader, wanted, [], "--val-split")
    return usual_split(reader.splits, ["val", "valid"])


def _start_source(backbone: str) -> str:
    """Which weights this backbone would start from, and their license.

    Raises:
        UsageError: There are none for it.
    """
    from multibox.weights.imagenet import describe_weights

    try:
        return describe_weights(backbone)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _read_config(path: Path) -> dict[str, Any]:
    """The values of a `config.yaml`.

    Raises:
        UsageError: It is no YAML mapping, or has names or kinds of values that no run has.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not YAML ({error})") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: must hold lines of 'name: value'")
    try:
        return checked_values(values, get_type_hints(TrainConfig) | NOTES, owner="a run")
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def _resume_command() -> str:
    """This very command, to go on where it stopped."""
    environment, arguments = os.environ, sys.argv[1:]
    command = ["multibox"]
    if "TORCHELASTIC_RUN_ID" in environment:
        size, local = (int(environment[name]) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        nodes = ["--nnodes", str(size // local), "..."] if size > local else []
        command = ["torchrun", *nodes, "--nproc-per-node", str(local), "-m", "multibox"]
    return shlex.join([*command, *arguments, *(["--resume"] if "--resume" not in arguments else [])])


def _new_config(model: str, size: str | None, scales: "Scales | None") -> "DetectorConfig":
    """The config of a preset, or of a backbone of timm, for an input of that size.

    Raises:
        FileNotFoundError: The model looks like a file, and there is none.
        UsageError: There is no such preset or backbone, or it takes no such input.
    """
    from multibox.presets import preset

    height, width = _height_and_width(size)
    try:
        if model.startswith("timm/"):
            from multibox.ssd.build import timm_config

            return timm_config(model, scales=scales, height=height, width=width)
        if Path(model).suffix or "/" in model or Path(model).is_dir():
            find_weights(model)  # says that there is no such file
        return preset(model, scales=scales, height=height, width=width)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _too_little_memory(error: RuntimeError) -> str:
    """What to do where torch has not got the memory, which it says by errors of no kind of their own.

    Raises:
        RuntimeError: That is not what the error is about.
    """
    first = str(error).strip().partition("\n")[0]
    if "out of memory" in first or "can't allocate memory" in first:
        return f"there is not enough memory; a smaller --batch-size needs less ({first})"
    if first.startswith("DataLoader worker"):
        return (
            "a process that reads images was killed, as happens where memory runs out; fewer --workers, or a smaller "
            f"--batch-size, need less ({first})"
        )
    raise error


def _height_and_width(size: str | None) -> tuple[int | None, int | None]:
    if size is None:
        return None, None
    parts = re.fullmatch(r"(\d{1,9})(?:[xX\u00d7](\d{1,9}))?", size.strip(), re.ASCII)
    if parts is None:
        raise UsageError(f"--size takes HEIGHTxWIDTH in pixels, such as 240x320, or one number for both, not '{size}'")
    return int(parts[1]), int(parts[2] or parts[1])
