import os
import signal
import typing
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # before torch is imported; multibox does the same
if "PYTEST_XDIST_WORKER" in os.environ:  # the processes share the cores, one each
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session", autouse=True)
def heard_interrupts() -> Iterator[None]:
    """Makes this process, and those that it starts, hear Ctrl-C: a shell tells its background jobs to ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def no_precision_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a run that may choose take fp32. To time it beside bf16 would take longer than most runs of the tests."""
    from multibox.runtimes import precision

    monkeypatch.setattr(precision, "time_side_by_side", lambda trials: dict.fromkeys(trials, 1.0))


@pytest.fixture(scope="session")
def shared_data(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`shared_data("bccd")` is the folder of the unpacked `bccd.zip`; each is unpacked once."""
    folder = os.environ.get("MULTIBOX_DATA")
    if not folder:
        pytest.skip("MULTIBOX_DATA is not set: see docs/data.md")

    @cache
    def unpack(name: str) -> Path:
        archive = Path(folder) / f"{name}.zip"
        if not archive.is_file():
            pytest.skip(f"MULTIBOX_DATA has no {archive.name}: see docs/data.md")
        place = tmp_path_factory.mktemp(name)
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(place)
        return place

    return unpack


@pytest.fixture(scope="session")
def shared_file() -> Callable[[str], Path]:
    """`shared_file("face/golden.npz")` is that file of the folder that MULTIBOX_DATA names."""
    folder = os.environ.get("MULTIBOX_DATA")
    if not folder:
        pytest.skip("MULTIBOX_DATA is not set: see docs/data.md")

    def find(name: str) -> Path:
        path = Path(folder) / name
        if not path.is_file():
            pytest.skip(f"MULTIBOX_DATA has no {name}: see docs/data.md")
        return path

    return find


def check_named_tuples() -> None:
    """Makes named tuples of the package check the shapes and types of their fields when they are made.

    The option `--jaxtyping-packages` does that for functions and dataclasses only. Python makes every named tuple with
    this metaclass, also those of modules that are imported later.
    """
    make = typing.NamedTupleMeta.__new__  # type: ignore[attr-defined]

    def make_checked(*args: Any) -> type:
        made = make(*args)
        if made.__module__.partition(".")[0] == "multibox":
            typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))
            made.__new__ = jaxtyped(made.__new__, typechecker=typechecker)
            made._make = classmethod(_make)  # `_replace` calls it
        return made

    def _make(cls: type, values: Iterable[Any]) -> Any:
        return cls(*values)

    typing.NamedTupleMeta.__new__ = make_checked  # type: ignore[attr-defined]


check_named_tuples()  # before the package is imported
