"""A study on a real Slurm, with what clusters do to it: nothing is lost, done twice, or another than on one machine."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spaced_kd.utils.array_file import read
from spaced_kd.utils.files import read_json

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "tests/workflow/slurm/study.yaml"
PACKED = ROOT / "tests/workflow/slurm/packed.yaml"
PATIENCE = 1200  # seconds for anything that is waited for, on a slow machine that has other work
TOY = (  # a machine with two cores and no accounting: ask often, and for little
    *("--slurm-init-seconds-before-status-checks", "5", "--latency-wait", "5"),
    *("--set-resources", "evaluate:mem_mb=2500", "train:margin=30"),
    "train:mem_mb=2500 if threads == 1 else 600 if attempt == 1 else 4000",
    "train:runtime=1 if 'self_kd' in wildcards.run else 10",
)

pytestmark = pytest.mark.slurm


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    script = ROOT / "tests/workflow/slurm/cluster.py"
    subprocess.run([sys.executable, script, "start"], check=True)
    yield
    subprocess.run([sys.executable, script, "stop"], check=True)


def checkout(folder: Path) -> Path:
    """The workflow alone in a fresh folder."""
    folder.mkdir()
    for name in ("Snakefile", "workflow", "profiles", "slurm"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "config").mkdir()
    return folder


def snakemake(folder: Path, *arguments: str, study: Path = STUDY) -> subprocess.Popen:
    command = [sys.executable, "-m", "snakemake", "--cores", "8", "--configfile", str(study), *arguments]
    with (folder / "driver.log").open("a") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)


def trainings(state: str = "RUNNING") -> dict[str, str]:
    """Run -> its Slurm job, of the trainings in a state."""
    jobs = dict(reversed(line.split()) for line in queue(state, "%i %k").splitlines() if "rule_train" in line)
    return {comment.partition("wildcards_")[2]: job for comment, job in jobs.items()}


def queue(state: str, what: str) -> str:
    """What squeue says of the jobs in a state, finished ones included where it is theirs."""
    arguments = ["squeue", "--noheader", "--states", state, "--format", what]
    return subprocess.run(arguments, capture_output=True, text=True, check=True).stdout


def restarts_of(job: str) -> int:
    """How often a job came back."""
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=False)
    return max(map(int, re.findall(r"Restarts=(\d+)", shown.stdout)), default=0)


def processes(job: str) -> list[int]:
    """The processes that train in a Slurm job."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            mine = f"SLURM_JOB_ID={job}".encode() in (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mine and b"train" in arguments and any(word.endswith(b"spaced-kd") for word in arguments):
            found.append(int(folder.name))
    return found


def until(what: str, found: Callable[[], object]) -> object:
    """Wait for something true, and give it."""
    end = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.5)
    return value


def control(*arguments: str) -> None:
    subprocess.run(["scontrol", *arguments], check=True)


@contextlib.contextmanager
def impatient(pending: Callable[[], dict[str, str]] = lambda: trainings("PENDING")) -> Iterator[Counter[str]]:
    """Slurm lets two minutes pass before it runs a job again; here it is told to start it at once.

    Gives a count of how often each run's job came back.
    """
    done, restarts = threading.Event(), Counter()

    def hurry() -> None:
        while not done.wait(1):
            for run, job in pending().items():
                subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False)
                restarts[run] = max(restarts[run], restarts_of(job))

    thread = threading.Thread(target=hurry)
    thread.start()
    try:
        yield restarts
    finally:
        done.set()
        thread.join()


def one_training(without: set[str]) -> tuple[str, str]:
    """A run that trains at this moment, and its job; none of those that had their accident."""

    def found() -> tuple[str, str] | None:
        ready = [(run, job) for run, job in trainings().items() if run not in without and processes(job)]
        return next(iter(ready), None)

    run, job = until("a training", found)
    without.add(run)
    return run, job


