import io
import pickle
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multibox import images
from multibox.images import decode_image, image_size, open_image, read_image, resize, to_array

# EXIF orientations: the side of the shown image that the first stored row holds, and that of the first stored column
ORIENTATIONS = {
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def open_pixels(source, **options):
    return decode_image(source, **options).pixels


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def stored_as(shown, orientation):
    """Returns the pixels that a camera stores at this orientation, by EXIF's definition."""
    height, width, _ = shown.shape
    first_row, first_column = ORIENTATIONS[orientation]
    shape = (height, width) if first_row in ("top", "bottom") else (width, height)
    stored = np.zeros((*shape, 3), np.uint8)
    for row in range(shape[0]):
        for column in range(shape[1]):
            place = {}
            for side, steps in ((first_row, row), (first_column, column)):
                place.update(
                    {
                        "top": {"y": steps},
                        "bottom": {"y": height - 1 - steps},
                        "left": {"x": steps},
                        "right": {"x": width - 1 - steps},
                    }[side]
                )
            stored[row, column] = shown[place["y"], place["x"]]
    return stored


def with_orientation(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


# --- what is turned ---


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation(orientation, kind, tmp_path):
    shown = noise(4, 6)
    file = tmp_path / "turned"
    options = {"lossless": True} if kind == "WEBP" else {}
    stored = Image.fromarray(stored_as(shown, orientation))
    stored.save(file, kind, exif=with_orientation(orientation), **options)
    np.testing.assert_array_equal(np.asarray(open_image(file)), shown)
    with Image.open(file) as opened:
        np.testing.assert_array_equal(np.asarray(open_image(opened)), shown)
    assert image_size(file) == ((stored.height, stored.width), orientation)


def test_an_image_is_turned_once():
    data = encoded(Image.fromarray(noise(4, 6)), "PNG", exif=with_orientation(6))
    once = open_image(data)
    assert once.size == (4, 6)
    assert open_image(once).size == (4, 6)


def test_exif_behind_the_pixels_of_a_png(tmp_path):
    shown = noise(4, 6)
    plain = encoded(Image.fromarray(stored_as(shown, 8)), "PNG")
    end = png_chunk(b"IEND", b"")
    assert plain.endswith(end)
    exif = png_chunk(b"eXIf", with_orientation(8).tobytes().removeprefix(b"Exif\0\0"))
    file = tmp_path / "late.png"
    file.write_bytes(plain.removesuffix(end) + exif + end)
    assert image_size(file) == ((6, 4), 8)
    np.testing.assert_array_equal(np.asarray(open_image(file)), shown)


@pytest.mark.parametrize("nonsense", [0, 9, 4711])
def test_an_orientation_that_makes_no_sense_is_none(nonsense, tmp_path):
    file = tmp_path / "odd.jpg"
    Image.fromarray(noise(4, 6)).save(file, exif=with_orientation(nonsense))
    assert image_size(file) == ((4, 6), 1)
    assert open_image(file, at_least=(2, 2)).size == (3, 2)


def exif_with(*entries):
    """Returns little-endian EXIF with one directory of entries `(tag, type, count, the four bytes of the value)`."""
    rows = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + rows + b"\0\0\0\0"


TURNED = (0x0112, 3, 1, struct.pack("<I", 6))


@pytest.mark.parametrize(
    "exif, shown",
    [
        # another tag that must be of 16 bits, and has more: Pillow reads it, and cannot write it again
        (exif_with(TURNED, (0x0103, 4, 1, struct.pack("<I", 70_000))), (4, 6)),
        (exif_with(TURNED), (4, 6)),
        (exif_with((0x0112, 11, 1, struct.pack("<f", 6.0))), (6, 4)),  # whole numbers only
        (b"Exif\0\0what is no directory", (6, 4)),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_malformed_exif_loses_no_image(tmp_path, kind, exif, shown):
    file = tmp_path / "odd"
    file.write_bytes(data := encoded(Image.fromarray(noise(4, 6)), kind, exif=exif))
    with Image.open(file) as opened:
        for source in (file, data, opened):
            assert open_image(source).size == shown
            assert open_image(open_image(source)).size == shown
    (height, width), orientation = image_size(file)
    assert (height, width) == (4, 6)
    assert (orientation in (5, 6, 7, 8)) == (shown == (4, 6))


def test_an_image_whose_orientation_stands_in_xmp_is_turned_once():
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    once = open_image(encoded(Image.fromarray(noise(4, 6)), "JPEG", xmp=xmp))
    assert once.size == open_image(once).size == (4, 6)


def test_image_size_does_not_decode(tmp_path):
    file = tmp_path / "half.png"
    data = encoded(Image.fromarray(noise(100, 60)), "PNG")
    file.write_bytes(data[: len(data) // 2])
    assert image_size(file) == ((100, 60), 1)
    with pytest.raises(ValueError, match=r"half\.png: the image is truncated or damaged"):
        open_image(file)


# --- colors ---


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_gray(kind):
    gray = Image.new("L", (6, 4), 77)
    image = open_image(encoded(gray, kind))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(to_array(image), 77)


@pytest.mark.parametrize("suffix", sorted(images.IMAGE_SUFFIXES))
def test_pillow_agrees_on_the_suffixes_of_the_formats(suffix):
    (kind,) = [kind for kind, suffixes in images.FORMATS.items() if suffix in suffixes]
    Image.init()
    theirs = Image.registered_extensions()[suffix]
    assert kind == ("JPEG" if theirs == "MPO" else theirs)  # Pillow's plugin for JPEG opens MPO


def test_the_documented_formats_are_those_that_are_opened():
    text = (Path(__file__).parent.parent / "docs" / "data.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:3] for line in text.partition("| format | suffixes |\n")[2].splitlines()[1:]]
    rows = rows[: [len(row) for row in [*rows, []]].index(0)]
    documented = {
        kind.strip(" `"): tuple(suffixes.replace("`", "").replace(",", "").split()) for kind, suffixes in rows
    }
    assert documented == images.FORMATS
    assert f"{images.MAX_PIXELS:,}" in text


@pytest.mark.parametrize("kind", ["ICO", "PCX", "TGA", "SGI", "EPS", "PDF"])
def test_other_formats_are_not_opened(kind, tmp_path, monkeypatch):
    """Pillow can open all but the last; to decode EPS it would start Ghostscript."""
    monkeypatch.setattr("subprocess.check_call", None)
    monkeypatch.setattr("subprocess.Popen", None)
    data = encoded(Image.fromarray(noise(16, 16)), kind)
    file = tmp_path / "renamed.png"
    file.write_bytes(data)
    for read in (open_image, open_pixels, image_size):
        with pytest.raises(
            ValueError, match=r"renamed\.png: not an image that can be read here.*; save it as JPEG or PNG"
        ):
            read(file)
    with pytest.raises(ValueError, match="not an image"):
        open_image(data)


def test_cmyk():
    cmyk = Image.new("CMYK", (16, 8), (0, 255, 255, 0))
    red, green, blue = read_image(encoded(cmyk, "JPEG", quality=100))[:, 4, 8]
    assert red >= 250 and green <= 5 and blue <= 5


def test_palette():
    colors = noise(1, 4)
    image = Image.fromarray(np.array([[0, 1], [2, 3]], np.uint8)).convert("P")
    image.putpalette(colors.tobytes())
    for kind in ("PNG", "GIF", "BMP"):
        np.testing.assert_array_equal(np.asarray(open_image(encoded(image, kind))), colors.reshape(2, 2, 3))


WHITE_RED = [[255, 255, 255], [255, 0, 0]]  # a transparent pixel, then an opaque one


def palette_with_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 255, 255, 0, 0])
    image.putpixel((1, 0), 1)
    return image, {"transparency": 0}


def layer():
    return Image.fromarray(np.array([[[0, 0, 255, 0], [255, 0, 0, 255]]], np.uint8)), {}


def color_key():
    return Image.fromarray(np.array([[[0, 0, 255], [255, 0, 0]]], np.uint8)), {"transparency": (0, 0, 255)}


@pytest.mark.parametrize("make", [palette_with_transparency, layer, color_key])
def test_what_is_transparent_is_white(make):
    image, options = make()
    np.testing.assert_array_equal(np.asarray(open_image(encoded(image, "PNG", **options)))[0], WHITE_RED)


def opaque_nowhere():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 255])
    return {
        "RGBA": (Image.new("RGBA", (2, 1), (255, 0, 0, 0)), {}),
        "LA": (Image.new("LA", (2, 1), (9, 0)), {}),
        "palette": (image, {"transparency": 0}),
        "color key": (Image.new("RGB", (2, 1), (0, 0, 255)), {"transparency": (0, 0, 255)}),
    }


@pytest.mark.parametrize("mode", opaque_nowhere())
def test_an_image_that_is_transparent_everywhere_is_refused(mode, tmp_path):
    """It would become a white image, in which nothing is found, and nobody would know why."""
    image, options = opaque_nowhere()[mode]
    file = tmp_path / "clear.png"
    file.write_bytes(data := encoded(image, "PNG", **options))
    for source, name in ((file, file.name), (data, f"the image of {len(data)} bytes"), (Image.open(file), "the image")):
        for read in (open_image, open_pixels, read_image):
            with pytest.raises(
                ValueError, match=rf"{name}: every pixel is transparent \(alpha 0\).* without its alpha"
            ):
                read(source)
    assert image_size(file) == ((1, 2), 1)


def test_half_transparent():
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 51))  # a fifth
    assert open_image(encoded(half, "PNG")).getpixel((0, 0)) == (255, 204, 204)


def test_gray_with_transparency():
    image = Image.fromarray(np.array([[[9, 0], [9, 255]]], np.uint8))
    assert image.mode == "LA"
    np.testing.assert_array_equal(read_image(encoded(image, "PNG"))[0], [[255, 9]])


@pytest.mark.parametrize("kind, byte_order", [("PNG", "<"), ("TIFF", "<"), ("TIFF", ">"), ("PPM", "<")])
def test_16_bits_are_scaled_to_8(kind, byte_order):
    values = np.array([[0, 257, 256 * 128, 65535]])
    image = Image.fromarray(values.astype(f"{byte_order}u2"))
    np.testing.assert_array_equal(read_image(encoded(image, kind))[1], [[0, 1, 128, 255]])


def test_32_bit_whole_numbers_are_read_as_16_bits():
    image = Image.fromarray(np.array([[-5, 0, 65535, 70000]], np.int32))
    np.testing.assert_array_equal(read_image(encoded(image, "TIFF"))[2], [[0, 0, 255, 255]])


def test_one_bit():
    image = Image.fromarray(np.array([[True, False]]))
    assert image.mode == "1"
    np.testing.assert_array_equal(read_image(encoded(image, "PNG")), [[[255, 0]]] * 3)


def test_decimal_numbers_are_refused(tmp_path):
    file = tmp_path / "depth.tif"
    Image.fromarray(np.zeros((2, 2), np.float32)).save(file)
    with pytest.raises(ValueError, match=r"depth\.tif: an image of mode F has no agreed colors"):
        open_image(file)


# --- where it comes from ---


@pytest.mark.parametrize("name", ["SCENE.JPG", "고양이 Ä.Png", "x.TIF", "x.jpe", "x.JFIF", "x.mpo", "x.avif"])
def test_names(name, tmp_path):
    file = tmp_path / name
    Image.new("RGB", (6, 4), "red").save(file)
    assert file.suffix.lower() in images.IMAGE_SUFFIXES
    for source in (file, str(file), file.read_bytes()):
        assert open_image(source).size == (6, 4)


def test_arrays_in_their_three_shapes():
    pixels = noise(4, 6)
    np.testing.assert_array_equal(read_image(pixels), pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(read_image(pixels.transpose(2, 0, 1)), pixels.transpose(2, 0, 1))
    np.testing.assert_array_equal(read_image(pixels[..., 0]), np.stack([pixels[..., 0]] * 3))


@pytest.mark.parametrize("other", [1, 3, 640])
def test_an_array_whose_colors_could_be_in_either_axis_is_refused(other):
    pixels = np.zeros((3, other, 3), np.uint8)
    for read in (open_image, open_pixels, read_image):
        with pytest.raises(ValueError, match=rf"which axis of the array \(3, {other}, 3\) holds the colors.*fromarray"):
            read(pixels)
    assert open_image(Image.fromarray(pixels)).size == pixels.shape[1::-1]
    assert open_image(Image.fromarray(pixels.transpose(1, 2, 0))).size == (3, other)


def test_a_tensor():
    torch = pytest.importorskip("torch")
    pixels = noise(4, 6).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(torch.from_numpy(pixels.copy())), pixels)


def test_an_image_of_pil_is_not_written_to():
    source = Image.fromarray(noise(4, 6))
    before = source.tobytes()
    open_image(source).paste("red", (0, 0, 6, 4))
    assert source.tobytes() == before


def test_workers_can_send_images():
    image = open_image(encoded(Image.fromarray(noise(4, 6)), "PNG"))
    assert pickle.loads(pickle.dumps(image)).tobytes() == image.tobytes()


def test_floats_are_refused():
    with pytest.raises(ValueError, match="pixels must be uint8, 0 to 255, but the array is float32"):
        open_image(np.zeros((3, 4, 6), np.float32))


@pytest.mark.parametrize("shape", [(4, 6, 4), (2, 3, 4, 6), (7,)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="pixels must be"):
        open_image(np.zeros(shape, np.uint8))


@pytest.mark.parametrize("shape", [(3, 0, 6), (0, 100, 3), (0, 0), (0,)])
def test_an_array_without_pixels_is_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"the array {shape} has none: its height or width is 0")):
        open_image(np.zeros(shape, np.uint8))


