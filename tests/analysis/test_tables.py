import io
import re
import statistics

import pandas as pd
import pytest

from spaced_kd.analysis import latex, reference, tidy_rows
from spaced_kd.analysis.cells import texts
from spaced_kd.analysis.render import caption, render, table_files
from spaced_kd.analysis.statistics import paired_interval
from spaced_kd.analysis.tables import tab04
from spaced_kd.config import registry
from spaced_kd.utils.errors import UserError

NETWORK = {"dataset": "digits", "network": "resnet_mini", "teacher": "resnet_mini"}
LAST = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last", "epoch": 20}


def study(*runs, **common):
    """Rows of a made-up study: each run is (method, interval, {seed: value, or None where it is missing})."""
    rows = []
    for method, interval, values in runs:
        for seed, value in values.items():
            run = NETWORK | {"source": "ours", "study": "s", "run": f"{method}-{interval}-{seed}", "seed": seed}
            run |= {"method": method, "interval": interval}
            row = LAST | common | {"value": value}
            rows.append(run | (row if value is not None else {"evaluation": row["evaluation"], "metric": "missing"}))
    return tidy_rows.join(pd.DataFrame(rows))


@pytest.fixture(scope="session")
def paper(request):
    return reference.read_reference(request.config.rootpath / "src/spaced_kd/config/preset_files/reference.csv")


BASELINE = ("baseline", "", {0: 90.0, 1: 91.0, 2: 92.0})
ONLINE = ("online_kd", "0", {0: 92.0, 1: 92.5, 2: 94.0})
SPACED = ("online_kd", "1.5", {0: 93.0, 1: 94.0, 2: 94.5})
INTERVAL = "[-0.24, +2.24]"  # 95 % of the mean of 1, 1.5 and 0.5: 1 ± 4.303 · 0.5 / √3


def draw(name, *frames):
    """A table's text."""
    return texts(registry.find("tables", name)(tidy_rows.join(*frames)))


def ours(table):
    return table[table["source"] == "ours"].iloc[0]


def test_tab01_has_means_deviations_and_paired_difference():
    row = ours(draw("tab01", study(BASELINE, ONLINE, SPACED)))
    assert row["dataset"] == "digits"
    assert row["w/o KD"] == "91.00 ± 1.00 (3)"
    assert row["online KD"] == f"92.83 ± {statistics.stdev([92, 92.5, 94]):.2f} (3)"
    assert row["Spaced KD, s = 1.5"] == f"93.83 ± {statistics.stdev([93, 94, 94.5]):.2f} (3)"
    assert (
        row["Δ to online KD"] == f"+1.00 ± 0.50 (3), {INTERVAL}"
    )  # 1, 1.5, 0.5: the spread of pairs, not of the two columns


def test_the_csv_file_has_the_numbers_of_each_cell():
    gap = ("online_kd", "1.5", {0: 93.0, 1: None, 2: 94.5})
    table = registry.find("tables", "tab01")(study(ONLINE, gap))
    file = pd.read_csv(io.BytesIO(table_files("tab01", "", table)["csv"]))
    row = file[file["source"] == "ours"].iloc[0]
    assert row["online KD: mean"] == pytest.approx(statistics.mean([92, 92.5, 94]), abs=1e-12)
    assert row["online KD: sd"] == pytest.approx(statistics.stdev([92, 92.5, 94]), abs=1e-12)
    assert (row["Spaced KD, s = 1.5: n"], row["Spaced KD, s = 1.5: planned"]) == (2, 3)
    limits = row["Δ to online KD: low"], row["Δ to online KD: high"]
    assert limits == pytest.approx(paired_interval([1.0, 0.5]), abs=1e-12)
    assert row["Δ to online KD: level"] == 0.95
    assert row["Δ to online KD"] == "+0.75 ± 0.35 (2 of 3 seeds), [-2.43, +3.93]"
    assert not {"network: mean", "online KD: low"} & {*file}  # columns without such a number


