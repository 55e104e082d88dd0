"""Writes the files of a finished run: weights, predictions, rows, and their description."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import OWN_RUN
from spaced_kd.training import checkpoint
from spaced_kd.training.accuracy import accuracy_rows, tail_rows
from spaced_kd.training.checkpointer import check_weights
from spaced_kd.training.job import Job
from spaced_kd.training.metrics import TrainingMetrics
from spaced_kd.training.provenance import Origin
from spaced_kd.training.run_folder import OUTPUTS
from spaced_kd.utils import array_file, processes
from spaced_kd.utils.files import sha256, write_safely


def write_outputs(job: Job, metrics: TrainingMetrics, paths: ResultPaths, origin: Origin) -> Path:
    """Write the outputs, their description last, and drop the resume states; returns the run's folder.

    With several processes, the first one writes. UserError if a weight is not finite.
    """
    spec, folder = job.spec, paths.run(job.spec)
    if processes.rank():
        return folder
    check_weights(job, metrics.turns)
    predictions = np.stack(metrics.predictions)
    checkpoint.save_weights(folder / "weights.safetensors", job.result, run=spec.id)
    arrays = {"epochs": np.array(metrics.epochs), "predictions": predictions}
    if metrics.tail_steps:
        tail = np.stack(metrics.tail_predictions)
        arrays |= {"tail_steps": np.array(metrics.tail_steps), "tail_predictions": tail}
    array_file.save(folder / "predictions.safetensors", arrays)
    labels = job.data.labels["test"].cpu().numpy()
    rows = accuracy_rows(metrics.epochs, predictions, labels, metrics.held_out)
    rows += tail_rows(metrics.tail_predictions, labels, metrics.tail_held_out)
    write_safely(folder / "rows.json", json.dumps(rows, indent=1).encode())
    described = describe(job, metrics, paths, origin)
    described["outputs"] = {name: sha256(folder / name) for name in OUTPUTS}
    write_safely(folder / "run.json", json.dumps(described, indent=1).encode())
    for state in checkpoint.states(paths.state(spec)):
        state.unlink()
    return folder


def describe(job: Job, metrics: TrainingMetrics, paths: ResultPaths, origin: Origin) -> dict[str, Any]:
    """The description of a run, written as run.json."""
    spec, states = job.spec, job.teacher_states
    elsewhere = {"teacher"} if states in OWN_RUN else set()  # learns in its own run, whatever an earlier attempt did
    counts: dict[str, dict[str, int]] = {role: {} for role in job.learners}
    for role, index in job.turns:
        size = f"{role} {job.images(index)}"
        counts[role][size] = counts[role].get(size, 0) + 1
    seconds, several = metrics.time(), spec.processes > 1
    return {
        "id": spec.id,
        "spec": spec.resolved(),
        "words": spec.overrides(),  # the key's name in every run.json so far
        **origin.sources,
        "labels": {role: spec.label(role) for role in ("dataset", "network", "teacher", "method")},
        "provenance": origin.provenance
        | ({"commits": origin.commits} if origin.earlier else {})
        | {
            "data_sha256": job.data.checksum,
            "teacher_sha256": _teacher_sha256(job, paths) if states in OWN_RUN else None,
        },
        "wall_seconds": seconds["wall"],
        "cpu_seconds": None if several else seconds["cpu"],  # null: not measured
        "device_seconds": spec.processes * seconds["wall"] if job.device.type != "cpu" else None,
        **(dict.fromkeys(metrics.energy()) if several else metrics.energy()),
        "training_flops": {
            role: sum(times * metrics.flops.get(size, 0) for size, times in sizes.items() if role not in elsewhere)
            for role, sizes in counts.items()
        },
        "teacher_states": states,
        "turns": {role: sum(sizes.values()) for role, sizes in counts.items()},
        "block_ends": metrics.block_ends if job.decides else None,  # batches learnt; null: as in the schedule
        "held_out": metrics.held_out,  # accuracy of each evaluated epoch
        "tail_held_out": metrics.tail_held_out,  # and of each state of the tail
        "losses": [{"epoch": epoch} | means for epoch, means in zip(metrics.epochs, metrics.losses, strict=True)],
    }


def _teacher_sha256(job: Job, paths: ResultPaths) -> str | None:
    """sha256 of the stored teacher's final weights; None for one that is being trained again."""
    teacher = job.spec.teacher_spec()
    weights = paths.weights(teacher) if teacher else None
    return sha256(weights) if weights and weights.exists() else None