def test_refusals_are_plain_value_errors(tmp_path):
    clear = Image.new("RGBA", (6, 4), (0, 0, 0, 0))
    clear.save(tmp_path / "clear.png")
    for source in (clear, tmp_path / "clear.png"):
        with pytest.raises(
            ValueError, match=r"every pixel is transparent \(alpha 0\), so nothing can be seen"
        ) as caught:
            open_image(source)
        assert type(caught.value) is ValueError
    with pytest.raises(ValueError, match="at most 20 are decoded") as caught:
        open_image(tmp_path / "clear.png", max_pixels=20)
    assert type(caught.value) is ValueError


# --- what is broken ---


def test_a_truncated_jpeg(tmp_path):
    data = encoded(Image.fromarray(noise(64, 64)), "JPEG")
    file = tmp_path / "cut.jpg"
    file.write_bytes(data[: len(data) // 2])
    with Image.open(file) as opened:  # not decoded yet
        for source in (file, opened):
            with pytest.raises(ValueError, match="the image is truncated or damaged"):
                open_image(source)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "the file is empty"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image that can be read here, because its content is EPS; save it"),
        (b"This is a letter, not an image.\n", "not an image that can be read here; save it as JPEG or PNG"),
    ],
)
def test_a_file_that_is_no_image(content, what, tmp_path):
    file = tmp_path / "letter.jpg"
    file.write_bytes(content)
    for read in (open_image, image_size):
        with pytest.raises(ValueError, match=rf"letter\.jpg: {what}"):
            read(file)
    with pytest.raises(ValueError, match=f"the image of {len(content)} bytes: {what}"):
        open_image(content)


