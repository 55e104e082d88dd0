"""Fig. 3: when Spaced KD starts, (a) for some epochs, (b) to the end of the training.

Top-1 test accuracy in percent at the last epoch: mean over seeds, error bars and bands are ± one standard deviation
over seeds. Outside its window, a run is online KD. The lines are online KD (no window) and Spaced KD (a window over the
whole training). The interval is 1.5 epochs.
"""

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from spaced_kd.analysis import plotting
from spaced_kd.analysis.arms import ONLINE, SPACED, Arm
from spaced_kd.analysis.queries import by_seed, ours, present, require, several_recipes, where
from spaced_kd.config.labels import Label

SETTING = ["dataset", "network", "recipe"]
TO_THE_END = "to the end"
LOOK = {"color": "black", "marker": "D", "linestyle": "none"}


@matplotlib.rc_context(plotting.RC)
def figure(rows: DataFrame) -> Figure:
    """One panel for each dataset, network and length of the window."""
    filters = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last"}
    windows = {arm: window for arm in present(where(rows, source="ours")) if (window := _window(arm))}
    asked = ours(rows, {*windows, ONLINE, SPACED}, "accuracy")
    require(ours(rows, windows, "accuracy"), "fig03", [SPACED], filters, " and a method.spaced_from or spaced_until")
    panels = []
    for setting, group in asked.groupby(SETTING, sort=False):
        of_length: dict[str, dict[Arm, float]] = {}
        for arm in present(group) & set(windows):
            length, start = windows[arm]
            of_length.setdefault(length, {})[arm] = start
        panels += [(setting, group, length, of_length[length]) for length in sorted(of_length)]
    drawing, tiles = plotting.tiles(len(panels), 2)
    recipes = several_recipes(asked)
    for axes, (setting, group, length, starts) in zip(tiles, panels, strict=True):
        shown = group[[arm in {*starts, ONLINE, SPACED} for arm in map(Arm, group["method"], group["interval"])]]
        found = where(shown, **filters)
        _draw(axes, found, starts | ({SPACED: 0.0} if length == TO_THE_END else {}))
        dataset, network, recipe = setting
        names = [*plotting.setting(dataset, network, recipe if recipes else ""), length]
        axes.set_title(plotting.title(names, plotting.lacking(shown, found)))
    drawing.supxlabel("start of spacing (epoch)", fontsize="medium")
    drawing.supylabel("test accuracy (%)", fontsize="medium")
    plotting.legend(drawing)
    return drawing


def _window(arm: Arm) -> tuple[str, float] | None:
    """Length of a window in words, and where it starts; None for a run that has none."""
    method = Label.read(arm.method)
    name, settings = method.name, method.settings
    if name != SPACED.method or arm.interval != SPACED.interval or not settings:
        return None
    if not set(settings) <= {"spaced_from", "spaced_until"}:
        return None
    start = float(settings.get("spaced_from", 0))
    if "spaced_until" not in settings:
        return TO_THE_END, start
    return f"for {float(settings['spaced_until']) - start:g} epochs", start


def _draw(axes: Axes, found: DataFrame, starts: dict[Arm, float]) -> None:
    for arm in (ONLINE, SPACED):
        plotting.level(axes, by_seed(found, arm), arm)
    for arm, start in sorted(starts.items(), key=lambda item: item[1]):
        values = by_seed(found, arm)
        if len(values):
            error = values.std(ddof=1) if len(values) > 1 else None
            axes.errorbar(start, values.mean(), error, label="Spaced KD from this epoch on", **LOOK)
    axes.set_xticks(sorted(starts.values()))
