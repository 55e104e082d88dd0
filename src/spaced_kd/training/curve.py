"""Learning curve of a run: `curve.csv` in its folder, by which a training can be watched.

A line is appended as an evaluated epoch ends. A training that resumes first writes the file anew from its state, so
that no line is missing or doubled. It is for people and for `spaced-kd status`; results come from the other files.
"""

import csv
import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

from spaced_kd.utils.files import write_safely

if TYPE_CHECKING:
    import numpy as np

    from spaced_kd.training.job import Job
    from spaced_kd.training.metrics import TrainingMetrics


class Curve:
    """One run's file.

    Columns: `epoch`; `turn` of `turns`, the learners' updates so far and in all; `seconds` of wall clock, earlier
    attempts included; `accuracy` on the test set in percent, `held_out_accuracy` on held-out training images; the mean
    total loss of each role since the line before. A cell is empty where there is no such number.

    Args:
        path: of the file.
        job: what is trained.
    """

    def __init__(self, path: Path, job: "Job") -> None:
        self.path, self.roles, self.turns = path, tuple(job.learners), len(job.turns)

    def restart(self, record: "TrainingMetrics", labels: "np.ndarray") -> None:
        """Write the header and the lines of all epochs that the record has; `labels`: of the test set, (N,).

        Without an epoch there is no file, so that a training that fails at once leaves nothing.
        """
        if not record.epochs:
            if self.path.exists():
                self.path.unlink()
            return
        columns = ("epoch", "turn", "turns", "seconds", "accuracy", "held_out_accuracy")
        lines = [self._line(record, labels, position) for position in range(len(record.epochs))]
        write_safely(self.path, _csv([[*columns, *(f"{role}_loss" for role in self.roles)], *lines]).encode())

    def append(self, record: "TrainingMetrics", labels: "np.ndarray") -> None:
        """Append the line of the epoch that the record has last."""
        if not self.path.exists():
            self.restart(record, labels)
            return
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            file.write(_csv([self._line(record, labels, len(record.epochs) - 1)]))

    def _line(self, record: "TrainingMetrics", labels: "np.ndarray", position: int) -> list[str]:
        accuracy = 100 * (record.predictions[position] == labels).mean()
        held_out = record.held_out[position] if record.held_out else math.nan
        losses, (turn, seconds) = record.loss_by_role(position), record.evaluated_at[position]
        numbers = [turn, self.turns, seconds, accuracy, held_out, *(losses.get(role, math.nan) for role in self.roles)]
        return [str(record.epochs[position]), *("" if number != number else f"{number:.9g}" for number in numbers)]


def read(path: Path) -> list[dict[str, float]]:
    """Lines of a file that may be being written: empty cells and a line that is not whole yet are left out."""
    try:
        text = path.read_text("utf-8")
    except OSError:
        return []
    whole = text[: text.rfind("\n") + 1]
    return [{key: float(cell) for key, cell in line.items() if cell} for line in csv.DictReader(io.StringIO(whole))]


def _csv(lines: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()
