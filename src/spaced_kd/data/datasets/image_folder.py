"""A plain folder of images by class: train/CLASS/*.png, and val/CLASS/*.png or test/CLASS/*.png as the test set.

The setting `folder` names it below the folder of data, so that data of one's own need no Python.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from spaced_kd.data.augmentation import random_crop
from spaced_kd.data.dataset import Shape
from spaced_kd.utils.array_file import digest
from spaced_kd.utils.devices import free_memory
from spaced_kd.utils.errors import UserError

MEAN = STD = (0.5, 0.5, 0.5)  # of images that nobody has measured; the run's key `standardisation` has others
RANGES = {"size": "[4, 1024]"}
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp")
NAME = re.compile(r"[\w.-]+(/[\w.-]+)*")
LAYOUT = "train/CLASS/*.png and val/CLASS/*.png or test/CLASS/*.png"
SPLITS = ("train", "test")


def prepare(
    source: Path, *, folder: str, size: int = 64, test: Literal["either", "val", "test"] = "either", sha256: str = ""
) -> dict[str, np.ndarray]:
    """The arrays of the dataset; a class's number is the place of its name in alphabetical order.

    Besides images and labels, `classes` and `{split}_names` have the names of classes and files as bytes in UTF-8, a
    line each: they are a part of the checksum that each run records.

    Args:
        source: folder of all data.
        folder: name of the folder of images in it.
        size: height and width in pixels; images are resized (bicubic) until their shorter side has it, and the middle
            is cut out.
        test: which folder holds the test images, where there are both val and test.
        sha256: first digits of the checksum that `prepare` must come to; as a setting it is in the ids of runs. Empty:
            not checked.

    Raises:
        UserError: there is no such folder, its classes are not those of the test images, an image cannot be read, or
            its checksum is another.
    """
    found = _found(_root(source, folder), test)
    names = sorted({label for label, _ in found["train"]})
    needed, free = 3 * size**2 * sum(map(len, found.values())), free_memory(torch.device("cpu"))
    if free is not None and 3 * needed > free:  # the arrays, and as bytes of the file
        raise UserError(
            f"image_folder.size is {size}, with which the images of {folder} take {needed / 1e9:,.1f} GB, and three"
            f" times that while they are written, but {free / 1e9:,.1f} GB are free: lower it"
        )
    arrays = {"classes": _text(names)}
    for split, files in found.items():
        images = [_decoded(path, size) for _, path in tqdm(files, desc=f"decode {split}", unit="image", disable=None)]
        arrays[f"{split}_images"] = np.stack(images)
        arrays[f"{split}_labels"] = np.array([names.index(label) for label, _ in files], dtype=np.int64)
        arrays[f"{split}_names"] = _text([f"{label}/{path.name}" for label, path in files])
    print(f"{folder}: sha256 {(made := digest(arrays))[:16]}")
    if not made.startswith(sha256):
        raise UserError(
            f"image_folder.sha256 is {sha256}, but {folder} comes to {made[:16]}: bring the right images, or give that,"
            " which makes other runs"
        )
    return arrays


def shape(
    source: Path = Path("data"),
    *,
    folder: str,
    size: int = 64,
    test: Literal["either", "val", "test"] = "either",
    sha256: str = "",
) -> Shape:
    """What `prepare` will give, by the names of the files; UserError as there."""
    found = _found(_root(source, folder), test)
    return Shape(len(found["train"]), len(found["test"]), len({label for label, _ in found["train"]}), size)


def augment(images: Tensor, draws: np.random.Generator) -> Tensor:
    """Random crop from a border of an eighth of the size, mirrored or not."""
    return random_crop(images, draws, padding=max(1, images.shape[1] // 8), flip=True)


def example(folder: Path) -> dict[str, object]:
    """Write a tiny folder of two classes; gives the settings that go with it."""
    for split, count in {"train": 2, "val": 1}.items():
        for label, shade in {"dark": 60, "light": 200}.items():
            for number in range(count):
                path = folder / "images" / split / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40, 36), (shade, shade, 40 * number)).save(path)
    return {"folder": "images", "size": 32}


def _root(source: Path, folder: str) -> Path:
    """The folder itself; UserError for a path that another machine would not have, or a name that labels cannot."""
    if not NAME.fullmatch(folder) or ".." in Path(folder).parts:
        raise UserError(
            f"image_folder.folder is {folder!r}, but must be the name of a folder in that of all data, {source}"
            " (--source, or a study's key data), of letters, digits, -, _ and ."
        )
    return source / folder


def _found(root: Path, test: str) -> dict[str, list[tuple[str, Path]]]:
    """(class, file) of each image of both splits, in alphabetical order."""
    if not root.is_dir():
        raise UserError(f"{root} does not exist: lay images out as {LAYOUT} in it")
    there = [name for name in ("val", "test") if (root / name).is_dir()]
    if test == "either" and len(there) == 2:
        raise UserError(f"{root} has both val and test: say which is the test set by dataset.test=val or =test")
    name = test if test != "either" else there[0] if there else "val"
    found = {split: list(_images(root / part)) for split, part in zip(SPLITS, ("train", name), strict=True)}
    train, others = ({label for label, _ in found[split]} for split in SPLITS)
    if len(train) < 2:
        raise UserError(f"{root / 'train'} has {len(train)} classes, but needs two: a folder of images for each")
    if strange := sorted(train ^ others):
        here, lacks = ("train", name) if strange[0] in train else (name, "train")
        raise UserError(
            f"class {strange[0]!r} has images in {root / here}, but none in {root / lacks}: both need the same classes"
        )
    return found


def _images(folder: Path) -> Iterator[tuple[str, Path]]:
    """(class, file) of the images of a split; hidden files and other kinds of files are none."""
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: lay images out as {LAYOUT}")
    for inner in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = [path for path in inner.iterdir() if path.suffix.lower() in ENDINGS and not path.name.startswith(".")]
        if not files:
            raise UserError(f"{inner} has no image ({', '.join(ENDINGS)}): add some, or remove the folder")
        yield from ((inner.name, path) for path in sorted(files))


def _decoded(path: Path, size: int) -> np.ndarray:
    """uint8 (size, size, 3)."""
    try:
        with Image.open(path) as image:
            if image.mode[0] in "IF":
                raise UserError(f"{path} has more than 8 bits per channel: save it with 8")
            whole = image.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path} cannot be read ({error}): restore it, or remove it") from None
    return np.asarray(ImageOps.fit(whole, (size, size), Image.Resampling.BICUBIC))


def _text(lines: list[str]) -> np.ndarray:
    return np.frombuffer("\n".join(lines).encode(), dtype=np.uint8)
