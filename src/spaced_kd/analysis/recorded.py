"""Adds rows and runs of a study to those recorded before."""

import json
import re
from pathlib import Path
from typing import NamedTuple

from pandas import DataFrame, Series

from spaced_kd.analysis.tidy_rows import join, merge, other_machines, read, write
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import read_json, write_safely


class Recorded(NamedTuple):
    """Numbers of runs: in the folder now; trained again since they were recorded; of these, with the same bits.

    `apart`: accuracies after the last epoch of the others, in percentage points, less those recorded before.
    """

    runs: int
    again: int
    same: int
    apart: list[float]


def record(study: Path, into: Path) -> Recorded:
    """Add the finished runs of a study to those recorded in a folder.

    Raises:
        UserError: names a run that was not made from a clean commit, and so cannot be made again; a seed that is not
            planned; a run that is recorded from another kind of machine; two arms of a seed from two kinds.
    """
    rows, runs = read(study / "rows.csv"), read_json(study / "runs.json", list)
    rows = rows[rows["metric"] != "missing"]
    if rows.empty:
        raise UserError(f"{study / 'rows.csv'} has no finished run to record: train some, and collect them")
    for run, commit in rows[["run", "commit"]].itertuples(index=False):
        if not re.fullmatch("[0-9a-f]{40}", commit):
            raise UserError(f"{run} comes from commit {commit!r}, not from a clean one: commit, and train it again")
    known = [into / name for name in ("rows.csv", "runs.json")]
    older = read(*(path for path in known[:1] if path.exists()))
    _check_planned(rows, study / "rows.csv")
    _check_machines(older, rows)
    apart = _last(rows) - _last(older)
    rows = merge(older, rows)
    before = {run["id"]: run for run in (read_json(known[1], list) if known[1].exists() else [])}
    described = before | {run["id"]: run for run in runs}
    write(rows, known[0])
    write_safely(known[1], json.dumps(list(described.values()), indent=1).encode())
    pairs = [(before[run["id"]], run) for run in runs if run != before.get(run["id"], run)]
    others = [new["id"] for old, new in pairs if old.get("outputs") != new.get("outputs")]
    return Recorded(len(described), len(pairs), len(pairs) - len(others), [*apart.reindex(others).dropna()])


def _check_planned(rows: DataFrame, path: Path) -> None:
    """UserError for a seed that the study's plan, where it has one, does not list."""
    for run, seed, planned in rows.loc[rows["planned"] != "", ["run", "seed", "planned"]].drop_duplicates().to_numpy():
        if int(seed) not in map(int, planned.split()):
            raise UserError(
                f"{path}: {run} has seed {seed:g}, but planned are {planned}: a plan stands before the first run, so"
                " leave it out, or make it a study of its own"
            )


def _check_machines(older: DataFrame, newer: DataFrame) -> None:
    """UserError if a run, or another arm of its seed, is recorded from another kind of machine."""
    if others := other_machines(older, newer):
        run, machine, recorded = others[0]
        raise UserError(
            f"{run} is recorded from {recorded} and was trained again on {machine}: a repetition on another kind of"
            " machine is a study with seeds of its own"
        )
    runs = join(older, newer)
    runs = runs[(runs["source"] == "ours") & (runs["machine"] != "")].drop_duplicates("run")
    for (_, _, seed), arms in runs.groupby(["dataset", "network", "seed"]):
        if arms["machine"].nunique() > 1:
            one, other = arms.drop_duplicates("machine")[["run", "machine"]].to_numpy()[:2]
            raise UserError(
                f"seed {seed:g} is on two kinds of machines, {one[0]} on {one[1]} and {other[0]} on {other[1]}: train"
                " all arms of a seed on one kind"
            )


def _last(rows: DataFrame) -> Series:
    """Accuracy after the last epoch of each run."""
    found = rows[(rows["metric"] == "accuracy") & (rows["selection"] == "last")]
    return found.drop_duplicates("run").set_index("run")["value"]
