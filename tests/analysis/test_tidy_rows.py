import json
import logging
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from spaced_kd.analysis import reference, tidy_rows
from spaced_kd.analysis.collect import collect_rows
from spaced_kd.analysis.figures.fig07 import CORRUPTIONS
from spaced_kd.analysis.recorded import record
from spaced_kd.config.study import expand
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import rows_digest, sha256


@pytest.fixture
def study():
    grid = {"dataset": "digits", "network": "resnet_mini", "method": "online_kd", "interval": [0, 1.5], "seed": [0, 1]}
    grid |= {"recipe": {"epochs": 20, "lr": 0.05}}
    expanded = expand({"study": "small", "grids": [grid]})
    evaluated = {run.id: ("bim",) for run in expanded.runs if run.method == "online_kd"}
    return replace(expanded, evaluated=evaluated, evaluations={"bim": {"steps": 10}})


@pytest.fixture
def folder(study, tmp_path):
    """Results of all runs of the study, as training and evaluation leave them."""
    for number, run in enumerate(study.runs):
        provenance = {"commit": "12e4567", "dirty": number == 0}
        accuracy = [
            {"metric": "accuracy", "selection": name, "epoch": 20, "value": 90 + number / 3}
            for name in ("last", "best")
        ]
        made = tmp_path / "runs" / run.id
        save(made / "rows.json", [*accuracy, {"metric": "accuracy", "selection": "halves", "value": 80}])
        save(made / "weights.safetensors", run.id)
        outputs = {name: sha256(made / name) for name in ("rows.json", "weights.safetensors")}
        about = {"id": run.id, "spec": run.resolved(), "provenance": provenance, "outputs": outputs}
        about |= {"turns": {"teacher": 40, "student": 38}}
        provenance["machine"] = "amx"
        save(made / "run.json", about)
        bim = [{"evaluation": "bim", "metric": "accuracy", "epsilon": 0.5, "steps": 10, "value": 0.1 + number}]
        if run.id in study.evaluated:
            evaluated = {"weights": outputs["weights.safetensors"], "sha256": rows_digest(bim), "rows": bim}
            evaluated |= {"settings": {"bim": {"steps": 10}}}
            save(tmp_path / "small" / "evaluations" / f"{run.id}.json", evaluated)
    return tmp_path


