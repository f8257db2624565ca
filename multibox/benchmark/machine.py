"""The machine and the versions that a measurement was made with."""

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from multibox.report.environment import commit, device_name

PACKAGES = (
    *("multibox", "torch", "torchvision", "onnxruntime", "openvino", "ai-edge-litert", "executorch", "pillow", "numpy"),
    *("simplejpeg", "hotcoco", "pycocotools", "albumentations"),
)


def facts(device: str) -> dict[str, Any]:
    """Returns device, processor, commit, versions and date; nothing is imported to find them."""
    return {
        "device": device,
        "cpu": device_name("cpu"),
        "commit": commit(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))}
        | {"python": platform.python_version()},
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def headline(about: dict[str, Any]) -> str:
    """Returns the line above the tables."""
    versions = ", ".join(f"{name} {number}" for name, number in about["versions"].items())
    device = "" if about["device"] == "cpu" else f", device {about['device']}"
    return f"{about['cpu']}{device}, commit {about['commit']}, {about['date']}, {versions}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
