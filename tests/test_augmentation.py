"""Augmentation against torchvision's own transforms, and batches as pure functions of their number."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from spaced_kd.augmentation import random_crop, random_rotation, rotate
from spaced_kd.batches import Batch, Batches
from spaced_kd.data import Data
from spaced_kd.seeding import generator


def noise(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    """Images (count, H, W, 3) without a zero, so that black is what was padded."""
    draws = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, height, width, 3), dtype=torch.uint8, generator=draws)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_random_crop_equals_torchvision(size, flip):
    images = noise(64, *size)
    cropped = random_crop(images, generator(0, "test"), padding=4, flip=flip)
    assert cropped.dtype == torch.uint8
    assert cropped.shape == images.shape
    draws = generator(0, "test")
    offsets = draws.integers(0, 9, size=(2, 64)).T.tolist()
    mirrored = draws.random(64) < 0.5 if flip else np.zeros(64, bool)
    assert not flip or 16 < mirrored.sum() < 48
    for image, result, (top, left), mirror in zip(images, cropped, offsets, mirrored, strict=True):
        expected = tv.crop(tv.pad(image.permute(2, 0, 1), [4]), top, left, *size)
        expected = tv.horizontal_flip(expected) if mirror else expected
        assert torch.equal(result.permute(2, 0, 1), expected)


def test_random_crop_offsets_are_uniform():
    place = torch.arange(1, 82, dtype=torch.uint8).reshape(1, 9, 9, 1).repeat(10_000, 1, 1, 3)
    centre = random_crop(place, generator(0, "test"), padding=4)[
        :, 4, 4, 0
    ]  # each of the 81 shifts shows its own pixel
    counts = torch.bincount(centre.long(), minlength=82)[1:]
    assert len(counts) == 81
    assert counts.min() > 0
    expected = 10_000 / 81
    assert (
        (counts - expected) ** 2 / expected
    ).sum() < 125  # 99.9 % quantile of chi-squared with 80 degrees of freedom


@pytest.mark.parametrize("degrees", [-15, -7.3, -1, 0.5, 3, 11.2, 15, 45, 120])
@pytest.mark.parametrize("size", [(32, 32), (33, 20)])
def test_rotate_equals_torchvision(degrees, size):
    images = noise(8, *size)
    rotated = rotate(images, torch.full((8,), np.radians(degrees)))
    assert rotated.dtype == torch.uint8
    assert rotated.shape == images.shape
    assert (rotated == torchvision_rotate(images, degrees)).float().mean() >= 0.99


@pytest.mark.parametrize("quarters", [-2, -1, 0, 1, 2, 3])
@pytest.mark.parametrize("size", [32, 33])
def test_rotate_by_quarters_is_exact(quarters, size):
    images = noise(8, size, size)
    rotated = rotate(images, torch.full((8,), quarters * np.pi / 2, dtype=torch.float64))
    assert torch.equal(rotated, torch.rot90(images, quarters, (1, 2)))
    assert torch.equal(rotated, torchvision_rotate(images, 90 * quarters))


def torchvision_rotate(images: torch.Tensor, degrees: float) -> torch.Tensor:
    rotated = tv.rotate(images.permute(0, 3, 1, 2), degrees, InterpolationMode.NEAREST)
    return rotated.permute(0, 2, 3, 1)


def test_rotate_turns_each_image_by_its_own_angle():
    images, angles = noise(3), torch.tensor([0.1, -0.2, 1.0])
    rotated = rotate(images, angles)
    for i in range(3):
        assert torch.equal(rotated[i : i + 1], rotate(images[i : i + 1], angles[i : i + 1]))


def test_random_rotation_draws_from_both_sides_and_no_further():
    images = noise(200)
    rotated = random_rotation(images, generator(0, "test"), degrees=15)
    angles = generator(0, "test").uniform(-15, 15, size=200)
    assert angles.min() < -14
    assert angles.max() > 14
    assert torch.equal(rotated, rotate(images, torch.from_numpy(np.radians(angles))))


@pytest.fixture
def data() -> Data:
    images, labels = noise(50, 8, 8), torch.arange(50) % 5
    splits = {"train": images, "test": images[:5]}, {"train": labels, "test": labels[:5]}
    return Data(*splits, classes=5, checksum="", mean=(0.5,) * 3, std=(0.25,) * 3, path=Path())


def crop(images: torch.Tensor, draws: np.random.Generator) -> torch.Tensor:
    return random_crop(images, draws, padding=2, flip=True)


def same(a: Batch, b: Batch) -> bool:
    """Whether images, a further view of them, labels and ids agree to the bit."""
    tensors = [(batch.images, batch.view(1), batch.labels, batch.ids) for batch in (a, b)]
    return all(torch.equal(one, other) for one, other in zip(*tensors, strict=True))


def test_batch_alone_equals_the_batch_in_a_stream(data):
    batches = Batches(data, crop, batch_size=16, seed=0)
    stream = [batches[i] for i in range(12)]  # three epochs
    for i in generator(0, "test").permutation(12).tolist():
        assert same(batches[i], stream[i])
        assert same(Batches(data, crop, batch_size=16, seed=0)[i], stream[i])
        assert not same(Batches(data, crop, batch_size=16, seed=1)[i], stream[i])


def test_each_epoch_visits_every_image_once_in_its_own_order(data):
    batches = Batches(data, crop, batch_size=16, seed=0)
    assert batches.per_epoch == 4
    epochs = [torch.cat([batches[4 * epoch + i].ids for i in range(4)]) for epoch in range(3)]
    for ids in epochs:
        assert torch.equal(ids.sort().values, torch.arange(50))
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])
    assert len(batches[3].ids) == 2


def test_batch_holds_the_images_of_its_ids(data):
    batch = Batches(data, lambda images, draws: images, batch_size=16, seed=0)[5]
    assert torch.equal(batch.labels, data.labels["train"][batch.ids])
    assert batch.images.shape == (16, 3, 8, 8)
    expected = (data.images["train"][batch.ids].permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    torch.testing.assert_close(batch.images, expected)


def test_each_batch_is_augmented_with_draws_of_its_own(data):
    drawn = []

    def record(images: torch.Tensor, draws: np.random.Generator) -> torch.Tensor:
        drawn.append(draws.random())
        return images

    batches = Batches(data, record, batch_size=16, seed=0)
    for i in range(12):
        batches[i]
    assert len(set(drawn)) == 12
