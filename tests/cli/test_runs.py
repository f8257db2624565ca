"""`multibox runs` reads what the files of runs say, without torch."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from multibox.cli import runs as command
from tests.cli.conftest import Multibox

ROWS = "step,epoch,minutes,ap,ap50\n10,1,0.5,0.25,0.5\n20,2,1,0.375,0.625\n30,3,90,0.3125,0.75\n40,3.5,95,,\n"


def make_run(folder: Path, config: str, *, rows: str = ROWS, card: bool = True, age: int = 0) -> Path:
    folder.mkdir(parents=True)
    (folder / ".lock").touch()
    (folder / "config.yaml").write_text(config)
    if rows:
        (folder / "metrics.csv").write_text(rows)
    if card:
        (folder / "card.json").write_text(json.dumps({"detector": "ssd256-tiny"}))
    (folder / "log.txt").touch()
    os.utime(folder / "log.txt", (1e9 - age, 1e9 - age))
    return folder


def test_runs_are_listed_with_the_newest_last(multibox: Multibox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    of_weights = "model: /home/me/runs/first/best.safetensors\ndata: [/data/bccd, /data/more]\nepochs: 7\n"
    make_run(Path("runs/b"), of_weights, card=False, age=1)
    make_run(Path("runs/deep/c"), "model: ssd256-tiny\ndata: [/data/bccd]\nsteps: 40\nminutes: 500\n", age=3)
    make_run(Path("runs/a"), "minutes: 95\nepochs: 100\n", rows="", card=False)
    make_run(Path("runs/stopped early"), "model: timm/resnet18\nepochs: 100\npatience: 1\n", age=2)
    (Path("runs") / "no run").mkdir()
    status, out, err = multibox("runs")
    assert (status, err) == (0, [])
    assert out[0].split() == ["run", "AP", "AP50", "epochs", "time", "model", "data", "state"]
    lines = [" ".join(line.split()) for line in out[1:]]
    assert lines == [
        "runs/deep/c 37.5 62.5 3.5 1 h 35 min ssd256-tiny bccd finished",
        "runs/stopped early 37.5 62.5 3.5 1 h 35 min timm/resnet18 - finished",
        "runs/b 37.5 62.5 3.5 1 h 35 min first bccd, more 50 % done",
        "runs/a - - - - - - 0 % done",
    ]
    assert multibox("runs", "runs/b").out[1].startswith("runs/b ")


def test_nothing_to_list(multibox: Multibox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert multibox("runs") == (
        1,
        [],
        ["multibox: runs: there is no such folder; multibox train writes its runs to runs/"],
    )
    Path("runs").mkdir()
    status, out, err = multibox("runs")
    assert (status, out, len(err)) == (1, [], 1)
    assert "runs: no run of multibox train is here" in err[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [("config.yaml", "a: ["), ("card.json", "["), ("metrics.csv", "step,ap\n1,high\n"), ("config.yaml", "- 1")],
)
def test_a_damaged_file_hides_no_run(multibox: Multibox, tmp_path: Path, file: str, text: str):
    (make_run(tmp_path / "bad", "epochs: 3\n") / file).write_text(text)
    make_run(tmp_path / "good", "epochs: 3\n")
    status, out, err = multibox("runs", tmp_path)
    assert (status, len(out), len(err)) == (0, 3, 1)
    assert err[0].startswith(f"{tmp_path / 'bad' / file}: cannot be read (")


def test_the_table_fits_80_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    config = f"model: ssdlite320-mobilenetv3\ndata: [/data/{'things-' * 6}]\nsteps: 400\n"
    run = make_run(tmp_path / ("a-run-of-a-long-name-" * 3), config)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "stdout", lambda: Console(width=80, highlight=False))
    assert command.runs(Path()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "".join(line[: lines[0].index("  AP")].strip() for line in lines[1:]) == run.name  # nothing of it is lost


def test_no_torch_is_needed(tmp_path: Path):
    make_run(tmp_path / "run", "epochs: 3\n")
    code = "import sys; sys.modules['torch'] = None; from multibox.cli import main; sys.exit(main(['runs', '.']))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[1].startswith("run ")
