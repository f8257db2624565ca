"""Exported files are used without torch: detecting, evaluating and timing import nothing that only training needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import multibox
from multibox.data.synthetic import CLASS_NAMES, synthetic_scenes
from multibox.data.write import write_voc
from multibox.detector import Detector
from tests.deploy.conftest import Exporter
from tests.test_house import HEAVY

MISSING = ("torch", "torchvision", "onnx", "onnxscript", "matplotlib")
ENGINE = {".onnx": "onnxruntime", ".xml": "openvino", ".tflite": "ai_edge_litert"}
PRINT_MODULES = """
import json, sys
from multibox.cli import main
status = main(sys.argv[1:])
print(json.dumps(sorted(sys.modules)))
sys.exit(status)
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process, and of those that it starts, for whom these packages are not installed."""
    folder = tmp_path_factory.mktemp("missing")
    for name in MISSING:
        (folder / f"{name}.py").write_text(f"raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')")
    package = Path(multibox.__file__).parents[1]
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{package}", "OMP_NUM_THREADS": "1"}


def run(environment: dict[str, str], folder: Path, *arguments: object) -> tuple[list[str], set[str]]:
    """The lines that a command prints, and the modules that it has loaded at its end."""
    command = [sys.executable, "-c", PRINT_MODULES, *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *lines, modules = done.stdout.splitlines()
    return lines, set(json.loads(modules))


@pytest.mark.parametrize(
    ("suffix", "suppression"),
    [
        (".onnx", "graph"),
        pytest.param(".xml", "graph", marks=pytest.mark.slow),
        pytest.param(".tflite", "runtime", marks=pytest.mark.slow),
    ],
)
def test_everything_but_training_works(
    exporter: Exporter, environment: dict[str, str], tmp_path: Path, suffix: str, suppression: str
):
    path = exporter(Detector.load("multibox/shapes"), suffix, suppression=suppression)
    lines, modules = run(environment, tmp_path, "detect", multibox.EXAMPLE_IMAGE, "--model", path)
    assert lines == [f"{multibox.EXAMPLE_IMAGE}: 3 triangle, 1 star, 1 cross, 1 rectangle"]
    assert modules & (HEAVY | {"requests", "sympy", "cv2"}) == {ENGINE[suffix]}
    assert "multibox.weights.convert" not in modules and "multibox.ssd" not in modules

    scenes = synthetic_scenes(3, seed=5, height=128, width=128)
    assert scenes.class_names == CLASS_NAMES
    write_voc({"val": scenes}, tmp_path / "scenes")
    lines, _ = run(
        environment, tmp_path, "evaluate", tmp_path / "scenes", "--model", path, "--rule", "voc2010", "--json", "-"
    )
    found = json.loads("\n".join(lines))
    expected = multibox.evaluate(multibox.load("multibox/shapes"), scenes, rule="voc2010")
    assert found["ap"] == pytest.approx(expected.ap, abs=1e-4)

    few = ("--rounds", 1, "--images", 1, "--batch-size", 1, "--threads", 1)
    lines, modules = run(environment, tmp_path, "benchmark", path, *few, "--json", "-")
    tables = json.loads("\n".join(lines))["tables"]
    assert [table["work"] for table in tables] == ["detect", "network", "start"]
    assert not modules & HEAVY  # its processes load the engine


def test_what_needs_a_network_names_the_extra(environment: dict[str, str], tmp_path: Path):
    for command, extra in (
        (["detect", multibox.EXAMPLE_IMAGE, "--model", "multibox/shapes"], "train"),
        (["export", "multibox/shapes", "shapes.onnx"], "export"),
        (["benchmark", "multibox/shapes", "--rounds", "1"], "train"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "multibox", *map(str, command)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 1
        assert f"pip install 'multibox[{extra}]'" in done.stderr
        assert "Traceback" not in done.stderr
