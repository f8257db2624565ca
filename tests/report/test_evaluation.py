"""The report of an evaluation: its tables add up, and it is written for any number of classes with any names."""

import csv
import dataclasses
import json
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from multibox.data.sample import Dataset, Sample
from multibox.data.synthetic import synthetic_scenes
from multibox.detections import Detections
from multibox.evaluation.bootstrap import compare
from multibox.evaluation.errors import count_confusions, count_kinds, find_errors
from multibox.evaluation.evaluate import score
from multibox.evaluation.metrics import Metrics
from multibox.presets import preset
from multibox.report import html, thumbnails
from multibox.report.evaluation import FALSE_KINDS, MISSED_KINDS, Other, RunHistory, write_report
from multibox.report.files import REPORT_FILES
from multibox.report.slices import make_slices
from multibox.report.thumbnails import make_thumbnails
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

    matrix = rows_of(folder / "confusion_matrix.csv")
    assert [row["object"] for row in matrix] == [*NAMES, "background"]
    false, missed = rows_of(folder / "false.csv"), rows_of(folder / "missed.csv")
    assert len(false) == metrics.false_positives
    assert len(missed) == metrics.objects - metrics.true_positives
    assert sum(int(row[name]) for row, name in zip(matrix, NAMES, strict=False)) == metrics.true_positives
    for row, (name, of_class) in zip(matrix, metrics.per_class.items(), strict=False):
        assert sum(int(row[column]) for column in [*NAMES, "background"]) == of_class["objects"]
        assert sum(each["class"] == name for each in missed) == of_class["objects"] - int(row[name])
    assert {each["error"] for each in false} <= set(FALSE_KINDS)
    assert {each["error"] for each in missed} <= set(MISSED_KINDS)
    assert {each["image"] for each in false + missed} <= {sample.name for sample in dataset}
    for each in false:
        assert 0.3 <= float(each["score"]) <= 1
        assert 0 <= float(each["best_iou"]) <= 1
        assert each["best_class"] in (*NAMES, "")
        assert float(each["x_max"]) > float(each["x_min"])
    for row, (name, of_class) in zip(
        rows_of(folder / "results.csv"), {"all classes": vars(metrics), **metrics.per_class}.items(), strict=True
    ):
        assert row.pop("class") == name
        assert row == {key: "" if of_class[key] is None else str(of_class[key]) for key in row}
    for name in ("confusion_matrix.png", "PR_curve.png", "F1_curve.png"):
        with Image.open(folder / name) as image:
            assert len(image.convert("RGB").getcolors(1 << 24)) > 50, f"{name} is blank"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Metrics, str]:
    """A report with everything: a run, another detector, default boxes. The data set, the metrics and the page."""
    folder = tmp_path_factory.mktemp("report")
    dataset, config = scenes(), preset("ssd256-tiny")
    metrics = evaluated(dataset, wrong=0.5)
    random = np.random.default_rng(1)
    found = [
        dataclasses.replace(each, default_box_indices=random.integers(0, config.num_default_boxes, len(each)))
        for each in metrics.detections
    ]
    rows = [{"step": float(step), "epoch": float(step), "ap": 0.1, "confidence": 2.0} for step in range(5)]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("draw_confusions", "draw_precision_recall", "draw_f1"):
            patch.setattr(f"multibox.report.evaluation.{name}", lambda *_: None)
        patch.setattr("multibox.report.evaluation.compare", partial(compare, resamples=10))
        write_report(
            folder,
            dataset,
            dataclasses.replace(metrics, detections=found),
            name="</script><b>",
            config=config,
            run=RunHistory(rows, "finished"),
            others=[Other("other", [each[each.scores > 0.6] for each in found])],
            facts={"speed": "3 ms"},
        )
    return dataset, metrics, (folder / "index.html").read_text(encoding="utf-8")


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    data: dict = json.loads(text)
    return data