def test_batch_norm_shows_what_the_lag_of_statistics_costs():
    trained = study(BASELINE, ONLINE, evaluation="batch_norm_reestimated", metric="accuracy_as_trained")
    anew = ("online_kd", "0", {0: 93.0, 1: 94.0, 2: 94.5}), ("baseline", "", {0: 90.0, 1: 91.0, 2: None})
    table = draw("batch_norm", trained, study(*anew, evaluation="batch_norm_reestimated"))
    assert list(table["arm"]) == ["w/o KD", "online KD"]
    assert list(table["re-estimated"]) == ["90.50 ± 0.71 (2 of 3 seeds)", "93.83 ± 0.76 (3)"]
    assert table["Δ"].iloc[1] == f"+1.00 ± 0.50 (3), {INTERVAL}"
    with pytest.raises(UserError, match="batch_norm needs runs of"):
        draw("batch_norm", study(BASELINE, ONLINE))


def test_difference_is_paired_by_seed_not_by_position():
    shuffled = ("online_kd", "1.5", {2: 94.5, 0: 93.0, 1: 94.0})
    assert ours(draw("tab01", study(ONLINE, shuffled)))["Δ to online KD"] == f"+1.00 ± 0.50 (3), {INTERVAL}"


def test_missing_seeds_are_said():
    gap = ("online_kd", "1.5", {0: 93.0, 1: None, 2: 94.5})
    row = ours(draw("tab01", study(ONLINE, gap)))
    assert row["online KD"].endswith("(3)")
    assert row["Spaced KD, s = 1.5"] == "93.75 ± 1.06 (2 of 3 seeds)"
    assert row["Δ to online KD"] == "+0.75 ± 0.35 (2 of 3 seeds), [-2.43, +3.93]"
    nothing = ("online_kd", "1.5", dict.fromkeys(range(3)))
    assert ours(draw("tab01", study(ONLINE, nothing)))["Spaced KD, s = 1.5"] == "– (0 of 3 seeds)"


def test_more_seeds_of_another_method_are_not_missing():
    row = ours(draw("tab01", study(BASELINE, ONLINE, ("online_kd", "1.5", {0: 93.0, 1: 94.0}))))
    assert row["Spaced KD, s = 1.5"].endswith("(2)")
    assert row["Δ to online KD"] == "+1.25 ± 0.35 (2), [-1.93, +4.43]"


def test_one_seed_has_no_deviation():
    row = ours(draw("tab01", study(("online_kd", "0", {0: 92.0}), ("online_kd", "1.5", {0: 91.5}))))
    assert row["online KD"] == "92.00 (1)"
    assert row["Δ to online KD"] == "-0.50 (1)"


def test_what_a_study_lacks_is_absent_and_what_one_network_lacks_was_not_run():
    assert "w/o KD" not in draw("tab01", study(ONLINE, SPACED))
    other = study(ONLINE, network="", teacher="").assign(network="vit_mini", teacher="vit_mini")
    table = draw("tab01", study(ONLINE, SPACED), other).set_index("network")
    assert table.loc["vit_mini", "Spaced KD, s = 1.5"] == "not run"
    assert table.loc["vit_mini", "Δ to online KD"] == "not run"


def test_a_network_without_runs_of_kd_has_no_line():
    other = study(BASELINE).assign(network="vit_mini", teacher="vit_mini")
    table = draw("tab01", study(BASELINE, ONLINE, SPACED), other)
    assert list(table["network"]) == ["resnet_mini"]


def test_only_the_last_epoch_counts():
    rows = tidy_rows.join(study(ONLINE, SPACED), study(ONLINE, SPACED, selection="best").assign(value=99.0))
    assert ours(draw("tab01", rows))["online KD"].startswith("92.83")


def test_students_of_another_teacher_are_left_out():
    other = study(ONLINE).assign(teacher="vit_mini", value=50.0)
    assert ours(draw("tab01", study(ONLINE), other))["online KD"].startswith("92.83")


def test_paper_has_its_own_rows(paper):
    table = draw("tab01", study(ONLINE, SPACED, BASELINE), paper)
    assert (table["source"] == "paper").sum() == 14
    table = table.set_index(["dataset", "network", "source"])
    assert list(table.loc["tiny_imagenet", "resnet50", "paper"]) == ["56.41", "60.99", "63.30", "+2.31"]
    assert set(table.loc["tiny_imagenet", "resnet50", "ours"]) == {"not run"}


