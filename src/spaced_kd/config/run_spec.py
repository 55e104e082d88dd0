"""What a run is: `RunSpec` and its id.

A run is described by its overrides: what differs from the defaults, as `key=value` on the command line and as canonical
JSON in its id. So a new setting with a default leaves finished runs finished. The full resolved description is stored
beside a run and compared: if a default has changed since, the run is refused, and the message names the key.
"""

import hashlib
import json
import shlex
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from spaced_kd.config import presets, registry, types
from spaced_kd.config.registry import PLUGINS, TEACHING, network_count
from spaced_kd.config.validation import check
from spaced_kd.config.yaml_values import parse_override
from spaced_kd.utils.errors import UserError


@dataclass(frozen=True)
class RunSpec:
    """One training. Every field can change its weights; apart from them only machine and versions do, see run.json."""

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
    rotation: float = 0.0  # degrees by which training images are rotated at random, at most, after crop and flip (B9)
    input_size: int = 0  # pixels at which networks see images; 0 is the dataset's own (V11)
    standardisation: Literal["own", "imagenet", "cifar10"] = "own"  # whose mean and deviation: the dataset's (B8, C7)

    def changed(self) -> dict[str, Any]:
        """What differs from the defaults, flat, in the order of keys; a setting that has its default value is left out.

        >>> RunSpec("digits", "resnet18", "online_kd", 0, settings={"method": {"alpha": 0.5}}).changed()
        {'dataset': 'digits', 'method': 'online_kd', 'method.alpha': 0.5, 'network': 'resnet18', 'seed': 0}
        """
        return dict(self._changed)

    @cached_property
    def _changed(self) -> dict[str, Any]:
        plain = {f.name: f.default for f in fields(self) if f.name != "settings"}
        out = {key: getattr(self, key) for key, default in plain.items() if getattr(self, key) != default}
        out |= {"seed": self.seed}
        for role, given in self.settings.items():
            standard = registry.defaults(PLUGINS[role], getattr(self, role))
            out |= {f"{role}.{key}": value for key, value in given.items() if value != standard.get(key)}
        return {key: out[key] for key in sorted(out)}

    def resolved(self) -> dict[str, Any]:
        """Every field and every setting with its value, defaults included, as it is stored beside a run."""
        roles = {role: kind for role, kind in PLUGINS.items() if getattr(self, role)}
        full = {
            role: registry.defaults(kind, getattr(self, role)) | self.settings.get(role, {})
            for role, kind in roles.items()
        }
        read: dict[str, Any] = json.loads(json.dumps(asdict(self) | {"settings": full}))
        return read

    @cached_property
    def id(self) -> str:
        """Readable parts and a hash of what differs from the defaults: digits-resnet_mini-online_kd-1.5-0-3f2a91c0."""
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

    def overrides(self) -> list[str]:
        """What differs from the defaults as `key=value`, as the command line takes it."""
        return [
            f"{key}={json.dumps(value) if not isinstance(value, str) else value}"
            for key, value in self.changed().items()
        ]

    def words(self) -> list[str]:
        """The name of `overrides` until version 0.3."""
        warnings.warn("RunSpec.words is now RunSpec.overrides: use that", DeprecationWarning, stacklevel=2)
        return self.overrides()

    def value(self, key: str) -> Any:
        """Value of a flat key such as "lr" or "method.alpha", also of one that has its default."""
        role, dot, setting = key.partition(".")
        if not dot:
            return getattr(self, key)
        return (registry.defaults(PLUGINS[role], getattr(self, role)) | self.settings.get(role, {})).get(setting)

    def label(self, role: str, overrides: dict[str, Any] | None = None) -> str:
        """Display name of a plug-in: its name, and in brackets its own settings among flat `overrides`.

        `overrides` are all that differs from the defaults, unless others are given.

        >>> RunSpec("digits", "resnet18", "online_kd", 0, settings={"method": {"alpha": 0.5}}).label("method")
        'online_kd[alpha=0.5]'
        """
        if role in TEACHING and not getattr(self, role):
            role = "network"
        overrides = self.changed() if overrides is None else overrides
        own = [f"{key}={overrides[key]}" for key in sorted(overrides) if key.startswith(f"{role}.")]
        brackets = f"[{','.join(setting.removeprefix(f'{role}.') for setting in own)}]" if own else ""
        return f"{getattr(self, role)}{brackets}"

    def teacher_spec(self) -> "RunSpec | None":
        """The teacher's own run, which is also the baseline `w/o KD`; None if the method has one network only."""
        if network_count(self.method) == 1:
            return None
        return self._teacher

    @cached_property
    def _teacher(self) -> "RunSpec":
        return self.baseline_of("teacher")

    def baseline_of(self, role: str) -> "RunSpec":
        """The run without KD of the teacher's or the assistant's network."""
        network = getattr(self, role) or self.network
        own = self.settings.get(role if getattr(self, role) else "network", {})
        own = {key: value for key, value in own.items() if key not in STUDENTS}
        settings = {"dataset": self.settings.get("dataset", {}), "network": own}
        reset = ("interval", *TEACHING, *STUDENTS)
        plain: dict[str, Any] = {f.name: f.default for f in fields(self) if f.name in reset}
        return check(replace(self, method="baseline", network=network, settings=settings, **plain))

    def follower(self) -> str:
        """The overrides of a student that decide which states its teacher saves for it, in one line."""
        own = [each for each in self.overrides() if each.partition("=")[0] in FOLLOWERS or each.startswith("method.")]
        return shlex.join(own)


