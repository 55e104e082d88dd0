"""What a run is: `RunSpec`, its id, and the study that a configuration file expands to.

A run is described by what differs from the defaults, as `key=value` words on the command line and as canonical JSON in
its id. So a new setting with a default leaves finished runs finished. The full resolved description is stored beside a
run and compared: a default that changed is refused by name, and never silently means something else.
"""

import contextlib
import hashlib
import itertools
import json
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TextIO

import yaml

from spaced_kd import catalog, protocol, recipe
from spaced_kd.errors import UserError

PLUGINS = {"dataset": "datasets", "network": "networks", "teacher": "networks", "method": "methods"}


@dataclass(frozen=True)
class RunSpec:
    """One training. Every field can change the weights; besides, only machine and versions can, which are recorded."""

    dataset: str
    network: str
    method: str
    seed: int
    interval: float | str = 0.0  # epochs that the teacher is ahead; 0 is one batch (online KD), "max" is offline KD
    teacher: str = ""  # network of the teacher; empty: the student's
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # of dataset, network, teacher and method
    epochs: int = 80
    batch_size: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.01
    momentum: float = 0.9  # of sgd
    weight_decay: float = 5e-4
    lr_schedule: Literal["constant", "cosine"] = "constant"
    warmup_epochs: float = 0.0  # epochs of linear warm-up from 0
    min_lr: float = 0.0  # where cosine ends
    precision: Literal["fp32", "bf16"] = "fp32"  # bf16 is autocast
    threads: int = 1  # CPU threads: 1 and 2 give different weights
    eval_every: int = 1  # epochs between evaluations on the test set; the last epoch always
    clock: Literal["learner", "teacher"] = "learner"  # whose epochs end in an evaluation (O10)
    initial_weights: Literal["same", "different"] = "same"  # of teacher and student (O9)
    batch_norm: Literal["whole", "halves"] = "whole"  # over the batch, or each half of it as on two GPUs (O15)
    order_seed: int | None = None  # of the order of images; None: `seed`
    augmentation_seed: int | None = None  # of crops, flips and the like; None: `seed`
    held_out: float = 0.0  # share of each class's training images that no one learns, to choose an epoch by
    augmentation: Literal["standard", "autoaugment_cutout", "strong"] = "standard"  # the dataset's, S1's, the ViTs'
    input_size: int = 0  # pixels at which networks see images; 0 is the dataset's own (V11)

    def changed(self) -> dict[str, Any]:
        """What differs from the defaults, flat: {"dataset": "digits", "dataset.train_per_class": 20, ...}."""
        plain = {f.name: f.default for f in fields(self)}
        out = {k: v for k, v in vars(self).items() if k != "settings" and v != plain[k]}
        out |= {"seed": self.seed}
        for role, given in self.settings.items():
            standard = catalog.defaults(PLUGINS[role], getattr(self, role))
            out |= {f"{role}.{key}": value for key, value in given.items() if value != standard.get(key)}
        return {key: out[key] for key in sorted(out)}

    def resolved(self) -> dict[str, Any]:
        """Every field and every setting with its value, defaults included: what is stored beside a run."""
        roles = {role: kind for role, kind in PLUGINS.items() if getattr(self, role)}
        full = {
            role: catalog.defaults(kind, getattr(self, role)) | self.settings.get(role, {})
            for role, kind in roles.items()
        }
        return json.loads(json.dumps(asdict(self) | {"settings": full}))

    @property
    def id(self) -> str:
        """Readable parts, and a hash of what differs from the defaults: digits-resnet_mini-online_kd-1.5-0-3f2a91c0."""
        parts = [
            self.dataset,
            self.network,
            self.method,
            f"{self.interval:g}" if self.interval != "max" else "max",
            str(self.seed),
        ]
        return "-".join([*parts, _hash(self.changed())])

    @property
    def data_id(self) -> str:
        """Name of the prepared data: the dataset and a hash of its settings that differ from the defaults."""
        settings = {key: value for key, value in self.changed().items() if key.startswith("dataset")}
        return f"{self.dataset}-{_hash(settings)}"

    def words(self) -> list[str]:
        """The run as `key=value` words that the command line takes."""
        return [
            f"{key}={json.dumps(value) if not isinstance(value, str) else value}"
            for key, value in self.changed().items()
        ]

    def label(self, role: str) -> str:
        """Display name of a plug-in: its name, with what differs from its defaults in brackets."""
        if role == "teacher" and not self.teacher:
            role = "network"
        own = [f"{key}={value}" for key, value in self.changed().items() if key.startswith(f"{role}.")]
        brackets = f"[{','.join(word.removeprefix(f'{role}.') for word in own)}]" if own else ""
        return getattr(self, role) + brackets

    def teacher_spec(self) -> "RunSpec | None":
        """The teacher's own run, which is also the baseline `w/o KD`; None where the method has one network only."""
        if _networks(self.method) == 1:
            return None
        network = self.teacher or self.network
        own = self.settings.get("teacher" if self.teacher else "network", {})
        own = {key: value for key, value in own.items() if key not in STUDENTS}
        settings = {"dataset": self.settings.get("dataset", {}), "network": own}
        plain = {f.name: f.default for f in fields(self) if f.name in STUDENTS}
        return check(
            replace(self, method="baseline", interval=0.0, network=network, teacher="", settings=settings, **plain)
        )

    def follower(self) -> str:
        """What a teacher needs to know of a student to leave its states for it, as words of one line."""
        words = [word for word in self.words() if word.startswith(("interval=", "method=", "method."))]
        return shlex.join(words)


