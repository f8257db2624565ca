"""Runs: what they leave, that an interrupted one goes on to the bit, and what ends or refuses one."""

import csv
import json
import logging
import math
import re
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from multibox.data.read import read_dataset
from multibox.data.sample import Dataset, GroundTruth
from multibox.data.synthetic import synthetic_scenes
from multibox.data.write import write_voc
from multibox.detections import Detections
from multibox.detector import Detector
from multibox.ssd.loss import multibox_loss
from multibox.ssd.matching import make_targets
from multibox.training import RECIPES, TrainConfig, finish, fit, machine, reporter, train, validation
from multibox.training import progress as progress_module
from multibox.training.loading import make_loader
from multibox.training.progress import COLUMNS, RunLength
from multibox.training.state import Checkpoints
from multibox.weights.file import load_weights
from tests.slow import slow

pytestmark = pytest.mark.usefixtures("plain_recipes")

FILES = {
    "best.safetensors",
    "last.safetensors",
    "last.pt",
    "previous.pt",
    "labels.jpg",
    "batch.jpg",
    "metrics.csv",
    "config.yaml",
    "log.txt",
    ".lock",
    "curves.png",
    "validation.jpg",
    "card.md",
    "card.json",
}
EMPTY_CARD = {"best": None, "metrics": None, "facts": {}, "data": {"val": None}, "commands": {}, "images": []}
AT_THE_END = {"curves.png", "validation.jpg", "card.md", "card.json"}


@pytest.fixture(scope="module")
def train_set():
    return synthetic_scenes(12, seed=1, height=64, width=64)


@pytest.fixture(scope="module")
def val_set():
    return synthetic_scenes(4, seed=2, height=64, width=64)


def read_rows(out):
    with (out / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def images(monkeypatch):
    """The sets of which images would have been drawn; drawing takes longer than most of the runs here."""
    drawn_from = []

    def write_nothing(folder, *_, shown, val_set, **__):
        drawn_from.append(shown.name)
        return EMPTY_CARD | {"folder": str(folder)}, Image.new("RGB", (1, 1))

    monkeypatch.setattr(finish, "write_card", write_nothing)
    return drawn_from


def steps_of(out):
    return [int(row["step"]) for row in read_rows(out)]


def weights(path):
    return load_weights(path).tensors


def weights_of(detector):
    return {name: tensor.numpy() for name, tensor in detector.network.state_dict().items()}


def step_of(path):
    return int(load_weights(path).provenance["step"])


def assert_equal_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


# One run from its beginning to its end


@pytest.fixture(scope="module")
def finished(tmp_path_factory, new_detector, train_set, val_set, plain_recipes):
    """The folder of a run of 32 steps, four epochs between validations; all of its progress; what it returned.

    It is made before `images` stops the drawing.
    """
    out = tmp_path_factory.mktemp("runs") / "not" / "there"
    progress = []
    config = TrainConfig(steps=32, batch_size=6, validate_every=4)
    best = train(new_detector(), train_set, val_set, config, out=out, on_progress=progress.append)
    return out, progress, best


def test_a_run_leaves_its_files(finished):
    out, _, _ = finished
    assert {path.name for path in out.iterdir()} == FILES
    card = json.loads((out / "card.json").read_text(encoding="utf-8"))
    assert card["best"]["step"] == step_of(out / "best.safetensors")
    assert card["facts"]["steps that were not finite, left out"] == 0


def test_best_and_last_are_detectors(finished, train_set, val_set):
    out, _, best = finished
    for name in ("best", "last"):
        detector = Detector.load(out / f"{name}.safetensors")
        assert detector.class_names == train_set.class_names
        assert detector.provenance["trained on"] == train_set.name
        assert detector.provenance["recipe"] == "modern"
        assert detector.provenance["seed"] == "0"
        detector.detect(val_set[0].open())
    assert detector.provenance["step"] == "32"
    assert_equal_weights(weights(out / "best.safetensors"), weights_of(best))


def test_metrics_have_a_row_for_each_validation(finished):
    out, progress, _ = finished
    rows = read_rows(out)
    assert tuple(rows[0]) == COLUMNS
    assert [int(row["step"]) for row in rows] == [8, 16, 24, 32]
    assert [float(row["epoch"]) for row in rows] == [4, 8, 12, 16]
    minutes = [float(row["minutes"]) for row in rows]
    assert minutes == sorted(minutes) and minutes[0] > 0
    for row, at in zip(rows, progress[7::8], strict=True):
        assert float(row["learning_rate"]) == pytest.approx(at.learning_rate, rel=1e-5)
        assert float(row["localization"]) == pytest.approx(at.localization, rel=1e-5)
        assert float(row["confidence"]) == pytest.approx(at.confidence, rel=1e-5)
        assert all(0 <= float(row[name]) <= 1 for name in ("ap", "ap50", "ap75"))


def test_the_loss_falls(finished):
    rows = read_rows(finished[0])
    losses = [float(row["localization"]) + float(row["confidence"]) for row in rows]
    assert losses[-1] < 0.75 * losses[0]


def test_progress_is_sane(finished):
    _, progress, _ = finished
    assert [at.step for at in progress] == list(range(1, 33))
    assert [at.epoch for at in progress] == [step / 2 for step in range(1, 33)]
    assert [at.fraction_done for at in progress] == [step / 32 for step in range(1, 33)]
    recipe = replace(RECIPES["modern"], learning_rate=RECIPES["modern"].learning_rate * 6 / 4)
    assert [at.learning_rate for at in progress] == [recipe.learning_rate_at((step - 1) / 32) for step in range(1, 33)]
    assert all(at.images_per_second > 0 for at in progress)
    assert all(at.localization > 0 and at.confidence > 0 for at in progress)
    assert all(at.seconds_left > 0 for at in progress[:-1]) and progress[-1].seconds_left == 0


def test_the_log_says_what_happened(finished):
    text = (finished[0] / "log.txt").read_text(encoding="utf-8")
    assert "12 images, from the start" in text
    assert text.count("AP50") == 6  # four validations, and the summary with its table
    assert text.count(", ap50 ") == 4  # all other numbers of the validations
    assert "stopped" not in text
    assert logging.getLogger("multibox").handlers == []
    assert logging.getLogger("multibox").level == logging.NOTSET


def test_the_config_of_a_run_gives_the_run_again(finished):
    values = yaml.safe_load((finished[0] / "config.yaml").read_text(encoding="utf-8"))
    recipe = RECIPES["modern"]
    assert TrainConfig(**values) == TrainConfig(
        recipe="modern",
        steps=32,
        precision="fp32",
        batch_size=6,
        validate_every=4,
        learning_rate=recipe.learning_rate * 6 / 4,
        warmup=recipe.warmup,
        milestones=recipe.milestones,
        expand_probability=recipe.augmentation.expand_probability,
        backbone_lr_factor=1.0,
        freeze_stride=0,
        freeze_batch_norm=False,
    )


def test_a_second_run_in_the_folder_is_refused(finished, new_detector, train_set):
    before = {path: path.read_bytes() for path in finished[0].iterdir()}
    with pytest.raises(FileExistsError, match="holds a run already; choose another folder, or go on with it: resume"):
        train(new_detector(), train_set, None, TrainConfig(steps=1), out=finished[0])
    assert before == {path: path.read_bytes() for path in finished[0].iterdir()}


@pytest.mark.parametrize(("workers", "threads"), [(0, 4), (1, 3), (8, 1)])
def test_torch_has_the_cores_that_the_workers_leave(tmp_path, new_detector, train_set, monkeypatch, workers, threads):
    monkeypatch.setattr(machine, "_cores", lambda: 4)
    monkeypatch.setattr(fit, "make_loader", lambda *args, workers, **kwargs: make_loader(*args, workers=0, **kwargs))
    calls = []
    monkeypatch.setattr(torch, "set_num_threads", calls.append)
    train(new_detector(), train_set, None, TrainConfig(steps=1, workers=workers), out=tmp_path)
    assert calls == [threads, torch.get_num_threads()]  # and what it had before at the end


# Interruption and resumption


SHORT = TrainConfig(steps=6, batch_size=4, validate_every=1, workers=0)  # three steps an epoch


def interrupting(function):
    """The function, before whose first call Ctrl-C comes."""
    signals = [signal.SIGINT]

    def interrupted(*args, **kwargs):
        while signals:
            signal.raise_signal(signals.pop())
        return function(*args, **kwargs)

    return interrupted


def interrupt_at(step):
    def on_progress(progress):
        if progress.step == step:
            raise KeyboardInterrupt

    return on_progress


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, new_detector, train_set, val_set, plain_recipes):
    """The folders of runs that nobody interrupted."""
    folders = {recipe: tmp_path_factory.mktemp(recipe) for recipe in ("modern", "paper")}
    for recipe, out in folders.items():
        train(new_detector(), train_set, val_set, replace(SHORT, recipe=recipe), out=out)
    return folders


