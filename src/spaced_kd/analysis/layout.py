"""The layout of the paper's tables: our cells, the paper's own numbers below them, and the differences.

A table has a line for each dataset, network and further setting, once with our numbers, once with the paper's and once
with their difference, and a column for each method. Where the paper sets networks side by side, they are below each
other here, so that networks that the paper does not have fit in as well.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from pandas import DataFrame, Series

from spaced_kd.analysis import human_names
from spaced_kd.analysis.arms import BASELINE, Arm, Contrast
from spaced_kd.analysis.cells import NOTHING, Cell, difference, summary
from spaced_kd.analysis.queries import by_seed, ours, present, require, seeds, several_recipes, where
from spaced_kd.analysis.statistics import shared_seeds
from spaced_kd.config.labels import Label
from spaced_kd.utils.errors import UserError

NOT_RUN = "not run"
NOT_AVAILABLE = "not available"
MEASURED = ("corruption", "severity", "epsilon")  # keys of a measurement, not of a run
MARKS = "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ"  # of footnotes
LEGEND = (
    "In brackets is the 95 % interval of a mean difference: a paired t interval over seeds. The line ours − paper takes"
    " the paper's number as exact. Not run: the study has no such run. Not available: the paper's number is in none of"
    " the sources at hand."
)


def layout(
    rows: DataFrame,
    table: str,
    columns: Sequence[Arm | Contrast],
    filters: dict[str, Any],
    *,
    keys: tuple[str, ...] = ("dataset", "network"),
    below: Arm | None = None,
    style: str = ".2f",
) -> DataFrame:
    """A table: `keys`, source (ours, paper), and one column of cells for each of `columns` that the study has.

    Its `attrs["notes"]` are the notes below it: pairs of a mark, which cells carry, and a text.

    Args:
        rows: tidy rows, ours and the paper's.
        table: name of the table, for the paper's rows and for messages.
        columns: arms and contrasts, in order.
        filters: column -> value, or tuple of values, of our rows to use; `evaluation` is required.
        keys: columns that identify a line, outermost first; with `teacher`, the students of other networks are shown.
        below: adds a line below ours, with the difference of every column to this arm.
        style: format of a number.

    Raises:
        UserError: the study has no run with KD for this table, or two values for one cell, or the paper's numbers have
            a cell that the table lacks.
    """
    arms = [arm for column in columns for arm in _arms(column)]
    paper = where(rows, source="paper", table=table)
    _check_cells(paper, table, columns)
    other_teachers = "teacher" in keys
    asked = ours(rows, arms, filters["evaluation"], other_teachers=other_teachers)
    found = where(asked, **filters)
    if several_recipes(asked):
        keys = (*keys, "recipe")
    # a missing evaluation has no settings, so it makes a line only if lines are identified by runs
    placed = found if set(keys) & set(MEASURED) else asked
    require(placed, table, arms, filters, " and another teacher" if other_teachers else "")
    columns = [column for column in columns if present(asked).issuperset(_arms(column))]
    notes: dict[str, str] = {}  # text -> mark
    places = [_places(frame, keys) for frame in (placed[placed["method"] != BASELINE.method], paper)]
    lines = []
    for place in sorted(set().union(*places), key=_order(rows, table, keys)):
        head = dict(zip(keys, place, strict=True))
        runs, values = _at(asked, {key: head[key] for key in keys if key not in MEASURED}), _at(found, head)
        has_ours, has_paper = (place in each for each in places)
        if has_ours or NOTHING not in place:  # if the paper does not state a key, ours has a line of its own
            lines.append(head | {"source": "ours"} | {c.name: _cell(c, values, runs, style) for c in columns})
        if below and has_ours:
            changes = {c.name: _cell(Contrast(c, below), values, runs, style) for c in columns if c != below}
            lines.append(head | {"source": f"ours − {below.name}"} | changes)
        if has_paper:
            lines += _of_paper(head, columns, values if has_ours else None, _at(paper, head), style, notes)
        elif paper.empty and _is_the_papers(rows, head):
            lines.append(head | {"source": "paper"} | {c.name: NOT_AVAILABLE for c in columns})
    drawn = DataFrame(lines, columns=[*keys, "source", *(c.name for c in columns)]).fillna(NOTHING)
    recipes = [] if "recipe" in keys else _recipes(asked)
    drawn.attrs["notes"] = [("", text) for text in (LEGEND, *recipes)] + [(mark, text) for text, mark in notes.items()]
    return drawn


def _of_paper(
    head: dict[str, str],
    columns: Sequence[Arm | Contrast],
    values: DataFrame | None,
    paper: DataFrame,
    style: str,
    notes: dict[str, str],
) -> list[dict[str, Any]]:
    """The paper's line of a place and, where we have `values`, the line of their differences; `notes` grow."""
    lines = [head | {"source": "paper"} | {c.name: _paper_cell(c, paper, style, notes) for c in columns}]
    if values is not None:
        off = {c.name: _off(c, values, paper, style) for c in columns}
        lines.append(head | {"source": "ours − paper"} | off)
    return lines


