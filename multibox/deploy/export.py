"""Exports a detector as one file, and proves that the file finds what the detector finds."""

import base64
import copy
import dataclasses
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, get_args

import numpy as np
import torch

from multibox.config import DetectorConfig
from multibox.data.sample import Dataset, Sample
from multibox.data.synthetic import synthetic_scenes
from multibox.deploy.graph import DetectorGraph
from multibox.deploy.homes import HomeGraph, home_of, labels_file, tflite_home_of
from multibox.deploy.int8 import Int8Cost, check_apart, judge
from multibox.deploy.kinds import KINDS, files_of, move, quantize, write, write_model
from multibox.deploy.onnx import to_onnx
from multibox.deploy.prepared import Preparation, with_preparation
from multibox.deploy.proof import TOLERANCE, Proof, check_home, check_tflite_home, prepared_by, prove
from multibox.detector import Detector
from multibox.images import Source
from multibox.messages import counted, quoted, shortened
from multibox.runtimes.exported import OUTPUTS, ExportFacts, Suppression
from multibox.runtimes.open import open_exported
from multibox.weights.file import Weights, make_header

_log = logging.getLogger(__name__)

ENOUGH = 20
"""Number of detections from which a comparison says that a file is right."""


class Form(NamedTuple):
    """What a file takes and gives.

    Attributes:
        suppression: Where suppression happens.
        raw: Whether the raw offsets and logits are outputs as well.
        batch: Number of images that it takes at once; None for any number.
        prepare: Whether the resize is in the file.
        home: Name of the program that shall run it; None for any.
    """

    suppression: Suppression
    raw: bool = False
    batch: int | None = None
    prepare: bool = False
    home: str | None = None


def choose_form(
    path: str | os.PathLike[str],
    *,
    suppression: Suppression | None = None,
    raw: bool = False,
    batch: int | None = None,
    prepare: bool = False,
    home: str | None = None,
    int8: bool = False,
) -> Form:
    """Returns what a file takes and gives, from what `export` is asked for.

    Args:
        path: Path of the file; its suffix says the kind.
        suppression: Where suppression happens; this and all others as in `export`.
        raw: Whether the raw offsets and logits are outputs as well.
        batch: Number of images that the file takes at once.
        prepare: Whether the resize is in the file.
        home: Name of the program that shall run the file.
        int8: Whether the file is in 8 bits.

    Raises:
        ValueError: The suffix or the home is not known, a value is out of its range, or the arguments contradict each
            other.
    """
    path = Path(path)
    if path.suffix not in KINDS:
        kinds = ", ".join(f"{suffix} ({kind.title})" for suffix, kind in KINDS.items())
        raise ValueError(f"{path}: the suffix says the kind of the file, and must be one of {kinds}")
    kind = KINDS[path.suffix]
    if suppression not in (None, *get_args(Suppression)):
        raise ValueError(f"suppression must be one of {', '.join(get_args(Suppression))}, but is {quoted(suppression)}")
    if batch is not None and batch < 1:
        raise ValueError(f"batch must be at least 1, but is {batch}")
    if int8 and not kind.quantizes:
        raise ValueError(f"{path}: {kind.title} files are not written in 8 bits; take .tflite for a phone")
    if prepare:
        why = None
        if not kind.suppresses:
            why = f"{kind.title} files take resized images"
        elif home is not None:
            why = "a program resizes images itself; leave out prepare, or the program (--for)"
        elif batch not in (None, 1):
            why = f"such a file takes one image at a time; leave out batch {batch}"
        if why is not None:
            raise ValueError(f"{path}: prepare puts the resize into the file, but {why}")
    if home is not None:
        chosen = tflite_home_of(home) if path.suffix == ".tflite" else home_of(home, path.suffix)
        asked = {"suppression (--nms)": suppression is not None, "raw": raw, f"batch {batch}": batch not in (None, 1)}
        if any(asked.values()):
            named = " and ".join(name for name, given in asked.items() if given)
            raise ValueError(f"{path}: {chosen.title} takes one image and reads outputs of its own; leave out {named}")
        return Form(chosen.suppression, batch=1, home=home)
    if suppression == "graph" and not kind.suppresses:
        raise ValueError(f"{path}: {kind.title} has no operator for suppression in the file; take 'runtime' or 'none'")
    default: Suppression = "graph" if kind.suppresses else "runtime"
    return Form(suppression or default, raw, batch or (None if kind.suppresses else 1), prepare)


class Int8(NamedTuple):
    """How to make a file in 8 bits.

    Attributes:
        calibrate: Images that tell the ranges of the activations; some hundred are enough.
        judge: Other images, on which AP is measured before and after.
        max_drop: Largest fall of AP50, as a fraction, with which the file is written.
    """

    calibrate: Dataset
    judge: Dataset
    max_drop: float = 0.005


class Exported(NamedTuple):
    """What is known of a file that was written.

    Attributes:
        proof: How far its detections in single precision are from the network's.
        int8: What 8 bits cost; None if the file is in single precision.
    """

    proof: Proof
    int8: Int8Cost | None


