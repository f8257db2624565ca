"""What pages have in common: no text ends the script that holds it, and images and colors are what they were."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import multibox
from multibox.drawing import class_color
from multibox.pages import CSS_COLORS, hex_colors, jpeg_uri, script_json

PACKAGE = Path(multibox.__file__).parent


def test_no_text_ends_the_script_or_begins_a_comment_in_it():
    value = {"</script>": ["<!--", "<script", "\u2028", "&lt; 말"]}
    text = script_json(value)
    assert "<" not in text
    assert json.loads(text) == value
    with pytest.raises(ValueError, match="JSON"):
        script_json(float("nan"))


def test_an_image_is_inside_its_address():
    image = Image.new("RGB", (7, 5), (200, 30, 30))
    head, text = jpeg_uri(image, quality=90).split(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(text))) as again:
        assert (again.format, again.size) == ("JPEG", (7, 5))
        assert np.abs(np.asarray(again).astype(int) - np.asarray(image)).max() < 8


def test_colors_are_those_of_drawings():
    assert [tuple(bytes.fromhex(each[1:])) for each in hex_colors(70)] == [class_color(label) for label in range(70)]


@pytest.mark.parametrize(
    "page",
    [
        ["report/web/style.css", "report/web/app.js"],
        ["explain/page/style.css", "explain/page/app.js", "explain/page/index.html"],
        ["review/page.html"],
    ],
)
def test_every_color_of_a_page_is_defined(page: list[str]):
    text = CSS_COLORS + "".join((PACKAGE / file).read_text(encoding="utf-8") for file in page)
    assert set(re.findall(r"var\((--[\w-]+)", text)) <= set(re.findall(r"(--[\w-]+):", text))
