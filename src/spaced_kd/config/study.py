"""What a study is: the runs that a configuration file expands to, and what is measured on them and drawn from them."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from spaced_kd.config import presets, registry, shipped, tuning, types
from spaced_kd.config.presets import load_recipe, recipe_names
from spaced_kd.config.registry import PLUGINS
from spaced_kd.config.run_spec import RunSpec, from_flat
from spaced_kd.config.yaml_values import numbers
from spaced_kd.utils import yaml_files
from spaced_kd.utils.errors import UserError


@dataclass(frozen=True)
class Study:
    """A configuration file expanded: its runs, what is evaluated on which of them, and what is drawn from the rows."""

    name: str
    runs: tuple[RunSpec, ...]
    evaluations: dict[str, dict[str, Any]]  # name -> settings
    evaluated: dict[str, tuple[str, ...]]  # id of a run -> names of its costly evaluations
    tables: tuple[str, ...]
    figures: tuple[str, ...]
    data: str  # folder of the published datasets
    store_teachers: bool  # whether teachers leave their states for their students
    planned: dict[str, tuple[int, ...]] = field(default_factory=dict)  # id of a run -> seeds planned for its arm
    tuned: dict[str, tuple[str, ...]] = field(default_factory=dict)  # id of a run that is a trial -> the keys tried
    experiments: tuple["Study", ...] = ()  # of which the study is the union; each has a folder of results in its own

    @property
    def parts(self) -> tuple["Study", ...]:
        """Its experiments, or the study itself: what rows are collected of."""
        return self.experiments or (self,)

    def drawn_by(self, kind: str, name: str) -> "Study":
        """From whose rows a table or figure is drawn: the experiment that lists it, else all of the study."""
        return next((part for part in self.experiments if name in getattr(part, kind)), self)

    def followers(self, teacher_id: str) -> list[str]:
        """The students for whom a teacher leaves its states, as words; online KD trains its teacher along."""
        return sorted(self._followers.get(teacher_id, ())) if self.store_teachers else []

    @cached_property
    def _followers(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for run in self.runs:
            if run.interval != 0 and (teacher := run.teacher_spec()):
                found.setdefault(teacher.id, set()).add(run.follower())
        return found


STUDY_KEYS = {  # key -> what it is; the reference page of the documentation is made from this
    "study": "name: results are written to `results/<study>`",
    "data": "folder of the published datasets; `data` unless given",
    "store_teachers": "`true` (default): a teacher stores its state at the block ends of its students, on disk in"
    " `results/state`. `false`: each student trains its teacher along, to the same bits",
    "planned_seeds": "list of the seeds that are planned, written before the first run; others are refused, and"
    " verdicts are `interim` until all are there. In a grid: those of its arms",
    "recipes": "named sets of run keys, for `recipe:` in a grid",
    "grids": "list of grids of runs: every list in a grid is an axis, and the runs are their product",
    "evaluations": "costly evaluations with their settings: `bim: {epsilon: 2}`",
    "tables": "list of tables to draw; `spaced-kd list tables` shows them",
    "figures": "list of figures to draw; `spaced-kd list figures` shows them",
    "experiments": "list of experiment files whose union the study is, instead of grids. Runs that they share are"
    " trained once; each has its own rows, tables and figures",
}
WHOLE = ("evaluate", "planned_seeds")  # keys of a grid whose lists are no axes
EXPERIMENTS = shipped.EXPERIMENTS
ROUNDINGS = ("precision", "seed_noise")  # tables that compare runs of several precisions
RESERVED = ("bench", "data", "logs", "recorded", "runs", "state", "submitted", "theory")  # folders of no study


def load_study(path: Path | str | TextIO, protocols: Path = presets.PROTOCOLS) -> Study:
    """The study of a YAML file, or of an open one; `protocols`: folder of the sets of switches."""
    config = _read(path)
    try:
        return expand(config, protocols)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read(path: Path | str | TextIO) -> Any:
    if isinstance(path, str | Path):
        return yaml_files.read(Path(path), "name a file such as config/studies/demo.yaml")
    return yaml_files.parse(path, path.name)


def expand(config: Any, protocols: Path = presets.PROTOCOLS, experiments: Path = EXPERIMENTS) -> Study:
    """The study of a configuration: every grid's cross product, each run once, the teachers of the students added.

    With `experiments` it is the union of the studies in these files of config/experiments.
    """
    if not isinstance(config, dict) or not config.get("study"):
        raise UserError("the configuration has no key 'study': give the study a name")
    config = numbers(config)
    _known("the configuration", config, STUDY_KEYS)
    name = config["study"]
    if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
        raise UserError(f"study is {name!r}, but must be a word of letters, digits, - and _")
    if name in RESERVED:
        raise UserError(f"study is {name!r}, but results/{name} is taken: choose another name")
    if "experiments" in config:
        return _union(config, protocols, experiments)
    evaluations = {
        key: registry.check_settings("evaluations", key, _mapping(f"evaluations.{key}", given))
        for key, given in _mapping("evaluations", config.get("evaluations")).items()
    }
    runs: dict[str, RunSpec] = {}
    evaluated: dict[str, set[str]] = {}
    planned: dict[str, tuple[int, ...]] = {}
    trials: dict[str, tuple[str, ...]] = {}
    for grid in _sequence("grids", config.get("grids")):
        for point in _points(grid):
            plan = _plan(point.pop("planned_seeds", config.get("planned_seeds")))
            wanted = _evaluations(point.pop("evaluate", []), evaluations)
            point = _flat(point)
            tuned = point.pop("tune", ())
            spec = from_flat(_recipe(point, _mapping("recipes", config.get("recipes"))) | point, protocols)
            if tuned:
                tuning.check(spec)
                trials[spec.id] = tuned
            for each in (spec.teacher_spec(), spec):
                if each:
                    runs.setdefault(each.id, each)
                    evaluated.setdefault(each.id, set())
                    if plan:
                        _check_planned(each, plan)
                        planned[each.id] = tuple(sorted({*planned.get(each.id, ()), *plan}))
            _check_epochs({name: evaluations[name] for name in wanted}, spec)
            evaluated[spec.id] |= set(wanted)
    if not runs:
        raise UserError("grids is empty: add at least one grid with dataset, network, method and seed")
    _check_paired(runs.values())
    drawn = {kind: _names(kind, config.get(kind)) for kind in ("tables", "figures")}
    _check_precision(runs.values(), [*drawn["tables"], *drawn["figures"]])
    return Study(
        name=name,
        runs=tuple(runs.values()),
        evaluations=evaluations,
        evaluated={key: tuple(sorted(value)) for key, value in evaluated.items()},
        tables=drawn["tables"],
        figures=drawn["figures"],
        data=types.check_type("data", config.get("data", "data"), "str"),
        store_teachers=types.check_type("store_teachers", config.get("store_teachers", True), "bool"),
        planned=planned,
        tuned=trials,
    )


def _plan(given: Any) -> tuple[int, ...]:
    """The seeds that are planned, of the study or of a grid; none where there is no plan."""
    if given is None:
        return ()
    seeds = [types.check_type("planned_seeds", seed, "int") for seed in _sequence("planned_seeds", given)]
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(f"planned_seeds is {given!r:.200}, but must list seeds from 0 on, each once")
    return tuple(seeds)


def _check_planned(run: RunSpec, plan: tuple[int, ...]) -> None:
    if run.seed not in plan:
        raise UserError(
            f"seed {run.seed} of {run.method} is not planned: planned_seeds lists {', '.join(map(str, plan))}"
        )


def _union(config: dict[str, Any], protocols: Path, folder: Path) -> Study:
    """The study that consists of experiments: what they share is one run, and each is collected and drawn alone."""
    name, common = (
        config["study"],
        {key: config[key] for key in ("data", "store_teachers", "planned_seeds") if key in config},
    )
    for key in ("recipes", "grids", "evaluations"):
        if key in config:
            raise UserError(f"a study with experiments has no {key} of its own: write them into an experiment")
    parts: list[Study] = []
    for word in _sequence("experiments", config["experiments"]):
        path = folder / f"{word}.yaml"
        if not path.exists():
            known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
            raise UserError(f"{word!r} is none of the experiments: {known}")
        try:
            part = expand(_mapping("it", _read(path)) | common, protocols, folder)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None
        parts.append(replace(part, name=f"{name}/{word}"))
    if not parts:
        raise UserError("experiments is empty: name at least one file of config/experiments, without .yaml")
    runs: dict[str, RunSpec] = {}
    evaluations: dict[str, dict[str, Any]] = {}
    evaluated: dict[str, set[str]] = {}
    planned: dict[str, tuple[int, ...]] = {}
    for part in parts:
        for key, settings in part.evaluations.items():
            if evaluations.setdefault(key, settings) != settings:
                raise UserError(f"evaluations.{key} has other settings in {part.name} than before it: give it the same")
        for run in part.runs:
            runs.setdefault(run.id, run)
            evaluated.setdefault(run.id, set()).update(part.evaluated[run.id])
            if plan := part.planned.get(run.id):
                planned[run.id] = tuple(sorted({*planned.get(run.id, ()), *plan}))
    drawn = {kind: _names(kind, config.get(kind)) for kind in ("tables", "figures")}
    _check_precision(runs.values(), [*drawn["tables"], *drawn["figures"]])
    for kind in drawn:
        listed = [name for part in parts for name in getattr(part, kind)]
        if twice := {name for name in listed if listed.count(name) > 1}:
            raise UserError(f"several experiments list {min(twice)} among their {kind}: leave it to one of them")
    return Study(
        name=name,
        runs=tuple(runs.values()),
        evaluations=evaluations,
        evaluated={key: tuple(sorted(value)) for key, value in evaluated.items()},
        tables=drawn["tables"],
        figures=drawn["figures"],
        data=parts[0].data,
        store_teachers=parts[0].store_teachers,
        planned=planned,
        experiments=tuple(parts),
    )


def experiment_of(kind: str, name: str, folder: Path = EXPERIMENTS) -> Path | None:
    """The file of config/experiments that lists a table or figure; one of studies/paper.yaml where there is one."""
    paper = [folder / f"{word}.yaml" for word in _read(folder.parent / "studies" / "paper.yaml")["experiments"]]
    paths = dict.fromkeys([*paper, *sorted(folder.glob("*.yaml"))])
    return next((path for path in paths if name in (_read(path).get(kind) or ())), None)


def _recipe(point: dict[str, Any], recipes: dict[str, Any]) -> dict[str, Any]:
    """Takes `recipe` out of a flat point and gives its keys: a mapping, a name of the study's, or a file by network."""
    given = point.pop("recipe", {})
    if isinstance(given, str) and given in recipes:
        given = recipes[given]
    elif isinstance(given, str):
        if given not in recipe_names():
            known = ", ".join([*recipes, *recipe_names()])
            raise UserError(f"recipe {given!r} is none of recipes: {known}")
        networks, network = numbers(load_recipe(given)), point.get("teacher") or point.get("network")
        if network not in networks:
            raise UserError(f"recipe {given!r} says nothing of {network}: it has {', '.join(networks)}")
        given = networks[network]
    return _flat(_mapping("recipe", given))


