"""Preemption: what stops a process before its training is finished, and how its job is requeued.

A process stops between two turns, with a resume state written. Exit statuses of `spaced-kd train`: 0 the run is
finished; 2 a mistake that the user can correct; 75 the time limit is near, and the same command goes on; 130 and 143
the same after SIGINT and SIGTERM.
"""

import math
import os
import signal
import subprocess
import time
from types import FrameType

from spaced_kd.utils.errors import UserError

GO_ON = 75  # EX_TEMPFAIL of sysexits.h


class Interrupted(Exception):  # noqa: N818 (no error)
    """The training stops, with its state written; `status` is the exit status of the process.

    `again` is the result of asking Slurm to requeue the job, as text.
    """

    def __init__(self, reason: str, status: int) -> None:
        super().__init__(f"{reason}: stopped, and the same command goes on")
        self.status, self.again = status, ""


class StopSignal:
    """Decides when a process stops; as a context it records SIGTERM and SIGINT, which no longer end the process.

    Args:
        time_limit: seconds that the process has, counted from now; None for no limit.
        margin: seconds before the limit at which it stops: enough for an evaluation and for writing a state.
    """

    def __init__(self, time_limit: float | None = None, margin: float = 120.0) -> None:
        if time_limit is not None and not 0 <= margin < time_limit:
            raise UserError(
                f"--time-limit is {time_limit:g} s and --margin {margin:g} s, which leaves no time to train:"
                " raise the limit, or lower the margin"
            )
        # the monotonic clock: setting the wall clock does not stop a training
        self.end = math.inf if time_limit is None else time.monotonic() + time_limit - margin
        self.heard: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        self._before = {number: signal.signal(number, self._hear) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def over(self) -> Interrupted | None:
        """The interruption to raise now; None to go on."""
        if self.heard is not None:
            return Interrupted(signal.Signals(self.heard).name, 128 + self.heard)
        if time.monotonic() >= self.end:
            return Interrupted("the time limit is near", GO_ON)
        return None

    def _hear(self, number: int, _: FrameType | None) -> None:
        self.heard = number


def requeue() -> str:
    """Have Slurm requeue this process's job, with the same id and without using up a retry.

    Returns the outcome as text, "" outside a job. Slurm then ends the job's processes itself. It refuses if the job was
    submitted without `--requeue`.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if not job:
        return ""
    try:
        answer = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return f"Slurm runs job {job} again"
        reason = " ".join((answer.stderr or answer.stdout).split())
    except OSError as error:
        reason = f"scontrol: {error.strerror}"
    return f"Slurm does not run job {job} again ({reason}): submit it with --requeue, or start it by hand"
