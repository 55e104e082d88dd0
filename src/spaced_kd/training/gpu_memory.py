"""Trainings that do not all fit in a GPU at the same time: fewer of them run at a time."""

import gc
from collections.abc import Callable
from pathlib import Path

import torch

from spaced_kd.training.preemption import StopSignal
from spaced_kd.utils import gpu_slots
from spaced_kd.utils.errors import out_of_memory


def until_it_fits(train: Callable[[bool], Path], stop: StopSignal, *, together: bool) -> Path:
    """Train; where the GPU is full because other processes use it too, go on when one of them has ended.

    Where this process has the GPU for itself, a teacher goes on without the students beside it, and the error of a run
    alone is raised: it needs a larger GPU. The training goes on from its last state, to the same bits.

    Args:
        train: trains or resumes the run, with students beside it or without.
        stop: may end the wait by Interrupted.
        together: whether there are students to train beside it.
    """
    was_alone = False
    while True:
        try:
            return train(together)
        except (MemoryError, RuntimeError) as error:
            others = gpu_slots.others()
            if not out_of_memory(error) or not (together or (gpu_slots.holding() and (others or not was_alone))):
                raise
        gc.collect()  # here, since the traceback held the networks until now
        torch.cuda.empty_cache()
        if others:
            print(f"out of memory beside {others} other processes of this GPU: waiting for one to end", flush=True)
        elif together:
            together = False
            print("out of memory with the students beside it: going on without them", flush=True)
            continue
        was_alone = not others  # the others may have ended since, so that a second attempt is worth it
        gpu_slots.wait_for_room(stop.over)
