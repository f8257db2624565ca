"""The ultra-light face detectors: against the project's recorded numbers, and its ONNX files on frames of people."""

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from multibox.config import Postprocess
from multibox.default_boxes import make_default_boxes
from multibox.detector import Detector
from multibox.postprocess import NormalizedDetections, postprocess
from multibox.ssd.coder import BoxCoder
from multibox.weights.convert import convert_weights
from multibox.weights.converters import ultra_light
from tests.golden import ultra_light as golden
from tests.tolerances import assert_same

SharedFile = Callable[[str], Path]


@pytest.fixture(scope="module")
def detectors(shared_file: SharedFile) -> dict[str, Detector]:
    return {name: Detector.convert(shared_file(f"face/version-{name}-320.pth")) for name in ("RFB", "slim")}


@pytest.fixture(scope="module")
def frames(shared_file: SharedFile) -> np.ndarray:
    """Ten images of 240 x 320, cut from the middle of frames of 270 x 480."""
    for name in golden.CLIPS:
        shared_file(name)
    data = shared_file(name).parents[1]
    return np.stack([np.asarray(image)[15:255, 80:400].transpose(2, 0, 1) for _, image in golden.frames(data)])


def predict(detector: Detector, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Raw offsets, and scores of background and face."""
    with torch.inference_mode():
        offsets, logits = detector.network(torch.from_numpy(pixels))
    return offsets.numpy(), logits.softmax(dim=2).numpy()


def decoded(detector: Detector, offsets: np.ndarray) -> np.ndarray:
    config = detector.config
    coder = BoxCoder(config.center_variance, config.size_variance, config.max_log_size)
    table = detector.network.default_boxes.expand(offsets.shape)
    return coder.decode(torch.from_numpy(offsets), table).numpy()


def test_rfb_gives_the_golden_offsets_scores_and_boxes(shared_file: SharedFile, detectors: dict[str, Detector]):
    recorded = np.load(shared_file("face/golden.npz"))
    pixels = (recorded["input"] * 128 + 127).astype(np.uint8)
    offsets, scores = predict(detectors["RFB"], pixels)
    np.testing.assert_allclose(offsets[0], recorded["raw_loc"], atol=1e-4)
    np.testing.assert_allclose(scores[0], recorded["scores"], atol=1e-5)
    np.testing.assert_allclose(decoded(detectors["RFB"], offsets)[0], recorded["boxes"], atol=1e-5)
    found = select(detectors["RFB"], pixels, score_threshold=0.7)
    np.testing.assert_allclose(found.boxes, recorded["kept_boxes"], atol=1e-5)
    np.testing.assert_allclose(found.scores, recorded["kept_scores"], atol=1e-5)


def select(detector: Detector, pixels: np.ndarray, *, score_threshold: float) -> NormalizedDetections:
    selection = detector.config.postprocess.override(score_threshold=score_threshold)
    (offsets,), (logits,), default_boxes = detector._runtime(pixels, settings=selection)
    return postprocess(offsets, logits, default_boxes, detector.config, settings=selection)


@pytest.mark.parametrize("name", ["RFB", "slim"])
def test_both_equal_their_onnx_files_on_ten_frames(
    name: str, shared_file: SharedFile, detectors: dict[str, Detector], frames: np.ndarray
):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(shared_file(f"face/version-{name}-320.onnx"))
    offsets, scores = predict(detectors[name], frames)
    boxes = decoded(detectors[name], offsets)
    faces = 0
    for number, pixels in enumerate(frames):
        normal = (pixels[None].astype(np.float32) - 127) / 128
        expected_scores, expected_boxes = session.run(None, {"input": normal})
        np.testing.assert_allclose(scores[number], expected_scores[0], atol=1e-4)
        np.testing.assert_allclose(boxes[number], expected_boxes[0], atol=1e-4)
        faces += len(select(detectors[name], pixels[None], score_threshold=0.7).boxes)
    assert len(frames) == 10
    assert faces >= 10  # it is about faces


@pytest.fixture(scope="module")
def found_by_onnx() -> dict[str, np.ndarray]:
    """What the ONNX files find in images that OpenCV read and resized."""
    with np.load(golden.FILE) as file:
        return dict(file)


def check_equal(
    detector: Detector, path: Path, score_threshold: float, found_by_onnx: dict[str, np.ndarray], key: str
) -> None:
    """Checks every box of an image file, before and after suppression: to 0.01 pixel, and 1e-4 of score."""
    boxes, scores, indices, kept = (found_by_onnx[f"{key} {name}"] for name in ("boxes", "scores", "indices", "kept"))
    for chosen, options in ((slice(None), {"iou_threshold": 1.0}), (np.sort(kept), {})):
        ours = detector.detect(path, score_threshold=score_threshold, max_detections=1500, **options)
        order = np.argsort(ours.default_box_indices)
        np.testing.assert_array_equal(ours.default_box_indices[order], indices[chosen])
        np.testing.assert_allclose(ours.boxes[order], boxes[chosen], atol=0.01, rtol=0)
        np.testing.assert_allclose(ours.scores[order], scores[chosen], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["RFB", "slim"])
@pytest.mark.parametrize("size", golden.SIZES)
def test_from_the_file_of_an_image_both_find_what_their_onnx_files_find(
    name: str, size: tuple[int, int], shared_file: SharedFile, tmp_path: Path, found_by_onnx: dict[str, np.ndarray]
):
    height, width = size
    weights = shared_file(f"face/version-{name}-320.pth")
    detector = Detector.convert(weights, height=height, width=width)
    for clip in golden.CLIPS:
        shared_file(clip)
    count = 0
    for frame, image in golden.frames(weights.parents[1]):
        image.save(tmp_path / f"{frame}.png")
        key = f"{name} {height}x{width} {frame}"
        check_equal(detector, tmp_path / f"{frame}.png", golden.SCORE_THRESHOLDS["frames"], found_by_onnx, key)
        count += 1
    assert count == 10


@pytest.mark.parametrize("name", ["RFB", "slim"])
@pytest.mark.parametrize("size", golden.SIZES)
def test_with_weights_by_a_rule_both_find_what_their_onnx_files_find_in_a_drawn_image(
    name: str, size: tuple[int, int], tmp_path: Path, found_by_onnx: dict[str, np.ndarray]
):
    """Needs no published weights."""
    shapes = json.loads(str(found_by_onnx[f"{name} shapes"]))
    state = {key: torch.from_numpy(golden.rule_tensor(key, tuple(shape))) for key, shape in shapes.items()}
    torch.save(state, tmp_path / "rule.pth")
    golden.drawn().save(tmp_path / "drawn.png")
    height, width = size
    detector = Detector.convert(tmp_path / "rule.pth", height=height, width=width)
    key = f"{name} {height}x{width} drawn"
    check_equal(detector, tmp_path / "drawn.png", golden.SCORE_THRESHOLDS["drawn"], found_by_onnx, key)


def test_its_own_rules_are_in_the_config(detectors: dict[str, Detector]):
    for name, detector in detectors.items():
        config = detector.config
        assert (config.height, config.width, config.num_default_boxes) == (240, 320, 4420)
        assert config.backbone == f"ultra-light-{name.lower()}"
        assert config.postprocess == Postprocess(
            score_threshold=0.01, iou_threshold=0.3, max_candidates_per_class=1500, max_detections=750
        )
        assert detector.class_names == ("face",)
        table = detector.network.default_boxes.numpy()
        assert (table[-1] == np.float32([0.9, 0.875, 0.8, 1.0])).all()  # 256 of 240 pixels: clipped
        assert (table >= 0).all() and (table <= 1).all()


def test_saved_and_loaded_it_detects_the_same(detectors: dict[str, Detector], frames: np.ndarray, tmp_path: Path):
    for detector in detectors.values():
        detector.save(tmp_path / "it.safetensors")
        loaded = Detector.load(tmp_path / "it.safetensors")
        assert (loaded.config, loaded.class_names) == (detector.config, detector.class_names)
        assert_close(loaded.network.state_dict(), detector.network.state_dict(), rtol=0, atol=0)
        for found, expected in zip(loaded.detect(frames[:3]), detector.detect(frames[:3]), strict=True):
            assert_same(found, expected)


@pytest.mark.parametrize(
    ("size", "rows", "columns"),
    [
        ((96, 128), (12, 6, 3, 2), (16, 8, 4, 2)),
        ((120, 160), (15, 8, 4, 2), (20, 10, 5, 3)),
        ((240, 320), (30, 15, 8, 4), (40, 20, 10, 5)),
        ((360, 480), (45, 23, 12, 6), (60, 30, 15, 8)),
        ((480, 640), (60, 30, 15, 8), (80, 40, 20, 10)),
        ((960, 1280), (120, 60, 30, 15), (160, 80, 40, 20)),
    ],
)
def test_maps_have_the_sizes_of_the_projects_table(size, rows, columns):
    """`feature_map_w_h_list_dict` of its vision/ssd/config/fd_config.py."""
    height, width = size
    config = ultra_light.config_for("ultra-light-slim", height=height, width=width)
    assert tuple(row.rows for row in config.feature_maps) == rows
    assert tuple(row.columns for row in config.feature_maps) == columns
    np.testing.assert_allclose(make_default_boxes(config), golden.default_boxes(height, width), atol=1e-6)


def test_any_size_that_is_wanted_is_the_networks(shared_file: SharedFile, tmp_path: Path):
    path = shared_file("face/version-slim-320.pth")
    for wanted, size in (({"height": 101, "width": 67}, (101, 67)), ({"width": 160}, (160, 160)), ({}, (240, 320))):
        detector = Detector.convert(path, **wanted)
        assert (detector.config.height, detector.config.width) == size
        detector.detect(np.zeros((50, 60, 3), np.uint8))  # offsets and default boxes are as many
        detector.save(tmp_path / "it.safetensors")
        assert Detector.load(tmp_path / "it.safetensors").config == detector.config
    for wrong in (0, -5, 31, 5000):
        with pytest.raises(ValueError, match=f"the height of the input must be from 32 to 4096 pixels, but is {wrong}"):
            Detector.convert(path, height=wrong, width=320)


def test_what_1e_5_in_the_denominator_of_the_overlap_changes():
    """The table of docs/weights.md: the overlap at which the IoU with 1e-5 reaches its threshold."""
    text = (Path(__file__).parents[3] / "docs" / "weights.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| (\d+) x (\d+) pixels \| 0\.45 \| ([\d.]+) \| 0\.3 \| ([\d.]+) \|", text)
    assert len(rows) == 4
    for width, height, at_300, at_320 in rows:
        for stated, threshold, pixels in ((at_300, 0.45, 300 * 300), (at_320, 0.3, 320 * 240)):
            area, extra = int(width) * int(height), 1e-5 * pixels
            overlap = float(stated)
            shared = 2 * area * overlap / (1 + overlap)
            assert shared / (2 * area - shared + extra) == pytest.approx(threshold, abs=5e-6)


# what is refused


def refused(path: Path) -> str:
    """The one line in which the file is refused."""
    with pytest.raises(ValueError, match=path.name) as caught:
        convert_weights(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(shared_file: SharedFile, tmp_path: Path, share: float):
    data = shared_file("face/version-RFB-320.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(data[: int(share * len(data))])
    assert "damaged" in refused(tmp_path / "cut.pth")


def test_one_with_a_tensor_missing_is_refused(shared_file: SharedFile, tmp_path: Path):
    tensors = torch.load(shared_file("face/version-slim-320.pth"), weights_only=True, map_location="cpu")
    del tensors["base_net.5.1.running_var"]
    torch.save(tensors, tmp_path / "less.pth")
    assert "the tensor 'base_net.5.1.running_var' is missing" in refused(tmp_path / "less.pth")


@pytest.mark.parametrize("version", ["slim", "RFB"])
def test_one_with_a_tensor_too_many_is_refused(shared_file: SharedFile, tmp_path: Path, version: str):
    tensors = torch.load(shared_file(f"face/version-{version}-320.pth"), weights_only=True, map_location="cpu")
    torch.save({**tensors, "more.weight": torch.ones(1)}, tmp_path / "more.pth")
    assert f"its tensor 'more.weight' belongs to no layer of version {version}" in refused(tmp_path / "more.pth")


def test_another_model_of_the_same_family_is_refused(tmp_path: Path):
    torch.save({"base_net.0.0.weight": torch.zeros(32, 3, 3, 3)}, tmp_path / "other.pth")
    assert "no detector that can be converted" in refused(tmp_path / "other.pth")


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_code_in_the_file_is_not_run(shared_file: SharedFile, tmp_path: Path):
    tensors = torch.load(shared_file("face/version-slim-320.pth"), weights_only=True, map_location="cpu")
    for legacy in (True, False):
        it = tmp_path / f"{legacy}.pth"
        torch.save(dict(tensors) | {"x": Payload(tmp_path / "made")}, it, _use_new_zipfile_serialization=not legacy)
        assert convert_weights(it).class_names == ("face",)
    (tmp_path / "bare.pth").write_bytes(pickle.dumps(Payload(tmp_path / "made"), protocol=2))
    refused(tmp_path / "bare.pth")
    assert not (tmp_path / "made").exists()
