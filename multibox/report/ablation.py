"""What the runs of an ablation say: the mean and the spread over seeds, as a table and as a figure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from multibox.report.tables import text_table

FULL = "full"
"""Name of the variant that leaves nothing out. All others are compared with it."""


@dataclass(frozen=True)
class AblationScore:
    """One run of an ablation, and the accuracy of its last weights.

    Attributes:
        variant: Name of the variant.
        seed: Seed of the run.
        default_boxes: Number of default boxes of its detector.
        steps: Number of training steps.
        minutes: Minutes of training.
        ap: AP at overlaps of 0.50 to 0.95.
        ap50: AP at an overlap of 0.50.
        ap75: AP at an overlap of 0.75.
        ap_small: AP of objects with an area of up to 32 x 32 pixels of their image; `None` if there are none.
        ap_medium: AP of objects between 32 x 32 and 96 x 96 pixels; `None` if there are none.
        ap_large: AP of objects from 96 x 96 pixels; `None` if there are none.
        per_class: AP50 of each class by name; `None` for a class without objects.
    """

    variant: str
    seed: int
    default_boxes: int
    steps: int
    minutes: float
    ap: float
    ap50: float
    ap75: float
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    per_class: Mapping[str, float | None]


class Spread(NamedTuple):
    """A number over several seeds.

    Attributes:
        mean: Mean over the seeds.
        low: Lowest value.
        high: Highest value.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Returns the spread of at least one value."""
        return cls(statistics.mean(values), min(values), max(values))

    def in_percent(self, sign: str = "") -> str:
        """Returns the mean, the lowest and the highest value in percent: `85.1 (84.0 to 86.2)`."""
        low, mean, high = (f"{100 * value:{sign}.1f}" for value in (self.low, self.mean, self.high))
        return f"{mean} ({low} to {high})"


@dataclass(frozen=True)
class AblationRow:
    """A variant of an ablation over all of its seeds. All accuracies, and differences of them, are fractions.

    Attributes:
        variant: Name of the variant.
        what: What it leaves out or keeps, in a few words.
        seeds: Seeds of the runs.
        default_boxes: Number of default boxes of its detector.
        steps: Mean number of training steps.
        ap: AP at overlaps of 0.50 to 0.95.
        ap50: AP at an overlap of 0.50.
        ap_small: Mean AP of small objects; `None` if there are none. So with the next two.
        ap_medium: Mean AP of medium objects.
        ap_large: Mean AP of large objects.
        difference: Difference of AP50 from that of the full detector with the same seed; `None` for the full one.
        agree: Whether all seeds lie on the same side of the full detector; `None` for a single seed.
        paper: The difference that the paper reports for VOC 2007 (tables 2, 3 and 6); `None` if it has none.
    """

    variant: str
    what: str
    seeds: tuple[int, ...]
    default_boxes: int
    steps: float
    ap: Spread
    ap50: Spread
    ap_small: float | None
    ap_medium: float | None
    ap_large: float | None
    difference: Spread | None
    agree: bool | None
    paper: float | None

    def values(self) -> dict[str, Any]:
        """Returns all values by name, for JSON."""
        spreads = {"ap": self.ap, "ap50": self.ap50, "difference": self.difference}
        return asdict(self) | {name: spread and spread._asdict() for name, spread in spreads.items()}


def ablation_row(
    name: str, what: str, paper: float | None, scores: Sequence[AblationScore], full: Sequence[AblationScore]
) -> AblationRow:
    """Returns the row of a variant.

    Args:
        name: Name of the variant.
        what: What it leaves out or keeps.
        paper: The difference that the paper reports.
        scores: The runs of the variant, at least one.
        full: The runs of the full detector. Differences are taken between runs of the same seed.
    """
    base = {score.seed: score.ap50 for score in full} if name != FULL else {}
    differences = [score.ap50 - base[score.seed] for score in scores if score.seed in base]
    signs = {difference > 0 for difference in differences}
    return AblationRow(
        variant=name,
        what=what,
        seeds=tuple(score.seed for score in scores),
        default_boxes=scores[0].default_boxes,
        steps=statistics.mean(score.steps for score in scores),
        ap=Spread.of([score.ap for score in scores]),
        ap50=Spread.of([score.ap50 for score in scores]),
        ap_small=_mean([score.ap_small for score in scores]),
        ap_medium=_mean([score.ap_medium for score in scores]),
        ap_large=_mean([score.ap_large for score in scores]),
        difference=Spread.of(differences) if differences else None,
        agree=len(signs) == 1 and 0 not in differences if len(differences) > 1 else None,
        paper=paper,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def ablation_table(rows: Sequence[AblationRow]) -> list[str]:
    """Returns the lines of the table for a terminal of 80 columns."""
    head = ("variant", "AP50", "difference", "paper", "boxes")
    return text_table(
        head, [(row.variant, row.ap50.in_percent(), *_compared(row), f"{row.default_boxes:,}") for row in rows]
    )


def ablation_markdown(rows: Sequence[AblationRow]) -> list[str]:
    """Returns the lines of the table in Markdown, with all columns."""
    head = ["variant", "what it is", "default boxes", "steps", "AP50", "difference of AP50", "in the paper"]
    head += ["AP", "AP small", "medium", "large"]
    lines = [f"| {' | '.join(head)} |", f"| --- | --- |{' ---: |' * (len(head) - 2)}"]
    for row in rows:
        sizes = (
            "-" if value is None else f"{100 * value:.1f}" for value in (row.ap_small, row.ap_medium, row.ap_large)
        )
        cells = (f"{row.default_boxes:,}", f"{row.steps:,.0f}", row.ap50.in_percent(), *_compared(row))
        lines.append(f"| {' | '.join((row.variant, row.what, *cells, row.ap.in_percent(), *sizes))} |")
    return lines


def _compared(row: AblationRow) -> tuple[str, str]:
    """Returns the texts of the difference and of the paper's; with a question mark unless several seeds agree on it."""
    paper = "" if row.paper is None else f"{100 * row.paper:+.1f}"
    if row.difference is None:
        return "", paper
    return row.difference.in_percent("+") + ("" if row.agree else " ?"), paper


