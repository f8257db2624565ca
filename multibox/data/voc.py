"""Read PASCAL VOC's XML: one file for each image, with the corners of its boxes in pixels."""

import codecs
import math
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from multibox.data.records import Entry, ImageAnnotation, to_numbers
from multibox.messages import shortened

SIDES = ("xmin", "ymin", "xmax", "ymax")

USUAL = ("", "0", "false", "no", "unspecified")
"""Texts by which tools say nothing of an object, in lower case: it is not truncated, and its pose is not specified."""

MARKED = ("1", "true", "yes")
"""Texts that mark an object as difficult, in any case."""

NO_ENCODINGS = ("idna", "punycode", "raw-unicode-escape", "unicode-escape")
"""Codecs of Python that no XML is written in. Those for domain names take time that grows with the length squared."""


def parse(file: Path) -> ImageAnnotation:
    """Returns what an XML file states about its image. `fault` says why a file cannot be read."""
    try:
        root = _root(file.read_bytes())
    except OSError as error:
        return ImageAnnotation(file, f"the file cannot be read ({error.strerror})")
    except DefusedXmlException as error:  # entities that grow without bound, or that fetch other files
        what = f"the XML holds what no annotation needs and an attack would: {shortened(str(error), 200)}"
        return ImageAnnotation(file, what)
    except (ParseError, ValueError, LookupError) as error:
        return ImageAnnotation(file, f"not well-formed XML ({shortened(str(error), 200)})")
    if root.tag != "annotation":
        return ImageAnnotation(file, f"<{shortened(root.tag, 60)}> is not VOC's <annotation>")
    size = root.findtext("size/height"), root.findtext("size/width")
    stated = tuple(text.strip() for tag in ("path", "filename") if (text := root.findtext(tag)) and text.strip())
    entries = (_entry(file, number, element) for number, element in enumerate(root.findall("object"), start=1))
    return ImageAnnotation(file, "", stated, size, tuple(entries))


def _entry(file: Path, number: int, element: Element) -> Entry:
    name = (element.findtext("name") or "").strip()
    where = f"{file}, object {number}" + (f" ({shortened(name, 60)})" if name else "")
    difficult = (element.findtext("difficult") or "").strip().lower() in MARKED
    return Entry(where, name, _box(element), difficult, aside=tuple(_aside(element)))


def _aside(element: Element) -> Iterator[str]:
    """Yields the names of what an object has beside its class, its box and its mark."""
    for tag in dict.fromkeys(part.tag for part in element):
        texts = {(part.text or "").strip().lower() for part in element.findall(tag)}
        has_parts = any(len(part) for part in element.findall(tag))
        if tag not in ("name", "bndbox", "difficult") and (has_parts or texts - set(USUAL)):
            yield tag


def _box(element: Element) -> list[float] | str:
    """Returns the corners of an object's box, or why there are none. An oriented box becomes the one around it."""
    parts = element.find("bndbox")
    found = {} if parts is None else {part.tag: part.text or "" for part in parts}
    texts = [found.get(side) for side in SIDES]
    try:
        if None not in texts:
            return to_numbers(texts)
        if element.find("robndbox") is not None:  # roLabelImg: the center, the size, and an angle in radians
            x, y, width, height, angle = to_numbers(
                element.findtext(f"robndbox/{part}") for part in ("cx", "cy", "w", "h", "angle")
            )
            return _around(x, y, width, height, angle)
    except ValueError as error:
        return str(error)
    return f"no <{SIDES[texts.index(None)]}> in <bndbox>"


def _around(x: float, y: float, width: float, height: float, angle: float) -> list[float]:
    """Returns the corners of the upright box around a box that is turned by an angle in radians."""
    cos, sin = abs(math.cos(angle)), abs(math.sin(angle))
    half_width, half_height = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    return [x - half_width, y - half_height, x + half_width, y + half_height]


def _root(data: bytes) -> Element:
    try:
        root: Element = fromstring(data)
    except (ValueError, ParseError):  # the parser knows neither East Asia's encodings nor UTF-32
        declared = re.match(rb"""\W*xml\b[^>]*\bencoding\s*=\s*["']([\w.-]+)""", data[:400].replace(b"\0", b""))
        encoding = codecs.lookup(declared[1].decode("ascii")).name if declared else ""
        if encoding in ("", "utf-8", "utf-16", *NO_ENCODINGS):
            raise
        root = fromstring(data.decode(encoding))  # the parser ignores the declaration of text that is decoded
    return root
