"""Cells of the tables: mean ± sd (n) over seeds, paired differences, and the paper's own numbers beside them.

The tables share one layout: a line for each dataset, network and further setting, once with our numbers, once with the
paper's and once with their difference, and a column for each method. Where the paper sets networks side by side, they
are below each other here: so networks that the paper does not have fit in as well.
"""

import re
from collections.abc import Callable, Collection, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from pandas import DataFrame, Series

from spaced_kd.analysis import human_names
from spaced_kd.analysis.arms import BASELINE, Arm
from spaced_kd.analysis.statistics import paired_interval, shared_seeds
from spaced_kd.utils.errors import UserError

NOTHING = "–"
NOT_RUN = "not run"
NOT_AVAILABLE = "not available"
MEASURED = ("corruption", "severity", "epsilon")  # keys that a measurement has, and not the run
MARKS = "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ"  # of footnotes
LEGEND = (
    "In brackets is the 95 % interval of a mean difference: a paired t interval over seeds. The line ours − paper takes"
    " the paper's number as exact. Not run: the study has no such run. Not available: the paper's number is in none of"
    " the sources at hand."
)
# of a protocol, in a recipe
SWITCHES = ("augmentation=autoaugment_cutout", "batch_norm", "clock", "initial_weights", "standardisation")
DRAWN = ("order_seed", "augmentation_seed")  # words of a recipe that draw one thing anew


class Contrast(NamedTuple):
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
    columns: Sequence[Arm | Contrast],
    keep: dict[str, Any],
    *,
    keys: tuple[str, ...] = ("dataset", "network"),
    below: Arm | None = None,
    style: str = ".2f",
) -> DataFrame:
    """A table of text: `keys`, source (ours, paper), and one column for each of `columns` that the study has.

    Its `attrs["notes"]` are what stands below it: pairs of a mark, which cells carry, and a text.

    Args:
        rows: tidy rows, ours and the paper's.
        table: name of the table, for the paper's rows and for messages.
        columns: arms and changes, in order.
        keep: column -> value, or tuple of values, of those of our rows that count; `evaluation` is needed.
        keys: columns that make a line, outermost first; with `teacher`, students of other networks are meant.
        below: adds a line below ours, with the difference of every column to this arm.
        style: format of a number.

    Raises:
        UserError: the study has no run with KD for this table, or two values for one cell, or the paper's numbers have
            a cell that the table has not.
    """
    arms = [arm for column in columns for arm in _arms(column)]
    paper = where(rows, source="paper", table=table)
    _check_cells(paper, table, columns)
    other_teachers = "teacher" in keys
    asked = ours(rows, arms, keep["evaluation"], other_teachers=other_teachers)
    found = where(asked, **keep)
    if several_recipes(asked):
        keys = (*keys, "recipe")
    # a missing evaluation does not say of which settings, so it makes a line only where lines are runs
    placed = found if set(keys) & set(MEASURED) else asked
    require(placed, table, arms, keep, " and another teacher" if other_teachers else "")
    columns = [column for column in columns if present(asked).issuperset(_arms(column))]
    places = [_places(frame, keys) for frame in (placed[placed["method"] != BASELINE.method], paper)]
    notes: dict[str, str] = {}  # text -> mark
    lines = []
    for place in sorted(set().union(*places), key=_order(rows, table, keys)):
        head = dict(zip(keys, place, strict=True))
        runs, values = _at(asked, {key: head[key] for key in keys if key not in MEASURED}), _at(found, head)
        theirs = _at(paper, head)
        if place in places[0] or NOTHING not in place:  # where the paper is silent, ours has a line of its own
            lines.append(head | {"source": "ours"} | {c.name: _cell(c, values, runs, style) for c in columns})
        if below and place in places[0]:
            changes = {c.name: _cell(Contrast(c, below), values, runs, style) for c in columns if c != below}
            lines.append(head | {"source": f"ours − {below.name}"} | changes)
        if place in places[1]:
            lines.append(head | {"source": "paper"} | {c.name: _paper_cell(c, theirs, style, notes) for c in columns})
            if place in places[0]:
                off = {c.name: _off(c, values, theirs, style) for c in columns}
                lines.append(head | {"source": "ours − paper"} | off)
        elif paper.empty and _is_the_papers(rows, head):
            lines.append(head | {"source": "paper"} | {c.name: NOT_AVAILABLE for c in columns})
    drawn = DataFrame(lines, columns=[*keys, "source", *(c.name for c in columns)]).fillna(NOTHING)
    told = [] if "recipe" in keys else [("", text) for text in _recipes(asked)]
    drawn.attrs["notes"] = [("", LEGEND), *told, *((mark, text) for text, mark in notes.items())]
    return drawn