def export(
    detector: Detector,
    path: str | os.PathLike[str],
    *,
    suppression: Suppression | None = None,
    raw: bool = False,
    batch: int | None = None,
    prepare: bool = False,
    home: str | None = None,
    images: Iterable[Source] | None = None,
    int8: Int8 | None = None,
) -> Exported:
    """Writes the detector as a file that other engines run, if the file finds what the detector finds.

    `multibox.load` reads the file without torch. Its metadata hold all of the detector but the weights.

    Args:
        detector: The detector; it is not changed.
        path: Path of the file. Its folder must exist; a file of that name is replaced. The suffix says its kind:
            `.onnx`, `.tflite`, `.pte` for ExecuTorch, or `.xml` for OpenVINO, which comes with a `.bin`.
        suppression: Where suppression happens: in the file (`graph`); in whoever runs it, from the boxes and scores of
            all default boxes (`runtime`); or there, from raw offsets and logits (`none`). By default it is in the file,
            but for TFLite and ExecuTorch, which have no such operator, in whoever runs it.
        raw: Whether the raw offsets and logits are outputs as well.
        batch: Number of images that the file takes at once; None for any number, or for 1 in TFLite and ExecuTorch.
        prepare: Whether the resize is in the file, which then takes one whole image of any size: plain RGB in `uint8`,
            `(1, height, width, 3)`.
        home: Name of a program in `multibox.deploy.homes` that shall run the file, which then has that program's form
            and takes one image at a time. A file with the class names comes with it if the program reads one.
        images: Images to compare the file with the network on; by default synthetic scenes.
        int8: Images to calibrate 8 bits on and to judge them by, for a file in 8 bits.

    Returns:
        How far the file's detections are from the network's before it is in 8 bits, and what these cost.

    Raises:
        FileNotFoundError: There is no folder to write to.
        ImportError: A package is missing that writes or runs the file.
        IsADirectoryError: The path is that of a folder.
        TypeError: The detector has no network.
        ValueError: The suffix or the home is not known, the arguments contradict each other, the file does not find
            what the network finds, or 8 bits cost too much. Nothing is written then.
    """
    target = Path(path)
    form = choose_form(
        target, suppression=suppression, raw=raw, batch=batch, prepare=prepare, home=home, int8=int8 is not None
    )
    _check_place(target)
    if int8 is not None:
        check_apart(int8.calibrate, int8.judge)
    images = [scene.image for scene in synthetic_scenes(16, seed=0)] if images is None else list(images)
    config = detector.config
    if home is not None and config.resize == "float":  # the program resizes to whole numbers
        config = dataclasses.replace(config, resize="bilinear")
    network = copy.deepcopy(detector.network).cpu().float().eval().to(memory_format=torch.contiguous_format)
    reference = Detector.of_network(config, detector.class_names, network)
    graph = DetectorGraph(network, config, config.postprocess, suppression=form.suppression, raw=form.raw).eval()
    metadata = _metadata(detector, config, form)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        file, other = (Path(folder) / place / target.name for place in ("file", "other"))
        for each in (file, other):  # `other` is what is made on the way, under the same name
            each.parent.mkdir()
        if form.prepare:
            proof = _write_prepared(graph, file, other, metadata, reference, images)
        else:
            write(graph, file, metadata, batch=form.batch)
            proof = prove(reference, Detector.of_exported(file), images)
        if not proof.holds:
            raise ValueError(f"{target} is not written, since it does not find what the network finds: {proof}")
        if images and proof.detections < ENOUGH:
            _log.warning(
                "%s was compared with the network by no more than %s; images with more objects would prove more",
                target,
                counted(proof.detections, "detection"),
            )
        cost = None if int8 is None else _quantize(file, other, int8, form)
        if home is not None:
            metadata["home"] = home
            if target.suffix == ".tflite":
                _for_tflite_home(file, other, home, reference, metadata, images)
            else:
                _for_home(file, other, home, graph, reference, metadata, images, int8)
        for each in sorted(file.parent.iterdir()):  # .bin before .xml
            each.replace(target.parent / each.name)
    return Exported(proof, cost)


def _check_place(target: Path) -> None:
    """Checks that a file can be written there, before anything is computed.

    Raises:
        FileNotFoundError: There is no folder to write to.
        IsADirectoryError: The path is that of a folder.
    """
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{target}: there is no folder '{target.parent}' to write to")
    for file in files_of(target):
        if file.is_dir():
            raise IsADirectoryError(f"{file} is a folder; give the name of a file")


def _write_prepared(
    graph: DetectorGraph,
    file: Path,
    other: Path,
    metadata: Mapping[str, str],
    reference: Detector,
    images: Sequence[Source],
) -> Proof:
    """Writes a file that resizes images itself, and compares it with the network.

    Args:
        graph: The graph to export.
        file: The file to write.
        other: A file for the preparation alone, which is removed again.
        metadata: Texts by name that the file holds.
        reference: The detector that is exported.
        images: Images to compare on.
    """
    preparation = to_onnx(Preparation(graph.config).eval(), {}, batch=1)
    write_model(preparation, other, {})
    write_model(with_preparation(to_onnx(graph, metadata, batch=1), preparation), file, metadata)
    exported = Detector.of_exported(file)
    proof = prove(reference, exported, images, prepare=prepared_by(other, reference, exported))
    for each in files_of(other):
        each.unlink()
    return proof


