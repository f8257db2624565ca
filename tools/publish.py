"""Puts the weights of a run into the package, in half precision, with a card of what they are and how good they are.

    .venv/bin/python tools/publish.py runs/ssd300-lite0-voc07 multibox/voc --recipe recipes/ssd300-lite0-voc07.yaml \\
        --data VOCdevkit/VOC2007

writes multibox/assets/voc.safetensors and multibox/assets/voc.md. The figures are those of the halved weights on the
test set, by the rules of VOC 2007 and of COCO. What multibox/weights/published.py says of them is written by hand.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from multibox.data.read import read_dataset
from multibox.data.sample import Dataset
from multibox.detector import Detector
from multibox.evaluation.evaluate import evaluate, score
from multibox.evaluation.metrics import Metrics
from multibox.messages import percent
from multibox.report.environment import commit, device_name
from multibox.weights.published import PUBLISHED


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("name", choices=[name for name in PUBLISHED if PUBLISHED[name].path], help="published name")
    parser.add_argument("--recipe", type=Path, required=True, help="file of recipes/ by which the run was trained")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--split", default="test")
    arguments = parser.parse_args()
    path = PUBLISHED[arguments.name].path
    assert path is not None  # by the choices
    trained = Detector.load(arguments.run)
    trained.provenance["trained on"] = without_place(trained.provenance["trained on"])
    trained.save(path, half=True)

    detector = Detector.load(arguments.name)
    test_set = read_dataset(arguments.data, split=arguments.split).with_classes(detector.class_names)
    voc = evaluate(detector, test_set, rule="voc2007")
    coco = score([sample.truth for sample in test_set], voc.detections, class_names=detector.class_names, rule="coco")
    run = json.loads((arguments.run / "card.json").read_text(encoding="utf-8"))
    text = card(arguments.name, detector, run, test_set=test_set, voc=voc, coco=coco, recipe=arguments.recipe.name)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def without_place(name: str) -> str:
    """Returns the name of a split, `/data/VOCdevkit/VOC2007, trainval`, with the last two folders of its path alone."""
    path, comma, split = name.rpartition(", ")
    return "/".join(Path(path).parts[-2:]) + comma + split


def card(
    name: str,
    detector: Detector,
    run: dict[str, Any],
    *,
    test_set: Dataset,
    voc: Metrics,
    coco: Metrics,
    recipe: str,
) -> str:
    """Returns the card in Markdown."""
    facts, versions, train = run["facts"], run["versions"], run["data"]["train"]
    learned = {
        "network": f"`{run['detector']}`, {detector.config.height} x {detector.config.width} pixels",
        "data": f"{without_place(train['name'])}: {train['images']:,} images, {train['objects']:,} objects",
        "fingerprint of the data": f"`{train['fingerprint']}`",
        "command": f"`multibox train DATA --config recipes/{recipe} --out RUN`",
        "seed": run["config"]["seed"],
        "machine": f"{facts['device']}, {facts['torch threads']} threads, {run['config']['precision']}",
        "time": facts["time"],
        "epochs": f"{run['best']['epoch']:.1f}",
        "images/s": facts["images/s of training"],
        "commit": versions["commit"],
        "versions": f"multibox {versions['multibox']}, torch {versions['torch']}, Python {versions['Python']}",
        "provenance": ", ".join(f"{key}: {value}" for key, value in detector.provenance.items()),
    }
    by_class = [(each, voc.per_class[each]["ap"], coco.per_class[each]["ap50"]) for each in detector.class_names]
    return "\n".join(
        [
            f"# {name}",
            "",
            f"{PUBLISHED[name].description}. {PUBLISHED[name].license}.",
            "",
            "The photographs that it learned from have terms of their own, which may apply to the weights as well.",
            "",
            "## Results",
            "",
            f"On {without_place(test_set.name)}, {len(test_set):,} images, with these weights in half precision "
            f"({device_name('cpu')}, commit {commit()}): mAP {percent(voc.ap)} by VOC 2007's rule (11 points, the last "
            f"pixel included); AP {percent(coco.ap)}, AP50 {percent(coco.ap50)}, AP75 {percent(coco.ap75)} by COCO's.",
            "",
            "| class | AP, VOC 2007 | AP50, COCO |",
            "| --- | ---: | ---: |",
            *(f"| {each} | {percent(first)} | {percent(second)} |" for each, first, second in by_class),
            "",
            "## Training",
            "",
            "|  |  |",
            "| --- | --- |",
            *(f"| {key} | {value} |" for key, value in learned.items()),
            "",
        ]
    )


if __name__ == "__main__":
    main()
