"""Batch i is a pure function of (seed, i), order and augmentation included: replaying a block is `batches[i]` again.

With several processes, a share of a batch is a function of (seed, i, rank, number of processes).

Nothing is buffered: memory does not grow with the interval, and a resumed run needs only the number of its turn.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import copy
from itertools import groupby
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spaced_kd.data.augmentation import Pictures
from spaced_kd.data.dataset import Data
from spaced_kd.data.epochs import batches_per_epoch
from spaced_kd.data.streaming import in_order
from spaced_kd.utils.devices import send
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import generator

KEPT_ORDERS = 8
# uint8 (B, H, W, 3), or network input where standardisation is a part of it
Augment = Callable[[Pictures, np.random.Generator], Tensor]


class Batch(NamedTuple):
    """One step's images.

    images: standardised float (B, 3, H, W); labels: int64 (B,); ids: int64 (B,), rows of the training set;
    view: number -> the same images under other augmentations; view 0 is `images`; epoch: the batch's, from 0;
    before: number -> that view of the batch before this one, and its labels; None for the first batch of all.

    If several processes train together, images are this process's share, while labels, ids and the outputs of networks
    are those of the whole batch.
    """

    images: Tensor
    labels: Tensor
    ids: Tensor
    view: Callable[[int], Tensor]
    epoch: int = 0
    before: Callable[[int], tuple[Tensor, Tensor]] | None = None


class Batches:
    """The training stream: `batches[i]` for i = 0, 1, ...; epoch e is batches e * per_epoch to (e + 1) * per_epoch - 1.

    Each epoch visits every training image once in an order of its own. Where batch_size does not divide their number,
    its last batch is smaller, or left out with its images. Order and augmentation have the run's seed, or their own.

    Args:
        data: the dataset.
        augment: the augmentation of training images.
        batch_size: number of images.
        last_batch: kept or dropped, if the last batch of an epoch is smaller.
        seed: of order and augmentation.
        order_seed: of the order alone; None for `seed`.
        augmentation_seed: of the augmentation alone; None for `seed`.
        device: where batches are used; that of the data where it is not given.
        share: the part of each batch whose images are given, as (number of the process, processes).
    """

    def __init__(
        self,
        data: Data,
        augment: Augment,
        *,
        batch_size: int,
        last_batch: str = "kept",
        seed: int,
        order_seed: int | None = None,
        augmentation_seed: int | None = None,
        device: torch.device | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.data, self.augment, self.batch_size = data, augment, batch_size
        self.rank, self.processes = share
        self.order_seed = seed if order_seed is None else order_seed
        self.augmentation_seed = seed if augmentation_seed is None else augmentation_seed
        self.device = device or data.labels["train"].device
        self.per_epoch = batches_per_epoch(len(data.labels["train"]), batch_size, last_batch)
        self._coming: Iterator[tuple[int, Tensor]] | None = None
        self._last: tuple[int, Tensor] | None = None
        self._first: Batches | None = None  # of the other training, if this is `beside` it
        self._orders: dict[int, Tensor] = {}  # of some epochs; a follower with a long interval comes back to old ones
        if (least := self.size(self.per_epoch - 1)) < self.processes:
            raise UserError(
                f"an epoch's last batch has {least} of {len(data.labels['train'])} images, fewer than the"
                f" {self.processes} processes: give another batch_size"
            )

    def make_ahead(self, indices: Iterable[int], workers: int, waiting: Callable[[], None] | None = None) -> None:
        """Let `workers` processes make batches ahead, in the order of `indices`, in which they are requested then.

        `waiting` is called about every second while a batch is awaited. The batches are the same as without workers. A
        batch that is requested several times in a row is made once.
        """
        order = [index for index, _ in groupby(indices)]
        self._coming = zip(order, in_order(self._augmented, order, workers, waiting), strict=True)

    def beside(self) -> "Batches":
        """The same batches for another training in this process: those made ahead that both use at the same time are
        made once, and all others when they are needed."""
        other = copy(self)
        other._first, other._coming = self, None
        return other

    def close(self) -> None:
        """End the processes that make batches ahead; the garbage collector would wait for them."""
        self._coming = self._last = None

    def __getitem__(self, index: int) -> Batch:
        ids = self._ids(index)
        labels = self.data.labels["train"][ids]

        def view(number: int) -> Tensor:
            return self._inputs(index, number).to(self.device)

        def before(number: int) -> tuple[Tensor, Tensor]:
            past = self.data.labels["train"][self._ids(index - 1)]
            return self._inputs(index - 1, number).to(self.device), past.to(self.device)

        images = self._made_ahead(index)
        images = view(0) if images is None else images.to(self.device)
        epoch, last = index // self.per_epoch, before if index else None
        return Batch(images, labels.to(self.device), ids.to(self.device), view, epoch, last)

    def size(self, index: int) -> int:
        """Number of images of batch `index`, without making it."""
        position = index % self.per_epoch
        return min(self.batch_size, len(self.data.labels["train"]) - position * self.batch_size)

    def _made_ahead(self, index: int) -> Tensor | None:
        """The batch, if it is or was made ahead; None if it is to be made now."""
        if self._first:
            last = self._first._last
            return self._as_input(last[1]) if last and last[0] == index else None
        return None if self._coming is None else self._next(index)

    def _next(self, index: int) -> Tensor:
        """The batch made ahead, which must be `index`, or the last one again."""
        if self._last is None or self._last[0] != index:
            self._last = next(self._coming)
        made_for, made = self._last
        if made_for != index:
            raise RuntimeError(f"batch {index} was requested, but {made_for} was announced")
        return self._as_input(made)

    def _inputs(self, index: int, view: int = 0) -> Tensor:
        """A view of a batch as networks see it, where the data lie: float (B, 3, H, W)."""
        return self._as_input(self._augmented(index, view))

    def _augmented(self, index: int, view: int = 0) -> Tensor:
        """A view of a batch as the augmentation gives it: uint8, a quarter of the bytes, but where it standardises."""
        purpose = "augmentation" if view == 0 else f"augmentation of view {view}"
        purpose += f" in share {self.rank} of {self.processes}" if self.processes > 1 else ""
        pictures = self.data.originals("train", self._ids(index).tensor_split(self.processes)[self.rank])
        return self.augment(pictures, generator(self.augmentation_seed, purpose, index))

    def _as_input(self, made: Tensor) -> Tensor:
        return made if made.is_floating_point() else self.data.normalise(made)

    def _ids(self, index: int) -> Tensor:
        epoch, position = divmod(index, self.per_epoch)
        ids = self._order(epoch)[position * self.batch_size : (position + 1) * self.batch_size]
        return send(ids, self.data.labels["train"].device)

    def _order(self, epoch: int) -> Tensor:
        if epoch not in self._orders:
            if len(self._orders) == KEPT_ORDERS:
                del self._orders[min(self._orders)]
            count = len(self.data.labels["train"])
            self._orders[epoch] = torch.from_numpy(generator(self.order_seed, "order", epoch).permutation(count))
        return self._orders[epoch]
