"""The sentences of docs/project/results.md on mini_80 and on the spread of the demo hold for the recorded rows."""

from functools import cache
from pathlib import Path

import pytest
from pandas import DataFrame

from spaced_kd.analysis import reference, tidy_rows
from spaced_kd.analysis.claims.load import PATH, load
from spaced_kd.analysis.claims.text import word
from spaced_kd.analysis.claims.verdicts import judge
from spaced_kd.analysis.tables import batch_norm, hessian_trace
from spaced_kd.config.presets import REFERENCE
from spaced_kd.utils.files import read_json

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "results" / "recorded" / "mini_80"
TEXT = " ".join((ROOT / "docs/project/results.md").read_text("utf-8").split())


@cache
def rows() -> DataFrame:
    return tidy_rows.beside(tidy_rows.read(RECORDED / "rows.csv"), reference.read_reference(REFERENCE))


@pytest.mark.parametrize(
    ("sentence", "claims"),
    [
        ("In this setting, Spaced KD ends above online KD.", {"spaced_beats_online": "supported"}),
        (
            "It does not end detectably above training without KD, and online KD ends below that.",
            {"spaced_beats_without": "inconclusive", "online_beats_without": "opposite shown"},
        ),
        (
            "Here the minimum of Spaced KD is sharper than that of online KD: its Hessian trace is larger",
            {"flatter_minimum": "opposite shown", "flatter_minimum_kd": "opposite shown"},
        ),
        ("under noise on the weights its training loss rises more.", {"loss_under_noise": "opposite shown"}),
    ],
)
def test_a_finding_is_the_verdict_on_its_claims(sentence, claims):
    assert sentence in TEXT
    found = {verdict.claim.id: word(verdict) for verdict in judge(load(PATH, rows()), rows()) if verdict.seeds}
    assert {name: found[name] for name in claims} == claims


def test_the_hessian_trace_is_larger_of_both_losses_and_with_either_statistics():
    assert "of both losses and with either statistics of batch norm" in TEXT
    table = hessian_trace.table(rows())
    changes = table[table["source"] == "ours"]["Δ to online KD"]
    assert len(changes) == 4
    assert all(change.low > 0 and change.n == change.planned == 8 for change in changes)


def test_the_seconds_are_those_of_the_recorded_runs():
    runs = read_json(RECORDED / "runs.json", list)
    assert f"The {len(runs)} trainings took {sum(run['cpu_seconds'] for run in runs):,.0f} CPU seconds" in TEXT


def test_the_spread_of_the_demo_is_that_of_its_recorded_rows():
    spread = tidy_rows.read(RECORDED.parent / "demo" / "spread" / "rows.csv")
    cells = batch_norm.table(tidy_rows.beside(spread, reference.read_reference(REFERENCE)))
    deviations = [cell.sd for cell in cells["as trained"]]
    changes = [abs(cell.mean) for cell in cells["Δ"]]
    assert len(deviations) == 18
    assert all(cell.n == cell.planned == 10 for cell in cells["as trained"])
    assert f"No standard deviation exceeds {max(deviations):.2f} points" in TEXT
    assert f"change no mean by more than {max(changes):.2f}:" in TEXT
