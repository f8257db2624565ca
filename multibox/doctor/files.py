"""Files: what the readers reported, names, and what the headers of images say."""

import os
import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path

import numpy as np

from multibox.data.files import nfc
from multibox.data.records import CheckedImage, Object
from multibox.doctor.survey import Finding, Survey
from multibox.images import FORMATS
from multibox.messages import counted

TINY_SIDE = 32
HUGE_PIXELS = 25_000_000
LONGEST_IMAGE = 4.0
"""Long side by short side."""

PLAIN_MODES = ("1", "L", "P", "RGB", "LA", "PA", "RGBA")
"""Kinds of pixels that become RGB without a choice."""


def find_reported(survey: Survey) -> Iterator[Finding]:
    """Yields what the readers reported. What they say of every split is said once, of the whole set."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for split in survey.splits.values():
        for problem in split.problems:
            if problem.kind == "class-background-unused" and survey.has_background:
                continue  # objects of another split have it
            found.setdefault((problem.kind, problem.where, f"{problem.what} ({problem.done})"), []).append(split.name)
        if not len(split):
            found[("split-unusable", str(survey.path), f"split '{split.name}'")] = [split.name]
    for (kind, where, value), splits in found.items():
        yield Finding(kind, where, value, splits[0] if len(splits) == 1 else "")
    yield from _unused_images(survey)


def _unused_images(survey: Survey) -> Iterator[Finding]:
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for image in survey.unused:
        by_folder[image.parent].append(image)
    for folder, images in by_folder.items():
        are = "is" if len(images) == 1 else "are"
        value = f"{counted(len(images), 'image')}, such as {images[0].name}, {are} in no split (left out)"
        yield Finding("image-outside-splits", str(folder), value)


def find_odd_sizes(survey: Survey) -> Iterator[Finding]:
    """Yields images that are tiny, huge or very long."""
    for split, image in _images(survey):
        width, height = image.sample.width, image.sample.height
        where, size = str(image.stated.image), f"{width} x {height} pixels"
        if min(width, height) < TINY_SIDE:
            yield Finding("image-tiny", where, size, split)
        elif max(width, height) > LONGEST_IMAGE * min(width, height):
            yield Finding("image-long", where, size, split)
        if width * height > HUGE_PIXELS:
            yield Finding("image-huge", where, size, split)


def find_odd_names(survey: Survey) -> Iterator[Finding]:
    """Yields names of images that collide or that other systems refuse."""
    splits = {image.stated.image: split for split, image in _images(survey)}
    in_case = _groups(splits, lambda path: str(path).casefold())
    in_stem = _groups(splits, lambda path: str(path.with_suffix("")))
    for kind, groups in (("name-case", in_case), ("name-shared", in_stem)):
        for first, *others in groups:
            for path in others:
                yield Finding(kind, str(path), f"{first.name} is there too", splits[path])
    for path, split in splits.items():
        if portable_stem(path.stem) != path.stem:
            yield Finding("name-unportable", str(path), repr(path.name), split)


def portable_stem(stem: str) -> str:
    """Returns the name of a file, without suffix, as all systems take it: in composed Unicode, as Windows allows it."""
    name = re.sub(r'[<>:"|?*\\/\x00-\x1f]', "_", nfc(stem)).strip() or "image"
    return re.sub(r"^(con|prn|aux|nul|com\d|lpt\d)(?=\.|$)", r"\1_", name, flags=re.IGNORECASE)


def find_in_headers(survey: Survey) -> Iterator[Finding]:
    """Yields what the headers of the image files say."""
    for split, image in _images(survey):
        path = image.stated.image
        header = survey.headers[path]
        where = str(path)
        if path.suffix.lower() not in FORMATS[header.format]:
            yield Finding("image-suffix", where, f"the content is {header.format}", split)
        if header.mode not in PLAIN_MODES:
            yield Finding("image-mode", where, f"mode {header.mode}", split)
        if header.has_alpha:
            yield Finding("image-alpha", where, f"mode {header.mode}", split)
        if header.is_animated:
            yield Finding("image-animated", where, header.format, split)
        if header.orientation != 1:
            kind, value = _turned(image, header.orientation)
            yield Finding(kind, where, f"orientation {header.orientation}; {value}", split)


def _turned(image: CheckedImage, orientation: int) -> tuple[str, str]:
    """Returns which of the shown and the stored pixels the boxes of a turned image fit."""
    shown = image.sample.height, image.sample.width
    if orientation < 5:
        return "exif-upside-down", "both have the same size"
    if image.stated.size == shown[::-1] != shown:
        return "exif-stored", "the size of the stored pixels is stated"
    if image.stated.normalized:
        return "exif-turned", "the boxes are fractions, which fit both"
    if fits_only_stored(image):
        return "exif-contradicts", f"a box reaches beyond {shown[1]} x {shown[0]} pixels"
    return "exif-turned", f"the boxes are within {shown[1]} x {shown[0]} pixels"


def fits_only_stored(image: CheckedImage) -> bool:
    """Returns whether all boxes of an image that EXIF turns by a quarter are within the stored pixels only."""
    boxes = [entry.box for entry in image.stated.objects if isinstance(entry, Object)]
    if not boxes:
        return False
    right, bottom = np.array(boxes, np.float64)[:, 2:].max(axis=0).tolist()
    width, height = image.sample.width, image.sample.height
    return not (right <= width + 1 and bottom <= height + 1) and right <= height + 1 and bottom <= width + 1


def _images(survey: Survey) -> Iterator[tuple[str, CheckedImage]]:
    """Yields each image file once, with the first split that it is in."""
    seen: set[str] = set()
    for split in survey.splits.values():
        for image in split:
            path = os.path.abspath(image.stated.image)
            if path not in seen:
                seen.add(path)
                yield split.name, image


def _groups(paths: Iterable[Path], key: Callable[[Path], Hashable]) -> Iterator[list[Path]]:
    """Yields each several paths that have the same key."""
    found: dict[Hashable, list[Path]] = defaultdict(list)
    for path in paths:
        found[key(path)].append(path)
    return (group for group in found.values() if len(group) > 1)
