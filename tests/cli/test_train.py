"""Tests `multibox train`: the files of a run, where its values come from, resuming, and fine-tuning."""

import csv
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from multibox.data.holdout import Holdout
from multibox.data.read import usual_split
from multibox.data.synthetic import CLASS_NAMES
from multibox.data.write import write_coco, write_yolo
from multibox.detector import Detector
from multibox.training import Progress
from multibox.training.trainer import Trainer
from tests.cli.conftest import Multibox, scenes
from tests.slow import slow

SHORT = ("--steps", 2, "--batch-size", 2, "--workers", 0, "--device", "cpu")
HEAR_INTERRUPTS = """
import signal, sys
from multibox.cli import main

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would ignore it
if __name__ == "__main__":
    sys.exit(main())
"""
FILES = [".lock", "batch.jpg", "best.safetensors", "card.json", "card.md", "config.yaml", "curves.png", "labels.jpg"]
FILES += ["last.pt", "last.safetensors", "log.txt", "metrics.csv", "validation.jpg"]


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def config_of(out: Path) -> dict:
    return yaml.safe_load((out / "config.yaml").read_text())


def test_a_run_from_scratch_and_on(multibox: Multibox, data: Path, tmp_path: Path):
    out = tmp_path / "runs" / "first run"
    command = ["train", data, "--model", "ssd256-tiny", "--out", out, *SHORT[2:], "--seed", 3]
    status, lines, err = multibox(*command, "--steps", 2)
    assert (status, lines) == (0, [])
    assert err[0] == "4 images to learn from (train), 3 to validate on (val)"
    assert err[-1] == f"written to {out}"
    assert sorted(path.name for path in out.iterdir()) == FILES
    assert Detector.load(out / "best.safetensors").class_names == CLASS_NAMES
    _, row = rows(out)
    assert row["step"] == "2"
    assert 0 <= float(row["ap"]) <= float(row["ap50"]) <= 1
    config = config_of(out)
    assert (config["recipe"], config["steps"], config["batch_size"], config["seed"]) == ("modern", 2, 2, 3)

    status, _, err = multibox(*command, "--steps", 2)  # nothing of a run is lost by mistake
    assert status == 1
    assert "holds a run already" in err[-1]
    assert "--resume" in err[-1]
    assert len(rows(out)) == 2

    status, _, err = multibox(*command, "--steps", 3, "--resume")
    assert status == 0
    assert any("from step 2" in line for line in err)
    assert any("; 1 steps are left" in line for line in err)
    assert [row["step"] for row in rows(out)] == ["1", "2", "3"]

    status, _, err = multibox("train", "--resume", out)
    assert status == 0
    finished = "the run is finished (step 3); give a longer --epochs, --steps or --minutes to go on"
    assert finished in err
    assert not any("from step" in line or "the run takes" in line for line in err)


def test_resume_begins_where_nothing_is_saved_yet(multibox: Multibox, data: Path, tmp_path: Path):
    status, _, err = multibox("train", data, "--model", "ssd256-tiny", "--out", tmp_path / "run", *SHORT, "--resume")
    assert status == 0
    assert any("from the start" in line for line in err)
    assert rows(tmp_path / "run")[-1]["step"] == "2"