def save(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_rows_carry_their_whole_story(study, folder):
    rows = collect_rows(study, folder)
    assert tuple(rows.columns) == tidy_rows.COLUMNS
    assert len(rows) == 6 * 3 + 4
    assert set(rows["machine"]) == {"amx"}
    assert set(rows["student_steps"]) == {38}
    row = rows[(rows["evaluation"] == "bim") & (rows["interval"] == "1.5") & (rows["seed"] == 1)].iloc[0]
    run = next(run for run in study.runs if run.interval == 1.5 and run.seed == 1)
    assert row["run"] == run.id
    assert list(row[["source", "study", "dataset", "network", "teacher", "method", "commit", "recipe"]]) == [
        *("ours", "small", "digits", "resnet_mini", "resnet_mini", "online_kd", "12e4567", "epochs=20 lr=0.05")
    ]
    assert row["value"] == 0.1 + study.runs.index(run)
    assert (row["epsilon"], row["steps"]) == (0.5, 10)
    assert set(rows["interval"]) == {"", "0", "1.5"}
    assert set(rows[rows["interval"] == ""]["method"]) == {"baseline"}
    assert set(rows[rows["run"] == study.runs[0].id]["commit"]) == {"12e4567-dirty"}


def test_missing_run_and_missing_evaluation_are_said(study, folder, caplog):
    gone, bare = study.runs[1], study.runs[3]
    for path in (folder / "runs" / gone.id).iterdir():
        path.unlink()
    (folder / "small" / "evaluations" / f"{bare.id}.json").unlink()
    with caplog.at_level(logging.WARNING):
        rows = collect_rows(study, folder)
    missing = rows[rows["metric"] == "missing"]
    assert set(zip(missing["run"], missing["evaluation"], strict=True)) == {
        *((gone.id, "accuracy"), (gone.id, "bim"), (bare.id, "bim"))
    }
    assert missing["value"].isna().all()
    assert len(rows[rows["run"] == gone.id]) == 2
    assert f"accuracy of {gone.id}" in caplog.text
    assert f"bim of {bare.id}" in caplog.text


def test_costs_are_rows_as_far_as_they_were_measured(study, folder):
    teacher, student = next((run.teacher_spec(), run) for run in study.runs if run.interval == 1.5)
    for run, flops, states in (
        (teacher, {"teacher": 300}, None),
        (student, {"teacher": 0, "student": 400}, "stored"),
    ):
        path = folder / "runs" / run.id / "run.json"
        described = {"wall_seconds": 2.5, "cpu_seconds": 2, "device_seconds": None, "teacher_states": states}
        described |= {"energy_joules": None, "package_energy_joules": 70.5}
        save(path, json.loads(path.read_text()) | described | {"training_flops": flops})
    rows = collect_rows(study, folder)
    costs = {
        run: group.set_index("metric")["value"].to_dict()
        for run, group in rows[rows["evaluation"] == "cost"].groupby("run")
    }
    # device and its energy were not measured, which is not 0
    measured = {"wall_seconds": 2.5, "cpu_seconds": 2.0, "package_energy_joules": 70.5}
    for run, flops, times in ((teacher, 300.0, 1), (student, 400.0, 2)):  # the student's teacher has cost the same
        own = measured | {"training_flops": flops}
        both = {f"{name}_with_teacher": times * value for name, value in measured.items()}
        assert costs[run.id] == own | both | {"training_flops_with_teacher": 300.0 if run is teacher else 700.0}


def test_student_of_a_teacher_without_flops_has_no_cost_with_it(study, folder):
    student = next(run for run in study.runs if run.interval == 1.5)
    path = folder / "runs" / student.id / "run.json"
    save(path, json.loads(path.read_text()) | {"training_flops": {"student": 4}, "teacher_states": "stored"})
    rows = collect_rows(study, folder)
    assert set(rows[rows["evaluation"] == "cost"]["metric"]) == {"training_flops"}


def test_complete_study_says_nothing(study, folder, caplog):
    assert "missing" not in set(collect_rows(study, folder)["metric"])
    assert not caplog.text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("run.json", "{", "is damaged"),
        ("run.json", "[]", "is damaged"),
        ("run.json", '{"id": "x"}', "does not describe its run"),
        ("rows.json", "[]", "has no rows.json"),
        ("rows.json", '[{"metric": "accuracy"}]', "damaged .a row has no value"),
        ("rows.json", '[{"value": 1}]', "damaged .a row has no metric"),
    ],
)
def test_damaged_files_are_refused_in_one_line(study, folder, name, content, message):
    made = folder / "runs" / study.runs[2].id
    save(made / "run.json", json.loads((made / "run.json").read_text()) | {"outputs": {}})  # else the checksum tells
    (made / name).write_text(content)
    with pytest.raises(UserError, match=message) as error:
        collect_rows(study, folder)
    assert study.runs[2].id in str(error.value)
    assert "\n" not in str(error.value)


def test_run_without_provenance_is_refused(study, folder):
    path = folder / "runs" / study.runs[0].id / "run.json"
    content = json.loads(path.read_text())
    del content["provenance"]
    save(path, content)
    with pytest.raises(UserError, match=r"run\.json names no commit: move .* away"):
        collect_rows(study, folder)


