"""The notebooks are kept without what running them leaves, and say what they lack."""

import ast
import importlib
import inspect
import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbconvert.preprocessors import ExecutePreprocessor

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request) -> Path:
    return request.param


def test_there_are_two():
    assert [path.stem for path in NOTEBOOKS] == ["flatness", "tour"]


def test_nothing_is_left_of_a_run(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata.language_info) == {"name"}  # not the version that ran it
    for cell in notebook.cells:
        assert not cell.metadata
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
    assert path.read_text() == nbformat.writes(notebook) + "\n"  # sorted keys, so that a change shows as one


def test_what_they_use_of_the_package_exists(path):
    """Running them takes a study; a name that has moved is found without one."""
    lines = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    nodes = list(ast.walk(ast.parse(re.sub(r"^%.*$", "", lines, flags=re.MULTILINE))))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module.startswith("spaced_kd")]
    found = {}
    for node in imports:
        module = importlib.import_module(node.module)
        for name in (alias.name for alias in node.names):
            found[name] = getattr(module, name, None) or importlib.import_module(f"{node.module}.{name}")
    assert found
    attributes = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    used = {(node.value.id, node.attr) for node in attributes if inspect.ismodule(found.get(node.value.id))}
    assert not [f"{name}.{attribute}" for name, attribute in used if not hasattr(found[name], attribute)]


def test_no_absolute_path(path):
    sources = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells)
    assert not re.search(r"""(^|[\s"'`(=])(~?/\w|[A-Za-z]:\\)""", sources)


def test_without_results_one_plain_line_says_so(path, tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY", "nothing")
    (tmp_path / "notebooks").mkdir()
    copy = shutil.copy(path, tmp_path / "notebooks")
    notebook = nbformat.read(copy, as_version=4)
    last = next(number for number, cell in enumerate(notebook.cells) if "STUDY = " in cell.source)
    del notebook.cells[last + 1 :]
    ExecutePreprocessor(allow_errors=True).preprocess(notebook, {"metadata": {"path": str(tmp_path / "notebooks")}})
    (error,) = notebook.cells[-1].outputs
    assert error.ename == "UserError"
    (line,) = error.traceback
    assert re.fullmatch(r"results/nothing/rows\.csv does not exist: run that study first.*", line)


def test_the_gate_runs_them_on_the_reduced_demo():
    lines = [line.strip() for line in (ROOT / ".ci/run").read_text().splitlines()]
    assert lines.index("make notebooks STUDY=ci") > lines.index("snakemake --configfile config/studies/ci.yaml")
