"""Whatever ends a run, its state is saved first, and the run goes on from there to the bit."""

import errno
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image

from multibox.data.synthetic import synthetic_scenes
from multibox.detector import Detector
from multibox.report.evaluation import Report
from multibox.ssd.loss import multibox_loss
from multibox.training import TrainConfig, finish, fit, reporter, train, validation
from multibox.training.state import Checkpoints
from multibox.training.tensorboard import TensorBoard
from multibox.training.trainer import Trainer
from multibox.weights.file import load_weights
from tests.slow import slow

pytestmark = pytest.mark.usefixtures("plain_recipes")

SHORT = TrainConfig(steps=6, batch_size=4, validate_every=1, workers=0)  # three steps an epoch
CARD = {"best": None, "metrics": None, "facts": {}, "data": {"val": None}, "commands": {}, "images": []}


@pytest.fixture(scope="module")
def train_set():
    return synthetic_scenes(12, seed=1, height=64, width=64)


@pytest.fixture(scope="module")
def val_set():
    return synthetic_scenes(4, seed=2, height=64, width=64)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, new_detector, train_set, val_set, plain_recipes):
    """The folder of a run that nothing ended early."""
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finish, "write_card", no_card)
        train(new_detector(), train_set, val_set, SHORT, out=out)
    return out


def no_card(folder, *_, **__):
    return CARD | {"folder": str(folder)}, Image.new("RGB", (1, 1))


@pytest.fixture(autouse=True)
def card_is_not_drawn(monkeypatch):
    monkeypatch.setattr(finish, "write_card", no_card)


class Broken(Exception):
    """What this library knows nothing of."""


def break_at(number, error=Broken):
    """A function that raises in its call of that number."""
    calls = []

    def function(*args, **kwargs):
        calls.append(args)
        if len(calls) == number:
            raise error("broken")

    return function


def then(function, before):
    """The function, before which another is called."""

    def both(*args, **kwargs):
        before(*args, **kwargs)
        return function(*args, **kwargs)

    return both


def in_a_callback(patch):
    return {"on_progress": break_at(4)}


def in_a_row_callback(patch):
    return {"on_row": break_at(1)}


def by_an_interrupt_in_a_row_callback(patch):
    return {"on_row": break_at(1, error=KeyboardInterrupt)}


def in_a_validation(patch):
    patch.setattr(validation, "score", then(validation.score, break_at(2)))


def out_of_memory_within_a_step(patch):
    """The forward pass has changed the statistics of BatchNorm."""
    patch.setattr("multibox.ssd.cpu.multibox_loss", then(multibox_loss, break_at(5, error=torch.OutOfMemoryError)))


def in_tensorboard(patch):
    patch.setattr(reporter, "TensorBoard", lambda *_, **__: FailingTensorBoard())
    patch.setattr(fit, "import_packages", lambda *_, **__: None)
    return {"config": replace(SHORT, trackers=("tensorboard",))}


class FailingTensorBoard:
    def add_row(self, row):
        raise Broken("the disk of the event files is full")

    def close(self):
        pass


def while_weights_are_written(patch):
    patch.setattr(Detector, "save", then(Detector.save, break_at(1, error=OSError)))


WAYS = {
    in_a_callback: 4,
    in_a_row_callback: 3,
    by_an_interrupt_in_a_row_callback: 3,
    in_a_validation: 6,
    out_of_memory_within_a_step: 4,
    in_tensorboard: 3,
    while_weights_are_written: 3,
}


QUICK = {in_a_validation, out_of_memory_within_a_step, by_an_interrupt_in_a_row_callback}


@pytest.mark.parametrize("way", [way if way in QUICK else slow(way) for way in WAYS], ids=lambda way: way.__name__)
def test_an_error_leaves_a_state_from_which_the_run_goes_on_to_the_bit(
    way, tmp_path, undisturbed, new_detector, train_set, val_set
):
    detector = new_detector()
    with pytest.MonkeyPatch.context() as patch:
        values = {"config": SHORT} | (way(patch) or {})
        config = values.pop("config")
        with pytest.raises((Broken, torch.OutOfMemoryError, OSError, KeyboardInterrupt)):
            train(detector, train_set, val_set, config, out=tmp_path, **values)
    assert not any(layer.training for layer in detector.network.modules())
    assert torch.load(tmp_path / "last.pt", weights_only=True)["step"] == WAYS[way]
    train(new_detector(seed=9), train_set, val_set, SHORT, out=tmp_path, resume=True)
    for name in ("last", "best"):
        ours, theirs = (load_weights(folder / f"{name}.safetensors").tensors for folder in (tmp_path, undisturbed))
        assert all((ours[key] == theirs[key]).all() for key in theirs)
    ours, theirs = (torch.load(folder / "last.pt", weights_only=True) for folder in (tmp_path, undisturbed))
    for part in ("network", "ema"):
        assert all(torch.equal(values, theirs[part][key]) for key, values in ours[part].items())


