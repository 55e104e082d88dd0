"""What a run is: `RunSpec` and its id.

A run is described by what differs from the defaults, as `key=value` words on the command line and as canonical JSON in
its id. So a new setting with a default leaves finished runs finished. The full resolved description is stored beside a
run and compared: a default that changed is refused by name, and never silently means something else.
"""

import contextlib
import hashlib
import json
import re
import shlex
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from spaced_kd import catalog, protocol, yaml_files
from spaced_kd.errors import UserError
from spaced_kd.schedule import TAIL_STATES

PLUGINS = {
    "dataset": "datasets",
    "network": "networks",
    "teacher": "networks",
    "assistant": "networks",
    "method": "methods",
}
TEACHING = ("teacher", "assistant")  # who may have a network of its own; the student's where none is named
CHAIN = " > "  # stands between them where both are named


@dataclass(frozen=True)
class RunSpec:
    """One training. Every field can change the weights; besides, only machine and versions can, which are recorded."""

    dataset: str  # dataset, by name, or {name: {setting: value}}
    network: str  # network of the student, and of the teacher unless `teacher` names another
    method: str  # method by which the student learns
    seed: int  # seed of initial weights, order and augmentation; arms are paired by it
    interval: float | str = 0.0  # epochs that the teacher is ahead; 0 is one batch (online KD), "max" is offline KD
    teacher: str = ""  # network of the teacher; empty: the student's
    assistant: str = ""  # network between teacher and student in a chain of three (TAKD); empty: the student's
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)  # of dataset, networks and method
    epochs: int = 80  # length of the training in passes over the training set
    batch_size: int = 128  # images per batch; the last one of an epoch may be smaller
    optimizer: Literal["sgd", "adamw"] = "sgd"  # optimiser of every network
    lr: float = 0.01  # learning rate
    momentum: float = 0.9  # momentum of SGD
    weight_decay: float = 5e-4  # weight decay per step: the released code's for ResNets, since the paper gives none
    nesterov: bool = False  # Nesterov momentum of SGD
    # schedule of the learning rate; with steps it falls at `lr_drops`
    lr_schedule: Literal["constant", "cosine", "steps"] = "constant"
    lr_drops: tuple[float, ...] = ()  # epochs at which the learning rate is divided by 10
    warmup_epochs: float = 0.0  # epochs of linear warm-up
    warmup_lr: float = 0.0  # learning rate at which warm-up starts
    min_lr: float = 0.0  # learning rate at which cosine ends
    lr_clock: Literal["steps", "epochs"] = "steps"  # one learning rate per step, or per epoch of the data (C2)
    weight_decay_on: Literal["all", "weights"] = "all"  # weight decay on all parameters or on weights alone (C1)
    last_batch: Literal["kept", "dropped"] = "kept"  # the last batch of an epoch where it is smaller (C3)
    interval_rounding: Literal["down", "up"] = "down"  # rounding of the interval to whole batches (C4)
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"  # tf32: products on a GPU are rounded to TF32; bf16: autocast
    threads: int = 1  # CPU threads; 1 and 2 give different weights
    processes: int = 1  # processes that share each batch, one GPU each; other numbers round differently
    eval_every: int = 1  # epochs between evaluations on the test set; the last epoch always
    tail_evaluations: int = 0  # further evaluations over the last tenth of the reported network's own steps
    clock: Literal["learner", "teacher"] = "learner"  # whose epochs end in an evaluation (O10)
    initial_weights: Literal["same", "different"] = "same"  # initial weights of teacher and student (O9)
    # batch statistics: over the batch, each half of it as on two GPUs (O15), or each process's share
    batch_norm: Literal["whole", "halves", "shares"] = "whole"
    order_seed: int | None = None  # seed of the order of images; None: `seed`
    augmentation_seed: int | None = None  # seed of crops, flips and the like; None: `seed`
    held_out: float = 0.0  # share of each class's training images that is kept from training, to select an epoch
    # transforms of training images
    augmentation: Literal["standard", "autoaugment_cutout", "strong"] = "standard"
    input_size: int = 0  # pixels at which networks see images; 0 is the dataset's own (V11)
    standardisation: Literal["own", "imagenet", "cifar10"] = "own"  # whose mean and deviation: the dataset's (B8, C7)

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
        if role in TEACHING and not getattr(self, role):
            role = "network"
        own = [f"{key}={value}" for key, value in self.changed().items() if key.startswith(f"{role}.")]
        brackets = f"[{','.join(word.removeprefix(f'{role}.') for word in own)}]" if own else ""
        return getattr(self, role) + brackets

    def teacher_spec(self) -> "RunSpec | None":
        """The teacher's own run, which is also the baseline `w/o KD`; None where the method has one network only."""
        if _networks(self.method) == 1:
            return None
        return self.alone("teacher")

    def alone(self, role: str) -> "RunSpec":
        """The run without KD of the network that is teacher, or assistant."""
        network = getattr(self, role) or self.network
        own = self.settings.get(role if getattr(self, role) else "network", {})
        own = {key: value for key, value in own.items() if key not in STUDENTS}
        settings = {"dataset": self.settings.get("dataset", {}), "network": own}
        plain = {f.name: f.default for f in fields(self) if f.name in ("interval", *TEACHING, *STUDENTS)}
        return check(replace(self, method="baseline", network=network, settings=settings, **plain))

    def follower(self) -> str:
        """What a teacher needs to know of a student to leave its states for it, as words of one line."""
        words = [word for word in self.words() if word.partition("=")[0] in FOLLOWERS or word.startswith("method.")]
        return shlex.join(words)


