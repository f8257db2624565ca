"""Checkpoints of the ports as files: what their training writes is read, what is cut off or holds code is refused."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from multibox.detector import Detector
from multibox.weights.converters.class_names import VOC
from tests.weights.converters.pytorch_ports import State, random_state
from tests.weights.converters.test_lufficc import lite_shapes
from tests.weights.converters.test_qfgaohao import mb1_ssd_shapes


@pytest.fixture(scope="module")
def lufficc_state() -> State:
    return random_state(lite_shapes(21))


def checkpoint(state: State) -> dict[str, object]:
    """As CheckPointer.save of lufficc's ssd/utils/checkpoint.py has it, from a run on several GPUs or one."""
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 1e-3, "params": [0]}]}
    return {"model": state, "optimizer": optimizer, "scheduler": {"last_epoch": 120_000}, "iteration": 120_000}


WRITERS: dict[str, Callable[[State, Path], None]] = {
    "checkpoint.pth": lambda state, path: torch.save(checkpoint(state), path),
    "before_1.6.pth": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "parallel.pth": lambda state, path: torch.save({f"module.{key}": state[key] for key in state}, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_becomes_a_detector(tmp_path: Path, lufficc_state: State, name: str):
    WRITERS[name](lufficc_state, tmp_path / name)
    detector = Detector.convert(tmp_path / name)
    assert detector.config.name == "ssdlite320-mobilenetv2"
    assert detector.provenance["converted from"] == "lufficc/SSD"
    found = detector.network.state_dict()["backbone.features.18.0.weight"]
    assert_close(found, lufficc_state["backbone.features.18.0.weight"], rtol=0, atol=0)


def test_a_converted_detector_is_saved_and_loaded(tmp_path: Path, lufficc_state: State):
    torch.save(lufficc_state, tmp_path / "it.pth")
    converted = Detector.convert(tmp_path / "it.pth")
    converted.save(tmp_path / "it.safetensors")
    loaded = Detector.load(tmp_path / "it.safetensors")
    assert (loaded.config, loaded.class_names) == (converted.config, converted.class_names)
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    assert len(loaded.detect(image, score_threshold=0.01)) == 100  # random weights find something everywhere
    assert_close(loaded.network.state_dict(), converted.network.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["checkpoint.pth", "before_1.6.pth"])
def test_a_truncated_file_is_refused_in_a_sentence(tmp_path: Path, lufficc_state: State, name: str):
    path = tmp_path / name
    WRITERS[name](lufficc_state, path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="damaged") as caught:
        Detector.convert(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_no_code_is_run(tmp_path: Path, lufficc_state: State):
    class Trap:
        def __reduce__(self):
            return (Path.write_text, (tmp_path / "run", "yes"))

    some = {key: lufficc_state[key] for key in list(lufficc_state)[:2]}
    path = tmp_path / "it.pth"
    for content in ({"model": some, "config": Trap()}, {**some, "more": Trap()}):
        for write in (lambda c: torch.save(c, path), lambda c: path.write_bytes(pickle.dumps(c, protocol=2))):
            write(content)
            with pytest.raises(ValueError, match=r"it\.pth: (the weights of no detector|truncated, damaged)"):
                Detector.convert(path)
    assert not (tmp_path / "run").exists()


def test_twenty_classes_are_said_to_be_a_guess(tmp_path: Path, lufficc_state: State, caplog: pytest.LogCaptureFixture):
    torch.save(lufficc_state, tmp_path / "it.pth")
    detector = Detector.convert(tmp_path / "it.pth")
    assert detector.class_names == VOC
    assert detector.provenance["class names"] == "PASCAL VOC's, a guess from their number"
    assert "20 classes: named as PASCAL VOC's, a guess; class_names" in caplog.text
    caplog.clear()
    own = [f"part {number}" for number in range(20)]
    assert Detector.convert(tmp_path / "it.pth", class_names=own).class_names == tuple(own)
    with pytest.raises(ValueError, match=r"class_names has 3 names, but .*it\.pth has 20 classes"):
        Detector.convert(tmp_path / "it.pth", own[:3])
    (tmp_path / "labels.txt").write_text("BACKGROUND\n" + "\n".join(own))
    named = Detector.convert(tmp_path / "it.pth")
    assert named.class_names == tuple(own)
    assert named.provenance["class names"] == "labels.txt beside the file"
    assert caplog.text == ""


def test_another_network_is_refused_in_a_sentence(tmp_path: Path):
    path = tmp_path / "it.pth"
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7), "fc.bias": torch.zeros(1000)}, path)
    with pytest.raises(ValueError, match=r"it\.pth: the weights of no detector that can be converted; its first"):
        Detector.convert(path)
    state = {key: torch.zeros(shape) for key, shape in mb1_ssd_shapes(21).items()}
    torch.save(state | {"base_net.1.0.weight": torch.zeros(32, 1, 5, 5)}, path)
    with pytest.raises(ValueError, match=r"it\.pth: 1 tensor does not fit 'ssd300-mobilenetv1' with 20 classes"):
        Detector.convert(path)
