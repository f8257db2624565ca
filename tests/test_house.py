"""The house stands as it was drawn: imports go down its floors, and torch begins at `ssd`.

A room is a folder of the package, or a module beside them; the modules of the ground floor are one room.
"""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import multibox

PACKAGE = Path(multibox.__file__).parent

GROUND = {
    *(
        "boxes",
        "postprocess",
        "images",
        "files",
        "detections",
        "display",
        "drawing",
        "pages",
        "config",
        "presets",
        "default_boxes",
    ),
    *("checks", "messages", "words", "safe_yaml", "assets"),
}
FLOORS = [  # from the top
    {"cli"},
    {"serve", "trials"},
    {"training", "deploy", "benchmark"},
    {"report", "streams", "doctor", "review"},
    {"explain", "evaluation"},
    {"detector"},
    {"inference"},
    {"weights", "runtimes"},
    {"ssd", "data"},
    {"ground floor"},
]
FLOOR_OF = {room: len(FLOORS) - number for number, rooms in enumerate(FLOORS) for room in rooms}
EXEMPT = {"multibox", "multibox.__main__"}

# All other modules import on numpy and Pillow alone.
NEEDS_TORCH = (
    "multibox.ssd",
    "multibox.training",
    "multibox.trials",
    "multibox.deploy",
    "multibox.explain.learned",
    "multibox.benchmark.torchvision_detector",
    "multibox.explain.coverage",
    "multibox.explain.fit",
    "multibox.explain.shapes",
    "multibox.report.coverage_figure",
    "multibox.runtimes.precision",
    "multibox.runtimes.torch_runtime",
)
OPTIONAL = ("torch", "torchvision", "hotcoco", "matplotlib", "pandas", "supervision", "timm", "huggingface_hub")


class Import(NamedTuple):
    """One module of the package names another, in this line."""

    importer: str
    imported: str
    path: Path
    line: int


