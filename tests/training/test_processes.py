"""Two processes on a CPU learn what one does from the same images, and stop, fail and go on together."""

import csv
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from multibox.data.synthetic import synthetic_scenes
from multibox.data.write import write_voc
from multibox.training.state import Checkpoints
from tests.training import in_processes
from tests.training.in_processes import NAN_AT, RUNS, TRAIN, Ran

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="torchrun's gloo is tried on POSIX only"),
]

HERE = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
FLOAT = {"rtol": 1e-3, "atol": 1e-5}
"""Sums of single precision in another order, carried through twenty steps."""
ALIKE = ("plain", "odd batch", "accumulated", "without objects", "few images")


def torchrun(*command):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run([*TORCHRUN, *map(str, command)], env=environment, capture_output=True, text=True, timeout=300)


def half_a_run(out):
    return in_processes.run(out, TRAIN, in_processes.VAL, in_processes.HALVES, stop_at=3)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """`one(name)` is the folder of a run in this process, and what it did."""
    folder, done = tmp_path_factory.mktemp("one"), {}

    def ran(name):
        if name not in done:
            done[name] = RUNS[name](folder / name)
        return folder / name, done[name]

    return ran


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """`two(name)` is the folder of a run in two processes, and what each did. One start of torchrun does them all."""
    folder = tmp_path_factory.mktemp("two")
    half_a_run(folder / "taken up")
    (folder / "damaged").mkdir()
    (folder / "damaged" / "last.pt").write_bytes(b"torn")
    done = torchrun(HERE / "in_processes.py", folder)
    assert done.returncode == 0, done.stderr[-4000:]
    results = [torch.load(folder / f"process-{rank}.pt", weights_only=False) for rank in range(2)]
    return lambda name: (folder / name, [Ran(**result[name]) for result in results])


def rows(out):
    """The rows of the validations."""
    with (out / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["ap"]]


def assert_close_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], **FLOAT, msg=lambda said, name=name: f"{name}: {said}")


@pytest.mark.parametrize("name", ALIKE)
def test_two_processes_learn_what_one_does(one, two, name):
    (out, alone), (shared, together) = one(name), two(name)
    assert alone.error == ""
    for ran in together:
        assert ran.error == ""
        assert len(ran.losses) == 20
        np.testing.assert_allclose(ran.losses, alone.losses, rtol=1e-3)
        assert_close_weights(ran.weights, alone.weights)
    first, second = together
    assert all(torch.equal(first.weights[key], second.weights[key]) for key in first.weights)  # to the bit
    assert first.losses == second.losses
    for row, expected in zip(rows(shared), rows(out), strict=True):
        for column in ("step", "epoch", "learning_rate"):
            assert row[column] == expected[column]
        for column in ("localization", "confidence", "gradient_norm"):
            assert float(row[column]) == pytest.approx(float(expected[column]), rel=1e-3)
        for column in ("ap", "ap50", "ap75"):
            assert float(row[column]) == pytest.approx(float(expected[column]), abs=1e-3)


def test_the_losses_fall(one):
    """Equal losses would prove little where nothing is learned."""
    losses = [sum(step[:2]) for step in one("plain")[1].losses]
    assert losses[-1] < 0.95 * losses[0]


def test_validation_is_spread_and_put_together_again(one, two):
    alone, together = one("plain")[1], two("plain")[1]
    for ran in together:
        assert len(ran.found) == len(alone.found) == 5
        for found, expected in zip(ran.found, alone.found, strict=True):
            assert len(found[2]) == len(expected[2]) > 0
            np.testing.assert_allclose(np.sort(found[2]), np.sort(expected[2]), rtol=1e-2, atol=1e-4)
    for found, expected in zip(together[0].found, together[1].found, strict=True):
        for values, others in zip(found, expected, strict=True):
            np.testing.assert_array_equal(values, others)


def test_files_are_written_once(two):
    shared, _ = two("plain")
    text = (shared / "log.txt").read_text(encoding="utf-8")
    assert text.count("13 images, from the start") == 1
    assert "2 processes, 3 images of a step in each" in text
    assert "BatchNorm" not in text
    odd = (two("odd batch")[0] / "log.txt").read_text(encoding="utf-8")
    assert "2 processes, 4 or 3 images of a step in each" in odd


def test_early_stopping_stops_both(one, two):
    (out, _), (shared, together) = one("patience"), two("patience")
    steps = [row["step"] for row in rows(out)]
    assert len(steps) == 3
    assert [row["step"] for row in rows(shared)] == steps
    assert [len(ran.losses) for ran in together] == [int(steps[-1])] * 2


def test_a_bad_step_of_one_stops_both(two):
    shared, together = two("bad step")
    for rank, ran in enumerate(together):
        assert ran.error.startswith(f"ValueError: epoch {(NAN_AT + 1) * 6 / 13:.2f}, step {NAN_AT + 1}: ")
        images = ran.error.partition("the images, and their boxes in percent: ")[2].split("; ")[:-1]
        assert sum(sample.name in ran.error for sample in TRAIN) == 6, images
        assert len(ran.losses) == NAN_AT + 1
        assert (shared / ("bad-step-4.pt" if rank == 0 else "bad-step-4-process-1.pt")).exists()
    first, second = together
    assert all(torch.equal(first.weights[key], second.weights[key]) for key in first.weights)
    assert all(torch.isfinite(values).all() for values in first.weights.values())


