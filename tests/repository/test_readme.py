"""What the README says is what the repository gives."""

import re
from pathlib import Path

import pytest

from scripts import readme
from spaced_kd.analysis import tidy_rows

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
RECORDED = sorted((ROOT / "results" / "recorded").glob("*/rows.csv"))


@pytest.mark.skipif(not RECORDED, reason="no rows are recorded")
def test_the_results_are_made_from_the_recorded_rows():
    shown = readme.MARKED.search(README)
    assert shown
    assert shown[0] == f"{shown[1]}{readme.results(readme.recorded())}{shown[2]}", "make readme"


def test_it_fits_on_a_few_screens():
    assert len(README.splitlines()) <= 120


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`((?:src|config|workflow|results)/[\w./]*)`", README))))
def test_the_files_that_it_names_exist(path):
    made = ("results/runs", "results/demo")
    assert (ROOT / path).exists() or path.startswith(made), path


@pytest.mark.parametrize("table", RECORDED, ids=lambda path: path.parent.name)
def test_recorded_rows_say_where_they_come_from(table):
    rows = tidy_rows.read(table)
    assert (rows["commit"].str.len() == 40).all(), "a dirty or unknown commit"
    assert not (rows["metric"] == "missing").any()
    assert (table.parent / "runs.json").exists()
