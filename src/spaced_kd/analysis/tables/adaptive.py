"""Adaptive interval against fixed intervals.

Top-1 test accuracy at the last epoch in percentage points, adaptive interval minus the other arm, paired by seed: mean
± standard deviation over seeds (number of seeds), and in brackets the paired interval. Intervals and p are adjusted
after Holm over the arms of one setting. All spaced arms take the same number of steps, of teacher and of student. FLOPs
are those of training, teachers included, as a ratio. The interval found is the mean over a run's blocks, in epochs:
mean ± standard deviation over seeds.
"""

from pandas import DataFrame

from spaced_kd.analysis.arms import BASELINE, ONLINE, Arm
from spaced_kd.analysis.cells import summary
from spaced_kd.analysis.effects import (
    accuracies,
    difference,
    family,
    flops,
    in_setting,
    plain_settings,
    without_one_recipe,
)
from spaced_kd.analysis.queries import ours, present, where
from spaced_kd.utils.errors import UserError

ADAPTIVE = Arm("adaptive_interval", "0")
FIXED = (BASELINE, ONLINE, *(Arm("online_kd", interval) for interval in ("0.5", "1", "1.5", "2")))


def table(rows: DataFrame) -> DataFrame:
    """A line for each arm that the adaptive one was run together with."""
    costs, found = ours(rows, present(rows), "cost"), ours(rows, present(rows), "schedule")
    rows, lines = accuracies(rows), []
    for setting in plain_settings(rows):
        changes = {arm: difference(rows, setting, ADAPTIVE, arm) for arm in FIXED}
        intervals = in_setting(where(found, metric="mean_interval"), setting, ADAPTIVE)["value"]
        for arm, (change, p) in family({arm: each for arm, each in changes.items() if each.seeds}).items():
            line = {"interval found": summary(intervals, len(intervals)), "against": arm.name}
            line |= {"adaptive − other": change, "p": p, "FLOPs": flops(costs, setting, ADAPTIVE, arm)}
            lines.append(setting._asdict() | line)
    if not lines:
        raise UserError("adaptive needs runs of config/experiments/adaptive.yaml: add them, or leave adaptive out")
    return without_one_recipe(lines)
