"""The example in C++ finds what the detector finds, with nothing but ONNX Runtime."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

import multibox
from multibox.deploy.export import export
from multibox.detector import Detector

SOURCE = Path(__file__).parents[2] / "examples" / "detect.cpp"
LIBRARIES = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
"""The library, which Linux wheels of ONNX Runtime bring."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has the program, a detector and an image."""
    headers = os.environ.get("ONNXRUNTIME_INCLUDE")
    if not (shutil.which("g++") and LIBRARIES and headers):
        pytest.skip("needs g++, ONNX Runtime's library, and ONNXRUNTIME_INCLUDE, the folder of its headers")
    folder = tmp_path_factory.mktemp("cpp")
    (folder / "libonnxruntime.so.1").symlink_to(LIBRARIES[-1])
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem"]
    command = ["g++", SOURCE, "-o", folder / "detect", *flags, headers, LIBRARIES[-1], f"-Wl,-rpath,{folder}"]
    subprocess.run(command, check=True, timeout=300)
    export(Detector.load("multibox/shapes"), folder / "shapes.onnx", prepare=True, images=[multibox.EXAMPLE_IMAGE])
    Image.open(multibox.EXAMPLE_IMAGE).convert("RGB").save(folder / "scene.ppm")
    return folder


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["./detect", *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


def test_it_finds_what_the_detector_finds(folder: Path):
    done = run(folder, "shapes.onnx", "scene.ppm")
    assert (done.returncode, done.stderr) == (0, "")
    rows = [line.split(" ") for line in done.stdout.splitlines()]
    found = multibox.load(folder / "shapes.onnx").detect(multibox.EXAMPLE_IMAGE, score_threshold=0.5)
    assert [row[0] for row in rows] == [one.name for one in found]
    np.testing.assert_allclose([float(row[1]) for row in rows], found.scores, atol=1e-5)
    np.testing.assert_allclose([list(map(float, row[2:])) for row in rows], found.boxes, atol=0.01)


@pytest.mark.parametrize(
    ("model", "content", "status", "said"),
    [
        ("shapes.onnx", b"P6 4 4 255\n" + bytes(47), 1, "bad.ppm: the file ends too early"),
        ("shapes.onnx", b"P5 4 4 255\n" + bytes(48), 1, "bad.ppm: not a binary PPM file with 8 bits"),
        ("scene.ppm", b"P6 4 4 255\n" + bytes(48), 1, "scene.ppm: Load model"),
    ],
)
def test_what_is_wrong_is_said(folder: Path, model: str, content: bytes, status: int, said: str):
    (folder / "bad.ppm").write_bytes(content)
    done = run(folder, model, "bad.ppm")
    assert done.returncode == status and done.stdout == "" and said in done.stderr
