"""Prepared data: uint8 images (N, H, W, 3) and int64 labels (N,), checked once when they are prepared.

For a dataset that does not fit in memory, an index of its image files is prepared; images are decoded on demand.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from spaced_kd.config import registry, sources
from spaced_kd.config.paths import corrupted_path
from spaced_kd.data.streaming import Files
from spaced_kd.utils import array_file
from spaced_kd.utils.devices import send
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import generator

SPLITS = ("train", "test")
STANDARDISATIONS = {  # mean and standard deviation of each channel, as published for these datasets
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
}


class Shape(NamedTuple):
    """Numbers of images and classes, and image size: returned by a dataset's `shape` without its files."""

    train: int  # training images
    test: int  # test images
    classes: int
    size: int  # height and width in pixels


@dataclass(frozen=True)
class Data:
    """One dataset, in memory or streamed.

    Attributes:
        images: split -> uint8 (N, H, W, 3), or Files that replace it; splits are train and test, and held_out if images
            are held out.
        labels: split -> int64 (N,).
        classes: number of classes.
        checksum: sha256 of all arrays, part of every run's provenance.
        mean, std: of each channel in [0, 1], with which `normalise` standardises.
        path: its file; corrupted copies of its test images are beside it.
        input_size: height and width at which networks see the images; 0 for the dataset's own.
    """

    images: dict[str, Tensor | Files]
    labels: dict[str, Tensor]
    classes: int
    checksum: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    path: Path
    input_size: int = 0

    @property
    def image_size(self) -> int:
        """Height and width of a network's input in pixels."""
        return self.input_size or self.images["train"].shape[1]

    @property
    def streamed(self) -> bool:
        """Whether the images are files."""
        return isinstance(self.images["train"], Files)

    def originals(self, split: str, ids: Tensor) -> Tensor | list[Image.Image]:
        """Input of the augmentation: uint8 (B, H, W, 3), or B pictures of any size if images are streamed."""
        images = self.images[split]
        return images.decode(ids) if isinstance(images, Files) else images[ids]

    def normalise(self, images: Tensor) -> Tensor:
        """Network input: uint8 (B, H, W, 3), or float (B, 3, H, W) in [0, 1], to standardised float (B, 3, H, W).

        Images smaller than `image_size` are enlarged to it by bilinear interpolation.
        """
        return normalise(images, self.image_size, self.mean, self.std)

    def subset(self, split: str, count: int) -> Tensor:
        """Indices (count,) of a fixed random choice of images, the same for every run; all if there are fewer."""
        if count < 1:
            raise UserError(f"images is {count}, but must be at least 1")
        total = len(self.labels[split])
        order = generator(0, f"subset of {split}").permutation(total)[:count]
        return torch.from_numpy(np.sort(order))

    def hold_out(self, share: float) -> "Data":
        """The same data with a share of each class's training images as a split `held_out`, the same for every run."""
        if share == 0:
            return self
        labels = self.labels["train"]
        order = torch.from_numpy(generator(0, "held out").permutation(len(labels)))
        held = torch.zeros(len(labels), dtype=torch.bool)
        for of_class in (order[labels[order] == number] for number in range(self.classes)):
            count = round(share * len(of_class))
            if not 0 < count < len(of_class):
                raise UserError(
                    f"held_out={share:g} is {count} of a class's {len(of_class)} training images: some must be held"
                    " out, and some learnt"
                )
            held[of_class[:count]] = True
        parts = {"train": ~held, "held_out": held}
        take = self.images["train"].only if self.streamed else self.images["train"].__getitem__
        images = self.images | {split: take(part) for split, part in parts.items()}
        return replace(self, images=images, labels=self.labels | {split: labels[part] for split, part in parts.items()})

    def corrupted(
        self, images: int, names: Sequence[str] | None = None, severities: Sequence[int] | None = None
    ) -> dict[tuple[str, int], Tensor]:
        """(corruption, severity) -> uint8 images of `subset("test", images)`, made once per dataset.

        None stands for the evaluation's default `names` and `severities`; other ones have a file of their own.
        """
        path, options = corrupted_path(self.path, images, names, severities), f"--corrupt {images}"
        if path != corrupted_path(self.path, images):
            for key, given in (("names", names), ("severities", severities)):
                options += f" --{key} {' '.join(map(str, given))}" if given else ""
        stored, _ = array_file.read(path, remedy=f"make it with `spaced-kd prepare dataset=... {options}`")
        parts = [(*key.split("/"), array) for key, array in stored.items()]
        return {(name, int(severity)): torch.from_numpy(array) for name, severity, array in parts}

    def to(self, device: torch.device) -> "Data":
        """The same data with images and labels on `device`."""
        moved = {"images": self.images, "labels": self.labels}
        moved = {key: {split: tensor.to(device) for split, tensor in value.items()} for key, value in moved.items()}
        return replace(self, **moved)


