"""What surrounds the loop of training: resuming, watching, evaluating, keeping states, writing what is left."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from spaced_kd.config import sources
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec, compare
from spaced_kd.training import checkpoint, distributed, energy, provenance
from spaced_kd.training.curve import Curve
from spaced_kd.training.job import Job
from spaced_kd.training.metrics import TrainingMetrics, accuracy, accuracy_rows, predict, tail_rows
from spaced_kd.training.preemption import StopSignal
from spaced_kd.training.run_folder import OUTPUTS
from spaced_kd.training.teacher_states import StoredTeacher, TeacherStates
from spaced_kd.utils import array_file, processes
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import sha256, sweep, write_safely
from spaced_kd.utils.seeding import global_seed


class RunRecorder:
    """Keeps one job's record; of several processes that train together, each keeps the same, and the first writes it.

    Args:
        job: what is trained.
        places: where its files lie.
        leave: students to come, for whom a teacher leaves its states.
        every: seconds between resume states; 0 for one after every turn.
        part: what may end this process before the training is through.
    """

    def __init__(
        self, job: Job, places: ResultPaths, leave: tuple[RunSpec, ...], every: float, part: StopSignal
    ) -> None:
        self.job, self.places, self.every, self.part = job, places, every, part
        self.left = TeacherStates(job.spec.id, places.trajectory(job.spec), places.weights(job.spec), job.total)
        self.provenance = provenance.describe(job.device)  # now: the code that this process has read
        self.sources = sources.of_run(job.spec)
        self.commits: list[str] = []  # of earlier processes, where it was another
        self.leave_at: set[int] = set()
        for follower in leave:
            with contextlib.suppress(UserError):  # an impossible interval is refused in the student's own run
                self.leave_at |= job.pauses(follower)
        self.first = processes.rank() == 0
        self.record = TrainingMetrics(energy.meters(job.device))
        followed = isinstance(job.learners.get("teacher"), StoredTeacher)
        distributed.assert_same_on_all_ranks("the number of stored teachers", int(followed))
        self.done = distributed.assert_same_on_all_ranks("the turn to go on after", self._resume())
        if self.first:
            if not self.done:
                self.left.clear()
            for folder in (places.state(job.spec), places.run(job.spec), self.left.folder):
                sweep(folder)
        self.kept = self.done
        self.saved = time.monotonic()
        self.labels = job.data.labels["test"].cpu().numpy()
        self.curve = Curve(places.curve(job.spec), job)
        if self.first:
            self.curve.restart(self.record, self.labels)
        terminal = sys.stderr.isatty() and self.first
        self.bar = tqdm(total=len(job.turns), initial=self.done, desc=job.spec.id, unit="turn", disable=not terminal)

    def turns_to_go(self) -> Iterator[tuple[str, int]]:
        """The turns that are not done yet."""
        if self.done:
            self._say(f"{self.job.spec.id}: goes on after turn {self.done} of {len(self.job.turns)}")
        if self.commits:
            self._say(f"{self.job.spec.id}: began with other code, commit {', '.join(self.commits)}")
        if self.job.data.streamed:
            for images in self.job.data.images.values():
                images.waiting = self._unless_over
        yield from self.job.turns_after(self.done, self._wait)

    @contextlib.contextmanager
    def watching(self, who: str, index: int) -> Iterator[None]:
        """Around a learner's update: its FLOPs are counted, and global generators are this turn's own."""
        counted = self.record.counted(who, self.job.images(index))
        with counted, global_seed(self.job.spec.seed, f"step of {who}", index):
            yield

    def after(self, who: str, index: int, losses: dict[str, Tensor]) -> None:
        """A turn is done: record it, and where due check, leave a state, evaluate, save, stop."""
        job, learner = self.job, self.job.learners[who]
        self.done += 1
        self.record.add(who, losses)
        if job.decides and who == "student":
            self.record.replays_to(job.learners["teacher"].steps)
        if job.device.type == "cpu":  # costs a synchronisation elsewhere, where epochs and states check instead
            self.record.check_finite(f"batch {index}")
        if self.first and who == "teacher" and index + 1 in self.leave_at:
            self.left.save(index + 1, learner.network)
        if (who, index) in job.evaluations or (who, index) in job.tail:
            self._evaluate(who, index)
        self.bar.update()
        stop = distributed.stopping(self.part.over())
        if stop or time.monotonic() - self.saved >= self.every:
            self._save(index)
        if stop:
            distributed.barrier()  # torchrun ends all when one has ended, and the first may still be writing
            raise stop

    def finish(self) -> Path:
        """Write the outputs, their description last, and drop the resume states; gives the run's folder."""
        job, record, spec = self.job, self.record, self.job.spec
        folder = self.places.run(spec)
        if not self.first:
            return folder
        self._check_weights()
        predictions = np.stack(record.predictions)
        checkpoint.save_weights(folder / "weights.safetensors", job.result, run=spec.id)
        said = {"epochs": np.array(record.epochs), "predictions": predictions}
        if record.tail_steps:
            tail = np.stack(record.tail_predictions)
            said |= {"tail_steps": np.array(record.tail_steps), "tail_predictions": tail}
        array_file.save(folder / "predictions.safetensors", said)
        rows = accuracy_rows(record.epochs, predictions, self.labels, record.held_out)
        rows += tail_rows(record.tail_predictions, self.labels, record.tail_held_out)
        write_safely(folder / "rows.json", json.dumps(rows, indent=1).encode())
        write_safely(folder / "run.json", json.dumps(self._description(folder), indent=1).encode())
        for state in checkpoint.states(self.places.state(spec)):
            state.unlink()
        self.bar.close()
        return folder

    def _evaluate(self, who: str, index: int) -> None:
        """Predictions of the test set, as an epoch ends, or for the tail, or both."""
        self.record.check_finite(f"batch {index} or one before")  # before, where not every turn is checked
        with self.job.autocast():
            predictions = distributed.predict_sharded(predict, self.job.reported, self.job.data)
            held_out = None
            if self.job.spec.held_out:
                labels = self.job.data.labels["held_out"].cpu().numpy()
                said = distributed.predict_sharded(predict, self.job.reported, self.job.data, "held_out")
                held_out = float(accuracy(said, labels))
        if (step := self.job.tail.get((who, index))) is not None:
            self.record.tail_evaluated(step, predictions, held_out)
        if (epoch := self.job.evaluations.get((who, index))) is not None:
            self._epoch_ends(epoch, predictions, held_out)

    def _epoch_ends(self, epoch: int, predictions: np.ndarray, held_out: float | None) -> None:
        """Keep the epoch's predictions and its mean losses since the one before, and say how it goes."""
        self.record.evaluated(epoch, predictions, held_out, turn=self.done)
        if self.first:
            self.curve.append(self.record, self.labels)
        losses = "  ".join(f"{who}'s loss {value:.3f}" for who, value in self.record.loss_by_role(-1).items())
        correct, seconds = accuracy(self.record.predictions[-1], self.labels), self.record.time()["wall"]
        share = self.done / len(self.job.turns)
        self._say(f"epoch {epoch:3d}  {share:4.0%}  accuracy {correct:5.2f} %  {losses}  {seconds:.0f} s")

    def _wait(self) -> None:
        """A turn waits for its batch: nothing of it is done, so that the training may stop here."""
        if self.part.over() and self.job.spec.processes == 1:
            self._save(self.done)
        self._unless_over()

    def _unless_over(self) -> None:
        """Stopped if the slice is over; several processes agree on that after a turn, and not here."""
        if (stop := self.part.over()) and self.job.spec.processes == 1:
            raise stop

    def _save(self, index: int) -> None:
        self.record.check_finite(f"batch {index} or one before")  # before, where not every turn is checked
        self._check_weights()
        job, (stored, plain) = self.job, self.record.pack()
        about = {"run": job.spec.id, "spec": job.spec.resolved(), "plain": plain, "data_sha256": job.data.checksum}
        about |= {"commits": self._commits(), "before": self.kept} | self.sources
        folder = self.places.state(job.spec)
        if self.first:
            checkpoint.save_state(folder, self.done, job.modules, job.own_learners, record=stored, **about)
        self.kept, self.saved = self.done, time.monotonic()

    def _check_weights(self) -> None:
        """UserError where a weight is no number any more: the last update has no loss after it that would tell."""
        for name, module in self.job.modules.items():
            if not all(tensor.isfinite().all() for tensor in module.state_dict().values()):
                raise UserError(
                    f"a weight of the {name} is no number after turn {self.done}: lower lr, or see that the data are"
                    " right"
                )

    def _commits(self) -> list[str]:
        """Commits of the code that has trained so far, each once."""
        return list(dict.fromkeys([*self.commits, self.provenance["commit"]]))

    def _resume(self) -> int:
        """Put the newest whole state into the job; gives the number of turns that are done."""
        job, folder = self.job, self.places.state(self.job.spec)
        resumed = checkpoint.load_state(folder, job.modules, job.own_learners, job.spec.id)
        if resumed is None:
            return 0
        done, stored, about = resumed
        if about.get("data_sha256", job.data.checksum) != job.data.checksum:
            raise UserError(
                f"{self.places.data(job.spec)} is not what {folder} was trained on so far: prepare the same data, or"
                f" delete {folder} to start anew"
            )
        try:
            compare(job.spec, about["spec"], folder)
            if changed := sources.changes(job.spec, about):
                raise UserError(
                    f"{folder} is of a training from before {' and '.join(changed)} changed: bring that source back, or"
                    f" delete {folder} to start anew"
                )
            self.commits = [each for each in about.get("commits", []) if each != self.provenance["commit"]]
            self.record.unpack(stored, about["plain"], job.device)
            if done > len(job.turns):
                raise ValueError
        except checkpoint.MALFORMED:
            raise checkpoint.no_state(checkpoint.state_path(folder, done)) from None
        return done

    def _description(self, folder: Path) -> dict[str, Any]:
        """Everything that one may want to know of a run later."""
        job, record, spec = self.job, self.record, self.job.spec
        followed = isinstance(job.learners.get("teacher"), StoredTeacher)
        counts: dict[str, dict[str, int]] = {who: {} for who in job.learners}
        for who, index in job.turns:
            size = f"{who} {job.images(index)}"
            counts[who][size] = counts[who].get(size, 0) + 1
        seconds, several = record.time(), spec.processes > 1
        return {
            "id": spec.id,
            "spec": spec.resolved(),
            "words": spec.words(),
            **self.sources,
            "labels": {role: spec.label(role) for role in ("dataset", "network", "teacher", "method")},
            "provenance": self.provenance
            | ({"commits": self._commits()} if self.commits else {})
            | {"data_sha256": job.data.checksum, "teacher_sha256": self._teacher() if followed else None},
            "wall_seconds": seconds["wall"],
            "cpu_seconds": None if several else seconds["cpu"],  # null: not measured
            "device_seconds": spec.processes * seconds["wall"] if job.device.type != "cpu" else None,
            **(dict.fromkeys(record.energy()) if several else record.energy()),
            "training_flops": {
                who: sum(times * record.flops.get(size, 0) for size, times in sizes.items())
                for who, sizes in counts.items()
            },
            "teacher_states": "stored" if followed else "trained along" if spec.teacher_spec() else None,
            "turns": {who: sum(sizes.values()) for who, sizes in counts.items()},
            "block_ends": record.block_ends if job.decides else None,  # batches learnt; null: the schedule says
            "held_out": record.held_out,  # accuracy of each evaluated epoch
            "tail_held_out": record.tail_held_out,  # and of each state of the tail
            "losses": [{"epoch": epoch} | means for epoch, means in zip(record.epochs, record.losses, strict=True)],
            "outputs": {name: sha256(folder / name) for name in OUTPUTS},
        }

    def _teacher(self) -> str | None:
        """sha256 of the stored teacher's final weights; None for one that is being trained again."""
        weights = self.places.weights(self.job.spec.teacher_spec())
        return sha256(weights) if weights.exists() else None

    def _say(self, line: str) -> None:
        """A line that a log keeps and a bar does not garble."""
        if self.first and self.bar.disable:
            print(line, flush=True)
        elif self.first:
            self.bar.write(line, file=sys.stderr)
