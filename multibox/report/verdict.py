"""The verdict of a report: how good the detector is, what fails most and why, and what to try first.

Each sentence comes from a rule below, states the numbers that it rests on, and is left out where there are too few.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from multibox.config import DetectorConfig
from multibox.data.sample import GroundTruth
from multibox.evaluation.errors import NONE, ImageErrors
from multibox.evaluation.precision_recall import PrecisionRecall
from multibox.evaluation.tide import Tide
from multibox.messages import counted

LEAST_IMAGES, LEAST_OBJECTS = 10, 30
"""With fewer images or objects there is no verdict."""

LEAST = 10
"""A class needs so many objects to be called weak, and a cause must explain so many errors to be named."""

MOST_OF_THEM = 0.5
"""Share of a class's missed objects, or of its false detections, that a cause must explain."""

PART_OF_ALL = 0.05
"""The weakest class is looked at first if it has this share of all errors; else all classes together are."""

SMALL_SIDES = (12, 16, 20, 24, 32)
"""Sides in pixels of the input below which objects may be called small; the least one that fits is taken."""

SMALL_GAP = 0.2
"""Objects are too small if so much less of them is found than of the larger ones."""

TOO_DEAR = 3
"""A lower threshold costs too much if it brings so many times more false detections than objects."""

RISE, FALL = 0.02, 0.03
"""AP still rises if a run's last third gained this much, and has fallen if it lost this much after its best."""


class Finding(NamedTuple):
    """What one rule says.

    Attributes:
        rule: Name of the rule.
        errors: Number of errors that it explains.
        sentence: What was found, with its numbers.
        action: What to do about it.
    """

    rule: str
    errors: int
    sentence: str
    action: str


class Verdict(NamedTuple):
    """The sentences at the head of the page, and everything that the rules found.

    Attributes:
        sentences: At most three: how good it is, what fails and why, what to try first.
        findings: All findings, those about the weakest class first.
    """

    sentences: tuple[str, ...]
    findings: tuple[Finding, ...]


@dataclass(frozen=True, eq=False)
class Case:
    """What the rules look at.

    Attributes:
        truths: Objects of each image, as they are counted.
        errors: The errors in each image at the threshold.
        class_names: Names of the classes in label order.
        threshold: The one score threshold of all classes.
        sides: Square root of the area of each object of all images, in pixels of the input.
        config: Config of the detector; None if it is not known.
        image_sides: Longest side of each image in pixels.
        overall: Precision and recall of all classes together.
        curves: Precision and recall of each class.
        tide: TIDE's errors.
        postprocess: Thresholds and limits that the detections were made with; empty if they are not known.
        rows: Rows of the run's `metrics.csv`, if there is a run.
        resume: The command that goes on with the run.
    """

    truths: Sequence[GroundTruth]
    errors: Sequence[ImageErrors]
    class_names: Sequence[str]
    threshold: float
    sides: Float[np.ndarray, " objects"]
    config: DetectorConfig | None
    image_sides: Sequence[int]
    overall: PrecisionRecall
    curves: Sequence[PrecisionRecall]
    tide: Tide
    postprocess: Mapping[str, float | int | str] = field(default_factory=dict)
    rows: Sequence[Mapping[str, float | None]] = ()
    resume: str | None = None


@dataclass(frozen=True, eq=False)
class _Part:
    """The objects and detections of one class, or of all classes together.

    Attributes:
        label: Label of the class; `NONE` for all classes.
        of_class: Words that follow "objects" or "detections" in a sentence: " of class dog", or nothing.
        curve: Precision and recall.
        objects: Number of objects that count.
        found: Number of those that are found.
        missed: Kind of error of each missed object.
        taken_for: Label of the detection that each missed object of kind `wrong class` was taken for.
        false: Kind of error of each false detection.
        counted_sides: Side of each object that counts.
        missed_sides: Side of each missed object.
    """

    label: int
    of_class: str
    curve: PrecisionRecall
    objects: int
    found: int
    missed: list[str]
    taken_for: list[int]
    false: list[str]
    counted_sides: Float[np.ndarray, " objects"]
    missed_sides: Float[np.ndarray, " missed"]

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.found / max(self.objects + self.found + len(self.false), 1)

    @property
    def errors(self) -> int:
        """Number of missed objects and false detections."""
        return len(self.missed) + len(self.false)


