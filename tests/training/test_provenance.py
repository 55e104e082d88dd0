"""Provenance: the commit that has these very files, whatever the surroundings, and what was imported from where."""

import os
import shutil
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import snakemake, tiny
from test_workflow import STUDY

from spaced_kd.config import run_spec
from spaced_kd.config.paths import ResultPaths
from spaced_kd.planning import throughput
from spaced_kd.training import code_commit, provenance
from spaced_kd.training.loop import train
from spaced_kd.utils.files import read_json

ROOT = Path(__file__).parents[2]
PLAIN = run_spec.from_flat({"dataset": "digits", "network": "resnet_mini", "method": "baseline", "seed": 0})


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=n", "-c", "user.email=e"]
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True, text=True, env=own)
    return done.stdout.strip()


def repository(folder: Path, *names: str) -> str:
    """A repository with these files committed; gives the commit."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"# {name}\n")
    git(folder, "init", "-q")
    git(folder, "add", "-f", ".")
    git(folder, "commit", "-qm", "first")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def here(tmp_path, monkeypatch) -> tuple[Path, str]:
    """A checkout with this package in it, as far as provenance can see; its commit."""
    names = ("src/spaced_kd/training/code_commit.py", "src/spaced_kd/other.py", "workflow/rules.smk", "README.md")
    head = repository(tmp_path / "here", *names)
    monkeypatch.setattr(code_commit, "__file__", str(tmp_path / "here/src/spaced_kd/training/code_commit.py"))
    monkeypatch.delenv("SPACED_KD_COMMIT", raising=False)
    return tmp_path / "here", head


def test_gits_variables_point_to_no_other_repository(here, tmp_path, monkeypatch):
    other = repository(tmp_path / "other", "src/spaced_kd/training/code_commit.py")
    for name, value in {"GIT_DIR": "other/.git", "GIT_WORK_TREE": "other", "GIT_INDEX_FILE": "none"}.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    assert other != here[1]
    assert code_commit.commit() == (here[1], False)


def processor_with(monkeypatch, flags):
    monkeypatch.setattr(provenance, "_processor_field", {"flags": flags, "model name": "a processor"}.__getitem__)


@pytest.mark.parametrize(("flags", "slow"), [("avx2 fma", True), ("avx2 avx512f", False), ("", False)])
def test_a_precision_that_the_processor_only_emulates_is_reported(monkeypatch, flags, slow):
    processor_with(monkeypatch, flags)
    half = replace(PLAIN, precision="bf16")
    assert any("bf16, which this processor only emulates" in text for text in provenance.warnings_of(half)) == slow
    assert not any("emulates" in text for text in provenance.warnings_of(PLAIN))
    rate = throughput.Rates("cpu", []).of(half)
    assert ("bf16 is emulated on this processor" in rate.source) == slow
    assert (rate.flops < throughput.Rates("cpu", []).of(PLAIN).flops / 5) == slow


@pytest.mark.parametrize("ignored", [False, True])
def test_a_copy_in_somebodys_repository_is_of_no_commit(here, tmp_path, monkeypatch, ignored):
    theirs = tmp_path / "theirs"
    repository(theirs, "main.py")
    if ignored:
        (theirs / ".gitignore").write_text("lib/\n")
    shutil.copytree(here[0] / "src/spaced_kd", theirs / "lib/spaced_kd")
    monkeypatch.setattr(code_commit, "__file__", str(theirs / "lib/spaced_kd/training/code_commit.py"))
    assert code_commit.commit() == ("unknown", None)
    (warning,) = provenance.warnings_of(PLAIN)
    assert "no commit has the code in" in warning
    monkeypatch.setenv("SPACED_KD_COMMIT", "abc")
    assert code_commit.commit() == ("abc", None)
    assert provenance.warnings_of(PLAIN) == []


@pytest.mark.parametrize("name", ["src/spaced_kd/other.py", "src/spaced_kd/mine.py", "workflow/rules.smk"])
@pytest.mark.parametrize("hidden", ["ignored", "assumed unchanged"])
def test_changes_that_git_is_told_to_overlook_count(here, name, hidden):
    folder, head = here
    assert code_commit.commit() == (head, False)
    (folder / "src/spaced_kd/__pycache__").mkdir()
    (folder / "src/spaced_kd/__pycache__/other.pyc").touch()
    (folder / "README.md").write_text("no code")
    assert code_commit.commit() == (head, False)
    if hidden == "ignored":
        (folder / ".gitignore").write_text("*\n")
    elif (folder / name).exists():
        git(folder, "update-index", "--assume-unchanged", name)
    (folder / name).write_text("changed = True\n")
    assert code_commit.commit() == (head, True)


def test_a_deleted_file_counts(here):
    (here[0] / "src/spaced_kd/other.py").unlink()
    assert code_commit.commit() == (here[1], True)


def test_a_stamped_copy_has_its_commit_until_a_file_changes(here, tmp_path, monkeypatch):
    copy = tmp_path / "site-packages/spaced_kd"
    shutil.copytree(here[0] / "src/spaced_kd", copy)
    code_commit.stamp(copy, "abc", False)
    monkeypatch.setattr(code_commit, "__file__", str(copy / "training/code_commit.py"))
    assert code_commit.commit() == ("abc", False)
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__/other.pyc").touch()
    assert code_commit.commit() == ("abc", False)
    (copy / "other.py").write_text("changed = True\n")
    assert code_commit.commit() == ("abc", True)
    code_commit.stamp(copy, "abc", True)
    assert code_commit.commit() == ("abc", True)
    monkeypatch.setenv("SPACED_KD_COMMIT", "def")
    assert code_commit.commit() == ("def", None)
    monkeypatch.delenv("SPACED_KD_COMMIT")
    (copy / code_commit.BUILT).write_text("{")
    assert code_commit.commit() == ("unknown", None)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_checkout_of_another_owner_has_its_commit(here):
    for path in (here[0], *here[0].rglob("*")):
        os.chown(path, 12345, 12345)
    assert code_commit.commit() == (here[1], False)


def test_the_state_is_read_without_gits_locks(here):
    folder, head = here
    (folder / ".git/index.lock").touch()
    os.utime(folder / "src/spaced_kd/other.py", (0, 0))  # `git status` would refresh its index
    before = (folder / ".git/index").read_bytes()
    assert code_commit.commit() == (head, False)
    assert (folder / ".git/index").read_bytes() == before


def test_a_training_of_unknown_code_warns_at_its_start(results, monkeypatch):
    monkeypatch.setattr(provenance, "commit", lambda: ("unknown", None))
    with pytest.warns(UserWarning, match="so `record` will refuse its runs: use a checkout"):
        folder = train(tiny(method="baseline"), results)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(tiny(method="baseline"), results)  # finished
    result = read_json(folder / "run.json", dict)["provenance"]["imported"]
    environment = next(found for where, found in result.items() if where.endswith("site-packages"))
    assert {"torch", "numpy", "safetensors"} <= environment.keys()
    assert environment["numpy"] == provenance.describe()["versions"]["numpy"]
    assert {"spaced_kd", "spaced-kd"} & result[
        "src"
    ].keys()  # not a folder of this machine; a build names the package there


@pytest.mark.parametrize(
    "path", sorted((ROOT / "results/recorded").glob("*/runs.json")), ids=lambda path: path.parent.name
)
def test_recorded_runs_name_no_folder_of_a_machine(path):
    for run in read_json(path, list):
        for where in run["provenance"].get("imported", {}):
            assert not Path(where).is_absolute(), f"{run['id']}: {where}"


SHADOW = "import sys\nfrom spaced_kd.training import provenance\nimport timm\nprint(provenance.imported())"


def test_a_package_from_another_path_is_reported(tmp_path):
    (tmp_path / "timm.py").write_text("")
    path = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    result = subprocess.run(
        [sys.executable, "-c", SHADOW],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert f"'{tmp_path}': {{'timm': ''}}" in result.stdout


@pytest.mark.slow
def test_the_workflow_runs_without_what_lies_on_pythonpath(checkout, tmp_path, monkeypatch):
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    for name in ("sklearn", "torchattacks"):
        (hostile / f"{name}.py").write_text("raise SystemExit('of another path')")
    kept = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(hostile), kept])))
    study = STUDY | {"grids": [STUDY["grids"][0] | {"arms": [{"method": "baseline", "evaluate": "all"}]}], "tables": []}
    result = snakemake(checkout, study, "--retries", "0")
    assert result.returncode == 0, result.stderr
    (run,) = checkout.glob("results/runs/*/run.json")
    assert str(hostile) not in run.read_text()
    assert ResultPaths(checkout / "results").results.joinpath("trial/rows.csv").exists()


def test_the_makefile_runs_without_what_lies_on_pythonpath(tmp_path):
    shown = tmp_path / "shown.mk"
    shown.write_text(f"include {ROOT}/Makefile\nshown:\n\t@env\n")
    hostile = {"PYTHONPATH": "/hostile", "PYTHONHOME": "/hostile", "PYTHONNOUSERSITE": ""}
    command = ["make", "-s", "-f", str(shown), "shown"]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | hostile)
    assert "/hostile" not in result.stdout
    assert "PYTHONNOUSERSITE=1" in result.stdout.splitlines()
