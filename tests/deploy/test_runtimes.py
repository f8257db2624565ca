"""What runs exported files: their precision, device and threads, and metadata that are damaged."""

import inspect
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import onnx
import onnxruntime
import pytest

import multibox
from multibox.deploy.kinds import KINDS
from multibox.detector import Detector
from multibox.runtimes.exported import ExportFacts
from multibox.runtimes.open import open_exported
from multibox.weights.exported import KINDS as READ_KINDS
from tests.deploy.conftest import Exporter

SHAPES = "multibox/shapes"


@pytest.fixture(scope="module")
def file(exporter: Exporter) -> Path:
    return exporter(Detector.load(SHAPES), ".onnx", suppression="graph")


def test_each_kind_that_is_written_is_read():
    assert sorted(KINDS) == sorted(READ_KINDS)


@pytest.mark.parametrize("suffix", sorted(KINDS))
def test_there_is_no_such_precision(suffix: str):
    with pytest.raises(ValueError, match="precision must be 'fp32', 'bf16' or 'auto', but is 'fp16'"):
        inspect.unwrap(open_exported)(f"shapes{suffix}", precision="fp16")


@pytest.mark.parametrize("device", ["cuda", "cpu:x", "tpu"])
def test_there_is_no_such_device(file: Path, device: str):
    with pytest.raises(ValueError, match=f"the installed onnxruntime does not run on '{device}', only on cpu"):
        multibox.load(file, device=device)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_the_processor_is_no_silent_substitute(file: Path, monkeypatch: pytest.MonkeyPatch):
    """ONNX Runtime takes it if the libraries of CUDA are missing."""
    there = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    with pytest.raises(ValueError, match="onnxruntime cannot use 'cuda:1' here: libraries of CUDA are missing"):
        multibox.load(file, device="cuda:1")


def test_all_threads_run_the_file_that_was_loaded(exporter: Exporter, tmp_path: Path):
    """Even if its name is that of another file by then."""
    path = tmp_path / "shapes.tflite"
    path.write_bytes(exporter(Detector.load(SHAPES), ".tflite").read_bytes())
    detector = multibox.load(path)
    path.unlink()
    path.write_bytes(b"another file")
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(detector.detect, multibox.EXAMPLE_IMAGE).result()
    assert found.labels.tolist() == detector.detect(multibox.EXAMPLE_IMAGE).labels.tolist() != []


@pytest.mark.parametrize("default_boxes", ["AAAA", "?", "AAAAAA=="])
def test_damaged_default_boxes_are_named(file: Path, tmp_path: Path, default_boxes: str):
    model = onnx.load(file)
    (entry,) = (each for each in model.metadata_props if each.key == "export")
    facts = ExportFacts.from_text(entry.value)
    entry.value = ExportFacts(facts.suppression, facts.settings, default_boxes).to_text()
    damaged = tmp_path / "damaged.onnx"
    onnx.save(model, damaged)
    with pytest.raises(ValueError, match=re.escape(f"{damaged}: its metadata are damaged (export: ")):
        multibox.load(damaged)
