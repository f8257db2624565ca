"""Turn an image in any form (a path, bytes, a PIL image, an array, a tensor) into upright 8-bit RGB pixels.

This is the only place that decodes and resizes images. Transparent pixels are shown on white, and 16-bit values are
scaled to 8 bits. Only the formats of `FORMATS` are opened, and no image of more than `max_pixels` is decoded.
"""

import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import chain
from typing import Literal, NamedTuple, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int, Int32, UInt8
from PIL import Image, UnidentifiedImageError

from multibox.messages import quoted

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "AVIF": (".avif",),
    "PPM": (".ppm", ".pgm"),
}
"""The formats that are opened, by Pillow's name, with the suffixes by which they are found in folders.

Pillow would open more; some of its plugins are little used, and its EPS plugin starts Ghostscript.
"""

IMAGE_SUFFIXES = frozenset(chain.from_iterable(FORMATS.values()))

MAX_PIXELS = 89_478_485
"""The default limit on pixels: as RGB they take a quarter of a GiB. Pillow warns above the same number."""

Resize = Literal["bilinear", "antialias", "float"]

ColorOrder = Literal["rgb", "bgr"]
"""Order of the colors in an array of pixels. OpenCV's are `bgr`."""

_JPEG_START = b"\xff\xd8"

_OTHER_FORMATS = {b"%!PS": "EPS", b"\xc5\xd0\xd3\xc6": "EPS", b"%PDF": "PDF"}
"""Formats by their first bytes that files with the name of an image may have, but that are not opened."""

_UNREADABLE = (
    UnidentifiedImageError,
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # an error if the user turned warnings into errors
)


class _Refused(ValueError):
    """An image that Pillow could decode, but this module refuses; callers see a `ValueError` with the same message."""


# by EXIF orientation; 1 means as stored
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HOLD_ORIENTATION = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # keys of Pillow's `info`


@runtime_checkable
class ArrayLike(Protocol):
    """An array or tensor of any library, recognized by `__array__`, so that no library has to be imported here."""

    def __array__(self) -> np.ndarray: ...


class ImageHeader(NamedTuple):
    """What a file says of its image before it is decoded.

    Attributes:
        format: Format of the content, a key of `FORMATS`.
        mode: Pillow's name for the kind of pixels: `RGB`, `L`, `CMYK`, `I;16`, ...
        has_alpha: Whether there is an alpha channel, or a transparent color.
        is_animated: Whether there are several frames.
        orientation: The EXIF orientation, 1 to 8.
    """

    format: str
    mode: str
    has_alpha: bool
    is_animated: bool
    orientation: int


class DecodedImage(NamedTuple):
    """The pixels of an image, in an array of their own that may be written to.

    Attributes:
        pixels: RGB, color last. A JPEG may have been decoded at a reduced size.
        height: Height of the upright image at full size, in pixels.
        width: Width of the upright image at full size, in pixels.
    """

    pixels: UInt8[np.ndarray, "rows columns 3"]
    height: int
    width: int


BinaryFile = io.BufferedReader | io.BytesIO
Source = str | os.PathLike[str] | bytes | Image.Image | ArrayLike


def open_image(
    source: Source,
    *,
    at_least: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    channels: ColorOrder = "rgb",
) -> Image.Image:
    """Opens an image as PIL's RGB, turned as its EXIF orientation says.

    Args:
        source: A path; the bytes of a file; a PIL image; or `uint8` pixels, in RGB unless `channels` says otherwise, as
            an array or tensor of shape `(3, height, width)`, `(height, width, 3)` or, for gray, `(height, width)`.
        at_least: A `(height, width)` that is enough for the caller. A JPEG may then be decoded at a half, a quarter or
            an eighth of its size, as long as it stays at least this large.
        max_pixels: Largest number of pixels, width times height, of a file that is decoded. The number is read from the
            header of the file. PIL images and arrays are in memory already and are not limited.
        channels: Order of the colors in an array or tensor: `rgb`, or `bgr` as OpenCV has it. Files and PIL images hold
            their own order, and are refused with `bgr`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The source is not an image in a supported format, is truncated or damaged, has too many pixels or
            only transparent ones; the array has another type or shape, or one that fits both `(3, height, width)` and
            `(height, width, 3)`; or `channels` is unknown, or `bgr` for something else than an array.
        TypeError: The source is none of these things.
    """
    return _open(source, at_least, max_pixels, channels)[0]


