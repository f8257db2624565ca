"""The wheel and the source distribution install and run outside the checkout, and need few and small packages."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import multibox
from multibox.detector import Detector

ROOT = Path(multibox.__file__).parents[1]
MOST_MEGABYTES = 182
"""Size of an installation that detects with ONNX Runtime, without the bytecode that Python writes by itself."""

OUTSIDE = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
"""An environment that does not lead to the checkout."""

pytestmark = pytest.mark.slow


def run(*command: object, **how: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600, **how)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the source distribution, as `make build` makes them."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "--directory", folder, cwd=ROOT)
    return folder


def wheel_names(folder: Path) -> set[str]:
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_only_the_package_is_in_them(built: Path):
    tracked = set(run("git", "ls-files", "multibox", cwd=ROOT).splitlines())
    inside = {name for name in wheel_names(built) if ".dist-info/" not in name}
    assert inside == tracked
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    others = {"CHANGELOG.md", "LICENSE", "README.md", "PKG-INFO", "pyproject.toml", ".gitignore"}
    assert tracked <= names <= tracked | others
    assert sum(path.stat().st_size for path in built.iterdir()) < 25e6  # twice the weights


def test_the_source_distribution_makes_the_same_wheel(built: Path, tmp_path: Path):
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "--directory", tmp_path / "dist", cwd=unpacked)
    assert wheel_names(tmp_path / "dist") == wheel_names(built)


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with what `pip install 'multibox[onnx]'` installs, in the versions that are here, and no more.

    The files of the other packages are copied from this environment, so that nothing is fetched.
    """
    folder = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", folder)
    (target,) = folder.glob("lib/python*/site-packages")
    for package in requirements([*direct("onnx")]):
        for file in package.files or ():
            place = Path(str(package.locate_file(file)))
            if ".." not in file.parts and file.suffix != ".pyc" and place.is_file():
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(place, target / file)
    (wheel,) = built.glob("*.whl")
    pip = (folder / "bin" / "python", "-m", "pip")
    run(*pip, "install", "--no-deps", "--no-index", "--no-compile", wheel, env=OUTSIDE)
    others = [name for name in ("pip", "setuptools") if (target / name).is_dir()]
    run(*pip, "uninstall", "--yes", *others, env=OUTSIDE)
    return folder


def direct(extra: str) -> Iterable[str]:
    """The packages that ours needs, with those of the extra, as pyproject.toml says."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [Requirement(each).name for each in project["dependencies"] + project["optional-dependencies"][extra]]


def requirements(names: Iterable[str]) -> list[Distribution]:
    """The distributions of these packages and of all that they need."""
    found: dict[str, Distribution] = {}
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name not in found:
            found[name] = distribution(name)
            needs = map(Requirement, found[name].requires or ())
            waiting += [each.name for each in needs if each.marker is None or each.marker.evaluate({"extra": ""})]
    return list(found.values())


def test_it_is_small(installed: Path):
    files = [path for path in installed.rglob("*") if path.is_file() and not path.is_symlink()]
    megabytes = sum(path.stat().st_size for path in files if path.suffix != ".pyc") / 1e6
    print(f"{megabytes:.1f} MB")
    assert 100 < megabytes <= MOST_MEGABYTES


def test_it_detects_outside_the_checkout(installed: Path, tmp_path: Path):
    from multibox.deploy.export import export

    export(Detector.load("multibox/shapes"), tmp_path / "shapes.onnx", images=[])
    shutil.copyfile(multibox.EXAMPLE_IMAGE, tmp_path / "scene.png")
    where = {"cwd": tmp_path, "env": OUTSIDE}
    command = installed / "bin" / "multibox"
    assert run(command, "detect", "scene.png", "--model", "shapes.onnx", "--out", "found.png", **where) == (
        "scene.png: 3 triangle, 1 star, 1 cross, 1 rectangle\n"
    )
    assert (tmp_path / "found.png").is_file()
    place = run(installed / "bin" / "python", "-c", "import multibox; print(multibox.__file__)", **where)
    assert Path(place.strip()).is_relative_to(installed)
    few = ("--rounds", 1, "--images", 1, "--batch-size", 1)
    assert "| shapes.onnx " in run(command, "benchmark", "shapes.onnx", *few, **where)
    done = subprocess.run([command, "detect", "scene.png", "--model", "multibox/shapes"], capture_output=True, **where)
    assert done.stderr.decode() == "multibox: the package torch is not installed: pip install 'multibox[train]'\n"
