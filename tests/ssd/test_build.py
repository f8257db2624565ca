"""Networks are loaded without drawing random numbers, and nothing wrong gets in or out in silence."""

import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from multibox.config import DetectorConfig
from multibox.presets import preset
from multibox.ssd.build import create_network, load_network, network_tensors, network_with_classes
from multibox.ssd.network import SSD

TINY = preset("ssd256-tiny")
STORED = replace(TINY, stored_default_boxes=True)


def networks() -> list[DetectorConfig]:
    return [TINY, STORED, preset("ssdlite320-mobilenetv3"), preset("ssd300-mobilenetv1"), preset("ssd300-vgg16")]


@pytest.mark.parametrize("config", networks(), ids=lambda config: config.name)
def test_a_loaded_network_is_the_one_whose_tensors_it_has(config: DetectorConfig):
    created = create_network(config, num_classes=2, seed=0)
    loaded = load_network(config, network_tensors(created), num_classes=2)
    assert not loaded.training
    assert not any(tensor.is_meta for tensor in (*loaded.parameters(), *loaded.buffers()))
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    for (name, one), (other_name, other) in zip(loaded.named_buffers(), created.named_buffers(), strict=True):
        assert name == other_name and torch.equal(one, other)
    images = torch.randint(0, 256, (1, 3, config.height, config.width), dtype=torch.uint8)
    with torch.inference_mode():
        for one, other in zip(loaded(images), created(images), strict=True):
            assert torch.equal(one, other)


def test_a_backbone_that_computes_tables_is_loaded_too():
    """Swin's relative positions stand in no file, so a network built without memory has none."""
    pytest.importorskip("timm")
    from multibox.ssd.build import timm_config

    config = timm_config("timm/swin_tiny_patch4_window7_224", height=64, width=64)
    created = create_network(config, num_classes=1, seed=0)
    state = torch.get_rng_state()
    loaded = load_network(config, network_tensors(created), num_classes=1)
    assert torch.equal(torch.get_rng_state(), state)
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        assert torch.equal(loaded(images).logits, created(images).logits)


def test_loading_draws_no_random_numbers_and_moves_no_global_state():
    tensors = network_tensors(create_network(TINY, num_classes=2, seed=0))
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    settings = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_device()
    load_network(TINY, tensors, num_classes=2)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before[1:]
    assert settings == (
        torch.get_default_dtype(),
        torch.get_num_threads(),
        torch.is_grad_enabled(),
        torch.get_default_device(),
    )


def test_a_seed_leaves_the_random_numbers_of_torch_alone():
    state = torch.get_rng_state()
    one, other = (create_network(TINY, num_classes=2, seed=5) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True))


def test_weights_are_of_32_bits_whatever_the_default_is():
    tensors = network_tensors(create_network(TINY, num_classes=2, seed=0), half=True)
    torch.set_default_dtype(torch.float64)
    try:
        loaded = load_network(TINY, tensors, num_classes=2)
    finally:
        torch.set_default_dtype(torch.float32)
    kinds = {tensor.dtype for tensor in (*loaded.parameters(), *loaded.buffers())}
    assert kinds == {torch.float32, torch.int64}


def test_the_network_does_not_share_memory_with_the_tensors_that_it_was_given():
    tensors = network_tensors(create_network(TINY, num_classes=2, seed=0))
    loaded = load_network(TINY, tensors, num_classes=2)
    key, parameter = next(iter(loaded.named_parameters()))
    before = parameter.clone()
    tensors[key][...] = 7
    assert torch.equal(parameter, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_values_that_are_not_finite_are_refused_by_name(value: float):
    tensors = network_tensors(create_network(TINY, num_classes=2, seed=0))
    key = "backbone.stage3.0.1.running_var"
    tensors[key] = np.full(tensors[key].shape, value)
    with pytest.raises(ValueError, match=f"the tensor '{key}' holds values that are not finite"):
        load_network(TINY, tensors, num_classes=2)


def test_numbers_of_another_kind_are_refused_by_name():
    tensors = network_tensors(create_network(TINY, num_classes=2, seed=0))
    key = next(key for key in tensors if key.endswith("running_var"))
    with pytest.raises(ValueError, match=rf"'{key}' holds numbers of type complex64, expected float32"):
        load_network(TINY, tensors | {key: tensors[key].astype(np.complex64)}, num_classes=2)


def test_stored_default_boxes_have_a_width_and_a_height():
    tensors = network_tensors(create_network(STORED, num_classes=2, seed=0))
    tensors["default_boxes"][7, 2] = 0
    with pytest.raises(ValueError, match="stored default boxes must have a width and a height above 0"):
        load_network(STORED, tensors, num_classes=2)


def with_extreme_statistics() -> SSD:
    network = create_network(STORED, num_classes=2, seed=0)
    for key, buffer in network.named_buffers():
        if key.endswith("running_var"):
            buffer.fill_(1e6)  # half precision ends at 65504
    return network


def test_half_precision_is_for_what_is_learned():
    network = with_extreme_statistics()
    tensors, state = network_tensors(network, half=True), network.state_dict()
    learned = {key for key, _ in network.named_parameters()}
    for key, tensor in tensors.items():
        if key in learned:
            assert tensor.dtype == np.float16
        else:
            assert torch.equal(torch.from_numpy(tensor), state[key])
    assert {"default_boxes"} < tensors.keys() - learned
    loaded = load_network(STORED, tensors, num_classes=2)
    assert torch.equal(loaded.default_boxes, network.default_boxes)


def test_what_half_precision_cannot_hold_is_refused_by_name():
    network = create_network(TINY, num_classes=2, seed=0)
    key, parameter = next(iter(network.named_parameters()))
    with torch.no_grad():
        parameter.view(-1)[3] = 7e4
    with pytest.raises(ValueError, match=f"the tensor '{key}' holds 70000, which half precision cannot hold"):
        network_tensors(network, half=True)
    assert network_tensors(network)[key].reshape(-1)[3] == 7e4


def test_classes_are_copied_by_their_label():
    network = create_network(TINY, num_classes=3, seed=0)
    state = torch.get_rng_state()
    copied = network_with_classes(TINY, network, [2, None], seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    images = torch.randint(0, 256, (1, 3, 256, 256), dtype=torch.uint8)
    with torch.inference_mode():
        old, new = network(images), copied(images)
    torch.testing.assert_close(new.offsets, old.offsets)
    torch.testing.assert_close(new.logits[..., [0, 1]], old.logits[..., [0, 3]])


IMPORTS = """
import sys
from multibox.detector import Detector
detector = Detector.load("multibox/shapes")
Detector.create("ssd256-tiny", ["cat"], seed=0).with_classes(["dog"])
print([name for name in ("torchvision", "timm", "torchvision.models") if name in sys.modules])
"""


def test_torchvision_is_imported_only_for_the_backbones_that_need_it():
    ran = subprocess.run([sys.executable, "-c", IMPORTS], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]"
