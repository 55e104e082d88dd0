import statistics

import pandas as pd
import pytest

from spaced_kd import catalog, results
from spaced_kd.errors import UserError
from spaced_kd.render import caption, render, table_files

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
    return results.join(pd.DataFrame(rows))


@pytest.fixture(scope="session")
def paper(request):
    return results.reference(request.config.rootpath / "config" / "reference.csv")


BASELINE = ("baseline", "", {0: 90.0, 1: 91.0, 2: 92.0})
ONLINE = ("online_kd", "0", {0: 92.0, 1: 92.5, 2: 94.0})
SPACED = ("online_kd", "1.5", {0: 93.0, 1: 94.0, 2: 94.5})


def draw(name, *frames):
    return catalog.find("tables", name)(results.join(*frames))


def ours(table):
    return table[table["source"] == "ours"].iloc[0]


def test_tab01_has_means_deviations_and_paired_difference():
    row = ours(draw("tab01", study(BASELINE, ONLINE, SPACED)))
    assert row["dataset"] == "digits"
    assert row["w/o KD"] == "91.00 ± 1.00 (3)"
    assert row["online KD"] == f"92.83 ± {statistics.stdev([92, 92.5, 94]):.2f} (3)"
    assert row["Spaced KD, s = 1.5"] == f"93.83 ± {statistics.stdev([93, 94, 94.5]):.2f} (3)"
    assert row["Δ to online KD"] == "+1.00 ± 0.50 (3)"  # 1, 1.5, 0.5: the spread of pairs, not of the two columns


def test_difference_is_paired_by_seed_not_by_position():
    shuffled = ("online_kd", "1.5", {2: 94.5, 0: 93.0, 1: 94.0})
    assert ours(draw("tab01", study(ONLINE, shuffled)))["Δ to online KD"] == "+1.00 ± 0.50 (3)"


def test_missing_seeds_are_said():
    gap = ("online_kd", "1.5", {0: 93.0, 1: None, 2: 94.5})
    row = ours(draw("tab01", study(ONLINE, gap)))
    assert row["online KD"].endswith("(3)")
    assert row["Spaced KD, s = 1.5"] == "93.75 ± 1.06 (2 of 3 seeds)"
    assert row["Δ to online KD"] == "+0.75 ± 0.35 (2 of 3 seeds)"
    nothing = ("online_kd", "1.5", dict.fromkeys(range(3)))
    assert ours(draw("tab01", study(ONLINE, nothing)))["Spaced KD, s = 1.5"] == "– (0 of 3 seeds)"


def test_more_seeds_of_another_method_are_not_missing():
    row = ours(draw("tab01", study(BASELINE, ONLINE, ("online_kd", "1.5", {0: 93.0, 1: 94.0}))))
    assert row["Spaced KD, s = 1.5"].endswith("(2)")
    assert row["Δ to online KD"] == "+1.25 ± 0.35 (2)"


def test_one_seed_has_no_deviation():
    row = ours(draw("tab01", study(("online_kd", "0", {0: 92.0}), ("online_kd", "1.5", {0: 91.5}))))
    assert row["online KD"] == "92.00 (1)"
    assert row["Δ to online KD"] == "-0.50 (1)"


def test_what_a_study_lacks_is_absent_and_what_one_network_lacks_is_a_dash():
    assert "w/o KD" not in draw("tab01", study(ONLINE, SPACED))
    other = study(ONLINE, network="", teacher="").assign(network="vit_mini", teacher="vit_mini")
    table = draw("tab01", study(ONLINE, SPACED), other).set_index("network")
    assert table.loc["vit_mini", "Spaced KD, s = 1.5"] == "–"
    assert table.loc["vit_mini", "Δ to online KD"] == "–"


def test_only_the_last_epoch_counts():
    rows = results.join(study(ONLINE, SPACED), study(ONLINE, SPACED, selection="best").assign(value=99.0))
    assert ours(draw("tab01", rows))["online KD"].startswith("92.83")


def test_students_of_another_teacher_are_left_out():
    other = study(ONLINE).assign(teacher="vit_mini", value=50.0)
    assert ours(draw("tab01", study(ONLINE), other))["online KD"].startswith("92.83")


def test_paper_has_its_own_rows(paper):
    table = draw("tab01", study(ONLINE, SPACED, BASELINE), paper)
    assert list(table["source"][:2]) == ["ours", "paper"]
    assert (table["source"] == "paper").sum() == 14
    row = table[(table["dataset"] == "tiny_imagenet") & (table["network"] == "resnet101")].iloc[0]
    assert list(row[3:]) == ["56.99", "61.29", "63.76", "+2.47"]


def test_paper_stands_below_the_same_dataset_and_network(paper):
    rows = study(ONLINE, SPACED).assign(dataset="tiny_imagenet", network="resnet50", teacher="resnet50")
    table = draw("tab01", rows, paper)
    place = table.index[table["source"] == "ours"].item()
    assert list(table.loc[place + 1, ["dataset", "network", "source"]]) == ["tiny_imagenet", "resnet50", "paper"]
    assert table.loc[place - 1, "network"] == "resnet18"


