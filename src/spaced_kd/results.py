"""Tidy rows: every number of a study and of the paper, one per row, with all that tells it from the others."""

import json
import logging
import re
import warnings
from collections.abc import Callable, Sequence
from functools import cache, reduce
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas import DataFrame, Series

from spaced_kd import arrays, catalog
from spaced_kd.errors import UserError
from spaced_kd.files import Places, altered, damaged, read_json, rows_digest, write_safely
from spaced_kd.spec import CHAIN, TEACHING, TEXTBOOK, RunSpec, compare, from_words, protocols_of
from spaced_kd.study import Study

log = logging.getLogger(__name__)

COLUMNS = (
    *("source", "study", "run", "dataset", "network", "teacher", "method", "interval", "seed", "protocol", "commit"),
    *("evaluation", "metric", "value", "recipe", "selection", "epoch", "states"),
    *("sigma", "draw", "probes", "stderr", "corruption", "severity", "epsilon", "steps"),
    *("target", "temperature", "teacher_epoch"),
    *("machine", "student_steps", "planned"),  # kind of machine; training steps; seeds listed before the first run
    *("table", "note"),  # of the paper's numbers
)
NUMBERS = (
    *("seed", "value", "epoch", "states", "sigma", "draw", "probes", "stderr", "severity", "epsilon", "steps"),
    *("temperature", "teacher_epoch", "student_steps"),
)
TEXTS = tuple(column for column in COLUMNS if column not in NUMBERS)
# without which a file has no rows of runs
NEEDED = ("source", "study", "run", "dataset", "network", "method", "interval", "seed", "commit")
NEEDED += ("evaluation", "metric", "value", "recipe")
# what of a run is not in the column recipe
NAMED = ("dataset", "network", "teacher", "assistant", "method", "seed", "interval")
CELL = ("dataset", "network", "teacher", "method", "interval", "corruption", "severity")  # of a table of the paper
CONSTANT_LEAD = "constant_lead"  # a method in the file of the paper's numbers; here a setting of online KD
MIXED = "mixed"  # protocol of a run that has some switches of one, and some of another
MOST_SHOWN = 5  # of what is missing
SECONDS = ("wall_seconds", "cpu_seconds", "device_seconds")  # of a run alone, without those of its teacher's own run
TRAINED = ("commit", "machine", "student_steps")  # what rows have of a training as such
JOULES = ("energy_joules", "package_energy_joules")  # of its own GPU; of the processors, whatever else ran on them
COSTS = tuple(f"{name}{more}" for name in (*SECONDS, *JOULES, "training_flops") for more in ("", "_with_teacher"))


def collect(study: Study, results: Path) -> DataFrame:
    """Rows of all runs of a study: accuracies, and the evaluations that it asks for.

    What is not there yet is said in the log, and has a row of metric `missing` without a value, so that no table takes
    a mean over fewer seeds without saying so. UserError where a run's files are not those that it wrote.
    """
    rows, missing = [], []
    for run in study.runs:
        asked = {name: study.evaluations[name] for name in study.evaluated.get(run.id, ())}
        found = of_run(run, study.name, results, asked)
        present = {row["evaluation"] for row in found}
        absent = [name for name in ("accuracy", *study.evaluated.get(run.id, ())) if name not in present]
        missing += [f"{name} of {run.id}" for name in absent]
        known = {key: found[0][key] for key in TRAINED if key in found[0]} if found else {"commit": ""}
        planned = {"planned": " ".join(map(str, study.planned.get(run.id, ())))}
        same = _identity(study.name, run) | known
        rows += [
            row | planned for row in [*found, *({"evaluation": name, "metric": "missing"} | same for name in absent)]
        ]
    if missing:
        shown = ", ".join(missing[:MOST_SHOWN]) + (", ..." if len(missing) > MOST_SHOWN else "")
        log.warning("missing in study %s: %d results: %s", study.name, len(missing), shown)
    return join(DataFrame(rows))


