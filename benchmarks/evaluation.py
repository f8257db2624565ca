"""COCO's twelve numbers for 5,000 images with 100 detections each, by pycocotools and by us."""

import io
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout

import numpy as np

from benchmarks.timing import Comparison, Settings, compare
from multibox.data.sample import GroundTruth
from multibox.detections import Detections
from multibox.evaluation.evaluate import score

CLASS_NAMES = tuple(f"class {number}" for number in range(80))
HEIGHT, WIDTH, DETECTIONS = 480, 640, 100
TWELVE = (
    "ap",
    "ap50",
    "ap75",
    "ap_small",
    "ap_medium",
    "ap_large",
    "ar1",
    "ar10",
    "ar100",
    "ar_small",
    "ar_medium",
    "ar_large",
)


def measure(settings: Settings) -> Iterator[Comparison]:
    count = 20 if settings.quick else settings.images or 5000
    rng = np.random.default_rng(0)
    truths, detections = zip(*(_image(rng) for _ in range(count)), strict=True)
    run_theirs = _pycocotools(truths, detections)
    results: dict[str, list[float]] = {}

    def theirs() -> None:
        results["theirs"] = run_theirs()

    def ours() -> None:
        metrics = score(truths, detections, class_names=CLASS_NAMES, rule="coco")
        results["ours"] = [-1.0 if (value := getattr(metrics, name)) is None else value for name in TWELVE]

    comparison = compare(
        f"COCO's evaluation, {count:,} images, {DETECTIONS} detections each",
        {"pycocotools": theirs, "multibox": ours},
        settings,
        rounds=1,
        warm_up=0,
        unit="set",
        images=0,
    )
    most = np.abs(np.subtract(results["ours"], results["theirs"])).max()
    yield Comparison(**vars(comparison) | {"notes": (f"The twelve numbers differ by at most {most:.1e}.",)})


def _image(rng: np.random.Generator) -> tuple[GroundTruth, Detections]:
    """Returns objects and detections: half near an object, half anywhere with lower scores."""
    objects = int(rng.integers(1, 15))
    boxes, labels = _boxes(rng, objects), rng.integers(len(CLASS_NAMES), size=objects)
    near = rng.integers(objects, size=DETECTIONS // 2)
    width, height = boxes[near, 2] - boxes[near, 0], boxes[near, 3] - boxes[near, 1]
    moved = boxes[near] + rng.normal(0, 0.07, (len(near), 4)) * np.stack([width, height] * 2, axis=1)
    found = np.concatenate([moved, _boxes(rng, DETECTIONS - len(near))])
    scores = rng.random(DETECTIONS) * np.where(np.arange(DETECTIONS) < len(near), 1.0, 0.5)
    classes = np.concatenate([labels[near], rng.integers(len(CLASS_NAMES), size=DETECTIONS - len(near))])
    order = np.argsort(-scores)
    detections = Detections(
        found[order].astype(np.float32),
        scores[order].astype(np.float32),
        classes[order],
        np.full(DETECTIONS, -1),
        CLASS_NAMES,
    )
    return GroundTruth(boxes, labels), detections


def _boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    size = np.exp(rng.uniform(np.log(12), np.log(300), (count, 2)))
    corner = rng.uniform(0, 1, (count, 2)) * ([WIDTH, HEIGHT] - size)
    return np.concatenate([corner, corner + size], axis=1)


def _pycocotools(truths: tuple[GroundTruth, ...], detections: tuple[Detections, ...]) -> Callable[[], list[float]]:
    """Returns a function from lists of annotations, as COCO's JSON files hold them, to the twelve numbers."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations = [
        {
            "id": 0,
            "image_id": number,
            "category_id": int(label) + 1,
            "bbox": _corner_and_size(box),
            "area": float(area),
            "iscrowd": 0,
        }
        for number, truth in enumerate(truths)
        for box, label, area in zip(truth.boxes, truth.labels, truth.areas, strict=True)
    ]
    for number, annotation in enumerate(annotations, start=1):
        annotation["id"] = number
    found = [
        {"image_id": number, "category_id": int(label) + 1, "bbox": _corner_and_size(box), "score": float(score)}
        for number, one in enumerate(detections)
        for box, label, score in zip(one.boxes, one.labels, one.scores, strict=True)
    ]

    def run() -> list[float]:
        truth_set = COCO()
        truth_set.dataset = {
            "images": [{"id": number} for number in range(len(truths))],
            "categories": [{"id": number, "name": name} for number, name in enumerate(CLASS_NAMES, start=1)],
            "annotations": annotations,
        }
        with redirect_stdout(io.StringIO()):
            truth_set.createIndex()
            evaluation = COCOeval(truth_set, truth_set.loadRes([dict(each) for each in found]), "bbox")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        numbers: list[float] = evaluation.stats.tolist()
        return numbers

    return run


def _corner_and_size(box: np.ndarray) -> list[float]:
    left, top, right, bottom = box.astype(np.float64).tolist()
    return [left, top, right - left, bottom - top]
