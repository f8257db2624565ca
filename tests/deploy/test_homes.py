"""Each home's file gives it what the detector finds, by the program's published contract."""

import ast
import dataclasses
import re
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import yaml

import multibox
from multibox.cli import main
from multibox.deploy.export import export
from multibox.deploy.homes import HOMES, TFLITE_HOMES
from multibox.detections import Detections
from multibox.detector import Detector
from multibox.images import open_image

SHAPES = "multibox/shapes"
EXAMPLE = multibox.EXAMPLE_IMAGE
SIDES = np.array(open_image(EXAMPLE).size * 2)


Files = Callable[[str], Path]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """`files("frigate")` is the file for that home, which is made once."""
    folder = tmp_path_factory.mktemp("homes")

    @cache
    def make(name: str) -> Path:
        path = folder / f"{name}{HOMES[name].suffix}"
        export(Detector.load(SHAPES), path, home=name, images=[EXAMPLE])
        return path

    return make


@pytest.fixture(scope="module")
def expected() -> Detections:
    return Detector.load(SHAPES).detect(EXAMPLE, score_threshold=0.1)


def in_openvino(path: Path, given: np.ndarray) -> np.ndarray:
    """The one output."""
    import openvino

    model = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert len(model.inputs) == len(model.outputs) == 1
    assert tuple(model.input().shape) == given.shape
    return model([given])[0]


def check_rows(rows: np.ndarray, expected: Detections) -> None:
    """Checks rows of image, label, score and box, the highest score first, as Caffe's DetectionOutput has them."""
    assert rows.shape == (1, 1, 200, 7)
    found = rows[0, 0]
    assert (np.diff(found[:, 2]) <= 0).all()
    found = found[found[:, 2] > 0.1]
    assert (found[:, 0] == 0).all()
    assert found[:, 1].tolist() == expected.labels.tolist()
    np.testing.assert_allclose(found[:, 2], expected.scores, atol=1e-4)
    np.testing.assert_allclose(found[:, 3:].clip(0, 1) * SIDES, expected.boxes, atol=0.05)


def test_frigate(files: Files, expected: Detections):
    """By frigate/detectors/plugins/openvino.py: it checks these shapes, and reads rows until a score is below 0.1."""
    inputs = Detector.load(SHAPES).prepare(EXAMPLE)
    check_rows(in_openvino(files("frigate"), inputs[:, ::-1].transpose(0, 2, 3, 1).copy()), expected)
    lines = files("frigate").with_suffix(".labels.txt").read_text().splitlines()  # frigate/util/builtin.py: load_labels
    assert {int(index): name for index, name in (line.split(" ", maxsplit=1) for line in lines)} == dict(
        enumerate(Detector.load(SHAPES).class_names)
    )


@pytest.mark.parametrize(("homes", "suffix", "colors"), [(HOMES, ".xml", "bgr"), (TFLITE_HOMES, ".tflite", "rgb")])
def test_frigates_configuration_holds_any_name(homes, suffix: str, colors: str):
    file = Path(f"street: no #1{suffix}")
    config = yaml.safe_load(homes["frigate"].advice(file, ["mask: none", "3 pins", 'no, "yes"'], 256, 320))
    assert config["model"] == {
        "path": f"/config/street: no #1{suffix}",
        "labelmap_path": "/config/street: no #1.labels.txt",
        "model_type": "ssd",
        "width": 320,
        "height": 256,
        "input_tensor": "nhwc",
        "input_pixel_format": colors,
    }
    assert config["objects"]["track"] == ["mask: none", "3 pins", 'no, "yes"']


def test_lines_to_paste_hold_any_name_of_a_file():
    names = ["person"]
    for home, suffix in (("opencv", ".onnx"), ("model-api", ".xml")):
        code = HOMES[home].advice(Path(f'my "best" one{suffix}'), names, 256, 256)
        assert f'my "best" one{suffix}' in [
            node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)
        ]
    words = shlex.split(HOMES["jetson"].advice(Path("it's.onnx"), names, 256, 256))
    assert words[:3] == ["detectnet", "--model=it's.onnx", "--labels=it's.labels.txt"]


