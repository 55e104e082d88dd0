"""The contract of a dataset: the functions and constants of its file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from spaced_kd.data.dataset import Shape


class Dataset(Protocol):
    """A module. It may also have `SIZE`, `download` and `example`.

    `SIZE` is the height and width of the images of a streamed dataset. `download(folder)` fetches the published files.
    `example(folder)` writes a small copy in the published layout, with which tests train every network.

    Attributes:
        MEAN: of each channel, in [0, 1].
        STD: standard deviation of each channel, in [0, 1].
    """

    MEAN: tuple[float, ...]
    STD: tuple[float, ...]

    def prepare(self, source: Path, **settings: Any) -> dict[str, np.ndarray]:
        """The arrays `train_images`, `test_images` (uint8, (N, H, W, 3)), `train_labels`, `test_labels` (int64, (N,)).

        A dataset that does not fit in memory returns `train_files` and `test_files`, arrays of paths, and no images.

        Args:
            source: folder of the published files.
            settings: keyword-only, each with a type and a plain default, by name.

        Raises:
            UserError: a published file is missing or damaged.
        """

    def shape(self, **settings: Any) -> Shape:
        """Numbers of images and classes, and the size, from the same settings and without a file."""

    def augment(self, images: Tensor, draws: np.random.Generator) -> Tensor:
        """A uint8 batch (B, H, W, 3), transformed at random; random numbers come from `draws` only.

        A streamed dataset is given B pictures of any size instead.
        """


def download_of(module: Dataset) -> Callable[[Path], None] | None:
    """The function `download` of a dataset; None where its file has none."""
    return vars(module).get("download")
