"""Random transforms of batches of uint8 images, (B, H, W, 3) -> (B, H, W, 3), drawn from a given generator.

The simple ones are one index lookup per batch instead of one Python call per image, and each is tested against
torchvision's transform. The others are torchvision's and timm's, image by image, with global generators that are seeded
from the given one and restored; they also take pictures of any size, as in streamed datasets.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from spaced_kd.utils.devices import send
from spaced_kd.utils.library_patches import posterize_of_no_bits
from spaced_kd.utils.seeding import global_seed

Pictures = Sequence[Image.Image] | Tensor  # B pictures of any size, or uint8 (B, H, W, 3)
GREY = 128


def autoaugment_cutout(images: Tensor, draws: np.random.Generator) -> Tensor:
    """The released self KD's on CIFAR-100 (S1): crop from a grey border, flip, AutoAugment for CIFAR-10, Cutout of 16.

    Sources: Cubuk et al. 2019, "AutoAugment"; DeVries and Taylor 2017 (Cutout).
    """
    cropped = random_crop(images, draws, padding=4, flip=True, fill=GREY)
    policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, fill=GREY)
    return cutout(_one_by_one(policy, cropped, draws), draws, length=16)


def strong(
    images: Pictures, draws: np.random.Generator, *, size: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> Tensor:
    """The transformers' (released code, after DeiT): timm's own transform; network input, float (B, 3, size, size).

    A random part resized to `size` (bicubic), flip, RandAugment (rand-m9-mstd0.5-inc1), and after standardisation a
    rectangle of normal noise with probability 1/4. Colour jitter of 0.4 is passed on as there, but timm leaves it out
    beside RandAugment.

    Sources: Touvron et al. 2021 (DeiT); Cubuk et al. 2020 (RandAugment); Zhong et al. 2020 (random erasing).
    """
    transform = _timm_transform(size, mean, std)
    with _seeded(draws):
        made = torch.stack([transform(picture) for picture in _pictures(images)])
    return made.contiguous(memory_format=torch.channels_last)


def random_resized_crop(images: Pictures, draws: np.random.Generator, *, size: int) -> Tensor:
    """A part of 8 to 100 % of the area and of sides 3:4 to 4:3, resized to `size`, mirrored with probability 1/2."""
    return _one_by_one(v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()]), images, draws)


def cutout(images: Tensor, draws: np.random.Generator, *, length: int) -> Tensor:
    """Black out a square of side `length` centred at a random pixel of each image, clipped at the border."""
    count, height, width, _ = images.shape
    rows, columns = draws.integers(0, [[height], [width]], size=(2, count))

    def covered(centres: np.ndarray, side: int) -> Tensor:
        first = torch.from_numpy(centres)[:, None] - length // 2
        place = torch.arange(side)
        return (first <= place) & (place < first + length)  # (B, side)

    hole = covered(rows, height)[:, :, None] & covered(columns, width)[:, None, :]
    return images * ~send(hole[..., None], images.device)


def random_crop(
    images: Tensor, draws: np.random.Generator, *, padding: int, flip: bool = False, fill: int = 0
) -> Tensor:
    """Crop at a random place of the image padded with `fill`, then mirror it with probability 1/2 if `flip`."""
    count, height, width, _ = images.shape
    padded = F.pad(images, (0, 0, padding, padding, padding, padding), value=fill)
    top, left = torch.from_numpy(draws.integers(0, 2 * padding + 1, size=(2, count)))
    rows = top[:, None] + torch.arange(height)  # (B, H)
    columns = left[:, None] + torch.arange(width)  # (B, W)
    if flip:
        mirrored = torch.from_numpy(draws.random(count) < 0.5)
        columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    which = torch.arange(count)[:, None, None]
    index = (which, rows[:, :, None], columns[:, None, :])
    return padded[tuple(send(part, images.device) for part in index)]


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
    rotated = images[tuple(send(part, images.device) for part in index)]
    return rotated * send(inside[..., None], images.device)


@cache
def _timm_transform(size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[[Image.Image], Tensor]:
    from timm.data import create_transform  # costs a second

    with posterize_of_no_bits():
        return create_transform(
            size,
            is_training=True,
            color_jitter=0.4,
            auto_augment="rand-m9-mstd0.5-inc1",
            interpolation="bicubic",
            re_prob=0.25,
            re_mode="pixel",
            mean=mean,
            std=std,
        )


def _one_by_one(transform: v2.Transform, images: Pictures, draws: np.random.Generator) -> Tensor:
    """uint8 (B, H, W, 3) of pictures transformed to one size, with random numbers that `draws` seeds."""
    with _seeded(draws):
        made = [np.asarray(transform(picture)) for picture in _pictures(images)]
    return torch.from_numpy(np.stack(made))


def _pictures(images: Pictures) -> Sequence[Image.Image]:
    """PIL images: the libraries' transforms work on them, and faster than on small tensors."""
    return [Image.fromarray(image) for image in images.numpy()] if isinstance(images, Tensor) else images


def _seeded(draws: np.random.Generator) -> AbstractContextManager[None]:
    """The libraries' global generators, seeded by a draw."""
    return global_seed(int(draws.integers(2**63)), "transforms of a library")