@pytest.mark.parametrize("read", [open_image, image_size])
def test_a_file_that_is_not_there(read, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg: there is no such image"):
        read(tmp_path / "nowhere.jpg")
    with pytest.raises(ValueError, match="a folder, not an image"):
        read(tmp_path)


@pytest.mark.parametrize("read", [read_image, open_pixels])
def test_an_array_may_hold_opencvs_order_of_colors(read):
    rgb = noise(4, 6)
    bgr = rgb[..., ::-1]
    expected = read(rgb)
    for source in (bgr, bgr.transpose(2, 0, 1), torch.from_numpy(bgr.copy())):
        np.testing.assert_array_equal(read(source, channels="bgr"), expected)
    gray = rgb[..., 0]
    np.testing.assert_array_equal(read(gray, channels="bgr"), read(gray))


def test_files_and_pil_images_hold_their_own_order_of_colors(tmp_path):
    image = Image.fromarray(noise(4, 6))
    file = tmp_path / "some.jpg"
    image.save(file)
    for source, name in (
        (file, str(file)),
        (str(file), str(file)),
        (file.read_bytes(), "an image of type bytes"),
        (image, "an image of type Image"),
    ):
        for read in (open_image, read_image, decode_image):
            with pytest.raises(
                ValueError, match="channels='bgr' is for arrays and tensors of pixels alone; files and"
            ) as e:
                read(source, channels="bgr")
            assert str(e.value).startswith(f"{name}: ")


def test_something_else():
    with pytest.raises(TypeError, match=r"an image is a path|Type-check"):  # the types are checked in the tests
        open_image(4711)


READERS = (open_image, open_pixels, image_size)


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_no_more_than_max_pixels_are_decoded(read, kind, tmp_path, monkeypatch):
    """Whatever Pillow's own limit is; the header alone decides, even if the file is truncated."""
    file = tmp_path / "large"
    file.write_bytes(data := encoded(Image.fromarray(noise(30, 20)), kind))
    read(file, max_pixels=600)
    for limit in (None, 10**9):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for content in (data, data[: len(data) * 3 // 4]):
            file.write_bytes(content)
            with pytest.raises(
                ValueError, match=r"large: 20 x 30 are 600 pixels, but at most 599 are decoded \(max_pixels\); make"
            ):
                read(file, max_pixels=599)
    assert Image.MAX_IMAGE_PIXELS == 10**9


def png_header(height, width):
    start = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", start) + png_chunk(b"IDAT", b"")


@pytest.mark.parametrize("read", READERS)
def test_the_default_limit_holds_without_pillows(read, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    file = tmp_path / "large.png"
    file.write_bytes(png_header(images.MAX_PIXELS // 1000 + 1, 1000))
    with pytest.raises(ValueError, match=r"large\.png: 1000 x 89479 are 89,479,000 pixels, but at most 89,478,485 are"):
        read(file)
    file.write_bytes(png_header(images.MAX_PIXELS // 1000, 1000))
    assert image_size(file) == ((89478, 1000), 1)


def test_the_fast_decoder_keeps_to_max_pixels(fast):
    data = encoded(photograph(40, 60), "JPEG")
    for at_least in (None, (5, 5)):
        with pytest.raises(ValueError, match="60 x 40 are 2,400 pixels, but at most 2,399 are decoded"):
            open_pixels(data, at_least=at_least, max_pixels=2399)
    assert not fast
    open_pixels(data, max_pixels=2400)
    assert fast == [data]


def test_images_in_memory_have_no_limit():
    pixels = noise(4, 6)
    assert open_image(Image.fromarray(pixels), max_pixels=1).size == open_image(pixels, max_pixels=1).size == (6, 4)


def test_a_decompression_bomb(tmp_path, monkeypatch):
    file = tmp_path / "bomb.png"
    Image.new("RGB", (20, 20)).save(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)  # PIL warns above it, and refuses above twice as many
    for read in (open_image, image_size):
        with pytest.raises(ValueError, match=r"bomb\.png: too large to be decoded safely"):
            read(file)


def test_a_very_large_image_only_warns(tmp_path, monkeypatch):
    file = tmp_path / "large.png"
    Image.new("RGB", (20, 20)).save(file)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    with pytest.warns(Image.DecompressionBombWarning):
        assert open_image(file).size == (20, 20)
    with pytest.raises(ValueError, match="too large to be decoded safely"):  # warnings are errors here
        open_image(file)


# --- JPEG at a part of its size ---


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("at_least", [(100, 150), (150, 100), (75, 75), (300, 400), (301, 10), (1000, 1000)])
def test_at_least(at_least, orientation, kind):
    stored = Image.new("RGB", (800, 600), "red")
    options = {"save_all": True, "append_images": [stored]} if kind == "MPO" else {}
    data = encoded(stored, kind, exif=with_orientation(orientation), **options)
    whole, part = open_image(data), open_image(data, at_least=at_least)
    assert whole.size == ((800, 600) if orientation < 5 else (600, 800))
    # libjpeg halves up to three times; every halving that leaves enough is taken
    enough = [
        scale for scale in (8, 4, 2, 1) if whole.height // scale >= at_least[0] and whole.width // scale >= at_least[1]
    ]
    scale = enough[0] if enough else 1
    assert part.size == (whole.width // scale, whole.height // scale)


def test_at_least_is_for_jpeg_alone():
    assert open_image(encoded(Image.new("RGB", (80, 60)), "PNG"), at_least=(2, 2)).size == (80, 60)


# --- pixels, by simplejpeg where it is installed ---


@pytest.fixture
def fast(monkeypatch):
    """Returns a list that will hold the JPEG data that simplejpeg decodes without an error."""
    simplejpeg = pytest.importorskip("simplejpeg")
    decoded = []

    def decode(*args, **kwargs):
        pixels = simplejpeg.decode_jpeg(*args, **kwargs)
        decoded.append(args[0])
        return pixels

    monkeypatch.setattr(images, "_fast_decoder", lambda: decode)
    return decoded


def photograph(height, width):
    """Returns a smooth image with some noise, as photographs are."""
    coarse = Image.fromarray(noise(7, 9, seed=1)).resize((width, height), Image.Resampling.BICUBIC)
    return Image.fromarray((0.9 * np.asarray(coarse) + 0.1 * noise(height, width)).astype(np.uint8))


JPEG_OPTIONS = [
    {},
    {"subsampling": 0},
    {"subsampling": 1, "progressive": True},
    {"subsampling": 2, "progressive": True, "optimize": True},
    {"quality": 30, "restart_marker_rows": 1},
    {"quality": 100, "exif": with_orientation(1)},
    {"keep_rgb": True},
]


@pytest.mark.parametrize("options", JPEG_OPTIONS, ids=lambda options: ", ".join(options) or "plain")
@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
@pytest.mark.parametrize("at_least", [None, (230, 300), (120, 155), (60, 70), (10, 10)])
def test_the_fast_decoder_gives_pillows_pixels(fast, kind, at_least, options):
    data = encoded(photograph(243, 317), kind, **options)
    pixels = open_pixels(data, at_least=at_least)
    assert fast == [data]
    np.testing.assert_array_equal(pixels, np.asarray(open_image(data, at_least=at_least)))
    assert pixels.flags.writeable and pixels.flags.c_contiguous


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411"])
@pytest.mark.parametrize(("height", "width"), [(243, 317), (16, 16), (17, 1), (1, 9), (1, 1)])
def test_the_fast_decoder_gives_pillows_pixels_for_each_subsampling(fast, height, width, subsampling):
    """simplejpeg's encoder has more subsamplings than Pillow's. The sizes are no whole blocks."""
    encode = pytest.importorskip("simplejpeg").encode_jpeg
    pixels = np.ascontiguousarray(np.asarray(photograph(height, width)))
    data = bytes(encode(pixels, quality=85, colorsubsampling=subsampling))
    for at_least in (None, (height // 3 + 1, width // 3 + 1), (1, 1)):
        expected = np.asarray(open_image(data, at_least=at_least))
        np.testing.assert_array_equal(open_pixels(data, at_least=at_least), expected)
    assert len(fast) == 3


@pytest.mark.parametrize(
    "data",
    [
        encoded(photograph(40, 60), "PNG"),
        encoded(photograph(40, 60).convert("L"), "JPEG"),
        encoded(photograph(40, 60).convert("CMYK"), "JPEG"),
        encoded(photograph(40, 60).convert("L"), "JPEG", progressive=True),
        encoded(photograph(40, 60), "JPEG", exif=with_orientation(3)),
        encoded(photograph(40, 60), "JPEG", exif=with_orientation(6)),
    ],
    ids=["PNG", "gray", "CMYK", "gray, progressive", "upside down", "turned"],
)
def test_what_the_fast_decoder_is_not_for(fast, data):
    np.testing.assert_array_equal(open_pixels(data), np.asarray(open_image(data)))
    assert not fast


@pytest.mark.parametrize("keep", [0, 2, 300, 0.5, 0.98])
def test_what_is_broken_is_said_as_by_pillow(fast, tmp_path, keep):
    data = encoded(photograph(64, 64), "JPEG")
    file = tmp_path / "cut.jpg"
    file.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    said = []
    for read in (open_image, open_pixels):
        with pytest.raises(ValueError, match=r"cut\.jpg: ") as caught:
            read(file)
        said.append(str(caught.value))
    assert said[0] == said[1] and not fast
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg: there is no such image"):
        open_pixels(tmp_path / "nowhere.jpg")


def test_a_bomb_is_not_decoded_fast_either(fast, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    with pytest.raises(ValueError, match="too large to be decoded safely"):
        open_pixels(encoded(photograph(40, 60), "JPEG"))
    assert not fast


def test_pixels_without_the_fast_decoder(monkeypatch, tmp_path):
    monkeypatch.setattr(images, "_fast_decoder", lambda: None)
    file = tmp_path / "some.jpg"
    photograph(40, 60).save(file)
    for source in (file, file.read_bytes(), photograph(40, 60), np.asarray(photograph(40, 60))):
        np.testing.assert_array_equal(open_pixels(source), np.asarray(open_image(source)))


# --- resizing ---


def bilinear(pixels, height, width):
    """Resizes as OpenCV's INTER_LINEAR does, in loops: pixel centers lie at halves, and the border is repeated."""
    rows, columns, _ = pixels.shape
    resized = np.zeros((height, width, 3))
    for row in range(height):
        for column in range(width):
            y = (row + 0.5) * rows / height - 0.5
            x = (column + 0.5) * columns / width - 0.5
            top, left = int(np.floor(y)), int(np.floor(x))
            for corner_y, weight_y in ((top, 1 - (y - top)), (top + 1, y - top)):
                for corner_x, weight_x in ((left, 1 - (x - left)), (left + 1, x - left)):
                    inside = np.clip(corner_y, 0, rows - 1), np.clip(corner_x, 0, columns - 1)
                    resized[row, column] += weight_y * weight_x * pixels[inside]
    return resized


SIZES = pytest.mark.parametrize("size", [(7, 11), (5, 4), (20, 30), (3, 40), (1, 1)])


@SIZES
def test_plain_bilinear_is_opencvs(size):
    pixels = noise(7, 11)
    ours = resize(Image.fromarray(pixels), *size, "bilinear").transpose(1, 2, 0).astype(np.float64)
    np.testing.assert_allclose(ours, bilinear(pixels, *size), atol=1)


@SIZES
def test_float_bilinear_is_not_rounded(size):
    pixels = noise(7, 11)
    ours = resize(Image.fromarray(pixels), *size, "float")
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours.transpose(1, 2, 0), bilinear(pixels, *size), atol=1e-3)


def test_float_bilinear_is_torchvisions():
    pixels = noise(375, 500)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), size=(300, 300), mode="bilinear", align_corners=False
    )
    ours = resize(Image.fromarray(pixels), 300, 300, "float")
    np.testing.assert_allclose(ours, theirs[0].numpy(), atol=1e-3)


def test_antialias_averages_over_all_pixels():
    fine = np.zeros((64, 64, 3), np.uint8)
    fine[::2] = 255
    coarse = resize(Image.fromarray(fine), 8, 8, "antialias")
    assert abs(coarse.astype(int) - 127).max() <= 6


@pytest.mark.parametrize("rule", ["bilinear", "antialias", "float"])
def test_resize_gives_the_size_and_keeps_a_plain_color(rule):
    resized = resize(Image.new("RGB", (50, 20), (1, 200, 99)), 30, 40, rule)
    assert resized.shape == (3, 30, 40)
    np.testing.assert_array_equal(resized.reshape(3, -1).T, [[1, 200, 99]] * 1200)
