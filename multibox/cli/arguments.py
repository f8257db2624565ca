"""Shared parts of the commands' flags: their groups in the help, the types of their values, and checks of values."""

import re
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from multibox.cli.terminal import download_bar
from multibox.weights.published import find_weights

DATA, MODEL, LENGTH, OPTIMIZATION, OUTPUT, MACHINE = (
    Group(name, sort_key=place)
    for place, name in enumerate(("Data", "Model", "Length", "Optimization", "Output", "Machine"))
)

OnProblem = Literal["error", "skip"]
Fraction = Annotated[float, Parameter(validator=Number(gte=0, lte=1))]
Count = Annotated[int, Parameter(validator=Number(gte=1))]
Device = Annotated[str | None, Parameter(group=MACHINE, show_default="cuda if there is one, else cpu")]
DetectPrecision = Annotated[Literal["fp32", "bf16", "auto"], Parameter(group=MACHINE)]
Overwrite = Annotated[bool, Parameter(group=OUTPUT, negative="", show_default=False)]


class UsageError(Exception):
    """The command line itself is wrong. The exit status is 2."""


def choose_device(device: str | None) -> str:
    """Returns the device to compute on: the given one, else CUDA if there is a GPU for it, else the CPU.

    Raises:
        UsageError: PyTorch knows no device of that name, or this machine does not have it.
    """
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
        UsageError: The model is a preset, which has no trained weights, or a training state.
        FileNotFoundError: There are no such weights.
        OSError: The weights cannot be downloaded.
    """
    from multibox.presets import PRESETS

    if model in PRESETS and not Path(model).exists():
        raise UsageError(
            f"'{model}' is a preset, a network that is not trained yet; train it first: "
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
        raise UsageError(f"{model} is the state of a training run, for --resume; its weights are in {weights}")