def read_image(source: Source, *, channels: ColorOrder = "rgb") -> UInt8[np.ndarray, "3 height width"]:
    """Returns the pixels of `open_image(source, channels=channels)`: RGB, with the color as the first axis."""
    return to_array(open_image(source, channels=channels))


def decode_image(
    source: Source,
    *,
    at_least: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    channels: ColorOrder = "rgb",
) -> DecodedImage:
    """Decodes an image as `open_image` does. The result also holds its full size.

    If simplejpeg is installed (the extra `fast`), it decodes upright RGB JPEG files: to the same pixels, in less time.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The image is refused for one of the reasons that `open_image` lists.
        TypeError: The source is of a type that `open_image` does not take.
    """
    if channels == "rgb" and isinstance(source, bytes | str | os.PathLike) and (decode := _fast_decoder()):
        decoded = _decode_fast(source, at_least, max_pixels, decode)
        if decoded is not None:
            return decoded
    image, (height, width) = _open(source, at_least, max_pixels, channels)
    return DecodedImage(np.array(image), height, width)


def to_array(image: Image.Image) -> UInt8[np.ndarray, "3 height width"]:
    """Returns the pixels of an RGB image, with the color as the first axis."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def image_size(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[tuple[int, int], int]:
    """Returns the stored `(height, width)` and the EXIF orientation (1 to 8) of a file, from its header alone.

    Orientations 5 to 8 turn the image by a quarter, so that it is shown `width` pixels high and `height` pixels wide.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not an image in a supported format, or has more than `max_pixels`.
    """
    name = os.fspath(path)
    _check_file(name)
    with open(name, "rb") as file, _opened(file, name, max_pixels) as image:
        width, height = image.size
        if image.format == "TIFF":  # Pillow has turned the size already
            width, height = (int(image.getexif()[tag]) for tag in (0x0100, 0x0101))
        return (height, width), _orientation(image, file)


def image_header(path: str | os.PathLike[str], *, max_pixels: int = MAX_PIXELS) -> ImageHeader:
    """Returns what the header of a file says of its image. Raises as `image_size`."""
    name = os.fspath(path)
    _check_file(name)
    with open(name, "rb") as file, _opened(file, name, max_pixels) as image:
        kind = "JPEG" if image.format == "MPO" else str(image.format)
        # the further pictures of a phone's JPEG are previews, and not the frames of an animation
        animated = kind != "JPEG" and getattr(image, "is_animated", False)
        return ImageHeader(kind, image.mode, image.has_transparency_data, animated, _orientation(image, file))


def resize(
    image: Image.Image | UInt8[np.ndarray, "rows columns 3"], height: int, width: int, rule: Resize
) -> UInt8[np.ndarray, "3 height width"] | Float32[np.ndarray, "3 height width"]:
    """Warps the whole image to `height` x `width`. The aspect ratio is not kept, as in the authors' code.

    Args:
        image: An RGB image, or its pixels with the color as the last axis.
        height: Height of the result in pixels.
        width: Width of the result in pixels.
        rule: `bilinear` interpolates between the four nearest pixels in OpenCV's whole numbers, as the authors' code
            and most PyTorch ports do: its pixels are those of `cv2.resize`. `float` interpolates without rounding, as
            torchvision's detectors do. `antialias` averages over all pixels that fall into a new one, which keeps more
            of a large image that becomes small.

    Raises:
        ValueError: There is no such rule.
    """
    match rule:
        case "float":
            return _interpolate(np.asarray(image), height, width)
        case "antialias":
            if not isinstance(image, Image.Image):
                image = Image.fromarray(image)
            small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        case "bilinear":
            small = _interpolate_as_opencv(np.asarray(image), height, width)
        case unknown:
            raise ValueError(f"rule must be one of {', '.join(get_args(Resize))}, but is {quoted(unknown)}")
    return np.ascontiguousarray(small.transpose(2, 0, 1))


def _interpolate_as_opencv(
    pixels: UInt8[np.ndarray, "rows columns 3"], height: int, width: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Interpolates as OpenCV's INTER_LINEAR does for 8-bit pixels, to the bit (modules/imgproc/src/resize.cpp).

    First columns are blended and cut off to 16 bits, then rows: each product is cut off to a quarter of a gray level,
    and their sum is rounded. OpenCV's special cases need none here: these steps copy an image of equal size, and give
    the rounded mean of 2 x 2 pixels at half the size.
    """
    rows, columns, colors = pixels.shape
    above, below, to_above, to_below = _neighbors_as_opencv(rows, height)
    left, right, to_left, to_right = _neighbors_as_opencv(columns, width)
    to_left[left == right], to_right[left == right] = 2048, 0  # at the border; rows keep both weights there
    left, right = ((each[:, None] * colors + np.arange(colors)).ravel() for each in (left, right))
    to_left, to_right = np.repeat(to_left, colors), np.repeat(to_right, colors)

    lines = pixels.reshape(rows, columns * colors)
    resized = np.empty((height, width * colors), np.uint8)
    for block in _blocks(height):
        used, places = np.unique([above[block], below[block]], return_inverse=True)
        kept = lines.take(used, axis=0)
        blended = kept.take(left, axis=1) * to_left
        blended += kept.take(right, axis=1) * to_right
        blended >>= 4
        upper, lower = (blended.take(each, axis=0) for each in places.reshape(2, -1))
        upper *= to_above[block, None]
        upper >>= 16
        lower *= to_below[block, None]
        lower >>= 16
        upper += lower
        upper += 2
        upper >>= 2
        resized[block] = upper
    return resized.reshape(height, width, colors)


