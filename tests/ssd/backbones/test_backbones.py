"""What all base networks have in common: their source layers in order, with the channels and strides they promise."""

from math import ceil

import pytest
import torch

from multibox.presets import PRESETS, preset
from multibox.ssd.backbones import BACKBONES, make_backbone


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(BACKBONES.keys() - {"squeezenet1.1"}))
def test_source_layers_are_as_promised(name):
    """In order, and with a map of the size by the stride, rounded up, whatever the size."""
    with torch.device("meta"):
        network, sources = make_backbone(name)
        network.eval()
        for height, width in [(64, 96), (97, 131), (33, 65), (1, 1)]:
            found = network(torch.empty(2, 3, height, width))
            assert list(found) == list(sources)
            for layer, (channels, stride) in sources.items():
                assert found[layer].shape == (2, channels, ceil(height / stride), ceil(width / stride))


@torch.no_grad()
def test_squeezenet_does_not_pad():
    """As in the port that has a detector on it: a convolution and three pools of 3 and 2, without the last cell."""
    with torch.device("meta"):
        network, sources = make_backbone("squeezenet1.1")
        found = network(torch.empty(2, 3, 300, 65))
    assert {name: tuple(features.shape) for name, features in found.items()} == {
        name: (2, channels, 17, 3) for name, (channels, _) in sources.items()
    }


@torch.no_grad()
@pytest.mark.parametrize("name", BACKBONES)
def test_numbers_are_finite_and_every_layer_sees_the_image(name):
    torch.manual_seed(0)
    network, _ = make_backbone(name)
    dark, bright = (network.eval()(images) for images in (torch.zeros(1, 3, 64, 64), torch.rand(1, 3, 64, 64)))
    for layer in dark:
        assert torch.isfinite(bright[layer]).all()
        assert not torch.equal(dark[layer], bright[layer])


@torch.no_grad()
@pytest.mark.parametrize("channels", [1, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", BACKBONES)
def test_images_may_have_other_channels(name, channels):
    """Only the first convolution is another."""
    with torch.device("meta"):
        (usual, sources), (network, others) = make_backbone(name), make_backbone(name, channels)
        found = network.eval()(torch.empty(1, channels, 64, 64))
    assert sources == others and list(found) == list(sources)
    shapes, usual_shapes = (
        {key: tuple(value.shape) for key, value in each.state_dict().items()} for each in (network, usual)
    )
    assert shapes.keys() == usual_shapes.keys()
    (first,) = [key for key in shapes if shapes[key] != usual_shapes[key]]
    outputs, _, *kernel = usual_shapes[first]
    assert shapes[first] == (outputs, channels, *kernel)


def test_no_two_names_are_the_same_network():
    seen = {}
    for name in BACKBONES:
        with torch.device("meta"):
            network, sources = make_backbone(name)
        shapes = tuple((key, tuple(value.shape)) for key, value in network.state_dict().items())
        kinds = tuple(type(module) for module in network.modules())
        assert (shapes, kinds) not in seen, f"{name} is {seen[shapes, kinds]}"
        seen[shapes, kinds] = name
        if name != "squeezenet1.1":  # its second layer is for the extra layers alone
            assert len(set(sources.values())) == len(sources)


@torch.no_grad()
@pytest.mark.parametrize("name", BACKBONES)
def test_no_two_source_layers_are_the_same_features(name):
    torch.manual_seed(0)
    found = list(make_backbone(name).network.eval()(torch.rand(1, 3, 64, 64)).values())
    for place, one in enumerate(found):
        assert not any(one.shape == other.shape and torch.equal(one, other) for other in found[:place])


def test_presets_take_backbones_that_there_are():
    assert {preset(name).backbone for name in PRESETS} <= set(BACKBONES)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ("vgg-16", r"this multibox has no backbone 'vgg-16'; did you mean 'vgg16'\?"),
        ("yolo", "this multibox has no backbone 'yolo'; there are tiny, vgg16, .* ultra-light-slim, and timm/NAME"),
    ],
)
def test_a_wrong_name_gets_the_nearest_or_all(wrong, message):
    with pytest.raises(ValueError, match=message):
        make_backbone(wrong)
