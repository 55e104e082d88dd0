"""Rows of a study as tables and figures ask for them: by column, by arm, by seed."""

from collections.abc import Collection
from typing import Any

import numpy as np
from pandas import DataFrame, Series

from spaced_kd.analysis.arms import BASELINE, Arm
from spaced_kd.utils.errors import UserError

# of a protocol, in a recipe
SWITCHES = ("augmentation=autoaugment_cutout", "batch_norm", "clock", "initial_weights", "standardisation")
DRAWN = ("order_seed", "augmentation_seed")  # words of a recipe that draw one thing anew


def where(rows: DataFrame, **keep: Any) -> DataFrame:
    """Rows whose columns have the given values; a tuple gives several values to choose from."""
    places = np.arange(len(rows))  # numbers of rows: a frame for each column takes much longer
    for column, values in keep.items():
        own = rows[column].to_numpy()[places]
        if isinstance(values, str) and own.dtype == object:
            found = own == values  # most calls: what pandas does for several values takes ten times as long
        else:
            found = Series(own).isin(values if isinstance(values, tuple) else (values,)).to_numpy()
        places = places[found]
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


def several_recipes(rows: DataFrame) -> bool:
    """Whether some network was trained on some dataset by more than one recipe, so that it must be told which."""
    return bool((rows.groupby(["dataset", "network"])["recipe"].nunique() > 1).any())


def paper_changes(rows: DataFrame, after: Arm, before: Arm, table: str) -> Series:
    """The paper's differences between two arms, from the accuracies in a table, by dataset and network."""
    rows = where(rows, source="paper", table=table, metric="accuracy").set_index(["dataset", "network"])
    first, second = (where(rows, method=arm.method, interval=arm.interval)["value"] for arm in (after, before))
    return (first - second).dropna()


class MissingRunsError(UserError):
    """A study has no run for a table or figure."""


def require(rows: DataFrame, name: str, arms: Collection[Arm], keep: dict[str, Any], beside: str = "") -> None:
    """MissingRunsError, which says what runs a table or figure needs, if there is none with KD among the rows."""
    if not present(rows) - {BASELINE}:
        raise MissingRunsError(
            f"{name} needs {_needed(arms, keep)}{beside}: add them to the study, or leave {name} out"
        )


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
