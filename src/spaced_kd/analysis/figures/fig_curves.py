"""Learning curves: test accuracy and training loss over epochs, of every arm.

Above, top-1 test accuracy in percent after epochs of the learner's own steps; below, the mean training loss of the
evaluated network since the previous point: the weighted sum of all loss terms, so compare it only between arms of one
method. Lines are means over seeds, bands are ± one standard deviation over seeds.
"""

from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from spaced_kd.analysis import plotting
from spaced_kd.analysis.arms import ONLINE, SPACED, Arm
from spaced_kd.analysis.queries import ours, present, require, several_recipes, where

SETTING = ["dataset", "network", "recipe"]
PARTS = {"accuracy": "test accuracy (%)", "training": "training loss (nats)"}  # evaluation -> label of its axis
ACROSS = 4  # panels side by side
MARKED = 8  # markers on a line


@matplotlib.rc_context(plotting.RC)
def figure(rows: DataFrame) -> Figure:
    """Two panels, accuracy above loss, for each dataset and network; rows from before losses were kept have one."""
    arms = present(where(rows, source="ours"))
    asked = {part: ours(rows, arms, part) for part in PARTS}
    found = {part: where(frame, selection="curve") for part, frame in asked.items() if len(frame)}
    require(
        where(rows, source="ours", evaluation="accuracy"), "fig_curves", [ONLINE, SPACED], {"evaluation": "accuracy"}
    )
    groups = [setting for setting, _ in asked["accuracy"].groupby(SETTING, sort=False)]
    drawing, pairs = _panels(len(groups), len(found))
    looks, recipes = plotting.looks(present(asked["accuracy"])), several_recipes(asked["accuracy"])
    for number, (column, setting) in enumerate(zip(pairs, groups, strict=True)):
        here = dict(zip(SETTING, setting, strict=True))
        for axes, (part, curves) in zip(column, found.items(), strict=True):
            _draw(axes, where(curves, **here), looks)
            if number % ACROSS == 0:
                axes.set_ylabel(PARTS[part])
        lacking = plotting.lacking(where(asked["accuracy"], **here), where(found["accuracy"], **here))
        dataset, network, recipe = setting
        column[0].set_title(plotting.title(plotting.setting(dataset, network, recipe if recipes else ""), lacking))
    drawing.supxlabel("epoch", fontsize="medium")
    plotting.legend(drawing)
    return drawing


def _panels(groups: int, parts: int) -> tuple[Figure, list[list[Axes]]]:
    """A figure and the axes of each group, one below the other; at most `ACROSS` groups side by side."""
    across = min(groups, ACROSS)
    drawing, grid = plotting.panels(parts * -(-groups // across), across, sharex=False)
    positions = [divmod(number, across) for number in range(grid.size // parts)]
    columns = [[grid[parts * down + part, right] for part in range(parts)] for down, right in positions]
    for axes in (axes for column in columns[groups:] for axes in column):
        axes.remove()
    return drawing, columns[:groups]


def _draw(axes: Axes, curves: DataFrame, looks: dict[Arm, dict[str, Any]]) -> None:
    """A line for each arm; a training without loss in an epoch has no point there."""
    for arm in (arm for arm in looks if arm in present(curves)):
        line = where(curves, method=arm.method, interval=arm.interval)
        every = max(1, line["epoch"].nunique() // MARKED)
        plotting.band(axes, line, "epoch", arm.name, markevery=every, **looks[arm])
