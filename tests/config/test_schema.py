"""The JSON schema of a study: the file is the generated one, takes every study, and refuses what is misspelt."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from spaced_kd.config import schema
from spaced_kd.config.yaml_values import numbers
from spaced_kd.utils import yaml_files

ROOT = Path(__file__).parents[2]
FILE = ROOT / "workflow/schemas/study.schema.json"
STUDIES = sorted([*(ROOT / "config/studies").glob("*.yaml"), *(ROOT / "config/experiments").glob("*.yaml")])
STUDY = {
    "study": "small",
    "evaluations": {"bim": {"epsilon": 1}},
    "grids": [{"dataset": "digits", "network": "resnet_mini", "method": ["baseline"], "seed": [0, 1], "epochs": 2}],
}


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    return Draft202012Validator(json.loads(FILE.read_text("utf-8")))


def test_the_file_is_the_generated_one():
    assert FILE.read_text("utf-8") == schema.text(), "run make schema"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_fits(validator, path):
    validator.validate(numbers(yaml_files.read(path)))


@pytest.mark.parametrize("path", sorted((ROOT / "config/studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_editors_find_the_schema(path):
    comments = [line for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    (address,) = [line.partition("$schema=")[2] for line in comments if "yaml-language-server" in line]
    assert (path.parent / address).resolve() == FILE


def test_the_study_of_these_tests_fits(validator):
    validator.validate(STUDY)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epoch", 2),
        ("epochs", 0),
        ("epochs", "many"),
        ("optimizer", "adam"),
        ("dataset", "cifar1000"),
        ("interval", "maximum"),
        ("interval", [1.5, -1]),
        ("method", {"online_kd": {"alpa": 0.3}}),
        ("method.alpa", 0.3),
        ("method.alpha", "high"),
        ("protocol", "papers"),
    ],
)
def test_a_key_or_value_that_no_run_has_is_marked(validator, key, value):
    study = deepcopy(STUDY)
    study["grids"][0][key] = value
    assert [*validator.iter_errors(study)]


def test_ranges_of_evaluations_are_marked(validator):
    assert [*validator.iter_errors(STUDY | {"evaluations": {"bim": {"epsilon": -3}}})]
