"""Run a command in a warm process, which has imported what the command needs and forks for each job.

Importing torch and timm takes seconds of a processor, which each short job of a workflow would pay. A workflow on this
machine therefore gives its process id as SPACED_KD_WARM; any other value turns warm processes off. The first command of
a kind starts the warm process. A command sends it the arguments, the working directory and the standard streams over a
socket. It forwards the signals that it gets, and ends as the child ends. If the command dies, the child is killed.

A warm process has one thread and has computed nothing before it forks, so that a child gives the same bits as a plain
process. It ends with its workflow, or after IDLE seconds without a job. It serves only commands of its own environment,
Python and sources; every other command runs as a plain process, and says so on standard error.
"""

import contextlib
import fcntl
import glob
import hashlib
import io
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

VARIABLE = "SPACED_KD_WARM"
COMMANDS = {**dict.fromkeys(("prepare", "train", "evaluate", "collect"), "training"), "render": "drawing"}
KINDS = {  # of warm processes -> what they import
    "training": ("timm.models", "spaced_kd.training.loop", "spaced_kd.evaluation.evaluate", "spaced_kd.cli.main"),
    "drawing": ("scipy.stats", "spaced_kd.analysis.plotting", "spaced_kd.analysis.render", "spaced_kd.cli.main"),
}
OPTIONAL: dict[str, tuple[str, ...]] = {"training": ("torchattacks", "curvlinops"), "drawing": ()}  # slow, if installed
IDLE, PATIENCE = 600.0, 120.0  # seconds without a job; seconds that a command waits for the imports
SIGNALS = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT),
)
OF_JOB = ("PWD", "OLDPWD", "SHLVL", "_", "TMPDIR", "TMP", "TEMP", "TEMPDIR")  # variables that no import reads
GPUS = ("/dev/nvidia[0-9]*", "/dev/kfd")


def main() -> int:
    """The command line of `spaced-kd`: in a warm process where the workflow has one, else in this process."""
    kind, workflow = COMMANDS.get((*sys.argv, "", "")[1]), os.environ.get(VARIABLE, "")
    if kind and workflow.isdigit() and "WORLD_SIZE" not in os.environ:  # processes of torchrun stay where they are
        try:
            return _ask(kind, int(workflow))
        except OSError as error:
            print(f"without a warm process: {error}", file=sys.stderr, flush=True)
    return _run()


def possible() -> bool:
    """Whether a workflow may keep warm processes here: on Linux, and where there is no GPU."""
    return hasattr(os, "pidfd_open") and not any(map(glob.glob, GPUS))


def _run() -> int:
    """The command in this process; importing its parser costs a fifth of a second, which one passed on need not pay."""
    from spaced_kd.cli.main import main as run

    return run()


def _ask(kind: str, workflow: int) -> int:
    """Have the warm process run this command; gives its exit status. OSError where that cannot be."""
    os.kill(workflow, 0)  # is it there?
    ignored = [number for number in SIGNALS if signal.getsignal(number) is signal.SIG_IGN]
    request = {"argv": sys.argv, "folder": os.getcwd(), "ignored": ignored, "same": _same(os.environ)}
    request["variables"] = {name: os.environ.get(name) for name in OF_JOB}
    with _connection(kind, workflow) as warm, warm.makefile("rb") as answers, _held(ignored):
        warm.settimeout(PATIENCE)
        socket.send_fds(warm, [b"3"], [0, 1, 2])
        warm.sendall(json.dumps(request).encode() + b"\n")
        if (answer := answers.readline()) != b"started\n":
            raise OSError(answer.decode().strip() or "it has ended")
        warm.settimeout(None)

        def forward(number: int, _: object) -> None:
            with contextlib.suppress(OSError):
                warm.send(bytes([number]))

        for number in {*SIGNALS} - {*ignored}:
            signal.signal(number, forward)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        ended = b""
        with contextlib.suppress(OSError):
            ended = answers.readline()
    if not ended:
        print("spaced-kd: the workflow's warm process was killed: give the same command again", file=sys.stderr)
        return 128 + signal.SIGKILL
    if (status := int(ended)) < 0:  # by a signal: this process ends by the same one
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


