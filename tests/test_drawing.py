import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from multibox import drawing
from multibox.drawing import class_color, contact_sheet, draw_boxes
from tests.strategies import boxes

BACKGROUND = (17, 34, 51)


def blank(width, height):
    return Image.new("RGB", (width, height), BACKGROUND)


def draw(width, height, some, labels=None, texts=None, **options):
    some = np.array(some, dtype=np.float64).reshape(-1, 4)
    labels = np.zeros(len(some), dtype=np.int64) if labels is None else np.array(labels)
    return np.asarray(draw_boxes(blank(width, height), some, labels=labels, texts=texts, **options))


def painted(pixels):
    return (pixels != BACKGROUND).any(axis=2)


def has_color(pixels, color):
    return (pixels == color).all(axis=2)


# --- outlines ---


def test_an_outline_is_the_border_of_the_pixels_in_the_box():
    pixels = draw(64, 64, [[10, 20, 40, 50]])
    expected = np.zeros((64, 64), bool)
    expected[20:50, 10:40] = True
    expected[21:49, 11:39] = False
    np.testing.assert_array_equal(painted(pixels), expected)
    assert tuple(pixels[20, 10]) == class_color(0)


@pytest.mark.parametrize("width, height, line", [(64, 64, 1), (500, 375, 2), (1000, 700, 3), (3000, 2000, 6)])
def test_lines_grow_with_the_image(width, height, line):
    pixels = draw(width, height, [[0, 0, width, height]])
    assert painted(pixels)[height // 2].sum() == 2 * line


def test_a_line_width_of_ones_own():
    assert painted(draw(64, 64, [[0, 0, 64, 64]], line_width=5))[32].sum() == 10


@given(boxes(max_count=4), st.integers(1, 300), st.integers(1, 300), st.booleans())
def test_any_boxes_on_any_image(some, width, height, dashed):
    some = some - 200  # some lie outside
    pixels = draw(width, height, some, texts=["some name 0.99"] * len(some), dashed=dashed)
    assert pixels.shape == (height, width, 3)
    assert painted(pixels).any() == (len(some) > 0)


def test_a_box_without_size_is_a_pixel_at_least():
    assert painted(draw(9, 9, [[4, 4, 4, 4]])).sum() == 1


def test_the_first_is_on_top():
    pixels = draw(64, 64, [[5, 5, 50, 50], [5, 20, 50, 60]], labels=[0, 1])
    assert tuple(pixels[30, 5]) == class_color(0)
    assert tuple(pixels[55, 5]) == class_color(1)


def test_dashes():
    whole, dashed = (painted(draw(500, 375, [[100, 100, 400, 300]], dashed=dashed)) for dashed in (False, True))
    assert whole[dashed].all()
    assert 0.4 < dashed.sum() / whole.sum() < 0.8
    for corner in ((100, 100), (100, 399), (299, 100), (299, 399)):
        assert dashed[corner]


def test_the_image_is_not_written_to():
    image = blank(64, 64)
    drawn = draw_boxes(image, np.array([[1.0, 1, 60, 60]]), labels=np.array([3]), texts=["x"])
    assert drawn is not image
    assert image.tobytes() == blank(64, 64).tobytes()


def test_no_boxes():
    assert not painted(draw(64, 64, [], texts=[])).any()


def test_numbers_that_differ():
    with pytest.raises(ValueError):
        draw(64, 64, [[0, 0, 9, 9]], texts=["one", "two"])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_boxes_that_are_not_finite(value):
    with pytest.raises(ValueError, match=rf"box 1 \[0.0, {value}, 9.0, 9.0\] is not finite and cannot be drawn"):
        draw(64, 64, [[0, 0, 9, 9], [0, value, 9, 9]])


@pytest.mark.parametrize("name", ["line_width", "font_size"])
@pytest.mark.parametrize("value", [0, -3])
def test_sizes_below_a_pixel(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least 1 pixel, but is {value}"):
        draw(64, 64, [[0, 0, 9, 9]], texts=["a"], **{name: value})


# --- colors ---


def test_each_class_has_its_color():
    colors = [class_color(label) for label in range(60)]
    assert len(set(colors)) == 60
    assert class_color(7) == class_color(7)
    near = min(np.abs(np.subtract(a, b)).sum() for a in colors[:20] for b in colors[:20] if a != b)
    assert near >= 60


@pytest.mark.parametrize("label", range(60))
def test_names_can_be_read_on_their_color(label):
    def luminance(color):
        linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in color]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    color = class_color(label)
    dark, light = sorted(luminance(np.divide(some, 255)) for some in (color, drawing._ink(color)))
    assert (light + 0.05) / (dark + 0.05) >= 3  # WCAG's least contrast for graphics and large text


# --- texts ---


def written(pixels, label=0):
    return has_color(pixels, drawing._ink(class_color(label)))


MIDDLE = [200, 150, 300, 225]


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 60, 60],
        [440, 0, 500, 60],
        [0, 315, 60, 375],
        [440, 315, 500, 375],
        [490, 100, 500, 110],
        [0, 0, 500, 375],
        [0, 0, 500, 5],
        [0, 0, 3, 375],
        [498, 0, 500, 375],
    ],
)
def test_texts_stay_inside(box):
    usual = written(draw(500, 375, [MIDDLE], texts=["dog 0.87"]))
    there = written(draw(500, 375, [box], texts=["dog 0.87"]))
    assert usual.any()
    assert there.sum() == usual.sum()


