"""Exports a detector as an ExecuTorch file, for XNNPACK on phones and boards."""

from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch

from multibox.deploy.graph import ExportedGraph
from multibox.runtimes.executorch_runtime import MISSING, NETWORK
from multibox.weights.exported import EXECUTORCH_METADATA


def write_executorch(graph: ExportedGraph, path: Path, metadata: Mapping[str, str], *, batch: int) -> None:
    """Writes `path`. What XNNPACK has no operator for is left to ExecuTorch's portable ones.

    Args:
        graph: The graph to export.
        path: The file to write.
        metadata: Texts by name, which a method of the file returns as a JSON object.
        batch: Number of images of a call.

    Raises:
        ImportError: ExecuTorch is not installed.
    """
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    except ImportError as error:
        raise ImportError(MISSING) from error
    images, _ = graph.example(batch)
    programs = {NETWORK: torch.export.export(graph, (images,))}
    texts = {
        EXECUTORCH_METADATA: msgspec.json.encode(dict(metadata)).decode(),
        **{f"output{place}": name for place, name in enumerate(graph.output_names)},
    }
    lowered = to_edge_transform_and_lower(programs, partitioner=[XnnpackPartitioner()], constant_methods=texts)
    path.write_bytes(lowered.to_executorch().buffer)
