"""TensorFlow's 8-bit SSD MobileNet v1: against a walk through its own graph, and against what TensorFlow Lite finds."""

import json
import pickle
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from multibox.boxes import box_iou
from multibox.config import Postprocess
from multibox.default_boxes import make_default_boxes
from multibox.detector import Detector
from multibox.postprocess import postprocess
from multibox.ssd.network import Predictions
from multibox.weights.convert import convert_weights
from multibox.weights.converters import tflite
from multibox.weights.converters.class_names import COCO_BY_ID
from multibox.weights.converters.flatbuffer import Table, flex_numbers
from tests.tolerances import assert_same
from tests.weights.converters.make_golden_tflite import pixels_of

GOLDEN = json.loads((Path(__file__).parent / "golden_tflite.json").read_text(encoding="utf-8"))
"""What TensorFlow Lite (ai-edge-litert 2.3.0) finds in images of VOC 2007 test, written by make_golden_tflite.py."""


@pytest.fixture(scope="module")
def path(shared_file: Callable[[str], Path]) -> Path:
    return shared_file("coco_ssd_mobilenet_v1_quant.tflite")


@pytest.fixture(scope="module")
def detector(path: Path) -> Detector:
    return Detector.convert(path)


@pytest.fixture(scope="module")
def image(shared_file: Callable[[str], Path]) -> Iterator[Callable[[str], bytes]]:
    """The file of an image of VOC 2007 test."""
    with zipfile.ZipFile(shared_file("voc2007-test.zip")) as archive:
        yield lambda name: archive.read(f"VOCdevkit/VOC2007/JPEGImages/{name}.jpg")


def predict(detector: Detector, pixels: np.ndarray) -> Predictions:
    with torch.inference_mode():
        return detector.network(torch.from_numpy(pixels))


