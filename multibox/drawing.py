"""Draw boxes and names on an image, in any script."""

import os
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
from math import ceil, sqrt
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image, ImageDraw, ImageFont, ImageOps

from multibox.boxes import box_iou

Color = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]  # pixels: left, top, right, bottom; the last two are outside

# neighbors differ much in hue and lightness, and all colors are bright enough for a dark scene
_PALETTE: tuple[Color, ...] = (
    (235, 64, 70),  # red
    (38, 139, 255),  # blue
    (62, 199, 85),  # green
    (255, 190, 11),  # amber
    (165, 92, 232),  # violet
    (16, 200, 215),  # cyan
    (255, 125, 33),  # orange
    (245, 105, 185),  # pink
    (160, 215, 45),  # lime
    (92, 107, 245),  # indigo
    (0, 165, 145),  # teal
    (185, 115, 60),  # brown
    (255, 240, 90),  # yellow
    (205, 150, 255),  # lilac
    (130, 150, 165),  # slate
    (140, 230, 240),  # ice
    (210, 35, 120),  # crimson
    (90, 150, 50),  # moss
    (255, 175, 150),  # salmon
    (175, 200, 150),  # sage
)

# tried in this order: Latin, Greek, Cyrillic and more, then East Asia; from Linux, macOS and Windows
_LIKELY_FONTS = (
    *("dejavusans", "segoeui", "arial", "notosanscjk", "nanumgothic", "applesdgothic", "malgun", "applegothic"),
    *("hiragino", "msyh", "msgothic", "unicode", "notosans"),
)
_SAMPLE = frozenset("Ag019.")  # a font for another script must also have letters and digits, for scores
_SMALLEST_TEXT = 8  # pixels; smaller letters are illegible


def class_color(label: int) -> Color:
    """Returns the color of a class. The first 60 labels have different colors."""
    turn, place = divmod(label, len(_PALETTE))
    toward, part = ((0, 0.0), (255, 0.5), (0, 0.4))[turn % 3]  # then lighter, then darker
    red, green, blue = (round(value + (toward - value) * part) for value in _PALETTE[place])
    return red, green, blue


