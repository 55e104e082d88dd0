"""Images that do not fit in memory: read and decoded on demand, ahead of time in worker processes.

The output of a worker depends on its key alone, so results are equal to the bit for any number of workers.
"""

import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms.v2 import functional as tv

from spaced_kd.utils.errors import UserError

POLL = 1.0  # seconds


class Files:
    """Image files that replace a uint8 tensor (N, size, size, 3): `[ids]`, `split(n)`, `len` and `to` work alike.

    An image is resized so that its shorter side is 8/7 of `size` (256 pixels for 224), and its centre is cropped: the
    usual preprocessing of test images.

    Args:
        root: folder of the dataset.
        names: bytes (N,), paths below it; an array, since a list of a million would be copied into every worker.
        size: height and width in pixels.
        workers: processes that decode ahead in `split`.

    `waiting` is called about every second while `split` waits for a worker; an exception from it ends the wait.
    """

    def __init__(self, root: Path, names: np.ndarray, size: int, workers: int = 0) -> None:
        self.root, self.names, self.size, self.workers = root, names, size, workers
        self.device = torch.device("cpu")
        self.waiting: Callable[[], None] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As that of the tensor."""
        return len(self), self.size, self.size, 3

    def to(self, device: torch.device) -> "Files":
        """The same files, whose images are moved to `device`."""
        moved = Files(self.root, self.names, self.size, self.workers)
        moved.device, moved.waiting = torch.device(device), self.waiting
        return moved

    def only(self, chosen: Tensor) -> "Files":
        """The files that a mask (N,) chooses, still undecoded."""
        return Files(self.root, self.names[chosen.numpy()], self.size, self.workers)

    def __getitem__(self, ids: Tensor) -> Tensor:
        """uint8 (n, size, size, 3) of the rows `ids` (n,)."""
        return self._middles(ids).to(self.device)

    def split(self, count: int) -> Iterator[Tensor]:
        """All images in order, `count` at a time."""
        for images in in_order(self._middles, torch.arange(len(self)).split(count), self.workers, self.waiting):
            yield images.to(self.device)

    def decode(self, ids: Tensor) -> list[Image.Image]:
        """The images as they are: RGB, each of its own size."""
        return [self._open(int(row)) for row in ids]

    def _middles(self, ids: Tensor) -> Tensor:
        middles = [tv.center_crop(tv.resize(image, self.size * 8 // 7), self.size) for image in self.decode(ids)]
        return torch.from_numpy(np.stack([np.asarray(image) for image in middles]))

    def _open(self, row: int) -> Image.Image:
        path = self.root / self.names[row].decode()
        try:
            with Image.open(path) as file:
                return file.convert("RGB")
        except (OSError, Image.DecompressionBombError):
            raise UserError(f"{path} is missing or damaged: restore it, or prepare the dataset again") from None


def in_order(
    make: Callable[[Any], Tensor], keys: Sequence[Any], workers: int, waiting: Callable[[], None] | None = None
) -> Iterator[Tensor]:
    """make(key) for every key, in order; `workers` processes make them ahead, with 0 each is made on demand.

    Images pass through a pipe: shared memory is small in containers, and its sockets need a short TMPDIR.

    Args:
        make: returns a tensor that depends on its key alone.
        keys: in the order in which they are requested.
        workers: number of processes.
        waiting: called about every second while a worker is awaited; an exception from it ends the wait.
    """
    loader = DataLoader(
        _Made(make, workers),
        sampler=keys,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,  # what is in memory is shared with the workers, not copied
        generator=torch.Generator(),  # its own: the global one stays as it is
        worker_init_fn=_outlive_the_wish_to_stop if workers else None,
        collate_fn=_as_it_is,  # the default makes shared tensors of arrays
        timeout=POLL if workers else 0,
    )
    loaded = iter(loader)
    try:
        while True:
            made = _next(loaded, waiting)
            if made is None:
                return
            if isinstance(made, UserError):
                raise made
            yield torch.from_numpy(made) if isinstance(made, np.ndarray) else made
    finally:
        if workers:
            loaded._shutdown_workers()
            for process in loaded._workers:  # a hanging process does not react to SIGTERM
                process.kill()


def _next(loaded: Iterator[Any], waiting: Callable[[], None] | None) -> Any:
    """The next item, None at the end; calls `waiting` at each timeout of the DataLoader."""
    while True:
        try:
            return next(loaded, None)
        except RuntimeError as error:
            if "DataLoader timed out" not in str(error):
                raise
        if waiting:
            waiting()


def _outlive_the_wish_to_stop(_: int) -> None:
    """Let a worker ignore SIGTERM, which a whole process group gets: the main process ends its workers itself."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _as_it_is(made: Any) -> Any:
    return made


class _Made:
    """The DataLoader's dataset; a UserError is returned as a value, since DataLoader would wrap it in a traceback."""

    def __init__(self, make: Callable[[Any], Tensor], workers: int) -> None:
        self.make, self.workers = make, workers

    def __getitem__(self, key: Any) -> Tensor | np.ndarray | UserError:
        try:
            made = self.make(key)
        except UserError as error:
            return error
        return made.numpy() if self.workers else made
