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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import torch

_held: list[tuple[IO[Any], int]] = []  # at most one file, open and so locked until the process ends, and its GPU
POLL = 1.0  # seconds between looks at the others


def take() -> str:
    """Take a slot of the GPU with the fewest used ones, unless this process holds one.

    Gives the GPU's name for torch, or "cpu" if there is none.
    """
    if not _held and (count := torch.cuda.device_count()) == 0:
        return "cpu"
    if not _held:
        _take_of(range(count))
    return f"cuda:{_held[-1][1]}"


def holding() -> bool:
    """Whether this process holds a slot of a GPU."""
    return bool(_held)


def others() -> int:
    """Number of other processes that hold a slot of the GPU on which this one computes; 0 if it holds none."""
    return _used(_uuid(_held[-1][1])) - 1 if _held else 0


def wait_for_room(interrupted: Callable[[], Exception | None]) -> None:
    """Give the slot up, wait until one of the other processes has ended, and take one again.

    Of several processes that wait for a GPU, one at a time goes on: two would run out of memory once more. One that
    sees no other when its turn comes goes on at once.

    Args:
        interrupted: the exception that ends the wait; None to go on.
    """
    before = others()
    file, gpu = _held.pop()
    file.close()
    while not (turn := _locked(_folder() / f"{_uuid(gpu)}.waiting")):
        _pause(interrupted)
    with turn:
        before = max(before, _used(_uuid(gpu)))  # one that waited before may go on now
        while _used(_uuid(gpu)) >= before > 0:
            _pause(interrupted)
        _take_of([gpu])


def _take_of(gpus: Sequence[int]) -> None:
    """Take the first free slot: the first one of each GPU, then the second ones."""
    for slot, gpu in ((slot, gpu) for slot in itertools.count() for gpu in gpus):
        if file := _locked(_folder() / f"{_uuid(gpu)}.{slot}"):
            _held.append((file, gpu))
            return


def _used(uuid: str) -> int:
    """Number of slots of a GPU that processes hold, this one among them."""
    return sum(_is_locked(path) for path in _folder().glob(f"{uuid}.[0-9]*"))


def _uuid(gpu: int) -> str:
    return str(torch.cuda.get_device_properties(gpu).uuid)


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
