"""Exports a detector as one file, and proves that the file finds what the detector finds."""

import base64
import copy
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from multibox.data.synthetic import synthetic_scenes
from multibox.deploy.graph import DetectorGraph, ExportedGraph
from multibox.deploy.homes import HomeGraph, home_of, labels_file
from multibox.deploy.proof import Proof, check_home, prove
from multibox.detector import Detector
from multibox.images import Source
from multibox.runtimes.exported import ExportFacts, Suppression
from multibox.weights.file import Weights, make_header

SUFFIXES = (".onnx", ".xml")
"""Suffixes of the files that can be written."""


def export(
    detector: Detector,
    path: str | os.PathLike[str],
    *,
    suppression: Suppression = "graph",
    raw: bool = False,
    batch: int | None = None,
    home: str | None = None,
    images: Iterable[Source] | None = None,
) -> Proof:
    """Writes the detector as a file that other engines run, if the file finds what the detector finds.

    `multibox.load` reads the file without torch. Its metadata hold all of the detector but the weights.

    Args:
        detector: The detector; it is not changed.
        path: Path of the file. The suffix says its kind: `.onnx`, or `.xml` for OpenVINO, which comes with a `.bin`.
        suppression: Where suppression happens: in the file (`graph`); in whoever runs it, from the boxes and scores of
            all default boxes (`runtime`); or there, from raw offsets and logits (`none`).
        raw: Whether the raw offsets and logits are outputs as well.
        batch: Number of images that the file takes at once; None for any number.
        home: Name of a program in `multibox.deploy.homes` that shall run the file, which then has that program's form
            and one image at a time. A file with the class names comes with it if the program reads one.
        images: Images to compare the file with the network on; by default synthetic scenes.

    Returns:
        How far the file's detections are from the network's.

    Raises:
        ImportError: A package is missing that writes or runs the file.
        TypeError: The detector has no network.
        ValueError: The suffix or the home is not known, or the file does not find what the network finds. Nothing is
            written then.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise ValueError(f"{target}: the suffix says the kind of the file: {', '.join(SUFFIXES)}")
    if home is not None:
        chosen = home_of(home, target.suffix)
        suppression, raw, batch = chosen.suppression, False, 1
    if images is None:
        images = [scene.open() for scene in synthetic_scenes(16, seed=0)]
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
    metadata = _metadata(detector, suppression)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        part = Path(folder) / target.name
        _write(graph, part, metadata, batch=batch)
        proof = prove(reference, Detector.of_exported(part), images)
        if home is not None:
            at_home = HomeGraph(graph, chosen).eval()
            _write(at_home, part, {**metadata, "home": home}, batch=1)
            check_home(at_home, part, [detector.prepare(image) for image in images])
            if chosen.labels is not None:
                labels_file(part).write_text(chosen.labels(detector.class_names) + "\n", encoding="utf-8")
        if not proof.holds:
            raise ValueError(f"{target} is not written, since it does not find what the network finds: {proof}")
        for file in sorted(Path(folder).iterdir()):  # .bin before .xml
            file.replace(target.parent / file.name)
    return proof


def _write(graph: ExportedGraph, path: Path, metadata: Mapping[str, str], *, batch: int | None) -> None:
    from multibox.deploy.onnx import to_onnx
    from multibox.deploy.openvino import write_openvino

    model = to_onnx(graph, metadata, batch=batch)
    if path.suffix == ".onnx":
        path.write_bytes(model.SerializeToString())
    else:
        write_openvino(model, path, metadata)


def _metadata(detector: Detector, suppression: Suppression) -> dict[str, str]:
    """Returns all of the detector but its weights, and what the file leaves open, as texts."""
    config = detector.config
    weights = Weights(config, detector.class_names, {}, detector.provenance, detector.score_thresholds)
    table = detector.network.default_boxes.cpu().numpy() if config.stored_default_boxes else np.zeros(0, np.float32)
    default_boxes = base64.b64encode(table.astype(np.float32).tobytes()).decode()
    facts = ExportFacts(suppression, config.postprocess, default_boxes)
    return {**make_header(weights), "export": facts.to_text()}
