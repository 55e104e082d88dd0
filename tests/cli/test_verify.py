"""spaced-kd verify finds what was altered, anywhere between a table's cell and the weights, and names it."""

import json
import shutil

import numpy as np
import pytest
import yaml
from conftest import tiny

from spaced_kd.analysis import tidy_rows
from spaced_kd.analysis.collect import collect_rows, descriptions
from spaced_kd.cli import main as cli
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.study import expand
from spaced_kd.training.loop import train
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import rows_digest, sha256

GRID = {
    "seed": 0,
    "dataset": {"digits": {"train_per_class": 4}},
    "network": {"resnet_mini": {"width": 0.0625}},
    "recipe": {"epochs": 1, "batch_size": 9, "lr": 0.05},
    "arms": [{"method": "online_kd", "interval": 1.0, "evaluate": "all"}],
}
STUDY = {
    "study": "small",
    "grids": [GRID],
    "evaluations": {"bim": {"images": 20, "steps": 1}},
    "tables": ["cost"],
}
STUDENT = tiny(method="online_kd", interval=1.0, epochs=1)
MEASURED = f"evaluations/{STUDENT.id}.json"


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory):
    """A finished study of a teacher and its student, with an evaluation and a table."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "data").symlink_to(digits / "data")
    train(STUDENT.teacher_spec(), folder, save_states_for=(STUDENT,))
    train(STUDENT, folder)
    shown = folder / "small" / "evaluations" / f"{STUDENT.id}.json"
    where = ["--results", str(folder)]
    arguments = ["bim", "bim.images=20", "bim.steps=1"]
    assert cli.main(["evaluate", STUDENT.id, *arguments, "--output", str(shown), *where]) == 0
    (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
    assert cli.main(["collect", str(folder / "study.yaml"), *where]) == 0
    assert cli.main(["render", "cost", "--rows", str(folder / "small" / "rows.csv")]) == 0
    return folder


@pytest.fixture
def study(made, tmp_path):
    """A copy that may be altered."""
    shutil.copytree(made, tmp_path / "made", symlinks=True)
    return tmp_path / "made"


def told(capsys, *arguments) -> list[str]:
    status = cli.main(["verify", *map(str, arguments)])
    out = capsys.readouterr()
    assert status == (2 if out.err else 0)
    return [*out.out.splitlines(), *out.err.splitlines()]


def test_what_was_left_alone_fits(study, capsys):
    rows = len(tidy_rows.read(study / "small" / "rows.csv"))
    summary = f"2 runs, {rows} rows, 1 tables, 120 images predicted again, 0 files absent"
    assert told(capsys, study, "--reevaluate") == [f"{study}: 0 findings in {summary}"]


def rewrite(path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, (path, old)
    path.write_text(text.replace(old, new, 1))


def flip(path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def forge_weights(folder) -> None:
    """Other weights, with every checksum made to fit: only evaluating them again tells."""
    run = folder / "runs" / STUDENT.id
    stored, about = array_file.read(run / "weights.safetensors", remedy="")
    before = sha256(run / "weights.safetensors")
    about.pop("checksum")
    drawn = np.random.default_rng(0)
    array_file.save(
        run / "weights.safetensors",
        {k: (v + drawn.normal(size=v.shape)).astype(v.dtype) if "weight" in k else v for k, v in stored.items()},
        **about,
    )
    after = sha256(run / "weights.safetensors")
    for path in (
        run / "run.json",
        folder / "small" / "runs.json",
        *run.glob("evaluations/*.json"),
        folder / "small" / MEASURED,
    ):
        rewrite(path, before, after)


def forge_accuracy(folder) -> None:
    """Another accuracy in rows.json, its checksum made to fit."""
    run = folder / "runs" / STUDENT.id
    before = sha256(run / "rows.json")
    rows = json.loads((run / "rows.json").read_text())
    rows[1]["value"] += 1
    (run / "rows.json").write_text(json.dumps(rows, indent=1))
    for path in (run / "run.json", folder / "small" / "runs.json"):
        rewrite(path, before, sha256(run / "rows.json"))


def forge_evaluation(folder) -> None:
    """Another accuracy under attack, its checksum made to fit."""
    path = folder / "small" / MEASURED
    content = json.loads(path.read_text())
    content["rows"][0]["value"] += 1
    path.write_text(json.dumps(content | {"sha256": rows_digest(content["rows"])}))


def student(folder):
    return folder / "runs" / STUDENT.id


def teacher(folder):
    return folder / "runs" / STUDENT.teacher_spec().id


def change(name: str, old: str, new: str):
    """Alter a file of the student's run, or of the study."""
    own = name in ("run.json", "rows.json")
    return lambda folder: rewrite((student(folder) if own else folder / "small") / name, old, new)


