"""Programs that run SSDs, the homes of a file: what each expects of it, and what to write into its configuration.

A home takes images in a form of its own and reads detections in another. `HomeGraph` puts both around a detector.
"""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from multibox.config import DetectorConfig
from multibox.deploy.graph import DetectorGraph, ExportedGraph
from multibox.messages import quoted
from multibox.runtimes.exported import Suppression

Layout = Literal["nchw", "nhwc"]
Colors = Literal["rgb", "bgr"]
Pixels = Literal["uint8", "float", "minus one to one"]


class Home(NamedTuple):
    """What a program expects of a file.

    Attributes:
        title: Name of the program.
        suffix: Suffix of the file.
        layout: Order of the axes of the input.
        colors: Order of the colors of the input.
        pixels: Numbers of the input: from 0 to 255, as whole numbers or not, or from -1 to 1.
        suppression: Where suppression happens.
        names: Names of the input and of the outputs.
        outputs: Makes the outputs of those of `DetectorGraph`.
        labels: Makes the text of the label file; None if there is none.
        advice: Lines to paste, for a file, its class names, and the height and width of its input.
        model_info: What the program reads in `rt_info/model_info` of an OpenVINO file; None if it reads nothing there.
    """

    title: str
    suffix: str
    layout: Layout
    colors: Colors
    pixels: Pixels
    suppression: Suppression
    names: tuple[str, tuple[str, ...]]
    outputs: Callable[..., tuple[Tensor, ...]]
    labels: Callable[[Sequence[str]], str] | None
    advice: Callable[[Path, Sequence[str], int, int], str]
    model_info: Callable[[DetectorConfig, Sequence[str]], Mapping[str, str]] | None = None


class TfliteHome(NamedTuple):
    """What a program expects of a TFLite file, beside the outputs of TensorFlow's Object Detection API.

    Attributes:
        title: Name of the program.
        reads_metadata: Whether it reads the class names out of the file, instead of from a file beside it.
        advice: Lines to paste, for a file, its class names, and the height and width of its input.
        suppression: Where suppression happens: in an operator that takes the raw outputs.
    """

    title: str
    reads_metadata: bool
    advice: Callable[[Path, Sequence[str], int, int], str]
    suppression: Suppression = "none"


class HomeGraph(ExportedGraph):
    """A detector in the form of a home."""

    def __init__(self, graph: DetectorGraph, home: Home) -> None:
        super().__init__()
        self.detector, self.home = graph, home
        self.input_name = home.names[0]

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in their order."""
        return self.home.names[1]

    def example(self, batch: int | None) -> tuple[Tensor, dict[int, str]]:
        """Returns one image in the home's form."""
        images, _ = self.detector.example(1)
        return self.as_the_home(images), {}

    def as_the_home(self, images: Shaped[Tensor, "batch 3 height width"]) -> Tensor:
        """Returns images for `DetectorGraph` in the home's form."""
        home = self.home
        if home.pixels == "minus one to one":
            images = images / 127.5 - 1
        elif home.pixels == "float":
            images = images.float()
        if home.colors == "bgr":
            images = images.flip(1)
        return images.permute(0, 2, 3, 1).contiguous() if home.layout == "nhwc" else images

    def forward(self, images: Shaped[Tensor, "batch ..."]) -> tuple[Tensor, ...]:
        """Returns the outputs that the home reads."""
        home = self.home
        if home.layout == "nhwc":
            images = images.permute(0, 3, 1, 2)
        if home.colors == "bgr":
            images = images.flip(1)
        if home.pixels == "minus one to one":
            images = (images + 1) * 127.5
        return home.outputs(*self.detector(images))


def _rows(
    boxes: Float[Tensor, "batch rows 4"], scores: Tensor, labels: Tensor, indices: Tensor, count: Tensor
) -> tuple[Tensor]:
    """Returns the rows of Caffe's and OpenVINO's DetectionOutput, `(1, 1, batch x rows, 7)`.

    A row is the number of the image (-1 behind the last detection), label, score and box. Labels count from 0.
    """
    image = torch.arange(boxes.shape[0], dtype=boxes.dtype)[:, None].expand_as(scores)
    image = torch.where(scores > 0, image, -1.0)
    whole = torch.cat([torch.stack([image, labels.clamp(min=0).to(boxes.dtype), scores], dim=-1), boxes], dim=-1)
    return (whole.reshape(1, 1, -1, 7),)


def _scores_and_boxes(boxes: Tensor, scores: Float[Tensor, "batch default_boxes classes"]) -> tuple[Tensor, Tensor]:
    """Returns scores, the background's in front, and boxes of all default boxes, as pytorch-ssd's ONNX files do."""
    background = 1 - scores.sum(dim=-1, keepdim=True)
    return torch.cat([background, scores], dim=-1), boxes


def _frigate(path: Path, class_names: Sequence[str], height: int, width: int) -> str:
    return f"""\
detectors:
  openvino:
    type: openvino
    device: CPU  # or GPU
{_frigate_model(path, class_names, height, width, colors="bgr")}"""


def _frigate_tflite(path: Path, class_names: Sequence[str], height: int, width: int) -> str:
    return f"""\
detectors:
  cpu:
    type: cpu
    num_threads: 1  # with more, LiteRT leaves out a class
{_frigate_model(path, class_names, height, width, colors="rgb")}"""


def _frigate_model(path: Path, class_names: Sequence[str], height: int, width: int, *, colors: Colors) -> str:
    return f"""\
model:
  path: {_text(f"/config/{path.name}")}
  labelmap_path: {_text(f"/config/{labels_file(path).name}")}
  model_type: ssd
  width: {width}
  height: {height}
  input_tensor: nhwc
  input_pixel_format: {colors}
objects:
  track: [{", ".join(map(_text, class_names))}]
"""


