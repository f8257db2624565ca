"""Whatever a user has (a path, bytes, a PIL image, an array, a tensor) as RGB, 8 bits, right way up.

The one place that decodes and resizes. What is transparent is shown on white; 16-bit values are scaled to 8.
"""

import io
import os
import struct
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image, UnidentifiedImageError

IMAGE_SUFFIXES = frozenset(
    {
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".mpo",
        ".png",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".webp",
        ".avif",
        ".ppm",
        ".pgm",
    }
)

Resize = Literal["bilinear", "antialias", "float"]

_UNREADABLE = (
    UnidentifiedImageError,
    OSError,
    SyntaxError,
    ValueError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,  # raised where a user turns warnings into errors
)

# by EXIF's orientation; 1 is as stored
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_HOLD_ORIENTATION = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # in Pillow's `info`


@runtime_checkable
class ArrayLike(Protocol):
    """A tensor of torch or another library, told by its `__array__`, so that none has to be imported here."""

    def __array__(self) -> np.ndarray: ...


BinaryFile = io.BufferedReader | io.BytesIO
Source = str | os.PathLike[str] | bytes | Image.Image | ArrayLike


def open_image(source: Source, *, at_least: tuple[int, int] | None = None) -> Image.Image:
    """The image as PIL's RGB, turned as its EXIF orientation says.

    Args:
        source: A path; the bytes of a file; a PIL image; or `uint8` pixels in RGB as an array or tensor,
            `(3, height, width)`, `(height, width, 3)` or gray `(height, width)`.
        at_least: A `(height, width)` that is enough for the caller: a JPEG may then be decoded at a half, a quarter or
            an eighth of its size, as long as it stays at least this large.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no image, is truncated or damaged, or the array is of another type or shape.
        TypeError: It is none of these things.
    """
    if isinstance(source, Image.Image):
        try:
            upright = _upright(source)
        except _UNREADABLE as error:  # PIL decodes what `Image.open` gave only now
            raise ValueError(_damage("the image", error)) from error
        return _rgb(upright.copy() if upright is source else upright, "the image")
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), f"{len(source)} bytes", at_least)
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        _check_file(name)
        with open(name, "rb") as file:
            return _decode(file, name, at_least)
    if isinstance(source, ArrayLike):
        return _from_array(np.asarray(source))
    raise TypeError(f"an image is a path, bytes, a PIL image, an array or a tensor, not {type(source).__name__}")


def read_image(source: Source) -> UInt8[np.ndarray, "3 height width"]:
    """The pixels of `open_image(source)`."""
    return to_array(open_image(source))


def open_pixels(source: Source, *, at_least: tuple[int, int] | None = None) -> UInt8[np.ndarray, "height width 3"]:
    """The pixels of `open_image`, color last, to be written to.

    Where simplejpeg is installed (the extra `fast`) it decodes RGB in JPEG files, to the same pixels in less time.

    Raises:
        FileNotFoundError: As `open_image`.
        ValueError: The same.
        TypeError: The same.
    """
    if isinstance(source, bytes | str | os.PathLike) and (decode := _fast_decoder()):
        pixels = _decode_fast(source, at_least, decode)
        if pixels is not None:
            return pixels
    return np.array(open_image(source, at_least=at_least))


def to_array(image: Image.Image) -> UInt8[np.ndarray, "3 height width"]:
    """The pixels of an RGB image, color first."""
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def image_size(path: str | os.PathLike[str]) -> tuple[tuple[int, int], int]:
    """`(height, width)` as stored, and the EXIF orientation (1 to 8), from the head of the file: nothing is decoded.

    Orientations 5 to 8 turn the image by a quarter, so that it is shown as `width` x `height`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no image.
    """
    name = os.fspath(path)
    _check_file(name)
    with open(name, "rb") as file:
        try:
            with Image.open(file) as image:
                width, height = image.size
                if image.format == "TIFF":  # PIL turns it already here
                    width, height = (int(image.getexif()[tag]) for tag in (0x0100, 0x0101))
                return (height, width), _orientation(image, file)
        except _UNREADABLE as error:
            raise ValueError(_damage(name, error)) from error


def resize(
    image: Image.Image, height: int, width: int, rule: Resize
) -> UInt8[np.ndarray, "3 height width"] | Float32[np.ndarray, "3 height width"]:
    """The whole image warped to `height` x `width`; its aspect ratio is not kept (as in the authors' code).

    `bilinear` interpolates between the four nearest pixels, as the authors' OpenCV does; `float` does the same without
    rounding the result to whole numbers, as torchvision's detectors do; `antialias` averages over all pixels that fall
    into one of the new, which is gentler where a large image is made small.
    """
    if rule == "antialias":
        return to_array(image.resize((width, height), Image.Resampling.BILINEAR))
    if rule == "float":
        return _interpolate(np.asarray(image), height, width)
    whole = (0, 0, image.width, image.height)
    return to_array(image.transform((width, height), Image.Transform.EXTENT, whole, Image.Resampling.BILINEAR))


