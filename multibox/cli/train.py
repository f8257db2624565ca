"""The command `multibox train`."""

import dataclasses
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

from cyclopts import Parameter

from multibox.cli.arguments import (
    DATA,
    LENGTH,
    MACHINE,
    MODEL,
    OPTIMIZATION,
    OUTPUT,
    VAL_FRACTION,
    Fraction,
    OnProblem,
    ScalesName,
    Unlabelled,
    UsageError,
    check_not_a_state,
    choose_device,
    class_weights,
    fetch_weights,
    name_flag,
    new_network,
    whole_number,
)
from multibox.cli.data import choose_split, choose_val_split, percent, read_splits
from multibox.cli.output import check_empty, check_folder
from multibox.cli.run_config import NOTES, read_config, read_resumed
from multibox.cli.terminal import download_bar, info, show_log, training_bar
from multibox.messages import counted
from multibox.training.recipes import TrainConfig
from multibox.weights.published import is_config, is_weights

if TYPE_CHECKING:
    from multibox.config import DetectorConfig
    from multibox.data import Dataset, DatasetReader
    from multibox.data.holdout import Holdout
    from multibox.detector import Detector
    from multibox.weights.file import Weights

ExportKind = Literal["onnx", "openvino", "tflite", "executorch"]

EXPORT_SUFFIXES: Mapping[ExportKind, str] = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "tflite": ".tflite",
    "executorch": ".pte",
}
"""Suffixes of the files that a detector can be exported as, by the name of their kind."""

GROUPS = {
    LENGTH: ("epochs", "steps", "minutes", "patience", "validate_every"),
    MODEL: ("freeze", "freeze_stride", "freeze_batch_norm", "backbone_lr_factor"),
    DATA: ("expand_probability", "balance_classes", "max_unreadable"),
    OUTPUT: ("keep_weights", "report", "checkpoint_minutes", "trackers"),
    MACHINE: ("precision", "compile", "sync_batch_norm", "workers", "device", "seed"),
}
"""Values of `TrainConfig` by their group in the help. All others are in the group Optimization."""

_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names}


def _flag(field: dataclasses.Field[Any], hint: Any) -> tuple[str, Any, None]:
    """Returns a field for the flag of one value of a run. It is None unless the flag is given."""
    kinds = [get_origin(kind) for kind in (hint, *get_args(hint))]
    is_list, is_mapping = Sequence in kinds, Mapping in kinds
    shown = f"{field.default:g}" if type(field.default) in (int, float) else None
    parameter = Parameter(
        group=_GROUP_OF.get(field.name, OPTIMIZATION),
        negative="" if is_list or is_mapping else None,
        show_default=shown,
        converter=class_weights if is_mapping else whole_number if int in (hint, *get_args(hint)) else None,
        n_tokens=1 if is_mapping else None,
        accepts_keys=False if is_mapping else None,
    )
    return field.name, Annotated[(str if is_mapping else hint) | None, parameter], None


_HINTS = get_type_hints(TrainConfig)
_Flags = dataclasses.make_dataclass(
    "_Flags", [_flag(field, _HINTS[field.name]) for field in dataclasses.fields(TrainConfig)], kw_only=True
)
_Flags.__doc__, _Flags.__module__ = TrainConfig.__doc__, __name__


@dataclasses.dataclass(frozen=True)
class Plan:
    """The run that a command line asks for, with the values of `--config` or of the run that is resumed.

    Attributes:
        data: The folders of the data set.
        model: A preset, a backbone of timm, the file of a config, or weights.
        network: The network of all but weights, which have their own.
        notes: The values of `run_config.NOTES` that are set.
        config: All other values of the run.
        out: The folder of the run.
        resume: Whether to go on with the run in the folder.
        begun: The run's own weights, without tensors, if it goes on and its network came from other files.
        holdout: What the run holds out of the split to learn from; known once the data's splits are.
    """

    data: list[Path]
    model: str
    network: "DetectorConfig | None"
    notes: dict[str, Any]
    config: TrainConfig
    out: Path
    resume: bool
    begun: "Weights | None" = None
    holdout: "Holdout | None" = None


