"""The experiments on one thing at a time, and the tables that are made of them: switches, controls, seed noise."""

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from spaced_kd.analysis import reference, statistics, tidy_rows
from spaced_kd.analysis.arms import BASELINE, ONLINE, SELF, SPACED, SPACED_SELF, Arm, changed
from spaced_kd.analysis.cells import texts
from spaced_kd.analysis.effects import PairedDifferences, family
from spaced_kd.analysis.tables import controls, switches
from spaced_kd.config import labels, presets, registry
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.config.study import expand, load_study
from spaced_kd.utils.errors import UserError

ROOT = Path(__file__).parents[2]
EXPERIMENTS = ROOT / "config" / "experiments"
PLAIN = "epochs=10 lr=0.1"
BASE = [70.0, 72.0, 71.0]
NEEDED = {  # table -> experiment
    "switches": "released_code",
    "controls": "controls",
    "adaptive": "adaptive",
    "seed_noise": "seed_noise",
    "precision": "precision",
}


@pytest.fixture(scope="module")
def paper():
    return reference.read_reference(ROOT / "src/spaced_kd/config/preset_files/reference.csv")


def runs(arm, values, recipe=PLAIN, flops=None, seed=None):
    """Rows of an arm: values by seed, None where a run is missing; `flops` of each run's training."""
    rows = []
    for number, value in enumerate(values):
        arguments = changed(recipe, arm.recipe)
        about = {"source": "ours", "dataset": "d", "network": "n", "teacher": "n", "recipe": arguments}
        about |= {"method": arm.method, "interval": arm.interval, "seed": number if seed is None else seed}
        about |= {"run": f"{arm} {number}", "evaluation": "accuracy"}
        last = {"metric": "accuracy", "selection": "last", "value": value}
        rows.append(about | (last if value is not None else {"metric": "missing"}))
        if flops:
            cost = {"evaluation": "cost", "metric": "training_flops_with_teacher", "value": flops}
            rows.append(about | cost)
    return tidy_rows.join(pd.DataFrame(rows))


def shifted(arm, *differences, **more):
    """An arm that differs from `BASE` by seed."""
    return runs(arm, [None if d is None else b + d for b, d in zip(BASE, differences, strict=True)], **more)


def draw(name, *frames):
    return texts(registry.find("tables", name)(tidy_rows.join(*frames)))


@pytest.mark.parametrize(("name", "experiment"), NEEDED.items())
def test_a_study_without_the_runs_is_told_the_experiment(name, experiment, paper):
    with pytest.raises(UserError, match=f"^{name} needs runs of config/experiments/{experiment}.yaml"):
        draw(name, runs(BASELINE, BASE[:1]), paper)
    assert name in load_text(experiment)["tables"]


def test_the_doubtful_switches_are_single_ones_on_top_of_paper():
    found = load_study(EXPERIMENTS / "doubtful_switches.yaml")
    result = [labels.labels(run) for run in found.runs if run.seed == 0]
    assert all("protocol=paper" in label["recipe"] for label in result if label["method"] != "baseline")
    for run, label in zip((run for run in found.runs if run.seed == 0), result, strict=True):
        if label["protocol"] == "mixed":
            _, arguments = labels.nearest(run)
            assert len(set(arguments) & presets.keys("paper", run.method)) == 1, arguments


@pytest.mark.parametrize("name", ["twin", "tiny_64", "tuned_small", "tiny_small", "small_80", "gallery"])
def test_every_study_expands(name):
    assert load_study(ROOT / "config" / "studies" / f"{name}.yaml").runs


def load_text(experiment):
    return yaml.safe_load((EXPERIMENTS / f"{experiment}.yaml").read_text())


@pytest.fixture
def paper_arms():
    return [shifted(ONLINE, 0, 0, 0), shifted(SPACED, 1, 1, 1), shifted(SELF, 0, 0, 0), shifted(SPACED_SELF, 2, 2, 2)]


