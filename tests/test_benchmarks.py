"""Each part of the benchmarks runs, at its smallest sizes, and measures something; how much is nobody's test."""

import json
from math import isfinite

import numpy as np
import pytest
import torch

from benchmarks import distillation, voting
from benchmarks.__main__ import CPU_PARTS, GPU_PARTS, PARTS, run
from benchmarks.photographs import write_photographs
from benchmarks.timing import Comparison, Settings, compare, peak_memory
from multibox.data.synthetic import synthetic_scenes
from multibox.detector import Detector
from multibox.evaluation.evaluate import evaluate, score

SLOW_PARTS = {"presets", "detect", "network"}  # whole networks of full size


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
            assert f"| {row['name']} |" in "\n".join(shown)
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
        "| ssd256-tiny | no teacher | 2 | 9.0 | 42.0 (40.0 to 44.0) | 84.0 (80.0 to 88.0) |  |  |",
        "| ssd256-tiny | 1 | 2 | 8.0 | 44.0 (43.0 to 45.0) | 88.0 (86.0 to 90.0) | +2.0 (+1.0 to +3.0) | "
        "+4.0 (+2.0 to +6.0) |",
        "| ssd256-tiny | 2 | 1 | 7.0 | 43.0 | 86.0 | -1.0 | -2.0 |",
    ]


def test_voting_is_measured_on_the_same_outputs_and_its_drawn_sets_are_scored_as_hotcoco_would():
    detector = Detector.load("multibox/shapes")
    dataset = synthetic_scenes(10, height=128, width=128, seed=7)
    result = voting.measure(detector, dataset, rename={}, iou_thresholds=[0.45, 0.6], resamples=5)
    assert [row["iou_threshold"] for row in result["rows"]] == [0.45, 0.6]
    for row in result["rows"]:
        for merge in ("none", "weighted"):
            metrics = evaluate(detector, dataset, iou_threshold=row["iou_threshold"], merge=merge)
            assert row[merge] == {"ap": metrics.ap, "ap50": metrics.ap50, "ap75": metrics.ap75}
    assert any(row["none"] != row["weighted"] for row in result["rows"])
    assert voting.table(result).count("\n") == 4

    counts = np.array([2, 0, 1, 0, 3, 1, 0, 0, 1, 2])
    truths = [sample.truth for sample in dataset]
    again = np.repeat(np.arange(10), counts)
    expected = score(
        [truths[image] for image in again],
        [metrics.detections[image] for image in again],
        class_names=dataset.class_names,
        rule="coco",
    )
    found = voting.average_precision(voting.match(truths, metrics.detections, len(dataset.class_names)), counts)
    assert found == pytest.approx({"ap": expected.ap, "ap50": expected.ap50, "ap75": expected.ap75}, abs=1e-9)
