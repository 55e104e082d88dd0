"""Rows of a study from the files of its finished runs."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas import DataFrame

from spaced_kd.analysis.tidy_rows import _trained, join, log
from spaced_kd.config import registry
from spaced_kd.config.labels import labels
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import OWN_RUN, RunSpec, compare, from_overrides
from spaced_kd.config.study import Study
from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import altered, damaged, read_json, rows_digest

TRAINING = "training"  # name of the evaluation of rows that come from the training itself
MOST_SHOWN = 5  # missing results that the log lists
SECONDS = ("wall_seconds", "cpu_seconds", "device_seconds")  # of a run alone, without those of its teacher's own run
TRAINED = ("commit", "machine", "student_steps")  # columns that describe a training
JOULES = ("energy_joules", "package_energy_joules")  # of its own GPU; of all processors, whatever else ran on them
COSTS = tuple(f"{name}{more}" for name in (*SECONDS, *JOULES, "training_flops") for more in ("", "_with_teacher"))


def collect_rows(study: Study, results: Path) -> DataFrame:
    """Rows of all runs of a study: accuracies, and the evaluations that it asks for.

    A missing result is logged and has a row of metric `missing` without a value, so that a table that averages fewer
    seeds states it. UserError if a run's files are not those that it wrote.
    """
    rows, missing = [], []
    for run in study.runs:
        asked = {name: study.evaluations[name] for name in study.evaluated.get(run.id, ())}
        found = of_run(run, study.name, results, asked)
        present = {row["evaluation"] for row in found}
        absent = [name for name in ("accuracy", *study.evaluated.get(run.id, ())) if name not in present]
        missing += [f"{name} of {run.id}" for name in absent]
        known = {key: found[0][key] for key in TRAINED if key in found[0]} if found else {"commit": ""}
        of_study = {
            "planned": " ".join(map(str, study.planned.get(run.id, ()))),
            "only_teacher": "yes" if run.id in study.only_teachers else "",
        }
        same = _identity(study.name, run) | known
        rows += [
            row | of_study for row in [*found, *({"evaluation": name, "metric": "missing"} | same for name in absent)]
        ]
    if missing:
        shown = ", ".join(missing[:MOST_SHOWN]) + (", ..." if len(missing) > MOST_SHOWN else "")
        log.warning("missing in study %s: %d results: %s", study.name, len(missing), shown)
    return join(DataFrame(rows))


def of_run(run: RunSpec, study: str, results: Path, asked: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Rows of one run, with the columns that identify it; empty if the run is not finished.

    Args:
        run: the run.
        study: the study whose evaluations of the run are read.
        results: folder of all results.
        asked: the study's settings of each evaluation; None accepts any.
    """
    stored = _stored(run, ResultPaths(results).run(run))
    if not stored:
        return []
    evaluated = evaluation_rows(results / study / "evaluations" / f"{run.id}.json", stored["description"], asked)
    derived = _costs(run, stored["description"], results) + _schedule(run, stored["description"])
    found = stored["rows"] + derived + evaluated + _losses(run, stored["description"])
    same = _identity(study, run) | {"commit": stored["commit"]} | _trained(stored["description"])
    return [row | same for row in found]


def descriptions(study: Study, results: Path) -> list[dict[str, Any]]:
    """Descriptions of the finished runs, with provenance, time and FLOPs."""
    paths = [ResultPaths(results).run(run) / "run.json" for run in study.runs]
    return [read_json(path, dict) for path in paths if path.exists()]


def times(runs: list[dict[str, Any]]) -> DataFrame:
    """Seconds of wall clock of the trainings, for each kind of run, with their sum in the last line."""
    kinds = [(*(run["labels"][key] for key in ("network", "method")), run["spec"]["interval"]) for run in runs]
    frame = DataFrame(kinds, columns=["network", "method", "interval"]).assign(
        seconds=[r["wall_seconds"] for r in runs]
    )
    lines = frame.groupby(["network", "method", "interval"], sort=False)["seconds"].agg(["count", "mean", "sum"])
    lines = lines.reset_index().rename(columns={"count": "runs", "mean": "seconds each", "sum": "seconds in all"})
    total = {"network": "all", "runs": len(runs), "seconds in all": frame["seconds"].sum()}
    return pd.concat([lines, DataFrame([total])], ignore_index=True).fillna("")


