"""The owner of a folder of results: a study's name, and so its folder, belongs to one configuration file."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from spaced_kd.utils import yaml_files
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import read_json, write_safely

NAME = "study.json"


def check(study: str, configs: Sequence[Path], results: Path) -> None:
    """UserError if results/STUDY belongs to another file, which still exists and still has that name.

    Args:
        study: its name.
        configs: the configuration files from which the study is read, merged.
        results: folder of all results.
    """
    path = results / study / NAME
    if not configs or not path.exists():
        return
    others = [results / config for config in read_json(path, dict).get("configs", [])]
    if {config.resolve() for config in configs} & {other.resolve() for other in others}:
        return
    for other in others:
        if other.exists() and _name(other) == study:
            raise UserError(
                f"{configs[0]}: the study is called {study}, as that of {os.path.relpath(other)} is, whose results it"
                " would replace: give it a name of its own"
            )


def claim(study: str, configs: Sequence[Path], results: Path) -> None:
    """Write the owner of the folder into it, as paths relative to the folder of all results."""
    path, relative = results / study / NAME, [os.path.relpath(config, results) for config in configs]
    check(study, configs, results)
    if configs and not (path.exists() and read_json(path, dict).get("configs") == relative):
        write_safely(path, json.dumps({"configs": relative}).encode())


def _name(config: Path) -> str | None:
    try:
        content = yaml_files.read(config)
    except UserError:
        return None
    return content.get("study") if isinstance(content, dict) else None