def test_rows_of_a_file_that_was_changed_are_refused(study, folder):
    path = folder / "runs" / study.runs[0].id / "rows.json"
    path.write_text(path.read_text().replace("90", "99"))
    with pytest.raises(UserError, match=rf"{study.runs[0].id}/rows\.json is not what the run wrote, by its checksum"):
        collect_rows(study, folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda found: found["rows"][0].update(value=99), "is damaged .its checksum does not match"),
        (lambda found: found.update(weights="0"), "is of other weights than the run has now"),
        (lambda found: found.update(settings={"bim": {"images": 7}}), "has other settings of bim than the study"),
        (lambda found: found.pop("sha256"), "is damaged .its checksum does not match"),
        (lambda found: found.pop("rows"), "is damaged .a row has no value"),
    ],
)
def test_evaluations_of_other_weights_or_with_other_rows_are_refused(study, folder, change, complaint):
    run = next(run for run in study.runs if run.id in study.evaluated)
    path = folder / "small" / "evaluations" / f"{run.id}.json"
    content = json.loads(path.read_text())
    change(content)
    save(path, content)
    with pytest.raises(UserError, match=complaint) as error:
        collect_rows(study, folder)
    assert run.id in str(error.value)


def test_evaluation_whose_settings_are_lists_is_the_one_that_was_asked_for(study, folder):
    run = next(run for run in study.runs if run.id in study.evaluated)
    path = folder / "small" / "evaluations" / f"{run.id}.json"
    save(
        path, json.loads(path.read_text()) | {"settings": {"bim": {"steps": 10}, "corruptions": {"severities": [1, 3]}}}
    )
    of_run = {"evaluate": ["bim", "corruptions"], **{key: getattr(run, key) for key in ("dataset", "network", "seed")}}
    of_run |= {"method": run.method, "interval": run.interval, "epochs": run.epochs, "lr": run.lr}

    def collect(severities):
        asked = {"bim": {"steps": 10}, "corruptions": {"severities": severities}}
        collect_rows(expand({"study": "small", "evaluations": asked, "grids": [of_run]}), folder)

    collect([1, 3])
    with pytest.raises(UserError, match="has other settings of corruptions than the study"):
        collect([1, 5])


def test_rows_without_a_commit_are_refused_by_the_name_of_their_run(study, folder, tmp_path):
    rows = collect_rows(study, folder)
    tidy_rows.write(rows.assign(commit=rows["commit"].mask(rows["run"] == study.runs[1].id, "")), tmp_path / "rows.csv")
    with pytest.raises(UserError, match=rf"rows of run '{study.runs[1].id}' name no commit"):
        tidy_rows.read(tmp_path / "rows.csv")


def test_a_run_that_two_studies_share_counts_once(study, folder, tmp_path):
    rows = collect_rows(study, folder)
    tidy_rows.write(rows, tmp_path / "a.csv")
    tidy_rows.write(rows.assign(study="other"), tmp_path / "b.csv")
    assert len(tidy_rows.read(tmp_path / "a.csv", tmp_path / "b.csv")) == len(rows)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("tab99,cifar100,resnet18,resnet18,baseline,,,,accuracy,68.12,", "table 'tab99' does not exist: there is text"),
        ("tab01,cifar10,resnet18,resnet18,baseline,,,,accuracy,68.12,", "dataset 'cifar10' does not exist: there is"),
        ("tab01,cifar100,resnet19,resnet18,baseline,,,,accuracy,68.12,", "network 'resnet19' does not exist"),
        ("tab01,cifar100,resnet18,resnet18,none,,,,accuracy,68.12,", "method 'none' does not exist"),
        ("tab11,cifar100,resnet18,resnet18,online_kd,0,fog,3,accuracy,1,", "corruption 'fog' does not exist"),
        (
            "tab01,cifar100,resnet18,resnet18,baseline,,,,accuracy,70,",
            "two numbers for one cell, tab01, accuracy, cifar100, resnet18, resnet18, baseline: leave one",
        ),
    ],
)
def test_a_bad_row_of_the_reference_is_refused_by_name(pytestconfig, tmp_path, line, complaint):
    content = (pytestconfig.rootpath / "src/spaced_kd/config/preset_files/reference.csv").read_text()
    (tmp_path / "reference.csv").write_text(content + line + "\n")
    with pytest.raises(UserError, match=rf"reference\.csv: {complaint}"):
        reference.read_reference(tmp_path / "reference.csv")