@pytest.mark.slow
def test_the_folder_of_a_run_is_enough_to_go_on(
    multibox: Multibox, data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The folder knows the data, the model and the values, and can be named from any other folder."""
    monkeypatch.chdir(tmp_path)
    weights = Path(shutil.copyfile(weights, "mine.safetensors"))
    command = ["train", data.name, "--model", weights, "--train-split", "val", "--val-split", "test", *SHORT[2:]]
    assert multibox(*command, "--steps", 4, "--out", "whole").status == 0
    for number, resume in enumerate((["--resume", "run-0"], ["--resume", "--out", "run-1"], ["--resume", "../run-2"])):
        out = tmp_path / f"run-{number}"
        monkeypatch.chdir(tmp_path)
        assert multibox(*command, "--steps", 2, "--out", out).status == 0
        if number == 2:
            monkeypatch.chdir(data)
        status, _, err = multibox("train", *resume, "--steps", 4)
        assert status == 0
        assert err[0] == "3 images to learn from (val), 2 to validate on (test)"
        assert any("from step 2" in line for line in err)
        assert [row["step"] for row in rows(out) if row["ap"]] == ["0", "2", "4"]
        assert config_of(out) == config_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_run_whose_data_have_moved_goes_on_with_its_own_values(multibox: Multibox, data: Path, tmp_path: Path):
    out, moved = tmp_path / "run", tmp_path / "moved"
    assert multibox("train", data, "--model", "ssd256-tiny", "--out", out, *SHORT, "--seed", 5).status == 0
    before = config_of(out)
    shutil.copytree(data, moved)
    assert multibox("train", moved, "--resume", out, "--steps", 3).status == 0
    assert config_of(out) == before | {"steps": 3, "data": [str(moved)]}


@pytest.mark.slow
def test_a_length_takes_the_place_of_the_resumed_run_s(multibox: Multibox, data: Path, tmp_path: Path):
    out = tmp_path / "run"
    assert multibox("train", data, "--model", "ssd256-tiny", "--out", out, *SHORT).status == 0
    assert multibox("train", "--resume", out, "--epochs", 1.5).status == 0
    assert config_of(out)["epochs"] == 1.5
    assert "steps" not in config_of(out)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--resume"], "--resume takes the folder of a run; for example: multibox train --resume runs/raccoons"),
        (["--resume", "none"], "none holds no run to resume: there is no config.yaml of a run in it"),
        (["--resume", "theirs"], "theirs holds no run to resume"),
        (["--resume", "theirs", "--out", "run"], "--resume theirs and --out run are two folders"),
        (
            ["--resume", "python"],
            "say which data and model the run has; give them as well: multibox train DATA --model",
        ),
    ],
)
def test_what_cannot_go_on(
    multibox: Multibox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
):
    monkeypatch.chdir(tmp_path)
    for folder in (Path("theirs"), Path("python")):
        folder.mkdir()
        (folder / "config.yaml").write_text("steps: 3\n")
    (tmp_path / "python" / "last.pt").touch()
    status, lines, err = multibox("train", *arguments)
    assert (status, lines, len(err)) == (2, [], 1)
    assert said in err[0]


def test_without_out_the_run_gets_a_folder_of_the_data_s_name(
    multibox: Multibox, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        status, _, err = multibox("train", data, "--model", "ssd256-tiny", "--val-split", "none", *SHORT)
        assert status == 0
        assert err[-1] == f"written to {Path('runs') / f'{data.name}-{number}'}"
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, _, err = multibox("train", data, "--model", "ssd256-tiny", *SHORT)
    assert (status, len(err)) == (2, 1)
    assert "--out is missing: the processes that torchrun starts" in err[0]


WITHOUT_TORCH = """
import sys
from multibox.cli import main

sys.modules["torch"] = None  # to import it is an error
for line in sys.stdin:
    print(main(line.split()), file=sys.stderr)
"""


def test_a_command_that_cannot_succeed_ends_before_torch_is_imported_and_data_are_read(tmp_path: Path):
    """There are no data, which would be said if they were looked for."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pt").touch()
    (tmp_path / "file").write_text("no weights")
    said = {
        "--model ssd256-tiny --batch-size 0": "--batch-size must be above 0, but is 0",
        "--model ssd256-tiny --epochs 0": "--epochs must be above 0, but is 0",
        "--model ssd256-tiny --out full": "full is not empty; choose another folder",
        "--model ssd256-tiny --out file": "file is a file, not a folder; choose another folder",
        "--model ssd256-tiny --out run": "run holds a run already; choose another folder, or go on with its run",
        "--model ssd256-tiny --resume --out full": "full is not empty; choose another folder",
        "--model ssd256-tiny --val-fraction 1.5": "--val-fraction must be from 0 to 1, but is 1.5",
        "--model ssd256-tiny --val-fraction 0.6 --test-fraction 0.4": "leave no image to learn from",
        "--model ssd256-tiny --val-fraction 0.6 --val-split val": "are two ways to validate; give one of them",
        "--model ssd256-tin": "did you mean 'ssd256-tiny'?",
        "--model none.safetensors": "'none.safetensors' is neither a weights file nor the name of published weights",
        "--model file": "file: not a .safetensors file, or damaged",
        "--model full": "'full' is a folder, not a weights file",
    }
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH],
        input="\n".join(f"train data {flags}" for flags in said),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    lines = done.stderr.splitlines()
    assert len(lines) == 2 * len(said), done.stderr
    for text, line, status in zip(said.values(), lines[::2], lines[1::2], strict=True):
        assert text in line
        assert status in ("1", "2")


