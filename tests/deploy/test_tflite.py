"""A TFLite file finds what the network finds, and each operator gives in LiteRT what it gives in PyTorch."""

import dataclasses
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert.interpreter import Interpreter
from torch import nn

import multibox
from multibox.data.synthetic import synthetic_scenes
from multibox.deploy.export import export
from multibox.deploy.graph import ExportedGraph
from multibox.deploy.onnx import to_onnx
from multibox.deploy.proof import prove
from multibox.deploy.tflite import to_tflite
from multibox.deploy.tflite_int8 import quantize_tflite
from multibox.detector import Detector
from multibox.ssd.backbones import BACKBONES, make_backbone
from multibox.weights.converters.flatbuffer import Table
from multibox.weights.exported import read_header
from tests.deploy.conftest import Exporter
from tests.slow import slow

SHAPES = "multibox/shapes"


@pytest.fixture(scope="module")
def scenes():
    return [scene.open() for scene in synthetic_scenes(7, seed=3)]


@pytest.mark.parametrize("how", [{"raw": True}, slow({}), slow({"suppression": "none"})], ids=str)
def test_a_file_finds_what_the_network_finds(exporter: Exporter, scenes, how):
    """To the default box, in a batch of one, of seven, and of none."""
    detector = Detector.load(SHAPES)
    exported = multibox.load(exporter(detector, ".tflite", **how))
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


def test_threads_share_a_file(tflite: Path, scenes):
    exported = multibox.load(tflite)
    expected = [exported.detect(scene) for scene in scenes]
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(expected * 3, pool.map(exported.detect, scenes * 3), strict=True):
            assert one.scores.tolist() == other.scores.tolist()


def spread(detector: Detector) -> None:
    """Gives the heads weights as if they were trained, so that scores differ."""
    numbers = torch.Generator().manual_seed(0)
    for heads in (detector.network.logits, detector.network.offsets):
        for parameter in heads.parameters():
            parameter.data.add_(torch.randn(parameter.shape, generator=numbers) * 0.05)


@pytest.mark.slow
def test_other_detectors(exporter: Exporter):
    """Another shape, many classes, pixels in floats, one mean for all colors, clipped boxes and sizes, and sigmoids."""
    names = [f"class {number}" for number in range(90)]
    config = dataclasses.replace(
        Detector.create("ssd256-tiny", names, height=64, width=96).config,
        resize="float",
        draft_decoding=False,
        mean=(127.5,) * 3,
        scale=(127.5,) * 3,
        clip_boxes=True,
        max_log_size=0.2,
        scoring="sigmoid",
    )
    detector = Detector.create(config, names, seed=0)
    spread(detector)
    exported = multibox.load(exporter(detector, ".tflite"))
    proof = prove(detector, exported, [scene.open() for scene in synthetic_scenes(3, seed=1)])
    assert proof.holds and proof.detections > 60


class Operators(ExportedGraph):
    """Operators with all that can be told of them; each gives an output of its own."""

    input_name = "images"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        shapes = [(3, 1, 1), (3, 2, 1), (3, 2, 0), (5, 2, 2), (1, 2, 0), (3, 1, 6), (7, 3, 3), (2, 2, 1)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(8, 12, kernel, stride, padding, dilation=6 if padding == 6 else 1)
            for kernel, stride, padding in shapes
        )
        self.depthwise = nn.ModuleList(
            nn.Conv2d(8, channels, 3, stride, 1, groups=8, bias=False) for stride, channels in ((1, 8), (2, 8), (1, 16))
        )
        self.grouped = nn.Conv2d(8, 12, 3, groups=4)

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(f"output{number}" for number in range(len(self(self.example(1)[0]))))

    def example(self, batch: int | None) -> tuple[torch.Tensor, dict[int, str]]:
        pixels = torch.randint(0, 256, (2, 3, 22, 17), generator=torch.Generator().manual_seed(1))
        return pixels.to(torch.uint8), {}

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.stem(images.float() / 100)  # of both signs
        positive = features.relu()
        mean = features.mean(dim=(2, 3), keepdim=True)
        rows = features.permute(0, 2, 3, 1).reshape(2, -1, 4)
        return (
            *(layer(features) for layer in (*self.convolutions, *self.depthwise, self.grouped)),
            *(F.relu6(layer(features)) for layer in self.convolutions[:2]),
            *(
                F.max_pool2d(each, *window, ceil_mode=ceil)
                for each in (features, positive)
                for *window, ceil in ((2, 2, 0, True), (2, 2, 0, False), (3, 2, 1, False), (3, 1, 1, True))
            ),
            *(layer(features) for layer in (F.hardswish, F.gelu, torch.tanh, torch.abs, torch.neg)),
            F.gelu(features, approximate="tanh"),
            features * F.hardsigmoid(mean),
            features.sigmoid() * mean,
            features * torch.rsqrt(features.square().sum(dim=1, keepdim=True) + 1e-3),
            torch.cat([features, positive + 1], dim=1),
            (features - mean).relu(),
            features.relu() + features,  # the ReLU is not a part of the convolution, which is used twice
            rows.softmax(dim=-1),
            torch.cat([rows[..., 2:].exp(), rows[..., :2] / 0.3], dim=-1).clamp(0.1, 3.0),
            features.reshape(2, 4, -1),  # the order of PyTorch
            features[:, 2:5],
            features.transpose(2, 3) + 1,
            features.permute(0, 2, 3, 1).relu(),  # neither is this one
            features + mean[:1].reshape(8, 1, 1),
        )  # fmt: skip