def test_run_of_other_defaults_is_refused(study, folder):
    path = folder / "runs" / study.runs[0].id / "run.json"
    content = json.loads(path.read_text())
    content["spec"]["momentum"] = 0.5
    save(path, content)
    with pytest.raises(UserError, match=r"momentum=0\.5"):
        collect_rows(study, folder)


def test_csv_round_trip_is_exact(study, folder, tmp_path):
    rows = collect_rows(study, folder)
    odd = pd.DataFrame(
        [
            {
                "value": 0.1 + 0.2,
                "note": "NA",
                "table": 'a, "b"',
                "interval": "0",
                "seed": 3,
                "commit": "0012",
                "extra": 5,
            }
        ]
    )
    rows = tidy_rows.join(
        rows, odd, pd.DataFrame([{"value": np.nan}, {"value": np.inf}, {"value": 1e-300, "sigma": 0.01}])
    )
    tidy_rows.write(rows, tmp_path / "results.csv")
    assert_frame_equal(tidy_rows.read(tmp_path / "results.csv"), rows, check_exact=True)
    text = (tmp_path / "results.csv").read_text()
    tidy_rows.write(tidy_rows.read(tmp_path / "results.csv"), tmp_path / "results.csv")
    assert (tmp_path / "results.csv").read_text() == text
    assert ",3.0," not in text.splitlines()[-4]  # seed 3 is no 3.0


def test_paper_rows_have_the_same_columns(pytestconfig):
    rows = reference.read_reference(pytestconfig.rootpath / "src/spaced_kd/config/preset_files/reference.csv")
    assert tuple(rows.columns) == tidy_rows.COLUMNS
    assert len(rows) == 326
    assert set(rows["source"]) == {"paper"}
    assert set(rows["evaluation"]) == {"accuracy", "corruptions", "bim"}
    assert set(rows["interval"]) == {"", "0", "0.5", "1", "1.5", "2", "2.5", "4", "max"}
    assert set(rows["method"]) == {"", "baseline", "online_kd", "self_kd", "online_kd[lead=constant]"}
    assert {"", "snow"} < set(rows["corruption"]) < {"", *CORRUPTIONS, "more"}
    assert rows["value"].notna().all()


def test_paper_differences_are_those_of_its_cells(pytestconfig):
    rows = reference.read_reference(pytestconfig.rootpath / "src/spaced_kd/config/preset_files/reference.csv")
    place = ["table", "dataset", "network", "method", "corruption", "severity"]
    cells, changes = (rows[rows["metric"] == metric] for metric in ("accuracy", "delta"))
    both = changes.merge(cells, on=[*place, "interval"], suffixes=(" of change", ""))
    both = both.merge(cells[cells["interval"] == "0"], on=place, suffixes=(" after", " before"))
    assert len(both) == 63
    assert both["value of change"].tolist() == pytest.approx((both["value after"] - both["value before"]).tolist())


CLEAN = "12e4567" + "0" * 33


def numbers(run, value, evaluation="accuracy", commit=CLEAN):
    """A row of a run; `missing` where there is no value."""
    row = {"run": run, "evaluation": evaluation, "commit": commit if value is not None else ""}
    row |= {"source": "ours", "metric": "accuracy" if value is not None else "missing", "value": value}
    return row | {"interval": "0", "seed": 0}


def made(folder, *rows):
    """A study's folder with these rows, and a description for each finished run."""
    tidy_rows.write(tidy_rows.join(pd.DataFrame(rows)), folder / "rows.csv")
    finished = dict.fromkeys(row["run"] for row in rows if row["metric"] != "missing")
    save(folder / "runs.json", [{"id": run, "made in": folder.name} for run in finished])
    return folder


def recorded(folder):
    rows = tidy_rows.read(folder / "rows.csv")
    about = {run["id"]: run["made in"] for run in json.loads((folder / "runs.json").read_text())}
    return rows.set_index(["run", "evaluation"])["value"].to_dict(), about


