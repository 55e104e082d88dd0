"""A run's names, types and ranges, checked: each error names the key and the remedy."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from spaced_kd.config import presets, registry, types
from spaced_kd.config.registry import PLUGINS, TEACHING, network_count, roles_of
from spaced_kd.utils.errors import UserError

TAIL_STATES = 3  # the fewest states for a mean over the tail of a training
if TYPE_CHECKING:
    from spaced_kd.config.run_spec import RunSpec

POSITIVE = ("epochs", "batch_size", "lr", "threads", "processes", "eval_every")
NOT_NEGATIVE = ("seed", "order_seed", "augmentation_seed", "weight_decay", "tail_evaluations", "input_size")
AT_MOST = {  # a larger value is a typing error, which would otherwise end in a crash or fill the memory
    "epochs": 1_000_000,
    "threads": 1024,
    "tail_evaluations": 1000,
    "input_size": 4096,
}


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
    """The spec with every value checked against its field's type, and every setting against its plug-in."""
    values = {f.name: getattr(spec, f.name) for f in fields(spec)}
    for key, annotation in _annotations(type(spec)).items():  # type: ignore[arg-type] # a class is hashable
        values[key] = types.check_type(key, values[key], annotation)
    settings = {}
    for role, kind in PLUGINS.items():
        given = spec.settings.get(role) or {}
        if role in TEACHING and not values[role]:
            if given:
                raise UserError(f"{role}.{next(iter(given))} is set, but no {role} network is named: add {role}=NAME")
            continue
        registry.plugin(kind, values[role])
        if given := registry.check_settings(kind, values[role], given):
            settings[role] = given
    return replace(spec, **(values | {"settings": settings}))


def _check_ranges(spec: RunSpec) -> None:
    for key in POSITIVE:
        if getattr(spec, key) <= 0:
            raise UserError(f"{key} is {getattr(spec, key)}, but must be positive")
    for key in NOT_NEGATIVE:
        if (getattr(spec, key) or 0) < 0:
            raise UserError(f"{key} is {getattr(spec, key)}, but must not be negative")
    for key, most in AT_MOST.items():
        if getattr(spec, key) > most:
            raise UserError(f"{key} is {getattr(spec, key)}, but must be at most {most:,}: lower it")
    if not 0 <= spec.momentum < 1:
        raise UserError(f"momentum is {spec.momentum:g}, but must be at least 0 and below 1")
    for key in ("order_seed", "augmentation_seed"):
        if getattr(spec, key) == spec.seed:
            raise UserError(f"{key}={spec.seed} equals seed: omit it, or choose another value")
    if not 0 <= spec.held_out < 1:
        raise UserError(f"held_out is {spec.held_out:g}, but must be a share of the training images, below 1")
    if spec.tail_evaluations and spec.tail_evaluations < TAIL_STATES:
        raise UserError(
            f"tail_evaluations is {spec.tail_evaluations}, but must be at least {TAIL_STATES}, for a mean over as"
            " many states, or 0 for none"
        )
    if not 0 <= spec.rotation <= 180:
        raise UserError(f"rotation is {spec.rotation:g}, but must be from 0 to 180 degrees")
    if spec.rotation and spec.augmentation != "standard":
        raise UserError(
            f"rotation is {spec.rotation:g}, but augmentation is {spec.augmentation}: leave one of them out"
        )


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
    if interval != 0 and len(roles_of(method)) == 1:
        raise UserError(f"interval is {interval}, but {method} has no student that could lag: leave it out")
    if interval != 0 and registry.plugin("methods", method).constants["finds_interval"]:
        raise UserError(f"interval is {interval}, but {method} finds its own: leave it out")
    if interval == "max" and network_count(method) == 1:
        raise UserError(f"interval is max, but in {method} teacher and student are one network: give epochs")


def _check_networks(spec: RunSpec) -> None:
    """UserError for a role whose network the method does not have, or a distillation token that is not a student's."""
    if spec.teacher and network_count(spec.method) == 1:
        raise UserError(f"teacher is {spec.teacher}, but {spec.method} has no teacher of its own: leave it out")
    if spec.assistant and "assistant" not in roles_of(spec.method).values():
        raise UserError(f"assistant is {spec.assistant}, but {spec.method} has none: leave it out")
    for role, given in spec.settings.items():
        if given.get("distillation_token") and (role in TEACHING or network_count(spec.method) == 1):
            raise UserError(
                f"{role}.distillation_token is true, but only a student with a teacher has one: leave it out"
            )


