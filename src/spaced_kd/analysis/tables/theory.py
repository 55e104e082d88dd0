"""Theorem 4.4 step by step: what the lemma bounds, what the proof orders, and the traces themselves.

Small networks in the proof's own setting, with exact derivatives (`theory.py` has the formulas). Each line compares the
teachers of Spaced KD and online KD at the same steps of their students, in the epochs from the one named on. Changes
are in percent, seed by seed: mean ± standard deviation over seeds (number of seeds), the raw 95 % interval of the mean
(paired t, each alone, not adjusted), and in how many seeds the paper's inequality holds. u is the teacher's gap of
Lemma 4.3; S the signed sum that the proof orders next, its change in percent of the trace. The traces of Theorem 4.4
are taken at one minimum for both, that of online KD, as in the proof, and then at each student's own; at one minimum β
is −αΔφᵀ∇g, not + as in Eq. 7, so that the trace falls where S rises. The error of linearisation is that of Δφᵀ∇g for
g_φ − g_φ* with online KD. Where both limits of S, or of the trace at one minimum, are within a thousandth of the trace,
there is nothing to decide: the difference of which the theorem speaks is that small. Training ended with g(x) and f(x)
at ±1 up to the error named last, the largest of all.
"""

from dataclasses import replace
from typing import Any

from pandas import DataFrame, Series

from spaced_kd.analysis.arms import ONLINE, Arm
from spaced_kd.analysis.cells import Cell, difference
from spaced_kd.analysis.queries import by_seed, ours, present, where
from spaced_kd.analysis.statistics import differences
from spaced_kd.utils.errors import UserError


def table(rows: DataFrame) -> DataFrame:
    """A line for each interval and each window of epochs."""
    rows = ours(rows, present(rows), "theory")
    if rows.empty:
        raise UserError("theory needs the rows of the command `spaced-kd theory`: give them to it with --rows")
    spaced = sorted(present(rows) - {ONLINE}, key=lambda arm: arm.epochs)
    windows = where(rows, metric="signed_sum").groupby("epoch").groups
    lines = [_line(where(rows, epoch=epoch), arm, epoch) for arm in spaced for epoch in windows]
    error = where(rows, metric=("teacher_error", "student_error"))["value"].max()
    return DataFrame(lines).assign(**{"error at the end": f"{error:.2g}"})


def _line(rows: DataFrame, arm: Arm, epoch: float) -> dict[str, Any]:
    """Of one window."""

    def change(metric: str, unit: str) -> Series:
        after, before = (by_seed(where(rows, metric=metric), each) for each in (arm, ONLINE))
        changes = differences(after, before, (arm.name, ONLINE.name))
        return 100 * changes / by_seed(where(rows, metric=unit), ONLINE)

    gap, signed = change("teacher_gap", "teacher_gap"), change("signed_sum", "trace")
    broken = (gap <= 0) & (signed > 0)
    linear = by_seed(where(rows, metric="linear_error"), ONLINE)
    return {
        "arm": arm.name,
        "from epoch": f"{epoch:g}",
        "u (Lemma 4.3)": _cell(gap),
        "S (A.1)": _cell(signed),
        "u ordered, S not": f"{broken.sum()} of {len(broken)}",
        "trace, one minimum (Theorem 4.4)": _cell(change("trace", "trace")),
        "trace, own minima": _cell(change("own_trace", "own_trace")),
        "error of linearisation (%)": f"{100 * linear.mean():.0f}",
    }


def _cell(changes: Series) -> Cell:
    """E.g. "-4.20 ± 5.10 (20), [-6.59, -1.81], holds in 17"."""
    return replace(difference(changes, len(changes), ".3g"), remark=f", holds in {(changes <= 0).sum()}")
