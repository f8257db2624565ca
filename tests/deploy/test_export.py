"""An exported file finds what the network finds, whatever it leaves to whoever runs it."""

import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch

import multibox
from multibox.config import Postprocess
from multibox.data.synthetic import synthetic_scenes
from multibox.deploy.export import choose_form, export
from multibox.deploy.proof import Proof, prove
from multibox.detector import Detector
from tests.deploy.conftest import Exporter, untrained
from tests.slow import slow

SHAPES = "multibox/shapes"


@pytest.fixture(scope="module")
def scenes():
    return [scene.open() for scene in synthetic_scenes(7, seed=3)]


@pytest.mark.parametrize(
    ("suffix", "suppression"),
    [
        (".onnx", "graph"),
        (".xml", "runtime"),
        slow(".onnx", "runtime"),
        slow(".onnx", "none"),
        slow(".xml", "graph"),
        slow(".xml", "none"),
    ],
)
def test_a_file_finds_what_the_network_finds(exporter: Exporter, scenes, suffix: str, suppression: str):
    """To the default box, in a batch of one, of seven, and of none."""
    detector = Detector.load(SHAPES)
    assert detector.network  # is run itself: rounding in a folded copy decides between scores that are 1e-8 apart
    path = exporter(detector, suffix, suppression=suppression)
    exported = multibox.load(path)
    assert exported.config == detector.config
    assert exported.class_names == detector.class_names
    assert exported.provenance == detector.provenance
    assert exported.detect([]) == []
    for batch_size in (1, 7):
        pairs = zip(
            detector.detect(scenes, score_threshold=0.01, batch_size=batch_size),
            exported.detect(scenes, score_threshold=0.01, batch_size=batch_size),
            strict=True,
        )
        for one, other in pairs:
            assert len(one) == len(other) > 20
            assert one.labels.tolist() == other.labels.tolist()
            assert one.default_box_indices.tolist() == other.default_box_indices.tolist()
            np.testing.assert_allclose(one.boxes, other.boxes, atol=0.01)
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)


RULES = {
    "voting": Postprocess(iou_threshold=0.5, merge="weighted"),
    "across classes": Postprocess(iou_threshold=0.5, class_agnostic=True),
    "voting across classes": Postprocess(iou_threshold=0.4, class_agnostic=True, merge="weighted", max_detections=30),
    "few candidates": Postprocess(score_threshold=0.001, max_candidates_per_class=5),
    "few detections": Postprocess(max_detections=3),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_the_rules_of_suppression_are_in_the_file(exporter: Exporter, scenes, name: str):
    shapes = Detector.load(SHAPES)
    config = dataclasses.replace(shapes.config, postprocess=RULES[name])
    detector = Detector.of_network(config, shapes.class_names, shapes.network)
    exported = multibox.load(exporter(detector, ".onnx", suppression="graph"))
    proof = prove(detector, exported, scenes)
    assert proof.holds and proof.unpaired == 0
    assert proof.detections >= 3 * len(scenes)


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width", "classes"), [(64, 96, 1), (96, 64, 90)])
def test_any_shape_and_number_of_classes(exporter: Exporter, height: int, width: int, classes: int):
    detector = untrained(height, width, classes)
    exported = multibox.load(exporter(detector, ".onnx", suppression="graph"))
    proof = prove(detector, exported, [scene.open() for scene in synthetic_scenes(3, seed=1)])
    assert proof.holds and proof.detections > 60


def test_nothing_is_found_in_nothing(exporter: Exporter):
    exported = multibox.load(exporter(Detector.load(SHAPES), ".onnx", suppression="graph"))
    found = exported.detect(np.zeros((50, 50, 3), np.uint8), score_threshold=0.9)
    assert len(found) == 0 and found.boxes.shape == (0, 4)


@pytest.mark.slow
def test_a_file_of_a_fixed_batch_takes_any_number(exporter: Exporter, scenes):
    detector = Detector.load(SHAPES)
    exported = multibox.load(exporter(detector, ".onnx", suppression="none", batch=3))
    for number in (1, 3, 7):
        pairs = zip(detector.detect(scenes[:number]), exported.detect(scenes[:number]), strict=True)
        assert all(one.labels.tolist() == other.labels.tolist() for one, other in pairs)


@pytest.mark.slow
def test_raw_outputs_stand_behind_the_others(exporter: Exporter, scenes):
    import onnxruntime

    detector = Detector.load(SHAPES)
    path = exporter(detector, ".onnx", suppression="graph", raw=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names == ["boxes", "scores", "labels", "default_box_indices", "count", "offsets", "logits"]
    inputs = detector.prepare(scenes[0])
    offsets, logits = session.run(["offsets", "logits"], {"images": inputs})
    with torch.no_grad():
        expected = detector.network(torch.from_numpy(inputs))
    np.testing.assert_allclose(offsets, expected.offsets, atol=1e-4)
    np.testing.assert_allclose(logits, expected.logits, atol=1e-4)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"iou_threshold": 0.3}, "iou_threshold 0.5, not 0.3"),
        ({"class_agnostic": True}, "class_agnostic False, not True"),
        ({"merge": "weighted"}, "merge none, not weighted"),
        ({"max_detections": 500}, "at most 200 detections, not 500"),
        ({"score_threshold": 0.001}, "score above 0.01, not 0.001"),
    ],
)
def test_what_the_file_has_decided_cannot_be_asked_for(exporter: Exporter, scenes, asked, said: str):
    exported = multibox.load(exporter(Detector.load(SHAPES), ".onnx", suppression="graph"))
    with pytest.raises(ValueError, match=f"{said}; export it with --nms runtime"):
        exported.detect(scenes[0], **asked)


