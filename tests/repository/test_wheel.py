"""The wheel: installed in an environment of its own, it runs a study in a folder of any name."""

import csv
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import setuptools
from test_provenance import repository

ROOT = Path(__file__).parents[2]
STUDY = """
study: tiny
grids:
  - {dataset: digits, dataset.train_per_class: 4, network: resnet_mini, network.width: 0.0625, epochs: 1,
     batch_size: 10, lr: 0.02, method: baseline, seed: [0]}
"""


def run(folder: Path, *arguments: str | Path) -> str:
    """A command that has to succeed, without this checkout's sources; gives what it prints."""
    own = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "SPACED_KD_COMMIT")}
    done = subprocess.run(arguments, cwd=folder, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bare(folder: Path) -> Path:
    """An environment with setuptools alone, as pip makes one to build a wheel in; gives its Python."""
    venv.create(folder, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    own = Path(setuptools.__file__).parents[1]
    for path in (own / "setuptools", own / "_distutils_hack", *own.glob("setuptools-*.dist-info")):
        (site / path.name).symlink_to(path)
    return folder / "bin/python"


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, str]:
    """A virtual environment with the wheel of a repository of these files, and the repository's commit."""
    folder = tmp_path_factory.mktemp("wheel ä")
    source = folder / "source"
    for name in run(ROOT, "git", "ls-files", "-z", "--", ":!results", ":!tests", ":!docs").split("\0"):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    commit = repository(source)
    options = ["--quiet", "--no-deps", "--no-index"]
    builder = ["--python", bare(folder / "builder")]
    run(folder, sys.executable, "-m", "pip", *builder, "wheel", *options, "--no-build-isolation", "-w", "dist", source)
    venv.create(folder / "env", symlinks=True)
    site = next((folder / "env").glob("lib/python*/site-packages"))
    site.joinpath("outer.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    (wheel,) = folder.glob("dist/*.whl")
    run(folder, folder / "env/bin/python", "-m", "pip", "install", *options, "--ignore-installed", wheel)
    return folder, commit


def test_the_wheel_describes_itself(built):
    (metadata,) = built[0].glob("env/lib/python*/site-packages/spaced_kd-*.dist-info/METADATA")
    text = metadata.read_text()
    for line in ("License-Expression: Apache-2.0", "Provides-Extra: train", "Provides-Extra: robustness"):
        assert line in text
    core = [line for line in text.splitlines() if line.startswith("Requires-Dist") and "extra ==" not in line]
    assert not any("torch" in line or "snakemake" in line for line in core)
    assert 'Requires-Dist: pygments; extra == "train"' in text  # `snakemake --report`


def test_a_study_runs_in_a_folder_that_the_wheel_writes(built):
    folder, commit = built
    command, python = folder / "env/bin/spaced-kd", folder / "env/bin/python"
    run(folder, command, "init", "Studie ä 1", "--from", "ci")
    study = folder / "Studie ä 1"
    (study / "ci.yaml").write_text(STUDY)
    (folder / "elsewhere").mkdir()
    arguments = ["-s", study / "Snakefile", "--directory", folder / "elsewhere", "--cores", "1"]
    run(folder, python, "-m", "snakemake", *arguments)
    (described,) = folder.glob("elsewhere/results/runs/*/run.json")
    provenance = json.loads(described.read_text())["provenance"]
    assert (provenance["commit"], provenance["dirty"]) == (commit, False)
    with (folder / "elsewhere/results/tiny/rows.csv").open() as rows:
        assert {row["protocol"].split()[0] for row in csv.DictReader(rows)} == {"textbook"}
    assert "0 findings" in run(folder / "elsewhere", command, "verify")


pytestmark = pytest.mark.slow
