"""Boxes and classes: doubled, copied, misplaced or unlikely boxes, and names that may be one class."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from multibox.boxes import area, box_iou
from multibox.data.check import content_digest, content_size
from multibox.data.class_names import BACKGROUND, folded_class
from multibox.data.records import CheckedImage
from multibox.doctor.survey import Finding, Split, Survey, short_place
from multibox.messages import counted, quoted

SAME_OBJECT = 0.9
"""Overlap from which two boxes are taken for those of one object."""

SIMILAR = 0.6
"""Overlap from which a box inside another of its class may be the same object."""

SMALLEST_SIDE = 2.0
"""Pixels; boxes with a shorter side are slips."""

LONGEST_SHAPE = 20.0
"""Long side by short side of a box; beyond, it is a sliver."""

MANY_IMAGES = 0.02
"""Fraction of a split's images in which the same box is no accident."""

GRIDS = (10, 5)
"""Steps in pixels that coordinates may have been rounded to."""

ROUNDED = 0.01
"""Pixels that fractions with six digits may be beside a step."""


def find_unlikely_boxes(survey: Survey) -> Iterator[Finding]:
    """Yields boxes that are tiny, slivers or whole images, and areas that do not fit their boxes."""
    for split in survey.splits.values():
        width, height = (split.boxes[:, 2:] - split.boxes[:, :2]).T
        short, long = np.minimum(width, height), np.maximum(width, height)
        tiny = (short < SMALLEST_SIDE) & ~split.crowd
        for index in np.flatnonzero(tiny):
            yield _at(split, index, "box-tiny", f"{width[index]:.2f} x {height[index]:.2f} pixels")
        for index in np.flatnonzero(~tiny & (long > LONGEST_SHAPE * short) & ~split.crowd):
            yield _at(split, index, "box-sliver", f"{width[index]:.0f} x {height[index]:.0f} pixels")
        alone = np.bincount(split.image_of, minlength=len(split)) == 1
        for index in np.flatnonzero(_is_whole(split) & ~alone[split.image_of]):
            yield _at(split, index, "box-whole-image", f"{width[index]:.0f} x {height[index]:.0f} pixels")
        largest = area(np.array([entry.box for entry in split.objects], np.float64).reshape(-1, 4)).tolist()
        for place, entry in enumerate(split.objects):
            if entry.area is not None and entry.area > 1.05 * largest[place] + 1 and not split.crowd[place]:
                value = f"area {entry.area:.0f}, but the box has {largest[place]:.0f} square pixels"
                yield _at(split, place, "area-exceeds-box", value)


def find_doubled_boxes(survey: Survey) -> Iterator[Finding]:
    """Yields boxes that may be those of one object."""
    for split in survey.splits.values():
        for one, other, overlap, inside in overlapping_pairs(split, SIMILAR):
            first, second = split.class_names[split.labels[one]], split.class_names[split.labels[other]]
            value = f"overlap {overlap:.2f} with {short_place(split.objects[one].where)} ({first})"
            if overlap >= SAME_OBJECT:
                kind = "box-nearly-twice" if first == second else "box-two-classes"
                yield _at(split, other, kind, value if first == second else f"{second}; {value}")
            elif first == second and inside:
                yield _at(split, other, "box-in-box", value)


def overlapping_pairs(split: Split, least: float) -> Iterator[tuple[int, int, float, bool]]:
    """Yields each two objects of an image that overlap by `least` or more, and whether one is inside the other.

    Crowd regions are left out.
    """
    start = 0
    for image in split:
        truth = image.sample.truth
        if len(truth) > 1:
            overlaps = np.triu(box_iou(truth.boxes, truth.boxes), k=1)
            overlaps[truth.crowd] = overlaps[:, truth.crowd] = 0
            for one, other in np.argwhere(overlaps >= least).tolist():
                overlap = float(overlaps[one, other])
                small, large = sorted(area(truth.boxes[[one, other]]).tolist())
                # a contained box overlaps by just the ratio of the areas
                yield start + one, start + other, overlap, overlap >= 0.98 * small / large
        start += len(truth)


