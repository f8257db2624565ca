"""Time the way from a JPEG file to an augmented input of 300 x 300 with its boxes, beside other libraries."""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.io import decode_image
from torchvision.transforms import v2

from benchmarks.timing import Comparison, Settings, compare
from multibox import images
from multibox.benchmark.photographs import write_photographs
from multibox.data.augment import Augmentation, normalized_boxes, render, sample_params
from multibox.data.sample import Sample
from multibox.training.recipes import RECIPES

SIDE = 300
MEAN = (123.0, 117.0, 104.0)


def measure(settings: Settings) -> Iterator[Comparison]:
    torch.manual_seed(0)
    count = 2 if settings.quick else 16
    with tempfile.TemporaryDirectory() as folder:
        samples = write_photographs(Path(folder), count).samples
        for recipe in ("paper", "modern"):
            augmentation = RECIPES[recipe].augmentation
            pipelines = {
                "torchvision v2, PIL, its reference order": _torchvision(augmentation, "float"),
                "torchvision v2, PIL": _torchvision(augmentation, "PIL"),
                "torchvision v2, uint8 tensors": _torchvision(augmentation, "uint8"),
            }
            notes = ["torchvision has our recipe's values; where it changes colors, it also shuffles the channels."]
            if find_spec("albumentations"):
                pipelines["albumentations, its own crop rule"] = _albumentations(augmentation)
                notes.append("albumentations crops so that all objects stay, and does not expand.")
            pipelines["multibox"] = _ours(augmentation)
            pipelines["multibox, decoding alone"] = _decode
            yield compare(
                f"File to {SIDE} x {SIDE}, recipe `{recipe}`",
                {name: partial(_each, pipeline, samples) for name, pipeline in pipelines.items()},
                settings,
                rounds=9,
                units=count,
                notes=notes,
            )


Pipeline = Callable[[Sample], object]


def _each(pipeline: Pipeline, samples: list[Sample]) -> None:
    with warnings.catch_warnings():
        # the decoders of torchvision 0.29 warn that those of torchcodec will replace them
        warnings.filterwarnings("ignore", "The image decoding", DeprecationWarning)
        for sample in samples:
            pipeline(sample)


def _decode(sample: Sample) -> object:
    return images.decode_image(sample.image).pixels


def _ours(augmentation: Augmentation) -> Pipeline:
    rng = np.random.default_rng(0)

    def run(sample: Sample) -> object:
        params = sample_params(rng, normalized_boxes(sample), augmentation)
        return render(sample, params, height=SIDE, width=SIDE, margin=MEAN)

    return run


def _torchvision(augmentation: Augmentation, kind: str) -> Pipeline:
    """Returns torchvision's reference recipe for SSD: distort, zoom out, crop, flip, floats, resize.

    With the kind `float` it is unchanged. With `PIL` and `uint8` it resizes 8-bit pixels and leaves the conversion to
    floats to the device, as ours does.
    """
    steps: list[torch.nn.Module] = [
        v2.RandomPhotometricDistort(
            brightness=_around_one(augmentation.brightness / 255),
            contrast=_around_one(augmentation.contrast),
            saturation=_around_one(augmentation.saturation),
            hue=(-augmentation.hue / 360, augmentation.hue / 360),
            p=augmentation.color_probability,
        )
    ]
    if augmentation.expand_probability:
        fill = {tv_tensors.Image: MEAN, Image.Image: tuple(int(value) for value in MEAN), "others": 0}
        steps.append(v2.RandomZoomOut(fill, (1.0, augmentation.max_expansion), augmentation.expand_probability))
    crop: torch.nn.Module = v2.RandomIoUCrop()
    steps.append(crop if augmentation.crop_probability == 1 else v2.RandomApply([crop], augmentation.crop_probability))
    steps.append(v2.RandomHorizontalFlip(augmentation.flip_probability))
    if kind == "float":
        steps += [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.SanitizeBoundingBoxes()]
        steps += [v2.Resize((SIDE, SIDE), antialias=False)]
    else:
        steps += [v2.Resize((SIDE, SIDE)), v2.ToImage(), v2.SanitizeBoundingBoxes()]
    transforms = v2.Compose(steps)

    def run(sample: Sample) -> object:
        if kind == "uint8":
            image = tv_tensors.Image(decode_image(str(sample.image), mode="RGB"))
        else:
            image = Image.open(sample.image).convert("RGB")
        boxes = torch.from_numpy(sample.truth.boxes)
        target = {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(sample.height, sample.width)),
            "labels": torch.from_numpy(sample.truth.labels),
        }
        return transforms(image, target)

    return run


def _albumentations(augmentation: Augmentation) -> Pipeline:
    import albumentations
    import cv2

    cv2.setNumThreads(torch.get_num_threads())
    probability = augmentation.color_probability
    transforms = albumentations.Compose(
        [
            albumentations.RandomBrightnessContrast(
                augmentation.brightness / 255, augmentation.contrast, p=2 * probability - probability**2
            ),
            albumentations.HueSaturationValue(
                round(augmentation.hue / 2), round(100 * augmentation.saturation), 0, p=2 * probability - probability**2
            ),
            albumentations.RandomSizedBBoxSafeCrop(SIDE, SIDE, p=augmentation.crop_probability),
            albumentations.Resize(SIDE, SIDE),
            albumentations.HorizontalFlip(p=augmentation.flip_probability),
        ],
        bbox_params=albumentations.BboxParams("pascal_voc", label_fields=["labels"]),
        seed=0,
    )

    def run(sample: Sample) -> object:
        image = cv2.cvtColor(cv2.imread(str(sample.image)), cv2.COLOR_BGR2RGB)
        return transforms(image=image, bboxes=sample.truth.boxes, labels=sample.truth.labels)

    return run


def _around_one(amount: float) -> tuple[float, float]:
    return 1 - amount, 1 + amount
