"""The Python of README, docs and examples runs as it is written, and prints what it is said to print."""

import contextlib
import csv
import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import multibox
from multibox import cli
from multibox.data.synthetic import synthetic_scenes
from multibox.data.write import write_yolo
from tools.oldest import oldest

ROOT = Path(__file__).parent.parent
ALL_DOCUMENTS = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md"))]
DOCUMENTS = [document for document in ALL_DOCUMENTS if not document.endswith(".ko.md")]
"""Those whose Python is run. Korean pages have that of the English ones: see `test_korean.py`."""

PAGES = [*ALL_DOCUMENTS, "README.ko.md", "CONTRIBUTING.md", "SECURITY.md"]

BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```\n(.*?)```)?", re.DOTALL)
"""A block of Python, and the block of output that may follow it."""

EXAMPLES = {
    "train_on_your_folder.py": ["raccoons", "run", "--steps", "1"],
    "detect_to_csv.py": ["raccoons", "found.csv"],
    "paper_step_by_step.py": [],
}


@pytest.fixture
def raccoons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the documents, and a small data set in `raccoons/`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    write_yolo({"train": synthetic_scenes(8, seed=0), "val": synthetic_scenes(2, seed=1)}, "raccoons")
    return tmp_path


@pytest.mark.usefixtures("raccoons")
@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_code_runs_and_prints_what_is_shown(document: str) -> None:
    for code, shown in BLOCK.findall((ROOT / document).read_text(encoding="utf-8")):
        printed = io.StringIO()
        code = code.replace("minutes=10", "steps=1, batch_size=2")
        with contextlib.redirect_stdout(printed):
            exec(compile(code, document, "exec"), {"__name__": "__main__"})
        if shown:
            assert printed.getvalue() == shown


def test_every_example_is_run() -> None:
    assert {path.name for path in (ROOT / "examples").iterdir() if path.suffix == ".py"} == EXAMPLES.keys()


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs_and_is_short(name: str, raccoons: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *EXAMPLES[name]], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert len((ROOT / "examples" / name).read_text(encoding="utf-8").splitlines()) < 40
    if name == "train_on_your_folder.py":
        assert (raccoons / "run" / "best.safetensors").is_file()
    if name == "detect_to_csv.py":
        with (raccoons / "found.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert {"star", "circle"} <= {row["class"] for row in rows}
        assert all(0.5 < float(row["score"]) <= 1 for row in rows)


def commands_in(document: str) -> list[str]:
    """The lines of a document's code blocks, of no language, that call the command."""
    text = (ROOT / document).read_text(encoding="utf-8")
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line for language, block in blocks if not language for line in block.splitlines()]
    return [line.partition("  #")[0] for line in lines if re.match(r"(\.venv/bin/)?multibox |.* -m multibox ", line)]


@pytest.mark.parametrize("document", PAGES)
def test_every_flag_of_a_command_is_one(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    for line in commands_in(document):
        command, *words = line.partition("multibox ")[2].split()
        assert cli.main([command, "--help"]) == 0, line
        page = capsys.readouterr().out
        for flag in (word for word in words if word.startswith("--")):
            assert flag in page, line


@pytest.mark.parametrize(
    "path",
    [".github/workflows/ci.yml", *(f".github/ISSUE_TEMPLATE/{n}.yml" for n in ("bug", "question")), "CITATION.cff"],
)
def test_the_repository_s_yaml_is_read(path: str) -> None:
    assert isinstance(yaml.safe_load((ROOT / path).read_text(encoding="utf-8")), dict)


def test_the_version_is_the_same_everywhere() -> None:
    version = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert version is not None
    assert version[1] == citation["version"] == multibox.__version__


def test_the_oldest_versions_are_the_lower_bounds() -> None:
    requirements = ["numpy>=2.0", "pandas-stubs", "huggingface-hub>=1.0", "numpy>=2.0"]
    assert oldest(requirements) == ["huggingface-hub==1.0.*", "numpy==2.0.*"]


def test_every_file_that_the_documents_link_to_is_there() -> None:
    for document in PAGES:
        folder = (ROOT / document).parent
        for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", (ROOT / document).read_text(encoding="utf-8")):
            assert (folder / target).exists(), f"{document} links to {target}"
