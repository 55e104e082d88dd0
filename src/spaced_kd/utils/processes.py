"""Processors of this process, and the processes that share one training, as torchrun's environment describes them."""

import os


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def started() -> int:
    """Processes that this one was started as one of."""
    return int(os.environ.get("WORLD_SIZE", 1))


def on_this_machine() -> int:
    """Those of them that run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def rank() -> int:
    """Number of this process, from 0, the first."""
    return int(os.environ["RANK"]) if started() > 1 else 0
