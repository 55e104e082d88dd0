"""Grids of a study: every list in a grid is an axis, and the runs are their product."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from spaced_kd.config import tuning, types
from spaced_kd.config.presets import load_recipe, recipe_names
from spaced_kd.config.registry import PLUGINS
from spaced_kd.config.run_spec import RunSpec, from_flat
from spaced_kd.config.yaml_values import mapping, numbers, sequence
from spaced_kd.utils.errors import UserError

WHOLE = ("evaluate", "planned_seeds")  # keys of a grid whose lists are not axes


class Point(NamedTuple):
    """One run of a grid, with its evaluations, planned seeds and tuned keys."""

    run: RunSpec
    evaluate: list[str]  # names of costly evaluations
    planned: tuple[int, ...]  # seeds planned for its arm
    tuned: tuple[str, ...]  # keys that are tried; empty if the run is not a trial


def points(config: dict[str, Any], evaluations: dict[str, Any], protocols: Path) -> Iterator[Point]:
    """The runs of all grids of a configuration, without the teachers that they imply.

    Args:
        config: of the study.
        evaluations: of the study, by name.
        protocols: folder of the sets of switches.

    Raises:
        UserError: a key or value that no run, or no grid, has.
    """
    recipes = mapping("recipes", config.get("recipes"))
    for grid in sequence("grids", config.get("grids")):
        for point in _product(grid):
            planned = _planned(point.pop("planned_seeds", config.get("planned_seeds")))
            wanted = _evaluations(point.pop("evaluate", []), evaluations)
            flat = _flat(point)
            tuned = flat.pop(tuning.KEY, ())
            run = from_flat(_recipe(flat, recipes) | flat, protocols)
            if tuned:
                tuning.check(run)
            yield Point(run, wanted, planned, tuned)


def _planned(given: Any) -> tuple[int, ...]:
    """The planned seeds of the study or of a grid; empty without a plan."""
    if given is None:
        return ()
    seeds = [types.check_type("planned_seeds", seed, "int") for seed in sequence("planned_seeds", given)]
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f"planned_seeds is {given!r:.200}, but must list seeds from 0 on, each once")
    return tuple(seeds)


def _product(grid: Any) -> list[dict[str, Any]]:
    """Cross product of a grid's lists; `arms` is a list of grids that continue it."""
    grid = dict(mapping("a grid", grid))
    arms = grid.pop("arms", [{}])
    trials = tuning.take_trials(grid)
    points = []
    for arm in sequence("arms", arms):
        axes = grid | tuning.of_arm(trials, mapping("an arm", arm))
        lists = {key: value if isinstance(value, list) and key not in WHOLE else [value] for key, value in axes.items()}
        for key, values in lists.items():
            if len({json.dumps(value) for value in values}) < len(values):
                raise UserError(f"{key} lists a value twice: {values!r:.200}")
        points += [dict(zip(lists, combination, strict=True)) for combination in itertools.product(*lists.values())]
    return points


def _flat(point: dict[str, Any]) -> dict[str, Any]:
    """{"dataset": {"digits": {"split": 1}}} becomes {"dataset": "digits", "dataset.split": 1}."""
    flat = {}
    for key, value in point.items():
        if key in PLUGINS and isinstance(value, dict):
            if len(value) != 1:
                raise UserError(f"{key} is {value!r}, but must be a name, or one name with its settings")
            ((flat[key], settings),) = value.items()
            settings = {f"{key}.{name}": setting for name, setting in mapping(key, settings).items()}
            if twice := settings.keys() & {*flat, *point}:
                raise UserError(f"{min(twice)} is given twice, alone and under {key}: leave one of them out")
            flat |= settings
        else:
            flat[key] = value
    return flat


def _recipe(point: dict[str, Any], recipes: dict[str, Any]) -> dict[str, Any]:
    """Remove `recipe` from a flat point and return its keys; it is a mapping, a recipe of the study, or a preset."""
    given = point.pop("recipe", {})
    if isinstance(given, str) and given in recipes:
        given = recipes[given]
    elif isinstance(given, str):
        if given not in recipe_names():
            known = ", ".join([*recipes, *recipe_names()])
            raise UserError(f"recipe {given!r} is none of recipes: {known}")
        networks, network = numbers(load_recipe(given)), point.get("teacher") or point.get("network")
        if network not in networks:
            raise UserError(f"recipe {given!r} has no entry for {network}: it has {', '.join(networks)}")
        given = networks[network]
    return _flat(mapping("recipe", given))


def _evaluations(wanted: Any, known: dict[str, Any]) -> list[str]:
    found = sequence("evaluate", list(known) if wanted == "all" else wanted)
    for name in found:
        if not isinstance(name, str) or name not in known:
            raise UserError(
                f"evaluate names {name!r}, which is none of evaluations: {', '.join(known) or 'none is given'}"
            )
    return found