def test_what_came_out_is_said_at_the_end(multibox: Multibox, data: Path, tmp_path: Path):
    out = tmp_path / "run"
    status, _, err = multibox("train", data, "--model", "ssd256-tiny", "--out", out, *SHORT)
    assert status == 0
    assert sum(line.startswith("AP ") and " AP50 " in line for line in err) == 1
    assert sum(re.fullmatch(r"best weights: epoch \d+(\.\d)? \(step \d+\)", line) is not None for line in err) == 1
    typed = err[err.index("to detect:") + 1].strip()
    assert [line for line in err if line.startswith("to ")] == ["to evaluate:", "to detect:", "to train longer:"]
    assert multibox(*shlex.split(typed)[1:]).status == 0


def test_a_state_or_a_preset_is_no_weights_file(multibox: Multibox, data: Path, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("last.pt", "last.safetensors"):
        (run / name).touch()
    said = f"multibox: {run / 'last.pt'} is a training state, for --resume; the weights are last.safetensors beside it"
    for command in (["train", data, "--out", tmp_path / "new"], ["evaluate", data], ["detect", data]):
        status, lines, err = multibox(*command, "--model", run / "last.pt")
        assert (status, lines, err) == (2, [], [said])
    for command in (["evaluate", data], ["detect", data]):
        status, lines, err = multibox(*command, "--model", "ssd256-tiny")
        assert (status, lines, len(err)) == (2, [], 1)
        assert "'ssd256-tiny' is a preset, a network that is not trained yet; train it first: multibox train" in err[0]


@pytest.mark.slow
def test_values_come_from_a_file_and_flags_win(multibox: Multibox, data: Path, tmp_path: Path):
    # 1e-3 is a text to YAML 1.1, but not to a person
    text = "recipe: paper\nsteps: 1\nbatch_size: 4\nlearning_rate: 1e-3\nworkers: 0\ndevice: cpu\nepochs:\n"
    text += "milestones: [0.7, 0.9]\nexpand_probability: 0\n"
    (tmp_path / "run.yaml").write_text(text)
    out = tmp_path / "run"
    command = ["train", data, "--model", "ssd256-tiny", "--out", out, "--val-split", "none"]
    status, _, err = multibox(*command, "--config", tmp_path / "run.yaml", "--batch-size", 2, "--learning-rate", 0.01)
    assert status == 0
    assert err[0] == "4 images to learn from (train), none to validate on: the last weights are kept"
    config = config_of(out)
    assert (config["recipe"], config["steps"], config["batch_size"]) == ("paper", 1, 2)
    assert config["learning_rate"] == 0.01
    assert (config["milestones"], config["expand_probability"]) == ([0.7, 0.9], 0.0)
    assert "epochs" not in config
    assert rows(out)[0]["ap"] == ""
    assert (config["model"], config["train_split"], config["val_split"]) == ("ssd256-tiny", "train", "none")
    # what a run writes is what another reads
    again = ["train", data, "--out", tmp_path / "again", "--config", out / "config.yaml"]
    assert multibox(*again).status == 0
    assert config_of(tmp_path / "again") == config


@pytest.mark.slow
def test_model_scales_and_splits_from_a_file(multibox: Multibox, data: Path, tmp_path: Path):
    text = "model: ssd256-tiny\nscales: coco\ntrain_split: test\nval_split: train\nsteps: 1\nworkers: 0\ndevice: cpu\n"
    (tmp_path / "run.yaml").write_text(text)
    command = ["train", data, "--config", tmp_path / "run.yaml", "--batch-size", 2]
    status, _, err = multibox(*command, "--out", tmp_path / "run")
    assert status == 0
    assert err[0] == "2 images to learn from (test), 4 to validate on (train)"
    assert {"model": "ssd256-tiny", "scales": "coco", "val_split": "train"}.items() <= config_of(
        tmp_path / "run"
    ).items()
    made = Detector.create("ssd256-tiny", CLASS_NAMES, scales="coco").config
    assert Detector.load(tmp_path / "run" / "best.safetensors").config == made
    status, _, err = multibox(*command, "--out", tmp_path / "other", "--val-split", "val", "--scales", "voc")
    assert err[0] == "2 images to learn from (test), 3 to validate on (val)"
    assert config_of(tmp_path / "other")["scales"] == "voc"


def test_a_run_needs_a_model(multibox: Multibox, data: Path, tmp_path: Path):
    status, lines, err = multibox("train", data, "--out", tmp_path / "run")
    assert (status, lines) == (2, [])
    assert err == [
        "multibox: which model? give a preset (--model ssd256-tiny) or weights (--model), or a --config that names one"
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epohcs: 3", "a run has no value 'epohcs'; did you mean 'epochs'?"),
        ("batch-size: 3", "did you mean 'batch_size'?"),
        ("zebra: 3", "there are recipe, epochs, steps"),
        ("steps: two", "steps must be a whole number, but is 'two'"),
        ("steps: 2.5", "steps must be a whole number, but is 2.5"),
        ("batch_size: true", "batch_size must be a whole number, but is True"),
        ("learning_rate: [1]", "learning_rate must be a number, but is [1]"),
        ("milestones: 0.7", "milestones must be a list of numbers, but is 0.7"),
        ("milestones: [0.7, late]", "milestones must be a list of numbers, but is [0.7, 'late']"),
        ("milestones: [true]", "milestones must be a list of numbers, but is [True]"),
        ("milestones: [280000, 360000]", "milestones must rise between 0 and 1"),
        ("expand_probability: [0]", "expand_probability must be a number, but is [0]"),
        ("epochs: -1", "epochs must be above 0, but is -1"),
        ("epochs: .inf", "epochs must be above 0 and finite, but is inf"),
        ("steps: .inf", "steps must be a whole number, but is inf"),
        ("seed: -1", "seed must be from 0 to 2**63 - 1, but is -1"),
        ("scales: voc2007", "scales must be one of voc, coco, but is 'voc2007'"),
        ("val_split: no", "val_split must be a text, but is False"),
        ("recipe: classic", "recipe must be one of paper, modern"),
        ("device: gpu", "no device is called 'gpu'"),
        ("class_weights: 2", "class_weights must be 'balanced' or a mapping of names to numbers above 0, but is 2"),
        ("class_weights: {cat: 0}", "class_weights must be a mapping of names to numbers above 0, but is {'cat': 0}"),
        ("- 3", "must hold lines of 'name: value'"),
        ("", "must hold lines of 'name: value'"),
        ("steps: [", "the YAML cannot be read: "),
        ("steps: !!python/object/apply:os.abort []", "the YAML cannot be read: "),
    ],
)
def test_a_file_of_values_that_cannot_be(multibox: Multibox, data: Path, tmp_path: Path, text: str, message: str):
    (tmp_path / "run.yaml").write_text(text)
    command = ["train", data, "--model", "ssd256-tiny", "--out", tmp_path / "run", "--config", tmp_path / "run.yaml"]
    status, lines, err = multibox(*command)
    assert (status, lines) == (2, [])
    assert err[0].startswith("multibox: ")
    assert message in err[0]
    assert "run.yaml: " in err[0] or "device" in text  # the message says where the value is from
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", 0], "--steps must be above 0, but is 0"),
        (["--minutes", 0], "--minutes must be above 0, but is 0"),
        (["--batch-size", 0], "--batch-size must be above 0, but is 0"),
        (["--epochs", "inf"], "--epochs must be above 0 and finite, but is inf"),
        (["--minutes", "inf"], "--minutes must be above 0 and finite, but is inf"),
        (["--validate-every", "inf"], "--validate-every must be above 0 and finite, but is inf"),
        (["--seed=-1"], "--seed must be from 0 to 2**63 - 1, but is -1"),
        (["--seed", 10**20], "--seed must be from 0 to 2**63 - 1, but is 1"),
        (["--learning-rate", -1], "--learning-rate must be above 0, but is -1"),
        (["--workers", -1], "--workers must be 0 or more"),
        (["--recipe", "papre"], 'Did you mean "paper"?'),
        (["--precision", "fp16"], 'Choose from: "auto", "fp32", "bf16"'),
        (["--device", "cuda:x"], "no device is called 'cuda:x'"),
        (
            ["--class-weights", "cat"],
            "--class-weights takes 'balanced', or a weight for each name as in NAME=2,NAME2=0.5",
        ),
        (["--class-weights", "cat=2,dog"], "not 'cat=2,dog'"),
        (["--class-weights", "cat=2,cat=3"], "not 'cat=2,cat=3'"),
        (["--class-weights", "cat=two"], "not 'cat=two'"),
        (["--class-weights", ""], "not ''"),
        (
            ["--class-weights", "cat=2,dog=0"],
            "--class-weights must be a mapping of names to numbers above 0, but is {'dog",
        ),
        (["--class-weights", "cat=nan"], "--class-weights must be a mapping of names to numbers above 0, but is {'cat"),
    ],
)
def test_flags_that_cannot_be(multibox: Multibox, data: Path, tmp_path: Path, flags: list, message: str):
    status, lines, err = multibox("train", data, "--model", "ssd256-tiny", "--out", tmp_path / "run", *flags)
    assert (status, lines, len(err)) == (2, [], 1)
    assert message in err[0]
    assert not (tmp_path / "run").exists()


