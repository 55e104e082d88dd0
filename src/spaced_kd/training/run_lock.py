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
def exclusive(path: Path, stop: StopSignal, poll: float = 1.0, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock `path` for the block; if another process holds it, print that and wait until it has ended.

    The kernel releases a lock with its process, so the file that a killed process leaves behind blocks nobody. NFS
    carries locks between hosts if its lock service runs; on a file system without locks there is a warning and no
    protection.

    Args:
        path: the file; while it is held, it contains the holder's process id and host.
        stop: may end the waiting, too, by Interrupted.
        poll: seconds between attempts.
        wait: whether to wait; BlockingIOError else.
    """
    waiting = False
    while True:
        file = _open(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                file.close()
                raise
            if not waiting:
                print(f"{path}: held by {file.read() or 'another process'}: waiting for it to end", flush=True)
            waiting = True
            file.close()
            if interruption := stop.over():
                raise interruption from None
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
    """Remove the lock file that a killed process left; returns whether there was one. A held lock stays."""
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
    """Whether a process holds the lock now; on a file system without locks, whether the file exists."""
    try:
        with open(path, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:  # BlockingIOError among them
        return True
    return False
