"""Tuning: the expected best of k equal trials, for each arm.

Mean accuracy in percent, over the seeds of the search, on training images that were held out; no test image takes part.
Expected over all choices of k of the trials made. Where two lines cross, the order of the arms depends on the number of
trials.
"""

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from pandas import DataFrame

from spaced_kd.analysis import plotting
from spaced_kd.analysis.tuning import expected_best, searches

ACROSS = 3  # panels side by side


@matplotlib.rc_context(plotting.RC)
def figure(rows: DataFrame) -> Figure:
    """One panel for each setting that was searched."""
    found = searches(rows)
    settings = [*dict.fromkeys(search.setting for search in found)]
    drawing, panels = plotting.tiles(len(settings), ACROSS)
    looks = plotting.looks({search.arm for search in found})
    for axes, setting in zip(panels, settings, strict=True):
        for search in found:
            if search.setting == setting:
                budgets = range(1, len(search.scores) + 1)
                best = [expected_best([*search.scores.values()], k) for k in budgets]
                axes.plot(budgets, best, label=search.arm.name, **looks[search.arm])
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_title(plotting.title(plotting.setting(*setting), {}))
    drawing.supxlabel("trials k", fontsize="medium")
    drawing.supylabel("held-out accuracy (%)", fontsize="medium")
    plotting.legend(drawing)
    return drawing
