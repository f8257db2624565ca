"""What the runs of an ablation say, from numbers that can be added in the head."""

from pathlib import Path

import pytest
from PIL import Image

from multibox.report.ablation import (
    FULL,
    AblationScore,
    Spread,
    ablation_markdown,
    ablation_row,
    ablation_table,
    draw_ablation,
)


def run(variant: str, seed: int, ap50: float, small: float | None = None) -> AblationScore:
    return AblationScore(
        variant=variant,
        seed=seed,
        default_boxes=6132,
        steps=100 + seed,
        minutes=1.0,
        ap=ap50 / 2,
        ap50=ap50,
        ap75=0.1,
        ap_small=small,
        ap_medium=0.25,
        ap_large=None,
        per_class={"cat": ap50},
    )


FULL_RUNS = [run(FULL, 0, 0.50), run(FULL, 1, 0.60)]
WORSE = [run("squares", 0, 0.46, small=0.1), run("squares", 1, 0.58, small=0.2)]
UNCLEAR = [run("one-map", 0, 0.51), run("one-map", 1, 0.58)]


def test_a_row_has_the_spread_and_the_differences_seed_by_seed():
    row = ablation_row("squares", "square boxes only", -0.027, WORSE, FULL_RUNS)
    assert row.ap50 == pytest.approx((0.52, 0.46, 0.58))
    assert row.difference == pytest.approx((-0.03, -0.04, -0.02))
    assert (row.agree, row.seeds, row.steps, row.ap_large) == (True, (0, 1), 100.5, None)
    assert row.ap_small == pytest.approx(0.15)
    assert ablation_row("one-map", "", None, UNCLEAR, FULL_RUNS).agree is False


def test_the_full_detector_has_no_difference_and_a_single_seed_no_agreement():
    full = ablation_row(FULL, "the full detector", None, FULL_RUNS, FULL_RUNS)
    assert (full.difference, full.agree) == (None, None)
    one = ablation_row("squares", "", None, WORSE[:1], FULL_RUNS)
    assert one.difference == pytest.approx((-0.04, -0.04, -0.04))
    assert one.agree is None


def test_only_runs_of_the_same_seed_are_compared():
    row = ablation_row("squares", "", None, WORSE, FULL_RUNS[:1])
    assert row.difference == pytest.approx((-0.04, -0.04, -0.04))
    assert ablation_row("squares", "", None, WORSE[1:], FULL_RUNS[:1]).difference is None


def test_tables_fit_their_places_and_mark_what_may_be_chance():
    rows = [
        ablation_row(FULL, "the full detector", None, FULL_RUNS, FULL_RUNS),
        ablation_row("squares", "square boxes only", -0.027, WORSE, FULL_RUNS),
        ablation_row("one-map", "the second map alone", -0.119, UNCLEAR, FULL_RUNS),
    ]
    lines = ablation_table(rows)
    assert all(len(line) <= 80 for line in lines)
    assert " ".join(lines[2].split()) == "squares 52.0 (46.0 to 58.0) -3.0 (-4.0 to -2.0) -2.7 6,132"
    assert " ".join(lines[3].split()) == "one-map 54.5 (51.0 to 58.0) -0.5 (-2.0 to +1.0) ? -11.9 6,132"
    markdown = ablation_markdown(rows)
    assert {line.count("|") for line in markdown} == {12}
    assert "| 15.0 | 25.0 | - |" in markdown[3]


def test_the_figure_is_an_image(tmp_path: Path):
    rows = [
        ablation_row(FULL, "the full detector", None, FULL_RUNS, FULL_RUNS),
        ablation_row("squares", "square boxes only", -0.027, WORSE, FULL_RUNS),
    ]
    draw_ablation(rows, [*FULL_RUNS, *WORSE], tmp_path / "a.part", title="a title")
    with Image.open(tmp_path / "a.part") as image:
        assert image.format == "PNG"


def test_a_spread_is_mean_lowest_and_highest():
    assert Spread.of([0.3, 0.1, 0.2]) == pytest.approx((0.2, 0.1, 0.3))
    assert Spread(0.5, 0.25, 0.75).in_percent("+") == "+50.0 (+25.0 to +75.0)"
