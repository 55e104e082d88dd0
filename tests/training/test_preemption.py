"""What ends a training before it is through, and who may train a run: signals, time limits, Slurm, locks."""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import TINY, tiny

from spaced_kd.cli import main as cli
from spaced_kd.config.paths import ResultPaths
from spaced_kd.training import preemption, run_lock, run_recorder
from spaced_kd.training.loop import train
from spaced_kd.training.preemption import GO_ON, Interrupted, StopSignal
from spaced_kd.training.run_lock import exclusive
from spaced_kd.utils.errors import UserError

WORDS = [f"{key}={value}" for key, value in TINY.items()]


@pytest.fixture
def other(results, tmp_path):
    """A second folder of results with the same data."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "data").symlink_to(results / "data")
    return tmp_path / "other"


def same(first, second) -> bool:
    names = ("weights.safetensors", "predictions.safetensors", "rows.json")
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


@pytest.fixture
def on_turn(monkeypatch):
    """Call something inside a learner's update: (number of the update, what to call)."""

    def arrange(number, call):
        learn, counted = run_recorder.RunRecorder.after_turn, []

        def after(self, who, index, losses):
            counted.append(index)
            if len(counted) == number:
                call()
            learn(self, who, index, losses)

        monkeypatch.setattr(run_recorder.RunRecorder, "after_turn", after)

    return arrange


@pytest.mark.parametrize(
    ("number", "status", "times"), [(signal.SIGTERM, 143, 1), (signal.SIGINT, 130, 1), (signal.SIGTERM, 143, 3)]
)
def test_a_signal_leaves_a_state_however_often_it_comes(results, other, on_turn, capsys, number, status, times):
    spec = tiny(method="online_kd", interval=1.0, epochs=2)
    arguments = ["train", *spec.overrides(), "--results", str(other)]
    on_turn(4, lambda: [os.kill(os.getpid(), number) for _ in range(times)])
    before = signal.getsignal(number)
    assert cli.main(arguments) == status
    assert f"{number.name}: stopped, and the same command goes on" in capsys.readouterr().err
    assert [path.name for path in ResultPaths(other).state(spec).iterdir()] == ["turn-000000004.safetensors"]
    assert signal.getsignal(number) == before
    assert cli.main(arguments) == 0
    assert "goes on after turn 4 of 20" in capsys.readouterr().out
    assert same(train(spec, results), ResultPaths(other).run(spec))


@pytest.mark.slow
def test_ten_slices_come_to_the_same_run(results, other, monkeypatch):
    spec = tiny(method="self_kd", interval=1.0)
    now = [0.0]
    monkeypatch.setattr(preemption.time, "monotonic", lambda: now.append(now[-1] + 1) or now[-1])
    for _ in range(9):
        with pytest.raises(Interrupted, match="the time limit is near"):
            train(spec, other, stop=StopSignal(time_limit=15, margin=10))  # each look at the clock takes a second
    folder = train(spec, other, stop=StopSignal(time_limit=100, margin=10))
    monkeypatch.undo()
    assert same(train(spec, results), folder)


def test_each_slice_makes_at_least_one_turn(results):
    spec = tiny(method="baseline")
    for turn in (1, 2):
        with pytest.raises(Interrupted):
            train(spec, results, stop=StopSignal(time_limit=1e-9, margin=0))
        assert ResultPaths(results).state(spec).joinpath(f"turn-{turn:09d}.safetensors").exists()


