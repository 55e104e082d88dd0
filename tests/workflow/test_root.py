"""`snakemake --cores 8 --profile slurm` works as it is typed, in the root of a checkout."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOP = ("Snakefile", "environment.yml", "README.md", "workflow", "src", "config", "results", "notebooks")


def test_the_root_has_what_one_looks_for():
    assert [name for name in TOP if not (ROOT / name).exists()] == []
    assert (ROOT / "slurm").is_symlink()
    assert (ROOT / "slurm" / "profile.yaml").exists()


@pytest.mark.slow
def test_the_command_is_typed_as_it_is_in_the_root():
    arguments = ["--cores", "8", "--profile", "slurm", "-n", "--quiet", "--nolock"]
    result = subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
