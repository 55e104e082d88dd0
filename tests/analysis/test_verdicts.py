from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from docutils import nodes
from docutils.core import publish_doctree

from spaced_kd.analysis import reference, statistics, tidy_rows
from spaced_kd.analysis.arms import Arm
from spaced_kd.analysis.cells import texts
from spaced_kd.analysis.claims import load as claims_file
from spaced_kd.analysis.claims import model as claims
from spaced_kd.analysis.claims import summary, verdicts
from spaced_kd.analysis.claims import text as verdict_text
from spaced_kd.analysis.queries import where
from spaced_kd.analysis.tables import scorecard
from spaced_kd.config import labels, registry
from spaced_kd.config.labels import TEXTBOOK, Recipe
from spaced_kd.config.run_spec import from_flat
from spaced_kd.utils.errors import UserError

ROOT = Path(__file__).parents[2]
SMALL = {"dataset": "digits", "network": "resnet_mini", "teacher": "resnet_mini", "recipe": "epochs=12 lr=0.02"}
OWN = {"dataset": "cifar100", "network": "resnet18", "teacher": "resnet18", "recipe": "eval_every=5 protocol=paper"}
LAST = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last"}


@pytest.fixture(scope="module")
def paper():
    return reference.read_reference(ROOT / "src/spaced_kd/config/preset_files/reference.csv")


@pytest.fixture(scope="module")
def sheet(paper):
    return claims_file.load(ROOT / "src/spaced_kd/config/preset_files/claims.yaml", paper)


def runs(method, interval, values, place=SMALL, **measured):
    """Rows of an arm: values by seed, None where a run is missing."""
    rows = []
    for seed, value in values.items():
        row = {"source": "ours", "study": "s", "run": f"{method}-{interval}-{seed}", "seed": seed, **place}
        row |= LAST | {"method": method, "interval": interval} | measured
        rows.append(row | ({"value": value} if value is not None else {"metric": "missing"}))
    return tidy_rows.join(pd.DataFrame(rows))


def pair(differences, before="0", after="1.5", method="online_kd", **more):
    """Two arms whose differences by seed are given."""
    seeds = dict(enumerate(differences))
    base = {seed: 70 + 3 * np.sin(seed) for seed in seeds}
    shifted = {seed: None if d is None else base[seed] + d for seed, d in seeds.items()}
    return tidy_rows.join(runs(method, before, base, **more), runs(method, after, shifted, **more))


def judged(sheet, paper, *frames, claim="spaced_beats_online", **more):
    """Verdicts of a claim on rows."""
    found = verdicts.judge(sheet, tidy_rows.join(*frames, paper), **more)
    return [verdict for verdict in found if verdict.claim.id == claim]


def small(*args, **more):
    """The one verdict in a small setting."""
    (verdict,) = [verdict for verdict in judged(*args, **more) if not verdict.own]
    return verdict


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([1.0, 1.2, 0.9, 1.1], "supported"),
        ([-1.0, -1.2, -0.9, -1.1], "opposite shown"),
        ([0.05, -0.05, 0.1, -0.1], "gain of at least the margin excluded"),
        ([0.1, 0.2, 0.12, 0.15], "supported"),  # below the margin, and above 0
        ([2.0, -1.0, 0.5, 1.5], "inconclusive"),
    ],
)
def test_greater(sheet, paper, differences, verdict):
    found = small(sheet, paper, pair(differences))
    assert found.verdict == verdict
    assert found.interval == found.raw == pytest.approx(statistics.paired_interval(differences))
    assert found.family == ("main claims", 1, 0.05)
    assert found.p_flips == statistics.sign_flip_test(differences)
    assert (found.seeds, found.mean) == (4, pytest.approx(np.mean(differences)))
    assert (found.needed is None) == (verdict != "inconclusive")


def test_inconclusive_says_how_many_seeds_would_settle_it(sheet, paper):
    found = small(sheet, paper, pair([2.0, -1.0, 0.5, 1.5]))
    mean, s = 0.75, np.std([2.0, -1.0, 0.5, 1.5], ddof=1)
    assert found.needed.seeds == statistics.needed(mean, s) > 4
    low, high = (statistics.needed(mean, sd) for sd in statistics.deviation_interval(s, 3))
    assert (found.needed.low, found.needed.high) == (low, high)
    assert low < found.needed.seeds < high
    message = verdict_text.lines([found], paper)["remark"].item()
    assert f"{found.needed.seeds} seeds would show a gain if mean and deviation stay ({low} to {high:,} by" in message
    assert found.detectable == pytest.approx(statistics.detectable(s, 4))
    # if the gain is about 0, more seeds would rather show that it is below the margin
    near = small(sheet, paper, pair([2.0, -2.0, 1.0, -0.9]))
    assert near.needed.shows == "a gain of less than 0.5 pp"
    assert near.needed.seeds == statistics.needed(0.5 - 0.025, np.std([2.0, -2.0, 1.0, -0.9], ddof=1))


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.05, -0.05, 0.1, 0.0], "supported"),
        ([3.0, 3.1, 2.9, 3.2], "opposite shown"),
        ([1, -1, 0.5, 0], "inconclusive"),
    ],
)
def test_equivalent(sheet, paper, differences, verdict):
    found = small(sheet, paper, pair(differences, "1.5", "0.5"), claim="insensitive.spaced_0.5.spaced")
    assert found.verdict == verdict
    assert (found.needed is None) == (verdict != "inconclusive")


