"""One process per run: a lock that ends with the process that holds it."""

import contextlib
import fcntl
import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from spaced_kd.training.preemption import StopSignal
from spaced_kd.utils.errors import UserError


@contextlib.contextmanager
def exclusive(path: Path, part: StopSignal, poll: float = 1.0) -> Iterator[None]:
    """Hold the lock `path` for the block; where another process has it, say so and wait until that one has ended.

    The kernel drops a lock with its process, so the file that a killed one leaves holds nobody up. NFS carries locks
    between hosts where its lock service runs; a file system that has none gives a warning, and no protection.

    Args:
        path: the file, with host and process of the holder in it while it is held.
        part: ends the waiting too, by Stopped.
        poll: seconds between attempts.
    """
    waiting = False
    while True:
        file = _open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not waiting:
                print(f"{path}: held by {file.read() or 'another process'}, which this one waits for", flush=True)
            waiting = True
            file.close()
            if stop := part.over():
                raise stop from None
            time.sleep(poll)
            continue
        except OSError as error:
            warnings.warn(f"{path} cannot be locked ({error.strerror}): start each run once only", stacklevel=3)
        if _is_there(path, file):
            break
        file.close()  # its holder has ended and removed it since it was opened
    with file:  # closing it gives the lock up
        if left := file.read():
            print(f"{path}: left by {left}, which has ended", flush=True)
        with contextlib.suppress(OSError):  # on a full disk the lock holds without a name
            file.truncate(0)
            print(f"process {os.getpid()} on {os.uname().nodename}", end="", file=file, flush=True)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def remove_left(path: Path) -> bool:
    """Remove the file that a killed process left; whether there was one. One that is held stays."""
    if not path.exists():
        return False
    with _open(path) as file, contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
        return True
    return False


def _open(path: Path) -> TextIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 (open for as long as the lock is held)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}): make room, or name another folder") from None
    file.seek(0)
    return file


def _is_there(path: Path, file: TextIO) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def held(path: Path) -> bool:
    """Whether a process holds the lock now; where a file system has no locks, whether its file is there."""
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # BlockingIOError among them
        return True
    return False