def forget(folder) -> None:
    """All rows of one run left out."""
    path = folder / "small" / "rows.csv"
    path.write_text("".join(line for line in path.open() if STUDENT.id not in line))


def unseal(folder) -> None:
    """A description that no longer has a checksum of the predictions."""
    for path in (student(folder) / "run.json", folder / "small" / "runs.json"):
        content = json.loads(path.read_text())
        for run in content if isinstance(content, list) else [content]:
            if run["id"] == STUDENT.id:
                del run["outputs"]["predictions.safetensors"]
        path.write_text(json.dumps(content))


def cut(folder) -> None:
    path = folder / "small" / "rows.csv"
    path.write_text("".join(path.open().readlines()[:-1]))


def test_a_mean_over_the_tail_follows_from_its_predictions(digits, tmp_path, capsys):
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "data").symlink_to(digits / "data")
    run = train(tiny(method="baseline", epochs=10, eval_every=10, tail_evaluations=3, held_out=0.25), folder)
    capsys.readouterr()
    (summary,) = told(capsys, folder)
    assert summary.startswith(f"{folder}: 0 findings in 1 runs")
    rows, before = json.loads((run / "rows.json").read_text()), sha256(run / "rows.json")
    for row in rows[-2:]:
        assert row["selection"] == "tail"
        row["value"] += 1
        (run / "rows.json").write_text(json.dumps(rows, indent=1))
        rewrite(run / "run.json", before, before := sha256(run / "rows.json"))
        assert f"{run / 'rows.json'}: does not follow from the run's predictions" in told(capsys, folder)
        row["value"] -= 1


ALTERED = {  # what -> (how, a part of the line that names it)
    "a bit of the weights": (
        lambda f: flip(student(f) / "weights.safetensors"),
        "weights.safetensors: not what the run",
    ),
    "a bit of the predictions": (lambda f: flip(student(f) / "predictions.safetensors"), "not what the run wrote"),
    "an accuracy": (change("rows.json", '"value": ', '"value": 9'), "rows.json: not what the run wrote"),
    "a missing output": (lambda f: (student(f) / "rows.json").unlink(), "rows.json: not what the run wrote"),
    "an accuracy and its checksum": (forge_accuracy, "rows.json: does not follow from the run's predictions"),
    "the spec": (change("run.json", '"lr": 0.05', '"lr": 0.06'), "was made with lr=0.06"),
    "the words": (change("run.json", '"lr=0.05"', '"lr=0.06"'), "contains the run digits-"),
    "no commit": (change("run.json", '"commit": "', '"commit": "", "was": "'), "names no commit"),
    "another commit": (change("run.json", '"commit": "', '"commit": "0'), "commit of a row of"),
    "the data": (change("run.json", '"data_sha256": "', '"data_sha256": "0'), "other data than"),
    "the teacher": (change("run.json", '"teacher_sha256": "', '"teacher_sha256": "0'), "followed another teacher than"),
    "a teacher trained anew": (lambda f: flip(teacher(f) / "weights.safetensors"), "followed another teacher than"),
    "a cell of rows.csv": (change("rows.csv", ",bim,accuracy,", ",bim,accuracy,1"), "value of a row of"),
    "a row of rows.csv": (cut, "but its files give"),
    "all rows of a run": (forget, "there is only its description"),
    "a checksum left out": (unseal, "predictions.safetensors: run.json has no checksum of it"),
    "a run that is gone": (lambda f: (student(f) / "run.json").unlink(), "run.json does not exist"),
    "runs.json": (change("runs.json", '"wall_seconds": ', '"wall_seconds": 9'), "runs.json: describes digits-"),
    "an evaluation": (change(MEASURED, '"value": ', '"value": 1'), "its checksum does not match"),
    "an evaluation and its checksum": (forge_evaluation, "a row of bim is none that was measured"),
    "an evaluation of other weights": (
        lambda f: rewrite(
            next((student(f) / "evaluations").glob("*.json")), 'weights_sha256": "', 'weights_sha256": "0'
        ),
        "a row of bim is none that was measured",
    ),
    "a cell of a table": (
        lambda f: (f / "small" / "tables" / "cost.md").write_text("| 100 % |"),
        "cost.md: is not what",
    ),
    "an evaluation without rows": (change(MEASURED, '"rows"', '"raws"'), "is damaged"),
    "a description without words": (change("run.json", '"words"', '"wards"'), "does not say what was trained"),
    "a description of nothing": (change("runs.json", '"id"', '"ID"'), "runs.json: describes None"),
    "a damaged description": (lambda f: (student(f) / "run.json").write_text("{"), "run.json is damaged"),
}