def test_claims_of_one_question_are_adjusted_together(sheet, paper):
    clear, weak = [1.0, 1.2, 0.9, 1.1], [0.6, 0.2, 0.9, 0.5]
    base = dict.fromkeys(range(4), 70.0)
    rows = [runs("online_kd", "1.5", base)]
    for interval, differences in (("0.5", clear), ("1", weak), ("2", weak)):
        rows.append(runs("online_kd", interval, {seed: 70 - d for seed, d in enumerate(differences)}))
    found = {
        verdict.claim.id: verdict
        for verdict in verdicts.judge(sheet, tidy_rows.join(*rows, paper))
        if verdict.claim.family == "the best interval" and not verdict.own
    }
    assert len(found) == 3  # that others are as good could not be true beside it: another question
    first, second = (found[f"best_interval.spaced.spaced_{name}"] for name in ("0.5", "1"))
    p = [*(statistics.paired_test(d) for d in (clear, weak, weak))]
    family = statistics.holm(p)
    assert (first.p, second.p) == pytest.approx(tuple(family.p[:2]))
    assert first.interval == pytest.approx(statistics.paired_interval(clear, family.levels[0]))
    assert (first.family.m, first.family.level) == (3, 0.05 / 3)
    assert first.raw == pytest.approx(statistics.paired_interval(clear))
    assert statistics.paired_test(weak) < 0.05 < second.p  # alone it would have been found
    assert (first.verdict, second.verdict) == ("supported", "inconclusive")


def test_a_study_joined_later_leaves_other_verdicts_alone(sheet, paper):
    alone = small(sheet, paper, pair([0.6, 0.1, 0.9, 0.5]))
    elsewhere = pair([0.6, -0.2, 0.9, 0.4], place=SMALL | {"recipe": "epochs=3"})
    first, _ = (each for each in judged(sheet, paper, pair([0.6, 0.1, 0.9, 0.5]), elsewhere) if not each.own)
    assert first == alone


def three_arms(protocol, gain, **arguments):
    """Rows of w/o KD, online and Spaced KD, which brings `gain`."""
    rows = []
    for method, interval, level in (("baseline", 0, 70), ("online_kd", 0, 60), ("online_kd", 1.5, 60 + gain)):
        own = {"dataset": "digits", "network": "resnet_mini", "method": method, "interval": interval, "epochs": 4}
        for seed in range(3):
            run = from_flat(own | arguments | {"seed": seed, "protocol": protocol})
            row = LAST | {"source": "ours", "run": run.id, "seed": seed} | labels.labels(run)
            rows.append(row | {"value": level + 0.1 * seed**2 * interval})
    return tidy_rows.join(pd.DataFrame(rows))


@pytest.fixture(scope="module")
def both_protocols():
    """By `textbook`, spacing brings 1, and by the released loops -3."""
    return tidy_rows.join(three_arms("textbook", 1), three_arms("released_loop_only", -3)).drop_duplicates("run")


def test_a_claim_is_judged_under_each_protocol(sheet, paper, both_protocols):
    rows = tidy_rows.beside(both_protocols, paper)
    for claim, means in (("spaced_beats_online", [1.25, -2.75]), ("online_beats_without", [-10, -10])):
        found = [verdict for verdict in judged(sheet, rows, claim=claim) if not verdict.own]
        result = {verdict.setting.name: verdict.mean for verdict in found}
        names = [f"digits, resnet_mini, epochs=4, protocol {name}" for name in ("textbook", "released_loop_only")]
        assert result == dict(zip(names, map(pytest.approx, means), strict=True))


def test_tables_have_a_line_for_each_protocol(paper, both_protocols):
    table = texts(registry.find("tables", "tab01")(tidy_rows.beside(both_protocols, paper)))
    ours = table[table["source"] == "ours"].set_index("recipe")
    assert list(ours.index) == ["epochs=4", "epochs=4 protocol=released_loop_only"]
    assert list(ours["w/o KD"]) == ["70.00 ± 0.00 (3)"] * 2  # the same runs, which both protocols share
    assert [text[:5] for text in ours["Δ to online KD"]] == ["+1.25", "-2.75"]


def test_shared_runs_stand_where_a_protocol_has_runs_of_its_own(paper, both_protocols):
    by_text = three_arms("textbook", 2, lr=0.1)  # without KD these are runs of the released loops, too
    longer = where(three_arms("textbook", 2, epochs=8), method="baseline")
    measured = where(by_text, method="baseline").assign(evaluation="bim")
    rows = tidy_rows.beside(tidy_rows.join(both_protocols, by_text, longer, measured), paper)
    released = rows[rows["recipe"].str.contains("protocol=released_loop_only")]
    assert set(released["recipe"]) == {"epochs=4 protocol=released_loop_only", "epochs=8 protocol=released_loop_only"}
    assert set(released["evaluation"]) == {"accuracy"}


def test_overview_tells_settings_apart_that_both_arms_share(paper):
    plain, half = pair([1.0, 1.2, 0.9]), pair([2.0, 2.2, 1.9], method="online_kd[alpha=0.5]")
    table = texts(registry.find("tables", "overview")(tidy_rows.join(plain, half, paper)))
    assert list(table["our setting"]) == [
        f"digits, resnet_mini, epochs=12, {more}reading {TEXTBOOK}" for more in ("", "alpha=0.5, ")
    ]


