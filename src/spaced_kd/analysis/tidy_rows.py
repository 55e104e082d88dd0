"""Tidy rows: every number of a study and of the paper, one per row, with the columns that identify it."""

import logging
import warnings
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import pandas as pd
from pandas import DataFrame, Series

from spaced_kd.config.labels import Recipe
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import read_json, write_safely

log = logging.getLogger(__name__)

COLUMNS = (
    *("source", "study", "run", "dataset", "network", "teacher", "method", "interval", "seed", "protocol", "commit"),
    *("evaluation", "metric", "value", "recipe", "selection", "epoch", "states"),
    *("sigma", "draw", "probes", "stderr", "corruption", "severity", "epsilon", "steps"),
    *("target", "temperature", "teacher_epoch"),
    *("machine", "student_steps"),  # kind of machine; training steps
    # seeds listed before the first run; "yes" for a run that no arm of the study asks for, but a student's teacher is
    *("planned", "only_teacher"),
    *("table", "note"),  # of the paper's numbers
)
NUMBERS = (
    *("seed", "value", "epoch", "states", "sigma", "draw", "probes", "stderr", "severity", "epsilon", "steps"),
    *("temperature", "teacher_epoch", "student_steps"),
)
OF_STUDY = ("study", "planned", "only_teacher")  # columns in which rows of one run differ between studies
TEXTS = tuple(column for column in COLUMNS if column not in NUMBERS)
# columns without which a file does not contain rows of runs
NEEDED = ("source", "study", "run", "dataset", "network", "method", "interval", "seed", "commit")
NEEDED += ("evaluation", "metric", "value", "recipe")


def _trained(description: dict[str, Any]) -> dict[str, Any]:
    """Kind of machine and training steps of the student, if a run's description contains them."""
    provenance, turns = description.get("provenance") or {}, description.get("turns") or {}
    machine = provenance.get("machine") or provenance.get("accelerator") or ""
    steps = turns.get("student", turns.get("teacher"))  # a baseline has one learner
    return {"machine": machine} | ({"student_steps": steps} if steps is not None else {})


def join(*frames: DataFrame) -> DataFrame:
    """Rows of several frames in the order of `COLUMNS`, then further settings; an empty text is "", not NaN."""
    rows = pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)
    rows = rows.reindex(columns=[*COLUMNS, *sorted(set(rows) - set(COLUMNS))])
    rows = rows.astype(dict.fromkeys(NUMBERS, float) | dict.fromkeys(TEXTS, object))
    return rows.fillna(dict.fromkeys(rows.select_dtypes(object), ""))


def write(rows: DataFrame, path: Path) -> None:
    """Write rows as CSV that `read` restores exactly."""
    numbers = rows[[column for column in NUMBERS if column != "value"]]
    whole = numbers.columns[numbers.apply(lambda column: (column.dropna() % 1 == 0).all())]
    # as Int64, seed 3 is written "3" and not "3.0" even where other rows have no seed
    write_safely(path, rows.astype(dict.fromkeys(whole, "Int64")).to_csv(index=False, lineterminator="\n").encode())


def read(*paths: Path) -> DataFrame:
    """Rows as `write` wrote them, of one study or of several that may share runs.

    Raises:
        UserError: names a file without rows, or a run whose rows name no commit.
    """
    frames = [_described(join(read_csv(path, NEEDED)), path.with_name("runs.json")) for path in paths]
    for path, rows in zip(paths, frames, strict=True):
        nameless = rows[(rows["source"] == "ours") & (rows["metric"] != "missing") & (rows["commit"] == "")]
        if len(nameless):
            run = nameless["run"].iloc[0]
            raise UserError(f"{path}: rows of run {run!r} name no commit: collect them again")
    if not frames:
        return join(DataFrame())
    planned = _planned(frames)
    asked = {run for rows in frames for run in rows.loc[rows["only_teacher"] == "", "run"]}
    rows = reduce(_merge_studies, frames)
    return rows.assign(
        planned=[planned.get(run, "") for run in rows["run"]],
        only_teacher=["" if run in asked else "yes" for run in rows["run"]],
    )


def _described(rows: DataFrame, path: Path) -> DataFrame:
    """Rows completed by kind of machine and steps from their runs' descriptions, if the rows lack them."""
    lacking = set(rows.loc[(rows["source"] == "ours") & (rows["machine"] == ""), "run"])
    if not lacking or not path.exists():
        return rows
    known = {run["id"]: _trained(run) for run in read_json(path, list) if run.get("id") in lacking}
    for column in ("machine", "student_steps"):
        found = rows["run"].map({run: trained[column] for run, trained in known.items() if column in trained})
        rows[column] = found.where(found.notna(), rows[column])
    return join(rows)


