"""Cells of the tables: mean ± sd (n) over seeds, paired differences, and the paper's own numbers beside them.

The tables share one layout: a line for each dataset, network and further setting, once with our numbers and once with
the paper's, and a column for each method. Where the paper sets networks side by side, they are below each other here:
so networks that the paper does not have fit in as well.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from pandas import DataFrame, Series

from spaced_kd.errors import UserError

NOTHING = "–"
RUN_KEYS = ("dataset", "network", "recipe")
SWITCHES = ("batch_norm", "clock", "initial_weights")  # words of a recipe that are a protocol's
DRAWN = ("order_seed", "augmentation_seed")  # words of a recipe that draw one thing anew


class Arm(NamedTuple):
    """The runs of a method with an interval: what a column of a table, or a line of a figure, shows."""

    method: str
    interval: str = ""
    recipe: str = ""  # words in which its recipe differs from the setting's, as "epochs=x2"

    @property
    def name(self) -> str:
        """Display name, e.g. "Spaced KD, s = 1.5"."""
        if self.recipe:
            return f"{self._replace(recipe='').name}, {self.recipe}"
        if self in NAMES:
            return NAMES[self]
        method = {"online_kd": "Spaced KD", "self_kd": "Spaced self KD"}.get(self.method, self.method)
        return f"{method}, s = {self.interval}" if self.interval else method

    @property
    def epochs(self) -> float:
        """Interval in epochs; infinite for offline KD, whose teacher has finished."""
        return float(self.interval.replace("max", "inf") or 0)


WITHOUT = Arm("baseline")
ONLINE = Arm("online_kd", "0")
SPACED = Arm("online_kd", "1.5")
OFFLINE = Arm("online_kd", "max")
SELF = Arm("self_kd", "0")
SPACED_SELF = Arm("self_kd", "4")
NAMES = {WITHOUT: "w/o KD", ONLINE: "online KD", OFFLINE: "offline KD", SELF: "self KD"}


class Change(NamedTuple):
    """A column of differences `after` minus `before`, taken seed by seed."""

    after: Arm
    before: Arm

    @property
    def name(self) -> str:
        """Display name, e.g. "Δ to online KD"."""
        return f"Δ to {self.before.name}"


def layout(
    rows: DataFrame,
    table: str,
    columns: Sequence[Arm | Change],
    keep: dict[str, Any],
    *,
    keys: tuple[str, ...] = ("dataset", "network"),
    below: Arm | None = None,
    style: str = ".2f",
) -> DataFrame:
    """A table of text: `keys`, source (ours, paper), and one column for each of `columns` that the study has.

    Args:
        rows: tidy rows, ours and the paper's.
        table: name of the table, for the paper's rows and for messages.
        columns: arms and changes, in order.
        keep: column -> value, or tuple of values, of those of our rows that count; `evaluation` is needed.
        keys: columns that make a line, outermost first.
        below: adds a line below ours, with the difference of every column to this arm.
        style: format of a number.

    Raises:
        UserError: the study has no run with KD for this table, or two values for one cell.
    """
    arms = [arm for column in columns for arm in _arms(column)]
    asked = ours(rows, arms, keep["evaluation"])
    found = where(asked, **keep)
    if several_recipes(asked):
        keys = (*keys, "recipe")
    # a missing evaluation does not say of which settings, so it makes a line only where lines are runs
    placed = asked if set(keys) <= set(RUN_KEYS) else found
    require(placed, table, arms, keep)
    columns = [column for column in columns if present(asked).issuperset(_arms(column))]
    paper = where(rows, source="paper", table=table)
    places = [_places(frame, keys) for frame in (placed, paper)]
    lines = []
    for place in sorted(set().union(*places), key=_order(rows, keys)):
        head = dict(zip(keys, place, strict=True))
        if place in places[0]:
            runs, values = _at(asked, {key: head[key] for key in keys if key in RUN_KEYS}), _at(found, head)
            lines.append(head | {"source": "ours"} | {c.name: _cell(c, values, runs, style) for c in columns})
            if below:
                changes = {c.name: _cell(Change(c, below), values, runs, style) for c in columns if c != below}
                lines.append(head | {"source": f"ours − {below.name}"} | changes)
        if place in places[1]:
            values = _at(paper, head)
            lines.append(head | {"source": "paper"} | {c.name: _paper_cell(c, values, style) for c in columns})
    return DataFrame(lines, columns=[*keys, "source", *(c.name for c in columns)]).fillna(NOTHING)


def several_recipes(rows: DataFrame) -> bool:
    """Whether some network was trained on some dataset by more than one recipe, so that it must be told which."""
    return bool((rows.groupby(["dataset", "network"])["recipe"].nunique() > 1).any())


def ours(rows: DataFrame, arms: Collection[Arm], evaluation: str) -> DataFrame:
    """Our rows of an evaluation for some arms, missing ones included; teacher and student are the same network."""
    rows = seeded(where(rows, source="ours", evaluation=evaluation))
    rows = rows[rows["teacher"] == rows["network"]]
    named = [arm in arms for arm in map(Arm, rows["method"], rows["interval"])]
    return rows[np.array(named, dtype=bool)]


def seeded(rows: DataFrame) -> DataFrame:
    """Rows without the runs that draw order or augmentation alone anew: those are repeats of one seed."""
    return rows[~rows["recipe"].str.contains("|".join(f"{word}=" for word in DRAWN))]


def plain(rows: DataFrame) -> DataFrame:
    """Rows of runs whose recipe has none of the switches of a protocol, and draws nothing anew."""
    return rows[~rows["recipe"].str.contains("|".join(f"{word}=" for word in (*SWITCHES, *DRAWN)))]


def require(rows: DataFrame, name: str, arms: Collection[Arm], keep: dict[str, Any]) -> None:
    """UserError that says which runs a table or figure needs, if there is none with KD among the rows."""
    if not present(rows) - {WITHOUT}:
        raise UserError(f"{name} needs {_needed(arms, keep)}: add them to the study, or leave {name} out")


def where(rows: DataFrame, **keep: Any) -> DataFrame:
    """Rows whose columns have the given values; a tuple gives several values to choose from."""
    for column, values in keep.items():
        rows = rows[rows[column].isin(values if isinstance(values, tuple) else (values,))]
    return rows


def present(rows: DataFrame) -> set[Arm]:
    """Arms that the rows have, be it as missing."""
    return set(map(Arm, rows["method"], rows["interval"]))


def seeds(rows: DataFrame, arm: Arm) -> set[float]:
    """Seeds of an arm, be they missing."""
    return set(where(rows, method=arm.method, interval=arm.interval)["seed"])


def by_seed(rows: DataFrame, arm: Arm) -> Series:
    """The one value of each seed of an arm; UserError where a seed has two."""
    rows = where(rows, method=arm.method, interval=arm.interval)
    if (twice := rows["seed"].duplicated(keep=False)).any():
        runs = ", ".join(dict.fromkeys(rows.loc[twice, "run"]))
        raise UserError(f"{arm.name} has several values for one seed and cell, from {runs}: leave all but one out")
    return rows.set_index("seed")["value"]


def paper_changes(rows: DataFrame, after: Arm, before: Arm, table: str) -> Series:
    """The paper's differences between two arms, from the accuracies in a table, by dataset and network."""
    rows = where(rows, source="paper", table=table, metric="accuracy").set_index(["dataset", "network"])
    first, second = (where(rows, method=arm.method, interval=arm.interval)["value"] for arm in (after, before))
    return (first - second).dropna()