def _recipes(rows: DataFrame) -> list[str]:
    """What one reads below a table that has no column for it: by which recipe ours were trained."""
    found = rows[["recipe", "dataset", "network"]].drop_duplicates()
    return [
        f"Ours with {human_names.recipe_text(recipe)}: {'; '.join(map(_place_name, group.itertuples()))}."
        for recipe, group in found.groupby("recipe", sort=False)
        if recipe
    ]


def _place_name(row: Any) -> str:
    return f"{human_names.plugin_name(row.dataset)}, {human_names.plugin_name(row.network)}"


def several_recipes(rows: DataFrame) -> bool:
    """Whether some network was trained on some dataset by more than one recipe, so that it must be told which."""
    return bool((rows.groupby(["dataset", "network"])["recipe"].nunique() > 1).any())


def ours(rows: DataFrame, arms: Collection[Arm], evaluation: str, *, other_teachers: bool = False) -> DataFrame:
    """Our rows of an evaluation for some arms, missing ones included; the teacher is the same network, or another."""
    rows = seeded(where(rows, source="ours", evaluation=evaluation))
    rows = rows[(rows["teacher"] != rows["network"]) == other_teachers]
    named = [arm in arms for arm in map(Arm, rows["method"], rows["interval"])]
    return rows[np.array(named, dtype=bool)]


def seeded(rows: DataFrame) -> DataFrame:
    """Rows without the runs that draw order or augmentation alone anew: those are repeats of one seed."""
    return rows[~rows["recipe"].str.contains("|".join(f"{word}=" for word in DRAWN))]


def plain(rows: DataFrame) -> DataFrame:
    """Rows of runs whose recipe has none of the switches of a protocol, and draws nothing anew."""
    return rows[~rows["recipe"].str.contains("|".join((*SWITCHES, *DRAWN)))]


class MissingRunsError(UserError):
    """A study has no run for a table or figure."""


def require(rows: DataFrame, name: str, arms: Collection[Arm], keep: dict[str, Any], beside: str = "") -> None:
    """MissingRunsError, which says what runs a table or figure needs, if there is none with KD among the rows."""
    if not present(rows) - {BASELINE}:
        raise MissingRunsError(
            f"{name} needs {_needed(arms, keep)}{beside}: add them to the study, or leave {name} out"
        )


def where(rows: DataFrame, **keep: Any) -> DataFrame:
    """Rows whose columns have the given values; a tuple gives several values to choose from."""
    places = np.arange(len(rows))  # numbers of rows: a frame for each column takes much longer
    for column, values in keep.items():
        several = values if isinstance(values, tuple) else (values,)
        places = places[rows[column].iloc[places].isin(several).to_numpy()]
    return rows.iloc[places]


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


def difference(changes: Series, expected: int, style: str = ".2f") -> str:
    """Text of a mean difference: "+1.00 ± 0.50 (3), [-0.24, +2.24]" with the 95 % interval, which one seed has not."""
    return summary(changes, expected, style, sign="+") + _interval(changes, style)


