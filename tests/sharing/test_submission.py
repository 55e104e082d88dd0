"""`spaced-kd submit` and `check-submission`: a study with two methods of another package, and what is refused of it."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from conftest import TINY

from spaced_kd.cli import main as cli
from spaced_kd.config import registry
from spaced_kd.config.study import load_study
from spaced_kd.sharing import checksums
from spaced_kd.training.loop import train
from spaced_kd.utils.files import read_json

EXAMPLE = Path(__file__).parents[1] / "contracts" / "plugin" / "logit_kd.py"
METHODS = {"logit_kd": "LogitKD", "weak_logit_kd": "WeakLogitKD"}
ARMS = [{"method": "baseline"}, {"method": "online_kd", "interval": 1.5}, {"method": [*METHODS], "interval": 1.5}]


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """Another package, kd-zoo 0.1, with two methods."""
    site, source = tmp_path_factory.mktemp("site"), EXAMPLE.read_text()
    for name, attribute in METHODS.items():
        (site / f"{name}.py").write_text(source.replace("LogitKD", attribute))
    about = site / "kd_zoo-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: kd-zoo\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text("[spaced_kd.methods]\n" + "".join(f"{name} = {name}\n" for name in METHODS))
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    registry.plugins.cache_clear()
    yield site
    sys.path.remove(str(site))
    registry.plugins.cache_clear()
    for name in METHODS:
        sys.modules.pop(name, None)


def study(folder: Path, arms: list[dict], **more: object) -> Path:
    path = folder / "zoo.yaml"
    grid = TINY | {"epochs": 2, "seed": [0, 1], "arms": arms} | more
    path.write_text(yaml.safe_dump({"study": "zoo", "planned_seeds": [0, 1], "grids": [grid]}))
    return path


@pytest.fixture(scope="module")
def submitted(package, tmp_path_factory) -> Path:
    """results/, and submission/, of a study of eight trainings."""
    folder = tmp_path_factory.mktemp("submitted")
    path, results = study(folder, ARMS), folder / "results"
    arguments = [f"{key}={value}" for key, value in TINY.items() if key.startswith("dataset")]
    assert cli.main(["prepare", *arguments, "--results", str(results)]) == 0
    for run in load_study(path).runs:
        train(run, results)
    assert cli.main(["submit", str(path), "--to", str(folder / "submission"), "--results", str(results)]) == 0
    return folder


@pytest.fixture
def altered(submitted, tmp_path) -> Path:
    return Path(shutil.copytree(submitted / "submission", tmp_path / "submission"))


def checked(folder: Path, submitted: Path, capsys, *more: str) -> str:
    """What `check-submission` prints of a folder that it accepts."""
    capsys.readouterr()
    status = cli.main(["check-submission", str(folder), "--results", str(submitted / "results"), *more])
    message = capsys.readouterr()
    assert status == 0, message
    return message.out


def refused(folder: Path, submitted: Path, capsys) -> str:
    """What it prints of one that it refuses; its last line names the folder or the file."""
    capsys.readouterr()
    assert cli.main(["check-submission", str(folder), "--results", str(submitted / "results")]) == 2
    message = capsys.readouterr()
    assert message.err.count("\n") == 1
    return message.out + message.err


def test_two_methods_of_another_package_are_ranked_beside_spaced_kd(submitted, capsys):
    message = checked(submitted / "submission", submitted, capsys, "--reevaluate")
    assert "0 findings in 8 runs" in message
    for name in ("w/o KD", "Spaced KD, s = 1.5", "logit_kd, s = 1.5", "weak_logit_kd, s = 1.5"):
        assert f"| {name} " in message
    ranks = [line.split("|")[3].strip() for line in message.splitlines() if line.startswith("| digits")]
    assert ranks == sorted(ranks)
    assert ranks[0] == "1"
    about = read_json(submitted / "submission" / "submission.json", dict)
    assert [plugin["package"] for plugin in about["plugins"]] == ["kd-zoo 0.1"] * 2


def test_a_submission_pairs_with_published_rows(package, submitted, tmp_path, capsys):
    path = study(tmp_path, ARMS[2:])
    arguments = ["--results", str(submitted / "results")]
    assert cli.main(["submit", str(path), "--to", str(tmp_path / "alone"), *arguments]) == 0
    assert "has no Spaced KD, s = 1.5 to pair with" in refused(tmp_path / "alone", submitted, capsys)
    against = str(submitted / "submission" / "rows.csv")
    assert "0 findings" in checked(tmp_path / "alone", submitted, capsys, "--against", against)


def test_an_unfinished_study_is_not_submitted(package, submitted, tmp_path, capsys):
    path = study(tmp_path, ARMS, seed=[0, 1], lr=0.01)
    arguments = ["--to", str(tmp_path / "new"), "--results", str(submitted / "results")]
    assert cli.main(["submit", str(path), *arguments]) == 2
    assert "is missing (8 results are): finish the study" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_an_altered_file_is_refused(altered, submitted, capsys):
    with (altered / "rows.csv").open("a") as file:
        file.write("\n")
    assert "rows.csv is not the file that was shared" in refused(altered, submitted, capsys)


def test_rows_that_do_not_follow_from_the_runs_are_refused(altered, submitted, capsys):
    text = (altered / "rows.csv").read_text()
    line = next(line for line in text.splitlines() if ",weak_logit_kd," in line and ",last," in line)
    value = line.split(",accuracy,accuracy,")[1].split(",")[0]
    (altered / "rows.csv").write_text(text.replace(line, line.replace(f",{value},", ",99.0,")))
    checksums.write(altered)
    message = refused(altered, submitted, capsys)
    assert f"{altered / 'rows.csv'}: value of a row of digits-resnet_mini-weak_logit_kd-1.5" in message


def test_a_missing_seed_is_named(altered, submitted, capsys):
    (run,) = (altered / "runs").glob("*-weak_logit_kd-1.5-1-*")
    shutil.rmtree(run)
    checksums.write(altered)
    assert f"lacks seed 1 of weak_logit_kd, {run.name}" in refused(altered, submitted, capsys)


def test_a_package_that_is_not_installed_is_named(altered, submitted, capsys):
    about = json.loads((altered / "submission.json").read_text())
    about["plugins"][0] |= {"name": "other_kd", "package": "kd-other 2.0"}
    (altered / "submission.json").write_text(json.dumps(about))
    checksums.write(altered)
    assert "other_kd of kd-other 2.0 is not installed here: install kd-other==2.0" in refused(
        altered, submitted, capsys
    )


def test_another_endpoint_is_named(package, submitted, tmp_path, capsys):
    path = tmp_path / "zoo.yaml"
    grid = TINY | {"epochs": 2, "seed": [0], "arms": ARMS}
    longer = TINY | {"epochs": 3, "seed": [0], "arms": [{"method": "baseline"}]}
    path.write_text(yaml.safe_dump({"study": "zoo", "grids": [grid, longer]}))
    results = submitted / "results"
    for run in load_study(path).runs:
        train(run, results)
    assert cli.main(["submit", str(path), "--to", str(tmp_path / "longer"), "--results", str(results)]) == 0
    message = refused(tmp_path / "longer", submitted, capsys)
    assert "baseline-0-0" in message
    assert "of epochs=3, but Spaced KD, s = 1.5 of epochs=2" in message


pytestmark = pytest.mark.slow