# fields, and settings of a network, that a teacher does not have, so that it is shared whatever they are
STUDENTS = ("clock", "initial_weights", "interval_rounding", "distillation_token")
FOLLOWERS = ("interval", "interval_rounding", "method")  # fields by which a teacher knows when its student learns
TEXTBOOK = "textbook"  # the protocol whose switches are the defaults
POSITIVE = ("epochs", "batch_size", "lr", "threads", "processes", "eval_every")


def check(spec: RunSpec) -> RunSpec:
    """The spec with names, types and ranges checked and empty settings dropped; UserError names the culprit."""
    typed = _typed(spec)
    for part in (
        *(_check_ranges, _check_interval, _check_networks, _check_initial_weights, _check_clock, _check_learning_rate),
        *(_check_processes, _check_batch_norm, _check_needs, _check_window),
    ):
        part(typed)
    return typed


def _typed(spec: RunSpec) -> RunSpec:
    """Every value of the type of its field, every setting of its plug-in's."""
    values = dict(vars(spec))
    for f in fields(RunSpec):
        if f.name != "settings":
            values[f.name] = catalog.check_type(
                f.name, values[f.name], str(f.type) if isinstance(f.type, str) else _name(f.type)
            )
    settings = {}
    for role, kind in PLUGINS.items():
        given = spec.settings.get(role) or {}
        if role in TEACHING and not values[role]:
            if given:
                raise UserError(f"{role}.{next(iter(given))} is set, but no {role} network is named: add {role}=NAME")
            continue
        catalog.plugin(kind, values[role])
        if given := catalog.check_settings(kind, values[role], given):
            settings[role] = given
    return RunSpec(**(values | {"settings": settings}))


def _check_ranges(spec: RunSpec) -> None:
    for key in POSITIVE:
        if getattr(spec, key) <= 0:
            raise UserError(f"{key} is {getattr(spec, key)}, but must be positive")
    if spec.seed < 0:
        raise UserError(f"seed is {spec.seed}, but must not be negative")
    for key in ("order_seed", "augmentation_seed"):
        if getattr(spec, key) == spec.seed:
            raise UserError(f"{key} is {spec.seed}, which is the run's seed already: leave it out, or draw anew")
    if not 0 <= spec.held_out < 1:
        raise UserError(f"held_out is {spec.held_out:g}, but must be a share of the training images, below 1")
    if spec.tail_evaluations and spec.tail_evaluations < TAIL_STATES:
        raise UserError(
            f"tail_evaluations is {spec.tail_evaluations}, but must be at least {TAIL_STATES}, for a mean over as"
            " many states, or 0 for none"
        )
    if spec.input_size < 0:
        raise UserError(f"input_size is {spec.input_size}, but must not be negative: 0 is the dataset's own")


def _check_interval(spec: RunSpec) -> None:
    interval, method = spec.interval, spec.method
    if interval != "max":
        if isinstance(interval, str):
            raise UserError(f"interval is {interval!r}, but must be a number of epochs, or max for offline KD")
        if interval < 0:
            raise UserError(f"interval is {interval:g}, but must not be negative: 0 is online KD")
        if interval > spec.epochs:
            raise UserError(
                f"interval is {interval:g} epochs, longer than training's {spec.epochs}: use max for offline KD"
            )
    if interval != 0 and len(_roles(method)) == 1:
        raise UserError(f"interval is {interval}, but {method} has no student that could lag: leave it out")
    if interval != 0 and catalog.plugin("methods", method).constants.get("finds_interval"):
        raise UserError(f"interval is {interval}, but {method} finds its own: leave it out")
    if interval == "max" and _networks(method) == 1:
        raise UserError(f"interval is max, but in {method} teacher and student are one network: give epochs")


