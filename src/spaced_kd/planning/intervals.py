"""Intervals of a study against the batches of its datasets, before anything is trained."""

from collections.abc import Iterable
from pathlib import Path

from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.data.epochs import batches_per_epoch, images_of
from spaced_kd.distillation.schedule import interval_in_batches
from spaced_kd.utils.errors import UserError

FEW = 200  # training images, of which only a toy has fewer


def check(runs: Iterable[RunSpec], data: Path, results: Path) -> None:
    """UserError for an interval that is one batch, which would be online KD under another name.

    The size of prepared data is read. Before, it is what the dataset declares. That takes the seconds of importing
    torch, so it is asked for only where a dataset of `FEW` images would have too few batches. All others, and a dataset
    that declares nothing or is not there yet, are checked once they are prepared.

    Args:
        runs: of a study.
        data: folder of the published datasets.
        results: folder of all results, where data may be prepared.
    """
    sizes: dict[tuple[Path, float], int] = {}
    unknown = []
    for run in runs:
        if not (isinstance(run.interval, float) and run.interval > 0):
            continue
        key = ResultPaths(results).data(run), run.held_out
        if key[0].exists():
            if key not in sizes:
                sizes[key] = images_of(*key)
            _check(run, sizes[key])
        elif 2 * run.batch_size / run.interval > FEW:  # two batches are the least
            unknown.append(run)
    if unknown:
        _ask(unknown, data)


def _check(run: RunSpec, images: int) -> None:
    try:
        per_epoch = batches_per_epoch(images, run.batch_size, run.last_batch)
        interval_in_batches(run.interval, per_epoch, run.epochs * per_epoch, run.interval_rounding)
    except UserError as error:
        raise UserError(f"{run.id}: {error}") from None


def _ask(runs: Iterable[RunSpec], data: Path) -> None:
    """Check runs by the sizes that their datasets declare."""
    from spaced_kd.planning.costs import RunCosts

    costs = RunCosts(data)
    for run in runs:
        if images := costs.images(run):
            _check(run, images)
