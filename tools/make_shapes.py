"""Trains `multibox/shapes`, the small detector that comes with the package, and makes its example image.

    .venv/bin/python tools/make_shapes.py --minutes 7.5

writes multibox/assets/shapes.safetensors, multibox/assets/shapes.png and docs/images/shapes.png.
"""

import argparse
import tempfile
from pathlib import Path

from PIL import Image

from multibox.cli.demo import demo_recipe
from multibox.data.synthetic import CLASS_NAMES, synthetic_scene, synthetic_scenes
from multibox.detector import Detector
from multibox.evaluation.evaluate import evaluate
from multibox.training import Progress, TrainConfig, train
from multibox.weights.published import EXAMPLE_IMAGE, PUBLISHED

ROOT = Path(__file__).parent.parent
TRAIN_SEED, TEST_SEED, EXAMPLE_SEED, EXAMPLE_SCENE = 11, 12, 13, 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--scenes", type=int, default=1500)
    arguments = parser.parse_args()

    def show(progress: Progress) -> None:
        if progress.step % 100 == 0:
            print(f"epoch {progress.epoch:.1f}, {progress.seconds_left:.0f} s left", flush=True)

    detector = Detector.create("ssd256-tiny", CLASS_NAMES, seed=0)
    config = TrainConfig(minutes=arguments.minutes, validate_every=1000)
    with tempfile.TemporaryDirectory() as folder:
        scenes = synthetic_scenes(arguments.scenes, seed=TRAIN_SEED)
        detector = train(detector, scenes, None, config, out=folder, recipe=demo_recipe(), on_progress=show)
    detector.save(PUBLISHED["multibox/shapes"].path, half=True)

    detector = Detector.load("multibox/shapes")
    metrics = evaluate(detector, synthetic_scenes(500, seed=TEST_SEED))
    print(f"AP {metrics.ap:.3f}, AP50 {metrics.ap50:.3f} on 500 other scenes")
    draw_example(detector)


def draw_example(detector: Detector) -> None:
    """Saves the example image, and a copy of twice the size with the detections drawn on it."""
    example = synthetic_scene(EXAMPLE_SCENE, seed=EXAMPLE_SEED, height=320, width=320).open()
    example.save(EXAMPLE_IMAGE, optimize=True)
    found = detector.detect(example)
    large = example.resize((example.width * 2, example.height * 2), Image.Resampling.LANCZOS)
    target = ROOT / "docs" / "images" / "shapes.png"
    target.parent.mkdir(parents=True, exist_ok=True)
    detector.detect(large, score_threshold=0.5).draw(large).save(target, optimize=True)
    for one in found[found.scores > 0.5]:
        print(one)


if __name__ == "__main__":
    main()