def test_switches_and_controls_are_no_evidence_for_a_claim(sheet, paper):
    of_controls = [
        pair([9.0, 9.2, 9.1], method=f"online_kd[{arguments}]")
        for arguments in ("alpha=0.0,beta=0.0", "alpha=0.0", "beta=0.0", "target=before", "soft_loss=mse")
    ]
    switched = [
        pair([9.0, 9.2, 9.1], place=SMALL | {"recipe": word}) for word in ("batch_norm=halves", "clock=teacher")
    ]
    assert all(each.own for each in judged(sheet, paper, *of_controls, *switched))
    mild = small(sheet, paper, pair([9.0, 9.2, 9.1], method="online_kd[alpha=0.5]"))
    assert mild.setting.name.endswith("protocol textbook, alpha=0.5")


def test_positive_and_null_statements_have_one_level(sheet, paper):
    d = [0.3, 0.45, 0.4, 0.3, 0.42]
    found = small(sheet, paper, pair(d, "1.5", "0.5"), claim="insensitive.spaced_0.5.spaced")
    assert (found.verdict, found.interval) == ("supported", pytest.approx(statistics.paired_interval(d)))
    assert found.p == pytest.approx(
        2 * statistics.equivalence_test(d, 0.5)
    )  # at most 0.05 where that interval is within
    assert found.turns_at == pytest.approx(found.interval.high)
    wider = [0.2, 0.5, 0.4, 0.25, 0.42]
    assert statistics.equivalence_test(wider, 0.5) < 0.05  # by the interval of 90 %
    found = small(sheet, paper, pair(wider, "1.5", "0.5"), claim="insensitive.spaced_0.5.spaced")
    assert found.verdict == "inconclusive"
    twice = 2 * statistics.equivalence_test(wider, 0.5)
    assert found.p == pytest.approx(twice)
    assert twice > 0.05


def test_families_are_over_settings_of_one_scale(sheet, paper):
    d = [0.6, 0.1, 0.9, 0.5]
    same = pair(d, place=SMALL | {"recipe": "epochs=12 lr=0.1"})
    other = pair(d, place=SMALL | {"recipe": "epochs=24 lr=0.02"})
    found = [each for each in judged(sheet, paper, pair(d), same, other) if not each.own]
    assert {each.setting.recipe: each.family.m for each in found} == {
        "epochs=12 lr=0.02": 2,
        "epochs=12 lr=0.1": 2,
        "epochs=24 lr=0.02": 1,
    }
    for each in found:
        p = statistics.paired_test(d)
        assert each.p == pytest.approx(each.family.m * p)
        assert each.p_raw == pytest.approx(p)


def test_the_margin_at_which_the_word_changes(sheet, paper):
    found = small(sheet, paper, pair([0.05, -0.05, 0.1, -0.1]))
    assert found.turns_at == pytest.approx(found.interval.high)
    assert "a gain of more than 0.15 is excluded" in verdict_text.lines([found], paper)["remark"].item()
    assert small(sheet, paper, pair([1.0, 1.2, 0.9, 1.1])).turns_at is None  # supported with any margin


def test_no_gain_is_one_sided(sheet, paper):
    def lead(*d):
        after = "online_kd[lead=constant]"
        base, more = (dict(enumerate(values)) for values in ([70.0] * len(d), [70 + each for each in d]))
        rows = tidy_rows.join(runs("online_kd", "0", base), runs(after, "1", more))
        return small(sheet, paper, rows, claim="constant_lead.lead_1.online")

    assert lead(-2.0, -2.5, -1.8).verdict == "supported"  # harm is no gain
    assert lead(3.0, 3.1, 2.9).verdict == "opposite shown"
    assert lead(3.0, -3.1, 2.9).verdict == "inconclusive"


def planned(rows, seeds):
    return rows.assign(planned=" ".join(map(str, seeds)))


def test_no_word_before_all_planned_seeds_are_there(sheet, paper):
    rows = pair([1.0, 1.2, 0.9])
    interim = small(sheet, paper, planned(rows, range(5)))
    assert (interim.verdict, interim.seeds, interim.expected) == ("interim", 3, 5)
    assert (interim.needed, interim.p, interim.turns_at) == (None, None, None)
    assert verdict_text.lines([interim], paper)["verdict"].item() == "interim, 3 of 5"
    assert small(sheet, paper, planned(rows, range(3))).verdict == "supported"
    one = small(sheet, paper, planned(pair([1.0]), range(3)))
    assert (one.verdict, one.reason) == ("interim", "1 of 3 planned seeds")


def test_interim_comparisons_are_members_that_are_not_rejected(sheet, paper):
    weak = [0.6, 0.1, 0.9, 0.5]
    clear = planned(pair([9.0, 9.1, 8.9], place=SMALL | {"recipe": "epochs=12 lr=0.1"}), range(5))
    found = {each.setting.recipe: each for each in judged(sheet, paper, pair(weak), clear) if not each.own}
    assert found["epochs=12 lr=0.1"].verdict == "interim"
    assert found["epochs=12 lr=0.02"].p == pytest.approx(2 * statistics.paired_test(weak))
    assert found["epochs=12 lr=0.1"].interval == pytest.approx(statistics.paired_interval([9.0, 9.1, 8.9], 0.025))


