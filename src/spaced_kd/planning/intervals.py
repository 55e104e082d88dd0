"""Intervals of a study against the batches of its datasets, before anything is trained."""

from collections.abc import Iterable
from pathlib import Path

from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.utils.errors import UserError

SHORT = 0.5  # epochs: an epoch of four batches has a shorter interval of one


def check(runs: Iterable[RunSpec], data: Path, results: Path) -> None:
    """UserError for a short interval that is one batch, which would be online KD under another name.

    Only of short ones, since a dataset's number of images takes the seconds of importing torch; what is refused here
    would else be refused as its training starts.

    Args:
        runs: of a study.
        data: folder of the published datasets.
        results: folder of all results, where data may be prepared already whose files are gone.
    """
    short = [run for run in runs if isinstance(run.interval, float) and 0 < run.interval < SHORT]
    if not short:
        return
    from spaced_kd.planning.costs import RunCosts

    costs = RunCosts(data)
    for run in short:
        try:
            costs.turns(run)
        except UserError as error:
            if "does not exist" not in str(error) or not ResultPaths(results).data(run).exists():
                raise UserError(f"{run.id}: {error}") from None