# fields, and settings of a network, that a teacher does not have, so that it is shared whatever they are
STUDENTS = ("clock", "initial_weights", "distillation_token")
POSITIVE = ("epochs", "batch_size", "lr", "threads", "eval_every")


def check(spec: RunSpec) -> RunSpec:
    """The spec with names, types and ranges checked and empty settings dropped; UserError names the culprit."""
    values = dict(vars(spec))
    for f in fields(RunSpec):
        if f.name != "settings":
            values[f.name] = catalog.check_type(
                f.name, values[f.name], str(f.type) if isinstance(f.type, str) else _name(f.type)
            )
    settings = {}
    for role, kind in PLUGINS.items():
        given = spec.settings.get(role) or {}
        if role == "teacher" and not spec.teacher:
            if given:
                raise UserError(
                    f"teacher.{next(iter(given))} is set, but no teacher network is named: add teacher=NAME"
                )
            continue
        catalog.plugin(kind, values[role])
        if given := catalog.check_settings(kind, values[role], given):
            settings[role] = given
    for key in POSITIVE:
        if values[key] <= 0:
            raise UserError(f"{key} is {values[key]}, but must be positive")
    for key in ("order_seed", "augmentation_seed"):
        if values[key] == spec.seed:
            raise UserError(f"{key} is {spec.seed}, which is the run's seed already: leave it out, or draw anew")
    if not 0 <= values["held_out"] < 1:
        raise UserError(f"held_out is {values['held_out']:g}, but must be a share of the training images, below 1")
    interval = values["interval"]
    if interval != "max":
        if isinstance(interval, str):
            raise UserError(f"interval is {interval!r}, but must be a number of epochs, or max for offline KD")
        if interval < 0:
            raise UserError(f"interval is {interval:g}, but must not be negative: 0 is online KD")
        if interval > values["epochs"]:
            raise UserError(
                f"interval is {interval:g} epochs, longer than training's {values['epochs']}: use max for offline KD"
            )
    if interval != 0 and len(_roles(spec.method)) == 1:
        raise UserError(f"interval is {interval}, but {spec.method} has no student that could lag: leave it out")
    if interval == "max" and _networks(spec.method) == 1:
        raise UserError(f"interval is max, but in {spec.method} teacher and student are one network: give epochs")
    if spec.teacher and _networks(spec.method) == 1:
        raise UserError(f"teacher is {spec.teacher}, but {spec.method} has no teacher of its own: leave it out")
    if values["initial_weights"] == "different" and _networks(spec.method) == 1:
        raise UserError(f"initial_weights is different, but {spec.method} has one network only: leave it out")
    for role, given in settings.items():
        if given.get("distillation_token") and (role == "teacher" or _networks(spec.method) == 1):
            raise UserError(
                f"{role}.distillation_token is true, but only a student with a teacher has one: leave it out"
            )
    if values["clock"] == "teacher" and protocol.kind(interval) != "spaced":
        raise UserError(f"clock is teacher, but interval is {interval}, where it makes no difference: leave it out")
    if values["input_size"] < 0:
        raise UserError(f"input_size is {values['input_size']}, but must not be negative: 0 is the dataset's own")
    if values["seed"] < 0:
        raise UserError(f"seed is {values['seed']}, but must not be negative")
    for network in filter(None, (spec.network, spec.teacher)):
        if values["batch_norm"] == "halves" and not catalog.plugin("networks", network).constants.get(
            "BATCH_NORM", True
        ):
            raise UserError(f"batch_norm is halves, but {network} has no batch norm: leave it out")
    _check_needs(spec.method, interval, settings.get("method", {}))
    _check_window(spec.method, values["epochs"], settings.get("method", {}))
    return RunSpec(**(values | {"settings": settings}))


