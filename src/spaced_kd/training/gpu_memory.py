"""Trainings that do not all fit in a GPU at the same time: fewer of them run at a time."""

import gc
from collections.abc import Callable
from pathlib import Path

import torch

from spaced_kd.training.preemption import StopSignal
from spaced_kd.utils import gpu_slots
from spaced_kd.utils.errors import out_of_memory


def until_it_fits(train: Callable[[], Path], stop: StopSignal) -> Path:
    """Train; where the GPU is full because other processes use it too, go on when one of them has ended.

    The training goes on from its last state, to the same bits. The error of a process that has the GPU for itself is
    raised: the run needs a larger one.

    Args:
        train: trains or resumes the run.
        stop: may end the wait by Interrupted.
    """
    was_alone = False
    while True:
        try:
            return train()
        except (MemoryError, RuntimeError) as error:
            others = gpu_slots.others()
            if not out_of_memory(error) or not gpu_slots.holding() or (was_alone and not others):
                raise
        was_alone = not others  # the others may have ended since, so that a second attempt is worth it
        gc.collect()  # here, since the traceback held the networks until now
        torch.cuda.empty_cache()
        if others:
            print(f"out of memory beside {others} other processes of this GPU: waiting for one to end", flush=True)
        gpu_slots.wait_for_room(stop.over)