def _interpolate(
    pixels: UInt8[np.ndarray, "rows columns 3"], height: int, width: int
) -> Float32[np.ndarray, "3 height width"]:
    """Bilinear interpolation in 32-bit floats, the outermost pixels going on beyond the edge."""
    above, below, down = _neighbors(len(pixels), height)
    left, right, along = _neighbors(pixels.shape[1], width)
    seen = pixels[above] * (1 - down)[:, None, None] + pixels[below] * down[:, None, None]
    seen = seen[:, left] * (1 - along)[:, None] + seen[:, right] * along[:, None]
    return np.ascontiguousarray(seen.transpose(2, 0, 1))


def _neighbors(
    count: int, wanted: int
) -> tuple[Int[np.ndarray, " wanted"], Int[np.ndarray, " wanted"], Float[np.ndarray, " wanted"]]:
    """For each of the new rows the two nearest of the old, and how far it lies from the first to the second."""
    place = np.maximum((np.arange(wanted, dtype=np.float32) + 0.5) * np.float32(count / wanted) - 0.5, 0)
    first = place.astype(np.int64)
    return first, np.minimum(first + 1, count - 1), place - first.astype(np.float32)


def _check_file(name: str) -> None:
    if not os.path.exists(name):
        raise FileNotFoundError(f"{name}: there is no such image")
    if os.path.isdir(name):
        raise ValueError(f"{name}: a folder, not an image")


def _decode(file: BinaryFile, name: str, at_least: tuple[int, int] | None) -> Image.Image:
    try:
        with Image.open(file) as image:
            if at_least is not None and image.format in ("JPEG", "MPO"):
                height, width = at_least if _orientation(image, file) < 5 else reversed(at_least)
                image.draft(None, (width, height))
            upright = _upright(image)
    except _UNREADABLE as error:
        raise ValueError(_damage(name, error)) from error
    return _rgb(upright, name)


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
    decode: Callable[..., UInt8[np.ndarray, "height width 3"]],
) -> UInt8[np.ndarray, "height width 3"] | None:
    """None where it is no upright RGB in JPEG, or anything is wrong with it: Pillow then decodes it, or says what."""
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        if not data.startswith(b"\xff\xd8"):
            return None
        with Image.open(io.BytesIO(data)) as image:
            if image.mode != "RGB" or _orientation(image) != 1:
                return None
            if at_least is not None:
                image.draft(None, at_least[::-1])
            return decode(data, "RGB", min_height=image.height, min_width=image.width)
    except _UNREADABLE:
        return None


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF orientation says; what says so is then taken away, so that it is turned once.

    Not PIL's own `exif_transpose`, which writes all of EXIF anew, and fails where any tag of it is malformed.
    """
    image.load()  # PIL itself turns a TIFF here, and finds EXIF that comes after the pixels of a PNG
    turn = _TURNS.get(_orientation(image))
    if turn is None:
        return image
    turned = image.transpose(turn)
    for key in _HOLD_ORIENTATION:
        turned.info.pop(key, None)
    return turned


def _orientation(image: Image.Image, file: BinaryFile | None = None) -> int:
    """EXIF's 1 to 8; 1 where it says nothing, or nothing that makes sense.

    PNG's own `getexif` decodes all pixels, since EXIF may come after them; with its `file`, only where there is EXIF.
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
    here = file.tell()
    file.seek(8)
    kind = b""
    while kind != b"eXIf" and len(head := file.read(8)) == 8:
        kind = head[4:]
        file.seek(int.from_bytes(head[:4]) + 4, os.SEEK_CUR)  # the chunk and its check sum
    file.seek(here)
    return kind == b"eXIf"


def _damage(name: str, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"{name}: not an image that can be read here; save it as JPEG or PNG"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"{name}: too large to be decoded safely ({error}); make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"
    return f"{name}: the image is truncated or damaged ({error})"


def _rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel, in PIL's several forms
        values = np.asarray(image).astype(np.float64).clip(0, 65535) / 257
        return Image.fromarray(values.round().astype(np.uint8)).convert("RGB")
    if image.mode in ("F", "LAB"):
        raise ValueError(f"{name}: an image of mode {image.mode} has no agreed colors here; save it as RGB, 8 bits")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_array(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be uint8, 0 to 255, but the array is {pixels.dtype}")
    if pixels.ndim == 3 and pixels.shape[0] == 3:
        pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise ValueError(
            f"pixels must be (3, height, width), (height, width, 3) or (height, width), but the array is {pixels.shape}"
        )
    return Image.fromarray(np.ascontiguousarray(pixels))
