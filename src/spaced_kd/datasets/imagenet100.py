"""ImageNet-100: 126,689 training and 5,000 validation images of 100 classes of ILSVRC2012, streamed at 224x224.

The validation images are the test set. The paper names no classes; those in imagenet100.txt are the literature's common
choice, from Tian et al. 2020, "Contrastive Multiview Coding" (HobbitLong/CMC at bc687a2).
"""

from pathlib import Path

import numpy as np

from spaced_kd.data import Shape
from spaced_kd.image_folder import MEAN, SIZE, STD, augment, download, index

__all__ = ["MEAN", "SIZE", "STD", "augment", "download", "prepare", "shape"]

CLASSES = Path(__file__).with_suffix(".txt")


def shape() -> Shape:
    """Numbers of training images, test images and classes, and the size in pixels."""
    return Shape(126_689, 5_000, 100, SIZE)


def prepare(source: Path) -> dict[str, np.ndarray]:
    """The index of the dataset: files and labels of the classes in imagenet100.txt, see `image_folder.index`."""
    return index(source, shape(), CLASSES.read_text().split())
