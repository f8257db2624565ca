"""Prints a constraint for each package that pyproject.toml names: the oldest minor version that it allows.

`make test-oldest` installs these. `numpy>=2.0` becomes `numpy==2.0.*`, which is 2.0 with its corrections.
"""

import re
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parent.parent / "pyproject.toml"


def oldest(requirements: list[str]) -> list[str]:
    """Returns the constraints of those requirements that have a lower bound."""
    bounds = (re.fullmatch(r"([\w.-]+)\s*>=\s*([\d.]+)", requirement) for requirement in requirements)
    return sorted({f"{bound[1]}=={bound[2]}.*" for bound in bounds if bound}, key=str.lower)


if __name__ == "__main__":
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    print("\n".join(oldest(project["dependencies"] + extras)))