@pytest.mark.parametrize("kind", ALTERED)
def test_what_was_altered_is_named(study, capsys, kind):
    alter, line = ALTERED[kind]
    alter(study)
    lines = told(capsys, "--results", study)
    assert any(line in each for each in lines), lines
    assert lines[-1].startswith(f"spaced-kd: {study}: {len(lines) - 1} findings in {1 if 'gone' in kind else 2} runs")


def test_forged_weights_are_found_by_evaluating_them_again(study, capsys):
    forge_weights(study)
    assert told(capsys, study)[0].startswith(f"{study}: 0 findings")
    lines = told(capsys, study, "--reevaluate")
    assert "its weights predict" in lines[0]
    assert "of 60 test images otherwise than recorded" in lines[0]


def test_what_is_absent_is_counted_and_no_finding(study, capsys):
    (study / "data").unlink()
    assert "0 images predicted again, 2 files absent" in told(capsys, study)[0]


@pytest.mark.parametrize("name", ["weights.safetensors", "predictions.safetensors", "rows.json"])
def test_the_collector_refuses_what_a_run_did_not_write(study, name):
    flip(student(study) / name)
    with pytest.raises(UserError, match=f"{name} is not what the run wrote, by its checksum in run.json: move"):
        collect_rows(expand(STUDY), study)


def test_without_its_data_nothing_can_be_predicted_again(study, capsys):
    (study / "data").unlink()
    lines = told(capsys, study, "--reevaluate")
    assert ["cannot be predicted again without its data" in line for line in lines] == [True, True, False]


@pytest.mark.parametrize("kind", ["an accuracy and its checksum", "the data", "the teacher", "a checksum left out"])
def test_the_collector_refuses_what_verify_finds(study, capsys, kind):
    alter, line = ALTERED[kind]
    alter(study)
    (study / "study.yaml").write_text(yaml.safe_dump(STUDY))
    before = (study / "small" / "rows.csv").read_bytes()
    assert cli.main(["collect", str(study / "study.yaml"), "--results", str(study)]) == 2
    outputs = capsys.readouterr().err
    assert line in outputs
    assert "train it again" in outputs
    assert outputs.count("\n") == 1
    assert (study / "small" / "rows.csv").read_bytes() == before


def test_a_run_that_still_trains_is_missing_and_no_fault(study, capsys):
    (student(study) / "run.json").unlink()  # its folder is there from the beginning
    (study / "study.yaml").write_text(yaml.safe_dump(STUDY))
    assert cli.main(["collect", str(study / "study.yaml"), "--results", str(study)]) == 0
    assert "rows of 1 of 2 runs" in capsys.readouterr().out


def test_a_student_says_whom_it_followed(study):
    outputs = json.loads((student(study) / "run.json").read_text())["provenance"]["teacher_sha256"]
    assert outputs == sha256(ResultPaths(study).weights(STUDENT.teacher_spec()))
    assert json.loads((teacher(study) / "run.json").read_text())["provenance"]["teacher_sha256"] is None


