"""Write the page of an explanation: one HTML file that fetches nothing, to explore the image and its default boxes."""

import base64
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from multibox.boxes import center_to_corner
from multibox.explain.explanation import Explanation
from multibox.images import Source, open_image
from multibox.pages import CSS_COLORS, hex_colors, jpeg_uri, script_json

LARGEST_SIDE = 1600
"""Larger images are reduced until the longer side has this many pixels, so that the page stays small."""

PALETTE = 20
"""The number of colors that feature maps and the default boxes of a cell have."""

_PAGE = Path(__file__).parent / "page"


def page(explanation: Explanation, image: Source) -> str:
    """Returns the page as HTML: the explanation's JSON, the image, the style and the script are all inside.

    Args:
        explanation: The explanation of the image.
        image: The image.
    """
    corners = center_to_corner(explanation.found.default_boxes).astype("<f4")
    labels = max(PALETTE, len(explanation.detector.class_names))
    values = {
        "explanation": explanation.record,
        "colors": hex_colors(labels),
        "default_boxes": base64.b64encode(np.ascontiguousarray(corners).tobytes()).decode("ascii"),
    }
    parts = {
        "TITLE": escape(f"{Path(explanation.record['image']['file']).name or 'An image'}, explained"),
        "STYLE": CSS_COLORS + (_PAGE / "style.css").read_text(encoding="utf-8"),
        "IMAGE": jpeg_uri(_reduced(open_image(image)), quality=90),
        "WIDTH": str(explanation.record["image"]["width"]),
        "HEIGHT": str(explanation.record["image"]["height"]),
        "SCRIPT": (_PAGE / "app.js").read_text(encoding="utf-8"),
        "DATA": script_json(values),
    }
    text = (_PAGE / "index.html").read_text(encoding="utf-8")
    for name, value in parts.items():  # the data come last, so that nothing in them is taken for a name
        text = text.replace(f"{{{{{name}}}}}", value)
    return text


def write_page(explanation: Explanation, image: Source, folder: Path) -> None:
    """Writes the page as `index.html`, and the explanation as `explanation.json`, to a folder that is there."""
    for name, text in (("index.html", page(explanation, image)), ("explanation.json", explanation.to_json() + "\n")):
        (folder / name).write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")


def _reduced(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return image
