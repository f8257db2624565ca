"""EfficientNet-Lite, beside timm's port of the same networks on the same weights."""

import pytest
import torch

from multibox.ssd.backbones import make_backbone


@torch.no_grad()
@pytest.mark.parametrize("size", [(96, 96), (97, 63)])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_features_are_those_of_timms_port(number, size):
    """The tensors of both stand in the same order, so timm's get the values of ours."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    ours, sources = make_backbone(f"efficientnet-lite{number}")
    theirs = timm.create_model(f"tf_efficientnet_lite{number}", features_only=True)
    for values in ours.state_dict().values():
        if values.is_floating_point():
            values.uniform_(0.01, 0.1) if values.ndim == 1 else values.normal_(0, 0.2)
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    ours.double().eval(), theirs.double().eval()
    expand8, expand16, last = sources
    ours.sources = [*sources, *(f"block{int(name.removeprefix('expand')) - 1}" for name in (expand8, expand16))]
    found = ours(image)
    maps = [found[name] for name in (*ours.sources[3:], last)]  # timm has the blocks before the expansions
    for features, expected in zip(maps, theirs(image)[2:], strict=True):
        torch.testing.assert_close(features, expected, atol=1e-10, rtol=1e-10)
    for name in (expand8, expand16):
        block = ours.get_submodule(name.replace("expand", "block"))
        torch.testing.assert_close(found[name], block.layers.expand(found[f"block{int(name[6:]) - 1}"]))