def test_weights_of_two_steps_are_not_saved(tmp_path, new_detector, train_set, monkeypatch):
    """The error comes between the new weights and their average."""
    monkeypatch.setattr(Trainer, "_update_ema", then(Trainer._update_ema, break_at(2)))
    with pytest.raises(Broken):
        train(new_detector(), train_set, None, SHORT, out=tmp_path)
    assert not (tmp_path / "last.pt").exists()
    assert "while the weights were updated" in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_where_the_disk_is_full_the_first_error_is_the_one_that_is_raised(
    tmp_path, new_detector, train_set, monkeypatch
):
    def full(self, values):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Checkpoints, "write", full)
    with pytest.raises(Broken):
        train(new_detector(), train_set, None, SHORT, out=tmp_path, on_progress=break_at(2))
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "the run could not be saved after the error: [Errno 28] No space left on device" in log


def test_an_error_before_the_first_step_leaves_no_state(tmp_path, new_detector, train_set, monkeypatch):
    monkeypatch.setattr(fit, "fit", break_at(1))
    with pytest.raises(Broken):
        train(new_detector(), train_set, None, SHORT, out=tmp_path)
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        ("matplotlib.figure", r"^the curves of a run need the package matplotlib: pip install 'multibox\[train\]'"),
        ("hotcoco", r"^validation needs the package hotcoco: pip install 'multibox\[train\]'"),
        (
            "torch.utils.tensorboard",
            r"^the tracker tensorboard needs the package tensorboard: pip install 'multibox\[tensorboard\]'",
        ),
    ],
)
def test_a_package_that_is_missing_is_named_before_anything_is_done(
    tmp_path, new_detector, train_set, val_set, monkeypatch, module, sentence
):
    monkeypatch.setitem(sys.modules, module, None)
    config = replace(SHORT, trackers=("tensorboard",))
    with pytest.raises(ImportError, match=sentence):
        train(new_detector(), train_set, val_set, config, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["write_card", "images_to_show", "predict"])
def test_where_the_card_fails_the_detector_is_returned(tmp_path, new_detector, train_set, monkeypatch, what):
    monkeypatch.setattr(finish, what, break_at(1))
    best = train(new_detector(), train_set, None, SHORT, out=tmp_path)
    saved = load_weights(tmp_path / "best.safetensors").tensors
    assert all((saved[name] == values.numpy()).all() for name, values in best.network.state_dict().items())
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "the card of the run could not be written (Broken: broken); the weights are in" in log
    assert "report" not in log
    assert "stopped" not in log


@pytest.mark.parametrize("broken", ["write_card", "write_report"])
def test_the_card_and_the_report_fail_apart(tmp_path, new_detector, train_set, val_set, monkeypatch, broken):
    written = []
    report = Report(("It is good.",), {})
    monkeypatch.setattr(finish, "write_report", lambda folder, *_, **__: written.append(folder) or report)
    monkeypatch.setattr(finish, broken, break_at(1))
    train(new_detector(), train_set, val_set, SHORT, out=tmp_path)
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    what = "card" if broken == "write_card" else "report"
    assert log.count("could not be written") == 1
    assert f"the {what} of the run could not be written (Broken: broken); the weights are in" in log
    assert (written == [tmp_path / "report"]) == ("It is good." in log) == (what == "card")


def test_a_run_without_a_report(tmp_path, new_detector, train_set, val_set, monkeypatch):
    monkeypatch.setattr(finish, "write_report", break_at(1))
    train(new_detector(), train_set, val_set, replace(SHORT, report=False), out=tmp_path)
    assert "could not be written" not in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_a_tracker_that_fails_on_the_sheet_does_not_lose_the_detector(tmp_path, new_detector, train_set, monkeypatch):
    monkeypatch.setattr(TensorBoard, "add_image", break_at(1))
    config = replace(SHORT, trackers=("tensorboard",))
    assert isinstance(train(new_detector(), train_set, None, config, out=tmp_path), Detector)


def test_the_network_is_left_in_evaluation_mode(tmp_path, new_detector, train_set):
    detector = new_detector()
    train(detector, train_set, None, replace(SHORT, steps=1), out=tmp_path)
    assert not any(layer.training for layer in detector.network.modules())
