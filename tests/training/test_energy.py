"""Energy: counters that run round, that vanish, that others share; sums over the attempts of a training."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from conftest import tiny

from spaced_kd.training import checkpoint, energy
from spaced_kd.training.energy import Counter, Meter
from spaced_kd.training.loop import train


def zone(folder, name, kind, joules, span=100.0):
    """A folder as the kernel's powercap has it, in microjoules."""
    (folder / name).mkdir(parents=True, exist_ok=True)
    for file, value in (
        ("name", kind),
        ("energy_uj", round(joules * 1e6)),
        ("max_energy_range_uj", round(span * 1e6)),
    ):
        (folder / name / file).write_text(f"{value}\n")


def test_packages_are_summed_and_their_parts_are_not(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 10)
    zone(tmp_path, "intel-rapl:0:0", "core", 3)
    zone(tmp_path, "intel-rapl:1", "package-1", 95)
    zone(tmp_path, "intel-rapl:2", "psys", 1)
    meter = Meter(lambda: energy.packages(tmp_path))
    assert meter.joules() == 0
    zone(tmp_path, "intel-rapl:0", "package-0", 12)
    zone(tmp_path, "intel-rapl:0:0", "core", 4)
    zone(tmp_path, "intel-rapl:1", "package-1", 5)  # ran round at 100
    assert meter.joules() == pytest.approx(2 + 10)
    zone(tmp_path, "intel-rapl:1", "package-1", 6)
    assert meter.joules() == pytest.approx(13)


def test_what_cannot_be_read_is_not_measured_and_never_0(tmp_path):
    assert Meter(lambda: energy.packages(tmp_path / "none")).joules() is None
    zone(tmp_path, "intel-rapl:0", "package-0", 10)
    meter = Meter(lambda: energy.packages(tmp_path))
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("")  # as unreadable as a counter that only root may read
    assert meter.joules() is None
    zone(tmp_path, "intel-rapl:0", "package-0", 20)
    assert meter.joules() is None  # what it gained meanwhile belongs to the sum, and is not known


def test_a_sample_now_and_then_sees_every_round(monkeypatch):
    shown = iter([90.0, 40.0, 95.0])
    meter = Meter(lambda: {"it": Counter(next(shown), 100.0)})
    meter.watch()  # too soon for a sample
    monkeypatch.setattr(energy.time, "monotonic", lambda: meter.when + energy.BETWEEN)
    meter.watch()
    assert meter.joules() == 50 + 55


@pytest.fixture
def nvml(monkeypatch):
    """NVML with one GPU: its millijoules, and the processes that compute on it."""

    class NVMLError(Exception):
        pass

    state = SimpleNamespace(millijoules=0, processes=["ours"], named=[], fails=False)

    def consumption(handle):
        if state.fails:
            raise NVMLError
        return state.millijoules

    fake = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda name: state.named.append(name),
        nvmlDeviceGetComputeRunningProcesses=lambda handle: state.processes,
        nvmlDeviceGetTotalEnergyConsumption=consumption,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=f"uuid of {device}"))
    return state


def test_a_gpu_by_its_own_name(nvml):
    nvml.millijoules = 7000
    meter = Meter(energy.gpu(torch.device("cuda:1")))
    assert nvml.named == ["GPU-uuid of cuda:1"]
    nvml.millijoules = 9500
    assert meter.joules() == 2.5


@pytest.mark.parametrize("change", [{"processes": ["ours", "another's"]}, {"fails": True}])
def test_a_gpu_that_is_shared_or_does_not_tell_is_not_measured(nvml, change):
    meter = Meter(energy.gpu(torch.device("cuda")))
    vars(nvml).update(change)
    assert meter.joules() is None


def test_a_processor_is_no_gpu():
    assert energy.meters(torch.device("cpu"))["energy_joules"].joules() is None


@pytest.mark.parametrize(("before", "after"), [(True, True), (True, False), (False, True)])
def test_a_stopped_training_adds_its_attempts_up(results, monkeypatch, before, after):
    class PulledPlugError(Exception):
        pass

    def meters(measures):
        shown = iter(range(10**6))  # a joule for each reading
        return lambda device, others: {
            "energy_joules": Meter(lambda: {"it": Counter(next(shown), 1e9)} if measures else {})
        }

    save = checkpoint.save_state

    def pull(*args, **about):
        save(*args, **about)
        result.append(about["plain"]["energy"]["energy_joules"])
        raise PulledPlugError

    result = []
    with monkeypatch.context() as patch:
        patch.setattr(energy, "meters", meters(before))
        patch.setattr(checkpoint, "save_state", pull)
        with pytest.raises(PulledPlugError):
            train(tiny(method="baseline"), results, checkpoint_every=0)
    assert result == [1.0 if before else None]
    monkeypatch.setattr(energy, "meters", meters(after))
    folder = train(tiny(method="baseline"), results)
    assert json.loads((folder / "run.json").read_text())["energy_joules"] == (2.0 if before and after else None)


def test_a_machine_without_nvml_does_not_measure(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)  # what an import of a package that is not there meets
    assert energy.gpu(torch.device("cuda:0"))() == {}


def test_energy_of_a_process_of_several_runs_is_not_measured(monkeypatch):
    monkeypatch.setattr(energy, "packages", lambda: {"package": Counter(1.0, 1e9)})
    measured = {others: energy.meters(torch.device("cpu"), others=others) for others in (False, True)}
    assert measured[False]["package_energy_joules"].joules() == 0
    assert measured[True]["package_energy_joules"].joules() is None
