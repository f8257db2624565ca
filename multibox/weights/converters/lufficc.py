"""Converts detectors of lufficc/SSD (MIT): SSD300 on VGG-16 and EfficientNet-B3, SSD512, SSDLite320 on MobileNets.

The project has rules of its own. All four numbers of a default box are clipped, and sizes are not cut to whole pixels
(CLIP in ssd/config/defaults.py, ssd/modeling/anchors/prior_box.py, sizes in configs/*.yaml). All boxes that score above
0.01 enter suppression by class at 0.45, and the best 100 of an image are kept (TEST in defaults.py,
ssd/modeling/box_head/inference.py). PIXEL_MEAN is subtracted from RGB pixels after OpenCV's bilinear resize of 8-bit
pixels (ssd/data/transforms/__init__.py). Heads are in ssd/modeling/box_head/box_predictor.py, backbones in
ssd/modeling/backbone/.
"""

from collections.abc import Sequence
from dataclasses import replace

from multibox.config import DetectorConfig, ExtraLayer, Postprocess, Scales
from multibox.presets import paper_box_sizes, preset
from multibox.weights.converters.class_names import class_names
from multibox.weights.converters.layers import Tensors
from multibox.weights.converters.pytorch_ports import (
    VGG16_PLACES,
    class_count,
    extra_names,
    head_names,
    mobilenet_rows,
    renamed,
    separable_extras,
)
from multibox.weights.file import Weights

_HEADS = "box_head.predictor"

_SIZES_512 = {
    "voc": (35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.65),
    "coco": (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72),
}
"""MIN_SIZES and the last of MAX_SIZES in configs/vgg_ssd512_voc0712.yaml and vgg_ssd512_coco_trainval35k.yaml."""


def convert(tensors: Tensors) -> Weights | None:
    """Returns the detector of a state dict, or `None` if it is not one of lufficc/SSD.

    The number of classes gives their names, and the default boxes on VGG-16: with eighty, those of the COCO configs.

    Raises:
        ValueError: The layers are not those of a detector that can be converted.
    """
    if not any(key.startswith(f"{_HEADS}.cls_headers.0.") for key in tensors):
        return None
    if "backbone.vgg.0.weight" in tensors:
        return _on_vgg16(tensors)
    if "backbone.features.1.conv.0.0.weight" in tensors:
        return _on_mobilenet_v2(tensors)
    if "backbone.features.4.conv.5.fc.0.weight" in tensors:
        return _on_mobilenet_v3(tensors)
    if "backbone._blocks.25._project_conv.weight" in tensors:
        return _on_efficientnet(tensors)
    raise ValueError(
        "of lufficc/SSD's detectors, those on VGG-16, MobileNetV2, MobileNetV3 and EfficientNet-B3 can be converted; "
        "this is none of them"
    )


def _on_vgg16(tensors: Tensors) -> Weights:
    """Returns SSD300, which has six heads, or SSD512, which has seven."""
    large = f"{_HEADS}.cls_headers.6.bias" in tensors
    name = "ssd512-vgg16" if large else "ssd300-vgg16"
    config = preset(name)
    classes = class_count(tensors, f"{_HEADS}.cls_headers.0", config.feature_maps[0])
    scales: Scales = "coco" if classes == 80 else "voc"
    config = preset(name, scales=scales)
    if large:
        sizes = _SIZES_512[scales]
        ratios = ((2,), *[(2, 3)] * 4, (2,), (2,))
        config = replace(
            config,
            feature_maps=tuple(
                replace(row, box_sizes=paper_box_sizes(min_size, max_size, ratio))
                for row, min_size, max_size, ratio in zip(
                    config.feature_maps, sizes[:-1], sizes[1:], ratios, strict=True
                )
            ),
        )
    names = {f"backbone.vgg.{place}": f"backbone.{layer}" for place, layer in VGG16_PLACES.items()}
    names |= {f"backbone.extras.{place}": f"extras.{layer.name}" for place, layer in enumerate(config.extras)}
    names |= {"backbone.l2_norm": "norm.conv4_3"} | _head_names(config)
    return _weights(config, classes, renamed(tensors, names, model=f"lufficc/SSD's SSD{config.height} on VGG-16"))


def _on_mobilenet_v2(tensors: Tensors) -> Weights:
    """Returns SSDLite320, whose first source is the output of block 13 (ssd/modeling/backbone/mobilenet.py).

    The steps are those since March 2020 (lufficc/SSD issue 137). Before, the config had 100, 150 and 300 on the last
    three maps, which are right for an input of 300. The file does not say which it was trained with.
    """
    extras = separable_extras()
    config = _lite_config("ssdlite320-mobilenetv2", "mobilenet-v2", ("block13", "conv18"), extras)
    config = replace(config, activation="relu6")
    layers = {key.rpartition(".")[0] for key in tensors}
    names = {layer: layer for layer in layers if layer.startswith("backbone.features.")}  # torchvision's, as ours
    inside = {"0.0": "1.0", "0.1": "1.1", "1.0": "2.0", "1.1": "2.1", "2": "3.0", "3": "3.1"}
    names |= extra_names(4, "backbone.extras.{}.conv", inside) | _head_names(config)
    classes = class_count(tensors, f"{_HEADS}.cls_headers.5", config.feature_maps[5])
    return _weights(config, classes, renamed(tensors, names, model="lufficc/SSD's SSDLite320 on MobileNetV2"))