def judge(case: Case) -> Verdict:
    """Returns the verdict.

    1. How much is found and how much is false, and the class with the lowest F1 among those with `LEAST` objects.
    2. The cause that explains most errors of that class; or of all classes together, if that class has less than
       `PART_OF_ALL` of the errors, or no cause is strong enough; or of any other class. In each of these, a cause of
       the object itself (size, confusion, nothing there, duplicates) goes before one that only says how an object is
       missed (low score, poor box, nothing near).
    3. What to do about it. If the run's AP was still rising at its end, or fell after its best, that goes first.
    """
    everything, *classes = _parts(case)
    if len(case.truths) < LEAST_IMAGES or everything.objects < LEAST_OBJECTS:
        few = f"{counted(everything.objects, 'object')} in {counted(len(case.truths), 'image')}"
        text = f"There is too little to judge by: {few}. From {LEAST_OBJECTS} objects in {LEAST_IMAGES} images on, "
        return Verdict((text + "this page says what fails, why, and what to try first.",), ())
    known = sorted((each for each in classes if each.objects >= LEAST), key=lambda each: each.f1)
    order = known if len(classes) == 1 else [everything, *known]
    if len(known) > 1 and known[0].errors >= PART_OF_ALL * everything.errors:
        order = [known[0], everything, *known[1:]]
    findings = [finding for each in order for finding in _findings(case, each, everything)]
    training = _training(case)
    second = findings[0].sentence if findings else _no_cause(everything.errors)
    action = training.action if training else findings[0].action if findings else _by_tide(case)
    third = f"{training.sentence} {action}" if training else action
    if training and findings:
        third += f" Next: {findings[0].action[0].lower()}{findings[0].action[1:]}"
    first = _how_good(case, everything, known)
    return Verdict((first, second, third), (*([training] if training else []), *findings))


def _how_good(case: Case, everything: _Part, known: Sequence[_Part]) -> str:
    objects, found, false = everything.objects, everything.found, len(everything.false)
    text = f"At a score threshold of {case.threshold:.2f} it finds {found} of {counted(objects, 'object')} "
    text += f"({_share(found / objects)}), and {false} of its {counted(found + false, 'detection')} "
    text += f"are false ({_share(false / (found + false))})" if found + false else "are false"
    if len(known) > 1:
        weak = known[0]
        text += f"; the weakest class is {case.class_names[weak.label]}, with {weak.found} of {weak.objects} found"
        text += f" and {len(weak.false)} false"
    return text + "."


def _parts(case: Case) -> list[_Part]:
    """Returns the parts: all classes together, then each class."""
    labels = np.concatenate([np.zeros(0, np.int64), *(truth.labels for truth in case.truths)])
    counts = np.concatenate([np.zeros(0, bool), *(~(truth.difficult | truth.crowd) for truth in case.truths)])
    starts = np.cumsum([0, *map(len, case.truths)]).tolist()
    missed = [
        (start + lost.object, lost.kind)
        for start, image in zip(starts, case.errors, strict=False)
        for lost in image.missed
    ]
    false = [(int(image.found.labels[wrong.detection]), wrong.kind) for image in case.errors for wrong in image.false]
    pairs = [pair for image in case.errors for pair in image.confusions]

    def part(label: int) -> _Part:
        belongs = counts & ((labels == label) | (label == NONE))
        own = [(place, kind) for place, kind in missed if belongs[place]]
        return _Part(
            label,
            "" if label == NONE else f" of class {case.class_names[label]}",
            case.overall if label == NONE else case.curves[label],
            int(np.count_nonzero(belongs)),
            sum(one == other for one, other in pairs if label in (NONE, one)),
            [kind for _, kind in own],
            [taken for one, taken in pairs if NONE != label == one != taken != NONE],
            [kind for number, kind in false if label in (NONE, number)],
            case.sides[belongs],
            case.sides[[place for place, _ in own]],
        )

    return [part(label) for label in (NONE, *range(len(case.class_names)))]


