"""Selection: which states of a training are reported, and the sign of each claim with each choice.

Top-1 test accuracy in percent, or a difference of two arms in percentage points, taken seed by seed: mean ± standard
deviation over seeds (number of seeds), and of a difference its paired 95 % interval, not adjusted. Tail is the mean
over the states in the last tenth of a network's own steps; last is the last step. Best on test is the largest of all
evaluated epochs, as the paper's released code reports it: a maximum over noise, the larger the more often a run was
evaluated. By halves: each half of the test images selects the epoch that is measured on the other half, so no image
selects the epoch that it measures. Held out is the epoch that is best on held-out training images, where a study holds
some out. Evaluated: number of epochs, by arm; states: number of states in the tail. Signs: of a mean difference by each
of them, in brackets where its interval does not exclude 0. Endpoint: the tail where every run has one, else the last
step.
"""

from pandas import DataFrame

from spaced_kd.analysis.arms import BASELINE, ONLINE, SELF, SPACED, SPACED_SELF, Arm, Contrast
from spaced_kd.analysis.cells import NOTHING, Cell, summary
from spaced_kd.analysis.effects import (
    PairedDifferences,
    PlainSetting,
    accuracies,
    difference,
    endpoint,
    in_setting,
    plain_settings,
    reached,
    without_one_recipe,
)
from spaced_kd.analysis.queries import where
from spaced_kd.analysis.statistics import ALPHA, paired_interval
from spaced_kd.utils.errors import UserError

WHAT = (
    BASELINE,
    ONLINE,
    Contrast(ONLINE, BASELINE),
    SPACED,
    Contrast(SPACED, ONLINE),
    SELF,
    SPACED_SELF,
    Contrast(SPACED_SELF, SELF),
)
COLUMNS = {"tail": "tail", "last": "last", "best": "best on test", "halves": "by halves", "held_out": "held out"}


def table(rows: DataFrame) -> DataFrame:
    """A line for each arm and difference that has been run."""
    rows = accuracies(rows)
    lines = [
        setting._asdict() | {"accuracy": _name(what)} | _counts(rows, setting, what) | cells
        for setting in plain_settings(rows)
        for what in WHAT
        if (cells := _cells(rows, setting, what))
    ]
    if not any("−" in line["accuracy"] for line in lines):
        raise UserError("selection needs runs of online_kd with interval 0 and 1.5: add them to the study")
    return without_one_recipe(lines).fillna("–")


def _name(what: Arm | Contrast) -> str:
    return what.name if isinstance(what, Arm) else f"{what.after.name} − {what.before.name}"


def _arms(what: Arm | Contrast) -> tuple[Arm, ...]:
    return (what,) if isinstance(what, Arm) else tuple(what)


def _cells(rows: DataFrame, setting: PlainSetting, what: Arm | Contrast) -> dict[str, Cell | str]:
    """Column -> cell, of the selections that the runs have."""
    cells, signs = {}, []
    for selection, column in COLUMNS.items():
        if isinstance(what, Arm):
            values, seeds = reached(rows, setting, what, selection)
            cell = summary(values, len(seeds))
        else:
            change = difference(rows, setting, *what, selection)
            values, cell = change.values, change.cell()
            signs += [f"{column} {_sign(change)}"] if len(values) else []
        if len(values):
            cells[column] = cell
    return cells | ({"signs": ", ".join(signs)} if signs else {})


def _sign(change: PairedDifferences) -> str:
    """Of the mean, in brackets where the interval has 0 inside, or there is none."""
    mean = change.values.mean()
    sign = "+" if mean > 0 else "−" if mean < 0 else "0"
    if len(change.values) > 1:
        interval = paired_interval(change.values, ALPHA)
        if interval.low > 0 or interval.high < 0:
            return sign
    return f"({sign})"


def _counts(rows: DataFrame, setting: PlainSetting, what: Arm | Contrast) -> dict[str, str]:
    """How many epochs were evaluated, and of how many states the tail is the mean; of a difference, by each arm."""
    found: dict[str, list[str]] = {"evaluated": [], "states": []}
    for arm in _arms(what):
        runs = in_setting(rows, setting, arm)
        curve, tail = (where(runs, metric="accuracy", selection=selection) for selection in ("curve", "tail"))
        found["evaluated"].append(f"{curve.groupby('run').size().max()}" if len(curve) else NOTHING)
        states = sorted(tail["states"].dropna().unique()) if len(tail) else []
        found["states"].append(" to ".join(f"{number:.0f}" for number in (states[:1] + states[1:][-1:])) or NOTHING)
    counts = {column: ", ".join(dict.fromkeys(texts)) for column, texts in found.items()}
    return {"endpoint": endpoint(rows, setting, *_arms(what))} | counts
