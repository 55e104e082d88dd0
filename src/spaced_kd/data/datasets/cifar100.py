"""CIFAR-100: 50,000 training and 10,000 test images of 100 classes, 32x32 RGB, from the published Python archive.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, technical report, University of Toronto,
2009; https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz.
"""

import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
from torch import Tensor

from spaced_kd.data.augmentation import random_crop, random_rotation
from spaced_kd.data.dataset import Shape
from spaced_kd.data.download import fetch
from spaced_kd.utils.errors import UserError

# Of each channel over all pixels of the training set, in [0, 1]: the rounded values in common use.
MEAN = (0.5071, 0.4865, 0.4409)
STD = (0.2673, 0.2564, 0.2762)

URL = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
MIRRORS = (URL, "https://dataset.bj.bcebos.com/cifar/cifar-100-python.tar.gz")  # the second is PaddlePaddle's
SHA256 = "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"
FOLDER = "cifar-100-python"
ARCHIVE = f"{FOLDER}.tar.gz"
MD5 = {
    ARCHIVE: "eb9058c3a382ffc7106e4002c42a8d85",
    "train": "16019d7e3df5f24257cddd939b257f8d",
    "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
}
CLASSES = 100
PER_CLASS = {"train": 500, "test": 100}
GLOBALS = {  # all that the published files name: what rebuilds an array
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


def prepare(source: Path) -> dict[str, np.ndarray]:
    """The four arrays of the dataset, in the published order and with the published numbers of the fine classes.

    Args:
        source: folder with `cifar-100-python.tar.gz`, or with `cifar-100-python/` unpacked from it.

    Raises:
        UserError: neither is there and whole, or it does not hold what it should. One of both will do.
    """
    arrays = {}
    for split, (path, content) in _files(source).items():
        images, labels = _decode(path, split, content)
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    return arrays


def shape() -> Shape:
    """What `prepare` will give."""
    return Shape(PER_CLASS["train"] * CLASSES, PER_CLASS["test"] * CLASSES, CLASSES, 32)


def augment(images: Tensor, draws: np.random.Generator) -> Tensor:
    """Random crop from a border of four pixels, mirrored or not, then a rotation by up to 15 degrees either way."""
    return random_rotation(random_crop(images, draws, padding=4, flip=True), draws, degrees=15)


def download(folder: Path) -> None:
    """Fetch the published archive into `folder`, unless it is there."""
    fetch(MIRRORS, folder / ARCHIVE, sha256=SHA256)


def _files(source: Path) -> dict[str, tuple[Path, bytes]]:
    """Split -> (path to name in messages, verified content)."""
    folder, archive = source / FOLDER, source / ARCHIVE
    if folder.is_dir():
        try:
            return {split: (folder / split, _verified(folder / split, _read(folder / split))) for split in PER_CLASS}
        except UserError:
            if not archive.is_file():
                raise
    if not archive.is_file():
        raise UserError(
            f"{source} has neither {ARCHIVE} nor the folder {FOLDER}: download {URL} there, or add --download"
        )
    content = io.BytesIO(_verified(archive, _read(archive)))
    with tarfile.open(fileobj=content) as tar:
        members = {split: tar.extractfile(f"{FOLDER}/{split}").read() for split in PER_CLASS}
    return {split: (archive / split, _verified(archive / split, member)) for split, member in members.items()}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): download {URL} again") from None


def _verified(path: Path, content: bytes) -> bytes:
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != MD5[path.name]:
        raise UserError(f"{path} is truncated or altered (its md5 is not {MD5[path.name]}): download {URL} again")
    return content


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds arrays and plain Python values; any other global is refused before it is imported."""

    def find_class(self, module: str, name: str) -> object:
        try:
            return GLOBALS[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}") from None


def _decode(path: Path, split: str, content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """uint8 images (N, 32, 32, 3) and int64 labels (N,) of one verified file."""
    try:
        batch = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
    except pickle.UnpicklingError as error:
        raise UserError(f"{path} is no CIFAR-100 file ({error}): download {URL} again") from None
    pixels, labels = batch[b"data"], np.array(batch[b"fine_labels"], dtype=np.int64)
    counts = np.bincount(labels, minlength=CLASSES)
    if len(pixels) != len(labels) or len(counts) != CLASSES or (counts != PER_CLASS[split]).any():
        raise UserError(
            f"{path} must have {PER_CLASS[split]} images of each of {CLASSES} classes, "
            f"but has {len(pixels)} images and {counts.min()} to {counts.max()} labels of each of {len(counts)}: "
            f"download {URL} again"
        )
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels  # published as channel, row, column