def _for_home(
    file: Path,
    other: Path,
    home: str,
    graph: DetectorGraph,
    reference: Detector,
    metadata: Mapping[str, str],
    images: Sequence[Source],
    int8: Int8 | None,
) -> None:
    """Replaces a file by one in the form of a home, and writes the label file that the home reads.

    Raises:
        ValueError: The new file does not give what the network gives.
    """
    chosen = home_of(home, file.suffix)
    at_home = HomeGraph(graph, chosen).eval()
    info = None if chosen.model_info is None else chosen.model_info(reference.config, reference.class_names)
    write_model(to_onnx(at_home, metadata, batch=1), other, metadata, info)
    move(other, file)
    check_home(at_home, file, [reference.prepare(image) for image in images])
    if chosen.labels is not None:
        labels_file(file).write_text(chosen.labels(reference.class_names) + "\n", encoding="utf-8")

    def as_input(sample: Sample) -> np.ndarray:
        return at_home.as_the_home(torch.from_numpy(reference.prepare(sample.image))).numpy()

    if int8 is not None:  # the same network as in the file that was judged, between other inputs and outputs
        quantize(file, other, int8.calibrate.samples, as_input)
        move(other, file)


def _for_tflite_home(
    file: Path, other: Path, home: str, reference: Detector, metadata: Mapping[str, str], images: Sequence[Source]
) -> None:
    """Replaces a TFLite file, in 8 bits or not, by one in the form of a home; as `_for_home`."""
    from multibox.deploy.tflite_postprocess import write_tflite_home

    write_tflite_home(file, other, tflite_home_of(home), metadata, reference)
    check_tflite_home(Detector.of_exported(file), other, images)
    move(other, file)


def try_export(detector: Detector, suffix: str) -> None:
    """Exports a detector whose weights may be random, runs the file, and keeps nothing.

    Args:
        detector: The detector; it is not changed.
        suffix: Suffix of the kind of file.

    Raises:
        ImportError: A package is missing that writes or runs the file.
        ValueError: The detector cannot be exported as such a file, or the file computes something else.
    """
    config = detector.config
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"detector{suffix}"
        try:
            export(detector, path, raw=True, images=[])
            run, _ = open_exported(path)
        except ImportError:
            raise
        except Exception as error:  # each exporter has its own
            raise ValueError(f"the detector cannot be exported as {suffix} ({shortened(error)})") from error
        dtype = np.float32 if config.resize == "float" else np.uint8
        pixels = np.random.default_rng(0).integers(0, 256, (1, 3, config.height, config.width)).astype(dtype)
        found = run(pixels)
    network = copy.deepcopy(detector.network).cpu().float().eval()
    with torch.inference_mode():
        expected = network(torch.from_numpy(pixels))
    for name, values in zip(OUTPUTS["none"], expected, strict=True):
        difference = np.abs(found[name] - values.numpy()).max() / max(1.0, values.abs().max().item())
        if not difference < TOLERANCE:
            raise ValueError(f"as {suffix}, the detector computes other {name}: one differs by {difference:.2g}")


def _quantize(file: Path, other: Path, int8: Int8, form: Form) -> Int8Cost:
    """Replaces a file by the same in 8 bits, which is written to the other path first.

    Raises:
        ValueError: AP50 falls by too much.
    """
    before = Detector.of_exported(file)

    def as_input(sample: Sample) -> np.ndarray:
        pixels = before.prepare(sample.image)
        if form.prepare:
            return np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        return pixels.repeat(form.batch or 1, axis=0)

    _log.info("8 bits: calibrating on %s", counted(len(int8.calibrate), "image"))
    quantize(file, other, int8.calibrate.samples, as_input)
    sizes = tuple(sum(each.stat().st_size for each in files_of(path)) for path in (file, other))
    cost = judge(before, Detector.of_exported(other), int8.judge, sizes=(sizes[0], sizes[1]))
    if not cost.drop <= int8.max_drop:
        table = "\n".join(cost.lines())
        raise ValueError(
            f"{file.name} is not written: in 8 bits AP50 falls by {100 * cost.drop:.2f} points, and the limit is "
            f"{100 * int8.max_drop:.2f} (max_drop)\n{table}"
        )
    move(other, file)
    return cost


def _metadata(detector: Detector, config: DetectorConfig, form: Form) -> dict[str, str]:
    """Returns all of the detector but its weights, and what the file leaves open, as texts."""
    weights = Weights(config, detector.class_names, {}, detector.provenance, detector.score_thresholds)
    table = detector.network.default_boxes.cpu().numpy() if config.stored_default_boxes else np.zeros(0, np.float32)
    default_boxes = base64.b64encode(table.astype(np.float32).tobytes()).decode()
    facts = ExportFacts(form.suppression, config.postprocess, default_boxes, form.prepare)
    return {**make_header(weights), "export": facts.to_text()}
