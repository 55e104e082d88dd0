"""Augmentation against torchvision's own transforms, and batches as pure functions of their number."""

import dataclasses
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision import transforms
from torchvision.transforms import v2
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from spaced_kd.config import registry
from spaced_kd.config.run_spec import from_flat
from spaced_kd.data import augmentation
from spaced_kd.data.augmentation import cutout, random_crop, random_resized_crop, random_rotation, rotate, strong
from spaced_kd.data.batches import Batch, Batches
from spaced_kd.data.dataset import Data
from spaced_kd.data.loading import make_augment
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import generator, global_seed


def noise(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    """Images (count, H, W, 3) without a zero, so that black is what was padded."""
    draws = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, height, width, 3), dtype=torch.uint8, generator=draws)


@pytest.mark.parametrize("fill", [0, 128])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_random_crop_equals_torchvision(size, flip, fill):
    images = noise(64, *size)
    cropped = random_crop(images, generator(0, "test"), padding=4, flip=flip, fill=fill)
    assert cropped.dtype == torch.uint8
    assert cropped.shape == images.shape
    draws = generator(0, "test")
    offsets = draws.integers(0, 9, size=(2, 64)).T.tolist()
    mirrored = draws.random(64) < 0.5 if flip else np.zeros(64, bool)
    assert not flip or 16 < mirrored.sum() < 48
    for image, result, (top, left), mirror in zip(images, cropped, offsets, mirrored, strict=True):
        expected = tv.crop(tv.pad(image.permute(2, 0, 1), [4], fill=fill), top, left, *size)
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


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_cutout_equals_torchvisions_erase(size):
    images = noise(300, *size)
    holed = cutout(images, generator(0, "test"), length=16)
    assert holed.dtype == torch.uint8
    rows, columns = generator(0, "test").integers(0, [[size[0]], [size[1]]], size=(2, 300))
    assert {0, size[0] - 1} < set(rows.tolist())  # every pixel may be the centre
    for image, result, row, column in zip(images, holed, rows, columns, strict=True):
        top, bottom = max(row - 8, 0), min(row + 8, size[0])
        left, right = max(column - 8, 0), min(column + 8, size[1])
        expected = tv.erase(image.permute(2, 0, 1), top, left, bottom - top, right - left, torch.zeros(1))
        assert torch.equal(result.permute(2, 0, 1), expected)


def by_hand(transform, pictures, draws: np.random.Generator) -> list:
    """What a library's transform makes of pictures, one after the other."""
    with global_seed(int(draws.integers(2**63)), "transforms of a library"):
        return [transform(picture) for picture in pictures]


def test_autoaugment_cutout_is_torchvisions_between_crop_and_cutout():
    images, draws = noise(40), generator(0, "test")
    made = augmentation.autoaugment_cutout(images, generator(0, "test"))
    assert made.dtype == torch.uint8
    assert made.shape == images.shape
    cropped = random_crop(images, draws, padding=4, flip=True, fill=128)
    policy = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10, fill=128)
    pictures = by_hand(policy, [Image.fromarray(image.numpy()) for image in cropped], draws)
    expected = cutout(torch.stack([torch.from_numpy(np.array(each)) for each in pictures]), draws, length=16)
    assert torch.equal(made, expected)
    changed = [not np.array_equal(np.array(each), image) for each, image in zip(pictures, cropped, strict=True)]
    assert sum(changed) > 20


def test_strong_is_the_chain_of_timms_transforms():
    """As DeiT and the released code have it; beside RandAugment timm leaves colour jitter out."""
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    fill = tuple(round(255 * channel) for channel in mean)
    chain = transforms.Compose(
        [
            RandomResizedCropAndInterpolation(48, interpolation="bicubic"),
            transforms.RandomHorizontalFlip(),
            rand_augment_transform(
                "rand-m9-mstd0.5-inc1",
                {"translate_const": int(48 * 0.45), "img_mean": fill, "interpolation": Image.Resampling.BICUBIC},
            ),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
            RandomErasing(0.25, mode="pixel", device="cpu"),
        ]
    )
    images = noise(60)
    made = strong(images, generator(0, "test"), size=48, mean=mean, std=std)
    expected = by_hand(chain, [Image.fromarray(image.numpy()) for image in images], generator(0, "test"))
    assert made.shape == (60, 3, 48, 48)
    assert torch.equal(made, torch.stack(expected))
    outside = ((made * torch.tensor(std)[:, None, None] + torch.tensor(mean)[:, None, None] - 0.5).abs() > 0.51).any(1)
    assert 6 < outside.flatten(1).any(1).sum() < 25  # noise about the mean leaves [0, 1]: a quarter of the images