def test_switches_are_ranked_by_what_they_change(paper_arms):
    table = draw(
        "switches",
        *paper_arms,
        shifted(Arm("online_kd[soft_loss=kl_of_probabilities]", "0"), 0.5, 1.0, 1.5),
        shifted(Arm("online_kd[soft_loss=kl_of_probabilities]", "1.5"), 1.5, 1.5, 1.5),
        shifted(Arm("online_kd[target=before]", "0"), 3.0, 4.0, None),
        shifted(Arm("online_kd", "1.5", "clock=teacher"), 1, 1, 1),
        shifted(Arm("self_kd[idle_heads=drifting]", "4"), -3, -2, -1),
    ).set_index("switch")
    first = "method.target: before"
    assert list(table.index[:3]) == [first, "method.soft_loss: kl_of_probabilities", "clock: teacher"]
    assert list(table["letter"]) == ["O6", "O1", "O10", "S10"]
    assert table.loc[first, "s = 0"].startswith("+3.50 ± 0.71 (2 of 3 seeds), [-2.85, +9.85]")
    assert table.loc[first, "effect of spacing"].startswith("-3.50 ± 0.71 (2 of 3 seeds)")  # spaced KD is as it was
    assert table.loc[first, "s > 0"] == "–"
    soft = table.loc["method.soft_loss: kl_of_probabilities"]
    low, high = statistics.paired_interval([0.5, 1.0, 1.5])
    assert soft["s = 0"] == f"+1.00 ± 0.50 (3), [{low:+.2f}, {high:+.2f}]"
    assert soft["s > 0"].startswith("+0.50 ± 0.00 (3)")
    assert soft["effect of spacing"].startswith("-0.50 ± 0.50 (3)")
    assert table.loc["clock: teacher", "s > 0"].startswith("+0.00 ± 0.00 (3)")
    idle = table.loc["method.idle_heads: drifting"]
    assert idle["s > 0"].startswith("-4.00 ± 1.00 (3)")
    assert idle["effect of spacing"] == idle["s > 0"]


def test_the_whole_set_has_a_line_of_its_own_and_is_last(paper_arms):
    released = [
        shifted(Arm("online_kd", "0", "protocol=released_loop_only"), 9, 9, 8),
        shifted(Arm("online_kd", "1.5", "protocol=released_loop_only"), 11, 11, 11),
    ]
    table = draw("switches", *paper_arms, *released, shifted(Arm("online_kd[adapter=mlp]", "0"), 1, 1, 2))
    assert list(table["switch"]) == ["method.adapter: mlp", "all of them: protocol released_loop_only"]
    assert table.iloc[1]["s > 0"].startswith("+10.00 ± 0.00 (3)")
    assert table.iloc[1]["effect of spacing"].startswith("+1.33 ± 0.58 (3)")


def test_single_switches_stand_on_top_of_their_reading():
    plain, reading = "epochs=10 lr=0.1", "epochs=10 lr=0.1 protocol=paper"
    late = shifted(Arm("online_kd", "1.5"), 2, 2, 2, recipe=f"clock=learner {reading}")
    nearest = shifted(SELF, -1, -1, -1, recipe=reading).assign(network="n[attention=nearest]")
    table = draw(
        "switches",
        shifted(ONLINE, 0, 0, 0, recipe=reading),
        shifted(SPACED, 1, 1, 1, recipe=reading),
        shifted(SELF, 0, 0, 0, recipe=reading),
        shifted(Arm("online_kd[feature_loss=mse]", "0"), 4, 4, 4, recipe=reading),
        shifted(Arm("online_kd[feature_loss=mse]", "1.5"), 4, 5, 6, recipe=reading),
        shifted(Arm("online_kd[feature_loss=mse]", "1.5"), 7, 7, 7, recipe=plain),  # of another reading
        shifted(Arm("online_kd[adapter=linear,feature_loss=mse]", "0"), 9, 9, 9, recipe=reading),  # two switches
        shifted(Arm("online_kd[alpha=0.5]", "0"), 9, 9, 9, recipe=reading),  # no switch
        late,
        nearest.assign(teacher="n[attention=nearest]"),
    ).set_index("switch")
    assert list(table.index) == ["method.feature_loss: mse", "clock: learner", "network.attention: nearest"]
    assert list(table["letter"]) == ["O4", "O10", "B2"]
    feature = table.loc["method.feature_loss: mse"]
    assert feature["s = 0"].startswith("+4.00 ± 0.00 (3)")
    assert feature["s > 0"].startswith("+4.00 ± 1.00 (3)")
    assert feature["effect of spacing"].startswith("+0.00 ± 1.00 (3)")
    assert table.loc["clock: learner", "s > 0"].startswith("+1.00 ± 0.00 (3)")
    assert table.loc["network.attention: nearest", "s = 0"].startswith("-1.00 ± 0.00 (3)")


