"""Shared parts of the commands' flags: their groups in the help, the types of their values, and checks of values."""

import re
from collections.abc import Callable, Container, Sequence
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import CoercionError, Group, Parameter, Token

from multibox.cli.terminal import download_bar
from multibox.weights.published import find_weights, is_config, is_weights

if TYPE_CHECKING:
    from multibox.config import DetectorConfig, Scales
    from multibox.explain.model import Model

DATA, MODEL, LENGTH, OPTIMIZATION, OUTPUT, MACHINE = (
    Group(name, sort_key=place)
    for place, name in enumerate(("Data", "Model", "Length", "Optimization", "Output", "Machine"))
)

VAL_FRACTION = 0.2
"""Fraction of the images that a run validates on if the data set has no split for it."""

OnProblem = Literal["error", "skip"]
ScalesName = Literal["voc", "coco"]  # `config.Scales` spelled out: importing it would load NumPy, and --help must not
Unlabelled = Annotated[Literal["empty", "skip"] | None, Parameter(group=DATA, show_default="as the format marks them")]


def _from(low: float, high: float, words: str) -> Callable[[Any, float | None], None]:
    """Returns a validator of numbers between two limits. `hints.explain_mistake` puts the flag before its message."""

    def validator(_: Any, value: float | None) -> None:
        if value is not None and not low <= value <= high:
            raise ValueError(f"must be {words}")

    return validator


def whole_number(_: Any, tokens: Sequence[Token]) -> Any:
    """Returns the number of a flag; the parser by itself would round a fraction."""
    (token,) = tokens
    if re.fullmatch(r"[+-]?\d+(\.0*)?", token.value.strip(), re.ASCII) is None:
        raise CoercionError(token=token, target_type=int)
    return int(token.value.partition(".")[0])


def class_weights(_: Any, tokens: Sequence[Token]) -> str | dict[str, float]:
    """Returns the value of `--class-weights`: the word `balanced`, or weights by class name from NAME=2,NAME2=0.5."""
    (token,) = tokens
    text = token.value.strip()
    if text == "balanced":
        return text
    pair = re.compile(r"(.+?)=([^=,]*)(?:,|$)")  # a name may have commas or equals signs itself
    pairs = [(name.strip(), number) for name, number in pair.findall(text)]
    weights: dict[str, float] = {}
    with suppress(ValueError):
        weights = {name: float(number) for name, number in pairs}
    if not weights or len(weights) < len(pairs) or pair.sub("", text):
        raise CoercionError(
            f"{token.keyword} takes 'balanced', or a weight for each name as in NAME=2,NAME2=0.5, not '{text}'",
            token=token,
        )
    return weights


Fraction = Annotated[float, Parameter(validator=_from(0, 1, "from 0 to 1"))]
Count = Annotated[int, Parameter(converter=whole_number, validator=_from(1, inf, "at least 1"))]
# `config.Merge` spelled out: importing it would load NumPy, and --help must not
Merge = Annotated[Literal["none", "weighted"] | None, Parameter(group=MODEL, show_default="the detector's own")]
Device = Annotated[str | None, Parameter(group=MACHINE, show_default="cuda if there is one, else cpu")]
# `config.PrecisionChoice` spelled out: importing it would load NumPy, and --help must not
DetectPrecision = Annotated[Literal["fp32", "bf16", "auto"], Parameter(group=MACHINE)]
Compile = Annotated[bool, Parameter(group=MACHINE, negative="", show_default=False)]
Overwrite = Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)]


class UsageError(Exception):
    """The command line itself is wrong. The exit status is 2."""


def name_flag(error: ValueError, given: Container[str], file: Path | None = None) -> str:
    """Returns the message about a wrong value, with the name of the flag or the file that it is from.

    Args:
        error: The error, whose message begins with the name of the value: `batch_size must be above 0, but is 0`.
        given: Names of the values that flags gave.
        file: The file that gave all other values.
    """
    message = re.sub(r"(, but is -?\d+)\.0$", r"\1", str(error))  # a user who typed 0 finds 0, not 0.0
    name = message.partition(" ")[0]
    if name in given:
        return f"--{name.replace('_', '-')}{message.removeprefix(name)}"
    return message if file is None else f"{file}: {message}"


