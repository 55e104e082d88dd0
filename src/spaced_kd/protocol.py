"""Protocols: named sets of switches, one YAML file each in config/protocols, such as `paper` and `released`.

A file maps a method to its switches with their values: settings of the method as `method.soft_loss: kl`, others by
name. A value may be for one kind of interval, as in `method.target: {online: before}`, for one network, as in
`method.second_forward: {pit_tiny: true}`, or for one dataset; elsewhere it is the default.
"""

from functools import cache
from pathlib import Path
from typing import Any

from spaced_kd import catalog, yaml_files
from spaced_kd.errors import UserError

FOLDER = Path(__file__).parents[2] / "config" / "protocols"
KINDS = ("online", "spaced", "offline")


def kind(interval: float | str) -> str:
    """What an interval in epochs makes of a run: online (0), spaced, or offline ("max")."""
    return {0: "online", "max": "offline"}.get(interval, "spaced")


def names(folder: Path = FOLDER) -> list[str]:
    """The protocols that there are."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _plugins() -> list[str]:
    return [*catalog.names("networks"), *catalog.names("datasets")]


@cache
def load(name: str, folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Switches of a protocol by method, as the file has them."""
    if name not in names(folder):
        raise UserError(f"{name!r} is none of the protocols: {', '.join(names(folder)) or f'{folder} has none'}")
    path = folder / f"{name}.yaml"
    content = yaml_files.read(path)
    try:
        for method, given in content.items():
            for key, value in given.items():
                if isinstance(value, dict) and not set(value) <= {*KINDS, *_plugins()}:
                    raise UserError(
                        f"{path}: {key} of {method} depends on {', '.join(value)}: use {', '.join(KINDS)}, a network,"
                        " or a dataset"
                    )
    except (AttributeError, TypeError):
        raise UserError(f"{path}: not a mapping of methods to their switches") from None
    return content


def switches(
    name: str, method: str, network: str, interval: float | str, dataset: str, folder: Path = FOLDER
) -> dict[str, Any]:
    """What a protocol sets for a run of this kind: {"method.soft_loss": "kl", "clock": "learner"}."""
    content = load(name, folder)
    catalog.plugin("methods", method)
    if method not in content:
        raise UserError(f"protocol {name} says nothing of {method}: it has {', '.join(content)}")
    what = (network, dataset, kind(interval))
    given = {
        key: next((value[each] for each in what if each in value), None) if isinstance(value, dict) else value
        for key, value in content[method].items()
    }
    return {key: value for key, value in given.items() if value is not None}