def assert_same_end(out, expected):
    for name in ("last.safetensors", "best.safetensors"):
        assert_equal_weights(weights(out / name), weights(expected / name))
    here, there = (torch.load(folder / "last.pt", weights_only=True) for folder in (out, expected))
    for part in ("network", "ema"):
        assert (here[part] is None) == (there[part] is None)
        for name, tensor in (here[part] or {}).items():
            assert torch.equal(tensor, there[part][name]), name
    columns = ("step", "epoch", "learning_rate", "ap", "ap50", "ap75")
    ours, theirs = ([[row[name] for name in columns] for row in read_rows(folder)] for folder in (out, expected))
    assert ours == theirs


# before the first validation, just before it, in the second epoch, and just before the last validation
@pytest.mark.parametrize(
    ("recipe", "step"), [("modern", 1), ("modern", 6), ("paper", 3), slow("modern", 3), slow("paper", 5)]
)
def test_an_interrupted_run_goes_on_to_the_bit(undisturbed, tmp_path, new_detector, train_set, val_set, recipe, step):
    config = replace(SHORT, recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), train_set, val_set, config, out=tmp_path, on_progress=interrupt_at(step))
    assert (tmp_path / "last.pt").exists()
    assert f"stopped: SIGINT at step {step}; all is saved" in (tmp_path / "log.txt").read_text(encoding="utf-8")
    steps = []
    train(
        new_detector(seed=99),
        train_set,
        val_set,
        config,
        out=tmp_path,
        resume=True,
        on_progress=lambda progress: steps.append(progress.step),
    )
    assert steps == list(range(step + 1, 7))
    assert_same_end(tmp_path, undisturbed[recipe])
    assert f"from step {step}" in (tmp_path / "log.txt").read_text(encoding="utf-8")


@pytest.fixture
def within_a_step(monkeypatch):
    """`within_a_step(number, act)` acts in the midst of that step: forward is done, and the weights are as before."""

    def arrange(number, act):
        calls = []

        def loss(*args, **kwargs):
            calls.append(args)
            if len(calls) == number:
                act()
            return multibox_loss(*args, **kwargs)

        monkeypatch.setattr("multibox.ssd.cpu.multibox_loss", loss)

    return arrange


def test_an_interruption_within_a_step(
    undisturbed, tmp_path, new_detector, train_set, val_set, monkeypatch, within_a_step
):
    """Statistics of batch normalization have changed already."""
    before = signal.getsignal(signal.SIGINT)
    within_a_step(5, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), train_set, val_set, SHORT, out=tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 5
    train(new_detector(seed=99), train_set, val_set, SHORT, out=tmp_path, resume=True)
    assert_same_end(tmp_path, undisturbed["modern"])


def test_an_interrupt_that_is_ignored_stays_ignored(tmp_path, new_detector, train_set, within_a_step):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        within_a_step(2, lambda: signal.raise_signal(signal.SIGINT))
        train(new_detector(), train_set, None, SHORT, out=tmp_path)
    finally:
        signal.signal(signal.SIGINT, before)
    assert steps_of(tmp_path) == [3, 6]


def test_training_in_another_thread(tmp_path, new_detector, train_set):
    thread = threading.Thread(target=train, args=(new_detector(), train_set, None, SHORT), kwargs={"out": tmp_path})
    thread.start()
    thread.join()
    assert steps_of(tmp_path) == [3, 6]


