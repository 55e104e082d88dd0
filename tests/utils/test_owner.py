"""A study's name belongs to one configuration file: another one that gives it is refused, and replaces nothing."""

import shutil

import pytest
import yaml
from conftest import snakemake, tiny

from spaced_kd.cli import main as cli
from spaced_kd.training.loop import train
from spaced_kd.utils import owner
from spaced_kd.utils.errors import UserError


@pytest.fixture
def files(tmp_path):
    """Two configuration files with one name."""
    spec = tiny(method="baseline")
    grid = {"dataset": {"digits": {"train_per_class": 4}}, "network": {"resnet_mini": {"width": 0.0625}}}
    keys = ("epochs", "batch_size", "lr", "seed", "method")
    study = {"study": "mine", "grids": [grid | {key: getattr(spec, key) for key in keys}]}
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(study))
    return tmp_path / "one.yaml", tmp_path / "two.yaml"


def test_the_same_name_in_two_files_is_refused(files, results, capsys):
    one, two = files
    train(tiny(method="baseline"), results)
    assert cli.main(["collect", str(one), "--results", str(results)]) == 0
    assert cli.main(["collect", str(one), "--results", str(results)]) == 0
    before = (results / "mine" / "rows.csv").stat().st_mtime_ns
    capsys.readouterr()
    assert cli.main(["collect", str(two), "--results", str(results)]) == 2
    message = capsys.readouterr().err
    assert f"{two}: the study is called mine" in message
    assert "one.yaml is, whose results it would replace: give it a name of its own" in message
    assert (results / "mine" / "rows.csv").stat().st_mtime_ns == before


def test_a_file_may_be_renamed_and_read_with_others(files, results):
    one, two = files
    owner.claim("mine", [one], results)
    owner.check("mine", [one, two], results)  # the same one, with a second that changes it
    with pytest.raises(UserError, match="whose results it would replace"):
        owner.check("mine", [two], results)
    one.write_text(one.read_text().replace("study: mine", "study: another"))
    owner.check("mine", [two], results)
    one.unlink()
    owner.claim("mine", [two], results)
    shutil.copy(two, one)
    with pytest.raises(UserError, match=r"two\.yaml is, whose results it would replace"):
        owner.check("mine", [one], results)


def test_the_workflow_refuses_the_second_file(files, checkout):
    one, _ = files
    owner.claim("mine", [one], checkout / "results")
    refused = snakemake(checkout, one.read_text(), "-n")
    assert refused.returncode == 1
    message = refused.stdout + refused.stderr
    assert (
        "config/trial.yaml: the study is called mine, as that of one.yaml is, whose results it would replace" in message
    )
    assert "Traceback" not in message


@pytest.mark.slow
def test_the_workflow_says_whose_results_it_makes(files, checkout):
    result = snakemake(checkout, files[0].read_text())
    assert result.returncode == 0, result.stderr
    assert (checkout / "results" / "mine" / owner.NAME).read_text() == '{"configs": ["../config/trial.yaml"]}'
