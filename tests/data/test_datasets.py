"""Datasets from small copies in the published layouts, and every mistake a user can make with them."""

import hashlib
import os
import pickle
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import PIL
import published
import pytest
import torch
from PIL import Image

from spaced_kd.config import registry
from spaced_kd.data.dataset import Shape, check, classes_digest
from spaced_kd.data.datasets import cifar100, digits, tiny_imagenet
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import generator

Arrays = dict[str, np.ndarray]
PUBLISHED = "d62f1695044f84bb950eede7ea3d0d9abe080d876c75da883400a080544ee2a1"  # another decoder may round otherwise
PARTS = Path(__file__).parents[3] / "shared" / "data"


def message(call: Callable[[], object]) -> str:
    """The one line that a mistake ends in."""
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def same(first: Arrays, second: Arrays) -> bool:
    return first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def shape_of(arrays: Arrays) -> Shape:
    """What `shape` must have said of them."""
    train = arrays["train_labels"]
    return Shape(len(train), len(arrays["test_labels"]), int(train.max()) + 1, arrays["train_images"].shape[1])


def fingerprints(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


@pytest.mark.parametrize("module", [digits, cifar100, tiny_imagenet])
def test_augment_keeps_type_and_shape_and_follows_its_draws(module):
    images = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    first, again, other = (module.augment(images, generator(seed, "test")) for seed in (0, 0, 1))
    assert first.dtype == torch.uint8
    assert first.shape == images.shape
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# digits


@pytest.mark.parametrize("train_per_class", [3, 30, 177, 182])  # there are 174 eights and 183 threes
def test_digits_have_the_shape_that_is_reported_before(train_per_class):
    arrays = digits.prepare(Path(), train_per_class=train_per_class)
    assert digits.shape(train_per_class=train_per_class) == shape_of(arrays)


def test_digits_are_split_by_class_without_overlap():
    arrays = digits.prepare(Path(), train_per_class=30)
    check(arrays)
    assert np.bincount(arrays["train_labels"]).tolist() == [30] * 10
    assert len(arrays["test_labels"]) == 1797 - 300
    assert not fingerprints(arrays["train_images"]) & fingerprints(arrays["test_images"])
    assert same(arrays, digits.prepare(Path(), train_per_class=30))
    assert not same(arrays, digits.prepare(Path(), train_per_class=30, split=1))


# CIFAR-100


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar(tmp_path, monkeypatch) -> Path:
    """Source folder with the archive, and `unpacked/` with the folder, of three classes."""
    counts = {"train": 4, "test": 2}
    monkeypatch.setattr(cifar100, "CLASSES", 3)
    monkeypatch.setattr(cifar100, "PER_CLASS", counts)
    folder = published.cifar100(tmp_path / "unpacked", classes=3, counts=counts)
    archive = tmp_path / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    files = {path.name: md5(path) for path in (archive, folder / "train", folder / "test")}
    monkeypatch.setattr(cifar100, "MD5", files)
    return tmp_path


def replace_batch(source: Path, monkeypatch, split: str, batch: object) -> None:
    """Write an unpacked file anew, with a checksum that passes."""
    path = source / "unpacked" / "cifar-100-python" / split
    published.write_batch(path, batch)
    monkeypatch.setitem(cifar100.MD5, split, md5(path))


def test_cifar100_reads_archive_and_folder_alike(cifar):
    arrays = cifar100.prepare(cifar)
    check(arrays)
    assert cifar100.shape() == shape_of(arrays)
    assert same(arrays, cifar100.prepare(cifar / "unpacked"))
    with (cifar / "unpacked" / "cifar-100-python" / "test").open("rb") as file:
        batch = pickle.load(file, encoding="bytes")
    assert arrays["test_labels"].tolist() == batch[b"fine_labels"]
    assert arrays["test_images"].shape == (6, 32, 32, 3)
    for channel in range(3):  # 1,024 red pixels row by row, then green, then blue
        assert arrays["test_images"][5, 2, 7, channel] == batch[b"data"][5, 1024 * channel + 32 * 2 + 7]


def test_published_shapes():
    assert cifar100.shape() == Shape(50_000, 10_000, 100, 32)
    assert tiny_imagenet.shape() == Shape(100_000, 10_000, 200, 64)


def test_cifar100_missing(tmp_path):
    assert "has neither cifar-100-python.tar.gz nor the folder" in message(lambda: cifar100.prepare(tmp_path))


def test_cifar100_truncated_archive(cifar):
    archive = cifar / "cifar-100-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:-100])
    assert f"{archive} is truncated or altered" in message(lambda: cifar100.prepare(cifar))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_cifar100_takes_a_good_archive_beside_a_damaged_folder(cifar, damage):
    whole = cifar100.prepare(cifar)
    shutil.copytree(cifar / "unpacked" / "cifar-100-python", cifar / "cifar-100-python")
    damage(cifar / "cifar-100-python" / "test")
    assert same(whole, cifar100.prepare(cifar))
    (cifar / "cifar-100-python.tar.gz").unlink()
    assert f"{cifar / 'cifar-100-python' / 'test'} " in message(lambda: cifar100.prepare(cifar))


def test_cifar100_altered_member(cifar, monkeypatch):
    monkeypatch.setitem(cifar100.MD5, "test", "0" * 32)
    text = message(lambda: cifar100.prepare(cifar))
    assert "cifar-100-python.tar.gz/test is truncated or altered (its md5 is not 00000" in text


def test_cifar100_incomplete_folder(cifar):
    path = cifar / "unpacked" / "cifar-100-python" / "test"
    path.unlink()
    assert f"{path} cannot be read (No such file" in message(lambda: cifar100.prepare(cifar / "unpacked"))


@pytest.mark.parametrize(
    ("labels", "images"),
    [([0, 0, 1, 1, 2], 5), ([0, 0, 0, 1, 1, 2], 6), ([0, 0, 1, 1, 2, 2, 3, 3], 8), ([0, 0, 1, 1, 2, 2], 5)],
)
def test_cifar100_wrong_counts(cifar, monkeypatch, labels, images):
    batch = {b"data": np.zeros((images, 3072), np.uint8), b"fine_labels": labels}
    replace_batch(cifar, monkeypatch, "test", batch)
    text = message(lambda: cifar100.prepare(cifar / "unpacked"))
    assert "cifar-100-python/test must have 2 images of each of 3 classes, but has" in text
    assert f"{images} images" in text


class Payload:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.mark}'",)


