"""Evaluate one finished run: all requested evaluations in one process, each with a cache of its own.

The cache's key consists of the run's weights, the evaluation's source and its settings: adding or editing an evaluation
computes only that one.
"""

import ast
import hashlib
import inspect
import itertools
import json
import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from spaced_kd.config import registry
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.data.dataset import Data
from spaced_kd.data.loading import load_data
from spaced_kd.distillation.fixed_teacher import FixedTeacher
from spaced_kd.evaluation import retraining
from spaced_kd.evaluation.contract import Evaluation
from spaced_kd.training import checkpoint, provenance
from spaced_kd.training.run_folder import read_spec
from spaced_kd.training.timeline import make_method
from spaced_kd.utils import array_file
from spaced_kd.utils.devices import choose_device, set_up_process
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import damaged, read_json, sha256, write_safely

WITHOUT_NUMBER = ("more than 1 value per channel", "Overflow when unpacking")  # of batch norm; of a size
# earlier keys of sources that were moved or rewritten without a change of their numbers: their cached rows stay valid
BEFORE = Path(__file__).parent / "evaluators" / "sources_before.json"


def evaluate(
    run: str, evaluations: dict[str, dict[str, Any]], results: Path, *, device: str = "auto"
) -> list[dict[str, Any]]:
    """Rows of every evaluation of the run, from the cache if they are there.

    Args:
        run: id of a finished run.
        evaluations: settings by name of evaluation.
        results: folder of all results.
        device: auto, cpu, cuda or cuda:N.
    """
    paths = ResultPaths(results)
    spec = read_spec(run, results)
    weights = sha256(paths.weights(spec))
    caches = {name: _cache(paths.run(spec), name, settings, weights) for name, settings in evaluations.items()}
    missing = [name for name, cache in caches.items() if not cache.exists()]
    if missing:
        network, data = finished_network(run, results, device=device)
        for name in missing:
            print(f"{name} ...", flush=True)
            measure: Evaluation = registry.find("evaluations", name)
            given, takes = dict(evaluations[name]), inspect.signature(measure).parameters
            if "history" in takes:
                given["history"] = retraining.history(spec, paths, device)
            if "kd" in takes:
                given["kd"] = partial(fixed_teacher, spec, paths, data)
            rows = _measured(name, evaluations[name], lambda: measure(network, data, seed=spec.seed, **given))  # noqa: B023
            about = {"evaluation": name, "settings": evaluations[name], "weights_sha256": weights}
            _write(caches[name], rows, **about, provenance=provenance.describe(data.labels["test"].device))
    return [{"evaluation": name, **row} for name, cache in caches.items() for row in _rows(cache)]


def finished_network(run: str, results: Path, *, device: str = "auto") -> tuple[nn.Module, Data]:
    """The trained network of a finished run as its method evaluates it, in eval mode, and the run's data.

    Args:
        run: id of a finished run.
        results: folder of all results.
        device: auto, cpu, cuda or cuda:N.
    """
    paths, spec = ResultPaths(results), read_spec(run, results)
    set_up_process(spec.threads, spec.precision)
    data = load_data(spec, paths).to(choose_device(device))
    return _trained(spec, paths, data), data


def _trained(spec: RunSpec, paths: ResultPaths, data: Data) -> nn.Module:
    """A run's final network, as its method evaluates it, in eval mode."""
    network = trained_network(spec, paths.weights(spec), data.classes, data.image_size)
    return network.to(data.labels["train"].device, memory_format=torch.channels_last)


def trained_network(spec: RunSpec, weights: Path, classes: int, image_size: int) -> nn.Module:
    """A run's network with the weights of a file, as its method evaluates it, in eval mode, on the CPU."""
    method = make_method(spec)
    network = registry.find("networks", spec.network)(
        classes, image_size, exits=method.exits, **spec.settings.get("network", {})
    )
    checkpoint.load_weights(weights, network)
    return method.reported(network).to(memory_format=torch.channels_last).eval()