def test_every_switch_has_the_letter_of_the_protocols_files():
    documented = [line for path in presets.PROTOCOLS.glob("*.yaml") for line in path.read_text().splitlines()]
    for method, letters in switches.LETTERS.items():
        for base in switches.BASES[method].values():
            assert set(switches._released(method, base)) <= set(letters)
        for key, letter in letters.items():
            assert any(f"{key}:" in line and re.search(rf"#.*\b{letter}\b", line) for line in documented), (key, letter)


def test_the_experiment_has_every_switch_of_the_table():
    found = {(run.method, key) for run in load_study(EXPERIMENTS / "released_code.yaml").runs for key in run.changed()}
    for method, letters in switches.LETTERS.items():
        lacking = {key for key in letters if (method, key) not in found}
        assert lacking <= {"batch_norm"}, method  # of self KD


def test_controls_are_their_references_with_one_thing_out():
    trails = Arm("online_kd[alpha=0.0,beta=0.0]", "0")
    longer = Arm("self_kd", "0", "epochs=x2")
    table = draw(
        "controls",
        shifted(ONLINE, 0, 0, 0, flops=7.0),
        shifted(SPACED, 1.0, 1.2, 0.9, flops=7.0),
        shifted(SPACED_SELF, 1, 1, 1, flops=5.6),
        shifted(trails, -1.0, 0.5, 2.0),
        shifted(longer, 0.5, None, 1.2, flops=6.0),
    ).set_index("control")
    assert list(table.index) == ["online KD", "student only trails, s = 0", "self KD, as many steps"]
    assert list(table["reference"]) == ["Spaced KD, s = 1.5", "online KD", "Spaced self KD, s = 4"]
    differences = [[-1.0, -1.2, -0.9], [-1.0, 0.5, 2.0], [-0.5, 0.2]]
    p = [statistics.paired_test(d) for d in differences]
    family = statistics.holm(p[1:])  # what spacing as a whole brings is a claim, and none of the controls
    adjusted = [p[0], *family.p], [0.05, *family.levels]
    for line, d, p, level in zip(table.itertuples(), differences, *adjusted, strict=True):
        low, high = statistics.paired_interval(d, level)
        assert f"{np.mean(d):+.2f} ± {np.std(d, ddof=1):.2f}" in line[5]
        assert line[5].endswith(f"[{low:+.2f}, {high:+.2f}]")
        assert float(line.p) == pytest.approx(p, rel=0.05)
    assert list(table["FLOPs"]) == ["1", "–", "1.07"]
    assert "(2 of 3 seeds)" in table.loc["self KD, as many steps", "control − reference"]


@pytest.mark.parametrize(("lost", "weight"), [("soft", "alpha"), ("feature", "beta")])
def test_what_spacing_brings_without_a_loss_is_told_of_arms_without_it(lost, weight):
    (control,) = (each for each in controls.CONTROLS if each.apart == f"spacing, without the {lost} loss")
    assert control.arm == Arm(f"online_kd[{weight}=0.0]", "0")
    assert control.reference == Arm(f"online_kd[{weight}=0.0]", "1.5")


