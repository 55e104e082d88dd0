"""ImageNet-1K (ILSVRC2012): 1,281,167 training and 50,000 validation images of 1,000 classes, streamed at 224x224.

The validation images are the test set. Source: Russakovsky et al. 2015; the folder is the user's own.
"""

from pathlib import Path

import numpy as np

from spaced_kd.data.dataset import Shape
from spaced_kd.data.imagenet import MEAN, SIZE, STD, augment, download, index

__all__ = ["MEAN", "SIZE", "STD", "augment", "download", "prepare", "shape"]

CLASSES_SHA256 = "385e0240499426c022b773be1ae4da780f057b89c9694c7f47199f62746b6edd"  # of the sorted wnids


def shape() -> Shape:
    """Numbers of training images, test images and classes, and the size in pixels."""
    return Shape(1_281_167, 50_000, 1000, SIZE)


def prepare(source: Path) -> dict[str, np.ndarray]:
    """The index of the dataset: files and labels of all classes, see `image_folder.index`."""
    return index(source, shape(), sha256=CLASSES_SHA256)
