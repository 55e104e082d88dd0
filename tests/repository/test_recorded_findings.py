"""The sentences of docs/project/results.md hold for the recorded rows of the studies of 80 epochs and the demo."""

from functools import cache
from pathlib import Path

import pytest
from pandas import DataFrame

from spaced_kd.analysis import reference, tidy_rows
from spaced_kd.analysis.arms import ONLINE, SPACED
from spaced_kd.analysis.claims.load import PATH, load
from spaced_kd.analysis.claims.text import word
from spaced_kd.analysis.claims.verdicts import Verdict, judge
from spaced_kd.analysis.tables import batch_norm, hessian_trace
from spaced_kd.config.presets import REFERENCE
from spaced_kd.utils.files import read_json

ROOT = Path(__file__).parents[2]
RECORDED = ROOT / "results" / "recorded"
TEXT = " ".join((ROOT / "docs/project/results.md").read_text("utf-8").split())


@cache
def rows(*studies: str) -> DataFrame:
    """Recorded rows of studies, with the paper's numbers."""
    ours = tidy_rows.read(*(RECORDED / study / "rows.csv" for study in studies))
    return tidy_rows.beside(ours, reference.read_reference(REFERENCE))


@cache
def verdicts(*studies: str) -> dict[tuple[str, str], Verdict]:
    """Claim and reading -> verdict, of those that have seeds."""
    found = judge(load(PATH, rows(*studies)), rows(*studies))
    return {(verdict.claim.id, verdict.setting.reading): verdict for verdict in found if verdict.seeds}


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
    assert {name: word(verdicts("mini_80")[name, "paper"]) for name in claims} == claims


SUPPORTED, OPPOSITE, UNDECIDED = "supported", "opposite shown", "inconclusive"


@pytest.mark.parametrize(
    ("sentence", "claims"),
    [
        ("Spaced KD ends above online KD by both readings.", {"spaced_beats_online": (SUPPORTED, SUPPORTED)}),
        (
            "By neither reading does it end detectably above training without KD.",
            {"spaced_beats_without": (UNDECIDED, UNDECIDED)},
        ),
        (
            "Online KD ends below training without KD by the reading `paper`; by `released` this is undecided.",
            {"online_beats_without": (OPPOSITE, UNDECIDED)},
        ),
        (
            "The Hessian trace of Spaced KD is larger than that of online KD by both readings and of both losses.",
            {"flatter_minimum": (OPPOSITE, OPPOSITE), "flatter_minimum_kd": (OPPOSITE, OPPOSITE)},
        ),
        (
            "Under noise on the weights its training loss rises more by `paper`; by `released` this is undecided.",
            {"loss_under_noise": (OPPOSITE, UNDECIDED)},
        ),
    ],
)
def test_a_finding_on_further_seeds_is_the_verdict_by_both_readings(sentence, claims):
    assert sentence in TEXT
    for name, words in claims.items():
        found = [verdicts("mini_80_more")[name, reading] for reading in ("paper", "released")]
        assert tuple(word(verdict) for verdict in found) == words
        assert [verdict.seeds for verdict in found] == [6, 6]


def test_the_readme_says_what_the_released_reading_shows():
    text = " ".join((ROOT / "README.md").read_text("utf-8").split())
    assert "By `released`, Spaced KD beats online KD in this setting, too ([six seeds]" in text
    verdict = verdicts("mini_80_more")["spaced_beats_online", "released"]
    assert (word(verdict), verdict.seeds) == (SUPPORTED, 6)


def test_the_pooled_differences_are_those_of_both_studies():
    found = verdicts("mini_80", "mini_80_more", "mini_80_self")
    online, without = (found[name, "paper"] for name in ("spaced_beats_online", "spaced_beats_without"))
    assert online.seeds == without.seeds == 14
    first, second = (
        f"{each.mean:+.2f} [{each.interval.low:+.2f}, {each.interval.high:+.2f}]" for each in (online, without)
    )
    assert f"{first} points over online KD, and {second} over training without KD" in TEXT


@pytest.mark.parametrize(
    ("sentence", "claims"),
    [
        (
            "Self KD ends below training without KD, and spaced self KD does not end detectably above that.",
            {"self_beats_without": OPPOSITE, "spaced_self_beats_without": UNDECIDED},
        ),
        (
            "The Hessian trace of spaced self KD is larger than that of self KD.",
            {"flatter_minimum_self": OPPOSITE},
        ),
    ],
)
def test_a_finding_on_self_kd_is_the_verdict_on_its_claims(sentence, claims):
    assert sentence in TEXT
    found = verdicts("mini_80", "mini_80_more", "mini_80_self")
    assert {name: word(found[name, "paper"]) for name in claims} == claims
    assert {found[name, "paper"].seeds for name in claims} == {6}


