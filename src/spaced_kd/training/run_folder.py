"""The folder of a finished run: its outputs, whether they are whole, what to clear up."""

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
    """Remove what a process has left that was killed between its run's last file and its own end."""
    if processes.rank() == 0 and remove_left(paths.lock(spec)):
        from spaced_kd.training import checkpoint  # here, so that looking for a finished run needs no torch

        for state in checkpoint.states(paths.state(spec)):
            state.unlink()


def sweep_folders(spec: RunSpec, paths: ResultPaths, states: "TeacherStates", *, anew: bool) -> None:
    """Remove what killed processes left half-written, and the teacher's states where training begins anew."""
    if processes.rank():
        return
    if anew:
        states.clear()
    for folder in (paths.state(spec), paths.run(spec), states.folder):
        sweep(folder)


def finished(spec: RunSpec, paths: ResultPaths) -> bool:
    """Whether the run is there and whole; UserError where its words meant something else, or other sources made it."""
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
    path = results / "runs" / Path(run).name / "run.json"  # its folder will do
    if not path.exists():
        raise UserError(f"{path} does not exist: train the run first, or choose one of {path.parents[1]}")
    overrides = read_json(path, dict).get("words")
    if not isinstance(overrides, list) or not all(isinstance(each, str) for each in overrides):
        raise damaged(path, "it does not say what was trained")
    return from_overrides(overrides)