def _recipes(rows: DataFrame) -> list[str]:
    """Notes on the recipes of our runs, below a table without a column for them."""
    found = rows[["recipe", "dataset", "network"]].drop_duplicates()
    return [
        f"Ours with {human_names.recipe_text(recipe)}: {'; '.join(map(_place_name, group.itertuples()))}."
        for recipe, group in found.groupby("recipe", sort=False)
        if recipe
    ]


def _place_name(row: Any) -> str:
    return f"{human_names.plugin_name(row.dataset)}, {human_names.plugin_name(row.network)}"


def _check_cells(paper: DataFrame, table: str, columns: Sequence[Arm | Contrast]) -> None:
    """UserError for a number of the paper that no column of its table would show."""
    shown = {(c, "accuracy") if isinstance(c, Arm) else (c.after, "delta") for c in columns}
    for row in paper.itertuples():
        if (Arm(row.method, row.interval), row.metric) not in shown:
            cell = " ".join(filter(None, [row.metric, row.dataset, row.network, row.method, row.interval]))
            raise UserError(f"the reference has a number for a cell that {table} has not: {cell}: correct its row")


def _is_the_papers(rows: DataFrame, head: dict[str, str]) -> bool:
    """Whether any table of the paper has the line's dataset and network."""
    paper = where(rows, source="paper")
    return all(head[key] in set(paper[key]) for key in ("dataset", "network") if key in head)


def _arms(column: Arm | Contrast) -> tuple[Arm, ...]:
    return (column,) if isinstance(column, Arm) else tuple(column)


def _cell(column: Arm | Contrast, values: DataFrame, runs: DataFrame, style: str) -> Cell | str:
    """A cell of ours from `values`; `runs` give the expected seeds."""
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


def _paper_cell(column: Arm | Contrast, rows: DataFrame, style: str, notes: dict[str, str]) -> Cell | str:
    row = _paper_row(column, rows)
    if row.empty:
        return NOTHING
    parts = filter(None, row["note"].item().split("; "))
    marks = "".join(notes.setdefault(note, MARKS[len(notes)]) for note in parts)
    return Cell(row["value"].item(), style=style, sign="" if isinstance(column, Arm) else "+", remark=marks)


def _off(column: Arm | Contrast, values: DataFrame, paper: DataFrame, style: str) -> Cell | str:
    """Our mean minus the paper's number, with its interval."""
    row, mine = _paper_row(column, paper), _values(column, values)
    if row.empty or mine.empty:
        return NOTHING
    off = difference(mine - row["value"].item(), len(mine), style)
    return replace(off, sd=math.nan, n=None)  # those of our own line, two lines above


def _places(rows: DataFrame, keys: Sequence[str]) -> set[tuple[str, ...]]:
    return set(zip(*(rows[key].map(_text) for key in keys), strict=True))


def _at(rows: DataFrame, head: dict[str, str]) -> DataFrame:
    for key, text in head.items():
        rows = rows[rows[key].map(_text) == text]
    return rows


def _text(value: str | float) -> str:
    """The text of a key in a table: severity 3.0 is "3"."""
    if isinstance(value, str):
        return value or NOTHING
    return NOTHING if value != value else f"{value:g}"


def _order(
    rows: DataFrame, table: str, keys: Sequence[str]
) -> Callable[[tuple[str, ...]], list[tuple[int, float, str]]]:
    """Sort key of places: numbers by size; names as the paper has them, first in this table; other names before."""
    frames = where(rows, source="paper", table=table), where(rows, source="paper")
    names = {key: list(dict.fromkeys(_text(value) for frame in frames for value in frame[key])) for key in keys}

    def rank(key: str, text: str) -> tuple[int, float, str]:
        try:
            return 0, float(text), ""
        except ValueError:
            plain = Label.read(text).name
            return 1, names[key].index(plain) if plain in names[key] else -1, text

    return lambda place: [rank(key, text) for key, text in zip(keys, place, strict=True)]
