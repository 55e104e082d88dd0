"""Theorem 4.4: the mean of absolute values that Lemma 4.3 bounds, and the signed sum that its proof orders.

Small networks in the proof's own setting, at the student's steps in windows of the training that begin at the epochs
shown (`theory.py` has the formulas). Above: u(φ) and S(φ) for the teachers of online and Spaced KD, a line per seed.
Below: the change from online KD to Spaced KD, a point per seed, and in black the mean over seeds with its 95 % interval
(paired t); u in percent, S in percent of the mean of its absolute values with online KD. The lemma and the proof say
that these means are at most 0.
"""

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from spaced_kd.analysis import plotting
from spaced_kd.analysis.arms import ONLINE, Arm
from spaced_kd.analysis.queries import ours, present, where
from spaced_kd.analysis.statistics import paired_interval
from spaced_kd.utils.errors import UserError

BESIDE = 1.25  # factor between the places of two arms on the axis of epochs


@matplotlib.rc_context(plotting.RC)
def figure(rows: DataFrame) -> Figure:
    """Two columns, u and S; values above changes."""
    rows = ours(rows, present(rows), "theory")
    if rows.empty:
        raise UserError("signed_sums needs the rows of the command `spaced-kd theory`: give them to it with --rows")
    looks = plotting.looks(present(rows))
    drawing, grid = plotting.panels(2, 2, sharex=True)
    gap, signed = ({arm: _by_epoch(rows, metric, arm) for arm in looks} for metric in ("teacher_gap", "signed_sum"))
    for axes, values in zip(grid[0], (gap, signed), strict=True):
        for arm, look in looks.items():
            lines = axes.plot(values[arm].T, **look | {"marker": "", "linewidth": 0.8, "alpha": 0.6})
            lines[0].set_label(arm.name)
    for position, arm in enumerate(arm for arm in looks if arm != ONLINE):
        _changes(grid[1, 0], 100 * (gap[arm] / gap[ONLINE] - 1), looks[arm], position)
        _changes(grid[1, 1], 100 * (signed[arm] - signed[ONLINE]) / signed[ONLINE].abs().mean(), looks[arm], position)
    grid[0, 0].set(xscale="log", yscale="log", title="Lemma 4.3: absolute values", ylabel="u(φ)")
    grid[0, 1].set(title="proof, A.1: signed", ylabel="S(φ)")
    grid[0, 1].set_yscale("symlog", linthresh=1e-4)  # both signs
    grid[1, 0].set_ylabel("change of u (%)")
    grid[1, 1].set_ylabel("change of S (% of mean |S|)")
    grid[1, 1].set_yscale("symlog", linthresh=20)
    for axes in grid[1]:
        axes.axhline(0, color=plotting.INK, linewidth=0.8)
        axes.set_xticks(gap[ONLINE].columns, [f"{epoch:g}" for epoch in gap[ONLINE].columns])
        axes.minorticks_off()
    drawing.supxlabel("epoch of the training", fontsize="medium")
    plotting.legend(drawing)
    return drawing


def _by_epoch(rows: DataFrame, metric: str, arm: Arm) -> DataFrame:
    """Values of an arm: a line for each seed, a column for each epoch."""
    rows = where(rows, metric=metric, method=arm.method, interval=arm.interval)
    return rows.pivot(index="seed", columns="epoch", values="value")


def _changes(axes: Axes, changes: DataFrame, look: dict[str, Any], position: int) -> None:
    """Points of the seeds, mean and interval; arms stand beside each other."""
    x = changes.columns.to_numpy() * BESIDE**position
    axes.plot(np.broadcast_to(x, changes.shape), changes, ".", color=look["color"], markersize=3, alpha=0.6)
    mean, (low, high) = changes.mean().to_numpy(), paired_interval(changes.T)
    axes.errorbar(x * BESIDE**0.4, mean, [mean - low, high - mean], fmt=look["marker"], color="black", markersize=3)
