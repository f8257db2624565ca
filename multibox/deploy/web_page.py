"""Writes a page that runs a detector in a browser: a folder of files that any web server can serve."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from multibox.deploy.export import Exported, Int8, export
from multibox.detector import Detector
from multibox.images import Source
from multibox.pages import hex_colors
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


def write_page(
    detector: Detector,
    folder: str | os.PathLike[str],
    *,
    images: Iterable[Source] | None = None,
    int8: Int8 | None = None,
) -> Exported:
    """Writes a page that runs the detector, with its model and ONNX Runtime, so that it fetches nothing else.

    The model is an ONNX file with suppression in the runtime, which is the page here. `multibox.load` reads it too.

    Args:
        detector: The detector; it is not changed.
        folder: The folder to write to. Files of an older page are replaced.
        images: Images to compare the model with the network on; by default synthetic scenes.
        int8: How to make the model in 8 bits; None for single precision.

    Raises:
        OSError: ONNX Runtime for browsers is not there and cannot be fetched, or the folder cannot be written to.
        ValueError: The model does not find what the network finds, or 8 bits cost too much. Nothing is written then.
    """
    engine = find_engine()
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as place:
        page = Path(place) / "page"
        shutil.copytree(_PAGE, page)
        exported = export(detector, page / "model.onnx", suppression="runtime", batch=1, images=images, int8=int8)
        description = json.dumps(_describe(detector), indent=2, ensure_ascii=False)
        (page / "detector.json").write_text(f"{description}\n", encoding="utf-8")
        (page / "ort").mkdir()
        for name in _ENGINE:
            shutil.copyfile(engine / name, page / "ort" / name)
        shutil.copytree(page, target, dirs_exist_ok=True)
    return exported


def _describe(detector: Detector) -> dict[str, object]:
    """Returns what the page must know of the detector."""
    config = detector.config
    return {
        "name": config.name,
        "class_names": detector.class_names,
        "colors": hex_colors(len(detector.class_names)),
        "input": {"height": config.height, "width": config.width, "resize": config.resize},
        "settings": asdict(config.postprocess),
        "detect_score_threshold": config.detect_score_threshold,
        "score_thresholds": detector.score_thresholds,
    }


def find_engine() -> Path:
    """Returns the folder with ONNX Runtime for browsers.

    It is that of `MULTIBOX_ONNXRUNTIME_WEB`, else one in the cache, to which npm fetches the package once.

    Raises:
        OSError: The package is not there and npm cannot fetch it.
    """
    named = os.environ.get("MULTIBOX_ONNXRUNTIME_WEB")
    folder = Path(named) if named else cache_folder() / f"onnxruntime-web-{ONNXRUNTIME_WEB}"
    missing = [name for name in _ENGINE if not (folder / name).is_file()]
    if missing and named:
        raise FileNotFoundError(
            f"MULTIBOX_ONNXRUNTIME_WEB is {named}, but there is no {missing[0]} in it; it must be the folder 'dist' of "
            f"the npm package onnxruntime-web {ONNXRUNTIME_WEB}"
        )
    if missing:
        _fetch_engine(folder)
    return folder


def _fetch_engine(folder: Path) -> None:
    package = f"onnxruntime-web@{ONNXRUNTIME_WEB}"
    advice = f"run `npm pack {package}` elsewhere, unpack it, and set MULTIBOX_ONNXRUNTIME_WEB to its folder 'dist'"
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as place:
        try:
            npm = shutil.which("npm") or "npm"  # `npm.cmd` on Windows
            done = subprocess.run([npm, "pack", package], cwd=place, capture_output=True, text=True, timeout=600)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OSError(
                f"the page needs the npm package {package}, and npm does not run ({error}); {advice}"
            ) from error
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["npm says nothing"]
            raise ConnectionError(f"npm cannot fetch {package} ({said[0]}); {advice}")
        (archive,) = Path(place).glob("*.tgz")
        with tarfile.open(archive) as packed:
            packed.extractall(place, [packed.getmember(f"package/dist/{name}") for name in _ENGINE], filter="data")
        for name in _ENGINE:
            (Path(place) / "package" / "dist" / name).replace(folder / name)
