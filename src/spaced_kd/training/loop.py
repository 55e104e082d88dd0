"""Train one run: each turn of its schedule is a step of one learner on the method's loss terms."""

import contextlib
import math
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import torch

from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.distillation.schedule import Turn
from spaced_kd.training import energy, provenance
from spaced_kd.training.checkpointer import Checkpointer
from spaced_kd.training.companions import Companions, jobs_beside
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
    together: tuple[RunSpec, ...] = (),
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
        together: students that need their teacher after every batch; they train beside it, if they can.
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
        with on_rank_zero(exclusive(paths.lock(spec), stop)), closing(job.batches), ExitStack() as locks:
            if broadcast_from_zero(finished(spec, paths)):  # by the process that held the lock
                return paths.run(spec)
            for message in provenance.warnings_of(spec, job.device) if rank() == 0 else ():
                warnings.warn(message, stacklevel=1)
            beside = jobs_beside(job, together, paths, locks)
            training = Training(job, paths, checkpoint_every, stop, others=bool(beside))
            training.save_at = states_for(job, save_states_for)
            training.companions.join(beside, lambda each: Training(each, paths, math.inf, StopSignal(), others=True))
            for _ in training.turns():
                pass
            return training.finish()


class Training:
    """A run while it trains, from its newest resume state on.

    Args:
        job: its objects.
        paths: of the folder of results.
        checkpoint_every: seconds between resume states.
        stop: may end this process.
        others: whether other runs train in this process, too.

    Attributes:
        save_at: numbers of batches after which the teacher's state is saved for later students.
        companions: students that train in this process, too.
    """

    def __init__(
        self, job: Job, paths: ResultPaths, checkpoint_every: float, stop: StopSignal, *, others: bool
    ) -> None:
        self.job, self.paths = job, paths
        self.origin = provenance.origin(job.spec, job.device)  # now, since files may change while this process trains
        synchronise = torch.cuda.synchronize if others and job.device.type == "cuda" else lambda: None
        self.metrics = TrainingMetrics(energy.meters(job.device, others=others), synchronise)
        self.recorder = RunRecorder(job, self.metrics, Curve(paths.curve(job.spec), job), others=others)
        self.checkpointer = Checkpointer(job, self.metrics, paths, self.origin, checkpoint_every, stop)
        self.states = TeacherStates(job.spec.id, paths.trajectory(job.spec), paths.weights(job.spec), job.total)
        self.save_at: set[int] = set()
        self.companions = Companions(self)
        sweep_folders(job.spec, paths, self.states, anew=not self.checkpointer.resume())
        self.recorder.begin(self.origin.earlier)

    def turns(self) -> Iterator[Turn]:
        """The loop: each turn is a learner's update on the method's loss terms; yields it before it is taken."""
        for role, index in self.checkpointer.turns_to_go():
            with self.metrics.elsewhere():
                yield role, index
            with self.recorder.watching(role, index):
                losses = self.job.learners[role].learn(index, partial(self.job.passes, role, index))
            self.recorder.after_turn(role, index, losses)
            if role == "teacher":
                self._share(index + 1)
            self.checkpointer.after_turn(index)

    def finish(self) -> Path:
        """Write the outputs of the run, and of its companions before it; returns its folder."""
        self.recorder.bar.close()
        self.companions.finish()
        return write_outputs(self.job, self.metrics, self.paths, self.origin)

    def _share(self, batches: int) -> None:
        """Let students have the teacher after its turn on so many batches."""
        if batches in self.save_at:
            self.states.save(batches, self.job.learners["teacher"].network)
        self.companions.follow(batches)


def states_for(job: Job, students: tuple[RunSpec, ...]) -> set[int]:
    """Numbers of batches after which the teacher saves its state for these students; empty but in the first process."""
    found: set[int] = set()
    for student in students if rank() == 0 else ():
        with contextlib.suppress(UserError):  # an impossible interval is refused in the student's own run
            found |= job.states_to_save(student)
    return found
