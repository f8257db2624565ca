"""Runs `python -m multibox`, and at one moment of the run sends a signal to its processes.

    python act_at.py MOMENT COUNT SIGNAL WHOM train ...

The COUNT-th time that MOMENT comes, after the run has saved new progress, SIGNAL goes to WHOM: `group`, `self`,
`parent` or, of those that torchrun started, `second`. Nothing in the package knows of this.
"""

import io
import multiprocessing
import os
import runpy
import signal
import sys
from functools import wraps
from pathlib import Path

import torch

from multibox.detector import Detector
from multibox.ssd import cpu
from multibox.training import fit, trainer
from multibox.training.loading import _AugmentedImages
from multibox.training.reporter import Reporter
from multibox.training.state import Checkpoints

saved = multiprocessing.Value("i", 0)
"""States this run has saved; the processes that read images see it too."""
left = multiprocessing.Value("i", 0)
"""How often the moment is still to come."""


def main():
    moment, count, number, whom = sys.argv[1:5]
    left.value = int(count)
    before_write = Checkpoints.write

    def write(self, state):
        before_write(self, state)
        saved.value += 1

    Checkpoints.write = write

    def act():
        if whom == "second":
            if os.environ["RANK"] != "1":
                return
        elif not saved.value:  # the first process saves
            return
        with left.get_lock():
            left.value -= 1
            if left.value:
                return
        number_of = signal.Signals[number]
        if whom == "group":
            os.killpg(os.getpgrp(), number_of)
        else:
            os.kill(os.getppid() if whom == "parent" else os.getpid(), number_of)

    MOMENTS[moment](act)
    sys.argv[1:5] = []
    runpy.run_module("multibox", run_name="__main__", alter_sys=True)


def before(owner, name):
    """Acts before each call of the function."""

    def patch(act):
        function = getattr(owner, name)

        @wraps(function)
        def acting(*args, **kwargs):
            act()
            return function(*args, **kwargs)

        setattr(owner, name, acting)

    return patch


def after(owner, name):
    """Acts after each call of the function."""

    def patch(act):
        function = getattr(owner, name)

        @wraps(function)
        def acting(*args, **kwargs):
            result = function(*args, **kwargs)
            act()
            return result

        setattr(owner, name, acting)

    return patch


def after_a_validations_row(act):
    """Acts when the row of a validation is written, and no checkpoint yet."""
    row = Reporter.row

    def acting(*args, **kwargs):
        row(*args, **kwargs)
        if kwargs.get("validation"):
            act()

    Reporter.row = acting


def half_a_state(act):
    """Acts when half of a state's bytes are in the file."""
    save = torch.save

    def save_in_halves(value, file):
        whole = io.BytesIO()
        save(value, whole)
        content = whole.getvalue()
        file.write(content[: len(content) // 2])
        file.flush()
        act()
        file.write(content[len(content) // 2 :])

    torch.save = save_in_halves


def half_a_weights_file(act):
    """Acts when half of the bytes of weights are in the file."""
    write_bytes = Path.write_bytes

    def write_in_halves(path, content):
        if ".safetensors" not in path.name:
            return write_bytes(path, content)
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            act()
            return file.write(content[len(content) // 2 :])

    Path.write_bytes = write_in_halves


def before_replacing(name):
    """Acts before a file takes its place under this name."""

    def patch(act):
        replace = os.replace

        def acting(source, target):
            if Path(target).name == name:
                act()
            replace(source, target)

        os.replace = acting

    return patch


MOMENTS = {
    "data are loaded": before(_AugmentedImages, "__getitem__"),  # in a process that reads images
    "within a step": before(cpu, "multibox_loss"),  # statistics are new, weights are old
    "between weights and average": before(trainer.Trainer, "_update_ema"),
    "in a validation": before(Detector, "prepare_image"),
    "after a validation's row": after_a_validations_row,
    "half of the weights written": half_a_weights_file,
    "half of a state written": half_a_state,
    "before the state takes its place": before_replacing("previous.pt"),
    "between the two renames": before_replacing("last.pt"),
    "metrics written": before_replacing("metrics.csv"),
    "at the end": before(fit, "finalize"),
}

if __name__ == "__main__":
    main()
