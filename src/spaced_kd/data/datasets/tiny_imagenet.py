"""Tiny-ImageNet: 100,000 training and 10,000 validation images of 200 classes, 64x64 RGB; the latter are the test set.

Source: Y. Le and X. Yang, Tiny ImageNet Visual Recognition Challenge, CS 231N course report, Stanford, 2015;
http://cs231n.stanford.edu/tiny-imagenet-200.zip. The published test images have no labels and are not used.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from spaced_kd.data.augmentation import random_crop
from spaced_kd.data.dataset import Shape, check_classes
from spaced_kd.data.download import fetch, unzip
from spaced_kd.utils.errors import UserError
from spaced_kd.utils.seeding import generator

# Of each channel over all pixels of the 100,000 training images at 64x64, in [0, 1], decoded by Pillow.
MEAN = (0.4802, 0.4481, 0.3975)
STD = (0.2764, 0.2689, 0.2816)

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
MIRRORS = (URL, "https://image-net.org/data/tiny-imagenet-200.zip")
SHA256 = "6198c8ae015e2b3e007c7841da39ec069199b9aa3bfa943a462022fe5e43c821"
FOLDER = "tiny-imagenet-200"
REMEDY = f"unpack {URL} again"
CLASSES = 200
CLASSES_SHA256 = "d9cb11f6be1439ac299ac5047acf001cda5f4dcc9cd17c7323b08389cd3ab7ea"  # of wnids.txt
TRAIN_PER_CLASS = 500
VAL_PER_CLASS = 50
SIZE = 64

Labelled = list[tuple[Path, int]]


def prepare(source: Path, *, classes: int = 200, train_per_class: int = 500, size: int = 64) -> dict[str, np.ndarray]:
    """The four arrays of the dataset, or of a part of it; a class's number is its place in wnids.txt.

    The test set is the validation set and, where `train_per_class` leaves some, the other published training images.

    Args:
        source: folder with `tiny-imagenet-200/` in its published layout, or that folder itself.
        classes: the first so many classes of wnids.txt.
        train_per_class: training images of each class, a fixed random choice where fewer than the 500 published.
        size: height and width in pixels; below 64, each new pixel is the mean of the area that it covers.

    Raises:
        UserError: a setting out of range, a folder not in the published layout, or a damaged image.
    """
    shape(classes=classes, train_per_class=train_per_class, size=size)  # refuses what is out of range
    folder = source if (source / "wnids.txt").exists() else source / FOLDER
    if not folder.is_dir():
        raise UserError(f"{source} has no folder {FOLDER}: download {URL} and unpack it there, or add --download")
    wnids = _wnids(folder)
    published, validation = _training(folder, wnids), _validation(folder, wnids)
    splits: dict[str, Labelled] = {"train": [], "test": []}
    for label, wnid in enumerate(wnids[:classes]):
        order = generator(0, "tiny_imagenet subset", label).permutation(TRAIN_PER_CLASS)
        chosen, others = np.sort(order[:train_per_class]), np.sort(order[train_per_class:])
        splits["train"] += [(published[wnid][i], label) for i in chosen]
        splits["test"] += [(published[wnid][i], label) for i in others] + [(path, label) for path in validation[wnid]]
    arrays = {}
    for split, labelled in splits.items():
        arrays[f"{split}_images"] = _decode([path for path, _ in labelled], size, split)
        arrays[f"{split}_labels"] = np.array([label for _, label in labelled], dtype=np.int64)
    return arrays


def shape(*, classes: int = 200, train_per_class: int = 500, size: int = 64) -> Shape:
    """What `prepare` will give; UserError for a setting out of range."""
    limits = {
        "classes": (classes, CLASSES),
        "train_per_class": (train_per_class, TRAIN_PER_CLASS),
        "size": (size, SIZE),
    }
    for name, (value, limit) in limits.items():
        if not 1 <= value <= limit:
            raise UserError(f"tiny_imagenet.{name} is {value}, but must be from 1 to {limit}")
    others = TRAIN_PER_CLASS - train_per_class
    return Shape(classes * train_per_class, classes * (others + VAL_PER_CLASS), classes, size)


def augment(images: Tensor, draws: np.random.Generator) -> Tensor:
    """Random crop from a border of four pixels, mirrored or not."""
    return random_crop(images, draws, padding=4, flip=True)


def download(folder: Path) -> None:
    """Fetch the published archive into `folder` and unpack it, unless it is unpacked there."""
    if not (folder / FOLDER).exists():
        fetch(MIRRORS, folder / f"{FOLDER}.zip", sha256=SHA256)
        unzip(folder / f"{FOLDER}.zip", FOLDER)


def _wnids(folder: Path) -> list[str]:
    path = folder / "wnids.txt"
    wnids = _lines(path)
    if len(set(wnids)) != CLASSES or len(wnids) != CLASSES:
        raise UserError(
            f"{path} has {len(set(wnids))} classes in {len(wnids)} lines, but must have {CLASSES}: {REMEDY}"
        )
    check_classes(wnids, CLASSES_SHA256, path)
    return wnids


def _training(folder: Path, wnids: list[str]) -> dict[str, list[Path]]:
    """Class -> its training images, sorted by name."""
    found = {}
    for wnid in wnids:
        images = folder / "train" / wnid / "images"
        found[wnid] = sorted(images.glob(f"{wnid}_*.JPEG"))
        if len(found[wnid]) != TRAIN_PER_CLASS:
            raise UserError(f"{images} has {len(found[wnid])} images, but must have {TRAIN_PER_CLASS}: {REMEDY}")
    return found


def _validation(folder: Path, wnids: list[str]) -> dict[str, list[Path]]:
    """Class -> its validation images, in the order of val_annotations.txt."""
    images, annotations = folder / "val" / "images", folder / "val" / "val_annotations.txt"
    if any((folder / "val").glob("n[0-9]*")) or any(images.glob("n[0-9]*")):
        raise UserError(f"{folder / 'val'} was rearranged into class folders: {REMEDY}")
    if not annotations.exists():
        raise UserError(f"{annotations} is missing, without it the validation images have no labels: {REMEDY}")
    present = {path.name for path in images.glob("*.JPEG")}
    found: dict[str, list[Path]] = {wnid: [] for wnid in wnids}
    for number, line in enumerate(_lines(annotations), start=1):
        name, wnid, *_ = [*line.split("\t"), ""]
        if wnid not in found:
            raise UserError(f"{annotations}: line {number} names no class of wnids.txt: {REMEDY}")
        if name not in present:
            raise UserError(f"{annotations}: line {number} names {name}, which is missing or named before: {REMEDY}")
        present.remove(name)
        found[wnid].append(images / name)
    for wnid, paths in found.items():
        if len(paths) != VAL_PER_CLASS:
            raise UserError(f"{annotations} has {len(paths)} images of {wnid}, but must have {VAL_PER_CLASS}: {REMEDY}")
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): {REMEDY}") from None


def _decode(paths: list[Path], size: int, split: str) -> np.ndarray:
    """uint8 (N, size, size, 3); the few grey images get three equal channels."""
    images = np.empty((len(paths), size, size, 3), np.uint8)
    for row, path in zip(images, tqdm(paths, desc=f"decode {split}", unit="image", disable=None), strict=True):
        try:
            with Image.open(path) as file:
                if file.size != (SIZE, SIZE):
                    raise UserError(f"{path} is {file.width}x{file.height}, but must be {SIZE}x{SIZE}: {REMEDY}")
                image = file.convert("RGB")
        except (OSError, Image.DecompressionBombError):
            raise UserError(f"{path} cannot be decoded, it is damaged or not readable: {REMEDY}") from None
        row[:] = image if size == SIZE else image.resize((size, size), Image.Resampling.BOX)
    return images
