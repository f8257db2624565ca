from collections.abc import Callable
from pathlib import Path

import pytest

from multibox.deploy.export import export
from multibox.detector import Detector

Exporter = Callable[..., Path]


@pytest.fixture(scope="session")
def exporter(tmp_path_factory: pytest.TempPathFactory) -> Exporter:
    """Exports a detector to a file with this suffix; the same one only once."""
    folder = tmp_path_factory.mktemp("exported")
    made: dict[str, Path] = {}

    def run(detector: Detector, suffix: str, **how: object) -> Path:
        key = repr((detector.config.to_json(), detector.class_names, suffix, how))
        if key not in made:
            path = folder / f"file{len(made)}{suffix}"
            export(detector, path, images=[], **how)
            made[key] = path
        return made[key]

    return run
