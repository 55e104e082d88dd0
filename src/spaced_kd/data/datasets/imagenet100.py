"""ImageNet-100: 126,689 training and 5,000 validation images of 100 classes of ILSVRC2012, streamed at 224x224.

The validation images are the test set. The paper names no classes; those in imagenet100.txt are the literature's common
choice, from Tian et al. 2020, "Contrastive Multiview Coding" (HobbitLong/CMC at bc687a2).
"""

from pathlib import Path

import numpy as np

from spaced_kd.data.dataset import Shape, check_classes
from spaced_kd.data.imagenet import MEAN, SIZE, STD, augment, download, index

__all__ = ["MEAN", "SIZE", "STD", "augment", "download", "prepare", "shape"]

CLASSES = Path(__file__).with_suffix(".txt")
CLASSES_SHA256 = "b06db93f7ac2851ef476c162d6c4cbba17197be0269c88005add46486f682cb0"


def shape() -> Shape:
    """Numbers of training images, test images and classes, and the size in pixels."""
    return Shape(126_689, 5_000, 100, SIZE)


def prepare(source: Path) -> dict[str, np.ndarray]:
    """The index of the dataset: files and labels of the classes in imagenet100.txt, see `image_folder.index`."""
    wnids = CLASSES.read_text("utf-8").split()
    check_classes(wnids, CLASSES_SHA256, CLASSES)
    return index(source, shape(), wnids)
