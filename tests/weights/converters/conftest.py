import os
from collections.abc import Callable
from pathlib import Path

import pytest


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
