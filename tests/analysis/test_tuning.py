from itertools import combinations
from statistics import mean

import pandas as pd
import pytest
import yaml

from spaced_kd.analysis import tidy_rows
from spaced_kd.analysis.cells import texts
from spaced_kd.analysis.tuning import expected_best, searches
from spaced_kd.cli.main import main
from spaced_kd.config import registry
from spaced_kd.config.study import expand, load_study
from spaced_kd.utils.errors import UserError

STUDY = """
study: search
grids:
  - dataset: digits
    network: resnet_mini
    recipe: {epochs: 3, held_out: 0.1, tail_evaluations: 3}
    seed: [100, 101]
    tune: {lr: [0.01, 0.03, 0.1]}
    arms:
      - {method: baseline}
      - {method: online_kd, interval: 0}
"""


def rows_of(study, score):
    """Rows of a made-up search: `score` of a run is its accuracy on held-out images."""
    from spaced_kd.config.labels import labels

    lines = []
    for run in study.runs:
        common = labels(run) | {"source": "ours", "study": study.name, "run": run.id, "seed": run.seed, "commit": "c"}
        for metric in ("held_out_accuracy", "accuracy"):
            value = score(run) + (50 if metric == "accuracy" else 0)
            lines.append(common | {"evaluation": "accuracy", "metric": metric, "selection": "tail", "value": value})
    return tidy_rows.join(pd.DataFrame(lines))


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "search.yaml"
    path.write_text(STUDY)
    return load_study(path)


def best_at(**rates):
    """Scores that are highest at a rate for each method."""
    return lambda run: 40 - 100 * abs(run.lr - rates[run.method]) + 0.5 * (run.seed - 100)


def test_the_expected_best_is_the_mean_over_all_choices():
    scores = [3.0, 1.0, 4.0, 1.5, 9.0]
    for k in range(1, 6):
        assert expected_best(scores, k) == pytest.approx(mean(max(chosen) for chosen in combinations(scores, k)))
    with pytest.raises(ValueError, match="6 of 5 trials"):
        expected_best(scores, 6)


def test_a_table_of_the_best_trials(study):
    table = texts(registry.find("tables", "tuning")(rows_of(study, best_at(baseline=0.03, online_kd=0.1))))
    assert list(table["arm"]) == ["w/o KD", "online KD"]
    assert list(table["best trial"]) == ["lr=0.03", "lr=0.1"]
    assert list(table["best of 3"]) == ["40.25", "40.25"]
    assert list(table["best of 1"]) == [f"{40.25 - (2 + 0 + 7) / 3:.2f}", f"{40.25 - (9 + 7 + 0) / 3:.2f}"]
    figure = registry.find("figures", "fig_tuning")(rows_of(study, best_at(baseline=0.03, online_kd=0.1)))
    lines = {line.get_label(): [*line.get_ydata()] for line in figure.axes[0].lines}
    assert lines["w/o KD"] == sorted(lines["w/o KD"])
    assert lines["w/o KD"][-1] == pytest.approx(40.25)


def test_arms_with_other_trials_are_no_equal_search(study):
    rows = rows_of(study, best_at(baseline=0.03, online_kd=0.1))
    lacking = rows[~((rows["method"] == "online_kd") & rows["recipe"].str.contains("lr=0.1"))]
    with pytest.raises(UserError, match=r"online KD and w/o KD do not have the same trials: one lacks lr=0\.1"):
        searches(lacking)


def run(tmp_path, rows, seeds=("0", "1", "2")):
    folder = tmp_path / "results" / "search"
    folder.mkdir(parents=True, exist_ok=True)
    rows.to_csv(folder / "rows.csv", index=False)
    config = str(tmp_path / "search.yaml")
    return main(["tune", config, "--results", str(tmp_path / "results"), "--seeds", *seeds])


def test_the_command_writes_the_study_of_the_comparison(study, tmp_path, capsys):
    assert run(tmp_path, rows_of(study, best_at(baseline=0.03, online_kd=0.03))) == 0
    assert "baseline: lr=0.03 (40.25 % on held-out images)" in capsys.readouterr().out
    path = tmp_path / "search_final.yaml"
    final = load_study(path)
    assert {(one.method, one.lr, one.seed) for one in final.runs} == {
        (method, 0.03, seed) for method in ("baseline", "online_kd") for seed in (0, 1, 2)
    }
    assert {one.held_out for one in final.runs} == {0.1}
    assert yaml.safe_load(path.read_text())["planned_seeds"] == [0, 1, 2]
    table = texts(registry.find("tables", "tuned")(rows_of(final, best_at(baseline=0.03, online_kd=0.03))))
    assert list(table["arm"]) == ["w/o KD", "online KD"]
    assert list(table["Δ to w/o KD"]) == ["–", "+0.00 ± 0.00 (3), [+0.00, +0.00]"]
    assert set(table["endpoint"]) == {"tail"}


def test_a_teacher_with_its_students_trial_is_not_an_arm():
    arms = [{"method": "baseline", "lr": 0.03}, {"method": "online_kd", "interval": 1.5, "lr": 0.1}]
    grid = {"dataset": "digits", "network": "resnet_mini", "seed": [0, 1], "held_out": 0.1, "tail_evaluations": 3}
    final = expand({"study": "s", "grids": [grid | {"arms": arms}]})
    assert len(final.only_teachers) == 2
    rows = rows_of(final, best_at(baseline=0.03, online_kd=0.1))
    rows["only_teacher"] = ["yes" if each in final.only_teachers else "" for each in rows["run"]]
    table = texts(registry.find("tables", "tuned")(rows))
    assert list(table["arm"]) == ["w/o KD", "Spaced KD, s = 1.5"]
    assert [recipe for recipe in table["recipe"] if "lr=0.1" in recipe] == list(table["recipe"])[1:]
    with pytest.raises(UserError, match="tuned needs a setting with two arms"):
        registry.find("tables", "tuned")(rows.assign(only_teacher=""))


@pytest.mark.parametrize(
    ("rates", "seeds", "complaint"),
    [
        ({"baseline": 0.03, "online_kd": 0.1}, ["0"], "the best lr of an arm lies at the edge of its values"),
        ({"baseline": 0.03, "online_kd": 0.03}, ["100"], "seed 100 is one of the search"),
    ],
)
def test_a_choice_that_cannot_stand_writes_nothing(study, tmp_path, capsys, rates, seeds, complaint):
    assert run(tmp_path, rows_of(study, best_at(**rates)), seeds) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "search_final.yaml").exists()


def test_an_unfinished_search_is_reported(study, tmp_path, capsys):
    rows = rows_of(study, best_at(baseline=0.03, online_kd=0.03))
    assert run(tmp_path, rows[rows["run"] != study.runs[-1].id]) == 2
    assert "finish the search" in capsys.readouterr().err
