"""Jobs that share a machine spread over its GPUs, and a job that ends frees its slot."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny

from spaced_kd.training.gpu_memory import until_it_fits
from spaced_kd.training.loop import train
from spaced_kd.training.preemption import Interrupted, StopSignal
from spaced_kd.utils import devices, gpu_slots
from spaced_kd.utils.devices import choose_device
from spaced_kd.utils.errors import UserError

PROGRAM = """
import sys, torch
from types import SimpleNamespace
torch.cuda.device_count = lambda: 2
torch.cuda.get_device_properties = lambda gpu: SimpleNamespace(uuid=f"GPU-{gpu}")
from spaced_kd.utils import gpu_slots
print(gpu_slots.take(), flush=True)
sys.stdin.read()
"""


def machine(monkeypatch, folder, gpus):
    """A machine with pretended GPUs and no slot taken."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda gpu: SimpleNamespace(uuid=f"GPU-{gpu}"))
    monkeypatch.setattr(gpu_slots.tempfile, "gettempdir", lambda: str(folder))
    monkeypatch.setattr(gpu_slots, "_held", [])
    # what follows the choice of a GPU; it would stay for the tests to come
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def test_jobs_spread_over_the_gpus(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, gpus=2)
    assert [another_takes_a_slot()[0] for _ in range(5)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]


def another_takes_a_slot():
    """A GPU, and the locked file of another process that takes a slot of it."""
    own, gpu_slots._held[:] = list(gpu_slots._held), []
    gpu = str(choose_device("auto"))
    file, _ = gpu_slots._held.pop()
    OTHERS.append(file)
    gpu_slots._held[:] = own
    return gpu, file


OTHERS = []  # files that stay open


def test_a_process_keeps_its_slot(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, gpus=2)
    assert [str(choose_device("auto")) for _ in range(3)] == 3 * ["cuda:0"]


def test_a_slot_is_free_again_when_its_process_is_killed(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, gpus=2)
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "cuda:0\n"
    assert str(choose_device("auto")) == "cuda:1"  # the other process holds the first one
    process.kill()
    process.wait()
    assert another_takes_a_slot()[0] == "cuda:0"


def test_without_a_gpu_there_is_no_slot(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, gpus=0)
    assert choose_device("auto") == torch.device("cpu")
    assert not list(tmp_path.iterdir())


class FullGPU:
    """A training that fits in the GPU beside `most` other processes, and beside one more without students."""

    def __init__(self, most):
        self.most, self.attempts = most, 0

    def __call__(self, together):
        choose_device("auto")
        self.attempts += 1
        if gpu_slots.others() > self.most + (not together):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return Path("run")


def test_a_training_that_does_not_fit_waits_until_another_has_ended(monkeypatch, tmp_path, capsys):
    machine(monkeypatch, tmp_path, gpus=1)
    others = [another_takes_a_slot()[1] for _ in range(3)]
    looks = []

    def pause(seconds):
        looks.append(gpu_slots.holding())
        if len(looks) % 2 == 0:
            others.pop().close()  # ends

    monkeypatch.setattr(gpu_slots.time, "sleep", pause)
    training = FullGPU(0)
    assert until_it_fits(training, StopSignal(), together=False) == Path("run")
    assert training.attempts == 3  # beside three, beside two, beside one
    assert looks == 4 * [False]  # its slot is free meanwhile
    assert gpu_slots.holding()
    said = capsys.readouterr().out.splitlines()
    assert said == [f"out of memory beside {n} other processes of this GPU: waiting for one to end" for n in (3, 2)]


def test_a_training_that_has_the_gpu_for_itself_and_does_not_fit_is_refused(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, gpus=1)
    training = FullGPU(-2)
    with pytest.raises(torch.OutOfMemoryError):
        until_it_fits(training, StopSignal(), together=False)
    assert training.attempts == 2  # others may have ended just before it looked


def test_a_teacher_that_fits_alone_goes_on_without_its_students(monkeypatch, tmp_path, capsys):
    machine(monkeypatch, tmp_path, gpus=1)
    training = FullGPU(-1)
    assert until_it_fits(training, StopSignal(), together=True) == Path("run")
    assert training.attempts == 2
    assert "going on without them" in capsys.readouterr().out


def test_another_error_is_raised_at_once(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, gpus=1)
    another_takes_a_slot()

    def fails(together):
        choose_device("auto")
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        until_it_fits(fails, StopSignal(), together=False)


def test_a_processor_that_is_full_is_not_waited_for(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, gpus=0)

    def fails(together):
        raise MemoryError

    with pytest.raises(MemoryError):
        until_it_fits(fails, StopSignal(), together=False)


def test_the_wait_ends_where_the_process_has_to_stop(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, gpus=1)
    another_takes_a_slot()
    stop = StopSignal(time_limit=10.0, margin=1.0)
    monkeypatch.setattr(gpu_slots.time, "sleep", lambda seconds: setattr(stop, "end", 0.0))
    with pytest.raises(Interrupted):
        until_it_fits(FullGPU(-1), stop, together=False)


def test_two_that_wait_go_on_one_after_the_other(monkeypatch, tmp_path):
    """The second one waits for the first one's turn, and then for a process to end: the first one among others."""
    machine(monkeypatch, tmp_path, gpus=1)
    _, other = another_takes_a_slot()
    choose_device("auto")
    path = Path(gpu_slots._held[-1][0].name)
    waiting = path.with_suffix(".waiting").open("w")
    fcntl.flock(waiting, fcntl.LOCK_EX)  # the first one
    looks = []

    def pause(seconds):
        looks.append(len(looks))
        if len(looks) == 1:
            first = another_takes_a_slot()[1]  # it goes on
            waiting.close()
            other.close()
            FIRST.append(first)
        if len(looks) == 4:
            FIRST.pop().close()

    monkeypatch.setattr(gpu_slots.time, "sleep", pause)
    gpu_slots.wait_for_room(lambda: None)
    assert looks == [0, 1, 2, 3]


FIRST = []


def test_a_device_that_is_not_there_is_refused_by_name(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, gpus=1)
    assert str(choose_device("cuda:0")) == "cuda:0"
    with pytest.raises(UserError, match="device is cuda:1, but there are 1 GPUs here"):
        choose_device("cuda:1")
    with pytest.raises(UserError, match="device is 'gpu', but must be auto, cpu, cuda or cuda:N"):
        choose_device("gpu")


def test_tf32_is_refused_on_a_cpu_in_one_line(results):
    with pytest.raises(UserError, match="precision is tf32, which only a GPU has: use fp32 or bf16 here"):
        train(tiny(method="baseline", precision="tf32"), results, device="cpu")


@pytest.mark.parametrize(("precision", "rounding"), [("tf32", "tf32"), ("fp32", "ieee"), ("bf16", "ieee")])
def test_a_gpu_rounds_products_as_the_precision_says(precision, rounding):
    flags = torch.backends.cuda.matmul, torch.backends.cudnn.conv
    before = [flag.fp32_precision for flag in flags]
    try:
        devices.set_rounding(precision)
        assert [flag.fp32_precision for flag in flags] == [rounding, rounding]
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.fp32_precision = value


def test_a_gpu_is_not_waited_for_when_it_is_sent_something():
    calls = []

    class Pinned:
        def to(self, device, **how):
            calls.append((str(device), how))

    class OnHost:
        device = torch.device("cpu")

        def pin_memory(self):
            return Pinned()

    devices.send(OnHost(), torch.device("cuda:0"))
    assert calls == [("cuda:0", {"non_blocking": True})]
    here = torch.ones(2)
    assert devices.send(here, torch.device("cpu")) is here