def height_and_width(size: str | None) -> tuple[int | None, int | None]:
    """Returns the two numbers of a flag such as `--size 240x320`, in pixels.

    Raises:
        UsageError: The text is not of that form.
    """
    if size is None:
        return None, None
    parts = re.fullmatch(r"(\d{1,9})(?:[xX\u00d7](\d{1,9}))?", size.strip(), re.ASCII)
    if parts is None:
        raise UsageError(f"--size takes HEIGHTxWIDTH in pixels, such as 240x320, or one number for both, not '{size}'")
    return int(parts[1]), int(parts[2] or parts[1])


def new_network(model: str, size: str | None = None, scales: "Scales | None" = None) -> "DetectorConfig":
    """Returns the config of a new network by `--model`: a preset, a backbone of timm, or the file of a config.

    Args:
        model: The value of `--model`, which is not weights.
        size: The value of `--size`.
        scales: The value of `--scales`.

    Raises:
        UsageError: There is no such preset or backbone, the file holds no config, or the size does not fit.
        FileNotFoundError: The model looks like a file, and there is none.
    """
    from multibox.detector import new_config

    height, width = height_and_width(size)
    try:
        return new_config(model, scales=scales, height=height, width=width)
    except ValueError as error:
        raise UsageError(str(error)) from error


def open_model(model: str, size: str | None, scales: "Scales | None" = None) -> "Model":
    """Returns what data are judged for by `--model`: a new network as `new_network` takes it, or weights.

    Published weights are downloaded if need be. The other arguments and the errors are those of `new_network`.
    """
    from multibox.explain.model import Model

    if not is_weights(model):
        return Model.new(model, new_network(model, size, scales))
    if size is not None or scales is not None:
        raise UsageError(f"--size and --scales are for presets; {model} has its own")
    return Model.of_weights(model, fetch_weights(model))


def choose_device(device: str | None, *, exported: bool = False) -> str:
    """Returns the device to compute on: the given one, else CUDA if there is a GPU for it, else the CPU.

    Args:
        device: The value of `--device`.
        exported: Whether the detector is an exported file. Its engine has devices of its own, and names them if there
            is no such one; without a choice it takes the CPU.

    Raises:
        UsageError: PyTorch knows no device of that name, or this machine does not have it.
    """
    if exported:
        return device or "cpu"
    if device == "cpu":
        return device
    if device is not None and not re.fullmatch(r"(cpu|cuda|mps|xpu)(:\d+)?", device):
        raise UsageError(f"no device is called '{device}'; there are cpu, cuda (or cuda:1, ...), mps and xpu")
    try:
        import torch
    except ImportError:
        return "cpu"  # code that needs torch reports that it is missing
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"the device '{device}' cannot be used here ({str(error).splitlines()[0]})") from error
    return device


def fetch_weights(model: str) -> Path:
    """Returns the weights file of a model given by path or by name. Published weights are downloaded if need be.

    Raises:
        UsageError: The model is a preset or a config, which has no trained weights, or a training state.
        FileNotFoundError: There are no such weights.
        OSError: The weights cannot be downloaded.
    """
    from multibox.presets import PRESETS

    is_preset = model in PRESETS and not Path(model).is_file()
    if is_preset or is_config(model):
        raise UsageError(
            f"'{model}' is a {'preset' if is_preset else 'config'}, a network that is not trained yet; train it first: "
            f"multibox train DATA --model {model}"
        )
    check_not_a_state(model)
    with download_bar() as show:
        return find_weights(model, on_progress=show)


def check_not_a_state(model: str) -> None:
    """Checks that the model is not the `last.pt` of a run, which holds the state for `--resume`.

    Raises:
        UsageError: The model is such a file.
    """
    weights = Path(model).with_name("last.safetensors")
    if Path(model).name in ("last.pt", "previous.pt") and weights.is_file():
        raise UsageError(f"{model} is a training state, for --resume; the weights are {weights.name} beside it")
