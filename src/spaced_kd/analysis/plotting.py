"""The style of figures: sizes, fonts, and one colour, marker and line style for each method.

Colours are safe for colour-blind readers; markers and line styles distinguish methods in grey, too. Figures are built
without pyplot, so that they need no display and have no global state.
"""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame, Series

from spaced_kd.analysis import human_names
from spaced_kd.analysis.arms import BASELINE, OFFLINE, ONLINE, SELF, SPACED, SPACED_SELF, Arm
from spaced_kd.analysis.queries import present, seeds

PALETTE = seaborn.color_palette("colorblind").as_hex()
BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, GREY, YELLOW, SKY = PALETTE
INK = "0.35"  # for everything that is not a method: fits, the paper's numbers
VERDICTS = {"supported": GREEN, "opposite shown": ORANGE}  # the rest is INK
WIDEST = 34  # characters of a title that fit above a panel

RC = {
    "figure.constrained_layout.use": True,
    "figure.dpi": 100,
    "savefig.dpi": 200,
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same everywhere
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "errorbar.capsize": 2,
    "pdf.fonttype": 42,  # text in a PDF stays text
}

LOOKS = {
    BASELINE: {"color": GREY, "marker": "x", "linestyle": ":"},
    ONLINE: {"color": BLUE, "marker": "s", "linestyle": "--"},
    SPACED: {"color": RED, "marker": "o", "linestyle": "-"},
    OFFLINE: {"color": GREEN, "marker": "^", "linestyle": "-."},
    SELF: {"color": SKY, "marker": "D", "linestyle": (0, (5, 1))},
    SPACED_SELF: {"color": PURPLE, "marker": "v", "linestyle": (0, (3, 1, 1, 1, 1, 1))},
}
SPARE = [
    {"color": color, "marker": marker, "linestyle": (0, (1, 1))}
    for color, marker in zip((ORANGE, BROWN, PINK, YELLOW), "P*<>", strict=True)
]


def looks(arms: set[Arm]) -> dict[Arm, dict[str, Any]]:
    """Arms in the order of a legend, with the keywords of their lines."""
    known = [arm for arm in LOOKS if arm in arms]
    others = sorted(arms - set(known), key=lambda arm: (arm.method, arm.epochs))
    return {arm: LOOKS[arm] for arm in known} | {arm: SPARE[i % len(SPARE)] for i, arm in enumerate(others)}


def panels(down: int, across: int, **options: Any) -> tuple[Figure, np.ndarray]:
    """An empty figure and its axes (down, across), each about 2.1 by 1.9 inches; `options` as of `Figure.subplots`."""
    figure = Figure(figsize=(max(2.1 * across, 3.3) + 0.3, 1.9 * down + 0.8))
    return figure, figure.subplots(down, across, squeeze=False, **options)


def tiles(number: int, across: int) -> tuple[Figure, list[Axes]]:
    """A figure with so many axes, at most `across` side by side."""
    across = min(across, number)
    figure, grid = panels(-(-number // across), across)
    for axes in grid.flat[number:]:
        axes.remove()
    return figure, list(grid.flat[:number])


def level(axes: Axes, values: Series, arm: Arm) -> None:
    """A horizontal line at the mean of an arm, with a band of ± one standard deviation."""
    if len(values):
        look = LOOKS[arm]
        axes.axhline(values.mean(), color=look["color"], linestyle=look["linestyle"], label=arm.name)
    if len(values) > 1:
        low, high = values.mean() - values.std(ddof=1), values.mean() + values.std(ddof=1)
        axes.axhspan(low, high, color=look["color"], alpha=0.2, linewidth=0)


def band(axes: Axes, rows: DataFrame, x: str, name: str, **look: Any) -> None:
    """A line through the means over seeds at each value of the column `x`, with a band of ± one standard deviation."""
    line = rows.groupby(x)["value"].agg(["mean", "std"])
    axes.plot(line.index, line["mean"], label=name, **look)
    low, high = line["mean"] - line["std"], line["mean"] + line["std"]  # NaN, so no band, of one seed
    axes.fill_between(line.index, low, high, color=look["color"], alpha=0.2, linewidth=0)


def lacking(asked: DataFrame, found: DataFrame) -> dict[str, str]:
    """Arms that lack seeds -> their number: {"online KD": "2 of 3"}."""
    counts = {arm: (len(seeds(found, arm)), len(seeds(asked, arm))) for arm in sorted(present(asked))}
    return {arm.name: f"{n} of {expected}" for arm, (n, expected) in counts.items() if n < expected}


def setting(dataset: str, network: str, recipe: str = "") -> list[str]:
    """Names of a panel's dataset, network and recipe, for its title."""
    names = [human_names.plugin_name(dataset), human_names.plugin_name(network), human_names.recipe_text(recipe)]
    return [name for name in names if name]


def title(places: Sequence[str], lacking: dict[str, str]) -> str:
    """Title of a panel: its dataset, network and so on, and the arms that lack seeds, e.g. {"online KD": "2 of 3"}.

    A long name, such as a recipe, is broken into lines, since it would reach into the next panel.
    """
    lines = [line for place in places for line in textwrap.wrap(place, WIDEST, break_long_words=False)]
    return "\n".join([*lines, *(f"({name}: {count} seeds)" for name, count in lacking.items())])


def legend(figure: Figure) -> None:
    """One legend for all panels, above them."""
    entries = {}
    for axes in figure.axes:
        entries |= {label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside upper center", ncols=int(figure.get_figwidth() / 1.7))
