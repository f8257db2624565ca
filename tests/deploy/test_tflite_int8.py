"""A TFLite file in 8 bits: what is in it, and how close it stays to the file in single precision."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ai_edge_litert.interpreter import Interpreter
from torch import nn

import multibox
from multibox.boxes import box_iou
from multibox.data.sample import Dataset
from multibox.data.synthetic import synthetic_scenes
from multibox.deploy.export import Int8, export
from multibox.deploy.graph import ExportedGraph
from multibox.deploy.int8 import judge
from multibox.deploy.onnx import to_onnx
from multibox.deploy.tflite import to_tflite
from multibox.deploy.tflite_int8 import quantize_tflite
from multibox.deploy.tflite_model import read_model
from multibox.detector import Detector
from multibox.ssd.network import L2Norm
from multibox.weights.exported import read_header, read_metadata

SHAPES = "multibox/shapes"


@pytest.fixture(scope="module")
def files(tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The file in single precision, and in 8 bits."""
    return tflite, in_8_bits(tflite, tmp_path_factory.mktemp("int8"), images=6)


def in_8_bits(source: Path, folder: Path, *, images: int) -> Path:
    detector = Detector.load(SHAPES)
    quantize_tflite(
        source,
        folder / "int8.tflite",
        (detector.prepare(scene.open()) for scene in synthetic_scenes(images, seed=8)),
    )
    return folder / "int8.tflite"


