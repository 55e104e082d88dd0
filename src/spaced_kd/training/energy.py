"""Energy of a training, from the counters of its GPU and of the machine's processors.

A GPU's counter (NVML) is attributed to a run that is the only process on it. Processors' counters (RAPL) cover whole
packages with everything that runs on them, so this is a separate quantity that is never added. If a machine does not
provide a counter, the energy is not measured: None, never 0.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

POWERCAP = Path("/sys/class/powercap")
BETWEEN = 30.0  # seconds between samples: RAPL's counters overflow within some minutes under load


class Counter(NamedTuple):
    """The value of a counter, and the value at which it restarts from 0; both in joules."""

    joules: float
    span: float


Reading = dict[str, Counter]  # by the counter's name; empty where there is nothing to read


class Meter:
    """The total increase of counters in joules, or None as soon as one of them cannot be read.

    Args:
        read: returns the current counters.
    """

    def __init__(self, read: Callable[[], Reading]) -> None:
        self.read, self.last, self.when = read, read(), time.monotonic()
        self.total: float | None = 0.0 if self.last else None

    def joules(self) -> float | None:
        """The sum until now."""
        if self.total is not None:
            now = self.read()
            if now.keys() == self.last.keys():
                self.total += sum((now[name].joules - self.last[name].joules) % now[name].span for name in now)
            else:
                self.total = None
            self.last, self.when = now, time.monotonic()
        return self.total

    def watch(self) -> None:
        """Sample every `BETWEEN` seconds, so that no overflow is missed."""
        if time.monotonic() - self.when >= BETWEEN:
            self.joules()

    def go_on(self, joules: float | None) -> None:
        """Add the energy of an earlier attempt; if that was not measured, neither is the sum."""
        self.total = None if joules is None or self.total is None else self.total + joules


def meters(device: torch.device, *, others: bool = False) -> dict[str, Meter]:
    """The meters of a training on a device, by the keys of their sums in run.json.

    With `others` that train in the same process, they measure nothing.
    """
    found = {"energy_joules": gpu(device), "package_energy_joules": packages}
    return {name: Meter(dict if others else read) for name, read in found.items()}


def gpu(device: torch.device) -> Callable[[], Reading]:
    """A function that reads the counter of one GPU: empty on other devices, or while another process uses the GPU."""
    if device.type != "cuda":
        return dict
    try:
        import pynvml
    except ImportError:  # a machine with torch and little else
        return dict
    try:
        pynvml.nvmlInit()
        # by UUID, since NVML numbers the machine's GPUs, and torch those of CUDA_VISIBLE_DEVICES
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
    except pynvml.NVMLError:
        return dict

    def read() -> Reading:
        try:
            if len(pynvml.nvmlDeviceGetComputeRunningProcesses(handle)) > 1:
                return {}
            # of 64 bits, in millijoules
            return {"gpu": Counter(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, 2**64 / 1e3)}
        except pynvml.NVMLError:
            return {}

    return read


def packages(folder: Path = POWERCAP) -> Reading:
    """The counters of the processor packages; empty if the kernel has none, or this user may not read one."""
    found = {}
    try:
        for zone in folder.glob("intel-rapl:*"):  # AMD's have this name too
            if (zone / "name").read_text("utf-8").startswith("package"):
                now, span = (int((zone / name).read_text("utf-8")) for name in ("energy_uj", "max_energy_range_uj"))
                found[zone.name] = Counter(now / 1e6, span / 1e6)
    except (OSError, ValueError):
        return {}
    return found
