"""Intervals of a study against the batches of its datasets, before anything is trained."""

from collections.abc import Iterable
from pathlib import Path

from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.data.epochs import batches_per_epoch, images_of
from spaced_kd.distillation.schedule import interval_in_batches
from spaced_kd.utils.errors import UserError

FEW = 200  # training images; only toy datasets have fewer


def check(runs: Iterable[RunSpec], data: Path, results: Path) -> None:
    """UserError for an interval of one batch, which would be online KD under another name.

    The number of images is read from prepared data, or else from what the dataset declares. The latter imports torch,
    which takes seconds, so it is read only for intervals that a dataset of `FEW` images would round to one batch. All
    other runs, and datasets that declare no size or whose files are missing, are checked once their data are prepared.

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
        elif _least_images(run) > FEW:
            unknown.append(run)
    if unknown:
        _check_declared(unknown, data)


def _least_images(run: RunSpec) -> float:
    """Training images from which on an interval is at least two batches, the shortest that is not online KD.

    `images` make images / batch_size batches an epoch, and the interval is that times `run.interval`, so

        run.interval * images / batch_size >= 2.
    """
    return 2 * run.batch_size / float(run.interval)


def _check(run: RunSpec, images: int) -> None:
    try:
        per_epoch = batches_per_epoch(images, run.batch_size, run.last_batch)
        interval_in_batches(run.interval, per_epoch, run.epochs * per_epoch, run.interval_rounding)
    except UserError as error:
        raise UserError(f"{run.id}: {error}") from None


def _check_declared(runs: Iterable[RunSpec], data: Path) -> None:
    """Check runs with the sizes that their datasets declare."""
    from spaced_kd.planning.costs import RunCosts

    costs = RunCosts(data)
    for run in runs:
        if images := costs.images(run):
            _check(run, images)
