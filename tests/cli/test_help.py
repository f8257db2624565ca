"""Tests the command line as a whole: help, hints for wrong words, and exit statuses."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import multibox as package
from multibox import cli
from multibox.cli import hints, main
from multibox.cli.arguments import choose_device
from multibox.cli.train import GROUPS
from multibox.presets import PRESETS
from multibox.training.recipes import TrainConfig
from multibox.weights.published import PUBLISHED

COMMANDS = (
    *("ablate", "benchmark", "check", "convert", "coverage", "demo", "detect", "evaluate", "explain", "export"),
    *("models", "report", "runs", "train"),
)
PACKAGE = Path(package.__file__).parent


def run_python(*arguments: str, cwd: Path = PACKAGE.parent, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120
    )


def test_help_lists_the_commands(multibox):
    for arguments in (["--help"], ["-h"], []):
        status, out, err = multibox(*arguments)
        assert (status, err) == (0, [])
        assert all(any(f" {command} " in line for line in out) for command in COMMANDS)


def test_it_runs_as_a_module():
    done = run_python("-m", "multibox", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: multibox COMMAND" in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(multibox, command: str):
    status, out, err = multibox(command, "--help")
    assert (status, err) == (0, [])
    assert out[0].startswith(f"Usage: multibox {command}")
    page = " ".join(" ".join(out).split())
    assert "TODO" not in page and "None" not in page
    assert cli.COMMANDS[command].summary in page


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_in_groups_without_noise_and_ends_with_an_example(multibox, command: str):
    page = multibox(command, "--help").out
    titles = [line.split()[1] for line in page if line.startswith("╭")]
    order = ["Arguments", "Data", "Model", "Length", "Optimization", "Output", "Machine"]
    assert titles == [title for title in order if title in titles]
    if command == "train":
        assert titles == order[1:]
    text = " ".join(" ".join(page).split())
    assert "--empty-" not in text and "[default: ()]" not in text and "[default: False]" not in text
    own = ("benchmark", "explain", "export", "report")
    without = {" --sources ", " --source "} | ({" --data "} if command not in own else set())
    assert not without & {f" {word} " for word in text.split()}
    assert [line for line in page if line.strip()][-1].strip() == cli.COMMANDS[command].example


@pytest.mark.parametrize("command", COMMANDS)
def test_the_example_of_a_command_has_its_flags(multibox, command: str):
    program, name, *words = cli.COMMANDS[command].example.split()
    assert (program, name) == ("multibox", command)
    page = " ".join(multibox(command, "--help").out)
    assert all(word in page for word in words if word.startswith("--"))


def test_every_value_of_a_run_has_a_place_in_the_help(multibox):
    fields = {field.name for field in dataclasses.fields(TrainConfig)}
    assert {name for names in GROUPS.values() for name in names} <= fields
    page = " ".join(multibox("train", "--help").out)
    assert all(f"--{name.replace('_', '-')}" in page for name in fields)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["predict", "a.jpg"], "there is no command 'predict'; it is called detect here, such as multibox detect "),
        (["val"], "there is no command 'val'; it is called evaluate here"),
        (["list"], "it is called models here"),
        (["detect", "a.jpg", "--conf", "0.5", "--model", "m"], "there is no option --conf; it is called --score here"),
        (["detect", "a.jpg", "--conf=0.5", "--model", "m"], "there is no option --conf; it is called --score here"),
        (["detect", "a.jpg", "--model", "m", "--save"], "--save; it is called --out FOLDER here"),
        (["detect", "a.jpg", "--model", "m", "--save-txt"], "--save-txt; it is called --save-labels yolo here"),
        (["detect", "a.jpg", "--model", "m", "--save-csv"], "--save-csv; it is called --csv FILE here"),
        (["detect", "a.jpg", "--model", "m", "--show"], "--show; it is called --out FOLDER here"),
        (
            ["detect", "--source", "a.jpg", "--model", "m"],
            "--source; the path stands without one, such as multibox detect",
        ),
        (["detect", "a.jpg", "--weights", "m"], "there is no option --weights; it is called --model here"),
        (["train", "data", "--lr", "0.1"], "there is no option --lr; it is called --learning-rate here"),
        (["train", "--data", "data"], "there is no option --data; the path stands without one, such as multibox train"),
        (["train", "data", "--imgsz", "320"], "there is no option --imgsz; it is called --size here"),
        (["train", "data", "--amp"], "there is no option --amp; it is called --precision bf16 here"),
        (
            ["detect", "a.jpg", "--model", "m", "--lr", "1"],
            "there is no option --lr in detect; it belongs to train, where it is called --learning-rate",
        ),
        (
            ["evaluate", "data", "--model", "m", "--imgsz", "1"],
            "no option --imgsz in evaluate; it belongs to check, train, coverage, convert and ablate, where",
        ),
        (
            ["train", "data", "--iou", "0.5"],
            "there is no option --iou in train; it belongs to evaluate, detect and explain",
        ),
        (
            ["evaluate", "data", "--model", "m", "--csv", "a"],
            "there is no option --csv in evaluate; it belongs to detect",
        ),
        (["evaluate", "data", "--model", "m", "--json"], "--json needs a value after it"),
        (["detect", "source=a.jpg", "model=m"], "'source=a.jpg' is not an option here; write a.jpg, as in: multibox"),
        (["detect", "a.jpg", "model=m.pt"], "'model=m.pt' is not an option here; write --model m.pt, as in: multibox"),
        (["detect", "a.jpg", "save_txt=True"], "write --save-labels yolo, as in: multibox detect"),
        (["detect", "a.jpg", "conf=0.3"], "write --score 0.3, as in: multibox detect"),
        (["train", "data", "epochs=3"], "'epochs=3' is not an option here; write --epochs 3, as in: multibox train"),
    ],
)
def test_words_of_other_tools_are_understood(multibox, arguments: list[str], hint: str):
    status, out, err = multibox(*arguments)
    assert (status, out, len(err)) == (2, [], 1)
    assert hint in err[0]


def test_a_hint_names_what_is_there(multibox):
    pages = {command: " ".join(multibox(command, "--help").out) for command in COMMANDS}
    assert hints.COMMAND_WORDS.keys() <= set(COMMANDS)
    assert all(any(ours.split()[0] in page for page in pages.values()) for ours in hints.FLAG_WORDS)
    theirs = [word for words in hints.FLAG_WORDS.values() for word in words]
    assert len(theirs) == len(set(theirs))


@pytest.mark.parametrize(("has_cuda", "device"), [(True, "cuda"), (False, "cpu")])
def test_the_device_is_the_best_one_unless_it_is_named(monkeypatch: pytest.MonkeyPatch, has_cuda: bool, device: str):
    monkeypatch.setattr("torch.cuda.is_available", lambda: has_cuda)
    assert choose_device(None) == device
    assert choose_device("cpu") == "cpu"


@pytest.mark.parametrize("command", ["convert", "train", "evaluate", "detect", "explain"])
def test_every_option_is_explained(command: str):
    """A parameter that the docstring leaves out would have no text in the help."""
    import importlib
    import inspect

    function = getattr(importlib.import_module(f"multibox.cli.{command}"), command)
    explained = inspect.getdoc(function).partition("Args:")[2]
    for name in inspect.signature(function).parameters:
        assert f" {name}: " in explained


def test_no_default_is_said_twice(multibox):
    text = re.sub(r"[\s│]+", " ", " ".join(multibox("train", "--help").out))
    assert re.search(r"[Bb]y default [\d.]+ \[default", text) is None
    assert text.count("[default: 0.05]") == 1


def test_help_of_commands_does_not_load_torch():
    """The help of `train` imports the recipes, which import NumPy and Pillow."""
    code = (
        "import sys, json\n"
        "from multibox.cli import main\n"
        f"others = {[command for command in COMMANDS if command != 'train']}\n"
        "for command in others: assert main([command, '--help']) == 0\n"
        "assert not {'numpy', 'PIL'} & set(sys.modules)\n"
        "assert main(['train', '--help']) == 0\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = run_python("-c", code)
    assert done.returncode == 0, done.stderr
    loaded = json.loads(done.stdout.splitlines()[-1])
    assert not {"torch", "torchvision", "hotcoco", "matplotlib"} & set(loaded)


def test_what_prints_richly_is_loaded_only_where_something_is_printed():
    code = "import sys, json, multibox.cli; print(json.dumps(sorted(sys.modules)))"
    loaded = json.loads(run_python("-c", code).stdout)
    assert not [name for name in loaded if name.split(".")[0] == "rich"]


def test_version(multibox):
    assert multibox("--version") == (0, [f"multibox {package.__version__}"], [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], 'Unknown command "trian". Did you mean "train"?'),
        (["detect", "--scroe", "0.5", "a.jpg", "--model", "m"], "Unknown option: --scroe. Did you mean --score?"),
        (["detect", "--colour", "a.jpg", "--model", "m"], "Unknown option: --colour. See multibox detect --help."),
        (["detect", "a.jpg"], "--model is missing; for example: multibox detect street/ --model "),
        (["detect"], "SOURCES is missing; for example: multibox detect street/ "),
        (["detect", "a.jpg", "--model"], "--model needs a value after it; multibox detect --help says which"),
        (["evaluate", "data", "--model", "m", "--rule", "voc207"], 'Did you mean "voc2007"?'),
        (["detect", "a.jpg", "--model", "m", "--score", "50"], "--score must be from 0 to 1, but is 50"),
        (["detect", "a.jpg", "--model", "m", "--iou=nan"], "--iou must be from 0 to 1, but is nan"),
        (["detect", "a.jpg", "--model", "m", "--max-detections", "2.5"], "must be a whole number, but is 2.5"),
        (["train", "data", "--batch-size", "2.5"], "--batch-size must be a whole number, but is 2.5"),
        (["detect", "a.jpg", "--model", "m", "--max-detections", "0"], "--max-detections must be at least 1, but is 0"),
        (["detect", "a.jpg", "--model", "m", "--score", "half"], "--score must be a number, but is half"),
        (["detect", "a.jpg", "--model", "m", "--device", "gpu"], "no device is called 'gpu'; there are cpu, cuda"),
    ],
)
def test_wrong_usage_is_said_in_a_line_with_the_nearest(multibox, arguments: list[str], message: str):
    status, out, err = multibox(*arguments)
    assert (status, out, len(err)) == (2, [], 1)
    assert err[0].startswith("multibox: ")
    assert message in err[0]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
def test_an_interrupt_is_status_130(multibox, monkeypatch: pytest.MonkeyPatch):
    # a job in the background ignores the signal unless somebody asks for it
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr("multibox.cli.models.models", interrupt)
    try:
        assert multibox("models") == (130, [], ["multibox: interrupted"])
    finally:
        signal.signal(signal.SIGINT, before)


def test_debug_shows_the_traceback_and_keeps_the_status(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert main(["detect", str(tmp_path), "--debug", "--model", str(tmp_path / "none.safetensors")]) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("multibox: ")
    assert main(["--debug", "train", str(tmp_path), "--model", "ssd", "--out", str(tmp_path / "run")]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_without_torch_the_extra_is_named(weights: Path, written_scenes: Path, tmp_path: Path):
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"  # as if it were not installed
        "from multibox.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    for command in (
        ["detect", written_scenes, "--model", weights],
        ["evaluate", written_scenes, "--model", weights],
        ["train", written_scenes, "--model", "ssd256-tiny", "--out", tmp_path / "run"],
    ):
        done = run_python("-c", code, *map(str, command))
        said = "multibox: the package torch is not installed: pip install 'multibox[train]'\n"
        assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_statuses_reach_the_shell(tmp_path: Path):
    done = run_python("-m", "multibox", "evaluate", str(tmp_path / "none"), "--model", "multibox/shapes")
    assert done.returncode == 1
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
    assert run_python("-m", "multibox", "evaluate").returncode == 2


def test_models_lists_what_can_be_created_and_loaded(multibox):
    status, out, err = multibox("models")
    assert (status, err) == (0, [])
    page = "\n".join(out)
    for name in ("ssd256-tiny", "ssd300-vgg16", "ssd512-vgg16", "multibox/shapes", "26,285,486", "31.4", "8,732"):
        assert name in page
    assert "77.2" in page and "Apache-2.0" in page
    assert all(f"  {name} " in page for name in PRESETS)
    assert all(any(line.startswith(f"{name} ") for line in out) for name in PUBLISHED)
    assert "timm/NAME" in page
    assert "…" not in page  # 80 columns are enough


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_closed_pipe_is_no_error_message():
    command = f"{sys.executable} -m multibox models | true"
    done = subprocess.run(["sh", "-c", command], cwd=PACKAGE.parent, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr
