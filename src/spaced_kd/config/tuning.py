"""The key `tune` of a grid: values to try, in all combinations, the same for every arm.

`tune: {lr: [0.01, 0.1], lr_schedule: [constant, cosine]}` makes four trials of each arm. They are compared by accuracy
on training images that `held_out` keeps from training.
"""

from typing import Any

from spaced_kd.config.registry import PLUGINS
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.utils.errors import UserError

KEY = "tune"
NO_TRIALS = ("seed", "protocol", "interval", "recipe", "held_out", "evaluate", "planned_seeds", "arms")  # never tried


def take_trials(grid: dict[str, Any]) -> dict[str, list[Any]]:
    """Remove `tune` from a grid and return its keys with their values; empty if the grid has none."""
    if KEY not in grid:
        return {}
    trials = grid.pop(KEY)
    if not isinstance(trials, dict) or not trials:
        raise UserError(f"tune is {trials!r:.200}, but must name keys with their values: tune: {{lr: [0.01, 0.1]}}")
    for key, values in trials.items():
        if not isinstance(values, list) or len(values) < 2:
            raise UserError(f"tune.{key} is {values!r:.200}, but must list two values or more")
        if key in (*NO_TRIALS, *PLUGINS):
            raise UserError(f"tune has {key}, which cannot be tried: leave it to the grid or its arms")
        if key in grid:
            raise UserError(f"{key} is in the grid and in its tune: leave one of them out")
    return trials


def of_arm(trials: dict[str, list[Any]], arm: dict[str, Any]) -> dict[str, Any]:
    """An arm with the trials as axes, and their names under `tune`; UserError if the arm sets one of them itself."""
    if own := {KEY, *trials} & arm.keys():
        raise UserError(f"an arm has {min(own)} of its own, but all arms of a grid with tune have the same trials")
    return trials | arm | ({KEY: tuple(trials)} if trials else {})


def check(trial: RunSpec) -> None:
    """UserError for a trial without held-out images, or with a single state to judge it by."""
    if not trial.held_out:
        raise UserError("held_out is 0 in a grid with tune: trials are compared on held-out images, so set a share")
    if not trial.tail_evaluations:
        raise UserError("tail_evaluations is 0 in a grid with tune: trials are compared by the tail, so set a number")
