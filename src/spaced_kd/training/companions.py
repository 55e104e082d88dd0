"""Students that train in their teacher's process, because they need it after every batch, as in online KD.

Such a student would otherwise train its teacher once more. Here it takes its turns as soon as the teacher has learnt a
batch. It is still a run of its own, with folder, lock, curve and resume states, and ends in the same bits. A student
that cannot join, or fails, is left to a process of its own, which tells the reason.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.distillation.schedule import Turn
from spaced_kd.training.checkpoint import has_learner, save_weights
from spaced_kd.training.job import Job, assemble
from spaced_kd.training.preemption import Interrupted, StopSignal
from spaced_kd.training.run_folder import finished
from spaced_kd.training.run_lock import exclusive
from spaced_kd.utils.errors import UserError

if TYPE_CHECKING:
    from spaced_kd.training.loop import Training


class Beside(NamedTuple):
    """The job of a student that may train beside its teacher, and what holds its run's lock."""

    job: Job
    lock: ExitStack


def jobs_beside(teacher: Job, students: tuple[RunSpec, ...], paths: ResultPaths, locks: ExitStack) -> list[Beside]:
    """Those students that can train beside their teacher; `locks` gives the locks of their runs up at its end.

    UserError for a student of another teacher.
    """
    found = []
    for student in students:
        own = student.teacher_spec()
        if own is None or own.id != teacher.spec.id:
            raise UserError(f"{student.id} is no student of {teacher.spec.id}: leave it out of --together")
        if student.processes > 1:
            continue
        lock = locks.enter_context(ExitStack())
        try:
            lock.enter_context(exclusive(paths.lock(student), StopSignal(), wait=False))
            # one that has begun in its own process goes on there: its costs have those of its teacher
            if not finished(student, paths) and not has_learner(paths.state(student), "teacher"):
                job = assemble(student, paths, str(teacher.device), beside=teacher)
                if job.method.teacher_is_shared and not job.decides and not teacher.states_to_save(student):
                    found.append(Beside(job, lock))
                    continue
        except Exception:  # such as a lock of another process, or no memory; its own process tells of mistakes
            pass
        lock.close()
    return found


class Companions:
    """The students of one training, whose seconds are not those of the teacher.

    Args:
        leader: the training of their teacher.
    """

    def __init__(self, leader: "Training") -> None:
        self.leader = leader
        self.students: list[Companion] = []

    def join(self, beside: list[Beside], begin: Callable[[Job], "Training"]) -> None:
        """Begin the training of students, but of none whose newest state is older than the teacher's.

        The teacher does not go back. `beside` is emptied, so that a student that leaves can be freed.
        """
        with self.leader.metrics.elsewhere():
            while beside:
                job, lock = beside.pop(0)
                try:
                    companion = Companion(begin(job), lock)
                except Exception as error:  # its newest state cannot be used, or there is no memory
                    self._leave(job, lock, _told(error))
                    continue
                if companion.behind(self.leader.job.learners["teacher"].steps):
                    self._leave(job, lock, "it is behind its teacher")
                else:
                    self.students.append(companion)
        if self.students:
            self.leader.checkpointer.before_saving = self.save

    def follow(self, batches: int) -> None:
        """Let each student take its turns up to the teacher's on the first `batches` batches."""
        if self.students:
            self._each(lambda student: student.follow(batches))

    def save(self) -> None:
        """Write a resume state of each student, before that of the teacher, which must not be ahead of theirs."""
        steps = self.leader.job.learners["teacher"].steps
        self._each(lambda student: student.save(steps))

    def finish(self) -> None:
        """Write the outputs of the students, which name the teacher's final weights, before those of the teacher."""
        if self.students:
            job = self.leader.job
            save_weights(self.leader.paths.weights(job.spec), job.result, run=job.spec.id)
            self._each(lambda student: student.training.finish())

    def _each(self, act: Callable[["Companion"], object]) -> None:
        """Let each student act; one that fails leaves."""
        with self.leader.metrics.elsewhere():
            for student in list(self.students):
                try:
                    act(student)
                except Interrupted:  # in an evaluation; the states on disk are of one moment
                    raise
                except Exception as error:
                    self.students.remove(student)
                    self._leave(student.training.job, student.lock, _told(error))

    def _leave(self, job: Job, lock: ExitStack, reason: str) -> None:
        """Go on without a student, which its own process can train from now on."""
        lock.close()
        self.leader.recorder.say(f"{job.spec.id} trains in a process of its own: {reason}")


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


class Companion:
    """One student, which waits before each of its teacher's turns; `lock` holds that of its run."""

    def __init__(self, training: "Training", lock: ExitStack) -> None:
        self.training, self.lock = training, lock
        done = training.job.turns[: training.metrics.turns]
        self.taught = sum(role == "teacher" for role, _ in done)  # batches of the teacher that it has seen
        self._turns = training.turns()
        self._next: Turn | None = None
        self._advance()

    def follow(self, batches: int) -> None:
        """Take all turns before that on the teacher's batch number `batches`, counted from 0."""
        while self._next is not None and not (self._next[0] == "teacher" and self._next[1] >= batches):
            self.taught += self._next[0] == "teacher"
            self._advance()

    def behind(self, batches: int) -> bool:
        """Whether it has still to see the teacher as it was before it had learnt so many batches."""
        return self._next is not None and self.taught < batches

    def save(self, batches: int) -> None:
        """Write a resume state, unless the student was ahead when it went on, and the teacher is not yet there."""
        if self.taught <= batches:
            self.training.checkpointer.save(batches)

    def _advance(self) -> None:
        """Take the turn that it waits for, up to the next one; after the last, its seconds end."""
        self._next = next(self._turns, None)
        if self._next is None:
            self.training.metrics.leave()
