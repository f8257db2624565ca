"""What users hold: a config, class names, and a runtime that turns prepared images into boxes."""

import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from multibox.boxes import clip
from multibox.config import DetectorConfig, Postprocess, Scales
from multibox.detections import Detections
from multibox.images import Source, open_image, resize
from multibox.presets import preset
from multibox.runtimes.runtime import Found, Runtime
from multibox.weights.convert import convert_weights
from multibox.weights.download import OnProgress
from multibox.weights.file import Weights, load_weights, save_weights
from multibox.weights.imagenet import imagenet_weights, is_non_commercial
from multibox.weights.published import find_weights

if TYPE_CHECKING:
    import multibox.ssd.network

_log = logging.getLogger(__name__)


class Detector:
    """A detector that is ready to use: `create` a new one, or `load` a trained one.

    Attributes:
        config: Everything about it but its class names and weights.
        class_names: In the order of the labels; the background is not among them.
        provenance: Where its weights come from, free text by name.
    """

    def __init__(
        self,
        config: DetectorConfig,
        class_names: Sequence[str],
        runtime: Runtime,
        *,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        self.config = config
        self.class_names = tuple(class_names)
        self.provenance = dict(provenance or {})
        self._runtime = runtime

    def __repr__(self) -> str:
        shown = [*self.class_names[:5], *["..."] * (len(self.class_names) > 5)]
        return f"Detector({self.config.name}, {len(self.class_names)} classes: {', '.join(shown)})"

    @classmethod
    def create(
        cls,
        model: str | DetectorConfig,
        class_names: Sequence[str],
        *,
        scales: Scales | None = None,
        height: int | None = None,
        width: int | None = None,
        start_from: Literal["imagenet"] | None = None,
        seed: int | None = None,
        on_progress: OnProgress | None = None,
    ) -> "Detector":
        """A new detector with random weights, or with a backbone that was trained on ImageNet.

        Args:
            model: The name of a preset (`multibox models` lists them), `timm/NAME` for a backbone of timm, or a config.
            class_names: In the order of the labels.
            scales: Sizes of a preset's default boxes: `voc`, or `coco` for smaller objects.
            height: Of a preset's input in pixels, where it is not to be its own; extra layers and default boxes follow.
            width: The same; where only one of the two is given the input is square.
            start_from: `imagenet` fetches weights for the backbone (torchvision's, or timm's for its own); the mean and
                scale of the pixels become those that they were trained with.
            seed: Of the random weights.
            on_progress: Told how far the weights are while they are fetched: bytes, of how many, bytes a second.

        Raises:
            ValueError: There is no such preset, its input is too small or too large, class names are missing or stand
                twice, or there are no such weights.
            ImportError: It is a backbone of timm, and timm is not installed.
            OSError: The weights cannot be fetched.

        Warns:
            UserWarning: The license of the weights forbids commercial use.
        """
        _check_class_names(class_names)
        from multibox.ssd.build import create_network, start_backbone, timm_config

        if isinstance(model, str):
            make = timm_config if model.startswith("timm/") else preset
            config = make(model, scales=scales, height=height, width=width)
        elif (scales, height, width) == (None, None, None):
            config = model
        else:
            raise ValueError("scales, height and width are for presets: a config has its own")
        if start_from is None:
            return cls.of_network(config, class_names, create_network(config, num_classes=len(class_names), seed=seed))
        if start_from != "imagenet":
            raise ValueError(f"start_from must be 'imagenet' or None, but is '{start_from}'; weights are for load")
        start = imagenet_weights(config.backbone, on_progress=on_progress)
        if is_non_commercial(start.source):
            warnings.warn(
                f"beware of {start.source}: it forbids commercial use, and with it that of what is trained from these "
                "weights",
                stacklevel=2,
            )
        config = replace(config, mean=start.mean, scale=start.scale)
        network = create_network(config, num_classes=len(class_names), seed=seed)
        random = start_backbone(network, start.tensors)
        if random:
            _log.info("%s: %d tensors of the backbone stay random, %s on", start.source, len(random), random[0])
        return cls.of_network(config, class_names, network, provenance={"backbone": start.source})

    @classmethod
    def of_network(
        cls,
        config: DetectorConfig,
        class_names: Sequence[str],
        network: "multibox.ssd.network.SSD",
        *,
        provenance: Mapping[str, str] | None = None,
    ) -> "Detector":
        """The detector of a network that is in memory; the two share it."""
        from multibox.runtimes.torch_runtime import TorchRuntime

        return cls(config, class_names, TorchRuntime(config, network), provenance=provenance)

    @classmethod
    def load(
        cls, model: str | os.PathLike[str], *, device: str = "cpu", on_progress: OnProgress | None = None
    ) -> "Detector":
        """The detector of a weights file, or of published weights by name.

        Args:
            model: A path; a name that `multibox models` lists (`torchvision/ssd300-vgg16-coco`), fetched into the cache
                (`MULTIBOX_CACHE`, by default `~/.cache/multibox`); or a repository of the Hugging Face Hub,
                `hf://owner/name`.
            device: `cpu`, `cuda`, `mps`.
            on_progress: Told how far a file is while it is fetched: bytes, of how many, bytes a second.

        Raises:
            FileNotFoundError: It is neither a file nor the name of published weights.
            OSError: It cannot be fetched.
            ValueError: The file is not one of multibox, is damaged, or does not fit this version.
        """
        path = find_weights(model, on_progress=on_progress)
        return cls._of_weights(load_weights(path), path).to(device)

    @classmethod
    def convert(cls, path: str | os.PathLike[str]) -> "Detector":
        """The detector of a weights file of another project, with that project's own rules in its config.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is of no kind that is known, or damaged, or holds code.
        """
        return cls._of_weights(convert_weights(path), path)

    @classmethod
    def _of_weights(cls, weights: Weights, path: str | os.PathLike[str]) -> "Detector":
        """The detector of what was read from a file, which is named where its tensors do not fit."""
        from multibox.ssd.build import load_network

        try:
            network = load_network(weights.config, weights.tensors, num_classes=len(weights.class_names))
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error
        return cls.of_network(weights.config, weights.class_names, network, provenance=weights.provenance)

    def save(self, path: str | os.PathLike[str], *, half: bool = False) -> None:
        """Writes one `.safetensors` file that is all that `load` needs.

        Args:
            path: The folder must be there; a file of that name is replaced.
            half: Weights in half precision: half the size, and scores that differ in the third decimal or so.
        """
        save_weights(Path(path), self._weights(half=half))

    def push_to_hub(
        self, repository: str, *, half: bool = False, license: str | None = None, private: bool | None = None
    ) -> str:
        """Saves it to a repository of the Hugging Face Hub, where `load("hf://owner/name")` finds it; its address.

        A page that says what it is comes with it, unless there is one. You must be logged in (`hf auth login`).

        Args:
            repository: `owner/name`; made if need be.
            half: Weights in half precision.
            license: By its name on the hub (`apache-2.0`), for a new page.
            private: Whether a new repository is closed to others; by default as the owner has set it.

        Raises:
            ConnectionError: The hub cannot be reached, or refuses.
            ImportError: The package huggingface-hub is not installed.
            ValueError: It is no name of a repository.
        """
        from multibox.weights.hub import push_to_hub

        return push_to_hub(repository, self._weights(half=half), license=license, private=private)

    def _weights(self, *, half: bool) -> Weights:
        from multibox.ssd.build import network_tensors

        return Weights(self.config, self.class_names, network_tensors(self.network, half=half), self.provenance)

    @property
    def network(self) -> "multibox.ssd.network.SSD":
        """The network: `network(inputs) -> Predictions(offsets, logits)`.

        Raises:
            TypeError: This detector has none: it runs an exported file.
        """
        from multibox.runtimes.torch_runtime import TorchRuntime

        if not isinstance(self._runtime, TorchRuntime):
            raise TypeError("this detector runs an exported file and has no network; load its .safetensors file")
        return self._runtime.network

    def to(self, device: str) -> "Detector":
        """This detector, moved to another device (`cpu`, `cuda`, `mps`)."""
        self.network.to(device)
        return self

    def with_classes(self, class_names: Sequence[str], *, seed: int | None = None) -> "Detector":
        """A copy for other classes, to train on: classes of the same name keep their weights, others start anew.

        The loss trains a softmax, so the copy scores by one. Where this detector scores by sigmoids, as TensorFlow's,
        its settings were made for those, and the copy has the paper's in its place.
        """
        from multibox.ssd.build import network_with_classes

        _check_class_names(class_names)
        known = {name: label for label, name in enumerate(self.class_names)}
        config = self.config
        if config.scoring != "softmax":
            config = replace(config, scoring="softmax", postprocess=Postprocess())
        network = network_with_classes(config, self.network, [known.get(name) for name in class_names], seed=seed)
        return Detector.of_network(config, class_names, network, provenance=self.provenance)

    def prepare(self, images: Source | Iterable[Source]) -> Shaped[np.ndarray, "batch 3 height width"]:
        """One or many images as the network takes them: RGB, resized by the config's rule, not yet normalized.

        `uint8`, or `float32` where the rule does not round.
        """
        many = [images] if _is_one(images) else images
        return self._prepared([open_image(image) for image in many])  # type: ignore[arg-type, union-attr]

    # the overloads overlap in `str`, which is a path here, never an iterable of images
    @overload
    def detect(  # type: ignore[overload-overlap]
        self,
        images: Source,
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        class_agnostic: bool | None = None,
        max_detections: int | None = None,
        class_names: Sequence[str] | None = None,
        batch_size: int = 8,
    ) -> Detections: ...

    @overload
    def detect(
        self,
        images: Iterable[Source],
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        class_agnostic: bool | None = None,
        max_detections: int | None = None,
        class_names: Sequence[str] | None = None,
        batch_size: int = 8,
    ) -> list[Detections]: ...

    def detect(
        self,
        images: Source | Iterable[Source],
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        class_agnostic: bool | None = None,
        max_detections: int | None = None,
        class_names: Sequence[str] | None = None,
        batch_size: int = 8,
    ) -> Detections | list[Detections]:
        """What is found in an image, or a list of that for several images (a list, a batch of pixels, a generator).

        Args:
            images: One or many of: a path, the bytes of a file, a PIL image, `uint8` RGB pixels as array or tensor.
            score_threshold: A score must be above it. This and the next three default to the detector's own.
            iou_threshold: A box that overlaps a better one by more than this is suppressed.
            class_agnostic: Whether a better box of any class suppresses, not only one of the same class.
            max_detections: How many are kept of an image.
            class_names: The names of the classes that are wanted.
            batch_size: How many images go through the network at once.

        Raises:
            FileNotFoundError: An image is not there.
            ValueError: An image cannot be read, there is no such class, or a number is out of its range.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but is {batch_size}")
        if isinstance(class_names, str):
            raise TypeError(f"class_names must be a list of names, not the text '{class_names}'")
        settings = self.config.postprocess.override(
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            class_agnostic=class_agnostic,
            max_detections=max_detections,
        )
        labels = None if class_names is None else [self._label(name) for name in class_names]
        if _is_one(images):
            return self._detect([open_image(images)], settings, labels)[0]  # type: ignore[arg-type]
        found: list[Detections] = []
        for batch in _batches(images, batch_size):  # type: ignore[arg-type]
            found += self._detect([open_image(image) for image in batch], settings, labels)
        return found

    def _detect(self, images: list[Image.Image], settings: Postprocess, labels: list[int] | None) -> list[Detections]:
        found = self._runtime(self._prepared(images), settings=settings, labels=labels)
        return [self._detections(*pair) for pair in zip(found, images, strict=True)]

    def _prepared(self, images: list[Image.Image]) -> Shaped[np.ndarray, "batch 3 height width"]:
        height, width, rule = self.config.height, self.config.width, self.config.resize
        small = [resize(image, height, width, rule) for image in images]
        return np.stack(small) if small else np.empty((0, 3, height, width), np.uint8)

    def _detections(self, found: Found, image: Image.Image) -> Detections:
        size = np.array([image.width, image.height] * 2, dtype=np.float32)
        boxes = clip(found.boxes * size, image.height, image.width)
        return Detections(boxes, found.scores, found.labels, found.default_box_indices, self.class_names)

    def _label(self, name: str) -> int:
        if name not in self.class_names:
            near = get_close_matches(name, self.class_names, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it knows {', '.join(self.class_names)}"
            raise ValueError(f"the detector has no class '{name}'; {hint}")
        return self.class_names.index(name)


load = Detector.load
"""`multibox.load`: the detector of a weights file or of published weights."""

convert = Detector.convert
"""`multibox.convert`: the detector of a weights file of another project."""


def _is_one(images: Source | Iterable[Source]) -> bool:
    if isinstance(images, str | os.PathLike | bytes | Image.Image):
        return True
    if not isinstance(images, Iterable):
        return True  # `open_image` says what an image is
    return getattr(images, "ndim", 4) in (2, 3)  # one dimension: a column of paths; four: a batch of pixels


def _batches(images: Iterable[Source], size: int) -> Iterator[list[Source]]:
    rest = iter(images)
    while batch := list(islice(rest, size)):
        yield batch


def _check_class_names(class_names: Sequence[str]) -> None:
    if isinstance(class_names, str):
        raise TypeError(f"class_names must be a list of names, not the text '{class_names}'")
    if not class_names or not all(class_names):
        raise ValueError(f"a detector needs at least one class, and a name for each, not {list(class_names)}")
    twice = sorted({name for name in class_names if list(class_names).count(name) > 1})
    if twice:
        raise ValueError(f"class names stand twice: {', '.join(twice)}")
