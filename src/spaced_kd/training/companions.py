"""Students that train in their teacher's process, because they need it after every batch, as in online KD.

Such a student would otherwise train its teacher once more. Here it takes its turns as soon as the teacher has learnt a
batch. It is still a run of its own, with folder, lock, curve and resume states, and ends in the same bits. A student
that cannot join, or fails, is left to a process of its own, which tells the reason.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.distillation.schedule import Turn
from spaced_kd.training.checkpoint import save_weights
from spaced_kd.training.job import Job, assemble
from spaced_kd.training.preemption import StopSignal
from spaced_kd.training.run_folder import finished
from spaced_kd.training.run_lock import exclusive, held
from spaced_kd.utils.errors import UserError

if TYPE_CHECKING:
    from spaced_kd.training.loop import Training


def jobs_beside(teacher: Job, students: tuple[RunSpec, ...], paths: ResultPaths, locks: ExitStack) -> list[Job]:
    """The jobs of those students that can train beside their teacher; their runs' locks are held until `locks` ends.

    UserError for a student of another teacher.
    """
    found = []
    for student in students:
        own = student.teacher_spec()
        if own is None or own.id != teacher.spec.id:
            raise UserError(f"{student.id} is no student of {teacher.spec.id}: leave it out of --together")
        try:
            if student.processes > 1 or held(paths.lock(student)) or finished(student, paths):
                continue
            job = assemble(student, paths, str(teacher.device), beside=teacher)
        except UserError:  # its own process tells it
            continue
        if job.method.teacher_is_shared and not job.decides and not teacher.states_to_save(student):
            locks.enter_context(exclusive(paths.lock(student), StopSignal()))
            found.append(job)
    return found


class Companions:
    """The students of one training.

    Args:
        leader: the training of their teacher.
    """

    def __init__(self, leader: "Training") -> None:
        self.leader = leader
        self.students: list[Companion] = []

    def join(self, jobs: list[Job], begin: Callable[[Job], "Training"]) -> None:
        """Begin the training of students, but of none whose newest state is older than the teacher's.

        The teacher does not go back.
        """
        for job in jobs:
            try:
                companion = Companion(begin(job))
            except UserError as error:  # its newest state cannot be used
                self._leave(job, str(error))
                continue
            if companion.behind(self.leader.job.learners["teacher"].steps):
                self._leave(job, "it is behind its teacher")
            else:
                self.students.append(companion)
        if self.students:
            self.leader.checkpointer.before_saving = self.save

    def follow(self, batches: int) -> None:
        """Let each student take its turns up to the teacher's on the first `batches` batches."""
        for student in list(self.students):
            try:
                student.follow(batches)
            except Exception as error:
                self._leave(student.training.job, f"{type(error).__name__}: {error}")

    def save(self) -> None:
        """Write a resume state of each student, before that of the teacher, which must not be ahead of theirs."""
        for student in list(self.students):
            try:
                student.save(self.leader.job.learners["teacher"].steps)
            except UserError as error:
                self._leave(student.training.job, str(error))

    def finish(self) -> None:
        """Write the outputs of the students, which name the teacher's final weights, before those of the teacher."""
        if self.students:
            job = self.leader.job
            save_weights(self.leader.paths.weights(job.spec), job.result, run=job.spec.id)
        for student in list(self.students):
            try:
                student.training.finish()
            except UserError as error:
                self._leave(student.training.job, str(error))

    def _leave(self, job: Job, reason: str) -> None:
        """Go on without a student."""
        self.students = [each for each in self.students if each.training.job is not job]
        self.leader.recorder.say(f"{job.spec.id} trains in a process of its own: {reason}")


class Companion:
    """One student, which waits before each of its teacher's turns."""

    def __init__(self, training: "Training") -> None:
        self.training = training
        done = training.job.turns[: training.metrics.turns]
        self.taught = sum(role == "teacher" for role, _ in done)  # batches of the teacher that it has seen
        self._turns = training.turns()
        self._next: Turn | None = next(self._turns, None)

    def follow(self, batches: int) -> None:
        """Take all turns before that on the teacher's batch number `batches`, counted from 0."""
        while self._next is not None and not (self._next[0] == "teacher" and self._next[1] >= batches):
            self.taught += self._next[0] == "teacher"
            self._next = next(self._turns, None)

    def behind(self, batches: int) -> bool:
        """Whether it has still to see the teacher as it was before it had learnt so many batches."""
        return self._next is not None and self.taught < batches

    def save(self, batches: int) -> None:
        """Write a resume state, unless the student was ahead when it went on, and the teacher is not yet there."""
        if self.taught <= batches:
            self.training.checkpointer.save(batches)
