"""Corrupted images are a function of image and number alone."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import cv2
import numpy as np
import pytest
import skimage.util
from imagecorruptions import corrupt
from PIL import Image

from spaced_kd.config import registry
from spaced_kd.data import dataset
from spaced_kd.data.corruptions import NAMES, SEVERITIES, corrupt_images, make
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import generator, global_seed

IDS = np.array([3, 8, 20, 21, 40, 77])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return generator(0, "test images").integers(0, 256, (len(IDS), 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def corrupted(images) -> dict[str, np.ndarray]:
    return corrupt_images(images, IDS)


def same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def test_every_corruption_changes_every_image_more_with_severity(images, corrupted):
    assert list(corrupted) == [f"{name}/{severity}" for name in NAMES for severity in SEVERITIES]
    for name in NAMES:
        copies = [corrupted[f"{name}/{severity}"] for severity in SEVERITIES]
        assert all(copy.dtype == np.uint8 and copy.shape == images.shape for copy in copies)
        changes = [np.abs(copy - images.astype(float)).mean(axis=(1, 2, 3)) for copy in copies]
        assert min(change.min() for change in changes) > 0
        assert changes[0].mean() < changes[-1].mean()


@pytest.mark.parametrize("name", registry.plugin("evaluations", "corruptions").constants["RANGES"]["names"])
def test_every_corruption_on_offer_is_made_again_alike(images, name):
    made = corrupt_images(images[:2], IDS[:2], [name], (1, 5))
    assert same(made, corrupt_images(images[:2], IDS[:2], [name], (1, 5)))
    assert all((copy != images[:2]).any(axis=(1, 2, 3)).all() for copy in made.values())


@pytest.mark.parametrize("shape", [(16, 16), (16, 24)])
def test_images_below_the_library_s_size_are_corrupted_at_that_size(images, shape):
    height, width = shape
    small = images[:2, :height, :width]
    made = corrupt_images(small, IDS[:2], ("brightness",), (3,))["brightness/3"]
    for image, number, found in zip(small, IDS, made, strict=False):
        large = np.asarray(Image.fromarray(image).resize((2 * width, 2 * height), Image.Resampling.BICUBIC))
        with global_seed(0, "corruption brightness 3", int(number)):
            expected = Image.fromarray(corrupt(large, 3, "brightness"))
        assert np.array_equal(found, np.asarray(expected.resize((width, height), Image.Resampling.BOX)))


def test_the_order_of_images_does_not_matter(images, corrupted):
    order = np.array([5, 2, 0, 4, 1, 3])
    shuffled = corrupt_images(images[order], IDS[order])
    assert same({key: array[order] for key, array in corrupted.items()}, shuffled)


def test_an_image_alone_is_corrupted_alike(images, corrupted):
    alone = corrupt_images(images[4:5], IDS[4:5])
    assert same({key: array[4:5] for key, array in corrupted.items()}, alone)


def test_workers_make_what_this_process_makes(images, corrupted, monkeypatch):
    monkeypatch.setattr("spaced_kd.data.corruptions.PART", 4)  # of six images
    names, severities = ("impulse_noise", "frost"), (1, 5)
    made = corrupt_images(images, IDS, names, severities, workers=2)
    assert same(made, {key: corrupted[key] for key in made})
    assert list(made) == [f"{name}/{severity}" for name in names for severity in severities]


@pytest.mark.slow
def test_two_processes_make_what_one_makes(images, corrupted):
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        halves = list(pool.map(corrupt_images, (images[:3], images[3:]), (IDS[:3], IDS[3:])))
    assert same(corrupted, {key: np.concatenate([halves[0][key], halves[1][key]]) for key in corrupted})


def test_each_image_has_its_own_noise(images):
    alike = np.repeat(images[:1], 3, axis=0)
    for key, array in corrupt_images(alike, np.array([0, 1, 0]), ("impulse_noise", "snow", "frost"), (3,)).items():
        assert not np.array_equal(array[0], array[1]), key
        assert np.array_equal(array[0], array[2]), key


def test_the_library_is_followed_where_it_can_be_seeded(images, corrupted):
    for key in corrupted.keys() - {f"impulse_noise/{severity}" for severity in SEVERITIES}:
        name, severity = key.split("/")
        with global_seed(0, f"corruption {name} {severity}", int(IDS[2])):
            assert np.array_equal(corrupted[key][2], corrupt(images[2], int(severity), name)), key


def test_impulse_noise_replaces_the_share_of_values_that_the_library_states():
    grey = np.full((20, 32, 32, 3), 128, dtype=np.uint8)
    noisy = corrupt_images(grey, np.arange(20), ("impulse_noise",), (1, 5))
    for severity, share in ((1, 0.03), (5, 0.27)):
        replaced = noisy[f"impulse_noise/{severity}"]
        assert set(np.unique(replaced)) == {0, 128, 255}
        assert (replaced != 128).mean() == pytest.approx(share, abs=0.01)


def test_libraries_and_global_generators_are_left_as_they_were(images):
    before = np.random.get_state()[1].copy(), skimage.util.random_noise, cv2.imread
    corrupt_images(images[:1], IDS[:1], ("impulse_noise", "frost"), (1,))
    assert np.array_equal(np.random.get_state()[1], before[0])
    assert (skimage.util.random_noise, cv2.imread) == before[1:]


def test_make_writes_what_the_evaluation_reads(tmp_path):
    draws = generator(0, "test data")
    pixels = draws.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    content = {f"{split}_images": pixels for split in dataset.SPLITS}
    content |= {f"{split}_labels": np.arange(40) % 10 for split in dataset.SPLITS}
    checksum = dataset.save(tmp_path / "some.safetensors", content, dataset="digits")
    path = make(tmp_path / "some.safetensors", 8, severities=(1, 5))

    stored, about = dataset.read(path)
    assert about["source"] == checksum
    assert {"imagecorruptions", "numpy", "pillow", "opencv"} <= about["versions"].keys()
    loaded = dataset.load(tmp_path / "some.safetensors")
    chosen = loaded.subset("test", 8).numpy()
    assert np.array_equal(stored.pop("clean/0"), pixels[chosen])
    assert same(stored, corrupt_images(pixels[chosen], chosen, NAMES, (1, 5)))
    corrupted = {(name, severity) for name in NAMES for severity in (1, 5)}
    assert set(loaded.corrupted(8, severities=(5, 1))) == {("clean", 0), *corrupted}

    with pytest.raises(UserError, match=r"corrupted-8.safetensors does not exist.*--corrupt 8`"):
        loaded.corrupted(8)
    assert make(tmp_path / "some.safetensors", 8) == tmp_path / "some.corrupted-8.safetensors" != path

    first = path.read_bytes()
    make(tmp_path / "some.safetensors", 8, severities=(1, 5))
    assert path.read_bytes() == first


@pytest.mark.parametrize(
    ("size", "names", "severities", "part"),
    [
        (32, ("rain",), SEVERITIES, "'rain' is none of the corruptions: gaussian_noise"),
        (32, NAMES, (0,), "the severity 0 is not one of 1"),
    ],
)
def test_mistakes_are_named(size, names, severities, part):
    with pytest.raises(UserError, match=part):
        corrupt_images(np.zeros((1, size, size, 3), dtype=np.uint8), np.array([0]), names, severities)