def test_a_student_learns_from_a_teacher(
    multibox: Multibox, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    teacher = Detector.create("ssd300-resnet18", CLASS_NAMES[::-1], height=64, width=64, scales="coco", seed=1)
    teacher.save(tmp_path / "teacher.safetensors")
    command = ["train", data, "--model", "ssd256-tiny", "--size", 64, *SHORT[2:], "--steps", 1]
    status, _, err = multibox(*command, "--out", "run", "--teacher", "teacher.safetensors")
    assert status == 0
    file = str(tmp_path / "teacher.safetensors")
    assert any(line.startswith(f"the teacher: {file}, ssd64-resnet18, SHA-256 ") for line in err)
    assert config_of(tmp_path / "run")["teacher"] == file
    assert float(rows(tmp_path / "run")[-1]["distillation"]) > 0
    Path(file).rename("moved.safetensors")
    status, _, err = multibox("train", "--resume", "run", "--steps", 2)
    assert status == 1 and f"the teacher '{file}' is neither a weights file nor" in err[-1]
    assert multibox("train", "--resume", "run", "--steps", 2, "--teacher", "moved.safetensors").status == 0
    assert config_of(tmp_path / "run")["teacher"] == str(tmp_path / "moved.safetensors")


@pytest.mark.parametrize(
    ("teacher", "status", "message"),
    [
        ("none.safetensors", 1, "the teacher 'none.safetensors' is neither a weights file"),
        ("ssd300-resnet18", 2, "'ssd300-resnet18' is a preset, a network that is not trained yet"),
        ("multibox/shapes", 1, "the teacher (ssd256-tiny) has 6132 default boxes, the student (ssd64-tiny) 372"),
    ],
)
def test_a_teacher_that_cannot_be(
    multibox: Multibox, data: Path, tmp_path: Path, teacher: str, status: int, message: str
):
    command = ["train", data, "--model", "ssd256-tiny", "--size", 64, "--out", tmp_path / "run", *SHORT]
    found, _, err = multibox(*command, "--teacher", teacher)
    assert found == status and message in err[-1]
    assert not (tmp_path / "run").exists()


def test_class_weights_stand_where_a_reader_of_the_run_looks(multibox: Multibox, data: Path, tmp_path: Path):
    out = tmp_path / "run"
    command = ["train", data, "--model", "ssd256-tiny", "--out", out, *SHORT[2:]]
    status, _, err = multibox(*command, "--steps", 1, "--class-weights", "circle=2,ring=0.5")
    assert status == 0
    weights = {name: {"circle": 2.0, "ring": 0.5}.get(name, 1.0) for name in CLASS_NAMES}
    assert config_of(out)["class_weights"] == weights
    line = "class weights: " + ", ".join(f"{name} {weight:g}" for name, weight in weights.items())
    assert line in err
    assert line in (out / "log.txt").read_text("utf-8")
    assert f"| class_weights | {line.removeprefix('class weights: ')} |" in (out / "card.md").read_text("utf-8")
    assert multibox("train", "--resume", out, "--steps", 2).status == 0
    assert config_of(out)["class_weights"] == weights
    assert "class_weights is" not in (out / "log.txt").read_text("utf-8")  # nothing changed


def test_a_weight_of_a_class_that_the_data_do_not_have(multibox: Multibox, data: Path, tmp_path: Path):
    command = ["train", data, "--model", "ssd256-tiny", "--out", tmp_path / "run", *SHORT]
    status, _, err = multibox(*command, "--class-weights", "cirlce=2")
    assert status == 1
    assert "class_weights names 'cirlce', but the classes of" in err[-1] and err[-1].endswith("did you mean 'circle'?")
    assert not (tmp_path / "run").exists()


def test_the_folder_of_a_run_is_its_best_weights(
    multibox: Multibox, data: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In every command with --model. The weights may be trained further, and then forget what their run held out."""
    monkeypatch.chdir(tmp_path)
    detector = Detector.load(weights)
    detector.provenance |= Holdout("train", 0.2, 0.1).to_provenance()
    (tmp_path / "run").mkdir()
    detector.save(tmp_path / "run" / "best.safetensors")
    image = next((data / "JPEGImages").iterdir())
    assert multibox("detect", image, "--model", "run").status == 0
    assert multibox("evaluate", data, "--model", "run").out[0].startswith(f"{data}, val: ")
    status, _, err = multibox("convert", "run", "new.safetensors")
    assert (status, len(err)) == (1, 1)
    assert "best.safetensors: is a weights file of multibox already" in err[0]
    assert multibox("train", data, "--model", "run", *SHORT, "--out", "new", "--val-split", "none").status == 0
    assert config_of(tmp_path / "new")["model"] == str(tmp_path / "run")
    assert Holdout.from_provenance(Detector.load("new").provenance) is None


def test_fine_tuning_says_which_classes_are_kept(multibox: Multibox, data: Path, tmp_path: Path):
    Detector.create("ssd256-tiny", ["ring", "dog", "circle"], seed=0).save(model := tmp_path / "it.safetensors")
    out = tmp_path / "run"
    command = ["train", data, "--model", model, *SHORT, "--val-split", "none"]
    status, _, err = multibox(*command, "--out", out)
    assert status == 0
    assert err[1] == f"{model}: 2 of 6 classes are kept: circle, ring; new: rectangle, triangle, star, cross"
    assert Detector.load(out / "best.safetensors").class_names == CLASS_NAMES
    status, _, err = multibox(*command, "--scales", "voc")
    assert (status, len(err)) == (2, 1)
    assert "--scales is for presets" in err[0]


@pytest.mark.parametrize(("size", "height", "width"), [slow("64", 64, 64), (" 64X96 ", 64, 96)])
def test_any_size_of_input(multibox: Multibox, data: Path, tmp_path: Path, size: str, height: int, width: int):
    command = ["train", data, "--model", "ssdlite320-mobilenetv3", "--size", size, "--out", tmp_path / "run"]
    assert multibox(*command, "--steps", 1, *SHORT[2:], "--val-split", "none").status == 0
    config = Detector.load(tmp_path / "run" / "best.safetensors").config
    assert (config.height, config.width, config.backbone) == (height, width, "mobilenet-v3-large-reduced")


@pytest.mark.parametrize(
    "size", ["", "big", "64x", "x64", "64x96x3", "64.5", "-64", "64,96", "64 96", "٦٤", "1" * 5000]
)
def test_a_size_that_is_none(multibox: Multibox, data: Path, tmp_path: Path, size: str):
    status, lines, err = multibox("train", data, "--model", "ssd256-tiny", "--out", tmp_path / "run", f"--size={size}")
    assert (status, lines, len(err)) == (2, [], 1)
    assert "--size takes HEIGHTxWIDTH in pixels, such as 240x320, or one number for both, not" in err[0]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("size", "which", "value"), [("16", "height", 16), ("64x5000", "width", 5000), ("0", "height", 0)]
)
def test_a_size_that_is_too_small_or_too_large(
    multibox: Multibox, data: Path, tmp_path: Path, size: str, which: str, value: int
):
    for model in ("ssd256-tiny", "timm/resnet18"):
        status, lines, err = multibox("train", data, "--model", model, "--out", tmp_path / "run", "--size", size)
        assert (status, lines) == (2, [])
        assert err == [f"multibox: the {which} of the input must be from 32 to 4096 pixels, but is {value}"]
    assert not (tmp_path / "run").exists()


def test_weights_have_a_size_of_their_own(multibox: Multibox, data: Path, weights: Path, tmp_path: Path):
    for model in (weights, "multibox/shapes"):
        status, lines, err = multibox("train", data, "--model", model, "--out", tmp_path / "run", "--size", 300)
        assert (status, lines) == (2, [])
        assert err == [f"multibox: --size is for presets; {model} has an input size of its own"]


@pytest.mark.parametrize("named", ["by the flag", "in the file"])
def test_weights_take_nothing_of_presets_from_a_file(
    multibox: Multibox, data: Path, weights: Path, tmp_path: Path, named: str
):
    """A recipe file may name values of presets although the model is weights. A flag for presets is still refused."""
    file = tmp_path / "recipe.yaml"
    text = "scales: voc\nstart_from: imagenet\nsize: 300\nsteps: 1\nbatch_size: 2\nworkers: 0\ndevice: cpu\n"
    file.write_text(f"model: {'ssd300-vgg16' if named == 'by the flag' else weights}\n{text}")
    flags = ["--model", weights] if named == "by the flag" else []
    command = ["train", data, "--config", file, *flags, "--val-split", "none", "--out", tmp_path / "run"]
    status, lines, err = multibox(*command, "--scales", "coco")
    assert (status, lines) == (2, [])
    assert err == [f"multibox: --scales is for presets; {weights} has default boxes of its own"]
    status, _, err = multibox(*command)
    assert status == 0
    assert err[0] == f"not taken from {file}, because {weights} has its own: size, scales, start_from"
    assert Detector.load(tmp_path / "run" / "last.safetensors").config == Detector.load(weights).config
    assert config_of(tmp_path / "run").keys().isdisjoint({"size", "scales", "start_from"})


def test_a_backbone_of_timm(multibox: Multibox, data: Path, tmp_path: Path):
    pytest.importorskip("timm", reason="timm is not installed: pip install 'multibox[timm]'")
    command = ["train", data, "--out", tmp_path / "run", *SHORT, "--val-split", "none", "--size", "64x96", "--model"]
    status, lines, err = multibox(*command, "timm/resnet_18")
    assert (status, lines) == (2, [])
    assert err == ["multibox: timm has no model 'resnet_18'; did you mean 'timm/resnet18'?"]
    status, _, err = multibox(*command, "timm/test_resnet")
    assert status == 0
    config = Detector.load(tmp_path / "run" / "best.safetensors").config
    assert (config.name, config.backbone) == ("ssd64x96-timm/test_resnet", "timm/test_resnet")


def test_a_backbone_of_timm_without_timm(
    multibox: Multibox, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "timm", None)
    status, lines, err = multibox("train", data, "--model", "timm/resnet18", "--out", tmp_path / "run")
    assert (status, lines) == (1, [])
    assert err == ["multibox: backbones of timm need the package timm: pip install 'multibox[timm]'"]


def test_splits(multibox: Multibox, data: Path, tmp_path: Path):
    command = ["train", data, "--model", "ssd256-tiny", *SHORT]
    for flag, wrong in (("--train-split", "trian"), ("--val-split", "vla")):
        status, _, err = multibox(*command, flag, wrong)
        assert (status, len(err)) == (2, 1)
        near = wrong.replace("trian", "train").replace("vla", "val")
        said = f"{flag}: {data} has no split '{wrong}', only 'train', 'val', 'test'; did you mean '{near}'?"
        assert err == [f"multibox: {said}"]
    lists = data / "ImageSets" / "Main"
    (lists / "trainval.txt").write_text((lists / "train.txt").read_text() + (lists / "val.txt").read_text())
    status, _, err = multibox(*command, "--train-split", "trainval", "--out", tmp_path / "run")
    assert status == 0
    assert err[0] == "7 images to learn from (trainval), 3 to validate on (val)"
    assert "3 validation images also in the training set: the scores will be too good" in err
    (lists / "train.txt").unlink()
    (lists / "trainval.txt").unlink()
    status, _, err = multibox(*command)
    assert status == 2
    assert err == [f"multibox: --train-split: {data} has the splits 'val', 'test'; choose one of them"]


@pytest.mark.parametrize(
    ("splits", "learned", "checked"),
    [
        (("train2017", "val2017"), "train2017", "val2017"),
        (("train", "train2017", "val2017"), "train", "val2017"),
        (("trainval07", "test07"), "trainval07", None),
        (("all", "2017"), None, None),
    ],
)
def test_usual_splits(splits, learned, checked):
    assert usual_split(splits, ["train", "trainval"]) == learned
    assert usual_split(splits, ["val", "valid"]) == checked


@pytest.mark.slow
def test_splits_of_coco_s_year(multibox: Multibox, tmp_path: Path):
    write_coco({"train2017": scenes(3, seed=1), "val2017": scenes(2, seed=2)}, tmp_path / "coco")
    status, _, err = multibox("train", tmp_path / "coco", "--model", "ssd256-tiny", "--out", tmp_path / "run", *SHORT)
    assert status == 0
    assert err[0] == "3 images to learn from (train2017), 2 to validate on (val2017)"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "a smaller --batch-size needs less"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes"), "--batch-size needs less"),
        (
            RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
            "fewer --workers, or a smaller --batch-size",
        ),
    ],
)
def test_too_little_memory(
    multibox: Multibox, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
):
    def step(*args, **kwargs):
        raise error

    monkeypatch.setattr(Trainer, "step", step)
    status, _, err = multibox("train", data, "--model", "ssd256-tiny", "--out", tmp_path / "run", *SHORT)
    assert status == 1
    assert err[-1].startswith("multibox: ")
    assert said in err[-1] and str(error) in err[-1]


def test_an_error_of_our_own_is_not_taken_for_memory(
    multibox: Multibox, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def step(*args, **kwargs):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(Trainer, "step", step)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        multibox("train", data, "--model", "ssd256-tiny", "--out", tmp_path / "run", *SHORT)


def test_the_bar_shows_the_run_s_own_time_left():
    progress = Progress(
        step=3,
        fraction_done=0.5,
        epoch=1.26,
        localization=1.5,
        confidence=2.25,
        gradient_norm=7.5,
        learning_rate=0.1,
        images_per_second=33.3,
        seconds_left=3725.4,
    )
    said = "epoch 1.3  loss 3.75  33 images/s  1:02:06 left"
    assert str(progress) == said


@pytest.mark.slow
def test_several_sets_are_learned_from_as_one(multibox: Multibox, data: Path, tmp_path: Path):
    """VOC 07+12, for example, is two folders."""
    other = Path(shutil.copytree(data, tmp_path / "other"))
    command = ["train", data, other, "--model", "ssd256-tiny", *SHORT]
    status, _, err = multibox(*command, "--out", tmp_path / "run")
    assert status == 0
    assert err[0] == "8 images to learn from (train), 6 to validate on (val)"
    trained_on = Detector.load(tmp_path / "run" / "best.safetensors").provenance["trained on"]
    assert trained_on == f"{data}, train + {other}, train"

    (other / "ImageSets" / "Main" / "val.txt").unlink()
    status, _, err = multibox(*command, "--val-split", "val")
    assert (status, len(err)) == (2, 1)
    assert f"--val-split: {other} has no split 'val'" in err[0]
    (other / "classes.txt").write_text((data / "classes.txt").read_text() + "dog\n")
    status, _, err = multibox(*command, "--out", tmp_path / "more", "--val-split", "none")
    assert status == 0
    assert any(f"the classes differ: only {other}, train has 'dog' (joined by name)" in line for line in err)
    status, _, err = multibox("train", data, data, *command[3:])
    assert (status, err) == (1, [f"multibox: {data} is given twice"])


@pytest.mark.slow
def test_trains_on_yolo_s_layout(multibox: Multibox, tmp_path: Path):
    write_yolo({"train": scenes(4, seed=1), "val": scenes(2, seed=2)}, tmp_path / "yolo")
    assert multibox("train", tmp_path / "yolo", "--model", "ssd256-tiny", "--out", tmp_path / "run", *SHORT).status == 0


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
@pytest.mark.slow
def test_an_interrupted_run_goes_on(multibox: Multibox, data: Path, tmp_path: Path):
    """Ctrl-C, as a terminal sends it: to this process and its workers."""
    out = tmp_path / "run"
    command = ["train", str(data), "--model", "ssd256-tiny", "--out", str(out), "--batch-size", "2", "--device", "cpu"]
    length = ["--steps", "100000", "--validate-every", "1", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", HEAR_INTERRUPTS, *command, *length],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 120
        while not (out / "last.pt").exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        lines, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, lines) == (130, "")
    assert "Traceback" not in err
    said, printed = err.splitlines()[-2:]
    assert re.fullmatch(r"multibox: interrupted; SIGINT at step \d+; all is saved; to go on:", said)
    assert shlex.split(printed) == ["multibox", "train", "--resume", str(out)]
    before = int(rows(out)[-1]["step"])
    status, _, lines = multibox(*shlex.split(printed)[1:], "--steps", before + 1, "--workers", 0)
    assert status == 0
    assert any("from step" in line for line in lines)
