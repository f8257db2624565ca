"""Exports a detector as one file, and proves that the file finds what the detector finds."""

import base64
import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import onnx
import torch

from multibox.data.sample import Dataset
from multibox.data.synthetic import synthetic_scenes
from multibox.deploy.graph import DetectorGraph
from multibox.deploy.homes import HomeGraph, home_of, labels_file, tflite_home_of
from multibox.deploy.int8 import Int8Cost, check_apart, judge, quantize_onnx, quantize_openvino
from multibox.deploy.onnx import to_onnx
from multibox.deploy.prepared import Preparation, with_preparation
from multibox.deploy.proof import TOLERANCE, Proof, check_home, check_tflite_home, prepared_by, prove
from multibox.detector import Detector
from multibox.images import Source
from multibox.messages import shortened
from multibox.runtimes.exported import OUTPUTS, ExportFacts, Suppression
from multibox.runtimes.open import open_exported
from multibox.weights.file import Weights, make_header

SUFFIXES = (".onnx", ".tflite", ".xml", ".pte")
"""Suffixes of the files that can be written."""

WITHOUT_SUPPRESSION = {".tflite": "TFLite", ".pte": "ExecuTorch"}
"""Kinds of files that have no operator for suppression, and take images of one size in batches of one size."""


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
        path: Path of the file. The suffix says its kind: `.onnx`, `.tflite`, `.pte` for ExecuTorch, or `.xml` for
            OpenVINO, which comes with a `.bin`.
        suppression: Where suppression happens: in the file (`graph`); in whoever runs it, from the boxes and scores of
            all default boxes (`runtime`); or there, from raw offsets and logits (`none`). By default it is in the file,
            but for TFLite and ExecuTorch, which have no such operator, in whoever runs it.
        raw: Whether the raw offsets and logits are outputs as well.
        batch: Number of images that the file takes at once; None for any number, or for 1 in TFLite and ExecuTorch.
        prepare: Whether the resize is in the file, which then takes one whole image of any size: plain RGB in `uint8`,
            `(1, height, width, 3)`.
        home: Name of a program in `multibox.deploy.homes` that shall run the file, which then has that program's form
            and one image at a time. A file with the class names comes with it if the program reads one.
        images: Images to compare the file with the network on; by default synthetic scenes.
        int8: Images to calibrate 8 bits on and to judge them by, for a file in 8 bits.

    Returns:
        How far the file's detections are from the network's before it is in 8 bits, and what these cost.

    Raises:
        ImportError: A package is missing that writes or runs the file.
        TypeError: The detector has no network.
        ValueError: The suffix or the home is not known, the arguments contradict each other, the file does not find
            what the network finds, or 8 bits cost too much. Nothing is written then.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise ValueError(f"{target}: the suffix says the kind of the file: {', '.join(SUFFIXES)}")
    suppression, raw, batch = _form(target, suppression, raw=raw, batch=batch, prepare=prepare, home=home)
    if int8 is not None:
        if target.suffix == ".pte":
            raise ValueError(f"{target}: ExecuTorch files are not written in 8 bits; take .tflite for a phone")
        check_apart(int8.calibrate, int8.judge)
    images = [scene.open() for scene in synthetic_scenes(16, seed=0)] if images is None else list(images)
    reference = Detector.of_network(
        detector.config, detector.class_names, copy.deepcopy(detector.network).cpu().float().eval()
    )
    graph = DetectorGraph(
        copy.deepcopy(reference.network).to(memory_format=torch.contiguous_format),
        detector.config,
        detector.config.postprocess,
        suppression=suppression,
        raw=raw,
    ).eval()
    metadata = _metadata(detector, suppression, prepare)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        part = Path(folder) / target.name
        if prepare:
            proof = _write_prepared(graph, part, metadata, reference, images)
        else:
            _write(graph, part, metadata, batch)
            proof = prove(reference, Detector.of_exported(part), images)
        if not proof.holds:
            raise ValueError(f"{target} is not written, since it does not find what the network finds: {proof}")
        cost = None if int8 is None else _quantize(part, int8, batch=batch, prepares=prepare)
        if home is not None:
            metadata["home"] = home
            if part.suffix == ".tflite":
                _for_tflite_home(part, home, reference, metadata, images)
            else:
                _for_home(part, home, graph, reference, metadata, images, int8)
        for file in sorted(Path(folder).iterdir()):  # .bin before .xml
            file.replace(target.parent / file.name)
    return Exported(proof, cost)


def _form(
    target: Path, suppression: Suppression | None, *, raw: bool, batch: int | None, prepare: bool, home: str | None
) -> tuple[Suppression, bool, int | None]:
    """Returns where suppression happens, whether raw outputs are added, and the batch.

    Raises:
        ValueError: The home is not known, or the arguments contradict each other.
    """
    simple = WITHOUT_SUPPRESSION.get(target.suffix)
    if prepare and (simple or home is not None or batch not in (None, 1)):
        other = "the home, which resizes images itself" if home else f"batch {batch}"
        why = f"{simple} files take resized images" if simple else f"such a file takes one image; leave out {other}"
        raise ValueError(f"{target}: prepare puts the resize into the file, but {why}")
    if home is not None and target.suffix == ".tflite":
        tflite_home_of(home)  # there may be no such home
        return "none", False, 1
    if home is not None:
        return home_of(home, target.suffix).suppression, False, 1
    if simple and suppression == "graph":
        raise ValueError(f"{target}: {simple} has no operator for suppression in the file; take 'runtime' or 'none'")
    return suppression or ("runtime" if simple else "graph"), raw, batch or (1 if simple else None)