def test_a_study_survives_its_cluster_and_comes_out_as_on_one_machine(tmp_path):
    here = checkout(tmp_path / "cluster")
    remembered = set(queue("all", "%i").split())
    with impatient() as restarts:
        harmed = live_through(here)
    (sliced,) = (run for run in restarts if "self_kd" in run)
    assert restarts[sliced] >= 2
    assert "goes on after turn" in (here / "results/logs/train" / f"{sliced}.log").read_text()

    left = subprocess.run(
        [sys.executable, "-m", "snakemake", "-n", "--configfile", str(STUDY)], cwd=here, capture_output=True, text=True
    )
    assert "Nothing to be done" in left.stdout + left.stderr

    alone = checkout(tmp_path / "alone")
    assert snakemake(alone, "--cores", "2").wait(2 * PATIENCE) == 0, (alone / "driver.log").read_text()
    assert len(finished(alone)) == 8
    assert_the_same(here, alone)
    for run in finished(alone):
        log = (here / "results/logs/train" / f"{run}.log").read_text()
        began = len(re.findall("^job ", log, re.MULTILINE))
        assert began >= (2 if run in harmed else 1), f"{run} began {began} times:\n{log}"
    result = [line.split() for line in queue("all", "%i %m %T %k").splitlines() if "vit_mini" in line]
    ended = {(size, state) for job, size, state, _ in result if job not in remembered}
    memory = {state == "COMPLETED": size for size, state in ended}
    assert memory == {False: "600M", True: "4000M"}, ended  # what had too little was sent again with more

    tables = [(folder / "results/slurm/tables/tab01.csv").read_text() for folder in (here, alone)]
    assert tables[0] == tables[1]


def assert_the_same(here: Path, alone: Path) -> None:
    """Both folders have the same runs to the bit; each was trained to its end once."""
    assert finished(here) == finished(alone)
    for run in finished(alone):
        for name in ("weights", "predictions"):
            files = [folder / "results/runs" / run / f"{name}.safetensors" for folder in (here, alone)]
            first, second = (read(file, remedy="")[1]["checksum"] for file in files)
            assert first == second, f"{name} of {run}"
        log = (here / "results/logs/train" / f"{run}.log").read_text()  # of all its jobs
        assert log.count("100%") == 1, f"{run} was trained to its end {log.count('100%')} times:\n{log}"


def finished(folder: Path) -> list[str]:
    return sorted(path.parent.name for path in folder.glob("results/runs/*/run.json"))


