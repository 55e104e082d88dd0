"""The paper's main claims beside ours: differences in top-1 test accuracy at the last epoch.

In percentage points. Grey bars are the range of the paper's differences over the rows of its table, which have no
deviations; where there is none, the paper does not compare the two. Points are our means over seeds, differences taken
seed by seed, with their 95 % interval (paired t); an arrow stands where an interval goes on beyond the axis; n is the
number of seeds. A setting that is none of the paper's own decides none of its rows; it stands beside them.
"""

import textwrap

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame, Series

from spaced_kd import style
from spaced_kd.cells import paper_changes
from spaced_kd.changes import MAIN_CLAIMS, Sample, accuracies, difference, names, places
from spaced_kd.errors import UserError
from spaced_kd.statistics import paired_interval

WIDEST = 55  # characters of a setting's line
END = 15  # of the axis, or beyond the largest mean: the intervals of three seeds may reach far beyond


@matplotlib.rc_context(style.RC)
def figure(rows: DataFrame) -> Figure:
    """A part for each claim, a line in it for each of our settings."""
    found, parts = accuracies(rows), []
    settings = names(places(found))
    for sentence, after, before, table in MAIN_CLAIMS:
        changes = {name: difference(found, place, after, before) for place, name in settings.items()}
        if changes := {name: change for name, change in changes.items() if len(change.values)}:
            look = style.looks({after})[after]
            parts.append((sentence, look, paper_changes(rows, after, before, table) if table else None, changes))
    if not parts:
        raise UserError("fig_overview needs runs of online_kd with interval 0 and 1.5: add them to the study")
    heights = [len(changes) for *_, changes in parts]
    drawing = Figure(figsize=(7.5, 0.4 + 0.35 * len(parts) + 0.32 * sum(heights)))
    grid = drawing.subplots(len(parts), 1, sharex=True, squeeze=False, height_ratios=[1 + h for h in heights])
    end = max(END, *(1.1 * abs(values.mean()) for *_, changes in parts for values, _ in changes.values()))
    for axes, part in zip(grid.flat, parts, strict=True):
        _claim(axes, *part, (-end, end))
    if patches := [bar for axes in grid.flat for bar in axes.patches]:
        patches[0].set_label("the paper's rows")
    style.legend(drawing)
    grid[-1, 0].set_xlabel("difference in accuracy (percentage points)")
    return drawing


def _claim(
    axes: Axes,
    sentence: str,
    look: dict[str, str],
    paper: Series | None,
    changes: dict[str, Sample],
    ends: tuple[float, float],
) -> None:
    """The paper's range behind our settings, one below the other."""
    axes.set_title(sentence, loc="left", fontweight="bold")
    if paper is not None:
        axes.axvspan(paper.min(), paper.max(), color="0.8", linewidth=0)
    axes.axvline(0, color=style.INK, linewidth=0.8)
    for place, (values, _) in enumerate(changes.values()):
        mark = {"color": look["color"], "clip_on": False}
        axes.plot(values.mean(), place, marker=look["marker"], **mark)
        if len(values) > 1:
            interval = paired_interval(values.to_numpy())
            axes.plot(np.clip(interval, *ends), [place, place], **mark)
            for limit, end, arrow in zip(interval, ends, "<>", strict=True):
                if abs(limit) > abs(end) and limit * end > 0:
                    axes.plot(end, place, marker=arrow, **mark)
    axes.set_yticks(range(len(changes)), [_label(name, *change) for name, change in changes.items()], fontsize="small")
    axes.set(xlim=ends, ylim=(len(changes) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")


def _label(name: str, values: Series, seeds: set[float]) -> str:
    dataset, _, rest = name.partition(", ")
    n = f"{len(values)}" if len(values) == len(seeds) else f"{len(values)} of {len(seeds)}"
    return "\n".join([dataset, *textwrap.wrap(f"{rest}, n = {n}", WIDEST)])
