"""TFLite files for other programs find there what the detector finds."""

import dataclasses
import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import multibox
from multibox.data.synthetic import synthetic_scenes
from multibox.deploy import tflite_postprocess
from multibox.deploy.export import export
from multibox.deploy.homes import TFLITE_HOMES, tflite_home_of
from multibox.deploy.proof import check_tflite_home
from multibox.deploy.tflite_int8 import quantize_tflite
from multibox.deploy.tflite_postprocess import write_tflite_home
from multibox.detector import Detector
from multibox.weights.converters.flatbuffer import Table

SHAPES = "multibox/shapes"


@pytest.fixture(scope="module")
def scenes():
    return [scene.open() for scene in synthetic_scenes(5, seed=3)]


@pytest.fixture
def raw(tflite: Path, tmp_path: Path) -> Path:
    """A file with raw outputs, in a folder of its own: a label file comes beside it."""
    path = tmp_path / "raw" / "raw.tflite"
    path.parent.mkdir()
    return shutil.copyfile(tflite, path)


def write(raw: Path, folder: Path, name: str, detector: Detector) -> Path:
    path = folder / f"{name}.tflite"
    write_tflite_home(raw, path, TFLITE_HOMES[name], {"format": "multibox 1"}, detector)
    return path


def test_frigate_reads_what_was_found(raw: Path, tmp_path: Path, scenes):
    """As `tflite_detect_raw` in frigate/detectors/detector_utils.py reads the outputs: by their places."""
    detector = Detector.load(SHAPES)
    path = write(raw, tmp_path, "frigate", detector)
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (images,), outputs = interpreter.get_input_details(), interpreter.get_output_details()
    assert images["dtype"] == np.uint8 and images["shape"].tolist() == [1, 256, 256, 3]
    for scene in scenes:
        pixels = detector.prepare(scene)
        interpreter.set_tensor(images["index"], np.ascontiguousarray(pixels.transpose(0, 2, 3, 1)))
        interpreter.invoke()
        boxes, labels, scores, count = (interpreter.get_tensor(output["index"])[0] for output in outputs)
        rows = [(labels[row], scores[row], *boxes[row]) for row in range(int(count)) if scores[row] >= 0.4]
        found = detector.detect(pixels[0].transpose(1, 2, 0), score_threshold=0.4)
        assert len(rows) == len(found) > 0
        for (label, score, y_min, x_min, y_max, x_max), one in zip(rows, found, strict=True):
            assert int(label) == one.label and score == pytest.approx(one.score, abs=1e-5)
            expected = np.array(one.box) / 256
            np.testing.assert_allclose([x_min, y_min, x_max, y_max], expected, atol=1e-5)


def test_no_class_is_lost_on_many_cores(raw: Path, tmp_path: Path, scenes, monkeypatch: pytest.MonkeyPatch):
    """With two threads, LiteRT's operator leaves out the third class."""
    monkeypatch.setattr("multibox.runtimes.litert_runtime.count_threads", lambda: 2)
    path = write(raw, tmp_path, "frigate", Detector.load(SHAPES))
    check_tflite_home(Detector.of_exported(raw), path, scenes)


