"""Draw an explanation: the default box of each detection, and the paper's figure 1 for each feature map."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from multibox.drawing import contact_sheet, draw_boxes
from multibox.explain.explanation import Explanation, Record
from multibox.images import Source, open_image
from multibox.messages import counted

LEAST_SIDE = 640
"""Smaller images are enlarged until the longer side has this many pixels, so that lines and names can be told apart."""

PANEL = 480
"""Largest height and width of the panel of a feature map in pixels."""

DARK_SLATE = 54
"""The label whose color the default boxes of hard negatives have."""


def draw_detections(explanation: Explanation, image: Source) -> Image.Image:
    """Returns the image with each detection, and, dashed in its color, the default box that found it.

    Args:
        explanation: The explanation of the image.
        image: The image.
    """
    canvas = open_image(image)
    scale = max(1.0, LEAST_SIDE / max(canvas.size))
    found = explanation.record["detections"]
    maps = explanation.record["feature_maps"]
    texts = []
    for one in found:
        row = maps[one["default_box"]["feature_map"]]
        texts.append(f"{one['name']} {one['score_after']:.2f}, {row['rows']} x {row['columns']}")
    boxes = [one["box"] for one in found] + [one["default_box"]["box"] for one in found]
    return _draw(_scaled(canvas, scale), boxes, [one["label"] for one in found] * 2, scale, texts, solid=len(found))


def draw_matches(explanation: Explanation, image: Source) -> Image.Image:
    """Returns the objects, and a panel for each feature map with its grid and what a training learns from it.

    In the panels, the default boxes that objects matched are dashed in the color of the class, and those of the hard
    negatives, of the last weights, are dashed in a dark color.

    Args:
        explanation: The explanation of the image, with its objects.
        image: The image.

    Raises:
        ValueError: The objects are not known.
    """
    objects = explanation.record["truth"]
    if objects is None:
        raise ValueError("this explanation knows no objects, so there are no matches to draw")
    original = open_image(image)
    scale = PANEL / max(original.size)
    canvas = _scaled(original, scale)
    boxes, labels = [one["box"] for one in objects], [one["label"] for one in objects]
    panels = [_draw(canvas, boxes, labels, scale, [one["name"] for one in objects], solid=len(objects))]
    captions = [f"the image and its objects\n{counted(len(objects), 'object')}"]
    stages = explanation.record["hard_negatives"]
    for number, row in enumerate(explanation.record["feature_maps"]):
        matches = [
            (match["box"], one["label"])
            for one in objects
            for match in one["matches"]
            if match["feature_map"] == number
        ]
        negatives = [one for one in stages[-1]["default_boxes"] if one["feature_map"] == number] if stages else []
        dashed = [*matches, *((one["box"], DARK_SLATE) for one in negatives)]
        panel = _draw(
            _with_grid(canvas, row, explanation.record["detector"]["input"]),
            [*boxes, *(box for box, _ in dashed)],
            [*labels, *(label for _, label in dashed)],
            scale,
            solid=len(objects),
        )
        panels.append(panel)
        mined = f", {counted(len(negatives), 'hard negative')}" if stages else ""
        captions.append(
            f"{row['layer']}: {row['rows']} x {row['columns']} cells\n{counted(len(matches), 'match')}{mined}"
        )
    return contact_sheet(panels, captions=captions, cell_height=canvas.height, cell_width=canvas.width)


def _draw(
    canvas: Image.Image,
    boxes: Sequence[Sequence[float]],
    labels: Sequence[int],
    scale: float,
    texts: Sequence[str] = (),
    *,
    solid: int,
) -> Image.Image:
    """Returns the image with boxes, of which the first `solid` have whole outlines and the others dashed ones."""
    corners = np.array(boxes, np.float64).reshape(-1, 4) * scale
    dashed = np.arange(len(corners)) >= solid
    named = [*texts, *[""] * (len(corners) - len(texts))]
    return draw_boxes(canvas, corners, labels=np.array(labels, np.int64), texts=named, dashed=dashed)


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def _with_grid(image: Image.Image, feature_map: Record, size: Record) -> Image.Image:
    """Returns the image, paler, with the borders of a feature map's cells.

    Args:
        image: The image.
        feature_map: The feature map's record.
        size: Height and width of the network's input.
    """
    pale = Image.blend(image, Image.new("RGB", image.size, (255, 255, 255)), 0.35)
    lines = ImageDraw.Draw(pale, "RGBA")
    step_y, step_x = (
        feature_map["step"][0] * image.height / size["height"],
        feature_map["step"][1] * image.width / size["width"],
    )
    for column in range(1, feature_map["columns"]):
        lines.line((column * step_x, 0, column * step_x, image.height), (40, 48, 60, 90))
    for row in range(1, feature_map["rows"]):
        lines.line((0, row * step_y, image.width, row * step_y), (40, 48, 60, 90))
    return pale