def _check_initial_weights(spec: RunSpec) -> None:
    if spec.initial_weights == "different" and "initial_weights" in registry.defaults("methods", spec.method):
        raise UserError(
            f"initial_weights is different, but {spec.method} has a setting of its own: use method.initial_weights"
        )
    if spec.initial_weights == "different" and network_count(spec.method) == 1:
        raise UserError(f"initial_weights is different, but {spec.method} has one network only: leave it out")


def _check_clock(spec: RunSpec) -> None:
    if spec.clock == "teacher" and presets.interval_kind(spec.interval) != "spaced":
        raise UserError(
            f"clock is teacher, but interval is {spec.interval}, where it makes no difference: leave it out"
        )
    if spec.clock == "teacher" and registry.plugin("methods", spec.method).constants["finished_teacher"]:
        raise UserError(f"clock is teacher, but that of {spec.method} has finished before all others: leave it out")


def _check_learning_rate(spec: RunSpec) -> None:
    if spec.nesterov and not (spec.optimizer == "sgd" and spec.momentum):
        raise UserError("nesterov is true, but only sgd with momentum has it: leave it out")
    if spec.lr_clock == "epochs" and registry.plugin("methods", spec.method).constants["finds_interval"]:
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
    of_method = registry.plugin("methods", spec.method).constants
    inside = of_method["parts"] or of_method["looks_back"]
    if inside and spec.processes > 1:  # such a method needs more than a network's outputs for a share of this batch
        raise UserError(f"processes is {spec.processes}, but {spec.method} trains in one: leave it out")


def _check_batch_norm(spec: RunSpec) -> None:
    for network in filter(None, (spec.network, spec.teacher, spec.assistant)):
        if spec.batch_norm != "whole" and not registry.plugin("networks", network).constants.get("BATCH_NORM", True):
            raise UserError(f"batch_norm is {spec.batch_norm}, but {network} has no batch norm: leave it out")
    if spec.batch_norm == "shares" and spec.processes == 1:
        raise UserError("batch_norm is shares, but processes is 1, whose share is the whole batch: leave it out")
    if spec.batch_norm == "halves" and spec.processes > 1:
        raise UserError(f"batch_norm is halves, but processes is {spec.processes}: use shares, or leave it out")


def _check_needs(spec: RunSpec) -> None:
    """UserError for a setting that has no effect at this interval, or beside another setting."""
    method, interval = spec.method, spec.interval
    plain = registry.defaults("methods", method)
    found = plain | spec.settings.get("method", {}) | {"interval": presets.interval_kind(interval)}
    for key, needs in registry.plugin("methods", method).constants["needs"].items():
        for other, options in needs.items():
            if found[key] != plain[key] and found[other] not in options:
                value = f"{interval} ({found[other]})" if other == "interval" else found[other]
                raise UserError(
                    f"{method}.{key} is {found[key]}, but {other} is {value}: it needs {other}"
                    f" {' or '.join(map(str, options))}"
                )


def _check_window(spec: RunSpec) -> None:
    """UserError for a window of spaced epochs that is empty or not within the training."""
    given = spec.settings.get("method", {})
    first, last = given.get("spaced_from", 0.0), given.get("spaced_until")
    if not 0 <= first < (spec.epochs if last is None else last) <= spec.epochs:
        until = "the end" if last is None else f"{last:g}"
        raise UserError(
            f"{spec.method}.spaced_from is {first:g} and spaced_until {until}, but must be a window of the"
            f" {spec.epochs} epochs"
        )


@cache
def _annotations(run: type[RunSpec]) -> dict[str, str]:
    """The type of each field of a run, as in the source; cached, since formatting a Literal is slow."""
    return {f.name: f.type if isinstance(f.type, str) else _name(f.type) for f in fields(run) if f.name != "settings"}


def _name(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).removeprefix("typing.")