def test_recording_keeps_what_is_recorded_and_takes_what_is_newer(tmp_path):
    into = tmp_path / "recorded"
    first = [numbers("a", 1.0), numbers("b", 2.0), numbers("b", 3.0, "bim"), numbers("c", 4.0), numbers("d", None)]
    assert record(made(tmp_path / "first", *first), into) == (3, 0, 0, [])
    second = [numbers("b", 5.0), numbers("b", None, "bim"), numbers("c", None), numbers("d", 6.0), numbers("e", None)]
    assert record(made(tmp_path / "second", *second), into).runs == 4
    values, about = recorded(into)
    kept = {("a", "accuracy"): 1.0, ("b", "accuracy"): 5.0, ("b", "bim"): 3.0, ("c", "accuracy"): 4.0}
    assert {key: value for key, value in values.items() if value == value} == kept | {("d", "accuracy"): 6.0}
    assert set(values) == {*kept, ("d", "accuracy")}  # of e, which is not finished, there is nothing to keep
    assert about == {"a": "first", "b": "second", "c": "first", "d": "second"}
    before = (into / "rows.csv").read_bytes()
    record(tmp_path / "second", into)
    assert (into / "rows.csv").read_bytes() == before


def test_recording_says_how_many_runs_came_out_the_same_again(tmp_path):
    into = tmp_path / "recorded"
    for again, weights in enumerate(("1", "1", "2")):
        accuracy = numbers("a", 1.0 + 0.5 * (again == 2)) | {"selection": "last"}
        study = made(tmp_path / str(again), accuracy, numbers("b", 2.0))
        runs = [{"id": "a", "outputs": {"weights": weights}, "wall_seconds": again}, {"id": "b", "outputs": {}}]
        (study / "runs.json").write_text(json.dumps(runs))
        result = record(study, into)
        assert result == ((2, 0, 0, []), (2, 1, 1, []), (2, 1, 0, [0.5]))[again]


def test_a_seed_that_is_not_planned_is_not_recorded(tmp_path):
    rows = [numbers("a", 1.0) | {"planned": "0 1"}, numbers("b", 2.0) | {"seed": 7, "planned": "0 1"}]
    with pytest.raises(UserError, match=r"rows\.csv: b has seed 7, but planned are 0 1: a plan stands before") as error:
        record(made(tmp_path / "study", *rows), tmp_path / "recorded")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "recorded").exists()


def test_a_recorded_run_is_not_replaced_by_one_of_another_kind_of_machine(tmp_path):
    into = tmp_path / "recorded"
    record(made(tmp_path / "first", numbers("a", 1.0) | {"machine": "amx"}), into)
    record(made(tmp_path / "again", numbers("a", 1.5) | {"machine": "amx"}), into)
    elsewhere = made(tmp_path / "other", numbers("a", 2.0) | {"machine": "NVIDIA H200"})
    with pytest.raises(UserError, match=r"^a is recorded from amx and was trained again on NVIDIA H200: a repetition"):
        record(elsewhere, into)
    assert recorded(into)[0] == {("a", "accuracy"): 1.5}
    unknown = made(tmp_path / "old", numbers("a", 1.7))  # from before machines were written down
    assert record(unknown, into).runs == 1


def test_all_arms_of_a_seed_are_of_one_kind_of_machine(tmp_path):
    rows = [numbers("a", 1.0) | {"machine": "amx"}, numbers("b", 2.0) | {"machine": "avx2", "seed": 1}]
    assert record(made(tmp_path / "first", *rows), tmp_path / "recorded").runs == 2
    other = made(tmp_path / "second", numbers("c", 1.0) | {"machine": "avx2"})
    with pytest.raises(UserError, match="seed 0 is on two kinds of machines, a on amx and c on avx2: train all arms"):
        record(other, tmp_path / "recorded")


