"""The device on which a process computes.

Jobs that Snakemake starts side by side on one machine all have access to all of its GPUs. Each takes a slot of the GPU
with the fewest used slots. A slot is a locked file, and the lock ends with its process. A Slurm job has access to its
own GPUs only.
"""

import fcntl
import itertools
import os
import tempfile
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from spaced_kd.utils.errors import UserError

MEMINFO = Path("/proc/meminfo")  # of Linux
_slots: list[IO[Any]] = []  # held open, and so locked, until the process ends


def choose_device(device: str) -> torch.device:
    """The named device, or for "auto" a GPU if there is one, else the CPU; kernels on a GPU are deterministic.

    Raises:
        UserError: there is no such device.
    """
    try:
        chosen = torch.device(_least_used() if device == "auto" else device)
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


def _least_used() -> str:
    count = torch.cuda.device_count()
    if count == 0:
        return "cpu"
    if count == 1:
        return "cuda:0"
    folder = Path(tempfile.gettempdir(), f"spaced-kd-devices-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    for number in itertools.count():
        slot, gpu = divmod(number, count)
        file = (folder / f"{torch.cuda.get_device_properties(gpu).uuid}.{slot}").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _slots.append(file)
        return f"cuda:{gpu}"
    raise AssertionError("itertools.count never ends")
