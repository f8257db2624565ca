"""The ultra-light face detectors: against the project's recorded numbers, and its ONNX files on frames of people."""

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multibox.config import Postprocess
from multibox.detector import Detector
from multibox.postprocess import NormalizedDetections, postprocess
from multibox.ssd.coder import BoxCoder
from multibox.weights.convert import convert_weights

SharedFile = Callable[[str], Path]

CLIPS = {
    "clips/face-demographics-walking.gif": (0, 8, 16, 24, 32),
    "clips/face-demographics-walking-and-pause.gif": (0, 10, 20, 30, 40),
}
"""Frames, spread over the clips."""


@pytest.fixture(scope="module")
def detectors(shared_file: SharedFile) -> dict[str, Detector]:
    return {name: Detector.convert(shared_file(f"face/version-{name}-320.pth")) for name in ("RFB", "slim")}


@pytest.fixture(scope="module")
def frames(shared_file: SharedFile) -> np.ndarray:
    """Ten images of 240 x 320, cut from the middle of frames of 270 x 480."""
    cut = []
    for name, numbers in CLIPS.items():
        with Image.open(shared_file(name)) as clip:
            for number in numbers:
                clip.seek(number)
                cut.append(np.asarray(clip.convert("RGB"))[15:255, 80:400].transpose(2, 0, 1))
    return np.stack(cut)


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
    golden = np.load(shared_file("face/golden.npz"))
    pixels = (golden["input"] * 128 + 127).astype(np.uint8)
    offsets, scores = predict(detectors["RFB"], pixels)
    np.testing.assert_allclose(offsets[0], golden["raw_loc"], atol=1e-4)
    np.testing.assert_allclose(scores[0], golden["scores"], atol=1e-5)
    np.testing.assert_allclose(decoded(detectors["RFB"], offsets)[0], golden["boxes"], atol=1e-5)
    found = select(detectors["RFB"], pixels, score_threshold=0.7)
    np.testing.assert_allclose(found.boxes, golden["kept_boxes"], atol=1e-5)
    np.testing.assert_allclose(found.scores, golden["kept_scores"], atol=1e-5)


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


def test_its_own_rules_are_in_the_config(detectors: dict[str, Detector]):
    for name, detector in detectors.items():
        config = detector.config
        assert (config.height, config.width, config.num_default_boxes) == (240, 320, 4420)
        assert config.backbone == f"ultra-light-{name.lower()}"
        assert config.postprocess == Postprocess(
            score_threshold=0.01, iou_threshold=0.3, max_candidates_per_class=200, max_detections=200
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
        for ours, again in zip(
            *(each.detect(frames[:3], score_threshold=0.01) for each in (detector, loaded)), strict=True
        ):
            assert len(ours)
            assert list(ours) == list(again)


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
