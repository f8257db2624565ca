"""A file that prepares images itself finds what the network finds, from the image's own pixels on."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import multibox
from multibox import images
from multibox.cli import main
from multibox.data.synthetic import synthetic_scenes
from multibox.deploy.export import export
from multibox.deploy.prepared import Preparation
from multibox.detector import Detector
from multibox.presets import preset

SHAPES = "multibox/shapes"
SIZES = [(375, 500), (500, 375), (40, 31), (1, 1), (48, 64), (1, 700), (7, 400)]


@pytest.mark.parametrize("rule", ["antialias", "bilinear", "float"])
def test_the_resize_is_that_of_the_detector(rule: str):
    config = dataclasses.replace(preset("ssd256-tiny"), height=48, width=64, resize=rule, draft_decoding=False)
    random = np.random.default_rng(0)
    for rows, columns in SIZES:
        pixels = random.integers(0, 256, (rows, columns, 3), np.uint8)
        image = Image.fromarray(pixels)
        if rule == "antialias":  # some versions of Pillow take the rows first for some shapes
            image = image.resize((64, rows), Image.Resampling.BILINEAR)
        expected = images.resize(image, 48, 64, rule)
        found = Preparation(config).eval()(torch.from_numpy(pixels)[None])[0].numpy()
        assert found.dtype == expected.dtype
        if rule == "antialias":  # halves may be rounded to either side
            difference = np.abs(found.astype(int) - expected)
            assert difference.max() <= 2 and difference.mean() < 0.03
        else:
            np.testing.assert_array_equal(found, expected)


@pytest.fixture(scope="module", params=[".onnx", pytest.param(".xml", marks=pytest.mark.slow)])
def file(request, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for whole images.

    It is compared with the network in the example image too: from its 320 pixels to 256, many sums are halves, and a
    pixel that two passes round to the other side is 2 off. Its name is that of a file which export makes on the way.
    """
    path = tmp_path_factory.mktemp("prepared") / f"preparation{request.param}"
    images = [multibox.EXAMPLE_IMAGE, *(scene.open() for scene in synthetic_scenes(3, seed=0))]
    export(Detector.load(SHAPES), path, prepare=True, images=images)
    return path


def test_a_file_for_whole_images_finds_the_same(file: Path):
    """Alone or among others, from an array, a file or an image, whatever its size."""
    detector, exported = Detector.load(SHAPES), multibox.load(file)
    assert exported.config == detector.config
    scenes = [scene.open() for scene in synthetic_scenes(3, seed=3, height=200, width=330)]
    many = [*scenes, multibox.EXAMPLE_IMAGE, Image.new("RGB", (5, 3))]
    for one, other in zip(detector.detect(many), exported.detect(many), strict=True):
        assert other.labels.tolist() == one.labels.tolist()
        np.testing.assert_allclose(other.scores, one.scores, atol=0.01)  # a pixel may differ by one
        np.testing.assert_allclose(other.boxes, one.boxes, atol=0.5)
    assert len(exported.detect(np.asarray(scenes[0]))) == len(exported.detect(scenes[0])) > 0
    assert exported.detect([]) == []


def test_an_engine_runs_it_on_plain_pixels(file: Path):
    """Without anything of ours."""
    found = multibox.load(file).detect(multibox.EXAMPLE_IMAGE, score_threshold=0.01)
    pixels = np.asarray(Image.open(multibox.EXAMPLE_IMAGE).convert("RGB"))[None]
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        assert (given.name, given.shape, given.type) == ("image", [1, "height", "width", 3], "tensor(uint8)")
        boxes, count = session.run(["boxes", "count"], {"image": pixels})
    else:
        import openvino

        model = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        outputs = model([pixels])
        boxes, count = outputs["boxes"], outputs["count"]
    assert count[0] == len(found)
    height, width = pixels.shape[1:3]
    expected = (boxes[0, : count[0]] * [width, height, width, height]).clip(0, [width, height, width, height])
    np.testing.assert_allclose(found.boxes, expected, atol=0.01)


def test_images_of_several_sizes_are_no_batch(file: Path):
    exported = multibox.load(file)
    assert exported.prepare(Image.new("RGB", (5, 3))).shape == (1, 3, 3, 5)
    with pytest.raises(ValueError, match="takes whole images, one at a time; give prepare one image"):
        exported.prepare([Image.new("RGB", (5, 3)), Image.new("RGB", (3, 5))])


@pytest.mark.slow
def test_a_resize_that_is_another_is_refused(tmp_path: Path, monkeypatch):
    from multibox.deploy import prepared

    monkeypatch.setattr(prepared, "_average", lambda image, height, width: image.new_zeros(3, height, width))
    with pytest.raises(ValueError, match=r"the resize in the file is not that of the detector: from \d+ x \d+ pixels"):
        export(Detector.load(SHAPES), tmp_path / "shapes.onnx", prepare=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--batch", "2"], "such a file takes one image at a time; leave out batch 2"),
        (["--for", "frigate"], "a program resizes images itself; leave out prepare, or the program (--for)"),
    ],
)
def test_wrong_usage(tmp_path: Path, capsys, flags: list[str], said: str):
    assert main(["export", SHAPES, str(tmp_path / "shapes.xml"), "--prepare", *flags]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
