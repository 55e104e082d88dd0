"""Theorem 4.4: the sum of absolute values that Lemma 4.3 bounds, and the signed sum that its proof orders.

Small networks in the proof's own setting, at the student's steps in windows of the training that begin at the epochs
shown (`theory.py` has the formulas). Above: u(φ), mean over seeds with a band of ± one standard deviation, and S(φ), a
line per seed. Below: the change from online KD to Spaced KD, a point per seed, with the mean over seeds and its 95 %
interval (paired t) in black; that of S is in percent of the trace. The lemma and the proof say that the points below
lie at or under 0.
"""

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame

from spaced_kd import style
from spaced_kd.cells import ONLINE, Arm, ours, present, where
from spaced_kd.errors import UserError
from spaced_kd.statistics import paired_interval


@matplotlib.rc_context(style.RC)
def figure(rows: DataFrame) -> Figure:
    """Two columns, u and S; values above changes."""
    rows = ours(rows, present(rows), "theory")
    if rows.empty:
        raise UserError("signed_sums needs the rows of the command `spaced-kd theory`: give them to it with --rows")
    looks = style.looks(present(rows))
    drawing, grid = style.panels(2, 2, sharex=True)
    gap, signed = ({arm: _by_epoch(rows, metric, arm) for arm in looks} for metric in ("teacher_gap", "signed_sum"))
    trace = _by_epoch(rows, "trace", ONLINE)
    for arm, look in looks.items():
        mean, deviation = gap[arm].mean(), gap[arm].std()
        grid[0, 0].plot(mean, label=arm.name, **look)
        grid[0, 0].fill_between(mean.index, mean - deviation, mean + deviation, color=look["color"], alpha=0.2, lw=0)
        grid[0, 1].plot(signed[arm].T, color=look["color"], linestyle=look["linestyle"], linewidth=0.6)
    for place, arm in enumerate(arm for arm in looks if arm != ONLINE):
        _changes(grid[1, 0], 100 * (gap[arm] / gap[ONLINE] - 1), looks[arm], place)
        _changes(grid[1, 1], 100 * (signed[arm] - signed[ONLINE]) / trace, looks[arm], place)
    grid[0, 0].set(xscale="log", yscale="log", title="Lemma 4.3: absolute values", ylabel="u(φ)")
    grid[0, 1].set(title="proof, A.1: signed", ylabel="S(φ)")
    grid[0, 1].set_yscale("symlog", linthresh=1e-4)
    grid[1, 0].set_ylabel("change of u (%)")
    grid[1, 1].set_ylabel("change of S (% of the trace)")
    grid[1, 1].set_yscale("symlog", linthresh=1e-2)
    epochs = sorted(where(rows, metric="signed_sum")["epoch"].unique())
    for axes in grid[1]:
        axes.axhline(0, color=style.INK, linewidth=0.8)
        axes.set_xticks(epochs, [f"{epoch:g}" for epoch in epochs])
        axes.minorticks_off()
    drawing.supxlabel("epoch of the training", fontsize="medium")
    style.legend(drawing)
    return drawing


def _by_epoch(rows: DataFrame, metric: str, arm: Arm) -> DataFrame:
    """Values of an arm: a line for each seed, a column for each epoch."""
    rows = where(rows, metric=metric, method=arm.method, interval=arm.interval)
    return rows.pivot(index="seed", columns="epoch", values="value")


def _changes(axes: matplotlib.axes.Axes, changes: DataFrame, look: dict, place: int) -> None:
    """Points of the seeds, mean and interval; arms stand beside each other."""
    x = changes.columns.to_numpy() * 1.25**place
    axes.plot(np.broadcast_to(x, changes.shape), changes, ".", color=look["color"], markersize=3, alpha=0.6)
    mean = changes.mean()
    low, high = paired_interval(changes.T)
    axes.errorbar(x * 1.1, mean, yerr=[mean - low, high - mean], fmt=look["marker"], color="black", markersize=3)
