"""What the README says is what the repository gives."""

import re
from pathlib import Path

import pytest

from spaced_kd.analysis import reference, tidy_rows
from spaced_kd.analysis.render import caption, figure_files, table_files
from spaced_kd.config import registry

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
RECORDED = sorted((ROOT / "results" / "recorded").glob("*/rows.csv"))


@pytest.mark.skipif(not RECORDED, reason="no rows are recorded")
def test_the_table_is_made_from_the_recorded_rows():
    rows = tidy_rows.beside(
        tidy_rows.read(*RECORDED), reference.read_reference(ROOT / "src/spaced_kd/config/preset_files/reference.csv")
    )
    made = table_files("overview", caption("overview"), registry.find("tables", "overview")(rows))["md"].decode()
    shown = re.search(r"<!-- overview -->\n(.*)<!-- /overview -->", README, re.DOTALL)
    assert shown
    assert shown[1] == made, "make readme"


@pytest.mark.skipif(not RECORDED, reason="no rows are recorded")
def test_the_figure_is_made_from_the_recorded_rows():
    rows = tidy_rows.beside(
        tidy_rows.read(*RECORDED), reference.read_reference(ROOT / "src/spaced_kd/config/preset_files/reference.csv")
    )
    made = figure_files(registry.find("figures", "fig_overview")(rows))["png"]
    assert re.search(r"!\[[^]]+\]\(results/recorded/overview\.png\)", README)
    assert (ROOT / "results" / "recorded" / "overview.png").read_bytes() == made, "make readme"


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
