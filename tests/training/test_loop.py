"""Runs: what they leave, that an interrupted one goes on to the bit, and what ends or refuses one."""

import csv
import logging
import math
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from multibox.data.sample import Dataset
from multibox.data.synthetic import drawn_scenes
from multibox.detector import Detector
from multibox.ssd.coder import BoxCoder
from multibox.ssd.loss import make_targets, multibox_loss
from multibox.ssd.network import SSD
from multibox.training import RECIPES, TrainConfig, loop, train
from multibox.training.batches import make_loader
from multibox.training.record import COLUMNS, Record
from multibox.training.run import Run, make_optimizer
from multibox.weights.file import load_weights

pytestmark = pytest.mark.usefixtures("plain_recipes")

FILES = {
    "best.safetensors",
    "last.safetensors",
    "last.pt",
    "metrics.csv",
    "config.yaml",
    "log.txt",
    "curves.png",
    "validation.jpg",
}


@pytest.fixture(scope="module")
def train_set():
    return drawn_scenes(12, seed=1, height=64, width=64)


@pytest.fixture(scope="module")
def val_set():
    return drawn_scenes(4, seed=2, height=64, width=64)


def read_rows(out):
    with (out / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def pictures(monkeypatch):
    """The sets of which pictures would have been drawn; drawing takes longer than most of the runs here."""
    drawn_from = []
    monkeypatch.setattr(Record, "draw_curves", lambda _: None)
    monkeypatch.setattr(Record, "draw_validation", lambda _, detector, dataset: drawn_from.append(dataset.name))
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

    It is made before `pictures` stops the drawing.
    """
    out = tmp_path_factory.mktemp("runs") / "not" / "there"
    progress = []
    config = TrainConfig(steps=32, batch_size=6, validate_every=4)
    best = train(new_detector(), train_set, val_set, config, out=out, on_progress=progress.append)
    return out, progress, best


def test_a_run_leaves_its_files(finished):
    out, _, _ = finished
    assert {path.name for path in out.iterdir()} == FILES


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
    assert [at.part for at in progress] == [step / 32 for step in range(1, 33)]
    recipe = replace(RECIPES["modern"])
    assert [at.learning_rate for at in progress] == [recipe.rate((step - 1) / 32) for step in range(1, 33)]
    assert all(at.pictures_per_second > 0 for at in progress)
    assert all(at.localization > 0 and at.confidence > 0 for at in progress)
    assert all(at.seconds_left > 0 for at in progress[:-1]) and progress[-1].seconds_left == 0


def test_the_log_says_what_happened(finished):
    text = (finished[0] / "log.txt").read_text(encoding="utf-8")
    assert "12 pictures, from the start" in text
    assert text.count("ap50") == 4
    assert "stopped" not in text
    assert logging.getLogger("multibox").handlers == []
    assert logging.getLogger("multibox").level == logging.NOTSET


def test_the_config_of_a_run_gives_the_run_again(finished):
    values = yaml.safe_load((finished[0] / "config.yaml").read_text(encoding="utf-8"))
    recipe = RECIPES["modern"]
    assert TrainConfig(**values) == TrainConfig(
        recipe="modern",
        steps=32,
        batch_size=6,
        validate_every=4,
        learning_rate=recipe.learning_rate,
        milestones=recipe.milestones,
        expand_probability=recipe.augmentation.expand_probability,
    )


def test_a_second_run_in_the_folder_is_refused(finished, new_detector, train_set):
    before = {path: path.read_bytes() for path in finished[0].iterdir()}
    with pytest.raises(FileExistsError, match="holds a run already; choose another folder, or go on with it: resume"):
        train(new_detector(), train_set, None, TrainConfig(steps=1), out=finished[0])
    assert before == {path: path.read_bytes() for path in finished[0].iterdir()}


@pytest.mark.parametrize(("workers", "threads"), [(0, 4), (1, 3), (8, 1)])
def test_torch_has_the_cores_that_the_workers_leave(tmp_path, new_detector, train_set, monkeypatch, workers, threads):
    monkeypatch.setattr(loop, "_cores", lambda: 4)
    monkeypatch.setattr(loop, "make_loader", lambda *args, workers, **kwargs: make_loader(*args, workers=0, **kwargs))
    calls = []
    monkeypatch.setattr(torch, "set_num_threads", calls.append)
    train(new_detector(), train_set, None, TrainConfig(steps=1, workers=workers), out=tmp_path)
    assert calls == [threads, torch.get_num_threads()]  # and what it had before at the end


# Interruption and resumption


SHORT = TrainConfig(steps=6, batch_size=4, validate_every=1, workers=0)  # three steps an epoch


def interrupted(*args, **kwargs):
    raise KeyboardInterrupt


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
    for part in ("network", "average"):
        assert (here[part] is None) == (there[part] is None)
        for name, tensor in (here[part] or {}).items():
            assert torch.equal(tensor, there[part][name]), name
    columns = ("step", "epoch", "learning_rate", "ap", "ap50", "ap75")
    ours, theirs = ([[row[name] for name in columns] for row in read_rows(folder)] for folder in (out, expected))
    assert ours == theirs


# before the first validation, just before it, in the second epoch, and just before the last validation
@pytest.mark.parametrize(("recipe", "step"), [("modern", 1), ("modern", 3), ("modern", 6), ("paper", 3), ("paper", 5)])
def test_an_interrupted_run_goes_on_to_the_bit(undisturbed, tmp_path, new_detector, train_set, val_set, recipe, step):
    config = replace(SHORT, recipe=recipe)
    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), train_set, val_set, config, out=tmp_path, on_progress=interrupt_at(step))
    assert (tmp_path / "last.pt").exists()
    assert "stopped: KeyboardInterrupt" in (tmp_path / "log.txt").read_text(encoding="utf-8")
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

        def loss(*args):
            calls.append(args)
            if len(calls) == number:
                act()
            return multibox_loss(*args)

        monkeypatch.setattr("multibox.training.run.multibox_loss", loss)

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
        patch.setattr(Run, "learn", interrupted)
        train(new_detector(), train_set, val_set, SHORT, out=tmp_path)
    assert not (tmp_path / "metrics.csv").exists()
    train(new_detector(seed=99), train_set, val_set, SHORT, out=tmp_path, resume=True)
    assert_same_end(tmp_path, undisturbed["modern"])


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interruption_in_a_validation(undisturbed, tmp_path, new_detector, train_set, val_set, monkeypatch, when):
    """Before the row of the metrics is written, or after it."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        if when == "before":
            patch.setattr(loop, "evaluate", interrupted)
        else:
            patch.setattr(Detector, "save", interrupted)
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
        file.write("6,2,0.1,0.001,1.5,2.5,100,0.99,0.99,0.99\n")
    train(new_detector(seed=99), train_set, val_set, SHORT, out=tmp_path, resume=True)
    assert_same_end(tmp_path, undisturbed["modern"])


def test_resuming_where_nothing_was_saved_begins(undisturbed, tmp_path, new_detector, train_set, val_set):
    out = tmp_path / "new"
    train(new_detector(), train_set, val_set, SHORT, out=out, resume=True)
    assert_same_end(out, undisturbed["modern"])
    # rows whose state was never saved are no part of a run that begins
    half = tmp_path / "half"
    half.mkdir()
    (half / "metrics.csv").write_bytes((undisturbed["modern"] / "metrics.csv").read_bytes())
    train(new_detector(), train_set, val_set, SHORT, out=half, resume=True)
    assert_same_end(half, undisturbed["modern"])


def test_resuming_a_finished_run_does_nothing_more(tmp_path, new_detector, train_set, val_set):
    train(new_detector(), train_set, val_set, SHORT, out=tmp_path)
    files = ("best.safetensors", "last.safetensors", "last.pt", "metrics.csv")
    before = {name: (tmp_path / name).read_bytes() for name in files if name != "metrics.csv"}
    rows = read_rows(tmp_path)
    called = []
    best = train(new_detector(seed=9), train_set, val_set, SHORT, out=tmp_path, resume=True, on_progress=called.append)
    assert called == []
    assert before == {name: (tmp_path / name).read_bytes() for name in before}
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
    with pytest.raises(ValueError, match=r"last\.pt: cannot go on from it .*start anew in another folder"):
        train(new_detector(), train_set, None, SHORT, out=tmp_path, resume=True)


def test_a_state_of_another_kind_is_said(tmp_path, new_detector, train_set):
    train(new_detector(), train_set, None, replace(SHORT, steps=1, recipe="paper"), out=tmp_path)
    with pytest.raises(ValueError, match=r"last\.pt: cannot go on from it"):
        train(new_detector(), train_set, None, replace(SHORT, steps=2), out=tmp_path, resume=True)
    torch.save([1, 2], tmp_path / "last.pt")
    with pytest.raises(ValueError, match=r"last\.pt: cannot go on from it"):
        train(new_detector(), train_set, None, replace(SHORT, steps=2), out=tmp_path, resume=True)


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
        with pytest.raises(ValueError, match=rf"last\.pt: cannot go on from it \(.*{why}\); start anew"):
            named = Dataset("named", class_names, train_set.samples)
            train(detector, named, None, replace(SHORT, steps=2), out=tmp_path, resume=True)
        assert_equal_weights(weights_before, weights_of(detector))
    assert (tmp_path / "last.pt").read_bytes() == before


# Which weights are kept


@pytest.fixture
def scripted_ap(monkeypatch, new_detector, train_set):
    """`scripted_ap([0.1, None, ...])`: what the validations that follow find."""
    evaluate = loop.evaluate

    def script(values):
        values = iter(values)

        def scripted(detector, dataset):
            return replace(evaluate(detector, dataset), ap=next(values))

        monkeypatch.setattr(loop, "evaluate", scripted)

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
    scripted_ap([0.4, 0.3])
    with pytest.raises(KeyboardInterrupt):
        train(new_detector(), train_set, val_set, SHORT, out=tmp_path, on_progress=interrupt_at(5))
    train(new_detector(), train_set, val_set, SHORT, out=tmp_path, resume=True)
    assert step_of(tmp_path / "best.safetensors") == 3


def test_without_validation_best_is_last(tmp_path, new_detector, train_set, pictures):
    train(new_detector(), train_set, None, SHORT, out=tmp_path)
    assert step_of(tmp_path / "best.safetensors") == step_of(tmp_path / "last.safetensors") == 6
    assert_equal_weights(weights(tmp_path / "best.safetensors"), weights(tmp_path / "last.safetensors"))
    assert [row["ap"] for row in read_rows(tmp_path)] == ["", ""]
    assert pictures == [train_set.name]


def test_validating_on_pictures_without_objects(tmp_path, new_detector, train_set, val_set):
    empty = [replace(sample, truth=sample.truth[np.zeros(len(sample.truth), bool)]) for sample in val_set]
    train(new_detector(), train_set, Dataset("empty", val_set.class_names, empty), SHORT, out=tmp_path)
    assert step_of(tmp_path / "best.safetensors") == 6


def test_training_on_pictures_without_objects_learns_nothing(tmp_path, new_detector, train_set):
    empty = [replace(sample, truth=sample.truth[np.zeros(len(sample.truth), bool)]) for sample in train_set]
    progress = []
    train(
        new_detector(),
        Dataset("empty", train_set.class_names, empty),
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
    np.testing.assert_array_equal(saved[name], state["average"][f"module.{name}"])
    assert np.abs(saved[name] - state["network"][name].numpy()).max() > 1e-6


# How long a run is


def test_epochs(tmp_path, new_detector, train_set):
    train(new_detector(), train_set, None, TrainConfig(epochs=1.5, batch_size=4), out=tmp_path)
    assert steps_of(tmp_path) == [3, 5]


def test_the_recipes_length_holds_where_nothing_is_said(tmp_path, new_detector, train_set):
    train(new_detector(), train_set, None, out=tmp_path)
    assert steps_of(tmp_path) == [3, 6, 9]  # three epochs of twelve pictures in fours


def test_minutes_end_a_run_after_the_step_that_passes_them(tmp_path, new_detector, train_set, val_set):
    progress = []
    train(new_detector(), train_set, val_set, TrainConfig(minutes=1e-6), out=tmp_path, on_progress=progress.append)
    assert len(progress) == 1 and progress[0].part == 1 and progress[0].seconds_left == 0
    assert steps_of(tmp_path) == [1]
    assert {path.name for path in tmp_path.iterdir()} == FILES - {"curves.png", "validation.jpg"}


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
    assert float(read_rows(tmp_path)[-1]["epoch"]) == 8


# What is refused


def test_other_classes_are_refused(tmp_path, new_detector, train_set):
    names = ("cat", "dog", *train_set.class_names)
    other = Dataset("cats", names, train_set.samples)
    with pytest.raises(ValueError, match=r"^only cats has 'cat', 'dog'; make one for the data with .*with_classes"):
        train(new_detector(), other, out=tmp_path / "out")
    with pytest.raises(ValueError, match=r"^only cats has 'cat', 'dog'"):
        train(new_detector(), train_set, other, out=tmp_path / "out")
    turned = Dataset("turned", train_set.class_names[::-1], train_set.samples)
    with pytest.raises(ValueError, match="the classes of turned and of the detector are in another order"):
        train(new_detector(), turned, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_empty_sets_are_refused(tmp_path, new_detector, train_set):
    empty = Dataset("nothing", train_set.class_names, [])
    with pytest.raises(ValueError, match="nothing has no pictures"):
        train(new_detector(), empty, out=tmp_path / "out")
    with pytest.raises(ValueError, match="nothing has no pictures"):
        train(new_detector(), train_set, empty, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_names_the_pictures(tmp_path, new_detector, train_set):
    config = replace(SHORT, recipe="paper", learning_rate=1e30)
    with pytest.raises(ValueError, match=r"step \d: the localization loss is .* and the confidence loss .*") as caught:
        train(new_detector(), train_set, None, config, out=tmp_path)
    assert sum(sample.name in str(caught.value) for sample in train_set) == 4
    assert "try a lower learning rate" in str(caught.value)
    assert "stopped: step" in (tmp_path / "log.txt").read_text(encoding="utf-8")


# The optimizer and the average


@pytest.fixture
def paper_network(small_config):
    """With biases in all layers and L2 normalization on the first source layer."""
    first, *rest = small_config.feature_maps
    config = replace(
        small_config,
        extras_batch_norm=False,
        feature_maps=(
            replace(first, head="conv3x3", norm="l2"),
            *(replace(row, head="conv3x3") for row in rest),
        ),
    )
    return Detector.create(config, ("a", "b"), seed=0)


def groups_by_name(network, optimizer):
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    groups = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert names[id(parameter)] not in groups
            groups[names[id(parameter)]] = (group["rate"], group["weight_decay"])
    assert groups.keys() == set(names.values())
    return groups


def test_the_papers_biases_learn_twice_as_fast_and_do_not_decay(paper_network):
    network = paper_network.network
    optimizer = make_optimizer(network, RECIPES["paper"])
    assert isinstance(optimizer, torch.optim.SGD)
    assert {group["momentum"] for group in optimizer.param_groups} == {0.9}
    for name, (rate, decay) in groups_by_name(network, optimizer).items():
        assert (rate, decay) == ((2.0, 0.0) if name.endswith(".bias") else (1.0, 5e-4)), name
    assert groups_by_name(network, optimizer)["norm.stage3.weight"] == (1.0, 5e-4)
    assert any(name.startswith("extras.conv6_2.") and name.endswith(".bias") for name, _ in network.named_parameters())


def test_adamw_decays_kernels_only(paper_network):
    network = paper_network.network
    optimizer = make_optimizer(network, RECIPES["modern"])
    assert isinstance(optimizer, torch.optim.AdamW)
    for name, (_, decay) in groups_by_name(network, optimizer).items():
        kernel = dict(network.named_parameters())[name].ndim == 4
        assert decay == (RECIPES["modern"].weight_decay if kernel else 0.0), name


@pytest.fixture
def batches(paper_network, train_set):
    two_classes = [
        replace(sample, truth=type(sample.truth)(sample.truth.boxes, sample.truth.labels % 2)) for sample in train_set
    ]
    return list(
        make_loader(
            Dataset("two classes", ("a", "b"), two_classes),
            paper_network.config,
            RECIPES["paper"].augmentation,
            batch_size=4,
            first_step=0,
            steps=3,
            seed=0,
            workers=0,
        )
    )


def test_a_step_is_the_rule_of_sgd(paper_network, batches):
    """v <- 0.9 v + gradient + decay x w; w <- w - rate x v, with the rate of each step."""
    config = paper_network.config
    ours = Run(paper_network, RECIPES["paper"], device="cpu", precision="fp32")
    literal = SSD(config, classes=2).to(memory_format=torch.channels_last)  # the same rounding
    literal.load_state_dict(ours.network.state_dict())
    literal.train()
    velocity = {name: torch.zeros_like(parameter) for name, parameter in literal.named_parameters()}
    for batch, rate in zip(batches, (1e-3, 3e-3, 2e-3), strict=True):
        losses = ours.learn(batch, learning_rate=rate)
        literal.zero_grad()
        coder = BoxCoder(config.center_variance, config.size_variance)
        targets = make_targets(batch.boxes, batch.labels, literal.default_boxes, coder)
        expected = multibox_loss(literal(batch.images.contiguous(memory_format=torch.channels_last)), targets)
        expected.total.backward()
        with torch.no_grad():
            for name, parameter in literal.named_parameters():
                bias = name.endswith(".bias")
                velocity[name] = 0.9 * velocity[name] + parameter.grad + (0 if bias else 5e-4) * parameter
                parameter -= rate * (2 if bias else 1) * velocity[name]
        assert losses.total.item() == pytest.approx(expected.total.item(), rel=1e-4)
    assert ours.step == 3
    for (name, parameter), other in zip(ours.network.named_parameters(), literal.parameters(), strict=True):
        torch.testing.assert_close(parameter, other, rtol=1e-4, atol=1e-6, msg=name)
    assert ours.average is ours.network


def test_the_average_follows_the_weights(paper_network, batches):
    """The first step's weights, then (1 + n) / (10 + n) of what it was and the rest of the new, at most the decay's."""
    run = Run(paper_network, replace(RECIPES["modern"], average=0.25), device="cpu", precision="fp32")
    # a weight, and a statistic of batch normalization, which is averaged likewise
    keys = ("backbone.stage3.0.0.weight", "backbone.stage3.0.1.running_mean")
    expected = {}
    for number, batch in enumerate(batches):
        run.learn(batch, learning_rate=1e-2)
        state = run.network.state_dict()
        for key in keys:
            keep = 0.0 if number == 0 else min(0.25, (1 + number) / (10 + number))
            expected[key] = keep * expected.get(key, 0) + (1 - keep) * state[key]
    average = run.average.state_dict()
    for key, value in expected.items():
        torch.testing.assert_close(average[key], value, msg=key)
        assert not torch.equal(average[key], run.network.state_dict()[key])
    assert average["backbone.stage3.0.1.num_batches_tracked"] == 3
    assert not run.average.training and run.network.training
    assert torch.equal(run.average.default_boxes, run.network.default_boxes)


def test_a_learning_rate_of_zero_changes_no_weight(paper_network, batches):
    run = Run(paper_network, RECIPES["modern"], device="cpu", precision="fp32")
    before = [parameter.detach().clone() for parameter in run.network.parameters()]
    assert math.isfinite(run.learn(batches[0], learning_rate=0.0).total.item())
    assert all(map(torch.equal, before, run.network.parameters()))


def test_half_precision_trains_too(paper_network, batches):
    run = Run(paper_network, RECIPES["modern"], device="cpu", precision="bf16")
    losses = [run.learn(batches[0], learning_rate=1e-3).total.item() for _ in range(4)]
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]
    assert {parameter.dtype for parameter in run.network.parameters()} == {torch.float32}
