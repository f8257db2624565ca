"""Other programs find in their files what the detector finds: their own code runs here.

They are not installed for the tests. `make test-homes` gives each an environment of its own and runs these tests in it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import multibox
from multibox.data.synthetic import synthetic_scenes
from multibox.deploy.export import export
from multibox.detections import Detection
from multibox.detector import Detector
from multibox.images import open_image
from tests.deploy.conftest import untrained
from tests.deploy.test_homes import check_all_boxes

SHAPES = "multibox/shapes"
THRESHOLD = 0.02
"""Low, so that much is found."""

pytestmark = pytest.mark.slow


class Found(NamedTuple):
    name: str
    score: float
    box: tuple[float, float, float, float]


Program = Callable[[np.ndarray], list[Found]]
"""What a program finds in an image of (height, width, 3): corners are in its pixels."""


@contextmanager
def in_model_api(path: Path) -> Iterator[Program]:
    """In single precision: OpenVINO takes bf16 by itself on processors that have it."""
    pytest.importorskip("model_api", reason="openvino-model-api is not installed")
    import openvino
    from model_api.adapters import OpenvinoAdapter
    from model_api.models import Model

    adapter = OpenvinoAdapter(
        openvino.Core(), str(path), device="CPU", plugin_config={"INFERENCE_PRECISION_HINT": "f32"}
    )
    model = Model.create_model(adapter, configuration={"confidence_threshold": THRESHOLD})
    assert type(model).__name__ == "SSD"

    def run(image: np.ndarray) -> list[Found]:
        found = model(image)
        return list(map(Found, found.label_names, found.scores.tolist(), found.bboxes.tolist()))

    yield run


@contextmanager
def in_mediapipe(path: Path) -> Iterator[Program]:
    mediapipe = pytest.importorskip("mediapipe", reason="mediapipe is not installed")
    from mediapipe.tasks.python import BaseOptions, vision

    def run(image: np.ndarray) -> list[Found]:
        data = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        found = []
        for one in task.detect(data).detections:  # what has the same box in whole pixels is one of several categories
            left, top, width, height = astuple(one.bounding_box)
            box = (left, top, left + width, top + height)
            found += [Found(category.category_name, category.score, box) for category in one.categories]
        return sorted(found, key=lambda one: -one.score)

    options = vision.ObjectDetectorOptions(BaseOptions(model_asset_path=str(path)), score_threshold=THRESHOLD)
    with vision.ObjectDetector.create_from_options(options) as task:  # it never ends if it is not closed
        yield run


PROGRAMS = {"model-api": (in_model_api, ".xml"), "mediapipe": (in_mediapipe, ".tflite")}
DETECTORS = {
    "6 classes": lambda: Detector.load(SHAPES),
    "1 class": lambda: untrained(64, 96, 1),
    "90 classes": lambda: untrained(96, 64, 90),
}


def is_near(found: Found, expected: Detection) -> bool:
    """Model API joins names with underscores."""
    same = found.name.replace("_", " ") == expected.name and abs(found.score - expected.score) < 1e-4
    return same and np.allclose(found.box, expected.box, rtol=0, atol=2)


@pytest.mark.parametrize("detector", DETECTORS)
@pytest.mark.parametrize("home", PROGRAMS)
def test_a_program_finds_the_same(tmp_path: Path, home: str, detector: str):
    """In the pixels that the network gets, as these programs resize by rules of their own; in whole pixels."""
    open_program, suffix = PROGRAMS[home]
    path, of_network = tmp_path / f"file{suffix}", DETECTORS[detector]()
    export(of_network, path, home=home, images=[multibox.EXAMPLE_IMAGE])
    images = [of_network.prepare(scene.open())[0].transpose(1, 2, 0) for scene in synthetic_scenes(5, seed=3)]
    with open_program(path) as program:
        all_found = [program(image) for image in images]
    for image, found in zip(images, all_found, strict=True):
        expected = of_network.detect(image, score_threshold=THRESHOLD)
        assert len(found) == len(expected) > 20
        for one in expected:  # in any order: some scores are equal
            found.remove(next(other for other in found if is_near(other, one)))


@pytest.mark.parametrize("home", PROGRAMS)
def test_a_program_resizes_by_itself(tmp_path: Path, home: str):
    """By its own rule, so that scores and boxes are near."""
    open_program, suffix = PROGRAMS[home]
    shapes = Detector.load(SHAPES)
    export(shapes, tmp_path / f"file{suffix}", home=home, images=[multibox.EXAMPLE_IMAGE])
    with open_program(tmp_path / f"file{suffix}") as program:
        scene = np.asarray(open_image(multibox.EXAMPLE_IMAGE))
        found, nothing = (
            [one for one in program(image) if one.score > 0.5] for image in (scene, np.full((50, 70, 3), 128, np.uint8))
        )
    assert nothing == []
    expected = shapes.detect(multibox.EXAMPLE_IMAGE, score_threshold=0.5)
    assert [one.name for one in found] == [one.name for one in expected]
    np.testing.assert_allclose([one.score for one in found], expected.scores, atol=0.05)
    np.testing.assert_allclose([one.box for one in found], expected.boxes, atol=3)


@pytest.mark.parametrize("detector", DETECTORS)
def test_opencv_gives_all_boxes_and_scores(tmp_path: Path, detector: str):
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed")
    path, of_network = tmp_path / "file.onnx", DETECTORS[detector]()
    export(of_network, path, home="opencv", images=[multibox.EXAMPLE_IMAGE])
    network = cv2.dnn.readNet(str(path))
    for scene in synthetic_scenes(5, seed=3):
        image = of_network.prepare(scene.open())[0].transpose(1, 2, 0)
        height, width = image.shape[:2]
        network.setInput(cv2.dnn.blobFromImage(image[..., ::-1], size=(width, height), swapRB=True))  # it reads BGR
        boxes, scores = network.forward(["boxes", "scores"])
        expected = of_network.detect(image, score_threshold=THRESHOLD)
        assert len(expected) > 20
        check_all_boxes(boxes[0], scores[0], expected, np.array([width, height] * 2))
