"""Fig. 6: accuracy against the learning rate and against the batch size.

Top-1 test accuracy in percent at the last epoch. Lines are means over seeds, bands are ± one standard deviation over
seeds. Within a panel nothing else varies; the interval of Spaced KD is 1.5 epochs. The paper does not state its grids.
"""

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from pandas import DataFrame

from spaced_kd.analysis import plotting
from spaced_kd.analysis.arms import BASELINE, ONLINE, SPACED
from spaced_kd.analysis.queries import ours, present, require, where
from spaced_kd.config.labels import Recipe
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.utils.errors import UserError

AXES = {"lr": "learning rate (per step)", "batch_size": "batch size (images)"}


@matplotlib.rc_context(plotting.RC)
def figure(rows: DataFrame) -> Figure:
    """One panel for each dataset, network and axis of which there are several values."""
    filters = {"evaluation": "accuracy", "metric": "accuracy", "selection": "last"}
    asked = ours(rows, [BASELINE, ONLINE, SPACED], "accuracy")
    require(asked, "fig06", [ONLINE, SPACED], filters)
    groups = [(axis, *each) for axis in AXES for each in _groups(asked, axis)]
    if not groups:
        raise UserError("fig06 needs runs with several values of lr or of batch_size: add them to the study")
    drawing, panels = plotting.tiles(len(groups), 2)
    looks = plotting.looks(present(asked))
    for axes, (axis, setting, group) in zip(panels, groups, strict=True):
        for arm in (arm for arm in looks if arm in present(group)):
            found = where(group, **filters, method=arm.method, interval=arm.interval)
            plotting.band(axes, found, axis, arm.name, **looks[arm])
        values = sorted(set(group[axis]))
        axes.set(xscale="log", xlabel=AXES[axis])
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_title(plotting.title(plotting.setting(*setting), plotting.lacking(group, where(group, **filters))))
    drawing.supylabel("test accuracy (%)", fontsize="medium")
    plotting.legend(drawing)
    return drawing


def _groups(rows: DataFrame, axis: str) -> list[tuple[list[str], DataFrame]]:
    """Runs that differ in nothing but the axis, which becomes a column; with what to call them."""
    recipes = [Recipe.read(recipe) for recipe in rows["recipe"]]
    values = [float(recipe.settings.get(axis, getattr(RunSpec, axis))) for recipe in recipes]
    others = [str(recipe.without((axis,))) for recipe in recipes]
    groups = rows.assign(**{axis: values}, recipe=others).groupby(["dataset", "network", "recipe"], sort=False)
    found = [(list(setting), group) for setting, group in groups if group[axis].nunique() > 1]
    return [(setting, group) for setting, group in found if present(group) - {BASELINE}]
