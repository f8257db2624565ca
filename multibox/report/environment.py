"""The versions, commit and device that the numbers of a run may depend on."""

import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def versions() -> dict[str, str | None]:
    """Returns the versions of multibox, its packages and its platform, by name; `None` for a missing one."""
    import torch

    return {
        "multibox": version("multibox"),
        "commit": commit(),
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "CUDA": torch.version.cuda,
        "numpy": version("numpy"),
        "Pillow": version("pillow"),
        "Python": platform.python_version(),
        "system": platform.platform(),
    }


def device_name(device: str) -> str:
    """Returns the model of a GPU, or of the processor."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(models), platform.processor() or platform.machine())


@cache
def commit() -> str | None:
    """Returns the commit of the checkout that this package is part of, with "-dirty" if files differ from it.

    It is the one of the first call: a long run asks at its beginning, since the checkout may change meanwhile.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=_PACKAGE, capture_output=True, text=True, timeout=30, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")  # an installed package may lie in another project's checkout
        return git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
