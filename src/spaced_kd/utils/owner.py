"""Whose results a folder holds: a study's name belongs to one configuration file, as its results do."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from spaced_kd.utils import yaml_files
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.files import read_json, write_safely

NAME = "study.json"


def check(study: str, configs: Sequence[Path], results: Path) -> None:
    """UserError where results/STUDY is another file's, which is still there and still gives that name.

    Args:
        study: its name.
        configs: the configuration files that the study is read from, all together.
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
    """Have the folder say whose results it holds, by paths from the folder of all results."""
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
