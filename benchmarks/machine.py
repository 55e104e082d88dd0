"""The machine's ceilings, measured: a large matrix product, a large copy; and which kind of machine it is."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from spaced_kd.training import provenance
from spaced_kd.utils.devices import set_rounding


def describe(device: torch.device, threads: int) -> dict[str, Any]:
    """Commit, versions, processor with what it has for bf16, GPU, threads."""
    about = provenance.describe(device)
    flags = Path("/proc/cpuinfo").read_text("utf-8").split() if Path("/proc/cpuinfo").exists() else []
    about["bf16_instructions"] = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    return about | {"threads": threads, "device": device.type}


def kind(device: torch.device) -> str:
    """The kind of machine that a file of measurements is of: cuda, or cpu and its widest instructions: cpu-avx2."""
    return "cuda" if device.type == "cuda" else f"cpu-{provenance.kind(device)}"


def precisions(device: torch.device) -> tuple[str, ...]:
    """Precisions whose steps are timed: not bf16 where the processor emulates it, a ninth as fast."""
    return tuple(each for each in ("bf16", "fp32") if not provenance.emulated(each, device))


def ceilings(device: torch.device) -> dict[str, float]:
    """FLOP/s of a large matrix product in each precision, and bytes/s of a large copy (read and written)."""
    size = 8192 if device.type == "cuda" else 2048
    found = {}
    for precision in (*precisions(device), "tf32") if device.type == "cuda" else precisions(device):
        set_rounding(precision)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        found[precision] = 2 * size**3 / best(lambda a=a, b=b: a @ b, device)
    source = torch.ones(2**30 if device.type == "cuda" else 2**27, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    found["bytes"] = 2 * source.nbytes / best(lambda: target.copy_(source), device)
    return found


def best(work: Callable[[], object], device: torch.device, times: int = 7) -> float:
    """Seconds of the fastest of some repetitions, a first one aside."""
    work()
    return min(seconds(work, device) for _ in range(times))


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of wall clock until the work is done, a GPU's queue included."""
    settle(device)
    start = time.perf_counter()
    work()
    settle(device)
    return time.perf_counter() - start


def settle(device: torch.device) -> None:
    """Wait for a GPU to finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