def _findings(case: Case, part: _Part, everything: _Part) -> list[Finding]:
    """Returns what the rules find: causes of the object itself first, those that explain most errors first."""
    rules: tuple[tuple[Callable[[Case, _Part, _Part], Iterator[Finding]], ...], ...] = (
        (_too_small, _confused, _on_nothing, _twice),
        (_low_score, _poor_box, _not_found),
    )
    tiers = ([finding for rule in tier for finding in rule(case, part, everything)] for tier in rules)
    return [finding for tier in tiers for finding in sorted(tier, key=lambda finding: -finding.errors)]


def _too_small(case: Case, of: _Part, everything: _Part) -> Iterator[Finding]:
    """Compares small objects with the larger ones of the class, or of all classes if it has too few of them."""
    missed = len(of.missed)
    if case.config is None:
        return
    for side in SMALL_SIDES:
        small, small_missed = _below(of, side)
        enough = of.objects - small >= LEAST
        compared, whose = (of, "") if enough else (everything, " of all classes")
        below, below_missed = _below(compared, side)
        large, large_missed = compared.objects - below, len(compared.missed) - below_missed
        if small_missed < LEAST or large < LEAST or small_missed < MOST_OF_THEM * missed:
            continue
        of_small, of_large = 1 - small_missed / small, 1 - large_missed / large
        if of_large - of_small >= SMALL_GAP:
            yield Finding(
                "too small",
                small_missed,
                f"{small_missed} of {missed} missed objects{of.of_class} are under {side} pixels after the resize to "
                f"{case.config.height} x {case.config.width}, where {_share(of_small)} are found against "
                f"{_share(of_large)} of the larger ones{whose}.",
                _enlarge(case, case.config),
            )
            return


def _below(part: _Part, side: int) -> tuple[int, int]:
    """Returns the number of objects below a side, and of missed ones."""
    return int(np.count_nonzero(part.counted_sides < side)), int(np.count_nonzero(part.missed_sides < side))


def _enlarge(case: Case, config: DetectorConfig) -> str:
    """Returns how to make objects larger in the input: a larger input, if the images have the pixels for it."""
    height, width = (32 * ceil(1.5 * side / 32) for side in (config.height, config.width))
    usual = float(np.median(case.image_sides))
    if usual < 1.2 * max(config.height, config.width):
        return (
            f"The images have no more pixels to give (their longer side is {usual:.0f}): take them from nearer, or "
            "at a higher resolution."
        )
    size = f"{height}" if height == width else f"{height}x{width}"
    return f"Try a larger input: train a new run with --size {size}."


def _confused(case: Case, of: _Part, everything: _Part) -> Iterator[Finding]:
    for other, number in Counter(of.taken_for).most_common(1):
        if number >= LEAST and number >= 0.3 * len(of.missed):
            name, taken = case.class_names[of.label], case.class_names[other]
            yield Finding(
                "confused",
                2 * number,
                f"{number} of {len(of.missed)} missed objects of class {name} are taken for {taken}.",
                f"Look at them in the confusion matrix: mend the labels that are wrong, and if they are right, add "
                f"images of both {name} and {taken}.",
            )


def _on_nothing(case: Case, of: _Part, everything: _Part) -> Iterator[Finding]:
    number = of.false.count("background")
    if number >= LEAST and number >= MOST_OF_THEM * len(of.false) and number > len(of.missed):
        yield Finding(
            "on nothing",
            number,
            f"{number} of {len(of.false)} false detections{of.of_class} lie where no such object is labeled.",
            "Look at them in the list of errors: where there is an object, its label is missing; where there is none, "
            "add images of such things without a label.",
        )


def _twice(case: Case, of: _Part, everything: _Part) -> Iterator[Finding]:
    number = of.false.count("duplicate")
    threshold = float(case.postprocess.get("iou_threshold", 0))
    lower = round(threshold - 0.1, 2)
    if number >= LEAST and number >= 0.3 * len(of.false) and lower > 0:
        yield Finding(
            "duplicates",
            number,
            f"{number} of {len(of.false)} false detections{of.of_class} find an object a second time.",
            f"Suppress more: try --iou {lower:.2f} (now {threshold:.2f}) in evaluate and detect.",
        )


