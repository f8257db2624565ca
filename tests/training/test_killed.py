"""A run that is killed, again and again, at any moment ends with the weights of one that was not; and a told one."""

import csv
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from multibox.data.synthetic import synthetic_scenes
from multibox.data.write import write_voc
from multibox.training.state import Checkpoints
from multibox.weights.file import load_weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX"),
]

ACT_AT = Path(__file__).with_name("act_at.py")
WAIT = 240
"""Seconds after which something hangs."""
STEPS = 56
KILLS = [
    *[("data are loaded", count) for count in (6, 7, 9)],  # images, four to a step
    *[("within a step", count) for count in (1, 2, 3)],
    *[("between weights and average", count) for count in (1, 2)],
    *[("in a validation", count) for count in (1, 2, 2)],
    *[("after a validation's row", 1)] * 2,
    *[("half of the weights written", count) for count in (1, 2)],
    *[("half of a state written", count) for count in (1, 2, 3)],
    *[("before the state takes its place", count) for count in (1, 2)],
    *[("between the two renames", count) for count in (1, 2, 1)],
    *[("any moment", 0)] * 3,
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Eight images to learn from, and nine, which are two batches, to validate on."""
    folder = tmp_path_factory.mktemp("scenes") / "voc"
    train, val = (synthetic_scenes(count, seed=count, height=64, width=96) for count in (8, 9))
    write_voc({"train": train, "val": val}, folder)
    return folder


def arguments(data, out, steps):
    values = f"--model ssd256-tiny --size 64 --steps {steps} --batch-size 4 --workers 1 --device cpu --precision fp32"
    return ["train", str(data), "--out", str(out), *values.split(), "--checkpoint-minutes", "0"]


@contextmanager
def started(command, **kwargs):
    """The process, in a group of its own, of which nothing is left at the end."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **kwargs,
    )
    try:
        yield process
    finally:
        for stream in (process.stdout, process.stderr):
            stream.close()
        if group_is_there(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(WAIT)


def group_is_there(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def finish(command):
    """The lines that the command says on its way to a good end."""
    with started(command) as process:
        _, err = process.communicate(timeout=WAIT)
        assert process.returncode == 0, err
    return err


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """`undisturbed(steps)` is the folder of a run of so many steps that nobody stopped."""
    folders = {}

    def run(steps):
        if steps not in folders:
            folders[steps] = tmp_path_factory.mktemp("undisturbed") / "run"
            finish(["-m", "multibox", *arguments(data, folders[steps], steps)])
        return folders[steps]

    return run


def assert_same_end(out, expected):
    """All that a run leaves is the same to the bit, but for what is measured in seconds."""
    for name in ("last.safetensors", "best.safetensors"):
        ours, theirs = (load_weights(folder / name) for folder in (out, expected))
        assert ours.provenance == theirs.provenance
        assert ours.tensors.keys() == theirs.tensors.keys()
        for tensor in ours.tensors:
            np.testing.assert_array_equal(ours.tensors[tensor], theirs.tensors[tensor], err_msg=f"{name}: {tensor}")
    ours, theirs = (torch.load(folder / "last.pt", weights_only=True) for folder in (out, expected))
    for timed in ("seconds", "validation_seconds", "row_seconds", "interval"):
        del ours[timed], theirs[timed]
    assert_equal(ours, theirs, "last.pt")
    timed = {"minutes", "images_per_second", "time_input", "time_host", "time_device"}
    ours, theirs = (
        [{name: value for name, value in row.items() if name not in timed} for row in rows(folder)]
        for folder in (out, expected)
    )
    assert len(ours) > 1
    assert ours == theirs


def assert_equal(one, other, where):
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where} {key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{where} {index}")
    else:
        assert one == other, where


def rows(out):
    with (out / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def progress(out):
    """Steps done, and steps done at the last validation, as a run that is resumed would find them."""
    saved = Checkpoints(out).read() if out.exists() else None
    return (saved.values["step"], saved.values["validated"]) if saved else (0, 0)


def kill_at_any_moment(process, out, dice):
    """Some time after it has saved something new."""
    files = [out / "last.pt", out / "previous.pt"]

    def latest():
        return max((path.stat().st_mtime_ns for path in files if path.exists()), default=0)

    before, deadline = latest(), time.monotonic() + WAIT
    while latest() == before and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(dice.uniform(0.0, 0.4))
    os.killpg(process.pid, signal.SIGKILL)


def test_a_run_that_is_killed_many_times_ends_as_one_that_is_not(data, tmp_path, undisturbed):
    """The whole process group, each time after new progress."""
    out = tmp_path / "run"
    command = [*arguments(data, out, STEPS), "--resume"]
    dice = random.Random(5)
    kills = dice.sample(KILLS, len(KILLS))
    hit, before = [], (0, 0)
    for moment, count in kills:
        start = ["-m", "multibox"] if moment == "any moment" else [ACT_AT, moment, count, "SIGKILL", "group"]
        with started([*start, *command]) as process:
            if moment == "any moment":
                kill_at_any_moment(process, out, dice)
            _, err = process.communicate(timeout=WAIT)
            assert process.returncode == -signal.SIGKILL, (moment, err)
        now = progress(out)
        assert now > before, (moment, now, before)
        if moment == "between the two renames":
            assert not (out / "last.pt").exists()
        before = now
        hit.append(moment)
    assert len(hit) >= 20 and all(hit.count(moment) >= 2 for moment in hit)
    assert before[0] < STEPS
    finish(["-m", "multibox", *command])
    assert_same_end(out, undisturbed(STEPS))
    assert not list(out.glob("*.part"))


def test_no_process_is_left_where_the_main_one_is_killed(data, tmp_path):
    """Those that read images see that nobody waits for them any more."""
    out = tmp_path / "run"
    with started([ACT_AT, "within a step", 2, "SIGKILL", "self", *arguments(data, out, 8)]) as process:
        assert process.wait(WAIT) == -signal.SIGKILL
        deadline = time.monotonic() + 60
        while group_is_there(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not group_is_there(process.pid)


SHORT = 6


@pytest.mark.parametrize(
    ("name", "whom", "moment", "count", "step"),
    [
        ("SIGTERM", "group", "data are loaded", 2, None),
        ("SIGTERM", "self", "half of a state written", 2, 3),
        ("SIGINT", "group", "in a validation", 1, 2),
        ("SIGINT", "self", "within a step", 2, 3),
        ("SIGTERM", "group", "after a validation's row", 2, 5),
    ],
)
def test_a_run_that_is_told_to_stop_saves_and_says_how_to_go_on(
    data, tmp_path, undisturbed, name, whom, moment, count, step
):
    out = tmp_path / "a run"
    with started([ACT_AT, moment, count, name, whom, *arguments(data, out, SHORT)]) as process:
        lines, err = process.communicate(timeout=WAIT)
        assert (process.returncode, lines) == (130, ""), err
        assert not group_is_there(process.pid)
    assert "Traceback" not in err
    said, resume = err.splitlines()[-2:]
    stopped_at = progress(out)[0]
    assert step is None or stopped_at == step
    assert said == f"multibox: interrupted; {name} at step {stopped_at}; all is saved; to go on:"
    assert f"stopped: {name} at step {stopped_at}" in (out / "log.txt").read_text(encoding="utf-8")
    program, *rest = shlex.split(resume)
    assert program == "multibox"
    err = finish(["-m", "multibox", *rest])
    assert f"8 images, from step {stopped_at}" in err
    assert_same_end(out, undisturbed(SHORT))
