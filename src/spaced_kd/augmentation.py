"""Random transforms of whole batches of uint8 images, (B, H, W, 3) -> (B, H, W, 3), drawn from the generator given.

One index lookup per batch instead of one Python call per image. Each is tested against torchvision's own transform.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def random_crop(images: Tensor, draws: np.random.Generator, *, padding: int, flip: bool = False) -> Tensor:
    """Crop at a random place of the image padded with black, then mirror it with probability 1/2 if `flip`."""
    count, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding))
    top, left = torch.from_numpy(draws.integers(0, 2 * padding + 1, size=(2, count)))
    rows = top[:, None] + torch.arange(height)  # (B, H)
    columns = left[:, None] + torch.arange(width)  # (B, W)
    if flip:
        mirrored = torch.from_numpy(draws.random(count) < 0.5)
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    which = torch.arange(count)[:, None, None]
    index = (which, rows[:, :, None], columns[:, None, :])
    return padded[tuple(part.to(images.device) for part in index)]


def random_rotation(images: Tensor, draws: np.random.Generator, *, degrees: float) -> Tensor:
    """Rotate each image about its centre by an angle from [-degrees, degrees]: nearest pixel, black outside."""
    angles = draws.uniform(-degrees, degrees, size=len(images))
    return rotate(images, torch.from_numpy(np.radians(angles)))


def rotate(images: Tensor, radians: Tensor) -> Tensor:
    """Rotate image i counter-clockwise by radians[i], as torchvision's `rotate` with nearest interpolation does."""
    count, height, width, _ = images.shape
    cos, sin = radians.cos(), radians.sin()
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    y = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    columns = cos[:, None, None] * x + (-sin)[:, None, None] * y[:, None]  # (B, H, W): where each pixel comes from
    rows = sin[:, None, None] * x + cos[:, None, None] * y[:, None]
    columns = (columns + (width - 1) / 2).round().long()
    rows = (rows + (height - 1) / 2).round().long()
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    index = (torch.arange(count)[:, None, None], rows.clamp(0, height - 1), columns.clamp(0, width - 1))
    rotated = images[tuple(part.to(images.device) for part in index)]
    return rotated * inside[..., None].to(images.device)