def collect(part, folder) -> None:
    """A part of a study collected, as the workflow does it."""
    place = folder / part.name
    place.mkdir(parents=True, exist_ok=True)
    tidy_rows.write(collect_rows(part, folder), place / "rows.csv")
    (place / "runs.json").write_text(json.dumps(descriptions(part, folder)))


@pytest.fixture
def union(study, tmp_path):
    """The same runs as two experiments of a study, with a table of each and one of both."""
    (tmp_path / "experiments").mkdir()
    for name in ("first", "second"):
        arms = GRID["arms"] if name == "first" else [{"method": "baseline"}]
        content = {"study": name, "grids": [GRID | {"arms": arms}], "evaluations": STUDY["evaluations"]}
        (tmp_path / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    shutil.copytree(study / "small" / "evaluations", study / "paper" / "first" / "evaluations")
    shutil.rmtree(study / "small")
    both = {"study": "paper", "experiments": ["second", "first"]}
    for part in expand(both, experiments=tmp_path / "experiments").parts:
        collect(part, study)
    first, second = (study / "paper" / name / "rows.csv" for name in ("first", "second"))
    assert cli.main(["render", "cost", "--rows", str(first)]) == 0
    of_both = ["--rows", str(first), str(second), "--output", str(study / "paper")]
    assert cli.main(["render", "cost", *of_both]) == 0
    return study


def test_experiments_of_a_study_and_the_tables_of_all_of_them_fit(union, capsys):
    capsys.readouterr()
    rows = sum(len(tidy_rows.read(union / "paper" / name / "rows.csv")) for name in ("first", "second"))
    assert told(capsys, union) == [
        f"{union}: 0 findings in 2 runs, {rows} rows, 2 tables, 0 images predicted again, 0 files absent"
    ]


@pytest.mark.parametrize(
    ("alter", "line"),
    [
        (lambda f: rewrite(f / "first" / "rows.csv", ",bim,accuracy,", ",bim,accuracy,1"), "value of a row of"),
        (lambda f: (f / "tables" / "cost.md").write_text("| 100 % |"), "tables/cost.md: is not what the rows of"),
        (lambda f: (f / "first" / "tables" / "cost.tex").write_text(""), "first/tables/cost.tex: is not what"),
    ],
)
def test_what_was_altered_below_a_study_of_experiments_is_named(union, capsys, alter, line):
    alter(union / "paper")
    assert any(line in each for each in told(capsys, union)[:-1])


def test_the_theorys_table_is_that_of_its_own_rows(study, capsys, pytestconfig):
    shutil.copytree(pytestconfig.rootpath / "results" / "recorded" / "theory", study / "theory")
    rows = study / "theory" / "rows.csv"
    assert cli.main(["render", "theory", "--rows", str(rows), "--output", str(study / "small")]) == 0
    capsys.readouterr()
    (summary,) = told(capsys, study)
    assert "0 findings" in summary
    assert "2 tables" in summary
    forged = tidy_rows.read(rows)
    tidy_rows.write(forged.assign(value=forged["value"] * 2), rows)
    lines = told(capsys, study)
    assert {line.partition(": ")[0] for line in lines[:-1]} == {
        str(study / "small" / "tables" / f"theory.{ending}") for ending in ("csv", "md", "tex", "html")
    }


def test_accuracies_on_held_out_images_are_checked(digits, tmp_path, capsys):
    (tmp_path / "data").symlink_to(digits / "data")
    run = train(tiny(method="baseline", epochs=2, held_out=0.25), tmp_path)
    capsys.readouterr()
    assert "0 findings in 1 runs" in told(capsys, tmp_path, "--reevaluate")[0]
    described = json.loads((run / "run.json").read_text())
    chosen = described["held_out"].index(max(described["held_out"]))
    described["held_out"] = [float(epoch != chosen) for epoch in range(2)]  # another epoch would be the best
    (run / "run.json").write_text(json.dumps(described))
    assert f"{run / 'rows.json'}: does not follow from the run's predictions" in told(capsys, tmp_path)
