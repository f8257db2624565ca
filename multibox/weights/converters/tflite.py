"""Converts SSDs on MobileNet of TensorFlow's Object Detection API from a `.tflite` file.

These are SSD and SSDLite on MobileNet v1 and v2 with their TFLite_Detection_PostProcess, in floats or quantized to 8
bits, with any number of classes and any input size. All numbers become 32-bit floats. Layers are found by the structure
of the graph, because converters give them different names.

The options of the last operator come from `tensorflow/lite/kernels/detection_postprocess.cc` (tensorflow/tensorflow,
Apache-2.0), the structure from `ssd_mobilenet_v1_feature_extractor.py`, `ssd_mobilenet_v2_feature_extractor.py` and
`feature_map_generators.py` in `object_detection/models` (tensorflow/models, Apache-2.0).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import isfinite, prod
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Float32

from multibox.config import DetectorConfig, ExtraLayer, FeatureMap, Head, Postprocess
from multibox.messages import shortened
from multibox.weights.converters.class_names import COCO, COCO_BY_ID
from multibox.weights.converters.flatbuffer import flex_numbers
from multibox.weights.converters.layers import join, norm_of_bias, reordered
from multibox.weights.converters.tflite_graph import Chain, Graph, Layer
from multibox.weights.file import Weights

_YXHW = (1, 0, 3, 2)
"""Positions of x, y, width and height in TensorFlow's box encoding."""

_POSTPROCESS = "TFLite_Detection_PostProcess"

_OPTIONS = frozenset(
    {"num_classes", "max_detections", "nms_score_threshold", "nms_iou_threshold", "y_scale", "x_scale", "h_scale",
     "w_scale", "max_classes_per_detection"}
)  # fmt: skip
"""Options that the last operator must have."""

_V1_WIDTHS = {32: "mobilenet-v1-tensorflow", 24: "mobilenet-v1-0.75-tensorflow"}
"""Our backbones by the channels of the first layer of MobileNet v1."""

_V1_STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
"""Strides of the depthwise convolutions of MobileNet v1."""

_V2_HALVING, _V2_SHORTCUTS = (2, 4, 7, 14), (3, 5, 6, 8, 9, 10, 12, 13, 15, 16)
"""Blocks of MobileNetV2 that halve the map, and those with a shortcut, in torchvision's numbers from 1 on."""


class _Part(NamedTuple):
    """What a layer of a backbone must be, and our names of its convolution and its BatchNorm."""

    convolution: str
    norm: str
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    linear: bool = False
    shortcut: bool = False


class _Backbone(NamedTuple):
    """A MobileNet: its version, our name of it, its layers, and its source layers by their place among them."""

    version: Literal["v1", "v2"]
    name: str
    parts: Sequence[_Part]
    sources: dict[int, str]


class _Heads(NamedTuple):
    """The heads of a feature map: our name of its layer, its box heads and its class heads."""

    layer: str
    boxes: Chain
    classes: Chain


def is_tflite(path: Path) -> bool:
    """Returns whether the file has the identifier of a `.tflite` file."""
    with path.open("rb") as file:
        return file.read(8)[4:] == b"TFL3"


