"""Converts detectors of lufficc/SSD (MIT): SSD300 and SSD512 on VGG-16, and SSDLite320 on MobileNetV2.

The project has rules of its own. All four numbers of a default box are clipped, and sizes are not cut to whole pixels
(CLIP in ssd/config/defaults.py, ssd/modeling/anchors/prior_box.py, sizes in configs/*.yaml). All boxes that score above
0.01 enter suppression by class at 0.45, and the best 100 of an image are kept (TEST in defaults.py,
ssd/modeling/box_head/inference.py). PIXEL_MEAN is subtracted from RGB pixels after OpenCV's bilinear resize of 8-bit
pixels (ssd/data/transforms/__init__.py). Heads are in ssd/modeling/box_head/box_predictor.py, backbones in
ssd/modeling/backbone/.
"""

from dataclasses import replace

from multibox.config import DetectorConfig, Postprocess, Scales
from multibox.presets import paper_box_sizes, preset
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
    if f"{_HEADS}.cls_headers.0.bias" in tensors and "backbone.vgg.0.weight" in tensors:
        return _on_vgg16(tensors)
    if not any(key.startswith(f"{_HEADS}.cls_headers.0.") for key in tensors):
        return None
    if "backbone.features.1.conv.0.0.weight" in tensors:
        return _on_mobilenet_v2(tensors)
    if "backbone.features.4.conv.5.fc.0.weight" in tensors:
        raise ValueError(
            "lufficc/SSD's detector on MobileNetV3 cannot be converted: it squeezes and excites before the activation, "
            "and in the extra layers too"
        )
    raise ValueError(
        "of lufficc/SSD's detectors, only those on VGG-16 and MobileNetV2 can be converted; this is neither"
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
    extras = inverted_residual_extras()
    config = replace(
        preset("ssdlite320-mobilenetv2"),
        mean=(123.0, 117.0, 104.0),
        scale=(1.0, 1.0, 1.0),
        resize="bilinear",
        draft_decoding=False,
        extras=extras,
        feature_maps=mobilenet_rows(
            ("block13", "conv18", *(layer.name for layer in extras[2::3])),
            (20, 10, 5, 3, 2, 1),
            (16, 32, 64, 107, 160, 320),
            head="separable",
            last_head="conv1x1",
        ),
    )
    classes = class_count(tensors, f"{_HEADS}.cls_headers.5", config.feature_maps[5])
    layers = {key.rpartition(".")[0] for key in tensors}
    names = {layer: layer for layer in layers if layer.startswith("backbone.features.")}  # torchvision's, as ours
    for place in range(len(extras) // 3):
        theirs, first = f"backbone.extras.{place}.conv", f"extras.extra{place + 1}"
        names |= {f"{theirs}.0.0": f"{first}_1.0", f"{theirs}.0.1": f"{first}_1.1"}
        names |= {f"{theirs}.1.0": f"{first}_2.0", f"{theirs}.1.1": f"{first}_2.1"}
        names |= {f"{theirs}.2": f"{first}_3.0", f"{theirs}.3": f"{first}_3.1"}
    names |= _head_names(config)
    return _weights(config, classes, renamed(tensors, names, model="lufficc/SSD's SSDLite320 on MobileNetV2"))


def _head_names(config: DetectorConfig) -> dict[str, str]:
    return head_names(config, offsets=f"{_HEADS}.reg_headers", logits=f"{_HEADS}.cls_headers", inside=".conv")


def _weights(config: DetectorConfig, classes: int, tensors: Tensors) -> Weights:
    own = replace(
        config,
        clip_default_boxes="all",
        postprocess=Postprocess(max_candidates_per_class=config.num_default_boxes, max_detections=100),
    )
    return Weights(own, class_names(classes), tensors, {"converted from": "lufficc/SSD"})
