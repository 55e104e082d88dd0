"""Processors of this process, and the processes that share one training, as torchrun's environment describes them."""

import os


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def started() -> int:
    """Number of processes that were started together with this one, itself included."""
    return int(os.environ.get("WORLD_SIZE", 1))


def on_this_machine() -> int:
    """Number of these processes that run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def rank() -> int:
    """Rank of this process; the first has 0."""
    return int(os.environ["RANK"]) if started() > 1 else 0
