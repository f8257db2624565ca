"""Presets: detectors by name, with their feature maps, default boxes and extra layers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from math import ceil, floor, sqrt
from typing import Literal, get_args

from multibox.config import LARGEST_SIDE, DetectorConfig, ExtraLayer, FeatureMap, Head, Postprocess, Scales
from multibox.messages import quoted

Pair = tuple[float, float]

_IMAGENET_MEAN, _IMAGENET_DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Mean and standard deviation of the pixels of ImageNet, with which torchvision's backbones were trained."""

_SMALLEST_SIDE = 32
"""Smallest height and width of an input in pixels: the stride of most backbones' last map."""


def paper_box_sizes(min_size: float, max_size: float, aspect_ratios: tuple[int, ...]) -> tuple[Pair, ...]:
    """Returns the default boxes of a cell, `(width, height)` (section 2.2).

    They are in the order of the Caffe code's PriorBoxLayer: a small and a large square, then for each aspect ratio a
    box with that ratio and a box with its inverse.
    """
    sizes: list[Pair] = [(min_size, min_size), (sqrt(min_size * max_size),) * 2]
    for ratio in aspect_ratios:
        long, short = min_size * sqrt(ratio), min_size / sqrt(ratio)
        sizes += [(long, short), (short, long)]
    return tuple(sizes)


