"""Small copies of the datasets in their published layouts, with images of noise."""

import pickle
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image


class Python2Pickler(pickle._Pickler):
    """Writes text and bytes as Python 2 did, which wrote the published files."""

    def save_text(self, value: str | bytes) -> None:
        content = value if isinstance(value, bytes) else value.encode()
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch = pickle._Pickler.dispatch | {str: save_text, bytes: save_text}


def write_batch(path: Path, batch: object) -> None:
    with path.open("wb") as file:
        Python2Pickler(file, protocol=2).dump(batch)
    path.write_bytes(path.read_bytes().replace(b"numpy._core", b"numpy.core"))  # the module's name before numpy 2


def cifar100(root: Path, *, classes: int, counts: dict[str, int]) -> Path:
    """The folder cifar-100-python with `counts` images of each class per split, in random order."""
    folder = root / "cifar-100-python"
    folder.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for split, count in counts.items():
        labels = draws.permutation(np.repeat(np.arange(classes), count)).tolist()
        data = draws.integers(0, 256, size=(len(labels), 3072), dtype=np.uint8)
        write_batch(folder / split, {"data": data, "fine_labels": labels, "coarse_labels": labels})
    return folder


def tiny_imagenet(root: Path, wnids: Sequence[str], *, train: int, val: int) -> Path:
    """The folder tiny-imagenet-200 with `train` and `val` images of each class; each class's first is grey."""
    folder = root / "tiny-imagenet-200"
    draws = np.random.default_rng(0)
    for wnid in wnids:
        for i in range(train):
            path = folder / "train" / wnid / "images" / f"{wnid}_{i}.JPEG"
            write_jpeg(path, draws, 64, 64, channels=1 if i == 0 else 3)
    lines = []
    for i in range(val * len(wnids)):
        write_jpeg(folder / "val" / "images" / f"val_{i}.JPEG", draws, 64, 64)
        lines.append(f"val_{i}.JPEG\t{wnids[-1 - i % len(wnids)]}\t0\t0\t63\t63\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    (folder / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in wnids))
    return folder


def imagenet(root: Path, wnids: Sequence[str], *, train: int, val: int) -> Path:
    """The folder ILSVRC2012 with `train` and `val` images of each class: of many sizes, also grey and CMYK."""
    folder = root / "ILSVRC2012"
    draws = np.random.default_rng(0)
    for wnid in wnids:
        for i in range(train):
            height, width = draws.integers(40, 120, size=2)
            path = folder / "train" / wnid / f"{wnid}_{i}.JPEG"
            write_jpeg(path, draws, height, width, channels={0: 1, 1: 4}.get(i, 3))
        for i in range(val):
            write_jpeg(folder / "val" / wnid / f"ILSVRC2012_val_{i:08d}.JPEG", draws, 50, 80)
    return folder


def write_jpeg(path: Path, draws: np.random.Generator, height: int, width: int, channels: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = draws.integers(0, 256, size=(height, width, channels), dtype=np.uint8)
    Image.fromarray(noise.squeeze(), mode="CMYK" if channels == 4 else None).save(path, "JPEG")
