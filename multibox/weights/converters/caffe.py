"""Converts `.caffemodel` files: the paper's authors' SSD300 and SSD512, and chuanqi305's MobileNet-SSD.

The numbers of fields come from src/caffe/proto/caffe.proto of weiliu89/caffe, branch ssd (BSD): NetParameter,
LayerParameter, V1LayerParameter, BlobProto and the parameters of single layers. Pixels are BGR in Caffe, so the first
convolution is turned to RGB. Boxes and classes of the heads are in our order (Permute to rows, columns, channels).

The authors' names of layers come from python/caffe/model_libs.py and examples/ssd/*.py; the paper's conv6 to conv12_2
are called fc6, fc7 and conv6_1 to conv10_2 there. Their rules are the paper's, which are the defaults of our config.
MobileNet-SSD is described by gen.py, deploy.prototxt and merge_bn.py of chuanqi305/MobileNet-SSD (MIT).
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from math import prod, sqrt
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from multibox.config import DetectorConfig, FeatureMap, Postprocess
from multibox.messages import quoted
from multibox.presets import preset
from multibox.weights.converters.class_names import class_names
from multibox.weights.converters.layers import batch_norm, norm_of_bias, turned_to_rgb
from multibox.weights.converters.protobuf import fields, numbers
from multibox.weights.converters.pytorch_ports import class_count
from multibox.weights.file import Weights

_LAYER, _OLD_LAYER = 100, 2
"""Fields of a NetParameter: `layer` (LayerParameter), and `layers` of files from before 2015 (V1LayerParameter)."""

_NAME_TYPE_BLOBS = {_LAYER: (1, 2, 7), _OLD_LAYER: (4, 5, 6)}
"""Fields with the name, the type and the tensors of a layer, by the field that the layer is."""

_BATCH_NORM, _INPUT, _PRIOR_BOX, _DETECTION_OUTPUT = 139, 143, 203, 204
"""Fields of a LayerParameter with the parameters of these types of layers."""

_CENTER_SIZE = 2
"""Number of the encoding of boxes that the paper describes, in PriorBoxParameter.CodeType."""

_MOBILENETS = {32: "mobilenet-v1", 24: "mobilenet-v1-0.75", 16: "mobilenet-v1-0.5", 8: "mobilenet-v1-0.25"}
"""Our backbones by the number of channels of MobileNet's first layer."""


class PriorBox(NamedTuple):
    """The parameters of a PriorBox layer (PriorBoxParameter), sizes and steps in pixels of the input.

    `step` and `image` are `(y, x)`. Without them, the layer takes the size of its input.
    """

    min_sizes: tuple[float, ...]
    max_sizes: tuple[float, ...]
    aspect_ratios: tuple[float, ...]
    flip: bool = True
    clip: bool = False
    variances: tuple[float, ...] = (0.1, 0.1, 0.2, 0.2)
    step: tuple[float, float] | None = None
    image: tuple[float, float] | None = None
    offset: float = 0.5


class Layer(NamedTuple):
    """A layer of a file: its type, its tensors, and the messages with its parameters by field."""

    kind: str
    blobs: tuple[Float[np.ndarray, "..."], ...]
    parameters: Mapping[int, memoryview]


_MOBILENET_SSD_BOXES = (
    PriorBox((60,), (), (2,)),
    PriorBox((105,), (150,), (2, 3)),
    PriorBox((150,), (195,), (2, 3)),
    PriorBox((195,), (240,), (2, 3)),
    PriorBox((240,), (285,), (2, 3)),
    PriorBox((285,), (300,), (2, 3)),
)
"""Default boxes of MobileNet-SSD, for files without PriorBox layers."""


