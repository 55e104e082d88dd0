"""The workflow: what it schedules, what it never does twice, and what it refuses before anything runs."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import linked, snakemake

from spaced_kd.cli import warm
from spaced_kd.config import targets
from spaced_kd.config.study import expand
from spaced_kd.planning import intervals, plan
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.processes import processors

ROOT = Path(__file__).parents[2]
STUDY = {
    "study": "trial",
    "grids": [
        {
            "dataset": {"digits": {"train_per_class": 4}},
            "network": {"resnet_mini": {"width": 0.0625}},
            "recipe": {"epochs": 2, "batch_size": 8, "lr": 0.05},
            "seed": [0],
            "arms": [{"method": "baseline"}, {"method": "online_kd", "interval": [0, 1.5], "evaluate": "all"}],
        }
    ],
    "evaluations": {"bim": {"images": 20, "steps": 2}},
    "tables": ["tab01"],
}


DRY = ("-n", "-p", "--cores", "1", "--workflow-profile", "none")


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> str:
    """What a dry run of the study says, commands included: one for all tests that ask no more of it."""
    result = snakemake(linked(tmp_path_factory.mktemp("plain")), STUDY, *DRY)
    assert result.returncode == 0, result.stderr
    return result.stdout


def runs():
    """The students of the study."""
    return [run for run in expand(STUDY).runs if run.method == "online_kd"]


def scheduled(folder: Path, study: dict, *arguments: str) -> dict[str, int]:
    """Rule -> number of jobs of a dry run."""
    result = snakemake(folder, study, *arguments, "-n")
    assert result.returncode == 0, result.stderr
    return jobs(result.stdout)


def jobs(message: str) -> dict[str, int]:
    """Rule -> number of jobs, as a dry run says them."""
    lines = [line.split() for line in message.splitlines()]
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}


def with_intervals(*intervals, **recipe):
    changed = yaml.safe_load(yaml.safe_dump(STUDY))
    changed["grids"][0]["recipe"] |= recipe
    changed["grids"][0]["arms"][1]["interval"] = list(intervals)
    return changed


@pytest.mark.slow
def test_a_finished_study_has_nothing_to_do_and_grows_by_what_is_new(checkout, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    done = snakemake(checkout, STUDY)
    assert done.returncode == 0, done.stderr
    assert not warm.possible() or list(tmp_path.glob("spaced-kd-warm-*/lock"))
    assert not [log for log in checkout.glob("results/logs/**/*.log") if "without a warm process" in log.read_text()]
    table = (checkout / "results/trial/tables/tab01.csv").read_text()
    assert "online KD" in table
    message = done.stdout + done.stderr
    assert "Finished jobid" in message
    assert "Select jobs to execute" not in message  # nor how many are executed: a line for each job that has finished

    assert scheduled(checkout, STUDY) == {}
    files = [path for path in checkout.glob("results/runs/*/*") if path.is_file()]

    # a finished run stays as it is even where its job is made to run again, as a job that outlived its driver does
    (run,) = checkout.glob("results/runs/*baseline*/weights.safetensors")
    before = {path: path.stat().st_ino for path in files}
    again = snakemake(checkout, STUDY, str(run.relative_to(checkout)), "--forcerun", "train")
    assert again.returncode == 0, again.stderr
    log = (checkout / f"results/logs/train/{run.parent.name}.log").read_text()
    assert "is finished already" in log
    assert "after the last epoch" in log  # of the job before: Snakemake deletes a log when it starts another one
    assert len([line for line in log.splitlines() if line.startswith("job ")]) == 2
    assert before == {path: path.stat().st_ino for path in files}
    assert scheduled(checkout, STUDY) == {}

    # another interval: one training and its evaluations, then the tables; no teacher, no finished student
    finished = {path: path.stat().st_mtime_ns for path in files}
    more = with_intervals(0, 1.0, 1.5)
    assert scheduled(checkout, more) == {"study": 1, "train": 1, "evaluate": 1, "collect": 1, "table": 1, "total": 5}
    assert snakemake(checkout, more).returncode == 0
    assert all(path.stat().st_mtime_ns == when for path, when in finished.items())

    # another setting of an evaluation: the evaluations, no training
    other = yaml.safe_load(yaml.safe_dump(more))
    other["evaluations"]["bim"]["epsilon"] = 1.0
    assert scheduled(checkout, other) == {"study": 1, "evaluate": 3, "collect": 1, "table": 1, "total": 6}

    # a table alone, by its name
    assert scheduled(checkout, more | {"tables": ["tab01", "tab06"]}, "tab06") == {"tab06": 1, "table": 1, "total": 2}

    # a run that says something else than it did is refused by name
    run = next(checkout.glob("results/runs/*baseline*/run.json"))
    run.write_text(run.read_text().replace('"weight_decay": 0.0005', '"weight_decay": 0.0001'))
    refused = snakemake(checkout, STUDY, "-n")
    assert refused.returncode == 1
    assert "made with weight_decay=0.0001, but weight_decay is now 0.0005 by default" in refused.stdout + refused.stderr


def test_the_theory_is_measured_for_its_table_and_figure_alone(checkout, plain):
    study = STUDY | {"tables": ["tab01", "theory"], "figures": ["signed_sums"]}
    alone = {"measure_theory": 1, "table": 1, "theory": 1, "figure": 1, "signed_sums": 1, "total": 5}
    assert scheduled(checkout, study, "theory", "signed_sums") == alone
    assert "measure_theory" not in jobs(plain)


@pytest.mark.slow
def test_an_online_student_trains_in_its_teachers_job_where_the_study_asks(checkout):
    together = STUDY | {"train_together": True}
    result = snakemake(checkout, together, "--cores", "2")
    assert result.returncode == 0, result.stderr
    described = {
        run.interval: json.loads((checkout / "results/runs" / run.id / "run.json").read_text()) for run in runs()
    }
    assert {interval: run["teacher_states"] for interval, run in described.items()} == {0.0: "together", 1.5: "stored"}
    assert scheduled(checkout, together) == scheduled(checkout, STUDY) == {}  # the key alone trains nothing again


@pytest.mark.slow
def test_one_failed_run_leaves_the_others_alive(checkout):
    study = yaml.safe_load(yaml.safe_dump(STUDY))
    study["grids"][0]["arms"].append({"method": "self_kd", "method.beta": 3e38})  # its loss is no number
    result = snakemake(checkout, study)
    assert result.returncode == 1
    assert ": lower lr, or the weights of the method's losses" in result.stderr
    assert len(list(checkout.glob("results/runs/*/run.json"))) == 3


@pytest.mark.slow
def test_a_job_that_fails_after_its_last_file_has_done_its_work(checkout, environment):
    fault = "atexit.register(lambda: sys.argv[1:2] == ['train'] and '--finished' not in sys.argv and os._exit(1))"
    (environment / "sitecustomize.py").write_text(f"import atexit, os, sys\n{fault}\n")
    study = STUDY | {"grids": [STUDY["grids"][0] | {"arms": [{"method": "baseline"}]}], "tables": []}
    result = snakemake(checkout, study, "--retries", "0")
    assert result.returncode == 0, result.stderr
    log = next(checkout.glob("results/logs/train/digits*.log")).read_text()
    assert "is finished: the job failed after its last file" in log
    assert len([line for line in log.splitlines() if line.startswith("job ")]) == 1


UNION = {"study": "both", "experiments": ["tab10", "tab12"], "tables": ["overview"]}


@pytest.mark.slow
def test_a_table_of_the_union_needs_the_runs_of_its_experiment_alone(checkout):
    # a student and its teacher for each of three seeds
    alone = scheduled(checkout, UNION, "tab10")
    assert alone == {"prepare": 1, "train": 3 * 7, "collect": 1, "table": 1, "tab10": 1, "total": 25}
    attacked = scheduled(checkout, UNION, "tab12")
    # by two readings, which share their runs w/o KD
    assert attacked == {"prepare": 1, "train": 45, "evaluate": 36, "collect": 1, "table": 1, "tab12": 1, "total": 85}
    # what several need is there once: Fig. 4 has the runs of Tab. 12
    together = scheduled(checkout, UNION | {"experiments": ["fig04", "tab12"]})
    assert together["train"] == 45
    assert (together["collect"], together["table"]) == (2, 2)
    # a table that no experiment lists is drawn from the rows of all
    assert scheduled(checkout, UNION, "cost")["collect"] == 2


def test_the_figure_of_the_corruptions_needs_no_training(checkout):
    study = {"study": "both", "experiments": ["tab05"]}
    assert scheduled(checkout, study, "fig07") == {"prepare": 1, "corrupt": 1, "figure": 1, "fig07": 1, "total": 4}


def test_trainings_side_by_side_share_the_processors_and_a_submitted_one_has_its_own(checkout, plain):
    assert plain.count(f"--workers {processors()} ") == 3
    alone = snakemake(checkout, STUDY, *DRY, "--mode", "remote").stdout
    assert alone.count("spaced-kd train ") >= 3
    assert "--workers" not in alone


@pytest.mark.slow
def test_a_training_is_reported_its_jobs_time_where_a_profile_gives_one(checkout):
    result = snakemake(checkout, STUDY, "-n", "-p", "--workflow-profile", "none")
    assert result.stdout.count("--save-states-for") == 3
    assert "--time-limit" not in result.stdout
    result = snakemake(
        *(checkout, STUDY, "-n", "-p", "--workflow-profile", "none"),
        *("--set-resources", "train:runtime=5", "train:margin=30"),
    )
    assert result.stdout.count("--time-limit 300 --margin 30") == 3
    assert "--requeue" not in result.stdout  # also inside a Slurm job: it is not the training's own


def test_a_training_that_the_workflow_submitted_asks_to_be_run_again(checkout):
    study = STUDY | {"grids": [STUDY["grids"][0] | {"arms": [{"method": "baseline"}]}], "tables": []}
    arguments = ("-n", "-p", "--workflow-profile", "none", "--set-resources", "train:runtime=5")
    assert "--margin 120 --requeue" in snakemake(checkout, study, *arguments, "--mode", "remote").stdout


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tables": ["tab99"]}, "'tab99' is none of the tables"),
        ({"grid": 1}, "no key 'grid'"),
        ({"experiments": ["tab10"]}, "a study with experiments has no grids of its own"),
        ({"study": "theory"}, "results/theory is taken: choose another name"),
        ({"evaluations": {"bim": {"step": "big"}}}, "bim.step is 'big', but must be a number"),
        ({"tables": ["tab11"]}, "tab11 shows the evaluation corruptions, which the study makes of no run: list "),
        ({"figures": ["fig04"]}, "fig04 shows the evaluation weight_noise, which the study makes of no run: list "),
    ],
)
def test_a_bad_study_is_refused(change, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)):
        expand(STUDY | change)


@pytest.mark.parametrize(
    ("study", "complaint"),
    [
        (
            with_intervals(0.2, batch_size=21),
            "interval=0.2 epochs is 0.40 batches of 2 an epoch, which would be online KD",
        ),
        (with_intervals(0.5, batch_size=60), "interval=0.5 epochs is 0.50 batches of 1 an epoch"),
    ],
)
def test_a_short_interval_of_one_batch_is_refused_by_the_run(tmp_path, study, complaint):
    with pytest.raises(UserError, match=f"^digits-.*: {re.escape(complaint)}"):
        intervals.check(expand(study).runs, tmp_path, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"tables": ["tab99"]},
        pytest.param(with_intervals(0.2, batch_size=21), marks=pytest.mark.slow),  # which imports torch
    ],
    ids=["tables", "interval"],
)
def test_the_workflow_refuses_a_bad_study_without_a_traceback(checkout, change):
    refused = snakemake(checkout, STUDY | change, "-n")
    assert refused.returncode == 1
    message = refused.stdout + refused.stderr
    assert "configuration of the study: " in message
    assert "'tab99' is none of the tables" in message or "which would be online KD" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("results/trial/tables/tab99.md", "'tab99' is none of the tables: adaptive, "),
        ("results/trial/figures/fig2.png", "did you mean fig02?"),
        ("tab99", "'tab99' is none of the tables and figures: adaptive, "),
        ("results/runs/digits-x-0/weights.safetensors", "no run 'digits-x-0'; did you mean digits-x-1?"),
        ("results/trial/evaluations/digits-x-0.json", "no run 'digits-x-0'; did you mean digits-x-1?"),
    ],
)
def test_what_does_not_exist_is_refused_as_a_target(target, complaint):
    with pytest.raises(UserError, match=re.escape(complaint)):
        targets.check(["-n", target], {"digits-x-1"})
    targets.check(["-n", "tab01", "results/runs/digits-x-1/run.json", "--configfile", "some.yaml"], {"digits-x-1"})


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("tab99", "'tab99' is none of the tables and figures: adaptive, "),
        ("results/runs/digits-0/run.json", "the study has no run 'digits-0': it lists others"),
    ],
)
def test_the_workflow_refuses_such_a_target_in_one_line(checkout, target, complaint):
    result = snakemake(checkout, STUDY, "-n", target)
    assert result.returncode == 1
    lines = [line for line in (result.stdout + result.stderr).splitlines() if "configuration of the study: " in line]
    assert len(lines) == 1
    assert complaint in lines[0]
    assert "Traceback" not in result.stderr
    assert "No rule to produce" not in result.stderr


def test_a_study_without_its_name_is_not_taken_for_the_demo(checkout):
    shutil.copy(ROOT / "config/studies/demo.yaml", checkout / "config")
    refused = snakemake(checkout, {key: value for key, value in STUDY.items() if key != "study"}, "-n")
    assert refused.returncode == 1
    assert "the configuration has no key 'study'" in refused.stdout + refused.stderr


@pytest.mark.slow
def test_a_wrong_claim_is_refused_before_anything_runs(checkout, monkeypatch):
    shutil.copytree(ROOT / "src", checkout / "src", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", str(checkout / "src"))
    content = yaml.safe_load((ROOT / "src/spaced_kd/config/preset_files/claims.yaml").read_text())
    content["claims"]["spaced_beats_online"]["before"] = "onlin"
    (checkout / "src/spaced_kd/config/preset_files/claims.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    refused = snakemake(checkout, STUDY | {"tables": ["scorecard"]}, "-n")
    assert refused.returncode == 1
    message = refused.stdout + refused.stderr
    assert "claim spaced_beats_online: arm 'onlin' does not exist: there is without, online, spaced" in message
    assert f"no commit has the code in {checkout / 'src/spaced_kd'}, so `record` will refuse" in message
    assert "Traceback" not in message


def test_a_study_that_asks_for_verdicts_has_a_page_of_them(checkout, plain):
    study = STUDY | {"tables": ["overview"]}
    assert scheduled(checkout, study)["page"] == 1
    assert "page" not in jobs(plain)
    result = plan.describe(plan.make(expand(study), "h200", 2, checkout))
    assert "1 page." in result


@pytest.mark.slow
def test_the_graph_of_a_study_with_verdicts_needs_no_torch(checkout):
    (checkout / "config/trial.yaml").write_text(yaml.safe_dump(STUDY | {"tables": ["overview"]}))
    # a process of its own: those of `dry_run` come from a server that other tests may have started with torch
    tell = "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules))"
    code = f"{tell}; from snakemake.cli import main; main()"
    command = [sys.executable, "-c", code, "-n", "--configfile", "config/trial.yaml"]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.slow
def test_the_plan_counts_the_jobs_of_the_graph(checkout):
    study = STUDY | {"evaluations": {"bim": {"images": 20}, "corruptions": {"images": 20}}, "figures": ["fig02"]}
    graph = scheduled(checkout, study)
    result = plan.describe(plan.make(expand(study), "h200", 2, checkout))
    assert f"{graph['total'] - graph['study']} jobs:" in result
    for rule in ("prepare", "corrupt", "train", "evaluate", "collect"):
        assert f"{graph[rule]} {rule}" in result


def commands(folder: Path, study: dict, *arguments: str) -> str:
    """What a dry run would have the shell do."""
    result = snakemake(folder, study, "-n", "--printshellcmds", "--quiet", "host", *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


@pytest.mark.slow
def test_a_run_of_several_processes_is_started_by_torchrun(checkout):
    shared = yaml.safe_load(yaml.safe_dump(STUDY))
    shared["grids"][0]["recipe"] |= {"processes": 4, "batch_norm": "shares"}
    assert "torchrun" not in commands(checkout, STUDY)
    here = commands(checkout, shared)
    assert here.count("torchrun --standalone --nproc-per-node 4 -m spaced_kd train ") == 3
    assert "processes=4" in here
    on_two = commands(checkout, shared, "--set-resources", "train:mpi=srun", "train:tasks=2")
    assert on_two.count("srun --ntasks 2 torchrun --nnodes 2 --nproc-per-node 2 --rdzv-backend c10d") == 3
    result = snakemake(checkout, shared, "-n", "--set-resources", "train:mpi=srun", "train:tasks=3")
    assert result.returncode == 1
    assert "4 processes, which 3 tasks cannot share" in result.stdout + result.stderr


@pytest.mark.slow
def test_a_workstation_has_a_place_for_each_training_and_evaluation(checkout):
    study = yaml.safe_load(yaml.safe_dump(STUDY))
    study["grids"][0]["arms"][0] |= {"processes": 2, "batch_norm": "shares"}
    (checkout / "config/trial.yaml").write_text(yaml.safe_dump(study))
    code = (  # whole descriptions of jobs in the place of messages
        "import sys; from snakemake.cli import main; from snakemake.logging import DefaultFormatter as Lines\n"
        "Lines.format_job_info = lambda self, job: '\\n'.join(self._format_job_info(job))\n"
        "main(sys.argv[1:])"
    )
    arguments = ("-n", "--workflow-profile", "none", "--cores", "8", "--profile", "profiles/workstation")
    command = [sys.executable, "-c", code, *arguments, "--configfile", "config/trial.yaml"]
    result = subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    jobs = re.findall(r"^(?:local)?rule (\w+):.*?place=(\d+)", result.stdout, re.MULTILINE | re.DOTALL)
    expected = {("train", "2"): 1, ("train", "1"): 3, ("evaluate", "1"): 2}
    assert Counter(jobs) == expected | {(name, "0"): 1 for name in ("prepare", "collect", "table", "study")}


@pytest.mark.slow
def test_a_training_that_fails_says_why_and_not_what_an_earlier_one_said(checkout):
    failing = yaml.safe_load(yaml.safe_dump(STUDY))
    failing["grids"][0] |= {"arms": [{"method": "baseline"}]}
    failing["grids"][0]["recipe"] |= {"lr": 1e30}
    first = snakemake(checkout, failing)
    assert first.returncode == 1
    assert "the loss (teacher: hard) is" in first.stderr
    (log,) = checkout.glob("results/logs/train/digits*.log")
    assert "the loss (teacher: hard) is" in log.read_text()
    (data,) = checkout.glob("results/data/*.safetensors")
    data.write_bytes(data.read_bytes()[:-1])
    second = snakemake(checkout, failing)
    assert "is damaged" in second.stderr
    assert "the loss" not in second.stderr
    assert "the loss (teacher: hard) is" in log.read_text()
