"""Exports a detector as an ONNX file, which ONNX Runtime, OpenVINO and TensorRT run."""

from collections.abc import Mapping
from typing import Any

import onnx
import torch
from onnxscript import opset20 as op

from multibox.deploy.graph import ExportedGraph

OPSET = 20


def to_onnx(graph: ExportedGraph, metadata: Mapping[str, str], *, batch: int | None) -> onnx.ModelProto:
    """Returns the ONNX model of a graph.

    Args:
        graph: The graph to export.
        metadata: Texts by name, for the model's metadata.
        batch: Number of images of a call; None for any number.
    """
    images, axes = graph.example(batch)
    program = torch.onnx.export(
        graph,
        (images,),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=[graph.input_name],
        output_names=list(graph.output_names),
        dynamic_shapes=(axes,) if axes else None,
        custom_translation_table={torch.ops.multibox.suppress.default: _suppress},
    )
    assert program is not None  # it is, unless it is written to a file
    model = program.model_proto
    onnx.helper.set_model_props(model, dict(metadata))
    return model


def _suppress(boxes: Any, scores: Any, iou_threshold: float, max_detections: int) -> Any:
    """`multibox::suppress` in ONNX. Boxes that are not selected keep a score of 0."""
    limits: tuple[Any, ...] = (
        op.Constant(value_ints=[max_detections]),
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[1e-30]),
    )
    selected = op.NonMaxSuppression(boxes, scores, *limits)
    return op.ScatterND(op.Mul(scores, op.Constant(value_float=0.0)), selected, op.GatherND(scores, selected))
