"""Fig. 2: accuracy against the interval of Spaced KD.

Top-1 test accuracy in percent at the last epoch: mean over seeds, error bars and the band of w/o KD are ± one standard
deviation over seeds. s = 0 is online KD; offline KD has its own tick, since its interval is not a number of epochs. The
line is a quadratic polynomial fitted to the means at finite intervals, as in the paper's Fig. 2c. Open diamonds are the
paper's numbers (its Tab. 6), where it has the same dataset and network.
"""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from spaced_kd.analysis import plotting
from spaced_kd.analysis.arms import BASELINE, OFFLINE, ONLINE, SPACED, Arm
from spaced_kd.analysis.queries import by_seed, ours, present, require, several_recipes, where

SETTING = ["dataset", "network", "recipe"]
ACROSS = 4  # panels side by side


@matplotlib.rc_context(plotting.RC)
def figure(rows: DataFrame) -> Figure:
    """One panel for each dataset and network."""
    filters = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last"}
    arms = present(where(rows, method=("baseline", "online_kd")))
    asked = ours(rows, arms, "accuracy")
    require(asked, "fig02", [ONLINE, SPACED, OFFLINE], filters)
    groups = [group for _, group in asked.groupby(SETTING, sort=False) if present(group) - {BASELINE}]
    drawing, panels = plotting.tiles(len(groups), ACROSS)
    recipes = several_recipes(asked)
    for axes, group in zip(panels, groups, strict=True):
        dataset, network, recipe = group[SETTING].iloc[0]
        paper = where(rows, source="paper", table="tab06", dataset=dataset, network=network)
        found = where(group, **filters)
        _draw(axes, group, found, paper)
        names = plotting.setting(dataset, network, recipe if recipes else "")
        axes.set_title(plotting.title(names, plotting.lacking(group, found)))
    drawing.supxlabel("interval s (epochs)", fontsize="medium")
    drawing.supylabel("test accuracy (%)", fontsize="medium")
    plotting.legend(drawing)
    return drawing


def _draw(axes: Axes, asked: DataFrame, found: DataFrame, paper: DataFrame) -> None:
    """Draw one panel."""
    arms = sorted(present(asked), key=lambda arm: arm.epochs)
    values = {arm: by_seed(found, arm) for arm in arms}
    paper_values = {arm: where(paper, method=arm.method, interval=arm.interval)["value"] for arm in present(paper)}
    epochs = [arm.epochs for arm in {*arms, *paper_values} - {BASELINE, OFFLINE}]
    step = 0.35 * max(*epochs, 1)

    def position(arm: Arm) -> float:
        return max(epochs) + step if arm == OFFLINE else arm.epochs

    plotting.level(axes, by_seed(found, BASELINE), BASELINE)
    for arm, numbers in values.items():
        if arm != BASELINE and len(numbers):
            look = plotting.LOOKS.get(arm, plotting.LOOKS[SPACED]) | {"linestyle": "none"}
            error = numbers.std(ddof=1) if len(numbers) > 1 else None
            name = arm.name if arm in (ONLINE, OFFLINE) else "Spaced KD"
            axes.errorbar(position(arm), numbers.mean(), error, label=name, **look)
    fitted = [arm for arm in arms if arm not in (BASELINE, OFFLINE) and len(values[arm])]
    if len(fitted) > 2:
        curve = np.polynomial.Polynomial.fit([arm.epochs for arm in fitted], [values[arm].mean() for arm in fitted], 2)
        x, y = curve.linspace(100)
        axes.plot(x, y, color=plotting.INK, linewidth=1, zorder=1, label="quadratic fit")
    for arm in paper_values.keys() - {BASELINE}:
        look = {"marker": "D", "color": "none", "markeredgecolor": plotting.INK, "linestyle": "none"}
        axes.plot(position(arm), paper_values[arm].item(), label="paper", **look)
    ticks = {**{epoch: f"{epoch:g}" for epoch in sorted(epochs)}, position(OFFLINE): "offline"}
    if OFFLINE not in {*arms, *paper_values}:
        del ticks[position(OFFLINE)]
    axes.set_xticks(list(ticks), list(ticks.values()))
