"""The page of a report: one HTML file with its data, images, style and scripts in it, which fetches nothing."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from multibox.boxes import box_iou
from multibox.data.sample import Dataset, GroundTruth
from multibox.detections import Detections
from multibox.evaluation.errors import NEAR
from multibox.evaluation.precision_recall import TP, PrecisionRecall, match_detections
from multibox.evaluation.voc import best_objects
from multibox.files import atomic_write
from multibox.pages import CSS_COLORS, script_json
from multibox.report.slices import Slice

_PARTS = Path(__file__).parent / "web"

MOST_DETECTIONS = 200_000
"""Number of detections in a page at most. The slider begins where there are no more of them."""

LOWEST = 0.05
"""Threshold at which the slider begins, unless the stated one is lower or there are too many detections."""


def write_page(file: Path, page: Mapping[str, Any], *, refresh: int | None = None) -> None:
    """Writes the page, completely or not at all, since a browser may be reading it.

    Args:
        file: The file; it is replaced.
        page: What the page shows, as `web/app.js` reads it. Parts that are missing are not shown.
        refresh: Seconds after which the browser reads the file again; None for a page that is complete.
    """
    parts = {name: (_PARTS / name).read_text(encoding="utf-8") for name in ("style.css", "errors.js", "app.js")}
    again = "" if refresh is None else f'<meta http-equiv="refresh" content="{refresh}">\n'
    title = page.get("name") or page.get("dataset") or "report"
    html = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'">
{again}<link rel="icon" href="data:,">
<title>{escape(str(title))}: report</title>
<style>
{CSS_COLORS}{parts["style.css"]}</style>
<body>
<noscript>This report needs JavaScript. Its numbers are also in the files beside it.</noscript>
<script type="application/json" id="data">{script_json(page)}</script>
<script>
{parts["errors.js"]}</script>
<script>
{parts["app.js"]}</script>
</html>
"""
    with atomic_write(file) as new:
        new.write_text(html, encoding="utf-8", errors="backslashreplace", newline="\n")


def lowest_threshold(detections: Sequence[Detections], stated: float) -> float:
    """Returns the threshold at which the slider begins: `LOWEST`, or higher if there are too many detections."""
    scores = np.sort(np.concatenate([np.zeros(0), *(found.scores for found in detections)]))[::-1]
    enough = float(scores[MOST_DETECTIONS]) if len(scores) > MOST_DETECTIONS else 0.0
    return min(max(LOWEST, float(np.ceil(enough * 100) / 100)), stated)


def curve_values(curve: PrecisionRecall) -> dict[str, Any]:
    """Returns the counts of a curve for the page."""
    return {
        "true": curve.true_positives.tolist(),
        "false": curve.false_positives.tolist(),
        "objects": curve.objects,
    }


def image_values(
    dataset: Dataset,
    truths: Sequence[GroundTruth],
    detections: Sequence[Detections],
    *,
    uris: Sequence[str],
    slices: Sequence[Slice],
    lowest: float,
) -> list[dict[str, Any]]:
    """Returns what the page must know of each image to judge its detections at any threshold from `lowest` on.

    An object is `[label, counts, score, x_min, y_min, x_max, y_max, groups]`, where `score` is the highest one of a
    detection of its class that overlaps it by at least 0.5, at any score. A detection is `[label, score, match,
    object, x_min, y_min, x_max, y_max, overlaps, groups]`, where `match` is that of `match_detections`, `object` the
    one that it finds or finds again, and `overlaps` has the index of each object that counts and overlaps it by at
    least `NEAR`, followed by their overlap. The groups are those of the slices, whole images aside.
    """
    by_box = [each for each in slices if each.image_groups is None]
    ends = np.cumsum([0, *map(len, truths)]), np.cumsum([0, *map(len, detections)])
    values = []
    for index, (sample, truth, found) in enumerate(zip(dataset, truths, detections, strict=True)):
        of_objects = [each.grouping.objects[ends[0][index] : ends[0][index + 1]] for each in by_box]
        of_detections = [each.grouping.detections[ends[1][index] : ends[1][index + 1]] for each in by_box]
        values.append(
            {
                "name": sample.name,
                "width": sample.width,
                "height": sample.height,
                "image": uris[index],
                "groups": [each.image_groups[index] for each in slices if each.image_groups is not None],
                "objects": _objects(truth, found, of_objects),
                "found": _detections(truth, found, of_detections, lowest),
            }
        )
    return values


def _objects(truth: GroundTruth, found: Detections, groups: Sequence[np.ndarray]) -> list[list[Any]]:
    fits = (box_iou(found.boxes, truth.boxes) >= 0.5) & (found.labels[:, None] == truth.labels)
    best = np.where(fits, found.scores[:, None], 0.0).max(axis=0, initial=0.0)
    counts = ~(truth.difficult | truth.crowd)
    return [
        [
            int(truth.labels[i]),
            int(counts[i]),
            round(float(best[i]), 9),
            *(round(float(value), 1) for value in truth.boxes[i]),
            [int(group[i]) for group in groups],
        ]
        for i in range(len(truth))
    ]


def _detections(truth: GroundTruth, found: Detections, groups: Sequence[np.ndarray], lowest: float) -> list[list[Any]]:
    found = found[found.scores.astype(np.float64) > lowest]  # the matches of the others stay the same without them
    matches, objects = match_detections(truth, found), best_objects(truth, found, "continuous")
    overlaps = box_iou(found.boxes, truth.boxes) * ~(truth.difficult | truth.crowd)
    rows = []
    for i in range(len(found)):
        near = np.flatnonzero(overlaps[i] >= NEAR)
        # rounded down, so that no overlap reaches 0.5 by it
        pairs = [value for j in near.tolist() for value in (j, int(overlaps[i, j] * 10_000) / 10_000)]
        rows.append(
            [
                int(found.labels[i]),
                round(float(found.scores[i]), 9),
                int(matches[i]),
                int(objects[i]) if matches[i] == TP else -1,
                *(round(float(value), 1) for value in found.boxes[i]),
                pairs,
                [int(group[i]) for group in groups],
            ]
        )
    return rows
