"""Presets. Protocols: named sets of switches, one YAML file each, such as `paper` and `released`.

A file maps a method, or `all` methods, to switches with their values: settings of the method as `method.soft_loss: kl`,
settings of networks as `network.initialisation: torch`, others by name. A value may depend on the network, its family
(the file that it is in), the dataset and the kind of interval; conditions may be nested:
`method.last_block: {resnet: {spaced: dropped}}`. `else` holds for everything that is not named; without `else` a switch
has its default there.

Recipes: named sets of a run's keys for each network, one YAML file each; `paper` is one.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from spaced_kd.config import registry
from spaced_kd.utils import yaml_files
from spaced_kd.utils.errors import UserError

FILES = Path(__file__).parent / "preset_files"
PROTOCOLS, RECIPES = FILES / "protocols", FILES / "recipes"
REFERENCE = FILES / "reference.csv"  # the paper's numbers
CLAIMS = FILES / "claims.yaml"  # the paper's claims
INTERVAL_KINDS = ("online", "spaced", "offline")
ALL, ELSE = "all", "else"
NETWORK = "network."  # switches of networks begin so; they hold for each network of a run


def interval_kind(interval: float | str) -> str:
    """The kind of a run by its interval in epochs: online (0), spaced, or offline ("max").

    >>> interval_kind(0), interval_kind(1.5), interval_kind("max")
    ('online', 'spaced', 'offline')
    """
    return {0: "online", "max": "offline"}.get(interval, "spaced")


def family(network: str) -> str:
    """The family of a network: "resnet" for resnet18 and resnet50."""
    return registry.plugin("networks", network).path.stem


def protocol_names(folder: Path = PROTOCOLS) -> list[str]:
    """Names of all protocols; UserError if there are none, since every run would be labelled wrongly."""
    return list(_stems("protocol", folder))


@cache
def load_protocol(name: str, folder: Path = PROTOCOLS) -> dict[str, dict[str, Any]]:
    """Switches of a protocol by method, as in the file."""
    if name not in protocol_names(folder):
        raise UserError(
            f"{name!r} is none of the protocols: {', '.join(protocol_names(folder)) or f'{folder} has none'}"
        )
    path = folder / f"{name}.yaml"
    content: dict[str, dict[str, Any]] = yaml_files.read(path)
    try:
        for method, given in content.items():
            for key, value in given.items():
                if unknown := set(_conditions(value)) - _known():
                    raise UserError(
                        f"{path}: {key} of {method} depends on {min(unknown, key=str)}: use"
                        f" {', '.join(INTERVAL_KINDS)}, a network, a family of networks, a dataset, or {ELSE}"
                    )
    except (AttributeError, TypeError):
        raise UserError(f"{path}: not a mapping of methods to their switches") from None
    return content


def _known() -> set[str]:
    networks = registry.names("networks")
    return {*INTERVAL_KINDS, ELSE, *networks, *map(family, networks), *registry.names("datasets")}


def _conditions(value: Any) -> Iterator[Any]:
    """All conditions of a value, at every depth."""
    if isinstance(value, dict):
        yield from value
        for each in value.values():
            yield from _conditions(each)


def has(name: str, method: str, folder: Path = PROTOCOLS) -> bool:
    """Whether a protocol has switches for a method."""
    return bool({method, ALL} & set(load_protocol(name, folder)))


def switches(name: str, method: str, folder: Path = PROTOCOLS) -> dict[str, Any]:
    """Switches of a protocol for a method, with their values as in the file."""
    content = load_protocol(name, folder)
    return content.get(ALL, {}) | content.get(method, {})


def keys(name: str, method: str, folder: Path = PROTOCOLS, roles: tuple[str, ...] = ()) -> set[str]:
    """Keys of a run that are switches of a protocol; switches of networks apply to each of `roles`, too."""
    found = set(switches(name, method, folder))
    of_networks = [key.removeprefix(NETWORK) for key in found if key.startswith(NETWORK)]
    return found | {f"{role}.{setting}" for role in roles for setting in of_networks}


def values(
    name: str,
    method: str,
    networks: dict[str, str],
    interval: float | str,
    dataset: str,
    folder: Path = PROTOCOLS,
    students: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The values that a protocol sets for a run of this kind: {"method.soft_loss": "kl", "clock": "learner"}.

    Args:
        networks: role -> its network: `network`, and `teacher` and `assistant` if they have networks of their own.
        students: settings of networks that only the student's network has.
    """
    registry.plugin("methods", method)
    if not has(name, method, folder):
        raise UserError(f"protocol {name} has no entry for {method}: it has {', '.join(load_protocol(name, folder))}")
    found = {}
    for key, value in switches(name, method, folder).items():
        of_network, setting = key.startswith(NETWORK), key.removeprefix(NETWORK)
        for role, network in networks.items():
            if role == "network":
                found[key] = _chosen(value, network, interval, dataset)
            elif of_network and setting not in students and setting in registry.plugin("networks", network).settings:
                found[f"{role}.{setting}"] = _chosen(value, network, interval, dataset)
    return {key: value for key, value in found.items() if value is not None}


def _chosen(value: Any, network: str, interval: float | str, dataset: str) -> Any:
    """The value that holds for a network, a kind of interval and a dataset; None if no condition applies."""
    while isinstance(value, dict):
        what = (network, family(network), dataset, interval_kind(interval), ELSE)
        value = next((value[each] for each in what if each in value), None)
    return value


def recipe_names(folder: Path = RECIPES) -> list[str]:
    """Names of all recipes; UserError if there are none, since every run would be labelled wrongly."""
    return list(_stems("recipe", folder))


@cache
def _stems(kind: str, folder: Path) -> tuple[str, ...]:
    if not (found := sorted(path.stem for path in folder.glob("*.yaml"))):
        raise UserError(f"{folder} has no {kind}: install the package again, or name another folder")
    return tuple(found)


@cache
def load_recipe(name: str, folder: Path = RECIPES) -> dict[str, dict[str, Any]]:
    """Keys of a recipe by network, as in the file."""
    if name not in recipe_names(folder):
        raise UserError(f"{name!r} is none of the recipes: {', '.join(recipe_names(folder)) or f'{folder} has none'}")
    path = folder / f"{name}.yaml"
    content = yaml_files.read(path)
    if not isinstance(content, dict) or not all(isinstance(given, dict) for given in content.values()):
        raise UserError(f"{path}: not a mapping of networks to their keys")
    return content