def test_the_gain_of_spaced_self_kd_and_its_cost():
    found = verdicts("mini_80", "mini_80_more", "mini_80_self")
    gain, cost = (found[name, "paper"] for name in ("spaced_self_beats_self", "same_cost_self"))
    assert (word(gain), gain.seeds) == (SUPPORTED, 6)
    shown = f"{gain.mean:+.2f} [{gain.interval.low:+.2f}, {gain.interval.high:+.2f}]"
    assert f"Spaced self KD ends above self KD, by {shown} points." in TEXT
    assert f"and {cost.mean:.0f} % more FLOPs" in TEXT


AT_EQUAL_COST = "mini_80", "mini_80_cost", "mini_80_self", "mini_80_steps"


def shown(verdict: Verdict) -> str:
    """Difference and interval, as the text has them."""
    return f"{verdict.mean:+.2f} [{verdict.interval.low:+.2f}, {verdict.interval.high:+.2f}]"


def test_at_equal_cost_training_without_kd_ends_above():
    flops = {name: each for (name, _), each in verdicts(*AT_EQUAL_COST).items() if "equal_flops" in name}
    found = {name.rsplit(".", 2)[1]: each for name, each in flops.items()}
    assert {arm: (word(each), each.seeds) for arm, each in found.items()} == dict.fromkeys(found, (OPPOSITE, 6))
    spaced, online = (shown(found[arm]) for arm in ("spaced", "online"))
    assert f"is {spaced} points, and above online KD, with {online}." in TEXT
    costs = rows(*AT_EQUAL_COST)
    costs = costs[costs["metric"] == "training_flops_with_teacher"]
    mean = costs.groupby(["method", "interval", costs["study"]])["value"].mean()
    without, longer = mean["baseline", "", "mini_80"], mean["baseline", "", "mini_80_cost"]
    assert f"It costs {mean['online_kd', '1.5', 'mini_80'] / without:.2f} times the FLOPs" in TEXT
    assert longer == pytest.approx(mean["online_kd", "1.5", "mini_80"], rel=0.001)


def test_at_as_many_steps_no_gain_of_spaced_self_kd_is_detected():
    (verdict,) = (each for (name, _), each in verdicts(*AT_EQUAL_COST).items() if "equal_steps" in name)
    assert (word(verdict), verdict.seeds) == (UNDECIDED, 6)
    assert f"its difference from that is {shown(verdict)} points." in TEXT
    assert verdict.family.m == 3
    runs = [run for study in AT_EQUAL_COST[2:] for run in read_json(RECORDED / study / "runs.json", list)]
    updates = {}  # of the one network, in whichever role
    for run in runs:
        key = run["spec"]["method"], run["spec"]["interval"], run["spec"]["epochs"]
        updates.setdefault(key, set()).add(sum(run["turns"].values()))
    assert updates["self_kd", 4.0, 80] == updates["self_kd", 0.0, 160] == {6400}
    assert updates["self_kd", 0.0, 80] == {3200}


def test_as_a_family_of_two_the_claims_on_flops_had_the_same_verdicts():
    assert "The first two were judged before the third was trained, as a family of two, with the same verdicts." in TEXT
    before, after = (
        {name: word(each) for (name, _), each in verdicts(*studies).items() if "equal_flops" in name}
        for studies in (AT_EQUAL_COST[:2], AT_EQUAL_COST)
    )
    assert before == after


def test_re_estimated_statistics_cost_every_arm_and_spaced_kd_more():
    table = batch_norm.table(rows("mini_80_more"))
    changes = [cell.mean for cell in table["Δ"]]
    assert f"lower the accuracy of every arm, by {-max(changes):.2f} to {-min(changes):.2f} points." in TEXT
    online, spaced = ([cell.mean for cell in table[table["arm"] == arm]["Δ"]] for arm in (ONLINE.name, SPACED.name))
    assert len(online) == 2
    assert all(after < before for before, after in zip(online, spaced, strict=True))


def test_the_hessian_trace_is_larger_of_both_losses_and_with_either_statistics():
    assert "of both losses and with either statistics of batch norm" in TEXT
    table = hessian_trace.table(rows("mini_80"))
    changes = table[table["source"] == "ours"]["Δ to online KD"]
    assert len(changes) == 4
    assert all(change.low > 0 and change.n == change.planned == 8 for change in changes)


def test_the_seconds_are_those_of_the_recorded_runs():
    runs = read_json(RECORDED / "mini_80" / "runs.json", list)
    assert f"The {len(runs)} trainings took {sum(run['cpu_seconds'] for run in runs):,.0f} CPU seconds" in TEXT


def test_the_spread_of_the_demo_is_that_of_its_recorded_rows():
    spread = tidy_rows.read(RECORDED / "demo" / "spread" / "rows.csv")
    cells = batch_norm.table(tidy_rows.beside(spread, reference.read_reference(REFERENCE)))
    deviations = [cell.sd for cell in cells["as trained"]]
    changes = [abs(cell.mean) for cell in cells["Δ"]]
    assert len(deviations) == 18
    assert all(cell.n == cell.planned == 10 for cell in cells["as trained"])
    assert f"No standard deviation exceeds {max(deviations):.2f} points" in TEXT
    assert f"change no mean by more than {max(changes):.2f}:" in TEXT