def _write(graph: DetectorGraph, path: Path, metadata: Mapping[str, str], batch: int | None) -> None:
    """Writes a detector in single precision as the kind of file that the suffix says."""
    if path.suffix == ".pte":
        from multibox.deploy.executorch import write_executorch

        write_executorch(graph, path, metadata, batch=batch or 1)
    else:
        _save(to_onnx(graph, metadata, batch=batch), path, metadata)


def _write_prepared(
    graph: DetectorGraph, part: Path, metadata: Mapping[str, str], reference: Detector, images: Sequence[Source]
) -> Proof:
    """Writes a file that resizes images itself, and compares it with the network."""
    preparation = to_onnx(Preparation(graph.config).eval(), {}, batch=1)
    alone = part.with_name(f"preparation{part.suffix}")
    _save(preparation, alone, {})
    _save(with_preparation(to_onnx(graph, metadata, batch=1), preparation), part, metadata)
    exported = Detector.of_exported(part)
    proof = prove(reference, exported, images, prepare=prepared_by(alone, reference, exported))
    for suffix in _suffixes(alone):
        alone.with_suffix(suffix).unlink()
    return proof


def _for_home(
    part: Path,
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
    chosen = home_of(home, part.suffix)
    at_home = HomeGraph(graph, chosen).eval()
    info = None if chosen.model_info is None else chosen.model_info(reference.config, reference.class_names)
    _save(to_onnx(at_home, metadata, batch=1), part, metadata, info)
    check_home(at_home, part, [reference.prepare(image) for image in images])
    if chosen.labels is not None:
        labels_file(part).write_text(chosen.labels(reference.class_names) + "\n", encoding="utf-8")
    if int8 is not None:  # the same network as in the file that was judged, between other inputs and outputs
        samples = (torch.from_numpy(reference.prepare(sample.open())) for sample in int8.calibrate)
        _replace(part, _in_8_bits(part, (at_home.as_the_home(sample).numpy() for sample in samples)))


def _for_tflite_home(
    part: Path, home: str, reference: Detector, metadata: Mapping[str, str], images: Sequence[Source]
) -> None:
    """Replaces a TFLite file, in 8 bits or not, by one in the form of a home; as `_for_home`."""
    from multibox.deploy.tflite_postprocess import write_tflite_home

    new = part.with_name(f"home{part.suffix}")
    write_tflite_home(part, new, tflite_home_of(home), metadata, reference)
    check_tflite_home(Detector.of_exported(part), new, images)
    new.replace(part)


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


def _quantize(path: Path, int8: Int8, *, batch: int | None, prepares: bool) -> Int8Cost:
    """Replaces a file by the same in 8 bits.

    Raises:
        ValueError: AP50 falls by too much.
    """
    before = Detector.of_exported(path)
    samples = (before.prepare(sample.open()) for sample in int8.calibrate)
    if prepares:
        inputs = (np.ascontiguousarray(sample.transpose(0, 2, 3, 1)) for sample in samples)
    else:
        inputs = (sample.repeat(batch or 1, axis=0) for sample in samples)
    eighth = _in_8_bits(path, inputs)
    cost = judge(before, Detector.of_exported(eighth), int8.judge, sizes=(_size(path), _size(eighth)))
    if cost.drop > int8.max_drop:
        table = "\n".join(cost.lines())
        raise ValueError(
            f"{path.name} is not written: in 8 bits AP50 falls by {100 * cost.drop:.2f} points, and the limit is "
            f"{100 * int8.max_drop:.2f} (max_drop)\n{table}"
        )
    _replace(path, eighth)
    return cost


def _in_8_bits(path: Path, inputs: Iterable[np.ndarray]) -> Path:
    """Writes a file in 8 bits beside the one in single precision, and returns its path.

    Args:
        path: The file in single precision.
        inputs: What the file takes, to calibrate on.
    """
    eighth = path.with_name(f"int8{path.suffix}")
    match path.suffix:
        case ".onnx":
            quantize_onnx(onnx.load(path), eighth, inputs)
        case ".tflite":
            from multibox.deploy.tflite_int8 import quantize_tflite

            quantize_tflite(path, eighth, inputs)
        case ".xml":
            quantize_openvino(path, eighth, inputs)
    return eighth


def _replace(path: Path, other: Path) -> None:
    for suffix in _suffixes(path):
        other.with_suffix(suffix).replace(path.with_suffix(suffix))


def _size(path: Path) -> int:
    return sum(path.with_suffix(suffix).stat().st_size for suffix in _suffixes(path))


def _suffixes(path: Path) -> tuple[str, ...]:
    return (".bin", ".xml") if path.suffix == ".xml" else (path.suffix,)


def _save(
    model: onnx.ModelProto, path: Path, metadata: Mapping[str, str], model_info: Mapping[str, str] | None = None
) -> None:
    """Writes a model as the kind of file that the suffix says."""
    match path.suffix:
        case ".onnx":
            path.write_bytes(model.SerializeToString())
        case ".tflite":
            from multibox.deploy.tflite import to_tflite

            path.write_bytes(to_tflite(model).to_bytes(metadata))
        case ".xml":
            from multibox.deploy.openvino import write_openvino

            write_openvino(model, path, metadata, model_info)


def _metadata(detector: Detector, suppression: Suppression, prepares: bool) -> dict[str, str]:
    """Returns all of the detector but its weights, and what the file leaves open, as texts."""
    config = detector.config
    weights = Weights(config, detector.class_names, {}, detector.provenance, detector.score_thresholds)
    table = detector.network.default_boxes.cpu().numpy() if config.stored_default_boxes else np.zeros(0, np.float32)
    default_boxes = base64.b64encode(table.astype(np.float32).tobytes()).decode()
    facts = ExportFacts(suppression, config.postprocess, default_boxes, prepares)
    return {**make_header(weights), "export": facts.to_text()}
