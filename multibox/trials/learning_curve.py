"""Learn how AP grows with the number of images, by short trainings on parts of them, and what twice as many may bring.

Error falls about as a power of the number of images: 1 - AP = a * images^-b (Hestness et al., Deep Learning Scaling is
Predictable, Empirically, 2017). It is fitted to the trainings of each seed.
"""

import csv
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from multibox.data.sample import Dataset
from multibox.evaluation.evaluate import evaluate
from multibox.files import atomic_write
from multibox.messages import counted
from multibox.training.recipes import TrainConfig
from multibox.trials.job import MODEL, STEPS, Job, OnProgress

FRACTIONS = (0.25, 0.5, 1.0)

FEW_EPOCHS = 10
"""A training that sees its images less often than this has not taken from them what it can."""


class Point(NamedTuple):
    """The result of one training.

    Attributes:
        fraction: Part of the training images that it learned from, about.
        images: Number of these images.
        seed: Seed of the training and of the choice of images.
        ap: COCO's AP on the validation set, as a fraction.
        ap50: AP at an overlap of 0.5, as a fraction.
    """

    fraction: float
    images: int
    seed: int
    ap: float
    ap50: float


@dataclass(frozen=True)
class LearningCurve:
    """AP by number of images.

    Attributes:
        points: The result of each training: all seeds of the smallest part first.
        length: Length of each training, in words.
        val_images: Number of images in the validation set.
        epochs: How often each image was seen in a training on all images.
    """

    points: tuple[Point, ...]
    length: str
    val_images: int
    epochs: float

    @property
    def fractions(self) -> tuple[float, ...]:
        """The parts of the training images, in rising order."""
        return tuple(sorted({point.fraction for point in self.points}))

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, in rising order."""
        return tuple(sorted({point.seed for point in self.points}))

    def images(self) -> Float[np.ndarray, "fractions seeds"]:
        """Returns the number of images of each training."""
        return self._table([point.images for point in self.points])

    def ap(self) -> Float[np.ndarray, "fractions seeds"]:
        """Returns the AP of each training."""
        return self._table([point.ap for point in self.points])

    def ap50(self) -> Float[np.ndarray, "fractions seeds"]:
        """Returns the AP50 of each training."""
        return self._table([point.ap50 for point in self.points])

    def _table(self, values: Sequence[float]) -> Float[np.ndarray, "fractions seeds"]:
        places = {(point.fraction, point.seed): value for point, value in zip(self.points, values, strict=True)}
        return np.array([[places[fraction, seed] for seed in self.seeds] for fraction in self.fractions], np.float64)

    def gains_of_last_part(self) -> Float[np.ndarray, " seeds"]:
        """Returns by how much AP rose from the last but one part to all images, for each seed."""
        gains: Float[np.ndarray, " seeds"] = self.ap()[-1] - self.ap()[-2]
        return gains

    def expected_gains(self) -> Float[np.ndarray, " seeds"]:
        """Returns by how much AP would rise with twice the images, for each seed, if the fitted power law went on."""
        gains: Float[np.ndarray, " seeds"] = (
            expected_ap(self.images(), self.ap(), 2 * self.images()[-1]) - self.ap()[-1]
        )
        return gains


def expected_ap(
    images: Float[np.ndarray, "fractions seeds"],
    ap: Float[np.ndarray, "fractions seeds"],
    wanted: Float[np.ndarray, " seeds"],
) -> Float[np.ndarray, " seeds"]:
    """Returns the AP of each seed at the wanted number of images.

    The power law is fitted to all parts by least squares, and goes on from the AP of the largest one.
    """
    sizes, errors = np.log(images), np.log(np.maximum(1 - ap, 1e-6))
    centered = sizes - sizes.mean(axis=0)
    slopes = (centered * errors).sum(axis=0) / (centered**2).sum(axis=0)
    expected: Float[np.ndarray, " seeds"] = 1 - (1 - ap[-1]) * (wanted / images[-1]) ** slopes
    return expected


def measure_learning_curve(
    train_set: Dataset,
    val_set: Dataset,
    folder: str | os.PathLike[str],
    *,
    fractions: Sequence[float] = FRACTIONS,
    seeds: Sequence[int] = (0, 1, 2),
    model: str = MODEL,
    config: TrainConfig | None = None,
    on_progress: OnProgress | None = None,
) -> LearningCurve:
    """Trains on parts of the images, equally long on each, and scores each training on the validation set.

    A seed chooses the images of its parts, each part within the next larger one, and the random numbers of training.
    All images have one choice only, so that the spread there is that of training alone.

    Args:
        train_set: The images to learn from.
        val_set: The images to score on.
        folder: Folder to keep the trainings in: a job that was killed goes on when it is called again.
        fractions: The parts, in rising order; the last is 1.
        seeds: The seeds.
        model: Preset or weights that each training starts from.
        config: Values of each training; `STEPS` steps by default.
        on_progress: Called during the trainings.

    Raises:
        ValueError: A part has no image, or another job is in the folder.
        FileExistsError: The folder holds other files.
        ImportError: hotcoco is not installed.
    """
    config = config or TrainConfig(steps=STEPS)
    job = Job(
        folder,
        purpose="learning curve",
        trainings=len(fractions) * len(seeds),
        data={"training set": train_set, "validation set": val_set},
        model=model,
        config=config,
        on_progress=on_progress,
    )
    points = []
    for fraction in fractions:
        for seed in seeds:
            part = take_part(train_set, fraction, seed=seed)
            name = f"{100 * fraction:g}-percent-seed-{seed}"
            detector = job.train(name, part, seed=seed)
            result = job.folder / name / "metrics.json"
            if not result.is_file():
                metrics = evaluate(detector, val_set, progress=False)
                with atomic_write(result) as file:
                    file.write_text(metrics.to_json() + "\n", encoding="utf-8")
            values = json.loads(result.read_text(encoding="utf-8"))
            points.append(Point(fraction, len(part), seed, values["ap"] or 0.0, values["ap50"] or 0.0))
    length = counted(config.steps, "step") if config.steps else "equal length"
    return LearningCurve(tuple(points), length, len(val_set), _epochs(job.folder / name))


def _epochs(run: Path) -> float:
    """Returns how often a run saw each image, from the last row of its metrics."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        *_, last = csv.DictReader(file)
    return float(last["epoch"])


