"""Measure how long training takes to reach an accuracy: ours beside torchvision's reference, on the same network.

    python benchmarks/time_to_accuracy.py tune  --data BCCD --out OUT            # the peer's best rate, chosen on val
    python benchmarks/time_to_accuracy.py run   --data BCCD --out OUT --who ours --seed 0      # or peer, or tuned
    python benchmarks/time_to_accuracy.py run   --data VOCdevkit/VOC2007 --task voc --out OUT --who ours
    python benchmarks/time_to_accuracy.py parts --data BCCD --out OUT            # what input and step take
    python benchmarks/time_to_accuracy.py table OUT

`ssd256-tiny` is trained from the same random weights in three ways: by `multibox.train` with the recipe `modern`
(ours), by torchvision's recipe (`torchvision_peer.py`), and by that recipe with a tuned learning rate. All are scored
by `multibox.evaluation.evaluate` on the same images. The clock is the CPU time of training in one process with one
thread and no workers, without validation; start it on one core (`taskset -c 0 python ...`). A run ends after 30
minutes, the peer's also once it has reached the last level; ours ends with its schedule. Each run leaves one JSON file,
and a run whose file is there already is skipped.

Tasks: `bccd` learns from `trainval` and is scored on `test`, ours for 40 epochs. `voc` learns from 1,000 images of
`trainval`, evenly spaced in their order, and is scored on 500 of `test`; ours gets the number of steps that fills 28.5
of the 30 minutes at the speed of 100 steps measured before, which are not counted.
"""

import argparse
import csv
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
import torchvision_peer as peer

import multibox
from multibox.data.augment import normalized_boxes, render, sample_params
from multibox.data.sample import Dataset
from multibox.detector import Detector
from multibox.evaluation.evaluate import evaluate
from multibox.presets import preset
from multibox.report.environment import commit, device_name
from multibox.training import RECIPES, Progress, TrainConfig

MODEL = "ssd256-tiny"
RECIPE: Final = "modern"
LEVELS = (0.5, 0.7, 0.8, 0.85)
AFTER = (10, 20, 30)
LIMIT = 30.0  # minutes
RATES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
WHO = {"ours": "ours", "peer": "torchvision's recipe", "tuned": "the same, rate tuned"}


@dataclass(frozen=True)
class Task:
    """A data set, and how ours and the peer are trained on it.

    Attributes:
        images: Numbers of images to learn from and to be scored on; `None` for all.
        epochs: Number of our epochs; `None` for as many as fill the time.
        every: Epochs between validations. Ours are quicker, so this gives all curves about as many points a minute.
    """

    images: tuple[int | None, int | None]
    epochs: float | None
    every: dict[str, int]


TASKS = {
    "bccd": Task((None, None), 40, {"ours": 2, "peer": 1, "tuned": 1}),
    "voc": Task((1000, 500), None, {"ours": 4, "peer": 1, "tuned": 1}),
}

Laps = tuple[float, float]
"""Seconds of CPU time and of wall time."""