def modules_of(package: Path) -> dict[str, Path]:
    """The dotted name of each module of a package, and its file."""
    modules = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def imports_of(module: str, path: Path, modules: dict[str, Path]) -> Iterator[Import]:
    """Every import of the same package: inside functions and under `TYPE_CHECKING` as well."""
    top = module.split(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                base = ".".join([*here[: len(here) - node.level + 1], *filter(None, [node.module])])
            # `from multibox.data import voc` names the module voc, not something in multibox/data/__init__.py
            names = [child if (child := f"{base}.{alias.name}") in modules else base for alias in node.names]
        else:
            continue
        for name in dict.fromkeys(names):
            if name.split(".")[0] == top:
                yield Import(module, name, path, node.lineno)


def room_of(module: str) -> str:
    """The room that a module is in: `multibox.data.voc` is in `data`."""
    name = module.split(".")[1]
    return "ground floor" if name in GROUND else name


def breaches(package: Path) -> list[str]:
    """What breaks the rules of the house: file, line, rule."""
    modules = modules_of(package)
    top = package.name
    found = []
    inside: dict[str, list[Import]] = {}
    for module, path in modules.items():
        if module in {top, f"{top}.__main__"}:
            continue
        room = room_of(module)
        if room not in FLOOR_OF:
            found.append(f"{path}:1: '{room}' is no room of the house; give it a floor in tests/test_house.py")
            continue
        for edge in imports_of(module, path, modules):
            at = f"{path}:{edge.line}"
            if edge.imported == top:
                if room != "cli":
                    found.append(f"{at}: {module} imports from the package's front door; import the module itself")
                continue
            other = room_of(edge.imported)
            if other not in FLOOR_OF:
                found.append(f"{at}: {module} imports {edge.imported}, which is in no room of the house")
            elif other == room:
                inside.setdefault(module, []).append(edge)
            elif FLOOR_OF[other] > FLOOR_OF[room]:
                found.append(f"{at}: {module} imports {edge.imported}: up, from '{room}' to '{other}'")
            elif FLOOR_OF[other] == FLOOR_OF[room]:
                found.append(f"{at}: {module} imports {edge.imported}: sideways, from '{room}' to '{other}'")
    return found + [
        f"{edge.path}:{edge.line}: a cycle of imports inside a room: {cycle}" for edge, cycle in cycles(inside)
    ]


def cycles(edges: dict[str, list[Import]]) -> Iterator[tuple[Import, str]]:
    """The import that closes each cycle, and the way round: depth first, each module once."""
    done: set[str] = set()
    way: list[str] = []

    def visit(module: str) -> Iterator[tuple[Import, str]]:
        way.append(module)
        for edge in edges.get(module, []):
            if edge.imported in way:
                yield edge, " -> ".join([*way[way.index(edge.imported) :], edge.imported])
            elif edge.imported not in done:
                yield from visit(edge.imported)
        done.add(way.pop())

    for module in sorted(edges):
        if module not in done:
            yield from visit(module)


def test_imports_go_down_the_floors():
    found = breaches(PACKAGE)
    assert not found, "\n".join(found)


def house(folder: Path, files: dict[str, str]) -> Path:
    package = folder / "multibox"
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return package


def test_a_house_in_order_has_no_breaches(tmp_path):
    package = house(
        tmp_path,
        {
            "__init__.py": "from multibox.cli import main",  # exempt
            "__main__.py": "from multibox.cli import main",
            "boxes.py": "import numpy",
            "config.py": "from multibox import boxes",
            "data/__init__.py": "from multibox.data.voc import read",
            "data/voc.py": "from ..boxes import area\nfrom .sample import Sample",
            "data/sample.py": "import multibox.config",
            "ssd/network.py": "from multibox.boxes import area",
            "detector.py": "def f():\n    from multibox.ssd import network",
            "training/loop.py": "from multibox import data, detector",
            "cli/__init__.py": "import multibox\nfrom multibox.cli import train",
            "cli/train.py": "from multibox.training.fit import run\nfrom multibox.data import voc",
        },
    )
    assert breaches(package) == []


@pytest.mark.parametrize(
    ("name", "text", "where", "rule"),
    [
        ("boxes.py", "import numpy\nimport multibox.data.voc", 2, "up, from 'ground floor' to 'data'"),
        ("boxes.py", "def f():\n    from .data import voc", 2, "up, from 'ground floor' to 'data'"),
        ("detector.py", "if TYPE_CHECKING:\n    from multibox.cli import main", 2, "up, from 'detector' to 'cli'"),
        ("ssd/loss.py", "from multibox.data.voc import read", 1, "sideways, from 'ssd' to 'data'"),
        ("weights/file.py", "from multibox.runtimes import onnx", 1, "sideways, from 'weights' to 'runtimes'"),
        ("data/coco.py", "from multibox import Detector", 1, "front door"),
        ("helpers.py", "", 1, "'helpers' is no room"),
        ("data/coco.py", "from multibox.helpers import f", 1, "no room"),
    ],
)
def test_a_breach_is_named(tmp_path, name, text, where, rule):
    package = house(
        tmp_path,
        {
            "data/voc.py": "",
            "cli/__init__.py": "",
            "runtimes/onnx.py": "",
            name: text,
        },
    )
    (found,) = breaches(package)
    assert found.startswith(f"{package / name}:{where}: ")
    assert rule in found


@pytest.mark.parametrize(
    ("files", "way"),
    [
        ({"data/voc.py": "from multibox.data import voc"}, "data.voc -> data.voc"),
        (
            {"boxes.py": "def f():\n    import multibox.config", "config.py": "from . import boxes"},
            "boxes -> config -> boxes",
        ),
        (
            {
                "data/a.py": "from .b import x",
                "data/b.py": "from .leaf import x\nfrom .c import x",
                "data/c.py": "if TYPE_CHECKING:\n    from .a import x",
                "data/leaf.py": "",
                "data/voc.py": "from . import a, b, c",
            },
            "data.a -> data.b -> data.c -> data.a",
        ),
    ],
)
def test_a_cycle_inside_a_room_is_named(tmp_path, files, way):
    (found,) = breaches(house(tmp_path, files))
    assert found.replace("multibox.", "").endswith(f": a cycle of imports inside a room: {way}")


def run_python(code: str, *arguments: str, env: dict[str, str] | None = None) -> dict[str, object]:
    """What a fresh Python prints as JSON in its last line."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        timeout=120,
        env=env,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return result


IMPORT_WITHOUT = """
import importlib, json, sys

optional, modules = map(str.split, sys.argv[1:])

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in optional:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
failures = {}
for module in modules:
    try:
        importlib.import_module(module)
    except Exception as error:
        failures[module] = f"{type(error).__name__}: {error}"
print(json.dumps(failures))
"""

TORCH_FREE = [name for name in modules_of(PACKAGE) if not f"{name}.".startswith(tuple(f"{t}." for t in NEEDS_TORCH))]


@pytest.fixture(scope="module")
def failures_without_torch() -> dict[str, object]:
    # __main__ would run the program
    modules = [name for name in TORCH_FREE if not name.endswith("__main__")]
    return run_python(IMPORT_WITHOUT, " ".join(OPTIONAL), " ".join(modules))


@pytest.mark.parametrize("module", TORCH_FREE)
def test_imports_without_torch_installed(module, failures_without_torch):
    assert module not in failures_without_torch, failures_without_torch[module]


def test_what_is_blocked_cannot_be_imported():
    failures = run_python(IMPORT_WITHOUT, "torch torchvision", "torch torchvision.ops json")
    assert sorted(failures) == ["torch", "torchvision.ops"]


PRINT_MODULES = "import json, sys\nprint(json.dumps({'modules': sorted(sys.modules)}))"

CALL_HELP = """
import contextlib, io, sys
from multibox.cli import main

sys.argv = ["multibox", "--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as page:
    main()
assert "train" in page.getvalue(), page.getvalue()
"""

HEAVY = {*OPTIONAL, "scipy", "av", "pycocotools", "onnxruntime", "openvino", "ai_edge_litert"}


def heavy_after(code: str) -> list[str]:
    """The heavy modules, and Pillow's plugins, that a fresh Python has loaded after that."""
    modules = run_python(f"{code}\n{PRINT_MODULES}")["modules"]
    assert isinstance(modules, list)
    return [name for name in modules if name in HEAVY or (name.startswith("PIL.") and name.endswith("ImagePlugin"))]


def test_what_is_heavy_is_seen():
    code = "import PIL.Image, matplotlib\nPIL.Image.init()"
    assert {"matplotlib", "PIL.JpegImagePlugin"} <= set(heavy_after(code))


def test_importing_the_package_loads_nothing_heavy():
    assert heavy_after("import multibox") == []


@pytest.mark.skipif("multibox.cli" not in modules_of(PACKAGE), reason="there is no command line yet")
def test_help_loads_nothing_heavy():
    assert heavy_after(CALL_HELP) == []


DETECT = """
import contextlib, io
from multibox import EXAMPLE_IMAGE
from multibox.cli import main

with contextlib.redirect_stdout(io.StringIO()):
    assert main(["detect", str(EXAMPLE_IMAGE), "--model", "multibox/shapes"]) == 0
"""

SLOW_TO_IMPORT = {"torchvision", "torchvision.models", "sympy", "torch._dynamo", "torch._inductor"}
"""What takes longer than all of multibox's own imports, and a detector on the tiny backbone does not need."""


def test_detecting_imports_torch_but_not_its_compiler():
    modules = run_python(f"{DETECT}\n{PRINT_MODULES}")["modules"]
    assert isinstance(modules, list)
    assert "torch" in modules
    assert not SLOW_TO_IMPORT & set(modules)


PRINT_SPIN_COUNT = "import json, os, multibox\nprint(json.dumps({'count': os.environ.get('GOMP_SPINCOUNT')}))"


@pytest.mark.parametrize(
    ("chosen", "count"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"GOMP_SPINCOUNT": ""}, ""), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_importing_the_package_lets_threads_sleep_unless_the_user_chose_otherwise(chosen, count):
    others = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    assert run_python(PRINT_SPIN_COUNT, env=others | chosen)["count"] == count
