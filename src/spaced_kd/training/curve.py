"""Learning curve of a run: `curve.csv` in its folder, for watching a training.

A line is appended when an evaluated epoch ends. A training that resumes first rewrites the file from its state, so that
no line is missing or repeated. The file is for people and for `spaced-kd status`; results come from the other files.
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
    """The file of one run.

    Columns: `epoch`; `turn` of `turns`, the learners' updates so far and in all; `seconds` of wall clock, earlier
    attempts included; `accuracy` on the test set in percent, `held_out_accuracy` on held-out training images; the mean
    total loss of each role since the line before. A cell without a number is empty.

    Args:
        path: of the file.
        job: what is trained.
    """

    def __init__(self, path: Path, job: "Job") -> None:
        self.path, self.roles, self.turns = path, tuple(job.learners), len(job.turns)

    def restart(self, metrics: "TrainingMetrics", labels: "np.ndarray") -> None:
        """Write the header and a line for each evaluated epoch; `labels`: of the test set, (N,).

        Before the first evaluated epoch there is no file, so that a training that fails at once leaves none.
        """
        if not metrics.epochs:
            if self.path.exists():
                self.path.unlink()
            return
        columns = ("epoch", "turn", "turns", "seconds", "accuracy", "held_out_accuracy")
        lines = [self._line(metrics, labels, position) for position in range(len(metrics.epochs))]
        write_safely(self.path, _csv([[*columns, *(f"{role}_loss" for role in self.roles)], *lines]).encode())

    def append(self, metrics: "TrainingMetrics", labels: "np.ndarray") -> None:
        """Append the line of the last evaluated epoch."""
        if not self.path.exists():
            self.restart(metrics, labels)
            return
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            file.write(_csv([self._line(metrics, labels, len(metrics.epochs) - 1)]))

    def _line(self, metrics: "TrainingMetrics", labels: "np.ndarray", position: int) -> list[str]:
        accuracy = 100 * (metrics.predictions[position] == labels).mean()
        held_out = metrics.held_out[position] if metrics.held_out else math.nan
        losses, (turn, seconds) = metrics.loss_by_role(position), metrics.evaluated_at[position]
        numbers = [turn, self.turns, seconds, accuracy, held_out, *(losses.get(role, math.nan) for role in self.roles)]
        return [str(metrics.epochs[position]), *("" if number != number else f"{number:.9g}" for number in numbers)]


def read(path: Path) -> list[dict[str, float]]:
    """Lines of a file, which may be being written: empty cells and an incomplete last line are left out."""
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