def label(method: str) -> tuple[str, dict[str, str]]:
    """A method as rows have it, taken apart: "online_kd[lead=constant]" is ("online_kd", {"lead": "constant"})."""
    name, _, settings = method.removesuffix("]").partition("[")
    words = re.split(r",(?=[a-z_]+=)", settings) if settings else []
    return name, dict(word.split("=", 1) for word in words)


def _check_cells(paper: DataFrame, table: str, columns: Sequence[Arm | Contrast]) -> None:
    """UserError for a number of the paper that no column of its table would show."""
    shown = {(c, "accuracy") if isinstance(c, Arm) else (c.after, "delta") for c in columns}
    for row in paper.itertuples():
        if (Arm(row.method, row.interval), row.metric) not in shown:
            cell = " ".join(filter(None, [row.metric, row.dataset, row.network, row.method, row.interval]))
            raise UserError(f"the reference has a number for a cell that {table} has not: {cell}: correct its row")


def _is_the_papers(rows: DataFrame, head: dict[str, str]) -> bool:
    """Whether the paper has the place's dataset and network, in whatever table."""
    paper = where(rows, source="paper")
    return all(head[key] in set(paper[key]) for key in ("dataset", "network") if key in head)


def _arms(column: Arm | Contrast) -> tuple[Arm, ...]:
    return (column,) if isinstance(column, Arm) else tuple(column)


def _cell(column: Arm | Contrast, values: DataFrame, runs: DataFrame, style: str) -> str:
    """`values` hold what was found, `runs` tell which seeds there should be."""
    expected = reduce(shared_seeds, (seeds(runs, arm) for arm in _arms(column)))
    if not expected:
        return NOT_RUN
    if isinstance(column, Arm):
        return summary(by_seed(values, column), len(expected), style)
    return difference(_values(column, values), len(expected), style)


def _values(column: Arm | Contrast, rows: DataFrame) -> Series:
    """By seed: an arm's value, or the difference of two arms for the seeds that both have."""
    if isinstance(column, Arm):
        return by_seed(rows, column)
    after, before = (by_seed(rows, arm) for arm in column)
    paired = after.index.intersection(before.index)
    return after[paired] - before[paired]


def _paper_row(column: Arm | Contrast, rows: DataFrame) -> DataFrame:
    """The paper's row for a column: one, or none."""
    arm, metric = (column, "accuracy") if isinstance(column, Arm) else (column.after, "delta")
    return where(rows, method=arm.method, interval=arm.interval, metric=metric)


def _paper_cell(column: Arm | Contrast, rows: DataFrame, style: str, notes: dict[str, str]) -> str:
    row = _paper_row(column, rows)
    if row.empty:
        return NOTHING
    sign = "" if isinstance(column, Arm) else "+"
    parts = filter(None, row["note"].item().split("; "))
    return format(row["value"].item(), sign + style) + "".join(notes.setdefault(n, MARKS[len(notes)]) for n in parts)


def _off(column: Arm | Contrast, values: DataFrame, paper: DataFrame, style: str) -> str:
    """Our mean less the paper's number, with its interval."""
    row, mine = _paper_row(column, paper), _values(column, values)
    if row.empty or mine.empty:
        return NOTHING
    off = mine - row["value"].item()
    return format(off.mean(), "+" + style) + _interval(off, style)


def _interval(changes: Series, style: str) -> str:
    """E.g. ", [-0.24, +2.24]"."""
    if len(changes) < 2:
        return ""
    return f", [{', '.join(format(limit, '+' + style) for limit in paired_interval(changes))}]"


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


def _order(rows: DataFrame, table: str, keys: Sequence[str]) -> Callable[[tuple[str, ...]], list]:
    """Sort key of places: numbers by size; names as the paper has them, first in this table; other names before."""
    frames = where(rows, source="paper", table=table), where(rows, source="paper")
    names = {key: list(dict.fromkeys(_text(value) for frame in frames for value in frame[key])) for key in keys}

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
    for arm in sorted(set(arms) - {BASELINE}, key=lambda arm: (arm.method, arm.epochs)):
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
