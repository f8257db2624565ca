"""Read labelme's JSON (also X-AnyLabeling's): one file for each image, with outlines in pixels, read as their boxes."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from multibox.data.records import Entry, ImageAnnotation, to_numbers
from multibox.files import read_text
from multibox.messages import quoted, shortened

READ = ("label", "points", "shape_type", "difficult")
"""What is read of a shape."""

NO_BOXES = ("point", "points", "line", "linestrip")
"""Shapes that have no box."""


def parse(file: Path) -> ImageAnnotation:
    """Returns what a JSON file states about its image. `fault` says why a file cannot be read."""
    try:
        content = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        return ImageAnnotation(file, f"the JSON cannot be read: {shortened(error, 200)}")
    if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
        return ImageAnnotation(file, "there is no list 'shapes', as labelme's files have")
    path = content.get("imagePath")
    size = content.get("imageHeight"), content.get("imageWidth")
    entries = (_entry(file, number, shape) for number, shape in enumerate(content["shapes"], start=1))
    return ImageAnnotation(file, "", (path,) if isinstance(path, str) and path else (), size, tuple(entries))


def _entry(file: Path, number: int, shape: Any) -> Entry:
    shape = shape if isinstance(shape, dict) else {}
    name = shape.get("label")
    name = str(name).strip() if isinstance(name, str | int | float) else ""
    where = f"{file}, shape {number}" + (f" ({shortened(name, 60)})" if name else "")
    return Entry(where, name, _box(shape), shape.get("difficult") is True, aside=tuple(_aside(shape)))


def _aside(shape: dict[str, Any]) -> Iterator[str]:
    """Yields the names of what a shape has beside its class, its box and its mark."""
    if shape.get("shape_type", "polygon") != "rectangle":
        yield "outline"
    yield from (key for key, value in shape.items() if value and key not in READ)


def _box(shape: dict[str, Any]) -> list[float] | str:
    kind, points = shape.get("shape_type", "polygon"), shape.get("points")
    if kind in NO_BOXES:
        return f"a {kind} has no box"
    try:
        numbers = to_numbers(value for x, y in points for value in (x, y)) if isinstance(points, list) else []
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) < 4:
        return f"points {quoted(points)} are no corners of a {shortened(kind, 60)}"
    across, down = numbers[::2], numbers[1::2]
    if kind == "circle":  # its center and a point of its edge
        radius = math.dist((across[0], down[0]), (across[1], down[1]))
        return [across[0] - radius, down[0] - radius, across[0] + radius, down[0] + radius]
    return [min(across), min(down), max(across), max(down)]
