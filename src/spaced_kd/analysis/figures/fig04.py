"""Fig. 4: loss and accuracy on the training images under Gaussian noise on the weights.

Lines are means over seeds, bands are ± one standard deviation over seeds; a seed's value is the mean over its draws of
the noise. σ is in units of the weights, or of their root mean square where the study asks for relative noise. A flatter
minimum keeps its loss and accuracy at larger σ. Networks are those at the last epoch.
"""

import matplotlib
from matplotlib.figure import Figure
from pandas import DataFrame

from spaced_kd.analysis import plotting
from spaced_kd.analysis.arms import ONLINE, SPACED, Arm
from spaced_kd.analysis.queries import ours, present, require, several_recipes, where

EVALUATION = "weight_noise"
SETTING = ["dataset", "network", "recipe"]
METRICS = {"loss": "training loss (nats)", "accuracy": "training accuracy (%)"}


@matplotlib.rc_context(plotting.RC)
def figure(rows: DataFrame) -> Figure:
    """Two panels, loss above accuracy, for each dataset and network."""
    asked = ours(rows, present(rows), EVALUATION)
    require(asked, "fig04", [ONLINE, SPACED], {"evaluation": EVALUATION})
    groups = [group for _, group in asked.groupby(SETTING, sort=False)]
    recipes = several_recipes(asked)
    drawing, grid = plotting.panels(len(METRICS), len(groups), sharex="col")
    looks = plotting.looks(present(asked))
    for column, group in zip(grid.T, groups, strict=True):
        for axes, metric in zip(column, METRICS, strict=True):
            for arm in (arm for arm in looks if arm in present(group)):
                runs = _runs(where(group, metric=metric), arm)
                plotting.band(axes, runs, "sigma", arm.name, markersize=3, **looks[arm])
        dataset, network, recipe = group[SETTING].iloc[0]
        lacking = plotting.lacking(group, where(group, metric=tuple(METRICS)))
        column[0].set_title(plotting.title(plotting.setting(dataset, network, recipe if recipes else ""), lacking))
    for axes, label in zip(grid[:, 0], METRICS.values(), strict=True):
        axes.set_ylabel(label)
    drawing.supxlabel("standard deviation σ of the noise on the weights", fontsize="medium")
    plotting.legend(drawing)
    return drawing


def _runs(rows: DataFrame, arm: Arm) -> DataFrame:
    """One value for each run and sigma: the mean over draws."""
    rows = where(rows, method=arm.method, interval=arm.interval)
    return rows.groupby(["sigma", "seed"], as_index=False)["value"].mean()