def test_the_page_fetches_nothing_and_no_name_breaks_it(report: tuple[Dataset, Metrics, str]):
    *_, page = report
    assert "default-src 'none'" in page
    outside = re.sub(r'<script type="application/json".*?</script>', "", page, flags=re.DOTALL)
    assert not re.search(
        r"https?://(?!www\.w3\.org/2000/svg)|\bimport\b|\bfetch\(|XMLHttpRequest|url\(|<link(?! rel=.icon)", outside
    )
    assert page.count("</script>") == 3
    assert data_of(page)["name"] == "</script><b>"
    assert data_of(page)["classes"] == list(NAMES)


def test_every_number_of_the_evaluation_on_the_page_is_that_of_its_json(report: tuple[Dataset, Metrics, str]):
    dataset, metrics, page = report
    data = data_of(page)
    assert data["metrics"] == json.loads(metrics.to_json())
    assert data["threshold"] == metrics.score_threshold
    at = data["curves"]["thresholds"].index(metrics.score_threshold)
    assert data["curves"]["all"]["true"][at] == metrics.true_positives
    assert data["curves"]["all"]["false"][at] == metrics.false_positives
    for name, curve in zip(NAMES, data["curves"]["classes"], strict=True):
        assert curve["objects"] == metrics.per_class[name]["objects"]
    for each in data["slices"]:
        assert sum(group["objects"] for group in each["ap"]) == metrics.objects
        assert len(each["names"]) == len(each["ap"])
    titles = [each["title"] for each in data["slices"]]
    assert titles[:3] == ["Size after the resize", "Feature map", "Default box"]
    assert "Crowding" in titles
    (compared,) = data["comparisons"]
    assert compared["rows"][0]["before"] == pytest.approx(metrics.ap, abs=1e-9)
    assert all(image["image"].startswith("data:image/jpeg;base64,") for image in data["images"])
    assert [image["name"] for image in data["images"]] == [sample.name for sample in dataset]


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed: it runs the page's JavaScript")
def test_the_slider_counts_as_the_package_does(report: tuple[Dataset, Metrics, str], tmp_path: Path):
    """At every threshold, JavaScript finds the errors of `find_errors`, of the same kinds."""
    dataset, metrics, page = report
    thresholds = [0.3, 0.45, metrics.score_threshold, 0.6, 0.75, 0.9]
    (tmp_path / "given.json").write_text(json.dumps([data_of(page)["images"], thresholds]), encoding="utf-8")
    rules = (Path(html.__file__).parent / "web" / "errors.js").read_text(encoding="utf-8")
    (tmp_path / "run.cjs").write_text(
        f"{rules}\nconst [images, thresholds] = JSON.parse(require('fs').readFileSync('given.json'));\n"
        "console.log(JSON.stringify(thresholds.map(at => images.map(image => judge(image, at)))));",
        encoding="utf-8",
    )
    done = subprocess.run(["node", "run.cjs"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for threshold, at in zip(thresholds, json.loads(done.stdout), strict=True):
        errors = [
            find_errors(sample.truth, found, [threshold] * len(NAMES))
            for sample, found in zip(dataset, metrics.detections, strict=True)
        ]
        for image, judged in zip(errors, at, strict=True):
            assert [(each["detection"], each["kind"]) for each in judged["false"]] == [each[:2] for each in image.false]
            assert [(each["object"], each["kind"]) for each in judged["missed"]] == [each[:2] for each in image.missed]
            assert sorted(tuple(each[:2]) for each in judged["confusions"]) == sorted(image.confusions)
        if threshold == metrics.score_threshold:
            assert count_confusions(errors, len(NAMES)).trace() == metrics.true_positives
            assert sum(count_kinds(errors)[0].values()) == metrics.false_positives


def test_a_large_set_keeps_the_page_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("multibox.report.thumbnails.MOST_OPENED", 5)
    monkeypatch.setattr("multibox.report.thumbnails.MOST_BYTES", 5000)
    monkeypatch.setattr("multibox.report.html.MOST_DETECTIONS", 10)
    for name in ("draw_confusions", "draw_precision_recall", "draw_f1"):
        monkeypatch.setattr(f"multibox.report.evaluation.{name}", lambda *_: None)
    dataset = scenes()
    write_report(tmp_path, dataset, evaluated(dataset, wrong=0.5))
    data = data_of((tmp_path / "index.html").read_text(encoding="utf-8"))
    shown = [image for image in data["images"] if image["image"]]
    assert 0 < len(shown) < 5
    assert "Brightness" not in [each["title"] for each in data["slices"]]
    assert data["lowest"] <= data["threshold"]
    assert data["slices"][0]["title"] == "Size"  # without a config nothing is known of the input


def test_images_are_opened_only_for_what_the_page_shows(monkeypatch: pytest.MonkeyPatch):
    dataset, opened = scenes(), []
    open_sample = Sample.open
    monkeypatch.setattr(Sample, "open", lambda self, **how: opened.append(self.name) or open_sample(self, **how))
    monkeypatch.setattr(thumbnails, "MOST_BYTES", 1)  # enough for one copy, since the last one may go beyond it
    assert make_thumbnails(dataset, range(8)).brightness is not None
    assert len(opened) == 8
    opened.clear()
    monkeypatch.setattr(thumbnails, "MOST_OPENED", 7)
    found = make_thumbnails(dataset, range(8))
    assert (opened, found.brightness) == ([dataset[0].name], None)
    assert [bool(uri) for uri in found.uris] == [True] + [False] * 7


def test_folders_are_told_apart_whether_their_paths_are_absolute_or_relative():
    dataset = scenes()
    paths = [Path("photos/night/0.png"), Path("photos/day/1.png").absolute()] * 4
    samples = [dataclasses.replace(sample, image=path) for sample, path in zip(dataset, paths, strict=True)]
    dataset = dataclasses.replace(dataset, samples=samples)
    truths, found = [sample.truth for sample in dataset], evaluated(dataset, wrong=0.0).detections
    *_, folders = make_slices(dataset, truths, found, config=None, brightness=None)
    assert (folders.title, folders.names, folders.image_groups) == ("Folder", ("day", "night"), (1, 0) * 4)


@pytest.mark.parametrize(("classes", "wrong"), [(6, 0.0), slow(120, 0.5)])
def test_nothing_wrong_and_very_many_classes(tmp_path: Path, classes: int, wrong: float):
    dataset = scenes(tuple(f"class {number}" for number in range(classes)))
    metrics = evaluated(dataset, wrong=wrong)
    write_report(tmp_path, dataset, metrics)
    assert len(rows_of(tmp_path / "confusion_matrix.csv")) == classes + 1
    assert bool(rows_of(tmp_path / "false.csv")) == (wrong > 0)


def test_no_objects_and_no_detections(tmp_path: Path):
    empty = scenes()
    empty = dataclasses.replace(
        empty, samples=[dataclasses.replace(each, truth=each.truth[np.zeros(len(each.truth), bool)]) for each in empty]
    )
    metrics = evaluated(empty, wrong=0.0)
    with pytest.raises(ValueError, match="has no object that counts, so detectors cannot be compared on it"):
        write_report(tmp_path / "new", empty, metrics, others=[Other("other", metrics.detections)])
    assert not (tmp_path / "new").exists()
    write_report(tmp_path, empty, metrics)
    assert rows_of(tmp_path / "false.csv") == rows_of(tmp_path / "missed.csv") == []


def test_metrics_without_detections_or_of_another_set_are_refused(tmp_path: Path):
    dataset = scenes()
    metrics = evaluated(dataset, wrong=0.5)
    for other in (metrics.detections[:3], ()):
        with pytest.raises(ValueError, match=f"the detections of {len(other)} images, but .* has 8; give the result"):
            write_report(tmp_path / "out", dataset, dataclasses.replace(metrics, detections=other))
    assert not (tmp_path / "out").exists()