def test_two_recipes_have_a_line_each():
    rows = results.join(study(ONLINE, SPACED, recipe="lr=0.1"), study(ONLINE, recipe="lr=0.2"))
    assert list(draw("tab01", rows)["recipe"]) == ["lr=0.1", "lr=0.2"]


def test_two_values_for_one_cell_are_refused():
    with pytest.raises(UserError, match="online_kd-0-1"):
        draw("tab01", study(ONLINE, SPACED), study(("online_kd", "0", {1: 80.0})))


def test_tab02(paper):
    table = draw(
        "tab02", study(BASELINE, ("self_kd", "0", {0: 90.0, 1: 91.0}), ("self_kd", "4", {0: 93.0, 1: 95.0})), paper
    )
    assert ours(table)["Δ to self KD"] == "+3.50 ± 0.71 (2)"
    assert (table["source"] == "paper").sum() == 10


def test_tab06_has_every_interval_of_the_study_in_order(paper):
    longer, offline = ("online_kd", "10", {0: 91.0, 1: 91.5, 2: 93.0}), ("online_kd", "max", {0: 90.0})
    table = draw("tab06", study(offline, longer, SPACED, ONLINE), paper)
    heads = ["online KD", "Spaced KD, s = 1.5", "Spaced KD, s = 10", "offline KD"]
    assert list(table.columns) == ["dataset", "network", "source", *heads]
    below = table[table["source"] == "ours − online KD"].iloc[0]
    assert list(below[heads]) == ["–", "+1.00 ± 0.50 (3)", "-1.00 ± 0.00 (3)", "-2.00 (1)"]
    first = table[table["source"] == "paper"].iloc[0]
    assert list(first[heads]) == ["71.05", "72.43", "–", "72.22"]


def corruptions(*runs):
    kinds = [(name, severity) for name in ("snow", "impulse_noise") for severity in (1, 3, 5)]
    return [
        study(*runs, evaluation="corruptions", selection=None, epoch=None, corruption=name, severity=severity)
        for name, severity in kinds
    ]


@pytest.mark.parametrize(("name", "severities", "lines"), [("tab05", {"1"}, 0), ("tab11", {"3", "5"}, 36)])
def test_corruptions(name, severities, lines, paper):
    table = draw(name, *corruptions(ONLINE, SPACED), paper)
    mine = table[table["source"] == "ours"]
    assert set(mine["severity"]) == severities
    assert list(dict.fromkeys(mine["corruption"])) == ["impulse_noise", "snow"]  # as the paper has them
    assert set(mine["Δ to online KD"]) == {"+1.00 ± 0.50 (3)"}
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
    assert list(table.iloc[-1][["epsilon", "online KD", "Δ to online KD"]]) == ["–", "31.70", "+1.99"]


def test_hessian_trace():
    values = study(("online_kd", "0", {0: 1234.5, 1: 1300.0}), ("online_kd", "1.5", {0: 1000.0, 1: 1100.0}))
    row = ours(draw("hessian_trace", values.assign(evaluation="hessian_trace", metric="trace", stderr=3.0)))
    assert row["online KD"] == "1267 ± 46.32 (2)"
    assert row["Δ to online KD"] == "-217.2 ± 24.4 (2)"


@pytest.mark.parametrize(
    ("name", "need"),
    [
        ("tab01", "online_kd with interval 0 and 1.5:"),
        ("tab02", "self_kd with interval 0 and 4:"),
        ("tab11", "evaluation corruptions with severity 3 and 5:"),
        ("tab12", "evaluation bim:"),
        ("hessian_trace", "self_kd with interval 0 and 4, and their evaluation hessian_trace:"),
    ],
)
def test_study_without_the_runs_is_told_which(name, need, paper):
    with pytest.raises(UserError, match=f"^{name} needs runs of .*{need} add them to the study") as error:
        draw(name, study(BASELINE), paper)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", catalog.names("tables"))
def test_captions_start_with_a_short_line(name):
    assert 20 < len(catalog.plugin("tables", name).summary) < 100
    assert "mean ± standard deviation over seeds (number of seeds)" in caption(name)


def test_rendered_files(tmp_path, paper):
    rows = results.join(study(ONLINE, SPACED).assign(dataset="tiny_imagenet[classes=40]"), paper)
    paths = render("tab01", rows, tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        f"tables/tab01.{ending}" for ending in ("csv", "md", "tex", "html")
    ]
    first = {path: path.read_bytes() for path in paths}
    assert first == {path: path.read_bytes() for path in render("tab01", rows, tmp_path)}
    csv, markdown, tex, page = (content.decode() for content in first.values())
    assert "92.83 ± 1.04 (3)" in csv
    assert "| 71.05 " in markdown
    assert r"tiny\_imagenet[classes=40] & resnet\_mini & ours & 92.83 $\pm$ 1.04 (3)" in tex
    assert r"\toprule" in tex
    assert r"\label{tab:tab01}" in tex
    assert "<caption>Tab. 1: online KD" in page


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


def test_wrong_name_is_answered_with_the_right_ones(tmp_path):
    with pytest.raises(UserError, match=r"hessian_trace.*fig02"):
        render("tab1", study(ONLINE), tmp_path)
