"""Jobs that share a machine spread over its GPUs, and a job that ends frees its slot."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny

from spaced_kd.training.loop import train
from spaced_kd.utils import devices
from spaced_kd.utils.devices import choose_device
from spaced_kd.utils.errors import UserError

PROGRAM = """
import sys, torch
from types import SimpleNamespace
torch.cuda.device_count = lambda: 2
torch.cuda.get_device_properties = lambda gpu: SimpleNamespace(uuid=f"GPU-{gpu}")
from spaced_kd.utils.devices import _least_used
print(_least_used(), flush=True)
sys.stdin.read()
"""


def machine(monkeypatch, folder, gpus):
    """A machine with pretended GPUs and no slot taken."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda gpu: SimpleNamespace(uuid=f"GPU-{gpu}"))
    monkeypatch.setattr(devices.tempfile, "gettempdir", lambda: str(folder))
    monkeypatch.setattr(devices, "_slots", [])
    # what follows the choice of a GPU; it would stay for the tests to come
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda on: None)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def test_jobs_spread_over_the_gpus(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, gpus=2)
    assert [str(choose_device("auto")) for _ in range(5)] == ["cuda:0", "cuda:1", "cuda:0", "cuda:1", "cuda:0"]


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
    assert str(choose_device("auto")) == "cuda:0"


def test_one_gpu_needs_no_slot_and_none_is_the_cpu(monkeypatch, tmp_path):
    machine(monkeypatch, tmp_path, gpus=1)
    assert [str(choose_device("auto")) for _ in range(2)] == ["cuda:0", "cuda:0"]
    machine(monkeypatch, tmp_path, gpus=0)
    assert choose_device("auto") == torch.device("cpu")
    assert not list(tmp_path.iterdir())


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
