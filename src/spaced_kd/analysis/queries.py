"""Selections of a study's rows for tables and figures: by column, by arm, by seed."""

from collections.abc import Collection
from typing import Any

import numpy as np
from pandas import DataFrame, Series

from spaced_kd.analysis.arms import BASELINE, Arm
from spaced_kd.utils.errors import UserError

# switches of a protocol that a recipe contains
SWITCHES = ("augmentation=autoaugment_cutout", "batch_norm", "clock", "initial_weights", "standardisation")
DRAWN = ("order_seed", "augmentation_seed")  # settings of a recipe that redraw only the order or the augmentation


def where(rows: DataFrame, **filters: Any) -> DataFrame:
    """Rows whose columns have the given values; a tuple lists alternatives."""
    positions = np.arange(len(rows))  # of rows: selecting a frame for each column takes much longer
    for column, values in filters.items():
        own = rows[column].to_numpy()[positions]
        if isinstance(values, str) and own.dtype == object:
            found = own == values  # most calls; `isin` takes ten times as long
        else:
            found = Series(own).isin(values if isinstance(values, tuple) else (values,)).to_numpy()
        positions = positions[found]
    return rows.iloc[positions]


def present(rows: DataFrame) -> set[Arm]:
    """Arms of the rows, missing ones included."""
    return set(map(Arm, rows["method"], rows["interval"]))


def seeds(rows: DataFrame, arm: Arm) -> set[float]:
    """Seeds of an arm, missing ones included."""
    return set(where(rows, method=arm.method, interval=arm.interval)["seed"])


def by_seed(rows: DataFrame, arm: Arm) -> Series:
    """The one value of each seed of an arm; UserError if a seed has two."""
    rows = where(rows, method=arm.method, interval=arm.interval)
    if (twice := rows["seed"].duplicated(keep=False)).any():
        runs = ", ".join(dict.fromkeys(rows.loc[twice, "run"]))
        raise UserError(f"{arm.name} has several values for one seed and cell, from {runs}: leave all but one out")
    return rows.set_index("seed")["value"]


def ours(rows: DataFrame, arms: Collection[Arm], evaluation: str, *, other_teachers: bool = False) -> DataFrame:
    """Our rows of an evaluation for some arms, missing ones included; the teacher is the same network, or another."""
    rows = seeded(where(rows, source="ours", evaluation=evaluation))
    rows = rows[(rows["teacher"] != rows["network"]) == other_teachers]
    named = [arm in arms for arm in map(Arm, rows["method"], rows["interval"])]
    return rows[np.array(named, dtype=bool)]


def seeded(rows: DataFrame) -> DataFrame:
    """Rows without the runs that redraw only the order or the augmentation: those are repeats of one seed."""
    return rows[~rows["recipe"].str.contains("|".join(f"{word}=" for word in DRAWN))]


def plain(rows: DataFrame) -> DataFrame:
    """Rows of runs whose recipe has no switch of a protocol and redraws nothing."""
    return rows[~rows["recipe"].str.contains("|".join((*SWITCHES, *DRAWN)))]


def several_recipes(rows: DataFrame) -> bool:
    """Whether some network was trained on some dataset by more than one recipe, which a table then has to name."""
    return bool((rows.groupby(["dataset", "network"])["recipe"].nunique() > 1).any())


def paper_changes(rows: DataFrame, after: Arm, before: Arm, table: str) -> Series:
    """The paper's differences between two arms, from the accuracies in a table, by dataset and network."""
    rows = where(rows, source="paper", table=table, metric="accuracy").set_index(["dataset", "network"])
    first, second = (where(rows, method=arm.method, interval=arm.interval)["value"] for arm in (after, before))
    return (first - second).dropna()


class MissingRunsError(UserError):
    """A study has no run for a table or figure."""


def require(rows: DataFrame, name: str, arms: Collection[Arm], filters: dict[str, Any], beside: str = "") -> None:
    """MissingRunsError, which names the runs that a table or figure needs, if no run with KD is among the rows."""
    if not present(rows) - {BASELINE}:
        raise MissingRunsError(
            f"{name} needs {_needed(arms, filters)}{beside}: add them to the study, or leave {name} out"
        )


def _needed(arms: Collection[Arm], filters: dict[str, Any]) -> str:
    """The runs and evaluations that a table needs, as text."""
    intervals: dict[str, list[str]] = {}
    for arm in sorted(set(arms) - {BASELINE}, key=lambda arm: (arm.method, arm.epochs)):
        intervals.setdefault(arm.method, []).append(arm.interval)
    runs = "runs of " + ", and of ".join(f"{name} with interval {' and '.join(s)}" for name, s in intervals.items())
    if filters["evaluation"] == "accuracy":
        return runs
    settings = [
        f"{key} {' and '.join(f'{value:g}' for value in values)}"
        for key, values in filters.items()
        if isinstance(values, tuple)
    ]
    return " with ".join([f"{runs}, and their evaluation {filters['evaluation']}", *settings])
