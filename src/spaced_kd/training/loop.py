"""Train one run: take the turns of its schedule one by one, each a step of that learner on the method's loss terms."""

import warnings
from contextlib import closing
from functools import partial
from pathlib import Path

from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.training import provenance
from spaced_kd.training.distributed import broadcast_from_zero, on_rank_zero, process_group
from spaced_kd.training.job import assemble
from spaced_kd.training.preemption import StopSignal
from spaced_kd.training.run_folder import clear_up, finished
from spaced_kd.training.run_lock import exclusive
from spaced_kd.training.run_recorder import RunRecorder
from spaced_kd.utils.processes import rank


def train(
    spec: RunSpec,
    results: Path,
    *,
    leave: tuple[RunSpec, ...] = (),
    checkpoint_every: float = 300.0,
    device: str = "auto",
    part: StopSignal | None = None,
    workers: int | None = None,
) -> Path:
    """Train the run, or go on where it was stopped, and give its folder; a finished run is left as it is.

    Args:
        spec: the run.
        results: folder of all results.
        leave: students to come, for whom a teacher leaves its states.
        checkpoint_every: seconds between resume states; 0 for one after every turn.
        device: auto, cpu, cuda or cuda:N.
        part: what may end this process before the run is finished, by Stopped; None for nothing.
        workers: processes that decode and augment images ahead, where that is done one by one; None for all processors
            but one. The weights are the same.
    """
    places = ResultPaths(results)
    with process_group(spec.processes):
        if broadcast_from_zero(finished(spec, places)):
            clear_up(spec, places)
            return places.run(spec)
        job, part = assemble(spec, places, device, workers), part or StopSignal()
        with on_rank_zero(exclusive(places.lock(spec), part)), closing(job.batches):
            if broadcast_from_zero(finished(spec, places)):  # by the process that this one has waited for
                return places.run(spec)
            if rank() == 0 and (told := provenance.warning()):
                warnings.warn(told, stacklevel=1)
            keeper = RunRecorder(job, places, leave, checkpoint_every, part)
            for who, index in keeper.turns_to_go():
                with keeper.watching(who, index):
                    losses = job.learners[who].learn(index, partial(job.passes, who, index))
                keeper.after(who, index, losses)
            return keeper.finish()