def test_controls_that_protocols_share_stand_once():
    longer = Arm("baseline", "", "epochs=x2")
    plain = tidy_rows.join(shifted(BASELINE, 0, 0, 0), shifted(longer, 1.0, 1.2, 0.9))
    table = draw("controls", plain, plain.assign(recipe=plain["recipe"] + " protocol=released_loop_only"))
    assert list(table["takes out"]) == ["half of the steps"]


def test_the_adaptive_interval_stands_beside_fixed_ones_and_what_it_found():
    adaptive = Arm("adaptive_interval", "0")
    found = runs(adaptive, [0.8, 0.9, 1.3])
    found = found.assign(evaluation="schedule", metric="mean_interval", selection=float("nan"))
    table = draw(
        "adaptive",
        shifted(ONLINE, 0, 0, 0, flops=7.0),
        shifted(SPACED, 1.0, 1.2, 0.9, flops=7.0),
        shifted(adaptive, 1.5, 1.0, 2.0, flops=14.0),
        found,
    ).set_index("against")
    assert list(table.index) == ["online KD", "Spaced KD, s = 1.5"]
    assert set(table["interval found"]) == {"1.00 ± 0.26 (3)"}
    differences = [[1.5, 1.0, 2.0], [0.5, -0.2, 1.1]]
    family = statistics.holm([statistics.paired_test(d) for d in differences])
    for line, d, p, level in zip(table.itertuples(), differences, *family, strict=True):
        low, high = statistics.paired_interval(d, level)
        assert line[4] == f"{np.mean(d):+.2f} ± {np.std(d, ddof=1):.2f} (3), [{low:+.2f}, {high:+.2f}]"
        assert float(line.p) == pytest.approx(p, rel=0.05)
    assert list(table["FLOPs"]) == ["2", "2"]


def test_the_table_has_every_control_of_the_experiment():
    content = load_text("controls")
    content["grids"] = [grid for grid in content["grids"] if not {"order_seed", "augmentation_seed"} & set(grid)]
    recipe = "epochs=10 eval_every=5 precision=bf16"
    known = {
        arm._replace(recipe=changed(recipe, arm.recipe))
        for control in controls.CONTROLS
        for arm in (control.arm, control.reference)
    }
    run = set()
    for each in expand(content).runs:
        result = labels.labels(each)
        run.add(Arm(result["method"], result["interval"], result["recipe"]))
    assert run == known


@pytest.mark.skipif("order_seed" not in {f.name for f in fields(RunSpec)}, reason="no run draws its order alone anew")
def test_the_noise_floor_is_five_draws_of_each_arm():
    drawn = [run for run in load_study(EXPERIMENTS / "controls.yaml").runs if re.search("_seed=", str(run.overrides()))]
    assert len(drawn) == 2 * 5 * 3
    assert {run.seed for run in drawn} == {0}