def draw_ablation(rows: Sequence[AblationRow], scores: Sequence[AblationScore], path: Path, *, title: str) -> None:
    """Draws AP50 of each variant into a PNG file: a dot for each seed, a bar at their mean, a band for the full one.

    Args:
        rows: The variants, from the top.
        scores: All runs.
        path: The file.
        title: Line above the figure.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.5 * len(rows)), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        if row.variant == FULL:
            axes.axvspan(100 * row.ap50.low, 100 * row.ap50.high, color="#2a78d6", alpha=0.12, linewidth=0)
            axes.axvline(100 * row.ap50.mean, color="#2a78d6", linewidth=1)
    for place, row in enumerate(rows):
        color = "#2a78d6" if row.variant == FULL else "#d9480f"
        values = [100 * score.ap50 for score in scores if score.variant == row.variant]
        axes.plot([100 * row.ap50.low, 100 * row.ap50.high], [place, place], color=color, linewidth=1.2, alpha=0.6)
        axes.plot(values, [place] * len(values), "o", color=color, markersize=5)
        axes.plot([100 * row.ap50.mean], [place], "|", color=color, markersize=18, markeredgewidth=2.5)
        text = "" if row.difference is None else f"{100 * row.difference.mean:+.1f}{'' if row.agree else ' ?'}"
        axes.annotate(text, (1.01, place), xycoords=("axes fraction", "data"), verticalalignment="center")
    names = [f"{row.what}\n({row.variant}, {row.default_boxes:,} boxes)" for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set(xlabel="AP50 in percent: a dot for each seed, a bar at their mean", ylim=(len(rows) - 0.5, -0.5))
    axes.set_title(title, fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120, format="png")
