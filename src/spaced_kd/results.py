"""Tidy rows: every number of a study and of the paper, one per row, with all that tells it from the others."""

import json
import logging
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from spaced_kd import arrays
from spaced_kd.errors import UserError
from spaced_kd.files import Places, write_safely
from spaced_kd.spec import RunSpec, Study, compare, from_words, protocol_of

log = logging.getLogger(__name__)

COLUMNS = (
    *("source", "study", "run", "dataset", "network", "teacher", "method", "interval", "seed", "protocol", "commit"),
    *("evaluation", "metric", "value", "recipe", "selection", "epoch"),
    *("sigma", "draw", "probes", "stderr", "corruption", "severity", "epsilon", "steps"),
    *("table", "note"),  # of the paper's numbers
)
NUMBERS = ("seed", "value", "epoch", "sigma", "draw", "probes", "stderr", "severity", "epsilon", "steps")
TEXTS = tuple(column for column in COLUMNS if column not in NUMBERS)
NAMED = ("dataset", "network", "teacher", "method", "seed", "interval")  # what of a run is not in the column recipe
SECONDS = ("wall_seconds", "cpu_seconds", "device_seconds")  # of a run alone, without those of its teacher's own run
JOULES = ("energy_joules", "package_energy_joules")  # of its own GPU; of the processors, whatever else ran on them
COSTS = (*SECONDS, *JOULES, "training_flops", "training_flops_with_teacher")


def collect(study: Study, results: Path) -> DataFrame:
    """Rows of all runs of a study: accuracies, and the evaluations that it asks for.

    What is not there yet is said in the log, and has a row of metric `missing` without a value, so that no table takes
    a mean over fewer seeds without saying so.
    """
    rows, missing = [], []
    for run in study.runs:
        stored = _stored(run, Places(results).run(run))
        evaluated = _read_rows(results / study.name / "evaluations" / f"{run.id}.json")
        found = stored["rows"] + _costs(run, stored["description"], results) + evaluated if stored else []
        present = {row["evaluation"] for row in found}
        absent = [name for name in ("accuracy", *study.evaluated.get(run.id, ())) if name not in present]
        found += [{"evaluation": name, "metric": "missing"} for name in absent]
        missing += [f"{name} of {run.id}" for name in absent]
        rows += [row | _identity(study, run) | {"commit": stored["commit"] if stored else ""} for row in found]
    if missing:
        log.warning("missing in study %s: %s", study.name, ", ".join(missing))
    return join(DataFrame(rows))


def descriptions(study: Study, results: Path) -> list[dict[str, Any]]:
    """Where the rows come from: of each finished run its description, with provenance, time and FLOPs."""
    paths = [Places(results).run(run) / "run.json" for run in study.runs]
    return [_read_json(path, dict) for path in paths if path.exists()]


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
        data = Places(results).data(from_words(_read_json(about, dict)["words"]))
        if not data.exists():
            return None
        said, _ = arrays.read(about.with_name("predictions.safetensors"), remedy="train the run again")
        return said["predictions"][-1] == labels(data)

    return correct


def reference(path: Path) -> DataFrame:
    """The paper's numbers, in percent and percentage points; a metric `delta...` is a difference that the paper states.

    Source: the text of arXiv 2502.06192 as submitted, read by OCR; `note` says where a cell was doubtful. Tab. 3, 4, 5
    and 7 are images there, and have no rows.
    """
    rows = join(_read_csv(path))
    evaluation = rows["corruption"].map(lambda name: {"": "accuracy", "bim": "bim"}.get(name, "corruptions"))
    return rows.assign(source="paper", evaluation=evaluation, corruption=rows["corruption"].replace("bim", ""))


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


def read(path: Path) -> DataFrame:
    """Rows as `write` wrote them."""
    return join(_read_csv(path))


def gather(paths: Sequence[Path]) -> DataFrame:
    """Rows of several studies or experiments; a run that some of them share counts once."""
    rows = join(*map(read, paths), DataFrame())
    return rows[~rows.drop(columns="study").duplicated()]


