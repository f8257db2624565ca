"""The preparation of an image as a part of the file: any size in, the network's input out."""

from typing import Any

import onnx
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from multibox.config import DetectorConfig
from multibox.deploy.graph import ExportedGraph

Count = Any
"""A number of rows or columns: an int, or torch's symbol for one while the graph is exported."""

PREPARATION = "prepare/"
"""What the names of the nodes begin with that prepare the image."""


class Preparation(ExportedGraph):
    """Takes one whole image, `(1, height, width, 3)` of plain RGB in `uint8`, and resizes it to the network's input.

    It follows the rule of the config as `multibox.images.resize` does. With `antialias` a pixel may differ by one, and
    hardly ever by two, as between versions of Pillow.
    """

    input_name, output_names = "image", ("images",)

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config

    def example(self, batch: int | None) -> tuple[Tensor, dict[int, str]]:
        """Returns an image of any size."""
        return torch.zeros(1, 480, 640, 3, dtype=torch.uint8), {1: "height", 2: "width"}

    def forward(self, image: Shaped[Tensor, "1 rows columns 3"]) -> Shaped[Tensor, "1 3 height width"]:
        """Returns plain RGB from 0 to 255, as `DetectorGraph` takes it."""
        config = self.config
        match config.resize:
            case "antialias":
                return _average(image[0], config.height, config.width)[None]
            case "bilinear":
                return _interpolate_as_opencv(image[0], config.height, config.width).permute(2, 0, 1)[None]
            case "float":
                return _interpolate(image[0], config.height, config.width).permute(2, 0, 1)[None]


def _average(image: Shaped[Tensor, "rows columns 3"], height: int, width: int) -> Shaped[Tensor, "3 height width"]:
    """Averages as Pillow does with BILINEAR: over columns, then over rows, and each result is rounded."""
    rows, columns, _ = image.shape
    narrow = (image.permute(2, 0, 1).float() @ _triangles(columns, width).T + 0.5).floor()
    return (_triangles(rows, height) @ narrow + 0.5).floor().to(torch.uint8)


def _triangles(count: Count, wanted: int) -> Float[Tensor, "wanted count"]:
    """Returns the weight of each old row in each new one: a triangle around its center, as wide as two new rows."""
    distance = (2 * torch.arange(count) + 1) * wanted - (2 * torch.arange(wanted)[:, None] + 1) * count
    reach = 2 * (torch.ones(1, dtype=torch.int64) * count).clamp(min=wanted)
    weights = (1 - distance.abs().float() / reach.float()).clamp(min=0)
    normalized: Tensor = weights / weights.sum(dim=1, keepdim=True)
    return normalized


def _interpolate_as_opencv(
    image: Shaped[Tensor, "rows columns 3"], height: int, width: int
) -> Shaped[Tensor, "height width 3"]:
    """Does what the function of this name in `multibox.images` does."""
    rows, columns, _ = image.shape
    above, below, to_above, to_below = _fixed_neighbors(rows, height)
    left, right, to_left, to_right = _fixed_neighbors(columns, width)
    border = left == right
    to_left, to_right = torch.where(border, 2048, to_left), torch.where(border, 0, to_right)

    def blended(lines: Int[Tensor, " height"]) -> Int[Tensor, "height width 3"]:
        line = image[lines]
        mixed = line[:, left].int() * to_left[:, None] + line[:, right].int() * to_right[:, None]
        return torch.div(mixed, 16, rounding_mode="trunc")

    upper = torch.div(blended(above) * to_above[:, None, None], 65536, rounding_mode="trunc")
    lower = torch.div(blended(below) * to_below[:, None, None], 65536, rounding_mode="trunc")
    return torch.div(upper + lower + 2, 4, rounding_mode="trunc").to(torch.uint8)


def _fixed_neighbors(
    count: Count, wanted: int
) -> tuple[Int[Tensor, " wanted"], Int[Tensor, " wanted"], Int[Tensor, " wanted"], Int[Tensor, " wanted"]]:
    """Returns the two old rows nearest to each new row, and the weights of both in whole 2048ths."""
    # the place is a fraction of whole numbers below 2 ** 24, so that one division gives the nearest 32-bit number
    place = ((2 * torch.arange(wanted) + 1) * count - wanted).float() / (2 * wanted)
    first = place.floor()
    weight = place - first
    row = first.long()
    to_first, to_second = ((each * 2048).round().int() for each in (1 - weight, weight))
    return row.clamp(min=0), (row + 1).clamp(max=count - 1), to_first, to_second


def _interpolate(image: Shaped[Tensor, "rows columns 3"], height: int, width: int) -> Float[Tensor, "height width 3"]:
    """Interpolates bilinearly in 32-bit floats; beyond the edge, the outermost pixels are repeated."""
    rows, columns, _ = image.shape
    above, below, down = _neighbors(rows, height)
    left, right, along = _neighbors(columns, width)
    down, along = down[:, None, None], along[:, None]
    seen = image[above].float() * (1 - down) + image[below].float() * down
    return seen[:, left] * (1 - along) + seen[:, right] * along


def _neighbors(
    count: Count, wanted: int
) -> tuple[Int[Tensor, " wanted"], Int[Tensor, " wanted"], Float[Tensor, " wanted"]]:
    """Returns the two old rows nearest to each new row, and how far the new row lies from the first to the second."""
    scale = (torch.ones(wanted, dtype=torch.int64) * count).float() / wanted
    place = ((torch.arange(wanted) + 0.5) * scale - 0.5).clamp(min=0)
    first = place.long()
    return first, (first + 1).clamp(max=count - 1), place - first


def with_preparation(model: onnx.ModelProto, preparation: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with the preparation in front: its input `image` is one whole image of any size.

    Args:
        model: The model of a `DetectorGraph` for one image at a time.
        preparation: The model of a `Preparation`.
    """
    merged = onnx.compose.merge_models(preparation, model, io_map=[("images", "images")], prefix1=PREPARATION)
    del merged.opset_import[:]  # of both, so that they stand there twice
    merged.opset_import.extend(model.opset_import)
    name = merged.graph.input[0].name
    merged.graph.input[0].name = Preparation.input_name
    for node in merged.graph.node:
        for place, each in enumerate(node.input):
            if each == name:
                node.input[place] = Preparation.input_name
    return merged
