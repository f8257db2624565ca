"""The report of an evaluation: its tables add up, and it is written for any number of classes with any names."""

import csv
import dataclasses
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multibox.data.sample import Dataset
from multibox.data.synthetic import synthetic_scenes
from multibox.detections import Detections
from multibox.evaluation.evaluate import score
from multibox.evaluation.metrics import Metrics
from multibox.report.evaluation import FALSE_KINDS, MISSED_KINDS, REPORT_FILES, write_report
from tests.slow import slow

NAMES = ("кот", "_hid$den$", "<b>&x", 'a, "b"', "[/x]", "x" * 60)


def scenes(names: tuple[str, ...] = NAMES) -> Dataset:
    return dataclasses.replace(synthetic_scenes(8, seed=2, height=96, width=128), class_names=names)


def evaluated(dataset: Dataset, *, wrong: float) -> Metrics:
    """Metrics of detections near the objects, a share of which has another class or place."""
    random = np.random.default_rng(0)
    found = []
    for sample in dataset:
        truth = sample.truth
        moved = np.where(random.random((len(truth), 1)) < wrong, random.normal(0, 15, (len(truth), 2)), 0)
        boxes = (truth.boxes + np.tile(moved, 2)).astype(np.float32)
        others = random.integers(0, len(dataset.class_names), len(truth))
        labels = np.where(random.random(len(truth)) < wrong, others, truth.labels)
        scores = random.uniform(0.3, 1, len(truth)).astype(np.float32)
        found.append(Detections(boxes, scores, labels, np.full(len(truth), -1), dataset.class_names))
    truths = [sample.truth for sample in dataset]
    return dataclasses.replace(
        score(truths, found, class_names=dataset.class_names, rule="coco", score_threshold=0.01), detections=found
    )


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("default:no font on this machine")
def test_the_tables_add_up(tmp_path: Path):
    dataset = scenes()
    metrics = evaluated(dataset, wrong=0.4)
    done = []
    write_report(tmp_path / "new" / "report", dataset, metrics, on_progress=lambda *progress: done.append(progress))
    folder = tmp_path / "new" / "report"
    assert sorted(path.name for path in folder.iterdir()) == sorted(REPORT_FILES)
    assert done == [(number, 8) for number in range(1, 9)]
    assert (folder / "metrics.json").read_text(encoding="utf-8") == metrics.to_json() + "\n"

    matrix = rows_of(folder / "confusion.csv")
    assert [row["object"] for row in matrix] == [*NAMES, "background"]
    false, missed = rows_of(folder / "false.csv"), rows_of(folder / "missed.csv")
    assert false and missed
    for row, (name, of_class) in zip(matrix, metrics.per_class.items(), strict=False):
        assert sum(int(row[column]) for column in [*NAMES, "background"]) == of_class["objects"]
        if of_class["score_threshold"] is not None:
            assert int(row[name]) == of_class["true_positives"]
            assert sum(each["class"] == name for each in false) == of_class["false_positives"]
        assert sum(each["class"] == name for each in missed) == of_class["objects"] - int(row[name])
    assert {each["error"] for each in false} <= set(FALSE_KINDS)
    assert {each["error"] for each in missed} <= set(MISSED_KINDS)
    assert {each["image"] for each in false + missed} <= {sample.name for sample in dataset}
    for each in false:
        assert 0.3 <= float(each["score"]) <= 1
        assert 0 <= float(each["best_iou"]) <= 1
        assert each["best_class"] in (*NAMES, "")
        assert float(each["x_max"]) > float(each["x_min"])

    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;&amp;x" in page and "<b>&x" not in page
    assert set(re.findall(r'(?:href|src)="([^"]+)"', page)) == set(REPORT_FILES)
    kinds = Counter(each["error"] for each in false)
    assert all(f"<td>{kind}<td>{kinds[kind]}<td>" in page for kind in FALSE_KINDS)
    for name in ("confusion.png", "precision-recall.png", "f1.png", "worst.jpg"):
        with Image.open(folder / name) as image:
            assert len(image.convert("RGB").getcolors(1 << 24)) > 50, f"{name} is blank"


@pytest.mark.parametrize(("classes", "wrong"), [(6, 0.0), slow(120, 0.5)])
def test_nothing_wrong_and_very_many_classes(tmp_path: Path, classes: int, wrong: float):
    dataset = scenes(tuple(f"class {number}" for number in range(classes)))
    metrics = evaluated(dataset, wrong=wrong)
    write_report(tmp_path, dataset, metrics)
    assert len(rows_of(tmp_path / "confusion.csv")) == classes + 1
    assert bool(rows_of(tmp_path / "false.csv")) == (wrong > 0)


def test_no_objects_and_no_detections(tmp_path: Path):
    empty = scenes()
    empty = dataclasses.replace(
        empty, samples=[dataclasses.replace(each, truth=each.truth[np.zeros(len(each.truth), bool)]) for each in empty]
    )
    write_report(tmp_path, empty, evaluated(empty, wrong=0.0))
    assert rows_of(tmp_path / "false.csv") == rows_of(tmp_path / "missed.csv") == []


def test_metrics_without_detections_or_of_another_set_are_refused(tmp_path: Path):
    dataset = scenes()
    metrics = evaluated(dataset, wrong=0.5)
    for other in (metrics.detections[:3], ()):
        with pytest.raises(ValueError, match=f"the detections of {len(other)} images, but .* has 8; give the result"):
            write_report(tmp_path / "out", dataset, dataclasses.replace(metrics, detections=other))
    assert not (tmp_path / "out").exists()