def _check_networks(spec: RunSpec) -> None:
    """Who has a network of its own, and which of them may have a distillation token."""
    if spec.teacher and _networks(spec.method) == 1:
        raise UserError(f"teacher is {spec.teacher}, but {spec.method} has no teacher of its own: leave it out")
    if spec.assistant and "assistant" not in _roles(spec.method).values():
        raise UserError(f"assistant is {spec.assistant}, but {spec.method} has none: leave it out")
    for role, given in spec.settings.items():
        if given.get("distillation_token") and (role in TEACHING or _networks(spec.method) == 1):
            raise UserError(
                f"{role}.distillation_token is true, but only a student with a teacher has one: leave it out"
            )


def _check_initial_weights(spec: RunSpec) -> None:
    if spec.initial_weights == "different" and "initial_weights" in catalog.defaults("methods", spec.method):
        raise UserError(
            f"initial_weights is different, but {spec.method} has a setting of its own: use method.initial_weights"
        )
    if spec.initial_weights == "different" and _networks(spec.method) == 1:
        raise UserError(f"initial_weights is different, but {spec.method} has one network only: leave it out")


def _check_clock(spec: RunSpec) -> None:
    if spec.clock == "teacher" and protocol.kind(spec.interval) != "spaced":
        raise UserError(
            f"clock is teacher, but interval is {spec.interval}, where it makes no difference: leave it out"
        )
    if spec.clock == "teacher" and catalog.plugin("methods", spec.method).constants.get("finished_teacher"):
        raise UserError(f"clock is teacher, but that of {spec.method} has finished before all others: leave it out")


def _check_learning_rate(spec: RunSpec) -> None:
    if spec.nesterov and not (spec.optimizer == "sgd" and spec.momentum):
        raise UserError("nesterov is true, but only sgd with momentum has it: leave it out")
    if spec.lr_clock == "epochs" and catalog.plugin("methods", spec.method).constants.get("finds_interval"):
        raise UserError(
            f"lr_clock is epochs, but {spec.method} finds the order of its turns on the way: use lr_clock=steps"
        )
    if not 0 <= spec.warmup_epochs <= spec.epochs:
        raise UserError(
            f"warmup_epochs is {spec.warmup_epochs:g}, but must be within the {spec.epochs} epochs: lower it, or raise"
            " epochs"
        )
    for key in ("min_lr", "warmup_lr"):
        if not 0 <= getattr(spec, key) <= spec.lr:
            raise UserError(f"{key} is {getattr(spec, key):g}, but must be from 0 to lr, {spec.lr:g}: lower it")
    drops = spec.lr_drops
    if bool(drops) != (spec.lr_schedule == "steps"):
        raise UserError(f"lr_drops is {list(drops)}, but lr_schedule is {spec.lr_schedule}: steps needs drops")
    if list(drops) != sorted(set(drops)) or not all(0 < drop < spec.epochs for drop in drops):
        raise UserError(f"lr_drops is {list(drops)}, but must rise, within the {spec.epochs} epochs")


def _check_processes(spec: RunSpec) -> None:
    inside = [key for key in ("parts", "looks_back") if key in catalog.plugin("methods", spec.method).constants]
    if inside and spec.processes > 1:  # which need more of a network than what it says of a share of this batch
        raise UserError(f"processes is {spec.processes}, but {spec.method} trains in one: leave it out")


def _check_batch_norm(spec: RunSpec) -> None:
    for network in filter(None, (spec.network, spec.teacher, spec.assistant)):
        if spec.batch_norm != "whole" and not catalog.plugin("networks", network).constants.get("BATCH_NORM", True):
            raise UserError(f"batch_norm is {spec.batch_norm}, but {network} has no batch norm: leave it out")
    if spec.batch_norm == "shares" and spec.processes == 1:
        raise UserError("batch_norm is shares, but processes is 1, whose share is the whole batch: leave it out")
    if spec.batch_norm == "halves" and spec.processes > 1:
        raise UserError(f"batch_norm is halves, but processes is {spec.processes}: use shares, or leave it out")


