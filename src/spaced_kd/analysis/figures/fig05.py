"""Fig. 5: training curves of w/o KD, online KD and Spaced KD.

Top-1 test accuracy in percent after epochs of the learner's own steps. Lines are means over seeds, bands are ± one
standard deviation over seeds. The paper's figure is of ResNet-18 on ImageNet-1K.
"""

import matplotlib
from matplotlib.figure import Figure
from pandas import DataFrame

from spaced_kd.analysis import plotting
from spaced_kd.analysis.arms import BASELINE, ONLINE, SPACED
from spaced_kd.analysis.queries import ours, present, require, several_recipes, where

SETTING = ["dataset", "network", "recipe"]
ACROSS = 4  # panels side by side
MARKED = 8  # markers on a line


@matplotlib.rc_context(plotting.RC)
def figure(rows: DataFrame) -> Figure:
    """One panel for each dataset and network."""
    filters = {"evaluation": "accuracy", "metric": "accuracy", "selection": "curve"}
    asked = ours(rows, [BASELINE, ONLINE, SPACED], "accuracy")
    require(asked, "fig05", [ONLINE, SPACED], filters)
    groups = [group for _, group in asked.groupby(SETTING, sort=False) if present(group) - {BASELINE}]
    drawing, panels = plotting.tiles(len(groups), ACROSS)
    recipes = several_recipes(asked)
    looks = plotting.looks(present(asked))
    for axes, group in zip(panels, groups, strict=True):
        for arm in (arm for arm in looks if arm in present(group)):
            found = where(group, **filters, method=arm.method, interval=arm.interval)
            every = max(1, found["epoch"].nunique() // MARKED)
            plotting.band(axes, found, "epoch", arm.name, markevery=every, **looks[arm])
        dataset, network, recipe = group[SETTING].iloc[0]
        lacking = plotting.lacking(group, where(group, **filters))
        axes.set_title(plotting.title(plotting.setting(dataset, network, recipe if recipes else ""), lacking))
    drawing.supxlabel("epoch", fontsize="medium")
    drawing.supylabel("test accuracy (%)", fontsize="medium")
    plotting.legend(drawing)
    return drawing
