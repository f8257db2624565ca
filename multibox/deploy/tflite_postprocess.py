"""Files for programs that run SSDs of TensorFlow's Object Detection API: TFLite, with suppression inside.

Such a file ends with the operator TFLite_Detection_PostProcess, which decodes offsets, suppresses, and gives four
outputs. Its inputs and options are those that `tensorflow/lite/kernels/detection_postprocess.cc` reads, and MediaPipe's
metadata those of `mediapipe/tasks/metadata/metadata_schema.fbs`.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import flexbuffers
from jaxtyping import Float

from multibox.config import DetectorConfig
from multibox.deploy.homes import TfliteHome, labels_file
from multibox.deploy.tflite_model import Model, Operator, Tensor, read_model, schema
from multibox.detector import Detector
from multibox.runtimes.exported import OUTPUTS

_POSTPROCESS = "TFLite_Detection_PostProcess"

_YXHW = [1, 0, 3, 2]
"""Positions of y, x, height and width in the order of our offsets and default boxes."""


def write_tflite_home(
    source: Path,
    path: Path,
    home: TfliteHome,
    metadata: Mapping[str, str],
    detector: Detector,
) -> None:
    """Writes a file in the form of a home, and the label file that it may read.

    Args:
        source: The file with raw outputs; the label file is written beside it, with its name.
        path: The file to write.
        home: The home.
        metadata: Metadata of the new file.
        detector: The detector that was exported.

    Raises:
        ValueError: The operator cannot do what the config says.
    """
    model = read_model(source.read_bytes())
    table = detector.network.default_boxes.numpy()
    _add_postprocess(model, detector.config, len(detector.class_names), table)
    name = labels_file(source).name
    if home.reads_metadata:
        buffers = {"TFLITE_METADATA": _mediapipe_metadata(detector.config.name, name)}
        path.write_bytes(model.to_bytes(metadata, buffers=buffers))
        with zipfile.ZipFile(path, "a") as archive:  # behind the model, where TFLite has its label files
            archive.writestr(zipfile.ZipInfo(name), "".join(f"{each}\n" for each in detector.class_names))
    else:
        path.write_bytes(model.to_bytes(metadata))
        lines = (f"{label} {each}\n" for label, each in enumerate(detector.class_names))
        labels_file(source).write_text("".join(lines), encoding="utf-8")


def _add_postprocess(
    model: Model, config: DetectorConfig, num_classes: int, default_boxes: Float[np.ndarray, "default_boxes 4"]
) -> None:
    """Replaces the outputs of a model, of which `offsets` and `logits` are needed, by the detections.

    The operator does not clip boxes to the image, and MediaPipe moves a box that begins outside: it sets the corner to
    0 and keeps width and height. So the boxes are clipped behind the operator.
    """
    settings = config.postprocess
    if settings.merge != "none":
        raise ValueError(
            f"TFLite's suppression cannot merge boxes, as this detector does (merge '{settings.merge}'): take .xml, "
            "which Frigate reads too, or leave out --for"
        )
    offsets, logits = (next(each for each in model.outputs if each.name == name) for name in OUTPUTS["none"])

    def add(code: str, inputs: list[Tensor], options: object) -> Tensor:
        made = Tensor(code.lower(), inputs[0].shape)
        model.operators.append(Operator(code, inputs, [made], options))
        return made

    order = Tensor("order", (4,), "int32", np.array(_YXHW, np.int32))
    offsets = add("GATHER", [offsets, order], schema.GatherOptionsT(axis=2))
    if config.max_log_size is not None:
        largest = np.float32(config.max_log_size / config.size_variance)
        limits = np.array([[[np.finfo(np.float32).max] * 2 + [largest] * 2]], np.float32)
        offsets = add("MINIMUM", [offsets, Tensor("limits", (1, 1, 4), data=limits)], schema.MaximumMinimumOptionsT())
    if config.scoring == "softmax":
        scores = add("SOFTMAX", [logits], schema.SoftmaxOptionsT(beta=1.0))
    else:
        scores = add("LOGISTIC", [logits], None)
    table = np.ascontiguousarray(default_boxes[:, _YXHW], np.float32)
    options = {
        "max_detections": settings.max_detections,
        "max_classes_per_detection": 1,
        "detections_per_class": settings.max_detections,
        "use_regular_nms": not settings.class_agnostic,
        "nms_score_threshold": float(settings.score_threshold),
        "nms_iou_threshold": float(settings.iou_threshold),
        "num_classes": num_classes,
        **dict.fromkeys(("y_scale", "x_scale"), 1 / config.center_variance),
        **dict.fromkeys(("h_scale", "w_scale"), 1 / config.size_variance),
    }
    rows = settings.max_detections
    shapes = ((1, rows, 4), (1, rows), (1, rows), (1,))  # boxes, labels, scores, count
    names = [_POSTPROCESS, *(f"{_POSTPROCESS}:{number}" for number in (1, 2, 3))]
    boxes, *others = model.outputs = [Tensor(name, shape) for name, shape in zip(names, shapes, strict=True)]
    unclipped = Tensor("unclipped_boxes", boxes.shape)
    inputs = [offsets, scores, Tensor("anchors", table.shape, data=table)]
    model.operators.append(Operator(_POSTPROCESS, inputs, [unclipped, *others], bytes(flexbuffers.Dumps(options))))
    positive = add("RELU", [unclipped], None)
    one = Tensor("one", (1, 1, 1), data=np.ones((1, 1, 1), np.float32))
    model.operators.append(Operator("MINIMUM", [positive, one], [boxes], schema.MaximumMinimumOptionsT()))


def _mediapipe_metadata(name: str, labels: str) -> bytes:
    """Returns the metadata that MediaPipe's tasks read, with the names of the model and of the label file in it."""
    boundaries, ratio, rgb, value_labels = (np.uint8(number) for number in (1, 0, 1, 3))
    boxes = {0: np.array(_YXHW, np.uint32), 1: boundaries, 2: ratio}  # left, top, right and bottom are at these places
    rows = {0: np.int32(2), 1: np.int32(2)}  # the axis with a value for each detection
    image = {0: "image", 3: {0: np.uint8(2), 1: {0: rgb}}}
    outputs = [
        {0: "location", 3: {0: np.uint8(3), 1: boxes, 2: rows}},
        {0: "category", 3: {0: np.uint8(1), 1: {}, 2: rows}, 6: [{0: labels, 2: value_labels}]},
        {0: "score", 3: {0: np.uint8(1), 1: {}, 2: rows}},
        {0: "number of detections", 3: {0: np.uint8(1), 1: {}}},
    ]
    group = {0: "detection_result", 1: ["location", "category", "score"]}
    builder = flatbuffers.Builder(1024)
    root = _pack(builder, {0: name, 3: [{2: [image], 3: outputs, 8: [group]}]})
    builder.Finish(root, file_identifier=b"M001")
    return bytes(builder.Output())


def _pack(builder: Any, value: object) -> int:
    """Adds a text, an array, a list, or a table as a dictionary of its fields. Returns its place in the FlatBuffer."""
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, np.ndarray):
        return int(builder.CreateNumpyVector(value))
    if isinstance(value, list):
        items = [_pack(builder, each) for each in value]
        builder.StartVector(4, len(items), 4)
        for place in reversed(items):
            builder.PrependUOffsetTRelative(place)
        return int(builder.EndVector())
    assert isinstance(value, dict)
    places = {field: each if isinstance(each, np.generic) else _pack(builder, each) for field, each in value.items()}
    builder.StartObject(max(value, default=-1) + 1)
    for field, each in places.items():
        if isinstance(each, np.uint8):
            builder.PrependUint8Slot(field, int(each), None)
        elif isinstance(each, np.int32):
            builder.PrependInt32Slot(field, int(each), None)
        else:
            builder.PrependUOffsetTRelativeSlot(field, each, 0)
    return int(builder.EndObject())