def test_seed_noise_and_what_it_leaves_to_see(paper):
    rng = np.random.default_rng(0)
    gains = rng.normal(0, 0.4, (2, 10))
    online = 70 + rng.normal(0, 3, 10)
    frames = [runs(arm, values) for arm, values in ((BASELINE, online - 1 + gains[0]), (ONLINE, online))]
    frames.append(runs(SPACED, online + gains[1]))
    for draw_number, value in enumerate([70.1, 70.3, 70.2, 69.9, 70.0], 1):
        frames.append(runs(ONLINE, [value], recipe=f"{PLAIN} order_seed={draw_number}", seed=0))
        frames.append(runs(SPACED, [value + draw_number], recipe=f"{PLAIN} order_seed={draw_number}", seed=0))
        frames.append(runs(ONLINE, [50.0], recipe=f"{PLAIN} order_seed={draw_number}", seed=7))  # another seed's
    table = draw("seed_noise", *frames, paper).set_index("accuracy")
    assert list(table["seeds"].str.extract(r"\((\d+)\)")[0]) == ["10"] * 5
    assert table.loc["online KD", "order alone"] == f"{np.std([70.1, 70.3, 70.2, 69.9, 70.0], ddof=1):.2f} (5)"
    assert table.loc["online KD", "augmentation alone"] == "–"
    change = table.loc["Spaced KD, s = 1.5 − online KD"]
    assert change["order alone"] == f"{np.std([1, 2, 3, 4, 5], ddof=1):.2f} (5)"
    s = np.std(gains[1], ddof=1)
    least = statistics.detectable(s, 3)
    assert change["seeds"] == f"{gains[1].mean():+.2f} ± {s:.2f} (10)"
    assert change["n = 3 resolves"] == f"{least:.2f}"
    accuracy = paper[(paper["table"] == "tab01") & (paper["metric"] == "accuracy") & (paper["method"] == "online_kd")]
    cells = accuracy.set_index(["dataset", "network", "interval"])["value"].unstack()
    assert change["paper's larger, n = 3"] == f"{((cells['1.5'] - cells['0']) > least).sum()} of 14"
    assert table.loc["online KD", "n = 3 resolves"] == "–"


def test_rounding_stands_beside_order_and_augmentation(paper):
    recipes = {"": [0.0, 0.0, 0.0], "threads=2": [0.3, -0.2, 0.1], "precision=bf16 threads=2": [-0.5, 0.4, 1.0]}
    frames = [shifted(arm, *recipes[""], recipe=PLAIN) for arm in (ONLINE, SPACED)]
    for arguments, apart in list(recipes.items())[1:]:
        recipe = " ".join(sorted([*PLAIN.split(), *arguments.split()]))
        frames += [
            shifted(ONLINE, *apart, recipe=recipe),
            shifted(SPACED, *(2 * each for each in apart), recipe=recipe),
        ]
    frames.append(shifted(ONLINE, 9, 9, 9, recipe=f"{PLAIN} momentum=0.5"))  # no rounding
    table = draw("seed_noise", *frames, paper)
    plain = table[table["recipe"] == PLAIN].set_index("accuracy")
    pooled = np.sqrt(np.mean(np.var(list(recipes.values()), axis=0, ddof=1)))
    assert plain.loc["online KD", "rounding alone"] == f"{pooled:.2f} (9)"
    assert plain.loc["Spaced KD, s = 1.5", "rounding alone"] == f"{2 * pooled:.2f} (9)"
    assert plain.loc["Spaced KD, s = 1.5 − online KD", "rounding alone"] == f"{pooled:.2f} (9)"
    assert set(table[table["recipe"] == f"{PLAIN} momentum=0.5"]["rounding alone"]) == {"–"}
    assert set(table["endpoint"]) == {"last"}
    other = load_study(EXPERIMENTS / "rounding_noise.yaml")
    assert {(run.precision, run.threads) for run in other.runs} == {(p, t) for p in ("fp32", "bf16") for t in (1, 2)}
    shared = {run.id for run in other.runs} & {run.id for run in load_study(EXPERIMENTS / "seed_noise.yaml").runs}
    assert len(shared) == 9  # in bf16, by one thread


def test_repeats_of_one_seed_are_no_line_of_other_tables(paper):
    frames = [shifted(BASELINE, 0, 0, 0), shifted(ONLINE, 0, 1, 2), shifted(SPACED, 1, 2, 4)]
    anew = [shifted(arm, 5, 6, 7, recipe=f"{PLAIN} order_seed=1") for arm in (ONLINE, SPACED)]
    other = [shifted(arm, 5, 6, 7, recipe=f"{PLAIN} initial_weights=different") for arm in (ONLINE, SPACED)]
    assert draw("tab01", *frames, paper).equals(draw("tab01", *frames, *anew, paper))
    assert draw("overview", *frames, paper).equals(draw("overview", *frames, *anew, *other, paper))