def test_paper_and_the_difference_to_it_stand_below_the_same_dataset_and_network(paper):
    rows = study(ONLINE, SPACED).assign(dataset="tiny_imagenet", network="resnet50", teacher="resnet50")
    table = draw("tab01", rows, paper)
    place = table.index[(table["network"] == "resnet50") & (table["dataset"] == "tiny_imagenet")]
    assert list(table.loc[place, "source"]) == ["ours", "paper", "ours − paper"]
    off = table.loc[place[2]]
    low, high = paired_interval([92 - 60.99, 92.5 - 60.99, 94 - 60.99])
    assert off["online KD"] == f"+31.84, [{low:+.2f}, {high:+.2f}]"
    assert off["Δ to online KD"].startswith("-1.31, [")
    assert table.loc[place[0] - 1, "network"] == "resnet18"


def test_doubtful_cells_of_the_paper_have_footnotes(paper):
    table = draw("tab01", study(BASELINE, ONLINE, SPACED), paper)
    cell = table[(table["network"] == "resnet101") & (table["source"] == "paper")].iloc[0]["Spaced KD, s = 1.5"]
    assert cell == "73.22ᵃ"
    assert ("ᵃ", "Tab. 6 has this at interval 1 and 2, and 72.91 at 1.5") in table.attrs["notes"]
    teachers = draw("tab08", taught(), paper).set_index(["teacher", "source"])
    assert teachers.loc[("pit_tiny", "paper"), "w/o KD"].startswith("73.78")
    assert len(teachers.loc[("pit_tiny", "paper"), "w/o KD"]) == len("73.78") + 4  # four doubts, a mark each


def test_what_the_paper_does_not_give_as_text_is_not_available(paper):
    rows = study(ONLINE, SPACED).assign(dataset="cifar100", network="resnet18", teacher="resnet18")
    table = draw("tab07", rows, study(ONLINE), paper)
    assert list(table["source"]) == ["ours", "ours", "paper"]  # digits are in no table of the paper
    assert set(table.iloc[-1][["online KD", "Spaced KD, s = 1.5"]]) == {"not available"}


def test_a_number_of_the_paper_for_a_cell_that_is_not_there_is_refused(paper):
    odd = paper.assign(interval=paper["interval"].mask((paper["table"] == "tab01") & (paper["value"] == 72.43), "1.4"))
    with pytest.raises(UserError, match=r"cell that tab01 has not: accuracy cifar100 resnet18 online_kd 1\.4: correct"):
        draw("tab01", study(ONLINE, SPACED), odd)


def test_two_recipes_have_a_line_each():
    rows = tidy_rows.join(study(ONLINE, SPACED, recipe="lr=0.1"), study(ONLINE, recipe="lr=0.2"))
    assert list(draw("tab01", rows)["recipe"]) == ["lr=0.1", "lr=0.2"]


def test_two_values_for_one_cell_are_refused():
    with pytest.raises(UserError, match="online_kd-0-1"):
        draw("tab01", study(ONLINE, SPACED), study(("online_kd", "0", {1: 80.0})))


def test_tab02(paper):
    table = draw(
        "tab02", study(BASELINE, ("self_kd", "0", {0: 90.0, 1: 91.0}), ("self_kd", "4", {0: 93.0, 1: 95.0})), paper
    )
    assert ours(table)["Δ to self KD"] == "+3.50 ± 0.71 (2), [-2.85, +9.85]"
    assert (table["source"] == "paper").sum() == 10


def test_tab06_has_every_interval_of_the_study_in_order(paper):
    longer, offline = ("online_kd", "10", {0: 91.0, 1: 91.5, 2: 93.0}), ("online_kd", "max", {0: 90.0})
    table = draw("tab06", study(offline, longer, SPACED, ONLINE), paper)
    heads = ["online KD", "Spaced KD, s = 1.5", "Spaced KD, s = 10", "offline KD"]
    assert list(table.columns) == ["dataset", "network", "source", *heads]
    below = table[table["source"] == "ours − online KD"].iloc[0]
    assert list(below[heads]) == ["–", f"+1.00 ± 0.50 (3), {INTERVAL}", "-1.00 ± 0.00 (3), [-1.00, -1.00]", "-2.00 (1)"]
    first = table[table["source"] == "paper"].iloc[0]
    assert list(first[heads]) == ["71.05", "72.43", "–", "72.22ᵃ"]


def corruptions(*runs):
    kinds = [(name, severity) for name in ("snow", "impulse_noise") for severity in (1, 3, 5)]
    return [
        study(*runs, evaluation="corruptions", selection=None, epoch=None, corruption=name, severity=severity)
        for name, severity in kinds
    ]


