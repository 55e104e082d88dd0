"""Corrupted copies of test images, made once per dataset: the same in any order and on any number of workers.

imagecorruptions draws from numpy's global generator, which is seeded for each (corruption, severity, image) here. It
takes images of 32 pixels or more.
"""

import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from spaced_kd.config.paths import corrupted_path
from spaced_kd.data import dataset
from spaced_kd.data.streaming import in_order
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.library_patches import seeded_corruptions
from spaced_kd.utils.processes import processors
from spaced_kd.utils.seeding import global_seed

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    from imagecorruptions import corrupt, get_corruption_names

NAMES = ("impulse_noise", "zoom_blur", "snow", "frost", "jpeg_compression", "brightness")
SEVERITIES = (1, 3, 5)
SMALLEST = 32  # pixels; imagecorruptions refuses smaller images
PART = 250  # images that a process makes at a time
PACKAGES = ("imagecorruptions", "numpy", "scipy", "scikit-image", "pillow")


def make(
    path: Path,
    images: int,
    *,
    names: Sequence[str] = NAMES,
    severities: Sequence[int] = SEVERITIES,
    workers: int | None = None,
) -> Path:
    """Corrupt the fixed subset of `images` test images of the prepared data at `path`; returns the new file's path.

    `workers` is the number of processes that share the work, by default all processors.
    """
    prepared = dataset.load(path)
    chosen = prepared.subset("test", images)
    clean = prepared.images["test"][chosen].numpy()
    corrupted = corrupt_images(
        clean, chosen.numpy(), names, severities, workers=processors() if workers is None else workers
    )
    content = {"clean/0": clean, **corrupted}
    target = corrupted_path(path, images, names, severities)
    versions = {package: version(package) for package in PACKAGES} | {"opencv": cv2.__version__}
    dataset.save(target, content, source=prepared.checksum, versions=versions)
    return target


def corrupt_images(
    images: np.ndarray,
    ids: np.ndarray,
    names: Sequence[str] = NAMES,
    severities: Sequence[int] = SEVERITIES,
    workers: int = 0,
) -> dict[str, np.ndarray]:
    """Corrupted copies of uint8 images (n, H, W, 3): "name/severity" -> uint8 (n, H, W, 3).

    Args:
        images: those of fewer than 32 pixels are enlarged to 32, corrupted, and reduced again.
        ids: number (n,) of each image in its dataset, which seeds its corruption.
        names: corruptions, by their names in imagecorruptions.
        severities: strengths from 1 to 5.
        workers: processes that share the work; 0 for this one alone.
    """
    for name in names:
        if name not in get_corruption_names("all"):
            raise UserError(f"{name!r} is none of the corruptions: {', '.join(get_corruption_names('all'))}")
    for severity in severities:
        if severity not in range(1, 6):
            raise UserError(f"the severity {severity} is not one of 1, 2, 3, 4, 5")

    def part(key: tuple[str, int, int]) -> torch.Tensor:
        name, severity, start = key
        chosen = zip(images[start : start + PART], ids[start : start + PART], strict=True)
        return torch.from_numpy(np.stack([_corrupt(image, int(number), name, severity) for image, number in chosen]))

    keys = [(name, severity, start) for name in names for severity in severities for start in range(0, len(ids), PART)]
    corrupted = {f"{name}/{severity}": np.empty_like(images) for name in names for severity in severities}
    with seeded_corruptions():
        for (name, severity, start), made in zip(keys, in_order(part, keys, workers), strict=True):
            corrupted[f"{name}/{severity}"][start : start + PART] = made.numpy()
    return corrupted


def _corrupt(image: np.ndarray, number: int, name: str, severity: int) -> np.ndarray:
    size = image.shape[1], image.shape[0]  # as Pillow has it
    if min(size) < SMALLEST:
        scale = SMALLEST / min(size)
        image = _resize(image, tuple(round(scale * length) for length in size), Image.Resampling.BICUBIC)
    with global_seed(0, f"corruption {name} {severity}", number):
        corrupted = corrupt(image, severity, name)
    return corrupted if corrupted.shape[1::-1] == size else _resize(corrupted, size, Image.Resampling.BOX)


def _resize(image: np.ndarray, size: tuple[int, ...], method: Image.Resampling) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize(size, method))
