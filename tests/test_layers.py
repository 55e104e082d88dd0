"""Imports go one way: plug-ins know no program and no other plug-in, and results know no torch."""

import ast
from pathlib import Path

import pytest

import spaced_kd

ROOT = Path(spaced_kd.__file__).parent

LIBRARY = {"errors"}  # standard library only, free for all
LAYERS: dict[str, set[str]] = {  # module -> what of this package it may import
    "accept": {"evaluate", "files", "provenance", "sources"},
    "arms": {"labels", "spec"},
    "arrays": {"files"},
    "assemble": {
        "batches",
        "contract",
        "data",
        "devices",
        "distributed",
        "graphs",
        "learner",
        "loading",
        "modules",
        "paths",
        "processes",
        "schedule",
        "spec",
        "timeline",
        "trajectory",
    },
    "augmentation": {"devices", "seeding"},
    "batch_norm": {"data"},
    "batches": {"augmentation", "data", "devices", "seeding", "streaming"},
    "catalog": {"types"},
    "cells": {"arms", "statistics"},
    "changes": {"arms", "cells", "statistics"},
    "checkpoint": {"arrays", "learner"},
    "claims": {"arms", "cells", "labels"},
    "claims_file": {
        "arms",
        "catalog",
        "cells",
        "claims",
        "collect",
        "protocol",
        "results",
        "spec",
        "types",
        "yaml_files",
    },
    "collect": {"arrays", "files", "labels", "paths", "results", "spec", "study"},
    "comparisons": {"arms", "cells", "claims", "labels", "protocol", "spec", "statistics", "yaml_values"},
    "contract": {"batches", "catalog", "schedule", "seeding", "spec"},
    "corrupt": {"data", "paths", "seeding", "streaming"},
    "counts": {"assemble", "batches", "catalog", "data", "modules", "spec", "timeline"},
    "data": {"arrays", "catalog", "devices", "paths", "seeding", "streaming"},
    "datasets": {"augmentation", "data", "download", "image_folder", "seeding"},
    "devices": set(),
    "distributed": {"batches", "data", "processes", "seeding", "slices"},
    "download": {"files"},
    "energy": set(),
    "errors": set(),
    "evaluate": {
        "arrays",
        "catalog",
        "checkpoint",
        "data",
        "devices",
        "files",
        "fixed_teacher",
        "loading",
        "modules",
        "paths",
        "provenance",
        "replay",
        "spec",
        "timeline",
    },
    "evaluations": {"batch_norm", "data", "fixed_teacher", "history", "ntk", "schedule", "seeding"},
    "figures": {"arms", "cells", "claims", "claims_file", "spec", "statistics", "style", "verdict_text", "verdicts"},
    "files": set(),
    "fixed_teacher": {"batches", "outputs"},
    "graphs": {"batches"},
    "history": set(),
    "image_folder": {"augmentation", "data"},
    "keeper": {
        "arrays",
        "assemble",
        "checkpoint",
        "distributed",
        "energy",
        "files",
        "paths",
        "processes",
        "provenance",
        "record",
        "run_folder",
        "seeding",
        "slices",
        "sources",
        "spec",
        "trajectory",
    },
    "labels": {"catalog", "protocol", "spec"},
    "learner": {"spec"},
    "loading": {"augmentation", "batches", "catalog", "data", "paths", "processes", "spec", "streaming"},
    "lock": {"slices"},
    "losses": {"outputs"},
    "memory": {"devices"},
    "methods": {"batches", "losses", "memory", "outputs", "released_orders", "schedule"},
    "modules": {"batch_norm", "catalog", "memory", "seeding", "spec"},
    "networks": {"outputs", "patches"},
    "ntk": set(),
    "outputs": set(),
    "owner": {"files", "yaml_files"},
    "patches": set(),
    "paths": {"catalog", "spec"},
    "plan": {"counts", "spec", "study", "throughput"},
    "processes": set(),
    "protocol": {"catalog", "yaml_files"},
    "provenance": {"catalog"},
    "record": {"data", "distributed", "energy", "seeding", "validation"},
    "recorded": {"files", "results"},
    "reference": {"catalog", "results"},
    "released_orders": {"schedule"},
    "render": {"catalog", "cells", "files", "study", "style"},
    "replay": {"arrays", "assemble", "checkpoint", "files", "history", "modules", "paths", "seeding", "spec"},
    "results": {"files"},
    "run_folder": {"checkpoint", "files", "lock", "paths", "processes", "sources", "spec"},
    "schedule": set(),
    "seeding": set(),
    "slices": set(),
    "sources": {"catalog", "spec"},
    "spec": {"catalog", "protocol", "types", "validation", "yaml_values"},
    "spectrum": {"seeding"},
    "statistics": set(),
    "streaming": set(),
    "study": {"catalog", "protocol", "spec", "types", "yaml_files", "yaml_values"},
    "style": {"arms", "cells"},
    "surface": {"data", "seeding"},
    "tables": {"arms", "cells", "changes", "claims_file", "spec", "statistics", "verdict_text", "verdicts"},
    "theory": {"schedule", "seeding"},
    "throughput": {"provenance", "spec"},
    "timeline": {"catalog", "schedule", "spec"},
    "train": {
        "assemble",
        "distributed",
        "keeper",
        "lock",
        "paths",
        "processes",
        "provenance",
        "run_folder",
        "slices",
        "spec",
    },
    "trajectory": {"checkpoint"},
    "types": set(),
    "validation": {"catalog", "protocol", "types"},
    "verdict_text": {"cells", "claims", "spec", "statistics", "verdicts"},
    "verdicts": {"cells", "claims", "comparisons", "statistics"},
    "verify": {
        "arrays",
        "assemble",
        "catalog",
        "collect",
        "evaluate",
        "files",
        "paths",
        "record",
        "render",
        "results",
        "run_folder",
        "sources",
        "spec",
        "study",
    },
    "yaml_files": set(),
    "yaml_values": {"yaml_files"},
}
PROGRAMS = {"cli", "commands", "__main__", "__init__"}  # may import everything


def at_run_time(tree: ast.Module) -> list[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING`."""
    typing = [each for each in tree.body if isinstance(each, ast.If) and ast.unparse(each.test) == "TYPE_CHECKING"]
    skipped = {inner for each in typing for inner in ast.walk(each)}
    return [node for node in ast.walk(tree) if node not in skipped]


def imported(path: Path) -> set[str]:
    """Modules of this package that a file imports, by their first name."""
    found = set()
    for node in at_run_time(ast.parse(path.read_text())):
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
