"""The preparation of an image as a part of the file: any size in, the network's input out."""

import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor

from multibox.deploy.graph import DetectorGraph, ExportedGraph


class PreparedGraph(ExportedGraph):
    """A detector that takes one whole image, `(1, height, width, 3)` of plain RGB in `uint8`, and resizes it itself.

    It resizes by the rule of the config, as `multibox.images.resize` does, up to rounding: a pixel of the network's
    input may differ by one.
    """

    input_name = "image"

    def __init__(self, detector: DetectorGraph) -> None:
        super().__init__()
        self.detector = detector

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in their order."""
        return self.detector.output_names

    def example(self, batch: int | None) -> tuple[Tensor, dict[int, str]]:
        """Returns an image of any size."""
        return torch.zeros(1, 480, 640, 3, dtype=torch.uint8), {1: "height", 2: "width"}

    def forward(self, image: Shaped[Tensor, "1 height width 3"]) -> tuple[Tensor, ...]:
        """Returns the outputs of `DetectorGraph`."""
        config = self.detector.config
        resized = F.interpolate(
            image.permute(0, 3, 1, 2).float(),
            (config.height, config.width),
            mode="bilinear",
            antialias=config.resize == "antialias",
        )
        if config.resize != "float":
            resized = resized.round().clamp(0, 255)
        outputs: tuple[Tensor, ...] = self.detector(resized)
        return outputs
