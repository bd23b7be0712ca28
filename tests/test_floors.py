"""The floors: a room imports only from floors below its own, rooms on one floor do not know each other, and the core is pure."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "replayflow"
FLOORS = [
    {"errors", "clock", "chance", "promise"},
    {"codec", "retry"},
    {"core", "encryption"},
    {"store", "registry", "patterns"},
    {"entities", "archive"},
    {"engine", "client"},
    {"hub", "sqlite", "observe"},
    {"http", "grpc", "testing"},
    {"lint"},
    {"cli"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS, 1) for room in rooms}
FACES = {"__init__", "__main__"}  # they hand names on
IMPURE = {
    *("asyncio", "threading", "multiprocessing", "socket", "subprocess", "concurrent", "queue", "signal", "select"),
    *("time", "os", "pathlib", "shutil", "tempfile", "sqlite3", "aiosqlite", "anyio", "secrets", "io"),
}


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """All that the module imports, also inside functions, by full name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            assert node.module is not None
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def own_imports(path: Path, known: dict[str, Path]) -> set[str]:
    targets = set()
    for name in imports(path):
        if name.split(".")[0] == "replayflow":
            targets.add(name if name in known else name.rpartition(".")[0])
    return targets


def test_every_module_has_a_floor() -> None:
    homeless = {room(module) for module in modules()} - FLOOR.keys() - FACES
    assert not homeless


@pytest.mark.parametrize("module", [m for m in modules() if room(m) not in FACES])
def test_imports_only_go_down(module: str) -> None:
    known = modules()
    for target in own_imports(known[module], known):
        if room(target) != room(module):
            assert room(target) in FLOOR, f"{module} imports the package's face"
            assert FLOOR[room(target)] < FLOOR[room(module)], f"{module} imports {target}"


def test_no_modules_import_each_other() -> None:
    known = modules()
    graph = {module: own_imports(path, known) - {module} for module, path in known.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError, with the circle


@pytest.mark.parametrize("module", [m for m in modules() if room(m) in ("core", "codec", "retry")])
def test_the_core_is_pure(module: str) -> None:
    path = modules()[module]
    allowed = {"threading"} if room(module) == "codec" else set()
    assert not ({name.split(".")[0] for name in imports(path)} & IMPURE) - allowed
    waits = [n for n in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(n, ast.Await | ast.AsyncFunctionDef)]
    assert not waits
