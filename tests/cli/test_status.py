"""`spaced-kd status`, on files as trainings, evaluations and the workflow leave them."""

import fcntl
import json
import subprocess
import sys

import pytest

from spaced_kd.cli.main import main
from spaced_kd.cli.status import duration, error
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.study import load_study

STUDY = """\
study: watched
grids:
  - dataset: digits
    network: resnet_mini
    recipe: {epochs: 12}
    seed: [0, 1, 2]
    evaluate: [bim]
    arms:
      - {method: baseline}
      - {method: online_kd, interval: [0, 1.5]}
evaluations: {bim: {}}
"""
HEADER = "epoch,turn,turns,seconds,accuracy,held_out_accuracy,teacher_loss\n"


@pytest.fixture
def study(tmp_path):
    """The study's file, its runs and the folder of results."""
    path = tmp_path / "watched.yaml"
    path.write_text(STUDY)
    (tmp_path / "results").mkdir()
    return path, load_study(path).runs, ResultPaths(tmp_path / "results")


def status(path, paths, *options):
    return main(["status", str(path), "--results", str(paths.results), *options])


def finish(paths, run, seconds, accuracy=90.0):
    folder = paths.run(run)
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"wall_seconds": seconds}))
    (folder / "rows.json").write_text(json.dumps([{"selection": "last", "epoch": 12, "value": accuracy}]))


def begin(paths, run, *lines, log=""):
    """A run that has evaluated some epochs and written some lines into its log."""
    paths.curve(run).parent.mkdir(parents=True)
    paths.curve(run).write_text(HEADER + "".join(lines))
    path = paths.results / "logs" / "train" / f"{run.id}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(log)


def test_a_study_that_never_ran_waits(study, capsys):
    path, _, paths = study
    assert status(path, paths) == 0
    message = capsys.readouterr().out
    assert message.startswith(
        "watched: 9 trainings: 9 waiting\nevaluations: 0 of 9 done\n\nDigits; mini ResNet; 12 epochs"
    )
    assert "w/o KD                             3 waiting" in message


def test_states_come_from_locks_curves_and_logs(study, capsys):
    path, runs, paths = study
    done, running, failed, stopped, killed, starting = runs[:6]
    finish(paths, done, 60.0)
    begin(paths, running, "3,30,120,20,70,,1.5\n", "6,60,120,40,81.25,,1.1\n", "9,90,1", log="job today\n")
    begin(paths, failed, log="job before\nspaced-kd: out of memory\njob today\nspaced-kd: the loss is nan\n")
    begin(paths, stopped, "3,30,120,20,70,,1.5\n", log="spaced-kd: SIGTERM: stopped, and the same command goes on\n")
    begin(paths, killed, "3,30,120,20,70,,1.5\n", log="job today\nepoch 3\n")
    paths.lock(starting).parent.mkdir(parents=True)
    for each in (running, killed, starting):
        paths.lock(each).parent.mkdir(parents=True, exist_ok=True)
        paths.lock(each).touch()
    with open(paths.lock(running)) as one, open(paths.lock(starting)) as other:
        fcntl.flock(one, fcntl.LOCK_EX)
        fcntl.flock(other, fcntl.LOCK_EX)
        assert status(path, paths, "--json") == 0
        found = json.loads(capsys.readouterr().out)
        status(path, paths)
        message = capsys.readouterr().out
    assert found["counts"] == {"done": 1, "running": 2, "waiting": 3, "stopped": 2, "failed": 1}
    by_run = {run["run"]: run for run in found["runs"]}
    assert {run.id: by_run[run.id]["state"] for run in (stopped, killed)} == {
        stopped.id: "stopped",
        killed.id: "stopped",
    }
    assert by_run[running.id] == {
        **{"run": running.id, "state": "running", "share": 0.5, "epoch": 6, "accuracy": 81.25, "seconds": 40.0},
        **{"to_go": 40.0, "line": ""},
    }
    assert by_run[failed.id]["line"] == "the loss is nan"
    # 40 s of the one that runs, 60 s each of those stopped at a quarter, and a finished run's 60 s of all others
    assert found["seconds_to_go"] == 40 + 2 * 60 + 5 * 60
    assert f"  {running.id}\n      epoch 6, 50% done, accuracy 81.25 %, 40 s to go" in message
    assert f"  {starting.id}\n      before its first evaluation" in message
    assert message.rstrip().endswith(f"failed:\n  {failed.id}\n      the loss is nan")
    assert max(map(len, message.splitlines())) <= 80


def test_an_evaluation_and_a_preparation_that_failed_are_reported(study, capsys):
    path, runs, paths = study
    finish(paths, runs[0], 60.0)
    for name in (f"evaluate/watched/{runs[0].id}", f"prepare/{runs[0].data_id}"):
        log = paths.results / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True)
        log.write_text("spaced-kd: warning: slow\nspaced-kd: no such file\n")
    status(path, paths, "--json")
    failed = json.loads(capsys.readouterr().out)["failed_jobs"]
    assert failed == {
        f"evaluation of {runs[0].id}": "no such file",
        f"preparation of {runs[0].data_id}": "no such file",
    }


def test_an_unexpected_error_is_reported_by_its_last_line(tmp_path):
    log = tmp_path / "log"
    log.write_text('job today\nTraceback (most recent call last):\n  File "x.py"\nKeyError: 3\n')
    assert error(log) == "KeyError: 3"
    log.write_text("job today\nepoch 3\n")
    assert error(log) == ""


def test_it_imports_no_torch_nor_pandas_nor_numpy(study):
    path, _, paths = study
    code = f"""
import sys
from spaced_kd.cli.main import main
main(["status", {str(path)!r}, "--results", {str(paths.results)!r}])
print([name for name in ("torch", "pandas", "numpy") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert result.splitlines()[-1] == "[]"


def test_durations():
    given = {8: "8 s", 59.9: "1 min", 3599: "1 h 0 min", 12000: "3 h 20 min", 200000: "2 d 7 h"}
    assert {seconds: duration(seconds) for seconds in given} == given