def test_machines_are_blocks_of_a_pooled_estimate(sheet, paper):
    d = [1.0, 1.2, 0.9, 3.0, 3.1]
    rows = pair(d)
    rows = rows.assign(machine=np.where(rows["seed"] < 3, "amx", "NVIDIA H200"))
    found = small(sheet, paper, rows)
    first, second = np.array(d[:3]), np.array(d[3:])
    s = np.sqrt((((first - first.mean()) ** 2).sum() + ((second - second.mean()) ** 2).sum()) / 3)
    assert found.sd == pytest.approx(s)
    assert s < np.std(d, ddof=1)
    assert found.machines == (("amx", pytest.approx(first.mean()), 3), ("NVIDIA H200", pytest.approx(3.05), 2))
    assert found.interval == pytest.approx(statistics.paired_interval(d, 0.05, "aaabb"))
    apart = rows.assign(machine=np.where((rows["seed"] == 0) & (rows["interval"] == "0"), "avx2", rows["machine"]))
    assert small(sheet, paper, apart).seeds == 4
    assert "several kinds of machines: seed 0" in small(sheet, paper, apart).reason
    assert small(sheet, paper, pair(d)).machines == ()  # older rows do not say


def test_the_endpoint_is_the_tail_where_all_arms_have_it(sheet, paper):
    last = pair([1.0, 1.2, 0.9])
    tail = pair([2.0, 2.1, 1.9], selection="tail", states=12.0)
    found = small(sheet, paper, last, tail)
    assert (found.endpoint, found.mean) == ("tail", pytest.approx(2.0))
    assert verdict_text.endpoint(found) == "mean over the last tenth, 12 states, steps unknown"
    one_arm = where(tail, interval="0")
    found = small(sheet, paper, last.assign(student_steps=3200.0), one_arm.assign(student_steps=3200.0))
    assert (found.endpoint, found.steps, found.mean) == ("last", (3200, 3200), pytest.approx(3.1 / 3))
    assert verdict_text.endpoint(found) == "last epoch, 3,200 steps"


def test_a_contrast_compares_two_differences_seed_by_seed(sheet, paper):
    values = {"0": [70, 71, 72.0], "1.5": [73, 74.5, 75], "max": [72, 73.5, 75]}
    rows = [runs("online_kd", interval, dict(enumerate(given))) for interval, given in values.items()]
    found = small(sheet, paper, *rows, claim="inverted_u")
    d = [(73 - 70) - (72 - 73), (74.5 - 71) - (73.5 - 74.5), (75 - 72) - (75 - 75)]
    assert (found.mean, found.seeds) == (pytest.approx(np.mean(d)), 3)
    assert found.interval == pytest.approx(statistics.paired_interval(d))


def test_a_contrast_may_be_of_two_readings(sheet, paper):
    def arms(gains, reading):
        recipe = str(Recipe.read("epochs=12").under(reading))
        return pair(gains, place=SMALL | {"recipe": recipe})

    (first, second), *_ = (each.readings for each in sheet.claims if each.id == "spacing_by_reading")
    found = small(sheet, paper, arms([3.0, 3.5, 3.1], first), arms([1.0, 1.1, 1.3], second), claim="spacing_by_reading")
    assert found.mean == pytest.approx(np.mean([2.0, 2.4, 1.8]))
    assert found.setting.reading == first
    assert not any(v.seeds for v in judged(sheet, paper, arms([3.0, 3.5], first), claim="spacing_by_reading"))


def test_a_claim_on_recipes_has_settings_of_its_values_only(sheet, paper):
    rates = [pair([1.0, 1.2, 0.9], place=OWN | {"recipe": f"lr={rate} protocol=paper"}) for rate in ("0.1", "0.05")]
    rates.append(pair([1.0, 1.2, 0.9], place=SMALL | {"recipe": "lr=0.1"}))
    found = [each for each in judged(sheet, paper, *rates, claim="every_learning_rate") if each.seeds]
    assert [(each.setting.dataset, each.setting.recipe) for each in found] == [("cifar100", "lr=0.1 protocol=paper")]


def test_only_the_papers_own_setting_decides_its_row(sheet, paper):
    rows = [pair([1.0, 1.2, 0.9], place=place) for place in (OWN, OWN | {"recipe": "epochs=10 protocol=paper"}, SMALL)]
    decided = judged(sheet, paper, *rows)
    own = [verdict for verdict in decided if verdict.own]
    assert len(own) == 14  # rows of Tab. 1
    assert [verdict.verdict for verdict in own] == ["supported"] + 13 * ["not run"]
    assert (own[0].setting.dataset, own[0].paper) == ("cifar100", 1.38)
    assert "run online_kd 1.5 and online_kd 0 on cifar100 with resnet50" in own[1].reason
    beside = [verdict for verdict in decided if not verdict.own]
    assert [verdict.setting.name for verdict in beside] == [
        "cifar100, resnet18, epochs=10, protocol paper",
        "digits, resnet_mini, epochs=12 lr=0.02, protocol textbook",
    ]
    assert all(verdict.paper is None for verdict in beside)