# fields, and settings of a network, that only a student has: its teacher is shared whatever their values are
STUDENTS = ("clock", "initial_weights", "interval_rounding", "distillation_token")
OWN_RUN = ("stored", "together")  # `teacher_states` in run.json of students whose teacher was trained in its own run
FOLLOWERS = ("interval", "interval_rounding", "method")  # fields that decide when a student learns


def from_flat(flat: dict[str, Any], protocols: Path = presets.PROTOCOLS) -> RunSpec:
    """A checked RunSpec from flat keys, as `changed` gives them: {"dataset": "digits", "method.alpha": 0.5, ...}.

    The key `protocol` stands for its switches; what is given beside it wins.
    """
    for key in ("dataset", "network", "method", "seed"):
        if key not in flat:
            raise UserError(f"the run has no {key}: add {key}=...")
    if "protocol" in flat:
        name, method, dataset = (types.check_type(key, flat[key], "str") for key in ("protocol", "method", "dataset"))
        networks = {
            role: types.check_type(role, flat[role], "str") for role in ("network", *TEACHING) if flat.get(role)
        }
        interval = types.check_type("interval", flat.get("interval", 0), "float | str")
        chosen = presets.values(name, method, networks, interval, dataset, protocols, STUDENTS)
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
                f" method.alpha=0.5{registry.hint(key, known)}"
            )
    return check(RunSpec(**values))


def from_overrides(overrides: list[str]) -> RunSpec:
    """A checked RunSpec from overrides such as `method.alpha=0.5`; values are read as YAML."""
    return from_flat(parse_overrides(overrides))


def parse_overrides(overrides: Iterable[str]) -> dict[str, Any]:
    """Flat keys of `key=value` overrides; UserError for a key that is given twice."""
    found: dict[str, Any] = {}
    for override in overrides:
        key, value = parse_override(override)
        if key in found:
            raise UserError(f"{key} is given twice, as {found[key]} and as {value}: leave one of them out")
        found[key] = value
    return found


def compare(spec: RunSpec, stored: dict[str, Any], where: Path | str) -> None:
    """UserError if a stored description has another value than `spec` for one of its keys; new keys are ignored."""
    for key, (before, now) in _differences(stored, spec.resolved()).items():
        raise UserError(
            f"{where} was made with {key}={before}, but {key} is now {now} by default: write {key}={before} into the"
            f" configuration, or move {where} away to train it again"
        )


def _differences(stored: dict[str, Any], now: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    out: dict[str, tuple[Any, Any]] = {}
    for key, value in stored.items():
        name = f"{prefix}{key}".removeprefix("settings.")
        if isinstance(value, dict) and isinstance(now.get(key), dict):
            out |= _differences(value, now[key], f"{prefix}{key}.")
        elif now.get(key) != value:
            out[name] = (value, now.get(key))
    return out


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]
