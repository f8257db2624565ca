"""The configuration for Triton in docs/deploy.md is that of an exported file."""

import re
from pathlib import Path

import onnx
import pytest

from multibox.deploy.export import export
from multibox.detector import Detector

PAGE = Path(__file__).parents[2] / "docs" / "deploy.md"


@pytest.mark.slow
def test_the_page_has_the_inputs_and_outputs_of_the_file(tmp_path: Path):
    (text,) = re.findall(r"^```\n(name: .*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    path = tmp_path / "model.onnx"
    export(Detector.create("ssd300-lite0", ["raccoon"]), path, images=[])
    row = r'\{ name: "(\w+)" data_type: TYPE_(\w+) dims: \[ ([\d, ]+) \]( reshape \{ shape: \[ \] \})? \}'
    found = re.findall(row, text)
    graph = onnx.load(path).graph
    assert len(found) == len(graph.input) + len(graph.output)
    for (name, kind, sizes, reshaped), expected in zip(found, (*graph.input, *graph.output), strict=True):
        of_file = expected.type.tensor_type
        _, *of_image = (axis.dim_value for axis in of_file.shape.dim)
        assert name == expected.name
        assert kind == onnx.TensorProto.DataType.Name(of_file.elem_type).replace("FLOAT", "FP32")
        assert list(map(int, sizes.split(","))) == (of_image or [1])  # Triton has no shape without an axis
        assert bool(reshaped) == (not of_image)