@pytest.mark.slow
def test_a_home_that_takes_whole_numbers_gets_no_floats(tmp_path: Path):
    """Although the detector itself resizes to floats."""
    import openvino

    shapes = Detector.load(SHAPES)
    detector = Detector.of_network(
        dataclasses.replace(shapes.config, resize="float"), shapes.class_names, shapes.network
    )
    export(detector, tmp_path / "shapes.xml", home="frigate", images=[EXAMPLE])
    (given,) = openvino.Core().read_model(tmp_path / "shapes.xml").inputs
    assert given.element_type.get_type_name() == "u8"


@pytest.mark.slow
def test_model_api_by_its_contract(files: Files, expected: Detections):
    import openvino

    check_rows(in_openvino(files("model-api"), Detector.load(SHAPES).prepare(EXAMPLE)), expected)
    info = openvino.Core().read_model(files("model-api")).get_rt_info(["model_info"])
    assert info["model_type"] == "SSD"
    assert info["labels"] == "circle rectangle triangle star ring cross"


def above(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> dict[tuple[int, int], tuple[float, ...]]:
    """Score and box by default box and class."""
    places = np.argwhere(scores > threshold).tolist()
    return {(row, label): (scores[row, label], *boxes[row]) for row, label in places}


def check_all_boxes(boxes: np.ndarray, scores: np.ndarray, expected: Detections, sides: np.ndarray) -> None:
    """What the detector keeps is among all boxes, with its score."""
    found = above(boxes.clip(0, 1) * sides, scores, 0.9 * expected.scores.min())
    keys = list(zip(expected.default_box_indices.tolist(), expected.labels.tolist(), strict=True))
    np.testing.assert_allclose([found[key][0] for key in keys], expected.scores, atol=1e-4)
    np.testing.assert_allclose([found[key][1:] for key in keys], expected.boxes, atol=0.05)


@pytest.mark.slow
def test_jetson(files: Files, expected: Detections):
    """By jetson-inference's c/detectNet.cpp: pixels from -1 to 1; class 0 is the background; boxes in fractions."""
    import onnxruntime

    session = onnxruntime.InferenceSession(files("jetson"), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["input_0"]
    inputs = (Detector.load(SHAPES).prepare(EXAMPLE) / 255 - 0.5) / 0.5
    scores, boxes = session.run(["scores", "boxes"], {"input_0": inputs.astype(np.float32)})
    labels = files("jetson").with_suffix(".labels.txt").read_text().splitlines()
    assert labels == ["BACKGROUND", *Detector.load(SHAPES).class_names]
    assert scores.shape == (1, boxes.shape[1], len(labels)) and boxes.shape[2] == 4
    check_all_boxes(boxes[0], scores[0, :, 1:], expected, SIDES)


def test_multibox_says_whose_file_it_is(files: Files):
    with pytest.raises(ValueError, match=re.escape("(--for frigate); export the detector without --for")):
        multibox.load(files("frigate"))


def test_a_home_takes_its_own_kind_of_file(tmp_path: Path, capsys):
    assert main(["export", SHAPES, str(tmp_path / "shapes.onnx"), "--for", "frigate"]) == 2
    said = capsys.readouterr().err
    assert "Frigate's OpenVINO detector takes a file with the suffix .xml, and Frigate's TFLite" in said
    assert "suffix .tflite, not .onnx" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["shapes.bin", "shapes.labels.txt"])
def test_a_file_beside_it_is_not_replaced(tmp_path: Path, capsys, name: str):
    (tmp_path / name).write_text("mine")
    assert main(["export", SHAPES, str(tmp_path / "shapes.xml"), "--for", "frigate"]) == 1
    assert f"{name} is there already" in capsys.readouterr().err
    assert (tmp_path / name).read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