def normalise(images: Tensor, size: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """The same as `Data.normalise`, for networks whose input has `size` pixels."""
    if images.dtype == torch.uint8:
        images = images.permute(0, 3, 1, 2).float() / 255  # the permutation leaves it channels-last, which is fast
    if images.shape[-1] != size:
        images = F.interpolate(images, (size, size), mode="bilinear")
    centre, scale = (send(torch.tensor(values), images.device)[:, None, None] for values in (mean, std))
    return (images - centre) / scale


def check_classes(names: Sequence[str], sha256: str, where: Path) -> None:
    """UserError unless these are the published classes, in their order: runs of others would have the same ids."""
    if classes_digest(names) != sha256:
        raise UserError(
            f"{where} does not have the published classes in their order, and runs on others would have the same ids:"
            " restore it, or make a dataset of your own"
        )


def classes_digest(names: Sequence[str]) -> str:
    """Checksum of the names of classes in their order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def is_index(content: dict[str, np.ndarray]) -> bool:
    """Whether prepared data are an index of files, so that the dataset is streamed."""
    return "train_files" in content


def check(content: dict[str, np.ndarray]) -> None:
    """UserError unless the arrays have the types, shapes and classes on which all later steps rely."""
    for split in SPLITS:
        labels = content[f"{split}_labels"]
        images = content[f"{split}_files" if is_index(content) else f"{split}_images"]
        if not is_index(content) and (images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3):
            raise UserError(f"{split} images are {images.dtype} {images.shape}, but must be uint8 (N, H, W, 3)")
        if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
            raise UserError(f"{split} labels are {labels.dtype} {labels.shape}, but must be int64 {images.shape[:1]}")
        if not len(labels):
            raise UserError(f"the {split} set has no image: leave fewer images to the other set")
    classes = int(content["train_labels"].max()) + 1
    counts = np.bincount(content["train_labels"], minlength=classes)
    if (counts == 0).any() or content["test_labels"].max() >= classes or content["test_labels"].min() < 0:
        raise UserError(f"class {int(counts.argmin())} has no training image, or the test set has a class of its own")


def load(
    path: Path,
    settings: dict[str, Any] | None = None,
    *,
    dataset: str | None = None,
    input_size: int = 0,
    standardisation: str = "own",
    workers: int = 0,
) -> Data:
    """Prepared data from `path`; UserError if it is missing, damaged, of another dataset, source or `settings`.

    Args:
        path: the file.
        dataset: whose data they must be.
        settings: of the dataset, as the run has them.
        input_size: height and width at which networks see the images; 0 for the dataset's own.
        standardisation: by whose mean and standard deviation: the dataset's own, or those of another.
        workers: processes that decode a streamed dataset ahead.
    """
    overrides = [f"dataset={dataset}"] if dataset else []
    overrides += [f"dataset.{key}={json.dumps(value)}" for key, value in (settings or {}).items()]
    command = f"spaced-kd prepare {' '.join(overrides) or 'dataset=...'}"
    stored, about = array_file.read(path, remedy=f"make it with `{command}`")
    made = about.get("settings", {})
    for key, value in (settings or {}).items():
        if made.get(key, value) != value:
            raise UserError(f"{path} was prepared with {key}={made[key]}, not {value}: delete it and prepare it again")
    if about["dataset"] != (dataset or about["dataset"]):
        raise UserError(f"{path} holds {about['dataset']}, not {dataset}: delete it and prepare it again")
    if about.get("prepared_by") not in (None, sources.of_prepare(about["dataset"])):  # none: before it was kept
        file = registry.plugin("datasets", about["dataset"]).path.name
        raise UserError(
            f"{path} was prepared before {file} changed: delete it and prepare it again; finished runs stay valid if"
            " the same data come out"
        )
    module = registry.find("datasets", about["dataset"])
    if is_index(stored):
        paths = {split: stored[f"{split}_files"] for split in SPLITS}
        names = {split: table.view(f"S{table.shape[1]}")[:, 0] for split, table in paths.items()}
        images = {split: Files(Path(about["source"]), names[split], module.SIZE, workers) for split in SPLITS}
    else:
        images = {split: torch.from_numpy(stored[f"{split}_images"]) for split in SPLITS}
    if 0 < input_size < (own := images["train"].shape[1]):
        raise UserError(f"input_size is {input_size}, but the images have {own} pixels already: leave it out")
    mean, std = STANDARDISATIONS.get(standardisation, (module.MEAN, module.STD))
    return Data(
        images=images,
        labels={split: torch.from_numpy(stored[f"{split}_labels"]) for split in SPLITS},
        classes=int(stored["train_labels"].max()) + 1,
        checksum=about["checksum"],
        mean=mean,
        std=std,
        path=path,
        input_size=input_size,
    )


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and description of prepared data; UserError if the file is missing or damaged."""
    return array_file.read(path, remedy="make it with `spaced-kd prepare` and the run's dataset and settings")


def save(path: Path, content: dict[str, np.ndarray], **about: object) -> str:
    """Write prepared data with a description; gives its checksum."""
    return array_file.save(path, content, **about)