def test_the_overview_tells_recipes_apart_and_seeds_that_are_missing(paper):
    frames = [shifted(BASELINE, 0, 0, 0), shifted(ONLINE, 0, 1, 2)]
    other = {"recipe": "epochs=9 lr=0.2"}
    table = draw("overview", *frames, shifted(BASELINE, 1, 5, 9, **other), shifted(ONLINE, 1, 5, None, **other), paper)
    lines = table.to_dict("records")
    assert [(line["our setting"].split(", ")[-2], line["ours"], line["adjusted 95 %"]) for line in lines] == [
        ("epochs=10 lr=0.1", "+1.00 ± 1.00 (3)", "[-1.48, +3.48] (main claims, m = 1)"),
        ("epochs=9 lr=0.2", "+0.00 (2 of 3 seeds)", "–"),  # equal differences tell nothing of their spread
    ]


def test_equal_differences_have_no_p_and_no_part_in_the_family():
    changes = {
        name: PairedDifferences(pd.Series(values), {0, 1, 2}) for name, values in (("a", [1.0] * 3), ("b", [1, 2, 4.0]))
    }
    result = family(changes)
    assert result["a"][1] == "–"
    assert result["b"] == family({"b": changes["b"]})["b"]


PAPER = yaml.safe_load((ROOT / "config/studies/paper.yaml").read_text())["experiments"]


def test_the_paper_draws_each_of_its_tables_and_figures_once():
    files = [yaml.safe_load((EXPERIMENTS / f"{name}.yaml").read_text()) for name in PAPER]
    assert [content["study"] for content in files] == PAPER
    for kind, pattern in (("tables", r"tab\d\d|hessian_trace"), ("figures", r"fig\d\d|fig_hessian_trace")):
        drawn = sorted(name for content in files for name in content.get(kind, []))
        assert drawn == [name for name in registry.names(kind) if re.fullmatch(pattern, name)]


@pytest.mark.skipif("imagenet1k" not in registry.names("datasets"), reason="without the dataset ImageNet-1K")
def test_the_paper_is_the_union_of_its_experiments_with_the_recipes_of_its_text():
    study = load_study(ROOT / "config/studies/paper.yaml")
    assert len(study.runs) < sum(len(part.runs) for part in study.parts)
    assert {run.seed for run in study.runs} == {0, 1, 2}
    transformers = [run for run in study.runs if {run.network, run.teacher} & {"deit_tiny", "pit_tiny"}]
    assert {(run.optimizer, run.epochs, run.augmentation) for run in transformers} == {("adamw", 300, "strong")}
    others = [run for run in study.runs if run not in transformers]
    assert {(run.optimizer, run.epochs, run.weight_decay, run.lr_schedule) for run in others} == {
        ("sgd", 80, 5e-4, "constant")
    }


COARSE = ONLINE._replace(recipe="precision=bf16")


def test_precision_sets_coarser_runs_beside_the_same_in_float32():
    better = [d + 1 for d in (0.1, -0.1, 0.0)]
    table = draw("precision", shifted(ONLINE, 0, 0, 0), shifted(COARSE, *better))
    (line,) = table.to_dict("records")
    low = statistics.paired_interval(np.array(better), 0.1).low
    assert line["less float32"] == "+1.00 ± 0.10 (3)"
    assert (line["precision"], line["at least"], line["not inferior"]) == ("bf16", f"{low:+.2f}", "yes")


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ((-0.1, 0.0, -0.05), "yes"),
        ((-1.0, -1.1, -0.9), "no"),
        ((-1.0, 1.0, 0.3), "undecided, 73 seeds would tell"),
        ((0.5, None, None), "–"),
    ],
)
def test_a_coarser_precision_is_inferior_where_it_lies_below_the_margin(differences, verdict):
    (line,) = draw("precision", shifted(ONLINE, 0, 0, 0), shifted(COARSE, *differences)).to_dict("records")
    assert line["not inferior"] == verdict