def draw_boxes(
    image: Image.Image,
    boxes: Float[np.ndarray, "boxes 4"],
    *,
    labels: Int[np.ndarray, " boxes"],
    texts: Sequence[str] | None = None,
    dashed: bool | Bool[np.ndarray, " boxes"] = False,
    line_width: int | None = None,
    font_size: int | None = None,
) -> Image.Image:
    """Returns a copy of an RGB image with an outline around each box, in the color of its class.

    The first box is the most important: it is drawn over the others, and its text is placed first. Texts stay inside
    the image; if it is too narrow, they are made smaller and then shorter.

    Args:
        image: RGB image; it is not changed.
        boxes: Boxes in corner form, in pixels of the image.
        labels: Label of each box, which gives its color.
        texts: Text beside each box; an empty text is not drawn.
        dashed: Whether outlines are dashed, as for ground truth beside detections: for all boxes, or for each.
        line_width: Width of the outlines in pixels; by default it follows the size of the image.
        font_size: Size of the letters in pixels; by default it follows the size of the image.

    Raises:
        ValueError: A box is not finite, or a size is below 1.

    Warns:
        UserWarning: No font on this machine has all characters of a text. This is reported once.
    """
    finite = np.isfinite(boxes).all(axis=1)
    if not finite.all():
        first = int(np.argmin(finite))
        raise ValueError(f"box {first} {boxes[first].tolist()} is not finite and cannot be drawn; leave it out")
    for name, value in (("line_width", line_width), ("font_size", font_size)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1 pixel, but is {value}")
    usual_size = round(7 + sqrt(image.width * image.height) / 75)  # 8 for 64 x 64, 13 for 500 x 375
    line_width = line_width or max(1, usual_size // 6)
    outlines = [_pixels(box, image.width, image.height) for box in boxes.tolist()]
    colors = [class_color(label) for label in labels.tolist()]
    drawn = image.copy()
    draw = ImageDraw.Draw(drawn)
    broken = np.broadcast_to(dashed, len(boxes)).tolist()
    for outline, color, is_broken in reversed(list(zip(outlines, colors, broken, strict=True))):
        for left, top, right, bottom in _strokes(outline, line_width, is_broken):
            draw.rectangle((left, top, right - 1, bottom - 1), fill=color)
    if texts is not None:
        _draw_texts(draw, drawn.size, outlines, colors, texts, font_size or usual_size)
    return drawn


def contact_sheet(
    images: Sequence[Image.Image],
    *,
    captions: Sequence[str] | None = None,
    columns: int = 4,
    cell_height: int = 240,
    cell_width: int = 320,
    margin: int = 8,
    background: Color = (255, 255, 255),
) -> Image.Image:
    """Returns a sheet of images, row by row in equal cells; each is scaled to fit its cell and centered in it.

    Args:
        images: At least one image.
        captions: Text below each image; it may have several lines, which are made to fit.
        columns: Largest number of images in a row.
        cell_height: Height of a cell in pixels, without the caption.
        cell_width: Width of a cell in pixels.
        margin: Pixels between the cells and around them.
        background: Color of the sheet.

    Raises:
        ValueError: There are no images, or the number of captions differs.
    """
    if not images:
        raise ValueError("a sheet needs at least one image")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} images: give one caption for each image")
    columns = min(columns, len(images))
    rows = ceil(len(images) / columns)
    lines = max((caption.count("\n") + 1 for caption in captions or ()), default=0)
    font_size = max(_SMALLEST_TEXT, cell_width // 28)
    line_height = round(1.3 * font_size)
    pitch_x, pitch_y = cell_width + margin, cell_height + margin + lines * line_height
    sheet = Image.new("RGB", (columns * pitch_x + margin, rows * pitch_y + margin), background)
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        fitted = ImageOps.contain(image, (cell_width, cell_height))
        x = margin + column * pitch_x + (cell_width - fitted.width) // 2
        y = margin + row * pitch_y + (cell_height - fitted.height) // 2
        sheet.paste(fitted, (x, y))
        for number, line in enumerate(captions[place].split("\n") if captions else ()):
            text, font = _fit(line, font_size, cell_width)
            at = margin + column * pitch_x, margin + row * pitch_y + cell_height + number * line_height + font_size // 4
            ImageDraw.Draw(sheet).text(at, text, _ink(background), font)
    return sheet


def _pixels(box: Sequence[float], width: int, height: int) -> Rectangle:
    """Returns the pixels that a box covers: at least one, and all inside the image."""
    x_min, y_min, x_max, y_max = box
    left, top = (round(min(max(low, 0), size - 1)) for low, size in ((x_min, width), (y_min, height)))
    right, bottom = (round(min(high, size)) for high, size in ((x_max, width), (y_max, height)))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _strokes(outline: Rectangle, line_width: int, dashed: bool) -> Iterator[Rectangle]:
    left, top, right, bottom = outline
    inner_left, inner_top = min(left + line_width, right), min(top + line_width, bottom)
    inner_right, inner_bottom = max(right - line_width, left), max(bottom - line_width, top)
    for x_low, x_high in _dashes(left, right, line_width) if dashed else [(left, right)]:
        yield x_low, top, x_high, inner_top
        yield x_low, inner_bottom, x_high, bottom
    for y_low, y_high in _dashes(top, bottom, line_width) if dashed else [(top, bottom)]:
        yield left, y_low, inner_left, y_high
        yield inner_right, y_low, right, y_high


def _dashes(low: int, high: int, line_width: int) -> Iterator[tuple[int, int]]:
    """Yields the dashes of a side; the first and the last touch its corners."""
    dash, gap = 4 * line_width + 1, 3 * line_width
    count = max(2, round((high - low + gap) / (dash + gap)))
    for number in range(count):
        start = low + max(0, high - low - dash) * number // (count - 1)
        yield start, min(start + dash, high)


def _draw_texts(
    draw: ImageDraw.ImageDraw,
    size: tuple[int, int],
    outlines: Sequence[Rectangle],
    colors: Sequence[Color],
    texts: Sequence[str],
    font_size: int,
) -> None:
    padding = max(1, font_size // 5)
    tags: list[tuple[Rectangle, str, ImageFont.FreeTypeFont, Color]] = []
    for outline, color, text in zip(outlines, colors, texts, strict=True):
        text, font = _fit(text, font_size, size[0] - 2 * padding)
        if text:
            ascent, descent = font.getmetrics()
            tag_size = (ceil(font.getlength(text)) + 2 * padding, ascent + descent + padding // 2)
            tags.append((_place(outline, tag_size, size, [tag for tag, *_ in tags]), text, font, color))
    for (left, top, right, bottom), text, font, color in reversed(tags):
        draw.rectangle((left, top, right - 1, bottom - 1), fill=color)
        draw.text((left + padding, (top + bottom) // 2), text, _ink(color), font, anchor="lm")


def _fit(text: str, font_size: int, width: int) -> tuple[str, ImageFont.FreeTypeFont]:
    text = unicodedata.normalize("NFC", " ".join(text.split()))  # file systems may take syllables and accents apart
    font = _font(text, font_size)
    length = font.getlength(text)
    if length > width:
        font = _font(text, max(min(font_size, _SMALLEST_TEXT), int(font_size * width / length)))
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text, font


def _place(
    outline: Rectangle, tag_size: tuple[int, int], size: tuple[int, int], taken: Sequence[Rectangle]
) -> Rectangle:
    """Returns the first free place above, inside or below the box, or the one that other texts cover least."""
    left, top, _, bottom = outline
    width, height = tag_size
    left = max(0, min(left, size[0] - width))
    inside_first = bottom - top >= 3 * height
    tops = [top - height, top if inside_first else bottom, bottom, top, bottom - height]
    tops = [y for y in tops if 0 <= y <= size[1] - height] or [0]
    choices = [(left, y, left + width, min(y + height, size[1])) for y in tops]
    if not taken:
        return choices[0]
    covered = box_iou(np.array(choices, dtype=np.float64), np.array(taken, dtype=np.float64)).sum(axis=1)
    return choices[int(np.argmin(covered))]


def _ink(background: Color) -> Color:
    """Returns black or white, whichever is easier to read on a color (by relative luminance, as WCAG defines it)."""
    linear = [value / 255 / 12.92 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in background]
    luminance = float(np.dot(linear, (0.2126, 0.7152, 0.0722)))
    return (0, 0, 0) if luminance > 0.3 else (255, 255, 255)


def find_font(text: str) -> Path | None:
    """Returns the file of a font with all characters of a text, or with most of them; `None` for Pillow's own font."""
    # without the digits of this text: they differ with each score, and all fonts would be searched again
    foreign = frozenset(character for character in text if not character.isascii() and _is_visible(character))
    return None if text.isascii() else _find_font(foreign | _SAMPLE)


def _font(text: str, size: int) -> ImageFont.FreeTypeFont:
    return _load_font(find_font(text), size)


def _is_visible(character: str) -> bool:
    # marks, joiners and spaces may be invisible
    return unicodedata.category(character)[0] not in "MCZ"


@cache
def _load_font(file: Path | None, size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.truetype(file, size) if file else ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise ImportError("this Pillow was built without FreeType, which names on images need: pip install pillow")
    return font


@cache
def _find_font(characters: frozenset[str]) -> Path | None:
    """Returns the first font with all the characters, or else the one with most; `None` is Pillow's own ASCII font."""
    best, best_count = None, -1
    for file in (None, *_font_files()):
        count = _count_glyphs(file, characters)
        if count == len(characters):
            return file
        if count > best_count:
            best, best_count = file, count
    _say_once_that_no_font_fits()
    return best


def _count_glyphs(file: Path | None, characters: frozenset[str]) -> int:
    try:
        font = ImageFont.truetype(file, 20) if file else _load_font(None, 20)
        missing = bytes(font.getmask("\U0010ffff"))  # never a character: the font draws its symbol for missing ones
        masks = (bytes(font.getmask(character)) for character in characters)
        return sum(any(mask) and mask != missing for mask in masks)
    except (OSError, ValueError):  # a damaged font, or a bitmap font in other sizes
        return 0


@cache
def _font_files() -> tuple[Path, ...]:
    files = [
        file
        for folder in _font_folders()
        for file in sorted(folder.rglob("*"))
        if file.suffix.lower() in {".ttf", ".otf", ".ttc"} and "lastresort" not in file.stem.lower()
    ]
    return tuple(sorted(files, key=_unlikeliness))


def _unlikeliness(file: Path) -> tuple[int, int]:
    name = file.stem.lower().replace("-", "").replace("_", "").replace(" ", "").removesuffix("regular")
    return next((rank for rank, likely in enumerate(_LIKELY_FONTS) if likely in name), len(_LIKELY_FONTS)), len(name)


def _font_folders() -> list[Path]:
    home = Path.home()
    return [
        home / ".fonts",
        Path(os.environ.get("XDG_DATA_HOME", home / ".local/share")) / "fonts",
        Path("/usr/local/share/fonts"),
        Path("/usr/share/fonts"),
        home / "Library/Fonts",
        Path("/Library/Fonts"),
        Path("/System/Library/Fonts"),
        Path(os.environ.get("LOCALAPPDATA", home / "AppData/Local")) / "Microsoft/Windows/Fonts",
        Path(os.environ.get("WINDIR", "C:/Windows")) / "Fonts",
    ]


@cache
def _say_once_that_no_font_fits() -> None:
    warnings.warn(
        "no font on this machine has all characters of the names; missing ones are drawn as boxes: install a font that "
        "has them (on Debian and Ubuntu: apt-get install fonts-noto-cjk, or fonts-nanum for Korean alone)",
        stacklevel=2,
    )
