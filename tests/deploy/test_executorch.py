"""An ExecuTorch file finds what the network finds."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import multibox
from multibox.cli import main
from multibox.data.synthetic import synthetic_scenes
from multibox.deploy.export import export
from multibox.detector import Detector
from multibox.weights.exported import read_header

SHAPES = "multibox/shapes"

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # executorch's own


@pytest.fixture(scope="module", params=["runtime", "none"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("executorch", reason="executorch is not installed")
    path = tmp_path_factory.mktemp("executorch") / "shapes.pte"
    export(Detector.load(SHAPES), path, suppression=request.param, images=[multibox.EXAMPLE_IMAGE])
    return path


@pytest.mark.slow
def test_a_file_finds_what_the_network_finds(file: Path, monkeypatch: pytest.MonkeyPatch):
    """To the default box, in a batch of one and of three; its header is read without ExecuTorch."""
    detector, exported = Detector.load(SHAPES), multibox.load(file)
    assert detector.network  # is run itself
    scenes = [scene.open() for scene in synthetic_scenes(3, seed=3)]
    for batch_size in (1, 3):
        pairs = zip(
            detector.detect(scenes, score_threshold=0.01, batch_size=batch_size),
            exported.detect(scenes, score_threshold=0.01, batch_size=batch_size),
            strict=True,
        )
        for one, other in pairs:
            assert len(one) == len(other) > 20
            assert one.default_box_indices.tolist() == other.default_box_indices.tolist()
            np.testing.assert_allclose(one.boxes, other.boxes, atol=0.01)
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
    monkeypatch.setitem(sys.modules, "executorch", None)
    header = read_header(file)
    assert header.config == detector.config
    assert header.class_names == detector.class_names


@pytest.mark.slow
def test_damage_is_an_error(file: Path, tmp_path: Path):
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:100], b"no such file"):
        damaged = tmp_path / "damaged.pte"
        damaged.write_bytes(content)
        with pytest.raises(ValueError, match=re.escape(f"{damaged}: ")):
            multibox.load(damaged)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--nms", "graph"], "ExecuTorch has no operator for suppression in the file; take 'runtime' or 'none'"),
        (["--prepare"], "prepare puts the resize into the file, but ExecuTorch files take resized images"),
        (["--int8", "--data", "scenes"], "ExecuTorch files are not written in 8 bits; take .tflite for a phone"),
        (["--for", "frigate"], "Frigate's TFLite detector takes a file with the suffix .tflite, not .pte"),
    ],
)
def test_what_such_a_file_cannot_be_is_refused(tmp_path: Path, capsys, flags: list[str], said: str):
    assert main(["export", SHAPES, str(tmp_path / "shapes.pte"), *flags]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_executorch_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "executorch", None)
    monkeypatch.setitem(sys.modules, "executorch.backends.xnnpack.partition.xnnpack_partitioner", None)
    with pytest.raises(ImportError, match=r"pip install 'multibox\[executorch\]'"):
        export(Detector.load(SHAPES), tmp_path / "shapes.pte")
    assert list(tmp_path.iterdir()) == []