def test_frigate_reads_the_class_names(raw: Path, tmp_path: Path):
    """As `load_labels` in frigate/util/builtin.py does, which takes a digit in front of the first line for a label."""
    names = ("3 circles", "rectangle", "a triangle", "star", "ring", "cross")
    detector = Detector.of_network(Detector.load(SHAPES).config, names, Detector.load(SHAPES).network)
    write(raw, tmp_path, "frigate", detector)
    lines = raw.with_suffix(".labels.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0].split(" ", maxsplit=1)[0].isdigit()
    labels = {int(index): name.strip() for index, name in (line.split(" ", maxsplit=1) for line in lines)}
    assert labels == dict(enumerate(names))


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_all_detections_are_the_same(raw: Path, tmp_path: Path, scenes, class_agnostic: bool):
    shapes = Detector.load(SHAPES)
    settings = dataclasses.replace(shapes.config.postprocess, class_agnostic=class_agnostic, max_detections=50)
    config = dataclasses.replace(shapes.config, postprocess=settings)
    detector = Detector.of_network(config, shapes.class_names, shapes.network)
    path = write(raw, tmp_path, "frigate", detector)
    check_tflite_home(detector, path, scenes)


def test_the_operator_has_no_limit_of_candidates(raw: Path, tmp_path: Path, scenes):
    """What it finds beyond that of the detector is no mistake."""
    shapes = Detector.load(SHAPES)
    settings = dataclasses.replace(shapes.config.postprocess, max_candidates_per_class=5)
    config = dataclasses.replace(shapes.config, postprocess=settings)
    detector = Detector.of_network(config, shapes.class_names, shapes.network)
    check_tflite_home(detector, write(raw, tmp_path, "frigate", detector), scenes)


def test_a_file_in_8_bits_has_the_form_too(raw: Path, tmp_path: Path, scenes):
    detector = Detector.load(SHAPES)
    eighth = tmp_path / "int8.tflite"
    quantize_tflite(raw, eighth, [detector.prepare(scene) for scene in scenes])
    path = write(eighth, tmp_path, "frigate", detector)
    assert path.stat().st_size < 0.4 * raw.stat().st_size
    check_tflite_home(multibox.load(eighth), path, scenes)


def test_a_file_that_finds_something_else_is_noticed(raw: Path, tmp_path: Path, scenes, monkeypatch):
    monkeypatch.setattr(tflite_postprocess, "_YXHW", [0, 1, 3, 2])
    detector = Detector.load(SHAPES)
    with pytest.raises(ValueError, match=r"frigate\.tflite does not give what the network gives: of \d+ detections"):
        check_tflite_home(detector, write(raw, tmp_path, "frigate", detector), scenes)


def test_the_labels_of_mediapipe_are_in_the_file(raw: Path, tmp_path: Path):
    path = write(raw, tmp_path, "mediapipe", Detector.load(SHAPES))
    with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
        (name,) = archive.namelist()
        assert archive.read(name).decode().split() == list(Detector.load(SHAPES).class_names)
        assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED
    model = Table.root(path.read_bytes())
    entries = {entry.text(0): entry.number(1, "<u4") for entry in model.tables(6)}
    metadata = model.tables(4)[entries["TFLITE_METADATA"]].numbers(0, "u1").tobytes()
    assert metadata[4:8] == b"M001"
    (graph,) = Table.root(metadata).tables(3)
    assert [tensor.text(0) for tensor in graph.tables(3)] == ["location", "category", "score", "number of detections"]
    assert graph.tables(3)[1].tables(6)[0].text(0) == name


def test_what_the_operator_cannot_do_is_refused(raw: Path, tmp_path: Path):
    shapes = Detector.load(SHAPES)
    settings = dataclasses.replace(shapes.config.postprocess, merge="weighted")
    config = dataclasses.replace(shapes.config, postprocess=settings)
    detector = Detector.of_network(config, shapes.class_names, shapes.network)
    with pytest.raises(ValueError, match="TFLite's suppression cannot merge boxes"):
        write(raw, tmp_path, "frigate", detector)


def test_homes_are_named_where_there_is_none(tmp_path: Path):
    detector = Detector.load(SHAPES)
    with pytest.raises(
        ValueError, match=r"MediaPipe's object detector takes a file with the suffix \.tflite, not \.onnx"
    ):
        export(detector, tmp_path / "shapes.onnx", home="mediapipe")
    with pytest.raises(ValueError, match=r"OpenCV's dnn takes a file with the suffix \.onnx, not \.tflite"):
        export(detector, tmp_path / "shapes.tflite", home="opencv")
    with pytest.raises(ValueError, match=r"there is no home 'frigatte', only .*frigate, .*mediapipe"):
        tflite_home_of("frigatte")


@pytest.mark.slow
def test_a_whole_export(tmp_path: Path):
    path = tmp_path / "shapes.tflite"
    export(Detector.load(SHAPES), path, home="mediapipe")
    assert [each.name for each in tmp_path.iterdir()] == ["shapes.tflite"]
    with pytest.raises(ValueError, match=r"exported for another program.*\(--for mediapipe\)"):
        multibox.load(path)