def test_operators_compute_what_pytorch_computes(tmp_path: Path):
    module = Operators().eval()
    path = tmp_path / "operators.tflite"
    path.write_bytes(to_tflite(to_onnx(module, {}, batch=2)).to_bytes({}))
    interpreter = Interpreter(model_path=str(path), num_threads=1)
    images, _ = module.example(2)
    runner = interpreter.get_signature_runner()
    found = runner(images=images.permute(0, 2, 3, 1).numpy())
    with torch.no_grad():
        expected = module(images)
    assert len(found) == len(expected)
    for name, values in zip(module.output_names, expected, strict=True):
        given = found[name]
        if given.shape != values.shape:
            raise AssertionError(f"{name}: {given.shape}, expected {tuple(values.shape)}")
        np.testing.assert_allclose(given, values.numpy(), atol=1e-4, rtol=1e-5, err_msg=name)


def test_stored_numbers_are_aligned(tflite: Path):
    """The schema asks for 16 bytes, and processors load that many at once."""
    data = tflite.read_bytes()
    contents = [buffer.numbers(0, "u1") for buffer in Table.root(data).tables(4)]
    start = np.frombuffer(data, np.uint8).ctypes.data
    assert len(contents) > 50
    assert {(each.ctypes.data - start) % 16 for each in contents if len(each)} == {0}


@pytest.mark.parametrize(
    ("kind", "constants", "attributes", "what"),
    [
        ("Sin", [], {}, "the ONNX operator 'Sin'"),
        ("Cast", [], {"to": onnx.TensorProto.INT64}, "a conversion to another type than float32"),
        ("HardSigmoid", [], {"alpha": 0.2, "beta": 0.5}, "a HardSigmoid with alpha 0.2 and beta 0.5"),
        ("MaxPool", [], {"dilations": [2, 2], "kernel_shape": [2, 2]}, "a max pooling with dilation"),
        ("Pow", [np.array([2, 3], np.float32)], {}, "a power that is not a square"),
        ("ReduceMean", [np.array([2, 3])], {"keepdims": 0}, "a ReduceMean that drops axes"),
        ("Slice", [np.array([number]) for number in (0, 8, 2, 2)], {}, "a slice with steps"),
        ("Softmax", [], {"axis": 1}, "a softmax over an inner axis"),
    ],
)
def test_what_cannot_be_converted_is_named(kind: str, constants: list[np.ndarray], attributes: dict, what: str):
    names = [f"constant{number}" for number in range(len(constants))]
    images, output = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, (1, 2, 8, 8)) for name in ("images", "output")
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(kind, ["images", *names], ["output"], **attributes)],
        "network",
        [images],
        [output],
        list(map(onnx.numpy_helper.from_array, constants, names)),
    )
    refusal = f"the network has {what}, which is not written to TFLite files; export it as .onnx or .xml"
    with pytest.raises(ValueError, match=f"^{re.escape(refusal)}$"):
        to_tflite(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]))


def test_suppression_in_the_file_is_refused(tmp_path: Path):
    with pytest.raises(
        ValueError, match="TFLite has no operator for suppression in the file; take 'runtime' or 'none'"
    ):
        export(Detector.load(SHAPES), tmp_path / "shapes.tflite", suppression="graph")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("how", "said"),
    [({"precision": "bf16"}, "a TFLite file has its own precision"), ({"device": "cuda"}, "do not run on 'cuda' here")],
)
def test_what_litert_has_not_is_refused(tflite: Path, how, said: str):
    with pytest.raises(ValueError, match=said):
        multibox.load(tflite, **how)


def test_the_header_is_read_without_litert(tflite: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    assert read_header(tflite).class_names == Detector.load(SHAPES).class_names


def test_without_litert_its_package_is_named(tflite: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(ImportError, match=r"pip install 'multibox\[litert\]'"):
        multibox.load(tflite)


def kinds_of_backbones() -> list[str]:
    """All but those that differ from another in their width or depth alone."""
    sizes = re.compile(r"-0\.\d+|(?<=lite)[12]|resnet34")
    return [name for name in sorted(BACKBONES) if not sizes.search(name)]


@pytest.mark.slow
@pytest.mark.parametrize("name", kinds_of_backbones())
def test_every_backbone(name: str, tmp_path: Path):
    """In single precision it gives the same; in 8 bits LiteRT takes it."""

    class Sources(Operators):
        def __init__(self) -> None:
            ExportedGraph.__init__(self)
            torch.manual_seed(0)
            self.backbone = make_backbone(name).network.eval()

        def example(self, batch: int | None) -> tuple[torch.Tensor, dict[int, str]]:
            return torch.randn(1, 3, 128, 96, generator=torch.Generator().manual_seed(1)), {}

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(features.permute(0, 2, 3, 1) for features in self.backbone(images).values())

    module = Sources().eval()
    path = tmp_path / "backbone.tflite"
    path.write_bytes(to_tflite(to_onnx(module, {}, batch=1)).to_bytes({"format": "multibox 1"}))
    images, _ = module.example(1)
    found = Interpreter(model_path=str(path)).get_signature_runner()(images=images.permute(0, 2, 3, 1).numpy())
    with torch.no_grad():
        expected = module(images)
    for output, values in zip(module.output_names, expected, strict=True):
        difference = np.abs(found[output] - values.numpy()).max() / values.abs().max()
        assert difference < 1e-4, (output, difference)
    eighth = tmp_path / "int8.tflite"
    quantize_tflite(path, eighth, [images.numpy()])
    rounded = Interpreter(model_path=str(eighth)).get_signature_runner()(images=images.permute(0, 2, 3, 1).numpy())
    assert all(np.isfinite(values).all() for values in rounded.values())
