"""What a data set is judged by: the default boxes of a detector, which need neither its network nor an engine."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from multibox.config import DetectorConfig, Scales
from multibox.default_boxes import make_default_boxes
from multibox.detector import new_config
from multibox.messages import shortened
from multibox.runtimes.exported import ExportFacts
from multibox.weights.exported import is_exported, read_header, read_metadata
from multibox.weights.file import load_weights
from multibox.weights.published import find_weights, is_weights


class Model(NamedTuple):
    """The detector that data are judged for.

    Attributes:
        name: What the user calls it.
        config: Its config.
        default_boxes: Its default boxes in center form, as fractions of the image: the stored ones if there are any.
        class_names: Its class names; None for a detector that is not trained yet.
    """

    name: str
    config: DetectorConfig
    default_boxes: Float[np.ndarray, "default_boxes 4"]
    class_names: tuple[str, ...] | None = None

    @classmethod
    def new(cls, name: str, config: DetectorConfig) -> "Model":
        """Returns the detector of a config, which is not trained yet."""
        return cls(name, config, make_default_boxes(config))

    @classmethod
    def of_weights(cls, name: str, path: Path) -> "Model":
        """Returns the detector of a weights file or an exported file.

        Raises:
            ValueError: The file is none of multibox, or is damaged.
        """
        if is_exported(path):
            header = read_header(path)
            try:
                facts = ExportFacts.from_text(read_metadata(path)["export"])
                table = facts.default_boxes_of(header.config)
            except (KeyError, ValueError) as error:
                raise ValueError(f"{path}: its metadata are damaged (export: {shortened(error)})") from error
        else:
            header = load_weights(path)
            is_stored = header.config.stored_default_boxes
            table = header.tensors["default_boxes"] if is_stored else make_default_boxes(header.config)
        return cls(name, header.config, table, header.class_names)


def open_model(
    name: str, *, scales: Scales | None = None, height: int | None = None, width: int | None = None
) -> Model:
    """Returns what a new network, or weights, say of their detector.

    Args:
        name: A preset, `timm/NAME`, the path of a config's `.json` file; or weights as `multibox.load` takes them.
        scales: The sizes of a preset's default boxes; None for the preset's own.
        height: Height of the input in pixels, for presets; None for the preset's own.
        width: Width of the input in pixels, for presets; None for the preset's own.

    Raises:
        ValueError: There is no such preset, the file is not of a detector, or scales or a size are given for a detector
            that has its own.
        FileNotFoundError: There is no such file.
        ImportError: The backbone is one of timm, and it is not installed.
    """
    if not is_weights(name):
        return Model.new(name, new_config(name, scales=scales, height=height, width=width))
    if (scales, height, width) != (None, None, None):
        raise ValueError(f"{name} has an input size of its own; scales and sizes are for presets")
    return Model.of_weights(name, find_weights(name))