def test_an_interruption_before_the_first_step(undisturbed, tmp_path, new_detector, train_set, val_set, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(fit, "make_loader", interrupting(make_loader))
        train(new_detector(), train_set, val_set, SHORT, out=tmp_path)
    assert not (tmp_path / "metrics.csv").exists()
    train(new_detector(seed=99), train_set, val_set, SHORT, out=tmp_path, resume=True)
    assert_same_end(tmp_path, undisturbed["modern"])


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interruption_in_a_validation(undisturbed, tmp_path, new_detector, train_set, val_set, monkeypatch, when):
    """Before the row of the metrics is written, or after it."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if when == "before":
            patch.setattr(validation, "predict", interrupting(validation.predict))
        else:
            patch.setattr(Detector, "save", interrupting(Detector.save))
        train(new_detector(), train_set, val_set, SHORT, out=tmp_path)
    assert (tmp_path / "metrics.csv").exists() == (when == "after")
    train(new_detector(seed=99), train_set, val_set, SHORT, out=tmp_path, resume=True)
    assert_same_end(tmp_path, undisturbed["modern"])


def test_rows_of_steps_that_were_lost_are_dropped(undisturbed, tmp_path, new_detector, train_set, val_set):
    """The machine went down after a row was written, and before the state was saved."""
    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), train_set, val_set, SHORT, out=tmp_path, on_progress=interrupt_at(5))
    assert steps_of(tmp_path) == [3]
    with (tmp_path / "metrics.csv").open("a", encoding="utf-8") as file:
        file.write("6,2,0.1,0.001,1.5,2.5,100,0,35,1,2,97,0.99,0.99,0.99\n")
    train(new_detector(seed=99), train_set, val_set, SHORT, out=tmp_path, resume=True)
    assert_same_end(tmp_path, undisturbed["modern"])


def test_resuming_where_nothing_was_saved_begins(undisturbed, tmp_path, new_detector, train_set, val_set):
    out = tmp_path / "new"
    train(new_detector(), train_set, val_set, SHORT, out=out, resume=True)
    assert_same_end(out, undisturbed["modern"])
    # rows whose state was never saved are no part of a run that begins
    half = tmp_path / "half"
    half.mkdir()
    (half / ".lock").touch()
    (half / "metrics.csv").write_bytes((undisturbed["modern"] / "metrics.csv").read_bytes())
    train(new_detector(), train_set, val_set, SHORT, out=half, resume=True)
    assert_same_end(half, undisturbed["modern"])


def test_a_run_of_an_older_version_goes_on(undisturbed, tmp_path, new_detector, train_set, val_set):
    """Its checkpoint lacks the values that are new since, which then are the defaults."""
    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), train_set, val_set, SHORT, out=tmp_path, on_progress=interrupt_at(5))
    values = torch.load(tmp_path / "last.pt", weights_only=True)
    del values["score_thresholds"]
    config = json.loads(values["config"])
    del config["head_activation"]
    for layer in config["extras"]:
        del layer["squeezed"]
    torch.save(values | {"config": json.dumps(config)}, tmp_path / "last.pt")
    train(new_detector(seed=99), train_set, val_set, SHORT, out=tmp_path, resume=True)
    assert_same_end(tmp_path, undisturbed["modern"])


def test_a_run_that_ends_just_before_its_best_weights_are_written(
    undisturbed, tmp_path, new_detector, train_set, val_set, monkeypatch
):
    """The state is there, and says that they are the best; so are the last weights."""
    save, calls = Detector.save, []

    def killed(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        save(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Detector, "save", killed)
        train(new_detector(), train_set, val_set, SHORT, out=tmp_path)
    assert not (tmp_path / "best.safetensors").exists()
    train(new_detector(seed=9), train_set, val_set, SHORT, out=tmp_path, resume=True)
    assert_same_end(tmp_path, undisturbed["modern"])


def test_other_images_than_before_are_said(tmp_path, new_detector, train_set, caplog):
    train(new_detector(), train_set, None, SHORT, out=tmp_path)
    longer, fewer = replace(SHORT, steps=7), replace(train_set, samples=train_set.samples[:-1])
    for again, said in ((train_set, 0), (fewer, 1)):
        caplog.clear()
        train(new_detector(), again, None, longer, out=tmp_path, resume=True)
        assert (
            caplog.text.count(
                "the training set has changed since the run was stopped (12 images then, 11 now, or other boxes): the"
            )
            == said
        )


@pytest.mark.parametrize(("anew", "best_step"), [(0.35, "3"), slow(0.15, "9")])
def test_with_another_validation_set_the_best_is_measured_anew(
    tmp_path, new_detector, train_set, val_set, scripted_ap, caplog, anew, best_step
):
    scripted_ap([0.5, 0.4, anew, 0.2, 0.1, anew])  # the last for the card
    train(new_detector(), train_set, val_set, SHORT, out=tmp_path)
    fewer = replace(val_set, samples=val_set.samples[:-1])
    train(new_detector(), train_set, fewer, replace(SHORT, steps=12, patience=2), out=tmp_path, resume=True)
    assert (
        "the validation set has changed since the run was stopped (4 images then, 3 now, or other boxes)" in caplog.text
    )
    assert f"the best weights, of step 3, have AP {100 * anew:.1f} on the validation set as it is now" in caplog.text
    assert load_weights(tmp_path / "best.safetensors").provenance["step"] == best_step
    assert len(read_rows(tmp_path)) == 4  # there was patience for two, from here on


def test_the_best_weights_of_steps_that_were_lost_are_measured_anew(
    tmp_path, new_detector, train_set, val_set, scripted_ap
):
    """The newer state is damaged, and the older one knows nothing of them."""
    scripted_ap([0.5, 0.9, 0.7, 0.8])
    config = replace(SHORT, checkpoint_minutes=0.0)
    train(new_detector(), train_set, val_set, config, out=tmp_path)
    (tmp_path / "last.pt").write_bytes(b"torn")
    train(new_detector(), train_set, val_set, config, out=tmp_path, resume=True)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert (state["best_ap"], state["best_step"]) == (0.8, 6)
    assert load_weights(tmp_path / "best.safetensors").provenance["step"] == "6"


def test_the_best_weights_survive_a_stop_while_they_are_measured_anew(
    tmp_path, new_detector, train_set, val_set, scripted_ap, monkeypatch
):
    """What is saved then says nothing of them, so that the next run measures them again."""
    scripted_ap([0.5, 0.9])
    config = replace(SHORT, checkpoint_minutes=0.0)
    train(new_detector(), train_set, val_set, config, out=tmp_path)
    (tmp_path / "last.pt").write_bytes(b"torn")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(validation, "predict", interrupting(validation.predict))
        train(new_detector(), train_set, val_set, config, out=tmp_path, resume=True)
    scripted_ap([0.9, 0.8, 0.9])  # the best weights, a worse validation, and the best once more for the card
    train(new_detector(), train_set, val_set, config, out=tmp_path, resume=True)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert (state["best_ap"], state["best_step"]) == (0.9, 6)


@pytest.mark.parametrize("name", ["config.yaml", "best.safetensors", "card.md", "validation.jpg", "log.txt"])
def test_a_folder_with_files_that_no_run_has_written_is_refused(tmp_path, new_detector, train_set, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=f"holds {name}, which no run has written"):
        train(new_detector(), train_set, None, SHORT, out=tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, b"mine")]


def test_what_cannot_be_learned_or_measured_is_said(tmp_path, new_detector, train_set, val_set, caplog):
    others = train_set.class_names[1:]
    just_one = [replace(sample, truth=GroundTruth([[9, 9, 40, 40]], [0])) for sample in train_set]
    nothing = [replace(sample, truth=GroundTruth([], [])) for sample in val_set]
    sets = replace(train_set, samples=just_one), replace(val_set, samples=nothing)
    train(new_detector(), *sets, replace(SHORT, steps=1), out=tmp_path / "a")
    assert f"no training image has an object of {', '.join(others)}, so the detector cannot learn it" in caplog.text
    assert f"no image of {val_set.name} has an object, so no average precision can be measured" in caplog.text
    train(new_detector(), train_set, None, replace(SHORT, steps=1, patience=3), out=tmp_path / "b")
    assert "patience has no effect without a validation set" in caplog.text


def test_resuming_a_finished_run_does_nothing_more(tmp_path, new_detector, train_set, val_set):
    train(new_detector(), train_set, val_set, SHORT, out=tmp_path)
    state = (tmp_path / "last.pt").read_bytes()
    before = {name: weights(tmp_path / f"{name}.safetensors") for name in ("best", "last")}
    rows = read_rows(tmp_path)
    called = []
    best = train(new_detector(seed=9), train_set, val_set, SHORT, out=tmp_path, resume=True, on_progress=called.append)
    assert called == []
    assert (tmp_path / "last.pt").read_bytes() == state
    for name, values in before.items():
        assert_equal_weights(weights(tmp_path / f"{name}.safetensors"), values)
    assert rows == read_rows(tmp_path)
    assert_equal_weights(weights(tmp_path / "best.safetensors"), weights_of(best))


def test_a_finished_run_can_be_made_longer(tmp_path, new_detector, train_set):
    train(new_detector(), train_set, None, SHORT, out=tmp_path)
    train(new_detector(), train_set, None, replace(SHORT, steps=7), out=tmp_path, resume=True)
    assert steps_of(tmp_path) == [3, 6, 7]


@pytest.mark.parametrize(
    "content", [b"", b"not a file of torch", b"PK\x03\x04 cut off"], ids=["empty", "text", "cut off"]
)
def test_a_damaged_state_is_said(tmp_path, new_detector, train_set, content):
    (tmp_path / "last.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"last\.pt: damaged .*cannot go on from it: start again in another folder"):
        train(new_detector(), train_set, None, SHORT, out=tmp_path, resume=True)


def test_a_state_of_another_kind_is_said(tmp_path, new_detector, train_set):
    train(new_detector(), train_set, None, replace(SHORT, steps=1, recipe="paper"), out=tmp_path)
    with pytest.raises(ValueError, match=r"last\.pt: cannot go on from it"):
        train(new_detector(), train_set, None, replace(SHORT, steps=2), out=tmp_path, resume=True)
    torch.save([1, 2], tmp_path / "last.pt")
    with pytest.raises(
        ValueError, match=r"last\.pt: damaged \(it is not a checkpoint of a run\); cannot go on from it"
    ):
        train(new_detector(), train_set, None, replace(SHORT, steps=2), out=tmp_path, resume=True)


def test_a_state_of_other_batches_is_said(tmp_path, new_detector, train_set):
    train(new_detector(), train_set, None, replace(SHORT, steps=1), out=tmp_path)
    with pytest.raises(
        ValueError, match=r"last\.pt: .*its steps are of 4 images, this run's of 8; to resume it, keep 4 images a step"
    ):
        train(new_detector(), train_set, None, replace(SHORT, batch_size=8), out=tmp_path, resume=True)


def test_the_log_says_which_values_are_others_than_before(tmp_path, new_detector, train_set):
    train(new_detector(), train_set, None, replace(SHORT, steps=1), out=tmp_path)
    train(new_detector(), train_set, None, replace(SHORT, steps=2, clip_norm=10.0), out=tmp_path, resume=True)
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert re.findall(r"(\w+) is (.*) from here on, and was (.*)", log) == [
        ("clip_norm", "10.0", "not given"),
        ("steps", "2", "1"),
    ]


def test_a_state_of_another_detector_is_said(tmp_path, new_detector, small_config, train_set):
    """Its weights would fit."""
    train(new_detector(), train_set, None, replace(SHORT, steps=1), out=tmp_path)
    before = (tmp_path / "last.pt").read_bytes()
    names = ("disc", *train_set.class_names[1:])
    turned = train_set.class_names[::-1]
    larger = tuple(
        replace(row, box_sizes=tuple((2 * width, 2 * height) for width, height in row.box_sizes))
        for row in small_config.feature_maps
    )
    for other, class_names, why in (
        (small_config, names, r"only it has 'circle'; only this run has 'disc'"),
        (small_config, turned, "the classes of it and of this run are in another order"),
        (replace(small_config, feature_maps=larger), train_set.class_names, "'small' has another feature_maps"),
    ):
        detector = Detector.create(other, class_names, seed=0)
        weights_before = weights_of(detector)
        with pytest.raises(ValueError, match=rf"last\.pt: cannot go on from it \(.*{why}\); start again"):
            named = Dataset("named", class_names, train_set.samples)
            train(detector, named, None, replace(SHORT, steps=2), out=tmp_path, resume=True)
        assert_equal_weights(weights_before, weights_of(detector))
    assert (tmp_path / "last.pt").read_bytes() == before


# Which weights are kept


@pytest.fixture
def scripted_ap(monkeypatch, new_detector, train_set):
    """`scripted_ap([0.1, None, ...])`: what the validations that follow find."""
    score = validation.score

    def script(values):
        values = iter(values)

        def scripted(*args, **kwargs):
            return replace(score(*args, **kwargs), ap=next(values))

        monkeypatch.setattr(validation, "score", scripted)

    return script


def test_best_is_the_one_with_the_highest_ap(tmp_path, new_detector, train_set, val_set, scripted_ap):
    scripted_ap([0.2, 0.4, 0.4])
    best = train(new_detector(), train_set, val_set, replace(SHORT, validate_every=2 / 3), out=tmp_path)
    assert int(best.provenance["step"]) == step_of(tmp_path / "best.safetensors") == 4
    assert step_of(tmp_path / "last.safetensors") == 6


def test_an_ap_of_zero_is_better_than_none(tmp_path, new_detector, train_set, val_set, scripted_ap):
    scripted_ap([0.0, 0.0])
    train(new_detector(), train_set, val_set, SHORT, out=tmp_path)
    assert step_of(tmp_path / "best.safetensors") == 3


def test_a_resumed_run_remembers_its_best(tmp_path, new_detector, train_set, val_set, scripted_ap):
    scripted_ap([0.4, 0.3, 0.4])  # and the best once more at the end, for the card
    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), train_set, val_set, SHORT, out=tmp_path, on_progress=interrupt_at(5))
    train(new_detector(), train_set, val_set, SHORT, out=tmp_path, resume=True)
    assert step_of(tmp_path / "best.safetensors") == 3


def test_without_validation_best_is_last(tmp_path, new_detector, train_set, images):
    train(new_detector(), train_set, None, SHORT, out=tmp_path)
    assert step_of(tmp_path / "best.safetensors") == step_of(tmp_path / "last.safetensors") == 6
    assert_equal_weights(weights(tmp_path / "best.safetensors"), weights(tmp_path / "last.safetensors"))
    assert [row["ap"] for row in read_rows(tmp_path)] == ["", ""]
    assert images == [train_set.name]


def without_objects(dataset):
    samples = [replace(sample, truth=sample.truth[np.zeros(len(sample.truth), bool)]) for sample in dataset]
    return Dataset("empty", dataset.class_names, samples)


def test_validating_on_images_without_objects(tmp_path, new_detector, train_set, val_set):
    train(new_detector(), train_set, without_objects(val_set), SHORT, out=tmp_path)
    assert step_of(tmp_path / "best.safetensors") == 6


def test_a_step_on_images_without_objects_learns_nothing(tmp_path, new_detector, train_set):
    """The images have one object among them, so that the run begins, and none of it is in the first two steps."""
    progress = []
    last = train_set[len(train_set) - 1]
    images = [*without_objects(train_set)] * 20 + [last]
    train(
        new_detector(),
        replace(train_set, samples=images),
        None,
        replace(SHORT, steps=2, recipe="paper"),
        out=tmp_path,
        on_progress=progress.append,
    )
    assert [(at.localization, at.confidence) for at in progress] == [(0, 0)] * 2


def test_the_average_of_the_weights_is_what_is_kept(tmp_path, new_detector, train_set):
    train(new_detector(), train_set, None, SHORT, out=tmp_path)
    saved, state = weights(tmp_path / "last.safetensors"), torch.load(tmp_path / "last.pt", weights_only=True)
    name = "backbone.stage3.0.0.weight"
    np.testing.assert_array_equal(saved[name], state["ema"][name])
    assert np.abs(saved[name] - state["network"][name].numpy()).max() > 1e-6


# How long a run is


def test_epochs(tmp_path, new_detector, train_set):
    train(new_detector(), train_set, None, TrainConfig(epochs=1.5, batch_size=4), out=tmp_path)
    assert steps_of(tmp_path) == [3, 5]


def test_the_recipes_length_holds_where_nothing_is_said(tmp_path, new_detector, train_set):
    train(new_detector(), train_set, None, out=tmp_path)
    assert steps_of(tmp_path) == [3, 6, 9]  # three epochs of twelve images in fours


def test_the_time_left_of_a_run_that_minutes_limit(tmp_path, new_detector, train_set):
    progress = []

    def stop_at_step_3(at):
        progress.append(at)
        if at.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), train_set, None, TrainConfig(minutes=10), out=tmp_path, on_progress=stop_at_step_3)
    for at in progress:
        assert at.seconds_left == pytest.approx(600 * (1 - at.fraction_done))
        assert 0 < at.fraction_done < 0.5


def test_minutes_end_a_run_after_the_step_that_passes_them(tmp_path, new_detector, train_set, val_set):
    progress = []
    train(new_detector(), train_set, val_set, TrainConfig(minutes=1e-6), out=tmp_path, on_progress=progress.append)
    assert len(progress) == 1 and progress[0].fraction_done == 1 and progress[0].seconds_left == 0
    assert steps_of(tmp_path) == [1]
    assert {path.name for path in tmp_path.iterdir()} == FILES - AT_THE_END - {"previous.pt"}


def test_the_first_of_several_lengths_ends_a_run(tmp_path, new_detector, train_set):
    config = TrainConfig(steps=3, epochs=50, minutes=60)
    train(new_detector(), train_set, None, config, out=tmp_path / "steps")
    assert steps_of(tmp_path / "steps") == [3]
    train(new_detector(), train_set, None, replace(config, steps=900, minutes=1e-6), out=tmp_path / "minutes")
    assert steps_of(tmp_path / "minutes") == [1]


def test_minutes_that_passed_before_a_resume_count(tmp_path, new_detector, train_set):
    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), train_set, None, TrainConfig(minutes=5), out=tmp_path, on_progress=interrupt_at(2))
    train(new_detector(), train_set, None, TrainConfig(minutes=1e-6), out=tmp_path, resume=True)
    assert steps_of(tmp_path) == [2]


def test_a_batch_that_is_larger_than_the_set(tmp_path, new_detector, train_set):
    few = Dataset("few", train_set.class_names, train_set.samples[:3])
    train(new_detector(), few, None, TrainConfig(epochs=6, batch_size=8), out=tmp_path)
    assert steps_of(tmp_path) == [1, 2, 3]
    assert float(read_rows(tmp_path)[-1]["epoch"]) == 6  # as asked for, though the last batch reaches further


def test_the_rows_between_validations(tmp_path, new_detector, train_set, val_set, monkeypatch):
    """Many rows in a short run, AP in those of validations only; the losses are those of each step."""
    monkeypatch.setattr(progress_module, "ROWS", 50)
    rows, told = [], []
    config = replace(SHORT, steps=40, validate_every=5)
    train(new_detector(), train_set, val_set, config, out=tmp_path, on_row=rows.append, on_progress=told.append)
    assert [row["step"] for row in rows] == list(range(1, 41)) == steps_of(tmp_path)
    assert [row["step"] for row in rows if row["ap"] is not None] == [15, 30, 40]
    assert [row["localization"] for row in rows] == [at.localization for at in told]
    written = read_rows(tmp_path)
    assert [row["ap"] != "" for row in written] == [row["ap"] is not None for row in rows]


def test_the_rows_of_a_longer_run_are_fifty_and_those_of_validations(monkeypatch):
    monkeypatch.setattr(progress_module, "ROWS", 50)
    length = RunLength(steps=1000, seconds=None, epochs=None, epoch_steps=100.0, validation_steps=30)
    rows, last = [], 0
    for step in range(1, 1001):
        if length.row_due(last, 0.0, step, 0.0):
            rows.append(last := step)
    assert rows == list(range(20, 1001, 20))
    by_time = replace(length, steps=None, seconds=100.0)
    assert by_time.row_due(0, 0.0, 7, 2.0) and not by_time.row_due(7, 2.1, 9, 3.9)


@pytest.mark.parametrize("step", [3, *map(slow, (2, 4, 5))])
def test_the_rows_of_an_interrupted_run_are_those_of_an_undisturbed_one(
    tmp_path, new_detector, train_set, val_set, monkeypatch, step
):
    """Where a row is over three steps, at 2, 4 (and a half), 6, ..., and a validation lies between."""
    monkeypatch.setattr(progress_module, "ROWS", 4)
    config = replace(SHORT, steps=9)
    train(new_detector(), train_set, val_set, config, out=tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), train_set, val_set, config, out=tmp_path / "other", on_progress=interrupt_at(step))
    train(new_detector(seed=9), train_set, val_set, config, out=tmp_path / "other", resume=True)
    columns = ("step", "epoch", "learning_rate", "localization", "confidence", "gradient_norm", "ap")
    one, other = ([[row[name] for name in columns] for row in read_rows(tmp_path / name)] for name in ("one", "other"))
    assert one == other
    assert [row[0] for row in one] == ["3", "5", "6", "7", "9"]


def test_a_run_ends_at_the_epoch_that_was_asked_for(tmp_path, new_detector, train_set):
    """Two epochs of seven images in fours are 3.5 steps: the last one looks at an image of the third epoch."""
    seven = Dataset("seven", train_set.class_names, train_set.samples[:7])
    train(new_detector(), seven, None, TrainConfig(epochs=2, batch_size=4, validate_every=99), out=tmp_path)
    assert [(row["step"], row["epoch"]) for row in read_rows(tmp_path)] == [("4", "2")]
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "the run takes 2 epochs, 4 steps, at 1.75 steps per epoch" in log
    assert re.search(r" epoch 2/2 +loss \d+\.\d\d +[\d.]+ images/s +0:00 left\n", log)


# What is refused


def test_other_classes_are_refused(tmp_path, new_detector, train_set):
    names = ("cat", "dog", *train_set.class_names)
    other = Dataset("cats", names, train_set.samples)
    with pytest.raises(ValueError, match=r"^only cats has 'cat', 'dog'; make one for the data with .*with_classes"):
        train(new_detector(), other, out=tmp_path / "out")
    with pytest.raises(ValueError, match=r"^cats has objects of 'cat', 'dog', which is none of the 6 classes"):
        train(new_detector(), train_set, other, out=tmp_path / "out")
    turned = Dataset("turned", train_set.class_names[::-1], train_set.samples)
    with pytest.raises(ValueError, match="the classes of turned and of the detector are in another order"):
        train(new_detector(), turned, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_empty_sets_are_refused(tmp_path, new_detector, train_set):
    empty = Dataset("nothing", train_set.class_names, [])
    with pytest.raises(ValueError, match="nothing has no images"):
        train(new_detector(), empty, out=tmp_path / "out")
    with pytest.raises(ValueError, match="nothing has no images"):
        train(new_detector(), train_set, empty, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_names_the_images(tmp_path, new_detector, train_set):
    config = replace(SHORT, recipe="paper", learning_rate=1e30)
    with pytest.raises(
        ValueError, match=r"epoch \d\.\d+, step \d: the localization loss is .*, the confidence loss .*"
    ) as caught:
        train(new_detector(), train_set, None, config, out=tmp_path)
    assert sum(sample.name in str(caught.value) for sample in train_set) == 4
    assert "try a lower learning rate" in str(caught.value)
    assert "stopped: epoch" in (tmp_path / "log.txt").read_text(encoding="utf-8")


# Steps that are not finite, and images that cannot be read


@pytest.fixture
def poison(monkeypatch):
    """`poison(2, 3)` makes the localization loss of these steps infinite; the first is 1."""

    def arrange(*numbers):
        calls = []

        def poisoned(*args):
            targets = make_targets(*args)
            calls.append(args)
            if len(calls) in numbers:
                return targets._replace(offsets=targets.offsets / (targets.labels == 0)[..., None])
            return targets

        monkeypatch.setattr("multibox.ssd.cpu.make_targets", poisoned)

    return arrange


def test_a_step_that_is_not_finite_stops_a_run_and_its_batch_is_kept(tmp_path, new_detector, train_set, poison):
    poison(2)
    with pytest.raises(ValueError, match=r"^epoch 0\.67, step 2: the localization loss is (inf|nan)") as caught:
        train(new_detector(), train_set, None, SHORT, out=tmp_path)
    kept = torch.load(tmp_path / "bad-step-2.pt", weights_only=True)
    assert kept["inputs"].shape == (4, 3, 64, 64)
    for name in kept["names"]:
        assert f"{name} [" in str(caught.value)
    first = (100 * kept["boxes"][0][kept["labels"][0] >= 0]).tolist()
    assert f"{kept['names'][0]} {[[round(value, 1) for value in box] for box in first[:3]]}" in str(caught.value)
    assert "--resume --skip-bad-steps" in str(caught.value)


def test_a_run_goes_on_without_bad_steps_where_that_is_asked_for(tmp_path, new_detector, train_set, poison):
    poison(2, 3)
    train(new_detector(), train_set, None, replace(SHORT, skip_bad_steps=True), out=tmp_path)
    assert [row["nonfinite_steps"] for row in read_rows(tmp_path)] == ["2", "0"]
    assert all(math.isfinite(float(row["localization"])) for row in read_rows(tmp_path))
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "step 2: the localization loss" in log and "step 3: the localization loss" in log
    assert np.isfinite(weights(tmp_path / "last.safetensors")["backbone.stage3.0.0.weight"]).all()


def test_nothing_but_bad_steps_ends_a_run(tmp_path, new_detector, train_set, poison):
    poison(*range(3, 99))
    config = replace(SHORT, steps=99, skip_bad_steps=True)
    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), train_set, None, config, out=tmp_path, on_progress=interrupt_at(10))
    with pytest.raises(ValueError, match=r"step 22: .* So were the 19 steps before it"):
        train(new_detector(), train_set, None, config, out=tmp_path, resume=True)
    assert len(list(tmp_path.glob("bad-step-*.pt"))) == 10


def test_images_that_become_unreadable_are_listed_once_and_too_many_end_a_run(tmp_path, new_detector):
    write_voc({"train": synthetic_scenes(12, seed=1, height=64, width=64)}, tmp_path / "data")
    dataset = read_dataset(tmp_path / "data", split="train")
    dataset[5].image.unlink()
    config = replace(SHORT, epochs=3, steps=None, max_unreadable=0.1)
    train(new_detector(), dataset, None, config, out=tmp_path / "run")
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert log.count(f"{dataset[5].image}: there is no such image; another image took its place (1 of 12") == 1
    dataset[6].image.unlink()
    with pytest.raises(ValueError, match=r"2 of 12 images cannot be read, more than max_unreadable=0.1 of them"):
        train(new_detector(), dataset, None, config, out=tmp_path / "other")
    assert torch.load(tmp_path / "other" / "last.pt", weights_only=True)["step"] >= 1  # nothing was lost


def test_what_became_unreadable_just_before_a_stop_is_remembered(tmp_path, new_detector):
    write_voc({"train": synthetic_scenes(12, seed=1, height=64, width=64)}, tmp_path / "data")
    dataset = read_dataset(tmp_path / "data", split="train")
    dataset[5].image.unlink()
    config = replace(SHORT, max_unreadable=0.1)
    with pytest.raises(KeyboardInterrupt):  # the three steps of an epoch see each image once
        train(new_detector(), dataset, None, config, out=tmp_path / "run", on_progress=interrupt_at(3))
    assert torch.load(tmp_path / "run" / "last.pt", weights_only=True)["unreadable"] == [
        f"{dataset[5].image}: there is no such image"
    ]


def test_images_that_were_mended_do_not_count_any_more(tmp_path, new_detector):
    write_voc({"train": synthetic_scenes(12, seed=1, height=64, width=64)}, tmp_path / "data")
    dataset = read_dataset(tmp_path / "data", split="train")
    config = replace(SHORT, max_unreadable=0.1)
    away = tmp_path / "away.png"
    dataset[5].image.rename(away)
    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), dataset, None, config, out=tmp_path / "run", on_progress=interrupt_at(3))
    away.rename(dataset[5].image)
    dataset[6].image.unlink()
    train(new_detector(), dataset, None, config, out=tmp_path / "run", resume=True)
    state = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert [complaint.partition(":")[0] for complaint in state["unreadable"]] == [
        str(dataset[index].image) for index in (5, 6)
    ]


def test_a_validation_image_that_becomes_unreadable_stops_a_run_that_goes_on_when_it_is_mended(
    undisturbed, tmp_path, new_detector, train_set, val_set
):
    path = tmp_path / "gone.png"
    first, *others = val_set.samples
    files = replace(val_set, samples=[replace(first, image=path), *others])
    with pytest.raises(
        ValueError, match=rf"{path}: there is no such image; the image belongs to .*, which is validated on"
    ):
        train(new_detector(), train_set, files, SHORT, out=tmp_path / "run")
    Image.fromarray(first.image.transpose(1, 2, 0)).save(path)
    steps = []
    train(
        new_detector(seed=99),
        train_set,
        files,
        SHORT,
        out=tmp_path / "run",
        resume=True,
        on_progress=lambda progress: steps.append(progress.step),
    )
    assert steps == [4, 5, 6]
    assert_same_end(tmp_path / "run", undisturbed["modern"])


def test_ten_batches_of_bad_steps_are_kept(tmp_path, new_detector, train_set, poison):
    poison(*range(1, 12))
    train(new_detector(), train_set, None, replace(SHORT, steps=12, skip_bad_steps=True), out=tmp_path)
    assert len(list(tmp_path.glob("bad-step-*.pt"))) == 10
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert f"The batch is saved in {tmp_path / 'bad-step-10.pt'}" in log
    assert log.count("The batch is saved in") == 10
    assert re.search(r"step 11: .* Ten such batches are saved already", log)


# What ends a run early, and what is saved on the way


def test_the_weights_of_every_validation_are_kept_if_asked_for(tmp_path, new_detector, train_set):
    train(new_detector(), train_set, None, replace(SHORT, keep_weights=True), out=tmp_path)
    kept = sorted(tmp_path.glob("weights-*.safetensors"))
    assert [path.name for path in kept] == ["weights-000003.safetensors", "weights-000006.safetensors"]
    assert [step_of(path) for path in kept] == [3, 6]
    first, second, last = (weights(path) for path in (*kept, tmp_path / "last.safetensors"))
    assert all(np.array_equal(second[name], last[name]) for name in last)
    assert not all(np.array_equal(first[name], last[name]) for name in last)


def test_patience(tmp_path, new_detector, train_set, val_set, scripted_ap):
    scripted_ap([0.2, 0.4, 0.4, 0.3, 0.9])
    config = replace(SHORT, steps=99, patience=2)
    train(new_detector(), train_set, val_set, config, out=tmp_path)
    assert steps_of(tmp_path) == [3, 6, 9, 12]
    assert step_of(tmp_path / "best.safetensors") == 6
    assert "no higher AP in 2 validations, since step 6" in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_patience_goes_on_after_an_interruption(tmp_path, new_detector, train_set, val_set, scripted_ap):
    scripted_ap([0.4, 0.3, 0.2, 0.4])
    config = replace(SHORT, steps=99, patience=2)
    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), train_set, val_set, config, out=tmp_path, on_progress=interrupt_at(7))
    train(new_detector(), train_set, val_set, config, out=tmp_path, resume=True)
    assert steps_of(tmp_path) == [3, 6, 9]


@pytest.mark.parametrize(("minutes", "saved"), [(0.0, [1, 2, 3, 3, 4]), (5.0, [3, 4])])
def test_states_are_saved_now_and_then(tmp_path, new_detector, train_set, monkeypatch, minutes, saved):
    steps = []
    write = Checkpoints.write
    monkeypatch.setattr(Checkpoints, "write", lambda self, state: steps.append(state["step"]) or write(self, state))
    train(new_detector(), train_set, None, replace(SHORT, steps=4, checkpoint_minutes=minutes), out=tmp_path)
    assert sorted(set(steps)) == sorted(set(saved))
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == 4


def test_the_log_and_the_metrics_say_who_waited_for_whom(finished):
    for row in read_rows(finished[0]):
        shares = [float(row[f"time_{whom}"]) for whom in ("input", "host", "device")]
        assert sum(shares) == pytest.approx(100, abs=0.1) and min(shares) >= 0
        assert shares[2] > 30  # the network's work, on a CPU


def test_a_line_of_the_log_now_and_then(tmp_path, new_detector, train_set, monkeypatch):
    monkeypatch.setattr(reporter, "LOG_SECONDS", 0.0)
    train(new_detector(), train_set, None, SHORT, out=tmp_path)
    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    said = [line for line in lines if re.search(r" step \d/6 +loss [\d.]+ +[\d.]+ images/s +0:\d\d left$", line)]
    assert len(said) == 6 + 2  # two of validations


def test_the_log_says_what_the_rate_came_to(finished):
    text = (finished[0] / "log.txt").read_text(encoding="utf-8")
    assert "6 images a step at a learning rate of up to 0.003, the recipe's 0.002 for batches of 4" in text


def test_negatives_of_images_without_objects(tmp_path, new_detector, train_set):
    """Most images of the first step have no objects; only with negatives of their own do they count in the loss."""
    some = replace(train_set, samples=[train_set[0], *without_objects(train_set).samples[1:]])
    confidence = {}
    for number in (0, 3):
        progress = []
        config = replace(SHORT, steps=1, negatives_without_matches=number)
        train(new_detector(), some, None, config, out=tmp_path / str(number), on_progress=progress.append)
        confidence[number] = progress[0].confidence
    assert confidence[3] > 0
    assert confidence[3] != confidence[0]


# Starting from what is known


@pytest.fixture
def known(tmp_path, new_detector):
    """A detector whose classes are known: its weights come from a file."""
    new_detector(seed=1).save(tmp_path / "known.safetensors")
    return lambda: Detector.load(tmp_path / "known.safetensors")


def test_the_start_is_scored_as_epoch_0_and_counts_as_best(tmp_path, known, train_set, val_set, scripted_ap):
    scripted_ap([0.5, 0.2, 0.4])
    start = known()
    best = train(start, train_set, val_set, SHORT, out=tmp_path / "run")
    assert [(row["step"], row["epoch"]) for row in read_rows(tmp_path / "run")] == [("0", "0"), ("3", "1"), ("6", "2")]
    assert step_of(tmp_path / "run" / "best.safetensors") == 0
    assert_equal_weights(weights_of(best), weights(tmp_path / "known.safetensors"))
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert re.search(r" step 0/6 +the start +AP50 [\d.]+ +AP 50\.0 +best\n", log)
    assert len(re.findall(r" best +[\d.]+ images/s", log)) == 0
    assert start.learned_classes == start.class_names  # it is trained in place


def test_classes_that_nobody_has_learned_are_not_scored(tmp_path, new_detector, known, train_set, val_set):
    other = known().with_classes(["cat"]).with_classes(train_set.class_names, seed=0)
    train(other, train_set, val_set, SHORT, out=tmp_path / "none")
    assert steps_of(tmp_path / "none") == [3, 6]
    some = known().with_classes(train_set.class_names[:2]).with_classes(train_set.class_names, seed=0)
    assert some.learned_classes == train_set.class_names[:2]
    train(some, train_set, val_set, SHORT, out=tmp_path / "some")
    assert steps_of(tmp_path / "some") == [0, 3, 6]
    train(known(), train_set, None, SHORT, out=tmp_path / "unjudged")
    assert steps_of(tmp_path / "unjudged") == [3, 6]


@pytest.mark.parametrize("step", [2, slow(0)])
def test_a_run_from_weights_that_is_stopped_ends_as_if_it_were_not(
    tmp_path, known, train_set, val_set, monkeypatch, step
):
    train(known(), train_set, val_set, SHORT, out=tmp_path / "whole")
    out = tmp_path / "stopped"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if step == 0:  # while the start is scored
            patch.setattr(validation, "predict", interrupting(validation.predict))
        train(known(), train_set, val_set, SHORT, out=out, on_progress=interrupt_at(step))
    assert (out / "metrics.csv").exists() == (step > 0)
    train(known(), train_set, val_set, SHORT, out=out, resume=True)
    assert steps_of(out) == [0, 3, 6]
    for name in ("best", "last"):
        assert_equal_weights(weights(out / f"{name}.safetensors"), weights(tmp_path / "whole" / f"{name}.safetensors"))
        assert step_of(out / f"{name}.safetensors") == step_of(tmp_path / "whole" / f"{name}.safetensors")


def test_rows_of_a_run_that_never_saved_are_not_kept(tmp_path, known, train_set, val_set):
    train(known(), train_set, val_set, SHORT, out=tmp_path / "run")
    for name in ("last.pt", "previous.pt"):
        (tmp_path / "run" / name).unlink()
    train(known(), train_set, val_set, SHORT, out=tmp_path / "run", resume=True)
    assert steps_of(tmp_path / "run") == [0, 3, 6]


def test_the_start_is_scored_again_if_the_validation_set_has_changed(
    tmp_path, known, train_set, val_set, scripted_ap, caplog
):
    scripted_ap([0.5, 0.2])
    with pytest.raises(KeyboardInterrupt):
        train(known(), train_set, val_set, SHORT, out=tmp_path / "run", on_progress=interrupt_at(4))
    scripted_ap([0.3, 0.1, 0.3])
    fewer = replace(val_set, samples=val_set.samples[:2])
    train(known(), train_set, fewer, SHORT, out=tmp_path / "run", resume=True)
    assert "the best weights, of step 0, have AP 30.0 on the validation set as it is now" in caplog.text
    assert step_of(tmp_path / "run" / "best.safetensors") == 0


def test_the_rate_is_lower_for_weights_that_know_the_classes(tmp_path, new_detector, known, train_set):
    rates = {}
    for name, detector, config in (
        ("new", new_detector(), SHORT),
        ("known", known(), SHORT),
        ("given", known(), replace(SHORT, learning_rate=0.001)),
    ):
        train(detector, train_set, None, config, out=tmp_path / name)
        rates[name] = yaml.safe_load((tmp_path / name / "config.yaml").read_text(encoding="utf-8"))["learning_rate"]
    factor = RECIPES["modern"].known_classes_lr_factor
    assert factor < 1
    assert rates == {"new": rates["new"], "known": pytest.approx(factor * rates["new"]), "given": 0.001}
    log = (tmp_path / "known" / "log.txt").read_text(encoding="utf-8")
    assert f"the recipe's 0.002 for batches of 4, times {factor:g} because the weights know classes of the data" in log


def test_the_best_thresholds_are_in_the_weights(tmp_path, new_detector, train_set, val_set, monkeypatch):
    """Of classes that are hardly found there is none."""

    def found_in(sample):
        truth = sample.truth
        right = truth.labels != 3  # objects of one class are all missed
        scores = np.full(right.sum(), 0.6, np.float32)
        return Detections(
            truth.boxes[right], scores, truth.labels[right], np.full(right.sum(), -1), val_set.class_names
        )

    monkeypatch.setattr(validation, "predict", lambda *args, **more: [found_in(sample) for sample in val_set])
    best = train(new_detector(), train_set, val_set, SHORT, out=tmp_path)
    seen = set(np.concatenate([sample.truth.labels for sample in val_set]).tolist())
    expected = {name: 0.3 for label, name in enumerate(val_set.class_names) if label != 3 and label in seen}
    assert best.score_thresholds == pytest.approx(expected) and 3 in seen and expected
    assert Detector.load(tmp_path / "last.safetensors").score_thresholds == best.score_thresholds


def test_without_a_validation_there_are_no_thresholds(tmp_path, known, train_set):
    start = known()
    start.score_thresholds = {"circle": 0.3}
    train(start, train_set, None, SHORT, out=tmp_path / "run")
    assert Detector.load(tmp_path / "run" / "best.safetensors").score_thresholds == {}


# What a run says


def test_a_run_says_what_it_learns_from(tmp_path, new_detector, train_set, val_set):
    train(new_detector(), train_set, val_set, replace(SHORT, steps=1), out=tmp_path)
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    for label, name in enumerate(train_set.class_names):
        counts = [sum((sample.truth.labels == label).sum() for sample in dataset) for dataset in (train_set, val_set)]
        assert re.search(rf" {name} +{counts[0]} +{counts[1]}\n", log)
    assert re.search(r" images +12 +4\n", log)


def test_the_forecast_of_a_run(tmp_path, new_detector, train_set, caplog):
    config = TrainConfig(epochs=20, batch_size=4, workers=0, device="cpu", validate_every=99)
    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), train_set, None, config, out=tmp_path / "run", on_progress=interrupt_at(12))
    (said,) = [line for line in caplog.messages if "--minutes limits it" in line]
    assert re.fullmatch(
        r"20 epochs, about [\d.]+ (seconds|minutes) on this CPU without the validations, at [\d.]+ m?s a step; "
        r"--minutes limits it",
        said,
    )


def test_a_validation_reports_its_images(tmp_path, new_detector, train_set, val_set):
    done = []
    config = replace(SHORT, steps=3)
    train(new_detector(), train_set, val_set, config, out=tmp_path, on_validation=lambda *counts: done.append(counts))
    assert done == [(number, 4) for number in range(5)]


def test_a_rate_that_is_too_high_ends_the_run_with_one_sentence(tmp_path, new_detector, train_set, recwarn):
    config = replace(SHORT, steps=100, learning_rate=1e4)
    with pytest.raises(
        ValueError, match=r"^loss [\de.+]+: the learning rate of 10000 is too high; start again .* lower"
    ):
        train(new_detector(), train_set, None, config, out=tmp_path)
    assert not recwarn.list
