"""Cells of tables: a mean with deviation, number of seeds and interval. Tables compute cells and format them last."""

import math
from dataclasses import dataclass

from pandas import DataFrame, Series

from spaced_kd.analysis.statistics import ALPHA, paired_interval

NOTHING = "–"
NUMBERS = ("mean", "sd", "n", "planned", "low", "high", "level")  # columns of a CSV file, for each column of cells


@dataclass(frozen=True)
class Cell:
    """A number of a table; `str` gives its text, e.g. "+1.00 ± 0.50 (3), [-0.24, +2.24]".

    Unknown numbers are NaN or None, and are not shown.
    """

    mean: float
    sd: float = math.nan  # of a sample of seeds
    n: int | None = None  # number of seeds; None for a stated number, such as the paper's
    planned: int | None = None  # expected number of seeds
    low: float = math.nan  # interval of the mean
    high: float = math.nan
    level: float = math.nan  # of the interval, e.g. 0.95
    style: str = ".2f"
    sign: str = ""  # "+" for differences
    remark: str = ""  # text that follows the numbers

    def __str__(self) -> str:
        """The cell's text; "–" stands for a mean of no seeds."""
        text = NOTHING if math.isnan(self.mean) else format(self.mean, self.sign + self.style)
        if not math.isnan(self.sd):
            text += f" ± {self.sd:{self.style}}"
        if self.n is not None:
            text += f" ({self.n})" if self.n == self.planned else f" ({self.n} of {self.planned} seeds)"
        if not math.isnan(self.low):
            text += f", [{self.low:+{self.style}}, {self.high:+{self.style}}]"
        return text + self.remark


def summary(values: Series, planned: int, style: str = ".2f", sign: str = "") -> Cell:
    """Mean and deviation of one value per seed; `planned`: expected number of seeds."""
    mean = float(values.mean()) if len(values) else math.nan
    sd = float(values.std(ddof=1)) if len(values) > 1 else math.nan
    return Cell(mean, sd, len(values), planned, style=style, sign=sign)


def difference(changes: Series, planned: int, style: str = ".2f", alpha: float = ALPHA) -> Cell:
    """Mean of paired differences, with its t interval of level 1 - `alpha`; a single seed has no interval."""
    found = summary(changes, planned, style)
    low, high = paired_interval(changes, alpha) if len(changes) > 1 else (math.nan, math.nan)
    level = 1 - alpha if len(changes) > 1 else math.nan
    return Cell(found.mean, found.sd, found.n, planned, low, high, level, style, sign="+")


def texts(table: DataFrame) -> DataFrame:
    """A table with the text of each cell."""
    return table.map(str)


def with_numbers(table: DataFrame) -> DataFrame:
    """A table of text with the numbers of each column of cells in further columns: "online KD", "online KD: mean"."""
    columns = {}
    for name in table:
        cells = [cell if isinstance(cell, Cell) else None for cell in table[name]]
        columns[name] = table[name].map(str)
        for number in NUMBERS:
            found = Series([getattr(cell, number, None) for cell in cells], table.index, dtype=float)
            if found.notna().any():
                columns[f"{name}: {number}"] = found.astype("Int64") if number in ("n", "planned") else found
    return DataFrame(columns, index=table.index)
