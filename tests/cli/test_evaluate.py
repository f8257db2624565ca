"""Tests `multibox evaluate`: JSON and tables, the split, the rule, and classes of other names."""

import dataclasses
import json
from pathlib import Path

import pytest

from multibox.data import read_dataset
from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.data.write import write_coco, write_voc
from multibox.detector import Detector
from multibox.evaluation.evaluate import evaluate
from multibox.report.files import REPORT_FILES
from multibox.weights.converters.class_names import COCO
from tests.cli.conftest import Multibox, scenes

KEYS = {"rule", "pixels", "postprocess", "images", "objects", "ap", "ap50", "ap75", "per_class"}
RATES = ("precision", "recall", "f1", "score_threshold")


def metrics_of(out: list[str]) -> dict:
    """Returns the JSON object that is the whole output."""
    return json.loads("\n".join(out))


def test_json_is_one_object_of_fractions(multibox: Multibox, data: Path, weights: Path):
    status, out, err = multibox("evaluate", data, "--model", weights, "--json", "-")
    assert (status, err) == (0, [])
    metrics = metrics_of(out)
    assert set(metrics) >= KEYS
    truth = scenes(3, seed=2)
    assert (metrics["rule"], metrics["pixels"]) == ("coco", "continuous")
    assert metrics["images"] == 3
    assert metrics["objects"] == sum(len(sample.truth) for sample in truth)
    assert all(0 <= metrics[name] <= 1 for name in ("ap", "ap50", "ap75"))
    assert all(set(RATES) <= set(row) for row in [metrics, *metrics["per_class"].values()])
    assert "detections" not in metrics  # they are kept for Python alone
    assert list(metrics["per_class"]) == list(CLASS_NAMES)
    assert metrics["postprocess"] == {
        "score_threshold": 0.01,
        "iou_threshold": 0.5,
        "class_agnostic": False,
        "max_candidates_per_class": 400,
        "max_detections": 200,
        "merge": "none",
    }


def test_problems_stay_out_of_the_json(multibox: Multibox, data: Path, weights: Path):
    for path in sorted((data / "Annotations").glob("scene_2_*"))[:1]:
        path.write_text("<annotation>")
    status, out, err = multibox("evaluate", data, "--model", weights, "--json", "-")
    assert status == 0
    assert metrics_of(out)["images"] == 2
    assert len(err) == 2


@pytest.mark.parametrize(
    ("rule", "pixels", "measured"),
    [
        ("voc2007", None, "inclusive"),
        ("voc2010", None, "inclusive"),
        ("voc2007", "continuous", "continuous"),
        ("coco", "continuous", "continuous"),
    ],
)
def test_rules_and_pixels(multibox: Multibox, data: Path, weights: Path, rule: str, pixels: str | None, measured: str):
    command = [
        "evaluate",
        data,
        "--model",
        weights,
        "--json",
        "-",
        "--rule",
        rule,
        *(["--pixels", pixels] if pixels else []),
    ]
    metrics = metrics_of(multibox(*command).out)
    assert (metrics["rule"], metrics["pixels"]) == (rule, measured)
    if rule != "coco":
        assert metrics["ap"] == metrics["ap50"]
        assert metrics["ap75"] is None


def test_coco_has_no_last_pixel(multibox: Multibox, data: Path, weights: Path):
    status, out, err = multibox("evaluate", data, "--model", weights, "--pixels", "inclusive")
    assert (status, out, len(err)) == (2, [], 1)
    assert "no last pixel" in err[0]


def test_the_selection_is_what_is_asked_for(multibox: Multibox, data: Path, weights: Path):
    asked = ["--score", 0.05, "--iou", 0.6, "--max-detections", 7, "--class-agnostic", "--merge", "weighted"]
    asked += ["--batch-size", 2]
    metrics = metrics_of(multibox("evaluate", data, "--model", weights, "--json", "-", *asked).out)
    assert metrics["postprocess"] == {
        "score_threshold": 0.05,
        "iou_threshold": 0.6,
        "class_agnostic": True,
        "max_candidates_per_class": 400,
        "max_detections": 7,
        "merge": "weighted",
    }
    assert sum(values["detections"] for values in metrics["per_class"].values()) <= 3 * 7


def test_the_split_is_val_or_else_test_or_what_is_asked_for(
    multibox: Multibox, data: Path, weights: Path, tmp_path: Path
):
    def images(folder: Path, *split: str) -> int:
        return metrics_of(multibox("evaluate", folder, "--model", weights, "--json", "-", *split).out)["images"]

    assert [images(data), images(data, "--split", "train"), images(data, "--split", "test")] == [3, 4, 2]
    (data / "ImageSets" / "Main" / "val.txt").unlink()
    assert images(data) == 2
    (data / "ImageSets" / "Main" / "test.txt").rename(data / "ImageSets" / "Main" / "other.txt")
    status, _, err = multibox("evaluate", data, "--model", weights)
    assert (status, err) == (2, [f"multibox: --split: {data} has the splits 'train', 'other'; choose one of them"])
    status, _, err = multibox("evaluate", data, "--model", weights, "--split", "trian")
    assert (status, len(err)) == (2, 1)
    assert err[0].endswith("has no split 'trian', only 'train', 'other'; did you mean 'train'?")
    (data / "ImageSets" / "Main" / "other.txt").unlink()
    assert images(data) == 4
    (data / "ImageSets" / "Main" / "train.txt").unlink()
    assert images(data) == 9  # a set without splits
    status, _, err = multibox("evaluate", data, "--model", weights, "--split", "train")
    assert (status, len(err)) == (2, 1)
    assert f"{data} has no split 'train': 9 images, 9 VOC XML files, no split; leave it out to take all" in err[0]
    write_coco({name: scenes(1, seed=4) for name in ("train2017", "val2017")}, tmp_path / "coco")
    assert images(tmp_path / "coco") == 1


