"""How the commands read a data set: each list of it once, and under torchrun with one process that decodes."""

import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from multibox.data.write import write_coco
from tests.cli.conftest import Multibox, scenes
from tests.cli.test_bad_input import truncated_image


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each JSON of annotations is opened, by its name."""
    counts: Counter[str] = Counter()
    open_file = io.open

    def counting(file: Any, *arguments: Any, **options: Any) -> Any:
        name = Path(str(file)).name
        if name.startswith("instances_"):
            counts[name] += 1
        return open_file(file, *arguments, **options)

    monkeypatch.setattr("io.open", counting)
    monkeypatch.setattr("builtins.open", counting)
    return counts


def test_a_json_is_opened_once_for_a_command(multibox: Multibox, tmp_path: Path, weights: Path, opened: Counter[str]):
    write_coco({"train": scenes(3, seed=1), "val": scenes(2, seed=2)}, tmp_path / "coco")
    opened.clear()
    assert multibox("evaluate", tmp_path / "coco", "--model", weights).status == 0
    assert opened == {"instances_val.json": 1}
    opened.clear()
    command = ["train", tmp_path / "coco", "--model", "ssd256-tiny", "--out", tmp_path / "run", "--steps", 1]
    assert multibox(*command, "--batch-size", 2, "--workers", 0, "--device", "cpu").status == 0
    assert opened == {"instances_train.json": 1, "instances_val.json": 1}


SCRIPT = """
import os, sys
from pathlib import Path

from multibox.cli.data import read_splits
from multibox.data import DatasetReader, check

find, rank = check.find_undecodable, os.environ["RANK"]

def heard(dataset, **options):
    print(f"{rank} decodes {len(dataset)}", flush=True)
    return find(dataset, **options)

check.find_undecodable = heard
train, val = read_splits(DatasetReader(Path(sys.argv[1])), ["train", "val"], "skip")
print(f"{rank} has {len(train)} and {len(val)}, {val.problems[0].what[:36]}", flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="torchrun's gloo is tried on POSIX only")
def test_under_torchrun_one_process_decodes_and_the_others_are_told(data: Path, tmp_path: Path):
    truncated_image(data, "val")
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, str(tmp_path / "script.py"), str(data)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = [f"{rank} has 4 and 2, the image is truncated or damaged (i" for rank in (0, 1)]
    assert sorted(done.stdout.splitlines()) == sorted(["0 decodes 4", "0 decodes 3", *told])
    assert done.stderr.count("1 problem") == 1
