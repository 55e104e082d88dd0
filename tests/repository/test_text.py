"""Text is UTF-8 whatever the locale, and a terminal of ASCII shows what it can."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


def calls(path: Path) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]


@pytest.mark.parametrize("path", sorted((ROOT / "src").rglob("*.py")), ids=lambda path: path.stem)
def test_every_text_file_is_opened_as_utf8(path):
    for call in calls(path):
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        given = [ast.unparse(word) for word in (*call.args, *(keyword.value for keyword in call.keywords))]
        if name in ("read_text", "write_text") and "read_text('top_level" not in ast.unparse(call):
            assert "'utf-8'" in given or "importlib" in given or given[:1] == ["'RECORD'"], ast.unparse(call)
        elif name == "open" and ast.unparse(call.func) in ("open", "path.open"):
            assert any("b" in mode for mode in given if mode.startswith("'")) or "'utf-8'" in given, ast.unparse(call)


@pytest.mark.slow
def test_a_study_in_utf8_and_a_terminal_of_ascii(tmp_path):
    path = tmp_path / "study.yaml"
    run = "{dataset: digits, network: resnet_mini, method: baseline, seed: 0, epochs: 2}"
    path.write_text(f"# größer, σ ± 1\nstudy: text\ndata: Füße\ngrids: [{run}]\n", "utf-8")
    command = [sys.executable, "-m", "spaced_kd"]
    result = subprocess.run([*command, "plan", path], capture_output=True, env=os.environ | ASCII, check=False)
    assert result.returncode == 0, result.stderr
    result = subprocess.run([*command, "list", "evaluations"], capture_output=True, env=os.environ | ASCII, check=False)
    assert result.returncode == 0, result.stderr
    path.write_text(f"study: text\ngrids: [{run.replace('digits', 'größer')}]\n", "utf-8")
    result = subprocess.run([*command, "plan", path], capture_output=True, env=os.environ | ASCII, check=False)
    assert result.returncode == 2
    assert b"'gr??er' is none of the datasets" in result.stderr
    result = subprocess.run(
        [*command, "collect", "-"], input=path.read_bytes(), capture_output=True, env=os.environ | ASCII, check=False
    )
    assert b"'gr??er' is none of the datasets" in result.stderr
