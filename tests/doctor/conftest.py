import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doctor.sound import WRITERS, sound_images

Copy = Callable[[str], Path]


@pytest.fixture(scope="session")
def sound_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folder of the sound set in each layout."""
    root = tmp_path_factory.mktemp("sound")
    for layout, write in WRITERS.items():
        write(root / layout, sound_images())
    return {layout: root / layout for layout in WRITERS}


@pytest.fixture
def copy(sound_sets: dict[str, Path], tmp_path: Path) -> Copy:
    """Returns a copy of the sound set in a layout, which a test may damage."""
    return lambda layout: Path(shutil.copytree(sound_sets[layout], tmp_path / "in" / "the set"))
