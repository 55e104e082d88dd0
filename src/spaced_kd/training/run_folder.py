"""The folder of a run: its outputs, whether they are complete, and clearing up after killed processes."""

from pathlib import Path
from typing import TYPE_CHECKING

from spaced_kd.config import sources
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec, compare, from_overrides
from spaced_kd.training.run_lock import remove_left
from spaced_kd.utils import processes
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import altered, damaged, read_json, sweep

if TYPE_CHECKING:
    from spaced_kd.training.teacher_states import TeacherStates

OUTPUTS = ("weights.safetensors", "predictions.safetensors", "rows.json")


def clear_up(spec: RunSpec, paths: ResultPaths) -> None:
    """Remove lock and states that a process left if it was killed between writing its last file and exiting."""
    if processes.rank() == 0 and remove_left(paths.lock(spec)):
        from spaced_kd.training import checkpoint  # here, so that checking for a finished run needs no torch

        for state in checkpoint.states(paths.state(spec)):
            state.unlink()


def sweep_folders(spec: RunSpec, paths: ResultPaths, states: "TeacherStates", *, anew: bool) -> None:
    """Remove half-written files of killed processes, and the teacher's states if training starts anew."""
    if processes.rank():
        return
    if anew:
        states.clear()
    for folder in (paths.state(spec), paths.run(spec), states.folder):
        sweep(folder)


def finished(spec: RunSpec, paths: ResultPaths) -> bool:
    """Whether the run is finished and complete; UserError if a default or a source of it has changed since."""
    folder = paths.run(spec)
    path = folder / "run.json"
    if not path.exists():
        return False
    run = read_json(path, dict)
    if not isinstance(run.get("spec"), dict) or not isinstance(run.get("outputs"), dict):
        raise damaged(path, "it does not say what was trained")
    compare(spec, run["spec"], folder)
    sources.check(spec, run, folder)
    return not altered(folder, run["outputs"])


def read_spec(run: str, results: Path) -> RunSpec:
    """The description of a finished run by its id."""
    path = results / "runs" / Path(run).name / "run.json"  # `run` may also be the run's folder
    if not path.exists():
        raise UserError(f"{path} does not exist: train the run first, or choose one of {path.parents[1]}")
    overrides = read_json(path, dict).get("words")
    if not isinstance(overrides, list) or not all(isinstance(each, str) for each in overrides):
        raise damaged(path, "it does not say what was trained")
    return from_overrides(overrides)
