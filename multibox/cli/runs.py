"""The command `multibox runs`."""

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from cyclopts import Parameter

from multibox.cli.arguments import DATA
from multibox.cli.terminal import info, stdout
from multibox.messages import percent
from multibox.safe_yaml import read_yaml
from multibox.training.run_files import is_run

Row = Mapping[str, float | None]
"""A row of `metrics.csv`: a number, or None for an empty field, for each column."""


class Run(NamedTuple):
    """A run as the table shows it. What its files do not say is "-".

    Attributes:
        folder: Path of the folder.
        ap: Highest AP of the validations, in percent.
        ap50: AP50 of that validation, in percent.
        epochs: Number of epochs done.
        time: Time that they took.
        model: The preset, or the weights that the run started from.
        data: Names of the data's folders.
        state: `finished`, or how much of the run is done.
    """

    folder: str
    ap: str
    ap50: str
    epochs: str
    time: str
    model: str
    data: str
    state: str


def runs(folder: Annotated[Path, Parameter(group=DATA)] = Path("runs"), /) -> int:
    """List the training runs in a folder, the newest last.

    Args:
        folder: The folder of the runs, or one above it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder; multibox train writes its runs to runs/")
    found = sorted(_find_runs(folder), key=_last_change)
    if not found:
        raise FileNotFoundError(f"{folder}: no run of multibox train is here or in the folders below")
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in Run._fields:
        is_text = name in ("folder", "model", "data")
        title = {"folder": "run", "ap": "AP", "ap50": "AP50"}.get(name, name)
        justify: Literal["left", "right"] = "left" if is_text or name == "state" else "right"
        table.add_column(title, justify=justify, overflow="fold", no_wrap=not is_text)
    for each in found:
        table.add_row(*read_run(each))
    stdout().print(table)
    return 0


def _find_runs(folder: Path) -> Iterator[Path]:
    """Yields the folders of runs at or below a folder."""
    for place, below, _ in os.walk(folder):
        if is_run(Path(place)):
            yield Path(place)
            below.clear()
        below[:] = [name for name in below if not name.startswith(".")]


def _last_change(run: Path) -> float:
    times = [file.stat().st_mtime for file in (run / "log.txt", run / "config.yaml", run) if file.exists()]
    return times[0]


def read_run(folder: Path) -> Run:
    """Returns what the files of a run say about it. A file that cannot be read is reported, and its values are "-"."""
    config = run_config(folder)
    card = _read(folder / "card.json", _read_card) or {}
    rows = read_rows(folder)
    validated = [row for row in rows if row.get("ap") is not None]
    best: Row = max(validated, key=lambda row: row["ap"] or 0.0, default={})
    last: Row = rows[-1] if rows else {}
    data = config.get("data") or []
    named = [Path(str(each)).name for each in (data if isinstance(data, list) else [data])]
    epochs, minutes = last.get("epoch"), last.get("minutes")
    return Run(
        folder=str(folder),
        ap=percent(best.get("ap")),
        ap50=percent(best.get("ap50")),
        epochs="-" if epochs is None else f"{round(epochs, 1):g}",
        time="-" if minutes is None else _time(minutes),
        model=_model(str(config.get("model") or card.get("detector") or "-")),
        data=", ".join(named) or "-",
        state=_state(config, validated, last, has_card=bool(card)),
    )


def run_config(folder: Path) -> dict[str, Any]:
    """Returns the values in the `config.yaml` of a run; none if there is no such file."""
    return _read(folder / "config.yaml", _read_config) or {}


def read_rows(folder: Path) -> list[Row]:
    """Returns the rows of the `metrics.csv` of a run; none if there is no such file yet."""
    return _read(folder / "metrics.csv", _read_rows) or []


def _read(file: Path, read: Any) -> Any:
    if not file.exists():
        return None
    try:
        return read(file)
    except (OSError, ValueError, TypeError) as error:
        info(f"{file}: cannot be read ({error})")
        return None


def _read_config(file: Path) -> dict[str, Any]:
    values = read_yaml(file)
    if not isinstance(values, dict):
        raise ValueError("it must hold lines of 'name: value'")
    return values


def _read_card(file: Path) -> dict[str, Any]:
    card = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(card, dict):
        raise ValueError("it must hold a JSON object")
    return card


def _read_rows(file: Path) -> list[Row]:
    with file.open(newline="", encoding="utf-8") as lines:
        return [
            {name: float(text) if text else None for name, text in row.items() if name} for row in csv.DictReader(lines)
        ]


def _state(config: Mapping[str, Any], validated: Sequence[Row], last: Row, *, has_card: bool) -> str:
    """Returns `finished`, or the part of the run that is done in percent."""
    limits = {"steps": "step", "epochs": "epoch", "minutes": "minutes"}
    done = [
        (last.get(column) or 0.0) / config[name]
        for name, column in limits.items()
        if isinstance(config.get(name), int | float) and config[name] > 0
    ]
    fraction = max(done, default=0.0)
    values = [row["ap"] or 0.0 for row in validated]
    patience = config.get("patience")
    out_of_patience = bool(values and patience) and len(values) - 1 - values.index(max(values)) >= (patience or 0)
    if has_card and (fraction >= 1 or out_of_patience or not done):
        return "finished"
    return f"{min(100 * fraction, 100):.0f} % done"


def _model(model: str) -> str:
    """Returns the name of a preset, of the run whose best weights these are, or of other weights."""
    path = Path(model)
    if not path.is_absolute():
        return model
    return path.parent.name if path.name == "best.safetensors" else path.name


def _time(minutes: float) -> str:
    if minutes < 60:
        return f"{minutes:.1f} min"
    return f"{minutes // 60:.0f} h {minutes % 60:02.0f} min"
