"""Everything that differs between detectors, as values: source layers, default boxes, layers, postprocessing."""

import dataclasses
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from multibox.checks import Count, Finite, Fraction, Positive, check_fields
from multibox.files import read_text
from multibox.images import Resize
from multibox.messages import counted, quoted, shortened

Head = Literal["conv3x3", "conv1x1", "separable"]
Norm = Literal["l2", "batch"]
Activation = Literal["relu", "relu6", "hardswish"]
Clip = Literal["none", "size", "all", "corners"]
Scoring = Literal["softmax", "sigmoid"]
Merge = Literal["none", "weighted"]
Scales = Literal["voc", "coco"]
PrecisionChoice = Literal["auto", "fp32", "bf16"]

LARGEST_SIDE = 4096
"""Largest height and width of a network's input in pixels."""

MAX_DEFAULT_BOXES = 2_000_000
"""Most default boxes of a detector. SSD512 has 24,564; this many, in 32 MB, fit the largest input on VGG-16."""

# Limits far beyond any real detector. They keep a small file from asking for much memory.
LayerName = Annotated[str, Meta(pattern=r"^\w+$", max_length=100, description="a name of letters, digits and _")]
Text = Annotated[str, Meta(max_length=200, description="a text of at most 200 characters")]
Side = Annotated[int, Meta(ge=1, le=LARGEST_SIDE, description=f"from 1 to {LARGEST_SIDE}")]
Channels = Annotated[int, Meta(ge=1, le=65536, description="from 1 to 65536")]
Kernel = Annotated[int, Meta(ge=1, le=64, description="from 1 to 64")]
Padding = Annotated[int, Meta(ge=0, le=64, description="from 0 to 64")]
Pixels = Annotated[float, Meta(ge=1e-3, le=1e6, description="from 0.001 to 1000000 pixels")]
BoxSizes = Annotated[
    tuple[tuple[Pixels, Pixels], ...],
    Meta(min_length=1, max_length=MAX_DEFAULT_BOXES, description="at least one pair of width and height"),
]


@dataclass(frozen=True)
class FeatureMap:
    """One source layer: its grid of cells, and the default boxes of a cell.

    Attributes:
        layer: Name of the layer of the backbone, or of the extra layer, whose output is used.
        rows: Number of cells from top to bottom.
        columns: Number of cells from left to right.
        step: Distance between the centers of neighboring cells in pixels of the input, `(y, x)`.
        box_sizes: Default boxes of a cell, each `(width, height)` in pixels of the input, in the order of the
            network's output.
        offset: Position of the center in its cell; 0.5 is the middle.
        norm: Normalization of the layer before its heads. `l2` is the paper's L2 normalization (section 3.1, on
            `conv4_3`), `batch` is BatchNorm, `None` leaves the layer as it is.
        head: Layers that predict from the features: `conv3x3` as in the paper, `conv1x1`, or `separable`, which is a
            depthwise 3x3 convolution with BatchNorm, then a 1x1 convolution.
    """

    layer: LayerName
    rows: Side
    columns: Side
    step: tuple[Pixels, Pixels]
    box_sizes: BoxSizes
    offset: Fraction = 0.5
    norm: Norm | None = None
    head: Head = "conv3x3"

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def num_default_boxes(self) -> int:
        """Number of default boxes of the whole map."""
        return self.rows * self.columns * len(self.box_sizes)