def _on_mobilenet_v3(tensors: Tensors) -> Weights:
    """Returns SSDLite320 whose first source is the output of block 12 (ssd/modeling/backbone/mobilenetv3.py).

    In the extra layers too, squeeze-and-excite is before the activation. Before April 2020, their depthwise
    convolutions had kernels of 1 x 1.
    """
    kernel = tensors["backbone.extras.0.conv.3.weight"].shape[-1]
    extras = []
    for layer in separable_extras(((192, 512), (128, 256), (128, 256), (64, 64))):
        if layer.depthwise:
            layer = replace(layer, kernel=kernel, padding=kernel // 2, squeezed=layer.channels // 4)
        extras.append(layer)
    config = _lite_config("ssdlite320-mobilenetv3", "mobilenet-v3-large-lufficc", ("block12", "conv16"), extras)
    config = replace(config, activation="hardswish", head_activation="relu6")
    names: dict[str, str] = {}
    for theirs, ours in (("0", "conv0"), ("16", "conv16")):
        names |= {f"backbone.features.{theirs}.{part}": f"backbone.{ours}.{part}" for part in (0, 1)}
    inside = {"0": "expand.0", "1": "expand.1", "3": "depthwise.0", "4": "depthwise.1", "7": "project.0"}
    inside |= {"8": "project.1", "5.fc.0": "squeeze.factors.reduce", "5.fc.2": "squeeze.factors.expand"}
    for block in range(1, 16):
        places = inside
        if block == 1:  # does not expand
            places = {"0": "depthwise.0", "1": "depthwise.1", "4": "project.0", "5": "project.1"}
        for place, ours in places.items():
            theirs = f"backbone.features.{block}.conv.{place}"
            if "fc" not in place or f"{theirs}.weight" in tensors:
                names[theirs] = f"backbone.block{block}.layers.{ours}"
    places = {"0": "1.0", "1": "1.1", "3": "2.0", "4": "2.1", "7": "3.0", "8": "3.1"}
    places |= {"5.fc.0": "2.2.factors.reduce", "5.fc.2": "2.2.factors.expand"}
    names |= extra_names(4, "backbone.extras.{}.conv", places) | _head_names(config)
    converted = renamed(tensors, names, model="lufficc/SSD's SSDLite320 on MobileNetV3")
    # its squeeze-and-excite has linear layers, ours has convolutions of 1 x 1
    converted = {key: tensor[..., None, None] if tensor.ndim == 2 else tensor for key, tensor in converted.items()}
    return _weights(config, class_count(tensors, f"{_HEADS}.cls_headers.5", config.feature_maps[5]), converted)


def _lite_config(name: str, backbone: str, layers: tuple[str, ...], extras: Sequence[ExtraLayer]) -> DetectorConfig:
    """Returns the config of SSDLite320 on a MobileNet (configs/mobilenet_v2_ssd320_voc0712.yaml, mobilenet_v3_...)."""
    return DetectorConfig(
        name=name,
        height=320,
        width=320,
        mean=(123.0, 117.0, 104.0),
        scale=(1.0, 1.0, 1.0),
        resize="bilinear",
        backbone=backbone,
        extras=tuple(extras),
        extras_batch_norm=True,
        feature_maps=mobilenet_rows(
            (*layers, *(layer.name for layer in extras[2::3])),
            (20, 10, 5, 3, 2, 1),
            (16, 32, 64, 107, 160, 320),
            head="separable",
            last_head="conv1x1",
        ),
    )


def _on_efficientnet(tensors: Tensors) -> Weights:
    """Returns SSD300 on EfficientNet-B3, whose third source is a layer of the backbone too.

    (ssd/modeling/backbone/efficient_net/efficient_net.py, configs/efficient_net_b3_ssd300_voc0712.yaml)
    """
    config = preset("ssd300-vgg16", scales="voc")
    extras = config.extras[2:]
    sources = ("block7", "block17", "block25", *(layer.name for layer in extras[1::2]))
    config = replace(
        config,
        name="ssd300-efficientnet-b3",
        backbone="efficientnet-b3",
        extras=extras,
        feature_maps=tuple(
            replace(row, layer=layer, norm=None) for row, layer in zip(config.feature_maps, sources, strict=True)
        ),
    )
    names = {"backbone._conv_stem": "backbone.stem.0", "backbone._bn0": "backbone.stem.1"}
    parts = {"_expand_conv": "expand.0", "_bn0": "expand.1", "_depthwise_conv": "depthwise.0", "_bn1": "depthwise.1"}
    parts |= {"_project_conv": "project.0", "_bn2": "project.1"}
    parts |= {"_se_reduce": "squeeze.factors.reduce", "_se_expand": "squeeze.factors.expand"}
    for block in range(26):
        for part, ours in parts.items():
            if block > 1 or ours not in ("expand.0", "expand.1"):  # blocks 0 and 1 do not expand
                names[f"backbone._blocks.{block}.{part}"] = f"backbone.block{block}.layers.{ours}"
    for place, layer in enumerate(extras):
        names[f"backbone.extras.{place // 2}.{place % 2 * 2}"] = f"extras.{layer.name}"
    names |= _head_names(config)
    classes = class_count(tensors, f"{_HEADS}.cls_headers.0", config.feature_maps[0])
    return _weights(config, classes, renamed(tensors, names, model="lufficc/SSD's SSD300 on EfficientNet-B3"))


def _head_names(config: DetectorConfig) -> dict[str, str]:
    return head_names(config, offsets=f"{_HEADS}.reg_headers", logits=f"{_HEADS}.cls_headers", inside=".conv")


def _weights(config: DetectorConfig, classes: int, tensors: Tensors) -> Weights:
    own = replace(
        config,
        clip_default_boxes="all",
        postprocess=Postprocess(max_candidates_per_class=config.num_default_boxes, max_detections=100),
    )
    return Weights(own, class_names(classes), tensors, {"converted from": "lufficc/SSD"})
