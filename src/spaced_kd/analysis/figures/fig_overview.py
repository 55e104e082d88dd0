"""The paper's main claims beside ours: differences in top-1 test accuracy at the endpoint of the table `overview`.

In percentage points. Grey bars are the range of the paper's differences over the rows of its table, which have no
deviations; without a bar, the paper makes no such comparison. Points are our means over seeds, differences taken seed
by seed, with the adjusted intervals of that table: 95 % for a family of comparisons together; an arrow marks an
interval that continues beyond the axis; n is the number of seeds, at least two. At most six claims, and of each the
three settings with the most training steps; the table has all. Results in other settings than the paper's are not
evidence for or against its rows.
"""

import textwrap
from collections.abc import Sequence
from itertools import groupby

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from spaced_kd.analysis import human_names, plotting
from spaced_kd.analysis.claims.load import PATH, load
from spaced_kd.analysis.claims.model import paper_range
from spaced_kd.analysis.claims.rule import EXCLUDED
from spaced_kd.analysis.claims.verdicts import Verdict, judge
from spaced_kd.analysis.tables import headline
from spaced_kd.utils.errors import UserError

PARTS = 6  # claims that fit on a screen
SETTINGS = 3  # of a claim
WIDEST = 62  # characters of a setting's line
END = 15  # of the axis at most, unless a mean lies beyond: the intervals of three seeds may reach far


@matplotlib.rc_context(plotting.RC)
def figure(rows: DataFrame) -> Figure:
    """A part for each main claim on accuracy, a line in it for each of our settings."""
    found = [each for each in judge(load(PATH, rows), rows) if each.claim.main and each.seeds > 1]
    found = [each for each in found if each.claim.unit == "pp"]
    if not found:
        raise UserError("fig_overview needs runs of online_kd with interval 0 and 1.5, of two seeds: add them")
    parts = [list(verdicts) for _, verdicts in groupby(found, key=lambda each: each.claim.id)]
    parts = sorted(parts, key=lambda part: part[0].claim.id not in headline.CLAIMS)[:PARTS]  # the others come last
    counts = {part[0].claim.id: len(part) for part in parts}
    parts = [sorted(part, key=headline.evidence, reverse=True)[:SETTINGS] for part in parts]
    found = [each for part in parts for each in part]
    drawing = Figure(figsize=(7.5, 0.4 + 0.35 * len(parts) + 0.32 * len(found)))
    heights = [1 + len(part) for part in parts]
    grid = drawing.subplots(len(parts), 1, sharex=True, squeeze=False, height_ratios=heights)
    end = _end(found, [paper_range(part[0].claim, rows) for part in parts])
    names = human_names.setting_names([each.setting for each in found])
    for axes, part in zip(grid.flat, parts, strict=True):
        _claim(axes, part, paper_range(part[0].claim, rows), (-end, end))
        sentence, number = part[0].claim.sentence, counts[part[0].claim.id]
        more = f" ({len(part)} of {number} settings)" if number > len(part) else ""
        axes.set_title(f"{sentence[0].upper()}{sentence[1:]}{more}", loc="left", fontweight="bold")
        labels = [_label(names[each.setting], each) for each in part]
        axes.set_yticks(range(len(part)), labels, fontsize="small")
    if patches := [bar for axes in grid.flat for bar in axes.patches]:
        patches[0].set_label("the paper's rows")
    plotting.legend(drawing)
    grid[-1, 0].set_xlabel("difference in accuracy (percentage points)")
    return drawing


def _end(found: Sequence[Verdict], papers: Sequence[Sequence[float]]) -> float:
    """Of the axis: all means and the paper's numbers are inside, and as much of the intervals as `END` allows."""
    intervals = max((abs(limit) for each in found for limit in each.interval or ()), default=0)
    means = max(abs(each.mean) for each in found)
    return 1.1 * max(means, min(intervals, END / 1.1), *(abs(number) for paper in papers for number in paper))


def _claim(axes: Axes, part: Sequence[Verdict], paper: list[float], ends: tuple[float, float]) -> None:
    """The paper's range behind our settings, one below the other."""
    if paper:
        axes.axvspan(min(paper), max(paper), color="0.8", linewidth=0)
    axes.axvline(0, color=plotting.INK, linewidth=0.8)
    for position, each in enumerate(part):
        mark = {"color": plotting.VERDICTS.get(each.verdict, plotting.INK), "clip_on": False}
        filling = "full" if each.verdict in plotting.VERDICTS else "none"
        if each.interval:
            axes.plot(np.clip(each.interval, *ends), [position, position], **mark)
            for limit, end, arrow in zip(each.interval, ends, "<>", strict=True):
                if abs(limit) > abs(end) and limit * end > 0:
                    axes.plot(end, position, marker=arrow, **mark)
        axes.plot(
            each.mean,
            position,
            marker="s" if each.verdict == EXCLUDED else "o",
            fillstyle=filling,
            label=each.verdict,
            linestyle="",
            **mark,
        )
    axes.set(xlim=ends, ylim=(len(part) - 0.5, -0.5))
    axes.grid(visible=False, axis="y")


def _label(name: str, each: Verdict) -> str:
    """Dataset and network above epochs, reading and seeds."""
    dataset, network, *rest = name.split("; ")
    n = f"{each.seeds}" if each.seeds == each.expected else f"{each.seeds} of {each.expected}"
    lines = ("; ".join([dataset, network]), "; ".join([*rest, f"n = {n}"]))
    return "\n".join(part for line in lines for part in textwrap.wrap(line, WIDEST))
