"""The command `multibox demo`."""

import time
from contextlib import nullcontext
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from multibox.cli.arguments import LENGTH, MACHINE, OUTPUT, Overwrite, UsageError, name_flag
from multibox.cli.output import check_empty, check_folder
from multibox.cli.terminal import info, show_log, stderr, stdout, training_bar
from multibox.evaluation.metrics import Metrics
from multibox.messages import percent

if TYPE_CHECKING:
    from multibox.training.recipes import Recipe

TRAIN_SCENES, TEST_SCENES = 1000, 150
TRAIN_SEED, TEST_SEED = 1, 2
SHOWN_SCENES = 12

MARK = ".multibox-demo"
"""An empty file that marks a folder as one that a demo made."""


def demo_recipe() -> "Recipe":
    """Returns the demo's recipe. It does not crop, because a few minutes are too short to learn from crops as well."""
    from multibox.training.recipes import RECIPES

    modern = RECIPES["modern"]
    gentle = replace(modern.augmentation, brightness=16.0, contrast=0.1, saturation=0.2, crop_probability=0.0)
    return replace(modern, learning_rate=3e-3, epochs=12, augmentation=gentle)


def demo(
    *,
    out: Annotated[Path, Parameter(group=OUTPUT)] = Path("demo-output"),
    overwrite: Overwrite = False,
    minutes: Annotated[float, Parameter(group=LENGTH)] = 3.3,
    seed: Annotated[int, Parameter(group=MACHINE)] = 0,
) -> int:
    """Train, evaluate and detect on synthetic scenes, without a download.

    Args:
        out: Write everything to this new folder. Look at its summary.html.
        overwrite: Replace the files that an earlier demo wrote to the folder, its run among them. Other files stay.
        minutes: Train for this many minutes.
        seed: Start the random weights and the random changes of the images from this number. The scenes are always the
            same.
    """
    from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
    from multibox.detector import Detector
    from multibox.drawing import contact_sheet, draw_boxes
    from multibox.evaluation.evaluate import evaluate
    from multibox.training import TrainConfig, train

    try:
        config = TrainConfig(minutes=minutes, validate_every=1000, seed=seed)
    except ValueError as error:
        raise UsageError(name_flag(error, {"minutes", "seed"})) from error
    _make_folder(out, overwrite=overwrite)

    began = time.monotonic()
    info(f"drawing {TRAIN_SCENES} scenes to learn from and {TEST_SCENES} others to be tested on")
    train_set = synthetic_scenes(TRAIN_SCENES, seed=TRAIN_SEED)
    test_set = synthetic_scenes(TEST_SCENES, seed=TEST_SEED)

    info(f"training ssd256-tiny from scratch for {minutes:g} min")
    detector = Detector.create("ssd256-tiny", CLASS_NAMES, seed=seed)
    with training_bar() as bar, nullcontext() if stderr().is_terminal else show_log():
        recipe = demo_recipe()
        detector = train(detector, train_set, None, config, out=out / "run", recipe=recipe, on_progress=bar.on_progress)

    info(f"scoring it on the {TEST_SCENES} scenes that it was not trained on")
    metrics = evaluate(detector, test_set)
    (out / "metrics.json").write_text(metrics.to_json() + "\n", encoding="utf-8")
    drawn = []
    (out / "scenes").mkdir(exist_ok=True)
    for sample in test_set.samples[:SHOWN_SCENES]:
        image = draw_boxes(sample.open(), sample.truth.boxes, labels=sample.truth.labels, dashed=True)
        drawn.append(detector.detect(sample.image, score_threshold=0.5).draw(image))
        drawn[-1].save(out / "scenes" / f"{sample.name}.png")
    contact_sheet(drawn, columns=4, cell_height=256, cell_width=256).save(out / "found.png")
    seconds = time.monotonic() - began
    (out / "summary.html").write_text(_page(metrics, minutes, seconds), encoding="utf-8")
    stdout().print(
        f"AP50 {percent(metrics.ap50)}, AP {percent(metrics.ap)} on {metrics.images} scenes with {metrics.objects} "
        f"objects, in {seconds:.0f} s\nsee {out / 'summary.html'}"
    )
    return 0


def _make_folder(out: Path, *, overwrite: bool) -> None:
    """Makes the folder, or removes the run of an earlier demo from it. The demo's other files are written over.

    Raises:
        FileExistsError: The folder holds something that no demo wrote; or a demo wrote it, and `overwrite` is not set.
        OSError: The folder cannot be made or written to.
    """
    from multibox.training.run_files import remove_run

    check_folder(out)
    if not (out / MARK).is_file():
        check_empty(out, by="demo" if overwrite else None)
    elif not overwrite:
        raise FileExistsError(
            f"{out} holds an earlier demo; choose another folder with --out, or --overwrite it "
            "(make demo OUT=another, or make demo ARGS=--overwrite)"
        )
    remove_run(out / "run")
    out.mkdir(parents=True, exist_ok=True)
    (out / MARK).touch()


def _page(metrics: Metrics, minutes: float, seconds: float) -> str:
    """Returns the HTML of `summary.html`."""
    sizes = {
        "all sizes": metrics.ap,
        "small (up to 32 x 32 pixels)": metrics.ap_small,
        "medium": metrics.ap_medium,
        "large (from 96 x 96 pixels)": metrics.ap_large,
    }
    by_size = "".join(f"<tr><td>{escape(name)}<td>{percent(value)}" for name, value in sizes.items())
    by_class = "".join(
        f"<tr><td>{escape(name)}<td>{percent(values['ap'])}<td>{percent(values['ap50'])}<td>{values['objects']}"
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
<p class="headline">AP50 {percent(metrics.ap50)}, AP {percent(metrics.ap)}</p>
<p>The demo trained the preset <code>ssd256-tiny</code> from random weights for {minutes:g} min on {TRAIN_SCENES}
synthetic scenes (seed {TRAIN_SEED}). It then scored the detector by COCO's rule on {metrics.images} other scenes
(seed {TEST_SEED}) with {metrics.objects} objects. All of it took {seconds:.0f} s. The training images were flipped
and slightly changed in color, but not cropped: a few minutes are too short to learn from crops as well.</p>
<div class="tables">
<table><tr><th>objects<th>AP{by_size}</table>
<table><tr><th>class<th>AP<th>AP50<th>objects{by_class}</table>
</div>
<h2>Detections in scenes of the test set</h2>
<p>Solid boxes are detections with a score above 0.5. Dashed boxes are the true objects.</p>
<a href="found.png"><img src="found.png" alt="Twelve synthetic scenes with the boxes that the detector found"></a>
<h2>The training run</h2>
<a href="run/curves.png"><img src="run/curves.png" alt="Losses over the epochs"></a>
<p>The folder <a href="run/"><code>run/</code></a> holds the weights, the metrics, the log and the card of the run,
<a href="scenes/"><code>scenes/</code></a> the scenes above one by one, and
<a href="metrics.json"><code>metrics.json</code></a> all numbers of the evaluation.</p>
</html>
"""
