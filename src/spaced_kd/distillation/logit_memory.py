"""What a method remembers from turn to turn: a table of logits that never learns and is kept in every resume state."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from spaced_kd.utils.devices import free_memory
from spaced_kd.utils.errors import UserError


class Sizes(NamedTuple):
    """What a method may need to know of a training to size its memory."""

    images: int  # training images
    classes: int
    batch_size: int
    epochs: int


class LogitMemory(nn.Module):
    """What a network said last, row by row: float32 (rows, classes), zeros before.

    `sizes`: of the training. It takes 4 x rows x classes bytes on the device and in each of the two resume states on
    disk, and two copies more on the host while one is written.

    Raises:
        UserError: the device has less memory free.
    """

    COPIES = 3  # on the host while a resume state is written: the table, and two of it as bytes

    said: Tensor

    def __init__(self, rows: int, sizes: Sizes) -> None:
        super().__init__()
        self.sizes, device = sizes, torch.get_default_device()
        needed, free = 4 * rows * sizes.classes, free_memory(device)
        if free is not None and needed * (self.COPIES if device.type == "cpu" else 1) > free:
            raise UserError(
                f"remembering {sizes.classes} logits of {rows} images takes {needed:,} bytes"
                f"{', and three times that while a state is written' if device.type == 'cpu' else ''},"
                f" but {device} has {free:,} free: give the run more memory, or fewer images"
            )
        self.register_buffer("said", torch.zeros(rows, sizes.classes))

    @torch.no_grad()
    def write(self, rows: Tensor | slice, logits: Tensor) -> None:
        """Replace rows by logits (B, classes)."""
        self.said[rows] = logits.detach().float()