def test_each_process_needs_an_image(two):
    for ran in two("one image for two")[1]:
        assert ran.error == (
            "ValueError: batch_size is 1, for 2 processes and accumulate=1 parts: each needs an image; "
            "give batch_size=2 or more"
        )


def test_what_the_first_process_finds_wrong_stops_both(two):
    for ran in two("there already")[1]:
        assert ran.error.startswith("FileExistsError: ") and "holds a run already" in ran.error
    for ran in two("damaged")[1]:
        assert ran.error.startswith("ValueError: ") and "last.pt: damaged" in ran.error


def test_what_one_process_cannot_read_stops_both(two):
    for ran in two("other data")[1]:
        assert ran.error.startswith("ValueError: the processes do not have the same data: 13, 1 images of ")
    for ran in two("unreadable")[1]:
        assert ran.error.startswith("ValueError: gone.png: there is no such image; the image belongs to ")
        assert len(ran.losses) == 11  # an epoch of five between validations: all was saved, and nothing begun


def test_what_one_process_cannot_read_counts_in_all(two):
    out, together = two("an image is gone")
    for ran in together:
        assert ran.error.startswith("ValueError: 1 of 13 images cannot be read, more than max_unreadable=0 of them")
    assert together[0].losses == together[1].losses and len(together[0].losses) < 13 / 6 + 1
    assert Checkpoints(out).read().values["step"] == len(together[0].losses)


def test_both_validate_the_same_weights(two):
    """The first one's: with BatchNorm each process has seen other images."""
    first, second = two("batch norm")[1]
    assert (first.error, second.error) == ("", "") and any("running_mean" in name for name in first.validated)
    for name, values in first.validated.items():
        torch.testing.assert_close(second.validated[name], values, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("way", ["two, then one", "one, then two"])
def test_another_number_of_processes_takes_a_run_up(one, two, tmp_path_factory, way):
    whole = tmp_path_factory.mktemp("whole")
    expected = in_processes.run(whole, TRAIN, in_processes.VAL, in_processes.HALVES)
    if way == "two, then one":
        out, begun = two("begun")
        heard = [ran.error.removeprefix("KeyboardInterrupt: ") for ran in begun]
        assert heard == [f"{why} at step 3; all is saved" for why in ("SIGINT", "another process stopped")]
        assert Checkpoints(out).read().values["step"] == 3
        ran = in_processes.run(out, TRAIN, in_processes.VAL, in_processes.HALVES, resume=True)
    else:
        out, (ran, _) = two("taken up")
    assert ran.error == ""
    assert len(ran.losses) == 5
    np.testing.assert_allclose(ran.losses, expected.losses[3:], rtol=1e-3)
    assert_close_weights(ran.weights, expected.weights)
    assert [row["step"] for row in rows(out)] == [row["step"] for row in rows(whole)]


@pytest.mark.parametrize(
    ("name", "whom", "moment", "count"),
    [
        ("SIGTERM", "parent", "within a step", 2),
        ("SIGINT", "parent", "within a step", 2),
        ("SIGTERM", "second", "within a step", 3),
        ("SIGTERM", "second", "in a validation", 24),  # two calls for each of nine images: in the second one
    ],
)
def test_all_processes_stop_at_the_same_step(tmp_path, name, whom, moment, count):
    """A signal to torchrun, which hands it on, or to one process alone; the command that is said goes on."""
    # two batches to validate on for each process, between which it listens
    train, val = (synthetic_scenes(count, seed=count, height=64, width=96) for count in (8, 18))
    write_voc({"train": train, "val": val}, tmp_path / "voc")
    out = tmp_path / "run"
    values = "--model ssd256-tiny --size 64 --steps 6 --batch-size 4 --workers 1 --device cpu --checkpoint-minutes 0"
    values += " --precision fp32"
    arguments = ["train", str(tmp_path / "voc"), "--out", str(out), *values.split()]
    done = torchrun(HERE / "act_at.py", moment, count, name, whom, *arguments)
    assert done.returncode != 0
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("multibox: interrupted")]
    step = Checkpoints(out).read().values["step"]
    assert 3 <= step < 6
    why = "another process stopped" if whom == "second" else "SIG"
    assert said.startswith(f"multibox: interrupted; {why}") and f"at step {step}; all is saved; to go on:" in said
    (resume,) = [line for line in done.stderr.splitlines() if line.startswith("torchrun ")]
    command = ["torchrun", "--nproc-per-node", "2", "-m", "multibox", "train", "--resume", str(out)]
    assert shlex.split(resume) == command
    done = torchrun("-m", *shlex.split(resume)[4:])
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"8 images, from step {step}" in done.stderr
    assert [row["step"] for row in rows(out) if row["ap"]] == ["2", "4", "6"]