def test_recipe_of_transformers_is_the_papers(sheet, paper):
    arguments = (
        "augmentation=strong epochs=300 lr=0.0005 lr_schedule=cosine min_lr=5e-06 optimizer=adamw warmup_epochs=20.0"
    )
    arguments = f"{arguments} weight_decay=0.05 protocol=paper"
    place = {"dataset": "cifar100", "network": "deit_tiny", "teacher": "deit_tiny"}
    assert any(v.own and v.seeds for v in judged(sheet, paper, pair([1, 2, 1.5], place=place | {"recipe": arguments})))
    assert not any(v.own and v.seeds for v in judged(sheet, paper, pair([1, 2, 1.5], place=place | {"recipe": ""})))


def test_other_settings_of_a_method_are_settings_of_their_own(sheet, paper):
    rows = [
        pair([1.0, 1.2, 0.9], method=f"online_kd[{arguments}]", place=OWN)
        for arguments in ("alpha=0.5", "alpha=0.5,temperature=1.0")
    ]
    verdicts = [verdict for verdict in judged(sheet, paper, *rows) if verdict.seeds]
    assert [(verdict.own, verdict.setting.shared) for verdict in verdicts] == [
        (False, "alpha=0.5"),
        (False, "alpha=0.5,temperature=1.0"),
    ]


def test_other_teachers_are_a_claim_of_their_own(sheet, paper):
    rows = pair([1.0, 1.2, 0.9], place=OWN | {"teacher": "resnet50"})
    (found,) = [v for v in judged(sheet, paper, rows, claim="other_teachers") if v.seeds]
    assert (found.own, found.paper, found.verdict) == (True, 1.31, "supported")
    assert not any(verdict.seeds for verdict in judged(sheet, paper, rows))


def test_a_chain_of_teachers_is_a_row_and_other_chains_are_not(sheet, paper):
    rows = [
        pair([1.0, 1.2, 0.9], method="takd", place=OWN | {"teacher": teachers})
        for teachers in ("resnet101 > resnet50", "resnet50 > resnet18")
    ]
    found = [v for v in judged(sheet, paper, *rows, claim="spaced_takd") if v.seeds]
    assert [(v.own, v.setting.teacher) for v in found] == [
        (True, "resnet101 > resnet50"),
        (False, "resnet50 > resnet18"),
    ]
    assert not any(v.seeds for v in judged(sheet, paper, *rows, claim="spaced_takd_published"))


def test_each_method_of_tab04_is_judged_with_spacing_against_without(sheet):
    compared = {claim.arms for claim in sheet.claims if claim.place == "Tab. 4"}
    methods = ("ban", "takd", "dml", "shake", "dlb", "ps_kd")
    beside = {(Arm(method, "1.5"), Arm(method, "0")) for method in methods}
    published = {(Arm(method, "1.5"), Arm(method, "max")) for method in ("ban", "takd")}
    assert compared == beside | published


def test_one_seed_has_no_verdict_but_a_remark(sheet, paper):
    right = {"online_kd-0-0": np.arange(100) < 60, "online_kd-1.5-0": np.arange(100) < 70}
    found = small(sheet, paper, pair([10.0]), correct=right.get)
    assert (found.verdict, found.reason) == ("no verdict", "one seed has no interval")
    assert (found.interval, found.detectable) == (None, None)
    assert found.mcnemar == pytest.approx(2 / 2**10)
    assert found.images.low < 10 < found.images.high


def test_bootstrap_over_images_stands_beside_the_interval(sheet, paper):
    rng = np.random.default_rng(0)
    found = small(sheet, paper, pair([1.0, 1.2]), correct=lambda run: rng.random(50) < 0.5)
    assert found.interval is not None
    assert found.images is not None
    assert found.mcnemar is None
    assert small(sheet, paper, pair([1.0, 1.2]), correct=lambda run: None).images is None


def test_missing_seeds_are_left_out_and_said(sheet, paper):
    found = small(sheet, paper, pair([1.0, None, 1.1]))
    assert (found.seeds, found.expected) == (2, 3)
    assert "(2 of 3 seeds)" in verdict_text.lines([found], paper)["ours"].item()
    nothing = small(sheet, paper, pair([None, None]))
    assert nothing.verdict == "not run"
    assert "no finished pair" in nothing.reason


def test_more_seeds_of_one_arm_are_no_harm(sheet, paper):
    rows = tidy_rows.join(pair([1.0, 1.2, 1.1]), runs("online_kd", "0", {7: 50.0}))
    assert small(sheet, paper, rows).seeds == 3


def test_of_unpaired_seeds_those_that_both_arms_have_are_compared_and_it_is_said(sheet, paper):
    rows = [runs("online_kd", "0", {0: 70.0, 1: 71.0, 3: 70.0}), runs("online_kd", "1.5", {1: 72.0, 2: 73.0, 3: 70.5})]
    found = small(sheet, paper, *rows)
    assert (found.seeds, found.expected, found.mean) == (2, 4, 0.75)
    none = small(sheet, paper, runs("online_kd", "0", {0: 70.0}), runs("online_kd", "1.5", {1: 72.0}))
    assert (none.verdict, none.expected) == ("not run", 2)
    message = "seeds are not paired: Spaced KD, s = 1.5 has seed 1 and online KD has seed 0: run both with the same"
    assert none.reason == message


