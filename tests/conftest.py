import os
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # before torch is imported; the command line does the same
if "PYTEST_XDIST_WORKER" in os.environ:  # the processes share the cores, one each
    os.environ.setdefault("OMP_NUM_THREADS", "1")


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