@pytest.mark.parametrize("checksum_matches", [True, False])
def test_cifar100_never_executes_what_a_pickle_names(cifar, monkeypatch, checksum_matches):
    published = cifar100.MD5["train"]
    replace_batch(cifar, monkeypatch, "train", Payload(cifar / "executed"))
    if not checksum_matches:
        monkeypatch.setitem(cifar100.MD5, "train", published)
    text = message(lambda: cifar100.prepare(cifar / "unpacked"))
    assert ("is no CIFAR-100 file (it names posix.system)" if checksum_matches else "truncated or altered") in text
    assert not (cifar / "executed").exists()


# Tiny-ImageNet

WNIDS = ["n00000007", "n00000003", "n00000009", "n00000001"]  # as published, not sorted


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Path:
    """The folder tiny-imagenet-200 with four classes of six training and two validation images of noise."""
    for name, value in {"CLASSES": 4, "TRAIN_PER_CLASS": 6, "VAL_PER_CLASS": 2}.items():
        monkeypatch.setattr(tiny_imagenet, name, value)
    monkeypatch.setattr(tiny_imagenet, "CLASSES_SHA256", classes_digest(WNIDS))
    return published.tiny_imagenet(tmp_path, WNIDS, train=6, val=2)


def prepare_tiny(folder: Path, **settings: int) -> Arrays:
    return tiny_imagenet.prepare(folder.parent, **{"classes": 4, "train_per_class": 6} | settings)


