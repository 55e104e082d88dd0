"""How processes on one machine share its GPUs: each holds a slot of one, which is a locked file.

Jobs that Snakemake starts side by side all have access to all GPUs of the machine. Each takes a slot of the GPU with
the fewest used ones, and the lock ends with its process. A process that runs out of memory gives its slot up until
another one has ended, so that fewer run at a time.
"""

import fcntl
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch

_held: list[tuple[IO[Any], int]] = []  # at most one file, open and so locked until the process ends, and its GPU
POLL = 1.0  # seconds between looks at the others


def take() -> str:
    """Take a slot of the GPU with the fewest used ones, unless this process holds one.

    Gives the GPU's name for torch, or "cpu" if there is none.
    """
    if _held:
        return f"cuda:{_held[-1][1]}"
    if (count := torch.cuda.device_count()) == 0:
        return "cpu"
    for number in itertools.count():
        slot, gpu = divmod(number, count)
        if file := _locked(_folder() / f"{torch.cuda.get_device_properties(gpu).uuid}.{slot}"):
            _held.append((file, gpu))
            return f"cuda:{gpu}"
    raise AssertionError("itertools.count never ends")


def holding() -> bool:
    """Whether this process holds a slot of a GPU."""
    return bool(_held)


def others() -> int:
    """Number of other processes that hold a slot of the GPU on which this one computes; 0 if it holds none."""
    return _used_by_others(Path(_held[-1][0].name)) if _held else 0


def wait_for_room(interrupted: Callable[[], Exception | None]) -> None:
    """Give the slot up, wait until one of the other processes has ended, and take it again.

    Of several processes that wait for a GPU, one at a time goes on: two would run out of memory once more.

    Args:
        interrupted: the exception that ends the wait; None to go on.
    """
    before = others()
    file, gpu = _held.pop()
    path = Path(file.name)
    file.close()
    while not (turn := _locked(path.with_suffix(".waiting"))):
        _pause(interrupted)
    with turn:
        while (mine := _locked(path)) is None or _used_by_others(path) >= before > 0:
            if mine:
                mine.close()
            _pause(interrupted)
        _held.append((mine, gpu))


def _used_by_others(own: Path) -> int:
    """Number of slots that other processes hold of the GPU of one's own slot."""
    return sum(_is_locked(path) for path in own.parent.glob(f"{own.stem}.[0-9]*") if path != own)


def _pause(interrupted: Callable[[], Exception | None]) -> None:
    if error := interrupted():
        raise error
    time.sleep(POLL)


def _folder() -> Path:
    """Of the slots of this user's processes."""
    folder = Path(tempfile.gettempdir(), f"spaced-kd-devices-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    return folder


def _locked(path: Path) -> IO[Any] | None:
    """The file, with the lock; None if another process holds that."""
    file = path.open("w", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _is_locked(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