def _low_score(case: Case, of: _Part, everything: _Part) -> Iterator[Finding]:
    number = of.missed.count("low score")
    curve = of.curve
    if number < LEAST or number < MOST_OF_THEM * len(of.missed):
        return
    lower = round(max(case.threshold / 2, float(curve.thresholds[0])), 2)
    place = int(np.searchsorted(curve.thresholds, lower - 1e-9))
    more = int(curve.true_positives[place]) - of.found
    worse = int(curve.false_positives[place]) - len(of.false)
    yield Finding(
        "low score",
        number,
        f"{number} of {len(of.missed)} missed objects{of.of_class} have a box that fits but scores at most "
        f"{case.threshold:.2f}.",
        _price(lower, more, worse, of.of_class),
    )


def _price(threshold: float, more: int, worse: int, of_class: str) -> str:
    """Returns what a lower threshold brings and costs, and what to do if it costs too much."""
    if worse > TOO_DEAR * more:
        return (
            f"A lower threshold costs too much: --score {threshold:.2f} finds {more} more objects{of_class}, but "
            f"brings {worse} more false detections. Train longer, or on more images with such objects, to raise their "
            "scores."
        )
    return (
        f"Lower the threshold if misses cost you more than false alarms: --score {threshold:.2f} finds {more} more "
        f"objects{of_class} and brings {worse} more false detections."
    )


def _poor_box(case: Case, of: _Part, everything: _Part) -> Iterator[Finding]:
    number = of.missed.count("poor box")
    if number >= LEAST and number >= MOST_OF_THEM * len(of.missed):
        yield Finding(
            "poor box",
            number,
            f"{number} of {len(of.missed)} missed objects{of.of_class} have a detection near, whose box "
            "fits by less than half.",
            "Train longer, which makes boxes fit.",
        )


def _not_found(case: Case, of: _Part, everything: _Part) -> Iterator[Finding]:
    number = of.missed.count("not found")
    if number >= LEAST and number >= MOST_OF_THEM * len(of.missed):
        yield Finding(
            "not found",
            number,
            f"{number} of {len(of.missed)} missed objects{of.of_class} have no detection of their class near.",
            "Look at them in the list of errors, and add training images with such objects.",
        )


def _training(case: Case) -> Finding | None:
    """Returns what the course of the run says: that AP was still rising at its end, or that it fell after its best."""
    points = [(row["step"] or 0.0, row["ap"]) for row in case.rows if row.get("ap") is not None]
    values = [(step, float(ap)) for step, ap in points if ap is not None]
    if len(values) < 3:
        return None
    end, last = values[-1]
    best = max(ap for _, ap in values)
    before = max(ap for step, ap in values if step <= 2 / 3 * end or step == values[0][0])
    if last - before >= RISE:
        return Finding(
            "still rising",
            0,
            f"AP was still rising at the end of training, from {100 * before:.1f} to {100 * last:.1f} in its last "
            "third.",
            f"Train longer first: `{case.resume}`." if case.resume else "Train longer first.",
        )
    at_best = next(step for step, ap in values if ap == best)
    if at_best < end / 2 and best - last >= FALL:
        return Finding(
            "overfitting",
            0,
            f"AP was highest at {_share(at_best / end)} of the run and then fell from {100 * best:.1f} to "
            f"{100 * last:.1f}.",
            "Train shorter, or add training images first.",
        )
    return None


def _share(fraction: float) -> str:
    return f"{100 * fraction:.0f} %"


def _no_cause(errors: int) -> str:
    if errors < LEAST:
        return f"There are {counted(errors, 'error')}, too few to name a cause."
    return f"No single cause explains most of the {errors} errors."


_MEND = {
    "wrong class": "look at the confusion matrix for classes that are labeled alike",
    "poor box": "train longer",
    "wrong class and poor box": "train longer",
    "duplicate": "try a lower --iou",
    "background": "look at the false detections for labels that are missing",
    "missed": "look at the missed objects, and add training images with such ones",
}


def _by_tide(case: Case) -> str:
    kind, gain = max(case.tide.gains.items(), key=lambda item: item[1])
    if gain < 0.01:
        return "No kind of error costs as much as 1 point of AP50: nothing here asks for a change."
    return f"Without errors of the kind '{kind}' AP50 would gain most, {100 * gain:.1f} points: {_MEND[kind]}."
