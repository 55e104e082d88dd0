"""The memory of a method: a table of logits, without gradient, that every resume state contains."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from spaced_kd.utils.devices import free_memory
from spaced_kd.utils.errors import UserError


class Sizes(NamedTuple):
    """The sizes of a training, from which a method computes the size of its memory."""

    images: int  # training images
    classes: int
    batch_size: int
    epochs: int


class LogitMemory(nn.Module):
    """The latest logits of each row: float32 (rows, classes), initialised to zero.

    It takes 4 x rows x classes bytes on the device and in each of the two resume states on disk, and two more copies on
    the host while a state is written.

    Args:
        rows: rows of the table.
        sizes: sizes of the training.

    Raises:
        UserError: the device does not have enough free memory.
    """

    COPIES = 3  # on the host while a resume state is written: the table, and two of it as bytes

    said: Tensor  # the logits; digests of methods and resume states contain this name, so it stays

    def __init__(self, rows: int, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, device = sizes, torch.get_default_device()
        needed, free = 4 * rows * sizes.classes, free_memory(device)
        if free is not None and needed * (self.COPIES if device.type == "cpu" else 1) > free:
            raise UserError(
                f"storing {sizes.classes} logits of {rows} images takes {needed:,} bytes"
                f"{', and three times that while a state is written' if device.type == 'cpu' else ''},"
                f" but {device} has {free:,} free: give the run more memory, or fewer images"
            )
        self.register_buffer("said", torch.zeros(rows, sizes.classes))

    @torch.no_grad()
    def write(self, rows: Tensor | slice, logits: Tensor) -> None:
        """Replace rows by logits (B, classes)."""
        self.said[rows] = logits.detach().float()