def test_one_job_has_a_whole_study_and_loses_one_run_alone(tmp_path):
    here, alone = checkout(tmp_path / "cluster"), checkout(tmp_path / "alone")
    job = send_as_one_job(here)
    with impatient(lambda: {job: job} if state(job) == "PENDING" else {}) as restarts:
        until("a training on its way", lambda: processes(job) and "epoch" in logs(here))
        subprocess.run(["scancel", "--batch", "--signal=TERM", job], check=True)  # as Slurm does near the limit
        until("another start", lambda: restarts[job] and processes(job))
        os.kill(processes(job)[0], signal.SIGKILL)
        until("its end", lambda: state(job) in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT"))
    told = (here / "driver.log").read_text()
    assert state(job) == "FAILED", told
    assert told.count("the time limit is near: the job comes back") == restarts[job] == 1
    assert "goes on after turn" in logs(here)
    assert "without a warm process" not in logs(here)

    # the two that diverge are named at the end, here as on one machine, and all others are kept
    assert snakemake(alone, "--cores", "2", "--keep-going", study=PACKED).wait(2 * PATIENCE) == 1
    diverged = [path.stem for path in alone.glob("results/logs/train/digits*") if "is nan at batch" in path.read_text()]
    assert len(diverged) == 2
    for run in diverged:
        assert run in told.partition("the time limit is near")[2]
    assert len(finished(alone)) == 6
    assert_the_same(here, alone)


def send_as_one_job(here: Path) -> str:
    """Send the study as one job; gives its number."""
    words = ["sbatch", "--parsable", "--cpus-per-task=2", "--mem=8G", f"--output={here}/driver.log"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    sent = subprocess.run(
        [*words, "slurm/one_job.sh", "--configfile", str(PACKED)],
        cwd=here,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return sent.stdout.strip()


def state(job: str) -> str:
    """What Slurm says of a job."""
    return dict(line.split() for line in queue("all", "%i %T").splitlines())[job]


def logs(folder: Path) -> str:
    """All that trainings have told."""
    return "\n".join(path.read_text() for path in folder.glob("results/logs/train/*.log") if path.exists())


def live_through(here: Path) -> set[str]:
    """The study on the cluster, with accidents, and one of the driver; gives the runs that had theirs in training."""
    driver = snakemake(here, "--profile", "slurm", *TOY)
    harmed = {run for run in until("jobs", lambda: trainings("PENDING") | trainings()) if "self_kd" in run}

    _, job = one_training(harmed)
    subprocess.run(["scancel", job], check=True)

    _, job = one_training(harmed)
    for process in processes(job):
        os.kill(process, signal.SIGKILL)

    node = subprocess.run(["sinfo", "-h", "-o", "%n"], capture_output=True, text=True, check=True).stdout.split()[0]
    control("update", f"nodename={node}", "state=drain", "reason=test")
    time.sleep(5)
    control("update", f"nodename={node}", "state=resume")

    _, job = one_training(harmed)
    control("requeue", job)

    preempt()

    one_training(set())
    driver.kill()
    driver.wait()
    assert snakemake(here, "--profile", "slurm", "--unlock").wait(PATIENCE) == 0
    driver = snakemake(here, "--profile", "slurm", *TOY)  # while orphans of the first one train
    assert driver.wait(PATIENCE) == 0, (here / "driver.log").read_text()
    return harmed


def preempt() -> None:
    """Some training makes room for an urgent job, which asks for one processor more than are idle, and comes back."""
    one_training(set())
    before = {job: restarts_of(job) for job in trainings().values()}
    cpus = subprocess.run(["sinfo", "-h", "-p", "urgent", "-o", "%C"], capture_output=True, text=True, check=True)
    idle = int(cpus.stdout.split("/")[1])
    arguments = ["sbatch", "--partition", "urgent", f"--cpus-per-task={idle + 1}", "--mem=100", "--output=/dev/null"]
    subprocess.run([*arguments, "--wrap", "true"], check=True)
    until("a preemption", lambda: any(restarts_of(job) > times for job, times in before.items()))


@pytest.mark.slow
def test_a_run_of_ten_slices(tmp_path):
    """`make slices`: jobs that come back nine times and more, end in the bits of one piece."""
    study = ROOT / "tests/workflow/slurm/slices.yaml"
    here, alone = checkout(tmp_path / "cluster"), checkout(tmp_path / "alone")
    assert snakemake(alone, "--cores", "2", study=study).wait(2 * PATIENCE) == 0, (alone / "driver.log").read_text()
    (done,) = alone.glob("results/runs/*/run.json")
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import spaced_kd.training.loop"], check=True)
    seconds = time.monotonic() - began + read_json(done, dict)["wall_seconds"] / 20  # of a slice, on such a machine
    short = ("--set-resources", "train:mem_mb=2500", "train:runtime=1", f"train:margin={60 - min(round(seconds), 45)}")
    with impatient() as restarts:
        driver = snakemake(here, "--profile", "slurm", *TOY[:4], *short, study=study)
        assert driver.wait(3 * PATIENCE) == 0, (here / "driver.log").read_text()
    ((run, count),) = restarts.items()
    log = (here / "results/logs/train" / f"{run}.log").read_text()
    turns = [int(turn) for turn in re.findall("goes on after turn ([0-9]+)", log)]
    print(f"{count + 1} slices, which went on after turns {turns}")
    assert count >= 9
    assert len(turns) == count
    assert turns == sorted(set(turns))  # each came further
    for name in ("weights", "predictions"):
        files = [folder / "results/runs" / run / f"{name}.safetensors" for folder in (here, alone)]
        assert files[0].read_bytes() == files[1].read_bytes(), name
