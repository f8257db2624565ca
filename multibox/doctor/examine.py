"""Examine a data set: run the checks that were asked for, and gather what they find."""

import time
from collections.abc import Callable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from multibox.data.source import Unlabelled
from multibox.doctor import balance, detector, files, labels, pixels, splits
from multibox.doctor.kinds import FAMILIES, GRADES, KINDS
from multibox.doctor.report import Report
from multibox.doctor.survey import Advice, Finding, Survey, survey
from multibox.explain.model import Model
from multibox.messages import list_names


class Check(NamedTuple):
    """A function that looks for some kinds of problem in what the readers read, and in the headers of images."""

    find: Callable[[Survey], Iterator[Finding]]
    kinds: tuple[str, ...]


_REPORTED = (
    *("image-missing", "image-unreadable", "annotation-unreadable", "annotation-without-image"),
    *("image-without-annotation", "annotation-second", "image-ambiguous", "image-listed-twice", "image-id-twice"),
    *("image-nameless", "size-differs", "size-swapped", "box-empty", "box-inverted", "box-not-finite"),
    *("box-outside-image", "box-beyond-image", "box-unreadable", "box-in-fractions", "box-in-pixels", "numbers-aside"),
    *("box-twice", "area-unreadable", "annotation-id-twice", "class-unknown", "class-none", "class-named-twice"),
    *("class-id-twice", "class-nameless", "class-spelled-differently", "class-background-unused"),
    *("class-names-missing", "class-count", "class-list-foreign", "split-unusable", "split-part-empty"),
    *("split-part-twice", "split-part-ambiguous", "image-outside-splits"),
)

CHECKS = (
    Check(files.find_reported, _REPORTED),
    Check(files.find_odd_sizes, ("image-tiny", "image-huge", "image-long")),
    Check(files.find_odd_names, ("name-case", "name-shared", "name-unportable")),
    Check(
        files.find_in_headers,
        (
            *("image-suffix", "image-mode", "image-alpha", "image-animated"),
            *("exif-turned", "exif-stored", "exif-contradicts", "exif-upside-down"),
        ),
    ),
    Check(labels.find_unlikely_boxes, ("box-tiny", "box-sliver", "box-whole-image", "area-exceeds-box")),
    Check(labels.find_doubled_boxes, ("box-nearly-twice", "box-two-classes", "box-in-box")),
    Check(labels.find_copied_labels, ("labels-copied", "position-crowded")),
    Check(labels.find_coarse_coordinates, ("boxes-round", "pixels-mixed")),
    Check(labels.find_odd_classes, ("class-similar", "class-blanks", "class-placeholder", "class-background")),
    Check(labels.find_crowds_alone, ("image-crowd-only",)),
    Check(splits.find_split_faults, ("split-missing", "split-small", "classes-differ")),
    Check(splits.find_equal_images, ("image-twice", "image-in-two-splits")),
    Check(splits.find_copies, ("copies-in-two-splits",)),
    Check(splits.find_shared_videos, ("video-in-two-splits",)),
    Check(splits.find_class_differences, ("class-missing-in-split", "class-unused", "class-skew")),
    Check(splits.find_size_differences, ("box-size-skew", "image-size-skew")),
    Check(
        balance.find_imbalance,
        (
            *("class-few", "class-concentrated", "class-imbalance", "class-always-together"),
            *("images-few", "images-empty", "objects-difficult", "objects-crowd"),
        ),
    ),
)


def choose_kinds(only: Sequence[str], skip: Sequence[str], needs: Sequence[str]) -> tuple[str, ...]:
    """Returns the identifiers of the kinds to look for, in the order of the table.

    Args:
        only: Kinds, families or grades to look for; nothing stands for all.
        skip: Kinds, families or grades to leave out.
        needs: What the checks may look at.

    Raises:
        ValueError: There is no such kind, family or grade; or nothing is left.
    """
    words = (*KINDS, *FAMILIES, *GRADES)
    for word in (*only, *skip):
        if word not in words:
            near = get_close_matches(word, words, n=1)
            hint = (
                f"did you mean '{near[0]}'?" if near else f"there are {', '.join((*GRADES, *FAMILIES))}, and the kinds"
            )
            raise ValueError(f"there is no kind of problem '{word}'; {hint} (docs/check.md lists them)")
    chosen = []
    for kind in KINDS.values():
        names = {kind.id, kind.family, kind.grade}
        if (not only or names & set(only)) and not names & set(skip) and kind.needs in needs:
            chosen.append(kind.id)
    if not chosen:
        raise ValueError(
            f"no kind of problem is left to look for, with only {list_names(only)}, skip {list_names(skip)}"
        )
    return tuple(chosen)


def examine(
    path: str | Path,
    *,
    split: str | None = None,
    only: Sequence[str] = (),
    skip: Sequence[str] = (),
    fast: bool = False,
    with_pixels: bool = False,
    model: Model | None = None,
    unlabelled: Unlabelled | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Looks for everything that is wrong with a data set, and changes nothing.

    Args:
        path: The data set, as `read_dataset` takes it.
        split: Name of the only split to look at; None for all.
        only: Kinds of problem, families or grades to look for; nothing stands for all.
        skip: Kinds of problem, families or grades to leave out.
        fast: Whether to leave out what the readers have not read anyway: the headers and contents of image files.
        with_pixels: Whether to decode all images: for damage, outliers, and copies that are not equal byte for byte.
        model: The detector that the data are judged for, as `open_model` returns it; None for none.
        unlabelled: What to do with images without annotations, as in `read_dataset`.
        on_progress: Called with the number of images that are decoded and of all images, if they are decoded.

    Raises:
        FileNotFoundError: There is no such path.
        DatasetError: No data set is there, or several; there is no such split; or a file for a whole split cannot be
            read.
        ValueError: There is no such kind of problem.
    """
    began = time.monotonic()
    needs = {"labels": True, "headers": not fast, "pixels": with_pixels, "model": model is not None}
    chosen = choose_kinds(only, skip, [need for need, is_there in needs.items() if is_there])
    looked_at = survey(Path(path), split=split, unlabelled=unlabelled)
    found: list[Finding | Advice] = []
    for check in CHECKS:
        if set(check.kinds) & set(chosen):
            found += check.find(looked_at)
    if any(KINDS[kind].needs == "pixels" for kind in chosen):
        found += pixels.find_in_pixels(looked_at, on_progress=on_progress)
    if model is not None and any(KINDS[kind].needs == "model" for kind in chosen):
        found += detector.judge_for(looked_at, model)
    found = [each for each in found if each.kind in chosen]
    place = {kind: number for number, kind in enumerate(KINDS)}
    findings = sorted((each for each in found if isinstance(each, Finding)), key=lambda each: place[each.kind])
    advice = [each for each in found if isinstance(each, Advice)]
    return Report(looked_at, findings, chosen, advice, model.name if model else "", time.monotonic() - began)