def convert_tflite(path: Path) -> Weights:
    """Returns the detector of a `.tflite` file.

    Scores are sigmoids. The default boxes are the file's own, which an 8-bit file has rounded to 8 bits. With COCO's 90
    numbers, the columns of those that COCO gives to no class are dropped. The background's column is 0.

    Raises:
        ValueError: The file is truncated or damaged, or holds another model.
    """
    try:
        return _read(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    except (LookupError, ArithmeticError, TypeError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, or another model ({shortened(repr(error))})") from error


def _read(data: bytes) -> Weights:
    graph = Graph(data)
    last = graph.custom_operator(_POSTPROCESS)
    options = _options(last.table.numbers(5, "u1").tobytes())
    boxes, classes = graph.heads(last.inputs[0]), graph.heads(last.inputs[1])
    if not graph.has_sigmoid():
        raise ValueError("another model: its scores are not sigmoids")
    trunk = graph.trunk({layer.output for head in (*boxes, *classes) for layer in head})
    backbone = _backbone(trunk)
    _check(trunk, backbone.parts)
    extras = _extras(trunk[len(backbone.parts) :], backbone, boxes)
    heads = _heads(trunk, backbone, extras, boxes, classes)
    default_boxes = graph.values(last.inputs[2])[:, _YXHW]
    config = _config(graph, backbone, extras, heads, default_boxes, options)
    num_classes = int(options["num_classes"])
    parts = [*backbone.parts, *(_Part(f"extras.{extra.name}.0", f"extras.{extra.name}.1") for extra in extras)]
    tensors = join([*_layers(graph, trunk, parts, heads, num_classes), {"default_boxes": default_boxes.copy()}])
    names = COCO if num_classes == max(COCO_BY_ID) else tuple(f"class {label + 1}" for label in range(num_classes))
    kind = "float" if graph.tensor(trunk[0].output).is_float else "8-bit"
    model = f"SSD{'Lite' if 'lite' in config.name else ''} MobileNet {backbone.version}"
    source = f"{model}{' on COCO' if names is COCO else ''}, TensorFlow Object Detection API, {kind} .tflite"
    return Weights(config, names, tensors, {"converted from": source})


def _options(data: bytes) -> dict[str, float]:
    """Returns the options of the last operator, which must be those of a suppression that we have."""
    options = {"use_regular_nms": 0.0, "detections_per_class": 100.0} | flex_numbers(data)
    if not options.keys() >= _OPTIONS:
        raise ValueError(
            f"another model: its last operator has the options {shortened(options)}, expected "
            f"{', '.join(sorted(_OPTIONS))}"
        )
    if options["y_scale"] != options["x_scale"] or options["h_scale"] != options["w_scale"]:
        raise ValueError(f"another model: in the options {shortened(options)} x and y differ, or width and height")
    if not options["use_regular_nms"] and options["max_classes_per_detection"] != 1:
        raise ValueError(
            f"another model: in the options {shortened(options)} a box may be of several classes, expected one"
        )
    if options["use_regular_nms"] and options["detections_per_class"] < options["max_detections"]:
        raise ValueError(f"another model: in the options {shortened(options)} each class has a limit of its own")
    return options


def _backbone(trunk: Sequence[Layer]) -> _Backbone:
    """Returns the backbone that a graph has. Of the two, only v2 has linear layers; the third is the first of them."""
    if len(trunk) > 2 and trunk[2].linear:
        parts = list(_mobilenet_v2())
        names = [part.convolution for part in parts]
        sources = {names.index("backbone.features.14.conv.0.0"): "expand14", len(parts) - 1: "conv18"}
        return _Backbone("v2", "mobilenet-v2-tensorflow", parts, sources)
    channels = len(trunk[0].bias) if trunk else 0
    if channels not in _V1_WIDTHS:
        raise ValueError(f"another model: its first layer has {channels} channels, expected one of {list(_V1_WIDTHS)}")
    return _Backbone("v1", _V1_WIDTHS[channels], list(_mobilenet_v1()), {22: "conv11", 26: "conv13"})


def _mobilenet_v1() -> Iterator[_Part]:
    yield _Part("backbone.conv0.convolution", "backbone.conv0.norm", 3, 2)
    for number, stride in enumerate(_V1_STRIDES, start=1):
        for part, kernel in (("depthwise", 3), ("pointwise", 1)):
            name, depthwise = f"backbone.conv{number}.{part}", part == "depthwise"
            yield _Part(f"{name}.convolution", f"{name}.norm", kernel, stride if depthwise else 1, depthwise)


def _mobilenet_v2() -> Iterator[_Part]:
    """Yields the layers. A block expands (but for the first), convolves each channel, and projects."""
    name = "backbone.features"
    yield _Part(f"{name}.0.0", f"{name}.0.1", 3, 2)
    for block in range(1, 18):
        inside = f"{name}.{block}.conv"
        place = 0
        if block > 1:
            yield _Part(f"{inside}.0.0", f"{inside}.0.1")
            place = 1
        stride = 2 if block in _V2_HALVING else 1
        yield _Part(f"{inside}.{place}.0", f"{inside}.{place}.1", 3, stride, depthwise=True)
        shortcut = block in _V2_SHORTCUTS
        yield _Part(f"{inside}.{place + 1}", f"{inside}.{place + 2}", linear=True, shortcut=shortcut)
    yield _Part(f"{name}.18.0", f"{name}.18.1")


def _check(trunk: Sequence[Layer], parts: Sequence[_Part]) -> None:
    """Raises a ValueError that names the first layer that is not one of the backbone."""
    if len(trunk) < len(parts):
        raise ValueError(f"another model: {len(trunk)} layers follow one another, expected at least {len(parts)}")
    for place, (layer, part) in enumerate(zip(trunk, parts, strict=False)):
        shortcut = part.shortcut and trunk[place - 2].input == layer.shortcut
        found = layer.weight.shape[2:], layer.stride, layer.depthwise, layer.linear, layer.shortcut is not None
        expected = (part.kernel, part.kernel), part.stride, part.depthwise, part.linear, part.shortcut
        if found != expected or shortcut != part.shortcut:
            raise ValueError(
                f"another model: its layer {place + 1} is {_described(*found)}, expected "
                f"{_described(*expected)} as '{part.convolution}'"
            )
        if not (layer.linear or (layer.low == 0 and isfinite(layer.high))):
            raise ValueError(
                f"another model: its layer {place + 1} goes from {layer.low} to {layer.high}, not from 0 to "
                "6 as after ReLU6"
            )


def _described(kernel: tuple[int, ...], stride: int, depthwise: bool, linear: bool, shortcut: bool) -> str:
    words = [f"{'x'.join(map(str, kernel))} of stride {stride}"]
    words += ["depthwise"] * depthwise + ["linear"] * linear + ["with a shortcut"] * shortcut
    return ", ".join(words)


def _extras(layers: Sequence[Layer], backbone: _Backbone, boxes: Sequence[Chain]) -> list[ExtraLayer]:
    """Returns the extra layers. The layers up to each further source layer have a number in common."""
    numbered, number = {"v1": ("conv", 14), "v2": ("extra", 1)}[backbone.version]
    place = 1
    sources = {head[0].input for head in boxes}
    extras: list[ExtraLayer] = []
    for layer in layers:
        kernel = layer.weight.shape[2]
        if layer.shortcut is not None or not (layer.linear or isfinite(layer.high)):
            raise ValueError(f"another model: its extra layer {len(extras) + 1} has a shortcut, or no ReLU6")
        extras.append(
            ExtraLayer(
                f"{numbered}{number}_{place}",
                len(layer.bias),
                kernel,
                layer.stride,
                padding="same" if kernel > 1 else 0,
                depthwise=layer.depthwise,
                linear=layer.linear,
            )
        )
        number, place = (number + 1, 1) if layer.output in sources else (number, place + 1)
    return extras


def _heads(
    trunk: Sequence[Layer],
    backbone: _Backbone,
    extras: Sequence[ExtraLayer],
    boxes: Sequence[Chain],
    classes: Sequence[Chain],
) -> list[_Heads]:
    """Returns the heads of each feature map."""
    names = {trunk[place].output: name for place, name in backbone.sources.items()}
    names |= {layer.output: extra.name for layer, extra in zip(trunk[len(backbone.parts) :], extras, strict=True)}
    if len(boxes) != len(classes):
        raise ValueError(f"another model: it has {len(boxes)} heads for boxes, and {len(classes)} for classes")
    heads = []
    for number, (box_head, class_head) in enumerate(zip(boxes, classes, strict=True), start=1):
        source = box_head[0].input
        if class_head[0].input != source or source not in names:
            raise ValueError(f"another model: the heads of its feature map {number} are not on one source layer")
        if _kind(box_head) != _kind(class_head):
            raise ValueError(f"another model: the two heads of its feature map {number} differ in their layers")
        heads.append(_Heads(names[source], box_head, class_head))
    return heads


def _kind(head: Chain) -> Head:
    """Returns the kind of a head."""
    kinds: dict[tuple[tuple[int, int, bool], ...], Head] = {
        ((1, 1, False),): "conv1x1",
        ((3, 1, False),): "conv3x3",
        ((3, 1, True), (1, 1, False)): "separable",
    }
    found = tuple((layer.weight.shape[2], layer.stride, layer.depthwise) for layer in head)
    if found not in kinds or not head[-1].linear or (len(head) > 1 and head[0].linear):
        raise ValueError(f"another model: a head with layers of kernel, stride and being depthwise {found}")
    return kinds[found]


def _config(
    graph: Graph,
    backbone: _Backbone,
    extras: Sequence[ExtraLayer],
    heads: Sequence[_Heads],
    default_boxes: Float32[np.ndarray, "default_boxes 4"],
    options: dict[str, float],
) -> DetectorConfig:
    """Returns the config, whose default boxes of a cell are those of the table."""
    image = graph.tensor(graph.image)
    if len(image.shape) != 4 or image.shape[::3] != (1, 3):
        raise ValueError(f"another model: its input is {image.shape}, expected (1, height, width, 3)")
    height, width = image.shape[1:3]
    rows = _feature_maps(graph, heads, default_boxes, height, width)
    mean, scale = image.mean_and_scale()
    lite = "lite" if rows[0].head == "separable" else ""
    size = f"{height}" if height == width else f"{height}x{width}"
    return DetectorConfig(
        name=f"ssd{lite}{size}-mobilenet{backbone.version}",
        height=height,
        width=width,
        mean=(mean,) * 3,
        scale=(scale,) * 3,
        resize="bilinear",
        backbone=backbone.name,
        extras=tuple(extras),
        extras_batch_norm=True,
        activation="relu6",
        feature_maps=tuple(rows),
        stored_default_boxes=True,
        center_variance=1 / options["x_scale"],
        size_variance=1 / options["w_scale"],
        scoring="sigmoid",
        postprocess=Postprocess(
            score_threshold=options["nms_score_threshold"],
            iou_threshold=options["nms_iou_threshold"],
            class_agnostic=not options["use_regular_nms"],
            max_candidates_per_class=len(default_boxes),  # no limit there
            max_detections=int(options["max_detections"]),
        ),
    )


def _feature_maps(
    graph: Graph,
    heads: Sequence[_Heads],
    default_boxes: Float32[np.ndarray, "default_boxes 4"],
    height: int,
    width: int,
) -> list[FeatureMap]:
    """Returns the feature maps. Default boxes of a cell are those of the first cell in the table."""
    grids = [graph.tensor(head.boxes[-1].output).shape[1:3] for head in heads]
    counts = [len(head.boxes[-1].bias) // 4 for head in heads]
    total = sum(prod(grid) * count for grid, count in zip(grids, counts, strict=True))
    if default_boxes.shape != (total, 4):
        raise ValueError(f"another model: its default boxes are {default_boxes.shape}, expected {(total, 4)}")
    rows, first = [], 0
    for head, (down, across), count in zip(heads, grids, counts, strict=True):
        sizes = default_boxes[first : first + count, 2:].astype(float) * (width, height)
        cell = tuple((round(box_width, 3), round(box_height, 3)) for box_width, box_height in sizes.tolist())
        step = (height / down, width / across)
        rows.append(FeatureMap(head.layer, down, across, step, cell, head=_kind(head.boxes)))
        first += down * across * count
    return rows


def _layers(
    graph: Graph, trunk: Sequence[Layer], parts: Sequence[_Part], heads: Sequence[_Heads], num_classes: int
) -> Iterator[dict[str, np.ndarray]]:
    """Yields all layers under our names.

    An 8-bit activation is limited to its range, which ends at some L that may not be 6, the limit of ReLU6. We scale
    the weights of the layers before and after a ReLU6 instead: `min(relu(x), L) = L/6 relu6(6/L x)`. The range of a
    linear layer is left to go on.
    """
    grown = {trunk[0].input: 1.0}  # by tensor: factor from our features to the file's
    for layer, part in zip(trunk, parts, strict=True):
        yield _scaled(layer, part.convolution, part.norm, grown)
    for name, boxes, classes in heads:
        count = len(boxes[-1].bias) // 4
        yield from _head(boxes, f"offsets.{name}", grown, lambda head: reordered(head, _YXHW))
        yield from _head(classes, f"logits.{name}", grown, partial(_named, boxes=count, num_classes=num_classes))


def _scaled(layer: Layer, convolution: str, norm: str, grown: dict[int, float]) -> dict[str, np.ndarray]:
    """Returns a convolution and a BatchNorm that only adds its bias, and notes how its output has grown."""
    before, after = grown[layer.input], 1.0 if layer.linear else layer.high / 6
    grown[layer.output] = after
    weight = {f"{convolution}.weight": layer.weight * np.float32(before / after)}
    return weight | norm_of_bias(layer.bias / np.float32(after), norm)


def _head(
    head: Chain, target: str, grown: dict[int, float], arranged: Callable[[np.ndarray], np.ndarray]
) -> Iterator[dict[str, np.ndarray]]:
    """Yields the layers of a head under our names, the outputs of the last one arranged as ours."""
    *before, last = head
    for layer in before:
        yield _scaled(layer, f"{target}.depthwise", f"{target}.norm", grown)
    name = f"{target}.pointwise" if before else target
    yield {
        f"{name}.weight": arranged(last.weight * np.float32(grown[last.input])),
        f"{name}.bias": arranged(last.bias),
    }


def _named(
    head: Float[np.ndarray, "outputs ..."], boxes: int, num_classes: int
) -> Float[np.ndarray, "named_outputs ..."]:
    """Returns a head with outputs of 0 for the background and those of the classes; of COCO's, the named ones only.

    In the file, each box has outputs for the background and the classes.
    """
    groups = head.reshape(boxes, -1, *head.shape[1:])
    if groups.shape[1] != num_classes + 1:
        raise ValueError(
            f"another model: a head has {len(head)} outputs for {boxes} boxes, expected {boxes} times {num_classes + 1}"
        )
    numbers = list(COCO_BY_ID) if num_classes == max(COCO_BY_ID) else list(range(1, num_classes + 1))
    groups = groups[:, [0, *numbers]]
    groups[:, 0] = 0
    return groups.reshape(-1, *head.shape[1:])