def test_a_text_is_above_its_box_where_there_is_room():
    rows = np.flatnonzero(written(draw(500, 375, [MIDDLE], texts=["dog 0.87"])).any(axis=1))
    assert rows.min() >= 150 - 20 and rows.max() < 150


def test_texts_keep_clear_of_each_other():
    one = written(draw(500, 375, [MIDDLE], texts=["dog 0.87"])).sum()
    same = written(draw(500, 375, [MIDDLE] * 3, texts=["dog 0.87"] * 3)).sum()
    assert same == 3 * one


def test_a_long_text_becomes_smaller_then_shorter():
    pixels = draw(64, 64, [[0, 20, 64, 64]], texts=["a very long name for so small an image 0.87"])
    light = (pixels[:20] > 150).all(axis=2)  # letters as small as these are nowhere quite white
    columns = np.flatnonzero(light.any(axis=0))
    assert columns.min() > 0 and 50 < columns.max() < 63


@given(boxes(min_count=1, max_count=1), boxes(max_count=4), st.integers(1, 300), st.integers(1, 60))
def test_places_are_inside_the_image(box, taken, width, height):
    outline, *others = (tuple(map(int, some)) for some in (*box, *taken))
    left, top, right, bottom = drawing._place(outline, (width, height), (300, 60), others)
    assert 0 <= left < right <= 300 and 0 <= top < bottom <= 60
    assert (right - left, bottom - top) == (width, height)


# --- scripts ---


@pytest.fixture
def fonts(tmp_path, monkeypatch):
    """A machine whose only fonts lie in this folder."""

    def forget():
        for cached in (drawing._find_font, drawing._font_files, drawing._say_once_that_no_font_fits):
            cached.cache_clear()

    monkeypatch.setattr(drawing, "_font_folders", lambda: [tmp_path, tmp_path / "nowhere"])
    forget()
    yield tmp_path
    forget()


def make_font(file, characters, missing_is_blank=False):
    """A font whose every character is a bar of its own height; its sign for a missing one is a square, or nothing."""
    builders = pytest.importorskip("fontTools.fontBuilder")
    pens = pytest.importorskip("fontTools.pens.ttGlyphPen")

    def bar(width, height):
        pen = pens.TTGlyphPen(None)
        if height:
            pen.moveTo((100, 0))
            for point in ((100, height), (100 + width, height), (100 + width, 0)):
                pen.lineTo(point)
            pen.closePath()
        return pen.glyph()

    glyphs = {".notdef": bar(700, 0 if missing_is_blank else 700)}
    glyphs |= {f"glyph{place}": bar(300, 400 + 20 * place) for place in range(len(characters))}
    font = builders.FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(list(glyphs))
    font.setupCharacterMap({ord(character): f"glyph{place}" for place, character in enumerate(characters)})
    font.setupGlyf(glyphs)
    font.setupHorizontalMetrics({name: (900, 100) for name in glyphs})
    font.setupHorizontalHeader(ascent=800, descent=-200)
    font.setupOS2()
    font.setupPost()
    font.setupNameTable({"familyName": file.stem, "styleName": "Regular"})
    font.save(file)


@pytest.mark.parametrize("missing_is_blank", [False, True])
def test_the_font_that_has_all_characters(fonts, missing_is_blank):
    (fonts / "broken.ttf").write_bytes(b"no font")
    make_font(fonts / "notosans-half.ttf", "강 0189.", missing_is_blank)
    (fonts / "deep").mkdir()
    make_font(fonts / "deep" / "Whole.TTF", "강아지 Ag0189.")
    assert drawing._find_font(frozenset("강아지")) == fonts / "deep" / "Whole.TTF"
    pixels = draw(500, 375, [MIDDLE], texts=["강아지 0.98"])
    letters = written(pixels)[130:150]
    assert letters.any()
    # what the file system of a Mac has taken apart into single sounds is put together again
    apart = unicodedata.normalize("NFD", "강아지 0.98")
    np.testing.assert_array_equal(draw(500, 375, [MIDDLE], texts=[apart]), pixels)


def test_fonts_are_searched_once_for_a_name_whatever_its_score(fonts, monkeypatch):
    make_font(fonts / "some.ttf", "강아지 Ag0123456789.")
    counted = []
    count_glyphs = drawing._count_glyphs
    monkeypatch.setattr(drawing, "_count_glyphs", lambda *args: counted.append(args) or count_glyphs(*args))
    draw(500, 375, [MIDDLE], texts=["강아지 0.98"])
    searched = len(counted)
    assert searched > 0
    draw(500, 375, [MIDDLE] * 3, texts=["강아지 0.12", "강아지 0.34", "강아지 0.57"])
    assert len(counted) == searched