def _check_needs(method: str, interval: float | str, given: dict[str, Any]) -> None:
    """UserError for a setting that makes no sense at this interval, or beside another setting."""
    plain = catalog.defaults("methods", method)
    found = plain | given | {"interval": protocol.kind(interval)}
    for key, needs in catalog.plugin("methods", method).constants.get("needs", {}).items():
        for other, options in needs.items():
            if found[key] != plain[key] and found[other] not in options:
                told = f"{interval} ({found[other]})" if other == "interval" else found[other]
                raise UserError(
                    f"{method}.{key} is {found[key]}, but {other} is {told}: it needs {other}"
                    f" {' or '.join(map(str, options))}"
                )


def _check_window(method: str, epochs: int, given: dict[str, Any]) -> None:
    """UserError for a window of spaced epochs that is empty, or not inside the training."""
    first, last = given.get("spaced_from", 0.0), given.get("spaced_until")
    if not 0 <= first < (epochs if last is None else last) <= epochs:
        until = "the end" if last is None else f"{last:g}"
        raise UserError(
            f"{method}.spaced_from is {first:g} and spaced_until {until}, but must be a window of the {epochs} epochs"
        )


def _roles(method: str) -> dict[str, str]:
    return catalog.plugin("methods", method).constants["roles"]


def _networks(method: str) -> int:
    return len(set(_roles(method).values()))


def from_flat(flat: dict[str, Any], protocols: Path = protocol.FOLDER) -> RunSpec:
    """A checked RunSpec from flat keys, as `changed` gives them: {"dataset": "digits", "method.alpha": 0.5, ...}.

    The key `protocol` stands for its switches; what is given beside it wins.
    """
    for key in ("dataset", "network", "method", "seed"):
        if key not in flat:
            raise UserError(f"the run has no {key}: add {key}=...")
    if "protocol" in flat:
        name, method, network, dataset = (
            catalog.check_type(key, flat[key], "str") for key in ("protocol", "method", "network", "dataset")
        )
        interval = catalog.check_type("interval", flat.get("interval", 0), "float | str")
        chosen = protocol.switches(name, method, network, interval, dataset, protocols)
        flat = chosen | {key: value for key, value in flat.items() if key != "protocol"}
    known = {f.name for f in fields(RunSpec)} - {"settings"}
    values: dict[str, Any] = {"settings": {}}
    for key, value in flat.items():
        role, dot, setting = key.partition(".")
        if dot and role in PLUGINS:
            values["settings"].setdefault(role, {})[setting] = value
        elif key in known:
            values[key] = value
        else:
            raise UserError(
                f"unknown key {key!r}: a run has {', '.join(sorted(known))}, and settings as method.alpha=0.5"
            )
    return check(RunSpec(**values))


def from_words(words: list[str]) -> RunSpec:
    """A checked RunSpec from `key=value` words; values are read as YAML."""
    return from_flat(dict(parse_word(word) for word in words))


def protocol_of(spec: RunSpec, protocols: Path = protocol.FOLDER) -> str:
    """Name of the protocol whose switches the run has, the first of several; `mixed` where it has none's.

    Of a method of which no protocol says anything, runs have the first one's.
    """
    names = protocol.names(protocols)
    telling = [name for name in names if spec.method in protocol.load(name, protocols)]
    for name in telling:
        switches = protocol.load(name, protocols)[spec.method]
        bare = {key: value for key, value in spec.changed().items() if key not in switches}
        with contextlib.suppress(UserError):  # what the run has besides contradicts this protocol
            if from_flat(bare | {"protocol": name}, protocols).id == spec.id:
                return name
    return "mixed" if telling or not names else names[0]


def parse_word(word: str) -> tuple[str, Any]:
    """`key=value` with the value read as YAML (1e-3 counts as a number)."""
    key, equals, text = word.partition("=")
    if not equals:
        raise UserError(f"{word!r} is not of the form key=value")
    return key, read_value(text)