def decode(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_tiny_imagenet_complete(tiny):
    arrays = prepare_tiny(tiny)
    check(arrays)
    assert arrays["train_images"].shape == (24, 64, 64, 3)
    assert arrays["train_labels"].tolist() == np.repeat(range(4), 6).tolist()
    for i, wnid in enumerate(WNIDS):
        path = tiny / "train" / wnid / "images" / f"{wnid}_0.JPEG"
        assert (arrays["train_images"][6 * i] == decode(path)).all()  # a grey one
    assert arrays["test_labels"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    for image, name in zip(arrays["test_images"], (3, 7, 2, 6, 1, 5, 0, 4), strict=True):
        assert (image == decode(tiny / "val" / "images" / f"val_{name}.JPEG")).all()


def test_tiny_imagenet_accepts_the_folder_itself(tiny):
    assert same(prepare_tiny(tiny), tiny_imagenet.prepare(tiny, classes=4, train_per_class=6))


@pytest.mark.parametrize("settings", [{}, {"classes": 2}, {"train_per_class": 4, "size": 16}])
def test_tiny_imagenet_has_the_shape_that_is_reported_before(tiny, settings):
    text = tiny_imagenet.shape(**{"classes": 4, "train_per_class": 6} | settings)
    assert text == shape_of(prepare_tiny(tiny, **settings))


def test_tiny_imagenet_subset_is_fixed_and_disjoint(tiny):
    arrays, complete = prepare_tiny(tiny, train_per_class=4), prepare_tiny(tiny)
    check(arrays)
    assert np.bincount(arrays["train_labels"]).tolist() == [4] * 4
    assert np.bincount(arrays["test_labels"]).tolist() == [2 + 2] * 4
    train, test = fingerprints(arrays["train_images"]), fingerprints(arrays["test_images"])
    assert not train & test
    assert train | test == fingerprints(complete["train_images"]) | fingerprints(complete["test_images"])
    assert same(arrays, prepare_tiny(tiny, train_per_class=4))
    smaller = prepare_tiny(tiny, train_per_class=3)
    assert fingerprints(smaller["train_images"]) < train  # sizes are comparable: more images, not other images


def test_tiny_imagenet_first_classes(tiny):
    arrays, complete = prepare_tiny(tiny, classes=2), prepare_tiny(tiny)
    assert same(arrays, {key: array[: len(array) // 2] for key, array in complete.items()})


def test_tiny_imagenet_smaller_pixels_are_means_of_areas(tiny):
    small, large = (prepare_tiny(tiny, size=size)["train_images"] for size in (32, 64))
    means = large.reshape(24, 32, 2, 32, 2, 3).mean((2, 4))
    assert np.abs(small - means).max() <= 1  # Pillow rounds after rows and after columns


@pytest.mark.parametrize(("name", "value"), [("classes", 0), ("classes", 5), ("train_per_class", 7), ("size", 65)])
def test_tiny_imagenet_setting_out_of_range(tiny, name, value):
    text = message(lambda: prepare_tiny(tiny, **{name: value}))
    assert f"tiny_imagenet.{name} is {value}, but must be from 1 to" in text


def remove_folder(folder: Path) -> None:
    folder.rename(folder.with_name("elsewhere"))


def remove_wnids(folder: Path) -> None:
    (folder / "wnids.txt").unlink()


def sort_wnids(folder: Path) -> None:
    (folder / "wnids.txt").write_text("\n".join(sorted(WNIDS)))


def double_wnid(folder: Path) -> None:
    (folder / "wnids.txt").write_text("\n".join([*WNIDS[:3], WNIDS[0]]))


def remove_training_image(folder: Path) -> None:
    (folder / "train" / WNIDS[1] / "images" / f"{WNIDS[1]}_4.JPEG").unlink()


def remove_annotations(folder: Path) -> None:
    (folder / "val" / "val_annotations.txt").unlink()


def rearrange(folder: Path) -> None:
    remove_annotations(folder)
    (folder / "val" / "images").rename(folder / "val" / WNIDS[0])


def rearrange_below_images(folder: Path) -> None:
    (folder / "val" / "images" / WNIDS[0]).mkdir()


def remove_validation_images(folder: Path) -> None:
    shutil.rmtree(folder / "val" / "images")


def annotate(*changes: tuple[str, str]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "val" / "val_annotations.txt"
        text = path.read_text()
        for old, new in changes:
            text = text.replace(old, new)
        path.write_text(text)

    return change


def truncate_image(folder: Path) -> None:
    path = folder / "val" / "images" / "val_5.JPEG"
    path.write_bytes(path.read_bytes()[:1000])


def replace_image_with_text(folder: Path) -> None:
    (folder / "val" / "images" / "val_5.JPEG").write_text("404 not found")


def enlarge_image(folder: Path) -> None:
    Image.new("RGB", (96, 64)).save(folder / "val" / "images" / "val_5.JPEG")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (remove_folder, "has no folder tiny-imagenet-200: download http"),
        (remove_wnids, "tiny-imagenet-200/wnids.txt cannot be read (No such file or directory): unpack http"),
        (
            sort_wnids,
            "tiny-imagenet-200/wnids.txt does not have the published classes in their order, and runs on others",
        ),
        (double_wnid, "tiny-imagenet-200/wnids.txt has 3 classes in 4 lines, but must have 4: unpack"),
        (remove_training_image, "train/n00000003/images has 5 images, but must have 6: unpack"),
        (remove_annotations, "val/val_annotations.txt is missing, without it the validation images have no labels"),
        (rearrange, "tiny-imagenet-200/val was rearranged into class folders: unpack"),
        (rearrange_below_images, "tiny-imagenet-200/val was rearranged into class folders: unpack"),
        (
            remove_validation_images,
            "val_annotations.txt: line 1 names val_0.JPEG, which is missing or named before: unpack",
        ),
        (
            annotate(("val_2", "val_1")),
            "val_annotations.txt: line 3 names val_1.JPEG, which is missing or named before",
        ),
        (annotate((WNIDS[2], "n9")), "val_annotations.txt: line 2 names no class of wnids.txt: unpack"),
        (annotate(("\t", " ")), "val_annotations.txt: line 1 names no class of wnids.txt: unpack"),
        (annotate((WNIDS[2], WNIDS[1])), "val_annotations.txt has 4 images of n00000003, but must have 2: unpack"),
        (truncate_image, "val/images/val_5.JPEG cannot be decoded, it is damaged or not readable: unpack"),
        (replace_image_with_text, "val/images/val_5.JPEG cannot be decoded, it is damaged or not readable: unpack"),
        (enlarge_image, "val/images/val_5.JPEG is 96x64, but must be 64x64: unpack"),
    ],
)
def test_tiny_imagenet_mistakes_are_named(tiny, damage, expected):
    damage(tiny)
    assert expected in message(lambda: prepare_tiny(tiny))


def test_tiny_imagenet_defaults_are_the_whole():
    expected = {"classes": 200, "train_per_class": 500, "size": 64}
    assert registry.defaults("datasets", "tiny_imagenet") == expected
    module = (tiny_imagenet.CLASSES, tiny_imagenet.TRAIN_PER_CLASS, tiny_imagenet.SIZE)
    assert module == tuple(expected.values())


@pytest.fixture(scope="session")
def complete(tmp_path_factory) -> Iterator[Path]:
    """A folder with the real Tiny-ImageNet: the one that TINY_IMAGENET names, or unpacked from the archive's parts."""
    if folder := os.environ.get("TINY_IMAGENET"):
        yield Path(folder)
        return
    parts = sorted(PARTS.glob("tiny-imagenet-200.tar.xz.*"))
    if not parts:
        pytest.skip(f"TINY_IMAGENET is not set, and {PARTS} has no archive of Tiny-ImageNet")
    folder = tmp_path_factory.mktemp("published")
    with (folder / "archive").open("wb") as archive:
        for part in parts:
            archive.write(part.read_bytes())
    with tarfile.open(folder / "archive") as tar:
        tar.extractall(folder, filter="data")
    yield folder
    shutil.rmtree(folder)  # pytest would keep 110,000 files


@pytest.mark.slow
def test_tiny_imagenet_published(complete):
    arrays = tiny_imagenet.prepare(complete, classes=5, size=32)
    check(arrays)
    assert tiny_imagenet.shape(classes=5, size=32) == shape_of(arrays)
    assert np.bincount(arrays["train_labels"]).tolist() == [500] * 5
    assert np.bincount(arrays["test_labels"]).tolist() == [50] * 5
    sha = hashlib.sha256(b"".join(arrays[key].tobytes() for key in sorted(arrays)))
    assert sha.hexdigest() == PUBLISHED, f"decoded by Pillow {PIL.__version__}, recorded with 13.0"
