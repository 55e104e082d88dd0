"""The device on which a process computes."""

import os
from pathlib import Path

import torch
from torch import Tensor

from spaced_kd.utils import gpu_slots
from spaced_kd.utils.errors import UserError

MEMINFO = Path("/proc/meminfo")  # of Linux


def choose_device(device: str) -> torch.device:
    """The named device, or for "auto" a GPU if there is one, else the CPU; kernels on a GPU are deterministic.

    Raises:
        UserError: there is no such device.
    """
    try:
        chosen = torch.device(gpu_slots.take() if device == "auto" else device)
    except RuntimeError:
        raise UserError(f"device is {device!r}, but must be auto, cpu, cuda or cuda:N") from None
    if chosen.type == "cuda":
        if (chosen.index or 0) >= torch.cuda.device_count():
            raise UserError(f"device is {device}, but there are {torch.cuda.device_count()} GPUs here: use auto")
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only with it
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # a kernel for each new tensor, which no one reads
    return chosen


def free_memory(device: torch.device) -> int | None:
    """Free bytes of a device, on the host including memory that it can reclaim; None if unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu" or not MEMINFO.exists():
        return None
    return next(
        1024 * int(line.split()[1]) for line in MEMINFO.read_text("utf-8").splitlines() if "MemAvailable" in line
    )


def set_up_process(threads: int, precision: str) -> None:
    """Set this process's number of threads and its rounding; called once, when a process starts its work."""
    torch.set_num_threads(threads)
    set_rounding(precision)


def set_rounding(precision: str) -> None:
    """Set whether a GPU rounds float32 numbers to TF32 before it multiplies them."""
    rounding = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = rounding
    torch.backends.cudnn.conv.fp32_precision = rounding  # type: ignore[attr-defined]


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor on `device`; unlike a plain copy, this does not wait for a GPU."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