def scontrol(folder, script: str, monkeypatch) -> None:
    (folder / "scontrol").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ('echo "$@" > "$0.asked"', "; Slurm runs job 77 again"),
        ("echo 'Requested operation is presently disabled' >&2; exit 1", "(Requested operation is presently disabled)"),
    ],
)
def test_a_slurm_job_asks_to_be_run_again(results, tmp_path, monkeypatch, capsys, script, message):
    scontrol(tmp_path, script, monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    arguments = [
        "train",
        *WORDS,
        "method=baseline",
        "--results",
        str(results),
        "--time-limit",
        "0.001",
        "--margin",
        "0",
    ]
    assert cli.main([*arguments, "--requeue"]) == GO_ON == 75
    err = capsys.readouterr().err
    assert "the time limit is near: stopped" in err
    assert message in err
    assert err.count("\n") == 1
    if "asked" in script:
        assert (tmp_path / "scontrol.asked").read_text() == "requeue 77\n"
    assert list(ResultPaths(results).state(tiny(method="baseline")).glob("turn-*"))  # before Slurm ends the process


@pytest.mark.slow
def test_asking_slurm_outlives_the_signal_that_torchrun_sends(results, tmp_path, monkeypatch):
    scontrol(tmp_path, "kill -TERM $PPID; sleep 0.5", monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    arguments = [
        "train",
        *WORDS,
        "method=baseline",
        "--results",
        str(results),
        "--time-limit",
        "0.001",
        "--margin",
        "0",
    ]
    arguments += ["--requeue"]
    result = subprocess.run(
        [sys.executable, "-m", "spaced_kd", *arguments], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr.count("\n")) == (GO_ON, 1)
    assert result.stderr.endswith("; Slurm runs job 77 again\n")


def test_a_job_of_somebody_else_is_not_run_again(results, tmp_path, monkeypatch, capsys):
    scontrol(tmp_path, 'touch "$0.asked"', monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "77")  # of a driver that trains where it runs, say
    arguments = [
        "train",
        *WORDS,
        "method=baseline",
        "--results",
        str(results),
        "--time-limit",
        "0.001",
        "--margin",
        "0",
    ]
    assert cli.main(arguments) == GO_ON
    assert "Slurm" not in capsys.readouterr().err
    assert not (tmp_path / "scontrol.asked").exists()


def test_only_a_time_limit_asks_slurm(results, tmp_path, monkeypatch, on_turn):
    scontrol(tmp_path, 'touch "$0.asked"', monkeypatch)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    on_turn(1, lambda: os.kill(os.getpid(), signal.SIGTERM))  # scancel, preemption: not ours to undo
    assert cli.main(["train", *WORDS, "method=baseline", "--requeue", "--results", str(results)]) == 143
    assert not (tmp_path / "scontrol.asked").exists()


def test_a_limit_shorter_than_its_margin_is_refused(results, capsys):
    arguments = ["train", *WORDS, "method=baseline", "--results", str(results), "--time-limit", "60"]
    assert cli.main(arguments) == 2
    assert "--time-limit is 60 s and --margin 120 s, which leaves no time to train" in capsys.readouterr().err


def test_a_second_process_waits_and_finds_the_run_finished(results, capsys, monkeypatch, on_turn):
    spec = tiny(method="baseline")
    path = ResultPaths(results).lock(spec)
    monkeypatch.setattr("spaced_kd.training.loop.exclusive", lambda path, part: exclusive(path, part, poll=0.02))
    on, go, turns = threading.Event(), threading.Event(), []
    on_turn(2, lambda: on.set() or go.wait(30))
    after = run_recorder.RunRecorder.after_turn
    monkeypatch.setattr(run_recorder.RunRecorder, "after_turn", lambda *all_: turns.append(all_[2]) or after(*all_))
    folders = []
    first, second = (threading.Thread(target=lambda: folders.append(train(spec, results))) for _ in range(2))
    first.start()
    assert on.wait(30)
    second.start()
    message, end = "", time.monotonic() + 30
    while "waiting for" not in message and time.monotonic() < end:
        time.sleep(0.02)
        message += capsys.readouterr().out
    assert f"{path}: held by process {os.getpid()} on {os.uname().nodename}: waiting for it to end" in message
    assert not folders
    go.set()
    first.join()
    second.join()
    assert folders == [ResultPaths(results).run(spec)] * 2
    assert turns == list(range(15))  # each once
    assert not path.exists()


def test_waiting_ends_by_a_signal_too(tmp_path):
    part = StopSignal()
    with exclusive(tmp_path / "lock", StopSignal()), part:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM"), exclusive(tmp_path / "lock", part):
            pass


def test_the_lock_of_a_dead_process_holds_nobody_up(results, capsys):
    spec = tiny(method="baseline")
    path = ResultPaths(results).lock(spec)
    path.parent.mkdir(parents=True)
    child = os.fork()
    if not child:
        with exclusive(path, StopSignal()):
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert path.read_text() == f"process {child} on {os.uname().nodename}"
    train(spec, results)
    assert f"{path}: left by process {child} on {os.uname().nodename}, which has ended" in capsys.readouterr().out
    assert not path.exists()


def test_what_a_process_left_that_was_killed_at_its_very_end_is_removed(results, other):
    spec = tiny(method="baseline")
    with pytest.raises(Interrupted):
        train(spec, other, stop=StopSignal(time_limit=1e-9, margin=0))
    folder, paths = train(spec, results), ResultPaths(results)
    (state,) = ResultPaths(other).state(spec).glob("turn-*")
    shutil.copy(state, paths.state(spec))
    paths.lock(spec).write_text("process 7 on nowhere")
    with open(paths.lock(spec)) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        train(spec, results)
        assert len(list(paths.state(spec).iterdir())) == 2  # of one that is alive
    assert train(spec, results) == folder
    assert list(paths.state(spec).iterdir()) == []


def test_a_lock_that_was_removed_while_one_waited_is_no_lock(tmp_path, monkeypatch):
    """The waiting process has the old file open; who comes later would lock a new one."""
    path, opened, really = tmp_path / "lock", [], run_lock._open

    def late(path):
        file = really(path)
        if not opened:
            path.unlink()  # as its holder does, between this one's opening and locking
        opened.append(file)
        return file

    monkeypatch.setattr("spaced_kd.training.run_lock._open", late)
    with exclusive(path, StopSignal()):
        assert os.path.samestat(path.stat(), os.fstat(opened[-1].fileno()))
    assert len(opened) == 2


def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("spaced_kd.training.run_lock.fcntl.flock", flock)
    warned = pytest.warns(UserWarning, match=r"cannot be locked \(No locks available\): start each run once only")
    with warned, exclusive(tmp_path / "lock", StopSignal()):
        pass


def test_a_lock_that_cannot_be_made(tmp_path):
    (tmp_path / "state").write_text("")
    with pytest.raises(UserError, match="cannot be written"), exclusive(tmp_path / "state" / "lock", StopSignal()):
        pass


@pytest.mark.slow
def test_a_signal_to_the_whole_group_leaves_a_state_though_processes_make_images_ahead(results):
    spec = tiny(method="baseline", augmentation="autoaugment_cutout", epochs=999, network__width=2.0, batch_size=40)
    arguments = [
        sys.executable,
        "-m",
        "spaced_kd",
        "train",
        *spec.overrides(),
        "--results",
        str(results),
        "--workers",
        "1",
    ]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(arguments, **options) as process:
        assert "accuracy" in process.stdout.readline()  # it trains
        os.killpg(process.pid, signal.SIGTERM)
        message = process.stderr.read()
    assert (process.returncode, message.count("\n")) == (143, 1), message
    assert "SIGTERM: stopped, and the same command goes on" in message
    assert len(list(ResultPaths(results).state(spec).glob("turn-*"))) >= 1
