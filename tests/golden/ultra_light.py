"""Writes ultra_light.npz: what the ONNX files of Ultra-Light find in image files that OpenCV reads and resizes.

The images are ten frames of the shared clips, and one drawn by a rule, in which weights that follow from a rule find
something. For an input of 640 x 480, the default boxes in the ONNX file are replaced by those of `generate_priors` in
the project's `vision/utils/box_utils.py`, for the sizes of its `vision/ssd/config/fd_config.py`. Suppression is that
module's `hard_nms`: 1,500 candidates, at most 750 kept, overlaps above 0.3 with 1e-5 in their denominator.

pip install opencv-python-headless==5.0.0.93 onnx==1.23.2 onnxruntime==1.31.1 pillow==13.0.0
MULTIBOX_DATA=... python -m tests.golden.ultra_light
"""

import json
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VERSIONS = ("RFB", "slim")
SIZES = ((240, 320), (480, 640))
CLIPS = {
    "clips/face-demographics-walking.gif": (0, 8, 16, 24, 32),
    "clips/face-demographics-walking-and-pause.gif": (0, 10, 20, 30, 40),
}
"""Frames, spread over the clips."""

SCORE_THRESHOLDS = {"frames": 0.3, "drawn": 0.8}
FILE = Path(__file__).with_suffix(".npz")


def frames(data: Path) -> Iterator[tuple[str, Image.Image]]:
    """Yields the ten frames, 480 x 270, by name."""
    for path, numbers in CLIPS.items():
        with Image.open(data / path) as clip:
            for number in numbers:
                clip.seek(number)
                yield f"{Path(path).stem}-{number}", clip.convert("RGB")


def drawn() -> Image.Image:
    """Returns an image, 333 x 251, of waves with some noise, made by whole numbers alone."""
    row, column = np.mgrid[:251, :333]
    noise = (row * 73856093 ^ column * 19349663) % 61
    waves = [row * column // (40 + 9 * color) % 255 for color in range(3)]
    folded = [np.abs(2 * wave - 254) * 3 // 4 for wave in waves]
    return Image.fromarray(np.stack(folded, axis=2).astype(np.uint8) + noise[..., None].astype(np.uint8))


def rule_tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the tensor of this key in a state dict: random numbers whose seed is the key."""
    if key.endswith("num_batches_tracked"):
        return np.array(7)
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    if len(shape) == 4:
        values = rng.normal(size=shape) * np.sqrt(2 / np.prod(shape[1:]))
    elif key.endswith(("running_mean", "bias")):
        values = rng.normal(size=shape) * 0.1
    else:
        values = rng.uniform(0.6, 1.4, shape)
    return values.astype(np.float32)


def default_boxes(height: int, width: int) -> np.ndarray:
    """Returns the project's default boxes in center form, as fractions of the input."""
    rows = []
    maps = {8: (10, 16, 24), 16: (32, 48), 32: (64, 96), 64: (128, 192, 256)}
    for stride, sides in maps.items():
        across, down = -(-width // stride), -(-height // stride)
        for row in range(down):
            for column in range(across):
                center = (column + 0.5) / across, (row + 0.5) / down
                rows += [(*center, side / width, side / height) for side in sides]
    return np.array(rows).clip(0, 1).astype(np.float32)


def main() -> None:
    data = Path(os.environ["MULTIBOX_DATA"])
    found: dict[str, np.ndarray] = {}
    for version in VERSIONS:
        for height, width in SIZES:
            graph = _graph(data / f"face/version-{version}-320.onnx", height, width)
            key = f"{version} {height}x{width}"
            for name, image in frames(data):
                found |= _found(graph, image, height, width, f"{key} {name}", SCORE_THRESHOLDS["frames"])
            shapes = _follow_rule(graph)
            found |= _found(graph, drawn(), height, width, f"{key} drawn", SCORE_THRESHOLDS["drawn"])
        found[f"{version} shapes"] = np.array(json.dumps(shapes))
    np.savez_compressed(FILE, **found)


def _graph(path: Path, height: int, width: int) -> Any:
    """Returns the file as onnx's ModelProto, for an input of this size."""
    import onnx

    model = onnx.load(path)
    for value in (*model.graph.input, *model.graph.output):
        if value.name == "input":
            for dimension, size in zip(value.type.tensor_type.shape.dim[2:], (height, width), strict=True):
                dimension.dim_value = size
        elif value.name in ("scores", "boxes"):
            value.type.tensor_type.shape.dim[1].ClearField("dim_value")
    tables = default_boxes(240, 320), default_boxes(height, width)
    replaced = 0
    for node in model.graph.node:
        if node.op_type == "Constant":
            stored = onnx.numpy_helper.to_array(node.attribute[0].t)
            for columns in (slice(0, 2), slice(2, 4)):
                if stored.shape == (1, 4420, 2) and np.array_equal(stored[0], tables[0][:, columns]):
                    node.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(tables[1][None, :, columns]))
                    replaced += 1
    assert replaced in (2, 3), replaced  # the sizes may occur twice
    return model


def _follow_rule(model: Any) -> dict[str, tuple[int, ...]]:
    """Replaces the weights by those of the rule. Returns the shapes of the state dict."""
    import onnx

    shapes = {}
    for tensor in model.graph.initializer:
        shapes[tensor.name] = tuple(tensor.dims)
        values = rule_tensor(tensor.name, shapes[tensor.name])
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return shapes


def _found(model: Any, image: Image.Image, height: int, width: int, key: str, least: float) -> dict[str, np.ndarray]:
    """Returns the boxes that score above `least`, in pixels of the image, in the order of their default boxes.

    `kept` are the places of those that suppression keeps, the best first.
    """
    import cv2
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.png"
        image.save(path)
        pixels = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    normal = (cv2.resize(pixels, (width, height)).astype(np.float32) - 127) / 128
    (scores,), (boxes,) = session.run(None, {"input": normal.transpose(2, 0, 1)[None]})
    assert abs(scores[:, 1] - least).min() > 1e-5, "rounding must not decide which boxes are there"
    indices = np.flatnonzero(scores[:, 1] > least)
    boxes, scores = boxes[indices], scores[indices, 1]
    kept = _hard_nms(boxes, scores)
    print(f"{key}: {len(boxes)} boxes, {len(kept)} kept")
    values = {
        "boxes": boxes.clip(0, 1) * np.float32([image.width, image.height] * 2),
        "scores": scores,
        "indices": indices.astype(np.int16),
        "kept": kept,
    }
    return {f"{key} {name}": value for name, value in values.items()}


def _hard_nms(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    left = np.argsort(-scores, kind="stable")[:1500]
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    kept: list[int] = []
    while len(left) and len(kept) < 750:
        best, left = left[0], left[1:]
        kept.append(best)
        low, high = np.maximum(boxes[left, :2], boxes[best, :2]), np.minimum(boxes[left, 2:], boxes[best, 2:])
        shared = (high - low).clip(0).prod(axis=1)
        iou = shared / (areas[left] + areas[best] - shared + 1e-5)
        assert not len(left) or abs(iou - 0.3).min() > 1e-4, "rounding must not decide which boxes are kept"
        left = left[iou <= 0.3]
    return np.array(kept, dtype=np.int16)


if __name__ == "__main__":
    main()
