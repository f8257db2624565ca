"""All that differs between detectors, as values: the source layers, the default boxes, the network's parts, selection.

A preset is such a set of values under a name; `preset("ssd300-vgg16")` makes it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from math import floor, sqrt
from typing import Any, Literal, get_args

from multibox.pictures import Resize

Suppression = Literal["by-class", "across-classes"]
Head = Literal["conv3x3", "separable"]
Scales = Literal["voc", "coco"]


@dataclass(frozen=True)
class FeatureMap:
    """One source layer: its grid of cells, and the default boxes of a cell.

    Attributes:
        layer: The layer of the backbone, or of the extra layers, whose output it is.
        rows: Cells from top to bottom.
        columns: Cells from left to right.
        step: Pixels of the input between the centres of neighbouring cells, `(y, x)`.
        box_sizes: The default boxes of a cell, each `(width, height)` in pixels of the input, in the order of the
            network's output.
        offset: Where in its cell a centre lies; 0.5 is the middle.
        l2_norm_scale: The scale that L2 normalization of this layer starts from (section 3.1: 20 on `conv4_3`); `None`
            leaves the layer as it is.
    """

    layer: str
    rows: int
    columns: int
    step: tuple[float, float]
    box_sizes: tuple[tuple[float, float], ...]
    offset: float = 0.5
    l2_norm_scale: float | None = None

    @property
    def default_boxes(self) -> int:
        """How many default boxes the whole map has."""
        return self.rows * self.columns * len(self.box_sizes)


@dataclass(frozen=True)
class ExtraLayer:
    """One of the extra feature layers behind the backbone: a convolution, BatchNorm if asked for, ReLU."""

    name: str
    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True)
class Selection:
    """Which of the network's boxes become detections (section 3.7; the Caffe code's DetectionOutput).

    Attributes:
        score_threshold: A class score must be above it.
        overlap_threshold: A box that overlaps a better one by more than this is suppressed.
        suppression: By a better box of the same class, or of any class.
        limit_per_class: How many of the best of each class enter suppression.
        limit: How many are kept of a picture, over all classes.
    """

    score_threshold: float = 0.01
    overlap_threshold: float = 0.45
    suppression: Suppression = "by-class"
    limit_per_class: int = 400
    limit: int = 200

    def __post_init__(self) -> None:
        for name in ("score_threshold", "overlap_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, but is {getattr(self, name)}")
        for name in ("limit_per_class", "limit"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but is {getattr(self, name)}")
        if self.suppression not in get_args(Suppression):
            raise ValueError(f"suppression must be one of {get_args(Suppression)}, but is '{self.suppression}'")

    def but(
        self,
        *,
        score_threshold: float | None = None,
        overlap_threshold: float | None = None,
        suppression: Suppression | None = None,
        limit: int | None = None,
    ) -> "Selection":
        """This selection with the values that are given in the place of its own."""
        given: dict[str, Any] = {
            "score_threshold": score_threshold,
            "overlap_threshold": overlap_threshold,
            "suppression": suppression,
            "limit": limit,
        }
        return dataclasses.replace(self, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class DetectorConfig:
    """Everything about a detector but its class names and its weights.

    Attributes:
        name: The preset it began as.
        height: Of the network's input, in pixels.
        width: The same.
        mean: Of the colours red, green and blue, taken from the pixels (0 to 255).
        scale: What the pixels are divided by after that.
        resize: How a picture is brought to the input's size.
        backbone: A name in `ssd.backbones`.
        extras: The extra feature layers, in order, after the backbone's last layer.
        extras_batch_norm: Whether BatchNorm follows each of them.
        head: `conv3x3` as in the paper, or `separable`: a depthwise 3x3 convolution, then 1x1.
        feature_maps: One row for each source layer, in the order of the network's output.
        center_variance: What the centre's offsets are divided by. The Caffe code has the variances; the paper does not.
        size_variance: The same for the logarithms of width and height.
        selection: What `detect` does where a call does not say otherwise.
    """

    name: str
    height: int
    width: int
    mean: tuple[float, float, float]
    scale: tuple[float, float, float]
    resize: Resize
    backbone: str
    extras: tuple[ExtraLayer, ...]
    extras_batch_norm: bool
    head: Head
    feature_maps: tuple[FeatureMap, ...]
    center_variance: float = 0.1
    size_variance: float = 0.2
    selection: Selection = Selection()

    @property
    def default_boxes(self) -> int:
        """How many default boxes all the feature maps have together."""
        return sum(feature_map.default_boxes for feature_map in self.feature_maps)


def paper_box_sizes(
    min_size: float, max_size: float, aspect_ratios: tuple[int, ...]
) -> tuple[tuple[float, float], ...]:
    """The default boxes of a cell, `(width, height)`: a small and a large square, then each ratio and its inverse.

    Section 2.2, in the order of the Caffe code's PriorBoxLayer.
    """
    sizes: list[tuple[float, float]] = [(min_size, min_size), (sqrt(min_size * max_size),) * 2]
    for ratio in aspect_ratios:
        long, short = min_size * sqrt(ratio), min_size / sqrt(ratio)
        sizes += [(long, short), (short, long)]
    return tuple(sizes)


def paper_sizes(side: int, maps: int, *, first: int, smallest: int, largest: int = 90) -> list[tuple[int, int]]:
    """`(min_size, max_size)` of each feature map in pixels, by the rule of the Caffe code (`ssd_pascal.py`).

    Percentages of the input's `side`: `first` for the first map, then equal whole steps from `smallest` to `largest`.
    This is not equation 4, and the layer that uses the sizes cuts them to whole pixels, which only SSD512 feels.
    """
    step = floor((largest - smallest) / (maps - 2))
    edges = [first, *range(smallest, largest + 1, step)]
    # max_size of the last map lies one more step above the largest
    return [
        (side * low // 100, side * high // 100) for low, high in zip(edges, [*edges[1:], edges[-1] + step], strict=True)
    ]


_RATIOS_300 = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
_RATIOS_512 = ((2,), (2, 3), (2, 3), (2, 3), (2, 3), (2,), (2,))


def _ssd_vgg16(
    name: str,
    side: int,
    grids: tuple[int, ...],
    steps: tuple[int, ...],
    ratios: tuple[tuple[int, ...], ...],
    sizes: list[tuple[int, int]],
    extras: tuple[ExtraLayer, ...],
) -> DetectorConfig:
    layers = ["conv4_3", "conv7", *(layer.name for layer in extras if layer.name.endswith("_2"))]
    feature_maps = tuple(
        FeatureMap(
            layer=layer,
            rows=grid,
            columns=grid,
            step=(step, step),
            box_sizes=paper_box_sizes(*size, ratio),
            l2_norm_scale=20.0 if layer == "conv4_3" else None,
        )
        for layer, grid, step, size, ratio in zip(layers, grids, steps, sizes, ratios, strict=True)
    )
    return DetectorConfig(
        name=name,
        height=side,
        width=side,
        mean=(123.0, 117.0, 104.0),
        scale=(1.0, 1.0, 1.0),
        resize="bilinear",
        backbone="vgg16",
        extras=extras,
        extras_batch_norm=False,
        head="conv3x3",
        feature_maps=feature_maps,
    )


def _ssd300_vgg16(scales: Scales) -> DetectorConfig:
    first, smallest = {"voc": (10, 20), "coco": (7, 15)}[scales]
    return _ssd_vgg16(
        "ssd300-vgg16",
        side=300,
        grids=(38, 19, 10, 5, 3, 1),
        steps=(8, 16, 32, 64, 100, 300),
        ratios=_RATIOS_300,
        sizes=paper_sizes(300, 6, first=first, smallest=smallest),
        extras=(
            ExtraLayer("conv8_1", 256, 1),
            ExtraLayer("conv8_2", 512, 3, stride=2, padding=1),
            ExtraLayer("conv9_1", 128, 1),
            ExtraLayer("conv9_2", 256, 3, stride=2, padding=1),
            ExtraLayer("conv10_1", 128, 1),
            ExtraLayer("conv10_2", 256, 3),
            ExtraLayer("conv11_1", 128, 1),
            ExtraLayer("conv11_2", 256, 3),
        ),
    )


def _ssd512_vgg16(scales: Scales) -> DetectorConfig:
    first, smallest = {"voc": (7, 15), "coco": (4, 10)}[scales]
    return _ssd_vgg16(
        "ssd512-vgg16",
        side=512,
        grids=(64, 32, 16, 8, 4, 2, 1),
        steps=(8, 16, 32, 64, 128, 256, 512),
        ratios=_RATIOS_512,
        sizes=paper_sizes(512, 7, first=first, smallest=smallest),
        extras=(
            ExtraLayer("conv8_1", 256, 1),
            ExtraLayer("conv8_2", 512, 3, stride=2, padding=1),
            ExtraLayer("conv9_1", 128, 1),
            ExtraLayer("conv9_2", 256, 3, stride=2, padding=1),
            ExtraLayer("conv10_1", 128, 1),
            ExtraLayer("conv10_2", 256, 3, stride=2, padding=1),
            ExtraLayer("conv11_1", 128, 1),
            ExtraLayer("conv11_2", 256, 3, stride=2, padding=1),
            ExtraLayer("conv12_1", 128, 1),
            ExtraLayer("conv12_2", 256, 4, padding=1),
        ),
    )


def _ssd256_tiny(scales: Scales) -> DetectorConfig:
    first, smallest = {"voc": (10, 20), "coco": (7, 15)}[scales]
    layers = ("stage3", "stage4", "stage5", "conv6_2", "conv7_2", "conv8_2")
    grids = (32, 16, 8, 4, 2, 1)
    sizes = paper_sizes(256, 6, first=first, smallest=smallest)
    feature_maps = tuple(
        FeatureMap(layer, grid, grid, (256 / grid, 256 / grid), paper_box_sizes(*size, ratio))
        for layer, grid, size, ratio in zip(layers, grids, sizes, _RATIOS_300, strict=True)
    )
    return DetectorConfig(
        name="ssd256-tiny",
        height=256,
        width=256,
        mean=(127.5, 127.5, 127.5),
        scale=(63.75, 63.75, 63.75),
        resize="antialias",
        backbone="tiny",
        extras=(
            ExtraLayer("conv6_1", 64, 1),
            ExtraLayer("conv6_2", 128, 3, stride=2, padding=1),
            ExtraLayer("conv7_1", 32, 1),
            ExtraLayer("conv7_2", 64, 3, stride=2, padding=1),
            ExtraLayer("conv8_1", 32, 1),
            ExtraLayer("conv8_2", 64, 3, stride=2, padding=1),
        ),
        extras_batch_norm=True,
        head="separable",
        feature_maps=feature_maps,
        selection=Selection(overlap_threshold=0.5),  # a little better than 0.45 on the val split of BCCD
    )


@dataclass(frozen=True)
class Preset:
    """An architecture that can be created, and what is known of it without building it.

    Attributes:
        make: The config, for the scales of VOC or of COCO.
        scales: The scales it has when nothing is said.
        parameters: With `classes` classes; a test counts them.
        gmac: Multiplications of one pass in thousands of millions, with `classes` classes; a test counts them.
        classes: The number of classes of these two figures.
        published: The accuracy that its source states, and the source.
    """

    make: Callable[[Scales], DetectorConfig]
    scales: Scales
    parameters: int
    gmac: float
    classes: int
    published: str


PRESETS: Mapping[str, Preset] = {
    "ssd256-tiny": Preset(
        _ssd256_tiny, "coco", 996_990, 0.326, 20, "none published; docs/benchmarks.md has what we measured"
    ),
    "ssd300-vgg16": Preset(
        _ssd300_vgg16, "voc", 26_285_486, 31.4, 20, "VOC2007 test 77.2 mAP (07+12), COCO test-dev 25.1 AP; the paper"
    ),
    "ssd512-vgg16": Preset(
        _ssd512_vgg16, "voc", 27_188_676, 90.2, 20, "VOC2007 test 79.8 mAP (07+12), COCO test-dev 28.8 AP; the paper"
    ),
}


def preset(name: str, *, scales: Scales | None = None) -> DetectorConfig:
    """The config of the architecture of that name.

    Args:
        name: `ssd300-vgg16`, `ssd512-vgg16` or `ssd256-tiny`.
        scales: The default boxes' sizes as the authors chose them for VOC or for COCO (whose objects are smaller).

    Raises:
        ValueError: There is no such preset, or no such scales.
    """
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(PRESETS)}"
        raise ValueError(f"no preset is called '{name}'; {hint} (multibox models lists them)")
    if scales is not None and scales not in get_args(Scales):
        raise ValueError(f"scales must be one of {get_args(Scales)}, but is '{scales}'")
    chosen = PRESETS[name]
    return chosen.make(scales or chosen.scales)