def walk(path: Path, pixels: np.ndarray) -> dict[str, Tensor]:
    """What each convolution of the file gives, by name: operator after operator, in floats.

    Activations end where the range of their 8 bits does; the heads' are left to go on.
    """
    model = Table.root(path.read_bytes())
    graph, buffers = model.tables(2)[0], model.tables(4)
    codes = [code.number(0, "i1") for code in model.tables(1)]
    tensors = graph.tables(0)

    def stored(number: int) -> Tensor:
        table, quantization = tensors[number], tensors[number].table(4)
        raw = buffers[table.number(2, "<u4")].numbers(0, "u1").tobytes()
        numbers = np.frombuffer(raw, {2: np.int32, 3: np.uint8}[table.number(1, "i1")]).astype(np.float64)
        values = (numbers - quantization.numbers(3, "<i8")) * quantization.numbers(2, "<f4")
        return torch.from_numpy(values.reshape(table.numbers(0, "<i4").tolist()))

    found = {int(graph.numbers(1, "<i4")[0]): (torch.from_numpy(pixels).double() - 128) / 128}
    for operator in graph.tables(3):
        code = codes[operator.number(0, "<u4")]
        if code not in (3, 4):  # CONV_2D, DEPTHWISE_CONV_2D
            continue
        data, kernel, bias = operator.numbers(1, "<i4").tolist()
        (output,) = operator.numbers(2, "<i4").tolist()
        options = operator.table(4)
        assert options.number(0, "i1") == 0  # SAME
        stride = options.number(1, "<i4")
        weight = stored(kernel)
        weight = weight.permute(3, 0, 1, 2) if code == 4 else weight.permute(0, 3, 1, 2)
        side, size = weight.shape[2], found[data].shape[2]
        zeros = max((-(-size // stride) - 1) * stride + side - size, 0)
        padded = F.pad(found[data], (zeros // 2, zeros - zeros // 2) * 2)
        groups = len(weight) if code == 4 else 1
        values = F.conv2d(padded, weight, stored(bias), stride, groups=groups)
        if "BoxPredictor" not in tensors[output].text(3):
            quantization = tensors[output].table(4)
            ends = (np.array([0, 255]) - quantization.numbers(3, "<i8")) * quantization.numbers(2, "<f4")
            values = values.clamp(*ends.tolist())
            if options.number(4 if code == 4 else 3, "i1") == 3:
                values = values.clamp(0, 6)
        found[output] = values
    return {tensors[number].text(3): values for number, values in found.items()}


def test_offsets_and_logits_are_those_of_the_graph_in_floats(path: Path, detector: Detector, image):
    pixels = detector.prepare(image("000008"))
    given = walk(path, pixels)

    def rows(head: str, width: int) -> Tensor:
        maps = [given[f"BoxPredictor_{number}/{head}/BiasAdd"] for number in range(6)]
        return torch.cat([one.permute(0, 2, 3, 1).reshape(1, -1, width) for one in maps], dim=1)

    offsets, logits = predict(detector, pixels)
    expected = rows("BoxEncodingPredictor", 4)[..., [1, 0, 3, 2]].float()  # y, x, height, width
    torch.testing.assert_close(offsets, expected, atol=2e-4, rtol=0)
    named = rows("ClassPredictor", 91)[..., list(COCO_BY_ID)].float()
    torch.testing.assert_close(logits[..., 1:], named, atol=2e-4, rtol=0)
    assert not logits[..., 0].any()


def test_what_tensorflow_lite_is_sure_of_is_found(detector: Detector, image):
    overlap_with_best = []
    for name, rows in GOLDEN.items():
        pixels = pixels_of(image(name))[None]
        settings = detector.config.postprocess
        (offsets,), (logits,), default_boxes = detector._runtime(pixels, settings=settings)
        raw = postprocess(offsets, logits, default_boxes, detector.config, settings=settings)
        for row in rows:
            if row["score"] < 0.5:
                continue
            overlaps = box_iou(np.array([row["box"]]), raw.boxes.astype(float))[0]
            same = [detector.class_names[label] == row["name"] for label in raw.labels]
            best = int(np.argmax(overlaps * same))
            assert overlaps[best] * same[best] > 0.7, (name, row)  # another of the boxes around an object may win
            overlap_with_best.append(overlaps[best])
            # logits of 8 bits end at 1.2 to 1.6, scores at 0.77 to 0.83
            assert min(abs(raw.scores[best] - row["score"]), abs(0.77 - row["score"])) < 0.05, (name, row)
        assert len(raw.scores) == 10
    assert len(overlap_with_best) == 32
    assert np.mean(overlap_with_best) > 0.9


def test_its_own_rules_are_in_the_config(path: Path):
    weights = convert_weights(path)
    config = weights.config
    assert config.postprocess == Postprocess(
        score_threshold=1e-8,
        iou_threshold=0.6,
        class_agnostic=True,
        max_candidates_per_class=1917,
        max_detections=10,
    )
    assert (config.scoring, config.resize, config.stored_default_boxes) == ("sigmoid", "bilinear", True)
    assert (config.mean, config.scale) == ((128.0,) * 3, (128.0,) * 3)
    assert (config.center_variance, config.size_variance) == (0.1, 0.2)
    assert config.num_default_boxes == 1917
    assert len(weights.class_names) == 80
    assert (weights.class_names[0], weights.class_names[-1]) == ("person", "toothbrush")


def test_the_stored_default_boxes_are_those_of_the_rows_rounded_to_8_bits(path: Path):
    weights = convert_weights(path)
    made = make_default_boxes(replace(weights.config, stored_default_boxes=False))
    step = 1.6455304622650146 / 255  # of the file's table
    assert np.abs(weights.tensors["default_boxes"] - made).max() <= step / 2 + 1e-6


def test_saved_and_loaded_it_detects_the_same(detector: Detector, image, tmp_path: Path):
    detector.save(tmp_path / "it.safetensors")
    loaded = Detector.load(tmp_path / "it.safetensors")
    assert (loaded.config, loaded.class_names, loaded.provenance) == (
        detector.config,
        detector.class_names,
        detector.provenance,
    )
    torch.testing.assert_close(loaded.network.state_dict(), detector.network.state_dict(), rtol=0, atol=0)
    assert_same(loaded.detect(image("000004")), detector.detect(image("000004")))


def test_trained_on_it_begins_as_a_softmax_beside_a_background_of_0(detector: Detector, image):
    other = detector.with_classes(["horse", "person", "unicorn"], seed=0)
    assert other.config.scoring == "softmax"
    pixels = detector.prepare(image("000010"))
    offsets, logits = predict(detector, pixels)
    new_offsets, new_logits = predict(other, pixels)
    torch.testing.assert_close(new_offsets, offsets)
    assert not new_logits[..., 0].any()
    labels = [1 + detector.class_names.index(name) for name in ("horse", "person")]
    torch.testing.assert_close(new_logits[..., 1:3], logits[..., labels])
    only = detector.with_classes(["horse"]).detect(image("000010"), score_threshold=0.01)
    sigmoid = detector.detect(image("000010"), class_names=["horse"], score_threshold=1e-8)
    assert only.scores[0] == pytest.approx(sigmoid.scores[0], abs=1e-5)  # e^x / (e^0 + e^x)


# what is refused


def refused(path: Path) -> str:
    """The one line in which the file is refused."""
    with pytest.raises(ValueError, match=path.name) as caught:
        convert_weights(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("share", [0, 0.00001, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(path: Path, tmp_path: Path, share: float):
    data = path.read_bytes()
    (tmp_path / "cut.tflite").write_bytes(data[: 8 + int(share * len(data))])
    assert "damaged" in refused(tmp_path / "cut.tflite")


def test_a_damaged_file_is_refused_or_read(path: Path, tmp_path: Path):
    """Where only a weight has changed nobody can tell; whatever else happens is a ValueError."""
    data = np.frombuffer(path.read_bytes(), np.uint8)
    random = np.random.default_rng(0)
    tail = slice(len(data) - 40_000, len(data))  # where the tables are
    refusals = 0
    for _ in range(12):
        damaged = data.copy()
        places = random.integers(tail.start, tail.stop, 30)
        damaged[places] = random.integers(0, 256, 30)
        (tmp_path / "damaged.tflite").write_bytes(damaged.tobytes())
        try:
            convert_weights(tmp_path / "damaged.tflite")
        except ValueError as error:
            assert "damaged.tflite: " in str(error)
            refusals += 1
    assert refusals


@pytest.mark.parametrize(
    ("here", "there", "said"),
    [
        (b"TFLite_Detection_PostProcess", b"TFLite_Detection_PostXrocess", "it has no operator 'TFLite_Det"),
        (b"num_classes", b"num_clusses", "expected h_scale, max_classes_per_detection, max_detections, nms_iou_"),
    ],
)
def test_another_model_is_refused(path: Path, tmp_path: Path, here: bytes, there: bytes, said: str):
    data = path.read_bytes()
    assert here in data
    (tmp_path / "other.tflite").write_bytes(data.replace(here, there))
    assert said in refused(tmp_path / "other.tflite")


@pytest.mark.parametrize("option", ["y_scale", "h_scale"])
def test_variances_that_differ_between_x_and_y_are_refused(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
):
    monkeypatch.setattr(tflite, "flex_numbers", lambda data: flex_numbers(data) | {option: 8.0})
    assert f"'{option}': 8.0" in refused(path)


@pytest.mark.parametrize("rest", [b"", b"\0" * 64, b"\xff" * 64, bytes(range(64))])
def test_what_only_says_that_it_is_one_is_refused(tmp_path: Path, rest: bytes):
    (tmp_path / "empty.tflite").write_bytes(b"\x10\0\0\0TFL3" + rest)
    assert "damaged" in refused(tmp_path / "empty.tflite")


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return Path.touch, (self.target,)


def test_a_pickle_is_not_unpickled(tmp_path: Path):
    (tmp_path / "it.tflite").write_bytes(pickle.dumps(Payload(tmp_path / "made"), protocol=2))
    refused(tmp_path / "it.tflite")
    assert not (tmp_path / "made").exists()
