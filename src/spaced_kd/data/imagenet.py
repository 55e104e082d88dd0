"""Shared code of the ILSVRC2012 datasets: ILSVRC2012/train/nXXXXXXXX/*.JPEG and ILSVRC2012/val/nXXXXXXXX/*.JPEG.

Source: Russakovsky et al. 2015, "ImageNet Large Scale Visual Recognition Challenge".
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from spaced_kd.data.augmentation import random_resized_crop
from spaced_kd.data.dataset import Shape, check_classes
from spaced_kd.utils.errors import UserError

# Of each channel over the training images, in [0, 1]: the rounded values in common use, also for parts of ImageNet.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

SIZE = 224
END_OF_JPEG = b"\xff\xd9"
FOLDER = "ILSVRC2012"
WNID = re.compile("n[0-9]{8}")  # the name of a class's folder
FOLDERS = {"train": "train", "test": "val"}  # split -> folder; the published test images have no labels
LICENCE = (
    "its licence forbids to pass it on: register at https://image-net.org/download-images, and unpack"
    f" ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar into {FOLDER}/train/nXXXXXXXX/ and {FOLDER}/val/nXXXXXXXX/"
)


def index(
    source: Path, expected: Shape, wnids: Sequence[str] | None = None, *, sha256: str = ""
) -> dict[str, np.ndarray]:
    """Files and labels of both splits: the prepared data of a streamed dataset.

    Args:
        source: folder with `ILSVRC2012/train/` and `ILSVRC2012/val/`, each with a folder per class.
        expected: required numbers of images and classes.
        wnids: the classes, whose numbers are their places in alphabetical order; None for all.
        sha256: checksum of all classes, where none are given.

    Returns:
        For each split `{split}_files`, uint8 (N, width), paths below `source`, padded with zeros; `{split}_bytes`,
        int64 (N,), the files' sizes; `{split}_labels`, int64 (N,).

    Raises:
        UserError: a folder or an image is missing, or `val` is as it comes, without class folders.
    """
    folder = source / FOLDER
    arrays = {}
    for split, name in FOLDERS.items():
        found = _entries(folder / name)
        if split == "test" and any(_is_image(entry) for entry in found):
            raise UserError(
                f"{folder / name} is flat: move its images into a folder per class, as the script valprep.sh of"
                " soumith/imagenetloader.torch does"
            )
        paths, sizes, labels = [], [], []
        classes = sorted(wnids or [entry.name for entry in found if WNID.fullmatch(entry.name) and entry.is_dir()])
        for label, wnid in enumerate(tqdm(classes, desc=f"list {name}", unit="class", disable=None)):
            for entry in _entries(folder / name / wnid):
                if _is_image(entry):
                    paths.append(f"{FOLDER}/{name}/{wnid}/{entry.name}".encode())
                    sizes.append(entry.stat().st_size)
                    labels.append(label)
        wanted = getattr(expected, split)
        if len(classes) != expected.classes or len(paths) != wanted:
            raise UserError(
                f"{folder / name} has {len(paths)} images in {len(classes)} classes, but must have {wanted} in"
                f" {expected.classes}: unpack ILSVRC2012_img_{name}.tar again"
            )
        if sha256:
            check_classes(classes, sha256, folder / name)
        table = np.array(paths)
        _check_whole(source, paths)
        arrays[f"{split}_files"] = table.view(np.uint8).reshape(len(paths), table.itemsize)
        arrays[f"{split}_bytes"] = np.array(sizes, dtype=np.int64)
        arrays[f"{split}_labels"] = np.array(labels, dtype=np.int64)
    return arrays


def _check_whole(source: Path, names: Sequence[bytes]) -> None:
    """UserError for a truncated image; only an image without JPEG's end marker is decoded for this."""
    for name in names:
        path = source / name.decode()
        try:
            with open(path, "rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - len(END_OF_JPEG)))
                if file.read() == END_OF_JPEG:
                    continue
            with Image.open(path) as image:
                image.load()
        except (OSError, Image.DecompressionBombError) as error:
            raise UserError(f"{path} is damaged ({error}): unpack it again") from None


def augment(images: Sequence[Image.Image] | Tensor, draws: np.random.Generator) -> Tensor:
    """Random part of each image, resized to 224 pixels, mirrored or not."""
    return random_resized_crop(images, draws, size=SIZE)


def download(folder: Path) -> None:
    """UserError with what to do instead."""
    raise UserError(f"ImageNet cannot be downloaded here, {LICENCE}")


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a published image, and not a file of a file manager or an archiver."""
    return entry.name.endswith(".JPEG") and not entry.name.startswith(".") and entry.is_file()


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder, sorted by name."""
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); if you do not have ImageNet: {LICENCE}") from None
