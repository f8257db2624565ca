"""Exports a detector as one file, and proves that the file finds what the detector finds."""

import base64
import copy
import os
from pathlib import Path

import numpy as np
import torch

from multibox.deploy.graph import DetectorGraph
from multibox.detector import Detector
from multibox.files import atomic_write
from multibox.runtimes.exported import ExportFacts, Suppression
from multibox.weights.file import Weights, make_header


def export(
    detector: Detector,
    path: str | os.PathLike[str],
    *,
    suppression: Suppression = "graph",
    raw: bool = False,
    batch: int | None = None,
) -> None:
    """Writes the detector as an ONNX file, which `multibox.load` and other engines run without torch.

    Args:
        detector: The detector; it is not changed.
        path: Path of the file, with the suffix `.onnx`.
        suppression: Where suppression happens: in the file (`graph`); in whoever runs it, from the boxes and scores of
            all default boxes (`runtime`); or there, from raw offsets and logits (`none`).
        raw: Whether the raw offsets and logits are outputs as well.
        batch: Number of images that the file takes at once; None for any number.

    Raises:
        ImportError: A package is missing that writes the file.
        TypeError: The detector has no network.
        ValueError: The suffix is not known.
    """
    from multibox.deploy.onnx import to_onnx

    target = Path(path)
    if target.suffix != ".onnx":
        raise ValueError(f"{target}: the suffix says the kind of the file: .onnx")
    config = detector.config
    settings = config.postprocess
    network = copy.deepcopy(detector.network).cpu().float().to(memory_format=torch.contiguous_format).eval()
    graph = DetectorGraph(
        network,
        config,
        settings,
        score_thresholds=torch.full((len(detector.class_names),), settings.score_threshold),
        suppression=suppression,
        raw=raw,
    ).eval()
    model = to_onnx(graph, height=config.height, width=config.width, batch=batch)
    weights = Weights(config, detector.class_names, {}, detector.provenance, detector.score_thresholds)
    table = network.default_boxes.numpy() if config.stored_default_boxes else np.zeros(0, np.float32)
    facts = ExportFacts(suppression, settings, base64.b64encode(table.astype(np.float32).tobytes()).decode())
    for key, text in {**make_header(weights), "export": facts.to_text()}.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    with atomic_write(target) as part:
        part.write_bytes(model.SerializeToString())