def is_caffemodel(path: Path) -> bool:
    """Returns whether a file has the suffix of a `.caffemodel`, or begins like one: fields of a NetParameter, a layer.

    The fields before the first layer are the network's name (1), its inputs (3, 4, 8) and settings (5, 6, 7).
    """
    if path.suffix == ".caffemodel":
        return True
    with path.open("rb") as file:
        head = memoryview(file.read(4096))
    found = 0
    try:
        for field, value in fields(head, cut=True):
            if field in _NAME_TYPE_BLOBS and not isinstance(value, int):
                return field == _LAYER or _is_old_layer(value)
            is_number = isinstance(value, int)
            if not 1 <= field <= 8 or (
                field == 1 and (is_number or found)
            ):  # a frozen graph of TensorFlow is a list of fields 1
                return False
            found += 1
    except ValueError:
        pass
    return False


def _is_old_layer(message: memoryview) -> bool:
    """Returns whether a message begins like a V1LayerParameter: names of inputs and outputs, then its own name."""
    field, value = next(fields(message, cut=True), (0, 0))
    return field in (2, 3, 4) and not isinstance(value, int)


def convert_caffemodel(path: Path) -> Weights:
    """Returns the detector of a `.caffemodel` file.

    Raises:
        ValueError: The file is damaged, or holds no detector that can be converted.
    """
    try:
        layers = read_layers(memoryview(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path}: not a .caffemodel file, or damaged ({error})") from error
    try:
        return convert(layers)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read_vgg16(path: Path) -> dict[str, np.ndarray] | None:
    """Returns the VGG-16 in a `.caffemodel` file by the paper's names, for RGB; None if the file is a detector's.

    The authors start from such a file, `VGG_ILSVRC_16_layers_fc_reduced.caffemodel`. Other layers are left out.

    Raises:
        ValueError: The file is damaged, or has no VGG-16.
    """
    try:
        layers = read_layers(memoryview(path.read_bytes()))
        if any("_mbox_" in name for name in layers):
            return None
        tensors: dict[str, np.ndarray] = {}
        for theirs, ours in _vgg16_names(preset("ssd300-vgg16")).items():
            if ours.startswith("backbone."):
                tensors |= _convolution(layers, theirs, ours.removeprefix("backbone."))
        _turn_to_rgb(tensors, "conv1_1", "conv1_1.weight")
    except ValueError as error:
        raise ValueError(f"{path}: no VGG-16 of Caffe ({error})") from error
    return tensors


def read_layers(network: memoryview) -> dict[str, Layer]:
    """Returns the layers of a NetParameter message by name. Their weights are views of its bytes.

    Raises:
        ValueError: The message is damaged, or is not a NetParameter.
    """
    layers = dict(
        _layer(_bytes(value), *_NAME_TYPE_BLOBS[field]) for field, value in fields(network) if field in _NAME_TYPE_BLOBS
    )
    if not layers:
        raise ValueError("it has no layers")
    return layers


def convert(layers: Mapping[str, Layer]) -> Weights:
    """Returns the detector that consists of the layers of a network.

    The default boxes are those of the PriorBox layers, so that models that were fine-tuned from COCO on VOC keep
    COCO's sizes. The limits of postprocessing are those of the DetectionOutput layer, if there is one.

    Raises:
        ValueError: The network is none of the known detectors.
    """
    if "conv4_3_norm_mbox_conf" in layers:
        return _vgg16(layers)
    if "conv11_mbox_conf" in layers and "conv1/dw" in layers:
        return _mobilenet(layers)
    raise ValueError(
        f"the weights of a Caffe network, but of no SSD300, SSD512 or MobileNet-SSD; its first layers are "
        f"{quoted(list(layers)[:3])}"
    )


def _vgg16(layers: Mapping[str, Layer]) -> Weights:
    """Returns one of the authors' detectors. SSD512 is the one with a layer conv10_2.

    In a file without PriorBox layers, the default boxes follow from the number of classes.
    """
    name = "ssd512-vgg16" if "conv10_2" in layers else "ssd300-vgg16"
    config = preset(name)
    if _input_size(layers) not in (None, (config.height, config.width)):
        raise ValueError(
            f"its input is {quoted(_input_size(layers))}, expected {(config.height, config.width)}: of the authors' "
            "detectors, only SSD300 and SSD512 can be converted"
        )
    sources = [_source(row) for row in config.feature_maps]
    heads = _head_names(config, sources)
    names = _vgg16_names(config) | heads
    tensors: dict[str, np.ndarray] = {}
    for theirs, ours in names.items():
        tensors |= _convolution(layers, theirs, ours)
    (scale,) = _blobs(layers, "conv4_3_norm", 1)
    tensors["norm.conv4_3.weight"] = scale.reshape(-1)
    names["conv4_3_norm"] = "norm.conv4_3"
    _check_all_used(layers, names, config)
    first, head = config.feature_maps[0], f"{sources[0]}_mbox_conf"
    first = _with_default_boxes(config, sources, layers).feature_maps[0]
    classes = class_count({f"{head}.bias": tensors[f"{heads[head]}.bias"]}, head, first)
    config = _with_default_boxes(preset(name, scales="coco" if classes == 80 else "voc"), sources, layers)
    _turn_to_rgb(tensors, "conv1_1", "backbone.conv1_1.weight")
    return Weights(
        _with_postprocess(config, layers), class_names(classes), tensors, {"converted from": "weiliu89/caffe"}
    )


def _mobilenet(layers: Mapping[str, Layer]) -> Weights:
    """Returns a MobileNet-SSD. The file of its training has BatchNorm and Scale layers, which `merge_bn.py` folds."""
    if any(layer.kind == "ReLU6" for layer in layers.values()):
        raise ValueError("a MobileNet-SSD with ReLU6, unlike chuanqi305's, which has ReLU; it cannot be converted")
    plain = _mobilenet_config(layers)
    sources = [row.layer for row in plain.feature_maps]
    config = _with_default_boxes(plain, sources, layers, missing=_MOBILENET_SSD_BOXES)
    parts = {"conv0": "backbone.conv0"}
    for number in range(1, 14):
        parts[f"conv{number}/dw"] = f"backbone.conv{number}.depthwise"
        parts[f"conv{number}"] = f"backbone.conv{number}.pointwise"
    with_norm = {theirs: (f"{ours}.convolution", f"{ours}.norm") for theirs, ours in parts.items()}
    plain_names = _head_names(config, sources)
    if config.extras_batch_norm:
        with_norm |= {extra.name: (f"extras.{extra.name}.0", f"extras.{extra.name}.1") for extra in config.extras}
    else:
        plain_names |= {extra.name: f"extras.{extra.name}" for extra in config.extras}
    tensors: dict[str, np.ndarray] = {}
    for theirs, (convolution, norm) in with_norm.items():
        tensors |= _convolution_and_norm(layers, theirs, convolution, norm)
    for theirs, ours in plain_names.items():
        tensors |= _convolution(layers, theirs, ours)
    norms = [f"{name}/{part}" for name in with_norm for part in ("bn", "scale")]
    _check_all_used(layers, {*with_norm, *norms, *plain_names}, config)
    head = "conv11_mbox_conf"
    classes = class_count({f"{head}.bias": tensors[f"{plain_names[head]}.bias"]}, head, config.feature_maps[0])
    _turn_to_rgb(tensors, "conv0", "backbone.conv0.convolution.weight")
    return Weights(
        _with_postprocess(config, layers), class_names(classes), tensors, {"converted from": "chuanqi305/MobileNet-SSD"}
    )


def _mobilenet_config(layers: Mapping[str, Layer]) -> DetectorConfig:
    """Returns the config of a MobileNet-SSD, whose default boxes are still TensorFlow's."""
    height, width = _input_size(layers) or (300, 300)
    plain = preset("ssd300-mobilenetv1", height=height, width=width)
    weight = _blobs(layers, "conv0", 1, 2)[0]
    channels = len(weight) if weight.ndim else 0
    if channels not in _MOBILENETS:
        raise ValueError(f"its layer 'conv0' has {channels} channels, expected one of {list(_MOBILENETS)}")
    return replace(
        plain,
        mean=(127.5,) * 3,
        scale=(1 / 0.007843,) * 3,
        resize="bilinear",
        draft_decoding=False,
        backbone=_MOBILENETS[channels],
        extras=tuple(replace(extra, padding=extra.kernel // 2) for extra in plain.extras),
        extras_batch_norm="conv14_1/bn" in layers,
        activation="relu",
    )


def _vgg16_names(config: DetectorConfig) -> dict[str, str]:
    """Returns our names of the authors' convolutions but the heads, by Caffe's names."""
    names = {f"conv{stage}_{number}": f"backbone.conv{stage}_{number}" for stage in (1, 2) for number in (1, 2)}
    names |= {f"conv{stage}_{number}": f"backbone.conv{stage}_{number}" for stage in (3, 4, 5) for number in (1, 2, 3)}
    names |= {"fc6": "backbone.conv6", "fc7": "backbone.conv7"}
    return names | {_theirs(layer.name): f"extras.{layer.name}" for layer in config.extras}


def _head_names(config: DetectorConfig, sources: list[str]) -> dict[str, str]:
    """Returns our names of the heads by Caffe's names, which begin with the names of their sources."""
    names: dict[str, str] = {}
    for row, source in zip(config.feature_maps, sources, strict=True):
        names[f"{source}_mbox_loc"] = f"offsets.{row.layer}"
        names[f"{source}_mbox_conf"] = f"logits.{row.layer}"
    return names


def _theirs(layer: str) -> str:
    """Returns Caffe's name of one of the paper's layers from conv7 on: `fc7`, `conv6_2`."""
    number, _, part = layer.removeprefix("conv").partition("_")
    return f"conv{int(number) - 2}_{part}" if part else f"fc{number}"


def _source(row: FeatureMap) -> str:
    """Returns the beginning of the names of a feature map's heads and PriorBox layer in the authors' networks."""
    return "conv4_3_norm" if row.layer == "conv4_3" else _theirs(row.layer)


def _blobs(layers: Mapping[str, Layer], name: str, *counts: int) -> tuple[Float[np.ndarray, "..."], ...]:
    """Returns the tensors of a layer, whose number must be one of `counts`."""
    blobs = layers[name].blobs if name in layers else ()
    if len(blobs) not in counts:
        raise ValueError(f"its layer '{name}' has {len(blobs)} tensors, expected {' or '.join(map(str, counts))}")
    return blobs


def _convolution(layers: Mapping[str, Layer], name: str, target: str) -> dict[str, np.ndarray]:
    """Returns the weight and the bias of a convolution under our name."""
    weight, bias = _blobs(layers, name, 2)
    return {f"{target}.weight": weight, f"{target}.bias": bias.reshape(-1)}  # old files have four axes everywhere


def _convolution_and_norm(layers: Mapping[str, Layer], name: str, target: str, norm: str) -> dict[str, np.ndarray]:
    """Returns a convolution and the BatchNorm after it. If the file has it folded, the BatchNorm only adds the bias.

    A BatchNorm layer has the mean, the variance and the factor that both must be divided by; the Scale layer after it
    has the weight and the bias.
    """
    if f"{name}/bn" not in layers:
        weight, added = _blobs(layers, name, 2)
        return {f"{target}.weight": weight} | norm_of_bias(added.reshape(-1), norm)
    weight, *added_before = _blobs(layers, name, 1, 2)
    mean, variance, factor = (blob.reshape(-1) for blob in _blobs(layers, f"{name}/bn", 3))
    scale, shift = (blob.reshape(-1) for blob in _blobs(layers, f"{name}/scale", 2))
    divisor = np.float32(1 / factor[0] if factor.size and factor[0] else 0)
    mean = mean * divisor
    parts = {
        "n.weight": scale,
        "n.bias": shift,
        "n.running_mean": mean - added_before[0].reshape(-1) if added_before else mean,
        "n.running_var": variance * divisor,
    }
    return {f"{target}.weight": weight} | batch_norm(parts, "n", norm, eps=_eps(layers[f"{name}/bn"]))


def _eps(layer: Layer) -> float:
    """Returns `eps` of a BatchNorm layer."""
    values = [value for field, value in fields(layer.parameters.get(_BATCH_NORM, memoryview(b""))) if field == 3]
    return _floats(_bytes(values[-1]))[0] if values else 1e-5


def _check_all_used(layers: Mapping[str, Layer], used: Collection[str], config: DetectorConfig) -> None:
    """Raises a ValueError that names the first layer whose weights belong to nothing."""
    others = [name for name, layer in layers.items() if layer.blobs and name not in used]
    if others:
        raise ValueError(f"its layer {quoted(others[0])} is not one of {config.name}")


def _turn_to_rgb(tensors: dict[str, np.ndarray], layer: str, key: str) -> None:
    """Turns the first convolution, which takes BGR in Caffe, to RGB."""
    if tensors[key].ndim != 4:
        raise ValueError(f"its layer '{layer}' has a weight of {tensors[key].shape}, expected four axes")
    tensors[key] = turned_to_rgb(tensors[key])


def _input_size(layers: Mapping[str, Layer]) -> tuple[int, int] | None:
    """Returns height and width of the Input layer, `None` if the file has none, or if its size is left open."""
    for layer in layers.values():
        for field, value in fields(layer.parameters.get(_INPUT, memoryview(b""))):
            shape = _shape(_bytes(value)) if field == 1 else []
            if len(shape) == 4 and shape[1] == 3 and min(shape) > 0:
                return shape[2], shape[3]
    return None


def _with_postprocess(config: DetectorConfig, layers: Mapping[str, Layer]) -> DetectorConfig:
    """Returns the config with the limits of the DetectionOutput layer; unchanged if the file has none.

    A threshold above the 0.01 of the authors' evaluation is meant for showing detections (MobileNet-SSD's
    deploy.prototxt has 0.25), so it becomes that of `detect`, and evaluation keeps the low one.

    Raises:
        ValueError: The layer decodes or suppresses boxes in a way that we do not have.
    """
    message = next(
        (layer.parameters[_DETECTION_OUTPUT] for layer in layers.values() if _DETECTION_OUTPUT in layer.parameters),
        None,
    )
    if message is None:
        return config
    found = dict(fields(message))
    nms = dict(fields(_bytes(found.get(4, memoryview(b"")))))
    expected = {"background_label_id": (3, 0, 0), "code_type": (6, 1, _CENTER_SIZE), "share_location": (2, 1, 1)}
    expected |= {"variance_encoded_in_target": (8, 0, 0)}
    for name, (field, default, wanted) in expected.items():
        if found.get(field, default) != wanted:
            raise ValueError(f"its DetectionOutput layer has {name} {found.get(field, default)}, expected {wanted}")
    if _float(nms.get(3), 1.0) != 1:
        raise ValueError(f"its DetectionOutput layer has an adaptive suppression (eta {_float(nms.get(3), 1.0)})")
    score = max(_float(found.get(9), 0.0), 0.0)
    plain = Postprocess()
    return replace(
        config,
        postprocess=Postprocess(
            score_threshold=min(score, plain.score_threshold),
            iou_threshold=_float(nms.get(1), 0.3),
            max_candidates_per_class=_limit(nms.get(2)) or config.num_default_boxes,
            max_detections=_limit(found.get(7)) or config.num_default_boxes,
        ),
        detect_score_threshold=score if score > plain.score_threshold else config.detect_score_threshold,
    )


def _limit(value: int | memoryview | None) -> int:
    """Returns a number of boxes, 0 if there is no limit, which Caffe writes as -1."""
    return value if isinstance(value, int) and value < 1 << 31 else 0


def _with_default_boxes(
    config: DetectorConfig, sources: list[str], layers: Mapping[str, Layer], missing: tuple[PriorBox, ...] = ()
) -> DetectorConfig:
    """Returns the config with the default boxes of the PriorBox layers.

    Args:
        config: Config of the detector.
        sources: Beginning of the names of the PriorBox layers, by feature map.
        layers: Layers of the file.
        missing: Default boxes for a file without PriorBox layers; by default the config's.
    """
    found = [layers[name] for source in sources if (name := f"{source}_mbox_priorbox") in layers]
    priors = [_prior_box(layer.parameters[_PRIOR_BOX]) for layer in found if _PRIOR_BOX in layer.parameters]
    priors = priors or list(missing)
    if not priors:
        return config
    if len(priors) < len(sources):
        raise ValueError(f"it has {len(priors)} PriorBox layers, expected {len(sources)}")
    variances = {prior.variances for prior in priors}
    center_x, center_y, width, height = variances.pop()
    if variances or center_x != center_y or width != height:
        raise ValueError("its variances differ between feature maps, or between x and y")
    if len({prior.clip for prior in priors}) > 1:
        raise ValueError("it clips the default boxes of some feature maps, and those of others not")
    return replace(
        config,
        feature_maps=tuple(
            _row(row, source, prior, config)
            for row, source, prior in zip(config.feature_maps, sources, priors, strict=True)
        ),
        clip_default_boxes="corners" if priors[0].clip else "none",
        center_variance=center_x,
        size_variance=width,
    )


def _row(row: FeatureMap, source: str, prior: PriorBox, config: DetectorConfig) -> FeatureMap:
    """Returns the feature map with the default boxes of its PriorBox layer (src/caffe/layers/prior_box_layer.cpp).

    Sizes are cut to whole pixels, as there; this changes only those of SSD512. If the layer is told the size of another
    image than the input, sizes and steps are fractions of that.
    """
    sizes, ratios = (*prior.min_sizes, *prior.max_sizes), prior.aspect_ratios
    if not (prior.min_sizes and all(1 <= size < 1e6 for size in sizes) and all(1e-3 < ratio < 1e3 for ratio in ratios)):
        raise ValueError(
            f"the default boxes on '{source}' have sizes {quoted(sizes)} and aspect ratios {quoted(ratios)}"
        )
    if len(prior.max_sizes) not in (0, len(prior.min_sizes)):
        raise ValueError(f"the default boxes on '{source}' do not have as many max_size as min_size")
    boxes: list[tuple[float, float]] = []
    for place, small in enumerate(map(int, prior.min_sizes)):
        boxes.append((small, small))
        if prior.max_sizes:
            boxes.append((sqrt(small * int(prior.max_sizes[place])),) * 2)
        for ratio in _different_ratios(prior):
            long, short = small * sqrt(ratio), small / sqrt(ratio)
            boxes += [(long, short), (short, long)] if prior.flip else [(long, short)]
    height, width = prior.image or (config.height, config.width)
    step_y, step_x = prior.step or (height / row.rows, width / row.columns)
    scale_y, scale_x = config.height / height, config.width / width
    return replace(
        row,
        box_sizes=tuple((box_width * scale_x, box_height * scale_y) for box_width, box_height in boxes),
        step=(step_y * scale_y, step_x * scale_x),
        offset=prior.offset,
    )


def _different_ratios(prior: PriorBox) -> list[float]:
    """Returns the aspect ratios of which Caffe makes boxes: it drops 1, repeated ones, and inverses if it flips."""
    different, taken = [], [1.0]
    for ratio in prior.aspect_ratios:
        if all(abs(ratio - other) >= 1e-6 for other in taken):
            different.append(ratio)
            taken += [ratio, 1 / ratio] if prior.flip else [ratio]
    return different


def _layer(message: memoryview, name_field: int, type_field: int, blobs_field: int) -> tuple[str, Layer]:
    """Reads a LayerParameter or V1LayerParameter message: the layer and its name."""
    name, kind = "", ""
    blobs: list[memoryview] = []
    parameters: dict[int, memoryview] = {}
    for field, value in fields(message):
        if field == name_field:
            name = bytes(_bytes(value)).decode(errors="replace")
        elif field == type_field:  # a number in old files
            kind = str(value) if isinstance(value, int) else bytes(value).decode(errors="replace")
        elif field == blobs_field:
            blobs.append(_bytes(value))
        elif field >= 100 and not isinstance(value, int):
            parameters[field] = value
    return name, Layer(kind, tuple(_blob(name, blob) for blob in blobs), parameters)


def _blob(layer: str, message: memoryview) -> Float[np.ndarray, "..."]:
    """Reads a BlobProto message: a tensor. Its shape is a message of its own, or four numbers in old files."""
    shape: list[int] | None = None
    old = [1, 1, 1, 1]
    parts: dict[int, list[memoryview]] = {5: [], 8: []}  # data, double_data
    for field, value in fields(message):
        if field == 7:
            shape = _shape(_bytes(value))
        elif field in (1, 2, 3, 4) and isinstance(value, int):
            old[field - 1] = value
        elif field in parts:
            parts[field].append(_bytes(value))
    kind, pieces = ("<f8", parts[8]) if parts[8] else ("<f4", parts[5])
    data: memoryview | bytes = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    shape = old if shape is None else shape
    if len(data) != np.dtype(kind).itemsize * prod(shape):
        raise ValueError(
            f"a tensor of layer {quoted(layer)} is {quoted(shape)}, which does not fit its {len(data)} bytes"
        )
    return np.frombuffer(data, kind).reshape(shape).astype(np.float32, copy=False)


def _shape(message: memoryview) -> list[int]:
    """Reads a BlobShape message: the length of each axis."""
    return [
        number
        for field, dimensions in fields(message)
        if field == 1
        for number in ([dimensions] if isinstance(dimensions, int) else numbers(dimensions))
    ]


def _prior_box(message: memoryview) -> PriorBox:
    """Reads a PriorBoxParameter message."""
    found: dict[int, list[float]] = {field: [] for field in range(1, 14)}
    for field, value in fields(message):
        if field in found:
            found[field] += [value] if isinstance(value, int) else _floats(value)
    variances = found[6] or [0.1]
    if len(variances) not in (1, 4):
        raise ValueError(f"a PriorBox layer has {len(variances)} variances, expected 1 or 4")
    return PriorBox(
        min_sizes=tuple(found[1]),
        max_sizes=tuple(found[2]),
        aspect_ratios=tuple(found[3]),
        flip=bool((found[4] or [1])[-1]),
        clip=bool((found[5] or [0])[-1]),
        variances=tuple(variances * (4 // len(variances))),
        step=_both("step", found[10], found[11], found[12]),
        image=_both("img", found[7], found[8], found[9]),
        offset=(found[13] or [0.5])[-1],
    )


def _both(name: str, one: list[float], y: list[float], x: list[float]) -> tuple[float, float] | None:
    """Returns a value for y and x of a PriorBox layer, given as one or as two; `None` if it is not given."""
    values = [*y[-1:], *x[-1:]] or one[-1:] * 2
    if len(values) == 1 or ((y or x) and any(one)) or (any(values) and not all(0 < value < 1e6 for value in values)):
        raise ValueError(f"a PriorBox layer has {name}, {name}_h and {name}_w {quoted((one, y, x))}")
    return (values[0], values[1]) if any(values) else None


def _float(value: int | memoryview | None, default: float) -> float:
    """Returns the 32-bit number of a field, or the default if the field is left out."""
    return default if value is None else _floats(_bytes(value))[0]


def _floats(data: memoryview) -> list[float]:
    """Returns 32-bit numbers as they were written: 0.1, not 0.10000000149, which is the nearest in 32 bits."""
    if len(data) % 4 or not data:
        raise ValueError(f"{len(data)} bytes cannot be 32-bit numbers")
    return [float(str(value)) for value in np.frombuffer(data, "<f4")]


def _bytes(value: int | memoryview) -> memoryview:
    """Returns the value of a field that must not be a number."""
    if isinstance(value, int):
        raise ValueError("there is a number instead of a message, a text or a list of numbers")
    return value
