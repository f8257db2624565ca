"""Splits: images that several splits or files share, and splits that differ in what they hold."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath

import numpy as np
from jaxtyping import Float

from multibox.data.check import content_digest, content_size
from multibox.data.class_names import BACKGROUND
from multibox.data.records import CheckedImage
from multibox.data.sample import compare_classes, source_stem
from multibox.data.splits import split_kind
from multibox.doctor.survey import Finding, Split, Survey
from multibox.messages import counted, quoted

FEWEST_IMAGES, FEWEST_OBJECTS = 20, 50
"""Below, a split is too small to tell detectors apart."""

VIDEO_WORDS = re.compile(r"video|vid\b|frame|clip|cam|seq|mov\b|mp4|avi\b", re.IGNORECASE)
SHORTEST_VIDEO = 5
"""Frames of a video."""

FEWEST_VIDEOS = 5
"""Videos that must be there where no word says that they are videos."""

SURE = 4.0
"""Standard deviations beyond which a difference of two splits is no accident."""

Place = tuple[str, CheckedImage]
"""An image and the split that it is in."""


def find_split_faults(survey: Survey) -> Iterator[Finding]:
    """Yields splits that are missing or small, or that differ in their classes."""
    where = str(survey.path)
    if len(survey.splits) == 1:
        (split,) = survey.splits.values()
        if split_kind(split.name) not in ("val", "test"):
            yield Finding("split-missing", where, f"only '{split.name}'")
    for split in survey.splits.values():
        if split_kind(split.name) in ("val", "test") and len(split):
            objects = int(split.counts().sum())
            if len(split) < FEWEST_IMAGES or objects < FEWEST_OBJECTS:
                value = f"{counted(len(split), 'image')}, {counted(objects, 'object')}"
                yield Finding("split-small", where, value, split.name)
    for first, other in _pairs(survey):
        names, other_names = _real_classes(first), _real_classes(other)
        if names != other_names:
            what = compare_classes(f"'{first.name}'", names, f"'{other.name}'", other_names)
            yield Finding("classes-differ", where, what, other.name)


def _real_classes(split: Split) -> tuple[str, ...]:
    """Returns the class names without the background, which the reader keeps only where objects have it."""
    return tuple(name for name in split.class_names if name.lower() not in BACKGROUND)


def find_equal_images(survey: Survey) -> Iterator[Finding]:
    """Yields image files with the same content, in one split or in two."""
    by_size: dict[int, list[Place]] = defaultdict(list)
    for split in survey.splits.values():
        for image in split:
            by_size[content_size(image.sample)].append((split.name, image))
    for places in by_size.values():
        if len(places) > 1:
            by_content: dict[bytes, list[Place]] = defaultdict(list)
            for place in places:
                by_content[content_digest(place[1].sample)].append(place)
            for same in by_content.values():
                yield from shared(same, "image-twice", "image-in-two-splits", "the same as")


def shared(places: Sequence[Place], within: str, across: str, words: str) -> Iterator[Finding]:
    """Yields findings about images that are the same in some way.

    The last image stays: that of the last split, which is the one to score on. In its split, the first one stays.

    Args:
        places: The images, in the order of the splits.
        within: Kind of the finding where two of them are in one split; "" for none.
        across: Kind of the finding where they are in two splits.
        words: How the value begins, before the name of the other image.
    """
    last = places[-1][0]
    kept = next(image for split, image in places if split == last)
    for split, image in places:
        if image is kept:
            continue
        kind = within if split == last else across
        if kind:
            name = f"{words} {quoted(kept.sample.name)}" + ("" if split == last else f" of '{last}'")
            yield Finding(kind, str(image.stated.image), name, split)


def find_copies(survey: Survey) -> Iterator[Finding]:
    """Yields augmented copies of an image that are in two splits, by the names that Roboflow gives them."""
    by_source: dict[str, list[Place]] = defaultdict(list)
    for split in survey.splits.values():
        for image in split:
            stem = source_stem(image.sample.name)
            if stem != PurePath(image.sample.name).stem:
                by_source[stem].append((split.name, image))
    for places in by_source.values():
        yield from shared(places, "", "copies-in-two-splits", "a copy of the source of")


def find_shared_videos(survey: Survey) -> Iterator[Finding]:
    """Yields videos with frames in two splits. Names such as `street_0001.jpg` tell."""
    videos: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for split in survey.splits.values():
        for image in split:
            if (found := re.fullmatch(r"(.*?[^\W\d].*?)[-_. ]*\d+", source_stem(image.sample.name))) is not None:
                videos[found[1]][split.name] += 1
    class_names = {name.casefold() for split in survey.splits.values() for name in split.class_names}
    videos = {
        name: counts
        for name, counts in videos.items()
        if sum(counts.values()) >= SHORTEST_VIDEO and name.casefold().strip("-_. ") not in class_names
    }
    for name, counts in videos.items():
        if len(counts) > 1 and (len(videos) >= FEWEST_VIDEOS or VIDEO_WORDS.search(name)):
            where = ", ".join(f"{count} in '{split}'" for split, count in counts.items())
            yield Finding("video-in-two-splits", str(survey.path), f"{quoted(name)}: {where}")


def find_class_differences(survey: Survey) -> Iterator[Finding]:
    """Yields classes that a split lacks, or has much more or less often than the first split."""
    splits = [split for split in survey.splits.values() if len(split)]
    counts = [dict(zip(split.class_names, split.counts().tolist(), strict=True)) for split in splits]
    where = str(survey.path)
    for name in dict.fromkeys(name for each in counts for name in each):
        having = [split.name for split, each in zip(splits, counts, strict=True) if each.get(name)]
        if not having:
            yield Finding("class-unused", where, quoted(name))
            continue
        for split in splits:
            if split.name not in having:
                value = f"{quoted(name)}: {sum(each.get(name, 0) for each in counts)} in '{having[0]}', 0 here"
                yield Finding("class-missing-in-split", where, value, split.name)
    for one, other in _pairs(survey):
        having_one, having_other = _images_with(one), _images_with(other)
        shares_one, shares_other = _shares(one), _shares(other)
        for name in (each for each in one.class_names if each in having_other):
            share, other_share = having_one[name] / len(one), having_other[name] / len(other)
            if _apart(share, other_share, 2) and _is_sure(share, len(one), other_share, len(other)):
                value = f"{quoted(name)} is in {share:.0%} of the images of '{one.name}', here in {other_share:.0%}"
                yield Finding("class-skew", where, value, other.name)
                continue
            of_one, of_other = shares_one[name], shares_other[name]
            mean, other_mean = float(of_one.mean()), float(of_other.mean())
            if _apart(mean, other_mean, 2) and _is_far(of_one, of_other):
                value = (
                    f"{quoted(name)} is {mean:.0%} of the objects of an image of '{one.name}', here {other_mean:.0%}"
                )
                yield Finding("class-skew", where, value, other.name)


def find_size_differences(survey: Survey) -> Iterator[Finding]:
    """Yields splits whose boxes or images have other sizes than those of the first split."""
    where = str(survey.path)
    for one, other in _pairs(survey):
        sides, other_sides = _sides(one), _sides(other)
        if min(len(sides), len(other_sides)) >= FEWEST_OBJECTS:
            middle, other_middle = float(np.median(sides)), float(np.median(other_sides))
            if _apart(middle, other_middle, 1.5) and _distance(sides, other_sides) > 0.2:
                value = f"half of the objects are over {middle:.1%} of the image's side, here over {other_middle:.1%}"
                yield Finding("box-size-skew", where, value, other.name)
        if min(len(one), len(other)) >= FEWEST_IMAGES:
            pixels, other_pixels = (float(np.median(split.sizes.prod(axis=1))) for split in (one, other))
            if _apart(pixels, other_pixels, 2):
                value = f"the median has {pixels / 1e6:.2f} million pixels, here {other_pixels / 1e6:.2f} million"
                yield Finding("image-size-skew", where, value, other.name)


def _pairs(survey: Survey) -> Iterator[tuple[Split, Split]]:
    """Yields the split to learn from, with each of the others."""
    splits = [split for split in survey.splits.values() if len(split)]
    return ((splits[0], other) for other in splits[1:])


def _images_with(split: Split) -> Mapping[str, int]:
    """Returns the number of images that have each class."""
    found = np.unique(np.stack([split.image_of, split.labels], axis=1)[~split.crowd], axis=0)
    counts = np.bincount(found[:, 1], minlength=len(split.class_names))
    return dict(zip(split.class_names, counts.tolist(), strict=True))


def _shares(split: Split) -> Mapping[str, Float[np.ndarray, " images"]]:
    """Returns for each class its share of the objects of each image that has objects."""
    counts = np.zeros((len(split), len(split.class_names)))
    np.add.at(counts, (split.image_of[~split.crowd], split.labels[~split.crowd]), 1)
    counts = counts[counts.any(axis=1)]
    shares = counts / counts.sum(axis=1, keepdims=True)
    return dict(zip(split.class_names, shares.T, strict=True))


def _is_far(one: Float[np.ndarray, " one"], other: Float[np.ndarray, " other"]) -> bool:
    """Returns whether two means differ by more than accident (Welch's test)."""
    if min(len(one), len(other)) < FEWEST_IMAGES:
        return False
    deviation = (one.var(ddof=1) / len(one) + other.var(ddof=1) / len(other)) ** 0.5
    return bool(deviation > 0 and abs(one.mean() - other.mean()) > SURE * deviation)


def _is_sure(share: float, count: int, other_share: float, other_count: int) -> bool:
    """Returns whether two shares differ by more than accident (the test of two proportions)."""
    both = (share * count + other_share * other_count) / (count + other_count)
    deviation = (both * (1 - both) * (1 / count + 1 / other_count)) ** 0.5
    return bool(deviation > 0 and abs(share - other_share) > SURE * deviation)


def _apart(one: float, other: float, factor: float) -> bool:
    return max(one, other) > factor * min(one, other)


def _sides(split: Split) -> Float[np.ndarray, " objects"]:
    """Returns the root of each object's area as a fraction of the image's."""
    boxes = split.fractions[~split.crowd].astype(np.float64)
    sides: Float[np.ndarray, " objects"] = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    return sides


def _distance(one: Float[np.ndarray, " one"], other: Float[np.ndarray, " other"]) -> float:
    """Returns the largest distance between two distributions (Kolmogorov and Smirnov's)."""
    values = np.concatenate([one, other])
    below = [np.searchsorted(np.sort(each), values, side="right") / len(each) for each in (one, other)]
    return float(np.abs(below[0] - below[1]).max())
