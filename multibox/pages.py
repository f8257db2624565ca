"""What the pages that commands write have in common: their colors, and data and images inside a single file."""

import base64
import io
import json
from typing import Any

from PIL import Image

from multibox.drawing import class_color

CSS_COLORS = """:root {
  color-scheme: light dark;
  --text: light-dark(#1b1d21, #eceae6);
  --quiet: light-dark(#5d6470, #a4a9b2);
  --page: light-dark(#f6f6f4, #141619);
  --card: light-dark(#ffffff, #1d2024);
  --line: light-dark(#d8dade, #363b42);
  --accent: light-dark(#0a5bc4, #8ab8ff);
  --on-accent: light-dark(#ffffff, #0e1a2b);
  --good: light-dark(#1a7f37, #5fd67a);
  --weak: light-dark(#9a6200, #ffc14d);
  --bad: light-dark(#b3261e, #ff9d94);
}
"""
"""The colors of all pages in light and dark, as CSS."""


def hex_colors(count: int) -> list[str]:
    """Returns the color of each class for CSS, as `#eb4046`."""
    return ["#{:02x}{:02x}{:02x}".format(*class_color(label)) for label in range(count)]


def script_json(value: Any) -> str:
    """Returns a value as JSON that stands inside a `<script>` element, which no text in it ends.

    Raises:
        ValueError: It has a number that is not finite, which JSON cannot hold.
    """
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")


def jpeg_uri(image: Image.Image, *, quality: int) -> str:
    """Returns an image as the address of a JPEG that holds the whole file."""
    file = io.BytesIO()
    image.save(file, "jpeg", quality=quality)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode("ascii")
