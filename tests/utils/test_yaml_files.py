"""YAML as a person means it: nothing is left out because it is given twice, no number is read in another base."""

import ast
from pathlib import Path

import pytest
import yaml
from conftest import TINY, snakemake

from spaced_kd.cli import main as cli
from spaced_kd.config.run_spec import from_overrides
from spaced_kd.config.study import expand, load_study
from spaced_kd.config.yaml_values import read_value
from spaced_kd.utils import yaml_files
from spaced_kd.utils.errors import UserError

RUN = "{dataset: digits, network: resnet_mini, method: baseline, seed: %s}"
GOOD = f"study: twice\ngrids: [{RUN % 0}]\n"
WORDS = [f"{key}={value}" for key, value in TINY.items()]

TWICE = {  # text -> complaint
    f"{GOOD}grids: []\n": "line 3: 'grids' is given twice, first in line 2",
    "study: twice\ngrids:\n  - dataset: digits\n    recipe: {epochs: 2, epochs: 7}\n": "line 4: 'epochs' is given",
    f'{GOOD}"study": other\n': "line 3: 'study' is given twice",
    f"study: twice\ngrids: [{RUN % '010'}]\n": "line 2: 010 is 8 in YAML",
    f"study: twice\ngrids: [{RUN % '1:30'}]\n": "line 2: 1:30 is 90 in YAML",
    f"study: twice\ngrids: [{RUN % '1:30.5'}]\n": "line 2: 1:30.5 is 90.5 in YAML",
    f"study: twice\ngrids: [{RUN % '-017'}]\n": "line 2: -017 is -15 in YAML",
}


@pytest.mark.parametrize("text", TWICE, ids=TWICE.values())
def test_what_yaml_would_read_otherwise_is_refused_by_line(tmp_path, text):
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_study(path)
    assert str(caught.value).startswith(f"{path}: {TWICE[text]}")


def test_merges_and_numbers_as_people_write_them_stay_legal(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [*a, {z: 0}], x: 0}\nd: *a\n")
    assert yaml_files.read(path) == yaml.safe_load(path.read_text())
    assert yaml_files.read(path)["b"] == {"x": 1, "y": 3}
    texts = ("0", "-3", "1_000", "0x10", "0.5", "00.5", "5e-4", "1E3", "-1e-3", ".5e1", "'010'")
    values = [read_value(text) for text in texts]
    assert values == [0, -3, 1000, 16, 0.5, 0.5, 5e-4, 1000.0, -1e-3, 5.0, "010"]


def test_every_file_of_the_package_is_read_by_the_one_loader():
    for path in Path(yaml_files.__file__).parents[1].rglob("*.py"):
        names = [node.names for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import)]
        assert path.stem == "yaml_files" or "yaml" not in {alias.name for several in names for alias in several}, path


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["train", *WORDS, "method=baseline", "seed=3"], "seed is given twice, as 0 and as 3"),
        (["train", *WORDS, "method=baseline", "order_seed=010"], "010 is 8 in YAML"),
        (["train", *WORDS, "method=baseline", "--save-states-for", "interval=1 interval=2"], "interval is given twice"),
        (["prepare", "dataset=digits", "dataset.split=1", "dataset.split=2"], "dataset.split is given twice"),
        (["evaluate", "any", "bim", "bim.epsilon=1", "bim.epsilon=2"], "bim.epsilon is given twice, as 1 and as 2"),
    ],
)
def test_a_repeated_word_is_refused(results, capsys, arguments, complaint):
    before = sorted(results.rglob("*"))
    assert cli.main([*arguments, "--results", str(results)]) == 2
    message = capsys.readouterr().err
    assert complaint in message
    assert message.count("\n") == 1
    assert sorted(results.rglob("*")) == before


def test_a_repeated_option_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["render", "tab01", "--rows", "a.csv", "--rows", "b.csv"])
    assert "argument --rows: is given twice" in capsys.readouterr().err


def test_a_setting_alone_and_under_its_plugin_is_refused():
    both = {"dataset": "digits", "network": "resnet_mini", "seed": 0, "method.alpha": 0.2, "interval": 1.5}
    for grid in (both | {"method": {"online_kd": {"alpha": 0.5}}}, {"method": {"online_kd": {"alpha": 0.5}}} | both):
        with pytest.raises(UserError, match=r"method.alpha is given twice, alone and under method"):
            expand({"study": "both", "grids": [grid]})
    assert from_overrides([*WORDS, "method=online_kd", "method.alpha=0.2"]).settings["method"] == {"alpha": 0.2}


def test_the_workflow_refuses_a_repeated_key_that_snakemake_leaves_out(checkout):
    refused = snakemake(checkout, f"{GOOD}store_teachers: true\nstore_teachers: false\n", "-n")
    assert refused.returncode == 1
    message = refused.stdout + refused.stderr
    assert "config/trial.yaml: line 4: 'store_teachers' is given twice, first in line 3" in message
    assert "Traceback" not in message
