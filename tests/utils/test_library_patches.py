"""Repairs of libraries: given back afterwards, made for the versions that need them, and nowhere else."""

import ast
from pathlib import Path
from types import SimpleNamespace

import pytest

import spaced_kd
from spaced_kd.utils import library_patches
from spaced_kd.utils.library_patches import below, replaced

SOURCE = Path(spaced_kd.__file__).parent


def test_what_was_replaced_is_given_back_also_after_an_error():
    owner = SimpleNamespace(there=1)
    with replaced(owner, there=2, absent=3):
        assert vars(owner) == {"there": 2, "absent": 3}
    with pytest.raises(ZeroDivisionError), replaced(owner, there=2, absent=3):
        raise ZeroDivisionError
    assert vars(owner) == {"there": 1}


@pytest.mark.parametrize(("installed", "needs"), [("3.0.1", True), ("4.0.0", False), ("10.1", False)])
def test_a_repair_ends_with_its_bound(installed, needs, monkeypatch):
    monkeypatch.setattr(library_patches, "version", lambda package: installed)
    assert below("curvlinops-for-pytorch", 4) == needs


def test_every_repair_says_which_package_and_version_needs_it():
    tree = ast.parse(Path(library_patches.__file__).read_text("utf-8"))
    repairs = [node for node in tree.body if isinstance(node, ast.FunctionDef) and not node.args.args]
    assert len(repairs) == 3
    for node in repairs:
        assert " below " in ast.get_docstring(node).partition(":")[0], node.name
        assert "upstream issue" in ast.get_docstring(node) or "https://" in ast.get_docstring(node), node.name


def test_no_other_file_patches_a_library():
    found = [path.name for path in SOURCE.rglob("*.py") if "mock" in path.read_text("utf-8")]
    assert found == []
