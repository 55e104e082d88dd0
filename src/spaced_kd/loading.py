"""The dataset, the augmentation and the number of workers of a run."""

from functools import partial

from spaced_kd import augmentation, catalog, processes
from spaced_kd.batches import Augment
from spaced_kd.data import Data, load
from spaced_kd.errors import UserError
from spaced_kd.paths import Places
from spaced_kd.spec import RunSpec
from spaced_kd.streaming import processors


def load_data(spec: RunSpec, places: Places, workers: int | None = None) -> Data:
    """The run's dataset at the run's size, in the processor's memory, with what the run holds out as a split."""
    settings = spec.resolved()["settings"]["dataset"]
    data = load(
        places.data(spec),
        settings,
        dataset=spec.dataset,
        input_size=spec.input_size,
        standardisation=spec.standardisation,
        workers=choose_workers(workers),
    )
    return data.hold_out(spec.held_out)


def make_augment(spec: RunSpec, data: Data) -> Augment:
    """What the run does to training images."""
    if spec.augmentation == "strong":
        return partial(augmentation.strong, size=data.image_size, mean=data.mean, std=data.std)
    if spec.augmentation == "standard":
        return catalog.find("datasets", spec.dataset).augment
    if data.streamed:
        raise UserError(f"augmentation is {spec.augmentation}, which is made for small images: use standard or strong")
    return augmentation.autoaugment_cutout


def choose_workers(workers: int | None) -> int:
    """Processes that decode and augment ahead: as many as are asked for, or all processors at hand but one.

    Of a training over several processes each has its share of its machine's.
    """
    if workers is not None:
        return workers
    return max(0, processors() // processes.on_this_machine() - 1)
