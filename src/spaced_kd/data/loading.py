"""The dataset, the augmentation and the number of workers of a run."""

from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from spaced_kd.config import registry, sources
from spaced_kd.config.paths import ResultPaths
from spaced_kd.config.run_spec import RunSpec
from spaced_kd.data import augmentation, dataset
from spaced_kd.data.augmentation import Pictures
from spaced_kd.data.batches import Augment
from spaced_kd.data.contract import Dataset
from spaced_kd.data.dataset import Data, load
from spaced_kd.utils import processes
from spaced_kd.utils.errors import UserError


def prepare(spec: RunSpec, path: Path, source: Path) -> dict[str, np.ndarray]:
    """Decode the run's dataset from the published files in `source` into the file `path`; returns its arrays."""
    content = registry.find("datasets", spec.dataset).prepare(source, **spec.settings.get("dataset", {}))
    dataset.check(content)
    about = {"dataset": spec.dataset, "settings": spec.resolved()["settings"]["dataset"]}
    about["prepared_by"] = sources.of_prepare(spec.dataset)
    if dataset.is_index(content):
        about["source"] = str(source.resolve())
    dataset.save(path, content, **about)
    return content


def load_data(spec: RunSpec, paths: ResultPaths, workers: int | None = None) -> Data:
    """The run's dataset at the run's image size, in host memory, with held-out images as a split of their own."""
    settings = spec.resolved()["settings"]["dataset"]
    data = load(
        paths.data(spec),
        settings,
        dataset=spec.dataset,
        input_size=spec.input_size,
        standardisation=spec.standardisation,
        workers=choose_workers(workers),
    )
    return data.hold_out(spec.held_out)


def make_augment(spec: RunSpec, data: Data) -> Augment:
    """The run's augmentation of training images."""
    if spec.augmentation == "strong":
        return partial(augmentation.strong, size=data.image_size, mean=data.mean, std=data.std)
    if spec.augmentation == "standard":
        dataset: Dataset = registry.find("datasets", spec.dataset)
        augment = dataset.augment
        return partial(_rotated, augment, spec.rotation) if spec.rotation else augment
    if data.streamed:
        raise UserError(f"augmentation is {spec.augmentation}, which is made for small images: use standard or strong")
    return augmentation.autoaugment_cutout


def _rotated(augment: Augment, degrees: float, images: Pictures, draws: np.random.Generator) -> Tensor:
    """The dataset's augmentation, then a rotation by up to `degrees` either way."""
    return augmentation.random_rotation(augment(images, draws), draws, degrees=degrees)


def choose_workers(workers: int | None) -> int:
    """Number of processes that decode and augment ahead: as requested, or all available processors but one.

    In a training over several processes, each gets its share of the machine's processors.
    """
    if workers is not None:
        return workers
    return max(0, processes.processors() // processes.on_this_machine() - 1)