def test_the_network_computes_with_whole_numbers(files: tuple[Path, Path]):
    """From plain pixels to the heads; decoding is in single precision."""
    source, path = files
    before, model = (read_model(each.read_bytes()) for each in files)
    assert [tensor.dtype for tensor in model.inputs] == ["uint8"]
    assert [tensor.dtype for tensor in model.outputs] == ["float32"] * 4  # boxes, scores, offsets, logits
    assert "CAST" not in {operator.code for operator in model.operators}
    convolutions = [operator for operator in model.operators if operator.code in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    assert len(convolutions) == sum(each.code in ("CONV_2D", "DEPTHWISE_CONV_2D") for each in before.operators) > 40
    for operator in convolutions:
        assert [tensor.dtype for tensor in (*operator.inputs, *operator.outputs)] == ["int8", "int8", "int32", "int8"]
    codes = [operator.code for operator in model.operators]
    assert codes.count("QUANTIZE") == 1  # of the pixels
    assert codes.count("DEQUANTIZE") == 2 * len(Detector.load(SHAPES).config.feature_maps)  # of the heads
    last = max(place for place, code in enumerate(codes) if code == "DEQUANTIZE")
    assert {tensor.dtype for operator in model.operators[last + 1 :] for tensor in operator.outputs} == {"float32"}
    assert path.stat().st_size < 0.4 * source.stat().st_size
    assert read_header(path) == read_header(source)


def test_what_is_read_is_written_again(files: tuple[Path, Path]):
    for path in files:
        assert read_model(path.read_bytes()).to_bytes(read_metadata(path)) == path.read_bytes()


def test_it_finds_what_was_found(files: tuple[Path, Path]):
    before, after = (multibox.load(each).detect(multibox.EXAMPLE_IMAGE) for each in files)
    assert [one.name for one in before] == [one.name for one in after]
    assert (box_iou(before.boxes, after.boxes).diagonal() > 0.9).all()
    np.testing.assert_allclose(before.scores, after.scores, atol=0.1)


@pytest.mark.slow
def test_average_precision_hardly_falls(tflite: Path, tmp_path: Path):
    before, after = map(multibox.load, (tflite, in_8_bits(tflite, tmp_path, images=20)))
    cost = judge(before, after, synthetic_scenes(12, seed=4), sizes=(1, 1))
    assert cost.compared.ap50.before > 0.7
    assert cost.drop < 0.01


class Layers(ExportedGraph):
    """Layers between two convolutions each, with an output of its own."""

    input_name = "images"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.strided = nn.ModuleList(nn.Conv2d(8, 8, 3, 2, 1, groups=groups) for groups in (1, 8))
        self.l2 = L2Norm(8, scale=20.0)
        self.heads = nn.ModuleList(nn.Conv2d(16 if number == 0 else 8, 4, 1) for number in range(13))

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(f"output{number}" for number in range(len(self.heads)))

    def example(self, batch: int | None) -> tuple[torch.Tensor, dict[int, str]]:
        pixels = torch.randint(0, 256, (1, 3, 22, 17), generator=torch.Generator().manual_seed(1))
        return pixels.to(torch.uint8), {}

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        mean = torch.tensor([123.7, 116.3, 103.5]).view(3, 1, 1)
        features = self.stem((images.float() - mean) / torch.tensor([58.4, 57.1, 57.4]).view(3, 1, 1))
        average = features.mean(dim=(2, 3), keepdim=True)
        layers = [
            torch.cat([features, features.relu() * 3], dim=1),
            features.relu(),
            F.relu6(features * 2),
            F.hardswish(features),
            features.sigmoid(),
            features * F.hardsigmoid(average),
            features + features.relu(),
            features - average,
            F.max_pool2d(features, 2, 2, ceil_mode=True),
            F.max_pool2d(features, 3, 2, 1),
            self.l2(features * torch.linspace(0.5, 2, 17)),
            *(layer(features) for layer in self.strided),
        ]
        return tuple(head(each).permute(0, 2, 3, 1) for head, each in zip(self.heads, layers, strict=True))


@pytest.mark.slow
def test_each_layer_is_close_in_8_bits(tmp_path: Path):
    """To a few steps of the 255 that there are."""
    module = Layers().eval()
    source, path = tmp_path / "source.tflite", tmp_path / "int8.tflite"
    source.write_bytes(to_tflite(to_onnx(module, {}, batch=1)).to_bytes({"format": "multibox 1"}))
    images, _ = module.example(1)
    quantize_tflite(source, path, [images.numpy()])
    given = images.permute(0, 2, 3, 1).numpy()
    expected, found = (Interpreter(str(each)).get_signature_runner()(images=given) for each in (source, path))
    codes = [operator.code for operator in read_model(path.read_bytes()).operators]
    assert codes.count("SQRT") == 1 and "HARD_SWISH" not in codes
    for name in module.output_names:
        spread = expected[name].max() - expected[name].min()
        difference = np.abs(found[name] - expected[name])
        assert difference.max() < 0.03 * spread and difference.mean() < 0.006 * spread, (
            f"{name}: {difference.max() / spread:.3f}, {difference.mean() / spread:.4f}"
        )


def test_a_bias_of_any_size_fits(tmp_path: Path):
    """A channel with hardly any weight, as a BatchNorm leaves behind, has a bias of many of its steps."""

    class Faint(ExportedGraph):
        input_name, output_names = "images", ("features",)

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 2, 1)
            self.layer.weight.data = torch.tensor([[0.01] * 3, [1e-13] * 3]).reshape(2, 3, 1, 1)
            self.layer.bias.data = torch.tensor([0.5, 4.0])

        def example(self, batch: int | None) -> tuple[torch.Tensor, dict[int, str]]:
            return torch.full((1, 3, 4, 4), 100, dtype=torch.uint8), {}

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
            return (self.layer(images.float()),)

    source, path = tmp_path / "source.tflite", tmp_path / "int8.tflite"
    source.write_bytes(to_tflite(to_onnx(Faint().eval(), {}, batch=1)).to_bytes({"format": "multibox 1"}))
    images, _ = Faint().example(1)
    quantize_tflite(source, path, [images.numpy()])
    found = Interpreter(str(path)).get_signature_runner()(images=images.permute(0, 2, 3, 1).numpy())["features"]
    np.testing.assert_allclose(found[:, 1], 4, atol=0.05)


def test_no_images_to_calibrate_on_are_an_error(files: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(ValueError, match="there are no images to calibrate 8 bits on"):
        quantize_tflite(files[0], tmp_path / "int8.tflite", [])


@pytest.mark.slow
def test_a_whole_export_in_8_bits(tmp_path: Path):
    def scenes(count: int, seed: int) -> Dataset:
        return synthetic_scenes(count, seed=seed)

    path = tmp_path / "shapes.tflite"
    exported = export(Detector.load(SHAPES), path, home="frigate", int8=Int8(scenes(30, 1), scenes(60, 2)))
    assert exported.int8 is not None and exported.int8.drop < 0.005
    assert path.stat().st_size < 1.5e6
    assert (tmp_path / "shapes.labels.txt").is_file()