def test_of_several_studies_the_first_machine_of_a_run_is_kept_and_it_is_said(tmp_path, caplog):
    for name, machine, value in (("one", "amx", 1.0), ("two", "avx2", 2.0)):
        made(tmp_path / name, numbers("a", value) | {"machine": machine}, numbers(name, value) | {"machine": machine})
    rows = tidy_rows.read(*(tmp_path / name / "rows.csv" for name in ("one", "two")))
    assert rows.set_index("run")["value"].to_dict() == {"a": 1.0, "one": 1.0, "two": 2.0}
    assert "a was trained on amx and on avx2: the first one's rows are kept" in caplog.text


def test_older_rows_take_machine_and_steps_from_the_descriptions_beside_them(tmp_path):
    folder = made(tmp_path / "study", numbers("a", 1.0), numbers("b", 2.0))
    about = [
        {"id": "a", "provenance": {"accelerator": "NVIDIA H200"}, "turns": {"teacher": 9, "student": 8}},
        {"id": "b"},
    ]
    save(folder / "runs.json", about)
    rows = tidy_rows.read(folder / "rows.csv").set_index("run")
    assert list(rows["machine"]) == ["NVIDIA H200", ""]
    assert list(rows["student_steps"].fillna(-1)) == [8, -1]


def test_plans_of_studies_that_share_runs_are_joined(tmp_path):
    for name, planned in (("one", "0 1"), ("two", "0 2")):
        made(tmp_path / name, numbers("a", 1.0) | {"planned": planned})
    rows = tidy_rows.read(*(tmp_path / name / "rows.csv" for name in ("one", "two")))
    assert list(rows["planned"]) == ["0 1 2"]


def test_rows_carry_machine_steps_and_plan():
    grid = {"dataset": "digits", "network": "resnet_mini", "seed": [0, 1], "recipe": {"epochs": 2}}
    arms = [{"method": "baseline"}, {"method": "online_kd", "interval": 0, "planned_seeds": [0, 1, 2]}]
    study = expand({"study": "s", "planned_seeds": [0, 1, 5], "grids": [grid | {"arms": arms}]})
    plans = {run.method: study.planned[run.id] for run in study.runs}
    assert plans == {"baseline": (0, 1, 2, 5), "online_kd": (0, 1, 2)}  # the baseline teaches, too
    for planned, message in (
        ([0], "seed 1 of baseline is not planned"),
        ([0, 0, 1], "each once"),
        (["a"], "planned_seeds"),
    ):
        with pytest.raises(UserError, match=message):
            expand({"study": "s", "planned_seeds": planned, "grids": [grid | {"method": "baseline"}]})


@pytest.mark.parametrize("commit", ["12e4567", CLEAN + "-dirty"])
def test_what_no_clean_commit_made_is_not_recorded(tmp_path, commit):
    study = made(tmp_path / "study", numbers("a", 1.0), numbers("b", 2.0, commit=commit))
    with pytest.raises(UserError, match=f"b comes from commit '{commit}', not from a clean one"):
        record(study, tmp_path / "recorded")
    assert not (tmp_path / "recorded").exists()


def test_studies_that_share_a_run_are_read_together(tmp_path):
    paths = [tmp_path / "one" / "rows.csv", tmp_path / "two" / "rows.csv"]
    made(paths[0].parent, numbers("a", 1.0), numbers("b", 2.0))
    made(paths[1].parent, numbers("b", 2.5, commit="0" * 40), numbers("a", None))
    rows = tidy_rows.read(*paths)
    assert rows[["run", "value"]].values.tolist() == [["a", 1.0], ["b", 2.5]]


def test_absent_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv: No such file"):
        tidy_rows.read(tmp_path / "none.csv")


def test_nothing_here_imports_torch():
    code = """
import sys
from spaced_kd.config import registry
from spaced_kd.analysis import render
from spaced_kd.analysis import tidy_rows
for kind in ("tables", "figures"):
    for name in registry.names(kind):
        registry.find(kind, name)
assert "matplotlib" in sys.modules
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
