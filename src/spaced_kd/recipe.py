"""Recipes: named sets of a run's keys for each network, one YAML file each in config/recipes; `paper` is one."""

from functools import cache
from pathlib import Path
from typing import Any

from spaced_kd import yaml_files
from spaced_kd.errors import UserError

FOLDER = Path(__file__).parents[2] / "config" / "recipes"


def names(folder: Path = FOLDER) -> list[str]:
    """The recipes that there are."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


@cache
def load(name: str, folder: Path = FOLDER) -> dict[str, dict[str, Any]]:
    """Keys of a recipe by network, as the file has them."""
    if name not in names(folder):
        raise UserError(f"{name!r} is none of the recipes: {', '.join(names(folder)) or f'{folder} has none'}")
    path = folder / f"{name}.yaml"
    content = yaml_files.read(path)
    if not isinstance(content, dict) or not all(isinstance(given, dict) for given in content.values()):
        raise UserError(f"{path}: not a mapping of networks to their keys")
    return content