def find_copied_labels(survey: Survey) -> Iterator[Finding]:
    """Yields images whose labels are equal, and boxes that stand in many images."""
    for split in survey.splits.values():
        copied: set[int] = set()
        groups: dict[tuple[object, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(split):
            if image.objects and not _is_one_whole(image):
                groups[_content(image)].append(index)
        for content, members in groups.items():
            indices = _other_images(split, members)
            if len(indices) >= (2 if len(content) > 1 else 3):
                copied.update(indices)
                first = split.images[indices[0]].sample.name
                for index in indices[1:]:
                    image = split.images[index]
                    value = f"the {counted(len(content), 'box')} of {first}; {len(indices)} images have them"
                    yield Finding("labels-copied", image.stated.where, value, split.name)
        yield from _crowded_positions(split, copied)


def _other_images(split: Split, members: list[int]) -> list[int]:
    """Returns images of their own: without those that share a file of labels or the content of an earlier one."""
    if len(members) < 2:
        return members
    of_file = {split.images[index].stated.where: index for index in reversed(members)}
    samples = {index: split.images[index].sample for index in sorted(of_file.values())}
    sizes = Counter(content_size(each) for each in samples.values())
    of_content: dict[bytes | int, int] = {}
    for index, sample in samples.items():
        of_content.setdefault(content_digest(sample) if sizes[content_size(sample)] > 1 else index, index)
    return list(of_content.values())


def _crowded_positions(split: Split, copied: set[int]) -> Iterator[Finding]:
    many = max(5, MANY_IMAGES * len(split))
    kept = ~np.isin(split.image_of, list(copied)) & ~_is_whole(split) & ~split.crowd
    places = np.flatnonzero(kept)
    if len(places) < many:
        return
    _, group, count = np.unique(split.fractions[places].round(4), axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    for number in np.flatnonzero(count >= many):
        members = places[group == number]
        images = len(set(split.image_of[members].tolist()))
        if images >= many:
            box = [round(value, 2) for value in split.boxes[members[0]].tolist()]
            yield _at(split, members[0], "position-crowded", f"box {box} stands in {images} images")


def find_coarse_coordinates(survey: Survey) -> Iterator[Finding]:
    """Yields splits whose coordinates are on a grid, or count pixels in two ways."""
    for split in survey.splits.values():
        stated = [
            (entry.box, image.sample.width, image.sample.height, image.stated.normalized)
            for image in split
            for entry in image.objects
        ]
        if len(stated) < 30:
            continue
        boxes = np.array([box for box, *_ in stated], np.float64)
        sides = np.array([(width, height) for _, width, height, _ in stated], np.float64)
        normalized = np.array([each[3] for each in stated])
        pixels = np.where(normalized[:, None], boxes * np.tile(sides, 2), boxes)
        yield from _grid(survey, split, pixels, sides)
        if not normalized.all():
            yield from _two_counts(survey, split, boxes[~normalized])


def _grid(
    survey: Survey, split: Split, boxes: Float[np.ndarray, "boxes 4"], sides: Float[np.ndarray, "boxes 2"]
) -> Iterator[Finding]:
    edges = np.abs(boxes - np.tile(sides, 2)) < ROUNDED  # the edge of the image is where it is
    for step in GRIDS:
        beside = np.abs(boxes - step * np.round(boxes / step))
        if np.mean(((beside < ROUNDED) | edges).all(axis=1)) >= 0.95:
            value = f"{len(boxes)} boxes on multiples of {step} pixels"
            yield Finding("boxes-round", str(survey.path), value, split.name)
            return


def _two_counts(survey: Survey, split: Split, boxes: Float[np.ndarray, "boxes 4"]) -> Iterator[Finding]:
    low = boxes[:, :2]
    zero, one, two = (int((low == value).any(axis=1).sum()) for value in (0, 1, 2))
    # objects that are cut by the edge make a peak at the first pixel: at 0 or at 1, not at both
    if min(zero, one) >= 10 and min(zero, one) > 4 * two:
        value = f"{zero} boxes begin at 0, {one} at 1, but {two} at 2"
        yield Finding("pixels-mixed", str(survey.path), value, split.name)


def find_odd_classes(survey: Survey) -> Iterator[Finding]:
    """Yields class names that may be one class, no class, or no name."""
    seen: set[Finding] = set()
    for split in survey.splits.values():
        for finding in _odd_classes(survey, split):
            if finding not in seen:
                seen.add(finding)
                yield finding


def _odd_classes(survey: Survey, split: Split) -> Iterator[Finding]:
    where = str(survey.path)
    by_plain: dict[str, list[str]] = defaultdict(list)
    for name in split.class_names:
        by_plain[_plain(name)].append(name)
    for names in by_plain.values():
        for one, other in combinations(names, 2):
            if folded_class(one) != folded_class(other):
                yield Finding("class-similar", where, f"{quoted(one)} and {quoted(other)}")
    for name, count in zip(split.class_names, split.counts().tolist(), strict=True):
        if name != name.strip():
            yield Finding("class-blanks", where, quoted(name))
        if name.strip().isdecimal():
            yield Finding("class-placeholder", where, quoted(name))
        if name.strip().lower() in BACKGROUND and count:
            yield Finding("class-background", where, f"{quoted(name)} has {counted(count, 'object')}", split.name)


def find_crowds_alone(survey: Survey) -> Iterator[Finding]:
    """Yields images that have crowd regions only."""
    for split in survey.splits.values():
        for image in split:
            crowd = image.sample.truth.crowd
            if len(crowd) and crowd.all():
                yield Finding("image-crowd-only", image.stated.where, counted(len(crowd), "crowd region"), split.name)


def _at(split: Split, index: int | np.integer, kind: str, value: str) -> Finding:
    return Finding(kind, split.objects[int(index)].where, value, split.name)


def _is_whole(split: Split) -> Bool[np.ndarray, " objects"]:
    """Returns which boxes are the whole image, to a hundredth of its sides."""
    fractions = split.fractions
    return np.asarray((fractions[:, :2] <= 0.01).all(axis=1) & (fractions[:, 2:] >= 0.99).all(axis=1))


def _is_one_whole(image: CheckedImage) -> bool:
    """Returns whether the only box of an image is the whole image, as labels of images without boxes are."""
    sample = image.sample
    return len(sample.truth) == 1 and float(area(sample.truth.boxes)[0]) >= 0.98 * sample.width * sample.height


def _content(image: CheckedImage) -> tuple[object, ...]:
    labels: Int[np.ndarray, " objects"] = image.sample.truth.labels
    return tuple(sorted((*entry.box, label) for entry, label in zip(image.objects, labels.tolist(), strict=True)))


def _plain(name: str) -> str:
    """Returns a name without accents, hyphens and the ending of a plural."""
    letters = unicodedata.normalize("NFKD", folded_class(name))
    letters = "".join(each for each in letters if not unicodedata.combining(each) and each not in "-_.")
    for ending, instead in (("ies", "y"), ("es", ""), ("s", "")):
        if len(letters) > len(ending) + 2 and letters.endswith(ending):
            return letters[: -len(ending)] + instead if ending != "es" else _without_es(letters)
    return letters


def _without_es(letters: str) -> str:
    """Returns `box` for `boxes`, but `plate` for `plates`."""
    return letters[:-2] if letters[:-2].endswith(("s", "x", "z", "ch", "sh")) else letters[:-1]