@pytest.mark.parametrize(("name", "severities", "lines"), [("tab05", {"1"}, 0), ("tab11", {"3", "5"}, 36)])
def test_corruptions(name, severities, lines, paper):
    table = draw(name, *corruptions(ONLINE, SPACED), paper)
    mine = table[(table["source"] == "ours") & (table["dataset"] == "digits")]
    assert set(mine["severity"]) == severities
    assert list(dict.fromkeys(mine["corruption"])) == ["impulse_noise", "snow"]  # as the paper has them
    assert set(mine["Δ to online KD"]) == {f"+1.00 ± 0.50 (3), {INTERVAL}"}
    assert (table["source"] == "paper").sum() == lines


def test_run_that_was_not_evaluated_lacks_in_every_line():
    frames = corruptions(ONLINE, ("online_kd", "1.5", {0: 93.0, 1: 94.0}))
    missing = study(("online_kd", "1.5", {2: None}), evaluation="corruptions")
    table = draw("tab11", *frames, missing)
    assert len(table) == 4
    assert set(table["Spaced KD, s = 1.5"]) == {"93.50 ± 0.71 (2 of 3 seeds)"}


def test_tab12_has_a_line_for_each_budget(paper):
    frames = [study(ONLINE, SPACED, evaluation="bim", epsilon=e, steps=10) for e in (10.0, 0.5, 2.0)]
    table = draw("tab12", *frames, paper)
    assert list(table["epsilon"][:3]) == ["0.5", "2", "10"]
    assert list(table.iloc[-1][["epsilon", "online KD", "Δ to online KD"]]) == ["–", "31.70ᵃ", "+1.99"]
    assert len(table) == 3 + 3  # the paper's budget is not known, so no run of ours is missing there


def taught(**arms):
    """A student of two other teachers, and the teachers alone."""
    student = study(ONLINE, SPACED, ("online_kd", "max", {0: 92.0, 1: 92.0, 2: 93.0}))
    frames = []
    for teacher, higher in (("vit_mini", 0.0), ("resnet_mini[width=0.5]", 1.0)):
        frames.append(student.assign(teacher=teacher, value=student["value"] + higher))
        frames.append(study(BASELINE).assign(network=teacher, teacher=teacher))
    return tidy_rows.join(*frames)


def test_tab08_has_a_line_for_each_teacher_with_the_teacher_alone(paper):
    table = draw("tab08", taught(), study(BASELINE, ONLINE), paper)
    mine = table[(table["source"] == "ours") & (table["dataset"] == "digits")].set_index("teacher")
    assert list(mine.index) == ["resnet_mini[width=0.5]", "vit_mini"]
    assert set(mine["network"]) == {"resnet_mini"}
    assert set(mine["w/o KD"]) == {"91.00 ± 1.00 (3)"}
    assert list(mine["online KD"]) == ["93.83 ± 1.04 (3)", "92.83 ± 1.04 (3)"]
    assert set(mine["Δ to online KD"]) == {f"+1.00 ± 0.50 (3), {INTERVAL}"}
    theirs = table[table["source"] == "paper"]
    assert list(theirs["teacher"][:4]) == [
        "resnet18_x2",
        "resnet18_x4",
        "resnet18_x8",
        "resnet50",
    ]  # as the paper has them
    assert len(theirs) == 7


def test_tab09_compares_to_offline_kd(paper):
    table = draw("tab09", taught(), study(ONLINE, SPACED), paper)
    assert set(ours(table[table["dataset"] == "digits"])[["offline KD"]]) == {"93.33 ± 0.58 (3)"}
    assert ours(table)["Δ to offline KD"].startswith("+1.50 ± 0.50 (3)")
    theirs = table[(table["source"] == "paper") & (table["teacher"] == "resnet18_x8")].iloc[0]
    assert theirs["offline KD"].startswith("73.04")


def test_below_a_table_stands_by_which_recipe_ours_were_trained(paper):
    table = draw("tab01", study(ONLINE, SPACED, recipe="epochs=5"), paper)
    assert ("", "Ours with 5 epochs: Digits, mini ResNet.") in table.attrs["notes"]
    both = draw("tab01", study(ONLINE, SPACED, recipe="epochs=5"), study(ONLINE, SPACED, recipe="epochs=6"), paper)
    assert "recipe" in both
    assert not any("Ours with" in text for _, text in both.attrs["notes"])


