"""The command `multibox ablate`."""

import json as json_format
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from multibox.cli.arguments import (
    DATA,
    LENGTH,
    MACHINE,
    MODEL,
    OUTPUT,
    Count,
    Device,
    OnProblem,
    Unlabelled,
    UsageError,
    choose_device,
    name_flag,
    new_network,
    whole_number,
)
from multibox.cli.data import choose_split, read_apart
from multibox.cli.output import check_empty, check_folder
from multibox.cli.terminal import info, progress_bar, stdout, training_bar
from multibox.messages import counted, duration

if TYPE_CHECKING:
    from multibox.data import Dataset
    from multibox.report.ablation import AblationRow, AblationScore
    from multibox.training import Progress, TrainConfig
    from multibox.training.ablation import Variant

MINUTES = 3.0
"""Minutes of each run unless the user says otherwise."""

RESULTS, TABLE, FIGURE = "ablation.json", "ablation.md", "ablation.png"
"""The files of an ablation, beside the folders of its runs. The first one marks the folder as its own."""


def ablate(
    data: Annotated[list[Path], Parameter(group=DATA, negative="")],
    /,
    *,
    model: Annotated[str, Parameter(group=MODEL)] = "ssd256-tiny",
    size: Annotated[str | None, Parameter(group=MODEL, show_default="the preset's own")] = None,
    # `config.Scales` and `recipes.RecipeName` spelled out: importing them would load NumPy, and --help must not
    scales: Annotated[Literal["voc", "coco"] | None, Parameter(group=MODEL)] = None,
    start_from: Annotated[str | None, Parameter(group=MODEL, show_default="random weights")] = None,
    recipe: Annotated[Literal["paper", "modern", "fine-tune"] | None, Parameter(group=MODEL)] = None,
    variants: Annotated[str | None, Parameter(group=MODEL, show_default="the six usual ones")] = None,
    minutes: Annotated[float | None, Parameter(group=LENGTH, show_default=f"{MINUTES:g}")] = None,
    steps: Annotated[int | None, Parameter(group=LENGTH, converter=whole_number)] = None,
    seeds: Annotated[Count, Parameter(group=LENGTH)] = 3,
    train_split: Annotated[
        str | None, Parameter(group=DATA, show_default="train, or trainval, or the only one")
    ] = None,
    split: Annotated[str | None, Parameter(group=DATA, show_default="val, or test, or a fifth of the images")] = None,
    on_problem: Annotated[OnProblem, Parameter(group=DATA)] = "skip",
    unlabelled: Unlabelled = None,
    out: Annotated[Path, Parameter(group=OUTPUT)] = Path("ablation"),
    workers: Annotated[int | None, Parameter(group=MACHINE, converter=whole_number)] = None,
    device: Device = None,
) -> int:
    """Ask the paper's questions of your data: what each idea is worth.

    Short runs of equal length train the detector as it is, and without one of its ideas each: augmentation (full,
    no-augmentation), default boxes of several aspect ratios (no-ratio-3, squares), several feature maps (one-map) and
    hard negative mining (no-mining). The same command goes on with a job that was stopped.

    Args:
        data: The folder of the data set. Several folders of the same classes are joined.
        model: A preset, or timm/NAME.
        size: The input size in pixels, HEIGHTxWIDTH (240x320) or one number for both.
        scales: The sizes of the default boxes: for VOC, or for COCO's smaller objects.
        start_from: The weights that the backbone starts from: 'imagenet', or a file with the weights of a backbone.
        recipe: The recipe of all runs; by default the one that suits the model.
        variants: The variants to train beside the full detector, with commas between them, or 'all'. There are also
            5-maps, 4-maps, ... without the last maps, and no-expansion.
        minutes: The length of each run in minutes.
        steps: The length of each run in steps.
        seeds: Train each variant this many times.
        train_split: The split to learn from.
        split: The split to score on.
        on_problem: What to do about a bad record: 'skip' lists it and leaves it out, 'error' stops.
        unlabelled: What an image without a label file is: 'empty' takes it as one without objects, 'skip' leaves it
            out.
        out: Write the table, the figure, all numbers and the runs to this folder.
        workers: The number of processes that read and augment images. By default as many as suit the machine.
        device: Compute on cpu, cuda or mps.
    """
    if minutes is not None and steps is not None:
        raise UsageError("--minutes and --steps are two lengths of the runs; give one of them")
    length = {"steps": steps} if steps is not None else {"minutes": MINUTES if minutes is None else minutes}
    _check_out(out)

    from multibox.data import DatasetReader
    from multibox.training import TrainConfig

    try:
        values = {"recipe": recipe, "workers": workers, "device": device and choose_device(device), **length}
        config = TrainConfig(validate_every=1000, **values)  # type: ignore[arg-type]
    except ValueError as error:
        raise UsageError(name_flag(error, values)) from error
    network = new_network(model, size, scales)
    reader = DatasetReader(data, unlabelled=unlabelled)

    from multibox.training.ablation import USUAL, make_variants

    offered = make_variants(network, config, pretrained=start_from is not None)
    chosen = _choose(offered, variants, USUAL)
    learned = choose_split(reader, train_split, ["train", "trainval"], "--train-split")
    train_set, test_set, scored = read_apart(reader, learned, split, on_problem)
    info(f"{counted(len(train_set), 'image')} to learn from ({learned}), {len(test_set)} to score on ({scored})")
    plan = {
        "data": [os.path.abspath(each) for each in data],
        "model": model,
        "network": json_format.loads(network.to_json()),
        "start_from": start_from,
        "recipe": recipe,
        **length,
        **_fingerprints(train_set, test_set),
    }
    _run(plan, chosen, train_set, test_set, config, seeds=seeds, out=out, start_from=start_from)
    return 0


