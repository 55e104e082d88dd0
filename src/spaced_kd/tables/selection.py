"""Selection: which epoch is reported, and what that makes of the claims.

Top-1 test accuracy in percent, or a difference of two arms in percentage points, taken seed by seed: mean ± standard
deviation over seeds (number of seeds), and of a difference its paired 95 % interval, not adjusted. Last is the last
epoch, as in all other tables. Best on test is the largest of all evaluated epochs, as the paper's released code reports
it: a maximum over noise, the larger the more often a run was evaluated. By halves, each half of the test images chooses
the epoch that is measured on the other half, so nothing is chosen on what is measured. Held out is the epoch that is
best on training images that no one learnt, where a study holds some out. Evaluated: how many epochs, by arm.
"""

from pandas import DataFrame

from spaced_kd.cells import ONLINE, SELF, SPACED, SPACED_SELF, WITHOUT, Arm, Change, summary, where
from spaced_kd.changes import Place, accuracies, difference, in_place, places, reached, without_one_recipe
from spaced_kd.errors import UserError

WHAT = (WITHOUT, ONLINE, SPACED, Change(SPACED, ONLINE), SELF, SPACED_SELF, Change(SPACED_SELF, SELF))
COLUMNS = {"last": "last", "best": "best on test", "halves": "by halves", "held_out": "held out"}


def table(rows: DataFrame) -> DataFrame:
    """A line for each arm and difference that has been run."""
    rows = accuracies(rows)
    lines = [
        place._asdict() | {"accuracy": _name(what), "evaluated": _evaluated(rows, place, what)} | cells
        for place in places(rows)
        for what in WHAT
        if (cells := _cells(rows, place, what))
    ]
    if not any("−" in line["accuracy"] for line in lines):
        raise UserError("selection needs runs of online_kd with interval 0 and 1.5: add them to the study")
    return without_one_recipe(lines).fillna("–")


def _name(what: Arm | Change) -> str:
    return what.name if isinstance(what, Arm) else f"{what.after.name} − {what.before.name}"


def _cells(rows: DataFrame, place: Place, what: Arm | Change) -> dict[str, str]:
    """Column -> text, of the selections that the runs have."""
    cells = {}
    for selection, column in COLUMNS.items():
        if isinstance(what, Arm):
            values, seeds = reached(rows, place, what, selection)
            told = summary(values, len(seeds))
        else:
            change = difference(rows, place, *what, selection)
            values, told = change.values, change.told()
        if len(values):
            cells[column] = told
    return cells


def _evaluated(rows: DataFrame, place: Place, what: Arm | Change) -> str:
    """How many epochs were evaluated; of a difference, by each arm."""
    arms = (what,) if isinstance(what, Arm) else tuple(what)
    counts = []
    for arm in arms:
        curve = where(in_place(rows, place, arm), selection="curve")
        counts.append(f"{curve.groupby('run').size().max()}" if len(curve) else "–")
    return ", ".join(dict.fromkeys(counts))