def test_tab03_has_a_line_for_each_loss_in_each_place():
    l1 = [("online_kd[soft_loss=l1]", "0", {0: 80.0}), ("online_kd[soft_loss=l1]", "1.5", {0: 81.0})]
    other = [("online_kd[feature_loss=l1]", "0", {0: 70.0}), ("online_kd[alpha=0.5]", "0", {0: 60.0})]
    table = draw("tab03", study(BASELINE, ONLINE, SPACED, *l1, *other))
    assert list(zip(table["soft_loss"], table["feature_loss"], strict=True)) == [
        ("kl", "l1"),
        ("kl", "mse"),
        ("l1", "mse"),
    ]
    assert list(table["online KD"]) == ["70.00 (1)", "92.83 ± 1.04 (3)", "80.00 (1)"]
    assert list(table["Δ to online KD"]) == ["not run", f"+1.00 ± 0.50 (3), {INTERVAL}", "+1.00 (1)"]


def test_tab04_has_a_line_for_each_method(paper):
    own = [("self_kd", "0", {0: 90.0, 1: 91.0}), ("self_kd", "4", {0: 93.0, 1: 95.0})]
    others = [(name, "0", {0: 60.0}) for name in ("online_kd[alpha=0.5]", "adaptive_interval")]
    table = draw("tab04", study(BASELINE, ONLINE, SPACED, *own, *others), paper).set_index("kd")
    assert list(table.index) == ["online_kd", "self_kd"]
    assert set(table["w/o KD"]) == {"91.00 ± 1.00 (3)"}
    assert list(table["KD"]) == ["92.83 ± 1.04 (3)", "90.50 ± 0.71 (2)"]
    assert list(table["Δ to KD"]) == [f"+1.00 ± 0.50 (3), {INTERVAL}", "+3.50 ± 0.71 (2), [-2.85, +9.85]"]


def test_tab04_has_readings_of_a_method_other_teachers_and_finished_ones(paper):
    runs = [("dml", "0", {0: 91.0, 1: 92.0}), ("dml", "1.5", {0: 92.0, 1: 93.5})]
    runs += [("dml[leader=alone]", "0", {0: 80.0}), ("dml[leader=alone]", "1.5", {0: 81.0})]
    small = [("takd", interval, {0: value}) for interval, value in (("0", 70.0), ("1.5", 72.0), ("max", 71.0))]
    small.append(("takd[spaced_links=last]", "1.5", {0: 74.5}))
    taught = study(*small).assign(teacher="resnet18 > resnet_mini")
    alone = study(BASELINE).assign(network="resnet18", teacher="resnet18")  # the teacher's own run makes no line
    tab08s = study(ONLINE).assign(teacher="resnet18")  # nor does online KD from other teachers
    table = draw("tab04", study(BASELINE, *runs), taught, alone, tab08s, paper).set_index("kd")
    chain = " from resnet18 > resnet_mini"
    assert list(table.index) == ["dml", "dml[leader=alone]", f"takd{chain}", f"takd[spaced_links=last]{chain}"]
    assert set(table["network"]) == {"resnet_mini"}
    assert set(table["w/o KD"]) == {"91.00 ± 1.00 (3)"}
    assert list(table["KD"]) == ["91.50 ± 0.71 (2)", "80.00 (1)", "70.00 (1)", "70.00 (1)"]
    assert list(table["offline KD"]) == ["not run", "not run", "71.00 (1)", "not run"]
    assert list(table["spaced KD"]) == ["92.75 ± 1.06 (2)", "81.00 (1)", "72.00 (1)", "74.50 (1)"]
    assert list(table["Δ to KD"]) == ["+1.25 ± 0.35 (2), [-1.93, +4.43]", "+1.00 (1)", "+2.00 (1)", "+4.50 (1)"]
    assert list(table["Δ to offline KD"]) == ["not run", "not run", "+1.00 (1)", "not run"]