def _check_out(out: Path) -> None:
    """Checks that the folder is an ablation's, or empty, or can be made.

    Raises:
        FileExistsError: It holds something else.
        OSError: It cannot be made or written to.
    """
    check_folder(out)
    if not (out / RESULTS).is_file():
        check_empty(out)


def _choose(offered: dict[str, "Variant"], wanted: str | None, usual: Sequence[str]) -> list["Variant"]:
    """Returns the variants that `--variants` names, after the full detector.

    Raises:
        UsageError: There is no such variant.
    """
    names = [name.strip() for name in wanted.split(",")] if wanted else [name for name in usual if name in offered]
    if wanted == "all":
        names = list(offered)
    for name in names:
        if name not in offered:
            raise UsageError(f"--variants: there is no variant '{name}' of this detector, only {', '.join(offered)}")
    (full, *_) = offered
    return [offered[name] for name in dict.fromkeys([full, *names])]


def _fingerprints(train_set: "Dataset", test_set: "Dataset") -> dict[str, Any]:
    from multibox.data.fingerprint import fingerprint

    return {
        name: {"images": len(dataset), "fingerprint": fingerprint(dataset)}
        for name, dataset in (("learned", train_set), ("scored", test_set))
    }


def _read_scores(out: Path, plan: dict[str, Any]) -> list["AblationScore"]:
    """Returns the scores of the runs that are finished.

    Raises:
        FileExistsError: The folder holds an ablation of another kind.
        ValueError: Its file is damaged.
    """
    from multibox.report.ablation import AblationScore

    file = out / RESULTS
    if not file.is_file():
        return []
    try:
        before = json_format.loads(file.read_text(encoding="utf-8"))
        scores = [AblationScore(**score) for score in before["scores"]]
        other = [name for name in plan.keys() | before["plan"].keys() if before["plan"].get(name) != plan.get(name)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: not as an ablation writes it ({error}); choose another folder with --out") from error
    if other:
        raise FileExistsError(
            f"{out} holds an ablation with another {', '.join(sorted(other))}; choose another folder with --out"
        )
    return scores


def _run(
    plan: dict[str, Any],
    variants: Sequence["Variant"],
    train_set: "Dataset",
    test_set: "Dataset",
    config: "TrainConfig",
    *,
    seeds: int,
    out: Path,
    start_from: str | None,
) -> None:
    """Trains and scores what has no score yet, and writes the results after each run.

    Raises:
        KeyboardInterrupt: The user interrupted a run. All that is finished is written.
    """
    from multibox.training.ablation import ablate as runs

    scores = _read_scores(out, plan)
    out.mkdir(parents=True, exist_ok=True)
    _write(out, plan, variants, scores)
    wanted = {(variant.name, seed) for variant in variants for seed in range(seeds)}
    finished = len(wanted & {(score.variant, score.seed) for score in scores})
    info(_forecast(len(variants), seeds, len(wanted) - finished, config))
    began, first = time.monotonic(), finished
    with training_bar() as bar, progress_bar("scoring   ", len(test_set)) as scoring:

        def on_run(variant: "Variant", seed: int) -> None:
            scoring(0, "")
            passed, done = time.monotonic() - began, finished - first
            left = f", {duration(passed / done * (len(wanted) - finished))} left" if done else ""
            info(f"run {finished + 1} of {len(wanted)}: {variant.name}, seed {seed}{left}")

        try:
            for score in runs(
                variants,
                range(seeds),
                train_set,
                test_set,
                config,
                out=out,
                start_from=start_from,
                done=scores,
                on_run=on_run,
                on_progress=bar.on_progress or _silent,
                on_scoring=lambda done, total: scoring(done, f"{done} of {total}"),
            ):
                scores.append(score)
                finished += 1
                _write(out, plan, variants, scores)
                info(f"  AP50 {100 * score.ap50:.1f}, AP {100 * score.ap:.1f} after {score.steps} steps")
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt("the same command goes on") from error
    rows = _rows(variants, scores)
    _print(rows, seeds)
    info(f"written to {out}: {TABLE}, {FIGURE}, {RESULTS}, and a folder for each run")


def _silent(progress: "Progress") -> None:
    """Takes the place of the bar of a run where there is no terminal."""


def _forecast(variants: int, seeds: int, left: int, config: "TrainConfig") -> str:
    """Returns how many runs there will be, and how long they take if that is known."""
    text = f"{counted(variants, 'variant')}, {counted(seeds, 'seed')}: {counted(left, 'run')} to train"
    if config.steps is not None:
        return f"{text}, {counted(config.steps, 'step')} each"
    minutes = config.minutes or 0.0
    return f"{text}, {minutes:g} min each: {left * minutes:g} min, and some seconds for each score"


def _rows(variants: Sequence["Variant"], scores: Sequence["AblationScore"]) -> list["AblationRow"]:
    """Returns the rows of the variants that have a run."""
    from multibox.report.ablation import FULL, ablation_row

    by_name = {variant.name: [score for score in scores if score.variant == variant.name] for variant in variants}
    return [
        ablation_row(variant.name, variant.what, variant.paper, by_name[variant.name], by_name[FULL])
        for variant in variants
        if by_name[variant.name]
    ]


def _write(out: Path, plan: dict[str, Any], variants: Sequence["Variant"], scores: Sequence["AblationScore"]) -> None:
    """Writes all numbers, the table and the figure, each of them whole or not at all."""
    from multibox.files import atomic_write
    from multibox.report.ablation import ablation_markdown, draw_ablation

    rows = _rows(variants, scores)
    values = {
        "plan": plan,
        "scores": [asdict(score) for score in scores],
        "rows": [row.values() for row in rows],
    }
    with atomic_write(out / RESULTS) as part:
        part.write_text(json_format.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if rows:
        with atomic_write(out / TABLE) as part:
            part.write_text("\n".join(ablation_markdown(rows)) + "\n", encoding="utf-8")
        with atomic_write(out / FIGURE) as part:
            draw_ablation(rows, scores, part, title=_title(plan))


def _title(plan: dict[str, Any]) -> str:
    length = f"{plan['steps']} steps" if "steps" in plan else f"{plan['minutes']:g} min"
    names = ", ".join(Path(each).name for each in plan["data"])
    return f"{plan['model']} on {names}: {plan['learned']['images']} images, {length} a run"


def _print(rows: Sequence["AblationRow"], seeds: int) -> None:
    """Prints the table, and how to read it."""
    from multibox.report.ablation import ablation_table

    print_line = stdout().print
    for line in ablation_table(rows):
        print_line(line)
    spread = "mean (lowest to highest over the seeds)" if seeds > 1 else "of one seed; --seeds 3 shows a spread"
    print_line(
        f"\nAP50 in percent, {spread}. The difference is\n"
        "that to the full detector with the same seed. With a question mark, it may be\n"
        "chance: the seeds do not agree on its sign, or there is only one. The paper's is\n"
        "in mAP on VOC 2007."
    )
