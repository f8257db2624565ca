"""Exported files are explained as far as they tell: from raw outputs all of it, else where default boxes are known."""

import numpy as np
import pytest

from multibox.data.sample import Sample
from multibox.data.synthetic import synthetic_scenes
from multibox.detector import Detector
from multibox.explain.explanation import explain
from multibox.postprocess import NormalizedDetections
from multibox.runtimes.exported import Suppression
from tests.deploy.conftest import Exporter
from tests.slow import slow


@pytest.fixture(scope="module")
def shapes() -> Detector:
    return Detector.load("multibox/shapes")


@pytest.fixture(scope="module")
def sample() -> Sample:
    return max(synthetic_scenes(4, seed=31), key=lambda scene: len(scene.truth))


@pytest.mark.parametrize(
    ("suppression", "form"),
    [("runtime", {}), slow("graph", {}), slow("none", {}), slow("graph", {"raw": True})],
)
def test_a_file_is_explained_as_far_as_it_tells(
    shapes: Detector, sample: Sample, exporter: Exporter, suppression: Suppression, form: dict[str, bool]
):
    file = Detector.load(exporter(shapes, ".onnx", suppression=suppression, **form))
    if form:  # with raw outputs, nothing is missing
        suppression = "none"
    expected = explain({"it": shapes}, sample.image, sample=sample).record
    record = explain({"it": file}, sample.image, sample=sample).record
    assert record["truth"] == expected["truth"]
    assert len(record["detections"]) > 2
    for one, other in zip(record["detections"], expected["detections"], strict=True):
        assert one["default_box"] == other["default_box"]
        assert one["score_before"] == pytest.approx(other["score_before"], abs=1e-4)
        assert (one["offsets"] is None) == (one["steps"] is None) == (suppression != "none")
        suppressed = None if suppression == "graph" else [each["default_box"]["index"] for each in one["suppressed"]]
        assert suppressed in (None, [each["default_box"]["index"] for each in other["suppressed"]])
        assert (suppressed is None) == (suppression == "graph")
    assert (record["candidates"] is None) == (suppression == "graph")
    mined = [[each["index"] for each in stage["default_boxes"]] for stage in record["hard_negatives"]]
    wanted = [[each["index"] for each in stage["default_boxes"]] for stage in expected["hard_negatives"]]
    assert mined == (wanted if suppression == "none" else [])


def test_a_file_that_names_no_default_boxes_is_refused(shapes: Detector, sample: Sample):
    found = shapes.detect(sample.image)
    unknown = np.full(len(found), -1)

    class Nameless:
        prepares = False

        def __call__(self, inputs: np.ndarray, **rules: object) -> list[NormalizedDetections]:
            return [NormalizedDetections(found.boxes, found.scores, found.labels, unknown)]

    detector = Detector(shapes.config, shapes.class_names, Nameless())
    with pytest.raises(ValueError, match=r"does not say which default box found an object; give its .safetensors file"):
        explain({"it": detector}, sample.image)