def correct_images(results: Path) -> Callable[[str], np.ndarray | None]:
    """Run id -> whether its network is right on each test image after the last epoch, (N,); None without files."""
    labels = cache(lambda path: array_file.read(path, remedy="prepare it again")[0]["test_labels"])

    def correct(run: str) -> np.ndarray | None:
        about = results / "runs" / run / "run.json"
        if not about.exists():
            return None
        data = ResultPaths(results).data(from_overrides(read_json(about, dict)["words"]))
        if not data.exists():
            return None
        stored, _ = array_file.read(about.with_name("predictions.safetensors"), remedy="train the run again")
        return stored["predictions"][-1] == labels(data)

    return correct


def _stored(run: RunSpec, folder: Path) -> dict[str, Any] | None:
    """Commit, accuracy rows and description of a finished run; None for one that is not finished."""
    path = folder / "run.json"
    if not path.exists():
        return None
    description = read_json(path, dict)
    if not isinstance(description.get("spec"), dict):
        raise UserError(f"{path} does not describe its run: move {folder} away and train it again")
    compare(run, description["spec"], folder)
    provenance = description.get("provenance") or {}
    if not provenance.get("commit"):
        raise UserError(f"{path} names no commit: move {folder} away and train it again")
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
    """Rows of a run's evaluations as `evaluate` wrote them; empty if there is no file.

    UserError if they are of other weights, or of other settings than `asked`.
    """
    if not path.exists():
        return []
    content = read_json(path, dict)
    rows = checked_rows(path, content.get("rows"))
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
    """Rows of the measured costs of a run: seconds, joules, floating-point operations of training.

    `training_flops` are the run's own, over all its learners. Where the teacher is a run of its own, metrics that end
    in `_with_teacher` add it, for the full cost of the student.
    """
    costs, teacher = _measured(description), None
    if description.get("teacher_states") in OWN_RUN:
        path = ResultPaths(results).run(run.teacher_spec()) / "run.json"
        teacher = _measured(read_json(path, dict)) if path.exists() else {}
    for name, own in list(costs.items()):
        if teacher is None or name in teacher:
            costs[f"{name}_with_teacher"] = own + (teacher[name] if teacher else 0)
    return [{"evaluation": "cost", "metric": name, "value": float(value)} for name, value in costs.items()]


def _measured(description: dict[str, Any]) -> dict[str, float]:
    """The run's own costs, by the names of `COSTS`, without those that were not measured."""
    flops = description.get("training_flops")
    found = {name: description.get(name) for name in (*SECONDS, *JOULES)}
    found["training_flops"] = sum(flops.values()) if flops else None
    return {name: value for name, value in found.items() if value is not None}


def _schedule(run: RunSpec, description: dict[str, Any]) -> list[dict[str, Any]]:
    """The mean interval in epochs, of a run whose method decided where blocks end."""
    if not (ends := description.get("block_ends")):
        return []
    return [{"evaluation": "schedule", "metric": "mean_interval", "value": run.epochs / len(ends)}]


def _losses(run: RunSpec, description: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the learning curve: mean total loss of the run's result in each evaluated epoch."""
    role = [*registry.roles_of(run.method)][-1]
    rows = []
    for means in description.get("losses", ()):
        terms = [value for name, value in means.items() if name.startswith(f"{role}: ")]
        if terms:
            row = {"evaluation": TRAINING, "metric": "loss", "selection": "curve", "epoch": means["epoch"]}
            rows.append(row | {"value": float(sum(terms))})
    return rows


def _identity(study: str, run: RunSpec) -> dict[str, Any]:
    return {"source": "ours", "study": study, "run": run.id, "seed": run.seed} | labels(run)


def _read_rows(path: Path, **standard: str) -> list[dict[str, Any]]:
    """Rows of a JSON file, with the columns that all share; empty if there is no file."""
    return checked_rows(path, read_json(path, list), **standard) if path.exists() else []


def checked_rows(path: Path, rows: Any, **standard: str) -> list[dict[str, Any]]:
    """Rows, checked to have an evaluation, a metric and a value."""
    try:
        rows = [standard | row | {"value": float(row["value"])} for row in rows]
    except (KeyError, TypeError, ValueError):
        raise damaged(path, "a row has no value") from None
    for row in rows:
        if missing := {"evaluation", "metric"} - set(row):
            raise damaged(path, f"a row has no {min(missing)}")
    return rows
