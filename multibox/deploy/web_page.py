"""Writes a page that runs a detector in a browser: a folder of files that any web server can serve."""

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from multibox.detector import Detector
from multibox.weights.download import cache_folder

ONNXRUNTIME_WEB = "1.30.0"
"""Version of the package onnxruntime-web that the page is tested with."""

_PAGE = Path(__file__).parent / "web"
_ENGINE = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
"""Files of the package that the page loads: those for the processor, then those for WebGPU."""


def write_page(detector: Detector, model: Path, folder: Path) -> None:
    """Writes the page, with the model and the engine, so that nothing else is fetched.

    Args:
        detector: The detector.
        model: Its ONNX file, with the preparation inside and the suppression outside.
        folder: The folder to write to.

    Raises:
        OSError: The engine is not there and cannot be fetched.
    """
    engine = find_engine()
    folder.mkdir(parents=True, exist_ok=True)
    for file in _PAGE.iterdir():
        shutil.copyfile(file, folder / file.name)
    shutil.copyfile(model, folder / "model.onnx")
    (folder / "ort").mkdir(exist_ok=True)
    for name in _ENGINE:
        shutil.copyfile(engine / name, folder / "ort" / name)
    settings = detector.config.postprocess
    described = {
        "name": detector.config.name,
        "class_names": detector.class_names,
        "detect_score_threshold": detector.config.detect_score_threshold,
        "score_thresholds": detector.score_thresholds,
        "settings": {
            name: getattr(settings, name)
            for name in (
                "score_threshold",
                "iou_threshold",
                "class_agnostic",
                "max_candidates_per_class",
                "max_detections",
            )
        },
        "provenance": detector.provenance,
    }
    text = json.dumps(described, indent=2, ensure_ascii=False)
    (folder / "detector.json").write_text(text + "\n", encoding="utf-8")


def find_engine() -> Path:
    """Returns the folder `dist` of onnxruntime-web.

    It is that of `MULTIBOX_ONNXRUNTIME_WEB`, else the one in the cache, to which npm fetches the package once.

    Raises:
        OSError: The package is not there and npm cannot fetch it.
    """
    named = os.environ.get("MULTIBOX_ONNXRUNTIME_WEB")
    place = Path(named) if named else cache_folder() / f"onnxruntime-web-{ONNXRUNTIME_WEB}" / "package" / "dist"
    if named and not (place / _ENGINE[0]).is_file():
        raise FileNotFoundError(f"MULTIBOX_ONNXRUNTIME_WEB is {named}, but there is no {_ENGINE[0]} in it")
    if (place / _ENGINE[0]).is_file():
        return place
    package = f"onnxruntime-web@{ONNXRUNTIME_WEB}"
    advice = f"unpack `npm pack {package}` elsewhere, and set MULTIBOX_ONNXRUNTIME_WEB to its folder package/dist"
    with TemporaryDirectory() as folder:
        try:
            done = subprocess.run(["npm", "pack", package], cwd=folder, capture_output=True, text=True, timeout=600)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OSError(
                f"the page needs the package onnxruntime-web, and npm does not run ({error}); {advice}"
            ) from error
        if done.returncode:
            raise ConnectionError(f"npm cannot fetch {package} ({done.stderr.strip()[-200:]}); {advice}")
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as packed:
            packed.extractall(place.parents[1], filter="data")
    return place
