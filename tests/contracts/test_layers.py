"""Imports go downwards only, from room to room and within each; analysis and config know no torch."""

import ast
import graphlib
from pathlib import Path

import pytest

import spaced_kd

ROOT = Path(spaced_kd.__file__).parent

LAYERS: dict[str, set[str]] = {  # room -> rooms that it may import besides itself
    "utils": set(),
    "config": {"utils"},
    "networks": {"utils"},
    "data": {"config", "utils"},
    "distillation": {"data", "networks", "utils"},
    "analysis": {"config", "utils"},
    "training": {"data", "networks", "distillation", "config", "utils"},
    "evaluation": {"data", "distillation", "training", "config", "utils"},
    "planning": {"config", "data", "distillation", "training", "utils"},
    "sharing": {"analysis", "config", "data", "evaluation", "training", "utils"},
    "cli": {
        "analysis",
        "config",
        "data",
        "distillation",
        "evaluation",
        "networks",
        "planning",
        "sharing",
        "training",
        "utils",
    },
}
PROGRAMS = {"__init__.py", "__main__.py", "api.py"}  # in the package's own folder: may import everything
TORCH = {"torch", "torchvision", "timm"}


def imported(path: Path) -> set[str]:
    """Modules of this package that a file imports when it runs, as "training.loop"."""
    tree = ast.parse(path.read_text())
    typing = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    skipped = {inner for node in typing for inner in ast.walk(node)}
    found = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "spaced_kd":
            inside = node.module.removeprefix("spaced_kd").lstrip(".")
            for alias in node.names:
                deeper = ".".join(filter(None, [inside, alias.name]))
                found.add(deeper if (ROOT / f"{deeper.replace('.', '/')}.py").exists() else inside)
        if isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("spaced_kd.") for alias in node.names if alias.name.startswith("spaced_kd.")
            }
    return found - {""}


def packages(path: Path) -> set[str]:
    """Packages that a file imports, at its top or within a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def named() -> dict[str, Path]:
    """Module, as "training.loop" -> its file."""
    return {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files()}


def files() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if path.parent != ROOT or path.name not in PROGRAMS]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_downwards(path):
    room = path.relative_to(ROOT).parts[0]
    assert {module.split(".")[0] for module in imported(path)} <= LAYERS[room] | {room}


def test_every_room_has_its_rule():
    rooms = {path.parent.name for path in ROOT.glob("*/[!.]*.py")}
    assert rooms == set(LAYERS)
    for room in rooms:
        assert ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text()))


def test_the_rooms_have_no_cycle():
    tuple(graphlib.TopologicalSorter(LAYERS).static_order())


def test_the_modules_have_no_cycle():
    names = {name: imported(path) for name, path in named().items()}
    tuple(graphlib.TopologicalSorter(names).static_order())


@pytest.mark.parametrize("room", ["config", "analysis"])
def test_the_room_needs_no_torch_nor_does_what_it_imports(room):
    paths, seen = named(), set()
    todo = [name for name in paths if name.split(".")[0] == room]
    assert todo
    while todo:
        name = todo.pop()
        if name in paths and name not in seen:
            seen.add(name)
            assert not packages(paths[name]) & TORCH, name
            todo += imported(paths[name])


def test_the_public_names_are_of_other_modules():
    docstring, *lines = ast.parse((ROOT / "api.py").read_text()).body
    *imports, names = lines
    assert isinstance(docstring, ast.Expr)
    assert all(isinstance(line, ast.ImportFrom) for line in imports)
    assert isinstance(names, ast.Assign)
    assert ast.unparse(names.targets[0]) == "__all__"
    assert sorted(ast.literal_eval(names.value)) == sorted(alias.name for line in imports for alias in line.names)


def test_the_loop_of_training_names_no_method():
    arguments = (ROOT / "training" / "loop.py").read_text()
    assert not any(name in arguments for name in ("baseline", "online_kd", "self_kd", "offline"))
