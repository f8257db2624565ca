"""A converted detector, exported and loaded again, finds what it finds by itself in real photographs."""

from collections.abc import Callable
from pathlib import Path

import pytest

import multibox
from multibox.deploy.export import export
from multibox.deploy.proof import prove
from multibox.detector import Detector

pytestmark = pytest.mark.slow

SOURCES = ("coco_ssd_mobilenet_v1_quant.tflite", "face/version-RFB-320.pth", "face/version-slim-320.pth")
"""The files of other projects that are at hand."""


@pytest.mark.parametrize("suffix", [".onnx", ".xml", ".tflite"])
@pytest.mark.parametrize("source", SOURCES)
def test_it_finds_the_same_in_50_photographs(
    shared_file: Callable[[str], Path], shared_data: Callable[[str], Path], tmp_path: Path, source: str, suffix: str
):
    detector = Detector.convert(shared_file(source))
    photographs = sorted((shared_data("coco-mini") / "coco-mini" / "val").rglob("*.jpg"))[:50]
    assert len(photographs) == 50
    path = tmp_path / f"converted{suffix}"
    export(detector, path, images=[])
    proof = prove(detector, multibox.load(path), photographs)
    assert proof.holds and proof.unpaired <= proof.detections / 1000  # rounding decides between equal scores
    assert proof.detections >= 50