class Clock:
    """Minutes of training in CPU time and in wall time. Only laps that are added count as training."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0
        self.lap()

    def lap(self) -> Laps:
        """Returns the seconds since the last call."""
        before = getattr(self, "_at", (0.0, 0.0))
        self._at = (time.process_time(), time.monotonic())
        return self._at[0] - before[0], self._at[1] - before[1]

    def add(self, lap: Laps) -> None:
        self.cpu += lap[0] / 60
        self.wall += lap[1] / 60


class TimeIsUp(Exception):
    pass


class Curve:
    """Validations of a run, `[epoch, step, cpu_minutes, wall_minutes, ap50, ap]` each, and lines about its progress."""

    def __init__(self, name: str, images: int) -> None:
        self.rows: list[list[float]] = []
        self._name = name
        self._images = images
        self._said = time.monotonic()

    def add(self, epoch: float, step: int, minutes: Laps, ap50: float, ap: float) -> None:
        self.rows.append([round(epoch, 3), step, *(round(value, 4) for value in (*minutes, ap50, ap))])
        self._say(epoch, minutes[0], "", f"AP50 {100 * ap50:.1f}, AP {100 * ap:.1f}")

    def progress(self, epoch: float, minutes: float, left: float) -> None:
        """Prints a line twice a minute."""
        if time.monotonic() - self._said > 30:
            self._say(epoch, minutes, f"at most {left:.1f} min left", "")

    def _say(self, epoch: float, minutes: float, left: str, scores: str) -> None:
        self._said = time.monotonic()
        rate = f"{epoch * self._images / minutes / 60:.1f} images/s" if minutes else ""
        words = [f"epoch {epoch:.1f}", f"{minutes:.2f} min of CPU", rate, left, scores]
        print(f"{self._name}: {', '.join(filter(None, words))}", flush=True)

    def times(self) -> dict[str, float | None]:
        """Returns the minutes of CPU time to the first validation at each level or above."""
        return {str(level): next((row[2] for row in self.rows if row[4] >= level), None) for level in LEVELS}


def run_ours(curve: Curve, train_set: Dataset, test_set: Dataset, task: Task, seed: int) -> dict[str, Any]:
    config = TrainConfig(recipe=RECIPE, epochs=task.epochs, precision="fp32", workers=0, device="cpu", seed=seed)
    epoch_steps = len(train_set) / RECIPES[RECIPE].batch_size
    if task.epochs is None:
        seconds = statistics.median(lap[0] for lap in our_laps(train_set, replace(config, steps=101)))
        config = replace(config, steps=int(0.95 * LIMIT * 60 / seconds))
    config = replace(config, validate_every=task.every["ours"])
    steps = config.steps or math.ceil(task.epochs * epoch_steps)  # type: ignore[operator]
    detector = Detector.create(MODEL, train_set.class_names, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        rows = Rows(Path(folder) / "run" / "metrics.csv")
        minutes_at: dict[int, Laps] = {}
        recent: deque[Laps] = deque(maxlen=50)
        clock = Clock()

        def take_rows() -> bool:
            new = rows.new()
            for row in new:
                step = int(row["step"])
                curve.add(float(row["epoch"]), step, minutes_at[step], float(row["ap50"]), float(row["ap"]))
            return bool(new)

        def on_progress(progress: Progress) -> None:
            lap = clock.lap()
            if take_rows():  # a validation lies in this lap: its step counts as long as those before it
                lap = (statistics.mean(one[0] for one in recent), statistics.mean(one[1] for one in recent))
            recent.append(lap)
            clock.add(lap)
            minutes_at[progress.step] = (clock.cpu, clock.wall)
            if progress.step == 1:
                check_threads()
            curve.progress(progress.epoch, clock.cpu, clock.cpu * (steps / progress.step - 1))
            if clock.cpu >= LIMIT:
                raise TimeIsUp

        try:
            multibox.train(detector, train_set, test_set, config, out=Path(folder) / "run", on_progress=on_progress)
        except TimeIsUp:
            print(f"stopped after {LIMIT:.0f} minutes, before the schedule's end", flush=True)
        take_rows()
    return {"recipe": RECIPE, "epochs": steps / epoch_steps, "batch_size": RECIPES[RECIPE].batch_size}


class Rows:
    """Reads the validations' rows of a `metrics.csv` as the run writes them, each of them once."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._size = 0
        self._taken = 0

    def new(self) -> list[dict[str, str]]:
        size = self._file.stat().st_size if self._file.exists() else 0
        if size == self._size:
            return []
        with self._file.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["ap50"]][self._taken :]
        self._size, self._taken = size, self._taken + len(rows)
        return rows


def run_peer(
    curve: Curve, train_set: Dataset, test_set: Dataset, *, every: int, rate: float, seed: int, trial: int | None = None
) -> dict[str, Any]:
    """Trains the peer, or only its first `trial` epochs, and returns the result."""
    detector = Detector.create(MODEL, train_set.class_names, seed=seed)
    check_threads()
    clock = Clock()
    for step in peer.train(detector, train_set, learning_rate=rate, seed=seed):
        clock.add(clock.lap())
        over = step.epoch == trial if trial else clock.cpu >= LIMIT
        if over or step.epoch % every == 0:
            metrics = evaluate(peer.trained(detector), test_set)
            curve.add(step.epoch, step.step, (clock.cpu, clock.wall), metrics.ap50 or 0.0, metrics.ap or 0.0)
            over = over or (trial is None and (metrics.ap50 or 0.0) >= LEVELS[-1])
        if over:
            break
        curve.progress(step.epoch, clock.cpu, LIMIT - clock.cpu)
        clock.lap()
    return {"learning_rate": rate, "epochs": 120, "batch_size": 4}


