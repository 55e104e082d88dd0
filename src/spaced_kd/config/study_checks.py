"""Checks across the runs of a study: planned and paired seeds, one precision, existing epochs, needed evaluations."""

import itertools
from collections.abc import Iterable
from typing import Any

from spaced_kd.config import registry
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.utils.errors import UserError

ROUNDINGS = ("precision", "seed_noise")  # tables that compare runs of several precisions


def check_planned(run: RunSpec, plan: tuple[int, ...]) -> None:
    """UserError for a run whose seed is not among those planned."""
    if run.seed not in plan:
        raise UserError(
            f"seed {run.seed} of {run.method} is not planned: planned_seeds lists {', '.join(map(str, plan))}"
        )


def check_paired(runs: Iterable[RunSpec]) -> None:
    """UserError for two arms of a setting whose seeds are not paired: each has one that the other lacks."""
    arms: dict[str, dict[str, set[int]]] = {}
    for run in runs:
        own = [each for each in run.overrides() if each.startswith(("method", "interval="))]
        rest = [each for each in run.overrides() if each not in own and not each.startswith("seed=")]
        arms.setdefault(" ".join(rest), {}).setdefault(" ".join(own), set()).add(run.seed)
    for setting, seeds in arms.items():
        for (one, its), (other, others) in itertools.combinations(seeds.items(), 2):
            if its - others and others - its:
                raise UserError(
                    f"seeds are not paired: of {setting}, {one} has seed {min(its - others)}, which {other} lacks, and"
                    f" lacks {min(others - its)}: give one of them all seeds of the other"
                )


def check_precision(runs: Iterable[RunSpec], drawn: list[str]) -> None:
    """UserError if a table or figure would mix runs of two precisions, except the tables that compare them."""
    found: dict[str, set[str]] = {}
    for run in runs:
        found.setdefault(f"{run.label('dataset')}, {run.label('network')}", set()).add(run.precision)
    for place, several in found.items():
        if len(several) > 1 and (others := [name for name in drawn if name not in ROUNDINGS]):
            raise UserError(
                f"{others[0]} would mix precisions, since {place} is trained in {' and '.join(sorted(several))}: give"
                f" all runs one, or leave all but the tables {' and '.join(ROUNDINGS)} out"
            )


def check_epochs(wanted: dict[str, dict[str, Any]], spec: RunSpec) -> None:
    """UserError for an evaluation at an epoch that the run's training does not have."""
    for name, settings in wanted.items():
        if late := [epoch for epoch in settings.get("epochs") or () if not 0 <= epoch < spec.epochs]:
            raise UserError(
                f"evaluations.{name}: epochs has {late[0]}, but the training of {spec.id} has epochs 0 to"
                f" {spec.epochs - 1}: leave it out, or leave that run out"
            )


def check_evaluated(drawn: dict[str, tuple[str, ...]], evaluated: Iterable[Iterable[str]]) -> None:
    """UserError for a table or figure of an evaluation that the study makes of no run.

    Args:
        drawn: "tables" and "figures" -> names.
        evaluated: names of the evaluations of each run.
    """
    made = set(itertools.chain(*evaluated))
    for kind, names in drawn.items():
        for name in names:
            needed = registry.plugin(kind, name).constants.get("EVALUATION")
            if needed and needed not in made:
                raise UserError(
                    f"{name} shows the evaluation {needed}, which the study makes of no run: list {needed} under"
                    f" evaluations and write `evaluate: all` to an arm, or leave {name} out"
                )