def read_value(text: str) -> Any:
    """One YAML value; unlike YAML 1.1, numbers like 5e-4 are numbers."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UserError(f"{text!r} cannot be read as a YAML value") from None
    return _numbers(value)


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


STUDY_KEYS = ("study", "data", "store_teachers", "recipes", "grids", "evaluations", "tables", "figures", "experiments")
EXPERIMENTS = protocol.FOLDER.parent / "experiments"
RESERVED = ("data", "logs", "recorded", "runs", "state", "theory")  # folders of results that are no study's


def load_study(path: Path | str | TextIO, protocols: Path = protocol.FOLDER) -> Study:
    """The study of a YAML file, or of an open one; `protocols`: folder of the sets of switches."""
    config = _read(path)
    try:
        return expand(config, protocols)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read(path: Path | str | TextIO) -> Any:
    try:
        return yaml.safe_load(Path(path).read_text() if isinstance(path, str | Path) else path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: name a file such as config/demo.yaml") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def expand(config: Any, protocols: Path = protocol.FOLDER, experiments: Path = EXPERIMENTS) -> Study:
    """The study of a configuration: every grid's cross product, each run once, the teachers of the students added.

    With `experiments` it is the union of the studies in these files of config/experiments.
    """
    if not isinstance(config, dict) or not config.get("study"):
        raise UserError("the configuration has no key 'study': give the study a name")
    config = _numbers(config)
    _known("the configuration", config, STUDY_KEYS)
    name = config["study"]
    if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
        raise UserError(f"study is {name!r}, but must be a word of letters, digits, - and _")
    if name in RESERVED:
        raise UserError(f"study is {name!r}, but results/{name} is taken: choose another name")
    if "experiments" in config:
        return _union(config, protocols, experiments)
    recipes = _mapping("recipes", config.get("recipes"))
    evaluations = {
        key: catalog.check_settings("evaluations", key, _mapping(f"evaluations.{key}", given))
        for key, given in _mapping("evaluations", config.get("evaluations")).items()
    }
    runs: dict[str, RunSpec] = {}
    evaluated: dict[str, set[str]] = {}
    for grid in _sequence("grids", config.get("grids")):
        for point in _points(grid):
            wanted = _evaluations(point.pop("evaluate", []), evaluations)
            point = _flat(point)
            spec = from_flat(_recipe(point, recipes) | point, protocols)
            for each in (spec.teacher_spec(), spec):
                if each:
                    runs.setdefault(each.id, each)
                    evaluated.setdefault(each.id, set())
            evaluated[spec.id] |= set(wanted)
    if not runs:
        raise UserError("grids is empty: add at least one grid with dataset, network, method and seed")
    _check_paired(runs.values())
    return Study(
        name=name,
        runs=tuple(runs.values()),
        evaluations=evaluations,
        evaluated={key: tuple(sorted(value)) for key, value in evaluated.items()},
        tables=_names("tables", config.get("tables")),
        figures=_names("figures", config.get("figures")),
        data=catalog.check_type("data", config.get("data", "data"), "str"),
        store_teachers=catalog.check_type("store_teachers", config.get("store_teachers", True), "bool"),
    )


def _union(config: dict[str, Any], protocols: Path, folder: Path) -> Study:
    """The study that consists of experiments: what they share is one run, and each is collected and drawn alone."""
    name, common = config["study"], {key: config[key] for key in ("data", "store_teachers") if key in config}
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
    for part in parts:
        for key, settings in part.evaluations.items():
            if evaluations.setdefault(key, settings) != settings:
                raise UserError(f"evaluations.{key} has other settings in {part.name} than before it: give it the same")
        for run in part.runs:
            runs.setdefault(run.id, run)
            evaluated.setdefault(run.id, set()).update(part.evaluated[run.id])
    for kind in ("tables", "figures"):
        drawn = [name for part in parts for name in getattr(part, kind)]
        if twice := {name for name in drawn if drawn.count(name) > 1}:
            raise UserError(f"several experiments list {min(twice)} among their {kind}: leave it to one of them")
    return Study(
        name=name,
        runs=tuple(runs.values()),
        evaluations=evaluations,
        evaluated={key: tuple(sorted(value)) for key, value in evaluated.items()},
        tables=_names("tables", config.get("tables")),
        figures=_names("figures", config.get("figures")),
        data=parts[0].data,
        store_teachers=parts[0].store_teachers,
        experiments=tuple(parts),
    )


def experiment_of(kind: str, name: str, folder: Path = EXPERIMENTS) -> Path | None:
    """The file of config/experiments that lists a table or figure; one of config/paper.yaml, where there is one."""
    paper = [folder / f"{word}.yaml" for word in _read(folder.parent / "paper.yaml")["experiments"]]
    paths = dict.fromkeys([*paper, *sorted(folder.glob("*.yaml"))])
    return next((path for path in paths if name in (_read(path).get(kind) or ())), None)


def _recipe(point: dict[str, Any], recipes: dict[str, Any]) -> dict[str, Any]:
    """Takes `recipe` out of a flat point and gives its keys: a mapping, a name of the study's, or a file by network."""
    given = point.pop("recipe", {})
    if isinstance(given, str) and given in recipes:
        given = recipes[given]
    elif isinstance(given, str):
        if given not in recipe.names():
            known = ", ".join([*recipes, *recipe.names()])
            raise UserError(f"recipe {given!r} is none of recipes: {known}")
        networks, network = _numbers(recipe.load(given)), point.get("teacher") or point.get("network")
        if network not in networks:
            raise UserError(f"recipe {given!r} says nothing of {network}: it has {', '.join(networks)}")
        given = networks[network]
    return _flat(_mapping("recipe", given))