def test_tab04_takes_the_network_that_dlb_trains_for_its_student_without_kd(paper):
    runs = [("dlb", "0", {0: 91.0, 1: 92.0}), ("dlb[student=alone]", "0", {0: 88.0, 1: 90.0}), ("dml", "0", {0: 80.0})]
    table = draw("tab04", study(BASELINE, *runs), paper).set_index("kd")
    assert list(table.index) == ["dlb", "dml"]
    assert list(table["w/o KD"]) == ["89.00 ± 1.41 (2)", "91.00 ± 1.00 (3)"]
    table = draw("tab04", study(BASELINE, runs[0], runs[2]), paper)
    assert list(table["w/o KD"]) == ["not run", "91.00 ± 1.00 (3)"]
    methods = registry.names("methods")
    other = [("dlb[alpha=2.0,student_beta=0.0]", "1.5", {0: 92.0}), ("dlb[alpha=2.0,student=alone]", "0", {0: 89.0})]
    table = draw("tab04", study(BASELINE, *runs, *other), paper).set_index("kd")
    assert list(table.index) == ["dlb", "dlb[alpha=2.0,student_beta=0.0]", "dml"]
    assert list(table["w/o KD"]) == ["89.00 ± 1.41 (2)", "89.00 (1)", "91.00 ± 1.00 (3)"]
    assert list(table["KD"])[1] == "not run"  # that of alpha 1 is another method
    assert {name for name in methods if "student" in registry.defaults("methods", name)} == tab04.ALONE


def test_tab10_sets_constant_leads_beside_the_papers(paper):
    leads = [("online_kd[lead=constant]", lead, {0: 92.0, 1: 92.0, 2: 94.0}) for lead in ("0.5", "3")]
    table = draw("tab10", study(BASELINE, ONLINE, SPACED, *leads), paper)
    heads = ["online KD", "constant lead, s = 0.5", "constant lead, s = 3"]
    assert list(table.columns) == ["dataset", "network", "source", *heads]
    below = table[table["source"] == "ours − online KD"].iloc[0]
    assert below[heads[1]].startswith("-0.17 ± 0.29 (3), [")
    assert list(table[table["source"] == "paper"].iloc[0][heads]) == ["71.05ᵃ", "70.67", "–"]


def test_hessian_trace():
    values = study(("online_kd", "0", {0: 1234.5, 1: 1300.0}), ("online_kd", "1.5", {0: 1000.0, 1: 1100.0}))
    row = ours(draw("hessian_trace", values.assign(evaluation="hessian_trace", metric="trace", stderr=3.0)))
    assert row["online KD"] == "1267 ± 46.32 (2)"
    assert row["Δ to online KD"] == "-217.2 ± 24.4 (2), [-436.4, +1.932]"
    assert "loss" not in row

    alone = study(BASELINE, ("baseline", "", {3: None}), evaluation="hessian_trace", metric="trace")
    both = [values.assign(evaluation="hessian_trace", metric=name) for name in ("trace", "kd_trace_reestimated")]
    both[1]["value"] -= 1000
    table = draw("hessian_trace", *both, alone)
    lines = table[table["source"] == "ours"].set_index("loss")
    assert list(lines["online KD"]) == ["1267 ± 46.32 (2)", "267.2 ± 46.32 (2)"]
    assert list(lines.index) == ["cross-entropy", "KD, re-estimated"]
    assert list(lines["w/o KD"]) == ["91 ± 1 (3 of 4 seeds)", "–"]  # who learnt from labels alone has no loss of KD


def complexities(*, lacking=()):
    """Rows of two students of each seed, each measured twice against two targets: C, and its alignment at T = 3."""
    frames = []
    for method, shift in (("online_kd", 1.0), ("online_kd", 0.0)):
        interval = "0" if shift else "1.5"
        for epoch in (0, 2):
            values = {seed: None if (interval, seed) in lacking else 2 + seed + shift + epoch for seed in range(3)}
            for target, temperature, metric, teacher_epoch in (
                ("hard", 1.0, "complexity", None),
                ("received", 3.0, "complexity", epoch + 1.5),
                ("received", 3.0, "alignment", epoch + 1.5),
            ):
                about = {"evaluation": "supervision_complexity", "metric": metric, "epoch": epoch, "target": target}
                about |= {"temperature": temperature, "teacher_epoch": teacher_epoch}
                frames.append(study((method, interval, values), **about))
    return tidy_rows.join(*frames)


