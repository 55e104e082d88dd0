"""The workflow as a module of another one, from a git repository, as snakedeploy writes it."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_provenance import git
from test_workflow import STUDY

ROOT = Path(__file__).parents[2]
MODULE = """
configfile: "config/config.yaml"

module spaced_kd:
    snakefile: "git+file://{repository}/workflow/Snakefile@{commit}"
    config: config

use rule * from spaced_kd
"""


@pytest.mark.slow
def test_a_workflow_uses_this_one_as_a_module(tmp_path):
    repository, mine = tmp_path / "repository", tmp_path / "mine"
    (mine / "config").mkdir(parents=True)
    subprocess.run(["git", "clone", "-q", "--shared", ROOT, repository], check=True, capture_output=True)
    commit = git(repository, "rev-parse", "HEAD")
    (mine / "config/config.yaml").write_text(yaml.safe_dump(STUDY))
    (mine / "Snakefile").write_text(MODULE.format(repository=repository, commit=commit))
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--quiet", "rules", "host"]
    result = subprocess.run(command, cwd=mine, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    jobs = {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}
    assert jobs == {"all": 1, "prepare": 1, "train": 3, "evaluate": 2, "collect": 1, "table": 1, "total": 9}