def _check_paired(runs: Iterable[RunSpec]) -> None:
    """UserError for two arms of a setting whose seeds do not pair: each has one that the other lacks."""
    arms: dict[str, dict[str, set[int]]] = {}
    for run in runs:
        own = [word for word in run.words() if word.startswith(("method", "interval="))]
        setting = [word for word in run.words() if word not in own and not word.startswith("seed=")]
        arms.setdefault(" ".join(setting), {}).setdefault(" ".join(own), set()).add(run.seed)
    for setting, seeds in arms.items():
        for (one, its), (other, others) in itertools.combinations(seeds.items(), 2):
            if its - others and others - its:
                raise UserError(
                    f"seeds are not paired: of {setting}, {one} has seed {min(its - others)}, which {other} lacks, and"
                    f" lacks {min(others - its)}: give one of them all seeds of the other"
                )


def compare(spec: RunSpec, stored: dict[str, Any], where: Path | str) -> None:
    """UserError if a stored resolved description means something else than `spec` does today; new keys do not count."""
    for key, (before, now) in _differences(stored, spec.resolved()).items():
        raise UserError(
            f"{where} was made with {key}={before}, but {key} is now {now} by default: write {key}={before} into the"
            f" configuration, or move {where} away to train it again"
        )


def _differences(stored: dict, now: dict, prefix: str = "") -> dict[str, tuple[Any, Any]]:
    out = {}
    for key, value in stored.items():
        name = f"{prefix}{key}".removeprefix("settings.")
        if isinstance(value, dict) and isinstance(now.get(key), dict):
            out |= _differences(value, now[key], f"{prefix}{key}.")
        elif now.get(key) != value:
            out[name] = (value, now.get(key))
    return out


def _points(grid: Any) -> list[dict[str, Any]]:
    """Cross product of a grid's lists; `arms` is a list of grids that continue it."""
    grid = dict(_mapping("a grid", grid))
    arms = grid.pop("arms", [{}])
    points = []
    for arm in _sequence("arms", arms):
        axes = grid | _mapping("an arm", arm)
        lists = {
            key: value if isinstance(value, list) and key != "evaluate" else [value] for key, value in axes.items()
        }
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
            flat |= {f"{key}.{name}": setting for name, setting in _mapping(key, settings).items()}
        else:
            flat[key] = value
    return flat


def _evaluations(wanted: Any, known: dict[str, Any]) -> list[str]:
    wanted = list(known) if wanted == "all" else wanted
    for name in _sequence("evaluate", wanted):
        if not isinstance(name, str) or name not in known:
            raise UserError(
                f"evaluate names {name!r}, which is none of evaluations: {', '.join(known) or 'none is given'}"
            )
    return wanted


def _names(kind: str, given: Any) -> tuple[str, ...]:
    for name in _sequence(kind, given or []):
        catalog.plugin(kind, name)
    return tuple(given or [])


def _known(where: str, given: dict[str, Any], known: tuple[str, ...]) -> None:
    for key in given:
        if key not in known:
            raise UserError(f"{where} has no key {key!r}: it has {', '.join(known)}")


def _mapping(key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value or {}, dict):
        raise UserError(f"{key} is {value!r:.200}, but must be a mapping")
    for name in value or {}:
        if not isinstance(name, str) or not name.isprintable():
            raise UserError(f"{key} has the key {name!r:.200}, but keys must be words")
    return value or {}


def _sequence(key: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{key} is {value!r:.200}, but must be a list")
    return value


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads 5e-4 as a string: read such strings as the numbers that they look like."""
    if isinstance(value, dict):
        return {key: _numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    if isinstance(value, str) and value[:1].isdigit() and "e" in value:
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).removeprefix("typing.")
