"""Full disks, read-only folders, clocks that jump, no network, no memory, older results: one line, and nothing lost."""

import ctypes
import errno
import json
import os
import socket
import time
from pathlib import Path

import pytest
import torch
from conftest import TINY, first_fast, tiny

from spaced_kd.cli import main as cli
from spaced_kd.config.paths import ResultPaths
from spaced_kd.training import run_recorder
from spaced_kd.training.checkpoint import states
from spaced_kd.training.job import Job
from spaced_kd.training.loop import train
from spaced_kd.utils import array_file, files
from spaced_kd.utils.errors import UserError

WORDS = [f"{key}={value}" for key, value in TINY.items()]
SPEC = tiny(method="baseline", epochs=1)
OUTPUTS = ("weights.safetensors", "predictions.safetensors", "rows.json")


@pytest.fixture
def whole(digits, tmp_path):
    """The run that nothing disturbed: names and bytes of its outputs."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "data").symlink_to(digits / "data")
    folder = train(SPEC, tmp_path / "whole")
    return {name: (folder / name).read_bytes() for name in OUTPUTS}


def outcome(results: Path) -> dict[str, bytes]:
    return {name: (ResultPaths(results).run(SPEC) / name).read_bytes() for name in OUTPUTS}


def full() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("step", first_fast(["write", "fsync", "replace"]))
def test_a_disk_that_is_full_at_each_write_in_turn(results, whole, monkeypatch, step, capsys):
    """Every state and every output fails to be written once, at this step of writing; each time training goes on."""
    written, failed = [], set()

    def fails(path: Path) -> None:
        name = path.name.split(".")[1] if path.name.startswith(".") else path.name
        if name not in failed:
            failed.add(name)
            raise full()
        written.append(name)

    class Full:
        def __init__(self, path, mode):
            self.file, self.path = open(path, mode), path  # noqa: SIM115 (it is a context itself)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            self.file.write(content[: len(content) // 2])
            self.file.flush()
            fails(self.path)
            self.file.write(content[len(content) // 2 :])

        def __getattr__(self, name):
            return getattr(self.file, name)

    fsync, replace = os.fsync, os.replace

    def named(file: int) -> Path:
        return Path(os.readlink(f"/proc/self/fd/{file}"))

    if step == "write":
        monkeypatch.setattr(files, "open", Full, raising=False)
    elif step == "fsync":
        monkeypatch.setattr(files.os, "fsync", lambda file: (fails(named(file)), fsync(file)))
    else:
        monkeypatch.setattr(files.os, "replace", lambda old, new: (fails(Path(old)), replace(old, new)))
    paths = ResultPaths(results)
    for _ in range(40):
        if cli.main(["train", *SPEC.overrides(), "--results", str(results), "--checkpoint-every", "0"]) == 0:
            break
        message = capsys.readouterr().err
        assert "cannot be written (No space left on device): make room" in message
        assert message.count("\n") == 1
        left = states(paths.state(SPEC))
        assert [array_file.read(state, remedy="")[1]["run"] for state in left] == [SPEC.id] * len(left)  # nothing torn
        assert [state.stem for state in left[-1:]] == sorted(name for name in written if "turn-" in name)[-1:]
    assert len(failed) >= 9  # five states, three outputs and their description
    assert outcome(results) == whole
    assert not [path for path in results.rglob("*") if path.name.endswith(".tmp")]


class Mount:
    """A file system in memory, of `size` kB."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self._mount("tmpfs", 0, size)

    def resize(self, size: int) -> None:
        self._mount(None, 32, size)

    def _mount(self, kind: str | None, flags: int, size: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        result = (b"tmpfs", str(self.folder).encode(), kind and kind.encode(), flags, f"size={size}k".encode())
        if libc.mount(*result):
            pytest.skip(f"nothing can be mounted here ({os.strerror(ctypes.get_errno())})")

    def read_only(self) -> None:
        if ctypes.CDLL(None).mount(b"tmpfs", str(self.folder).encode(), None, 32 | 1, None):
            pytest.skip("nothing can be mounted here")

    def end(self) -> None:
        ctypes.CDLL(None).umount2(str(self.folder).encode(), 2)


@pytest.fixture
def mount(tmp_path):
    mounted = []

    def make(folder: Path, size: int) -> Mount:
        folder.mkdir(exist_ok=True)
        mounted.append(Mount(folder, size))
        return mounted[-1]

    yield make
    for each in mounted:
        each.end()


def test_a_real_disk_that_is_full_and_grows(digits, tmp_path, whole, mount, capsys):
    small = tmp_path / "small"
    disk = mount(small, 100)
    (small / "data").symlink_to(digits / "data")
    arguments = ["train", *SPEC.overrides(), "--results", str(small), "--checkpoint-every", "0"]
    stops = []
    for size in (100, 200, 300, 400, 500, 600, 800, 1600):
        disk.resize(size)
        status = cli.main(arguments)
        message = capsys.readouterr()
        if status == 0:
            break
        stops.append(message.err)
        assert "No space left on device" in message.err
        assert message.err.count("\n") == 1
    assert stops
    assert status == 0
    assert outcome(small) == whole


def test_data_are_only_read(digits, tmp_path, whole, mount):
    results = tmp_path / "results"
    (results / "data").mkdir(parents=True)
    disk = mount(results / "data", 4000)
    data = ResultPaths(results).data(SPEC)
    data.write_bytes(ResultPaths(digits).data(SPEC).read_bytes())
    disk.read_only()
    with pytest.raises(OSError, match="Read-only"):
        data.touch()
    train(SPEC, results)
    assert cli.main(["evaluate", SPEC.id, "bim", "bim.images=20", "bim.steps=1", "--results", str(results)]) == 0
    assert outcome(results) == whole


def test_a_log_on_a_full_disk(results, monkeypatch, capsys):
    def say(*_):
        raise full()

    monkeypatch.setattr(run_recorder.RunRecorder, "say", say)
    assert cli.main(["train", *SPEC.overrides(), "--results", str(results)]) == 2
    message = capsys.readouterr().err
    assert "No space left on device" in message
    assert message.count("\n") == 1


def test_a_clock_that_jumps(results, whole, monkeypatch):
    """Only the monotonic clock tells when to write a state, when to stop, and how long it took."""
    jumps = iter([0.0, 4e9, -4e9] * 1000)
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    train(SPEC, results)
    assert outcome(results) == whole
    assert 0 < files.read_json(ResultPaths(results).run(SPEC) / "run.json", dict)["wall_seconds"] < 60
    for path in Path(files.__file__).parents[1].rglob("*.py"):
        assert "time.time()" not in path.read_text(), path
        assert "datetime" not in path.read_text().replace("from datetime import timedelta", ""), path


def test_nothing_reaches_for_a_network(tmp_path, monkeypatch):
    def reach(*_, **__):
        raise AssertionError("a connection")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, reach)
    monkeypatch.setattr(socket, "getaddrinfo", reach)
    where = ["--results", str(tmp_path)]
    assert cli.main(["prepare", "dataset=digits", "dataset.train_per_class=4", *where]) == 0
    few = ["epochs=1", "batch_size=40", "method=baseline"]
    arguments = [word for word in WORDS if word.split("=")[0] not in ("epochs", "batch_size")]
    assert cli.main(["train", *arguments, *few, *where]) == 0
    (run,) = (tmp_path / "runs").iterdir()
    assert cli.main(["evaluate", run.name, "bim", "bim.images=20", "bim.steps=1", *where]) == 0