def _stored(run: RunSpec, folder: Path) -> dict[str, Any] | None:
    """Commit, accuracy rows and description of a finished run; None for one that is not finished."""
    path = folder / "run.json"
    if not path.exists():
        return None
    description = _read_json(path, dict)
    if not isinstance(description.get("spec"), dict):
        raise UserError(f"{path} does not say what was trained: move {folder} away and train it again")
    compare(run, description["spec"], folder)
    provenance = description.get("provenance") or {}
    if not provenance.get("commit"):
        raise UserError(f"{path} does not say which commit it comes from: move {folder} away and train it again")
    rows = _read_rows(folder / "rows.json", evaluation="accuracy")
    if not rows:
        raise UserError(f"{folder} has no rows.json, but a run.json: move it away and train it again")
    return {
        "commit": provenance["commit"] + ("-dirty" if provenance.get("dirty") else ""),
        "rows": rows,
        "description": description,
    }


def _costs(run: RunSpec, description: dict[str, Any], results: Path) -> list[dict[str, Any]]:
    """Rows of what a run has cost, as far as it was measured: seconds, joules, floating-point operations of training.

    `training_flops` are the run's own, over all who learnt in it. A student that read its teacher's stored states has
    not trained it; `training_flops_with_teacher` adds the teacher's run: what the student costs on its own.
    """
    costs = {name: description.get(name) for name in (*SECONDS, *JOULES)}
    if flops := description.get("training_flops"):
        costs["training_flops"] = own = sum(flops.values())
        stored = description.get("teacher_states") == "stored"
        teachers = _flops(run.teacher_spec(), results) if stored else 0
        costs["training_flops_with_teacher"] = None if teachers is None else own + teachers
    return [
        {"evaluation": "cost", "metric": name, "value": float(value)}
        for name, value in costs.items()
        if value is not None
    ]


def _flops(run: RunSpec, results: Path) -> int | None:
    """Training FLOPs of a finished run; None where they are not known."""
    path = Places(results).run(run) / "run.json"
    flops = _read_json(path, dict).get("training_flops") if path.exists() else None
    return sum(flops.values()) if flops else None


def _identity(study: Study, run: RunSpec) -> dict[str, Any]:
    recipe = {key: value for key, value in run.changed().items() if key.partition(".")[0] not in NAMED}
    return {
        "source": "ours",
        "study": study.name,
        "run": run.id,
        "dataset": run.label("dataset"),
        "network": run.label("network"),
        "teacher": run.label("teacher" if run.teacher else "network"),
        "method": run.label("method"),
        "interval": "" if run.method == "baseline" else interval_name(run.interval),
        "seed": run.seed,
        "protocol": protocol_of(run),
        "recipe": " ".join(f"{key}={value}" for key, value in recipe.items()),
    }


def interval_name(interval: float | str) -> str:
    """An interval as rows have it: "0", "1.5", "max"."""
    return interval if isinstance(interval, str) else f"{interval:g}"


def _read_rows(path: Path, **standard: str) -> list[dict[str, Any]]:
    """Rows of a JSON file, with what is the same for all; none where there is no file."""
    rows = _read_json(path, list) if path.exists() else []
    try:
        rows = [standard | row | {"value": float(row["value"])} for row in rows]
    except (KeyError, TypeError, ValueError):
        raise _damaged(path, "a row has no value") from None
    for row in rows:
        if missing := {"evaluation", "metric"} - set(row):
            raise _damaged(path, f"a row has no {min(missing)}")
    return rows


def _read_json(path: Path, kind: type) -> Any:
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(content, kind):
        raise _damaged(path, f"a {kind.__name__} was expected")
    return content


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path} is damaged ({reason}): delete it and make it again")


def _read_csv(path: Path) -> DataFrame:
    try:
        return pd.read_csv(
            path,
            dtype=dict.fromkeys(TEXTS, str),  # commit 12e4567 is no number, and interval "0" neither
            keep_default_na=False,  # a text may be "NA"; empty becomes NaN, and is "" again after `join`
            na_values=[""],
            float_precision="round_trip",
        )
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: make it first, or name another file") from None
    except ValueError as error:
        raise UserError(f"{path} is no table of rows ({error}): make it again") from None
