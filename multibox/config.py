"""All that differs between detectors, as values: source layers, default boxes, the network's parts, postprocessing."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from multibox.images import Resize

Head = Literal["conv3x3", "conv1x1", "separable"]
Norm = Literal["l2", "batch"]
Activation = Literal["relu", "relu6"]
Clip = Literal["none", "size", "all"]
Scoring = Literal["softmax", "sigmoid"]
Scales = Literal["voc", "coco"]


@dataclass(frozen=True)
class FeatureMap:
    """One source layer: its grid of cells, and the default boxes of a cell.

    Attributes:
        layer: The layer of the backbone, or of the extra layers, whose output it is.
        rows: Cells from top to bottom.
        columns: Cells from left to right.
        step: Pixels of the input between the centers of neighboring cells, `(y, x)`.
        box_sizes: The default boxes of a cell, each `(width, height)` in pixels of the input, in the order of the
            network's output.
        offset: Where in its cell a center lies; 0.5 is the middle.
        norm: What the layer goes through before its heads: `l2` is the paper's L2 normalization (section 3.1, on
            `conv4_3`), `batch` is BatchNorm in its place; `None` leaves the layer as it is.
        head: What predicts from it: `conv3x3` as in the paper, `conv1x1`, or `separable`: a depthwise 3x3 convolution
            with BatchNorm, then 1x1.
    """

    layer: str
    rows: int
    columns: int
    step: tuple[float, float]
    box_sizes: tuple[tuple[float, float], ...]
    offset: float = 0.5
    norm: Norm | None = None
    head: Head = "conv3x3"

    @property
    def num_default_boxes(self) -> int:
        """How many default boxes the whole map has."""
        return self.rows * self.columns * len(self.box_sizes)


@dataclass(frozen=True)
class ExtraLayer:
    """One of the extra feature layers behind the backbone: a convolution, BatchNorm if asked for, an activation.

    Attributes:
        name: By the paper's way of counting.
        channels: Of its output.
        kernel: Its side.
        stride: Between its places.
        padding: Rows and columns of zeros on each side; `same` is TensorFlow's rule, which puts an odd one last.
        depthwise: Each channel by itself; `channels` is then the number of its input's.
        linear: Without an activation.
    """

    name: str
    channels: int
    kernel: int
    stride: int = 1
    padding: int | Literal["same"] = 0
    depthwise: bool = False
    linear: bool = False


@dataclass(frozen=True)
class Postprocess:
    """Which of the network's boxes become detections (section 3.7; the Caffe code's DetectionOutput).

    Attributes:
        score_threshold: A class score must be above it.
        iou_threshold: A box that overlaps a better one by more than this is suppressed.
        class_agnostic: Whether a better box of any class suppresses, not only one of the same class.
        max_candidates_per_class: How many of the best of each class enter suppression.
        max_detections: How many are kept of an image, over all classes.
    """

    score_threshold: float = 0.01
    iou_threshold: float = 0.45
    class_agnostic: bool = False
    max_candidates_per_class: int = 400
    max_detections: int = 200

    def __post_init__(self) -> None:
        for name in ("score_threshold", "iou_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be from 0 to 1, but is {getattr(self, name)}")
        for name in ("max_candidates_per_class", "max_detections"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but is {getattr(self, name)}")

    def override(
        self,
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        class_agnostic: bool | None = None,
        max_detections: int | None = None,
    ) -> "Postprocess":
        """These settings with the values that are given in place of their own."""
        given: dict[str, Any] = {
            "score_threshold": score_threshold,
            "iou_threshold": iou_threshold,
            "class_agnostic": class_agnostic,
            "max_detections": max_detections,
        }
        return dataclasses.replace(self, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True)
class DetectorConfig:
    """Everything about a detector but its class names and its weights.

    Attributes:
        name: The preset it began as.
        height: Of the network's input, in pixels.
        width: The same.
        mean: Of the colors red, green and blue, taken from the pixels (0 to 255).
        scale: What the pixels are divided by after that.
        resize: How an image is brought to the input's size.
        backbone: A name in `ssd.backbones`.
        extras: The extra feature layers, in order, after the backbone's last layer.
        extras_batch_norm: Whether BatchNorm follows each of them.
        activation: Of the extra layers and of separable heads.
        feature_maps: One row for each source layer, in the order of the network's output.
        stored_default_boxes: The table of default boxes is a tensor of the weights file, and not made from the rows.
        clip_default_boxes: `none`, as in the Caffe code; `size` brings widths and heights down to the image's; `all`
            clips the centers too. (Of each of the four numbers, so that boxes may still reach over the edge.)
        center_variance: What the center's offsets are divided by. The Caffe code has the variances; the paper does not.
        size_variance: The same for the logarithms of width and height.
        max_log_size: A decoded box is larger than its default box by a factor of at most the exponential of this.
        clip_boxes: Whether decoded boxes are clipped to the image before suppression; the Caffe code does it after.
        scoring: `softmax` over the classes and the background, or `sigmoid` of each class by itself.
        postprocess: Thresholds and limits of the checkpoint's own evaluation; `detect` uses all but the first.
        detect_score_threshold: The score threshold of `detect`, unless a call gives another.
        draft_decoding: Whether the detector was trained on JPEG files that were decoded at a reduced size, so that
            detection may decode them so too.
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
    feature_maps: tuple[FeatureMap, ...]
    activation: Activation = "relu"
    stored_default_boxes: bool = False
    clip_default_boxes: Clip = "none"
    center_variance: float = 0.1
    size_variance: float = 0.2
    max_log_size: float | None = None
    clip_boxes: bool = False
    scoring: Scoring = "softmax"
    postprocess: Postprocess = Postprocess()
    detect_score_threshold: float = 0.5
    draft_decoding: bool = False

    @property
    def num_default_boxes(self) -> int:
        """How many default boxes all the feature maps have together."""
        return sum(feature_map.num_default_boxes for feature_map in self.feature_maps)
