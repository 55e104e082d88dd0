"""The resume states of one training: from which it resumes, when the next one is due, when the training stops."""

import time
from collections.abc import Callable, Iterator

from spaced_kd.config import sources
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import compare
from spaced_kd.distillation.schedule import Turn
from spaced_kd.training import checkpoint, distributed
from spaced_kd.training.job import Job
from spaced_kd.training.metrics import TrainingMetrics
from spaced_kd.training.preemption import StopSignal
from spaced_kd.training.provenance import Origin
from spaced_kd.utils import processes
from spaced_kd.utils.errors import UserError


class Checkpointer:
    """Writes resume states, and loads the newest one into a job and its metrics.

    If several processes train together, all make the same decisions, and the first one writes.

    Args:
        job: the training.
        metrics: its metrics, which count its turns.
        paths: of the folder of results, where the states are.
        origin: the code that trains.
        every: seconds between two states; 0 for one after every turn.
        stop: decides when this process stops before the training is finished.
    """

    def __init__(
        self, job: Job, metrics: TrainingMetrics, paths: ResultPaths, origin: Origin, every: float, stop: StopSignal
    ) -> None:
        self.job, self.metrics, self.paths, self.origin = job, metrics, paths, origin
        self.every, self.stop = every, stop
        self.kept = 0  # turns before the newest state that this training has written or gone on from
        self.saved = time.monotonic()
        self.before_saving: Callable[[], None] = lambda: None  # saves what must not be older than this run's state

    def resume(self) -> int:
        """Load the newest valid state into the job; returns the number of turns done.

        Raises:
            UserError: the state is of other data, settings or sources, or the processes found different states.
        """
        distributed.assert_same_on_all_ranks("the number of stored teachers", int(self.job.teacher_states == "stored"))
        self.kept = distributed.assert_same_on_all_ranks("the turn to go on after", self._load())
        self.metrics.turns = self.kept
        self.saved = time.monotonic()
        return self.kept

    def turns_to_go(self) -> Iterator[Turn]:
        """The remaining turns; the training may also stop while a turn waits for its batch."""
        if self.job.data.streamed:
            for images in self.job.data.images.values():
                images.waiting = self._stop_if_due
        yield from self.job.turns_after(self.metrics.turns, self._while_waiting)

    def after_turn(self, index: int) -> None:
        """Write a state if one is due; write one and raise Interrupted if this process has to stop."""
        stop = distributed.stopping(self.stop.over())
        if stop or time.monotonic() - self.saved >= self.every:
            self.save(index)
        if stop:
            distributed.barrier()  # torchrun ends all processes when one ends, and the first may still be writing
            raise stop

    def save(self, index: int) -> None:
        """Write a state after the turn on batch `index`; UserError if a loss or weight is not finite."""
        self.before_saving()
        self.metrics.check_finite(f"batch {index} or one before")  # on a GPU not every turn is checked
        check_weights(self.job, self.metrics.turns)
        job, (stored, plain) = self.job, self.metrics.pack()
        about = {"run": job.spec.id, "spec": job.spec.resolved(), "plain": plain, "data_sha256": job.data.checksum}
        about |= {"commits": self.origin.commits, "before": self.kept} | self.origin.sources
        folder = self.paths.state(job.spec)
        if processes.rank() == 0:
            checkpoint.save_state(folder, self.metrics.turns, job.modules, job.own_learners, record=stored, **about)
        self.kept, self.saved = self.metrics.turns, time.monotonic()

    def _while_waiting(self) -> None:
        """Stop if that is due: while a turn waits for its batch, no part of it is done."""
        if self.stop.over() and self.job.spec.processes == 1:
            self.save(self.metrics.turns)
        self._stop_if_due()

    def _stop_if_due(self) -> None:
        """Raise Interrupted if this process has to stop; several processes decide that together, after a turn."""
        if (stop := self.stop.over()) and self.job.spec.processes == 1:
            raise stop

    def _load(self) -> int:
        job, folder = self.job, self.paths.state(self.job.spec)
        resumed = checkpoint.load_state(folder, job.modules, job.own_learners, job.spec.id)
        if resumed is None:
            return 0
        done, stored, about = resumed
        if about.get("data_sha256", job.data.checksum) != job.data.checksum:
            raise UserError(
                f"{self.paths.data(job.spec)} is not the data of {folder}: prepare the same data again, or delete"
                f" {folder} to start anew"
            )
        try:
            compare(job.spec, about["spec"], folder)
            if changed := sources.changes(job.spec, about):
                raise UserError(
                    f"{folder} was written before {' and '.join(changed)} changed: restore that source, or delete"
                    f" {folder} to start anew"
                )
            self.origin.goes_on_from(about.get("commits", []))
            self.metrics.unpack(stored, about["plain"], job.device)
            if done > len(job.turns):
                raise ValueError
        except checkpoint.MALFORMED:
            raise checkpoint.no_state(checkpoint.state_path(folder, done)) from None
        return done


def check_weights(job: Job, turns: int) -> None:
    """UserError if a weight is not finite: no loss shows this after the last update."""
    for name, module in job.modules.items():
        if not all(tensor.isfinite().all() for tensor in module.state_dict().values()):
            raise UserError(f"a weight of the {name} is not finite after turn {turns}: lower lr, or check the data")
