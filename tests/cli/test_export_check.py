"""`train --export-check` tries the export before anything is learned."""

from pathlib import Path

import pytest

from tests.cli.conftest import Multibox

FLAGS = ["--model", "ssd256-tiny", "--steps", "1", "--batch-size", "2", "--export-check", "onnx"]


@pytest.mark.slow
def test_a_detector_that_can_be_exported_is_trained(multibox: Multibox, data: Path, tmp_path: Path):
    result = multibox("train", data, *FLAGS, "--out", tmp_path / "run")
    assert result.status == 0
    assert "export check: the detector can be exported (onnx)" in result.out + result.err
    assert (tmp_path / "run" / "last.safetensors").is_file()


@pytest.mark.parametrize(
    "fault", ["it has an operator of its own", pytest.param("other offsets", marks=pytest.mark.slow)]
)
def test_a_detector_that_cannot_be_exported_is_not(
    multibox: Multibox, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
):
    import multibox.deploy.export as export

    if fault == "other offsets":
        monkeypatch.setattr(export, "TOLERANCE", 0.0)
    else:
        monkeypatch.setattr(
            "multibox.deploy.kinds.to_onnx", lambda *_, **__: (_ for _ in ()).throw(RuntimeError(fault))
        )
    result = multibox("train", data, *FLAGS, "--out", tmp_path / "run")
    assert result.status == 1
    (line,) = [each for each in result.err if "--export-check onnx" in each]
    assert fault in line
    assert line.endswith("; train another model, or leave out the check")
    assert not (tmp_path / "run").exists()
