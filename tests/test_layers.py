"""Imports go one way: plug-ins know no program and no other plug-in, and results know no torch."""

import ast
from pathlib import Path

import pytest

import spaced_kd

ROOT = Path(spaced_kd.__file__).parent

LIBRARY = {"errors"}  # standard library only, free for all
LAYERS: dict[str, set[str]] = {  # module -> what of this package it may import
    "errors": set(),
    "schedule": set(),
    "catalog": set(),
    "protocol": {"catalog"},
    "spec": {"catalog", "protocol"},
    "seeding": set(),
    "files": {"spec"},
    "arrays": {"files"},
    "provenance": set(),
    "outputs": set(),
    "augmentation": set(),
    "losses": {"outputs"},
    "data": {"arrays", "catalog", "seeding"},
    "batch_norm": set(),
    "batches": {"data", "seeding"},
    "learner": {"spec"},
    "checkpoint": {"arrays", "learner"},
    "trajectory": {"checkpoint"},
    "record": {"data", "seeding"},
    "corrupt": {"data", "seeding"},
    "datasets": {"augmentation", "seeding"},
    "networks": {"outputs"},
    "methods": {"batches", "losses", "outputs", "schedule"},
    "evaluations": {"data", "losses", "seeding"},
    "assemble": {
        *("batch_norm", "batches", "catalog", "data", "files", "learner", "schedule", "seeding", "spec", "trajectory")
    },
    "keeper": {"arrays", "assemble", "checkpoint", "files", "provenance", "record", "seeding", "spec", "trajectory"},
    "train": {"assemble", "files", "keeper", "spec"},
    "evaluate": {"arrays", "assemble", "catalog", "checkpoint", "data", "files", "spec"},
    "surface": {"data", "seeding"},
    "spectrum": {"seeding"},
    "results": {"arrays", "files", "spec"},
    "statistics": set(),
    "claims": {"catalog", "cells", "results", "spec", "statistics"},
    "cells": set(),
    "style": {"cells"},
    "tables": {"cells", "claims"},
    "figures": {"cells", "style"},
    "render": {"catalog", "files", "style"},
}
PROGRAMS = {"cli", "__main__", "__init__"}  # may import everything


def imported(path: Path) -> set[str]:
    """Modules of this package that a file imports, by their first name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "spaced_kd":
            parts = node.module.split(".")[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("spaced_kd.")}
    return found


def files() -> list[Path]:
    return [path for path in ROOT.rglob("*.py") if path.stem not in PROGRAMS]


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    layer = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert imported(path) <= LAYERS[layer] | LIBRARY


def test_the_layers_have_no_cycle():
    done: set[str] = set(LIBRARY)
    while ready := {name for name, needs in LAYERS.items() if name not in done and needs <= done}:
        done |= ready
    assert done == set(LAYERS) | LIBRARY


def test_the_loop_of_training_names_no_method():
    words = (ROOT / "train.py").read_text()
    assert not any(name in words for name in ("baseline", "online_kd", "self_kd", "offline"))
