"""The Python of README and docs runs as it is written, and prints what it is said to print."""

import contextlib
import io
import re
from pathlib import Path

import pytest

from multibox.data.synthetic import synthetic_scenes
from multibox.data.write import write_yolo

ROOT = Path(__file__).parent.parent
DOCUMENTS = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]

BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```\n(.*?)```)?", re.DOTALL)
"""A block of Python, and the block of output that may follow it."""


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_code_runs_and_prints_what_is_shown(document: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_yolo({"train": synthetic_scenes(4, seed=0), "val": synthetic_scenes(2, seed=1)}, "raccoons")
    for code, shown in BLOCK.findall((ROOT / document).read_text(encoding="utf-8")):
        printed = io.StringIO()
        code = code.replace("minutes=10", "steps=1, batch_size=2")
        with contextlib.redirect_stdout(printed):
            exec(compile(code, document, "exec"), {"__name__": "__main__"})
        if shown:
            assert printed.getvalue() == shown


def test_every_file_that_the_documents_link_to_is_there() -> None:
    for document in [*DOCUMENTS, "CONTRIBUTING.md"]:
        folder = (ROOT / document).parent
        for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", (ROOT / document).read_text(encoding="utf-8")):
            assert (folder / target).exists(), f"{document} links to {target}"
