"""What a run is: `RunSpec`, its id, and the study that a configuration file expands to.

A run is described by what differs from the defaults, as `key=value` words on the command line and as canonical JSON in
its id. So a new setting with a default leaves finished runs finished. The full resolved description is stored beside a
run and compared: a default that changed is refused by name, and never silently means something else.
"""

import hashlib
import itertools
import json
import shlex
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TextIO

import yaml

from spaced_kd import catalog, protocol
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
        settings = {"dataset": self.settings.get("dataset", {}), "network": own}
        plain = {f.name: f.default for f in fields(self) if f.name in STUDENTS}
        return check(
            replace(self, method="baseline", interval=0.0, network=network, teacher="", settings=settings, **plain)
        )

    def follower(self) -> str:
        """What a teacher needs to know of a student to leave its states for it, as words of one line."""
        words = [word for word in self.words() if word.startswith(("interval=", "method=", "method."))]
        return shlex.join(words)


STUDENTS = ("clock", "initial_weights")  # fields that mean nothing to a teacher, so that it is shared whatever they are
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
    if values["clock"] == "teacher" and protocol.kind(interval) != "spaced":
        raise UserError(f"clock is teacher, but interval is {interval}, where it makes no difference: leave it out")
    if values["seed"] < 0:
        raise UserError(f"seed is {values['seed']}, but must not be negative")
    _check_needs(spec.method, interval, settings.get("method", {}))
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
        name = catalog.check_type("protocol", flat["protocol"], "str")
        interval = catalog.check_type("interval", flat.get("interval", 0), "float | str")
        chosen = protocol.switches(name, flat["method"], interval, protocols)
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
    """Name of the protocol whose switches the run has, the first of several; `mixed` where it has none's."""
    for name in protocol.names(protocols):
        switches = protocol.load(name, protocols).get(spec.method, {})
        bare = {key: value for key, value in spec.changed().items() if key not in switches}
        if not switches or from_flat(bare | {"protocol": name}, protocols).id == spec.id:
            return name
    return "mixed"


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

    def followers(self, teacher_id: str) -> list[str]:
        """The students for whom a teacher leaves its states, as words; online KD trains its teacher along."""
        if not self.store_teachers:
            return []
        theirs = [run for run in self.runs if (teacher := run.teacher_spec()) and teacher.id == teacher_id]
        return sorted({run.follower() for run in theirs if run.interval != 0})


STUDY_KEYS = ("study", "data", "store_teachers", "recipes", "grids", "evaluations", "tables", "figures")


def load_study(path: Path | str | TextIO, protocols: Path = protocol.FOLDER) -> Study:
    """The study of a YAML file, or of an open one; `protocols`: folder of the sets of switches."""
    try:
        config = yaml.safe_load(Path(path).read_text() if isinstance(path, str | Path) else path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}: name a file such as config/demo.yaml") from None
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    try:
        return expand(config, protocols)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def expand(config: Any, protocols: Path = protocol.FOLDER) -> Study:
    """The study of a configuration: every grid's cross product, each run once, the teachers of the students added."""
    if not isinstance(config, dict) or not config.get("study"):
        raise UserError("the configuration has no key 'study': give the study a name")
    config = _numbers(config)
    _known("the configuration", config, STUDY_KEYS)
    name = config["study"]
    if not isinstance(name, str) or not name.replace("_", "").replace("-", "").isalnum():
        raise UserError(f"study is {name!r}, but must be a word of letters, digits, - and _")
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
            recipe = point.pop("recipe", {})
            if isinstance(recipe, str):
                if recipe not in recipes:
                    raise UserError(f"recipe {recipe!r} is none of recipes: {', '.join(recipes) or 'none is given'}")
                recipe = recipes[recipe]
            spec = from_flat(_flat(_mapping("recipe", recipe)) | _flat(point), protocols)
            for each in (spec.teacher_spec(), spec):
                if each:
                    runs.setdefault(each.id, each)
                    evaluated.setdefault(each.id, set())
            evaluated[spec.id] |= set(wanted)
    if not runs:
        raise UserError("grids is empty: add at least one grid with dataset, network, method and seed")
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