def paper_sizes(side: int, maps: int, *, first: int, smallest: int, largest: int = 90) -> list[tuple[int, int]]:
    """Returns `(min_size, max_size)` of each feature map in pixels, by the rule of the Caffe code (`ssd_pascal.py`).

    This differs from equation 4 of the paper. The Caffe code then cuts the sizes to whole pixels, which changes only
    those of SSD512.

    Args:
        side: Side of the input in pixels.
        maps: Number of feature maps.
        first: Size on the first map, in percent of the side.
        smallest: Size on the second map, in percent of the side. From there the sizes rise in equal whole steps.
        largest: Size that the last map's `min_size` does not exceed, in percent of the side.
    """
    step = floor((largest - smallest) / (maps - 2))
    # the last map's max_size is one step more
    edges = [first, *(smallest + step * place for place in range(maps))]
    return [(side * low // 100, side * high // 100) for low, high in pairwise(edges)]


def paper_percentages(side: float, scales: Scales) -> tuple[int, int]:
    """Returns `first` and `smallest` of `paper_sizes`, which the authors chose smaller for COCO and for SSD512."""
    large = side > 400
    return {("voc", False): (10, 20), ("coco", False): (7, 15), ("voc", True): (7, 15), ("coco", True): (4, 10)}[
        scales, large
    ]


def feature_map_table(
    height: int,
    width: int,
    sources: Mapping[str, int],
    scales: Scales,
    *,
    grids: Mapping[str, tuple[int, int]] | None = None,
    extra_channels: tuple[tuple[int, int], ...] = ((256, 512), (128, 256)),
    first_extra: int = 8,
    separable: bool = False,
) -> tuple[tuple[ExtraLayer, ...], tuple[FeatureMap, ...]]:
    """Returns extra layers and feature maps for any backbone and input size, built as SSD512 extends SSD300.

    After the backbone's last source layer, pairs of a 1x1 and a 3x3 convolution halve the map until one cell is left.
    On the backbone's maps, the centers of the default boxes are one stride apart. On the maps of the extra layers they
    are spread evenly over the input (section 2.2), because with their strides the cells would reach beyond it. For
    512 x 512 both rules agree. Default boxes are sized for a square with the input's area.

    Args:
        height: Height of the network input in pixels.
        width: Width of the network input in pixels.
        sources: Strides of the backbone's source layers by name.
        scales: Sizes of the default boxes, as the authors chose them for VOC or for COCO.
        grids: Rows and columns of the source layers by name. By default the input's size divided by the stride and
            rounded up.
        extra_channels: Channels of the two convolutions of each pair. The last entry holds for all further pairs.
        first_extra: Number in the names of the first pair of extra layers.
        separable: Whether the 3x3 convolution of each pair is a depthwise one and a 1x1 convolution, as in SSDLite.

    Raises:
        ValueError: The input is too small to leave three feature maps.
    """
    if grids is None:
        grids = {layer: (ceil(height / stride), ceil(width / stride)) for layer, stride in sources.items()}
    maps = [(layer, *grids[layer], (float(stride), float(stride))) for layer, stride in sources.items()]
    extras: list[ExtraLayer] = []
    while max(maps[-1][1:3]) > 1:
        rows, columns = (ceil(cells / 2) for cells in maps[-1][1:3])
        place = len(maps) - len(sources)
        number = first_extra + place
        narrow, wide = extra_channels[min(place, len(extra_channels) - 1)]
        if separable:
            extras += _separable_extras(f"conv{number}", narrow, wide)
        else:
            extras.append(ExtraLayer(f"conv{number}_1", narrow, 1))
            extras.append(ExtraLayer(f"conv{number}_2", wide, 3, stride=2, padding=1))
        maps.append((extras[-1].name, rows, columns, (height / rows, width / columns)))
    if len(maps) < 3:
        raise ValueError(
            f"an input of {height} x {width} leaves {len(maps)} feature maps, but there must be at least 3"
        )
    side = round(sqrt(height * width))
    first, smallest = paper_percentages(side, scales)
    sizes = paper_sizes(side, len(maps), first=first, smallest=smallest)
    ratios = [(2,), *[(2, 3)] * (len(maps) - 3), (2,), (2,)]
    return tuple(extras), tuple(
        FeatureMap(layer, rows, columns, step, paper_box_sizes(*size, ratio))
        for (layer, rows, columns, step), size, ratio in zip(maps, sizes, ratios, strict=True)
    )


def _ssd_vgg16(height: int, width: int, scales: Scales) -> DetectorConfig:
    sources = {"conv4_3": 8, "conv7": 16}
    if (height, width) == (300, 300):
        extras, feature_maps = _paper_300(scales)
    else:
        extras, feature_maps = feature_map_table(height, width, sources, scales)
    if (height, width) == (512, 512):  # 2 x 2 cells become 1 by a kernel of 4 without a stride
        extras = (*extras[:-1], replace(extras[-1], kernel=4, stride=1))
    return DetectorConfig(
        name=f"ssd{_size(height, width)}-vgg16",
        height=height,
        width=width,
        mean=(123.0, 117.0, 104.0),
        scale=(1.0, 1.0, 1.0),
        resize="bilinear",
        backbone="vgg16",
        extras=extras,
        extras_batch_norm=False,
        feature_maps=tuple(replace(row, norm="l2") if row.layer == "conv4_3" else row for row in feature_maps),
    )


def _paper_300(scales: Scales) -> tuple[tuple[ExtraLayer, ...], tuple[FeatureMap, ...]]:
    """Returns the tables of SSD300, whose last two maps come from convolutions without padding."""
    extras = (
        ExtraLayer("conv8_1", 256, 1),
        ExtraLayer("conv8_2", 512, 3, stride=2, padding=1),
        ExtraLayer("conv9_1", 128, 1),
        ExtraLayer("conv9_2", 256, 3, stride=2, padding=1),
        ExtraLayer("conv10_1", 128, 1),
        ExtraLayer("conv10_2", 256, 3),
        ExtraLayer("conv11_1", 128, 1),
        ExtraLayer("conv11_2", 256, 3),
    )
    first, smallest = paper_percentages(300, scales)
    rows = zip(
        ("conv4_3", "conv7", "conv8_2", "conv9_2", "conv10_2", "conv11_2"),
        (38, 19, 10, 5, 3, 1),
        (8, 16, 32, 64, 100, 300),
        ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
        paper_sizes(300, 6, first=first, smallest=smallest),
        strict=True,
    )
    return extras, tuple(
        FeatureMap(layer, grid, grid, (step, step), paper_box_sizes(*size, ratios))
        for layer, grid, step, ratios, size in rows
    )


def _ssd_tiny(height: int, width: int, scales: Scales) -> DetectorConfig:
    extras, feature_maps = feature_map_table(
        height,
        width,
        {"stage3": 8, "stage4": 16, "stage5": 32},
        scales,
        extra_channels=((64, 128), (32, 64)),
        first_extra=6,
    )
    return DetectorConfig(
        name=f"ssd{_size(height, width)}-tiny",
        height=height,
        width=width,
        mean=(127.5, 127.5, 127.5),
        scale=(63.75, 63.75, 63.75),
        resize="antialias",
        draft_decoding=True,
        backbone="tiny",
        extras=extras,
        extras_batch_norm=True,
        feature_maps=tuple(replace(row, head="separable") for row in feature_maps),
        postprocess=Postprocess(iou_threshold=0.5),  # a little better than 0.45 on the val split of BCCD
    )


def _ssd_resnet(depth: int, height: int, width: int, scales: Scales) -> DetectorConfig:
    """Returns our SSD on layers 2 to 4 of a ResNet, with BatchNorm in backbone and extra layers, and 3x3 heads."""
    return ssd_config(
        f"resnet{depth}",
        {"layer2": 8, "layer3": 16, "layer4": 32},
        None,
        scales,
        head="conv3x3",
        height=height,
        width=width,
        mean=_IMAGENET_MEAN,
        scale=_IMAGENET_DEVIATION,
    )


def ssd_config(
    backbone: str,
    sources: Mapping[str, int],
    grids: Mapping[str, tuple[int, int]] | None,
    scales: Scales,
    *,
    head: Head,
    height: int,
    width: int,
    mean: tuple[float, float, float],
    scale: tuple[float, float, float],
) -> DetectorConfig:
    """Returns the config of an SSD on a backbone with BatchNorm. The paper's extra layers get BatchNorm too.

    Args:
        backbone: Name of the backbone, which the preset's name ends with.
        sources: Strides of the backbone's source layers by name.
        grids: Rows and columns of the source layers by name; `None` for the input's size divided by the stride and
            rounded up.
        scales: Sizes of the default boxes, as the authors chose them for VOC or for COCO.
        head: Layers of every head, as in `FeatureMap.head`.
        height: Height of the network input in pixels.
        width: Width of the network input in pixels.
        mean: Mean of red, green and blue (0 to 255).
        scale: Divisor of red, green and blue after that.
    """
    extras, feature_maps = feature_map_table(height, width, sources, scales, grids=grids)
    return DetectorConfig(
        name=f"ssd{_size(height, width)}-{backbone}",
        height=height,
        width=width,
        mean=mean,
        scale=scale,
        resize="antialias",
        draft_decoding=True,
        backbone=backbone,
        extras=extras,
        extras_batch_norm=True,
        feature_maps=tuple(replace(row, head=head) for row in feature_maps),
    )


def _even_rows(height: int, width: int, layers: Sequence[str], *, head: Head) -> list[FeatureMap]:
    """Returns feature maps like those of TensorFlow's detectors.

    Sizes go from 0.2 to 0.95 of the side, and centers are spread evenly over the input. The first layer has stride 16,
    and each further one halves the map before it.
    """
    side = sqrt(height * width)
    rows, columns = ceil(height / 16), ceil(width / 16)
    feature_maps = []
    for place, layer in enumerate(layers):
        small, large = 0.2 + 0.15 * place, min(0.2 + 0.15 * (place + 1), 1.0)
        sizes = paper_box_sizes(small * side, large * side, (2, 3))
        feature_maps.append(FeatureMap(layer, rows, columns, (height / rows, width / columns), sizes, head=head))
        rows, columns = ceil(rows / 2), ceil(columns / 2)
    return feature_maps


_NARROWING = (512, 256, 256, 128)
"""Output channels of the extra layers of TensorFlow's detectors."""


def _separable_extras(name: str, narrow: int, wide: int) -> list[ExtraLayer]:
    """Returns three extra layers of SSDLite, which halve the map: 1x1, depthwise 3x3 and 1x1 convolutions."""
    return [
        ExtraLayer(f"{name}_1", narrow, 1),
        ExtraLayer(f"{name}_2", narrow, 3, stride=2, padding=1, depthwise=True),
        ExtraLayer(f"{name}_3", wide, 1),
    ]


def _ssdlite(version: Literal["v2", "v3"], height: int, width: int, scales: Scales) -> DetectorConfig:
    """Returns SSDLite (Sandler et al. 2018, section 6.2) in torchvision's form, with separable heads and extra layers.

    The sizes of its default boxes do not depend on `scales`.
    """
    layers = {"v2": ("expand14", "conv18"), "v3": ("expand13", "conv16")}[version]
    extras = [
        layer
        for number, channels in enumerate(_NARROWING, start=1)
        for layer in _separable_extras(f"extra{number}", channels // 2, channels)
    ]
    sources = (*layers, *(extra.name for extra in extras[2::3]))
    return DetectorConfig(
        name=f"ssdlite{_size(height, width)}-mobilenet{version}",
        height=height,
        width=width,
        mean=_IMAGENET_MEAN if version == "v2" else (127.5, 127.5, 127.5),
        scale=_IMAGENET_DEVIATION if version == "v2" else (127.5, 127.5, 127.5),
        resize="antialias",
        draft_decoding=True,
        backbone="mobilenet-v2" if version == "v2" else "mobilenet-v3-large-reduced",
        extras=tuple(extras),
        extras_batch_norm=True,
        activation="relu6",
        feature_maps=tuple(_even_rows(height, width, sources, head="separable")),
        clip_default_boxes="size",
        postprocess=Postprocess(
            score_threshold=0.001, iou_threshold=0.55, max_candidates_per_class=300, max_detections=300
        ),
    )


def _ssd_lite0(height: int, width: int, scales: Scales) -> DetectorConfig:
    """Returns our SSD on EfficientNet-Lite0, for small processors: separable heads and extra layers, and ReLU6."""
    extras, feature_maps = feature_map_table(
        height,
        width,
        {"expand5": 8, "expand11": 16, "block15": 32},
        scales,
        extra_channels=tuple((channels // 2, channels) for channels in _NARROWING),
        first_extra=16,
        separable=True,
    )
    return DetectorConfig(
        name=f"ssd{_size(height, width)}-lite0",
        height=height,
        width=width,
        mean=(127.0, 127.0, 127.0),
        scale=(128.0, 128.0, 128.0),
        resize="antialias",
        draft_decoding=True,
        backbone="efficientnet-lite0",
        extras=extras,
        extras_batch_norm=True,
        activation="relu6",
        feature_maps=tuple(replace(row, head="separable") for row in feature_maps),
    )


def _ssd_mobilenet_v1(height: int, width: int, scales: Scales) -> DetectorConfig:
    """Returns SSD MobileNet v1 of TensorFlow's model zoo (`ssd_mobilenet_v1_coco`), with SAME padding and 1x1 heads.

    The sizes of its default boxes do not depend on `scales`. The first map has three boxes, one with 0.1 of the side.
    """
    extras: list[ExtraLayer] = []
    for number, channels in enumerate(_NARROWING, start=14):
        extras += [
            ExtraLayer(f"conv{number}_1", channels // 2, 1),
            ExtraLayer(f"conv{number}_2", channels, 3, stride=2, padding="same"),
        ]
    sources = ("conv11", "conv13", *(extra.name for extra in extras[1::2]))
    feature_maps: list[FeatureMap] = []
    for row in _even_rows(height, width, sources, head="conv1x1"):
        square, large_square, *oblong = row.box_sizes
        sizes = (square, *oblong, large_square)
        if not feature_maps:
            sizes = ((square[0] / 2, square[1] / 2), *oblong[:2])
        feature_maps.append(replace(row, box_sizes=sizes))
    return DetectorConfig(
        name=f"ssd{_size(height, width)}-mobilenetv1",
        height=height,
        width=width,
        mean=(127.5, 127.5, 127.5),
        scale=(127.5, 127.5, 127.5),
        resize="antialias",
        draft_decoding=True,
        backbone="mobilenet-v1-tensorflow",
        extras=tuple(extras),
        extras_batch_norm=True,
        activation="relu6",
        feature_maps=tuple(feature_maps),
    )


def _size(height: int, width: int) -> str:
    """Returns the input size as it stands in the names of presets: `300`, or `240x320`."""
    return f"{height}" if height == width else f"{height}x{width}"


FIGURE_CLASSES = 20
"""Number of classes with which the parameters and multiplications of the presets are counted."""


@dataclass(frozen=True)
class Preset:
    """An architecture that can be created, and the facts about it that are known without building it.

    Attributes:
        group: Heading under which `multibox models` lists the preset.
        make: Function of height, width and scales that returns the config.
        side: Default height and width of the network input in pixels.
        scales: Default choice of the sizes of the default boxes.
        parameters: Number of parameters with `FIGURE_CLASSES` classes at this side; a test counts them.
        gmac: Billions of multiply-adds of one image, with as many classes at this side; a test counts them.
        published: Accuracy that the source of the architecture states, and the source, in short. docs/models.md has
            both in full.
    """

    group: str
    make: Callable[[int, int, Scales], DetectorConfig]
    side: int
    scales: Scales
    parameters: int
    gmac: float
    published: str


_PAPER, _SMALL, _RESNET = "the paper's", "for a CPU or small board", "on ResNet"

PRESETS: Mapping[str, Preset] = {
    "ssd300-vgg16": Preset(_PAPER, _ssd_vgg16, 300, "voc", 26_285_486, 31.4, "VOC 77.2, COCO 25.1 (paper)"),
    "ssd512-vgg16": Preset(_PAPER, _ssd_vgg16, 512, "voc", 27_188_676, 90.2, "VOC 79.8, COCO 28.8 (paper)"),
    "ssd256-tiny": Preset(_SMALL, _ssd_tiny, 256, "coco", 996_990, 0.326, "none"),
    "ssd300-lite0": Preset(_SMALL, _ssd_lite0, 300, "voc", 3_749_796, 0.791, "none"),
    "ssd320-lite0": Preset(_SMALL, _ssd_lite0, 320, "voc", 3_749_796, 0.855, "none"),
    "ssdlite320-mobilenetv3": Preset(
        _SMALL,
        partial(_ssdlite, "v3"),
        320,
        "coco",
        2_469_860,
        0.443,
        "COCO 21.3 (torchvision)",
    ),
    "ssdlite320-mobilenetv2": Preset(
        _SMALL,
        partial(_ssdlite, "v2"),
        320,
        "coco",
        3_399_108,
        0.713,
        "COCO 22.1 (its paper)",
    ),
    "ssd300-mobilenetv1": Preset(_SMALL, _ssd_mobilenet_v1, 300, "coco", 5_796_089, 1.15, "COCO 21 (TensorFlow)"),
    "ssd300-resnet18": Preset(_RESNET, partial(_ssd_resnet, 18), 300, "voc", 16_157_380, 3.82, "none"),
    "ssd300-resnet34": Preset(_RESNET, partial(_ssd_resnet, 34), 300, "voc", 26_265_540, 7.27, "none"),
    "ssd300-resnet50": Preset(_RESNET, partial(_ssd_resnet, 50), 300, "voc", 32_338_116, 9.18, "none"),
}


def preset(
    name: str, *, scales: Scales | None = None, height: int | None = None, width: int | None = None
) -> DetectorConfig:
    """Returns the config of a preset.

    Args:
        name: Name of the preset, a key of `PRESETS`: `ssd300-vgg16`, `ssd256-tiny`, ...
        scales: Sizes of the default boxes, as the authors chose them for VOC or for COCO, whose objects are smaller.
            By default the preset's own.
        height: Height of the network input in pixels; by default the width, or the preset's own. Extra layers and
            default boxes follow the size.
        width: Width of the network input in pixels; by default the height, or the preset's own.

    Raises:
        ValueError: There is no such preset, there are no such scales, or the input is too small or too large.
    """
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(PRESETS)}"
        raise ValueError(f"no preset is called {quoted(name)}; {hint} (multibox models lists them)")
    if scales is not None and scales not in get_args(Scales):
        raise ValueError(f"scales must be one of {get_args(Scales)}, but is '{scales}'")
    chosen = PRESETS[name]
    return chosen.make(*input_size(height, width, chosen.side), scales or chosen.scales)


def input_size(height: int | None, width: int | None, side: int) -> tuple[int, int]:
    """Returns height and width of an input. If one is `None`, both are equal; if both are `None`, both are `side`.

    Raises:
        ValueError: One is too small to leave several feature maps, or so large that it can only be a mistake.
    """
    if height is None:
        height = side if width is None else width
    if width is None:
        width = height
    for name, value in (("height", height), ("width", width)):
        if not _SMALLEST_SIDE <= value <= LARGEST_SIDE:
            raise ValueError(
                f"the {name} of the input must be from {_SMALLEST_SIDE} to {LARGEST_SIDE} pixels, but is {value}"
            )
    return height, width