def test_two_values_for_one_seed_are_refused(sheet, paper):
    twice = runs("online_kd", "0", {0: 50.0}).assign(run="other")
    with pytest.raises(UserError, match="several values for one seed, from online_kd-0-0, other"):
        judged(sheet, paper, pair([1.0, 1.1]), twice)
    shared = pair([1.0, 1.2]).assign(study="another")  # of the same runs, which two studies share
    assert small(sheet, paper, pair([1.0, 1.2]), shared).seeds == 2


def test_arms_measured_differently_are_refused(sheet, paper):
    attack = {"evaluation": "bim", "selection": "", "steps": 10}
    rows = [
        runs("online_kd", "0", {0: 30.0, 1: 31.0}, **attack, epsilon=3.0),
        runs("online_kd", "1.5", {0: 30.0, 1: 31.0}, **attack, epsilon=1.0),
    ]
    with pytest.raises(UserError, match=r"attack in digits.*are measured under different settings"):
        judged(sheet, paper, *rows)


def test_loss_under_noise_is_a_ratio_of_rises(sheet, paper):
    def noise(interval, sigma, values):
        where = {"evaluation": "weight_noise", "metric": "loss", "selection": "", "sigma": sigma, "draw": 1}
        return runs("online_kd", interval, dict(enumerate(values)), **where)

    rows = [noise("0", 0.0, [1, 1, 1]), noise("0", 0.1, [2.9, 3.1, 3.0])]
    rows += [noise("1.5", 0.0, [0.5, 0.5, 0.5]), noise("1.5", 0.1, [1.5, 1.5, 1.5])]
    found = small(sheet, paper, *rows, claim="loss_under_noise")
    assert found.verdict == "supported"
    assert found.mean == pytest.approx(100 * ((1.9 * 2.1 * 2.0) ** (1 / 3) - 1))  # rises by 2, and by 1
    assert found.interval.low < found.mean < found.interval.high


def test_a_ratio_needs_numbers_above_zero(sheet, paper):
    trace = {"evaluation": "hessian_trace", "metric": "trace", "selection": "", "probes": 10}
    rows = [runs("online_kd", "0", {0: 5.0, 1: 6.0}, **trace), runs("online_kd", "1.5", {0: -1.0, 1: 4.0}, **trace)]
    found = small(sheet, paper, *rows, claim="flatter_minimum")
    assert found.verdict == "no verdict"
    assert "not above 0" in found.reason


def taught(interval, values, target, times):
    """Complexities of a teacher's supervision for one student at two times."""
    measured = {"evaluation": "supervision_complexity", "metric": "complexity", "selection": "", "temperature": 3.0}
    rows = []
    for epoch, teacher_epoch in times.items():
        when = {"epoch": epoch, "teacher_epoch": teacher_epoch, "target": target}
        rows.append(
            runs("online_kd", interval, {seed: epoch + value for seed, value in values.items()}, **measured, **when)
        )
    return tidy_rows.join(*rows)


def test_supervision_is_compared_for_one_student_at_the_same_times(sheet, paper):
    online = taught("0", {0: 3.0, 1: 4.4, 2: 6.2}, "online", {0.0: 0.1, 2.0: 2.1})
    spaced = taught("0", {0: 2.0, 1: 3.0, 2: 4.0}, "spaced", {0.0: 1.5, 2.0: 3.0})
    others = taught("1.5", {0: 9.0, 1: 9.5, 2: 9.1}, "spaced", {0.0: 1.5, 2.0: 3.0})
    found = small(sheet, paper, spaced, online, others, claim="simpler_supervision")
    assert found.verdict == "supported"
    assert found.mean == pytest.approx(100 * ((4 / 3 * 5.4 / 4 * 7.2 / 5) ** (1 / 3) - 1))
    late = taught("0", {0: 2.0, 1: 3.0, 2: 4.0}, "spaced", {2.0: 3.0})
    with pytest.raises(UserError, match=r"^simpler_supervision .* are measured under different settings"):
        small(sheet, paper, online, late, claim="simpler_supervision")


def test_flops_are_counted_and_no_test(sheet, paper):
    cost = {"evaluation": "cost", "metric": "training_flops_with_teacher", "selection": ""}
    same = [runs("online_kd", interval, {0: 1e12}, **cost) for interval in ("0", "1.5")]
    found = small(sheet, paper, *same, claim="same_cost")
    assert (found.verdict, found.holds, found.family) == ("counted", True, None)
    cheaper = [runs("online_kd", interval, {0: flops}, **cost) for interval, flops in (("0", 1e12), ("1.5", 0.9e12))]
    assert small(sheet, paper, *cheaper, claim="same_cost").holds  # the paper says: without additional cost
    twice = [runs("self_kd", interval, {0: flops}, **cost) for interval, flops in (("0", 1e12), ("4", 2e12))]
    found = small(sheet, paper, *twice, claim="same_cost_self")
    assert (found.verdict, found.holds, found.mean) == ("counted", False, pytest.approx(100))
    message = verdict_text.tally(judged(sheet, paper, *twice, claim="same_cost_self"))
    assert message.endswith("Counts of operations (not tests): 0 of 1 are as the claim says.")
    assert "supported" not in message