def _check_needs(spec: RunSpec) -> None:
    """UserError for a setting that makes no sense at this interval, or beside another setting."""
    method, interval = spec.method, spec.interval
    plain = catalog.defaults("methods", method)
    found = plain | spec.settings.get("method", {}) | {"interval": protocol.kind(interval)}
    for key, needs in catalog.plugin("methods", method).constants.get("needs", {}).items():
        for other, options in needs.items():
            if found[key] != plain[key] and found[other] not in options:
                told = f"{interval} ({found[other]})" if other == "interval" else found[other]
                raise UserError(
                    f"{method}.{key} is {found[key]}, but {other} is {told}: it needs {other}"
                    f" {' or '.join(map(str, options))}"
                )


def _check_window(spec: RunSpec) -> None:
    """UserError for a window of spaced epochs that is empty, or not inside the training."""
    given = spec.settings.get("method", {})
    first, last = given.get("spaced_from", 0.0), given.get("spaced_until")
    if not 0 <= first < (spec.epochs if last is None else last) <= spec.epochs:
        until = "the end" if last is None else f"{last:g}"
        raise UserError(
            f"{spec.method}.spaced_from is {first:g} and spaced_until {until}, but must be a window of the"
            f" {spec.epochs} epochs"
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
        name, method, dataset = (catalog.check_type(key, flat[key], "str") for key in ("protocol", "method", "dataset"))
        networks = {
            role: catalog.check_type(role, flat[role], "str") for role in ("network", *TEACHING) if flat.get(role)
        }
        interval = catalog.check_type("interval", flat.get("interval", 0), "float | str")
        chosen = protocol.values(name, method, networks, interval, dataset, protocols, STUDENTS)
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
                f"unknown key {key!r}: a run has {', '.join(sorted(known | {'protocol'}))}, and settings as"
                f" method.alpha=0.5{catalog.hint(key, known)}"
            )
    return check(RunSpec(**values))


def from_words(words: list[str]) -> RunSpec:
    """A checked RunSpec from `key=value` words; values are read as YAML."""
    return from_flat(parse_words(words))


def protocols_of(spec: RunSpec, protocols: Path = protocol.FOLDER) -> dict[str, RunSpec]:
    """Protocols whose switches the run has, `textbook` first, each with what the run would be without them.

    None where it has some of one's and some of another's. Of a method of which no protocol says anything, runs have
    the first one's.
    """
    names = sorted(protocol.names(protocols), key=lambda name: (name != TEXTBOOK, name))
    telling = [name for name in names if protocol.has(name, spec.method, protocols)]
    if not telling:
        return dict.fromkeys(names[:1], spec)
    of_textbook = protocol.keys(TEXTBOOK, spec.method, protocols, TEACHING) if TEXTBOOK in names else set()
    found = {}
    for name in telling:
        switches = protocol.keys(name, spec.method, protocols, TEACHING)
        bare = {key: value for key, value in spec.changed().items() if key not in switches}
        with contextlib.suppress(UserError):  # what the run has besides contradicts this protocol, or textbook
            # a switch that the protocol does not name is textbook's
            if not bare.keys() & of_textbook and from_flat(bare | {"protocol": name}, protocols).id == spec.id:
                found[name] = from_flat(bare)
    return found


def parse_words(words: Iterable[str]) -> dict[str, Any]:
    """Flat keys of `key=value` words; UserError for a key that stands there twice."""
    found: dict[str, Any] = {}
    for word in words:
        key, value = parse_word(word)
        if key in found:
            raise UserError(f"{key} is given twice, as {found[key]} and as {value}: leave one of them out")
        found[key] = value
    return found


def parse_word(word: str) -> tuple[str, Any]:
    """`key=value` with the value read as YAML (1e-3 counts as a number)."""
    key, equals, text = word.partition("=")
    if not equals:
        raise UserError(f"{word!r} is not of the form key=value")
    return key, read_value(text)


def read_value(text: str) -> Any:
    """One YAML value; unlike YAML 1.1, numbers like 5e-4 are numbers."""
    return numbers(yaml_files.parse_word(text))


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


def numbers(value: Any, what: Any = "it") -> Any:
    """YAML 1.1 reads 5e-4 as a string: read such strings as the numbers that they look like.

    UserError for what YAML has and settings have not, such as a date; `what` is the key that it belongs to.
    """
    if isinstance(value, dict):
        return {key: numbers(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers(item, what) for item in value]
    if not isinstance(value, str | int | float | None):
        kind = type(value).__name__
        raise UserError(f"{what} is {value!s:.50} ({kind}), but must be text, a number, yes or no: put it in quotes")
    return float(value) if isinstance(value, str) and EXPONENT.fullmatch(value) else value


EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)e[-+]?[0-9]+", re.I)


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).removeprefix("typing.")
