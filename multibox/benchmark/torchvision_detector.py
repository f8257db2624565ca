"""torchvision's own detector with the weights of ours, to be measured beside it."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.models.detection import ssd300_vgg16, ssdlite320_mobilenet_v3_large
from torchvision.models.detection.ssd import SSD
from torchvision.transforms.v2.functional import pil_to_tensor

from multibox.detections import Detections
from multibox.weights.converters.torchvision import convert
from multibox.weights.file import Weights, load_weights

MAKERS = {"ssd300-vgg16": ssd300_vgg16, "ssdlite320-mobilenetv3": ssdlite320_mobilenet_v3_large}
"""torchvision's function of each of our presets that it has too."""


class TorchvisionDetector:
    """torchvision's detector, as its users run it: PIL reads the files, and `inference_mode` is on."""

    def __init__(self, model: str, *, device: str, score_threshold: float, batch_size: int) -> None:
        weights = load_weights(model)
        self._class_names = weights.class_names
        self._device, self._batch_size = device, batch_size
        self._model = as_torchvision(weights).to(device)
        self._model.score_thresh = score_threshold

    def detect(self, path: str) -> list[dict[str, Tensor]]:
        return self._detect([path])

    def detect_all(self, paths: Sequence[str]) -> list[dict[str, Tensor]]:
        starts = range(0, len(paths), self._batch_size)
        return [one for start in starts for one in self._detect(paths[start : start + self._batch_size])]

    def prepare(self, path: str) -> Tensor:
        images, _ = self._model.transform([self._read(path)])
        prepared: Tensor = images.tensors
        return prepared

    def run(self, prepared: Tensor) -> list[Tensor]:
        with torch.inference_mode():
            outputs = self._model.head(list(self._model.backbone(prepared).values()))
        return [values.cpu() for values in outputs.values()]

    def found(self, path: str) -> Detections:
        (one,) = self._detect([path])
        boxes, scores, labels = (one[name].numpy() for name in ("boxes", "scores", "labels"))
        return Detections(boxes, scores, labels - 1, np.full(len(labels), -1), self._class_names)

    def _detect(self, paths: Sequence[str]) -> list[dict[str, Tensor]]:
        with torch.inference_mode():
            found = self._model([self._read(path) for path in paths])
        return [{name: values.cpu() for name, values in one.items()} for one in found]

    def _read(self, path: str) -> Tensor:
        with Image.open(path) as image:
            pixels: Tensor = pil_to_tensor(image.convert("RGB"))
        return (pixels / 255).to(self._device)


def as_torchvision(weights: Weights) -> SSD:
    """Returns torchvision's model with weights that were converted from one.

    The converter tells which tensor of ours is which of torchvision's: it is given torchvision's, and puts them under
    our names.

    Raises:
        ValueError: torchvision has no such detector.
    """
    config = weights.config
    refusal = ValueError(f"torchvision has no detector with the rules of this {config.name}")
    if config.name not in MAKERS:
        raise refusal
    model: SSD = MAKERS[config.name](
        weights=None, weights_backbone=None, num_classes=len(weights.class_names) + 1
    ).eval()
    theirs = {key: tensor.numpy() for key, tensor in model.state_dict().items()}  # they share the model's memory
    converted = convert(theirs)
    if converted is None or converted.config != config:
        raise refusal
    key_of = {id(array): key for key, array in theirs.items()}
    for name, array in converted.tensors.items():
        if name.endswith(".num_batches_tracked"):
            continue
        if id(array) in key_of:
            array[...] = weights.tensors[name]
        else:  # a variance to which the converter adds the difference of two epsilons
            key = key_of[id(converted.tensors[name.replace("running_var", "running_mean")])]
            variance = theirs[key.replace("running_mean", "running_var")]
            variance[...] = weights.tensors[name] - (array - variance)
    return model