def test_precision_needs_both():
    with pytest.raises(UserError, match="the same in fp32 and in bf16"):
        draw("precision", shifted(ONLINE, 0, 0, 0))


def test_no_table_mixes_precisions_but_the_one_that_compares_them():
    grid = {"dataset": "digits", "network": "resnet_mini", "method": "baseline", "seed": 0}
    study = {"study": "trial", "grids": [grid | {"precision": ["fp32", "bf16"]}], "tables": ["precision"]}
    expand(study)
    with pytest.raises(
        UserError, match="cost would mix precisions, since digits, resnet_mini is trained in bf16 and fp32"
    ):
        expand(study | {"tables": ["precision", "cost"]})
    with pytest.raises(UserError, match="fig02 would mix precisions"):
        expand(study | {"figures": ["fig02"]})
    apart = [grid | {"precision": "fp32"}, grid | {"precision": "bf16", "network": "vit_mini"}]
    expand(study | {"grids": apart, "tables": ["cost"]})


def test_selection_shows_what_choosing_an_epoch_on_test_is_worth():
    def chosen(arm, **values):
        rows = runs(arm, BASE)
        return tidy_rows.join(*(rows.assign(selection=name, value=value) for name, value in values.items()))

    table = draw(
        "selection",
        chosen(ONLINE, last=70.0, best=72.5, halves=71.0),
        *(chosen(ONLINE, curve=value).assign(epoch=epoch) for epoch, value in ((1, 72.5), (2, 70.0))),
        chosen(SPACED, last=71.0, best=72.0, halves=71.0),
        chosen(SPACED, curve=71.0).assign(epoch=1),
    ).set_index("accuracy")
    online, spacing = table.loc["online KD"], table.loc["Spaced KD, s = 1.5 − online KD"]
    assert list(online[["evaluated", "last", "best on test", "by halves"]]) == [
        *("2", "70.00 ± 0.00 (3)", "72.50 ± 0.00 (3)", "71.00 ± 0.00 (3)")
    ]
    assert [spacing[name][:5] for name in ("last", "best on test", "by halves")] == ["+1.00", "-0.50", "+0.00"]
    assert spacing["evaluated"] == "1, 2"
    assert "held out" not in table  # no run holds images out
    assert spacing["signs"] == "last +, best on test −, by halves (0)"
    assert spacing["endpoint"] == "last"  # no run has a tail
    assert spacing["states"] == "–"
    with pytest.raises(UserError, match=r"selection needs runs of online_kd with interval 0 and 1\.5"):
        draw("selection", runs(BASELINE, BASE))


def test_the_endpoint_is_the_tail_where_every_run_has_one():
    def ended(arm, values, tails):
        tail = runs(arm, tails).assign(selection="tail", states=8.0)
        return tidy_rows.join(runs(arm, values), tail[tail["value"].notna()])

    online, noisy = ended(ONLINE, BASE, BASE), [base + change for base, change in zip(BASE, (1, 5, -3), strict=True)]
    whole = ended(SPACED, noisy, [base + change for base, change in zip(BASE, (0.9, 1.0, 1.1), strict=True)])
    result = draw("selection", online, whole).set_index("accuracy").loc["Spaced KD, s = 1.5 − online KD"]
    assert result["endpoint"] == "tail"
    assert result["states"] == "8"
    assert result["tail"] == "+1.00 ± 0.10 (3), [+0.75, +1.25]"
    assert result["signs"] == "tail +, last (+)"
    cut = ended(SPACED, noisy, [BASE[0], None, BASE[2]])  # of one run no tail is known
    result = draw("selection", online, cut).set_index("accuracy")
    assert result.loc["online KD", "endpoint"] == "tail"
    assert result.loc["Spaced KD, s = 1.5", "endpoint"] == "last"
    assert result.loc["Spaced KD, s = 1.5 − online KD", "endpoint"] == "last"