def test_what_the_file_leaves_open_can_be_asked_for(exporter: Exporter, scenes):
    detector = Detector.load(SHAPES)
    exported = multibox.load(exporter(detector, ".onnx", suppression="runtime"))
    asked = {"iou_threshold": 0.3, "merge": "weighted", "class_names": ["star", "ring"], "score_threshold": 0.05}
    one, other = detector.detect(scenes[0], **asked), exported.detect(scenes[0], **asked)
    assert one.labels.tolist() == other.labels.tolist()
    np.testing.assert_allclose(one.boxes, other.boxes, atol=0.01)


def test_a_file_that_finds_something_else_is_not_written(tmp_path: Path, monkeypatch):
    import multibox.deploy.graph as graph

    monkeypatch.setattr(graph.BoxCoder, "decode", lambda self, offsets, boxes: boxes)
    with pytest.raises(ValueError, match=r"shapes\.onnx is not written, since it does not find what the network finds"):
        export(Detector.load(SHAPES), tmp_path / "shapes.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_few_detections_prove_little(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    shapes = Detector.load(SHAPES)
    config = dataclasses.replace(shapes.config, postprocess=Postprocess(max_detections=3))
    detector = Detector.of_network(config, shapes.class_names, shapes.network)
    export(detector, tmp_path / "shapes.onnx", images=[multibox.EXAMPLE_IMAGE])
    assert "was compared with the network by no more than 3 detections" in caplog.text


@pytest.mark.parametrize("differences", [(0.0, np.nan), (np.nan, 0.0), (0.002, 0.0), (0.0, 0.002)])
def test_a_large_difference_is_no_proof(differences: tuple[float, float]):
    assert Proof(1, 100, 1, 0.0, 0.0).holds
    assert not Proof(1, 100, 1, *differences).holds
    assert not Proof(1, 100, 2, 0.0, 0.0).holds


@pytest.mark.parametrize(
    ("name", "asked", "said"),
    [
        ("shapes.pt", {}, r"shapes\.pt: the suffix says the kind of the file, and must be one of \.onnx \(ONNX\), "),
        ("shapes", {}, "shapes: the suffix says the kind"),
        ("shapes.onnx", {"suppression": "file"}, "suppression must be one of graph, runtime, none, but is 'file'"),
        ("shapes.onnx", {"batch": 0}, "batch must be at least 1, but is 0"),
        (
            "shapes.tflite",
            {"suppression": "graph"},
            "TFLite has no operator for suppression in the file; take 'runtime'",
        ),
        ("shapes.tflite", {"prepare": True}, "TFLite files take resized images"),
        ("shapes.onnx", {"prepare": True, "batch": 2}, "takes one image at a time; leave out batch 2"),
        ("shapes.pte", {"int8": True}, "ExecuTorch files are not written in 8 bits"),
        ("shapes.xml", {"home": "frigate", "prepare": True}, "a program resizes images itself; leave out prepare"),
        ("shapes.xml", {"home": "frigate", "suppression": "none"}, r"leave out suppression \(--nms\)"),
        (
            "shapes.tflite",
            {"home": "mediapipe", "raw": True, "batch": 2},
            "object detector .*; leave out raw and batch 2",
        ),
        ("shapes.onnx", {"home": "opencb"}, "there is no home 'opencb'"),
    ],
)
def test_what_no_file_can_be_is_refused(name: str, asked: dict[str, object], said: str):
    with pytest.raises(ValueError, match=said):
        inspect.unwrap(choose_form)(name, **asked)  # without the types that the tests check at every call


def test_a_file_needs_a_place(tmp_path: Path):
    """That is said before anything is computed."""
    detector = Detector.load(SHAPES)
    (tmp_path / "shapes.onnx").mkdir()
    with pytest.raises(IsADirectoryError, match=r"shapes\.onnx is a folder; give the name of a file"):
        export(detector, tmp_path / "shapes.onnx")
    (tmp_path / "shapes.bin").mkdir()
    with pytest.raises(IsADirectoryError, match=r"shapes\.bin is a folder"):
        export(detector, tmp_path / "shapes.xml")
    with pytest.raises(FileNotFoundError, match=r"made/shapes\.onnx: there is no folder '.*made' to write to"):
        export(detector, tmp_path / "made" / "shapes.onnx")


def test_a_file_is_compiled_already(exporter: Exporter):
    path = exporter(Detector.load(SHAPES), ".onnx", suppression="graph")
    with pytest.raises(ValueError, match="an exported file is compiled already; leave out compile"):
        multibox.load(path, compile=True)
