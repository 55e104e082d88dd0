"""Train one run: each turn of its schedule is a step of one learner on the method's loss terms."""

import contextlib
import warnings
from contextlib import closing
from functools import partial
from pathlib import Path

from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.training import energy, provenance
from spaced_kd.training.checkpointer import Checkpointer
from spaced_kd.training.curve import Curve
from spaced_kd.training.distributed import broadcast_from_zero, on_rank_zero, process_group
from spaced_kd.training.job import Job, assemble
from spaced_kd.training.metrics import TrainingMetrics
from spaced_kd.training.preemption import StopSignal
from spaced_kd.training.run_folder import clear_up, finished, sweep_folders
from spaced_kd.training.run_lock import exclusive
from spaced_kd.training.run_outputs import write_outputs
from spaced_kd.training.run_recorder import RunRecorder
from spaced_kd.training.teacher_states import TeacherStates
from spaced_kd.utils.devices import set_up_process
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.processes import rank


def train(
    spec: RunSpec,
    results: Path,
    *,
    save_states_for: tuple[RunSpec, ...] = (),
    checkpoint_every: float = 300.0,
    device: str = "auto",
    stop: StopSignal | None = None,
    workers: int | None = None,
) -> Path:
    """Train the run, or resume it; returns its folder. A finished run is left unchanged.

    Args:
        spec: the run.
        results: folder of all results.
        save_states_for: later students, for whom a teacher saves its states.
        checkpoint_every: seconds between resume states; 0 for one after every turn.
        device: auto, cpu, cuda or cuda:N.
        stop: may end this process before the run is finished, by Interrupted; None: nothing does.
        workers: processes that decode and augment images ahead, if that is done image by image; None for all processors
            but one. The weights do not depend on it.
    """
    paths, stop = ResultPaths(results), stop or StopSignal()
    with process_group(spec.processes):
        if broadcast_from_zero(finished(spec, paths)):
            clear_up(spec, paths)
            return paths.run(spec)
        set_up_process(spec.threads, spec.precision)
        job = assemble(spec, paths, device, workers)
        with on_rank_zero(exclusive(paths.lock(spec), stop)), closing(job.batches):
            if broadcast_from_zero(finished(spec, paths)):  # by the process that held the lock
                return paths.run(spec)
            for message in provenance.warnings_of(spec, job.device) if rank() == 0 else ():
                warnings.warn(message, stacklevel=1)
            return take_turns(job, paths, save_states_for, checkpoint_every, stop)


def take_turns(
    job: Job, paths: ResultPaths, save_states_for: tuple[RunSpec, ...], checkpoint_every: float, stop: StopSignal
) -> Path:
    """The loop: each turn is a learner's update on the method's loss terms; returns the folder of the finished run."""
    origin = provenance.origin(job.spec, job.device)  # now, since files may change while this process trains
    metrics = TrainingMetrics(energy.meters(job.device))
    recorder = RunRecorder(job, metrics, Curve(paths.curve(job.spec), job))
    checkpointer = Checkpointer(job, metrics, paths, origin, checkpoint_every, stop)
    states = TeacherStates(job.spec.id, paths.trajectory(job.spec), paths.weights(job.spec), job.total)
    save_at = states_for(job, save_states_for)
    sweep_folders(job.spec, paths, states, anew=not checkpointer.resume())
    recorder.begin(origin.earlier)
    for role, index in checkpointer.turns_to_go():
        with recorder.watching(role, index):
            losses = job.learners[role].learn(index, partial(job.passes, role, index))
        recorder.after_turn(role, index, losses)
        if role == "teacher" and index + 1 in save_at:
            states.save(index + 1, job.learners[role].network)
        checkpointer.after_turn(index)
    recorder.bar.close()
    return write_outputs(job, metrics, paths, origin)


def states_for(job: Job, students: tuple[RunSpec, ...]) -> set[int]:
    """Numbers of batches after which the teacher saves its state for these students; empty but in the first process."""
    found: set[int] = set()
    for student in students if rank() == 0 else ():
        with contextlib.suppress(UserError):  # an impossible interval is refused in the student's own run
            found |= job.states_to_save(student)
    return found