def test_supervision_complexity_is_a_mean_over_epochs_and_paired_over_seeds():
    table = draw("supervision_complexity", complexities())
    assert list(table["T"]) == ["1", "1", "3", "3", "3"]
    assert list(table["target"])[:2] == ["labels"] * 2
    online, spaced, change = table[table["T"] == "3"].to_dict("records")
    assert (online["student"], online["C"]) == ("online KD", "5.000 ± 1.000 (3)")
    assert (spaced["student"], spaced["C"]) == ("Spaced KD, s = 1.5", "4.000 ± 1.000 (3)")
    assert change["student"] == "Spaced KD, s = 1.5 − online KD"
    assert change["C"] == "-1.000 ± 0.000 (3), [-1.000, -1.000]"
    assert change["alignment"] == "-1.00 ± 0.00 (3), [-1.00, -1.00]"
    assert change["margin (logits)"] == "–"


def test_supervision_complexity_says_which_seeds_are_missing():
    rows = complexities(lacking={("1.5", 1)})
    table = draw("supervision_complexity", rows)
    assert table[table["T"] == "3"]["C"].str.extract(r"(\(.*seeds\)|\(3\))")[0].tolist() == [
        "(3)",
        "(2 of 3 seeds)",
        "(2 of 3 seeds)",
    ]


@pytest.mark.parametrize(
    ("name", "need"),
    [
        ("supervision_complexity", "online_kd with interval 0 and 1.5, and their evaluation supervision_complexity:"),
        ("tab01", "online_kd with interval 0 and 1.5:"),
        ("tab02", "self_kd with interval 0 and 4:"),
        ("tab11", "evaluation corruptions with severity 3 and 5:"),
        ("tab12", "evaluation bim:"),
        ("tab03", "online_kd with interval 0 and 1.5:"),
        ("tab04", "online_kd with interval 0 and 1.5, and of self_kd with interval 0 and 4:"),
        ("tab07", "online_kd with interval 0 and 1.5:"),
        ("tab08", "online_kd with interval 0 and 1.5 and another teacher:"),
        ("tab09", "online_kd with interval 1.5 and max and another teacher:"),
        ("tab10", "constant_lead with interval 0.5 and 1 and 1.5 and 2 and 2.5, and of online_kd with interval 0:"),
        ("hessian_trace", "self_kd with interval 0 and 4, and their evaluation hessian_trace:"),
    ],
)
def test_study_without_the_runs_is_reported_which(name, need, paper):
    with pytest.raises(UserError, match=f"^{name} needs runs of .*{need} add them to the study") as error:
        draw(name, study(BASELINE), paper)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", registry.names("tables"))
def test_captions_start_with_a_short_line(name):
    assert 20 < len(registry.plugin("tables", name).summary) < 100
    assert "mean ± standard deviation over seeds (number of seeds)" in caption(name)


def test_rendered_files(tmp_path, paper):
    rows = tidy_rows.join(study(ONLINE, SPACED).assign(dataset="tiny_imagenet[classes=40]"), paper)
    paths = render("tab01", rows, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        f"tables/tab01.{ending}" for ending in ("csv", "md", "tex", "html")
    ]
    first = {path: path.read_bytes() for path in paths}
    assert first == {path: path.read_bytes() for path in render("tab01", rows, tmp_path)}
    csv, markdown, tex, page = (content.decode() for content in first.values())
    assert "92.83 ± 1.04 (3)" in csv
    assert "| 71.05 " in markdown
    note = "ᵃ Tab. 6 has this at interval 1 and 2, and 72.91 at 1.5"
    assert note in csv
    assert f"\n\n{note}\n" in markdown
    assert f"<p>{note}</p>" in page
    assert r"\noindent $^{a}$ Tab. 6 has this" in tex.partition(r"\end{longtable}")[2]
    assert "95 % interval" in markdown
    assert r"Tiny-ImageNet, 40 classes & mini ResNet & ours & 92.83 $\pm$ 1.04 (3)" in tex
    assert "| Tiny-ImageNet, 40 classes | mini ResNet " in markdown
    assert "tiny_imagenet[classes=40],resnet_mini,ours" in csv  # labels stay in CSV
    assert r"\toprule" in tex
    assert tex.count("Top-1 test accuracy") == 1  # the caption is not repeated on every page
    assert r"\label{tab:tab01}" in tex
    assert "<caption>Tab. 1: online KD" in page


