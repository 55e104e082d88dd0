"""Warm processes: a command that is passed on cannot be told from a plain one, and in doubt it is a plain one.

Here the package is a stand-in that holds the real `cli/warm.py` and imports nothing else.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY

from spaced_kd.cli import warm

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="warm processes are for Linux")

STAND_IN = """
import json, os, signal, sys, time

def main():
    what = sys.argv[2]
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")
    print(os.getpid(), flush=True)
    if what == "tell":
        told = {"argv": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ), "stdin": sys.stdin.read()}
        print(json.dumps(told | {"imported": "timm.models" in sys.modules}))
        print("an error", file=sys.stderr)
    elif what == "leave":
        return int(sys.argv[3])
    elif what == "die":
        os.kill(os.getpid(), int(sys.argv[3]))
    elif what == "listen":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
        signal.signal(signal.SIGUSR1, lambda *_: os.write(1, b"heard\\n"))
        print("listening", flush=True)
        while True:
            time.sleep(0.01)
    elif what == "exit":
        sys.exit(sys.argv[3] or None)
    elif what == "raise":
        raise ValueError("an accident")
    elif what == "ignored":
        return signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return 0
"""
EMPTY = (
    *("timm/__init__.py", "timm/models.py", "torchattacks.py", "curvlinops.py"),  # the real ones take four seconds
    *(f"spaced_kd/{room}/__init__.py" for room in ("training", "evaluation", "cli")),
)


@pytest.fixture
def package(tmp_path) -> Path:
    """Folder of packages in which the real `cli/warm.py` finds stand-ins for everything that it imports."""
    for name in ("spaced_kd/__init__.py", *EMPTY, "spaced_kd/training/loop.py", "spaced_kd/evaluation/evaluate.py"):
        path = tmp_path / "packages" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "packages" / "spaced_kd" / "cli" / "main.py").write_text(STAND_IN)
    (tmp_path / "packages" / "spaced_kd" / "cli" / "warm.py").symlink_to(warm.__file__)
    return tmp_path / "packages"


@pytest.fixture
def workflow():
    """A process that stands for the workflow."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process
        process.kill()


@pytest.fixture
def command(package, workflow, tmp_path, monkeypatch):
    """Starts `spaced-kd train WORDS` for the workflow."""
    for name, value in {"PYTHONPATH": package, "TMPDIR": tmp_path, warm.VARIABLE: workflow.pid}.items():
        monkeypatch.setenv(name, str(value))

    def start(*arguments: str, **settings: object) -> subprocess.Popen:
        call = [sys.executable, "-P", "-c", "import sys; from spaced_kd.cli.warm import main; sys.exit(main())"]
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen([*call, "train", *arguments], **streams, text=True, **settings)

    return start


def told(process: subprocess.Popen, given: str = "") -> tuple[bool, list[str], str]:
    """Whether another process ran the command, the lines that it wrote, and its standard error."""
    output, errors = process.communicate(given, timeout=20)
    own, *lines = output.splitlines()
    return int(own) != process.pid, lines, errors


def parent(pid: int) -> int:
    """The process that started another one."""
    return int(re.search(r"^PPid:\t(\d+)$", Path("/proc", str(pid), "status").read_text(), re.MULTILINE)[1])


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    for _ in range(500):
        if not Path("/proc", str(pid)).exists():
            return True
        time.sleep(0.01)
    return False