def test_equal_differences_tell_nothing_of_their_spread(sheet, paper):
    base = {0: 70.0, 1: 71.0}
    rows = [runs("online_kd", "0", base), runs("online_kd", "1.5", {seed: v + 1 for seed, v in base.items()})]
    assert small(sheet, paper, *rows).verdict == "no verdict"


def test_an_arm_of_more_epochs_is_compared_in_the_setting_of_the_other(sheet, paper):
    spaced = runs("self_kd", "4", {0: 71.0, 1: 72.2, 2: 71.1}, place=SMALL | {"recipe": "epochs=12 lr=0.02"})
    longer = runs("self_kd", "0", {0: 70.0, 1: 71.0, 2: 70.2}, place=SMALL | {"recipe": "epochs=24 lr=0.02"})
    found = small(sheet, paper, spaced, longer, claim="spaced_self_at_equal_steps")
    assert (found.setting.recipe, found.seeds, found.mean) == ("epochs=12 lr=0.02", 3, pytest.approx(3.1 / 3))
    assert found.claim.before.name == "self KD, 2 times the epochs"
    assert not any(v.seeds for v in judged(sheet, paper, spaced, longer, claim="spaced_self_beats_self"))
    shorter = runs("self_kd", "0", {0: 70.0, 1: 71.0, 2: 70.2})
    (none,) = judged(sheet, paper, spaced, shorter, claim="spaced_self_at_equal_steps")
    assert (none.verdict, none.reason) == ("not run", "run self_kd 4 and self_kd 0 epochs=x2")


def test_runs_that_draw_order_alone_anew_are_no_setting(sheet, paper):
    drawn = pair([1.0, 1.2, 1.1], place=SMALL | {"recipe": "epochs=12 lr=0.02 order_seed=3"})
    assert not any(verdict.seeds for verdict in judged(sheet, paper, drawn))


def test_average_gain_needs_all_rows(sheet, paper):
    (found,) = judged(sheet, paper, pair([1.0, 1.2], place=OWN), claim="average_gain")
    assert (found.verdict, found.reason) == ("not run", "1 of the 24 rows of Tab. 1 and Tab. 2 are there")
    assert found.paper == 2.14
    rows, rng = [], np.random.default_rng(0)
    for claim in (each for each in sheet.claims if each.id in ("spaced_beats_online", "spaced_self_beats_self")):
        for row in claim.rows:
            arguments = " ".join(
                f"{key}={value}" for key, value in (sheet.recipes[row.teacher] | {"protocol": "paper"}).items()
            )
            gains = 2.14 + 0.1 * rng.standard_normal(3)
            method, after, _ = claim.after
            rows.append(pair(gains, "0", after, method, place=row._asdict() | {"recipe": arguments}))
    (found,) = judged(sheet, paper, *rows, claim="average_gain")
    assert (found.verdict, found.seeds) == ("supported", 3)
    (extreme,) = judged(sheet, paper, *rows, claim="largest_gain")
    assert extreme.verdict == "no verdict"
    assert extreme.mean > found.mean


def test_every_claim_has_a_verdict_without_any_run(sheet, paper):
    found = verdicts.judge(sheet, paper)
    assert {verdict.verdict for verdict in found} == {"not run"}
    assert {verdict.claim.id for verdict in found} == {claim.id for claim in sheet.claims}
    assert all(verdict.reason for verdict in found)


def test_the_papers_own_numbers_are_looked_up(sheet, paper):
    known = {claim.id: claim for claim in sheet.claims}
    gains = claims.paper_range(known["spaced_beats_online"], paper)
    assert (len(gains), min(gains), max(gains)) == (14, 1.19, 2.65)
    assert claims.paper_statistic(known["average_gain"], paper) == pytest.approx(2.32, abs=0.005)
    assert "2.14 points" in known["average_gain"].sentence
    deltas = paper[(paper["table"] == "tab11") & (paper["metric"] == "delta") & (paper["network"] == "resnet18")]
    assert claims.paper_range(known["strong_corruptions"], paper)[0] == pytest.approx(deltas["value"].mean())


def test_about_forty_claims(sheet):
    """A row of Tab. 1 or Tab. 2 is a claim of its own; in other tables it is a setting."""
    rows = sum(len(claim.rows) for claim in sheet.claims if claim.place in ("Tab. 1", "Tab. 2"))
    assert rows == 24
    assert len(sheet.claims) - 2 + rows >= 40
    assert len({claim.id for claim in sheet.claims}) == len(sheet.claims)
    for claim in sheet.claims:
        assert claim.after is None or claim.after.method.partition("[")[0] in registry.names("methods")