@contextlib.contextmanager
def _held(ignored: list[int]) -> Iterator[None]:
    """Signals wait in the block until they are let through: the child may run before this process can forward them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*SIGNALS} - {*ignored})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _connection(kind: str, workflow: int) -> socket.socket:
    """A connection to the warm process, which is started where there is none."""
    folder = Path(os.environ.get("TMPDIR") or "/tmp", f"spaced-kd-warm-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    if (about := folder.lstat()).st_uid != os.getuid() or about.st_mode & 0o077:
        raise OSError(f"{folder} can be written by others")
    path = folder / f"{workflow}-{kind}"
    with _lock(folder):
        try:
            return _connected(path)
        except (FileNotFoundError, ConnectionRefusedError):
            _start(path, kind, workflow)
        return _connected(path)


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One process at a time starts or ends a warm one."""
    with open(folder / "lock", "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _start(path: Path, kind: str, workflow: int) -> None:
    """Start a warm process; who connects while it imports waits for it, and hears if that fails."""
    import subprocess

    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(128)
        command = [sys.executable, "-P", "-m", "spaced_kd.cli.warm", kind, str(workflow), str(listener.fileno())]
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        subprocess.Popen(command, **streams, pass_fds=[listener.fileno()], start_new_session=True, cwd="/")


def _same(environment: Mapping[str, str]) -> str:
    """Digest of what a warm process and a command must have in common: Python, environment, sources, packages."""
    package = Path(__file__).parents[1]
    files = (Path(folder, name) for folder, _, names in os.walk(package) for name in names if name.endswith(".py"))
    about = [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    packages = [os.stat(path).st_mtime_ns for path in sys.path if path.endswith("site-packages")]
    variables = {name: value for name, value in environment.items() if name not in OF_JOB}
    identity = [sys.executable, sys.version, sorted(about), packages, sorted(variables.items())]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()


def _serve(kind: str, workflow: int, listener: socket.socket) -> bool:
    """Fork for each command that asks; gives True in the child that is to run one, False when the warm process ends."""
    import gc  # here, since a command that is passed on needs none of it
    import importlib

    # Slurm signals every process of a job. Those here leave that to the commands, which forward it to their children
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    over, before, path = os.pidfd_open(workflow), dict(os.environ), Path(listener.getsockname())
    same = _same(before)
    for name in KINDS[kind]:
        importlib.import_module(name)
    for name in OPTIONAL[kind]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    # sources may have been edited meanwhile; threads would be lost by a fork
    idle = IDLE if _same(before) == same and len(os.listdir("/proc/self/task")) == 1 else 0.0
    gc.collect()
    gc.freeze()  # children share the memory of what is imported
    while idle and select.select([listener, over], [], [], idle)[0] == [listener]:
        client, _ = listener.accept()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:  # keepers that have ended
                pass
        if os.fork() == 0:
            listener.close()
            os.close(over)
            if _keep(client, same):
                return True
            os._exit(0)
        client.close()
    with _lock(path.parent):
        path.unlink(missing_ok=True)
    return False


def _keep(client: socket.socket, same: str) -> bool:
    """Run one command in a child, for which this gives True; this process passes signals on and tells how it ended."""
    _, streams, _, _ = socket.recv_fds(client, 1, 3)
    with client.makefile("rb") as lines:
        request = json.loads(lines.readline())
    if request["same"] != same:
        client.send(b"its environment, Python or sources are others")
        return False
    keeper, child = os.getpid(), os.fork()
    if child == 0:
        client.close()
        _become(request, streams, keeper)
        return True
    for stream in streams:
        os.close(stream)
    client.send(b"started\n")
    ended = os.pidfd_open(child)
    watched: list[Any] = [client, ended]
    while ended not in select.select(watched, [], [])[0]:
        heard = b""
        with contextlib.suppress(OSError):
            heard = client.recv(64)
        if not heard:  # whoever asked has died
            watched, heard = [ended], bytes([signal.SIGKILL])
        for number in heard:
            signal.pidfd_send_signal(ended, number)
    _, status = os.waitpid(child, 0)
    with contextlib.suppress(OSError):
        client.send(b"%d\n" % os.waitstatus_to_exitcode(status))
    return False


def _become(request: dict[str, Any], streams: list[int], keeper: int) -> None:
    """Make this process what a plain one of the command would be."""
    import ctypes
    import tempfile

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: ends with its keeper
    if os.getppid() != keeper:
        os._exit(1)
    os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    for number, name in enumerate(("stdin", "stdout", "stderr")):  # anew, since those here know that they are no pipes
        old, line_by_line = getattr(sys, name), number == 2 or os.isatty(number)
        binary = open(number, "wb" if number else "rb", closefd=False)  # noqa: SIM115 (for the life of the process)
        new = io.TextIOWrapper(binary, old.encoding, old.errors, line_buffering=line_by_line)
        setattr(sys, name, new)
    for number in SIGNALS:
        if number in request["ignored"]:
            signal.signal(number, signal.SIG_IGN)
    for name, value in request["variables"].items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
    tempfile.tempdir = None  # as the variables say now
    os.chdir(request["folder"])
    sys.argv = request["argv"]
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # what came meanwhile comes now


def _end(run: Callable[[], int]) -> NoReturn:
    """Run a child's command and end as Python's own forked processes do, without taking apart what was imported.

    That would take two seconds, most of them to copy memory that is shared with the warm process.
    """
    import atexit
    import threading
    import traceback

    status: Any = 1
    try:
        status = run()
    except SystemExit as ending:
        status = ending.code
    except BaseException:  # as the interpreter tells it
        traceback.print_exc()
    if not isinstance(status, int | None):
        print(status, file=sys.stderr)
        status = 1
    threading._shutdown()  # type: ignore[attr-defined] # waits for threads, as at any end
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status or 0)


if __name__ == "__main__":
    if _serve(sys.argv[1], int(sys.argv[2]), socket.socket(fileno=int(sys.argv[3]))):
        _end(_run)