def test_no_font_is_said_once(fonts):
    make_font(fonts / "some.ttf", "강 0189.")
    with pytest.warns(UserWarning, match="no font on this machine has all characters") as said:
        assert drawing._find_font(frozenset("강아지")) == fonts / "some.ttf"  # the one that has most
        pixels = draw(500, 375, [MIDDLE], texts=["ねこ 0.98"])
        draw(500, 375, [MIDDLE], texts=["いぬ 0.98"])
    assert len(said) == 1
    assert written(pixels).any()


def test_a_machine_without_fonts(fonts):
    with pytest.warns(UserWarning, match="no font on this machine"):
        assert written(draw(500, 375, [MIDDLE], texts=["강아지 0.98"])).any()


def test_ascii_looks_for_no_font(monkeypatch):
    monkeypatch.setattr(drawing, "_find_font", None)
    assert written(draw(500, 375, [MIDDLE], texts=["dog 0.87"])).any()


def test_likely_fonts_come_first(fonts):
    names = ["Zapfino.ttf", "NotoSansCJK-Bold.ttc", "NotoSansCJK-Regular.ttc", "DejaVuSans.ttf", "LastResort.otf"]
    for name in (*names, "readme.txt"):
        (fonts / name).touch()
    found = [file.name for file in drawing._font_files()]
    assert found == ["DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "NotoSansCJK-Bold.ttc", "Zapfino.ttf"]


def test_line_breaks_become_spaces():
    broken, plain = (draw(500, 375, [MIDDLE], texts=[text]) for text in ("big\n dog", "big dog"))
    np.testing.assert_array_equal(broken, plain)


# --- sheets ---


def test_a_sheet_has_equal_cells():
    images = [Image.new("RGB", size, "red") for size in ((64, 64), (300, 30), (30, 300))]
    sheet = contact_sheet(images, columns=2, cell_height=60, cell_width=80, margin=10)
    assert sheet.size == (10 + 2 * (80 + 10), 10 + 2 * (60 + 10))
    red = has_color(np.asarray(sheet), (255, 0, 0))
    first, second, third, fourth = (red[y : y + 60, x : x + 80] for y, x in ((10, 10), (10, 100), (80, 10), (80, 100)))
    assert first.sum() == 60 * 60 and second.sum() == 80 * 8 and third.sum() == 6 * 60 and fourth.sum() == 0
    assert red.sum() == first.sum() + second.sum() + third.sum()
    np.testing.assert_array_equal(first, first[::-1, ::-1])  # in the middle of its cell


def test_a_sheet_is_no_wider_than_its_images():
    assert contact_sheet([blank(80, 60)], columns=4, cell_height=60, cell_width=80, margin=5).size == (90, 70)


def test_a_sheet_of_nothing():
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([])


def test_captions_stand_below_their_images():
    images = [Image.new("RGB", (80, 60), "red")] * 3
    options = {"columns": 2, "cell_height": 60, "cell_width": 80, "margin": 10}
    plain = contact_sheet(images, **options)
    captions = ["first\nof three", "", "very long " * 20]
    sheet = contact_sheet(images, captions=captions, **options)
    extra = (sheet.height - plain.height) // 2
    assert sheet.width == plain.width and extra > 0
    pixels = np.asarray(sheet)
    for row, column, written in ((0, 0, True), (0, 1, False), (1, 0, True), (1, 1, False)):
        y, x = 10 + row * (70 + extra) + 60, 10 + column * 90
        assert bool((pixels[y : y + extra, x : x + 80] < 100).all(axis=-1).any()) == written
        assert (pixels[y : y + extra, x + 80 : x + 90] == 255).all()  # none reaches its neighbor
    assert has_color(pixels, (255, 0, 0)).sum() == 3 * 60 * 80  # none is on an image


def test_each_image_has_a_caption_or_none_has():
    with pytest.raises(ValueError, match="1 captions for 2 images"):
        contact_sheet([blank(9, 9)] * 2, captions=["one"])


def test_some_outlines_are_dashed():
    boxes = np.array([[10, 10, 200, 100], [220, 150, 450, 350]], np.float32)
    labels = np.array([0, 1])
    mixed = draw_boxes(blank(500, 375), boxes, labels=labels, dashed=np.array([True, False]))
    first = draw_boxes(blank(500, 375), boxes[:1], labels=labels[:1], dashed=True)
    both = draw_boxes(first, boxes[1:], labels=labels[1:])
    np.testing.assert_array_equal(mixed, both)
    assert (np.asarray(mixed) != np.asarray(draw_boxes(blank(500, 375), boxes, labels=labels))).any()