def summary(values: Series, expected: int, style: str = ".2f", sign: str = "") -> str:
    """Text of a cell: "mean ± sd (n)" with the sd of a sample, and "(2 of 3 seeds)" where seeds are missing."""
    count = f"({len(values)})" if len(values) == expected else f"({len(values)} of {expected} seeds)"
    mean = format(values.mean(), sign + style) if len(values) else NOTHING
    deviation = f" ± {values.std(ddof=1):{style}}" if len(values) > 1 else ""
    return f"{mean}{deviation} {count}"


def _arms(column: Arm | Change) -> tuple[Arm, ...]:
    return (column,) if isinstance(column, Arm) else tuple(column)


def _cell(column: Arm | Change, values: DataFrame, runs: DataFrame, style: str) -> str:
    """`values` hold what was found, `runs` tell which seeds there should be."""
    expected = set.intersection(*(seeds(runs, arm) for arm in _arms(column)))
    if not expected:
        return NOTHING
    if isinstance(column, Arm):
        return summary(by_seed(values, column), len(expected), style)
    after, before = (by_seed(values, arm) for arm in column)
    paired = after.index.intersection(before.index)
    return summary(after[paired] - before[paired], len(expected), style, sign="+")


def _paper_cell(column: Arm | Change, values: DataFrame, style: str) -> str:
    arm, metric, sign = (column, "accuracy", "") if isinstance(column, Arm) else (column.after, "delta", "+")
    values = where(values, method=arm.method, interval=arm.interval, metric=metric)["value"]
    return format(values.item(), sign + style) if len(values) else NOTHING


def _places(rows: DataFrame, keys: Sequence[str]) -> set[tuple[str, ...]]:
    return set(zip(*(rows[key].map(_text) for key in keys), strict=True))


def _at(rows: DataFrame, head: dict[str, str]) -> DataFrame:
    for key, text in head.items():
        rows = rows[rows[key].map(_text) == text]
    return rows


def _text(value: str | float) -> str:
    """A key as a table shows it: severity 3.0 is "3"."""
    if isinstance(value, str):
        return value or NOTHING
    return NOTHING if value != value else f"{value:g}"


def _order(rows: DataFrame, keys: Sequence[str]) -> Callable[[tuple[str, ...]], list]:
    """Sort key of places: numbers by size; names as the paper has them, other names first."""
    names = {key: list(dict.fromkeys(where(rows, source="paper")[key].map(_text))) for key in keys}

    def rank(key: str, text: str) -> tuple[int, float, str]:
        try:
            return 0, float(text), ""
        except ValueError:
            plain = text.partition("[")[0]
            return 1, names[key].index(plain) if plain in names[key] else -1, text

    return lambda place: [rank(key, text) for key, text in zip(keys, place, strict=True)]


def _needed(arms: Collection[Arm], keep: dict[str, Any]) -> str:
    """What a study must have for a table, in words."""
    intervals: dict[str, list[str]] = {}
    for arm in sorted(set(arms) - {WITHOUT}, key=lambda arm: (arm.method, arm.epochs)):
        intervals.setdefault(arm.method, []).append(arm.interval)
    runs = "runs of " + ", and of ".join(f"{name} with interval {' and '.join(s)}" for name, s in intervals.items())
    if keep["evaluation"] == "accuracy":
        return runs
    settings = [
        f"{key} {' and '.join(f'{value:g}' for value in values)}"
        for key, values in keep.items()
        if isinstance(values, tuple)
    ]
    return " with ".join([f"{runs}, and their evaluation {keep['evaluation']}", *settings])
