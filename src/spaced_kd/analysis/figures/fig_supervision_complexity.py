"""Supervision complexity over training: how hard each target is for the student's own kernel.

One row of panels for each dataset and network, a column for each student's method; C of the residual on a logarithmic
scale, as `evaluations/supervision_complexity.py` defines it, teachers at the highest temperature measured. Lines are
means over seeds, bands are ± one standard deviation over seeds. At the beginning of an epoch the student is about to
learn from one of the teachers; the others are measured beside it. Crosses are the spaced teachers at the time when the
student's own schedule has them teach, so that panels compare at equal accuracy, cross by cross. The paper measures none
of this.
"""

import matplotlib
from matplotlib.figure import Figure
from pandas import DataFrame

from spaced_kd.analysis import plotting
from spaced_kd.analysis.arms import OFFLINE, ONLINE, SPACED
from spaced_kd.analysis.queries import ours, require, several_recipes, where

SETTING = ["dataset", "network", "recipe"]
LOOKS = {  # target -> name, look
    "hard": ("labels", {"color": plotting.INK, "linestyle": ":"}),
    "random": ("labels, permuted", {"color": plotting.ORANGE, "linestyle": (0, (1, 1))}),
    "online": ("online teacher, at t", plotting.LOOKS[ONLINE]),
    "spaced": ("spaced teacher, at k(t)", plotting.LOOKS[SPACED]),
    "offline": ("offline teacher", plotting.LOOKS[OFFLINE]),
}
RECEIVED = {"color": plotting.LOOKS[SPACED]["color"], "marker": "x", "markersize": 7, "linestyle": "none"}
EVALUATION = "supervision_complexity"


@matplotlib.rc_context(plotting.RC)
def figure(rows: DataFrame) -> Figure:
    """C against the student's epoch, a line for each target."""
    arms = [ONLINE, SPACED]
    asked = ours(rows, arms, EVALUATION)
    require(asked, "fig_supervision_complexity", arms, {"evaluation": EVALUATION})
    groups = [group for _, group in asked.groupby(SETTING, sort=False)]
    drawing, grid = plotting.panels(len(groups), len(arms), sharey="row")
    recipes = several_recipes(asked)
    for line, group in zip(grid, groups, strict=True):
        dataset, network, recipe = group[SETTING].iloc[0]
        for axes, arm in zip(line, arms, strict=True):
            own = where(group, method=arm.method, interval=arm.interval)
            found = where(own, metric="complexity")
            for target, (name, look) in LOOKS.items():
                plotting.band(axes, _hottest(where(found, target=target)), "epoch", name, **look)
            mean = _hottest(where(found, target="received")).groupby("epoch")["value"].mean()
            axes.plot(mean.index, mean, label="spaced teacher, as it comes", **RECEIVED)
            axes.set_yscale("log")
            places = [arm.name, *plotting.setting(dataset, network, recipe if recipes else "")]
            axes.set_title(plotting.title(places, plotting.lacking(own, found)))
    drawing.supxlabel("student's epoch", fontsize="medium")
    drawing.supylabel("supervision complexity C", fontsize="medium")
    plotting.legend(drawing)
    return drawing


def _hottest(rows: DataFrame) -> DataFrame:
    return rows[rows["temperature"] == rows["temperature"].max()]