def test_it_is_run_elsewhere_with_all_that_it_was_given(command, tmp_path, monkeypatch):
    found = []
    for arguments, sent in (("tell", "a b", "ä\udcff"), "first"), (("tell",), "second"):
        monkeypatch.setenv("OLDPWD", sent)  # which a shell changes from job to job
        elsewhere, (line,), errors = told(command(*arguments, cwd=tmp_path), sent)
        assert elsewhere
        assert errors == "an error\n"
        found.append(json.loads(line))
        assert found[-1]["argv"] == ["train", *arguments]
        assert (found[-1]["folder"], found[-1]["stdin"], found[-1]["imported"]) == (str(tmp_path), sent, True)
    monkeypatch.setenv(warm.VARIABLE, "off")
    elsewhere, (line,), _ = told(command("tell"))
    assert not elsewhere
    for each, sent in zip(found, ("first", "second"), strict=True):
        same = {warm.VARIABLE: each["environment"][warm.VARIABLE], "OLDPWD": sent}
        assert each["environment"] == json.loads(line)["environment"] | same


def test_it_ends_as_the_command_ends(command):
    process = command("leave", "3")
    assert told(process) == (True, [], "")
    assert process.returncode == 3
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = command("die", str(int(number)))
        assert told(process)[0]
        assert process.returncode == -number


@pytest.mark.parametrize(("text", "status"), [("", 0), ("the reason", 1)])
def test_an_exit_in_words_is_an_error_that_is_told(command, text, status):
    process = command("exit", text)
    assert told(process) == (True, [], f"{text}\n" if text else "")
    assert process.returncode == status


def test_an_exception_is_told_as_the_interpreter_tells_it(command):
    process = command("raise")
    elsewhere, _, errors = told(process)
    assert elsewhere
    assert errors.startswith("Traceback (most recent call last):\n")
    assert errors.endswith("ValueError: an accident\n")
    assert process.returncode == 1


def test_signals_to_every_process_of_a_job_end_the_commands_alone(command):
    first = command("listen")
    child = int(first.stdout.readline())
    assert first.stdout.readline() == "listening\n"
    keeper = parent(child)
    for pid in (parent(keeper), keeper, child, first.pid):
        os.kill(pid, signal.SIGTERM)
    first.communicate(timeout=20)
    assert first.returncode == 5
    assert told(command("leave", "3"))[0]


def test_signals_reach_the_command(command):
    process = command("listen")
    assert int(process.stdout.readline()) != process.pid
    assert process.stdout.readline() == "listening\n"
    process.send_signal(signal.SIGUSR1)
    assert process.stdout.readline() == "heard\n"
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 5


def test_an_ignored_signal_stays_ignored(command):
    process = command("ignored", preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))
    assert told(process)[0]
    assert process.returncode == 1


def test_who_kills_the_command_kills_the_child(command):
    process = command("listen")
    child = int(process.stdout.readline())
    assert process.stdout.readline() == "listening\n"
    process.kill()
    assert gone(child)
    process.communicate(timeout=20)


def test_a_killed_warm_process_takes_the_child_along(command):
    process = command("listen")
    child = int(process.stdout.readline())
    assert process.stdout.readline() == "listening\n"
    os.kill(parent(child), signal.SIGKILL)
    assert gone(child)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 137
    assert errors == "spaced-kd: the workflow's warm process was killed: give the same command again\n"


def test_it_ends_with_its_workflow(command, workflow, tmp_path):
    assert told(command("leave", "0"))[0]
    (path,) = tmp_path.glob("spaced-kd-warm-*/*-training")
    workflow.kill()
    workflow.wait()
    for _ in range(500):
        if not path.exists():
            break
        time.sleep(0.01)
    assert not path.exists()
    elsewhere, _, errors = told(command("leave", "0"))
    assert not elsewhere
    assert errors.startswith("without a warm process: ")


@pytest.mark.parametrize(
    ("variables", "silent"),
    [
        ({warm.VARIABLE: "off"}, True),
        ({warm.VARIABLE: ""}, True),
        ({"WORLD_SIZE": "2"}, True),
        ({"OMP_NUM_THREADS": "7"}, False),
        ({"TMPDIR": "/proc"}, False),
    ],
)
def test_a_command_of_another_kind_is_a_plain_one(command, monkeypatch, variables, silent):
    assert told(command("leave", "0"))[0]
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    elsewhere, _, errors = told(command("leave", "0"))
    assert not elsewhere
    assert errors.startswith("without a warm process: ") is not silent