def fixed_teacher(spec: RunSpec, paths: ResultPaths, data: Data) -> FixedTeacher | None:
    """A finished run's loss with its own final teacher; None for a run without a student.

    UserError if there is no such loss, or the teacher's weights are not kept because it is not shared.
    """
    method = make_method(spec)
    if "student" not in method.roles:
        return None
    if not (method.loss_of_logits and method.teacher_is_shared):
        raise UserError(
            f"kd_loss is true, but {spec.id} has no loss of logits with a teacher that is kept: leave it out for it"
        )
    if method.soft_loss == "mse_sum":
        raise UserError(
            f"kd_loss is true, but the loss mse_sum of {spec.id} is not a mean over images: leave it out for this run"
        )
    teacher = spec.teacher_spec()
    if teacher and not paths.weights(teacher).exists():
        raise UserError(f"kd_loss needs {paths.weights(teacher)}, the teacher of {spec.id}: train {teacher.id} first")
    return FixedTeacher(method, _trained(teacher, paths, data) if teacher else None)


def _measured(name: str, settings: dict[str, Any], measure: Callable[[], Iterable[Any]]) -> list[dict[str, Any]]:
    """An evaluation's rows; UserError if a value is not defined for its settings."""
    problem = f"{name} cannot be measured with {settings or 'its defaults'}"
    try:
        rows = [_checked(name, row) for row in measure()]
    except (ValueError, OverflowError) as error:
        if not any(words in str(error) for words in WITHOUT_NUMBER):
            raise
        raise UserError(f"{problem} ({' '.join(str(error).split())[:100]}): give other settings") from error
    for row in rows:
        if not math.isfinite(row["value"]):
            raise UserError(f"{problem} ({row['metric']} is {row['value']}): give other settings, or leave it out")
    return rows


def _checked(name: str, row: Any) -> dict[str, Any]:
    """A row of an evaluation, which may be another package's; UserError unless it has a metric and a number."""
    if not isinstance(row, dict) or not {"metric", "value"} <= set(row) or not isinstance(row["value"], float | int):
        raise UserError(f"{name} gives the row {row!r:.200}, but needs a mapping with a metric, and a number as value")
    return row


def _cache(folder: Path, name: str, settings: dict[str, Any], weights: str) -> Path:
    """File of an evaluation's rows; its name contains a hash of everything that can change them."""
    sources = registry.plugin("evaluations", name).sources
    found = _cache_of(folder, name, weights, map(syntax_hash, sources), settings)
    if found.exists():
        return found
    alternatives = itertools.product(*([syntax_hash(path), *_earlier_keys(path)] for path in sources))
    older = (_cache_of(folder, name, weights, keys, settings) for keys in alternatives)
    return next((path for path in older if path.exists()), found)


def _cache_of(folder: Path, name: str, weights: str, sources: Iterable[str], settings: dict[str, Any]) -> Path:
    key = json.dumps([weights, *sources, settings], sort_keys=True)
    return folder / "evaluations" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:10]}.json"


def syntax_hash(path: Path) -> str:
    """Hash of a source's syntax tree without imports and docstrings."""
    tree = ast.parse(path.read_text("utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [
                each
                for each in body
                if not isinstance(each, ast.Import | ast.ImportFrom | ast.Expr) or not _says_nothing(each)
            ]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _says_nothing(node: ast.stmt) -> bool:
    """Whether a statement is an import or a docstring."""
    return not isinstance(node, ast.Expr) or (
        isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


def _earlier_keys(path: Path) -> list[str]:
    """Earlier keys of a source that gave the same rows: hashes of its syntax tree, or of its file."""
    known: dict[str, list[str]] = read_json(BEFORE, dict)
    return known.get(syntax_hash(path), [])


def _rows(cache: Path) -> list[dict[str, Any]]:
    rows = read_json(cache, dict).get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise damaged(cache, "it has no rows")
    return rows


def _write(cache: Path, rows: list[dict[str, Any]], **about: Any) -> None:
    """Write rows as JSON with their origin, and predictions per image beside them, numbered like the rows."""
    predictions = {
        str(number): np.asarray(row.pop("predictions")) for number, row in enumerate(rows) if "predictions" in row
    }
    if predictions:
        array_file.save(cache.with_suffix(".safetensors"), predictions)
    write_safely(cache, json.dumps({"rows": rows} | about, indent=1).encode())