def _check_paired(runs: Iterable[RunSpec]) -> None:
    """UserError for two arms of a setting whose seeds do not pair: each has one that the other lacks."""
    arms: dict[str, dict[str, set[int]]] = {}
    for run in runs:
        own = [word for word in run.words() if word.startswith(("method", "interval="))]
        rest = [word for word in run.words() if word not in own and not word.startswith("seed=")]
        arms.setdefault(" ".join(rest), {}).setdefault(" ".join(own), set()).add(run.seed)
    for setting, seeds in arms.items():
        for (one, its), (other, others) in itertools.combinations(seeds.items(), 2):
            if its - others and others - its:
                raise UserError(
                    f"seeds are not paired: of {setting}, {one} has seed {min(its - others)}, which {other} lacks, and"
                    f" lacks {min(others - its)}: give one of them all seeds of the other"
                )


def _check_precision(runs: Iterable[RunSpec], drawn: list[str]) -> None:
    """UserError where a table or figure would show runs of two precisions, but for those that compare them."""
    found: dict[str, set[str]] = {}
    for run in runs:
        found.setdefault(f"{run.label('dataset')}, {run.label('network')}", set()).add(run.precision)
    for place, several in found.items():
        if len(several) > 1 and (others := [name for name in drawn if name not in ROUNDINGS]):
            raise UserError(
                f"{others[0]} would mix precisions, since {place} is trained in {' and '.join(sorted(several))}: give"
                f" all runs one, or leave all but the tables {' and '.join(ROUNDINGS)} out"
            )


