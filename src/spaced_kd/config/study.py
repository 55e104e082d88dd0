"""A study: the runs of a configuration file, their evaluations, and the tables and figures drawn from them."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

from spaced_kd.config import grids, presets, registry, shipped, study_checks, types
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.config.yaml_values import mapping, numbers, sequence
from spaced_kd.utils import yaml_files
from spaced_kd.utils.errors import UserError


@dataclass(frozen=True)
class Study:
    """A configuration file expanded: its runs, the evaluations of each, and the tables and figures."""

    name: str
    runs: tuple[RunSpec, ...]
    evaluations: dict[str, dict[str, Any]]  # name -> settings
    evaluated: dict[str, tuple[str, ...]]  # id of a run -> names of its costly evaluations
    tables: tuple[str, ...]
    figures: tuple[str, ...]
    data: str  # folder of the published datasets
    store_teachers: bool  # whether teachers save their states for their students
    train_together: bool = False  # whether students that need their teacher after every batch train in its job
    planned: dict[str, tuple[int, ...]] = field(default_factory=dict)  # id of a run -> seeds planned for its arm
    tuned: dict[str, tuple[str, ...]] = field(default_factory=dict)  # id of a run that is a trial -> the keys tried
    only_teachers: frozenset[str] = frozenset()  # ids of runs that are in no arm, only teachers of students
    experiments: tuple["Study", ...] = ()  # whose union the study is; each has its own folder of results

    @property
    def parts(self) -> tuple["Study", ...]:
        """Its experiments, or the study itself; each has rows of its own."""
        return self.experiments or (self,)

    def drawn_by(self, kind: str, name: str) -> "Study":
        """The experiment that lists a table or figure, which is drawn from its rows; else the whole study."""
        return next((part for part in self.experiments if name in getattr(part, kind)), self)

    def followers(self, teacher_id: str) -> list[str]:
        """The students for whom a teacher saves its states, as overrides; online KD trains its teacher along."""
        return sorted(self._followers.get(teacher_id, ())) if self.store_teachers else []

    def companions(self, teacher_id: str) -> list[str]:
        """The students that may train in their teacher's job, as overrides; that job tells which of them need it."""
        return sorted(self._companions.get(teacher_id, ())) if self.train_together else []

    @cached_property
    def _companions(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for run in self.runs:
            if teacher := run.teacher_spec():
                found.setdefault(teacher.id, set()).add(shlex.join(run.overrides()))
        return found

    @cached_property
    def _followers(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for run in self.runs:
            if run.interval != 0 and (teacher := run.teacher_spec()):
                found.setdefault(teacher.id, set()).add(run.follower())
        return found


STUDY_KEYS = {  # key -> description; the documentation's reference page is generated from this
    "study": "name: results are written to `results/<study>`",
    "data": "folder of the published datasets; `data` unless given",
    "store_teachers": "`true` (default): a teacher stores its state at the block ends of its students, on disk in"
    " `results/state`. `false`: each student trains its teacher along, to the same bits",
    "train_together": "`true`: a student that needs its teacher after every batch, as in online KD, trains in its"
    " teacher's job. `false` (default): it trains its teacher along, to the same bits",
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
EXPERIMENTS = shipped.EXPERIMENTS
RESERVED = ("bench", "data", "logs", "recorded", "runs", "state", "submitted", "theory")  # not names of studies


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
        key: registry.check_settings("evaluations", key, mapping(f"evaluations.{key}", given))
        for key, given in mapping("evaluations", config.get("evaluations")).items()
    }
    runs: dict[str, RunSpec] = {}
    evaluated: dict[str, set[str]] = {}
    planned: dict[str, tuple[int, ...]] = {}
    tuned: dict[str, tuple[str, ...]] = {}
    asked = set()
    for point in grids.points(config, evaluations, protocols):
        asked.add(point.run.id)
        if point.tuned:
            tuned[point.run.id] = point.tuned
        for each in filter(None, (point.run.teacher_spec(), point.run)):
            runs.setdefault(each.id, each)
            evaluated.setdefault(each.id, set())
            if point.planned:
                study_checks.check_planned(each, point.planned)
                planned[each.id] = tuple(sorted({*planned.get(each.id, ()), *point.planned}))
        study_checks.check_epochs({name: evaluations[name] for name in point.evaluate}, point.run)
        evaluated[point.run.id] |= set(point.evaluate)
    if not runs:
        raise UserError("grids is empty: add at least one grid with dataset, network, method and seed")
    study_checks.check_paired(runs.values())
    drawn = {kind: _names(kind, config.get(kind)) for kind in ("tables", "figures")}
    study_checks.check_precision(runs.values(), [*drawn["tables"], *drawn["figures"]])
    study_checks.check_evaluated(drawn, evaluated.values())
    return Study(
        name=name,
        runs=tuple(runs.values()),
        evaluations=evaluations,
        evaluated={key: tuple(sorted(value)) for key, value in evaluated.items()},
        tables=drawn["tables"],
        figures=drawn["figures"],
        data=types.check_type("data", config.get("data", "data"), "str"),
        store_teachers=types.check_type("store_teachers", config.get("store_teachers", True), "bool"),
        train_together=types.check_type("train_together", config.get("train_together", False), "bool"),
        planned=planned,
        tuned=tuned,
        only_teachers=frozenset(runs.keys() - asked),
    )


def _union(config: dict[str, Any], protocols: Path, folder: Path) -> Study:
    """The union of experiments: a run that several share is trained once; each is collected and drawn by itself."""
    name, common = (
        config["study"],
        {key: config[key] for key in ("data", "store_teachers", "train_together", "planned_seeds") if key in config},
    )
    for key in ("recipes", "grids", "evaluations"):
        if key in config:
            raise UserError(f"a study with experiments has no {key} of its own: write them into an experiment")
    parts: list[Study] = []
    for word in sequence("experiments", config["experiments"]):
        path = folder / f"{word}.yaml"
        if not path.exists():
            known = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
            raise UserError(f"{word!r} is none of the experiments: {known}")
        try:
            part = expand(mapping("it", _read(path)) | common, protocols, folder)
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
    only_teachers = frozenset(runs).difference(*({run.id for run in part.runs} - part.only_teachers for part in parts))
    drawn = {kind: _names(kind, config.get(kind)) for kind in ("tables", "figures")}
    study_checks.check_precision(runs.values(), [*drawn["tables"], *drawn["figures"]])
    study_checks.check_evaluated(drawn, evaluated.values())
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
        train_together=parts[0].train_together,
        planned=planned,
        only_teachers=only_teachers,
        experiments=tuple(parts),
    )


def experiment_of(kind: str, name: str, folder: Path = EXPERIMENTS) -> Path | None:
    """The file of config/experiments that lists a table or figure; one of studies/paper.yaml where there is one."""
    paper = [folder / f"{word}.yaml" for word in _read(folder.parent / "studies" / "paper.yaml")["experiments"]]
    paths = dict.fromkeys([*paper, *sorted(folder.glob("*.yaml"))])
    return next((path for path in paths if name in (_read(path).get(kind) or ())), None)


def _names(kind: str, given: Any) -> tuple[str, ...]:
    for name in sequence(kind, given or []):
        registry.plugin(kind, name)
    return tuple(given or [])


def _known(where: str, given: dict[str, Any], known: Iterable[str]) -> None:
    for key in given:
        if key not in known:
            raise UserError(f"{where} has no key {key!r}: it has {', '.join(known)}")
