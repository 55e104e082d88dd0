"""Handwritten digits that ship with scikit-learn: 1,797 real images of 8x8, enlarged to RGB; for demos and tests.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998 (the test part).
"""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from spaced_kd.data.augmentation import random_crop
from spaced_kd.data.dataset import Shape
from spaced_kd.utils.seeding import generator

MEAN = STD = (0.5, 0.5, 0.5)
RANGES = {"train_per_class": "[1, 182]", "split": "[0, inf)", "size": "[8, 256]"}
COUNTS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)  # images of each digit


def prepare(source: Path, *, train_per_class: int = 30, split: int = 0, size: int = 32) -> dict[str, np.ndarray]:
    """The four arrays of the dataset; `train_per_class` images of each class train, all others test.

    Args:
        source: unused, the images come with scikit-learn.
        train_per_class: training images of each of the ten classes.
        split: seed of the stratified split.
        size: height and width of the enlarged images, in pixels.
    """
    from sklearn.datasets import load_digits  # costs 2.5 s, and is needed once

    bunch = load_digits()
    small = (bunch.images * (255 / 16)).round().astype(np.uint8)
    large = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in small]
    images = np.repeat(np.stack(large)[..., None], 3, axis=-1)
    labels = bunch.target.astype(np.int64)
    order = generator(split, "digits split").permutation(len(labels))
    train = np.sort(np.concatenate([order[labels[order] == digit][:train_per_class] for digit in range(10)]))
    test = np.setdiff1d(np.arange(len(labels)), train)
    return {
        "train_images": images[train],
        "train_labels": labels[train],
        "test_images": images[test],
        "test_labels": labels[test],
    }


def shape(*, train_per_class: int = 30, split: int = 0, size: int = 32) -> Shape:
    """What `prepare` will give."""
    train = sum(min(train_per_class, count) for count in COUNTS)
    return Shape(train, sum(COUNTS) - train, len(COUNTS), size)


def augment(images: Tensor, draws: np.random.Generator) -> Tensor:
    """Random crop from a border of two pixels; no flip, which would make other characters of digits."""
    return random_crop(images, draws, padding=2)