def _neighbors_as_opencv(
    count: int, wanted: int
) -> tuple[
    Int[np.ndarray, " wanted"], Int[np.ndarray, " wanted"], Int32[np.ndarray, " wanted"], Int32[np.ndarray, " wanted"]
]:
    """Returns the two old rows nearest to each new row, and the weights of both in whole 2048ths."""
    place = ((np.arange(wanted) + 0.5) * (1 / (wanted / count)) - 0.5).astype(np.float32)
    first = np.floor(place)
    weight = place - first
    rows = first.astype(np.int64)
    to_first, to_second = (np.rint(each * np.float32(2048)).astype(np.int32) for each in (1 - weight, weight))
    return rows.clip(0, count - 1), (rows + 1).clip(0, count - 1), to_first, to_second


def _interpolate(
    pixels: UInt8[np.ndarray, "rows columns 3"], height: int, width: int
) -> Float32[np.ndarray, "3 height width"]:
    """Interpolates bilinearly in 32-bit floats; beyond the edge, the outermost pixels are repeated."""
    rows, columns, colors = pixels.shape
    above, below, down = _neighbors(rows, height)
    left, right, along = _neighbors(columns, width)
    left, right = ((each * colors + np.arange(colors)[:, None]).ravel() for each in (left, right))
    to_left, to_right = np.tile(1 - along, colors), np.tile(along, colors)

    lines = pixels.reshape(rows, columns * colors)
    resized = np.empty((colors, height, width), np.float32)
    for block in _blocks(height):
        seen = lines.take(above[block], axis=0) * (1 - down[block, None])
        seen += lines.take(below[block], axis=0) * down[block, None]
        blended = seen.take(left, axis=1)
        blended *= to_left
        other = seen.take(right, axis=1)
        other *= to_right
        blended += other
        resized[:, block] = blended.reshape(-1, colors, width).transpose(1, 0, 2)
    return resized


def _blocks(height: int) -> Iterator[slice]:
    """Yields blocks of 32 rows: what is made of them stays in the cache, and in memory that the process has already.

    Arrays of whole images would be given back to the system after each step, and to get zeroed pages anew takes longer
    than to interpolate.
    """
    for start in range(0, height, 32):
        yield slice(start, start + 32)


def _neighbors(
    count: int, wanted: int
) -> tuple[Int[np.ndarray, " wanted"], Int[np.ndarray, " wanted"], Float[np.ndarray, " wanted"]]:
    """Returns the two old rows nearest to each new row, and how far the new row lies from the first to the second."""
    place = np.maximum((np.arange(wanted, dtype=np.float32) + 0.5) * np.float32(count / wanted) - 0.5, 0)
    first = place.astype(np.int64)
    return first, np.minimum(first + 1, count - 1), place - first.astype(np.float32)