def test_tables_for_people(multibox: Multibox, data: Path, weights: Path):
    status, out, err = multibox("evaluate", data, "--model", weights)
    assert (status, err) == (0, [])
    assert out[0].startswith(f"{data}, val: 3 images, ")
    assert out[0].endswith("rule coco, pixels continuous")
    for name in ("all classes", "AP50", "AP75", *CLASS_NAMES):
        assert any(name in line for line in out)
    assert not any("AP75" in line for line in multibox("evaluate", data, "--model", weights, "--rule", "voc2007").out)


def test_the_table_has_precision_recall_f1_and_threshold_in_percent(
    multibox: Multibox, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = "multibox/shapes"
    metrics = evaluate(Detector.load(model), read_dataset(data, split="val"))
    status, out, _ = multibox("evaluate", data, "--model", model)
    assert status == 0
    assert max(map(len, out[1:])) <= 80  # the first line has the path
    head = next(line for line in out if line.startswith("class "))
    columns = ["class", "AP", "AP50", "objects", "found", "false", "precision", "recall", "F1", "threshold"]
    assert head.split() == columns
    table = {" ".join(line.split()[:-9]): line.split()[-9:] for line in out}
    for name, row in {"all classes": vars(metrics), **metrics.per_class}.items():
        known = row["score_threshold"] is not None
        rates = [f"{100 * row[rate]:.1f}" if row[rate] is not None else "-" for rate in RATES[:3]]
        line = table[name][2:]
        assert line == [
            str(row["objects"]),
            *([str(row["true_positives"]), str(row["false_positives"])] if known else ["-", "-"]),
            *rates,
            f"{row['score_threshold']:.2f}" if known else "-",
        ]
        assert all(len(cell) == 1 or 0 <= float(cell) <= 100 for cell in line[3:6])


def test_out_leaves_a_report_and_overwrites_nothing(multibox: Multibox, data: Path, weights: Path, tmp_path: Path):
    out = tmp_path / "a report"
    command = ["evaluate", data, "--model", weights, "--score", 0.15, "--max-detections", 5, "--out", out]
    status, lines, err = multibox(*command)
    assert (status, err) == (0, [f"report: {out / 'index.html'}"])
    assert {path.name for path in out.iterdir()} == set(REPORT_FILES)
    metrics = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["postprocess"]["max_detections"] == 5
    images = {line.split(",")[0] for line in (out / "missed.csv").read_text(encoding="utf-8").splitlines()[1:]}
    assert images <= {str(path) for path in (data / "JPEGImages").iterdir()}
    before = {path: path.read_bytes() for path in out.iterdir()}
    status, lines, err = multibox(*command)
    assert (status, lines, len(err)) == (1, [], 1)
    assert (
        "index.html is there already, and 8 more of the files to write; choose another name, or --overwrite" in err[0]
    )
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert multibox(*command, "--overwrite", "--json", "-").status == 0
    status, lines, err = multibox(*command, "--overwrite", "--json", out / "metrics.json")
    assert (status, lines, len(err)) == (2, [], 1)
    assert "metrics.json is named twice for what the command writes" in err[0]


def test_the_detector_runs_once_for_numbers_and_report(
    multibox: Multibox, data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    runs = []
    detect = Detector.detect
    monkeypatch.setattr(
        Detector, "detect", lambda self, *args, **kwargs: runs.append(1) or detect(self, *args, **kwargs)
    )
    assert multibox("evaluate", data, "--model", weights, "--out", tmp_path / "out").status == 0
    assert len(runs) == 1


def test_out_that_cannot_be_written_is_said_before_the_work(
    multibox: Multibox, data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Detector, "load", None)
    (tmp_path / "file").write_text("not a folder")
    status, out, err = multibox("evaluate", data, "--model", weights, "--out", tmp_path / "file")
    assert (status, out, len(err)) == (1, [], 1)
    assert err[0].endswith(f"{tmp_path / 'file'} is a file, not a folder; choose another folder")
    for inside in (data, data / "JPEGImages", data / "new"):
        status, out, err = multibox("evaluate", data, "--model", weights, "--out", inside)
        assert (status, out, len(err)) == (2, [], 1)
        assert f"--out {inside} is in the data set" in err[0]


def test_class_names_that_look_like_markup(multibox: Multibox, weights: Path, tmp_path: Path):
    names = ("[bold]circle", "[/x]", ":cat:", *CLASS_NAMES[3:])
    drawn = synthetic_scenes(2, seed=2, height=64, width=96)
    write_coco({"val": dataclasses.replace(drawn, class_names=names)}, tmp_path / "coco")
    Detector.create("ssd256-tiny", names, seed=0).save(tmp_path / "it.safetensors")
    status, out, _ = multibox("evaluate", tmp_path / "coco", "--model", tmp_path / "it.safetensors")
    assert status == 0
    assert all(any(line.startswith(name) for line in out) for name in names)


def test_renamed_classes(multibox: Multibox, data: Path, tmp_path: Path):
    others = ["disc", "box", *CLASS_NAMES[2:5], "dog"]
    Detector.create("ssd256-tiny", others, seed=0).save(model := tmp_path / "other.safetensors")
    status, out, err = multibox("evaluate", data, "--model", model)
    assert (status, out, len(err)) == (1, [], 1)
    assert "my scenes, val has classes that the detector does not know: 'circle', 'rectangle', 'cross'; map" in err[0]
    assert "--rename" in err[0]
    renamed = ["--rename", "disc=circle", "--rename", "box=rectangle", "--rename", "dog=cross"]
    assert metrics_of(multibox("evaluate", data, "--model", model, "--json", "-", *renamed).out)["images"] == 3
    for wrong, status, said in (
        ("disc", 2, "takes OLD=NEW, a file of such lines, or coco-to-voc; 'disc' is none of them"),
        ("=circle", 2, "takes OLD=NEW"),
        ("disk=circle", 2, "did you mean 'disc'?"),
        ("disc=cirle", 2, "did you mean 'circle'?"),
    ):
        result = multibox("evaluate", data, "--model", model, "--rename", wrong)
        assert (result.status, result.out, len(result.err)) == (status, [], 1)
        assert said in result.err[0]


def test_classes_renamed_by_a_file(multibox: Multibox, data: Path, tmp_path: Path):
    others = ["disc", "box", *CLASS_NAMES[2:5], "dog"]
    Detector.create("ssd256-tiny", others, seed=0).save(model := tmp_path / "other.safetensors")
    names = tmp_path / "names.txt"
    names.write_text("\ufeff# ours=theirs\n\ndisc=circle\n  box = rectangle\r\ndog=triangle\n", encoding="utf-8")
    rest = ["--rename", "dog=cross"]  # what comes last counts
    by_file = multibox("evaluate", data, "--model", model, "--json", "-", "--rename", names, *rest)
    pairs = ["--rename", "disc=circle", "--rename", "box=rectangle"]
    assert by_file.status == 0
    assert by_file.out == multibox("evaluate", data, "--model", model, "--json", "-", *pairs, *rest).out
    for text, said in (
        (b"disc=circle\nbox\n", "names.txt, line 2: 'box' is not of the form OLD=NEW"),
        (b"disc=circle\n=circle\n", "names.txt, line 2: '=circle' is not"),
        (b"disc=circle\ndisc=cross\n", "line 2: 'disc' becomes 'cross', but was 'circle' above"),
        (b"disc=\xff\n", "names.txt: not a text file in UTF-8"),
    ):
        names.write_bytes(text)
        result = multibox("evaluate", data, "--model", model, "--rename", names)
        assert (result.status, result.out, len(result.err)) == (1, [], 1)
        assert said in result.err[0]


def test_coco_classes_meet_voc(multibox: Multibox, tmp_path: Path):
    drawn = synthetic_scenes(2, seed=2, height=64, width=96)
    names = ("aeroplane", "tvmonitor", "diningtable", "motorbike", "sofa", "pottedplant")
    write_voc({"val": dataclasses.replace(drawn, class_names=names)}, tmp_path / "voc")
    Detector.create("ssd256-tiny", COCO, seed=0).save(model := tmp_path / "coco.safetensors")
    command = ["evaluate", tmp_path / "voc", "--model", model, "--json", "-"]
    assert multibox(*command).status == 1
    metrics = metrics_of(multibox(*command, "--rename", "coco-to-voc").out)
    assert sorted(metrics["per_class"]) == sorted(names)
    assert len(metrics["ignored_classes"]) == 80 - 6


def test_classes_that_the_data_does_not_name_are_said(multibox: Multibox, data: Path, tmp_path: Path):
    Detector.create("ssd256-tiny", [*CLASS_NAMES, "dog"], seed=0).save(model := tmp_path / "more.safetensors")
    status, out, err = multibox("evaluate", data, "--model", model, "--json", "-")
    assert status == 0
    assert metrics_of(out)["ignored_classes"] == ["dog"]
    assert err == [f"left out, because {data}, val does not name them: dog"]


def test_layouts_give_the_same_numbers(multibox: Multibox, data: Path, weights: Path, tmp_path: Path):
    write_coco({"val": scenes(3, seed=2)}, tmp_path / "coco")
    write_voc({"val": scenes(3, seed=2)}, tmp_path / "voc")
    first, second = (
        metrics_of(multibox("evaluate", tmp_path / layout, "--model", weights, "--json", "-").out)
        for layout in ("coco", "voc")
    )
    assert first == second