def test_after_an_edit_of_the_sources_it_is_a_plain_one(command, package):
    assert told(command("leave", "0"))[0]
    with (package / "spaced_kd" / "training" / "loop.py").open("a", encoding="utf-8") as file:
        print("# edited", file=file)
    elsewhere, _, errors = told(command("leave", "0"))
    assert not elsewhere
    assert errors == "without a warm process: its environment, Python or sources are others\n"


THREAD = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"


@pytest.mark.parametrize("text", ["raise ImportError", "import os; os._exit(1)", THREAD])
def test_where_the_imports_fail_or_start_threads_it_is_a_plain_one(command, package, text):
    (package / "timm" / "models.py").write_text(text)
    elsewhere, _, errors = told(command("leave", "0"))
    assert not elsewhere
    assert errors.startswith("without a warm process: ")


def test_a_folder_that_others_may_write_is_refused(command, tmp_path):
    folder = tmp_path / f"spaced-kd-warm-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    elsewhere, _, errors = told(command("leave", "0"))
    assert not elsewhere
    assert errors == f"without a warm process: {folder} can be written by others\n"


def test_gpus_have_none(monkeypatch, tmp_path):
    monkeypatch.setattr(warm, "GPUS", ())
    assert warm.possible()
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(warm, "GPUS", (f"{tmp_path}/nvidia[0-9]*",))
    assert not warm.possible()


@pytest.mark.slow
def test_a_training_has_the_same_bits(results, workflow, tmp_path, monkeypatch):
    arguments = [f"{key}={value}" for key, value in TINY.items()] + ["method=online_kd", "interval=1.5"]
    made = []
    for warmed in ("off", str(workflow.pid)):
        monkeypatch.setenv(warm.VARIABLE, warmed)
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        command = [sys.executable, "-m", "spaced_kd", "train", *arguments, "--results", results]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        (folder,) = results.glob("runs/*")
        about = json.loads((folder / "run.json").read_text("utf-8"))
        assert about["provenance"]["command"][1:] == [*command[3:-1], str(results)]
        made.append([(folder / name).read_bytes() for name in ("weights.safetensors", "predictions.safetensors")])
        folder.rename(tmp_path / warmed)
    assert made[0] == made[1]
    assert list(tmp_path.glob("spaced-kd-warm-*/*-training"))


@pytest.mark.slow
def test_of_two_trainings_in_one_warm_process_the_killed_one_goes_on(results, workflow, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def start(seed: int, into: Path, warmed: str) -> subprocess.Popen:
        words = [f"{key}={value}" for key, value in (TINY | {"seed": seed, "method": "baseline"}).items()]
        command = [
            sys.executable,
            "-m",
            "spaced_kd",
            "train",
            *words,
            "--checkpoint-every",
            "0",
            "--results",
            str(into),
        ]
        return subprocess.Popen(command, env=os.environ | {warm.VARIABLE: warmed})

    def weights(of: Path, seed: int) -> bytes:
        (folder,) = of.glob(f"runs/*-baseline-0-{seed}-*")
        return (folder / "weights.safetensors").read_bytes()

    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "data").symlink_to(results / "data")
    assert start(0, plain, "off").wait(120) == 0
    killed, other = (start(seed, results, str(workflow.pid)) for seed in (0, 1))
    while not [*results.glob("state/*-baseline-0-0-*/turn-*")]:
        assert killed.poll() is None
        time.sleep(0.001)
    killed.kill()
    assert other.wait(120) == 0
    assert weights(results, 1)
    assert not [*results.glob("runs/*-baseline-0-0-*/run.json")]
    assert start(0, results, str(workflow.pid)).wait(120) == 0
    assert weights(results, 0) == weights(plain, 0) != weights(results, 1)
    assert len([*tmp_path.glob("spaced-kd-warm-*/*-training")]) == 1
