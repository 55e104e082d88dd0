"""How long files and functions may be; ruff holds the cyclomatic complexity (C901 in pyproject.toml)."""

import ast
import statistics
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "spaced_kd"
FILES = sorted(SOURCE.rglob("*.py"))

FILE, MEDIAN, FUNCTION, COMPLEXITY = 300, 120, 60, 15


def lines(path: Path) -> int:
    return len(path.read_text("utf-8").splitlines())


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_is_short_and_so_are_its_functions(path):
    assert lines(path) <= FILE
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= FUNCTION, node.name


def test_the_median_file_is_short():
    assert statistics.median(map(lines, FILES)) <= MEDIAN


def test_ruff_holds_the_complexity():
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["ruff"]["lint"]
    assert "C901" in lint["select"]
    assert lint["mccabe"]["max-complexity"] == COMPLEXITY
