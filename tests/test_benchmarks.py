"""Each part of the benchmarks runs, at its smallest sizes, and measures something; how much is nobody's test."""

import json
import time
from dataclasses import replace
from math import isfinite

import numpy as np
import pytest
import torch

from benchmarks import distillation, exported, fitted_boxes, localization, runs, side_by_side, starts, voting
from benchmarks.__main__ import CPU_PARTS, GPU_PARTS, PARTS, run
from benchmarks.cpu_clock import cpu_clock
from benchmarks.timing import Comparison, Settings, compare, peak_memory
from multibox.benchmark.photographs import write_photographs
from multibox.benchmark.run import Variant
from multibox.data.sample import Dataset, GroundTruth, Sample
from multibox.data.synthetic import synthetic_scenes
from multibox.data.write import write_voc
from multibox.detector import Detector
from multibox.evaluation.evaluate import evaluate
from multibox.ssd.backbones import BACKBONES
from multibox.ssd.backbones.tiny import tiny
from multibox.ssd.coder import BoxCoder

SLOW_PARTS = {"presets", "detect", "freezing", "step"}  # whole networks of full size


@pytest.mark.parametrize(
    "part", [pytest.param(part, marks=[pytest.mark.slow] if part in SLOW_PARTS else []) for part in CPU_PARTS]
)
def test_a_part_measures_all_its_variants(part):
    shown = []
    measured = json.loads(json.dumps(run([part], Settings(quick=True), show=shown.append), allow_nan=False))
    comparisons = measured["parts"][part]
    assert comparisons
    for comparison in comparisons:
        assert len(comparison["rows"]) >= 2
        assert any("multibox" in row["name"] or row["name"] == "ssd256-tiny" for row in comparison["rows"])
        for row in comparison["rows"]:
            assert isfinite(row["median_seconds"]) and row["median_seconds"] > 0
            assert f"| {row['name']} " in "\n".join(shown)
    assert measured["machine"]["threads"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("part", GPU_PARTS)
def test_what_is_for_a_gpu_runs_in_small_on_a_cpu(part):
    for result in run([part], Settings(quick=True), show=lambda text: None)["parts"][part]:
        times = [row.get("median_seconds") or row["step_seconds"] for row in result.get("rows") or result["parts"]]
        assert len(times) == 2
        assert all(isfinite(time) and time > 0 for time in times)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_a_part_for_one_says_so():
    with pytest.raises(ValueError, match=r"gpu-training: needs a CUDA device, but torch .* sees none here"):
        run(["gpu-training"], Settings(device="cuda"), show=print)


def test_the_parts_have_different_names():
    assert len(PARTS) == len(CPU_PARTS) + len(GPU_PARTS)


def test_variants_take_turns_and_the_first_is_the_reference():
    calls: list[str] = []
    variants = {"slow": lambda: calls.append("slow") or sum(range(300_000)), "quick": lambda: calls.append("quick")}
    found = compare("Work", variants, Settings(rounds=3), rounds=9, warm_up=1, units=2, images=4).values()
    assert calls == ["slow", "quick"] * 4
    slow, quick = found["rows"]
    assert (slow["times_as_fast"], slow["rounds"]) == (1, 3)
    assert quick["times_as_fast"] > 1
    assert slow["images_per_second"] == pytest.approx(4 / slow["median_seconds"])


def test_a_comparison_that_did_not_fit_says_why():
    assert Comparison("Training", "batch", 4, "wall time", (), ("Not measured: no memory",)).markdown() == (
        "Training: Not measured: no memory\n"
    )


def test_peak_memory_is_what_is_held_at_once():
    def run():
        one = torch.ones(2**18)  # a MiB
        two = one + 1
        del one
        return two * 2

    assert peak_memory(run, device="cpu") == pytest.approx(2, abs=0.1)


def test_photographs_depend_on_their_seed_and_number_only(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = write_photographs(tmp_path / "one", 2, seed=3), write_photographs(tmp_path / "other", 1, seed=3)
    assert one[0].image.read_bytes() == other[0].image.read_bytes() != one[1].image.read_bytes()
    assert one[0].open().size == (500, 375)
    assert (one[0].truth.boxes[:, 2:] <= [500, 375]).all()


def test_the_table_of_distillation_pairs_the_runs_of_a_seed(tmp_path, capsys):
    for weight, seed, ap in [(0.0, 0, 0.40), (0.0, 1, 0.44), (1.0, 0, 0.43), (1.0, 1, 0.45), (2.0, 1, 0.43)]:
        result = {
            "task": "cells, 10 min",
            "model": "ssd256-tiny",
            "weight": weight,
            "seed": seed,
            "ap": ap,
            "ap50": 2 * ap,
            "epochs": 9 - weight,
        }
        (tmp_path / f"ssd256-tiny-weight-{weight:g}-seed-{seed}.json").write_text(json.dumps(result))
    distillation.main(["table", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[2:] == [
        "| cells, 10 min | ssd256-tiny | no teacher | 2 | 9.0 | 42.0 (40.0 to 44.0) | 84.0 (80.0 to 88.0) |  |  |",
        "| cells, 10 min | ssd256-tiny | 1 | 2 | 8.0 | 44.0 (43.0 to 45.0) | 88.0 (86.0 to 90.0) | +2.0 (+1.0 to +3.0) "
        "| +4.0 (+2.0 to +6.0) |",
        "| cells, 10 min | ssd256-tiny | 2 | 1 | 7.0 | 43.0 | 86.0 | -1.0 | -2.0 |",
    ]


def test_voting_is_measured_on_the_same_outputs():
    detector = Detector.load("multibox/shapes")
    dataset = synthetic_scenes(10, height=128, width=128, seed=7)
    result = voting.measure(detector, dataset, rename={}, iou_thresholds=[0.45, 0.6], resamples=5)
    assert [row["iou_threshold"] for row in result["rows"]] == [0.45, 0.6]
    for row in result["rows"]:
        for merge, side in (("none", "before"), ("weighted", "after")):
            metrics = evaluate(detector, dataset, iou_threshold=row["iou_threshold"], merge=merge)
            for name in ("ap", "ap50", "ap75"):
                assert row[name][side] == pytest.approx(getattr(metrics, name), abs=1e-9)
    assert any(row["ap"]["before"] != row["ap"]["after"] for row in result["rows"])
    assert voting.table(result).count("\n") == 4


def test_exported_files_are_scored_beside_their_network(tmp_path):
    detector = Detector.load("multibox/shapes")
    detector.save(tmp_path / "it.safetensors")
    variants = [Variant(name, tmp_path / "it.safetensors") for name in ("torch", "again")]
    dataset = synthetic_scenes(4, height=128, width=128, seed=7)
    first, second = exported.score_all(variants, dataset, {})
    assert first["ap50"] == pytest.approx(evaluate(detector, dataset).ap50, abs=1e-9)
    assert {**second, "name": "torch"} == first and first["ap50_difference"].startswith("+0.00")


def test_localization_losses_of_a_threshold_and_weight_of_one_are_the_papers():
    torch.manual_seed(0)
    offsets, targets, boxes = torch.randn(3, 50, 4, dtype=torch.float64)
    boxes = boxes.sigmoid() + 0.1
    coder = BoxCoder(0.1, 0.2)
    paper = torch.nn.functional.smooth_l1_loss(offsets, targets, reduction="sum")
    for variant, factor in (("weight-1", 1), ("weight-4", 4), ("beta-1", 1)):
        found = localization.distance_of(variant, coder)(offsets, targets, boxes)
        torch.testing.assert_close(found, factor * paper)
    ciou = localization.distance_of("ciou-16", coder)
    assert ciou(targets, targets, boxes) < 1e-3 < ciou(offsets, targets, boxes)
    assert localization.distance_of("smooth-l1", coder) is localization.distance_of("neck", coder) is None


def test_a_neck_that_starts_at_zero_changes_nothing():
    backbone = tiny()
    inputs = torch.randn(1, 3, 64, 64)
    expected = {name: values.clone() for name, values in backbone.network.eval()(inputs).items()}
    found = localization.Neck(backbone).eval()(inputs)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
def test_localization_losses_are_trained_and_compared(tmp_path, capsys):
    sets = {name: synthetic_scenes(4, height=64, width=64, seed=seed) for seed, name in enumerate(("train", "val"))}
    write_voc(sets, tmp_path / "scenes")
    paper = localization.cpu.multibox_loss
    run = ["run", "--data", str(tmp_path / "scenes"), "--epochs", "1", "--seeds", "0", "--resamples", "3"]
    for _ in range(2):  # the second call finds all results
        localization.main([*run, "--variants", "ciou-5", "neck", "--out", str(tmp_path / "out")])
        lines = capsys.readouterr().out.splitlines()
        assert sorted(line.split(" | ")[2] for line in lines if line.startswith("| scenes")) == [
            "ciou-5",
            "neck",
            "smooth-l1",
        ]
    assert len(list((tmp_path / "out").glob("*.npz"))) == 3
    assert localization.cpu.multibox_loss is paper and "tiny-neck" not in BACKBONES


MACHINE = {"cpu": "a CPU", "cpu_capability": "AVX2", "threads": 1, "commit": "abc", "versions": {"torch": "2.15.0"}}


def test_evenly_spaced_images_are_different_and_cover_the_set():
    dataset = synthetic_scenes(10, height=64, width=64, seed=7)
    for images in range(1, 11):
        chosen = [sample.image_id for sample in runs.some(dataset, images)]
        assert chosen == sorted(set(chosen))
        assert len(chosen) == images
        gaps = np.diff([*chosen, chosen[0] + 10])
        assert max(gaps) - min(gaps) <= 1
    assert len(runs.some(dataset, None)) == len(runs.some(dataset, 11)) == 10


def test_a_task_of_some_classes_has_their_objects_alone_and_as_many_images_without():
    labels = [[0, 2], [1], [2, 1, 2], [], [0], [1, 1], [2]]
    samples = [
        Sample(
            f"{number}.png",
            np.zeros((3, 9, 9), np.uint8),
            9,
            9,
            GroundTruth([[1, 2, 3 + k, 4]] * len(k_s), k_s),
            number,
        )
        for number, k_s in enumerate(labels)
        for k in [number % 3]
    ]
    dataset = runs.only_classes(Dataset("three", ("cat", "cow", "dog"), samples), ["dog", "cat"])
    assert dataset.class_names == ("dog", "cat")
    assert [sample.truth.labels.tolist() for sample in dataset] == [[1, 0], [], [0, 0], [], [1], [], [0]]
    assert [len(sample.truth.boxes) for sample in dataset] == [2, 0, 2, 0, 1, 0, 1]
    assert [sample.image_id for sample in runs.with_objects(dataset)] == [0, 2, 4, 6]
    assert len(runs.with_as_many_empty(dataset)) == 7  # there are only three
    dogs = runs.only_classes(dataset, ["cat"])
    chosen = runs.with_as_many_empty(dogs)
    assert [sample.image_id for sample in chosen] == [sample.image_id for sample in runs.with_as_many_empty(dogs)]
    assert sum(len(sample.truth) > 0 for sample in chosen) == 2
    assert len(chosen) == 4
    with pytest.raises(SystemExit, match="three has no class horse, only cat"):
        runs.only_classes(Dataset("three", ("cat",), []), ["horse"])


def test_a_benchmark_for_one_core_refuses_two(monkeypatch):
    monkeypatch.setattr(runs.os, "sched_getaffinity", lambda process: {0, 1}, raising=False)
    with pytest.raises(SystemExit, match="may use 2 cores, but its minutes are for one"):
        runs.use_one_core()


def test_the_cpu_clock_stands_still_while_the_process_waits():
    clocks = [time.time, time.monotonic, time.perf_counter]
    with cpu_clock():
        before = [time.time(), time.monotonic(), time.perf_counter()]
        time.sleep(0.5)
        after = [time.time(), time.monotonic(), time.perf_counter()]
        while time.process_time() < before[1] + 0.1:
            pass
        later = [time.time(), time.monotonic(), time.perf_counter()]
    assert all(stop - start < 0.1 for start, stop in zip(before, after, strict=True))
    assert all(stop - start >= 0.099 for start, stop in zip(before, later, strict=True))
    assert clocks == [time.time, time.monotonic, time.perf_counter]


def test_the_table_of_starts_has_a_row_for_each_label_and_columns_for_each_time(tmp_path, capsys):
    rows = [("new", 2, 0, 0.1), ("new", 2, 1, 0.2), ("new", 10, 0, 0.3), ("imagenet", 10, 0, 0.4)]
    for label, minutes, seed, ap in rows:
        result = {"task": "BCCD", "label": label, "minutes": minutes, "seed": seed, "ap": ap, "ap50": 2 * ap}
        result |= {"images_per_second": 10 * minutes, "epochs": minutes} | MACHINE
        runs.write_result(tmp_path / f"{label}-{minutes}-{seed}.json", result)
    starts.main(["table", str(tmp_path)])
    assert capsys.readouterr().out.splitlines() == [
        "",
        "| BCCD | seeds | images/s | epochs | 2 min: AP50 | 2 min: AP | 10 min: AP50 | 10 min: AP |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| imagenet | 1 | 100.0 | 10.0 |  |  | 80.0 | 40.0 |",
        "| new | 1 | 100.0 | 10.0 | 30.0 (20.0 to 40.0) | 15.0 (10.0 to 20.0) | 60.0 | 30.0 |",
        "",
        "a CPU (AVX2), threads: 1, commit abc, torch 2.15.0",
    ]


def test_the_table_of_fitted_boxes_pairs_the_runs_of_a_seed(tmp_path, capsys):
    for boxes, seed, ap in [("the preset's", 0, 0.1), ("the preset's", 1, 0.3), ("fitted", 0, 0.2), ("fitted", 1, 0.3)]:
        result = {"task": "cells", "boxes": boxes, "minutes": 10, "seed": seed, "ap": ap, "ap50": 2 * ap, "epochs": 3}
        result |= {"images_per_second": 20, "default_boxes": 6132, "test": {"overlap": 0.5, "recall": 0.75}} | MACHINE
        runs.write_result(tmp_path / f"{boxes}-{seed}.json", result)
    fitted_boxes.main(["table", str(tmp_path)])
    assert [line.split(" | ", 2)[2] for line in capsys.readouterr().out.splitlines()[2:4]] == [
        "the preset's | 6,132 | 50.0 | 75.0 | 2 | 20.0 | 3.0 | 40.0 (20.0 to 60.0) | 20.0 (10.0 to 30.0) |  |  |",
        "fitted | 6,132 | 50.0 | 75.0 | 2 | 20.0 | 3.0 | 50.0 (40.0 to 60.0) | 25.0 (20.0 to 30.0) | "
        "+10.0 (+0.0 to +20.0) | +5.0 (+0.0 to +10.0) |",
    ]


@pytest.mark.slow
def test_fitted_boxes_are_trained_beside_the_presets_and_not_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "use_one_core", lambda: None)
    train_set, test_set = (synthetic_scenes(12, height=96, width=96, seed=seed) for seed in (1, 2))
    write_voc({"train": train_set, "test": with_other_names(test_set)}, tmp_path / "data")
    given = [
        "run",
        "--data",
        str(tmp_path / "data"),
        "--minutes",
        "0.02",
        "--seeds",
        "0",
        "--out",
        str(tmp_path / "out"),
    ]
    for _ in range(2):
        fitted_boxes.main(given)
    results = runs.read_results([tmp_path / "out"])
    assert sorted(each["boxes"] for each in results) == ["fitted", "the preset's"]
    fitted, plain = sorted(results, key=lambda each: each["boxes"])
    assert fitted["default_boxes"] <= plain["default_boxes"]
    assert fitted["train"]["overlap"] > plain["train"]["overlap"]


def test_the_side_by_side_table_has_the_detectors_in_their_order(tmp_path, capsys):
    for who, seed, ap in [("yolo11n", 0, 0.1), ("ssd256-tiny", 0, 0.2), ("ssd256-tiny", 1, 0.3)]:
        result = {"task": "BCCD", "who": who, "minutes": 10, "seed": seed, "ap": ap, "ap50": 2 * ap, "epochs": 3 + seed}
        result |= {"images_per_second": 20, "median_ms": 12.34, "trained_minutes": 10.1} | MACHINE
        runs.write_result(tmp_path / f"{who}-{seed}.json", result)
    side_by_side.main(["table", str(tmp_path)])
    assert capsys.readouterr().out.splitlines()[1:5] == [
        "| BCCD, 10 min | AP50 | AP | seeds | minutes taken | images/s | epochs | CPU ms an image |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| ssd256-tiny | 50.0 (40.0 to 60.0) | 25.0 (20.0 to 30.0) | 2 | 10.1 | 20.0 | 3.5 | 12.3 |",
        "| yolo11n | 20.0 | 10.0 | 1 | 10.1 | 20.0 | 3.0 | 12.3 |",
    ]


def test_saved_detections_are_scored_as_evaluate_scores_the_detector(tmp_path):
    detector = Detector.load("multibox/shapes")
    dataset = synthetic_scenes(6, height=128, width=128, seed=3)
    metrics = evaluate(detector, dataset, score_threshold=0.001, max_detections=300)
    found = {
        sample.name: {"boxes": one.boxes.tolist(), "scores": one.scores.tolist(), "labels": one.labels.tolist()}
        for sample, one in zip(dataset, metrics.detections, strict=True)
    }
    expected = {"ap": metrics.ap, "ap50": metrics.ap50, "ap75": metrics.ap75}
    assert side_by_side.scores(found, dataset) == pytest.approx(expected, abs=1e-9)
    del found[dataset[2].name]
    with pytest.raises(KeyError):
        side_by_side.scores(found, dataset)


def test_a_yolo_needs_an_environment_and_its_weights(tmp_path, capsys):
    for who, missing in [("yolo11n", "--peer-python"), ("yolo11n-coco", "--peer-python")]:
        with pytest.raises(SystemExit):
            side_by_side.main(["run", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--who", who])
        assert f"{who} needs {missing}" in capsys.readouterr().err
    python = tmp_path / "python"
    python.touch()
    with pytest.raises(SystemExit):
        side_by_side.main(["run", "--data", "x", "--out", "y", "--who", "yolo11n-coco", "--peer-python", str(python)])
    assert "yolo11n-coco needs --weights, a file such as yolo11n.pt, not None" in capsys.readouterr().err


@pytest.mark.slow
def test_detectors_are_trained_side_by_side_and_not_again(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "use_one_core", lambda: None)
    threads = torch.get_num_threads()
    train_set, test_set = (synthetic_scenes(12, height=96, width=96, seed=seed) for seed in (1, 2))
    write_voc({"train": train_set, "test": with_other_names(test_set)}, tmp_path / "data")
    given = ["--data", str(tmp_path / "data"), "--minutes", "0.02", "--seeds", "0", "--out", str(tmp_path / "out")]
    try:
        side_by_side.main(["run", *given, "--who", "ssd256-tiny", "ssdlite320"])
        first = capsys.readouterr().out
        side_by_side.main(["run", *given, "--who", "ssd256-tiny", "ssdlite320"])
        starts.main(["run", *given, "--model", "multibox/shapes", "--classes", "circle", "--out", str(tmp_path / "o")])
    finally:
        torch.set_num_threads(threads)
    second = capsys.readouterr().out
    assert "..." in first
    assert "..." not in second
    assert first.splitlines()[-7:] == second.splitlines()[1:8]
    results = runs.read_results([tmp_path / "out", tmp_path / "o"])
    assert len(results) == 3
    for result in results:
        assert result["epochs"] > 0
        assert result["ap"] >= 0
        assert result["trained_minutes"] < 1


def with_other_names(dataset):
    return replace(dataset, samples=[replace(sample, name=f"test-{sample.name}") for sample in dataset])