def test_scorecard(paper, monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = tidy_rows.join(pair([1.0, 1.2, 0.9, 1.1]), pair([1.0, 1.3, 0.9], place=OWN), paper)
    table = scorecard.table(rows)
    assert tuple(table) == verdict_text.COLUMNS
    own, beside, absent = (line for _, line in table[table["place"] == "Tab. 1"].iterrows())
    assert (own["paper"], own["setting"], own["verdict"]) == (
        "+1.38",
        "cifar100, resnet18, protocol paper",
        "supported",
    )
    assert own["ours"] == "+1.07 ± 0.21 (3)"
    assert own["adjusted 95 %"] == "[+0.55, +1.58] (main claims, m = 1)"
    assert own["raw 95 %"] == "[+0.55, +1.58]"
    assert own["p"] == "p 0.012 adjusted, 0.012 raw, 0.25 by sign flips, raw"
    assert beside["setting"] == "other setting: digits, resnet_mini, epochs=12 lr=0.02, protocol textbook"
    assert (absent["setting"], absent["ours"]) == ("13 rows of Tab. 1", "–")
    average = table[table["claim"].str.contains("on average")].iloc[0]
    assert average["paper"] == "+2.14; from its tables +2.32"
    assert table.map(lambda text: isinstance(text, str) and bool(text)).all(axis=None)


def test_listing_has_a_paragraph_for_each_claim_within_the_terminal(sheet, paper, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    rows = tidy_rows.join(pair([1.0, 1.2, 0.9, 1.1]), pair([1.0, 1.3, 0.9], place=OWN), paper)
    judged = verdicts.judge(sheet, rows)
    text = verdict_text.listing(judged, rows)
    assert max(map(len, text.splitlines())) <= 60
    first = " ".join(text.partition("\n\n")[0].split())
    assert first.startswith(
        "Tab. 1: Spaced KD beats online KD (greater, margin 0.5 pp: Tab. 8 against Tab. 1); the paper: +1.38 supported:"
        " +1.07 ± 0.21 (3); CIFAR-100; ResNet-18; 80 epochs; reading paper; last epoch, steps unknown"
        " adjusted 95 % [+0.55, +1.58] (main claims, m = 1); raw 95 % [+0.55, +1.58]; resolution 0.68"
    )
    message = " ".join(text.rpartition("\n\n")[2].split())
    absent = sum(verdict.verdict == "not run" and not verdict.claim.counted for verdict in judged)
    own = [verdict.verdict for verdict in judged if verdict.own and verdict.verdict != "not run"]
    assert own == ["supported"] * 3  # of Tab. 1, and of Fig. 6 at the paper's learning rate and batch size
    assert "in the paper's own settings 3 supported; in other settings " in message
    assert message.endswith(f"; {absent} not run.")


def test_the_first_page_of_a_report_has_study_commit_and_verdicts(sheet, paper):
    ours = pair([1.0, 1.2, 0.9, 1.1]).assign(commit="0123456789abcdef0123456789abcdef01234567-dirty")
    rows = tidy_rows.join(ours, paper)
    page = publish_doctree(summary.summary(verdicts.judge(sheet, rows), rows, "my_study"))
    first, setting, last = (each.astext() for each in page.findall(nodes.paragraph) if each.parent is page)
    assert first == "Study my_study: 8 runs, trained by commit 0123456789-dirty."
    assert setting == "Other setting: Digits; mini ResNet; 12 epochs; learning rate 0.02; reading textbook"
    head, line = ([cell.astext() for cell in row.findall(nodes.entry)] for row in page.findall(nodes.row))
    assert head == ["claim", "verdict", "ours", "adjusted 95 %", "the paper"]
    assert line[:3] == ["Spaced KD beats online KD", "supported", "+1.05 ± 0.13 (4)"]
    assert last.startswith("Of ")


def test_cost_table(paper):
    def cost(metric, values, interval="0", method="online_kd"):
        return runs(method, interval, values, evaluation="cost", metric=metric, selection="")

    baseline = runs("baseline", "", {0: 90.0, 1: 91.0})
    flops = "training_flops_with_teacher"
    rows = [
        baseline,
        pair([1.0, 1.2]),
        cost(flops, {0: 1e12, 1: 1e12}, "", "baseline"),
        cost(flops, {0: 3e12, 1: 3e12}),
    ]
    table = texts(
        registry.find("tables", "cost")(
            tidy_rows.join(*rows, cost("wall_seconds_with_teacher", {0: 10.0, 1: 12.0}), paper)
        )
    )
    online = table.set_index("method").loc["online KD"]
    assert list(online[["training FLOPs (10¹²)", "ratio", "wall seconds", "energy (kJ)"]]) == [
        *("3", "3", "11.0 ± 1.4 (2)", "not measured")
    ]
    assert table.set_index("method").loc["Spaced KD, s = 1.5", "ratio"] == "–"
    assert "teacher" not in table
    taught = [
        runs(method, interval, {0: 95.0}, SMALL | {"teacher": "resnet_big"}, **more)
        for method, interval, more in (
            ("online_kd", "0", {}),
            ("online_kd", "0", {"evaluation": "cost", "metric": flops, "selection": ""}),
        )
    ]
    taught[1] = taught[1].assign(value=7e12)
    table = texts(registry.find("tables", "cost")(tidy_rows.join(*rows, *taught, paper)))
    assert list(table.loc[table["teacher"] == "resnet_big", "ratio"]) == ["7"]
    with pytest.raises(UserError, match="collect the study again"):
        registry.find("tables", "cost")(tidy_rows.join(baseline, paper))


def test_a_claim_of_rows_only_has_no_small_settings(sheet, paper):
    there = judged(sheet, paper, pair([1, 2, 1.5]), claim="imagenet1k")
    assert [verdict.verdict for verdict in there] == ["not run", "not run"]
    own = {"dataset": "imagenet1k", "network": "resnet18", "teacher": "resnet18", "recipe": "protocol=paper"}
    there = judged(sheet, paper, pair([1, 2, 1.5], place=own), claim="imagenet1k")
    assert [verdict.verdict for verdict in there] == ["supported", "not run"]
