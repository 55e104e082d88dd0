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
    "recipe": set(),
    "spec": {"catalog", "protocol", "schedule"},
    "seeding": set(),
    "study": {"catalog", "protocol", "recipe", "spec"},
    "files": {"spec"},
    "arrays": {"files"},
    "provenance": {"catalog"},
    "outputs": set(),
    "augmentation": {"devices", "seeding"},
    "streaming": set(),
    "download": {"files"},
    "losses": {"outputs"},
    "data": {"arrays", "catalog", "devices", "seeding", "streaming"},
    "image_folder": {"augmentation", "data"},
    "batch_norm": {"data"},
    "devices": set(),
    "memory": {"devices"},
    "batches": {"augmentation", "data", "devices", "seeding", "streaming"},
    "learner": {"spec"},
    "graphs": {"batches"},
    "checkpoint": {"arrays", "learner"},
    "trajectory": {"checkpoint"},
    "energy": set(),
    "distributed": {"batches", "data", "seeding", "slices"},
    "record": {"data", "distributed", "energy", "schedule", "seeding"},
    "corrupt": {"data", "seeding", "streaming"},
    "datasets": {"augmentation", "data", "download", "image_folder", "seeding"},
    "patches": set(),
    "networks": {"outputs", "patches"},
    "methods": {"batches", "losses", "memory", "outputs", "schedule"},
    "history": set(),
    "ntk": set(),
    "fixed_teacher": {"batches", "outputs"},
    "evaluations": {"batch_norm", "data", "fixed_teacher", "history", "losses", "ntk", "schedule", "seeding"},
    "contract": {"batches", "catalog", "schedule", "seeding", "spec"},
    "assemble": {
        *("augmentation", "batch_norm", "batches", "catalog", "contract", "data", "devices", "distributed", "files"),
        *("graphs", "learner", "memory", "schedule", "seeding", "spec", "streaming", "trajectory"),
    },
    "slices": set(),
    "sources": {"catalog", "spec"},
    "accept": {"evaluate", "files", "provenance", "sources"},
    "lock": {"slices"},
    "keeper": {
        *("arrays", "assemble", "checkpoint", "distributed", "energy", "files", "lock", "provenance", "record"),
        *("seeding", "slices", "sources", "spec", "trajectory"),
    },
    "counts": {"assemble", "batches", "catalog", "data", "spec"},
    "throughput": {"provenance", "spec"},
    "plan": {"counts", "spec", "study", "throughput"},
    "train": {"assemble", "distributed", "files", "keeper", "lock", "slices", "spec"},
    "replay": {"arrays", "assemble", "checkpoint", "files", "history", "seeding", "spec"},
    "evaluate": {
        *("arrays", "assemble", "catalog", "checkpoint", "data", "devices", "files", "provenance", "replay", "spec"),
        "fixed_teacher",
    },
    "results": {"arrays", "catalog", "files", "spec", "study"},
    "surface": {"data", "seeding"},
    "spectrum": {"seeding"},
    "statistics": set(),
    "theory": {"schedule", "seeding"},
    "changes": {"cells", "results", "spec", "statistics"},
    "claims": {"cells", "spec"},
    "claims_file": {"catalog", "cells", "changes", "claims", "protocol", "recipe", "results", "spec"},
    "comparisons": {"cells", "changes", "claims", "protocol", "spec", "statistics"},
    "verdicts": {"cells", "claims", "comparisons", "statistics"},
    "cells": {"statistics"},
    "style": {"cells"},
    "verdict_text": {"cells", "claims", "spec", "statistics", "verdicts"},
    "tables": {"cells", "changes", "claims_file", "spec", "statistics", "verdict_text", "verdicts"},
    "figures": {
        *("cells", "changes", "claims", "claims_file", "spec", "statistics", "style", "verdict_text", "verdicts"),
    },
    "render": {"catalog", "cells", "files", "study", "style"},
    "verify": {
        *("arrays", "assemble", "catalog", "evaluate", "files", "keeper", "record", "render", "results", "spec"),
        *("sources", "study"),
    },
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
