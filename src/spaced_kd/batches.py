"""Batch i is a pure function of (seed, i): order and augmentation included, so replaying a block is `batches[i]` again.

Nothing is buffered: memory does not grow with the interval, and a resumed run needs only the number of its turn.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spaced_kd.data import Data
from spaced_kd.seeding import generator

Augment = Callable[[Tensor, np.random.Generator], Tensor]


class Batch(NamedTuple):
    """One step's images.

    images: standardised float (B, 3, H, W); labels: int64 (B,); ids: int64 (B,), rows of the training set;
    view: number -> the same images under other augmentations; view 0 is `images`.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    view: Callable[[int], Tensor]


class Batches:
    """The training stream: `batches[i]` for i = 0, 1, ...; epoch e is batches e * per_epoch to (e + 1) * per_epoch - 1.

    Each epoch visits every training image once in an order of its own; its last batch is smaller where batch_size does
    not divide the number of images. Order and augmentation have the run's seed, or seeds of their own.
    """

    def __init__(
        self,
        data: Data,
        augment: Augment,
        *,
        batch_size: int,
        seed: int,
        order_seed: int | None = None,
        augmentation_seed: int | None = None,
    ) -> None:
        self.data, self.augment, self.batch_size = data, augment, batch_size
        self.order_seed = seed if order_seed is None else order_seed
        self.augmentation_seed = seed if augmentation_seed is None else augmentation_seed
        self.per_epoch = math.ceil(len(data.labels["train"]) / batch_size)

    def __getitem__(self, index: int) -> Batch:
        epoch, place = divmod(index, self.per_epoch)
        images, labels = self.data.images["train"], self.data.labels["train"]
        ids = self._order(epoch)[place * self.batch_size : (place + 1) * self.batch_size].to(labels.device)

        def view(number: int) -> Tensor:
            purpose = "augmentation" if number == 0 else f"augmentation of view {number}"
            return self.data.normalise(self.augment(images[ids], generator(self.augmentation_seed, purpose, index)))

        return Batch(view(0), labels[ids], ids, view)

    def size(self, index: int) -> int:
        """Number of images of batch `index`, without making it."""
        place = index % self.per_epoch
        return min(self.batch_size, len(self.data.labels["train"]) - place * self.batch_size)

    @lru_cache(maxsize=8)  # noqa: B019 (one object per process); a follower with a long interval comes back to old epochs
    def _order(self, epoch: int) -> Tensor:
        count = len(self.data.labels["train"])
        return torch.from_numpy(generator(self.order_seed, "order", epoch).permutation(count))
