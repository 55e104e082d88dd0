"""`spaced-kd init`: a folder with all that a study needs, or one line and nothing."""

import subprocess
import sys

import pytest
import yaml
from conftest import tiny

from spaced_kd.cli import main as cli
from spaced_kd.cli import study_folder
from spaced_kd.config.study import load_study
from spaced_kd.training.loop import train


def test_the_folder_has_the_study_real_profiles_and_a_snakefile(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "Studie ä 1", "--from", "ci"]) == 0
    folder = tmp_path / "Studie ä 1"
    assert "wrote Studie ä 1" in capsys.readouterr().out
    assert load_study(folder / "ci.yaml").runs == load_study(study_folder.names()["ci"]).runs
    assert not (folder / "slurm").is_symlink()
    assert yaml.safe_load((folder / "slurm/profile.yaml").read_text())["executor"] == "slurm"
    assert "snakemake --cores" in (folder / "slurm/one_job.sh").read_text()
    assert "place" in yaml.safe_load((folder / "workstation/profile.yaml").read_text())["default-resources"]
    assert (folder / "data").is_dir()
    assert "results/ci/report.html" in (folder / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["Studie ä 1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["there"], "there exists: name a new folder"),
        (["new", "--from", "dmo"], "did you mean demo?"),
        (["new", "--from", "../demo"], "none of the studies"),
        (["none/new"], "none is not a folder: create it first"),
    ],
)
def test_a_mistake_is_one_line_and_writes_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    assert cli.main(["init", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


CORE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
from spaced_kd.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def without(names: set[str], *arguments: str) -> subprocess.CompletedProcess:
    """The command line where these packages are not installed."""
    command = [sys.executable, "-c", CORE.format(names=names), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_core_needs_no_extra(tmp_path):
    from spaced_kd.config import extras, shipped

    rows = str(shipped.FOLDER / "results/recorded/demo/rows.csv")
    missing = set(extras.OF_MODULE) - {"PIL"}  # which matplotlib needs
    assert "claims" in without(missing, "claims", rows).stdout
    drawn = without(missing, "render", "tab06", "--rows", rows, "--output", str(tmp_path))
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "tables/tab06.md").exists()


@pytest.mark.slow
def test_runs_are_verified_and_rows_become_a_page_without_any_extra(results):
    from spaced_kd.config import extras, shipped

    missing = set(extras.OF_MODULE) - {"PIL"}
    folder = train(tiny(method="baseline"), results)
    result = without(missing, "verify", str(results))
    assert result.stdout.strip().endswith(
        "0 findings in 1 runs, 0 rows, 0 tables, 0 images predicted again, 0 files absent"
    )
    result = without(missing, "verify", str(results), "--reevaluate")
    assert result.stderr.endswith("torch is not installed: pip install 'spaced-kd[train]'\n")
    (folder / "rows.json").write_text("[]")
    assert "rows.json: not what the run wrote" in without(missing, "verify", str(results)).stdout
    rows, page = shipped.FOLDER / "results/recorded/demo/rows.csv", results / "page.html"
    made = without(missing, "site", str(rows), "--output", str(page))
    assert made.returncode == 0, made.stderr
    assert b"Spaced KD" in page.read_bytes()


def test_a_missing_extra_is_named_in_one_line():
    told = without({"torch"}, "theory", "--seeds", "2")
    assert told.returncode == 2
    assert told.stderr == "spaced-kd: torch is not installed: pip install 'spaced-kd[train]'\n"


def test_a_torchvision_for_another_torch_is_named_in_one_line(monkeypatch, capsys):
    def fail(arguments):
        raise RuntimeError("operator torchvision::nms does not exist")  # as torchvision does, when timm imports it

    monkeypatch.setattr(cli, "init_command", fail)
    assert cli.main(["init", "new"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(
        "spaced-kd: operator torchvision::nms does not exist: install torch and torchvision from one"
    )
    assert told.count("\n") == 1
