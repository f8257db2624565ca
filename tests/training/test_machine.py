"""The precision that pays: chosen by a trial that leaves everything as it was."""

import copy

import pytest
import torch

from multibox.data.synthetic import synthetic_scenes
from multibox.runtimes import precision as precision_module
from multibox.runtimes.precision import time_side_by_side
from multibox.training import TrainConfig, fit, machine, train
from multibox.training.machine import _default_workers, choose_precision

pytestmark = pytest.mark.usefixtures("plain_recipes")


@pytest.fixture(autouse=True)
def a_processor_with_bf16(monkeypatch):
    monkeypatch.setattr(machine, "has_bf16", lambda device: device.type == "cpu")


def with_speedup(monkeypatch, speedup):
    """The trial finds that bf16 is so many times as fast."""
    monkeypatch.setattr(precision_module, "time_side_by_side", lambda variants: {"fp32": speedup, "bf16": 1.0})


def choice(detector, device="cpu"):
    return choose_precision(detector.network, height=64, width=64, device=device, batch_size=2)


@pytest.mark.parametrize(("speedup", "precision"), [(2.15, "bf16"), (1.1, "bf16"), (1.05, "fp32"), (0.5, "fp32")])
def test_bf16_is_taken_where_it_pays(new_detector, monkeypatch, speedup, precision):
    with_speedup(monkeypatch, speedup)
    chosen, why = choice(new_detector())
    assert chosen == precision
    assert f"{speedup:.2g} s in fp32 and 1 s in bf16" in why and f"a ratio of {speedup:.2f}" in why


def test_without_bf16_there_is_no_trial(new_detector, monkeypatch):
    monkeypatch.setattr(machine, "has_bf16", lambda device: False)
    monkeypatch.setattr(precision_module, "time_side_by_side", lambda variants: pytest.fail("there was a trial"))
    assert choice(new_detector()) == ("fp32", "the processor does not compute in bf16")
    assert choice(new_detector(), device="mps") == ("fp32", "the device is mps")


def test_the_trial_changes_nothing(new_detector, monkeypatch):
    """Neither weights nor statistics, gradients, modes, or torch's random state."""
    monkeypatch.setattr(precision_module, "time_side_by_side", time_side_by_side)
    monkeypatch.setattr(precision_module, "TRIAL_ROUNDS", 1)
    network = new_detector().network.train()
    network.backbone.eval()
    before = copy.deepcopy(network.state_dict())
    modes = [layer.training for layer in network.modules()]
    strides = [values.stride() for values in network.state_dict().values()]
    random = torch.get_rng_state()
    chosen, _ = choose_precision(network, height=64, width=64, device="cpu", batch_size=2)
    assert chosen in ("fp32", "bf16")
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())
    assert [layer.training for layer in network.modules()] == modes
    assert [values.stride() for values in network.state_dict().values()] == strides
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), random)


def test_variants_take_turns():
    calls = []
    seconds = time_side_by_side({"fp32": lambda: calls.append("fp32"), "bf16": lambda: calls.append("bf16")})
    assert calls == ["fp32", "bf16"] * (precision_module.TRIAL_ROUNDS + 1)
    assert seconds.keys() == {"fp32", "bf16"} and min(seconds.values()) >= 0


def test_a_resumed_run_keeps_its_precision(tmp_path, new_detector, monkeypatch):
    """Whatever a trial would find now: the weights go on to the bit."""
    train_set = synthetic_scenes(8, seed=1, height=64, width=64)
    monkeypatch.setattr(fit, "finalize", lambda *args, **kwargs: None)
    config = TrainConfig(steps=2, batch_size=4, workers=0, validate_every=99, device="cpu")
    with_speedup(monkeypatch, 2.0)
    train(new_detector(), train_set, None, config, out=tmp_path)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["precision"] == "bf16"
    assert "precision: bf16" in (tmp_path / "config.yaml").read_text(encoding="utf-8")
    with_speedup(monkeypatch, 0.5)
    train(new_detector(), train_set, None, TrainConfig(**vars(config) | {"steps": 3}), out=tmp_path, resume=True)
    assert torch.load(tmp_path / "last.pt", weights_only=True)["precision"] == "bf16"
    log = (tmp_path / "log.txt").read_text(encoding="utf-8")
    assert "a ratio of 2.00" in log and "precision bf16: as before the run was stopped" in log
    asked = TrainConfig(**vars(config) | {"steps": 4, "precision": "fp32"})
    train(new_detector(), train_set, None, asked, out=tmp_path, resume=True)
    assert "precision is fp32 from here on, and was bf16" in (tmp_path / "log.txt").read_text(encoding="utf-8")


def test_a_trial_on_a_slow_machine_takes_one_round(monkeypatch):
    monkeypatch.setattr(precision_module, "TRIAL_SECONDS", -1.0)
    calls = []
    seconds = time_side_by_side({"fp32": lambda: calls.append("fp32"), "bf16": lambda: calls.append("bf16")})
    assert calls == ["fp32", "bf16"] and seconds.keys() == {"fp32", "bf16"}


@pytest.mark.parametrize(
    ("device", "cores", "workers"),
    [("cpu", 1, 0), ("cpu", 3, 0), ("cpu", 4, 1), ("cpu", 8, 2), ("cuda", 1, 1), ("cuda", 2, 1), ("cuda:1", 16, 15)],
)
def test_processes_that_read_images_by_default(device, cores, workers):
    """One core of four, which can feed the other three; with a GPU, all cores but one."""
    assert _default_workers(device, cores) == workers
