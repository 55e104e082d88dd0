"""Numbers of batches and images of an epoch, without torch."""

import math
from pathlib import Path

import numpy as np

from spaced_kd.utils import array_file
from spaced_kd.utils.errors import UserError


def batches_per_epoch(images: int, batch_size: int, last_batch: str = "kept") -> int:
    """Number of batches of an epoch of `images` images; UserError if the only batch is dropped."""
    if last_batch == "kept":
        return math.ceil(images / batch_size)
    if images < batch_size:
        raise UserError(
            f"last_batch is dropped, but batch_size is {batch_size} and there are {images} training images, so no batch"
            " is left: lower batch_size"
        )
    return images // batch_size


def images_of(prepared: Path, held_out: float) -> int:
    """Training images of prepared data, less the share of each class that is held out; UserError if damaged."""
    labels = array_file.read_one(prepared, "train_labels", remedy="delete it and prepare it again")
    return len(labels) - sum(round(held_out * int(count)) for count in np.bincount(labels))