def _text(text: str) -> str:
    """Returns a text as YAML, Python and JSON write it."""
    return json.dumps(text, ensure_ascii=False)


def _model_api(path: Path, class_names: Sequence[str], height: int, width: int) -> str:
    return f"""\
import cv2
from model_api.models import Model

model = Model.create_model({_text(path.name)})
print(model(cv2.cvtColor(cv2.imread("image.jpg"), cv2.COLOR_BGR2RGB)))
"""


def _model_info(config: DetectorConfig, class_names: Sequence[str]) -> Mapping[str, str]:
    """Returns what Model API's `SSD` reads. Its labels are separated by spaces, so that they hold none."""
    return {
        "model_type": "SSD",
        "labels": " ".join("_".join(name.split()) for name in class_names),
        "confidence_threshold": f"{config.detect_score_threshold:g}",
        "nms_execute": "False",  # the file has done it
        "resize_type": "standard",
        "reverse_input_channels": "False",
    }


def _numbered(class_names: Sequence[str]) -> str:
    """Returns lines of number and name. (Frigate takes a first line that begins with a number for such a line.)"""
    return "\n".join(f"{label} {name}" for label, name in enumerate(class_names))


def _jetson(path: Path, class_names: Sequence[str], height: int, width: int) -> str:
    model, labels = (
        shlex.quote(f"--{name}={file.name}") for name, file in (("model", path), ("labels", labels_file(path)))
    )
    return f"""\
detectnet {model} {labels} \\
    --input-blob=input_0 --output-cvg=scores --output-bbox=boxes images/*.jpg found/
"""


def _opencv(path: Path, class_names: Sequence[str], height: int, width: int) -> str:
    return f"""\
import cv2

network = cv2.dnn.readNet({_text(path.name)})
network.setInput(cv2.dnn.blobFromImage(cv2.imread("image.jpg"), size=({width}, {height}), swapRB=True))
boxes, scores = network.forward(["boxes", "scores"])  # (1, N, 4) as fractions of the image, (1, N, {len(class_names)})
"""


def _mediapipe(path: Path, class_names: Sequence[str], height: int, width: int) -> str:
    return f"""\
import mediapipe as mp
from mediapipe.tasks.python import BaseOptions, vision

options = vision.ObjectDetectorOptions(BaseOptions(model_asset_path={_text(path.name)}), score_threshold=0.5)
with vision.ObjectDetector.create_from_options(options) as detector:
    print(detector.detect(mp.Image.create_from_file("image.jpg")))
"""


def labels_file(path: Path) -> Path:
    """Returns the path of the label file beside an exported file."""
    return path.with_suffix(".labels.txt")


HOMES: Mapping[str, Home] = {
    "frigate": Home(
        title="Frigate's OpenVINO detector",
        suffix=".xml",
        layout="nhwc",
        colors="bgr",
        pixels="uint8",
        suppression="graph",
        names=("images", ("detections",)),
        outputs=_rows,
        labels=_numbered,
        advice=_frigate,
    ),
    "model-api": Home(
        title="OpenVINO's Model API",
        suffix=".xml",
        layout="nchw",
        colors="rgb",
        pixels="uint8",
        suppression="graph",
        names=("images", ("detections",)),
        outputs=_rows,
        labels=None,
        advice=_model_api,
        model_info=_model_info,
    ),
    "jetson": Home(
        title="jetson-inference's detectnet",
        suffix=".onnx",
        layout="nchw",
        colors="rgb",
        pixels="minus one to one",
        suppression="runtime",
        names=("input_0", ("scores", "boxes")),
        outputs=_scores_and_boxes,
        labels=lambda names: "\n".join(["BACKGROUND", *names]),
        advice=_jetson,
    ),
    "opencv": Home(
        title="OpenCV's dnn",
        suffix=".onnx",
        layout="nchw",
        colors="rgb",
        pixels="float",
        suppression="runtime",
        names=("images", ("boxes", "scores")),
        outputs=lambda boxes, scores: (boxes, scores),
        labels="\n".join,
        advice=_opencv,
    ),
}
"""The homes by name."""


TFLITE_HOMES: Mapping[str, TfliteHome] = {
    "frigate": TfliteHome("Frigate's TFLite detector", reads_metadata=False, advice=_frigate_tflite),
    "mediapipe": TfliteHome("MediaPipe's object detector", reads_metadata=True, advice=_mediapipe),
}
"""The homes of TFLite files by name."""


def home_of(name: str, suffix: str) -> Home:
    """Returns the home of this name for files of a suffix other than `.tflite`.

    Raises:
        ValueError: There is no such home, or it takes files of another suffix.
    """
    _check_home(name, suffix)
    return HOMES[name]


def tflite_home_of(name: str) -> TfliteHome:
    """Returns the home of this name for TFLite files.

    Raises:
        ValueError: There is no such home, or it takes files of another suffix.
    """
    _check_home(name, ".tflite")
    return TFLITE_HOMES[name]


def _check_home(name: str, suffix: str) -> None:
    titles = {HOMES[name].suffix: HOMES[name].title} if name in HOMES else {}
    titles |= {".tflite": TFLITE_HOMES[name].title} if name in TFLITE_HOMES else {}
    if not titles:
        raise ValueError(f"there is no home {quoted(name)}, only {', '.join({**HOMES, **TFLITE_HOMES})}")
    if suffix not in titles:
        takes = ", and ".join(f"{title} takes a file with the suffix {known}" for known, title in titles.items())
        raise ValueError(f"{takes}, not {suffix}")
