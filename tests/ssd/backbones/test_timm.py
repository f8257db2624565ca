"""Backbones of timm: its own features by stride, inputs of any size, and a clear word where a model has neither."""

import sys

import pytest
import torch

from multibox.default_boxes import make_default_boxes
from multibox.detector import Detector
from multibox.ssd.backbones import make_backbone
from multibox.ssd.build import timm_config
from multibox.ssd.network import SSD
from tests.slow import slow

timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'multibox[timm]'")

# a residual network, one with depthwise convolutions, one that rounds maps down, one that gives channels last; and a
# transformer that does so too, and was made for one size
MODELS = ["resnet18", "mobilenetv3_small_050", "convnext_atto", "mambaout_femto", "swin_tiny_patch4_window7_224"]


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
def test_features_are_those_that_timms_classifier_goes_through(name):
    torch.manual_seed(0)
    network, sources = make_backbone(f"timm/{name}")
    other = {"dynamic_img_size": True} if name.startswith("swin") else {}
    theirs = timm.create_model(name, pretrained=False, **other)
    # where timm takes a model apart, `layers.0` becomes `layers_0`
    own = {key.replace("_", "."): key for key in theirs.state_dict()}
    state = {own[key.removeprefix("network.").replace("_", ".")]: value for key, value in network.state_dict().items()}
    assert len(state) == len(network.state_dict()) > 50
    theirs.load_state_dict(state, strict=False)
    images = torch.rand(1, 3, 96, 160)
    features = theirs.eval().forward_intermediates(images, intermediates_only=True)
    expected = {f"stride{96 // found.shape[2]}": found for found in features if found.shape[2] <= 96 // 8}
    found = network.eval()(images)
    assert list(found) == list(sources) == list(expected) == ["stride8", "stride16", "stride32"]
    for layer, (channels, stride) in sources.items():
        assert found[layer].shape == (1, channels, 96 // stride, 160 // stride)
        torch.testing.assert_close(found[layer], expected[layer])


@torch.no_grad()
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("height, width", [slow(300, 300), (132, 84)])
def test_an_ssd_on_it_has_the_rows_that_its_maps_give(name, height, width):
    config = timm_config(f"timm/{name}", height=height, width=width)
    assert (config.height, config.width, config.backbone) == (height, width, f"timm/{name}")
    with torch.device("meta"):  # all the shapes of the real one, in no time
        network = SSD(config, num_classes=2).eval()
    offsets, logits = network(torch.empty(1, 3, height, width, device="meta"))
    assert offsets.shape == (1, len(make_default_boxes(config)), 4)
    assert logits.shape == (1, len(make_default_boxes(config)), 3)
    assert (config.feature_maps[-1].rows, config.feature_maps[-1].columns) == (1, 1)


def test_grids_of_models_that_round_up_and_of_those_that_round_down():
    """37.5 cells of 8 pixels."""
    up, down = (timm_config(f"timm/{name}").feature_maps for name in ("resnet18", "convnext_atto"))
    assert [row.rows for row in up] == [38, 19, 10, 5, 3, 2, 1]
    assert [row.rows for row in down] == [37, 18, 9, 5, 3, 2, 1]
    assert [row.step[0] for row in up] == [row.step[0] for row in down] == [8, 16, 32, 60, 100, 150, 300]


def test_of_maps_of_one_stride_the_last_is_taken():
    """All blocks of a plain transformer have the stride of its patches."""
    config = timm_config("timm/test_vit", height=320)
    assert [(row.layer, row.rows) for row in config.feature_maps[:2]] == [("stride16", 20), ("conv8_2", 10)]


def test_pixels_are_normalized_as_timm_says():
    assert timm_config("timm/resnet18").mean == pytest.approx((123.675, 116.28, 103.53))
    assert timm_config("timm/resnet18").scale == pytest.approx((58.395, 57.12, 57.375))
    assert timm_config("timm/test_resnet").mean == timm_config("timm/test_resnet").scale == (127.5, 127.5, 127.5)


def test_images_may_have_other_channels():
    network, sources = make_backbone("timm/resnet18", 1)
    assert list(network(torch.zeros(2, 1, 64, 64))) == list(sources)


@pytest.mark.parametrize("name", MODELS[:4])
def test_saved_and_loaded(name, tmp_path):
    detector = Detector.create(f"timm/{name}", ["a", "b"], height=64, width=96, seed=1).to(
        "cpu"
    )  # ordered in memory as a loaded one
    detector.save(tmp_path / "it.safetensors")
    loaded = Detector.load(tmp_path / "it.safetensors")
    assert loaded.config == detector.config
    images = torch.rand(1, 3, 64, 96) * 255
    with torch.inference_mode():
        for found, expected in zip(loaded.network(images), detector.network(images), strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "name, message",
    [
        ("resnet_18", r"timm has no model 'resnet_18'; did you mean 'timm/resnet18'\?"),
        ("zzz", r"timm has no model 'zzz'; timm.list_models\(\) lists them"),
        ("hf-hub:timm/resnet18.a1_in1k", "timm has no model 'hf-hub:timm/resnet18.a1_in1k'"),  # would be fetched
        ("", "timm has no model ''"),
        ("levit_128", "the model 'levit_128' of timm gives no feature maps of inputs of any size"),
        (
            "inception_v3",
            "the map of stride 8 of the model 'inception_v3' of timm has 35 x 35 cells, which do not cover",
        ),
        ("dla34", r"the model 'dla34' of timm takes no input of 300 x 300 \(.*multiples of 32"),
    ],
)
def test_what_cannot_be_a_backbone(name, message):
    with pytest.raises(ValueError, match=message):
        timm_config(f"timm/{name}")


def test_choosy_models_take_multiples_of_32():
    assert timm_config("timm/dla34", height=320).feature_maps[0].rows == 40


def test_the_size_has_limits():
    with pytest.raises(ValueError, match="the height of the input must be from 32 to 4096 pixels, but is 16"):
        timm_config("timm/resnet18", height=16)
    with pytest.raises(ValueError, match="leaves 2 feature maps, but there must be at least 3"):
        timm_config("timm/test_vit", height=32)


def test_without_timm_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"backbones of timm need the package timm: pip install 'multibox\[timm\]'"):
        timm_config("timm/resnet18")