def train(
    data: Annotated[list[Path] | None, Parameter(group=DATA, negative="")] = None,
    /,
    *,
    model: Annotated[str | None, Parameter(group=MODEL)] = None,
    out: Annotated[Path | None, Parameter(group=OUTPUT, show_default="runs/DATA-1, runs/DATA-2, ...")] = None,
    train_split: Annotated[
        str | None, Parameter(group=DATA, show_default="train, or trainval, or the only one")
    ] = None,
    val_split: Annotated[str | None, Parameter(group=DATA, show_default="val if there is one")] = None,
    val_fraction: Annotated[
        Fraction | None, Parameter(group=DATA, show_default=f"{VAL_FRACTION:g} if there is no validation split")
    ] = None,
    test_fraction: Annotated[Fraction | None, Parameter(group=DATA, show_default="0")] = None,
    size: Annotated[str | None, Parameter(group=MODEL, show_default="the preset's own")] = None,
    scales: Annotated[ScalesName | None, Parameter(group=MODEL)] = None,
    start_from: Annotated[str | None, Parameter(group=MODEL, show_default="random weights")] = None,
    teacher: Annotated[str | None, Parameter(group=MODEL)] = None,
    flags: Annotated[_Flags | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
    config: Annotated[Path | None, Parameter(group=DATA)] = None,
    resume: Annotated[list[Path] | None, Parameter(group=OUTPUT, negative="", consume_multiple=(0, 1))] = None,
    on_problem: Annotated[OnProblem, Parameter(group=DATA)] = "skip",
    unlabelled: Unlabelled = None,
    export_check: Annotated[ExportKind | None, Parameter(group=OUTPUT)] = None,
) -> int:
    """Train a detector on a data set of your own.

    Args:
        data: The folder of the data set: VOC XML, COCO or labelme JSON, or YOLO text. Several folders of the same
            classes are joined.
        model: A preset or timm/NAME to train a new detector ('multibox models' lists them), the .json file of a config
            ('multibox coverage --fit' writes one), or weights to train on: a file, or the folder of a run for its best
            ones.
        out: Write the weights, metrics, curves and images of the run to this new folder.
        train_split: The split to learn from.
        val_split: The split to validate on; 'none' for no validation.
        val_fraction: Keep this fraction of the images that would be learned from for validation. A hash of their names
            chooses them, so that adding images moves none.
        test_fraction: Keep this fraction of the images as well, neither to learn from nor to validate on. 'multibox
            evaluate --split test' scores on them.
        size: The input size of a preset in pixels, HEIGHTxWIDTH (240x320) or one number for both.
        scales: The sizes of a preset's default boxes: for VOC, or for COCO's smaller objects.
        start_from: The weights that a preset's backbone starts from: 'imagenet', whose weights are downloaded unless a
            package carries them, or a file with the weights of a backbone.
        teacher: Learn the outputs of these weights as well, box for box: a file, the folder of a run, or a published
            name. They need the same classes and default boxes.
        flags: The values of the run.
        config: Take values that no flag gives from this YAML file, such as the config.yaml of another run. If the model
            is weights, the file's size, scales and start_from are not used.
        resume: Go on with the run in this folder, or in --out. The folder holds the data's paths, the model and all
            values; flags change them.
        on_problem: What to do about a bad record: 'skip' lists it and leaves it out, 'error' stops.
        unlabelled: What an image without a label file is: 'empty' takes it as one without objects, 'skip' leaves it
            out.
        export_check: Before training, try to export the detector as such a file, and stop if it cannot be.
    """
    given: dict[str, Any] = {
        "model": model,
        "size": size,
        "scales": scales,
        "start_from": start_from,
        "teacher": teacher,
        "train_split": train_split,
        "val_split": val_split,
        "val_fraction": val_fraction,
        "test_fraction": test_fraction,
        "unlabelled": unlabelled,
        **(vars(flags) if flags else {}),
    }
    from multibox.weights.file import load_weights

    plan = _make_plan(data or [], given, config, out, resume)
    _check_run_folder(plan)
    if plan.network is None:
        load_weights(fetch_weights(plan.model))  # wrong or damaged weights are reported before the data are read

    if "teacher" in plan.notes:
        try:
            load_weights(fetch_weights(plan.notes["teacher"]))
        except FileNotFoundError as error:
            raise FileNotFoundError(f"the teacher {error}") from error

    from multibox.data import DatasetReader

    reader = DatasetReader(plan.data, unlabelled=plan.notes.get("unlabelled"))
    plan = _choose_splits(plan, reader)

    import multibox.training.fit  # a missing package is reported before the data are read

    if export_check is not None:
        import multibox.deploy.export  # noqa: F401 - so is this one
    from multibox.training.distributed import join_processes

    # the processes of torchrun join once, for the checks of the data and the run: a second time could hang
    with join_processes(plan.config.device):
        train_set, val_set = _read_data(plan, reader, on_problem)
        detector = _make_detector(plan, train_set.class_names)
        if export_check is not None:
            _check_export(detector, export_check)
        _run(plan, detector, train_set, val_set)
    info(f"written to {plan.out}")
    return 0


def _make_plan(
    data: list[Path], given: dict[str, Any], config: Path | None, out: Path | None, resume: list[Path] | None
) -> Plan:
    """Puts the values of the flags, of `--config` and of a resumed run together, and checks all that needs no data.

    Raises:
        UsageError: Something is missing, contradicts something else, or is out of its range.
        FileNotFoundError: The model looks like a file, and there is none.
    """
    folder = _resumed_folder(out, resume)
    values = {}
    if folder and config is None and not (data and not (folder / "config.yaml").is_file()):
        values = read_resumed(folder, given | {"data": data or None})
    values |= read_config(config) if config else {}
    if given["val_split"] is not None and given["val_fraction"]:
        raise UsageError(
            f"--val-split {given['val_split']} and --val-fraction are two ways to validate; give one of them"
        )
    for flag, other in (("val_split", "val_fraction"), ("val_fraction", "val_split")):
        if given[flag] is not None:
            values.pop(other, None)
    values |= {name: value for name, value in given.items() if value is not None}
    if values.get("val_fraction", 0) + values.get("test_fraction", 0) >= 1:
        raise UsageError(
            "--val-fraction and --test-fraction leave no image to learn from; together they must be below 1"
        )
    notes = {name: values.pop(name) for name in NOTES if name in values}
    data = data or [Path(each) for each in notes.get("data", ())]
    if not data:
        raise UsageError(
            "name the folder of a data set; for example: multibox train raccoons/ --model ssd256-tiny --minutes 10"
        )
    model = notes.get("model")
    if model is None:
        raise UsageError(
            "which model? give a preset (--model ssd256-tiny) or weights (--model), or a --config that names one"
        )
    begun = None if folder is None else _begun(folder, notes, given)
    network, left_out = (begun.config, []) if begun else _network_of(model, notes, given)
    if left_out:
        info(f"not taken from {config}, because {model} has its own: {', '.join(left_out)}")
        notes = {name: value for name, value in notes.items() if name not in left_out}
    try:
        train_config = TrainConfig(**values)
    except ValueError as error:
        file = config or (folder / "config.yaml" if folder else None)
        by_flags = {name for name, value in given.items() if value is not None}
        raise UsageError(name_flag(error, by_flags, file)) from error
    if train_config.device is not None:
        choose_device(train_config.device)
    # absolute, so that the run can be resumed from another folder
    notes |= {"data": [os.path.abspath(each) for each in data]}
    if (is_config(model) or is_weights(model)) and Path(model).exists():
        notes |= {"model": os.path.abspath(model)}
    if notes.get("start_from") not in (None, "imagenet"):
        notes |= {"start_from": os.path.abspath(notes["start_from"])}
    if "teacher" in notes and Path(notes["teacher"]).exists():
        notes |= {"teacher": os.path.abspath(notes["teacher"])}
    place = folder or out or _new_run_folder(data)
    return Plan(data, model, network, notes, train_config, place, folder is not None, begun)


def _begun(folder: Path, notes: Mapping[str, Any], given: Mapping[str, Any]) -> "Weights | None":
    """Returns what the weights of a run that goes on say of its detector; the files that it was made from may be gone.

    None if it was made from no files, nothing is saved yet, or flags say what the detector is.
    """
    from multibox.weights.file import load_weights

    last = folder / "last.safetensors"
    named = any(given[name] is not None for name in ("model", "size", "scales", "start_from"))
    from_files = notes.get("start_from") is not None or is_config(notes["model"])
    if not from_files or named or not last.is_file():
        return None
    return load_weights(last)._replace(tensors={})


def _resumed_folder(out: Path | None, resume: list[Path] | None) -> Path | None:
    """Returns the folder of the run to go on with; None for a new run."""
    if resume is None:
        return None
    named = resume[0] if resume else None
    if named and out and named.resolve() != out.resolve():
        raise UsageError(
            f"--resume {named} and --out {out} are two folders, and --resume takes that of the run to go on with; "
            "the data set stands before the flags"
        )
    folder = named or out
    if folder is None:
        raise UsageError("--resume takes the folder of a run; for example: multibox train --resume runs/raccoons")
    return folder


def _new_run_folder(data: list[Path]) -> Path:
    """Returns the first of `runs/DATA-1`, `runs/DATA-2`, ... that does not exist yet."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("--out is missing: the processes that torchrun starts need one folder for all of them")
    place = data[0].resolve()
    name = (place.parent if place.is_file() else place).name or "run"
    return next(folder for n in itertools.count(1) if not os.path.lexists(folder := Path("runs") / f"{name}-{n}"))


def _network_of(model: str, notes: dict[str, Any], given: dict[str, Any]) -> tuple["DetectorConfig | None", list[str]]:
    """Returns the config of a new network, or None for weights; and the notes that do not apply.

    Raises:
        UsageError: There is no such preset, backbone or config, or a flag does not fit the model.
        FileNotFoundError: The model looks like a file, and there is none.
    """
    its_own = {}
    if is_weights(model) or is_config(model):
        check_not_a_state(model)
        its_own = {"size": "an input size", "scales": "default boxes"}
    if is_weights(model):
        its_own["start_from"] = "weights"
    for name, what in its_own.items():
        if given[name] is not None:
            raise UsageError(f"--{name.replace('_', '-')} is for presets; {model} has {what} of its own")
    left_out = [name for name in its_own if name in notes]
    if is_weights(model):
        return None, left_out
    network = new_network(model, *(None if its_own else notes.get(name) for name in ("size", "scales")))
    if notes.get("start_from") is not None:
        info(f"the backbone starts from {_describe_start(notes['start_from'], network)}")
    return network, left_out


def _describe_start(start_from: str, network: "DetectorConfig") -> str:
    """Returns what the weights are that the backbone starts from. A file is read, so that a wrong one is said at once.

    Raises:
        UsageError: There are no such weights for this backbone, or this is no name of weights.
        ValueError: The file does not fit the backbone.
        OSError: There is no such file, or it cannot be read.
    """
    from multibox.weights.imagenet import describe_weights
    from multibox.weights.start import check_start, read_start

    try:
        check_start(start_from)
        if start_from == "imagenet":
            return describe_weights(network.backbone)
    except ValueError as error:
        raise UsageError(name_flag(error, {"start_from"})) from error
    check_not_a_state(start_from)
    from multibox.ssd.build import backbone_shapes

    start = read_start(start_from, network.backbone, backbone_shapes(network))
    pixels = "" if start.mean is not None else f"; mean and scale of the pixels stay those of {network.name}"
    return f"{start.source}{pixels}"


def _check_run_folder(plan: Plan) -> None:
    """Checks that the run can write to its folder without replacing anything but its own files.

    Raises:
        FileExistsError: The folder is not empty; or, to resume, it holds something else than a run.
        OSError: The folder cannot be made or written to.
    """
    from multibox.report.card import resume_command
    from multibox.training.run_files import is_run

    goes_on = f"go on with its run: {resume_command(plan.out)}"
    if not is_run(plan.out):
        check_empty(plan.out)
    elif not plan.resume:
        raise FileExistsError(f"{plan.out} holds a run already; choose another folder, or {goes_on}")
    check_folder(plan.out)


def _choose_splits(plan: Plan, reader: "DatasetReader") -> Plan:
    """Returns the plan with the splits to learn from and to validate on, and what is held out of the first.

    Raises:
        UsageError: There is no such split; or a fraction is to be held out that the data set has a split for.
    """
    from multibox.data.holdout import Holdout
    from multibox.data.read import usual_split

    notes = plan.notes
    train_split = choose_split(reader, notes.get("train_split"), ["train", "trainval"], "--train-split")
    val_split = choose_val_split(reader, notes.get("val_split"))
    val, test = notes.get("val_fraction"), notes.get("test_fraction", 0.0)
    for part, fraction in (("val", val), ("test", test)):
        if fraction and (split := usual_split(reader.splits, [part])):
            raise UsageError(
                f"--{part}-fraction is for data without such a split, but {plan.data[0]} has '{split}'; leave it out, "
                f"or remove the split '{split}'"
            )
    if val is None and val_split is None and notes.get("val_split") != "none":
        val = VAL_FRACTION
        info(
            f"no validation split: {percent(val)} % of the images, by a hash of their names, are kept for validation "
            "(--val-fraction; --val-split none for none)"
        )
    holdout = Holdout(train_split, val or 0.0, test) if val or test else None
    notes = {name: value for name, value in notes.items() if name not in ("val_split", "val_fraction")}
    how = {"val_fraction": val} if val else {"val_split": val_split or "none"}
    return dataclasses.replace(plan, notes=notes | {"train_split": train_split} | how, holdout=holdout)


def _read_data(plan: Plan, reader: "DatasetReader", on_problem: OnProblem) -> tuple["Dataset", "Dataset | None"]:
    """Returns the sets to learn from and to validate on. The second one has the classes of the first.

    Raises:
        ValueError: A set cannot be read, no image has a usable box, or the second set has a class that the first one
            does not have.
    """
    from multibox.data.check import check_learnable

    learned, validated, holdout = plan.notes["train_split"], plan.notes.get("val_split", "none"), plan.holdout
    train_set, *others = read_splits(
        reader, [learned, *([] if validated == "none" else [validated])], on_problem, check=check_learnable
    )
    val_set = others[0] if others else None
    kept = (
        f"{len(val_set)} to validate on ({validated})" if val_set else "none to validate on: the last weights are kept"
    )
    if holdout:
        parts = holdout.divide(train_set)
        train_set = parts["train"]
        if "val" in parts:
            val_set = parts["val"]
            kept = f"{len(val_set)} to validate on ({percent(holdout.val)} % of {learned})"
        if "test" in parts:
            kept += f", {len(parts['test'])} for a test ({percent(holdout.test)} %)"
    info(f"{counted(len(train_set), 'image')} to learn from ({learned}), {kept}")
    check_learnable(train_set)
    if val_set is None:
        return train_set, None
    try:
        val_set = val_set.with_classes(train_set.class_names)
    except ValueError as error:
        raise ValueError(f"{error}; name the class in both splits, or --val-split none") from error
    return train_set, val_set


def _make_detector(plan: Plan, class_names: tuple[str, ...]) -> "Detector":
    """Returns a new detector of a preset, or that of the weights with the classes of the data."""
    from multibox.detector import Detector

    seed = plan.config.seed
    if plan.begun is not None:  # the state of the run brings the weights
        detector = Detector.create(plan.begun.config, class_names, seed=seed)
        if "backbone" in plan.begun.provenance:
            detector.provenance["backbone"] = plan.begun.provenance["backbone"]
        return detector
    if plan.network is not None:
        with download_bar() as show:
            return Detector.create(
                plan.network, class_names, start_from=plan.notes.get("start_from"), seed=seed, on_progress=show
            )
    detector = Detector.load(plan.model)
    kept = [name for name in class_names if name in detector.class_names]
    new = [name for name in class_names if name not in detector.class_names]
    others = f"; new: {', '.join(new)}" if new else ""
    info(f"{plan.model}: {len(kept)} of {len(class_names)} classes are kept: {', '.join(kept) or 'none'}{others}")
    return detector.with_classes(class_names, seed=seed)


def _check_export(detector: "Detector", kind: ExportKind) -> None:
    """Checks that the trained detector will be one that can be exported.

    Raises:
        ValueError: It cannot be.
        ImportError: A package is missing that writes or runs such a file.
    """
    from multibox.deploy.export import try_export

    try:
        try_export(detector, EXPORT_SUFFIXES[kind])
    except ValueError as error:
        raise ValueError(f"--export-check {kind}: {error}; train another model, or leave out the check") from error
    info(f"export check: the detector can be exported ({kind})")


def _run(plan: Plan, detector: "Detector", train_set: "Dataset", val_set: "Dataset | None") -> None:
    """Trains the detector, with the log and a progress bar on the terminal.

    Raises:
        KeyboardInterrupt: The user interrupted the run. The message has the command that goes on.
        OSError: The memory is too small.
    """
    from multibox.training import train as run

    with show_log(), training_bar() as bar:
        try:
            run(
                detector,
                train_set,
                val_set,
                plan.config,
                out=plan.out,
                resume=plan.resume,
                on_progress=bar.on_progress,
                on_validation=bar.on_validation,
                teacher=plan.notes.get("teacher"),
                notes=plan.notes,
                data=[str(each) for each in plan.data],
                holdout=plan.holdout,
            )
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(f"{error}; to go on:\n{_resume_command(plan)}" if str(error) else "") from error
        except RuntimeError as error:
            raise OSError(_too_little_memory(error)) from error


def _resume_command(plan: Plan) -> str:
    """Returns the command that goes on with the run."""
    from multibox.report.card import resume_command

    command, environment = resume_command(plan.out), os.environ
    if "TORCHELASTIC_RUN_ID" not in environment:
        return command
    size, local = (int(environment[name]) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    nodes = f"--nnodes {size // local} ... " if size > local else ""
    return f"torchrun {nodes}--nproc-per-node {local} -m {command}"


def _too_little_memory(error: RuntimeError) -> str:
    """Returns advice if PyTorch has run out of memory, which it reports by a plain `RuntimeError`.

    Raises:
        RuntimeError: The error is about something else.
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
