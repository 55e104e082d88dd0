"""The files that describe the environment agree, and say nothing of one machine."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKED = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))


def needed() -> list[str]:
    project = PROJECT["project"]
    return [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]


@pytest.mark.parametrize("requirement", needed())
def test_every_dependency_is_locked_in_its_range(requirement):
    from packaging.requirements import Requirement

    wanted = Requirement(requirement)
    assert wanted.name in LOCKED
    assert wanted.specifier.contains(LOCKED[wanted.name])


def test_every_dependency_has_its_reason():
    text = (ROOT / "pyproject.toml").read_text()
    for requirement in needed():
        (line,) = [line for line in text.splitlines() if line.strip().startswith(f'"{requirement}"')]
        assert "#" in line, requirement


def test_the_lock_has_hashes_and_no_addresses():
    text = (ROOT / "requirements.txt").read_text()
    assert text.count("--hash=sha256:") >= len(LOCKED)
    assert "://" not in text


def test_conda_gives_python_make_and_uv_alone():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert sorted(re.split("[=<>]", name)[0] for name in environment["dependencies"]) == ["make", "python", "uv"]
    (python,) = [name for name in environment["dependencies"] if name.startswith("python")]
    assert python.split("=")[1] in PROJECT["project"]["requires-python"]


def test_the_jobs_of_ci_are_the_parts_of_one_command():
    gate = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["gate"]
    assert any(".ci/run ${{ matrix.job }}" in step.get("run", "") for step in gate["steps"])
    (parts,) = re.findall(r"\|\| set -- (.+)", (ROOT / ".ci/run").read_text())
    assert parts.split() == gate["strategy"]["matrix"]["job"]


def test_the_gate_names_the_part_that_it_does_not_have():
    result = subprocess.run([ROOT / ".ci/run", "nonsense"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "nonsense is none of lint, unit" in result.stderr


def test_hooks_before_a_commit_are_the_tools_of_lint():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    makefile = (ROOT / "Makefile").read_text()
    recipe = makefile.partition("\nlint:")[2].partition("\n\n")[0].lower()
    tools = re.findall(r"(?:\$\(bin\)/|\$\()(ruff [a-z]+|mypy|snakefmt|snakemake)", recipe)
    assert sorted(tools) == sorted(
        re.match("(ruff [a-z]+|[a-z]+)", hook["entry"].removeprefix(".venv/bin/"))[1] for hook in hooks
    )


def test_the_makefile_helps():
    result = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert all(name in result for name in ("demo", "paper", "test", "env"))


def test_python_is_new_enough():
    assert sys.version_info >= (3, 11)


@pytest.fixture
def venv(tmp_path):
    """What `make env` would run in a folder of its own, with commands that only write down how they were called."""
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    log = tmp_path / "log"
    command = f"""#!/bin/sh
echo "$0 $@ PIP_USER=$PIP_USER UV_NO_CACHE=$UV_NO_CACHE PIP_TARGET=$PIP_TARGET" >> {log}
case "$*" in *"-m venv"*)
  [ "$4" ] && rm -rf "$4"
  mkdir -p .venv/bin; cp "$0" .venv/bin/python; cp "$0" .venv/bin/uv;;
esac
"""
    python = tmp_path / "python3"
    python.write_text(command)
    python.chmod(0o755)

    def make(**variables: str) -> str:
        subprocess.run(
            ["make", "-s", "env", f"PYTHON={python}"], cwd=tmp_path, env=os.environ | variables, check=True, timeout=60
        )
        return log.read_text()

    return make


def test_make_env_replaces_a_foreign_environment(venv, tmp_path):
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "of_another_python").touch()
    assert "-m venv --clear .venv" in venv()
    assert not (tmp_path / ".venv" / "bin" / "of_another_python").exists()


def test_make_env_heeds_no_settings_of_the_users_pip(venv, tmp_path):
    log = venv(PIP_USER="1", PIP_TARGET="/elsewhere", HOME=str(tmp_path / "none"))
    assert log.count("PIP_USER=0 UV_NO_CACHE=1 PIP_TARGET=\n") == len(log.splitlines())


def test_the_documented_installation_of_a_plugin_leaves_the_lock_alone():
    for path in ("README.md", "docs/how-to/plugin-package.md"):
        found = re.findall(r"uv pip install[^`]*", (ROOT / path).read_text())
        assert all("--no-deps" in command for command in found)


def test_what_is_built_and_computed_is_no_file_of_the_repository():
    made = ["build/lib/a.py", ".venv/bin/python", "results/demo/rows.csv", "results/runs/a/run.json", "site/index.html"]
    command = ["git", "check-ignore", "--no-index", *made]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.stdout.split() == made