def _points(grid: Any) -> list[dict[str, Any]]:
    """Cross product of a grid's lists; `arms` is a list of grids that continue it."""
    grid = dict(_mapping("a grid", grid))
    arms = grid.pop("arms", [{}])
    trials = tuning.take_trials(grid)
    points = []
    for arm in _sequence("arms", arms):
        axes = grid | tuning.of_arm(trials, _mapping("an arm", arm))
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
            settings = {f"{key}.{name}": setting for name, setting in _mapping(key, settings).items()}
            if twice := settings.keys() & {*flat, *point}:
                raise UserError(f"{min(twice)} is given twice, alone and under {key}: leave one of them out")
            flat |= settings
        else:
            flat[key] = value
    return flat


def _evaluations(wanted: Any, known: dict[str, Any]) -> list[str]:
    found = _sequence("evaluate", list(known) if wanted == "all" else wanted)
    for name in found:
        if not isinstance(name, str) or name not in known:
            raise UserError(
                f"evaluate names {name!r}, which is none of evaluations: {', '.join(known) or 'none is given'}"
            )
    return found


def _check_epochs(wanted: dict[str, dict[str, Any]], spec: RunSpec) -> None:
    """UserError for an evaluation that is to look at a run in an epoch that its training has not."""
    for name, settings in wanted.items():
        if late := [epoch for epoch in settings.get("epochs") or () if not 0 <= epoch < spec.epochs]:
            raise UserError(
                f"evaluations.{name}: epochs has {late[0]}, but the training of {spec.id} has epochs 0 to"
                f" {spec.epochs - 1}: leave it out, or leave that run out"
            )


def _names(kind: str, given: Any) -> tuple[str, ...]:
    for name in _sequence(kind, given or []):
        registry.plugin(kind, name)
    return tuple(given or [])


def _known(where: str, given: dict[str, Any], known: Iterable[str]) -> None:
    for key in given:
        if key not in known:
            raise UserError(f"{where} has no key {key!r}: it has {', '.join(known)}")


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value or {}, dict):
        raise UserError(f"{key} is {value!r:.200}, but must be a mapping")
    for name in value or {}:
        if not isinstance(name, str) or not name.isprintable() or not name.strip():
            raise UserError(f"{key} has the key {name!r:.200}, but keys must be words")
    return value or {}


def _sequence(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{key} is {value!r:.200}, but must be a list")
    return value