def take_part(dataset: Dataset, fraction: float, *, seed: int) -> Dataset:
    """Returns a random part of the images; that of a smaller fraction is within that of a larger one.

    Images that every division keeps together are taken together, so that the part may be a little larger.

    Raises:
        ValueError: The fraction is not above 0 and at most 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"a part must be above 0 and at most 1, but is {fraction:g}")
    places = np.array(dataset.places)
    order = np.random.default_rng(seed).permutation(np.unique(places))
    sizes = np.cumsum([np.count_nonzero(places == place) for place in order])
    enough = int(np.searchsorted(sizes, fraction * len(dataset) - 1e-9)) + 1
    chosen = set(order[:enough].tolist())
    samples = [sample for sample, place in zip(dataset, places.tolist(), strict=True) if place in chosen]
    return replace(dataset, name=f"{dataset.name}, {100 * fraction:g} %", samples=samples)


def statement(curve: LearningCurve) -> str:
    """Returns what the curve says about twice the images, in a few careful sentences."""
    images, ap = curve.images(), curve.ap()
    half, full = (round(float(row.mean())) for row in images[-2:])
    gained, expected = curve.gains_of_last_part(), curve.expected_gains()
    sentences = [
        f"From {half} to {full} images, AP rose by {_points(gained)}.",
        f"If it goes on like this, {2 * full} images bring {_points(expected)} more: a forecast by a power law, not "
        "a measurement.",
    ]
    if len(images) > 2:
        foretold = expected_ap(images[:-1], ap[:-1], images[-1])
        sentences.append(
            f"From the smaller parts alone, the same law would have foretold an AP of {100 * foretold.mean():.1f} for "
            f"{full} images, where {100 * ap[-1].mean():.1f} was measured."
        )
    if len(curve.seeds) == 1:
        sentences.append("One seed does not show how far chance goes: give three or more.")
    elif expected.min() <= 0 or gained.min() <= 0:
        sentences.append("The seeds do not agree that more images help: look for what else is wrong first.")
    sentences.append(
        f"This is about more images of the same kind, labeled in the same way, for trainings of {curve.length}, and "
        f"about {counted(curve.val_images, 'validation image')}."
    )
    if curve.epochs < FEW_EPOCHS:
        sentences.append(
            f"All {full} images were seen only {curve.epochs:.1f} times each: longer trainings (--steps) may gain more "
            "from more images."
        )
    return " ".join(sentences)


def _points(gains: Float[np.ndarray, " seeds"]) -> str:
    """Returns the mean of gains in points, and their range over the seeds: `2.1 points (1.0 to 3.2 by seed)`."""
    mean, low, high = (100 * value for value in (gains.mean(), gains.min(), gains.max()))
    return f"{mean:.1f} points" + (f" ({low:.1f} to {high:.1f} by seed)" if len(gains) > 1 else "")


def table(curve: LearningCurve) -> list[list[str]]:
    """Returns a row for each part: images, mean AP with its lowest and highest, and mean AP50, all in percent."""
    rows = zip(curve.fractions, curve.images(), curve.ap(), curve.ap50(), strict=True)
    return [
        [
            f"{100 * fraction:g} %",
            f"{images.mean():.0f}",
            f"{100 * ap.mean():.1f}",
            f"{100 * ap.min():.1f} to {100 * ap.max():.1f}",
            f"{100 * ap50.mean():.1f}",
        ]
        for fraction, images, ap, ap50 in rows
    ]


def write_points(curve: LearningCurve, path: Path) -> None:
    """Writes the result of each training as CSV."""
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Point._fields)
        writer.writerows(curve.points)


def draw_curve(curve: LearningCurve, path: Path) -> None:
    """Draws AP by number of images into a PNG file: each training, their mean and range, and the forecast.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    images, ap = curve.images().mean(axis=1), 100 * curve.ap()
    forecast = ap[-1] + 100 * curve.expected_gains()
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.fill_between(images, ap.min(axis=1), ap.max(axis=1), alpha=0.18, color="tab:blue", linewidth=0)
    axes.plot(images, ap.mean(axis=1), color="tab:blue", marker="o", label="mean of the seeds")
    axes.plot(curve.images().ravel(), ap.ravel(), "o", color="tab:blue", alpha=0.45, markersize=4, label="a training")
    ends = [images[-1], 2 * images[-1]]
    axes.plot(ends, [ap[-1].mean(), forecast.mean()], "--", color="tab:gray", label="forecast")
    spread = [[forecast.mean() - forecast.min()], [forecast.max() - forecast.mean()]]
    axes.errorbar(ends[1:], [forecast.mean()], spread, color="tab:gray", marker="o", fillstyle="none", capsize=4)
    axes.set_xscale("log", base=2)
    ticks = [*images, ends[1]]
    axes.set_xticks(ticks, [f"{value:.0f}" for value in ticks])
    axes.minorticks_off()
    axes.set(xlabel="training images", ylabel="AP", title=f"AP by number of images, trainings of {curve.length}")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=110)
