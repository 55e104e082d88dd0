"""Ranges that a plug-in gives its settings: what lies outside is refused when a study is read, before any training."""

import json

import pytest
from conftest import snakemake

from spaced_kd.cli import main as cli
from spaced_kd.config import registry, types
from spaced_kd.config.study import expand
from spaced_kd.utils.errors import UserError

DRY = ("-n", "--printshellcmds", "--quiet", "host")
GRID = {"dataset": "digits", "network": "resnet_mini", "method": "baseline", "seed": 0, "epochs": 2, "evaluate": "all"}
SETTINGS = [
    (plugin.name, key)
    for plugin in registry.plugins("evaluations").values()
    if not plugin.package
    for key, (annotation, _) in plugin.settings.items()
    if annotation != "bool" and "Literal" not in annotation
]
WRONG = [
    ({"bim": {"epsilon": -3}}, "bim.epsilon is -3.0, but must be in (0, 255]"),
    ({"bim": {"epsilon": 0}}, "bim.epsilon is 0.0, but must be in (0, 255]"),
    ({"bim": {"steps": -1}}, "bim.steps is -1, but must be in [0, inf)"),
    ({"bim": {"step": 0}}, "bim.step is 0.0, but must be in (0, 255]"),
    ({"bim": {"images": 0}}, "bim.images is 0, but must be in [1, inf)"),
    ({"corruptions": {"severities": [1, 9]}}, "corruptions.severities has 9, but must be one of 1, 2, 3, 4, 5"),
    ({"corruptions": {"names": ["no_such_thing"]}}, "has 'no_such_thing', but must be one of gaussian_noise, "),
    ({"corruptions": {"names": []}}, "corruptions.names is an empty list: name what is meant"),
    ({"corruptions": {"severities": [5, 1, 5]}}, "corruptions.severities lists a value twice: [5, 1, 5]"),
    ({"weight_noise": {"sigmas": [0.1, -1]}}, "weight_noise.sigmas has -1.0, but must be in (0, inf)"),
]


def refusal(evaluations: dict) -> str:
    with pytest.raises(UserError) as caught:
        expand({"study": "ranges", "grids": [GRID], "evaluations": evaluations})
    return str(caught.value)


@pytest.mark.parametrize(("evaluations", "complaint"), WRONG, ids=[complaint for _, complaint in WRONG])
def test_a_value_out_of_its_range_is_refused_when_the_study_is_read(evaluations, complaint, capsys):
    assert complaint in refusal(evaluations)
    ((name, settings),) = evaluations.items()
    ((key, value),) = settings.items()
    assert cli.main(["evaluate", "any", name, f"{name}.{key}={json.dumps(value)}"]) == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(("name", "key"), SETTINGS, ids=[f"{name}.{key}" for name, key in SETTINGS])
def test_every_setting_of_an_evaluation_has_a_range(name, key):
    annotation, default = registry.plugin("evaluations", name).settings[key]
    assert key in registry.plugin("evaluations", name).constants["RANGES"]
    wrong = "no_such_thing" if "str" in annotation else -1
    assert f"{name}.{key} " in refusal({name: {key: [wrong] if annotation.startswith("tuple") else wrong}})
    assert registry.check_settings("evaluations", name, {key: default}) == {key: default}


def test_the_ends_of_an_interval():
    ends = {"[1, inf)": {0.9: False, 1: True, 1e30: True}, "(0, 255]": {0: False, 255: True, 255.1: False}}
    for interval, values in ends.items():
        assert {value: types.within(value, interval) for value in values} == values


@pytest.mark.slow
def test_a_study_has_the_corruptions_made_that_it_asks_for(checkout):
    chosen = {"names": ["fog", "snow"], "severities": [1, 2, 3, 4, 5], "images": 20}
    study = {"study": "ranges", "grids": [GRID], "figures": ["fig07"]}
    result = snakemake(checkout, study | {"evaluations": {"corruptions": chosen}}, *DRY).stdout
    assert "--corrupt 20 --workers" in result  # the paper's six, for the figure
    assert "prepare dataset=digits --names fog snow --severities 1 2 3 4 5 --corrupt 20 --workers" in result
    assert "corrupted-20-" in result
    plain = snakemake(checkout, study | {"evaluations": {"corruptions": {"images": 20}}}, *DRY).stdout
    assert "--names" not in plain