def test_strong_knows_every_strength_that_timm_draws():
    """RandAugment keeps no bit of one image in seven hundred, which Pillow 13 refuses: it must be black, as before."""
    made = strong(noise(3000, 8, 8), generator(0, "test"), size=8, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert 0 < (made == 0).flatten(1).all(1).sum() < 15


def test_random_resized_crop_is_torchvisions_on_pictures_of_any_size():
    pictures = [Image.fromarray(noise(1, 40 + i, 70 - i)[0].numpy()) for i in range(30)]
    made = random_resized_crop(pictures, generator(0, "test"), size=24)
    chain = transforms.Compose([transforms.RandomResizedCrop(24), transforms.RandomHorizontalFlip()])
    expected = by_hand(chain, pictures, generator(0, "test"))
    assert torch.equal(made, torch.stack([torch.from_numpy(np.array(each)) for each in expected]))


RECIPES = {
    "autoaugment_cutout": augmentation.autoaugment_cutout,
    "strong": lambda images, draws: strong(images, draws, size=32, mean=(0.5,) * 3, std=(0.2,) * 3),
    "random_resized_crop": lambda images, draws: random_resized_crop(images, draws, size=32),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_libraries_draw_from_the_generator_given_and_leave_the_global_ones_alone(recipe):
    def states() -> tuple:
        return random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()

    images, before = noise(10), states()
    first, again, other = (RECIPES[recipe](images, generator(seed, "test")) for seed in (0, 0, 1))
    assert states() == before
    assert torch.equal(first, again)
    assert all(not torch.equal(one, two) for one, two in zip(first, other, strict=True))


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


def inputs(images: torch.Tensor, draws: np.random.Generator) -> torch.Tensor:
    """Augmentation that ends in network input: no standardisation follows."""
    return crop(images, draws).permute(0, 3, 1, 2).float()


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("augment", [crop, inputs])
def test_batches_made_ahead_are_the_same_whatever_the_number_of_workers(data, workers, augment):
    plain = Batches(data, augment, batch_size=16, seed=0)
    order = [2, 2, 3, 4, 3, 9, 0]
    ahead = Batches(data, augment, batch_size=16, seed=0)
    ahead.make_ahead(order, workers)
    for i in order:
        assert same(ahead[i], plain[i])
    with pytest.raises(StopIteration):
        ahead[1]


def test_a_batch_that_was_not_announced_is_refused(data):
    batches = Batches(data, crop, batch_size=16, seed=0)
    batches.make_ahead([4, 5], workers=0)
    with pytest.raises(RuntimeError, match="batch 5 was requested, but 4 was announced"):
        batches[5]


def test_a_batch_made_ahead_is_made_once_for_turns_in_a_row(data):
    made = []

    def record(images: torch.Tensor, draws: np.random.Generator) -> torch.Tensor:
        made.append(1)
        return images

    batches = Batches(data, record, batch_size=16, seed=0)
    batches.make_ahead([0, 0, 1, 1, 0], workers=0)
    for i in (0, 0, 1, 1, 0):
        batches[i]
    assert len(made) == 3


def test_networks_see_images_at_the_input_size(data):
    larger = dataclasses.replace(data, input_size=20)
    assert (data.image_size, larger.image_size) == (8, 20)
    pixels = data.images["train"].permute(0, 3, 1, 2) / 255
    expected = (tv.resize(pixels, [20, 20], InterpolationMode.BILINEAR) - 0.5) / 0.25
    torch.testing.assert_close(larger.normalise(data.images["train"]), expected)
    torch.testing.assert_close(larger.normalise(pixels), expected)
    assert Batches(larger, crop, batch_size=16, seed=0)[0].images.shape == (16, 3, 20, 20)
    already = larger.normalise(tv.resize(pixels, [20, 20]))
    assert already.shape == (50, 3, 20, 20)


@pytest.mark.parametrize("dataset", ["tiny_imagenet", "digits"])
def test_the_key_rotation_follows_the_datasets_own_augmentation(dataset):
    spec = from_flat({"dataset": dataset, "network": "resnet_mini", "method": "baseline", "seed": 0, "rotation": 15.0})
    images = torch.from_numpy(generator(1, "test").integers(0, 256, (6, 32, 32, 3), dtype=np.uint8))
    made = make_augment(spec, None)(images, generator(0, "test"))
    draws = generator(0, "test")
    plain = registry.find("datasets", dataset).augment(images, draws)
    assert torch.equal(made, random_rotation(plain, draws, degrees=15))
    assert not torch.equal(made, plain)
    with pytest.raises(UserError, match=r"^rotation is 15, but augmentation is strong: leave one of them out$"):
        from_flat(spec.changed() | {"augmentation": "strong"})
    with pytest.raises(UserError, match=r"^rotation is 181, but must be from 0 to 180 degrees$"):
        from_flat(spec.changed() | {"rotation": 181.0})
