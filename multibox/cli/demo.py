"""multibox demo"""

import shutil
import time
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from multibox.cli.terminal import UsageError, check_output, say, stdout, training_bar
from multibox.evaluation.metrics import Metrics

if TYPE_CHECKING:
    from multibox.training.recipes import Recipe

TRAIN_SCENES, TEST_SCENES = 1000, 150
TRAIN_SEED, TEST_SEED = 1, 2

MADE_BY = {"made_by": "multibox demo"}
"""What `config.yaml` says of the demo's run."""


def demo_recipe() -> "Recipe":
    """Returns the demo's recipe: a few minutes are too short to learn synthetic scenes through crops as well."""
    from multibox.training.recipes import RECIPES

    modern = RECIPES["modern"]
    gentle = replace(modern.augmentation, brightness=16.0, contrast=0.1, saturation=0.2, crop_probability=0.0)
    return replace(modern, learning_rate=3e-3, epochs=12, augmentation=gentle)


Minutes = Annotated[float, Parameter(validator=Number(gt=0))]


def demo(*, out: Path = Path("demo-output"), minutes: Minutes = 3.3, seed: int = 0) -> int:
    """The whole path on synthetic scenes: train, evaluate, detect. No download.

    Args:
        out: The folder for everything it makes; summary.html shows it.
        minutes: How long it trains.
        seed: Of the random weights and changes; the scenes are always the same.
    """
    from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
    from multibox.detector import Detector
    from multibox.drawing import contact_sheet, draw_boxes
    from multibox.evaluation.evaluate import evaluate
    from multibox.training import TrainConfig, train

    try:
        config = TrainConfig(minutes=minutes, validate_every=1000, seed=seed)
    except ValueError as error:
        raise UsageError(str(error)) from error
    check_output(out)
    run = out / "run"
    if _is_a_demos(run / "config.yaml"):
        shutil.rmtree(run)

    began = time.monotonic()
    say(f"drawing {TRAIN_SCENES} scenes to learn from and {TEST_SCENES} others to be tested on")
    train_set = synthetic_scenes(TRAIN_SCENES, seed=TRAIN_SEED)
    test_set = synthetic_scenes(TEST_SCENES, seed=TEST_SEED)

    say(f"training ssd256-tiny from scratch for {minutes:g} minutes")
    detector = Detector.create("ssd256-tiny", CLASS_NAMES, seed=seed)
    with training_bar() as show:
        detector = train(
            detector, train_set, None, config, out=run, recipe=demo_recipe(), on_progress=show, notes=MADE_BY
        )

    say(f"scoring it on the {TEST_SCENES} scenes that it was not trained on")
    metrics = evaluate(detector, test_set)
    (out / "metrics.json").write_text(metrics.to_json() + "\n", encoding="utf-8")
    drawn = []
    for sample in test_set.samples[:12]:
        image = draw_boxes(sample.open(), sample.truth.boxes, labels=sample.truth.labels, dashed=True)
        drawn.append(detector.detect(sample.image, score_threshold=0.5).draw(image))
        drawn[-1].save(out / f"{sample.name}.png")
    contact_sheet(drawn, columns=4, cell_height=256, cell_width=256).save(out / "found.png")
    seconds = time.monotonic() - began
    (out / "summary.html").write_text(_page(metrics, minutes, seconds), encoding="utf-8")
    stdout().print(
        f"AP50 {metrics.ap50 or 0:.3f}, AP {metrics.ap or 0:.3f} on {metrics.images} scenes with {metrics.objects} "
        f"objects, in {seconds:.0f} s\nsee {out / 'summary.html'}"
    )
    return 0


def _is_a_demos(config: Path) -> bool:
    """Returns whether an earlier demo made this run."""
    line = ": ".join(*MADE_BY.items())
    return config.is_file() and line in config.read_text(encoding="utf-8").splitlines()


def _page(metrics: Metrics, minutes: float, seconds: float) -> str:
    sizes = {
        "all sizes": metrics.ap,
        "small (up to 32 x 32 pixels)": metrics.ap_small,
        "medium": metrics.ap_medium,
        "large (from 96 x 96 pixels)": metrics.ap_large,
    }
    by_size = "".join(f"<tr><td>{escape(name)}<td>{_percent(value)}" for name, value in sizes.items())
    by_class = "".join(
        f"<tr><td>{escape(name)}<td>{_percent(values['ap'])}<td>{_percent(values['ap50'])}<td>{values['objects']}"
        for name, values in metrics.per_class.items()
    )
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>multibox demo</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; color: #222 }}
  img {{ max-width: 100%; border-radius: 4px }}
  table {{ border-collapse: collapse; margin: 0 3rem 1.5rem 0; font-variant-numeric: tabular-nums }}
  td, th {{ padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #ddd; text-align: right }}
  td:first-child, th:first-child {{ text-align: left }}
  .tables {{ display: flex; flex-wrap: wrap; align-items: flex-start }}
  .headline {{ font-size: 1.5rem }}
</style>
<h1>multibox demo</h1>
<p class="headline">AP50 {_percent(metrics.ap50)}, AP {_percent(metrics.ap)}</p>
<p>An <code>ssd256-tiny</code> with random weights was trained for {minutes:g} minutes on {TRAIN_SCENES} synthetic
scenes (seed {TRAIN_SEED}), and scored on {metrics.images} others (seed {TEST_SEED}) with {metrics.objects} objects
by COCO's rule. All of it took {seconds:.0f} seconds. The recipe is the demo's own:
horizontal flips and light changes of color, no crops, because a few minutes are
too short to learn through the paper's full augmentation.</p>
<div class="tables">
<table><tr><th>objects<th>AP{by_size}</table>
<table><tr><th>class<th>AP<th>AP50<th>objects{by_class}</table>
</div>
<h2>Scenes that it was not trained on</h2>
<p>Found boxes with a score above 0.5; the true ones are dashed.</p>
<img src="found.png" alt="Twelve synthetic scenes with the boxes that were found">
<h2>The run</h2>
<img src="run/curves.png" alt="Losses over the epochs">
<p>Everything it left is in <code>run/</code>: weights, metrics, log. The metrics are in <code>metrics.json</code>, as
<code>multibox evaluate --json</code> gives them.</p>
</html>
"""


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.1f}"