@pytest.mark.parametrize("cells", [1, 3, 8, 14])
@pytest.mark.parametrize("arguments", [1, 4, 30])
def test_columns_of_latex_share_the_line(cells, arguments):
    texts = pd.DataFrame({f"column {n}": ["word " * arguments, "12.34"] for n in range(cells)})
    tex = latex.table("t", "A caption.", texts, ["A note."])
    widths = [float(width) for width in re.findall(r"p\{([\d.]+)\\linewidth\}", tex)]
    room = latex.LANDSCAPE if r"\begin{landscape}" in tex else latex.LINE
    if widths:
        assert len(widths) == cells
        assert sum(widths) <= 1 - latex.MARGIN * cells / room + 0.001 * cells
        assert min(widths) * room >= len("column") - 0.1  # no word is cut
    else:
        assert cells * (max(len("column 0"), 5 * arguments) + latex.MARGIN) <= room
    assert (r"\begin{landscape}" in tex) == (cells * (len("column") + latex.MARGIN) > latex.LINE)


def test_formats_escape_what_they_must():
    table = pd.DataFrame({"a|b": [r"x|y\z_%", "<b> & -0.5 –"], "n": ["53.10", "1"]})
    files = {ending: content.decode() for ending, content in table_files("t", "50% of <i>", table).items()}
    assert r"x\|y" in files["md"]
    assert r"a\|b" in files["md"]
    assert "| 53.10 |" in files["md"]
    assert r"x\textbar{}y\textbackslash{}z\_\%" in files["tex"]
    assert r"\textless{}b\textgreater{} \& $-$0.5 --" in files["tex"]
    assert r"50\% of" in files["tex"]
    assert "&lt;b&gt; &amp; -0.5" in files["html"]
    assert "50% of &lt;i&gt;" in files["html"]


def test_a_page_dims_what_repeats_breaks_long_texts_and_colours_verdicts():
    lines = [("a", "x", "supported"), ("a", "x", "supported"), ("b", "x", "y" * 50)]
    page = table_files("t", "c", pd.DataFrame(lines, columns=["one", "two", "three"]))["html"].decode()
    cells = re.findall(r"<td.*?</td>", page)
    assert cells[:3] == ["<td>a</td>", "<td>x</td>", '<td class="supported">supported</td>']
    assert cells[3:5] == ['<td class="again">a</td>', '<td class="again">x</td>']
    assert cells[6:] == ["<td>b</td>", "<td>x</td>", f'<td class="long">{"y" * 50}</td>']


def test_a_page_folds_what_is_not_run(tmp_path, paper):
    rows = tidy_rows.join(study(BASELINE, ONLINE, SPACED), paper)
    page = table_files("tab01", "", draw("tab01", rows))["html"].decode()
    shown, folded = page.split("<details>\n<summary>28 lines of what is not run</summary>")
    assert "<td>Digits</td>" in shown
    assert "not run" not in shown.replace("Not run:", "")
    assert folded.count("<tr>") == 29
    verdicts = pd.DataFrame({"claim": ["a", "b"], "verdict": ["supported", "not run"]})
    shown, folded = table_files("t", "", verdicts)["html"].decode().split("<details>")
    assert ("<td>a</td>" in shown, "<td>b</td>" in folded) == (True, True)
    nothing = table_files("t", "", verdicts.tail(1))["html"].decode()
    assert "<details>" not in nothing  # there would be nothing else on the page


def test_wrong_name_is_answered_with_the_right_ones(tmp_path):
    with pytest.raises(UserError, match=r"hessian_trace.*fig02"):
        render("tab1", study(ONLINE), tmp_path)


def test_ranking_pairs_every_method_with_spaced_kd(paper):
    table = draw("ranking", study(BASELINE, ONLINE, SPACED), paper)
    assert table["rank"].tolist() == ["1", "2", "3"]
    assert table["method"].tolist() == ["Spaced KD, s = 1.5", "online KD", "w/o KD"]
    spaced, online, without = table["Δ to Spaced KD, s = 1.5"]
    assert spaced == "–"
    assert online.startswith("-1.00 ± 0.50 (3), [")
    assert without.startswith("-2.83 ± 0.29 (3), [")
    interval = paired_interval([-1.0, -1.5, -0.5], 0.05 / 2)  # Holm: one that is not decided has level α / m
    assert f"[{interval.low:+.2f}, {interval.high:+.2f}]" in online


def test_ranking_needs_spaced_kd(paper):
    with pytest.raises(UserError, match=r"interval 1\.5"):
        draw("ranking", study(BASELINE, ONLINE), paper)
