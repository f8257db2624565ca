"""The values of a run that the command line does not give: from `--config`, or from the folder of the run to resume."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from multibox.cli.arguments import UsageError
from multibox.training.recipes import TrainConfig

ScalesName = Literal["voc", "coco"]
StartFrom = Literal["imagenet"]

NOTES: dict[str, Any] = {
    "data": Sequence[str] | None,
    "model": str,
    "size": str,
    "scales": ScalesName | None,
    "start_from": StartFrom | None,
    "train_split": str,
    "val_split": str,
}
"""What a `config.yaml` holds beside the values of `TrainConfig`."""

LENGTHS = ("epochs", "steps", "minutes")


def is_run(folder: Path) -> bool:
    """Whether a training run has written to the folder."""
    return any((folder / name).exists() for name in (".lock", "last.pt", "previous.pt"))


def read_resumed(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of a run that is to go on, from its `config.yaml`.

    Args:
        folder: The folder of the run.
        given: The values of the command line, which win. A length among them replaces all lengths of the file.

    Raises:
        UsageError: There is no run in the folder, or it was started from Python, so that its data are not known.
    """
    file = folder / "config.yaml"
    if not (is_run(folder) and file.is_file()):
        raise UsageError(f"{folder} holds no run that could go on: there is no config.yaml of a run in it")
    values = read_config(file)
    if "data" not in values or "model" not in values:
        raise UsageError(
            f"{file} does not say which data and model the run has; give them as well: "
            f"multibox train DATA --model MODEL --resume {folder}"
        )
    if any(given.get(name) is not None for name in LENGTHS):
        values = {name: value for name, value in values.items() if name not in LENGTHS}
    return values


def read_config(path: Path) -> dict[str, Any]:
    """Returns the values of a `config.yaml` by name.

    Raises:
        UsageError: The file is not a YAML mapping, or has a name or a kind of value that no run has.
    """
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not YAML ({error})") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: must hold lines of 'name: value'")
    known = get_type_hints(TrainConfig) | NOTES
    for name in values:
        if name not in known:
            near = get_close_matches(str(name), known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
            raise UsageError(f"{path}: a run has no value '{name}'; {hint}")
    return {name: _read_value(name, value, known[name], path) for name, value in values.items() if value is not None}


def _read_value(name: str, value: Any, hint: Any, path: Path) -> Any:
    """Returns a value of the YAML file as the type that the run has for it.

    Raises:
        UsageError: The value is of another kind.
    """
    kinds = (hint,) if get_origin(hint) in (Sequence, Literal) else get_args(hint) or (hint,)
    if get_origin(kinds[0]) is Sequence:
        return _read_list(name, value, get_args(kinds[0])[0], path)
    if bool in kinds:
        if not isinstance(value, bool):
            raise UsageError(f"{path}: {name} must be true or false, but is {value!r}")
        return value
    if (choices := get_args(kinds[0])) and value not in choices:
        raise UsageError(f"{path}: {name} must be one of {', '.join(choices)}, but is {value!r}")
    kind = next((kind for kind in (float, int) if kind in kinds), str)
    try:
        if isinstance(value, bool) or (kind is int and int(value) != value):
            raise ValueError(value)
        return kind(value)  # 1e-3 is a text to YAML; 1.0e-3 is a number
    except (TypeError, ValueError, OverflowError) as error:
        what = {int: "a whole number", float: "a number"}.get(kind, "a text")
        raise UsageError(f"{path}: {name} must be {what}, but is {value!r}") from error


def _read_list(name: str, value: object, kind: object, path: Path) -> tuple[Any, ...]:
    kinds, what = ((int, float), "numbers") if kind is float else ((str,), "texts")
    if not isinstance(value, list) or not all(type(each) in kinds for each in value):
        raise UsageError(f"{path}: {name} must be a list of {what}, but is {value!r}")
    return tuple(map(float, value) if kind is float else value)