def _open(
    source: Source, at_least: tuple[int, int] | None, max_pixels: int, channels: ColorOrder
) -> tuple[Image.Image, tuple[int, int]]:
    """Returns the image as RGB, right way up, and its full `(height, width)`; see `open_image`."""
    if channels not in get_args(ColorOrder):
        raise ValueError(f"channels must be one of {', '.join(get_args(ColorOrder))}, but is {quoted(channels)}")
    if channels != "rgb" and isinstance(source, Image.Image | bytes | str | os.PathLike):
        what = (
            os.fspath(source) if isinstance(source, str | os.PathLike) else f"an image of type {type(source).__name__}"
        )
        raise ValueError(
            f"{what}: channels='{channels}' is for arrays and tensors of pixels alone; files and PIL images hold the "
            "order of their colors, so leave it out for them"
        )
    if isinstance(source, Image.Image):
        with _translated("the image"):  # Pillow decodes an image from `Image.open` only now
            upright = _upright(source)
            return _rgb(upright.copy() if upright is source else upright, "the image"), (upright.height, upright.width)
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), f"the image of {len(source)} bytes", at_least, max_pixels)
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        _check_file(name)
        with open(name, "rb") as file:
            return _decode(file, name, at_least, max_pixels)
    if isinstance(source, ArrayLike):
        image = _from_array(np.asarray(source), channels)
        return image, (image.height, image.width)
    raise TypeError(f"an image is a path, bytes, a PIL image, an array or a tensor, not {type(source).__name__}")


def _check_file(name: str) -> None:
    if not os.path.exists(name):
        raise FileNotFoundError(f"{name}: there is no such image")
    if os.path.isdir(name):
        raise ValueError(f"{name}: a folder, not an image")


@contextmanager
def _translated(name: str, file: BinaryFile | None = None) -> Iterator[None]:
    """Turns the errors of Pillow and of this module into a `ValueError` that says what is wrong with the image."""
    try:
        yield
    except _Refused as refused:
        raise ValueError(str(refused)) from None
    except _UNREADABLE as error:
        raise ValueError(_damage(name, error, file)) from error