def _planned(frames: list[DataFrame]) -> dict[str, str]:
    """Run -> seeds planned for its arm in all studies that contain it."""
    found: dict[str, set[int]] = {}
    for rows in frames:
        for run, planned in rows.loc[rows["planned"] != "", ["run", "planned"]].drop_duplicates().to_numpy():
            found.setdefault(run, set()).update(map(int, planned.split()))
    return {run: " ".join(map(str, sorted(seeds))) for run, seeds in found.items()}


def _merge_studies(older: DataFrame, newer: DataFrame) -> DataFrame:
    """Rows of several studies; if a run was trained on two kinds of machines, those of the first study are used."""
    if others := other_machines(older, newer):
        run, machine, first = others[0]
        log.warning(
            "%s was trained on %s and on %s: the first one's rows are kept%s",
            *(run, first, machine, f" (and so of {len(others) - 1} more)" if len(others) > 1 else ""),
        )
    return merge(older, newer[~newer["run"].isin([run for run, *_ in others])])


def other_machines(older: DataFrame, newer: DataFrame) -> list[tuple[str, str, str]]:
    """Runs of both that were trained on different known kinds of machines: run, the newer kind, the older."""
    kinds = [
        dict(rows.loc[rows["machine"] != "", ["run", "machine"]].drop_duplicates().to_numpy())
        for rows in (older, newer)
    ]
    return [(run, kind, kinds[0][run]) for run, kind in kinds[1].items() if kinds[0].get(run, kind) != kind]


def merge(older: DataFrame, newer: DataFrame) -> DataFrame:
    """Rows of both; if both have an evaluation of a run, the newer rows are used, except `missing` ones."""
    old, new = (Series(zip(rows["run"], rows["evaluation"], strict=True), rows.index) for rows in (older, newer))
    there = set(old[older["metric"] != "missing"])
    newer = newer[(newer["metric"] != "missing") | ~new.isin(there)]
    return join(older[~old.isin(set(new[newer.index]))], newer)


def beside(ours: DataFrame, paper: DataFrame) -> DataFrame:
    """Our rows and the paper's together, from which tables, figures and claims are computed.

    A run that is the same under several protocols, such as a run without KD, is repeated in the settings of each
    protocol that has runs of its own there, with any number of epochs.
    """
    settings = {recipe: str(Recipe.read(recipe).without(("protocol", "epochs"))) for recipe in ours["recipe"].unique()}
    ours = ours.assign(setting=ours["recipe"].map(settings))
    frames, shared = [ours], ["dataset", "network", "setting", "evaluation"]
    named = ours["recipe"].str.extract(r"(?:^| )protocol=(\S+)", expand=False)
    for name, theirs in ours[shared].groupby(named):
        others = ours[(named != name) & ours["protocol"].str.split().map(lambda names, name=name: name in names)]
        there = others.merge(theirs.drop_duplicates())
        frames.append(there.assign(recipe=[str(Recipe.read(recipe).under(name)) for recipe in there["recipe"]]))
    return join(join(*frames).drop(columns="setting"), paper)


def read_csv(path: Path, needed: Sequence[str]) -> DataFrame:
    """A file's rows; UserError if it lacks `needed` columns, or a line has too many fields."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a line with more fields than the first
            rows = pd.read_csv(
                path,
                dtype=dict.fromkeys(TEXTS, str),  # commit 12e4567 is not a number, nor is interval "0"
                keep_default_na=False,  # a text may be "NA"; empty becomes NaN, and is "" again after `join`
                na_values=[""],
                index_col=False,  # else the first field of such a line would become its index
                float_precision="round_trip",
                encoding="utf-8",
            )
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: make it first, or name another file") from None
    except ValueError as error:
        raise UserError(f"{path} is not a table of rows ({error}): make it again") from None
    except pd.errors.ParserWarning:
        raise UserError(
            f"{path} is not a table of rows: a line has more fields than the first: make it again"
        ) from None
    if missing := [column for column in needed if column not in rows]:
        raise UserError(
            f"{path} is not a table of rows: it has no column {missing[0]}, with commas between columns: make it again,"
            " or name another file"
        )
    for column in rows.columns.intersection(NUMBERS):
        wrong = pd.to_numeric(rows[column], errors="coerce").isna() & rows[column].notna()
        if column == "value":
            expected = rows["source"] == "ours" if "source" in rows else rows["metric"].notna()
            wrong |= rows[column].isna() & expected & (rows["metric"] != "missing")
        if wrong.any():
            line, value = wrong.idxmax() + 2, rows[column][wrong.idxmax()]
            raise UserError(f"{path}: line {line} has the {column} {value}, which is not a number: make it again")
    return rows