def check_threads() -> None:
    if torch.get_num_threads() != 1:
        sys.exit(f"torch has {torch.get_num_threads()} threads, but the clock is for one: taskset -c 0 python ...")


def read(data: Path, split: str, images: int | None = None) -> Dataset:
    """Returns a split, or `images` of its images, evenly spaced in their order."""
    dataset = multibox.read_dataset(data, split=split, on_problem="skip")
    if images is None:
        return dataset
    chosen = sorted(dataset, key=lambda sample: sample.name)
    return replace(dataset, samples=[chosen[place * len(chosen) // images] for place in range(images)])


def tuned_rate(out: Path) -> float:
    """Returns the rate with the highest AP50 at the end of its trial; the lowest of equally good ones."""
    trials = [json.loads(file.read_text()) for file in out.glob("tune-*.json")]
    missing = sorted(set(RATES) - {trial["learning_rate"] for trial in trials})
    if missing:
        sys.exit(f"{out} lacks the trials of the rates {missing}: run `tune --out {out}` first")
    best = max(sorted(trials, key=lambda trial: trial["learning_rate"]), key=lambda trial: trial["ap50"])
    rate: float = best["learning_rate"]
    return rate


def tune(data: Path, out: Path, rates: Sequence[float], epochs: int) -> None:
    train_set, val_set = read(data, "train"), read(data, "val")
    for rate in rates:
        file = out / f"tune-{rate}.json"
        if file.exists():
            continue
        curve = Curve(f"rate {rate}", len(train_set))
        try:
            run_peer(curve, train_set, val_set, every=2, rate=rate, seed=0, trial=epochs)
        except ValueError as error:  # the loss is not finite
            print(error, flush=True)
            curve.rows.append([0.0] * 6)
        write(file, {"learning_rate": rate, "epochs": epochs, "ap50": curve.rows[-1][4], "curve": curve.rows})


def run(data: Path, out: Path, name: str, who: str, seed: int) -> None:
    file = out / f"{name}-{who}-{seed}.json"
    if file.exists():
        print(f"{file} is there", flush=True)
        return
    task = TASKS[name]
    train_set, test_set = read(data, "trainval", task.images[0]), read(data, "test", task.images[1])
    curve = Curve(f"{name} {who} {seed}", len(train_set))
    began = time.monotonic()
    if who == "ours":
        recipe = run_ours(curve, train_set, test_set, task, seed)
    else:
        rate = tuned_rate(out) if who == "tuned" else 0.002
        recipe = run_peer(curve, train_set, test_set, every=task.every[who], rate=rate, seed=seed)
    epoch, _, minutes, *_ = curve.rows[-1]
    write(
        file,
        {
            "task": name,
            "who": who,
            "seed": seed,
            "images": [len(train_set), len(test_set)],
            **recipe,
            "times": curve.times(),
            "cpu_seconds_per_epoch": round(60 * minutes / epoch, 2),
            "wall_minutes_with_validation": round((time.monotonic() - began) / 60, 2),
            "columns": ["epoch", "step", "cpu_minutes", "wall_minutes", "ap50", "ap"],
            "curve": curve.rows,
            **machine(),
        },
    )


def our_laps(dataset: Dataset, config: TrainConfig) -> list[Laps]:
    """Returns the time of each of our steps, except the first, in which the run is set up."""
    laps: list[Laps] = []
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        multibox.train(
            Detector.create(MODEL, dataset.class_names, seed=0),
            dataset,
            config=config,
            out=folder,
            on_progress=lambda progress: laps.append(clock.lap()),
        )
    return laps[1:]


def parts(data: Path, out: Path, rounds: int) -> None:
    """Measures CPU seconds an image of ours and of the peer, for the input alone and for input and step together.

    The step is the difference. Ours and the peer take turns with the same number of images in each round; the values
    are means over all batches.
    """
    dataset = read(data, "trainval")
    images = 160
    batch = RECIPES[RECIPE].batch_size
    config = TrainConfig(recipe=RECIPE, steps=images // batch + 1, workers=0, device="cpu")
    times: dict[str, list[float]] = {name: [] for name in ("our input", "our whole", "peer input", "peer whole")}
    for turn in range(rounds):
        check_threads()
        times["our input"] += [lap / batch for lap in laps_of(our_input(dataset, images, turn))]
        times["our whole"] += [lap[0] / batch for lap in our_laps(dataset, replace(config, seed=turn))]
        torch.manual_seed(turn)
        times["peer input"] += [lap / 4 for lap in laps_of(peer.make_loader(dataset), images // 4)]
        steps = peer.train(Detector.create(MODEL, dataset.class_names, seed=turn), dataset, seed=turn)
        times["peer whole"] += [lap / 4 for lap in laps_of(steps, images // 4 + 1)[1:]]
        print(f"round {turn + 1} of {rounds}:", *(f"{k} {1000 * mean(v):.1f} ms" for k, v in times.items()), flush=True)
    result: dict[str, Any] = {}
    for who in ("our", "peer"):
        # means, because the peer's input has two kinds of images: those of one kind alone do not represent the whole
        whole, of_input = mean(times[f"{who} whole"]), mean(times[f"{who} input"])
        result[who] = {"whole": whole, "input": of_input, "step": whole - of_input}
    write(out / "parts.json", {"seconds_per_image": result, "rounds": rounds, "images": images, **machine()})


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def laps_of(items: Iterable[object], count: int | None = None) -> list[float]:
    """Returns the CPU seconds that each of the first `count` items takes."""
    laps = []
    before = time.process_time()
    for number, _ in enumerate(items, start=1):
        now = time.process_time()
        laps.append(now - before)
        if number == count:
            break
        before = now
    return laps


def our_input(dataset: Dataset, images: int, seed: int) -> Iterator[torch.Tensor]:
    """Yields batches of augmented images, as training makes them."""
    config = preset(MODEL)
    augmentation, batch = RECIPES[RECIPE].augmentation, RECIPES[RECIPE].batch_size
    order = np.random.default_rng(seed).permutation(len(dataset))
    for start in range(0, images, batch):
        images = []
        for position in range(start, start + batch):
            sample = dataset[int(order[position % len(order)])]
            params = sample_params(np.random.default_rng((seed, position)), normalized_boxes(sample), augmentation)
            images.append(render(sample, params, height=config.height, width=config.width, margin=config.mean).image)
        yield torch.from_numpy(np.stack(images))


def table(out: Path) -> None:
    """Prints Markdown tables of the minutes to each level, the gains of the parts, and VOC. Draws `curves.png`."""
    runs = [json.loads(file.read_text()) for task in TASKS for file in sorted(out.glob(f"{task}-*-*.json"))]
    bccd = {who: [run for run in runs if (run["task"], run["who"]) == ("bccd", who)] for who in WHO}
    print_rows(["BCCD: minutes of CPU to AP50", *map(str, LEVELS), "seconds an epoch"])
    for who, found in bccd.items():
        for one in found:
            cells = [minutes(one["times"][str(level)]) for level in LEVELS]
            print_row(f"{label(who, one)}, seed {one['seed']}", *cells, f"{one['cpu_seconds_per_epoch']:.1f}")
    for who, found in bccd.items():
        if found:
            cells = [minutes(median(found, level)) for level in LEVELS]
            seconds = statistics.median(one["cpu_seconds_per_epoch"] for one in found)
            print_row(f"**{label(who, found[0])}, median of {len(found)}**", *cells, f"{seconds:.1f}")
    for who in ("peer", "tuned"):
        if bccd["ours"] and bccd[who]:
            cells = [ratio(median(bccd["ours"], level), median(bccd[who], level)) for level in LEVELS]
            print_row(f"**ours / {WHO[who]}**", *cells, "")
    if (out / "parts.json").exists() and bccd["ours"]:
        print_parts(json.loads((out / "parts.json").read_text())["seconds_per_image"], bccd)
    voc = [run for run in runs if run["task"] == "voc"]
    if voc:
        print_rows(["VOC 2007, 1,000 images: AP50 after minutes of CPU", *map(str, AFTER), "seconds an epoch"])
        for one in voc:
            at = np.interp(AFTER, [0, *column(one, 2)], [0, *column(one, 4)])
            cells = [f"{100 * value:.1f}" for value in at]
            print_row(f"{label(one['who'], one)}, seed {one['seed']}", *cells, f"{one['cpu_seconds_per_epoch']:.1f}")
    draw_curves(runs, out / "curves.png")


def print_parts(parts: dict[str, dict[str, float]], bccd: dict[str, list[dict[str, Any]]]) -> None:
    """Prints the gain of each part, as factors on the peer's time whose product is our time.

    Recipe: our epochs to the level, divided by the peer's, as if both were equally fast. Input: the peer's seconds an
        image with our input, divided by those with its own input. Step: our seconds an image, divided by the peer's
        with our input.
    """
    ours, other = parts["our"], parts["peer"]
    with_input = ours["input"] + other["step"]
    print_rows(["milliseconds an image", "input", "step", "both"])
    for who, one in (("ours", ours), ("torchvision", other)):
        print_row(who, *(f"{1000 * one[name]:.1f}" for name in ("input", "step", "whole")))
    print_rows(["BCCD: factors on the peer's time", *map(str, LEVELS)])
    for who in ("peer", "tuned"):
        if bccd[who]:
            recipe = [ratio(median(bccd["ours"], level, 0), median(bccd[who], level, 0)) for level in LEVELS]
            print_row(f"recipe, against {WHO[who]}", *recipe)
    print_row("input", *[f"{with_input / other['whole']:.2f}"] * len(LEVELS))
    print_row("step", *[f"{ours['whole'] / with_input:.2f}"] * len(LEVELS))


def median(runs: list[dict[str, Any]], level: float, at: int = 2) -> float:
    """Returns the median of the minutes (or epochs) to the level; infinite for a run that does not reach it."""
    return statistics.median(next((row[at] for row in run["curve"] if row[4] >= level), math.inf) for run in runs)


def ratio(ours: float, other: float) -> str:
    if math.isinf(ours):
        return "not reached"
    return f"{ours / other:.2f}" if math.isfinite(other) else "peer does not reach it"


def minutes(value: float | None) -> str:
    return f"> {LIMIT:.0f}" if value is None or math.isinf(value) else f"{value:.1f}"


def label(who: str, run: dict[str, Any]) -> str:
    return f"{WHO[who]} ({run['learning_rate']})" if "learning_rate" in run else WHO[who]


def column(run: dict[str, Any], number: int) -> list[float]:
    return [row[number] for row in run["curve"]]


def print_rows(head: list[str]) -> None:
    print()
    print_row(*head)
    print_row(*["---"] * len(head))


def print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |")


def draw_curves(runs: list[dict[str, Any]], file: Path) -> None:
    from matplotlib.figure import Figure

    tasks = [task for task in TASKS if any(run["task"] == task for run in runs)]
    figure = Figure(figsize=(6 * len(tasks), 4), layout="constrained")
    colors = dict(zip(WHO, ("tab:blue", "tab:red", "tab:orange"), strict=True))
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for who in WHO:
            for number, one in enumerate(run for run in runs if (run["task"], run["who"]) == (task, who)):
                name = label(who, one) if number == 0 else None
                axes.plot([0, *column(one, 2)], [0, *column(one, 4)], color=colors[who], label=name, linewidth=1)
        for level in LEVELS if task == "bccd" else ():
            axes.axhline(level, color="gray", linewidth=0.5, linestyle=":")
        axes.set(
            title=task.upper(), xlabel="minutes of CPU, one thread", ylabel="AP50", xlim=(0, LIMIT), ylim=(0, None)
        )
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file, dpi=120)


def machine() -> dict[str, Any]:
    """Returns the machine, versions and date that the figures belong to."""
    packages = ("multibox", "torch", "torchvision", "numpy", "pillow")
    return {
        "device": "cpu",
        "cpu": f"{device_name('cpu')}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "commit": commit(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "date": time.strftime("%Y-%m-%d"),
    }


def write(file: Path, values: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(values, indent=1) + "\n")
    os.replace(part, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    with_data: dict[str, Callable[..., None]] = {"run": run, "tune": tune, "parts": parts}
    for name in with_data:
        command = commands.add_parser(name)
        command.add_argument("--data", type=Path, required=True)
        command.add_argument("--out", type=Path, required=True)
    commands.choices["run"].add_argument("--task", dest="name", choices=TASKS, default="bccd")
    commands.choices["run"].add_argument("--who", choices=WHO, required=True)
    commands.choices["run"].add_argument("--seed", type=int, default=0)
    commands.choices["tune"].add_argument("--rates", type=float, nargs="+", choices=RATES, default=RATES)
    commands.choices["tune"].add_argument("--epochs", type=int, default=10)
    commands.choices["parts"].add_argument("--rounds", type=int, default=3)
    commands.add_parser("table").add_argument("out", type=Path)
    given = vars(parser.parse_args())
    command = given.pop("command")
    torch.set_num_threads(1)
    {**with_data, "table": table}[command](**given)


if __name__ == "__main__":
    main()
