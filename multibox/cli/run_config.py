"""The values of a run that the command line does not give: from `--config`, or from the folder of the run to resume."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_type_hints

from multibox.checks import checked_values
from multibox.cli.arguments import ScalesName, UsageError
from multibox.training.recipes import TrainConfig

NOTES: dict[str, Any] = {
    "data": Sequence[str] | None,
    "model": str,
    "size": str,
    "scales": ScalesName | None,
    "start_from": str | None,
    "teacher": str | None,
    "train_split": str,
    "val_split": str,
    "val_fraction": float,
    "test_fraction": float,
    "unlabelled": Literal["empty", "skip"] | None,
}
"""Values that a `config.yaml` holds besides those of `TrainConfig`."""

LENGTHS = ("epochs", "steps", "minutes")


def read_resumed(folder: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of a run that is to go on, from its `config.yaml`.

    Args:
        folder: The folder of the run.
        given: The values of the command line, which win. A length among them replaces all lengths of the file.

    Raises:
        UsageError: There is no run in the folder, or it was started from Python, so that its data are not known.
    """
    from multibox.training.run_files import is_run

    file = folder / "config.yaml"
    if not (is_run(folder) and file.is_file()):
        raise UsageError(f"{folder} holds no run to resume: there is no config.yaml of a run in it")
    values = read_config(file)
    missing = [name for name in ("data", "model") if name not in values and given.get(name) is None]
    if missing:
        raise UsageError(
            f"{file} does not say which {' and '.join(missing)} the run has; give them as well: "
            f"multibox train DATA --model MODEL --resume {folder}"
        )
    if any(given.get(name) is not None for name in LENGTHS):
        values = {name: value for name, value in values.items() if name not in LENGTHS}
    return values


def read_config(path: Path) -> dict[str, Any]:
    """Returns the values of a `config.yaml` by name.

    Raises:
        UsageError: The file is not a YAML mapping, or has a name or a value that no run has.
    """
    from multibox.safe_yaml import read_yaml

    try:
        values = read_yaml(path)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    if not isinstance(values, dict):
        raise UsageError(f"{path}: must hold lines of 'name: value'")
    try:
        found = checked_values(values, get_type_hints(TrainConfig, include_extras=True) | NOTES, owner="a run")
        TrainConfig(**{name: value for name, value in found.items() if name not in NOTES})  # milestones rise
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    return found
