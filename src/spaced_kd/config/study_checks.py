"""What must hold of a study's runs together: planned seeds, pairs of seeds, one precision, epochs that there are."""

import itertools
from collections.abc import Iterable
from typing import Any

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
    """UserError for two arms of a setting whose seeds do not pair: each has one that the other lacks."""
    arms: dict[str, dict[str, set[int]]] = {}
    for run in runs:
        own = [word for word in run.words() if word.startswith(("method", "interval="))]
        rest = [word for word in run.words() if word not in own and not word.startswith("seed=")]
        arms.setdefault(" ".join(rest), {}).setdefault(" ".join(own), set()).add(run.seed)
    for setting, seeds in arms.items():
        for (one, its), (other, others) in itertools.combinations(seeds.items(), 2):
            if its - others and others - its:
                raise UserError(
                    f"seeds are not paired: of {setting}, {one} has seed {min(its - others)}, which {other} lacks, and"
                    f" lacks {min(others - its)}: give one of them all seeds of the other"
                )


def check_precision(runs: Iterable[RunSpec], drawn: list[str]) -> None:
    """UserError where a table or figure would show runs of two precisions, but for those that compare them."""
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
    """UserError for an evaluation that is to look at a run in an epoch that its training has not."""
    for name, settings in wanted.items():
        if late := [epoch for epoch in settings.get("epochs") or () if not 0 <= epoch < spec.epochs]:
            raise UserError(
                f"evaluations.{name}: epochs has {late[0]}, but the training of {spec.id} has epochs 0 to"
                f" {spec.epochs - 1}: leave it out, or leave that run out"
            )
