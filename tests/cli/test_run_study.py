"""`spaced-kd run STUDY` hands Snakemake the workflow, the study and the rest of the words."""

import os
import sys
from pathlib import Path

import pytest

from spaced_kd.cli import main as cli
from spaced_kd.cli import run_study
from spaced_kd.config import shipped


@pytest.fixture
def started(monkeypatch) -> list[str]:
    """The words that a process would be replaced by."""
    found: list[str] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: found.extend(arguments))
    return found


def test_a_file_runs_by_the_workflow_of_the_package(started, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine ä.yaml").write_text("study: mine\n")
    assert cli.main(["run", "mine ä.yaml", "-n", "tab01", "--cores", "2"]) == 0
    assert started[:6] == [sys.executable, "-m", "snakemake", "-n", "tab01", "--cores"]
    assert started[started.index("--snakefile") + 1] == str(shipped.SNAKEFILE)
    assert started[started.index("--workflow-profile") + 1] == str(shipped.PROFILES / "default")
    assert started[-2:] == ["--configfile", "mine ä.yaml"]


def test_a_study_of_the_package_goes_by_its_name_and_a_folder_by_its_snakefile(started, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "demo"]) == 0
    assert started[-1] == str(shipped.STUDIES / "demo.yaml")
    assert cli.main(["init", "folder", "--from", "ci"]) == 0
    assert run_study.snakemake_arguments("folder", ["-n"]) == [
        *("-n", "--directory", "folder", "--snakefile", "folder/Snakefile"),
        *("--workflow-profile", "folder/profiles/default"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dmo"], "did you mean demo?"),
        (["."], "has no Snakefile"),
        (["--results", "x", "demo"], "--results is not for `run`"),
    ],
)
def test_a_mistake_is_one_line(started, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not started
