"""Times of variants of the same work: medians, quartiles, and ratios within each round."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Row:
    """The times of one variant.

    Attributes:
        name: Name of the variant.
        seconds: Time of one unit of the work in each round.
        ratios: How many times as fast as the reference it was in each round.
        extras: Other measurements by the name of their column.
    """

    name: str
    seconds: tuple[float, ...]
    ratios: tuple[float, ...]
    extras: Mapping[str, float | str] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "median_seconds": statistics.median(self.seconds),
            "quartiles_seconds": _quartiles(self.seconds),
            "times_as_fast": statistics.median(self.ratios),
            "quartiles_times_as_fast": _quartiles(self.ratios),
            "rounds": len(self.seconds),
            **self.extras,
        }

    def per(self, units: int) -> "Row":
        """Returns the row for one of so many units that the work did."""
        return replace(self, seconds=tuple(value / units for value in self.seconds))


@dataclass(frozen=True)
class Comparison:
    """A table of variants; the first is the reference that the others are compared with.

    Attributes:
        title: Title of the table: the work that was done.
        unit: Unit of the work: an image, a step.
        images: Number of images in one unit; 0 if images per second mean nothing.
        clock: Kind of time that was measured.
        rows: Times of the variants.
        notes: Remarks below the table.
    """

    title: str
    unit: str
    images: int
    clock: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def values(self) -> dict[str, Any]:
        """Returns the table for a JSON file."""
        return {**asdict(self), "rows": [self._row(row) for row in self.rows]}

    def _row(self, row: Row) -> dict[str, Any]:
        values = row.values()
        if self.images:
            values["images_per_second"] = self.images / values["median_seconds"]
        return values

    def markdown(self) -> str:
        """Returns the table for a page or a terminal, with the notes below it."""
        if not self.rows:
            return f"{self.title}: {' '.join(self.notes)}\n"
        extras = list(dict.fromkeys(name for row in self.rows for name in row.extras))
        header = [self.title, f"ms per {self.unit}", "quartiles", *["images/s"] * bool(self.images)]
        header += ["times as fast", "quartiles", *extras]
        lines = [header]
        for row in self.rows:
            values = self._row(row)
            low, high = (_number(1000 * value) for value in values["quartiles_seconds"])
            cells = [row.name, _number(1000 * values["median_seconds"]), f"{low} to {high}"]
            cells += [_number(values["images_per_second"])] if self.images else []
            low, high = (f"{value:.2f}" for value in values["quartiles_times_as_fast"])
            cells += [f"{values['times_as_fast']:.2f}", f"{low} to {high}"]
            cells += [_number(row.extras[name]) if name in row.extras else "" for name in extras]
            lines.append(cells)
        rounds = f"Rounds: {len(self.rows[0].seconds)}, {self.clock}."
        return f"{_markdown_table(lines)}\n\n{' '.join([rounds, *self.notes])}\n"


def ratios(reference: Sequence[float], seconds: Sequence[float]) -> tuple[float, ...]:
    """Returns how many times as fast as the reference a variant was in each round."""
    return tuple(other / value for other, value in zip(reference, seconds, strict=True))


def _markdown_table(lines: Sequence[Sequence[str]]) -> str:
    """Returns a table whose columns have the same width in all lines: the first one left, all others right."""
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        [
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        for line in lines
    ]
    rule = ["-" * width if place == 0 else "-" * (width - 1) + ":" for place, width in enumerate(widths)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def _quartiles(values: Sequence[float]) -> tuple[float, float]:
    if len(values) == 1:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def _number(value: float | str) -> str:
    """Returns a number with three significant digits, and all digits before the point. A text stays as it is."""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
