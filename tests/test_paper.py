"""Facts about the paper's networks that no other test checks, and the list of tests in `docs/paper.md`."""

import re
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from multibox.config import ExtraLayer
from multibox.presets import preset
from multibox.ssd.network import SSD

ROOT = Path(__file__).parents[1]

FIRST_EXTRAS = (
    ExtraLayer("conv8_1", 256, 1),
    ExtraLayer("conv8_2", 512, 3, stride=2, padding=1),
    ExtraLayer("conv9_1", 128, 1),
    ExtraLayer("conv9_2", 256, 3, stride=2, padding=1),
)
EXTRAS = {
    "ssd300-vgg16": (
        *FIRST_EXTRAS,
        ExtraLayer("conv10_1", 128, 1),
        ExtraLayer("conv10_2", 256, 3),
        ExtraLayer("conv11_1", 128, 1),
        ExtraLayer("conv11_2", 256, 3),
    ),
    "ssd512-vgg16": (
        *FIRST_EXTRAS,
        ExtraLayer("conv10_1", 128, 1),
        ExtraLayer("conv10_2", 256, 3, stride=2, padding=1),
        ExtraLayer("conv11_1", 128, 1),
        ExtraLayer("conv11_2", 256, 3, stride=2, padding=1),
        ExtraLayer("conv12_1", 128, 1),
        ExtraLayer("conv12_2", 256, 4, padding=1),
    ),
}
"""The layers of the authors' `AddExtraLayers`, with the paper's names (the authors count from `conv6_1`)."""


@pytest.mark.parametrize("name", EXTRAS)
def test_extra_layers_are_the_papers(name: str):
    for scales in ("voc", "coco"):
        config = preset(name, scales=scales)
        assert config.extras == EXTRAS[name]
        assert not config.extras_batch_norm and config.activation == "relu"


def test_multiplications_with_cocos_classes():
    """torchvision states 34.858 GMAC for its `ssd300_vgg16`, which has 91 columns."""
    from torchvision.models.detection import SSD300_VGG16_Weights

    with torch.device("meta"):
        network = SSD(preset("ssd300-vgg16"), num_classes=90).eval()
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, 300, 300, device="meta"))
    stated = SSD300_VGG16_Weights.COCO_V1.meta["_ops"]
    assert counter.get_total_flops() / 2e9 == pytest.approx(stated, rel=1e-3)


def test_the_tests_that_the_documents_name_are_there():
    text = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", text)) - {"test_bug_museum"}
    assert len(named) > 70
    missing = {name for name in named if f"def {name}(" not in code}
    assert not missing
