"""Records a run while it trains: FLOPs, loss terms and predictions, and the lines of its log."""

import contextlib
import sys
from collections.abc import Iterator
from functools import cached_property

import numpy as np
from torch import Tensor
from tqdm import tqdm

from spaced_kd.training import distributed
from spaced_kd.training.accuracy import accuracy
from spaced_kd.training.curve import Curve
from spaced_kd.training.job import Job
from spaced_kd.training.metrics import TrainingMetrics, predict
from spaced_kd.utils import processes
from spaced_kd.utils.seeding import global_seed


class RunRecorder:
    """Records one job's turns in its metrics; several processes that train together record the same.

    Args:
        job: the training.
        metrics: its metrics.
        curve: its learning curve, which the first process writes.
        others: whether other runs print lines into the same log.
    """

    def __init__(self, job: Job, metrics: TrainingMetrics, curve: Curve, *, others: bool = False) -> None:
        self.job, self.metrics, self.curve, self.others = job, metrics, curve, others

    def begin(self, earlier_commits: list[str]) -> None:
        """Print from which turn a training resumes, and the commits of other code that began it."""
        spec, done, turns = self.job.spec, self.metrics.turns, len(self.job.turns)
        if processes.rank() == 0:
            self.curve.restart(self.metrics, self.labels)
        if done:
            self.say(f"{spec.id}: goes on after turn {done} of {turns}")
        if earlier_commits:
            self.say(f"{spec.id}: began with other code, commit {', '.join(earlier_commits)}")

    @contextlib.contextmanager
    def watching(self, role: str, index: int) -> Iterator[None]:
        """Context of a learner's update, which counts FLOPs and seeds the global generators for this turn."""
        counted = self.metrics.counted(role, self.job.images(index))
        with counted, global_seed(self.job.spec.seed, f"step of {role}", index):
            yield

    def after_turn(self, role: str, index: int, losses: dict[str, Tensor]) -> None:
        """Record a turn's loss terms; evaluate the network where that is due."""
        job = self.job
        self.metrics.add(role, losses)
        if job.decides and role == "student":
            self.metrics.replays_to(job.learners["teacher"].steps)
        if job.device.type == "cpu":  # on a GPU it costs a synchronisation; there, evaluations and states check
            self.metrics.check_finite(f"batch {index}")
        if (role, index) in job.evaluations or (role, index) in job.tail:
            self._evaluate(role, index)
        self.bar.update()

    def say(self, line: str) -> None:
        """Print a line without garbling the progress bar; only the first process prints."""
        if processes.rank():
            return
        if self.bar.disable:
            print(line, flush=True)
        else:
            self.bar.write(line, file=sys.stderr)

    @cached_property
    def bar(self) -> tqdm:
        """The progress bar on a terminal."""
        terminal = sys.stderr.isatty() and processes.rank() == 0
        total, done = len(self.job.turns), self.metrics.turns
        return tqdm(total=total, initial=done, desc=self.job.spec.id, unit="turn", disable=not terminal)

    @cached_property
    def labels(self) -> np.ndarray:
        """Labels of the test images: int64 (N,)."""
        return self.job.data.labels["test"].cpu().numpy()

    def _evaluate(self, role: str, index: int) -> None:
        """Predict the test set at the end of an epoch, for the tail, or both."""
        job, metrics = self.job, self.metrics
        metrics.check_finite(f"batch {index} or one before")  # on a GPU not every turn is checked
        with job.autocast():
            predictions = distributed.predict_sharded(predict, job.reported, job.data)
            held_out = None
            if job.spec.held_out:
                labels = job.data.labels["held_out"].cpu().numpy()
                predicted = distributed.predict_sharded(predict, job.reported, job.data, "held_out")
                held_out = float(accuracy(predicted, labels))
        if (step := job.tail.get((role, index))) is not None:
            metrics.tail_evaluated(step, predictions, held_out)
        if (epoch := job.evaluations.get((role, index))) is not None:
            metrics.evaluated(epoch, predictions, held_out, turn=metrics.turns)
            if processes.rank() == 0:
                self.curve.append(metrics, self.labels)
            self.say(f"{job.spec.id}: {self._progress(epoch)}" if self.others else self._progress(epoch))

    def _progress(self, epoch: int) -> str:
        """The log's line of an epoch: accuracy, and mean losses since the epoch before."""
        metrics = self.metrics
        losses = "  ".join(f"{role}'s loss {value:.3f}" for role, value in metrics.loss_by_role(-1).items())
        correct, seconds = accuracy(metrics.predictions[-1], self.labels), metrics.time()["wall"]
        share = metrics.turns / len(self.job.turns)
        return f"epoch {epoch:3d}  {share:4.0%}  accuracy {correct:5.2f} %  {losses}  {seconds:.0f} s"
