"""The paper's claims: each a sentence, the comparison that decides it, and the paper's own numbers for it.

A claim compares two arms (method, interval, epochs as a multiple of the setting's) by one measure, paired over seeds.
It may compare two differences instead (`less`), each of an arm to a reference, in one reading or in two.
Its kind is the paper's statement on the difference: `greater`; `equivalent`, within a margin of 0; or `not_greater`,
less than the margin above 0.
`load.py` reads claims, `verdicts.py` judges them.
"""

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from pandas import DataFrame, Series

from spaced_kd.analysis.arms import Arm
from spaced_kd.analysis.queries import where
from spaced_kd.config.labels import CHAIN, Recipe

KINDS = ("greater", "equivalent", "not_greater")
MAIN = "main claims"  # the family of those that the overview shows
COUNTED = ("training_flops", "training_flops_with_teacher")  # metrics that are counted, not sampled
PRIMARY = "primary"  # selection: the mean over the tail of the training if both arms have it, else the last epoch
UNITS = ("pp", "%")  # a difference in percentage points; a ratio, by its change in percent
POSITIVE = "positive"  # as a filter: every value above 0


class Row(NamedTuple):
    """A row of one of the paper's tables."""

    dataset: str
    network: str
    teacher: str  # of TAKD the chain, "resnet101 > resnet50"

    @property
    def teachers(self) -> list[str]:
        """The networks before the student, the first one first."""
        return self.teacher.split(CHAIN)


class Setting(NamedTuple):
    """The setting of a comparison; `shared`: settings of the method that both arms have beside the claim's."""

    dataset: str
    network: str
    teacher: str
    recipe: str = ""
    shared: str = ""

    @property
    def scale(self) -> tuple[str, str, str, str]:
        """Dataset, networks and epochs, which settings of one family share; recipe and reading may differ otherwise."""
        return (*self[:3], Recipe.read(self.recipe).settings.get("epochs", ""))

    @property
    def reading(self) -> str:
        """The reading of the paper (protocol) that its runs follow."""
        return Recipe.read(self.recipe).reading

    @property
    def name(self) -> str:
        """Display name, e.g. "digits, resnet_mini, epochs=12 lr=0.02, protocol textbook, alpha=0.5"."""
        teacher = f"teacher {self.teacher}" if self.teacher != self.network else ""
        recipe = str(Recipe(Recipe.read(self.recipe).telling).without(("protocol",)))
        protocol = f"protocol {self.reading}"
        return ", ".join(filter(None, [self.dataset, self.network, teacher, recipe, protocol, self.shared]))


class Measure(NamedTuple):
    """One number of each run: the mean of the rows that pass `filters`, minus the mean of those that pass `less`."""

    evaluation: str
    metric: str
    filters: dict[str, Any]  # column -> values, or `positive`
    less: dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """One claim of the paper and what decides it."""

    id: str
    sentence: str
    place: str  # in the paper: its table, figure or section
    kind: str
    margin: float
    unit: str
    main: bool = False  # whether the overview shows it
    family: str = ""  # claims of one family are adjusted together
    margin_source: str = ""  # source of the margin; without one, a verdict shows how it depends on the margin
    after: Arm | None = None
    before: Arm | None = None
    less: tuple[Arm, Arm] | None = None  # of a contrast of differences: the references of `after` and of `before`
    measure_before: Measure | None = None  # of `before`, if it differs from that of `after`
    varies: dict[str, tuple[Any, ...]] = field(
        default_factory=dict
    )  # key of a recipe -> values: only settings with one of them
    readings: tuple[str, str] | None = None  # of a contrast: protocols of both differences, if they differ
    measure: Measure | None = None
    rows: tuple[Row, ...] = ()
    only_rows: bool = False  # whether small settings are left to another claim on the same arms
    paper: str = ""  # the table whose cells have the paper's difference
    needs: str = ""  # what must be built before the claim can be judged
    of: tuple["Claim", ...] = ()  # claims whose rows are summarised
    statistic: str = ""  # mean, min or max over them
    stated: float | None = None  # the number that the paper states for it

    @property
    def scaled_margin(self) -> float:
        """The margin on the scale of the differences: of a ratio, ln(1 + margin / 100)."""
        return math.log1p(self.margin / 100) if self.unit == "%" else self.margin

    @property
    def arms(self) -> tuple[Arm, Arm]:
        """The arms compared: `after` minus `before`."""
        assert self.after, self.id  # all claims have both, except summaries `of` others
        assert self.before, self.id
        return self.after, self.before

    @property
    def measured(self) -> Measure:
        """Its measure; summaries `of` other claims, and claims that need something unimplemented, have none."""
        assert self.measure, self.id
        return self.measure

    @property
    def counted(self) -> bool:
        """Whether it compares counts, which are not samples and need no test."""
        return self.measure is not None and self.measure.metric in COUNTED


class Sheet(NamedTuple):
    """A file of claims."""

    claims: list[Claim]
    recipes: dict[str, dict[str, Any]]  # the paper's, by network: what differs from the defaults

    @property
    def rows(self) -> set[Row]:
        """Rows of any of the paper's tables."""
        return {row for claim in self.claims for row in claim.rows}


def paper_range(claim: Claim, rows: DataFrame) -> list[float]:
    """The paper's own numbers for a claim, of all its rows; empty if they are not available."""
    if claim.stated is not None:
        return [claim.stated]
    if claim.needs:
        return []
    values = [paper_difference(claim, row, rows) for row in claim.rows]
    return [value for value in values if value is not None]


def paper_statistic(claim: Claim, rows: DataFrame) -> float:
    """The statistic of a summary over rows, computed from the cells of the paper's own tables."""
    return float(getattr(Series([value for part in claim.of for value in paper_range(part, rows)]), claim.statistic)())


def paper_difference(claim: Claim, row: Row, rows: DataFrame) -> float | None:
    """The paper's difference, from the cells of its table; a mean over corruptions and severities if it has some."""
    if not claim.paper or claim.less:
        return None
    rows = where(rows, source="paper", table=claim.paper, metric=claim.measured.metric, **row._asdict())
    rows = filtered(
        rows, {key: value for key, value in claim.measured.filters.items() if key in ("corruption", "severity")}
    )
    after, before = (where(rows, method=arm.method, interval=arm.interval)["value"].mean() for arm in claim.arms)
    return None if np.isnan(after - before) else round(float(after - before), 10)


def filtered(rows: DataFrame, filters: dict[str, Any]) -> DataFrame:
    """Rows that pass a measure's filters."""
    for column, values in filters.items():
        several = tuple(values) if isinstance(values, list) else values
        rows = rows[rows[column] > 0] if values == POSITIVE else where(rows, **{column: several})
    return rows
