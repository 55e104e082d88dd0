"""Flatness as in Theorem 4.4: trace of the Hessian of the training loss at the end of training.

In nats per squared unit of the weights, on a logarithmic scale, estimated with random probes. Large markers are means
over seeds, error bars ± one standard deviation over seeds; small ones are single seeds, joined because they are paired.
A smaller trace is a flatter minimum. The paper measures no trace.
"""

import matplotlib
from matplotlib.figure import Figure
from pandas import DataFrame

from spaced_kd.analysis import plotting
from spaced_kd.analysis.arms import ONLINE, SPACED
from spaced_kd.analysis.queries import by_seed, ours, present, require, several_recipes, where

SETTING = ["dataset", "network", "recipe"]
ACROSS = 4  # panels side by side
EVALUATION = "hessian_trace"


@matplotlib.rc_context(plotting.RC)
def figure(rows: DataFrame) -> Figure:
    """One panel for each dataset and network, one place on its axis for each method."""
    filters = {"evaluation": EVALUATION, "metric": "trace"}
    asked = ours(rows, present(where(rows, source="ours")), EVALUATION)
    require(asked, "fig_hessian_trace", [ONLINE, SPACED], filters)
    groups = [group for _, group in asked.groupby(SETTING, sort=False)]
    drawing, panels = plotting.tiles(len(groups), ACROSS)
    recipes = several_recipes(asked)
    looks = plotting.looks(present(asked))
    for axes, group in zip(panels, groups, strict=True):
        found = where(group, **filters)
        values = {arm: by_seed(found, arm) for arm in looks if arm in present(group)}
        together = DataFrame(dict(enumerate(values.values())))
        axes.plot(together.T, color=plotting.INK, linewidth=0.5, marker=".", markersize=2.5, zorder=1)
        for position, (arm, traces) in enumerate(values.items()):
            if len(traces):
                error = traces.std(ddof=1) if len(traces) > 1 else None
                axes.errorbar(position, traces.mean(), error, label=arm.name, **looks[arm] | {"linestyle": "none"})
        axes.set_yscale("log")
        axes.set_xticks([])
        axes.margins(x=0.15)
        dataset, network, recipe = group[SETTING].iloc[0]
        names = plotting.setting(dataset, network, recipe if recipes else "")
        axes.set_title(plotting.title(names, plotting.lacking(group, found)))
    drawing.supylabel("Hessian trace (nats / weight²)", fontsize="medium")
    plotting.legend(drawing)
    return drawing