@contextmanager
def _opened(file: BinaryFile, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Opens a file in one of the `FORMATS` without decoding it. Checks `max_pixels`, and translates Pillow's errors."""
    with _translated(name, file), Image.open(file, formats=tuple(FORMATS)) as image:
        if image.width * image.height > max_pixels:
            raise _Refused(
                f"{name}: {image.width} x {image.height} are {image.width * image.height:,} pixels, but at most "
                f"{max_pixels:,} are decoded (max_pixels); make the image smaller"
            )
        yield image


def _decode(
    file: BinaryFile, name: str, at_least: tuple[int, int] | None, max_pixels: int
) -> tuple[Image.Image, tuple[int, int]]:
    with _opened(file, name, max_pixels) as image:
        if at_least is None or image.format not in ("JPEG", "MPO"):
            upright = _rgb(_upright(image), name)
            return upright, (upright.height, upright.width)
        full_size = image.height, image.width
        if _orientation(image, file) >= 5:  # the image is turned by a quarter after it is decoded
            full_size, at_least = full_size[::-1], at_least[::-1]
        image.draft(None, at_least[::-1])
        return _rgb(_upright(image), name), full_size


@cache
def _fast_decoder() -> Callable[..., UInt8[np.ndarray, "height width 3"]] | None:
    try:
        from simplejpeg import decode_jpeg
    except ImportError:
        return None
    decode: Callable[..., UInt8[np.ndarray, "height width 3"]] = decode_jpeg
    return decode


def _decode_fast(
    source: bytes | str | os.PathLike[str],
    at_least: tuple[int, int] | None,
    max_pixels: int,
    decode: Callable[..., UInt8[np.ndarray, "height width 3"]],
) -> DecodedImage | None:
    """Decodes a sound, upright RGB JPEG. Returns None for anything else, which Pillow then decodes or refuses."""
    try:
        if isinstance(source, bytes):
            data = source
        else:
            with open(source, "rb") as file:  # the rest of another file is not read
                data = start + file.read() if (start := file.read(2)) == _JPEG_START else b""
        if not data.startswith(_JPEG_START):
            return None
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
            if image.mode != "RGB" or image.width * image.height > max_pixels or _orientation(image) != 1:
                return None
            height, width = image.height, image.width
            if at_least is not None:
                image.draft(None, at_least[::-1])
            pixels = decode(data, "RGB", min_height=image.height, min_width=image.width)
            return DecodedImage(pixels, height, width)
    except _UNREADABLE:
        return None


def _upright(image: Image.Image) -> Image.Image:
    """Turns the image as its EXIF orientation says, and removes the orientation, so that it is not turned twice.

    PIL's own `exif_transpose` rewrites all of EXIF, and fails if any of its tags is malformed.
    """
    image.load()  # Pillow turns a TIFF here, and finds EXIF that comes after the pixels of a PNG
    turn = _TURNS.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    for key in _HOLD_ORIENTATION:
        turned.info.pop(key, None)
    return turned


def _orientation(image: Image.Image, file: BinaryFile | None = None) -> int:
    """Returns the EXIF orientation, 1 to 8; 1 if it is missing or invalid.

    For a PNG, `getexif` decodes all pixels, because EXIF may come after them. Given the `file`, this function does so
    only if the file has EXIF.
    """
    decode = file is None or image.format != "PNG" or _has_exif_chunk(file)
    try:
        value = (image.getexif() if decode else Image.Image.getexif(image)).get(0x0112)
    except (
        struct.error,
        SyntaxError,
        ValueError,
        KeyError,
        TypeError,
    ):  # malformed EXIF is no reason to lose an image
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _has_exif_chunk(file: BinaryFile) -> bool:
    """Returns whether a PNG file has a chunk with EXIF."""
    here = file.tell()
    file.seek(8)
    kind = b""
    while kind != b"eXIf" and len(head := file.read(8)) == 8:
        kind = head[4:]
        file.seek(int.from_bytes(head[:4]) + 4, os.SEEK_CUR)  # skip the chunk and its checksum
    file.seek(here)
    return kind == b"eXIf"


def _damage(name: str, error: Exception, file: BinaryFile | None) -> str:
    if isinstance(error, UnidentifiedImageError):
        start = file.read(4) if file is not None and file.seek(0) == 0 else None
        if start == b"":
            return f"{name}: the file is empty"
        why = f", because its content is {_OTHER_FORMATS[start]}" if start in _OTHER_FORMATS else ""
        return f"{name}: not an image that can be read here{why}; save it as JPEG or PNG"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"{name}: too large to be decoded safely ({error}); make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"
    return f"{name}: the image is truncated or damaged ({error})"


def _rgb(image: Image.Image, name: str) -> Image.Image:
    """Converts an image of any mode that has agreed colors to RGB.

    Raises:
        ValueError: The mode has no agreed colors, or every pixel is transparent.
    """
    if image.mode.startswith("I"):  # 16 bits a pixel, in Pillow's several forms
        values = np.asarray(image).astype(np.float64).clip(0, 65535) / 257
        return Image.fromarray(values.round().astype(np.uint8)).convert("RGB")
    if image.mode in ("F", "LAB"):
        raise _Refused(f"{name}: an image of mode {image.mode} has no agreed colors here; save it as RGB, 8 bits")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        if layer.getchannel("A").getextrema() == (0, 0):
            raise _Refused(
                f"{name}: every pixel is transparent (alpha 0), so nothing can be seen; save the image without its "
                "alpha channel"
            )
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_array(pixels: np.ndarray, channels: ColorOrder) -> Image.Image:
    """Makes an image of `uint8` pixels, gray or in color with the colors in the first or last axis.

    Raises:
        ValueError: The array has another type or shape, or both its first and its last axis could hold the colors.
    """
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be uint8, 0 to 255, but the array is {pixels.dtype}")
    if pixels.size == 0:
        raise ValueError(f"pixels must be there, but the array {pixels.shape} has none: its height or width is 0")
    if pixels.ndim == 3 and pixels.shape[0] == pixels.shape[2] == 3:
        raise ValueError(
            f"which axis of the array {pixels.shape} holds the colors, the first or the last? Both have 3 values. If "
            "the last, pass PIL.Image.fromarray(array); if the first, PIL.Image.fromarray(array.transpose(1, 2, 0))"
        )
    if pixels.ndim == 3 and pixels.shape[0] == 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"pixels must be (3, height, width), (height, width, 3) or (height, width), but the array is {pixels.shape}"
        )
    return Image.fromarray(np.ascontiguousarray(pixels if channels == "rgb" else pixels[:, :, ::-1]))
