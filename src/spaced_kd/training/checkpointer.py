"""The resume states of one training: which one it goes on from, when the next is due, when it stops."""

import time
from collections.abc import Iterator

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
    """Writes resume states, and puts the newest one into a job and its metrics.

    Of several processes that train together, each decides the same, and the first one writes.

    Args:
        job: what is trained.
        metrics: what is recorded of it, which counts its turns.
        paths: of the folder of results, where the states are.
        origin: the code that trains.
        every: seconds between two states; 0 for one after every turn.
        stop: what may end this process before the training is finished.
    """

    def __init__(
        self, job: Job, metrics: TrainingMetrics, paths: ResultPaths, origin: Origin, every: float, stop: StopSignal
    ) -> None:
        self.job, self.metrics, self.paths, self.origin = job, metrics, paths, origin
        self.every, self.stop = every, stop
        self.kept = 0  # turns before the newest state that this training has written or gone on from
        self.saved = time.monotonic()

    def resume(self) -> int:
        """Put the newest whole state into the job; returns the number of turns that are done.

        Raises:
            UserError: the state is of other data, settings or sources, or the processes found different states.
        """
        distributed.assert_same_on_all_ranks("the number of stored teachers", int(self.job.follows_stored_teacher))
        self.kept = distributed.assert_same_on_all_ranks("the turn to go on after", self._load())
        self.metrics.turns = self.kept
        self.saved = time.monotonic()
        return self.kept

    def turns_to_go(self) -> Iterator[Turn]:
        """The turns that are not done yet; the training may also stop while one waits for its batch."""
        if self.job.data.streamed:
            for images in self.job.data.images.values():
                images.waiting = self._stop_if_due
        yield from self.job.turns_after(self.metrics.turns, self._while_waiting)

    def after_turn(self, index: int) -> None:
        """Write a state if one is due; Interrupted, with a state written, if this process is to stop."""
        stop = distributed.stopping(self.stop.over())
        if stop or time.monotonic() - self.saved >= self.every:
            self.save(index)
        if stop:
            distributed.barrier()  # torchrun ends all when one has ended, and the first may still be writing
            raise stop

    def save(self, index: int) -> None:
        """Write a state after the turn on batch `index`; UserError where a loss or weight is not finite."""
        self.metrics.check_finite(f"batch {index} or one before")  # before, where not every turn is checked
        check_weights(self.job, self.metrics.turns)
        job, (stored, plain) = self.job, self.metrics.pack()
        about = {"run": job.spec.id, "spec": job.spec.resolved(), "plain": plain, "data_sha256": job.data.checksum}
        about |= {"commits": self.origin.commits, "before": self.kept} | self.origin.sources
        folder = self.paths.state(job.spec)
        if processes.rank() == 0:
            checkpoint.save_state(folder, self.metrics.turns, job.modules, job.own_learners, record=stored, **about)
        self.kept, self.saved = self.metrics.turns, time.monotonic()

    def _while_waiting(self) -> None:
        """A turn waits for its batch: nothing of it is done, so that the training may stop here."""
        if self.stop.over() and self.job.spec.processes == 1:
            self.save(self.metrics.turns)
        self._stop_if_due()

    def _stop_if_due(self) -> None:
        """Interrupted if this process is to stop; several processes agree on that after a turn, and not here."""
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
                f"{self.paths.data(job.spec)} is not what {folder} was trained on so far: prepare the same data, or"
                f" delete {folder} to start anew"
            )
        try:
            compare(job.spec, about["spec"], folder)
            if changed := sources.changes(job.spec, about):
                raise UserError(
                    f"{folder} is of a training from before {' and '.join(changed)} changed: bring that source back, or"
                    f" delete {folder} to start anew"
                )
            self.origin.goes_on_from(about.get("commits", []))
            self.metrics.unpack(stored, about["plain"], job.device)
            if done > len(job.turns):
                raise ValueError
        except checkpoint.MALFORMED:
            raise checkpoint.no_state(checkpoint.state_path(folder, done)) from None
        return done


def check_weights(job: Job, turns: int) -> None:
    """UserError where a weight is not finite: no loss after the last update would show it."""
    for name, module in job.modules.items():
        if not all(tensor.isfinite().all() for tensor in module.state_dict().values()):
            raise UserError(
                f"a weight of the {name} is no number after turn {turns}: lower lr, or see that the data are right"
            )