@dataclass(frozen=True)
class ExtraLayer:
    """One of the extra feature layers behind the backbone: a convolution, BatchNorm if asked for, an activation.

    Attributes:
        name: Name of the layer, numbered as in the paper: `conv8_2`.
        channels: Number of output channels.
        kernel: Side of the kernel.
        stride: Stride of the convolution.
        padding: Rows and columns of zeros on each side. `same` is TensorFlow's rule, which puts an odd row or column
            last.
        depthwise: Whether each channel is convolved separately. The input must then have `channels` channels too.
        linear: Whether the layer has no activation.
        squeezed: Number of channels to which squeeze-and-excite, before the activation, reduces the layer's; `None` for
            a layer without it.
    """

    name: LayerName
    channels: Channels
    kernel: Kernel
    stride: Kernel = 1
    padding: Padding | Literal["same"] = 0
    depthwise: bool = False
    linear: bool = False
    squeezed: Channels | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Postprocess:
    """The settings by which boxes of the network become detections (section 3.7; the Caffe code's DetectionOutput).

    Attributes:
        score_threshold: Only boxes with a score above this become detections.
        iou_threshold: A box is suppressed if it overlaps a better one by more than this.
        class_agnostic: Whether better boxes of all classes suppress a box, or only those of its own class.
        max_candidates_per_class: Number of the best boxes of each class that enter suppression.
        max_detections: Largest number of detections of an image, over all classes.
        merge: What happens to the boxes that are suppressed: `none` drops them, as in the paper; `weighted` moves each
            kept box to the mean of itself and of the boxes that it suppressed, weighted by their scores
            (`multibox.boxes.box_voting`). It changes no score and no label, and keeps the same boxes.
    """

    score_threshold: Fraction = 0.01
    iou_threshold: Fraction = 0.45
    class_agnostic: bool = False
    max_candidates_per_class: Count = 400
    max_detections: Count = 200
    merge: Merge = "none"

    def __post_init__(self) -> None:
        check_fields(self)

    def override(
        self,
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        class_agnostic: bool | None = None,
        max_detections: int | None = None,
        merge: Merge | None = None,
    ) -> "Postprocess":
        """Returns these settings with the given values in place of their own; `None` keeps a value."""
        given: dict[str, Any] = {
            "score_threshold": score_threshold,
            "iou_threshold": iou_threshold,
            "class_agnostic": class_agnostic,
            "max_detections": max_detections,
            "merge": merge,
        }
        return dataclasses.replace(self, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True, repr=False)
