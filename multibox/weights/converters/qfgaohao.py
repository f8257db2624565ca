"""Converts detectors of qfgaohao/pytorch-ssd (MIT): `vgg16-ssd`, `mb1-ssd`, `mb2-ssd-lite`, all with an input of 300.

The project has rules of its own. All four numbers of a default box are clipped (generate_ssd_priors in
vision/utils/box_utils.py). The best 200 boxes of each class with a score above 0.01 enter suppression at 0.45, without
a limit over all classes (vision/ssd/predictor.py). Pixels are RGB after OpenCV's bilinear resize of 8-bit pixels: less
127 and divided by 128 for the MobileNets (vision/ssd/config/mobilenetv1_ssd_config.py, which mb2-ssd-lite uses too), or
less VGG's mean (vgg_ssd_config.py). BatchNorm replaces L2 normalization (vision/ssd/vgg_ssd.py). One thing is not
carried over: its IoU has 1e-5 of the image's area in the denominator, so that boxes, small ones most, suppress each
other a little less (docs/weights.md).
"""

from collections.abc import Mapping
from dataclasses import replace

from multibox.config import DetectorConfig, ExtraLayer, Postprocess
from multibox.presets import preset
from multibox.weights.converters.class_names import class_names
from multibox.weights.converters.layers import Tensors
from multibox.weights.converters.pytorch_ports import (
    VGG16_PLACES,
    class_count,
    head_names,
    inverted_residual_extras,
    mobilenet_rows,
    renamed,
)
from multibox.weights.file import Weights

_GRIDS, _STEPS = (19, 10, 5, 3, 2, 1), (16, 32, 64, 100, 150, 300)
"""Grids and steps of both MobileNets (mobilenetv1_ssd_config.py)."""


def convert(tensors: Tensors) -> Weights | None:
    """Returns the detector of a state dict, or `None` if it is not one of these three.

    The number of classes gives their names.

    Raises:
        ValueError: Layers are missing or left over.
    """
    if "classification_headers.5.bias" not in tensors:
        return None
    if "source_layer_add_ons.0.running_mean" in tensors:
        return _vgg16_ssd(tensors)
    if "base_net.13.3.weight" in tensors:
        return _mb1_ssd(tensors)
    if "base_net.18.0.weight" in tensors:
        return _mb2_ssd_lite(tensors)
    return None


def _vgg16_ssd(tensors: Tensors) -> Weights:
    """Returns the detector of vision/ssd/vgg_ssd.py, which always has VOC's default boxes."""
    config = preset("ssd300-vgg16", scales="voc")
    first, *others = config.feature_maps
    config = replace(config, feature_maps=(replace(first, norm="batch"), *others))
    names = {f"base_net.{place}": f"backbone.{layer}" for place, layer in VGG16_PLACES.items()}
    names |= _extra_names(config) | {"source_layer_add_ons.0": "norm.conv4_3"}
    return _weights(tensors, config, names, model="vgg16-ssd")


def _mb1_ssd(tensors: Tensors) -> Weights:
    """Returns the detector of vision/ssd/mobilenetv1_ssd.py on the backbone of vision/nn/mobilenet.py."""
    extras: list[ExtraLayer] = []
    for number, (inside, output) in enumerate(((256, 512), (128, 256), (128, 256), (128, 256)), start=14):
        extras.append(ExtraLayer(f"conv{number}_1", inside, 1))
        extras.append(ExtraLayer(f"conv{number}_2", output, 3, stride=2, padding=1))
    config = replace(
        preset("ssd300-mobilenetv1"),
        mean=(127.0, 127.0, 127.0),
        scale=(128.0, 128.0, 128.0),
        resize="bilinear",
        draft_decoding=False,
        backbone="mobilenet-v1",
        extras=tuple(extras),
        extras_batch_norm=False,
        activation="relu",
        feature_maps=mobilenet_rows(
            ("conv11", "conv13", *(layer.name for layer in extras[1::2])),
            _GRIDS,
            _STEPS,
            head="conv3x3",
            last_head="conv3x3",
        ),
    )
    names = {"base_net.0.0": "backbone.conv0.convolution", "base_net.0.1": "backbone.conv0.norm"}
    for block in range(1, 14):
        for place, part in ((0, "depthwise"), (3, "pointwise")):
            names[f"base_net.{block}.{place}"] = f"backbone.conv{block}.{part}.convolution"
            names[f"base_net.{block}.{place + 1}"] = f"backbone.conv{block}.{part}.norm"
    return _weights(tensors, config, names | _extra_names(config), model="mb1-ssd")


def _mb2_ssd_lite(tensors: Tensors) -> Weights:
    """Returns the detector of vision/ssd/mobilenet_v2_ssd_lite.py on the backbone of vision/nn/mobilenet_v2.py.

    Its first source is the expansion at the beginning of block 14 (`GraphPath(14, 'conv', 3)`).
    """
    extras = inverted_residual_extras()
    config = replace(
        preset("ssdlite320-mobilenetv2", height=300),
        mean=(127.0, 127.0, 127.0),
        scale=(128.0, 128.0, 128.0),
        resize="bilinear",
        draft_decoding=False,
        extras=extras,
        feature_maps=mobilenet_rows(
            ("expand14", "conv18", *(layer.name for layer in extras[2::3])),
            _GRIDS,
            _STEPS,
            head="separable",
            last_head="conv1x1",
        ),
    )
    names: dict[str, str] = {}
    for place in (0, 18):
        names |= {f"base_net.{place}.{part}": f"backbone.features.{place}.{part}" for part in (0, 1)}
    places: Mapping[int, str] = {0: "0.0", 1: "0.1", 3: "1", 4: "2"}  # block 1 does not expand
    names |= {f"base_net.1.conv.{theirs}": f"backbone.features.1.conv.{ours}" for theirs, ours in places.items()}
    places = {0: "0.0", 1: "0.1", 3: "1.0", 4: "1.1", 6: "2", 7: "3"}
    for block in range(2, 18):
        names |= {
            f"base_net.{block}.conv.{theirs}": f"backbone.features.{block}.conv.{ours}"
            for theirs, ours in places.items()
        }
    places = {0: "1.0", 1: "1.1", 3: "2.0", 4: "2.1", 6: "3.0", 7: "3.1"}
    for extra in range(4):
        names |= {f"extras.{extra}.conv.{theirs}": f"extras.extra{extra + 1}_{ours}" for theirs, ours in places.items()}
    return _weights(tensors, config, names, model="mb2-ssd-lite")


def _extra_names(config: DetectorConfig) -> dict[str, str]:
    """Returns our names of the extra layers: pairs of a 1x1 and a 3x3 convolution, each followed by its activation."""
    places = [f"extras.{pair}.{place}" for pair in range(4) for place in (0, 2)]
    return {theirs: f"extras.{layer.name}" for theirs, layer in zip(places, config.extras, strict=True)}


def _weights(tensors: Tensors, config: DetectorConfig, names: Mapping[str, str], *, model: str) -> Weights:
    classes = class_count(tensors, "classification_headers.5", config.feature_maps[5])
    own = replace(
        config,
        clip_default_boxes="all",
        postprocess=Postprocess(max_candidates_per_class=200, max_detections=200 * classes),
    )
    heads = head_names(own, offsets="regression_headers", logits="classification_headers")
    converted = renamed(tensors, {**names, **heads}, model=f"qfgaohao's {model}")
    return Weights(own, class_names(classes), converted, {"converted from": f"qfgaohao/pytorch-ssd, {model}"})