OTHER_WORDS = (  # in which a GPU, its libraries and DataLoader say the same
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "DataLoader worker (pid 7) is killed by signal: Killed.",
)


@pytest.mark.parametrize("kind", ["the host", "numpy", "a GPU", *OTHER_WORDS])
def test_memory_that_does_not_suffice(results, monkeypatch, capsys, kind):
    def terms(*_):
        if kind == "the host":
            torch.empty(2**60, dtype=torch.uint8)
        if kind == "numpy":
            raise MemoryError("Unable to allocate 8 EiB")
        if kind in OTHER_WORDS:
            raise RuntimeError(kind)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore\nlines")

    monkeypatch.setattr(Job, "terms", terms)
    assert cli.main(["train", *SPEC.overrides(), "--results", str(results)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("spaced-kd: out of memory: give the job more (mem_mb in the profile")
    assert "lower batch_size" in message
    assert message.count("\n") == 1


def test_another_fault_is_no_matter_of_memory(results, monkeypatch):
    def terms(*_):
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Job, "terms", terms)
    with pytest.raises(RuntimeError, match="ours"):
        cli.main(["train", *SPEC.overrides(), "--results", str(results)])


def test_a_loss_that_is_no_number_keeps_the_last_good_state(results, monkeypatch):
    terms = Job.terms

    def spoilt(self, who, index):
        return {name: loss * (float("nan") if index == 3 else 1) for name, loss in terms(self, who, index).items()}

    monkeypatch.setattr(Job, "terms", spoilt)
    with pytest.raises(UserError, match=r"the loss \(teacher: hard\) is nan at batch 3: lower lr"):
        train(SPEC, results, checkpoint_every=0)
    kept = states(ResultPaths(results).state(SPEC))
    assert [path.stem for path in kept] == ["turn-000000002", "turn-000000003"]
    stored, _ = array_file.read(kept[-1], remedy="")
    assert all(
        torch.from_numpy(value).isfinite().all() for name, value in stored.items() if name.startswith("teacher/")
    )


def test_a_weight_that_is_no_number_after_the_last_update_is_no_success(results, monkeypatch):
    after = run_recorder.RunRecorder.after_turn

    def spoil(self, who, index, losses):
        if self.metrics.turns == len(self.job.turns) - 1:
            next(self.job.result.parameters()).data[0] = float("nan")
        after(self, who, index, losses)

    monkeypatch.setattr(run_recorder.RunRecorder, "after_turn", spoil)
    with pytest.raises(UserError, match=r"a weight of the teacher is not finite after turn \d+: lower lr"):
        train(SPEC, results)
    assert not ResultPaths(results).run(SPEC).joinpath("run.json").exists()


OLDER = {  # what descriptions had not from the beginning
    "run.json": ("cpu_seconds", "device_seconds", "training_flops", "teacher_states", "labels"),
    "provenance": ("teacher_sha256", "processor", "versions"),
}


def test_results_of_an_older_version_are_read(results):
    train(SPEC, results)
    path = ResultPaths(results).run(SPEC) / "run.json"
    described = json.loads(path.read_text())
    for name in OLDER["run.json"]:
        del described[name]
    for name in OLDER["provenance"]:
        del described["provenance"][name]
    del described["spec"]["clock"], described["spec"]["batch_norm"]
    path.write_text(json.dumps(described))
    before = path.stat().st_mtime_ns
    train(SPEC, results)
    assert path.stat().st_mtime_ns == before
    assert cli.main(["verify", str(results)]) == 0


def test_results_under_other_words_are_refused_with_what_to_do(results, capsys):
    train(SPEC, results)
    path = ResultPaths(results).run(SPEC) / "run.json"
    described = json.loads(path.read_text())
    described["spec"]["nesterov"] = True  # a key that an older version had
    path.write_text(json.dumps(described))
    assert cli.main(["train", *SPEC.overrides(), "--results", str(results)]) == 2
    message = capsys.readouterr().err
    assert "was made with nesterov=True" in message
    assert f"move {path.parent} away to train it again" in message