class DetectorConfig:
    """Everything about a detector but its class names and its weights.

    Attributes:
        name: Name of the preset that the detector began as.
        height: Height of the network input in pixels.
        width: Width of the network input in pixels.
        mean: Mean of red, green and blue, subtracted from the pixels (0 to 255).
        scale: Divisor of red, green and blue after that.
        resize: Rule by which an image is resized to the size of the input.
        backbone: Name of the backbone in `ssd.backbones`.
        extras: Extra feature layers, in order, after the backbone's last layer.
        extras_batch_norm: Whether BatchNorm follows each extra layer.
        feature_maps: One row for each source layer, in the order of the network's output.
        activation: Activation of the extra layers.
        head_activation: Activation of separable heads; `None` for that of the extra layers.
        stored_default_boxes: Whether the table of default boxes is a tensor of the weights file instead of being made
            from the feature maps.
        clip_default_boxes: `none`, as in the paper's detectors; `corners` cuts the boxes at the edges of the image,
            as the Caffe code does if asked to; `size` limits widths and heights to the image's; `all` limits the
            centers too. The last two limit each number separately, so boxes may still reach over the edge.
        center_variance: Divisor of the center's offsets. The Caffe code has the variances; the paper does not.
        size_variance: Divisor of the logarithms of width and height.
        max_log_size: Limit on decoded sizes: a box is at most `exp(max_log_size)` times as wide and high as its default
            box. `None` sets no limit.
        clip_boxes: Whether decoded boxes are clipped to the image before suppression; the Caffe code does it after.
        scoring: `softmax` over the classes and the background, or `sigmoid` of each class separately.
        postprocess: Thresholds and limits of the checkpoint's own evaluation; `detect` uses all but the first.
        detect_score_threshold: Default score threshold of `detect`.
        draft_decoding: Whether the detector was trained on JPEG files that were decoded at a reduced size, so that
            detection may do so too.
    """

    name: Text
    height: Side
    width: Side
    mean: tuple[Finite, Finite, Finite]
    scale: tuple[Positive, Positive, Positive]
    resize: Resize
    backbone: Text
    extras: Annotated[tuple[ExtraLayer, ...], Meta(max_length=100, description="at most 100 layers")]
    extras_batch_norm: bool
    feature_maps: Annotated[tuple[FeatureMap, ...], Meta(min_length=1, max_length=100, description="1 to 100 rows")]
    activation: Activation = "relu"
    head_activation: Activation | None = None
    stored_default_boxes: bool = False
    clip_default_boxes: Clip = "none"
    center_variance: Positive = 0.1
    size_variance: Positive = 0.2
    max_log_size: Positive | None = None
    clip_boxes: bool = False
    scoring: Scoring = "softmax"
    postprocess: Postprocess = Postprocess()
    detect_score_threshold: Fraction = 0.5
    draft_decoding: bool = False

    def __post_init__(self) -> None:
        check_fields(self)
        _check_unique("extras", [layer.name for layer in self.extras])
        _check_unique("feature_maps", [row.layer for row in self.feature_maps])
        for before, layer in pairwise(self.extras):
            if layer.depthwise and layer.channels != before.channels:
                raise ValueError(
                    f"the extra layer '{layer.name}' is depthwise with {layer.channels} channels, but '{before.name}' "
                    f"before it has {before.channels}; they must be equal"
                )
        for row in self.feature_maps:
            if row.rows > self.height or row.columns > self.width:
                raise ValueError(
                    f"the feature map '{row.layer}' has {row.rows} x {row.columns} cells, more than the input of "
                    f"{self.height} x {self.width} has pixels"
                )
        if self.num_default_boxes > MAX_DEFAULT_BOXES:
            raise ValueError(
                f"the feature maps have {self.num_default_boxes:,} default boxes, but may have at most "
                f"{MAX_DEFAULT_BOXES:,}"
            )
        if self.draft_decoding and self.resize != "antialias":
            raise ValueError(f"draft_decoding is for resize 'antialias', but resize is '{self.resize}'")

    @property
    def num_default_boxes(self) -> int:
        """Number of default boxes of all feature maps together."""
        return sum(feature_map.num_default_boxes for feature_map in self.feature_maps)

    def __repr__(self) -> str:
        """Returns the name and the main sizes. All values are in the attributes and in `to_json`."""
        return (
            f"DetectorConfig({self.name}: input {self.height} x {self.width}, backbone {self.backbone}, "
            f"{counted(len(self.feature_maps), 'feature map')}, {self.num_default_boxes:,} default boxes, "
            f"{self.scoring})"
        )

    def to_json(self) -> str:
        """Returns the config as a JSON object, all fields included."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "DetectorConfig":
        """Returns the config in a file that holds what `to_json` wrote, such as that of `multibox coverage --fit`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file cannot be read, or holds no config.
        """
        name = os.fspath(path)
        if not os.path.isfile(name):
            raise FileNotFoundError(f"{name}: there is no such file")
        try:
            return cls.from_json(read_text(Path(name)))
        except ValueError as error:
            raise ValueError(f"{name}: not the config of a detector: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> "DetectorConfig":
        """Returns the config that `to_json` wrote. Fields that have a default may be missing.

        Raises:
            ValueError: The text is not JSON, lacks a field, has an unknown one, or has an invalid value.
        """
        try:
            values = msgspec.json.decode(text)
            config = msgspec.convert(values, cls)
        except msgspec.MsgspecError as error:
            raise ValueError(shortened(error)) from error
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        unknown = next(_unknown_fields(values, config), None)
        if unknown is not None:
            raise ValueError(f"unknown field {quoted(unknown)}")
        return config


def _check_unique(field: str, names: list[str]) -> None:
    """Raises a ValueError if one of the layers has the name of another."""
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"{field} must have different layers, but has '{twice[0]}' more than once")


def _unknown_fields(values: Any, config: object) -> Iterator[str]:
    """Yields the names in the JSON values that the config has no field for. msgspec ignores them."""
    if dataclasses.is_dataclass(config):
        known = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        for name, value in values.items():
            if name not in known:
                yield name
            elif isinstance(value, dict | list):
                yield from _unknown_fields(value, known[name])
    elif isinstance(config, tuple):
        for value, row in zip(values, config, strict=True):
            if isinstance(value, dict | list):
                yield from _unknown_fields(value, row)