def of_run(run: RunSpec, study: str, results: Path, asked: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Rows of one run, with all that tells them from others; none where it is not finished.

    Args:
        run: the run.
        study: the study whose evaluations of it are meant.
        results: folder of all results.
        asked: the settings that the study has for each evaluation; None for whatever they were.
    """
    stored = _stored(run, Places(results).run(run))
    if not stored:
        return []
    evaluated = evaluation_rows(results / study / "evaluations" / f"{run.id}.json", stored["description"], asked)
    told = _costs(run, stored["description"], results) + _schedule(run, stored["description"])
    found = stored["rows"] + told + evaluated
    trained = {"commit": stored["commit"]} | _trained(stored["description"])
    return [row | _identity(study, run) | trained for row in found]


def _trained(description: dict[str, Any]) -> dict[str, Any]:
    """Kind of machine and training steps of the student, as far as a run's description has them."""
    provenance, turns = description.get("provenance") or {}, description.get("turns") or {}
    machine = provenance.get("machine") or provenance.get("accelerator") or ""
    steps = turns.get("student", turns.get("teacher"))  # a baseline has one learner
    return {"machine": machine} | ({"student_steps": steps} if steps is not None else {})


def descriptions(study: Study, results: Path) -> list[dict[str, Any]]:
    """Where the rows come from: of each finished run its description, with provenance, time and FLOPs."""
    paths = [Places(results).run(run) / "run.json" for run in study.runs]
    return [read_json(path, dict) for path in paths if path.exists()]


def times(runs: list[dict[str, Any]]) -> DataFrame:
    """What the trainings took: seconds of wall clock for each kind of run, and their sum in the last line."""
    kinds = [(*(run["labels"][key] for key in ("network", "method")), run["spec"]["interval"]) for run in runs]
    frame = DataFrame(kinds, columns=["network", "method", "interval"]).assign(
        seconds=[r["wall_seconds"] for r in runs]
    )
    lines = frame.groupby(["network", "method", "interval"], sort=False)["seconds"].agg(["count", "mean", "sum"])
    lines = lines.reset_index().rename(columns={"count": "runs", "mean": "seconds each", "sum": "seconds in all"})
    total = {"network": "all", "runs": len(runs), "seconds in all": frame["seconds"].sum()}
    return pd.concat([lines, DataFrame([total])], ignore_index=True).fillna("")


def correct_images(results: Path) -> Callable[[str], np.ndarray | None]:
    """Run id -> whether its network is right on each test image after the last epoch, (N,); None where files lack."""
    labels = cache(lambda path: arrays.read(path, remedy="prepare it again")[0]["test_labels"])

    def correct(run: str) -> np.ndarray | None:
        about = results / "runs" / run / "run.json"
        if not about.exists():
            return None
        data = Places(results).data(from_words(read_json(about, dict)["words"]))
        if not data.exists():
            return None
        said, _ = arrays.read(about.with_name("predictions.safetensors"), remedy="train the run again")
        return said["predictions"][-1] == labels(data)

    return correct


def reference(path: Path) -> DataFrame:
    """The paper's numbers, in percent and percentage points; a metric `delta...` is a difference that the paper states.

    Source: the text of arXiv 2502.06192 as submitted, read by OCR; `note` says where a cell was doubtful. Tab. 3, 4, 5
    and 7 are images there, and have no rows.

    Raises:
        UserError: there is no such file; a row whose cell does not exist, or a second one for a cell.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist: start in the repository's folder, or name it with --reference")
    rows = join(_read_csv(path, ("table", "metric", "value", *CELL)))
    _check_reference(rows, path)
    evaluation = rows["corruption"].map(lambda name: {"": "accuracy", "bim": "bim"}.get(name, "corruptions"))
    rows = rows.replace({"method": {CONSTANT_LEAD: "online_kd[lead=constant]"}})
    return rows.assign(source="paper", evaluation=evaluation, corruption=rows["corruption"].replace("bim", ""))


def _check_reference(rows: DataFrame, path: Path) -> None:
    """Each row is the one number of a cell that exists; whether a table has its column is for the table to say."""
    known = {
        "table": ["text", *catalog.names("tables")],
        "dataset": ["", *catalog.names("datasets")],
        "network": ["", *catalog.names("networks")],
        "teacher": ["", *catalog.names("networks")],
        "method": ["", CONSTANT_LEAD, *catalog.names("methods")],
        "corruption": ["", "bim", *catalog.defaults("evaluations", "corruptions")["names"]],
    }
    for column, names in known.items():
        if unknown := sorted(set(rows[column]) - set(names)):
            raise UserError(
                f"{path}: {column} {unknown[0]!r} does not exist: there is {', '.join(filter(None, names))}"
            )
    cells = rows[["table", "metric", *CELL]]
    if (twice := cells.duplicated()).any():
        cell = ", ".join(str(value) for value in cells[twice].iloc[0] if value == value and value != "")
        raise UserError(f"{path}: two numbers for one cell, {cell}: leave one of them out")


def join(*frames: DataFrame) -> DataFrame:
    """Rows of several frames in the order of `COLUMNS`, further settings behind; an empty text is "", not NaN."""
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
        UserError: names a file that has no rows, or a run whose rows do not say which commit they come from.
    """
    frames = [_described(join(_read_csv(path, NEEDED)), path.with_name("runs.json")) for path in paths]
    for path, rows in zip(paths, frames, strict=True):
        nameless = rows[(rows["source"] == "ours") & (rows["metric"] != "missing") & (rows["commit"] == "")]
        if len(nameless):
            run = nameless["run"].iloc[0]
            raise UserError(f"{path}: rows of run {run!r} do not say which commit they come from: collect them again")
    if not frames:
        return join(DataFrame())
    planned = _planned(frames)
    rows = reduce(_merge_studies, frames)
    return rows.assign(planned=[planned.get(run, "") for run in rows["run"]])


def _described(rows: DataFrame, path: Path) -> DataFrame:
    """Rows with what the descriptions of their runs beside them have of the training, where the rows lack it."""
    lacking = set(rows.loc[(rows["source"] == "ours") & (rows["machine"] == ""), "run"])
    if not lacking or not path.exists():
        return rows
    known = {run["id"]: _trained(run) for run in read_json(path, list) if run.get("id") in lacking}
    for column in ("machine", "student_steps"):
        found = rows["run"].map({run: trained[column] for run, trained in known.items() if column in trained})
        rows[column] = found.where(found.notna(), rows[column])
    return join(rows)


def _planned(frames: list[DataFrame]) -> dict[str, str]:
    """Run -> seeds planned for its arm, by all studies that have it."""
    found: dict[str, set[int]] = {}
    for rows in frames:
        for run, planned in rows.loc[rows["planned"] != "", ["run", "planned"]].drop_duplicates().to_numpy():
            found.setdefault(run, set()).update(map(int, planned.split()))
    return {run: " ".join(map(str, sorted(seeds))) for run, seeds in found.items()}


def _merge_studies(older: DataFrame, newer: DataFrame) -> DataFrame:
    """Rows of several studies; of a run that was trained on two kinds of machines, those of the first study named."""
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
    """Rows of both; of an evaluation of a run that both have the newer, but `missing` never replaces numbers."""
    old, new = (Series(zip(rows["run"], rows["evaluation"], strict=True), rows.index) for rows in (older, newer))
    there = set(old[older["metric"] != "missing"])
    newer = newer[(newer["metric"] != "missing") | ~new.isin(there)]
    return join(older[~old.isin(set(new[newer.index]))], newer)


class Recorded(NamedTuple):
    """Numbers of runs: in the folder now; trained again since they were recorded; of these, with the same bits.

    `apart`: accuracies after the last epoch of the others, in percentage points, less those recorded before.
    """

    runs: int
    again: int
    same: int
    apart: list[float]


def record(study: Path, into: Path) -> Recorded:
    """Keep what is finished of a study beside what is recorded in a folder already.

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
    """UserError where a run, or another arm of its seed, comes from another kind of machine than what is there."""
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


def _stored(run: RunSpec, folder: Path) -> dict[str, Any] | None:
    """Commit, accuracy rows and description of a finished run; None for one that is not finished."""
    path = folder / "run.json"
    if not path.exists():
        return None
    description = read_json(path, dict)
    if not isinstance(description.get("spec"), dict):
        raise UserError(f"{path} does not say what was trained: move {folder} away and train it again")
    compare(run, description["spec"], folder)
    provenance = description.get("provenance") or {}
    if not provenance.get("commit"):
        raise UserError(f"{path} does not say which commit it comes from: move {folder} away and train it again")
    if names := altered(folder, description.get("outputs", {})):
        raise UserError(
            f"{folder / names[0]} is not what the run wrote, by its checksum in run.json: move {folder} away and train"
            " it again"
        )
    rows = _read_rows(folder / "rows.json", evaluation="accuracy")
    if not rows:
        raise UserError(f"{folder} has no rows.json, but a run.json: move it away and train it again")
    return {
        "commit": provenance["commit"] + ("-dirty" if provenance.get("dirty") else ""),
        "rows": rows,
        "description": description,
    }


def evaluation_rows(
    path: Path, description: dict[str, Any], asked: dict[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Rows of a run's evaluations as `evaluate` left them; none where there is no file.

    UserError where they are of other weights, or of other settings than `asked`.
    """
    if not path.exists():
        return []
    content = read_json(path, dict)
    rows = _rows(path, content.get("rows"))
    if content.get("sha256") != rows_digest(content["rows"]):
        raise damaged(path, "its checksum does not match")
    if content.get("weights") != description.get("outputs", {}).get("weights.safetensors"):
        raise UserError(f"{path} is of other weights than the run has now: delete it and evaluate the run again")
    wanted = json.loads(json.dumps(asked or {}))  # as a file has them: a tuple is a list there
    for name, settings in content.get("settings", {}).items():
        if name in wanted and settings != wanted[name]:
            raise UserError(f"{path} has other settings of {name} than the study: delete it and evaluate again")
    return rows


def _costs(run: RunSpec, description: dict[str, Any], results: Path) -> list[dict[str, Any]]:
    """Rows of what a run has cost, as far as it was measured: seconds, joules, floating-point operations of training.

    `training_flops` are the run's own, over all who learnt in it. A student that read its teacher's stored states has
    not trained it; what ends in `_with_teacher` adds the teacher's run: what the student costs on its own.
    """
    costs, teacher = _measured(description), None
    if description.get("teacher_states") == "stored":
        path = Places(results).run(run.teacher_spec()) / "run.json"
        teacher = _measured(read_json(path, dict)) if path.exists() else {}
    for name, own in list(costs.items()):
        if teacher is None or name in teacher:
            costs[f"{name}_with_teacher"] = own + (teacher[name] if teacher else 0)
    return [{"evaluation": "cost", "metric": name, "value": float(value)} for name, value in costs.items()]


def _measured(description: dict[str, Any]) -> dict[str, float]:
    """What a run itself has cost, by the names of `COSTS`; what was not measured is left out."""
    flops = description.get("training_flops")
    found = {name: description.get(name) for name in (*SECONDS, *JOULES)}
    found["training_flops"] = sum(flops.values()) if flops else None
    return {name: value for name, value in found.items() if value is not None}


def _schedule(run: RunSpec, description: dict[str, Any]) -> list[dict[str, Any]]:
    """The mean interval in epochs, of a run whose method decided where blocks end."""
    if not (ends := description.get("block_ends")):
        return []
    return [{"evaluation": "schedule", "metric": "mean_interval", "value": run.epochs / len(ends)}]


def labels(run: RunSpec) -> dict[str, str]:
    """What a run's rows are found by: plug-ins and recipe by what differs from its protocol, which the recipe names.

    So the released code's online KD is `online_kd` with the recipe `protocol=released`; with some of its switches it is
    textbook's with those in its labels, and `protocol` says `mixed`.
    """
    followed = protocols_of(run)
    name, bare = next(iter(followed.items()), (MIXED, run))
    recipe = {key: value for key, value in bare.changed().items() if key.partition(".")[0] not in NAMED}
    if name not in (TEXTBOOK, MIXED):
        recipe["protocol"] = name
    return {
        "dataset": bare.label("dataset"),
        "network": bare.label("network"),
        "teacher": CHAIN.join(bare.label(role) for role in TEACHING if role == "teacher" or run.assistant),
        "method": bare.label("method"),
        "interval": "" if run.method == "baseline" else interval_name(run.interval),
        "protocol": " ".join(followed) or MIXED,
        "recipe": " ".join(f"{key}={recipe[key]}".replace(" ", "") for key in sorted(recipe)),
    }


def beside(ours: DataFrame, paper: DataFrame) -> DataFrame:
    """What tables, figures and claims are made from: our rows and the paper's.

    A run that several protocols leave the same, as those without KD, stands in the settings of each that has runs of
    its own there, of any number of epochs.
    """
    ours = ours.assign(setting=ours["recipe"].map(_without_protocol_and_epochs))
    frames, shared = [ours], ["dataset", "network", "setting", "evaluation"]
    named = ours["recipe"].str.extract(r"(?:^| )protocol=(\S+)", expand=False)
    for name, theirs in ours[shared].groupby(named):
        others = ours[(named != name) & ours["protocol"].str.split().map(lambda names, name=name: name in names)]
        there = others.merge(theirs.drop_duplicates())
        frames.append(there.assign(recipe=[_under(name, recipe) for recipe in there["recipe"]]))
    return join(join(*frames).drop(columns="setting"), paper)


def _without_protocol_and_epochs(recipe: str) -> str:
    return " ".join(word for word in recipe.split() if not word.startswith(("protocol=", "epochs=")))


def _under(protocol: str, recipe: str) -> str:
    """A recipe's words, with the name of a protocol among them."""
    words = [word for word in recipe.split() if not word.startswith("protocol=")]
    return " ".join(sorted([*words, f"protocol={protocol}"]))


def _identity(study: str, run: RunSpec) -> dict[str, Any]:
    return {"source": "ours", "study": study, "run": run.id, "seed": run.seed} | labels(run)


def interval_name(interval: float | str) -> str:
    """An interval as rows have it: "0", "1.5", "max"."""
    return interval if isinstance(interval, str) else f"{interval:g}"


def _read_rows(path: Path, **standard: str) -> list[dict[str, Any]]:
    """Rows of a JSON file, with what is the same for all; none where there is no file."""
    return _rows(path, read_json(path, list), **standard) if path.exists() else []


def _rows(path: Path, rows: Any, **standard: str) -> list[dict[str, Any]]:
    """Rows checked to have what every row needs."""
    try:
        rows = [standard | row | {"value": float(row["value"])} for row in rows]
    except (KeyError, TypeError, ValueError):
        raise damaged(path, "a row has no value") from None
    for row in rows:
        if missing := {"evaluation", "metric"} - set(row):
            raise damaged(path, f"a row has no {min(missing)}")
    return rows


def _read_csv(path: Path, needed: Sequence[str]) -> DataFrame:
    """A file's rows; UserError for one without the `needed` columns, or with a line of other fields than they."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # a line with more fields than the first
            rows = pd.read_csv(
                path,
                dtype=dict.fromkeys(TEXTS, str),  # commit 12e4567 is no number, and interval "0" neither
                keep_default_na=False,  # a text may be "NA"; empty becomes NaN, and is "" again after `join`
                na_values=[""],
                index_col=False,  # else such a line's first field would become its name, and all others shift
                float_precision="round_trip",
                encoding="utf-8",
            )
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: make it first, or name another file") from None
    except ValueError as error:
        raise UserError(f"{path} is no table of rows ({error}): make it again") from None
    except pd.errors.ParserWarning:
        raise UserError(f"{path} is no table of rows: a line has more fields than the first: make it again") from None
    if missing := [column for column in needed if column not in rows]:
        raise UserError(
            f"{path} is no table of rows: it has no column {missing[0]}, where commas separate columns: make it again,"
            " or name another file"
        )
    for column in rows.columns.intersection(NUMBERS):
        wrong = pd.to_numeric(rows[column], errors="coerce").isna() & rows[column].notna()
        if column == "value":
            told = rows["source"] == "ours" if "source" in rows else rows["metric"].notna()
            wrong |= rows[column].isna() & told & (rows["metric"] != "missing")
        if wrong.any():
            line, value = wrong.idxmax() + 2, rows[column][wrong.idxmax()]
            raise UserError(f"{path}: line {line} has the {column} {value}, which is no number: make it again")
    return rows
